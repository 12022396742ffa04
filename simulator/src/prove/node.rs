//! The node under proof: this same program as `serve`, in a process of its own, on free ports, with small settings so that
//! segments, snapshots and deletions happen within a round. It owns the process and what that logs.

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidegate_actors::crash_point::{self, CrashAt};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinHandle,
    time,
};

/// What it is set to besides its places.
const SETTINGS: &[(&str, &str)] = &[
    ("TIDEGATE_DATA__SEGMENT_BYTES", "1MiB"),
    ("TIDEGATE_DATA__JOURNAL_RETENTION_BYTES", "64KiB"),
    ("TIDEGATE_DATA__CHECKPOINT_INTERVAL_MS", "100"),
    ("TIDEGATE_DATA__SLED_CACHE_BYTES", "8MiB"),
];
/// What a node logs once in a start that found damage.
pub(super) const QUARANTINED: &str = "damage was found and set aside";
/// How long the log of a node that has ended is waited for: a worker of it may hold the pipe for a moment.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running node. Dropped: killed.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    log: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
    /// We have killed it; until then it can only have ended by itself.
    killed: bool,
}

/// Where it listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) mqtt: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Node {
    /// Starts it; it kills itself at the crash point, if there is one.
    pub(super) fn start(
        program: &Path,
        dir: &Path,
        data: &Path,
        handlers: &Path,
        crash: Option<CrashAt>,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command
            .args(["serve", "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0"])
            // Two loops on any machine, so that positions of several are at work.
            .args(["--loops", "2", "--script-workers", "1", "--log-format", "json", "--log-level", "info"])
            .arg("--data-dir")
            .arg(data)
            .arg("--handlers")
            .arg(handlers)
            .current_dir(dir)
            .envs(SETTINGS.iter().copied())
            .envs(crash.map(|crash| (crash_point::VARIABLE, crash.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C on the terminal is for the prover: the node dies when and how the round says.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let stderr = child.stderr.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let reader = tokio::spawn(keep_lines(stderr, Arc::clone(&log)));
        Ok(Self { child, stdout: BufReader::new(stdout).lines(), log, reader, killed: false })
    }

    /// Waits until it says that it is ready; `None`: it has ended instead.
    pub(super) async fn ready(&mut self) -> Option<Addresses> {
        while let Ok(Some(line)) = self.stdout.next_line().await {
            let word = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name));
            if let (Some(mqtt), Some(http)) = (word("mqtt="), word("http=http://")) {
                return Some(Addresses { mqtt: mqtt.parse().ok()?, http: http.trim_end_matches('/').parse().ok()? });
            }
        }
        None
    }

    /// How it ended, if it has ended by itself.
    pub(super) fn ended_by_itself(&mut self) -> Option<ExitStatus> {
        if self.killed { None } else { self.child.try_wait().ok().flatten() }
    }

    /// `kill -9`, unless it has ended; it is gone when this returns.
    pub(super) async fn kill(&mut self) {
        self.killed |= self.ended_by_itself().is_none();
        let _ = self.child.kill().await;
    }

    /// SIGTERM; `None`: it has not ended in time.
    pub(super) async fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))?;
        kill_process(pid, Signal::TERM).ok()?;
        self.wait(patience).await
    }

    /// Waits for it to end by itself; `None`: it has not ended in time.
    pub(super) async fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        time::timeout(patience, self.child.wait()).await.ok()?.ok()
    }

    /// What it has logged. Complete once it has ended.
    pub(super) async fn log(&mut self) -> Vec<String> {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) && !self.reader.is_finished() {
            let _ = time::timeout(LAST_WORDS, &mut self.reader).await;
        }
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Was it killed by SIGKILL?
pub(super) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// The message of a line of the log that is an error.
pub(super) fn error_in(line: &str) -> Option<String> {
    match serde_json::from_str::<Value>(line) {
        Ok(line) if line["level"] == "ERROR" => Some(line.to_string()),
        Ok(_) => None,
        // A panic, or the last word of a start that failed.
        Err(_) => Some(line.to_owned()).filter(|line| line.contains("panicked") || line.starts_with("error:")),
    }
}

async fn keep_lines(pipe: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
