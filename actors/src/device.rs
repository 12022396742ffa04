//! The device actor: one device's place in the runtime, on exactly one loop.
//!
//! It is virtual: activated by the device's first reading, passivated when nothing of it is under way and its state is safe in
//! the store. Its inbox is [`Step`]; [`DeviceActor::on_reading`] is the path of every reading. States: *loading* (the store is
//! asked for the former state; readings wait), *ready*, and *running* (a script run is under way; further readings wait).
//! It does no I/O: everything that leaves it goes through the loop's [`Turn`].

use std::collections::VecDeque;

use crate::{
    clock::Uptime,
    fanout::{encode_event, encode_state},
    fold::{self, Folded, Imported, fold, fold_import},
    ids::{DeviceId, Position},
    journal::OutcomeRecord,
    ledger::{DropReason, RejectReason},
    limits,
    reading::{AckLevel, Channel, Reading},
    script::{ParkReason, Route, ScriptCall, ScriptOutcome, ScriptRun, Verdict, command_id},
    state::{DeviceState, ParkedReading},
    submission::{AckTo, Answer, Disposition, Submission},
    turn::{Admitted, Memory, ReplyTo, Turn},
};

/// The key of an active device in its loop's table.
pub(crate) type DeviceKey = u32;

/// What can happen to a device's reading.
#[derive(Debug)]
pub(crate) enum Step {
    /// It came in from the edge.
    Arrived(Submission),
    /// It is in the journal.
    Committed(Committed),
    /// Its handlers ran.
    Handled(ScriptOutcome),
    /// Not a reading: a state that was brought in is in the journal.
    Brought(Brought),
}

/// A reading that is in the journal and not yet folded.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) position: Position,
    pub(crate) reading: Reading,
    /// Handlers wanted it when it was admitted: its outcome goes into the journal, too.
    pub(crate) routed: bool,
    /// Who waits for [`AckLevel::Processed`].
    pub(crate) ack: Option<AckTo>,
}

/// A state that was brought in, and is in the journal and not yet folded.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) position: Position,
    pub(crate) state: DeviceState,
    pub(crate) overwrite: bool,
    pub(crate) reply: ReplyTo<Imported>,
}

/// One active device.
#[derive(Debug)]
pub(crate) struct DeviceActor {
    device: DeviceId,
    key: DeviceKey,
    slot: Slot,
    routes: CachedRoutes,
    lane: Option<Box<Lane>>,
    in_flight: u32,
    /// Is it on the loop's list of states to checkpoint?
    pub(crate) dirty: bool,
    /// The number of the checkpoint batch that took its state last.
    pub(crate) checkpointed_in: u64,
    touched: Uptime,
}

#[derive(Debug)]
enum Slot {
    Loading,
    Ready(Option<Box<DeviceState>>),
}

/// Readings that cannot be folded at once.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    running: VecDeque<Committed>,
}

#[derive(Debug)]
enum Waiting {
    Reading(Committed),
    Brought(Box<Brought>),
}

/// Which handlers want the device's readings, as of one generation of the engine.
#[derive(Debug, Default)]
struct CachedRoutes {
    /// 0, which no engine has: they were never asked for.
    generation: u64,
    by_channel: [Route; Channel::ALL.len()],
}

impl DeviceActor {
    /// A device that has just been activated; its former state is asked for.
    pub(crate) fn activate(device: DeviceId, key: DeviceKey, turn: &mut Turn) -> Self {
        turn.load(key, &device);
        let touched = turn.now;
        let routes = CachedRoutes::default();
        Self {
            device,
            key,
            slot: Slot::Loading,
            routes,
            lane: None,
            in_flight: 0,
            dirty: false,
            checkpointed_in: 0,
            touched,
        }
    }

    /// The path of a reading: admit → journal → handle → fold → publish.
    pub(crate) fn on_reading(&mut self, step: Step, turn: &mut Turn) {
        match step {
            Step::Arrived(submission) => {
                if let Some(admitted) = self.admit(submission, turn)
                    && !turn.journal(admitted)
                {
                    self.in_flight -= 1;
                }
            }
            Step::Committed(reading) => self.handle(reading, turn),
            Step::Handled(mut outcome) => {
                if let Some((reading, folded)) = self.fold(&mut outcome, turn) {
                    self.publish(&reading, folded, outcome, turn);
                }
                self.run_next(turn);
            }
            Step::Brought(brought) => self.take_brought(brought, turn),
        }
    }

