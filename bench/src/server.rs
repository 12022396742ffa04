//! The servers under test: each is started on free loopback ports with a temporary folder, and stopped by its id.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

use crate::conn::Conn;
use crate::meter::Meter;
use crate::mqtt;
use crate::poller::Poller;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A node that has much to read back may take longer.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(600);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// The node of this workspace.
    Tidegate,
    /// mosquitto without persistence.
    Mosquitto,
    /// mosquitto that saves its store every second (not before an ack: it has no such promise).
    MosquittoPersistent,
    /// The broker aedes from npm, in `bench/peers/aedes`.
    Aedes,
    /// The Node.js service in `bench/peers/reference`.
    Reference,
    /// mosquitto and Node-RED from npm behind it, in `bench/peers/node-red`.
    NodeRed,
}

impl Peer {
    /// The name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "Tidegate",
            Self::Mosquitto => "mosquitto",
            Self::MosquittoPersistent => "mosquitto, persistence",
            Self::Aedes => "aedes",
            Self::Reference => "Node.js reference",
            Self::NodeRed => "mosquitto and Node-RED",
        }
    }
}

/// Where the servers' programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The node's binary.
    pub(crate) tidegate: PathBuf,
    /// The broker's binary.
    pub(crate) mosquitto: PathBuf,
    /// The folder with the reference and the handler.
    pub(crate) peers_dir: PathBuf,
}

impl Programs {
    /// The handler that both servers run.
    pub(crate) fn handler(&self) -> PathBuf {
        self.peers_dir.join("handler.js")
    }

    fn reference_dir(&self) -> PathBuf {
        self.peers_dir.join("reference")
    }

    fn aedes_dir(&self) -> PathBuf {
        self.peers_dir.join("aedes")
    }

    fn node_red_dir(&self) -> PathBuf {
        self.peers_dir.join("node-red")
    }

    /// Installs a peer's packages if it has some and they are not there.
    ///
    /// # Errors
    /// When `npm ci` fails.
    pub(crate) fn install(&self, peer: Peer) -> Result<()> {
        let dir = match peer {
            Peer::Aedes => self.aedes_dir(),
            Peer::Reference => self.reference_dir(),
            Peer::NodeRed => self.node_red_dir(),
            Peer::Tidegate | Peer::Mosquitto | Peer::MosquittoPersistent => return Ok(()),
        };
        if dir.join("node_modules").exists() {
            return Ok(());
        }
        let npm = Command::new("npm").args(["ci", "--omit=dev"]).current_dir(&dir).stdout(Stdio::null()).status();
        ensure!(npm.context("running npm")?.success(), "npm ci failed in {}", dir.display());
        Ok(())
    }
}

/// A running server. It is stopped when this is dropped.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    /// Where it speaks MQTT.
    pub(crate) mqtt: Option<SocketAddr>,
    /// Where it speaks HTTP.
    pub(crate) http: Option<SocketAddr>,
    peer: Peer,
}

impl Server {
    /// Starts `peer` and waits until it is ready. With `with_handler` it runs the common handler on each reading.
    ///
    /// # Errors
    /// A program that is not there, or that is not ready within 30 s; what it wrote to stderr is part of the error.
    pub(crate) fn start(peer: Peer, programs: &Programs, with_handler: bool) -> Result<Self> {
        let dir = folder(&std::env::temp_dir())?;
        let handler = with_handler.then(|| programs.handler());
        let (command, broker) = match peer {
            Peer::Tidegate => (tidegate(&programs.tidegate, dir.path(), handler.as_deref())?, None),
            Peer::Reference => (reference(programs, handler.as_deref())?, None),
            Peer::NodeRed => (node_red(programs, dir.path(), handler.as_deref())?, None),
            Peer::Aedes => {
                ensure!(!with_handler, "aedes runs no handlers");
                (aedes(programs), None)
            }
            Peer::Mosquitto | Peer::MosquittoPersistent => {
                ensure!(!with_handler, "mosquitto runs no handlers");
                let (command, address) = mosquitto(programs, dir.path(), peer == Peer::MosquittoPersistent)?;
                (command, Some(address))
            }
        };
        let mut server = Self::spawn(command, dir, peer)?;
        let ready = match broker {
            Some(address) => server.wait_for_connack(address),
            None => server.wait_for_ready_line(START_TIMEOUT),
        };
        if let Err(error) = ready {
            let stderr = fs::read_to_string(server.stderr_path()).unwrap_or_default();
            return Err(error.context(format!("{} did not start; its stderr:\n{stderr}", peer.name())));
        }
        Ok(server)
    }

