//! The handlers under test: what a node does with a reading (which handlers want it, the run in a worker, the fold into the device's
//! state), one reading at a time and without a journal.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_actors::{
    fold::{Folded, fold},
    ids::{DeviceId, Position},
    limits,
    reading::{Channel, Reading},
    script::{ParkReason, Verdict, command_id},
    state::DeviceState,
};

use crate::{
    config::{ScriptLimits, WorkerCommand},
    frame::{Batch, Call, Fault, FromWorker, LogLevel, LogLine, Outcome, Run, WireVerdict},
    load::{LoadError, LoadedScript, first_load},
    process::{Failure, Process, broken},
    slow::{Desk, SlowConfig, SlowWork},
    source::SourceSet,
    supervisor::{DEADLINE_GRACE, blame},
};

/// Devices of one file of tests.
const DEVICES: usize = 10_000;

/// What a test asks.
#[derive(Deserialize)]
struct Question {
    /// Which device of the test.
    handle: u32,
    device: String,
    /// Only through this handler.
    handler: Option<String>,
    channel: String,
    ts: Option<i64>,
    now: i64,
    payload: String,
}

/// What came of a reading, for the test.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    outcome: &'static str,
    state: Option<Box<RawValue>>,
    emitted: Vec<Event>,
    commands: Vec<Sent>,
    logs: Vec<Log>,
    parked: Option<Parked>,
    dropped_by: Option<Box<str>>,
    /// The handlers that it was for.
    handlers: Vec<Box<str>>,
    received_time: i64,
    ctx_states: BTreeMap<Box<str>, Box<RawValue>>,
    waited: u64,
}

#[derive(Serialize)]
struct Event {
    name: String,
    payload: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    id: String,
    device_id: String,
    name: String,
    params: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Log {
    level: &'static str,
    handler: Box<str>,
    text: String,
}

#[derive(Serialize)]
struct Parked {
    reason: &'static str,
    handler: Box<str>,
    message: String,
    file: Box<str>,
    line: Option<u32>,
    column: Option<u32>,
}

/// The handlers of a directory and the devices of a file of tests.
pub(super) struct House<'a> {
    sources: &'a Arc<SourceSet>,
    command: &'a WorkerCommand,
    limits: &'a ScriptLimits,
    /// The slow work of the handlers, none of which can be seen outside.
    slow: Arc<SlowWork>,
    /// What the first load found, once a test has sent something.
    scripts: Option<Vec<LoadedScript>>,
    process: Option<Process>,
    devices: HashMap<u32, DeviceState>,
    position: u64,
}

impl<'a> House<'a> {
    /// # Errors
    /// There are no threads for slow work.
    pub(super) fn new(
        sources: &'a Arc<SourceSet>,
        command: &'a WorkerCommand,
        limits: &'a ScriptLimits,
    ) -> Result<Self, LoadError> {
        let slow = SlowWork::new(SlowConfig::default(), command, limits);
        let slow = Arc::new(slow.map_err(|error| LoadError::Worker(error.to_string()))?);
        Ok(Self { sources, command, limits, slow, scripts: None, process: None, devices: HashMap::new(), position: 0 })
    }

    /// The tests begin anew in another worker: their devices are others.
    pub(super) fn forget_devices(&mut self) {
        self.devices.clear();
    }

    /// Ends the handlers' worker.
    pub(super) fn close(&mut self) {
        if let Some(process) = self.process.take() {
            process.retire(Duration::from_secs(1));
        }
    }

    /// The answer to a test's question, both as JSON.
    pub(super) fn answer(&mut self, question: &str) -> String {
        let answer = serde_json::from_str(question)
            .map_err(|error| error.to_string())
            .and_then(|question| self.send(&question))
            .and_then(|answer| serde_json::to_string(&answer).map_err(|error| error.to_string()));
        answer.unwrap_or_else(|error| serde_json::json!({ "error": error }).to_string())
    }

    /// A reading, to what came of it.
    fn send(&mut self, question: &Question) -> Result<Answer, String> {
        let device = DeviceId::new(&question.device).map_err(|error| format!("the device id: {error}"))?;
        let channel = match question.channel.as_str() {
            "metrics" => Channel::Metrics,
            "telemetry" => Channel::Telemetry,
            other => return Err(format!("the channel is metrics or telemetry, not {other:?}")),
        };
        let payload = payload(&question.payload)?;
        if self.devices.len() >= DEVICES && !self.devices.contains_key(&question.handle) {
            return Err(format!("a file of tests has at most {DEVICES} devices"));
        }
        self.load()?;
        let route = self.route(&device, channel, question.handler.as_deref())?;
        self.position += 1;
        let position = Position(self.position);
        let reading = Reading::new(device, channel, question.ts, question.now, payload);
        let (outcome, logs) = if route == 0 {
            let (states, emits, commands) = (Vec::new(), Vec::new(), Vec::new());
            let outcome = Outcome { run: 0, verdict: WireVerdict::Unchanged, states, emits, commands, waited_ms: 0 };
            (outcome, Vec::new())
        } else {
            self.work(question.handle, position, route, &reading)
        };
        self.settle(question.handle, position, route, &reading, outcome, logs)
    }

