//! A real mosquitto on a free port, that can be stopped and started again with what it had.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::eventually;

/// A broker with a directory of its own. Dropped: killed.
pub(crate) struct Mosquitto {
    dir: TempDir,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one with more lines of configuration; `{dir}` in them is its directory.
    #[track_caller]
    pub(crate) fn start(lines: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), lines)
    }

    /// As [`Mosquitto::start`], in a directory that the test has prepared.
    #[track_caller]
    pub(crate) fn start_in(dir: TempDir, lines: &str) -> Self {
        // It may be another's by the time the broker binds it: then the broker ends, and the test says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let mut config = format!("listener {} 127.0.0.1\n", address.port());
        // It saves what it holds when it is told to end (SIGTERM), and so loses nothing of what it has acknowledged.
        let _ = writeln!(config, "persistence true\npersistence_location {}/", dir.path().display());
        config.push_str("max_queued_messages 0\n");
        config.push_str(&lines.replace("{dir}", &dir.path().display().to_string()));
        if !lines.contains("allow_anonymous") {
            config.push_str("\nallow_anonymous true\n");
        }
        if rustix::process::getuid().is_root() {
            // Or it would become a user that cannot read the test's directory.
            config.push_str("\nuser root\n");
        }
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("the configuration is written");
        let mut broker = Self { dir, address, child: None };
        broker.resume();
        broker
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again with what it had.
    #[track_caller]
    pub(crate) fn resume(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        let mut child = Command::new(binary())
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed (test.sh does)");
        eventually("mosquitto listens", || {
            let ended = child.try_wait().expect("the child can be waited for");
            assert!(ended.is_none(), "mosquitto ended: {ended:?} {}", self.log());
            TcpStream::connect(self.address).ok()
        });
        self.child = Some(child);
    }

    /// SIGTERM, and waits until it has saved and ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, Signal::TERM).expect("the child is not reaped yet, so its pid is its own");
        child.wait().expect("it ends");
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Publishes with `mosquitto_pub` at QoS 1, and waits for the PUBACK.
    #[track_caller]
    pub(crate) fn publish(&self, topic: &str, payload: &str, more: &[&str]) {
        let port = self.address.port().to_string();
        let run = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", payload])
            .args(more)
            .output()
            .expect("mosquitto_pub is installed (test.sh does)");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
            eprintln!("---- mosquitto's log\n{}----", &log[from..]);
        }
    }
}

/// Debian puts it where a user's path does not lead.
fn binary() -> PathBuf {
    let beside = PathBuf::from("/usr/sbin/mosquitto");
    if beside.exists() { beside } else { PathBuf::from("mosquitto") }
}
