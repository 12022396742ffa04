//! The MQTT connections of one loop: what the loop must reach of each of them, by key and by client id.
//!
//! The socket and the session's state machine are the connection actor's ([`super::connection`]); here is the part that
//! others write to: its outgoing bytes, its unanswered PUBLISHes, the wish to close it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    num::NonZeroU16,
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use hashbrown::HashMap;
use slab::Slab;
use tidegate_actors::limits;

use super::{
    encode::{self, OutgoingPublish, Peer},
    packet::{QoS, Version},
    reason::ReasonCode,
    router::{Message, Options},
};

/// Names a connection on its loop; never reused.
pub(crate) type ConnectionKey = u64;

/// The part of a connection that others on its loop write to.
pub(crate) struct Link {
    pub(crate) key: ConnectionKey,
    pub(crate) client_id: Box<str>,
    pub(crate) peer: Peer,
    /// Unacknowledged QoS 1 messages that the client takes.
    receive_maximum: u16,
    /// Seconds of silence that the client allows itself; 0: any.
    pub(crate) keep_alive: u16,
    /// When the client last sent something, in milliseconds since the node's start.
    pub(crate) heard: Cell<u64>,
    /// The node does not read its socket now: the client's silence is the node's doing.
    pub(crate) paused: Cell<bool>,
    pub(crate) out: RefCell<Vec<u8>>,
    pub(crate) waker: RefCell<Option<Waker>>,
    pub(crate) close: RefCell<Option<Close>>,
    /// PUBLISHes of the client that wait for their PUBACK, in order ([MQTT-4.6.0-2]).
    pub(crate) unanswered: RefCell<VecDeque<(NonZeroU16, Option<ReasonCode>)>>,
    /// What their PUBACKs say in words, beside the reason code; few say anything.
    remarks: RefCell<Vec<(NonZeroU16, Box<str>)>>,
    outgoing: RefCell<Outgoing>,
    dirty: Cell<bool>,
}

/// QoS 1 messages to the client.
#[derive(Default)]
struct Outgoing {
    last_id: u16,
    unacked: Vec<NonZeroU16>,
    /// Those of them that are commands.
    commands: Vec<(NonZeroU16, Arc<Message>)>,
    waiting: VecDeque<(Arc<Message>, Options)>,
}

/// Why a connection is to be closed by the node.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub(crate) reason: ReasonCode,
    pub(crate) text: String,
}

/// What became of a message for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Written,
    Queued,
    Dropped,
}

impl Link {
    pub(crate) fn new(key: ConnectionKey, client_id: &str, peer: Peer, receive_maximum: u16, keep_alive: u16) -> Self {
        Self {
            key,
            client_id: client_id.into(),
            peer,
            receive_maximum,
            keep_alive,
            heard: Cell::new(0),
            paused: Cell::new(false),
            out: RefCell::default(),
            waker: RefCell::default(),
            close: RefCell::default(),
            unanswered: RefCell::default(),
            remarks: RefCell::default(),
            outgoing: RefCell::default(),
            dirty: Cell::new(false),
        }
    }

    /// Asks the connection's actor to say why and close.
    pub(crate) fn close(&self, reason: ReasonCode, text: impl Into<String>) {
        self.close.borrow_mut().get_or_insert(Close { reason, text: text.into() });
        self.wake();
    }

