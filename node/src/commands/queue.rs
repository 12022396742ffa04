//! The commands of one loop's devices: which wait, which are under way, which are over.
//!
//! A machine of states without I/O: time comes in with each call, and what it does to the world leaves as [`Effect`]s, which
//! [`super::deliver`] carries out. A device's commands go out in the order in which they came.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hashbrown::HashMap;
use tidegate_actors::{
    clock::Millis,
    ids::{DeviceId, LoopId},
    limits,
};

use super::{
    command::{Command, Ended, Failure, Order, RequestId, Status, Waiter},
    stored,
};
use crate::mqtt::{packet::QoS, session::SessionKey};

/// Both clocks: the time of day is stored and shown, durations go by the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: Millis,
    /// Milliseconds since the node's start.
    pub(crate) uptime: u64,
}

/// On which topics a device takes commands, and at which quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listening {
    /// `devices/{id}/commands/{request}`.
    pub(crate) native: Option<QoS>,
    /// `v1/devices/me/rpc/request/{n}`.
    pub(crate) rpc: Option<QoS>,
}

/// The topics of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Native,
    ThingsBoard,
}

impl Listening {
    /// Its own topics first: a device that has subscribed to both gets a command once.
    fn takes(self) -> Option<(Style, QoS)> {
        self.native.map(|qos| (Style::Native, qos)).or(self.rpc.map(|qos| (Style::ThingsBoard, qos)))
    }
}

/// A device's own session, while it has a connection: its loop, and its key there.
pub(crate) type Connection = (LoopId, SessionKey);

/// What the machine does to the world.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    Send(Box<Sending>),
    /// Keeps a pair, or forgets it.
    Keep(Bytes, Option<Bytes>),
    /// A command came to this.
    Count(Status),
    /// A command is over, however it ended: handlers may want to know.
    Ended(DeviceId, RequestId),
}

/// A command that goes to its device.
#[derive(Debug, PartialEq)]
pub(crate) struct Sending {
    pub(crate) device: DeviceId,
    pub(crate) id: RequestId,
    pub(crate) number: u32,
    pub(crate) to: Connection,
    pub(crate) style: Style,
    pub(crate) name: Box<str>,
    pub(crate) params: Box<str>,
    pub(crate) oneway: bool,
    /// When it is worth nothing any more, in milliseconds since the node's start.
    pub(crate) deadline: u64,
}

/// Why a command is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The device does not listen, and the command may not wait.
    Offline,
    /// The device has as many as it may.
    QueueFull,
    /// The loop has as many bytes of them as it may.
    Full,
}

/// A command that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) id: RequestId,
    pub(crate) status: Status,
    pub(crate) json: String,
}

/// Which command a reply is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which<'a> {
    Id(&'a str),
    Number(u32),
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// No such command waits for one.
    Unknown,
    /// It was taken; `true`: and is kept.
    Taken(bool),
}

/// Why a command is not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCancelled {
    Unknown,
    /// It has gone out: nobody can take it back.
    Sent,
    /// It is over.
    Over(Status),
}

/// The commands of a loop.
#[derive(Default)]
pub(crate) struct Commands {
    lanes: HashMap<DeviceId, Lane>,
    timers: Timers,
    effects: Vec<Effect>,
    last_id: u64,
    bytes: usize,
    under_way: usize,
}

/// The commands of a device, in order.
#[derive(Default)]
struct Lane {
    /// Its own connection, and what that has subscribed to.
    present: Option<(Connection, Listening)>,
    live: VecDeque<Command>,
    ended: VecDeque<Command>,
    last_number: u32,
}

/// The deadlines.
#[derive(Default)]
struct Timers {
    by_time: BTreeMap<(u64, u64), (DeviceId, RequestId)>,
    serial: u64,
}

impl Timers {
    fn set(&mut self, device: &DeviceId, command: &mut Command, due: u64) {
        self.clear(command);
        self.serial += 1;
        command.timer = Some((due, self.serial));
        self.by_time.insert((due, self.serial), (device.clone(), RequestId::clone(&command.id)));
    }

