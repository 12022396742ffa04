//! The node's side of a worker's runs: which of their readings a frame takes, and what the answers make of their state.
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
    limits,
    script::{
        OpenPolicy, OutcomeSink, ParkReason, Route, ScriptCommand, ScriptError, ScriptInput, ScriptOutcome, ScriptRun,
        Verdict,
    },
};

use crate::{
    breaker::{Admission, Finding},
    frame::{self, Fault, Outcome, WireVerdict},
    late::keeps,
    outbox::Outbox,
    scripts::{Script, Scripts},
};

/// Payload bytes after which a frame takes no further reading.
const FRAME_TARGET_BYTES: usize = 1024 * 1024;
/// Characters that are kept of a reading on which a script failed, to be shown.
const INPUT_CHARS: usize = 500;

/// Runs on their way through a worker. It stays open: runs come in while others wait in their handlers.
pub(crate) struct Batch {
    /// By the number that a frame and its answers name them by.
    open: Vec<Option<Open>>,
    free: Vec<u32>,
    /// Runs of which nothing is at the worker, in the order of their coming.
    ready: VecDeque<u32>,
    /// Runs so far.
    taken: u64,
    /// Readings that were at a worker when it died.
    suspects: usize,
    scripts: Arc<Scripts>,
    /// The generation whose routes are those of the scripts.
    generation: u64,
    outbox: Outbox,
}

/// A run that is not done.
struct Open {
    run: ScriptRun,
    taken: u64,
    /// Its first reading that has no outcome.
    next: usize,
    /// What was decided on that one and those behind it that are at the worker.
    fates: VecDeque<Fate>,
    /// How many of its next readings were at a worker when it died.
    suspects: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It goes to the worker, to these scripts; for some of them it is the probe of their breaker.
    Goes { route: u64, probes: u64 },
    /// No script works on it.
    Passes,
    /// This script's breaker is open.
    Refused { script: usize },
}

impl Batch {
    pub(crate) fn new(scripts: Arc<Scripts>, generation: u64) -> Self {
        let (open, free, ready) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { open, free, ready, taken: 0, suspects: 0, scripts, generation, outbox: Outbox::default() }
    }

    /// Takes a run in. Whatever set of scripts its loop knew, it goes through those of this batch, all of it.
    pub(crate) fn take(&mut self, mut run: ScriptRun) {
        self.taken += 1;
        if run.generation != self.generation {
            run.generation = self.generation;
            for call in &mut run.calls {
                call.route = self.scripts.route(&run.device, call.reading.channel);
            }
        }
        let open = Open { run, taken: self.taken, next: 0, fates: VecDeque::new(), suspects: 0 };
        let number = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            // Far below 2^32: see `limits::SCRIPT_WAITING`.
            u32::try_from(self.open.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.open.get_mut(number as usize) {
            *slot = Some(open);
            self.ready.push_back(number);
        }
    }

    /// Has every reading its outcome?
    pub(crate) fn is_done(&self) -> bool {
        self.open.len() == self.free.len()
    }

    /// Is there room for one more run, and nothing that has to go first?
    pub(crate) fn has_room(&self) -> bool {
        self.ready.is_empty() && self.suspects == 0 && self.open.len() - self.free.len() < limits::SCRIPT_WAITING
    }

    /// Are there readings left that were at a worker when it died?
    pub(crate) fn has_suspects(&self) -> bool {
        self.suspects > 0
    }

    /// Decides on the next readings of runs that are not at the worker, at most `readings` of them, and makes their frame. `None`:
    /// none of them goes to a worker; what was refused has its outcome.
    pub(crate) fn next_frame(&mut self, readings: usize, trace: bool, now: Instant) -> Option<frame::Batch<'_>> {
        let (mut bytes, mut going) = (0, 0);
        let mut framed = Vec::new();
        while going < readings && bytes < FRAME_TARGET_BYTES {
            let Some(number) = self.ready.pop_front() else { break };
            let Some(open) = self.open.get_mut(number as usize).and_then(Option::as_mut) else { continue };
            for call in &open.run.calls[open.next..] {
                if going >= readings || bytes >= FRAME_TARGET_BYTES {
                    break;
                }
                let fate = decide(&self.scripts, call.route, now);
                if let Fate::Goes { .. } = fate {
                    going += 1;
                    bytes += call.reading.payload.len();
                }
                open.fates.push_back(fate);
            }
            if open.fates.iter().any(|fate| matches!(fate, Fate::Goes { .. })) {
                framed.push(number);
            }
            self.settle_refused(number);
        }
        if framed.is_empty() {
            return None;
        }
        let runs = framed.into_iter().filter_map(|number| {
            let open = self.open.get(number as usize)?.as_ref()?;
            Some(wire_run(&self.scripts, number, open))
        });
        Some(frame::Batch { trace, runs: runs.collect() })
    }

