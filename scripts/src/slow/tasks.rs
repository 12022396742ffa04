//! Tasks: a file of the handlers runs once in a worker process of its own, which a thread of the pool starts, waits for and ends. What
//! it does to that process (an endless loop, a memory bomb, a crash of the engine) fails the task and nothing else.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_actors::limits;

use super::error::{BROKEN, Done, LIMIT, Reply, SlowError};
use crate::{
    config::{ScriptLimits, WorkerCommand},
    frame::{FromWorker, TaskFile, TaskReport, TaskSaid, ToWorker},
    process::{Failure, Process},
    source::SourceSet,
};

/// How much less of a busy processor than the node a task gets: a third (`nice`).
const NICE: i32 = 5;
/// What Node.js says of a worker without memory.
const MEMORY: &str = "ERR_WORKER_OUT_OF_MEMORY";

/// What runs tasks.
pub(super) struct Tasks {
    command: WorkerCommand,
    limits: ScriptLimits,
    counts: Counts,
}

/// How tasks ended, and how long they took.
#[derive(Default)]
struct Counts {
    started: AtomicU64,
    ended: [AtomicU64; Ended::ALL.len()],
    us: AtomicU64,
}

/// How a task ended.
#[derive(Debug, Clone, Copy)]
enum Ended {
    /// By itself.
    Done,
    /// It threw.
    Threw,
    /// It met a limit of the engine, or the engine failed at it.
    Failed,
    /// It ran longer than `script_task_wall`: killed.
    Deadline,
    /// It needed more memory than `script_heap_bytes`.
    Memory,
    /// Its process died of something else, or could not be started.
    Crashed,
    /// Nobody waited for it any more, since its call was over: killed.
    Forgotten,
}

impl Ended {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Done, "done"),
        (Self::Threw, "threw"),
        (Self::Failed, "failed"),
        (Self::Deadline, "deadline"),
        (Self::Memory, "memory"),
        (Self::Crashed, "crashed"),
        (Self::Forgotten, "forgotten"),
    ];
}

/// The tasks of scripts, as they are shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Tasks that were begun.
    pub started: u64,
    /// How many of them ended how.
    pub ended: Vec<TaskCounts>,
    /// The time that they took, with that of their processes, in microseconds.
    pub us: u64,
}

/// How many tasks ended in one way.
#[derive(Debug, Clone, Serialize)]
pub struct TaskCounts {
    /// `done`, `threw`, `failed`, `deadline`, `memory`, `crashed` or `forgotten`.
    pub result: &'static str,
    /// So many.
    pub count: u64,
}

/// What a call says of its task.
#[derive(Deserialize)]
struct Given {
    path: String,
    thread: u32,
    now: i64,
    seed: u64,
}

impl Tasks {
    pub(super) fn new(command: WorkerCommand, limits: ScriptLimits) -> Self {
        Self { command, limits, counts: Counts::default() }
    }

    /// Runs a task to its end. Blocks.
    pub(super) fn run(
        &self,
        script: &str,
        sources: &SourceSet,
        arguments: &str,
        values: &[Vec<u8>],
        is_wanted: &dyn Fn() -> bool,
    ) -> Done {
        let given: Given = serde_json::from_str(arguments)
            .map_err(|error| SlowError::new(BROKEN, format!("the task makes no sense: {error}")))?;
        let began = Instant::now();
        self.counts.started.fetch_add(1, Ordering::Relaxed);
        let (ended, done) = self.run_in_process(sources, &given, values, is_wanted);
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts.us.fetch_add(took, Ordering::Relaxed);
        self.counts.ended[ended as usize].fetch_add(1, Ordering::Relaxed);
        if let (Ended::Deadline | Ended::Memory | Ended::Crashed, Err(error)) = (ended, &done) {
            tracing::warn!(script, task = given.path, reason = error.message, "a task was ended");
        }
        done
    }

