//! The seam to the operators' handlers: what the runtime asks of a script engine, and what it answers.
//!
//! The unit of work is a [`ScriptRun`]: some readings of one device, in order, with the state before the first.
//! The engine threads state and `ctx.state` through the readings and answers once a reading, in order, through the
//! [`OutcomeSink`]. A device has at most one run under way, so runs need no order among themselves and any worker may take any.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    clock::Millis,
    ids::{DeviceId, LoopId, Position},
    reading::{Channel, Reading},
};

/// The handlers that want a device's readings: a bit for each script, in name order (at most [`crate::limits::SCRIPTS`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Route(pub u64);

impl Route {
    /// No handler wants it.
    pub const NONE: Self = Self(0);

    /// Does no handler want it?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Some readings of one device for the handlers, in order.
#[derive(Debug, Clone)]
pub struct ScriptRun {
    /// The loop that owns the device, to which the outcomes go.
    pub owner: LoopId,
    /// The device.
    pub device: DeviceId,
    /// The state before the first reading, as JSON, with its effective time; `None`: the device is new.
    pub previous: Option<(Bytes, Millis)>,
    /// `ctx.state` by script name, as JSON.
    pub script_state: Vec<(Box<str>, Bytes)>,
    /// The generation that the routes are of. An engine that has moved on since finds them anew.
    pub generation: u64,
    /// The readings, each with its journal position and its route (never empty).
    pub calls: Vec<ScriptCall>,
}

/// One reading of a run.
#[derive(Debug, Clone)]
pub struct ScriptCall {
    /// The reading's place in the journal: names the call, and seeds the handler's randomness.
    pub position: Position,
    /// The handlers to call.
    pub route: Route,
    /// The reading.
    pub reading: Reading,
}

/// What came of one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptOutcome {
    /// The device of the run.
    pub device: DeviceId,
    /// The call that this answers.
    pub position: Position,
    /// What is to become of the reading.
    pub verdict: Verdict,
    /// `ctx.state` of the scripts that changed theirs, as JSON. (A parked reading changes none.)
    pub script_state: SmallVec<[(Box<str>, Bytes); 1]>,
    /// `ctx.emit` calls, in order: name and payload as JSON.
    pub emits: Vec<(Box<str>, Bytes)>,
    /// `ctx.command` calls, in order.
    pub commands: Vec<ScriptCommand>,
}

/// A timer that a handler wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptTimer {
    /// The handler's file name.
    pub script: Box<str>,
    /// What the handler calls it.
    pub name: Box<str>,
    /// The device whose handler is called, with its state: readings and timers of one device come one after the other.
    pub device: DeviceId,
    /// The time between two calls.
    pub every: std::time::Duration,
}

/// A command that a handler wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptCommand {
    /// The device that it is for: the handler's text, which is a device id.
    pub device: Box<str>,
    /// What the device is to do.
    pub name: Box<str>,
    /// JSON.
    pub params: Bytes,
}

/// The id of a reading's `index`th `ctx.command`: the same whenever the reading is handled, so that a command that is wanted again
/// is known.
#[must_use]
pub fn command_id(position: Position, index: usize) -> String {
    format!("h{position}-{index}")
}

/// What is to become of a reading after its handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Keep the metric unchanged.
    Unchanged,
    /// Keep this JSON object.
    Keep(Bytes),
    /// A handler returned `null`: drop the reading; the name of the handler.
    Dropped {
        /// The handler's file name.
        script: Box<str>,
    },
    /// A handler failed on it: park the reading.
    Parked {
        /// The handler's file name.
        script: Box<str>,
        /// Why.
        reason: ParkReason,
        /// Message and `file:line:column`, for the operator.
        message: Box<str>,
    },
}

/// Why a reading is parked. The numbers are stored in the journal: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ParkReason {
    /// The handler threw.
    Threw = 0,
    /// It ran past its CPU budget or wall deadline.
    Deadline = 1,
    /// It ran out of memory.
    Memory = 2,
    /// Its worker died (a crash of the engine).
    Crashed = 3,
    /// Its breaker is open after too many failures.
    BreakerOpen = 4,
    /// It returned what is not a JSON object, or too large a one.
    BadResult = 5,
}

impl ParkReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Threw, Self::Deadline, Self::Memory, Self::Crashed, Self::BreakerOpen, Self::BadResult];

    /// The reason of a stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// The reason as it is shown and exported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Threw => "threw",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Crashed => "crashed",
            Self::BreakerOpen => "breaker-open",
            Self::BadResult => "bad-result",
        }
    }
}

