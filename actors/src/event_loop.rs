//! One per-core loop: its devices, and the turn in which everything that they did leaves the loop.
//!
//! A turn: take what other loops handed over and what waits in the inbox → let the devices work → hand the batch to the journal,
//! runs to the handlers, answers to the edge, states to the checkpoint thread, and wake the loops that got readings from here.
//! The loop never blocks: what a full queue refuses stays here, and the loop stops reading its sockets
//! ([`EventLoop::is_pressed`]) until there is room.

mod checkpointing;
mod events;
mod queries;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use hashbrown::HashMap;
use slab::Slab;

use self::{checkpointing::CheckpointCycle, events::Timers};
use crate::{
    clock::Uptime,
    device::{Brought, Committed, DeviceActor, DeviceKey, Step, split_ack},
    failed_loads::FailedLoads,
    fanout::{Filter, Viewer},
    gather,
    ids::{DeviceId, LoopId, Position},
    journal::{Batch, Commit},
    ledger::RejectReason,
    limits, placement,
    recovery::Unfinished,
    runtime::Services,
    script::{ScriptCommand, ScriptOutcome},
    state::DeviceState,
    store::{ParkedChanges, StoreError},
    submission::{Ack, AckTo, Answer, Submission},
    turn::{Shown, Then, ToImport, Turn, Written},
};

/// What a loop is told from outside: by other loops, by the journal, by the script workers.
pub enum LoopMessage {
    /// Answers for connections of this loop.
    Acks(Vec<Ack>),
    /// The journal has this loop's next batches.
    Committed(Vec<Commit>),
    /// The journal cannot write, and why.
    JournalFailed(Arc<str>),
    /// The journal writes again.
    JournalRecovered,
    /// What the handlers made of this loop's readings.
    Outcomes(Vec<ScriptOutcome>),
    /// The store's answers to this loop's questions.
    Loaded(Vec<Loaded>),
    /// Readings from the journal whose handlers had not run when the node stopped.
    Resume(Vec<Unfinished>),
    /// A viewer wants this loop's devices.
    Watch(Arc<Viewer>, Arc<Filter>),
    /// Stored states for a viewer's snapshot.
    Snapshot(Arc<Viewer>, Vec<DeviceState>),
    /// The snapshot is complete as far as this loop goes.
    Synced(Arc<Viewer>),
    /// Anything rarer: runs on the loop, with the loop.
    Task(Box<dyn FnOnce(&crate::loop_handle::LoopHandle) + Send>),
}

/// A device's former state, as the store has it.
pub struct Loaded {
    key: DeviceKey,
    device: DeviceId,
    state: Result<Option<DeviceState>, StoreError>,
}

/// How a loop fares, for health and metrics.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoopHealth {
    /// The loop.
    pub id: u16,
    /// How late its timer was last, in milliseconds.
    pub lag_ms: f64,
    /// Devices active in memory.
    pub devices: usize,
    /// Devices with a connection.
    pub connected: usize,
    /// Devices that got their first state since the node started.
    pub new_devices: u64,
}

/// What a turn left for the edge.
#[derive(Default)]
pub(crate) struct ForEdge {
    pub(crate) acks: Vec<Ack>,
    pub(crate) shown: Vec<Shown>,
    pub(crate) commands: Vec<(String, ScriptCommand)>,
}

/// One loop. Lives on its thread only.
pub(crate) struct EventLoop {
    pub(crate) turn: Turn,
    services: Arc<Services>,
    devices: Slab<DeviceActor>,
    by_id: HashMap<DeviceId, DeviceKey>,
    by_order: BTreeSet<DeviceId>,
    /// Batches that the journal took so far.
    batches_sent: u64,
    /// Those of them that it has not committed, oldest first.
    committing: VecDeque<Committing>,
    /// Batches that are committed, since the start.
    commits: u64,
    last_committed: Position,
    /// Readings that other loops handed over, taken and not yet gone to their devices.
    handed_over: VecDeque<Submission>,
    /// The loops that have readings from here and were not woken for them, by loop. Like the batch, the readings wait for company
    /// unless somebody waits for them.
    unwoken: Vec<Due>,
    /// Loops to which too many readings are on their way.
    crowded: Vec<LoopId>,
    ack_handover: Vec<Vec<Ack>>,
    failed_loads: FailedLoads,
    checkpoint: CheckpointCycle,
    timers: Timers,
    /// Parked readings that the checkpoint thread has and the store perhaps not yet, by the number of their batch.
    unwritten_parked: VecDeque<(u64, ParkedChanges)>,
    sweep_at: usize,
    paused: Vec<Waker>,
    paused_asked: Uptime,
    /// A message is being handled: what a panic cuts short is the work of readings.
    handling: bool,
    pub(crate) lag_ms: f64,
}

