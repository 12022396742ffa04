//! One of the two sets of handlers that a replay compares, with the states that it has come to.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use tidegate_actors::{
    fold::{self, fold},
    ids::{DeviceId, LoopId, Position},
    journal::OutcomeRecord,
    limits,
    reading::Reading,
    script::{OutcomeSink, ParkReason, Route, ScriptCall, ScriptEngine as _, ScriptOutcome, ScriptRun, Verdict},
    state::DeviceState,
};
use tidegate_scripts::{LoadError, PoolConfig, ScriptLimits, SlowConfig, WorkerPool};

/// A reading of the journal, with what became of it when it came.
pub(super) struct Item {
    pub(super) position: Position,
    pub(super) reading: Reading,
    /// `None`: no handler wanted it.
    pub(super) outcome: Option<OutcomeRecord>,
}

/// Readings by device, in order.
pub(super) type Chunk = HashMap<DeviceId, Vec<Item>>;

/// What a set made of a reading.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    pub(super) verdict: Verdict,
    pub(super) script_state: Vec<(Box<str>, Bytes)>,
    pub(super) emits: Vec<(Box<str>, Bytes)>,
    pub(super) commands: Vec<tidegate_actors::script::ScriptCommand>,
}

/// A set of handlers at work.
pub(super) struct Side {
    pool: Arc<WorkerPool>,
    outcomes: flume::Receiver<Vec<ScriptOutcome>>,
    pub(super) states: HashMap<DeviceId, DeviceState>,
    pub(super) failed: u64,
    /// What a breaker refused when it came stays refused.
    keeps_refusals: bool,
}

struct Sink(flume::Sender<Vec<ScriptOutcome>>);

impl OutcomeSink for Sink {
    fn deliver(&self, _: LoopId, outcomes: Vec<ScriptOutcome>) {
        // The replay has ended.
        let _ = self.0.send(outcomes);
    }
}

/// A device's readings on their way through the handlers.
struct Lane<'a> {
    waiting: VecDeque<&'a Item>,
    running: VecDeque<&'a Item>,
}

impl Side {
    /// # Errors
    /// No worker can be started.
    pub(super) fn start(handlers: &Path, files: &Path, keeps_refusals: bool) -> Result<Self, LoadError> {
        // A full one holds the workers up, not the replay: it empties this between two tries to submit.
        let (sender, outcomes) = flume::bounded(limits::SCRIPT_QUEUE);
        // Every reading is tried: a breaker would make results depend on which came first.
        let limits = ScriptLimits { breaker_failures: u32::MAX, max_restarts: u32::MAX, ..ScriptLimits::default() };
        // What the handlers' files hold now can be read; nothing can be changed.
        let slow = SlowConfig { files_dir: Some(files.to_owned()), ..SlowConfig::default() };
        let config = PoolConfig { limits, slow, ..PoolConfig::new(handlers) };
        let pool = WorkerPool::start(config, Arc::new(Sink(sender)))?;
        Ok(Self { pool, outcomes, states: HashMap::new(), failed: 0, keeps_refusals })
    }

    /// Runs a chunk through the handlers. `before`: the states of devices that have none here yet.
    pub(super) fn work(&mut self, chunk: &Chunk, before: &HashMap<DeviceId, DeviceState>) -> HashMap<Position, Made> {
        let mut made = HashMap::new();
        let mut lanes = HashMap::new();
        for (device, items) in chunk {
            if !self.states.contains_key(device)
                && let Some(state) = before.get(device)
            {
                self.states.insert(device.clone(), state.clone());
            }
            lanes.insert(device.clone(), Lane { waiting: items.iter().collect(), running: VecDeque::new() });
        }
        let (mut runs, mut under_way) = (Vec::new(), 0);
        let mut ready: Vec<DeviceId> = chunk.keys().cloned().collect();
        loop {
            while let Some(device) = ready.pop() {
                let Some(lane) = lanes.get_mut(&device) else { continue };
                if let Some(run) = self.next_run(&device, lane, &mut made) {
                    runs.push(run);
                    under_way += 1;
                }
            }
            if under_way == 0 {
                return made;
            }
            if let Err(back) = self.pool.try_submit(std::mem::take(&mut runs)) {
                runs = back;
            }
            let Ok(outcomes) = self.outcomes.recv() else { return made };
            for outcome in outcomes {
                let Some(lane) = lanes.get_mut(&outcome.device) else { continue };
                let Some(item) = lane.running.pop_front() else { continue };
                if lane.running.is_empty() {
                    ready.push(outcome.device.clone());
                    under_way -= 1;
                }
                let ScriptOutcome { verdict, script_state, emits, commands, .. } = outcome;
                let result = Made { verdict, script_state: script_state.into_vec(), emits, commands };
                self.fold(item, result, &mut made);
            }
        }
    }

