//! A pool of real worker processes on a directory of handlers, and what comes out of it.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_actors::{
    ids::{DeviceId, LoopId, Position},
    reading::{Channel, Reading},
    script::{OutcomeSink, ParkReason, ScriptCall, ScriptEngine, ScriptHealth, ScriptOutcome, ScriptRun, Verdict},
};
use tidegate_scripts::{PoolConfig, WorkerCommand, WorkerPool};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn command() -> WorkerCommand {
    WorkerCommand { program: env!("CARGO_BIN_EXE_tidegate-script-worker").into(), args: Vec::new() }
}

struct Sink(flume::Sender<(LoopId, ScriptOutcome)>);

impl OutcomeSink for Sink {
    fn deliver(&self, owner: LoopId, outcomes: Vec<ScriptOutcome>) {
        for outcome in outcomes {
            let _ = self.0.send((owner, outcome));
        }
    }
}

/// A pool under test.
pub struct Rig {
    pub dir: TempDir,
    pub pool: Arc<WorkerPool>,
    outcomes: flume::Receiver<(LoopId, ScriptOutcome)>,
    next: u64,
}

impl Rig {
    /// One worker on these handler files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, |_| {})
    }

    pub fn with(files: &[(&str, &str)], change: impl FnOnce(&mut PoolConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        let mut config = PoolConfig::new(dir.path());
        config.workers = 1;
        config.command = command();
        change(&mut config);
        let (sender, outcomes) = flume::unbounded();
        let pool = WorkerPool::start(config, Arc::new(Sink(sender))).expect("the pool starts");
        Self { dir, pool, outcomes, next: 0 }
    }

    pub fn reading(&mut self, device: &str, json: &str) -> ScriptCall {
        self.next += 1;
        let device = DeviceId::new(device).expect("an id");
        let route = self.pool.route(&device, Channel::Metrics);
        let received = 1_000_000 + i64::try_from(self.next).expect("small");
        let reading = Reading {
            device,
            channel: Channel::Metrics,
            device_time: None,
            received,
            payload: Bytes::copy_from_slice(json.as_bytes()),
            idempotency: None,
            retry_of: None,
        };
        ScriptCall { position: Position(self.next), route, reading }
    }

    pub fn run(&mut self, device: &str, readings: &[&str]) -> ScriptRun {
        let calls = readings.iter().map(|json| self.reading(device, json)).collect();
        run_of(calls)
    }

    /// Submits runs, waiting while the queue is full.
    pub fn submit(&self, mut runs: Vec<ScriptRun>) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(back) = self.pool.try_submit(runs) {
            assert!(Instant::now() < deadline, "the queue stays full");
            runs = back;
            std::thread::yield_now();
        }
    }

    /// The next outcome.
    pub fn outcome(&self) -> ScriptOutcome {
        self.outcomes.recv_timeout(PATIENCE).expect("an outcome").1
    }

    pub fn outcomes(&self, count: usize) -> Vec<ScriptOutcome> {
        (0..count).map(|_| self.outcome()).collect()
    }

    /// No outcome is left over.
    pub fn assert_quiet(&self) {
        assert_eq!(self.outcomes.try_recv().ok(), None);
    }

    /// One reading of device `d1`, to its outcome.
    pub fn one(&mut self, json: &str) -> ScriptOutcome {
        self.one_of("d1", json)
    }

    pub fn one_of(&mut self, device: &str, json: &str) -> ScriptOutcome {
        let run = self.run(device, &[json]);
        self.submit(vec![run]);
        self.outcome()
    }

    pub fn health(&self, name: &str) -> ScriptHealth {
        self.pool.scripts().into_iter().find(|script| *script.name == *name).expect("the script")
    }

    /// Waits until a condition holds.
    pub fn wait(&self, what: &str, mut holds: impl FnMut(&WorkerPool) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.pool) {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub fn run_of(calls: Vec<ScriptCall>) -> ScriptRun {
    let device = calls[0].reading.device.clone();
    ScriptRun { owner: LoopId(0), device, previous: None, script_state: Vec::new(), generation: 1, calls }
}

pub fn kept(outcome: &ScriptOutcome) -> serde_json::Value {
    match &outcome.verdict {
        Verdict::Keep(json) => serde_json::from_slice(json).expect("JSON"),
        other => panic!("not kept: {other:?}"),
    }
}

/// The reason and message of a parked reading.
pub fn parked(outcome: &ScriptOutcome) -> (ParkReason, &str) {
    match &outcome.verdict {
        Verdict::Parked { reason, message, .. } => (*reason, message),
        other => panic!("not parked: {other:?}"),
    }
}

/// Does a process of this id exist?
pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
