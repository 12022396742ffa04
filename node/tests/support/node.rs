//! A node as its users run it: the built binary in a process of its own, on free ports, with directories of its own.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    PATIENCE, eventually,
    http::{self, Http, Response},
};

/// The longest that a start may take: a debug build on a busy machine, with handlers to compile.
const START: Duration = Duration::from_secs(60);

/// The directories and settings of a node; it may be started in them again and again.
pub(crate) struct House {
    dir: TempDir,
    variables: Vec<(String, String)>,
    flags: Vec<String>,
    descriptors: Option<u64>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().expect("a temporary directory"))
    }

    /// In a directory that the test has prepared.
    pub(crate) fn in_dir(dir: TempDir) -> Self {
        Self { dir, variables: Vec::new(), flags: Vec::new(), descriptors: None }
    }

    /// With a handler file.
    pub(crate) fn handler(self, name: &str, source: &str) -> Self {
        let path = self.handlers().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("the handlers' directory is made");
        std::fs::write(path, source).expect("the handler is written");
        self
    }

    /// With an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without an environment variable that was set before.
    pub(crate) fn without_variable(mut self, name: &str) -> Self {
        self.variables.retain(|(set, _)| set != name);
        self
    }

    /// With more flags of `serve`.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// With so many file descriptors.
    pub(crate) fn descriptors(self, most: u64) -> Self {
        Self { descriptors: Some(most), ..self }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn handlers(&self) -> PathBuf {
        self.dir.path().join("handlers")
    }

    /// Nobody runs here: the doctor finds the data sound, and every reading of the journal in the counts. Returns the sum.
    #[track_caller]
    pub(crate) fn ledger_balances(&self) -> Value {
        ledger_balances(&self.data())
    }

    /// Starts the node and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Node {
        let mut command = match self.descriptors {
            None => tidegate(self.dir.path()),
            Some(most) => {
                let mut shell = in_dir(Command::new("sh"), self.dir.path());
                let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate")]);
                shell
            }
        };
        // Two loops wherever the test runs, so that devices and connections live on different ones.
        command
            .args(["serve", "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0", "--loops", "2"])
            .arg("--data-dir")
            .arg(self.data())
            .arg("--handlers")
            .arg(self.handlers())
            .args(&self.flags)
            .env("TIDEGATE_SCRIPTS__WORKERS", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Node::spawn(command, self.data())
    }
}

/// What [`House::ledger_balances`] does.
#[track_caller]
fn ledger_balances(data: &Path) -> Value {
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let run = tidegate(elsewhere.path()).args(["doctor", "--json", "--data-dir"]).arg(data).output();
    let run = run.expect("the binary starts");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
    });
    let checks = report["checks"].as_array().expect("a list of checks");
    // The machine's own state (its disk, its limits) is no business of a test.
    for name in ["data directory", "journal", "snapshots", "view", "ledger"] {
        let check =
            checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"));
        assert_eq!(check["status"], "ok", "{check:#}");
    }
    let ledger = checks.iter().find(|check| check["name"] == "ledger").expect("it was there")["details"].clone();
    assert_eq!(ledger["difference"], 0, "{ledger}");
    ledger
}

/// A directory with these files below its handlers' directory.
pub(crate) fn handlers_in(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = dir.path().join("handlers").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    dir
}

/// The built binary, in `dir` and without the developer's own settings.
pub(crate) fn tidegate(dir: &Path) -> Command {
    in_dir(Command::new(env!("CARGO_BIN_EXE_tidegate")), dir)
}

fn in_dir(mut command: Command, dir: &Path) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.current_dir(dir);
    command
}

/// A running node. Dropped: killed and reaped; its log is printed if the test has failed.
pub(crate) struct Node {
    child: Child,
    ended: Option<ExitStatus>,
    pub(crate) mqtt: SocketAddr,
    pub(crate) http: SocketAddr,
    /// What it said when it was ready.
    ready: String,
    data: PathBuf,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// The Authorization header of the requests below.
    shows: Mutex<Option<String>>,
}

