//! What a device actor may use while it works: the loop's outgoing batches, its ledger, its viewers and its clock.
//!
//! Everything that a device does to the world is collected here and leaves the loop once a turn ([`crate::event_loop`]): records
//! for the journal, runs for the handlers, answers for the edge, states for the store.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use crate::{
    clock::Uptime,
    device::{self, DeviceKey},
    fanout::{Update, Watchers},
    fold::Imported,
    ids::{DeviceId, LoopId, Position},
    journal::{Batch, OutcomeRecord, RecordTooLarge},
    kept::{KeptChange, KeptCycle},
    ledger::{Ledger, RejectReason, Rejections},
    lifetime::Lifetime,
    limits,
    open_positions::OpenPositions,
    reading::{AckLevel, Reading},
    script::{ScriptCommand, ScriptEngine, ScriptRun},
    state::DeviceState,
    store::ParkedChanges,
    submission::{Ack, AckTo, Answer, Disposition},
};

/// A reading that was taken in and goes into the journal.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) key: DeviceKey,
    pub(crate) reading: Reading,
    pub(crate) routed: bool,
    pub(crate) level: AckLevel,
    pub(crate) ack: Option<AckTo>,
}

/// What a record of the batch under collection was, in order.
#[derive(Debug)]
pub(crate) enum Written {
    Reading(Admitted),
    /// What handlers made of a reading, and the answer to who waits for that.
    Outcome(Option<Ack>),
    /// A parked reading is no more.
    Unparked(Position, ReplyTo<()>),
    /// A state was brought in.
    Imported(Box<ToImport>),
    /// A pair was put or forgotten: whoever waits for it is in [`Turn::then`].
    Kept,
}

/// What is to be done on the loop's thread, outside any borrow of the loop, once something is durable.
pub(crate) type Then = Box<dyn FnOnce()>;

/// Who waits for the end of an operator's command; he may have gone.
pub(crate) type ReplyTo<T> = tokio::sync::oneshot::Sender<T>;

/// A state that was brought in and goes into the journal.
#[derive(Debug)]
pub(crate) struct ToImport {
    pub(crate) state: DeviceState,
    pub(crate) overwrite: bool,
    pub(crate) reply: ReplyTo<Imported>,
}

/// What a device publishes besides its answer, for the edge (MQTT subscribers).
#[derive(Debug, Clone)]
pub struct Shown {
    /// The message; its JSON is what subscribers get.
    pub update: Update,
    /// The event's name; `None`: it is the device's state.
    pub event: Option<Box<str>>,
}

/// How the node's memory stands, as somebody outside the loops has measured it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory {
    /// There is enough.
    #[default]
    Enough,
    /// It runs short: sockets are not read.
    Short,
    /// It is nearly used up, and waiting has not helped: sockets are read, and every reading is refused and counted.
    Shedding,
}

/// The part of a loop that its devices work with.
pub(crate) struct Turn {
    pub(crate) id: LoopId,
    /// When the turn began.
    pub(crate) now: Uptime,
    pub(crate) ledger: Ledger,
    pub(crate) scripts: Arc<dyn ScriptEngine>,
    pub(crate) watchers: Watchers,
    /// Readings that are committed and not folded: the loop is folded through all positions before them.
    pub(crate) open_positions: OpenPositions,
    /// Devices with a state that the store does not have yet.
    pub(crate) dirty: VecDeque<DeviceKey>,
    pub(crate) parked: ParkedChanges,
    /// Changed pairs that the checkpoint thread does not have yet.
    pub(crate) kept: KeptCycle,
    /// How the devices' durable counts have changed since the start.
    pub(crate) lifetime: Lifetime,
    pub(crate) rejections: Rejections,
    /// Devices that got their first state since the node started.
    pub(crate) new_devices: u64,
    /// The edge wants every state and event, for its MQTT subscribers.
    pub(crate) edge_listens: bool,
    pub(crate) connected: HashMap<DeviceId, u32>,
    /// Closed from outside: the node stops.
    pub(crate) gate_closed: bool,
    pub(crate) memory: Memory,
    pub(crate) journal_failed: bool,

