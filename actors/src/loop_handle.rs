//! A loop as code on its own thread sees it: the edge that is attached to it, and the loop's devices behind a borrow.
//!
//! Not `Send`: other threads go through [`crate::runtime::RuntimeHandle`].

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use actix::Supervisor;
use bytes::Bytes;

use crate::{
    clock::Uptime,
    event_loop::{EventLoop, LoopHealth, LoopMessage},
    ids::{DeviceId, LoopId},
    inbox::Inbox,
    journal::RecordTooLarge,
    kept::KeptChange,
    ledger::{DeviceLedger, Ledger, RejectReason},
    lifetime::Lifetime,
    loop_actor::LoopActor,
    placement,
    reading::Channel,
    runtime::{PageQuery, Services},
    script::ScriptCommand,
    state::DeviceState,
    store::ParkedChanges,
    submission::{Ack, Submission},
    turn::{Memory, Shown},
};

/// What the edge does with what a loop has for it. Called on the loop's thread, never while the loop is borrowed.
pub trait Edge {
    /// Answers for connections and requests of this loop.
    fn on_acks(&self, acks: Vec<Ack>);
    /// States and events for MQTT subscribers; only while [`LoopHandle::listen`] is on.
    fn on_shown(&self, shown: Vec<Shown>);
    /// Commands that handlers of this loop's devices want sent, each with its id. Their outcomes are on their way into the journal.
    fn on_commands(&self, _commands: Vec<(String, ScriptCommand)>) {}
    /// The end of a turn: what the edge collected for other loops leaves now.
    fn on_turn_end(&self);
}

/// A loop, on its own thread. Cheap to clone.
#[derive(Clone)]
pub struct LoopHandle(Rc<LoopInner>);

struct LoopInner {
    id: LoopId,
    services: Arc<Services>,
    event_loop: RefCell<EventLoop>,
    edge: RefCell<Option<Rc<dyn Edge>>>,
}

impl LoopHandle {
    /// Starts the loop's actor on this thread (an arbiter's).
    pub(crate) fn start(id: LoopId, services: Arc<Services>, inbox: Inbox<LoopMessage>) -> Self {
        let event_loop = RefCell::new(EventLoop::new(id, Arc::clone(&services)));
        let handle = Self(Rc::new(LoopInner { id, services, event_loop, edge: RefCell::new(None) }));
        let actor = LoopActor { handle: handle.clone(), inbox: Rc::new(inbox) };
        Supervisor::start(|_| actor);
        handle
    }

    /// Which loop this is.
    #[must_use]
    pub fn id(&self) -> LoopId {
        self.0.id
    }

    /// What the loops share.
    #[must_use]
    pub fn services(&self) -> &Arc<Services> {
        &self.0.services
    }