    pub(super) fn stop(&self) {
        self.pool.stop();
    }

    /// The next readings of a device that handlers work on; those before them that none works on are folded. By the rules of the
    /// device actor.
    fn next_run<'a>(
        &mut self,
        device: &DeviceId,
        lane: &mut Lane<'a>,
        made: &mut HashMap<Position, Made>,
    ) -> Option<ScriptRun> {
        while let Some(item) = lane.waiting.pop_front() {
            let route = self.route(item);
            let is_retry = self.states.get(device).is_some_and(|state| fold::is_retry(state, &item.reading));
            let refused = item.outcome.as_ref().filter(|outcome| self.keeps_refusals && is_refusal(outcome));
            if let Some(refused) = refused.filter(|_| !is_retry) {
                let (verdict, script_state) = (refused.verdict.clone(), refused.script_state.to_vec());
                self.fold(item, Made { verdict, script_state, emits: Vec::new(), commands: Vec::new() }, made);
                continue;
            }
            if is_retry || route.is_empty() {
                self.fold(item, unchanged(), made);
                continue;
            }
            lane.running.push_back(item);
            let mut calls = vec![call(item, route)];
            // As in the device actor: what may be a retry begins a run of its own.
            while let Some(next) = lane.waiting.front()
                && calls.len() < limits::SCRIPT_RUN
                && next.reading.idempotency.is_none()
                && !next.outcome.as_ref().is_some_and(is_refusal)
            {
                let route = self.route(next);
                if route.is_empty() {
                    break;
                }
                calls.push(call(next, route));
                lane.running.extend(lane.waiting.pop_front());
            }
            let state = self.states.get(device);
            let kept = state.filter(|state| state.version > 0);
            return Some(ScriptRun {
                owner: LoopId(0),
                device: device.clone(),
                previous: kept.map(|state| (state.state.clone(), state.device_time.unwrap_or(state.received))),
                script_state: state.map(|state| state.script_state.clone()).unwrap_or_default(),
                generation: self.pool.generation(),
                calls,
            });
        }
        None
    }

    fn route(&self, item: &Item) -> Route {
        self.pool.route(&item.reading.device, item.reading.channel)
    }

    fn fold(&mut self, item: &Item, result: Made, made: &mut HashMap<Position, Made>) {
        self.failed += u64::from(matches!(result.verdict, Verdict::Parked { .. }));
        let before = self.states.get(&item.reading.device);
        let folded = fold(before, item.position, &item.reading, &result.verdict, &result.script_state);
        if let Some(state) = folded.into_state() {
            self.states.insert(item.reading.device.clone(), state);
        }
        made.insert(item.position, result);
    }
}

/// Was it parked without a try?
fn is_refusal(outcome: &OutcomeRecord) -> bool {
    matches!(outcome.verdict, Verdict::Parked { reason: ParkReason::BreakerOpen, .. })
}

fn call(item: &Item, route: Route) -> ScriptCall {
    ScriptCall { position: item.position, route, reading: item.reading.clone() }
}

fn unchanged() -> Made {
    Made { verdict: Verdict::Unchanged, script_state: Vec::new(), emits: Vec::new(), commands: Vec::new() }
}