    /// Takes a reading in, or refuses it by the name of a limit.
    fn admit(&mut self, submission: Submission, turn: &mut Turn) -> Option<Admitted> {
        let Submission { reading, level, ack } = submission;
        let route = self.route(reading.channel, turn);
        let refusal = if turn.memory == Memory::Shedding {
            Some(RejectReason::Memory)
        } else if self.in_flight as usize >= limits::DEVICE_IN_FLIGHT_REFUSED {
            Some(RejectReason::DeviceInFlight)
        } else if turn.is_over_limit() {
            Some(RejectReason::Overloaded)
        } else if !route.is_empty() && turn.scripts.refuses(route, self.routes.generation) {
            Some(RejectReason::HandlerOpen)
        } else {
            None
        };
        if let Some(reason) = refusal {
            turn.reject(reason, Some(self.device.as_str()));
            turn.answer(ack, Answer::Refused(reason));
            return None;
        }
        self.touched = turn.now;
        self.in_flight += 1;
        turn.ledger.received += 1;
        turn.ledger.in_flight += 1;
        Some(Admitted { key: self.key, reading, routed: !route.is_empty(), level, ack })
    }

    /// Sends a committed reading to the handlers that want it; folds it at once if none does and nothing is before it.
    fn handle(&mut self, reading: Committed, turn: &mut Turn) {
        let ready = matches!(self.slot, Slot::Ready(_));
        if ready && !reading.routed && self.lane.is_none() {
            let mut outcome = unchanged(&reading);
            if let Some(folded) = self.fold_one(&reading, &mut outcome, turn) {
                self.publish(&reading, folded, outcome, turn);
            }
            return;
        }
        turn.open_positions.open(reading.position);
        self.lane.get_or_insert_default().waiting.push_back(Waiting::Reading(reading));
        self.run_next(turn);
    }

    /// Starts the next run of the waiting readings, unless one is under way.
    fn run_next(&mut self, turn: &mut Turn) {
        if !matches!(self.slot, Slot::Ready(_)) {
            return;
        }
        while let Some(lane) = &mut self.lane {
            if !lane.running.is_empty() {
                return;
            }
            let first = match lane.waiting.pop_front() {
                Some(Waiting::Reading(first)) => first,
                Some(Waiting::Brought(brought)) => {
                    self.fold_brought(*brought, turn);
                    continue;
                }
                None => {
                    self.lane = None;
                    return;
                }
            };
            let is_retry = self.state().is_some_and(|state| fold::is_retry(state, &first.reading));
            if is_retry || self.route_of(&first, turn).is_empty() {
                let mut outcome = unchanged(&first);
                turn.open_positions.close(first.position);
                if let Some(folded) = self.fold_one(&first, &mut outcome, turn) {
                    self.publish(&first, folded, outcome, turn);
                }
                continue;
            }
            self.start_run(first, turn);
            return;
        }
    }

    fn start_run(&mut self, first: Committed, turn: &mut Turn) {
        let mut running = VecDeque::from([first]);
        if let Some(lane) = &mut self.lane {
            // Whether a request's reading is a retry is known once those before it are folded: it begins a run of its own.
            let goes_along = |next: &Committed| next.routed && next.reading.idempotency.is_none();
            while running.len() < limits::SCRIPT_RUN
                && matches!(lane.waiting.front(), Some(Waiting::Reading(next)) if goes_along(next))
            {
                if let Some(Waiting::Reading(next)) = lane.waiting.pop_front() {
                    running.push_back(next);
                }
            }
        }
        self.refresh_routes(turn);
        let routes = &self.routes.by_channel;
        let call = |c: &Committed| ScriptCall {
            position: c.position,
            route: routes[c.reading.channel as usize],
            reading: c.reading.clone(),
        };
        let calls = running.iter().map(call).collect();
        let state = self.state();
        let made = state.filter(|state| state.version > 0);
        turn.run(ScriptRun {
            owner: turn.id,
            device: self.device.clone(),
            previous: made.map(|s| (s.state.clone(), s.device_time.unwrap_or(s.received))),
            script_state: state.map(|s| s.script_state.clone()).unwrap_or_default(),
            generation: self.routes.generation,
            calls,
        });
        if let Some(lane) = &mut self.lane {
            lane.running = running;
        }
    }