    pub(crate) fn event_loop(&self) -> RefMut<'_, EventLoop> {
        self.0.event_loop.borrow_mut()
    }

    /// Gives the loop its edge.
    pub fn set_edge(&self, edge: Rc<dyn Edge>) {
        *self.0.edge.borrow_mut() = Some(edge);
    }

    /// Does the edge want every state and event?
    pub fn listen(&self, on: bool) {
        self.event_loop().turn.edge_listens = on;
    }

    pub(crate) fn begin_turn(&self, waker: &Waker) {
        let now = self.0.services.clock.uptime();
        let mut event_loop = self.event_loop();
        event_loop.turn.set_waker(waker);
        event_loop.turn.now = now;
    }

    /// Does what waited for a commit that has come. One that panics takes none of the others with it: the next turn goes on.
    pub(crate) fn run_durable(&self) {
        let count = self.event_loop().turn.durable.len();
        for _ in 0..count {
            let Some(then) = self.event_loop().next_durable() else { return };
            then();
        }
        let event_loop = self.event_loop();
        if !event_loop.turn.durable.is_empty() {
            event_loop.turn.wake();
        }
    }

    pub(crate) fn end_turn(&self) {
        let for_edge = self.event_loop().flush();
        let Some(edge) = self.0.edge.borrow().clone() else { return };
        if !for_edge.acks.is_empty() {
            edge.on_acks(for_edge.acks);
        }
        if !for_edge.shown.is_empty() {
            edge.on_shown(for_edge.shown);
        }
        if !for_edge.commands.is_empty() {
            edge.on_commands(for_edge.commands);
        }
        edge.on_turn_end();
    }

    /// Makes the loop run a turn soon, so that [`Edge::on_turn_end`] is called.
    pub fn wake(&self) {
        self.event_loop().turn.wake();
    }

    /// The loop that owns a device.
    #[must_use]
    pub fn owner_of(&self, device: &str) -> LoopId {
        placement::owner(device, self.0.services.loops())
    }

    /// Takes a reading: to its device on this loop, or on its way to the loop that owns it. What the device sends next, over
    /// whatever connection, comes after it.
    pub fn submit(&self, submission: Submission) {
        self.event_loop().submit(submission);
    }

    /// Keeps a pair over restarts (`value` `None`: forgets it), durable with this loop's next commit: see
    /// [`LoopHandle::when_durable`]. While the node runs, one key belongs to one loop. What is kept is read at the next start, by
    /// [`crate::runtime::RuntimeHandle::kept`].
    ///
    /// # Errors
    /// The key is empty or longer than [`crate::limits::KEPT_KEY_BYTES`], or the pair is larger than a record may be
    /// ([`crate::limits::RECORD_BYTES`]); nothing has changed.
    pub fn keep(&self, key: Bytes, value: Option<Bytes>) -> Result<(), RecordTooLarge> {
        self.event_loop().turn.keep(KeptChange { key, value })
    }

    /// Runs `then` on this loop's thread, outside any borrow of the loop, once everything that this loop has journaled so far is
    /// durable, in the order of the calls; asks for a commit at once. Never while the disk refuses, and never before this
    /// returns.
    pub fn when_durable(&self, then: impl FnOnce() + 'static) {
        self.event_loop().when_durable(Box::new(then));
    }

    /// Counts a reading that the edge refused, for the node and, if it named one, for its device.
    pub fn reject(&self, reason: RejectReason, device: Option<&str>) {
        self.event_loop().turn.reject(reason, device);
    }

    /// This loop's part of a device's ledger: see [`crate::ledger::DeviceLedger`].
    #[must_use]
    pub fn device_ledger(&self, device: &str) -> DeviceLedger {
        let event_loop = self.event_loop();
        let actor = event_loop.device(device);
        DeviceLedger {
            state: actor.and_then(|actor| actor.state()).map(|state| (state.version, state.counts.reasons())),
            rejected: event_loop.turn.rejections.of(device),
            in_flight: actor.map_or(0, |actor| actor.in_flight().into()),
        }
    }

    /// Should sockets not be read now? Then [`LoopHandle::pause`] tells whom to wake later.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        self.event_loop().is_pressed()
    }

    /// Should the connection of a device of this loop not be read now: too many of its readings are under way? Then, too,
    /// [`LoopHandle::pause`] tells whom to wake: at the end of the next turn.
    #[must_use]
    pub fn is_device_pressed(&self, device: &DeviceId) -> bool {
        self.event_loop().is_device_pressed(device.as_str())
    }

    /// Wakes `waker` once sockets may be read again.
    pub fn pause(&self, waker: &Waker) {
        self.event_loop().pause(waker);
    }

    /// Closes the gate for good: the node stops.
    pub fn close_gate(&self) {
        let mut event_loop = self.event_loop();
        event_loop.turn.gate_closed = true;
        event_loop.turn.wake();
    }

    /// How the node's memory stands, as the loop was last told.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.event_loop().turn.memory
    }

    /// Tells the loop how the node's memory stands.
    pub fn set_memory(&self, memory: Memory) {
        let mut event_loop = self.event_loop();
        event_loop.turn.memory = memory;
        event_loop.turn.wake();
    }

    /// Something else happened to a device of this loop: tells the handlers that want to know. `content`: a JSON object.
    pub fn happened(&self, device: &DeviceId, channel: Channel, content: impl FnOnce() -> Bytes) {
        self.event_loop().happened(device, channel, content);
    }

    /// A connection of this loop's device came or went.
    pub fn connected(&self, device: &DeviceId, here: bool) {
        self.event_loop().connected(device, here);
    }

    /// When this turn began, for durations.
    #[must_use]
    pub fn now(&self) -> Uptime {
        self.event_loop().turn.now
    }

    /// This loop's ledger, consistent.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.event_loop().turn.ledger.clone()
    }

    /// How the durable counts of this loop's devices have changed since the start.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.event_loop().turn.lifetime
    }

    /// What happened to parked readings of this loop and may not be in the store yet.
    #[must_use]
    pub(crate) fn unwritten_parked(&self) -> ParkedChanges {
        self.event_loop().unwritten_parked()
    }

    /// How this loop fares.
    #[must_use]
    pub fn health(&self) -> LoopHealth {
        self.event_loop().health()
    }

    /// The Device object of an active device of this loop, and whether the device is connected.
    #[must_use]
    pub fn device_json(&self, device: &str) -> (Option<Vec<u8>>, bool) {
        let event_loop = self.event_loop();
        let connected = event_loop.turn.connected.contains_key(device);
        let json = event_loop.device(device).and_then(|d| d.state()).map(|state| {
            let mut out = Vec::with_capacity(state.state.len() + 160);
            state.put_json(&mut out, connected);
            out
        });
        (json, connected)
    }

    /// One page of this loop's devices: the active ones, and those of `stored` (owned by this loop) that are not active.
    pub(crate) fn page(&self, query: &PageQuery, stored: &[DeviceState]) -> Vec<(DeviceId, Vec<u8>)> {
        let event_loop = self.event_loop();
        let encode = |state: &DeviceState| {
            let mut out = Vec::with_capacity(state.state.len() + 160);
            state.put_json(&mut out, event_loop.turn.connected.contains_key(&state.device));
            (state.device.clone(), out)
        };
        let active = event_loop.page(query.after.as_deref(), &query.prefix, query.limit);
        let sleeping =
            stored.iter().filter(|s| event_loop.device(s.device.as_str()).is_none_or(|d| d.state().is_none()));
        active.into_iter().chain(sleeping).map(encode).collect()
    }
}