    /// Loads the handlers if no test has sent anything before.
    fn load(&mut self) -> Result<(), String> {
        if self.scripts.is_none() {
            let loaded = first_load(self.sources, self.command, self.limits).map_err(|error| error.to_string())?;
            self.scripts = Some(loaded.scripts);
            self.process = loaded.process;
        }
        Ok(())
    }

    fn scripts(&self) -> &[LoadedScript] {
        self.scripts.as_deref().unwrap_or_default()
    }

    fn name(&self, number: u8) -> Box<str> {
        self.scripts().get(usize::from(number)).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    /// The handlers that a reading goes through. One that does not load fails the test rather than to be left out.
    fn route(&self, device: &DeviceId, channel: Channel, only: Option<&str>) -> Result<u64, String> {
        if let Some(only) = only
            && !self.scripts().iter().any(|(name, _)| **name == *only)
        {
            let names: Vec<_> = self.scripts().iter().map(|(name, _)| &**name).collect();
            return Err(format!("there is no handler {only:?}: there are {}", names.join(", ")));
        }
        let mut route = 0;
        let all = self.scripts().iter().take(limits::SCRIPTS).enumerate();
        for (number, (_, loaded)) in all.filter(|(_, (name, _))| only.is_none_or(|only| **name == *only)) {
            match loaded {
                Ok(matching) if matching.wants(device, channel) => route |= 1 << number,
                Ok(_) => {}
                Err(error) => {
                    let place = match (error.line, error.column) {
                        (Some(line), Some(column)) => format!("{}:{line}:{column}", error.file),
                        _ => error.file.to_string(),
                    };
                    return Err(format!("a handler does not load: {place}: {}", error.message));
                }
            }
        }
        Ok(route)
    }

    /// Has a worker work on a reading. One that dies of it has parked it.
    fn work(&mut self, handle: u32, position: Position, route: u64, reading: &Reading) -> (Outcome, Vec<LogLine>) {
        let mut logs = Vec::new();
        let mut calling = u8::try_from(route.trailing_zeros()).unwrap_or(0);
        match self.talk(handle, position, route, reading, &mut logs, &mut calling) {
            Ok(outcome) => (outcome, logs),
            Err(failure) => {
                let (reason, message) = match self.process.take() {
                    Some(process) => blame(&failure, &process.bury(&failure), self.limits),
                    None => (ParkReason::Crashed, "no worker can be started".to_owned()),
                };
                let fault = Fault { reason: reason as u8, message, file: None, line: 0, column: 0 };
                let verdict = WireVerdict::Parked(calling, fault);
                let (states, emits, commands) = (Vec::new(), Vec::new(), Vec::new());
                (Outcome { run: 0, verdict, states, emits, commands, waited_ms: 0 }, logs)
            }
        }
    }

    fn talk(
        &mut self,
        handle: u32,
        position: Position,
        route: u64,
        reading: &Reading,
        logs: &mut Vec<LogLine>,
        calling: &mut u8,
    ) -> Result<Outcome, Failure> {
        if self.process.is_none() {
            let skip: Vec<bool> = self.scripts().iter().map(|(_, loaded)| loaded.is_err()).collect();
            let mut process = Process::spawn(self.command)?;
            process.load(self.sources, &skip, self.limits).map_err(|(_, failure)| failure)?;
            self.process = Some(process);
        }
        if let Some(process) = &mut self.process
            && process.desk().is_none()
        {
            process.attach(Desk::new(&self.slow, self.sources, false)?);
        }
        let state = self.devices.get(&handle);
        let kept = state.filter(|state| state.version > 0);
        let states = state.into_iter().flat_map(|state| &state.script_state);
        let number = |of: &str| self.scripts().iter().position(|(name, _)| **name == *of);
        let run = Run {
            id: 0,
            device: reading.device.as_str(),
            previous: kept.map(|state| (&*state.state, state.device_time.unwrap_or(state.received))),
            states: states.filter_map(|(name, json)| Some((u8::try_from(number(name)?).ok()?, &**json))).collect(),
            calls: vec![Call {
                position: position.0,
                route,
                channel: reading.channel as u8,
                device_time: reading.device_time,
                received: reading.received,
                payload: &reading.payload,
            }],
        };
        let Some(process) = &mut self.process else { return Err(broken("no worker")) };
        process.ask(Batch { trace: true, runs: vec![run] })?;
        let (mut found, mut is_free) = (None, false);
        // What a handler waits for takes no time, but turn after turn may.
        let deadline = Instant::now() + self.limits.async_wall * 2;
        while found.is_none() || !is_free {
            if Instant::now() > deadline {
                return Err(Failure::Silent);
            }
            match process.hear(self.limits.call_wall + DEADLINE_GRACE)? {
                FromWorker::Calling { script, .. } => *calling = script,
                FromWorker::Results(results) => {
                    logs.extend(results.logs);
                    found = results.outcomes.into_iter().next().or(found);
                }
                FromWorker::Done { retire } => {
                    is_free = true;
                    if retire {
                        if found.is_none() {
                            return Err(broken("an answer is missing"));
                        }
                        let process = self.process.take();
                        logs.extend(process.map(|process| process.retire(Duration::from_secs(1))).unwrap_or_default());
                        break;
                    }
                }
                _ => return Err(broken("an answer out of place")),
            }
        }
        found.ok_or_else(|| broken("an answer is missing"))
    }

    /// Folds what a worker made of a reading into the device's state, and tells of it.
    fn settle(
        &mut self,
        handle: u32,
        position: Position,
        route: u64,
        reading: &Reading,
        outcome: Outcome,
        logs: Vec<LogLine>,
    ) -> Result<Answer, String> {
        let (mut parked, mut dropped_by) = (None, None);
        let verdict = match outcome.verdict {
            WireVerdict::Unchanged => Verdict::Unchanged,
            WireVerdict::Keep(json) => Verdict::Keep(json.into()),
            WireVerdict::Dropped(script) => {
                dropped_by = Some(self.name(script));
                Verdict::Dropped { script: self.name(script) }
            }
            WireVerdict::Parked(script, fault) => {
                let reason = ParkReason::from_number(fault.reason).unwrap_or(ParkReason::Crashed);
                let (script, known) = (self.name(script), |number: u32| (number > 0).then_some(number));
                let message: Box<str> = fault.message.as_str().into();
                parked = Some(Parked {
                    reason: reason.name(),
                    handler: script.clone(),
                    file: fault.file.map_or_else(|| script.clone(), Into::into),
                    line: known(fault.line),
                    column: known(fault.column),
                    message: fault.message,
                });
                Verdict::Parked { script, reason, message }
            }
        };
        let states: Vec<(Box<str>, Bytes)> =
            outcome.states.into_iter().map(|(script, json)| (self.name(script), json.into())).collect();
        let folded = fold(self.devices.get(&handle), position, reading, &verdict, &states);
        let outcome_name = match &folded {
            Folded::Committed(_) => "committed",
            Folded::Conflated(..) => "conflated",
            Folded::Dropped(_) => "dropped",
            Folded::Parked(..) => "parked",
        };
        if let Some(state) = folded.into_state() {
            self.devices.insert(handle, state);
        }
        let state = self.devices.get(&handle);
        let kept = state.filter(|state| state.version > 0).map(|state| raw(&state.state)).transpose()?;
        let mut ctx_states = BTreeMap::new();
        for (script, json) in state.into_iter().flat_map(|state| &state.script_state) {
            ctx_states.insert(script.clone(), raw(json)?);
        }
        let emitted = outcome.emits.into_iter().map(|(name, json)| Ok(Event { name, payload: Some(raw(&json)?) }));
        let commands = outcome.commands.into_iter().enumerate().map(|(index, command)| {
            let id = command_id(position, index);
            Ok(Sent { id, device_id: command.device, name: command.name, params: Some(raw(&command.params)?) })
        });
        let level = |level| match level {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        let logs = logs.into_iter().map(|line| Log {
            level: level(line.level),
            handler: self.name(line.script),
            text: line.text,
        });
        let numbers = 0..u8::try_from(limits::SCRIPTS).unwrap_or(u8::MAX);
        Ok(Answer {
            outcome: outcome_name,
            state: kept,
            emitted: emitted.collect::<Result<_, String>>()?,
            commands: commands.collect::<Result<_, String>>()?,
            logs: logs.collect(),
            parked,
            dropped_by,
            handlers: numbers.filter(|number| route >> number & 1 == 1).map(|number| self.name(number)).collect(),
            received_time: reading.received,
            ctx_states,
            waited: outcome.waited_ms,
        })
    }
}

/// The JSON of a reading, as the edge would take it.
fn payload(text: &str) -> Result<Bytes, String> {
    let text = text.trim();
    if text.len() > limits::SCRIPT_VALUE_BYTES {
        let (bytes, most) = (text.len(), limits::SCRIPT_VALUE_BYTES);
        return Err(format!("the reading has {bytes} bytes, more than {most} (limit script_value_bytes)"));
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| format!("the reading is no JSON: {error}"))?;
    if !text.starts_with('{') {
        return Err("the reading is no JSON object".to_owned());
    }
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

fn raw(json: &[u8]) -> Result<Box<RawValue>, String> {
    let text = String::from_utf8(json.to_vec()).map_err(|error| error.to_string())?;
    RawValue::from_string(text).map_err(|error| error.to_string())
}
