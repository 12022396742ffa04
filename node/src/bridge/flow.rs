//! What a bridge has under way: from a message to its readings, from their answers to the packet that the broker waits for.
//!
//! It does no I/O and knows no thread: messages and answers go in, readings for the loops and packets for the broker come out.
//! A message is acknowledged once the journal has all of its readings, in the order in which messages came ([MQTT-4.6.0-2]),
//! and only on the connection that brought it: on another one its packet id may be a message that nobody has written yet.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use slab::Slab;
use tidegate_actors::{
    clock::Millis,
    ids::DeviceId,
    ledger::RejectReason,
    reading::{Channel, Reading},
    submission::Answer,
};

use super::{
    complaints::Complaints,
    packets::{Outgoing, Publish},
    status::Status,
};
use crate::{
    config::{Bridge, Subscription},
    ingest::{IngestError, Parsed, each_reading, scalar},
};

/// What a loop gets of a message.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Names it in the answer.
    pub(crate) token: u32,
    pub(crate) what: What,
}

/// A reading, or one that is only counted.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Reading(Reading),
    Refused(RejectReason, Option<DeviceId>),
}

/// The state of one bridge's messages.
pub(crate) struct Flow {
    bridge: Arc<Bridge>,
    status: Arc<Status>,
    complaints: Complaints,
    /// Which connection this is, from 1.
    connection: u32,
    /// The messages that are not acknowledged, in the order in which they came.
    messages: VecDeque<Message>,
    /// The number of the first of them.
    first: u64,
    /// What the loops have not answered, by token.
    held: Slab<Held>,
    /// Tokens whose readings were refused at a limit: they are tried again.
    refused: Vec<u32>,
    /// The messages with QoS 2 that the broker has not released, by packet id.
    exactly: HashMap<u16, Exactly>,
    arrivals: Vec<Arrival>,
    packets: Vec<Outgoing>,
}

struct Message {
    connection: u32,
    qos: u8,
    packet_id: u16,
    hash: u64,
    missing: usize,
}

struct Held {
    message: u64,
    what: What,
}

/// A message with QoS 2.
struct Exactly {
    /// Of its topic and payload: a broker that has lost its memory may use the id for another message.
    hash: u64,
    committed: bool,
    /// The connection that brought it last.
    seen: u32,
}

impl Flow {
    pub(crate) fn new(bridge: Arc<Bridge>, status: Arc<Status>) -> Self {
        Self {
            bridge,
            status,
            complaints: Complaints::default(),
            connection: 0,
            messages: VecDeque::new(),
            first: 0,
            held: Slab::new(),
            refused: Vec::new(),
            exactly: HashMap::new(),
            arrivals: Vec::new(),
            packets: Vec::new(),
        }
    }

    /// A connection was accepted; `resumed`: the broker has kept the session.
    pub(crate) fn connected(&mut self, resumed: bool) {
        self.connection += 1;
        self.packets.clear();
        if !resumed {
            self.exactly.clear();
        }
    }

    /// May another message be taken in?
    pub(crate) fn has_room(&self) -> bool {
        self.messages.len().max(self.held.len()) < usize::from(self.bridge.in_flight)
    }

    /// Is nothing under way?
    pub(crate) fn is_idle(&self) -> bool {
        self.messages.is_empty()
    }