/// Where an engine delivers outcomes: from its own threads, any number at a time, in order for each device.
pub trait OutcomeSink: Send + Sync + 'static {
    /// Hands outcomes to the loop that owns their devices. May block the engine's thread while the loop's inbox is full.
    fn deliver(&self, owner: LoopId, outcomes: Vec<ScriptOutcome>);
}

/// An engine that runs operators' handlers. Real ones: worker processes with Boa (`scripts`), and [`NoScripts`].
pub trait ScriptEngine: Send + Sync + 'static {
    /// The handlers that want this device's readings on this channel. Stable for one [`ScriptEngine::generation`].
    fn route(&self, device: &DeviceId, channel: Channel) -> Route;

    /// Changes whenever routes may have changed; the same number means the same routes.
    fn generation(&self) -> u64;

    /// The timers that the handlers want, as of the present generation.
    fn timers(&self) -> Vec<ScriptTimer> {
        Vec::new()
    }

    /// Are readings with this route of this generation to be refused at the door: does one of its handlers take none for now, and
    /// want none kept for it?
    fn refuses(&self, _route: Route, _generation: u64) -> bool {
        false
    }

    /// Hands runs to the workers. Never blocks.
    ///
    /// # Errors
    /// Gives the runs back when the queue ([`crate::limits::SCRIPT_QUEUE`]) is full: try again after the next outcome or tick.
    fn try_submit(&self, runs: Vec<ScriptRun>) -> Result<(), Vec<ScriptRun>>;

    /// How every script fares, in name order.
    fn scripts(&self) -> Vec<ScriptHealth>;

    /// How every worker fares.
    fn workers(&self) -> Vec<WorkerHealth>;

    /// Stops the workers after the batch under way. Blocks at most a few seconds; never call it on a loop.
    fn stop(&self);
}

/// How one script fares.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptHealth {
    /// The handler's file name.
    pub name: Box<str>,
    /// Its breaker, or `Broken` when it did not load.
    pub status: ScriptStatus,
    /// Calls since start.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Readings parked on its account, those refused by the open breaker included.
    pub parked: u64,
    /// Median time of a call, microseconds.
    pub p50_us: f64,
    /// 99th percentile of a call, microseconds.
    pub p99_us: f64,
    /// Time of all its calls since start, seconds.
    pub busy_seconds: f64,
    /// The last failure.
    pub last_error: Option<ScriptError>,
    /// The reading that it failed on.
    pub last_input: Option<ScriptInput>,
    /// The set of handlers that it is of: grows with every reload.
    pub generation: u64,
    /// Not switched off by an operator.
    pub enabled: bool,
    /// What becomes of its readings while its breaker is open.
    pub policy: OpenPolicy,
    /// Time in its calls lately, as a part of one core.
    pub cpu_share: f64,
}

/// The reading that a script failed on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptInput {
    /// Its device.
    pub device_id: Box<str>,
    /// Its place in the journal.
    pub position: Position,
    /// Its payload, cut off where it is long.
    pub payload: Box<str>,
}

/// What becomes of the readings of a script whose breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpenPolicy {
    /// They go on without it.
    Pass,
    /// They are parked.
    #[default]
    Park,
    /// They are refused at the door; those that were in already are parked.
    Reject,
}

/// The breaker of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptStatus {
    /// It runs.
    Closed,
    /// It failed too often in a row and is left out for a while.
    Open,
    /// One reading is let through to see whether it is well again.
    HalfOpen,
    /// It did not load.
    Broken,
}

/// A failure of a script, with its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptError {
    /// What went wrong.
    pub message: Box<str>,
    /// The file.
    pub file: Box<str>,
    /// The line, from 1, if known.
    pub line: Option<u32>,
    /// The column, from 1, if known.
    pub column: Option<u32>,
}

/// How one worker process fares.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerHealth {
    /// Its process id; 0 while it restarts.
    pub pid: u32,
    /// Restarts since the node started.
    pub restarts: u64,
    /// Its resident memory, bytes.
    pub rss_bytes: u64,
    /// Is a batch under way?
    pub busy: bool,
}

/// The engine of a node without handlers: no route, no work.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoScripts;

impl ScriptEngine for NoScripts {
    fn route(&self, _device: &DeviceId, _channel: Channel) -> Route {
        Route::NONE
    }
    fn generation(&self) -> u64 {
        0
    }
    fn try_submit(&self, runs: Vec<ScriptRun>) -> Result<(), Vec<ScriptRun>> {
        if runs.is_empty() { Ok(()) } else { Err(runs) }
    }
    fn scripts(&self) -> Vec<ScriptHealth> {
        Vec::new()
    }
    fn workers(&self) -> Vec<WorkerHealth> {
        Vec::new()
    }
    fn stop(&self) {}
}