    fn clear(&mut self, command: &mut Command) {
        if let Some(timer) = command.timer.take() {
            self.by_time.remove(&timer);
        }
    }
}

impl Lane {
    fn takes(&self) -> Option<(Connection, Style, QoS)> {
        let (connection, listening) = self.present?;
        listening.takes().map(|(style, qos)| (connection, style, qos))
    }

    fn find(&self, id: &str) -> Option<&Command> {
        self.live.iter().chain(&self.ended).find(|command| &*command.id == id)
    }

    fn is_empty(&self) -> bool {
        self.present.is_none() && self.live.is_empty() && self.ended.is_empty()
    }

    /// A number for ThingsBoard's topic: positive in 32 bits, as its devices expect, and not one that the last run of the node
    /// gave out a moment ago.
    fn next_number(&mut self, wall: Millis) -> u32 {
        let first = u32::try_from((wall / 1_000).rem_euclid(2_000_000)).unwrap_or(0) * 1_000;
        let last = if self.last_number == 0 { first } else { self.last_number };
        self.last_number = if last >= i32::MAX as u32 { 1 } else { last + 1 };
        self.last_number
    }
}

impl Commands {
    /// What is to be done.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Commands::on_time`] is to be called next.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.timers.by_time.first_key_value().map(|((due, _), _)| *due)
    }

    /// Commands that are not over.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Takes a command: it goes out at once if its device listens. One with an `id` that the device has already had is not taken
    /// twice.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn create(
        &mut self,
        device: &DeviceId,
        order: Order,
        id: Option<RequestId>,
        waiter: Option<Waiter>,
        now: Now,
    ) -> Result<Created, Refusal> {
        let id = id.unwrap_or_else(|| self.next_id(device, now.wall));
        let lane = self.lanes.get(device);
        if let Some(known) = lane.and_then(|lane| lane.find(&id)) {
            return Ok(Created { id, status: known.status, json: known.json(device) });
        }
        if lane.is_some_and(|lane| lane.live.len() >= limits::COMMAND_QUEUE) {
            return Err(Refusal::QueueFull);
        }
        if !order.may_wait() && lane.and_then(Lane::takes).is_none() {
            return Err(Refusal::Offline);
        }
        let mut command = Command::new(RequestId::clone(&id), order, now.wall, 0);
        command.expires = now.uptime + command.order.expiry_ms;
        command.waiter = waiter;
        if self.bytes + command.bytes() > limits::COMMAND_BYTES && !self.make_room(command.bytes()) {
            return Err(Refusal::Full);
        }
        self.bytes += command.bytes();
        self.under_way += 1;
        let expires = command.expires;
        self.timers.set(device, &mut command, expires);
        self.effects.push(Effect::Count(Status::Queued));
        keep(&mut self.effects, device, &command);
        self.lanes.entry(device.clone()).or_default().live.push_back(command);
        self.send_waiting(device, now);
        let lane = self.lanes.get(device);
        let command = lane.and_then(|lane| lane.find(&id));
        let (status, json) = command.map_or((Status::Queued, String::new()), |c| (c.status, c.json(device)));
        Ok(Created { id, status, json })
    }

    /// The device's own connection has (or has no more) subscriptions that take commands.
    pub(crate) fn listens(&mut self, device: &DeviceId, connection: Connection, listening: Listening, now: Now) {
        let lane = self.lanes.entry(device.clone()).or_default();
        let before = lane.present.replace((connection, listening));
        if before.is_some_and(|(other, _)| other != connection) {
            self.requeue(device, now);
        }
        self.send_waiting(device, now);
    }

    /// A connection of the device has ended.
    pub(crate) fn left(&mut self, device: &DeviceId, connection: Connection, now: Now) {
        let Some(lane) = self.lanes.get_mut(device) else { return };
        // A newer connection may have taken its place.
        if lane.present.is_none_or(|(present, _)| present != connection) {
            return;
        }
        lane.present = None;
        self.requeue(device, now);
        self.drop_if_empty(device);
    }

    /// What was sent and not acknowledged over a connection that is gone waits again, if it may.
    fn requeue(&mut self, device: &DeviceId, now: Now) {
        let Some(lane) = self.lanes.get_mut(device) else { return };
        for command in &mut lane.live {
            if command.status == Status::Sent && command.expires > now.uptime {
                command.status = Status::Queued;
                let due = command.expires;
                self.timers.set(device, command, due);
            }
        }
    }

    /// Sends what waits, if the device listens.
    fn send_waiting(&mut self, device: &DeviceId, now: Now) {
        let Some(lane) = self.lanes.get_mut(device) else { return };
        let Some((to, style, qos)) = lane.takes() else { return };
        let mut over = Vec::new();
        for at in 0..lane.live.len() {
            if lane.live[at].status != Status::Queued {
                continue;
            }
            let number = match lane.live[at].number {
                0 if style == Style::ThingsBoard => lane.next_number(now.wall),
                number => number,
            };
            let command = &mut lane.live[at];
            command.number = number;
            command.status = Status::Sent;
            command.sent = Some(now.wall);
            command.tries += 1;
            let due = now.uptime + command.order.timeout_ms;
            self.timers.set(device, command, due);
            self.effects.push(Effect::Count(Status::Sent));
            self.effects.push(Effect::Send(Box::new(Sending {
                device: device.clone(),
                id: RequestId::clone(&command.id),
                number,
                to,
                style,
                name: command.order.name.clone(),
                params: command.order.params.clone(),
                oneway: command.order.oneway,
                deadline: command.expires.max(due),
            })));
            if command.order.oneway && qos == QoS::AtMostOnce {
                // Nobody will ever say more of it.
                over.push(RequestId::clone(&command.id));
            }
        }
        for id in over {
            self.end(device, &id, End { status: Status::Sent, failure: None, reason: "".into(), reply: None }, now);
        }
    }

    /// The device has acknowledged a command.
    pub(crate) fn delivered(&mut self, device: &DeviceId, id: &str, now: Now) {
        let Some(lane) = self.lanes.get_mut(device) else { return };
        let Some(command) = lane.live.iter_mut().find(|command| &*command.id == id) else { return };
        if !matches!(command.status, Status::Sent | Status::Queued) {
            return;
        }
        if command.status == Status::Queued {
            // It was acknowledged after all, on a connection that was thought gone.
            let due = now.uptime + command.order.timeout_ms;
            self.timers.set(device, command, due);
        }
        command.status = Status::Delivered;
        command.delivered = Some(now.wall);
        if command.order.oneway {
            self.end(device, id, End { status: Status::Delivered, failure: None, reason: "".into(), reply: None }, now);
        } else {
            self.effects.push(Effect::Count(Status::Delivered));
            keep(&mut self.effects, device, command);
        }
    }

    /// The device has answered: with JSON, or with what cannot be taken, in words.
    pub(crate) fn reply(
        &mut self,
        device: &DeviceId,
        which: Which<'_>,
        payload: Result<Box<str>, Box<str>>,
        now: Now,
    ) -> Taken {
        let Some(lane) = self.lanes.get(device) else { return Taken::Unknown };
        let is_it = |command: &&Command| match which {
            Which::Id(id) => &*command.id == id,
            Which::Number(number) => command.number == number && number > 0,
        };
        // One that was sent and waits again may be answered all the same; one that never went out may not.
        let Some(command) = lane.live.iter().find(is_it).filter(|command| command.tries > 0) else {
            return Taken::Unknown;
        };
        let (id, kept) = (RequestId::clone(&command.id), command.order.may_wait());
        let end = match payload {
            Ok(reply) => End { status: Status::Replied, failure: None, reason: "".into(), reply: Some(reply) },
            Err(reason) => End { status: Status::Failed, failure: Some(Failure::BadReply), reason, reply: None },
        };
        self.end(device, &id, end, now);
        Taken::Taken(kept)
    }

    /// Takes a command back that has not gone out.
    ///
    /// # Errors
    /// [`NotCancelled`].
    pub(crate) fn cancel(&mut self, device: &DeviceId, id: &str, now: Now) -> Result<String, NotCancelled> {
        let command = self.lanes.get(device).and_then(|lane| lane.find(id)).ok_or(NotCancelled::Unknown)?;
        match command.status {
            _ if command.ended.is_some() => return Err(NotCancelled::Over(command.status)),
            Status::Queued => {}
            _ => return Err(NotCancelled::Sent),
        }
        let reason = match command.tries {
            0 => "taken back before it was sent".into(),
            tries => format!("taken back; it had been sent {tries} times, without an acknowledgement").into(),
        };
        self.end(device, id, End { status: Status::Cancelled, failure: None, reason, reply: None }, now);
        self.get(device, id).ok_or(NotCancelled::Unknown)
    }

    /// One command as it is shown.
    pub(crate) fn get(&self, device: &DeviceId, id: &str) -> Option<String> {
        self.lanes.get(device)?.find(id).map(|command| command.json(device))
    }

    /// One command that is over, as handlers see it.
    pub(crate) fn event(&self, device: &DeviceId, id: &str) -> Option<String> {
        self.lanes.get(device)?.find(id).map(Command::event)
    }

    /// A device's commands as they are shown, the oldest first: those that are over, and those that are not.
    pub(crate) fn list(&self, device: &DeviceId) -> Vec<String> {
        let Some(lane) = self.lanes.get(device) else { return Vec::new() };
        let mut all: Vec<&Command> = lane.ended.iter().chain(&lane.live).collect();
        all.sort_by_key(|command| command.created);
        all.into_iter().map(|command| command.json(device)).collect()
    }

    /// Time has passed: what is due happens.
    pub(crate) fn on_time(&mut self, now: Now) {
        while let Some(first) = self.timers.by_time.first_entry().filter(|first| first.key().0 <= now.uptime) {
            let (device, id) = first.remove();
            let Some(lane) = self.lanes.get_mut(&device) else { continue };
            if let Some(at) = lane.ended.iter().position(|command| command.id == id) {
                let command = lane.ended.remove(at);
                self.forget(&device, command);
                self.drop_if_empty(&device);
                continue;
            }
            let Some(command) = lane.live.iter_mut().find(|command| command.id == id) else { continue };
            command.timer = None;
            let Order { timeout_ms, expiry_ms, oneway, .. } = command.order;
            let end = match command.status {
                Status::Queued => {
                    let reason = format!("the device did not take it within its expiryMs of {expiry_ms}").into();
                    End { status: Status::Expired, failure: None, reason, reply: None }
                }
                _ => {
                    let missing = if oneway { "acknowledgement" } else { "reply" };
                    let reason = format!("no {missing} within its timeoutMs of {timeout_ms}").into();
                    End { status: Status::Failed, failure: Some(Failure::Timeout), reason, reply: None }
                }
            };
            self.end(&device, &id, end, now);
        }
    }

    /// A command as the last run of the node left it. What had gone out without an acknowledgement goes out again.
    ///
    /// # Errors
    /// It cannot be read; in words.
    pub(crate) fn recovered(&mut self, device: &DeviceId, id: &str, value: &[u8], now: Now) -> Result<(), String> {
        let mut command = stored::decode(id, value)?;
        // Whatever the time of day has done meanwhile, it waits no longer than it was to.
        let left = |since: Millis, all: u64| all - u64::try_from(now.wall - since).unwrap_or(0).min(all);
        let lane = self.lanes.entry(device.clone()).or_default();
        self.bytes += command.bytes();
        if let Some(ended) = command.ended {
            let kept = u64::try_from(limits::COMMAND_ENDED_KEPT.as_millis()).unwrap_or(u64::MAX);
            self.timers.set(device, &mut command, now.uptime + left(ended, kept));
            let at = lane.ended.partition_point(|other| other.ended <= command.ended);
            lane.ended.insert(at, command);
            return Ok(());
        }
        command.expires = now.uptime + left(command.created, command.order.expiry_ms);
        let due = match command.status {
            Status::Delivered => now.uptime + command.order.timeout_ms,
            _ => {
                command.status = Status::Queued;
                command.expires
            }
        };
        self.timers.set(device, &mut command, due);
        self.under_way += 1;
        let order = |command: &Command| (command.created, RequestId::clone(&command.id));
        let at = lane.live.partition_point(|other| order(other) <= order(&command));
        lane.live.insert(at, command);
        Ok(())
    }

    // ---- the end of a command

    fn end(&mut self, device: &DeviceId, id: &str, end: End, now: Now) {
        let Some(lane) = self.lanes.get_mut(device) else { return };
        let Some(at) = lane.live.iter().position(|command| &*command.id == id) else { return };
        let Some(mut command) = lane.live.remove(at) else { return };
        self.under_way = self.under_way.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(command.bytes());
        command.status = end.status;
        command.failure = end.failure;
        command.reason = end.reason;
        command.reply = end.reply;
        if command.status == Status::Replied {
            // The reply may come before the acknowledgement: it is one.
            command.delivered = command.delivered.or(Some(now.wall));
        }
        command.ended = Some(now.wall);
        self.bytes += command.bytes();
        if command.status != Status::Sent {
            self.effects.push(Effect::Count(command.status));
        }
        if let Some(waiter) = command.waiter.take() {
            let Command { status, failure, .. } = command;
            // Who asked may have gone.
            let _ = waiter.send(Ended { status, failure, reason: command.reason.clone(), json: command.json(device) });
        }
        keep(&mut self.effects, device, &command);
        self.effects.push(Effect::Ended(device.clone(), RequestId::clone(&command.id)));
        let kept = u64::try_from(limits::COMMAND_ENDED_KEPT.as_millis()).unwrap_or(u64::MAX);
        self.timers.set(device, &mut command, now.uptime + kept);
        lane.ended.push_back(command);
        let oldest = if lane.ended.len() > limits::COMMANDS_ENDED { lane.ended.pop_front() } else { None };
        self.forget(device, oldest);
        if self.bytes > limits::COMMAND_BYTES {
            self.make_room(0);
        }
    }

    /// Lets go of a command that is over.
    fn forget(&mut self, device: &DeviceId, command: Option<Command>) {
        let Some(mut command) = command else { return };
        self.timers.clear(&mut command);
        self.bytes = self.bytes.saturating_sub(command.bytes());
        if command.order.may_wait() {
            self.effects.push(Effect::Keep(stored::key(device, &command.id), None));
        }
    }

    /// Forgets commands that are over until there is room for `bytes` more, those first that ended first. Returns whether there is.
    fn make_room(&mut self, bytes: usize) -> bool {
        let mut after = (0, 0);
        while self.bytes + bytes > limits::COMMAND_BYTES {
            let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let Some((timer, (device, id))) = self.timers.by_time.range(range).next() else { return false };
            after = *timer;
            let (device, id) = (device.clone(), RequestId::clone(id));
            let Some(lane) = self.lanes.get_mut(&device) else { continue };
            if let Some(at) = lane.ended.iter().position(|command| command.id == id) {
                let command = lane.ended.remove(at);
                self.forget(&device, command);
                self.drop_if_empty(&device);
            }
        }
        true
    }

    fn drop_if_empty(&mut self, device: &DeviceId) {
        if self.lanes.get(device).is_some_and(Lane::is_empty) {
            self.lanes.remove(device);
        }
    }

    /// An id that the device has not had: 16 hex digits, growing with time.
    fn next_id(&mut self, device: &DeviceId, wall: Millis) -> RequestId {
        let lane = self.lanes.get(device);
        loop {
            self.last_id = (u64::try_from(wall).unwrap_or(0) << 16).max(self.last_id + 1);
            let id: RequestId = format!("{:016x}", self.last_id).into();
            // The time of day may have been set back since the last run.
            if lane.is_none_or(|lane| lane.find(&id).is_none()) {
                return id;
            }
        }
    }
}

/// How a command ends.
struct End {
    status: Status,
    failure: Option<Failure>,
    reason: Box<str>,
    reply: Option<Box<str>>,
}

/// Keeps a command that may wait for its device.
fn keep(effects: &mut Vec<Effect>, device: &DeviceId, command: &Command) {
    if command.order.may_wait() {
        effects.push(Effect::Keep(stored::key(device, &command.id), Some(stored::encode(command))));
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
