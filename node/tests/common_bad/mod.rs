//! A real node in a directory of its own, and raw sockets to it. It knows no protocol library: what is sent is what is tested.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running node; killed when it goes out of scope.
pub(crate) struct Node {
    child: Child,
    pub(crate) mqtt: u16,
    pub(crate) http: u16,
    pub(crate) dir: TempDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON; anything else as a string, so that a message shows it.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| Value::from(self.body.as_str()))
    }
}

/// `tidegate` without the developer's variables, in `dir`.
pub(crate) fn tidegate(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(arguments);
    command
}

/// Arguments of a node on free ports.
pub(crate) const SERVE: [&str; 5] = ["serve", "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0"];

/// Runs a command that is expected to end by itself.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut child =
        tidegate(dir, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let ended = eventually(|| child.try_wait().expect("a child of ours").is_some());
    if !ended {
        child.kill().expect("a child of ours");
    }
    let output = child.wait_with_output().expect("its output");
    assert!(ended, "{arguments:?} goes on: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Waits until `found` is true, at most [`PATIENCE`].
pub(crate) fn eventually(mut found: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if found() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    found()
}

impl Node {
    /// Starts a node with these handler files and further arguments.
    pub(crate) fn start(handlers: &[(&str, &str)], arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        if !handlers.is_empty() {
            std::fs::create_dir(dir.path().join("handlers")).expect("a directory");
        }
        for (name, source) in handlers {
            std::fs::write(dir.path().join("handlers").join(name), source).expect("a file");
        }
        Self::start_in(dir, arguments)
    }

    /// Starts a node in a prepared directory.
    pub(crate) fn start_in(dir: TempDir, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).expect("a file");
        let mut child = tidegate(dir.path(), &[&SERVE[..], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
        let port = |before: &str| {
            let rest = line.split_once(before)?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let ports = (port("mqtt=127.0.0.1:"), port("http=http://127.0.0.1:"));
        let (Some(mqtt), Some(http)) = ports else {
            let _ = child.kill();
            panic!("not ready: {line:?} {}", std::fs::read_to_string(dir.path().join("log")).unwrap_or_default());
        };
        Self { child, mqtt, http, dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the node has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("the log")
    }

    /// Sends bytes to a port and reads until the node closes. A reset after an answer is an answer too.
    pub(crate) fn send(port: u16, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the node accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        // The node may close before everything is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
        answer
    }

    /// Sends raw bytes to the HTTP port.
    pub(crate) fn http_raw(&self, bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(&Self::send(self.http, bytes)).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// One request on a connection of its own; `headers` end with line ends.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.http_raw(&[head.as_bytes(), body].concat())
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = self.http_raw(head.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, "", body.as_bytes())
    }

    /// The node lives and still takes and keeps a good reading.
    #[track_caller]
    pub(crate) fn assert_alive(&self, after: &str) {
        assert_eq!(self.get("/livez"), "ok", "after {after}");
        let answer = self.post("/metrics?ack=committed", r#"{"deviceId":"good","t":1}"#);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"deviceId":"good","accepted":1}"#),
            "after {after}"
        );
    }

    /// Stops it as an operator does; returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success(), "SIGTERM");
        assert!(eventually(|| self.child.try_wait().expect("a child of ours").is_some()), "it does not stop");
        self.child.wait().expect("a child of ours").code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