    pub(super) fn status(&self) -> TaskStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ended = Ended::ALL
            .iter()
            .map(|(ended, result)| TaskCounts { result, count: load(&self.counts.ended[*ended as usize]) });
        TaskStatus { started: load(&self.counts.started), ended: ended.collect(), us: load(&self.counts.us) }
    }

    fn run_in_process(
        &self,
        sources: &SourceSet,
        given: &Given,
        values: &[Vec<u8>],
        is_wanted: &dyn Fn() -> bool,
    ) -> (Ended, Done) {
        let mut process = match Process::spawn(&self.command) {
            Ok(process) => process,
            Err(error) => {
                let message = format!("the process of the task does not start: {error}");
                return (Ended::Crashed, Err(SlowError::new(BROKEN, message)));
            }
        };
        process.yield_to_others(NICE);
        let heard = self.talk(&mut process, sources, given, values, is_wanted);
        let failure = match heard {
            Ok(Some(report)) => {
                // It has nothing more to do.
                let _ = process.bury(&Failure::Stopped);
                return told(report);
            }
            Ok(None) => {
                let _ = process.bury(&Failure::Stopped);
                return (Ended::Forgotten, Err(SlowError::new(BROKEN, "nobody waits for the task any more")));
            }
            Err(failure) => failure,
        };
        let death = process.bury(&failure);
        let (ended, code, message) = match failure {
            Failure::Silent => {
                let wall = self.limits.task_wall.as_millis();
                let message = format!(
                    "the task ran longer than {wall} ms (limit script_task_wall, setting scripts.task_wall_ms) and was killed: give it less to do, or raise the setting"
                );
                (Ended::Deadline, LIMIT, message)
            }
            _ if death.memory => {
                let heap = self.limits.heap_bytes / (1024 * 1024);
                let message = format!(
                    "the task needed more memory than {heap} MB (limit script_heap_bytes, setting scripts.heap_bytes) and was ended"
                );
                (Ended::Memory, MEMORY, message)
            }
            _ => (Ended::Crashed, BROKEN, format!("the process of the task died: {}", death.message)),
        };
        (ended, Err(SlowError::new(code, message)))
    }

    /// Gives a process the sources and the task, and hears how it ends. `None`: nobody waits for it any more.
    fn talk(
        &self,
        process: &mut Process,
        sources: &SourceSet,
        given: &Given,
        values: &[Vec<u8>],
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Option<TaskReport>, Failure> {
        let none = vec![true; sources.handlers.len()];
        process.load(sources, &none, &self.limits).map_err(|(_, failure)| failure)?;
        let Given { path, thread, now, seed } = given;
        let values = values.iter().map(Vec::as_slice).collect();
        process.tell(&ToWorker::Task(TaskFile { path, thread: *thread, now: *now, seed: *seed, values }))?;
        match process.hear_while(self.limits.task_wall, is_wanted)? {
            Some(FromWorker::Tasked(report)) => Ok(Some(report)),
            Some(_) => Err(crate::process::broken("an answer out of place")),
            None => Ok(None),
        }
    }
}

/// How long a thread that waits for a task looks away from whether somebody waits for that.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// What a task's report is for its call: what it said piece by piece, what it failed of, its exit code; and the bytes of all of them.
fn told(report: TaskReport) -> (Ended, Done) {
    let TaskReport { said, error, code } = report;
    let mut bytes = Vec::new();
    let mut packed = |kind: &str, part: Vec<u8>| {
        let about = json!({ "kind": kind, "bytes": part.len() });
        bytes.extend(part);
        about
    };
    let mut about = vec![json!({ "kind": "online" })];
    about.extend(said.into_iter().map(|said| match said {
        TaskSaid::Message(part) => packed("message", part),
        TaskSaid::Line(level, text) => json!({ "kind": "log", "level": level, "text": text }),
    }));
    let ended = match error {
        None => Ended::Done,
        Some((error, is_limit)) => {
            about.push(packed("error", error));
            if is_limit { Ended::Failed } else { Ended::Threw }
        }
    };
    about.push(json!({ "kind": "exit", "code": code }));
    // The engine in there bounds what it says; one that was broken into must not fill the node.
    if bytes.len() > 2 * limits::SCRIPT_JOB_BYTES {
        let message = format!("the task said {} bytes (limit script_job_bytes)", bytes.len());
        return (Ended::Failed, Err(SlowError::new(LIMIT, message)));
    }
    (ended, Ok(Reply { about: Value::Array(about), bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::LogLevel;

    #[test]
    fn a_report_is_told_piece_by_piece_and_the_end_last() {
        let said = vec![
            TaskSaid::Message(vec![1, 2]),
            TaskSaid::Line(LogLevel::Warn, "line".to_owned()),
            TaskSaid::Message(vec![3]),
        ];
        let (ended, done) = told(TaskReport { said, error: Some((vec![4, 5, 6], false)), code: 1 });
        let reply = done.expect("it came to its end");
        assert!(matches!(ended, Ended::Threw));
        assert_eq!(reply.bytes, [1, 2, 3, 4, 5, 6]);
        let expected = json!([
            { "kind": "online" },
            { "kind": "message", "bytes": 2 },
            { "kind": "log", "level": "warn", "text": "line" },
            { "kind": "message", "bytes": 1 },
            { "kind": "error", "bytes": 3 },
            { "kind": "exit", "code": 1 },
        ]);
        assert_eq!(reply.about, expected);
    }

    #[test]
    fn every_end_has_its_count() {
        for (at, (ended, name)) in Ended::ALL.iter().enumerate() {
            assert_eq!(*ended as usize, at, "{name}");
        }
    }
}
