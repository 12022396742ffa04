//! Slow work that scripts ask for by `await`: it runs in the node, on the shared blocking pool, because a worker has no file, no
//! network and one thread.
//!
//! A worker's ask comes in at its [`desk`] (what is under way for it, and what came of it), goes through the [`gate`] (how much of
//! the pool scripts may hold) to the [`tools`] (a task's to a process of its own, [`tasks`]), and its answer goes back the same way. A shadow's desk refuses what could be seen
//! outside.

mod breakers;
mod desk;
mod error;
mod files;
mod gate;
mod hosts;
mod sandbox;
mod tasks;
mod tools;
mod web;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_actors::{blocking::BlockingPool, limits};

pub(crate) use self::{desk::Desk, tasks::LOOK, tools::zip_error};
use self::{gate::Gate, tasks::Tasks, tools::Tools};
pub use self::{
    gate::SlowStatus,
    hosts::Hosts,
    tasks::{TaskCounts, TaskStatus},
};
use crate::config::{ScriptLimits, WorkerCommand};

/// Threads and jobs of a pool of our own, where the node gives none: in tests of handlers and replays.
const OWN_POOL: (usize, usize) = (2, limits::SCRIPT_POOL_QUEUE);

/// What scripts may do beside their worker, and how much of it.
#[derive(Debug, Clone)]
pub struct SlowConfig {
    /// The node's pool; `None`: a small one of our own.
    pub pool: Option<Arc<BlockingPool>>,
    /// Threads of it that scripts may hold.
    pub pool_threads: usize,
    /// May scripts do what can be seen outside (`fetch`, `dns.lookup`, writes to files)? A replay may not.
    pub has_effects: bool,
    /// Below it each script has a directory of its own; `None`: they have no files.
    pub files_dir: Option<PathBuf>,
    /// Bytes of one script's files.
    pub fs_bytes: u64,
    /// Files and folders of one script.
    pub fs_files: u64,
    /// The hosts that `fetch` and `dns.lookup` may reach.
    pub fetch_allow: Hosts,
    /// Time of one `fetch`.
    pub fetch_wall: Duration,
    /// Bytes of the body of its answer.
    pub fetch_body: usize,
    /// Failures in a row that open a host's breaker.
    pub fetch_breaker_failures: u32,
    /// Time for which it stays open.
    pub fetch_breaker_open: Duration,
}

impl Default for SlowConfig {
    fn default() -> Self {
        Self {
            pool: None,
            pool_threads: limits::SCRIPT_POOL_THREADS,
            has_effects: false,
            files_dir: None,
            fs_bytes: limits::SCRIPT_FS_BYTES,
            fs_files: limits::SCRIPT_FS_FILES,
            fetch_allow: Hosts::default(),
            fetch_wall: limits::SCRIPT_FETCH_WALL,
            fetch_body: limits::SCRIPT_FETCH_BODY,
            fetch_breaker_failures: limits::SCRIPT_FETCH_BREAKER_FAILURES,
            fetch_breaker_open: limits::SCRIPT_FETCH_BREAKER_OPEN,
        }
    }
}

/// The slow work of one pool of workers.
pub(crate) struct SlowWork {
    gate: Arc<Gate>,
    tools: Arc<Tools>,
    has_effects: bool,
    /// Bytes of arguments and answers that are under way.
    bytes: Arc<AtomicUsize>,
}

impl SlowWork {
    /// `command`, `limits`: of the processes of tasks.
    ///
    /// # Errors
    /// There are no threads.
    pub(crate) fn new(config: SlowConfig, command: &WorkerCommand, limits: &ScriptLimits) -> io::Result<Self> {
        let pool = match &config.pool {
            Some(pool) => Arc::clone(pool),
            None => Arc::new(BlockingPool::new(OWN_POOL.0, OWN_POOL.1)?),
        };
        let gate = Arc::new(Gate::new(pool, config.pool_threads));
        let tasks = Tasks::new(command.clone(), limits.clone());
        let (has_effects, tools) = (config.has_effects, Arc::new(Tools::new(config, tasks)));
        Ok(Self { gate, has_effects, tools, bytes: Arc::default() })
    }

    /// What is under way, and what was.
    pub(crate) fn status(&self) -> SlowStatus {
        self.gate.status(self.tools.tasks())
    }

    /// Room for so many bytes; `None`: too much is under way.
    fn charge(&self, bytes: usize) -> Option<Charge> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let charge = Charge { of: Arc::clone(&self.bytes), bytes };
        (before + bytes <= limits::SCRIPT_POOL_BYTES).then_some(charge)
    }
}

/// Bytes that are under way, until it is dropped.
struct Charge {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    /// From now on it is as many.
    fn set(&mut self, bytes: usize) {
        self.of.fetch_add(bytes, Ordering::Relaxed);
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_under_way_are_bounded_and_come_back() {
        let work =
            SlowWork::new(SlowConfig::default(), &WorkerCommand::default(), &ScriptLimits::default()).expect("threads");
        let mut half = work.charge(limits::SCRIPT_POOL_BYTES / 2).expect("there is room");
        let rest = work.charge(limits::SCRIPT_POOL_BYTES / 2).expect("there is room");
        assert!(work.charge(1).is_none());
        half.set(0);
        assert!(work.charge(1).is_some());
        drop((half, rest));
        assert_eq!(work.bytes.load(Ordering::Relaxed), 0);
    }
}