    /// Starts a node without handlers, with its data below `parent`, which is on the disk that counts. `settings` are further
    /// variables of its environment.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn node(program: &Path, parent: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let dir = folder(parent)?;
        let mut command = tidegate(program, dir.path(), None)?;
        command.envs(settings.iter().copied());
        let mut server = Self::spawn(command, dir, Peer::Tidegate)?;
        match server.wait_for_ready_line(START_TIMEOUT) {
            Ok(()) => Ok(server),
            Err(error) => Err(server.explain(error)),
        }
    }

    /// Kills the server with SIGKILL and waits until it is gone. What it wrote stays.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the server")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts a node that was killed again, on the data that it left; `program` and `settings` as for [`Server::node`]. Gives the
    /// time from the start of the process to the line that says that it is ready.
    ///
    /// # Errors
    /// A node that still runs, and as [`Server::start`], but after 10 minutes.
    pub(crate) fn start_again(&mut self, program: &Path, settings: &[(&str, &str)]) -> Result<Duration> {
        ensure!(self.child.try_wait()?.is_some(), "the server still runs");
        let mut command = tidegate(program, self.dir.path(), None)?;
        command.envs(settings.iter().copied());
        let start = Instant::now();
        self.child = launch(command, self.dir.path())?;
        match self.wait_for_ready_line(RECOVERY_TIMEOUT) {
            Ok(()) => Ok(start.elapsed()),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Where a node has its data.
    pub(crate) fn data(&self) -> PathBuf {
        data(self.dir.path())
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this server costs.
    pub(crate) fn meter(&self) -> Meter {
        Meter {
            pid: Some(self.child.id()),
            ledger: self.http.filter(|_| self.peer == Peer::Tidegate),
            count: self.http.filter(|_| self.peer == Peer::NodeRed),
        }
    }

    /// `error` with the end of what the server wrote to stderr.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let text = fs::read_to_string(self.stderr_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return error;
        }
        error.context(format!("the server's last words: {}", lines[lines.len().saturating_sub(10)..].join("\n")))
    }

    fn stderr_path(&self) -> PathBuf {
        stderr(self.dir.path())
    }

    fn spawn(command: Command, dir: TempDir, peer: Peer) -> Result<Self> {
        let child = launch(command, dir.path())?;
        Ok(Self { child, dir, mqtt: None, http: None, peer })
    }

    /// Waits for `… ready [mqtt=<address>] http=http://<address>/` on stdout.
    fn wait_for_ready_line(&mut self, patience: Duration) -> Result<()> {
        let stdout = self.child.stdout.take().context("stdout is not piped")?;
        let (sender, lines) = mpsc::channel();
        // Reads on until the server ends, so that it never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + patience;
        loop {
            let line = lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .context("no line on stdout says that it is ready")?;
            if !line.contains(" ready ") {
                continue;
            }
            for word in line.split_ascii_whitespace() {
                if let Some(address) = word.strip_prefix("mqtt=") {
                    self.mqtt = Some(address.parse().with_context(|| line.clone())?);
                } else if let Some(url) = word.strip_prefix("http=http://") {
                    self.http = Some(url.trim_end_matches('/').parse().with_context(|| line.clone())?);
                }
            }
            ensure!(self.http.is_some() || self.mqtt.is_some(), "no address in {line:?}");
            return Ok(());
        }
    }

    /// Waits until a CONNECT is answered: mosquitto prints nothing when it is ready.
    fn wait_for_connack(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            match Conn::open(address, &Poller::new()?, 0, &mqtt::connect("bench-ready", 60), mqtt::connack) {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        self.mqtt = Some(address);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of one that has ended the kernel may have given the id to another process.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder below `parent` that goes with its value.
///
/// # Errors
/// The file system's.
pub(crate) fn folder(parent: &Path) -> Result<TempDir> {
    let parent = std::path::absolute(parent)?;
    fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    Ok(tempfile::Builder::new().prefix("tidegate-bench-").tempdir_in(parent)?)
}

/// Starts `command` with its stderr behind what is in the file in `dir`.
fn launch(mut command: Command, dir: &Path) -> Result<Child> {
    let stderr = OpenOptions::new().create(true).append(true).open(stderr(dir))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    command.spawn().with_context(|| format!("starting {}", command.get_program().display()))
}

fn stderr(dir: &Path) -> PathBuf {
    dir.join("stderr")
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn tidegate(program: &Path, dir: &Path, handler: Option<&Path>) -> Result<Command> {
    let handlers = dir.join("handlers");
    fs::create_dir_all(&handlers)?;
    if let Some(handler) = handler {
        fs::copy(handler, handlers.join("10-bench.js")).with_context(|| format!("copying {}", handler.display()))?;
    }
    // Absolute, because it runs in another folder.
    let program = fs::canonicalize(program)
        .with_context(|| format!("{} is not there: cargo build --release", program.display()))?;
    let mut command = Command::new(program);
    command.args(["serve", "--mqtt-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0", "--data-dir"]);
    command.arg(data(dir)).arg("--handlers").arg(handlers).current_dir(dir);
    Ok(command)
}

fn reference(programs: &Programs, handler: Option<&Path>) -> Result<Command> {
    let mut command = Command::new("node");
    command.arg("server.mjs").current_dir(programs.reference_dir()).env("PORT", "0").env("NODE_ENV", "production");
    if let Some(handler) = handler {
        command.arg("--handler").arg(fs::canonicalize(handler).context("finding the handler")?);
    }
    Ok(command)
}

/// It starts the broker itself, as its child, so that one process has both.
fn node_red(programs: &Programs, dir: &Path, handler: Option<&Path>) -> Result<Command> {
    let (config, address) = mosquitto_config(dir, false)?;
    let mut command = Command::new("node");
    command.arg("server.mjs").current_dir(programs.node_red_dir()).env("NODE_ENV", "production");
    command.arg("--dir").arg(dir).arg("--broker").arg(&programs.mosquitto);
    command.arg("--config").arg(config).arg("--port").arg(address.port().to_string());
    if let Some(handler) = handler {
        command.arg("--handler").arg(fs::canonicalize(handler).context("finding the handler")?);
    }
    Ok(command)
}

fn aedes(programs: &Programs) -> Command {
    let mut command = Command::new("node");
    command.arg("server.mjs").current_dir(programs.aedes_dir()).env("PORT", "0").env("NODE_ENV", "production");
    command
}

/// mosquitto as its Debian package ships it, but open on one loopback port and without the limits that would make it
/// drop messages or connections of the load.
fn mosquitto_config(dir: &Path, persistent: bool) -> Result<(PathBuf, SocketAddr)> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let persistence = if persistent {
        format!("persistence true\npersistence_location {}/\nautosave_interval 1\n", dir.display())
    } else {
        "persistence false\n".to_owned()
    };
    // As root it would become another user, who may not read the folder.
    let config = format!(
        "listener {} 127.0.0.1\nuser root\nallow_anonymous true\nmax_connections -1\nmax_queued_messages 0\n\
         connection_messages false\nlog_dest stderr\nlog_type error\n{persistence}",
        address.port()
    );
    let path = dir.join("mosquitto.conf");
    fs::write(&path, config)?;
    Ok((path, address))
}

fn mosquitto(programs: &Programs, dir: &Path, persistent: bool) -> Result<(Command, SocketAddr)> {
    let (config, address) = mosquitto_config(dir, persistent)?;
    let mut command = Command::new(&programs.mosquitto);
    command.arg("-c").arg(config);
    Ok((command, address))
}
