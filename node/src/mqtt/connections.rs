//! The MQTT connections of one loop: what the loop must reach of each of them, by key.
//!
//! The socket is the connection actor's ([`super::connection`]), what the client may expect is the session's
//! ([`super::session`]); here is the part of a connection that others write to: its outgoing bytes, its unanswered PUBLISHes, the
//! wish to close it.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroU16,
    rc::Rc,
    sync::atomic::Ordering,
    task::Waker,
};

use slab::Slab;

use super::{
    aliases::{InboundAliases, OutboundAliases, Spelling},
    answers::Answers,
    deferred::Deferred,
    encode::{self, OutgoingPublish, Peer, TooLarge},
    outgoing::Parcel,
    packet::{Connect, QoS, Version},
    reason::{CodecError, ReasonCode},
    session::Session,
};
use crate::{
    auth::{self, Access, Grant},
    edge::EdgeLoop,
};

/// Names a connection on its loop; never reused, and never 0.
pub(crate) type ConnectionKey = u64;

/// The part of a connection that others on its loop write to.
pub(crate) struct Link {
    pub(crate) key: ConnectionKey,
    pub(crate) session: Rc<Session>,
    pub(crate) client_id: Rc<str>,
    pub(crate) peer: Peer,
    /// Unacknowledged messages with QoS 1 and 2 that the client takes, and that the node sends at most.
    pub(crate) receive_maximum: u16,
    /// Topic aliases that the client takes.
    topic_alias_maximum: u16,
    /// Seconds of silence that the client may allow itself; 0: any.
    pub(crate) keep_alive: u16,
    /// When the client last sent something, in milliseconds since the node's start.
    pub(crate) heard: Cell<u64>,
    /// The node does not read its socket now: the client's silence is the node's doing.
    pub(crate) paused: Cell<bool>,
    /// Its CONNACK waits until its session is durable: nothing else is written before it, nothing is read.
    pub(crate) opening: Cell<bool>,
    pub(crate) out: RefCell<Vec<u8>>,
    pub(crate) waker: RefCell<Option<Waker>>,
    pub(crate) close: RefCell<Option<Box<Close>>>,
    pub(crate) answers: RefCell<Answers>,
    pub(crate) deferred: RefCell<Option<Box<Deferred>>>,
    inbound_aliases: RefCell<Option<Box<InboundAliases>>>,
    outbound_aliases: RefCell<Option<Box<OutboundAliases>>>,
    dirty: Cell<bool>,
    /// What the client may do; `None`: everything, for nobody was asked who they are.
    pub(crate) access: RefCell<Option<Rc<Access>>>,
}

/// Why a connection is to be closed by the node.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub(crate) reason: ReasonCode,
    pub(crate) text: String,
}

impl Link {
    /// The connection of an accepted CONNECT.
    pub(crate) fn new(edge: &EdgeLoop, key: ConnectionKey, session: &Rc<Session>, connect: &Connect) -> Self {
        Self {
            key,
            session: Rc::clone(session),
            client_id: Rc::clone(&session.client_id),
            peer: Peer::of(connect),
            receive_maximum: connect.receive_maximum.get().min(edge.shared.settings.mqtt_inflight),
            topic_alias_maximum: connect.topic_alias_maximum,
            keep_alive: edge.shared.settings.mqtt_keep_alive(connect).unwrap_or(connect.keep_alive),
            heard: Cell::new(edge.uptime_ms()),
            paused: Cell::new(false),
            opening: Cell::new(true),
            out: RefCell::default(),
            waker: RefCell::default(),
            close: RefCell::default(),
            answers: RefCell::default(),
            deferred: RefCell::default(),
            inbound_aliases: RefCell::default(),
            outbound_aliases: RefCell::default(),
            dirty: Cell::new(false),
            access: RefCell::default(),
        }
    }

    /// What a subscription of the client with this filter gets.
    pub(crate) fn grant(&self, filter: &str) -> Grant {
        self.access.borrow().as_ref().map_or(Grant::Free, |access| access.grant(filter))
    }

    /// From here on every message is checked before it is written: the client has a filter that holds more than it may read.
    pub(crate) fn check_deliveries(&self) {
        if let Some(access) = &*self.access.borrow() {
            access.check_all();
        }
    }

