//! Carries out what the queue decides: messages to devices, pairs to keep; and keeps its deadlines.

use std::{rc::Rc, sync::atomic::Ordering, time::Duration};

use serde_json::value::RawValue;
use tidegate_actors::{
    ids::{DeviceId, LoopId},
    reading::Channel,
};

use super::{
    command::RequestId,
    queue::{Commands, Effect, Now, Sending, Style},
};
use crate::{
    edge::EdgeLoop,
    kept,
    mqtt::{
        packet::QoS,
        properties::id,
        router::{self, Message},
        session::SessionKey,
        wire::put_binary,
    },
};

/// What a message to subscribers is as a command: the device's own session, and which command it is.
#[derive(Debug)]
pub(crate) struct Addressed {
    pub(crate) home: LoopId,
    pub(crate) key: SessionKey,
    /// No other subscriber gets it: its topic is the same for every device.
    pub(crate) only: bool,
    pub(super) device: DeviceId,
    pub(super) id: RequestId,
}

impl Addressed {
    /// Is the session with this key on loop `me` the device's own?
    pub(crate) fn is_for(&self, me: LoopId, key: SessionKey) -> bool {
        (self.home, self.key) == (me, key)
    }

    /// Is the message kept from the session with this key on loop `me`?
    pub(crate) fn excludes(&self, me: LoopId, key: SessionKey) -> bool {
        self.only && !self.is_for(me, key)
    }
}

/// The time on both clocks.
pub(super) fn now(edge: &EdgeLoop) -> Now {
    Now { wall: edge.handle.services().clock.now(), uptime: edge.uptime_ms() }
}

/// Lets the queue of this loop do something, and carries out what comes of it.
pub(super) fn with<T>(edge: &Rc<EdgeLoop>, act: impl FnOnce(&mut Commands, Now) -> T) -> T {
    let now = now(edge);
    let (result, effects, due) = {
        let commands = &mut *edge.commands.borrow_mut();
        let (before, under_way) = (commands.next_due(), commands.under_way());
        let result = act(commands, now);
        let sooner = match (before, commands.next_due()) {
            (Some(before), Some(after)) => after < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let gauge = &edge.shared.commands.under_way;
        // Each loop adds what its own have become more or fewer: the sum never goes below nothing.
        gauge.fetch_add(commands.under_way(), Ordering::Relaxed);
        gauge.fetch_sub(under_way, Ordering::Relaxed);
        (result, commands.take_effects(), sooner)
    };
    if due {
        edge.commands_due.notify_one();
    }
    for effect in effects {
        carry_out(edge, effect);
    }
    result
}

fn carry_out(edge: &Rc<EdgeLoop>, effect: Effect) {
    match effect {
        Effect::Count(status) => {
            edge.shared.commands.by_status[status as usize].fetch_add(1, Ordering::Relaxed);
        }
        Effect::Keep(key, value) => {
            if let Err(error) = kept::keep(edge, key, value) {
                // Its limits are far below those of a record.
                tracing::error!(error, "a command cannot be kept: it would not survive a crash");
            }
        }
        Effect::Ended(device, id) => {
            let event = || edge.commands.borrow().event(&device, &id).unwrap_or_else(|| "{}".to_owned());
            edge.handle.happened(&device, Channel::CommandReply, || event().into());
        }
        Effect::Send(sending) => send(edge, *sending),
    }
}

fn send(edge: &Rc<EdgeLoop>, sending: Sending) {
    let (home, key) = sending.to;
    if sending.style == Style::Native {
        router::publish(edge, native(&sending, home, key), None);
        return;
    }
    // Its topic is that of every device: it goes to the loop of the connection, and there to the connection alone.
    edge.at_loop_surely(home, move |edge| {
        router::publish(edge, rpc(&sending, home, key), None);
    });
}

fn native(sending: &Sending, home: LoopId, key: SessionKey) -> Message {
    let Sending { device, id: request, .. } = sending;
    #[derive(serde::Serialize)]
    struct Body<'a> {
        id: &'a str,
        name: &'a str,
        params: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        oneway: bool,
    }
    let params = serde_json::from_str(&sending.params).ok();
    let body = Body { id: request, name: &sending.name, params, oneway: sending.oneway };
    let topic = format!("devices/{device}/commands/{request}");
    let mut properties = Vec::new();
    if !sending.oneway {
        properties.push(id::RESPONSE_TOPIC);
        put_binary(&mut properties, format!("{topic}/reply").as_bytes());
        properties.push(id::CORRELATION_DATA);
        put_binary(&mut properties, request.as_bytes());
    }
    let body = serde_json::to_string(&body).unwrap_or_default();
    addressed(sending, topic, body, properties, (home, key, false))
}

fn rpc(sending: &Sending, home: LoopId, key: SessionKey) -> Message {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        method: &'a str,
        params: Option<&'a RawValue>,
    }
    let params = serde_json::from_str(&sending.params).ok();
    let body = serde_json::to_string(&Body { method: &sending.name, params }).unwrap_or_default();
    let topic = format!("v1/devices/me/rpc/request/{}", sending.number);
    addressed(sending, topic, body, Vec::new(), (home, key, true))
}

fn addressed(
    sending: &Sending,
    topic: String,
    body: String,
    properties: Vec<u8>,
    (home, key, only): (LoopId, SessionKey, bool),
) -> Message {
    let (device, id) = (sending.device.clone(), RequestId::clone(&sending.id));
    Message {
        properties: properties.into(),
        deadline: Some(sending.deadline),
        command: Some(Box::new(Addressed { home, key, only, device, id })),
        ..Message::of_node(topic, body, QoS::AtLeastOnce)
    }
}

/// Keeps the deadlines of this loop's commands. Runs as a task of the loop.
pub(crate) async fn keep_time(edge: Rc<EdgeLoop>) {
    loop {
        let due = edge.commands.borrow().next_due();
        match due {
            None => edge.commands_due.notified().await,
            Some(due) => {
                let left = due.saturating_sub(edge.uptime_ms());
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(left)) => {}
                    () = edge.commands_due.notified() => {}
                }
            }
        }
        with(&edge, Commands::on_time);
    }
}