    /// Takes the answer to the next reading of a run.
    ///
    /// # Errors
    /// An answer too many, or a script that there is not: the worker is not to be trusted.
    pub(crate) fn answer(&mut self, outcome: Outcome, now: Instant) -> Result<(), &'static str> {
        let number = outcome.run;
        let fate = self.open(number).and_then(|open| open.fates.front());
        let Some(Fate::Goes { route, probes }) = fate.copied() else { return Err("an answer too many") };
        let Some(verdict) = self.verdict(number, outcome.verdict) else { return Err("a script that there is not") };
        let mut script_state = smallvec::SmallVec::new();
        for (script, json) in outcome.states {
            let Some(script) = self.scripts.get(script.into()) else { return Err("a script that there is not") };
            script_state.push((script.name.clone(), Bytes::from(json)));
        }
        let emits = outcome.emits.into_iter().map(|(name, json)| (name.into(), json.into())).collect();
        self.tell_breakers(route, &verdict, probes, now);
        let commands = outcome.commands.into_iter().map(|command| ScriptCommand {
            device: command.device.into(),
            name: command.name.into(),
            params: command.params.into(),
        });
        let commands = commands.collect();
        self.settle(number, verdict, script_state, emits, commands);
        self.settle_refused(number);
        Ok(())
    }

    /// Parks the next reading of a run: its worker died of it. `calling`: what the worker said last that it runs. `restarts`: how
    /// many workers it took to find that out.
    pub(crate) fn park(
        &mut self,
        calling: Option<(u32, u8)>,
        reason: ParkReason,
        message: &str,
        restarts: u32,
        now: Instant,
    ) {
        let at_worker = |open: &Option<Open>| open.as_ref().is_some_and(|open| !open.fates.is_empty());
        let said = calling.filter(|(run, _)| self.open.get(*run as usize).is_some_and(at_worker));
        let first = || {
            let mut numbers = (0_u32..).zip(&self.open);
            numbers.find(|(_, open)| at_worker(open)).map(|(number, _)| number)
        };
        let Some(number) = said.map(|(run, _)| run).or_else(first) else { return };
        let fate = self.open(number).and_then(|open| open.fates.front());
        let Some(Fate::Goes { route, probes }) = fate.copied() else { return };
        let first = u8::try_from(route.trailing_zeros()).unwrap_or(0);
        let script = said.map_or(first, |(_, script)| script);
        let script = if route >> script & 1 == 1 { script } else { first };
        if let Some(script) = self.scripts.get(script.into()) {
            // No answer counted this call.
            script.stats.counts.calls.fetch_add(1, Ordering::Relaxed);
        }
        let fault = Fault { reason: reason as u8, message: message.to_owned(), file: None, line: 0, column: 0 };
        let Some(verdict) = self.verdict(number, WireVerdict::Parked(script, fault)) else { return };
        self.tell_breakers(route, &verdict, probes, now);
        if let Some(script) = self.scripts.get(script.into())
            && script.breaker.restarted(restarts, now)
        {
            tell_opened(&script.name, "it has cost too many restarts of workers");
        }
        self.settle(number, verdict, smallvec::SmallVec::new(), Vec::new(), Vec::new());
        self.settle_refused(number);
    }

    /// The worker is gone with readings under way: whether they may go again is decided anew, since the breakers may have opened.
    /// `died`: of one of them.
    pub(crate) fn redecide(&mut self, died: bool, now: Instant) {
        let mut numbers = Vec::new();
        for (number, open) in (0_u32..).zip(&mut self.open) {
            let Some(open) = open else { continue };
            if died && open.fates.len() > open.suspects {
                self.suspects += open.fates.len() - open.suspects;
                open.suspects = open.fates.len();
            }
            for fate in open.fates.drain(..) {
                if let Fate::Goes { probes, .. } = fate {
                    for (_, script) in self.scripts.of(probes) {
                        script.breaker.tell(Finding::NotCalled, true, now);
                    }
                }
            }
            numbers.push((open.taken, number));
        }
        numbers.sort_unstable();
        self.ready = numbers.into_iter().map(|(_, number)| number).collect();
    }

    /// Hands the outcomes so far to the loops.
    pub(crate) fn deliver(&mut self, sink: &dyn OutcomeSink) {
        self.outbox.deliver(sink);
    }

    /// The scripts before the one that ended the chain were well, those after it were not called.
    fn tell_breakers(&self, route: u64, verdict: &Verdict, probes: u64, now: Instant) {
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
            if script.breaker.tell(finding, probe, now) {
                tell_opened(&script.name, "too many failures in a row");
            }
        }
    }

    fn verdict(&self, number: u32, wire: WireVerdict) -> Option<Verdict> {
        Some(match wire {
            WireVerdict::Unchanged => Verdict::Unchanged,
            WireVerdict::Keep(json) => Verdict::Keep(json.into()),
            WireVerdict::Dropped(script) => Verdict::Dropped { script: self.scripts.get(script.into())?.name.clone() },
            WireVerdict::Parked(script, fault) => {
                let script = self.scripts.get(script.into())?;
                let reason = ParkReason::from_number(fault.reason).unwrap_or(ParkReason::Crashed);
                let error = script_error(fault, script);
                let message = one_line(&error);
                script.stats.failed(error, self.input(number));
                Verdict::Parked { script: script.name.clone(), reason, message }
            }
        })
    }

    /// The next reading of a run, to be shown.
    fn input(&self, number: u32) -> ScriptInput {
        let call = self.open(number).and_then(|open| open.run.calls.get(open.next));
        let text = |payload: &[u8]| frame::clip(&String::from_utf8_lossy(payload), INPUT_CHARS).into();
        ScriptInput {
            device_id: call.map(|call| call.reading.device.as_str()).unwrap_or_default().into(),
            position: call.map(|call| call.position).unwrap_or_default(),
            payload: call.map(|call| text(&call.reading.payload)).unwrap_or_default(),
        }
    }

    /// Gives the next reading of a run its outcome.
    fn settle(
        &mut self,
        number: u32,
        verdict: Verdict,
        script_state: smallvec::SmallVec<[(Box<str>, Bytes); 1]>,
        emits: Vec<(Box<str>, Bytes)>,
        commands: Vec<ScriptCommand>,
    ) {
        let Some(open) = self.open.get_mut(number as usize).and_then(Option::as_mut) else { return };
        open.fates.pop_front();
        if open.suspects > 0 {
            open.suspects -= 1;
            self.suspects -= 1;
        }
        let run = &mut open.run;
        let call = &run.calls[open.next];
        open.next += 1;
        let time = call.reading.effective_time();
        if keeps(run.previous.as_ref().map(|(_, time)| *time), time) {
            match &verdict {
                Verdict::Unchanged if call.reading.channel.is_event() => {}
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
        let (is_done, is_back) = (open.next == run.calls.len(), open.fates.is_empty());
        if is_done {
            self.open[number as usize] = None;
            self.free.push(number);
        } else if is_back {
            self.ready.push_back(number);
        }
    }

    /// Gives readings at the front of a run that go to no worker their outcome: in order, so not before those in front of them.
    fn settle_refused(&mut self, number: u32) {
        while let Some(fate) = self.open(number).and_then(|open| open.fates.front()).copied() {
            let verdict = match fate {
                Fate::Goes { .. } => return,
                Fate::Passes => Verdict::Unchanged,
                Fate::Refused { script } => {
                    let Some(script) = self.scripts.get(script) else { return };
                    script.stats.counts.parked.fetch_add(1, Ordering::Relaxed);
                    let message = format!("the breaker of {} is open after too many failures", script.name);
                    let (script, message) = (script.name.clone(), message.into());
                    Verdict::Parked { script, reason: ParkReason::BreakerOpen, message }
                }
            };
            self.settle(number, verdict, smallvec::SmallVec::new(), Vec::new(), Vec::new());
        }
    }

    fn open(&self, number: u32) -> Option<&Open> {
        self.open.get(number as usize)?.as_ref()
    }
}

/// May the breakers of a reading's scripts let it through, and to which of them?
fn decide(scripts: &Scripts, Route(wanted): Route, now: Instant) -> Fate {
    let (mut route, mut probes) = (0, 0);
    for (number, script) in scripts.of(wanted).filter(|(_, script)| script.is_enabled()) {
        match script.breaker.admit(now) {
            Admission::Yes => route |= 1 << number,
            Admission::Probe => {
                route |= 1 << number;
                probes |= 1 << number;
            }
            Admission::No if scripts.policy == OpenPolicy::Pass => {}
            Admission::No => {
                for (_, script) in scripts.of(probes) {
                    script.breaker.tell(Finding::NotCalled, true, now);
                }
                return Fate::Refused { script: number };
            }
        }
    }
    if route == 0 { Fate::Passes } else { Fate::Goes { route, probes } }
}

fn tell_opened(script: &str, why: &str) {
    tracing::error!(script, "the breaker is open: {why}; `tidegate script rearm {script}` closes it");
}

/// The readings of a run that go to the worker.
fn wire_run<'a>(scripts: &Scripts, id: u32, open: &'a Open) -> frame::Run<'a> {
    let Open { run, next, fates, .. } = open;
    let states = run.script_state.iter().filter_map(|(name, json)| {
        let number = scripts.number(name)?;
        Some((u8::try_from(number).ok()?, &**json))
    });
    let going = run.calls[*next..].iter().zip(fates).filter_map(|(call, fate)| match fate {
        Fate::Goes { route, .. } => Some((call, *route)),
        Fate::Passes | Fate::Refused { .. } => None,
    });
    let calls = going.map(|(call, route)| frame::Call {
        position: call.position.0,
        route,
        channel: call.reading.channel as u8,
        device_time: call.reading.device_time,
        received: call.reading.received,
        payload: &call.reading.payload,
    });
    frame::Run {
        id,
        device: run.device.as_str(),
        previous: run.previous.as_ref().map(|(json, time)| (&**json, *time)),
        states: states.collect(),
        calls: calls.collect(),
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