    /// Were readings refused at a limit, so that they must be tried again?
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What the loops get now.
    pub(crate) fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }

    /// What the broker gets now.
    pub(crate) fn take_packets(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.packets)
    }

    /// A message came in.
    pub(crate) fn on_publish(&mut self, publish: &Publish, now: Millis) {
        let Some(number) = self.begin(publish) else { return };
        let taken = self.take(publish, now, number);
        if let Err((error, device)) = taken {
            self.refuse(&publish.topic, &error, device, number);
        }
        self.end();
    }

    /// A message over the limit of a packet came in and was passed over.
    pub(crate) fn on_oversized(&mut self, publish: &Publish, bytes: usize) {
        let Some(number) = self.begin(publish) else { return };
        let limit = tidegate_actors::limits::MQTT_PACKET_BYTES;
        let error = IngestError::new(
            RejectReason::TooLarge,
            format!("the message has {bytes} bytes, at most {limit} are allowed"),
        );
        self.refuse(&publish.topic, &error.limit("mqtt_packet_bytes", limit), None, number);
        self.end();
    }

    /// The broker has our PUBREC and forgets the message. It is told so even if the id is not known: we may have died since.
    pub(crate) fn on_release(&mut self, packet_id: u16) {
        self.exactly.remove(&packet_id);
        self.packets.push(Outgoing::PubComp(packet_id));
    }

    /// A loop has answered.
    pub(crate) fn on_answer(&mut self, token: u32, answer: Answer) {
        let Some(held) = self.held.get(token as usize) else { return };
        if let (What::Reading(_), Answer::Refused(reason)) = (&held.what, answer) {
            // A limit. The broker is not told that the node has it: it is tried again until there is room.
            self.status.refuse(reason);
            self.refused.push(token);
            return;
        }
        let Held { message, what } = self.held.remove(token as usize);
        if matches!(what, What::Reading(_)) {
            self.status.readings.fetch_add(1, Relaxed);
        }
        if let Some(message) =
            message.checked_sub(self.first).and_then(|at| self.messages.get_mut(usize::try_from(at).ok()?))
        {
            message.missing -= 1;
        }
        self.end();
    }

    /// Tries what was refused once more.
    pub(crate) fn try_again(&mut self) {
        for token in std::mem::take(&mut self.refused) {
            if let Some(held) = self.held.get(token as usize) {
                self.arrivals.push(Arrival { token, what: held.what.clone() });
            }
        }
    }

    /// Enters a message; `None`: it is one that is here already.
    fn begin(&mut self, publish: &Publish) -> Option<u64> {
        self.status.messages.fetch_add(1, Relaxed);
        let mut hasher = DefaultHasher::new();
        (&publish.topic, &publish.payload[..]).hash(&mut hasher);
        let hash = hasher.finish();
        if publish.qos == 2 {
            let known = self.exactly.get_mut(&publish.packet_id).filter(|known| publish.dup && known.hash == hash);
            if let Some(known) = known {
                known.seen = self.connection;
                if known.committed {
                    self.packets.push(Outgoing::PubRec(publish.packet_id));
                }
                return None;
            }
            self.exactly.insert(publish.packet_id, Exactly { hash, committed: false, seen: self.connection });
        }
        let number = self.first + self.messages.len() as u64;
        let (connection, qos, packet_id) = (self.connection, publish.qos, publish.packet_id);
        self.messages.push_back(Message { connection, qos, packet_id, hash, missing: 0 });
        Some(number)
    }

    /// Makes readings of a message.
    fn take(&mut self, publish: &Publish, now: Millis, number: u64) -> Result<(), (IngestError, Option<DeviceId>)> {
        let bridge = Arc::clone(&self.bridge);
        let levels: Vec<&str> = publish.topic.split('/').collect();
        let unmapped = |detail: String| (IngestError::new(RejectReason::BadDeviceId, detail), None);
        let (subscription, filter) = bridge
            .subscriptions
            .iter()
            .find_map(|one| one.filter.as_ref().filter(|filter| filter.matches(&levels)).map(|filter| (one, filter)))
            .ok_or_else(|| unmapped("no subscription of the bridge matches the topic".to_owned()))?;
        if publish.retain && !subscription.retained {
            self.status.left_out.fetch_add(1, Relaxed);
            return Ok(());
        }
        let device = match &subscription.device {
            None => None,
            Some(template) => {
                let id = template
                    .fill(filter, &levels)
                    .ok_or_else(|| unmapped(format!("the topic has too few levels for {template}")))?;
                Some(DeviceId::new(&id).map_err(|error| unmapped(format!("the topic's device {id:?}: {error}")))?)
            }
        };
        let mut found = Vec::new();
        let whole = parse(publish, subscription, device.is_some(), &levels, |parsed| found.push(parsed));
        whole.map_err(|error| (error, device.clone()))?;
        if found.is_empty() {
            return Err((IngestError::new(RejectReason::BadShape, "the array is empty"), device));
        }
        for parsed in found {
            match parsed.and_then(|parsed| reading_of(device.as_ref(), parsed, now)) {
                Ok(reading) => self.hold(number, What::Reading(reading)),
                Err(error) => self.refuse(&publish.topic, &error, device.clone(), number),
            }
        }
        Ok(())
    }

    /// Counts a refusal, on a loop as well: the ledger is there. The broker is told that the node has it, or it would come for ever.
    fn refuse(&mut self, topic: &str, error: &IngestError, device: Option<DeviceId>, number: u64) {
        self.status.refuse(error.reason);
        self.complaints.log(&self.bridge.name, topic, error);
        self.hold(number, What::Refused(error.reason, device));
    }

    fn hold(&mut self, message: u64, what: What) {
        let token = self.held.insert(Held { message, what: what.clone() });
        // There are at most a message's readings more than `in_flight`.
        self.arrivals.push(Arrival { token: u32::try_from(token).unwrap_or(u32::MAX), what });
        if let Some(message) = self.messages.back_mut() {
            message.missing += 1;
        }
    }

    /// Acknowledges what is due.
    fn end(&mut self) {
        while let Some(message) = self.messages.pop_front_if(|message| message.missing == 0) {
            self.first += 1;
            self.acknowledge(&message);
        }
        self.status.in_flight.store(self.messages.len() as u64, Relaxed);
    }

    fn acknowledge(&mut self, message: &Message) {
        let packet = match message.qos {
            1 if message.connection == self.connection => Outgoing::PubAck(message.packet_id),
            2 => {
                let known = self.exactly.get_mut(&message.packet_id).filter(|known| known.hash == message.hash);
                let Some(known) = known else { return };
                known.committed = true;
                if known.seen != self.connection {
                    return;
                }
                Outgoing::PubRec(message.packet_id)
            }
            _ => return,
        };
        self.status.acknowledged.fetch_add(1, Relaxed);
        self.packets.push(packet);
    }
}

