//! The node's side of a batch: runs under way, which of their readings a frame takes, and what the answers make of their state.
//!
//! Pure but for the breakers and the counts: it knows no process and no socket. The state (`previous`, `ctx.state`) is threaded
//! here too, by the same rule as in the worker, so that a run whose worker died goes on from its last answer.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;
use tidegate_actors::{
    ids::LoopId,
    script::{OutcomeSink, ParkReason, ScriptCommand, ScriptError, ScriptOutcome, ScriptRun, Verdict},
};

use crate::{
    breaker::{Admission, Finding},
    frame::{self, Fault, Outcome, WireVerdict},
    late::keeps,
    scripts::{Script, Scripts},
};

/// Payload bytes after which a frame takes no further reading.
const FRAME_TARGET_BYTES: usize = 1024 * 1024;

/// Runs on their way through a worker.
pub(crate) struct Batch {
    runs: Vec<ScriptRun>,
    todo: VecDeque<Entry>,
    /// How many entries at the front the last frame has taken.
    framed: usize,
    scripts: Arc<Scripts>,
    outbox: Outbox,
}

/// One reading that has no outcome yet.
#[derive(Debug, Clone, Copy)]
struct Entry {
    run: usize,
    call: usize,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Undecided,
    /// It goes to the worker; for these scripts it is the probe of their breaker.
    Goes {
        probes: u64,
    },
    /// This script's breaker is open.
    Refused {
        script: usize,
    },
}

impl Batch {
    pub(crate) fn new(runs: Vec<ScriptRun>, scripts: Arc<Scripts>) -> Self {
        let calls = |(run, it): (usize, &ScriptRun)| {
            (0..it.calls.len()).map(move |call| Entry { run, call, fate: Fate::Undecided }).collect::<Vec<_>>()
        };
        let todo = runs.iter().enumerate().flat_map(calls).collect();
        Self { runs, todo, framed: 0, scripts, outbox: Outbox::default() }
    }

    /// Has every reading its outcome?
    pub(crate) fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// Has every reading of the last frame its outcome?
    pub(crate) fn is_answered(&self) -> bool {
        self.framed == 0
    }

