//! One of the two sets of a canary: a worker of its own that works on copies of readings, and what comes of them. Nothing of it
//! becomes a state, an event, a command or a log line.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use flume::Receiver;
use tidegate_actors::{
    ids::{LoopId, Position},
    script::{OutcomeSink, ScriptOutcome, ScriptRun, Verdict},
};

use crate::{
    batch::Batch,
    frame::{FromWorker, Outcome},
    process::{Failure, Process, broken},
    set::Set,
    supervisor::{Shared, attach, blame, start},
};

/// No set has it: a lane finds its own routes.
const NO_ROUTES: u64 = 0;
/// Deaths of workers with which a lane puts up in one go.
const DEATHS: u32 = 20;
/// A little more than the wall deadline: for the frame's way.
const GRACE: Duration = Duration::from_millis(50);

/// What was counted in a lane.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneReport {
    /// Readings that failed.
    pub failed: u64,
    /// How the first of them failed: script, message and place.
    pub first_failure: Option<String>,
    /// CPU time of a reading, microseconds; 0: not measured.
    pub cpu_us: f64,
    /// Readings of which it was measured.
    #[serde(skip)]
    pub measured: u64,
}

/// A set at work on copies.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    set: Arc<Set>,
    batch: Batch,
    process: Option<Process>,
    /// CPU time of the present worker when its measurement began.
    base: Option<Duration>,
    cpu: Duration,
    pub(crate) report: LaneReport,
    outcomes: Collected,
}

/// Why a lane cannot go on.
pub(crate) enum LaneError {
    /// The pool stops.
    Stopped,
    /// Its workers do not live.
    Broken(String),
}

impl Lane {
    /// `process`: a worker in which the set is loaded.
    pub(crate) fn new(shared: &Arc<Shared>, set: &Arc<Set>, process: Option<Process>) -> Self {
        let scripts = Arc::new(set.scripts.twin(&shared.limits));
        let mut process = process;
        if let Some(process) = &mut process {
            attach(process, shared, set, false);
        }
        Self {
            shared: Arc::clone(shared),
            set: Arc::clone(set),
            batch: Batch::new(scripts, NO_ROUTES),
            process,
            base: None,
            cpu: Duration::ZERO,
            report: LaneReport::default(),
            outcomes: Collected::default(),
        }
    }

    /// Works on some runs. The outcomes by their places in the journal.
    ///
    /// # Errors
    /// [`LaneError`].
    pub(crate) fn work(
        &mut self,
        runs: &[ScriptRun],
        stop: &Receiver<()>,
    ) -> Result<HashMap<Position, ScriptOutcome>, LaneError> {
        runs.iter().for_each(|run| self.batch.take(ScriptRun { generation: u64::MAX, ..run.clone() }));
        let mut deaths = 0;
        let mut calling = None;
        while !self.batch.is_done() {
            if stop.is_disconnected() {
                return Err(LaneError::Stopped);
            }
            if self.process.is_none() && self.set.runs() {
                self.process = Some(start(&self.shared, &self.set, false).map_err(LaneError::Broken)?);
            }
            if let Err(failure) = self.talk(&mut calling) {
                deaths += 1;
                let Some(process) = self.process.take() else { continue };
                self.base = None;
                let death = process.bury(&failure);
                if deaths >= DEATHS {
                    return Err(LaneError::Broken(death.message));
                }
                if !death.from_outside {
                    let (reason, message) = blame(&failure, &death, &self.shared.limits);
                    self.batch.park(calling.take(), reason, &message, 0, Instant::now());
                }
                self.batch.redecide(true, Instant::now());
            }
        }
        self.batch.deliver(&self.outcomes);
        let outcomes = std::mem::take(&mut *self.outcomes.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.count(&outcomes);
        Ok(outcomes.into_iter().map(|outcome| (outcome.position, outcome)).collect())
    }

    /// Its worker, if it has one that lives.
    pub(crate) fn into_process(self) -> Option<Process> {
        self.process
    }

    /// Ends its worker.
    pub(crate) fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.retire(Duration::from_millis(500));
        }
    }

    /// Asks and hears until all is answered.
    fn talk(&mut self, calling: &mut Option<(u32, u8)>) -> Result<(), Failure> {
        let patience = self.shared.limits.call_wall + GRACE;
        let mut is_asked = false;
        while is_asked || !self.batch.is_done() {
            if !is_asked {
                // Each call is announced: the one that kills its worker is found at its first death.
                let frame = self.batch.next_frame(self.shared.limits.batch, true, Instant::now());
                if let (Some(frame), Some(process)) = (frame, &mut self.process) {
                    process.ask(frame)?;
                    is_asked = true;
                } else if self.batch.is_done() {
                    return Ok(());
                }
            }
            let Some(process) = &mut self.process else { return Ok(()) };
            match process.hear(patience)? {
                FromWorker::Calling { run, script } => *calling = Some((run, script)),
                FromWorker::Results(results) => {
                    for mut outcome in results.outcomes {
                        // What a shadow is refused says nothing of the handler.
                        if process.desk().is_some_and(|desk| desk.take_refused(outcome.run)) {
                            outcome = Outcome { run: outcome.run, ..Outcome::unchanged() };
                        }
                        self.batch.answer(outcome, Instant::now()).map_err(broken)?;
                    }
                }
                FromWorker::Done { retire: false } => is_asked = false,
                FromWorker::Done { retire: true } => {
                    self.end();
                    self.base = None;
                    self.batch.redecide(false, Instant::now());
                    return Ok(());
                }
                _ => return Err(broken("an answer out of place")),
            }
        }
        Ok(())
    }

    fn count(&mut self, outcomes: &[ScriptOutcome]) {
        for outcome in outcomes {
            if let Verdict::Parked { script, message, .. } = &outcome.verdict {
                self.report.failed += 1;
                self.report.first_failure.get_or_insert_with(|| format!("{script}: {message}"));
            }
        }
        let Some(process) = &self.process else { return };
        // The first readings pay for the load, and warm the worker up.
        if let Some(base) = self.base {
            self.cpu += process.cpu().saturating_sub(base);
            self.report.measured += outcomes.len() as u64;
            #[expect(clippy::cast_precision_loss, reason = "a few thousand readings")]
            let measured = self.report.measured.max(1) as f64;
            self.report.cpu_us = self.cpu.as_secs_f64() * 1e6 / measured;
        }
        self.base = Some(process.cpu());
    }
}

/// Outcomes that nobody but the canary gets.
#[derive(Default)]
struct Collected(Mutex<Vec<ScriptOutcome>>);

impl OutcomeSink for Collected {
    fn deliver(&self, _: LoopId, outcomes: Vec<ScriptOutcome>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(outcomes);
    }
}