    /// Should the client's socket not be read now: too many of its PUBLISHes wait for their commit?
    pub(crate) fn is_pressed(&self) -> bool {
        self.unanswered.borrow().len() >= usize::from(limits::MQTT_RECEIVE_MAXIMUM)
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Resolves a PUBLISH of the client, and writes the PUBACKs that are due. A PUBLISH with QoS 0 has no packet id and is
    /// not answered. `text` is the reason string, or empty.
    pub(crate) fn answer(&self, packet_id: Option<NonZeroU16>, reason: ReasonCode, text: &str) {
        let Some(packet_id) = packet_id else { return };
        self.remark(packet_id, text);
        let mut unanswered = self.unanswered.borrow_mut();
        if let Some((_, answer)) = unanswered.iter_mut().find(|(id, answer)| *id == packet_id && answer.is_none()) {
            *answer = Some(reason);
        }
        let (mut out, mut remarks) = (self.out.borrow_mut(), self.remarks.borrow_mut());
        while let Some((id, Some(reason))) = unanswered.front().copied() {
            let remark = remarks.iter().position(|(of, _)| *of == id).map(|at| remarks.remove(at).1);
            encode::puback(&mut out, &self.peer, id, reason, remark.as_deref().unwrap_or_default());
            unanswered.pop_front();
        }
    }

    /// Adds to what the PUBACK of a PUBLISH will say in words, where the client can read them.
    pub(crate) fn remark(&self, packet_id: NonZeroU16, text: &str) {
        if text.is_empty() || self.peer.version != Version::V5 || !self.peer.problem_info {
            return;
        }
        let mut remarks = self.remarks.borrow_mut();
        match remarks.iter_mut().find(|(id, _)| *id == packet_id) {
            Some((_, said)) => *said = format!("{said}; {text}").into(),
            None => remarks.push((packet_id, text.into())),
        }
    }

    /// Delivers a message, at most at the subscription's QoS.
    /// Past `outbound_bytes` that wait for the socket it is dropped.
    pub(crate) fn deliver(&self, message: &Arc<Message>, options: &Options, outbound_bytes: usize) -> Delivery {
        // One message of any size always has room in a socket that keeps up.
        let waiting = self.out.borrow().len();
        if waiting > 0 && waiting + message.payload.len() > outbound_bytes {
            return Delivery::Dropped;
        }
        if message.qos.min(options.qos) == QoS::AtMostOnce {
            return self.write(message, options, None);
        }
        let mut outgoing = self.outgoing.borrow_mut();
        if outgoing.unacked.len() >= usize::from(self.receive_maximum) || !outgoing.waiting.is_empty() {
            if outgoing.waiting.len() >= limits::MQTT_QUEUE {
                return Delivery::Dropped;
            }
            outgoing.waiting.push_back((Arc::clone(message), options.clone()));
            return Delivery::Queued;
        }
        self.send(&mut outgoing, message, options)
    }

    /// The client has acknowledged a message: the next waiting one may go. Gives the message back if it was a command.
    pub(crate) fn acked(&self, packet_id: NonZeroU16) -> Option<Arc<Message>> {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.unacked.retain(|id| *id != packet_id);
        let command = outgoing.commands.iter().position(|(id, _)| *id == packet_id);
        let command = command.map(|at| outgoing.commands.swap_remove(at).1);
        while outgoing.unacked.len() < usize::from(self.receive_maximum)
            && let Some((message, options)) = outgoing.waiting.pop_front()
        {
            self.send(&mut outgoing, &message, &options);
        }
        command
    }

    /// Writes a QoS 1 message. One that is not written will not be acknowledged: it takes up no place.
    fn send(&self, outgoing: &mut Outgoing, message: &Arc<Message>, options: &Options) -> Delivery {
        let id = outgoing.take_id();
        let delivery = self.write(message, options, Some(id));
        if delivery == Delivery::Dropped {
            outgoing.unacked.pop();
        } else if message.command.is_some() {
            outgoing.commands.push((id, Arc::clone(message)));
        }
        delivery
    }

    fn write(&self, message: &Message, options: &Options, packet_id: Option<NonZeroU16>) -> Delivery {
        let publish = OutgoingPublish {
            dup: false,
            qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            retain: options.retain_as_published && message.retain,
            topic: &message.topic,
            packet_id,
            properties: &message.properties,
            message_expiry: message.expiry,
            topic_alias: None,
            subscription_ids: options.subscription_id.as_slice(),
            payload: &message.payload,
        };
        let written = encode::publish(&mut self.out.borrow_mut(), &self.peer, &publish);
        // A message above the client's maximum packet size counts as sent ([MQTT-3.1.2-25]).
        if written.is_err() { Delivery::Dropped } else { Delivery::Written }
    }
}

impl Outgoing {
    /// The next packet id that is not in use; there is one, for far fewer are in flight than there are ids.
    fn take_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id).filter(|id| !self.unacked.contains(id)) {
                self.unacked.push(id);
                return id;
            }
        }
    }
}

/// The connections of a loop.
#[derive(Default)]
pub(crate) struct Connections {
    links: Slab<Rc<Link>>,
    by_client: HashMap<Box<str>, ConnectionKey>,
    serial: u32,
    dirty: Vec<Rc<Link>>,
}

impl Connections {
    /// Adds a connection; gives back the one of the same client id that it takes over.
    pub(crate) fn add(&mut self, make: impl FnOnce(ConnectionKey) -> Link) -> (Rc<Link>, Option<Rc<Link>>) {
        self.serial = self.serial.wrapping_add(1) & 0x7FFF_FFFF;
        let entry = self.links.vacant_entry();
        let key = u64::from(self.serial) << 32 | entry.key() as u64;
        let link = Rc::new(make(key));
        entry.insert(Rc::clone(&link));
        let old = self.by_client.insert(link.client_id.clone(), key).and_then(|key| self.get(key));
        (link, old)
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, link: &Link) {
        if self.get(link.key).is_some() {
            self.links.remove((link.key & 0xFFFF_FFFF) as usize);
        }
        if self.by_client.get(&link.client_id) == Some(&link.key) {
            self.by_client.remove(&link.client_id);
        }
    }

    pub(crate) fn get(&self, key: ConnectionKey) -> Option<Rc<Link>> {
        self.links.get((key & 0xFFFF_FFFF) as usize).filter(|link| link.key == key).cloned()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Link>> {
        self.links.iter().map(|(_, link)| link)
    }

    /// The connection has bytes to write: its actor is woken once, at the end of the turn.
    pub(crate) fn mark_dirty(&mut self, link: &Rc<Link>) {
        if !link.dirty.replace(true) {
            self.dirty.push(Rc::clone(link));
        }
    }

    pub(crate) fn wake_dirty(&mut self) {
        for link in self.dirty.drain(..) {
            link.dirty.set(false);
            link.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_a_client_does_not_take_hold_up_none_that_it_does() {
        let peer = Peer { maximum_packet: 100, ..Peer::unlimited(Version::V5) };
        let link = Link::new(1, "subscriber", peer, 2, 0);
        let message = |bytes: usize| Arc::new(Message::of_node("plant/1", vec![b'x'; bytes], QoS::AtLeastOnce));
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            subscription_id: smallvec::SmallVec::new(),
        };
        for _ in 0..3 {
            assert_eq!(link.deliver(&message(1_000), &options, 10_000), Delivery::Dropped);
        }
        let [first, second] = [1, 2].map(|_| link.deliver(&message(10), &options, 10_000));
        assert_eq!((first, second), (Delivery::Written, Delivery::Written));
        // Behind them, too large ones wait in front of one that is not.
        for bytes in [1_000, 1_000, 10] {
            assert_eq!(link.deliver(&message(bytes), &options, 10_000), Delivery::Queued);
        }
        let ids = link.outgoing.borrow().unacked.clone();
        link.acked(ids[0]);
        assert!(link.outgoing.borrow().waiting.is_empty(), "the last one waits for a place that nobody gives back");
        assert_eq!(link.outgoing.borrow().unacked.len(), 2);
    }
}