    /// Folds what the handlers made of the oldest running reading, and journals it.
    fn fold(&mut self, outcome: &mut ScriptOutcome, turn: &mut Turn) -> Option<(Committed, Folded)> {
        let running = &mut self.lane.as_mut()?.running;
        if running.front()?.position != outcome.position {
            tracing::error!(device = %self.device, position = %outcome.position, "outcome of a reading that is not under way");
            return None;
        }
        let reading = running.pop_front()?;
        turn.open_positions.close(reading.position);
        let folded = self.fold_one(&reading, outcome, turn)?;
        Some((reading, folded))
    }

    fn fold_one(&mut self, reading: &Committed, outcome: &mut ScriptOutcome, turn: &mut Turn) -> Option<Folded> {
        let Slot::Ready(state) = &self.slot else { return None };
        if reading.routed
            && let Err(error) = turn.journal_outcome(&record(reading, outcome))
        {
            tracing::error!(device = %self.device, position = %reading.position, %error, "parked: the journal cannot hold the result");
            let message = error.to_string().into();
            outcome.verdict = Verdict::Parked { script: "".into(), reason: ParkReason::BadResult, message };
            outcome.script_state.clear();
            outcome.commands.clear();
            // A short one always fits.
            let _ = turn.journal_outcome(&record(reading, outcome));
        }
        Some(fold(state.as_deref(), reading.position, &reading.reading, &outcome.verdict, &outcome.script_state))
    }