/// A batch that the journal took: its records, and what waits for its commit.
struct Committing {
    written: Vec<Written>,
    then: Vec<Then>,
}

/// Time after which those who wait for the loop to read again are asked whether they still do.
const PAUSED_ASKED: Duration = Duration::from_secs(5);

/// When what was collected is to leave: the journal batch, or the wake-ups of loops that have readings from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// There is nothing.
    Never,
    /// Nobody waits for it: it may wait for company, until the commit tick.
    Soon,
    Now,
}

impl EventLoop {
    pub(crate) fn new(id: LoopId, services: Arc<Services>) -> Self {
        let loops = services.outlets.len();
        let now = services.clock.uptime();
        Self {
            turn: Turn::new(id, Arc::clone(&services.scripts), now),
            services,
            devices: Slab::new(),
            by_id: HashMap::new(),
            by_order: BTreeSet::new(),
            batches_sent: 0,
            committing: VecDeque::new(),
            commits: 0,
            last_committed: Position(0),
            handed_over: VecDeque::new(),
            unwoken: vec![Due::Never; loops],
            crowded: Vec::new(),
            ack_handover: (0..loops).map(|_| Vec::new()).collect(),
            failed_loads: FailedLoads::default(),
            checkpoint: CheckpointCycle::default(),
            timers: Timers::default(),
            unwritten_parked: VecDeque::new(),
            sweep_at: 0,
            paused: Vec::new(),
            paused_asked: now,
            handling: false,
            lag_ms: 0.0,
        }
    }

    pub(crate) fn owner_of(&self, device: &str) -> LoopId {
        placement::owner(device, self.services.loops())
    }

    /// Takes a reading from the edge: to its device, or on its way to the loop that owns it.
    pub(crate) fn submit(&mut self, submission: Submission) {
        let owner = self.owner_of(submission.reading.device.as_str());
        if owner == self.turn.id {
            // What was handed over came before it, perhaps from the same device over a connection of another loop.
            self.take_handed_over();
            self.arrive(submission);
            return;
        }
        let somebody_waits = submission.ack.is_some();
        match self.services.handovers[owner.index()].push(submission) {
            Ok(waiting) => {
                if waiting >= limits::HANDOVER && !self.crowded.contains(&owner) {
                    self.crowded.push(owner);
                }
                let now = somebody_waits || waiting >= limits::HANDOVER_SOON;
                self.wake_owner(owner, if now { Due::Now } else { Due::Soon });
            }
            Err(submission) => {
                let device = submission.reading.device.as_str();
                self.turn.reject(RejectReason::Overloaded, Some(device));
                self.turn.answer(submission.ack, Answer::Refused(RejectReason::Overloaded));
            }
        }
    }

    /// Has another loop woken for the readings that it has from here. This loop's next turn sees to it.
    fn wake_owner(&mut self, owner: LoopId, due: Due) {
        let before = self.handover_due();
        let unwoken = &mut self.unwoken[owner.index()];
        *unwoken = due.max(*unwoken);
        if due > before {
            self.turn.wake();
        }
    }

    /// Takes what other loops handed over, to its devices.
    pub(crate) fn take_handed_over(&mut self) {
        self.services.handovers[self.turn.id.index()].take(&mut self.handed_over);
        gather::arrived(self.handed_over.len());
        // One by one: after a panic the others are still there.
        while let Some(submission) = self.handed_over.pop_front() {
            self.arrive(submission);
        }
        if self.handed_over.capacity() > limits::HANDOVER {
            // A burst's memory is not kept.
            self.handed_over = VecDeque::new();
        }
    }