fn parse(
    publish: &Publish,
    subscription: &Subscription,
    has_device: bool,
    levels: &[&str],
    mut found: impl FnMut(Result<Parsed, IngestError>),
) -> Result<(), IngestError> {
    let payload = &publish.payload;
    if let (Some(field), Some(filter)) = (&subscription.field, &subscription.filter)
        && !holds_objects(payload)
    {
        let detail = || format!("the topic has too few levels for {field}");
        let name = field.fill(filter, levels).ok_or_else(|| IngestError::new(RejectReason::BadShape, detail()))?;
        found(scalar(&name, payload));
        return Ok(());
    }
    // A copy: shared, a small state would keep all that was read with it.
    each_reading(payload, None, has_device, found)
}

/// An object, or an array that begins with one?
fn holds_objects(payload: &[u8]) -> bool {
    let payload = payload.trim_ascii_start();
    match payload.split_first() {
        Some((b'{', _)) => true,
        Some((b'[', rest)) => rest.trim_ascii_start().first() == Some(&b'{'),
        _ => false,
    }
}

/// The topic's device, or else the one that the object names.
fn reading_of(device: Option<&DeviceId>, parsed: Parsed, now: Millis) -> Result<Reading, IngestError> {
    let bad = |detail: String| IngestError::new(RejectReason::BadDeviceId, detail).field("deviceId");
    let device = match (device, &parsed.device_id) {
        (Some(device), _) => device.clone(),
        (None, Some(id)) => DeviceId::new(id).map_err(|error| bad(error.to_string()))?,
        (None, None) => return Err(bad("no deviceId in the object, and the subscription has no device".to_owned())),
    };
    Ok(Reading::new(device, Channel::Metrics, parsed.ts, now, parsed.fields))
}

#[cfg(test)]
mod tests;