    pub(crate) batch: Batch,
    pub(crate) written: Vec<Written>,
    /// What waits for the commit of the batch under collection, in order.
    pub(crate) then: Vec<Then>,
    /// What is to be done now, in order: what it waited for is durable.
    pub(crate) durable: VecDeque<Then>,
    pub(crate) loads: Vec<(DeviceKey, DeviceId)>,
    pub(crate) runs: Vec<ScriptRun>,
    pub(crate) acks: Vec<Ack>,
    pub(crate) shown: Vec<Shown>,
    /// What handlers want sent, with its id; their outcomes are in the batch.
    pub(crate) commands: Vec<(String, ScriptCommand)>,
    waker: Option<Waker>,
}

impl Turn {
    pub(crate) fn new(id: LoopId, scripts: Arc<dyn ScriptEngine>, now: Uptime) -> Self {
        Self {
            id,
            now,
            ledger: Ledger::default(),
            scripts,
            watchers: Watchers::default(),
            open_positions: OpenPositions::default(),
            dirty: VecDeque::new(),
            parked: ParkedChanges::default(),
            kept: KeptCycle::default(),
            lifetime: Lifetime::default(),
            rejections: Rejections::default(),
            new_devices: 0,
            edge_listens: false,
            connected: HashMap::new(),
            gate_closed: false,
            memory: Memory::Enough,
            journal_failed: false,
            batch: Batch::new(id),
            written: Vec::new(),
            then: Vec::new(),
            durable: VecDeque::new(),
            loads: Vec::new(),
            runs: Vec::new(),
            acks: Vec::new(),
            shown: Vec::new(),
            commands: Vec::new(),
            waker: None,
        }
    }

    /// Who runs the loop's turns.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Makes the loop run a turn soon.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Takes a reading into the loop's journal batch. Returns whether the journal can hold it; else it was refused.
    pub(crate) fn journal(&mut self, admitted: Admitted) -> bool {
        if let Err(error) = self.batch.push_reading(&admitted.reading, admitted.routed) {
            // The edge's own limit is far below the journal's.
            tracing::error!(device = %admitted.reading.device, %error, "refused a reading that the journal cannot hold");
            self.ledger.in_flight -= 1;
            self.ledger.received -= 1;
            self.reject(RejectReason::TooLarge, Some(admitted.reading.device.as_str()));
            self.answer(admitted.ack, Answer::Refused(RejectReason::TooLarge));
            return false;
        }
        // Whoever waits must not wait for the tick of those for whom nobody does.
        let first_urgent = admitted.ack.is_some() && !self.batch.is_urgent();
        if first_urgent {
            self.batch.set_urgent();
        }
        self.written.push(Written::Reading(admitted));
        if self.written.len() == 1 || first_urgent {
            self.wake();
        }
        true
    }

    /// Takes an outcome into the loop's journal batch. Nobody waits for it: without it the handlers would run again.
    ///
    /// # Errors
    /// The journal cannot hold it: then it must not be folded either, or a replay comes to another state.
    pub(crate) fn journal_outcome(&mut self, outcome: &OutcomeRecord) -> Result<(), RecordTooLarge> {
        self.batch.push_outcome(outcome)?;
        self.written.push(Written::Outcome(None));
        Ok(())
    }

    /// Asks the store for the former state of a device.
    pub(crate) fn load(&mut self, key: DeviceKey, device: &DeviceId) {
        self.loads.push((key, device.clone()));
    }

    pub(crate) fn run(&mut self, run: ScriptRun) {
        self.runs.push(run);
    }

    pub(crate) fn answer(&mut self, to: Option<AckTo>, answer: Answer) {
        self.answer_ack(to.map(|to| Ack { to, answer }));
    }