    /// May the client publish to this topic?
    #[inline]
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        self.access.borrow().as_ref().is_none_or(|access| access.may_publish(topic))
    }

    /// Asks the connection's actor to say why and close.
    pub(crate) fn close(&self, reason: ReasonCode, text: impl Into<String>) {
        self.close.borrow_mut().get_or_insert_with(|| Box::new(Close { reason, text: text.into() }));
        self.wake();
    }

    /// Should the client's socket not be read now: too many of its PUBLISHes wait for their commit?
    pub(crate) fn is_pressed(&self, receive_maximum: u16) -> bool {
        let most = usize::from(receive_maximum);
        self.answers.borrow().len() >= most
            || self.deferred.borrow().as_ref().is_some_and(|waiting| waiting.len() >= most)
    }

    /// Does a PUBLISH wait for the disk before anything is done with it?
    pub(crate) fn is_deferring(&self) -> bool {
        self.deferred.borrow().as_ref().is_some_and(|waiting| waiting.len() > 0)
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Answers a PUBLISH of the client, and writes the PUBACKs and PUBRECs that are due. A PUBLISH with QoS 0 has no packet id
    /// and is not answered. `text` is the reason string, or empty.
    pub(crate) fn answer(&self, packet_id: Option<NonZeroU16>, reason: ReasonCode, text: &str) {
        let Some(packet_id) = packet_id else { return };
        self.remark(packet_id, text);
        let mut answers = self.answers.borrow_mut();
        answers.answer(packet_id, reason);
        let mut out = self.out.borrow_mut();
        while let Some(due) = answers.due() {
            if due.exactly_once {
                // 3.1.1 has no word for a refusal: there the exchange goes on.
                let refused = due.reason.is_error() && self.peer.version == Version::V5;
                self.session.on_pubrec_sent(&crate::edge::here(), due.id, refused);
                encode::pubrec(&mut out, &self.peer, due.id, due.reason, &due.remark);
            } else {
                encode::puback(&mut out, &self.peer, due.id, due.reason, &due.remark);
            }
        }
    }

    /// Adds to what the answer to a PUBLISH will say in words, where the client can read them.
    pub(crate) fn remark(&self, packet_id: NonZeroU16, text: &str) {
        if !text.is_empty() && self.peer.version == Version::V5 && self.peer.problem_info {
            self.answers.borrow_mut().remark(packet_id, text);
        }
    }

    /// The topic of a PUBLISH with a topic alias; `most` is what the CONNACK said.
    ///
    /// # Errors
    /// The alias is not allowed, or stands for nothing.
    pub(crate) fn resolve_alias(&self, alias: NonZeroU16, topic: &str, most: u16) -> Result<Rc<str>, CodecError> {
        self.inbound_aliases.borrow_mut().get_or_insert_default().resolve(alias, topic, most)
    }

    /// May a message of so many bytes be written? One of any size may into a socket that keeps up.
    pub(crate) fn has_room(&self, bytes: usize, outbound_bytes: usize) -> bool {
        let waiting = self.out.borrow().len();
        waiting == 0 || waiting + bytes <= outbound_bytes
    }

    /// Writes a message.
    ///
    /// # Errors
    /// It is above the client's maximum packet size, or of a topic that the client may not read.
    pub(crate) fn publish(
        &self,
        edge: &EdgeLoop,
        parcel: &Parcel,
        packet_id: Option<NonZeroU16>,
        dup: bool,
    ) -> Result<(), TooLarge> {
        let message = &parcel.message;
        if self.access.borrow().as_ref().is_some_and(|access| !access.may_deliver(&message.topic)) {
            auth::mqtt::delivery_denied(edge);
            return Err(TooLarge { bytes: message.payload.len(), limit: 0 });
        }
        let mut aliases = self.outbound_aliases.borrow_mut();
        if self.topic_alias_maximum > 0 {
            aliases.get_or_insert_with(|| Box::new(OutboundAliases::new(self.topic_alias_maximum)));
        }
        let spelling = aliases.as_ref().map_or(Spelling::Full, |aliases| aliases.spell(&message.topic));
        let (topic, topic_alias) = match spelling {
            Spelling::Full => (&*message.topic, None),
            Spelling::Given(alias) => (&*message.topic, Some(alias)),
            Spelling::Short(alias) => ("", Some(alias)),
        };
        let publish = OutgoingPublish {
            dup,
            qos: if packet_id.is_some() { parcel.qos } else { QoS::AtMostOnce },
            retain: parcel.retain,
            topic,
            packet_id,
            properties: &message.properties,
            message_expiry: message.seconds_left(|| edge.uptime_ms()),
            topic_alias,
            subscription_ids: parcel.subscription_ids.as_slice(),
            payload: &message.payload,
        };
        encode::publish(&mut self.out.borrow_mut(), &self.peer, &publish)?;
        if let Some(aliases) = aliases.as_mut() {
            aliases.written(&message.topic, spelling);
        }
        edge.shared.counters.mqtt_sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The connections of a loop.
#[derive(Default)]
pub(crate) struct Connections {
    links: Slab<Rc<Link>>,
    serial: u32,
    dirty: Vec<Rc<Link>>,
}

impl Connections {
    /// Adds a connection.
    pub(crate) fn add(&mut self, make: impl FnOnce(ConnectionKey) -> Link) -> Rc<Link> {
        self.serial = (self.serial + 1) & 0x7FFF_FFFF;
        let entry = self.links.vacant_entry();
        let key = u64::from(self.serial) << 32 | entry.key() as u64;
        Rc::clone(entry.insert(Rc::new(make(key))))
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, link: &Link) {
        if self.get(link.key).is_some() {
            self.links.remove((link.key & 0xFFFF_FFFF) as usize);
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