    fn arrive(&mut self, submission: Submission) {
        let key = self.activate(&submission.reading.device);
        if let Some(device) = self.devices.get_mut(key as usize) {
            device.on_reading(Step::Arrived(submission), &mut self.turn);
        }
    }

    /// The key of a device, which is activated if it sleeps.
    fn activate(&mut self, id: &DeviceId) -> DeviceKey {
        if let Some(key) = self.by_id.get(id) {
            return *key;
        }
        let entry = self.devices.vacant_entry();
        // A loop's devices are bounded by its memory long before u32.
        let key = DeviceKey::try_from(entry.key()).unwrap_or(DeviceKey::MAX);
        entry.insert(DeviceActor::activate(id.clone(), key, &mut self.turn));
        self.by_id.insert(id.clone(), key);
        self.by_order.insert(id.clone());
        self.turn.wake();
        key
    }

    /// Handles one message; `Task`s are the caller's.
    pub(crate) fn on_message(&mut self, message: LoopMessage) {
        self.handling = true;
        match message {
            LoopMessage::Acks(acks) => self.turn.acks.extend(acks),
            LoopMessage::Committed(commits) => commits.into_iter().for_each(|commit| self.on_commit(commit)),
            LoopMessage::JournalFailed(reason) => {
                self.turn.journal_failed = true;
                tracing::warn!(r#loop = self.turn.id.0, %reason, "not reading sockets: the journal cannot write");
            }
            LoopMessage::JournalRecovered => self.turn.journal_failed = false,
            LoopMessage::Outcomes(outcomes) => outcomes.into_iter().for_each(|outcome| self.on_outcome(outcome)),
            LoopMessage::Loaded(loaded) => loaded.into_iter().for_each(|answer| self.on_loaded(answer)),
            LoopMessage::Resume(readings) => readings.into_iter().for_each(|unfinished| self.resume(unfinished)),
            LoopMessage::Watch(viewer, filter) => self.watch(&viewer, &filter),
            LoopMessage::Snapshot(viewer, states) => self.snapshot(&viewer, &states),
            LoopMessage::Synced(viewer) => viewer.source_synced(),
            LoopMessage::Task(_) => {}
        }
        self.handling = false;
    }

    /// A turn panicked. Readings whose message was being handled may be lost to this loop, but not to the journal: the loop
    /// says no more that it is folded beyond them, so that the next start folds them.
    pub(crate) fn on_panic(&mut self) {
        if std::mem::take(&mut self.handling) && !std::mem::replace(&mut self.checkpoint.held, true) {
            tracing::error!(
                r#loop = self.turn.id.0,
                "readings may be stuck until the node starts again; the journal keeps them"
            );
        }
    }

    fn on_commit(&mut self, commit: Commit) {
        let Some(Committing { written, then }) = self.committing.pop_front() else {
            tracing::error!(r#loop = self.turn.id.0, first = %commit.first, "a commit of a batch that was never sent");
            return;
        };
        debug_assert_eq!(written.len(), commit.records);
        self.commits += 1;
        self.turn.durable.extend(then);
        self.last_committed = Position((commit.first.0 + commit.records as u64).saturating_sub(1));
        for (written, position) in written.into_iter().zip(commit.first.0..) {
            let position = Position(position);
            let admitted = match written {
                Written::Reading(admitted) => admitted,
                Written::Outcome(ack) => {
                    self.turn.answer_ack(ack);
                    continue;
                }
                // It is on its way into the store already.
                Written::Kept => continue,
                Written::Unparked(parked, reply) => {
                    self.turn.parked.unpark(parked);
                    // Whoever asked may have gone; it is done all the same.
                    let _ = reply.send(());
                    continue;
                }
                Written::Imported(import) => {
                    let ToImport { state, overwrite, reply } = *import;
                    let key = self.activate(&state.device);
                    if let Some(device) = self.devices.get_mut(key as usize) {
                        let brought = Brought { position, state, overwrite, reply };
                        device.on_reading(Step::Brought(brought), &mut self.turn);
                    }
                    continue;
                }
            };
            let (now, later) = split_ack(admitted.level, admitted.ack);
            self.turn.answer(now, Answer::Committed);
            let committed = Committed { position, reading: admitted.reading, routed: admitted.routed, ack: later };
            if let Some(device) = self.devices.get_mut(admitted.key as usize) {
                device.on_reading(Step::Committed(committed), &mut self.turn);
            }
        }
    }

    fn on_outcome(&mut self, outcome: ScriptOutcome) {
        let device = self.by_id.get(&outcome.device).and_then(|key| self.devices.get_mut(*key as usize));
        match device {
            Some(device) => device.on_reading(Step::Handled(outcome), &mut self.turn),
            None => tracing::error!(device = %outcome.device, "outcome for a device that is not active"),
        }
    }

    fn on_loaded(&mut self, answer: Loaded) {
        match answer.state {
            Ok(state) => {
                if let Some(device) = self.devices.get_mut(answer.key as usize) {
                    device.on_loaded(state, &mut self.turn);
                }
            }
            Err(error) => {
                self.failed_loads.add(answer.key, answer.device, &error);
            }
        }
    }

    fn resume(&mut self, unfinished: Unfinished) {
        let key = self.activate(unfinished.device());
        let Some(device) = self.devices.get_mut(key as usize) else { return };
        match unfinished {
            Unfinished::Reading { position, reading, routed } => {
                device.resume(&mut self.turn);
                let committed = Committed { position, reading, routed, ack: None };
                device.on_reading(Step::Committed(committed), &mut self.turn);
            }
            Unfinished::Brought { position, state, overwrite } => {
                // Nobody waits for it any more.
                let (reply, _) = tokio::sync::oneshot::channel();
                let brought = Brought { position, state, overwrite, reply };
                device.on_reading(Step::Brought(brought), &mut self.turn);
            }
        }
    }

    // ---- the end of a turn

    /// Is there a reason not to read sockets now?
    pub(crate) fn is_pressed(&self) -> bool {
        self.turn.is_pressed() || self.crowded.iter().any(|owner| self.is_crowded(*owner))
    }

    fn is_crowded(&self, owner: LoopId) -> bool {
        self.services.handovers[owner.index()].waiting() >= limits::HANDOVER
    }

    /// Should the connection of this device, which this loop owns, not be read now?
    pub(crate) fn is_device_pressed(&self, device: &str) -> bool {
        // No device has more under way than its loop: mostly that answers it without a look at the device.
        self.turn.ledger.in_flight as usize >= limits::DEVICE_IN_FLIGHT
            && self.device(device).is_some_and(DeviceActor::is_pressed)
    }

    /// Wakes `waker` once the loop reads sockets again.
    pub(crate) fn pause(&mut self, waker: &Waker) {
        self.paused.push(waker.clone());
    }

    /// When the journal is to have the batch.
    pub(crate) fn batch_due(&self) -> Due {
        let batch = &self.turn.batch;
        match () {
            () if self.turn.journal_failed || batch.is_empty() => Due::Never,
            () if batch.is_urgent() || batch.bytes() >= limits::JOURNAL_BATCH_SOON => Due::Now,
            () => Due::Soon,
        }
    }

    /// When the loops that have readings from here are to be woken.
    pub(crate) fn handover_due(&self) -> Due {
        self.unwoken.iter().copied().max().unwrap_or(Due::Never)
    }

    /// Hands the collected batch to the journal.
    pub(crate) fn send_batch(&mut self) {
        if self.turn.batch.is_empty() || self.turn.journal_failed {
            return;
        }
        let batch = std::mem::replace(&mut self.turn.batch, Batch::new(self.turn.id));
        match self.services.journal.try_append(batch) {
            Ok(()) => {
                self.batches_sent += 1;
                let (written, then) = (std::mem::take(&mut self.turn.written), std::mem::take(&mut self.turn.then));
                self.committing.push_back(Committing { written, then });
            }
            // The queue is full: the batch goes on growing, and past its limit the sockets wait.
            Err(batch) => self.turn.batch = batch,
        }
    }

    /// Has `then` done once everything that was journaled so far is durable, which is asked for at once.
    pub(crate) fn when_durable(&mut self, then: Then) {
        if !self.turn.batch.is_empty() {
            self.turn.batch.set_urgent();
            self.turn.then.push(then);
        } else if let Some(last) = self.committing.back_mut() {
            // It is on its way; nothing makes it faster.
            last.then.push(then);
            return;
        } else {
            self.turn.durable.push_back(then);
        }
        self.turn.wake();
    }

    /// The next thing to be done of what waited for a commit; none while the disk refuses.
    pub(crate) fn next_durable(&mut self) -> Option<Then> {
        if self.turn.journal_failed { None } else { self.turn.durable.pop_front() }
    }

    /// Hands everything that was done up to now to the journal, and says how many of the loop's batches must be committed for
    /// that to be durable; `None`: the journal does not take it yet.
    pub(crate) fn commits_needed(&mut self) -> Option<u64> {
        self.send_batch();
        self.turn.batch.is_empty().then(|| self.commits + self.committing.len() as u64)
    }

    /// Batches that are committed, since the start.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Sends everything else that the turn collected. What a full queue refuses stays for the next turn.
    pub(crate) fn flush(&mut self) -> ForEdge {
        self.flush_acks();
        self.flush_runs();
        self.flush_loads();
        if !self.crowded.is_empty() {
            let mut crowded = std::mem::take(&mut self.crowded);
            crowded.retain(|owner| self.is_crowded(*owner));
            self.crowded = crowded;
        }
        if !self.paused.is_empty() && !self.is_pressed() {
            self.paused.drain(..).for_each(Waker::wake);
        }
        ForEdge {
            acks: std::mem::take(&mut self.turn.acks),
            shown: std::mem::take(&mut self.turn.shown),
            commands: std::mem::take(&mut self.turn.commands),
        }
    }

    /// Wakes the loops that have readings from here, unless they have turned meanwhile and taken them.
    pub(crate) fn wake_owners(&mut self) {
        let services = &self.services;
        for ((unwoken, handover), outlet) in self.unwoken.iter_mut().zip(&services.handovers).zip(&services.outlets) {
            if std::mem::replace(unwoken, Due::Never) != Due::Never && handover.waiting() > 0 {
                outlet.wake();
            }
        }
    }

    fn flush_acks(&mut self) {
        let home = self.turn.id;
        if self.turn.acks.iter().any(|ack| ack.to.home != home) {
            let (mine, others) = std::mem::take(&mut self.turn.acks).into_iter().partition(|ack| ack.to.home == home);
            self.turn.acks = mine;
            for ack in Vec::<Ack>::into_iter(others) {
                let AckTo { home, .. } = ack.to;
                if let Some(queue) = self.ack_handover.get_mut(home.index()) {
                    queue.push(ack);
                }
            }
        }
        for (queue, outlet) in self.ack_handover.iter_mut().zip(&self.services.outlets) {
            if queue.is_empty() {
                continue;
            }
            match outlet.try_send(LoopMessage::Acks(std::mem::take(queue))) {
                Err(LoopMessage::Acks(back)) => *queue = back,
                _ => outlet.call(),
            }
        }
    }

    fn flush_runs(&mut self) {
        if !self.turn.runs.is_empty()
            && let Err(back) = self.turn.scripts.try_submit(std::mem::take(&mut self.turn.runs))
        {
            self.turn.runs = back;
        }
    }

    fn flush_loads(&mut self) {
        if self.turn.loads.is_empty() {
            return;
        }
        let loads = std::mem::take(&mut self.turn.loads);
        let (store, outlet) = (Arc::clone(&self.services.store), self.services.outlets[self.turn.id.index()].clone());
        let wanted = loads.clone();
        let job = move || {
            let load = |(key, device): (DeviceKey, DeviceId)| {
                let state = store.get(device.as_str());
                Loaded { key, device, state }
            };
            // The loop is gone only when the node stops.
            let _ = outlet.send(LoopMessage::Loaded(wanted.into_iter().map(load).collect()));
        };
        if self.services.pool.try_run(job).is_err() {
            self.turn.loads = loads;
        }
    }

    /// Nothing of any reading is under way, and every answer has left.
    pub(crate) fn is_drained(&self) -> bool {
        self.turn.ledger.in_flight == 0
            && self.turn.batch.is_empty()
            && self.committing.is_empty()
            && self.turn.durable.is_empty()
            && self.handed_over.is_empty()
            && self.services.handovers[self.turn.id.index()].waiting() == 0
            && self.turn.acks.is_empty()
            && self.ack_handover.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests;