    /// Decides on the next readings, at most `readings` of them, and makes their frame. `None`: none of them goes to a worker;
    /// what was refused has its outcome.
    pub(crate) fn next_frame(&mut self, readings: usize, trace: bool, now: Instant) -> Option<frame::Batch<'_>> {
        let (mut bytes, mut going) = (0, 0);
        self.framed = 0;
        while self.framed < self.todo.len() && going < readings && bytes < FRAME_TARGET_BYTES {
            let entry = self.todo[self.framed];
            let fate = match entry.fate {
                Fate::Undecided => self.decide(entry, now),
                decided => decided,
            };
            self.todo[self.framed].fate = fate;
            if let Fate::Goes { .. } = fate {
                going += 1;
                bytes += self.runs[entry.run].calls[entry.call].reading.payload.len();
            }
            self.framed += 1;
        }
        self.settle_refused();
        if going == 0 {
            return None;
        }
        let mut runs: Vec<frame::Run<'_>> = Vec::new();
        let mut current = None;
        for entry in self.todo.iter().take(self.framed) {
            if let Fate::Refused { .. } = entry.fate {
                continue;
            }
            let run = &self.runs[entry.run];
            if current != Some(entry.run) {
                current = Some(entry.run);
                runs.push(self.wire_run(run));
            }
            if let Some(wire) = runs.last_mut() {
                let call = &run.calls[entry.call];
                wire.calls.push(frame::Call {
                    position: call.position.0,
                    route: call.route.0,
                    channel: call.reading.channel as u8,
                    device_time: call.reading.device_time,
                    received: call.reading.received,
                    payload: &call.reading.payload,
                });
            }
        }
        Some(frame::Batch { trace, runs })
    }

    /// Takes the answer to the next reading of the frame.
    ///
    /// # Errors
    /// An answer too many, or a script that there is not: the worker is not to be trusted.
    pub(crate) fn answer(&mut self, outcome: Outcome, now: Instant) -> Result<(), &'static str> {
        let Some(entry) = self.todo.front().copied().filter(|_| self.framed > 0) else {
            return Err("an answer too many");
        };
        let Fate::Goes { probes } = entry.fate else { return Err("an answer to a reading that was refused") };
        let Some(verdict) = self.verdict(outcome.verdict) else { return Err("a script that there is not") };
        let mut script_state = smallvec::SmallVec::new();
        for (script, json) in outcome.states {
            let Some(script) = self.scripts.get(script.into()) else { return Err("a script that there is not") };
            script_state.push((script.name.clone(), Bytes::from(json)));
        }
        let emits = outcome.emits.into_iter().map(|(name, json)| (name.into(), json.into())).collect();
        self.tell_breakers(entry, &verdict, probes, now);
        let commands = outcome.commands.into_iter().map(|command| ScriptCommand {
            device: command.device.into(),
            name: command.name.into(),
            params: command.params.into(),
        });
        let commands = commands.collect();
        self.settle(entry, verdict, script_state, emits, commands);
        self.settle_refused();
        Ok(())
    }

    /// Parks the next reading: its worker died of it.
    pub(crate) fn park_front(&mut self, script: Option<u8>, reason: ParkReason, message: &str, now: Instant) {
        let Some(entry) = self.todo.front().copied() else { return };
        let route = self.runs[entry.run].calls[entry.call].route.0;
        let first = u8::try_from(route.trailing_zeros()).unwrap_or(0);
        let script = script.filter(|script| route >> script & 1 == 1).unwrap_or(first);
        if let Some(script) = self.scripts.get(script.into()) {
            // No answer counted this call.
            script.stats.calls.fetch_add(1, Ordering::Relaxed);
        }
        let fault = Fault { reason: reason as u8, message: message.to_owned(), file: None, line: 0, column: 0 };
        let Some(verdict) = self.verdict(WireVerdict::Parked(script, fault)) else { return };
        let probes = if let Fate::Goes { probes } = entry.fate { probes } else { 0 };
        self.framed = self.framed.max(1);
        self.tell_breakers(entry, &verdict, probes, now);
        self.settle(entry, verdict, smallvec::SmallVec::new(), Vec::new(), Vec::new());
        self.settle_refused();
    }

    /// The worker died with readings under way: whether they may go again is decided anew, since the breakers may have opened.
    pub(crate) fn redecide(&mut self, now: Instant) {
        self.framed = 0;
        for entry in &mut self.todo {
            if let Fate::Goes { probes } = entry.fate {
                for (_, script) in self.scripts.of(probes) {
                    script.breaker.tell(Finding::NotCalled, true, now);
                }
                entry.fate = Fate::Undecided;
            }
        }
    }

    /// Hands the outcomes so far to the loops.
    pub(crate) fn deliver(&mut self, sink: &dyn OutcomeSink) {
        self.outbox.deliver(sink);
    }

    /// May the breakers of a reading's scripts let it through?
    fn decide(&self, entry: Entry, now: Instant) -> Fate {
        let route = self.runs[entry.run].calls[entry.call].route.0;
        let mut probes = 0;
        for (number, script) in self.scripts.of(route) {
            match script.breaker.admit(now) {
                Admission::Yes => {}
                Admission::Probe => probes |= 1 << number,
                Admission::No => {
                    for (_, script) in self.scripts.of(probes) {
                        script.breaker.tell(Finding::NotCalled, true, now);
                    }
                    return Fate::Refused { script: number };
                }
            }
        }
        Fate::Goes { probes }
    }

    /// The scripts before the one that ended the chain were well, those after it were not called.
    fn tell_breakers(&self, entry: Entry, verdict: &Verdict, probes: u64, now: Instant) {
        let route = self.runs[entry.run].calls[entry.call].route.0;
        let mut ended = false;
        for (number, script) in self.scripts.of(route) {
            let probe = probes >> number & 1 == 1;
            let finding = match verdict {
                _ if ended => Finding::NotCalled,
                Verdict::Parked { script: failed, .. } if *failed == script.name => Finding::Failed,
                _ => Finding::Well,
            };
            let ends = |name: &str| *script.name == *name;
            ended |= match verdict {
                Verdict::Parked { script, .. } | Verdict::Dropped { script } => ends(script),
                Verdict::Keep(_) | Verdict::Unchanged => false,
            };
            script.breaker.tell(finding, probe, now);
        }
    }

    fn verdict(&self, wire: WireVerdict) -> Option<Verdict> {
        Some(match wire {
            WireVerdict::Unchanged => Verdict::Unchanged,
            WireVerdict::Keep(json) => Verdict::Keep(json.into()),
            WireVerdict::Dropped(script) => Verdict::Dropped { script: self.scripts.get(script.into())?.name.clone() },
            WireVerdict::Parked(script, fault) => {
                let script = self.scripts.get(script.into())?;
                let reason = ParkReason::from_number(fault.reason).unwrap_or(ParkReason::Crashed);
                let error = script_error(fault, script);
                let message = one_line(&error);
                script.stats.failed(error);
                Verdict::Parked { script: script.name.clone(), reason, message }
            }
        })
    }

    fn settle(
        &mut self,
        entry: Entry,
        verdict: Verdict,
        script_state: smallvec::SmallVec<[(Box<str>, Bytes); 1]>,
        emits: Vec<(Box<str>, Bytes)>,
        commands: Vec<ScriptCommand>,
    ) {
        self.todo.pop_front();
        self.framed = self.framed.saturating_sub(1);
        let run = &mut self.runs[entry.run];
        let call = &run.calls[entry.call];
        let time = call.reading.effective_time();
        if keeps(run.previous.as_ref().map(|(_, time)| *time), time) {
            match &verdict {
                Verdict::Unchanged => run.previous = Some((call.reading.payload.clone(), time)),
                Verdict::Keep(json) => run.previous = Some((json.clone(), time)),
                Verdict::Dropped { .. } | Verdict::Parked { .. } => {}
            }
        }
        for (script, json) in &script_state {
            match run.script_state.iter_mut().find(|(of, _)| of == script) {
                Some((_, old)) => *old = json.clone(),
                None => run.script_state.push((script.clone(), json.clone())),
            }
        }
        let (device, position) = (run.device.clone(), call.position);
        self.outbox.push(run.owner, ScriptOutcome { device, position, verdict, script_state, emits, commands });
    }

    /// Gives refused readings at the front their outcome: in order, so not before those in front of them.
    fn settle_refused(&mut self) {
        while let Some(entry) = self.todo.front().copied()
            && let Fate::Refused { script } = entry.fate
        {
            let Some(script) = self.scripts.get(script) else { return };
            script.stats.parked.fetch_add(1, Ordering::Relaxed);
            let message = format!("the breaker of {} is open after too many failures in a row", script.name);
            let verdict = Verdict::Parked {
                script: script.name.clone(),
                reason: ParkReason::BreakerOpen,
                message: message.into(),
            };
            self.settle(entry, verdict, smallvec::SmallVec::new(), Vec::new(), Vec::new());
        }
    }

    fn wire_run<'a>(&self, run: &'a ScriptRun) -> frame::Run<'a> {
        let states = run.script_state.iter().filter_map(|(name, json)| {
            let number = self.scripts.number(name)?;
            Some((u8::try_from(number).ok()?, &**json))
        });
        frame::Run {
            device: run.device.as_str(),
            previous: run.previous.as_ref().map(|(json, time)| (&**json, *time)),
            states: states.collect(),
            calls: Vec::new(),
        }
    }
}

