//! What a pool of script workers is started with. The defaults are [`tidegate_actors::limits`].

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_actors::{limits, script::OpenPolicy};

use crate::slow::SlowConfig;

/// How many workers, running what, on which handlers.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The directory of the handlers. If there is none, there are no handlers.
    pub handlers_dir: PathBuf,
    /// Worker processes, at least 1.
    pub workers: usize,
    /// What a worker process runs.
    pub command: WorkerCommand,
    /// What bounds the scripts.
    pub limits: ScriptLimits,
    /// Where sets of handlers are kept that loaded and ran; `None`: nowhere, so there is nothing to go back to.
    pub kept_dir: Option<PathBuf>,
    /// How a new set is tried beside the old one before it takes its place.
    pub canary: CanaryConfig,
    /// What scripts may do beside their worker.
    pub slow: SlowConfig,
}

/// How a new set of handlers is tried.
#[derive(Debug, Clone)]
pub struct CanaryConfig {
    /// The part of the devices whose readings both sets work on, in percent; 0: a new set is not tried.
    pub share: u32,
    /// Readings after which it is decided.
    pub readings: u64,
    /// Time after which it is decided in any case.
    pub time: Duration,
    /// A new set that takes more than this many times the CPU time of the old one is not taken.
    pub cost_factor: u32,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { share: 10, readings: 1_000, time: Duration::from_secs(10), cost_factor: 4 }
    }
}

impl PoolConfig {
    /// The defaults: one worker a core, this very binary, the limits of [`tidegate_actors::limits`].
    #[must_use]
    pub fn new(handlers_dir: impl Into<PathBuf>) -> Self {
        Self {
            handlers_dir: handlers_dir.into(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            command: WorkerCommand::default(),
            limits: ScriptLimits::default(),
            kept_dir: None,
            canary: CanaryConfig::default(),
            slow: SlowConfig::default(),
        }
    }
}

/// The program of a worker process, which must call [`crate::worker_main`].
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for WorkerCommand {
    /// This very binary with `script-worker`. By way of `/proc/self/exe`, so that a node whose file was replaced by an upgrade
    /// still starts workers of its own version.
    fn default() -> Self {
        let own = Path::new("/proc/self/exe");
        let program = if own.exists() { own.to_owned() } else { std::env::current_exe().unwrap_or_default() };
        Self { program, args: vec!["script-worker".into()] }
    }
}

/// What bounds the scripts of a pool. Each is the limit of the same name in [`tidegate_actors::limits`] unless a test needs less.
#[derive(Debug, Clone)]
pub struct ScriptLimits {
    /// Time without an answer after which a worker is killed.
    pub call_wall: Duration,
    /// Time for which a call may wait for its promise.
    pub async_wall: Duration,
    /// Time that a task (`new Worker`) has.
    pub task_wall: Duration,
    /// Heap of one worker, in bytes.
    pub heap_bytes: u64,
    /// Failures in a row that open a script's breaker.
    pub breaker_failures: u32,
    /// Time for which it stays open.
    pub breaker_open: Duration,
    /// What becomes of its readings meanwhile.
    pub breaker_policy: OpenPolicy,
    /// Restarts of workers within a minute that a script may cause before its breaker opens.
    pub max_restarts: u32,
    /// Runs that wait for the workers.
    pub queue: usize,
    /// Readings of one batch.
    pub batch: usize,
    /// Time that a worker has to start and load one script.
    pub load_wall: Duration,
    /// Timers do not wait: when everything waits for them, their time has come. For tests.
    pub virtual_time: bool,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            call_wall: limits::SCRIPT_CALL_WALL,
            async_wall: limits::SCRIPT_ASYNC_WALL,
            task_wall: limits::SCRIPT_TASK_WALL,
            heap_bytes: limits::SCRIPT_HEAP_BYTES,
            breaker_failures: limits::SCRIPT_BREAKER_FAILURES,
            breaker_open: limits::SCRIPT_BREAKER_OPEN,
            breaker_policy: OpenPolicy::default(),
            max_restarts: limits::SCRIPT_MAX_RESTARTS,
            queue: limits::SCRIPT_QUEUE,
            batch: limits::SCRIPT_BATCH,
            load_wall: Duration::from_secs(5),
            virtual_time: false,
        }
    }
}
