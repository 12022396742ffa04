//! What a pool of script workers is started with. The defaults are [`tidegate_actors::limits`].

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_actors::limits;

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
    /// Heap of one worker, in bytes.
    pub heap_bytes: u64,
    /// Failures in a row that open a script's breaker.
    pub breaker_failures: u32,
    /// Time for which it stays open.
    pub breaker_open: Duration,
    /// Runs that wait for the workers.
    pub queue: usize,
    /// Readings of one batch.
    pub batch: usize,
    /// Time that a worker has to start and load one script.
    pub load_wall: Duration,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            call_wall: limits::SCRIPT_CALL_WALL,
            async_wall: limits::SCRIPT_ASYNC_WALL,
            heap_bytes: limits::SCRIPT_HEAP_BYTES,
            breaker_failures: limits::SCRIPT_BREAKER_FAILURES,
            breaker_open: limits::SCRIPT_BREAKER_OPEN,
            queue: limits::SCRIPT_QUEUE,
            batch: limits::SCRIPT_BATCH,
            load_wall: Duration::from_secs(5),
        }
    }
}