/// A fault with the script's file where it names none.
pub(crate) fn script_error(fault: Fault, script: &Script) -> ScriptError {
    let known = |number: u32| (number > 0).then_some(number);
    ScriptError {
        message: fault.message.into(),
        file: fault.file.map_or_else(|| script.name.clone(), Into::into),
        line: known(fault.line),
        column: known(fault.column),
    }
}

/// `message (file:line:column)`.
fn one_line(error: &ScriptError) -> Box<str> {
    let ScriptError { message, file, line, column } = error;
    match (line, column) {
        (Some(line), Some(column)) => format!("{message} ({file}:{line}:{column})"),
        (Some(line), None) => format!("{message} ({file}:{line})"),
        (None, _) => format!("{message} ({file})"),
    }
    .into()
}

/// Outcomes that wait to be delivered, by loop.
#[derive(Default)]
struct Outbox(Vec<(LoopId, Vec<ScriptOutcome>)>);

impl Outbox {
    fn push(&mut self, owner: LoopId, outcome: ScriptOutcome) {
        match self.0.iter_mut().find(|(of, _)| *of == owner) {
            Some((_, outcomes)) => outcomes.push(outcome),
            None => self.0.push((owner, vec![outcome])),
        }
    }

    fn deliver(&mut self, sink: &dyn OutcomeSink) {
        for (owner, outcomes) in self.0.drain(..) {
            sink.deliver(owner, outcomes);
        }
    }
}