    /// Settles the ledger, keeps the new state, and tells viewers, subscribers and whoever waits.
    fn publish(&mut self, reading: &Committed, folded: Folded, outcome: ScriptOutcome, turn: &mut Turn) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let disposition = folded.disposition();
        turn.settle(disposition);
        if let Some(state) = folded.into_state() {
            self.keep(state, turn);
        }
        if disposition == Disposition::Kept {
            self.show(turn);
        }
        for (name, payload) in &outcome.emits {
            turn.show_event(encode_event(&self.device, name, payload, reading.reading.received), name);
        }
        for (index, command) in outcome.commands.into_iter().enumerate() {
            turn.commands.push((command_id(reading.position, index), command));
        }
        if let Verdict::Parked { script, reason, message } = outcome.verdict {
            let parked =
                ParkedReading { position: reading.position, reading: reading.reading.clone(), script, reason, message };
            turn.parked.park(parked);
        }
        if let Some(parked) = reading.reading.retry_of {
            turn.parked.unpark(parked);
        }
        let answer = Answer::Processed(disposition);
        if reading.routed { turn.answer_with_outcome(reading.ack, answer) } else { turn.answer(reading.ack, answer) }
    }

    fn take_brought(&mut self, brought: Brought, turn: &mut Turn) {
        if matches!(self.slot, Slot::Ready(_)) && self.lane.is_none() {
            self.in_flight += 1;
            self.fold_brought(brought, turn);
            return;
        }
        self.in_flight += 1;
        turn.open_positions.open(brought.position);
        self.lane.get_or_insert_default().waiting.push_back(Waiting::Brought(Box::new(brought)));
        self.run_next(turn);
    }

    fn fold_brought(&mut self, brought: Brought, turn: &mut Turn) {
        let Slot::Ready(state) = &self.slot else { return };
        let Brought { position, state: imported, overwrite, reply } = brought;
        turn.open_positions.close(position);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.touched = turn.now;
        let (what, state) = fold_import(state.as_deref(), position, &imported, overwrite);
        if let Some(state) = state {
            self.keep(state, turn);
        }
        if what == Imported::Imported {
            self.show(turn);
        }
        // Whoever asked may have gone.
        let _ = reply.send(what);
    }

    fn keep(&mut self, state: DeviceState, turn: &mut Turn) {
        turn.lifetime.change(self.state(), &state);
        // The box is reused: a state is replaced far more often than it is made.
        match &mut self.slot {
            Slot::Ready(Some(old)) => **old = state,
            slot => {
                *slot = Slot::Ready(Some(Box::new(state)));
                turn.new_devices += 1;
            }
        }
        if !self.dirty {
            self.dirty = true;
            turn.dirty.push_back(self.key);
        }
    }

    /// Shows the state to everybody who watches this device.
    pub(crate) fn show(&self, turn: &mut Turn) {
        if let Some(state) = self.state().filter(|_| turn.is_shown(&self.device)) {
            turn.show_state(encode_state(state, turn.is_connected(&self.device)));
        }
    }

    /// The store has answered: the device is ready and goes on with what waits.
    pub(crate) fn on_loaded(&mut self, state: Option<DeviceState>, turn: &mut Turn) {
        if matches!(self.slot, Slot::Loading) {
            self.slot = Slot::Ready(state.map(Box::new));
            self.run_next(turn);
        }
    }

    /// The latest state, if the device is loaded and has one.
    pub(crate) fn state(&self) -> Option<&DeviceState> {
        match &self.slot {
            Slot::Ready(state) => state.as_deref(),
            Slot::Loading => None,
        }
    }

    /// Should the device's connection not be read now: too many of its readings are under way?
    pub(crate) fn is_pressed(&self) -> bool {
        self.in_flight as usize >= limits::DEVICE_IN_FLIGHT
    }

    pub(crate) fn device(&self) -> &DeviceId {
        &self.device
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Counts a reading that was in the journal before this node started and is handled again.
    pub(crate) fn resume(&mut self, turn: &mut Turn) {
        self.in_flight += 1;
        turn.ledger.received += 1;
        turn.ledger.in_flight += 1;
    }

    /// May it be passivated: nothing under way, its state written, and not heard of for a while?
    pub(crate) fn is_idle(&self, now: Uptime, written_through: u64) -> bool {
        self.in_flight == 0
            && !self.dirty
            && matches!(self.slot, Slot::Ready(_))
            && self.checkpointed_in <= written_through
            && now.since(self.touched) > limits::DEVICE_IDLE
    }

    fn route(&mut self, channel: Channel, turn: &Turn) -> Route {
        self.refresh_routes(turn);
        self.routes.by_channel[channel as usize]
    }

    fn refresh_routes(&mut self, turn: &Turn) {
        let mut generation = turn.scripts.generation();
        // Asked again until all are of one generation: it may change between two of them.
        while self.routes.generation != generation {
            self.routes.generation = generation;
            self.routes.by_channel = Channel::ALL.map(|channel| turn.scripts.route(&self.device, channel));
            generation = turn.scripts.generation();
        }
    }

    fn route_of(&mut self, reading: &Committed, turn: &Turn) -> Route {
        if reading.routed { self.route(reading.reading.channel, turn) } else { Route::NONE }
    }
}

fn record(reading: &Committed, outcome: &ScriptOutcome) -> OutcomeRecord {
    OutcomeRecord {
        device: reading.reading.device.clone(),
        reading: reading.position,
        verdict: outcome.verdict.clone(),
        script_state: outcome.script_state.clone(),
    }
}

/// The outcome of a reading that no handler wants.
fn unchanged(reading: &Committed) -> ScriptOutcome {
    ScriptOutcome {
        device: reading.reading.device.clone(),
        position: reading.position,
        verdict: Verdict::Unchanged,
        script_state: smallvec::SmallVec::new(),
        emits: Vec::new(),
        commands: Vec::new(),
    }
}

/// Counts a settled reading.
pub(crate) fn settle(ledger: &mut crate::ledger::Ledger, disposition: Disposition) {
    ledger.in_flight = ledger.in_flight.saturating_sub(1);
    match disposition {
        Disposition::Kept => ledger.committed += 1,
        Disposition::Conflated(reason) => ledger.conflated[reason as usize] += 1,
        Disposition::Dropped => ledger.dropped[DropReason::Handler as usize] += 1,
        Disposition::Parked(reason) => ledger.parked[reason as usize] += 1,
    }
}

/// Whether an answer at this level waits for the commit or for the fold.
pub(crate) fn split_ack(level: AckLevel, ack: Option<AckTo>) -> (Option<AckTo>, Option<AckTo>) {
    match level {
        AckLevel::Received => (None, None),
        AckLevel::Committed => (ack, None),
        AckLevel::Processed => (None, ack),
    }
}