impl Node {
    #[track_caller]
    fn spawn(mut command: Command, data: PathBuf) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (say, ready) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let lines = Arc::clone(&log);
        let readers = vec![
            std::thread::spawn(move || each_line(stdout, |line| drop(say.send(line)))),
            std::thread::spawn(move || {
                each_line(stderr, |line| {
                    let mut log = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = writeln!(log, "{line}");
                });
            }),
        ];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Self {
            child,
            ended: None,
            mqtt: nowhere,
            http: nowhere,
            ready: String::new(),
            data,
            log,
            readers,
            shows: Mutex::default(),
        };
        let Ok(line) = ready.recv_timeout(START) else {
            let status = node.child.try_wait();
            panic!("the node did not become ready: {status:?}");
        };
        node.ready = line;
        (node.mqtt, node.http) = (node.door("mqtt"), node.door("http"));
        node
    }

    /// The address of a listener, by its name in the ready line.
    #[track_caller]
    pub(crate) fn door(&self, name: &str) -> SocketAddr {
        let is_named = |word: &&str| word.split_once('=').is_some_and(|(of, _)| of == name);
        let word = self.ready.split_whitespace().find(is_named).and_then(|word| word.split_once('='));
        let address = word.map(|(_, at)| at.rsplit("://").next().unwrap_or(at).trim_end_matches('/'));
        address.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {:?}", self.ready))
    }

    /// The lines on stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that contain all the words, once there is one.
    #[track_caller]
    pub(crate) fn logged(&self, words: &[&str]) -> Vec<String> {
        eventually(&format!("a log line with {words:?}"), || {
            let log = self.log();
            let found = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
            Some(found.map(str::to_owned).collect::<Vec<_>>()).filter(|found| !found.is_empty())
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "the node has ended");
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, signal).expect("the child is not reaped yet, so its pid is its own");
    }

    /// Power off, as far as a process can tell.
    pub(crate) fn kill9(&mut self) {
        let _ = self.child.kill();
        self.reap();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                self.ended = Some(status);
                self.reap();
                return status;
            }
            assert!(Instant::now() < deadline, "the node did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGTERM, and the exit code. After a graceful stop the ledger balances.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let code = self.wait(PATIENCE).code();
        if code == Some(0) {
            ledger_balances(&self.data);
        }
        code
    }

    fn reap(&mut self) {
        if let Ok(status) = self.child.wait() {
            self.ended = Some(status);
        }
        // The pipes may live on in a worker of the node for a moment; the readers end with them.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    // ---- HTTP, on a connection of its own

    /// From here on the requests show a user and password.
    pub(crate) fn as_user(&self, user: &str, password: &str) -> &Self {
        self.showing(Some(format!("Basic {}", http::base64(format!("{user}:{password}").as_bytes()))))
    }

    /// From here on the requests show this Authorization header, or none.
    pub(crate) fn showing(&self, header: Option<String>) -> &Self {
        *self.shows.lock().unwrap_or_else(PoisonError::into_inner) = header;
        self
    }

    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Response {
        let shown = self.shows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let headers: Vec<_> = shown.iter().map(|shown| ("authorization", shown.as_str())).collect();
        http::request(self.http, method, path, &headers, body.as_bytes())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, "")
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, body)
    }

    pub(crate) fn http(&self) -> Http {
        Http::connect(self.http)
    }

    /// The Device of `id`, or `None` if the node does not know it.
    #[track_caller]
    pub(crate) fn device(&self, id: &str) -> Option<Value> {
        let response = self.get(&format!("/devices/{}", http::escape(id)));
        match response.status {
            200 => Some(response.json()),
            404 => None,
            other => panic!("GET /devices/{id}: {other} {}", response.text()),
        }
    }

    /// Posts a reading of a device and waits until its handlers are done with it.
    #[track_caller]
    pub(crate) fn processed(&self, device: &str, reading: &str) {
        let answer = self.post(&format!("/devices/{device}/metrics?ack=processed"), reading);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What `GET /parked` shows, as far as one page goes.
    #[track_caller]
    pub(crate) fn parked(&self) -> Vec<Value> {
        self.get("/parked?limit=100").json()["parked"].as_array().expect("a list").clone()
    }

    /// The Device of `id`, once its state's `field` is `value`.
    #[track_caller]
    pub(crate) fn device_with(&self, id: &str, field: &str, value: &Value) -> Value {
        let mut last = None;
        eventually(&format!("device {id} with {field} = {value}"), || {
            last = self.device(id);
            last.clone().filter(|device| device["state"][field] == *value)
        })
    }

    /// The ledger, once nothing is under way; it must balance.
    #[track_caller]
    pub(crate) fn settled_ledger(&self) -> Value {
        let ledger = eventually("a ledger with nothing in flight", || {
            Some(self.get("/ledger").json()).filter(|ledger| ledger["inFlight"] == 0)
        });
        assert_eq!(ledger["balanced"], true, "{ledger}");
        ledger
    }

    /// The node still serves.
    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        let response = self.get("/livez");
        assert_eq!((response.status, response.text()), (200, "ok".to_owned()));
        assert_eq!(self.get("/readyz").status, 200);
    }

    /// A value of `GET /metrics`: `name` with its labels as they are written.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        // With labels (those that are not asked for are summed up), or without.
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = || Some(rest.strip_prefix(['{', ',', '}'])?.rsplit_once(' ')?.1);
            let value = rest.strip_prefix(' ').or_else(labelled)?;
            value.parse::<f64>().ok()
        });
        values.reduce(|sum, value| sum + value).unwrap_or_else(|| panic!("no metric {name}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(12_000);
            let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
            eprintln!("---- the node's log (pid {}, ended {:?})\n{}----", self.child.id(), self.ended, &log[from..]);
        }
    }
}

fn each_line(pipe: impl Read, mut seen: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        seen(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// Is there a process with this id that is not a zombie?
pub(crate) fn is_running(pid: u64) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
