//! Tidegate's script host: the operators' JavaScript handlers, in Boa, in worker processes that may die.
//!
//! A run of readings flows through this crate in the order of its files. In the node: `pool` (the bounded queue) → `supervisor`
//! (a thread for each worker) → `batch` (which readings, whose breaker) → `process` (the child and its socket) → `frame`. In the
//! worker: `worker` (frames in, frames out) → `worker/work` (a batch, one reading after the other) → `worker/engine` (one call of
//! one handler). Before any of that `source` reads the files, `precheck` looks at them, and `load` has them loaded.
//!
//! What a script can do: read its metric, its state and the time of the reading; return a state; emit events; print. It opens no
//! file and no socket: slow work that it waits for (`fetch`, files, hashes, compression) is done for it by the node, in `slow`.
//! What it does to its process (an endless loop, a memory bomb, a crash of the engine) costs that process and parks that reading,
//! and nothing else.
//!
//! `console` is the same engine for a person at a prompt (`tidegate repl`), in that person's own process.
//!
//! No file outside of `worker` and `console` names Boa.

mod batch;
mod breaker;
mod canary;
mod check;
mod compress;
mod config;
mod console;
mod crew;
mod frame;
mod hashes;
mod kept;
mod kept_sets;
mod lane;
mod late;
mod load;
mod logs;
mod matching;
mod modules;
mod operation;
mod outbox;
mod packages;
mod pool;
mod precheck;
mod process;
mod queue;
mod reload;
mod restarts;
mod scripts;
mod set;
mod slow;
mod source;
mod stats;
mod supervisor;
mod tap;
mod testing;
mod trials;
mod wants;
mod worker;

/// The TypeScript declarations of what a handler exports and is given.
pub const HANDLER_TYPES: &str = include_str!("../types/tidegate.d.ts");
/// Those of the globals and modules of a worker, and of `tidegate:test`.
pub const WORKER_TYPES: &str = include_str!("../types/tidegate-worker.d.ts");

pub use self::{
    canary::CanaryReport,
    check::{ScriptReport, check},
    config::{CanaryConfig, PoolConfig, ScriptLimits, WorkerCommand},
    console::{Console, ConsoleHost, Evaluated, STACK_BYTES as CONSOLE_STACK_BYTES, Waited},
    kept_sets::KeptSets,
    load::LoadError,
    pool::WorkerPool,
    reload::{ReloadError, Reloaded},
    slow::{Hosts, SlowConfig, SlowStatus, TaskCounts, TaskStatus},
    testing::{TestFailure, TestPlan, TestState, TestedFile, TestedTest, run_tests},
    trials::{Rollback, SetStatus, Trial},
    worker::worker_main,
};