    pub(crate) fn answer_ack(&mut self, ack: Option<Ack>) {
        if let Some(ack) = ack {
            self.acks.push(ack);
            self.wake();
        }
    }

    /// Answers once the outcome that was journaled last is durable: until then a crash would have the handlers run again, and
    /// they may have been changed by then.
    pub(crate) fn answer_with_outcome(&mut self, to: Option<AckTo>, answer: Answer) {
        let Some(to) = to else { return };
        let Some(Written::Outcome(ack @ None)) = self.written.last_mut() else { return self.answer(Some(to), answer) };
        *ack = Some(Ack { to, answer });
        self.batch.set_urgent();
        self.wake();
    }

    pub(crate) fn settle(&mut self, disposition: Disposition) {
        device::settle(&mut self.ledger, disposition);
    }

    /// Takes an operator's command into the loop's journal batch: to be done once it is durable.
    ///
    /// # Errors
    /// The journal cannot hold it.
    pub(crate) fn journal_command(
        &mut self,
        written: Written,
        push: impl FnOnce(&mut Batch) -> Result<(), RecordTooLarge>,
    ) -> Result<(), RecordTooLarge> {
        push(&mut self.batch)?;
        self.batch.set_urgent();
        self.written.push(written);
        self.wake();
        Ok(())
    }

    /// Takes a change of a kept pair into the loop's journal batch, and on its way into the store: the checkpoint thread gets it
    /// once the journal has it. Whoever waits for it says so with `when_durable`.
    ///
    /// # Errors
    /// The journal cannot hold it; nothing has changed.
    pub(crate) fn keep(&mut self, change: KeptChange) -> Result<(), RecordTooLarge> {
        self.batch.push_kept(&change)?;
        self.written.push(Written::Kept);
        self.kept.insert(change);
        if self.written.len() == 1 {
            self.wake();
        }
        Ok(())
    }

    /// Counts a reading that was refused, for the node and for its device.
    pub(crate) fn reject(&mut self, reason: RejectReason, device: Option<&str>) {
        self.ledger.reject(reason);
        if let Some(device) = device {
            self.rejections.add(device, reason);
        }
    }

    /// Would anybody see this device's state now?
    pub(crate) fn is_shown(&self, device: &DeviceId) -> bool {
        self.edge_listens || self.watchers.watched(device)
    }

    pub(crate) fn show_state(&mut self, update: Update) {
        self.watchers.publish(&update, self.now);
        if self.edge_listens {
            self.shown.push(Shown { update, event: None });
        }
    }

    pub(crate) fn show_event(&mut self, update: Update, name: &str) {
        self.watchers.publish(&update, self.now);
        if self.edge_listens {
            self.shown.push(Shown { update, event: Some(name.into()) });
        }
    }

    pub(crate) fn is_connected(&self, device: &DeviceId) -> bool {
        self.connected.contains_key(device)
    }

    /// Is the loop past a limit at which new readings are refused? (Before that it stops reading its sockets.)
    pub(crate) fn is_over_limit(&self) -> bool {
        self.ledger.in_flight as usize >= 2 * limits::LOOP_IN_FLIGHT
            || self.batch.bytes() >= 8 * limits::JOURNAL_BATCH_BYTES
    }

    /// Should the loop's sockets not be read now?
    pub(crate) fn is_pressed(&self) -> bool {
        self.gate_closed
            || self.memory == Memory::Short
            || self.journal_failed
            || self.ledger.in_flight as usize >= limits::LOOP_IN_FLIGHT
            || self.batch.bytes() >= limits::JOURNAL_BATCH_BYTES
            || self.kept.bytes() >= limits::KEPT_UNSTORED_BYTES
    }

    /// The position through which everything of this loop is folded, given the last one it knows of.
    pub(crate) fn folded_through(&self, known: Position) -> Position {
        self.open_positions.first().map_or(known, |open| Position(open.0.saturating_sub(1)))
    }
}
