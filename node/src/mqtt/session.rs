//! A session: what the node remembers of a client ([MQTT 3.1.1 and 5], section 4.1), and what each of its packets means.
//!
//! It outlives its connection if the client asked for that. It owns no socket: while its client is connected it writes into the
//! connection's [`Link`]. When sessions begin and end is [`super::sessions`]' business, what goes to the client is
//! [`super::delivery`]'s, what a PUBLISH with readings comes to is [`super::readings`]'.

use std::{
    cell::{Cell, RefCell},
    num::{NonZeroU16, NonZeroU32},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    announcements, changed,
    connections::Link,
    deferred::{Deferred, Name, Owned},
    encode,
    incoming::{Arrival, Incoming},
    keeping,
    outgoing::Outgoing,
    packet::{
        Ack, Disconnect, Packet, Publish, QoS, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, Version, Will,
    },
    readings,
    reason::{CodecError, ReasonCode},
    replay, retaining,
    router::{self, Again, Message},
    stored, sys, topic,
    topics::Target,
};
use crate::{
    auth::{self, Grant},
    commands::{self, Listening},
    edge::EdgeLoop,
    shadow,
};

/// Names a session on its loop; never reused.
pub(crate) type SessionKey = u64;

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The socket is gone.
    Lost,
    /// The client said goodbye.
    Left,
    /// The client did what it may not do.
    Refused(CodecError),
}

/// The state of one session. What few sessions have is boxed: an idle one is small.
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) client_id: Rc<str>,
    /// Who began it, if the node knows its clients: nobody else gets it.
    pub(crate) principal: Option<Arc<str>>,
    /// The device whose session it is: the client's, by its credential, or by its client id if nobody is asked.
    pub(crate) device: RefCell<Option<DeviceId>>,
    /// Seconds that it outlives its connection; 0: it ends with it, and nothing of it is stored.
    pub(crate) expiry: Cell<u32>,
    /// Is there a stored pair of it?
    pub(crate) kept: Cell<bool>,
    /// Its connection, while there is one.
    pub(crate) link: RefCell<Option<Rc<Link>>>,
    pub(crate) subscriptions: RefCell<HashMap<Box<str>, Subscription>>,
    /// Bytes of their filters.
    pub(crate) filter_bytes: Cell<usize>,
    pub(crate) will: RefCell<Option<Box<Will>>>,
    pub(crate) outgoing: RefCell<Option<Box<Outgoing>>>,
    pub(crate) incoming: RefCell<Option<Box<Incoming>>>,
    /// When its will is published and when it ends, in milliseconds of uptime, while it has no connection.
    pub(crate) deadlines: Cell<Deadlines>,
}

/// See [`Session::deadlines`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) will: Option<u64>,
    pub(crate) end: Option<u64>,
}

/// The options of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<NonZeroU32>,
}

impl Session {
    /// A session without a key, a device or anything in it.
    #[cfg(test)]
    pub(crate) fn for_test(client_id: &str, principal: Option<&str>, expiry: u32) -> Self {
        Self {
            key: 0,
            client_id: client_id.into(),
            principal: principal.map(Arc::from),
            device: RefCell::default(),
            expiry: Cell::new(expiry),
            kept: Cell::new(false),
            link: RefCell::default(),
            subscriptions: RefCell::default(),
            filter_bytes: Cell::new(0),
            will: RefCell::default(),
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            deadlines: Cell::default(),
        }
    }

    /// Does it outlive its connection?
    pub(crate) fn is_stored(&self) -> bool {
        self.expiry.get() > 0
    }

    /// Its connection, once the CONNACK is written.
    pub(crate) fn live_link(&self) -> Option<Rc<Link>> {
        self.link.borrow().as_ref().filter(|link| !link.opening.get()).cloned()
    }

    /// Is this its connection?
    pub(crate) fn is_linked_to(&self, link: &Link) -> bool {
        self.link.borrow().as_ref().is_some_and(|own| own.key == link.key)
    }

    /// Should the client's socket not be read now: too many of its device's readings are under way?
    pub(crate) fn is_device_pressed(&self, edge: &EdgeLoop) -> bool {
        self.device.borrow().as_ref().is_some_and(|device| edge.handle.is_device_pressed(device))
    }

    /// Handles one packet that came over `link`.
    pub(crate) fn on_packet(
        self: &Rc<Self>,
        edge: &Rc<EdgeLoop>,
        link: &Rc<Link>,
        packet: Packet<'_>,
    ) -> Result<(), Stop> {
        match packet {
            Packet::Publish(publish) => self.on_publish(edge, link, &publish).map_err(Stop::Refused)?,
            Packet::Pingreq => encode::pingresp(&mut link.out.borrow_mut()),
            Packet::Puback(ack) => self.acked(edge, link, ack.packet_id, !ack.reason.is_error()),
            Packet::Pubrec(ack) => self.on_pubrec(edge, link, ack),
            Packet::Pubcomp(ack) => self.acked(edge, link, ack.packet_id, true),
            Packet::Pubrel(ack) => self.on_pubrel(edge, link, ack),
            Packet::Subscribe(subscribe) => self.on_subscribe(edge, link, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(edge, link, &unsubscribe),
            Packet::Disconnect(disconnect) => return Err(self.on_disconnect(edge, disconnect)),
            Packet::Auth(_) => {
                let detail = "AUTH, but the CONNECT named no authentication method [MQTT-4.12.0-1]";
                return Err(Stop::Refused(CodecError::protocol(detail)));
            }
            Packet::Connect(_) => {
                return Err(Stop::Refused(CodecError::protocol("a second CONNECT on one connection [MQTT-3.1.0-2]")));
            }
        }
        Ok(())
    }

    fn on_disconnect(&self, edge: &EdgeLoop, disconnect: Disconnect) -> Stop {
        if let Some(expiry) = disconnect.session_expiry {
            if expiry > 0 && !self.is_stored() {
                let detail = "the DISCONNECT asks for a session expiry, but the CONNECT had none [MQTT-3.14.2-2]";
                return Stop::Refused(CodecError::protocol(detail));
            }
            // One that is now 0 is still stored until its connection has ended; then everything of it is forgotten.
            self.expiry.set(if expiry == 0 { 0 } else { edge.shared.settings.mqtt_session_expiry(expiry) });
        }
        // Only a goodbye without a complaint takes the will along ([MQTT-3.1.2-8]).
        if disconnect.reason != ReasonCode::SUCCESS {
            return Stop::Lost;
        }
        self.will.take();
        Stop::Left
    }

    // ---- PUBLISH

    fn on_publish(
        self: &Rc<Self>,
        edge: &Rc<EdgeLoop>,
        link: &Rc<Link>,
        publish: &Publish<'_>,
    ) -> Result<(), CodecError> {
        edge.shared.counters.mqtt_received.fetch_add(1, Ordering::Relaxed);
        let Some(alias) = publish.topic_alias() else { return self.on_message(edge, link, publish) };
        let topic = link.resolve_alias(alias, publish.topic, edge.shared.settings.mqtt_topic_aliases)?;
        self.on_message(edge, link, &Publish { topic: &topic, ..*publish })
    }

    fn on_message(
        self: &Rc<Self>,
        edge: &Rc<EdgeLoop>,
        link: &Rc<Link>,
        publish: &Publish<'_>,
    ) -> Result<(), CodecError> {
        let mut name = Name::default();
        if let Some(id) = publish.packet_id {
            let exactly_once = publish.qos == QoS::ExactlyOnce;
            if exactly_once {
                match self.arrive(edge, link, publish)? {
                    Arrival::New { origin } => name.origin = origin,
                    Arrival::Unsure { origin, routed: true } => name = Name { origin, again: Again::SinceTheStart },
                    Arrival::Unsure { origin, routed: false } => name = Name { origin, again: Again::BeforeACrash },
                    Arrival::UnderWay => return Ok(()),
                    Arrival::Again => {
                        link.answers.borrow_mut().expect(id, true);
                        link.answer(Some(id), ReasonCode::SUCCESS, "");
                        return Ok(());
                    }
                }
            } else {
                self.check_receive_maximum(edge, link)?;
            }
            link.answers.borrow_mut().expect(id, exactly_once);
        }
        let held = name.origin != 0 && self.concerns_others(edge, publish);
        if held || link.is_deferring() {
            self.defer(edge, link, Owned::new(publish, name), held);
        } else {
            self.pass_on(edge, link, publish, name);
        }
        Ok(())
    }

    /// Hands a message to whom it is for.
    fn pass_on(&self, edge: &Rc<EdgeLoop>, link: &Rc<Link>, publish: &Publish<'_>, name: Name) {
        if !link.may_publish(publish.topic) {
            return auth::mqtt::answer_denied(edge, link, publish.packet_id, publish.topic);
        }
        if let Err((reason, text)) = self.may_publish(link, publish) {
            link.answer(publish.packet_id, reason, text);
            return;
        }
        let target = Target::of(publish.topic);
        let is_for_node = target.is_consumed() || auth::mqtt::is_for_the_node(link, publish.topic);
        if !is_for_node && (publish.retain || !edge.router.borrow().is_empty()) {
            let message = Message { origin: name.origin, again: name.again, ..message_of(edge, link, publish) };
            if publish.retain
                && link.peer.version == Version::V5
                && let Err(full) = retaining::check(edge, &message)
            {
                let text = full.to_string();
                if target == Target::Plain {
                    retaining::refused(edge, &message.topic, full);
                    link.answer(publish.packet_id, ReasonCode::QUOTA_EXCEEDED, &text);
                    return;
                }
                // A reading is taken all the same.
                publish.packet_id.into_iter().for_each(|id| link.remark(id, &text));
            }
            let wants_receipt = publish.packet_id.map(|id| (link.key, id));
            if router::publish(edge, message, wants_receipt)
                && let Some(id) = publish.packet_id
            {
                link.answers.borrow_mut().expect_more(id);
            }
        }
        match target {
            Target::Reading(device, channel) => {
                readings::take(edge, link, publish, (device, self.device.borrow().as_ref()), channel, name.origin);
            }
            Target::Reply(reply) => commands::take_reply(edge, link, publish, reply, self.device.borrow().as_ref()),
            Target::Shadow(device, verb) => shadow::messages::take(edge, link, publish, device, verb),
            Target::Plain => link.answer(publish.packet_id, ReasonCode::SUCCESS, ""),
        }
    }

    /// The node alone speaks under `$SYS`. MQTT 3.1.1 has no word for that.
    fn may_publish(&self, link: &Link, publish: &Publish<'_>) -> Result<(), (ReasonCode, &'static str)> {
        if !publish.topic.starts_with(sys::ROOT) {
            return Ok(());
        }
        let text = "topics that begin with $SYS are the node's own";
        tracing::warn!(client = %self.client_id, topic = publish.topic, "refused a message: {text}");
        Err((if link.peer.version == Version::V5 { ReasonCode::NOT_AUTHORIZED } else { ReasonCode::SUCCESS }, text))
    }

    /// Can a message become durable on another loop, and so before its packet id is on this one?
    fn concerns_others(&self, edge: &EdgeLoop, publish: &Publish<'_>) -> bool {
        let me = edge.handle.id();
        let is_for_others = match Target::of(publish.topic) {
            Target::Reading(Some(device), _) | Target::Shadow(device, _) => edge.handle.owner_of(device) != me,
            Target::Reading(None, _) | Target::Reply(_) => {
                self.device.borrow().as_ref().is_some_and(|device| edge.handle.owner_of(device.as_str()) != me)
            }
            Target::Plain => false,
        };
        is_for_others || edge.others().any(|id| edge.shared.stored_sessions.are_on(id))
    }

    /// Lets a PUBLISH wait for the disk, or behind one that does.
    fn defer(self: &Rc<Self>, edge: &Rc<EdgeLoop>, link: &Rc<Link>, publish: Owned, held: bool) {
        link.deferred.borrow_mut().get_or_insert_default().push(publish, !held);
        if !held {
            return;
        }
        let (session, edge_then, link) = (Rc::clone(self), Rc::clone(edge), Rc::clone(link));
        keeping::when_durable(edge, move || {
            if let Some(deferred) = link.deferred.borrow_mut().as_deref_mut() {
                deferred.durable();
            }
            // The messages were taken from their client, whether or not he is still there.
            loop {
                let next = link.deferred.borrow_mut().as_deref_mut().and_then(Deferred::next);
                let Some(next) = next else { break };
                session.pass_on(&edge_then, &link, &next.publish(), next.name);
            }
            if !link.is_deferring() {
                link.deferred.take();
            }
            link.wake();
        });
    }

    /// MQTT 5 clients know how many of their PUBLISHes may be unanswered, and 3.1.1 clients are not read meanwhile; but a
    /// PUBREL comes over the socket that would not be read, so exchanges that wait for theirs are bounded for both.
    fn check_receive_maximum(&self, edge: &EdgeLoop, link: &Link) -> Result<(), CodecError> {
        let most = usize::from(edge.shared.settings.mqtt_receive_maximum);
        let awaiting = self.incoming.borrow().as_ref().map_or(0, |incoming| incoming.awaiting_release());
        let unanswered = link.answers.borrow().len();
        let counted = if link.peer.version == Version::V5 { unanswered + awaiting } else { awaiting };
        if counted < most {
            return Ok(());
        }
        let detail = format!("more than {most} PUBLISHes that are not done (limit mqtt.limits.receive_maximum)");
        Err(CodecError::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, detail))
    }

    fn arrive(&self, edge: &EdgeLoop, link: &Link, publish: &Publish<'_>) -> Result<Arrival, CodecError> {
        let Some(id) = publish.packet_id else { return Ok(Arrival::New { origin: 0 }) };
        let is_known = self.incoming.borrow().as_ref().is_some_and(|incoming| incoming.has(id));
        if !is_known {
            self.check_receive_maximum(edge, link)?;
        }
        let origin = if self.is_stored() { edge.next_origin() } else { 0 };
        let mut incoming = self.incoming.borrow_mut();
        let arrival = incoming.get_or_insert_default().arrive(id, publish.dup, link.key, origin);
        if let Arrival::New { origin } = arrival {
            // Before the message itself, and so durable no later: it cannot come again unknown.
            keeping::incoming(edge, self, id, stored::Incoming { origin, routed: false, received: false });
        }
        Ok(arrival)
    }

    /// A message with QoS 2 is where it belongs, or is refused: its PUBREC goes out now.
    pub(crate) fn on_pubrec_sent(&self, edge: &EdgeLoop, id: NonZeroU16, refused: bool) {
        let mut incoming = self.incoming.borrow_mut();
        let Some(exchanges) = incoming.as_deref_mut() else { return };
        if refused {
            exchanges.release(id);
            keeping::forget_incoming(edge, self, id);
        } else if let Some(exchange) = exchanges.received(id) {
            let origin = exchange.origin;
            keeping::incoming(edge, self, id, stored::Incoming { origin, routed: true, received: true });
        }
    }

    /// Every stored session that was to have a message has it. If that does not answer it, because its reading is not durable yet,
    /// it is remembered: sent again after a crash, nobody is to get it again. `failed`: one of them does not have it.
    pub(crate) fn on_receipt(&self, edge: &EdgeLoop, id: NonZeroU16, failed: bool) {
        let mut incoming = self.incoming.borrow_mut();
        let Some(exchange) = incoming.as_deref_mut().and_then(|incoming| incoming.get_mut(id)) else { return };
        exchange.routed &= !failed;
        if !exchange.received && !failed {
            let origin = exchange.origin;
            keeping::incoming(edge, self, id, stored::Incoming { origin, routed: true, received: false });
        }
    }

    fn on_pubrel(self: &Rc<Self>, edge: &Rc<EdgeLoop>, link: &Rc<Link>, ack: Ack) {
        let mut incoming = self.incoming.borrow_mut();
        let known = incoming.as_deref_mut().is_some_and(|incoming| incoming.release(ack.packet_id));
        if incoming.as_deref().is_some_and(Incoming::is_empty) {
            *incoming = None;
        }
        let reason = if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_ID_NOT_FOUND };
        if !known || !self.is_stored() {
            encode::pubcomp(&mut link.out.borrow_mut(), &link.peer, ack.packet_id, reason);
            return;
        }
        // A client that has seen the PUBCOMP uses the id again: the old exchange must not come back after a crash.
        keeping::forget_incoming(edge, self, ack.packet_id);
        let link = Rc::clone(link);
        keeping::when_durable(edge, move || {
            encode::pubcomp(&mut link.out.borrow_mut(), &link.peer, ack.packet_id, reason);
            link.wake();
        });
    }

    // ---- SUBSCRIBE, UNSUBSCRIBE

    fn on_subscribe(self: &Rc<Self>, edge: &Rc<EdgeLoop>, link: &Rc<Link>, subscribe: Subscribe) {
        let Subscribe { packet_id, subscription_id, filters } = subscribe;
        let mut codes = SmallVec::<[ReasonCode; 4]>::new();
        let (mut new, mut retained) = (Vec::new(), SmallVec::<[(Box<str>, Subscription); 1]>::new());
        let mut text = String::new();
        let mut hears = false;
        for filter in filters {
            match link.grant(&filter.filter) {
                Grant::Free => {}
                Grant::Checked => link.check_deliveries(),
                Grant::Denied => {
                    text = "not a filter that this user may subscribe to".to_owned();
                    codes.push(auth::mqtt::subscription_denied(edge, link, &filter.filter));
                    continue;
                }
            }
            let granted = subscription(&filter, subscription_id);
            if let Err(refused) = self.may_subscribe(edge, &filter.filter) {
                tracing::warn!(client = %link.client_id, filter = filter.filter, "refused a subscription: {refused}");
                text = refused;
                codes.push(ReasonCode::QUOTA_EXCEEDED);
                continue;
            }
            let (is_new, change) = router::subscribe(edge, &filter.filter, self, granted);
            new.extend(change);
            let wants_retained = match filter.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::IfNew => is_new,
                RetainHandling::Never => false,
            };
            if wants_retained && topic::split_share(&filter.filter).is_none() {
                retained.push((Box::from(filter.filter.as_str()), granted));
            }
            hears |= self.device.borrow().as_ref().is_some_and(|device| Listening::concerns(device, &filter.filter));
            let bytes = filter.filter.len();
            if self.subscriptions.borrow_mut().insert(filter.filter.into(), granted).is_none() {
                self.filter_bytes.set(self.filter_bytes.get() + bytes);
            }
            codes.push(ReasonCode(granted.qos as u8));
        }
        let stored = self.is_stored() && codes.iter().any(|code| !code.is_error());
        let (session, link, edge_then) = (Rc::clone(self), Rc::clone(link), Rc::clone(edge));
        announcements::announce(edge, new, move || {
            let edge = Rc::clone(&edge_then);
            let answer = move || {
                encode::suback(&mut link.out.borrow_mut(), &link.peer, packet_id, &codes, &text);
                replay::begin_all(&edge, &link, &retained);
                link.wake();
                // Commands that wait go out behind the SUBACK.
                if hears && link.session.is_linked_to(&link) {
                    commands::listens(&edge, &link.session);
                }
            };
            if stored { changed::answer_when_kept(&edge_then, &session, answer) } else { answer() }
        });
    }

    /// A known filter may always come again.
    fn may_subscribe(&self, edge: &EdgeLoop, filter: &str) -> Result<(), String> {
        let subscriptions = self.subscriptions.borrow();
        if subscriptions.contains_key(filter) {
            return Ok(());
        }
        let most = edge.shared.settings.mqtt_subscriptions;
        if subscriptions.len() >= most {
            return Err(format!("limit mqtt.limits.subscriptions: {most} a session"));
        }
        let most = edge.shared.settings.mqtt_subscriptions_total;
        if edge.shared.subscriptions.load(Ordering::Relaxed) >= most {
            return Err(format!("limit mqtt.limits.subscriptions_total: {most} of all sessions"));
        }
        let most = limits::MQTT_SUBSCRIPTION_BYTES;
        if self.is_stored() && self.filter_bytes.get() + filter.len() > most {
            return Err(format!(
                "limit mqtt_subscription_bytes: the filters of a stored session have at most {most} bytes"
            ));
        }
        Ok(())
    }

    fn on_unsubscribe(self: &Rc<Self>, edge: &Rc<EdgeLoop>, link: &Rc<Link>, unsubscribe: &Unsubscribe) {
        let mut codes = SmallVec::<[ReasonCode; 4]>::new();
        let mut hears = false;
        for filter in &unsubscribe.filters {
            hears |= self.device.borrow().as_ref().is_some_and(|device| Listening::concerns(device, filter));
            if self.subscriptions.borrow_mut().remove(filter.as_str()).is_some() {
                self.filter_bytes.set(self.filter_bytes.get() - filter.len());
            }
            let existed = router::unsubscribe(edge, filter, self.key);
            replay::stop(edge, self.key, Some(filter));
            codes.push(if existed { ReasonCode::SUCCESS } else { ReasonCode::NO_SUBSCRIPTION_EXISTED });
        }
        if hears {
            commands::listens(edge, self);
        }
        let packet_id = unsubscribe.packet_id;
        let link = Rc::clone(link);
        let answer = move || {
            encode::unsuback(&mut link.out.borrow_mut(), &link.peer, packet_id, &codes, "");
            link.wake();
        };
        if self.is_stored() { changed::answer_when_kept(edge, self, answer) } else { answer() }
    }
}

fn subscription(filter: &SubscribeFilter, id: Option<NonZeroU32>) -> Subscription {
    Subscription { qos: filter.qos, no_local: filter.no_local, retain_as_published: filter.retain_as_published, id }
}

fn message_of(edge: &EdgeLoop, link: &Link, publish: &Publish<'_>) -> Message {
    Message {
        topic: publish.topic.into(),
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        properties: publish.forwarded_properties().into(),
        deadline: publish.message_expiry().map(|seconds| edge.uptime_ms() + u64::from(seconds) * 1_000),
        from: Some((edge.handle.id(), link.session.key)),
        origin: 0,
        again: Again::No,
        command: None,
    }
}

/// Closes the connections that fell silent ([MQTT-3.1.2-22]: one and a half times the keep alive). Runs once a second.
pub(crate) fn sweep(edge: &EdgeLoop) {
    let now = edge.uptime_ms();
    for link in edge.connections.borrow().iter().filter(|link| link.keep_alive > 0) {
        if link.paused.get() {
            // What it sent meanwhile is still in its socket.
            link.heard.set(now);
            continue;
        }
        let allowed = u64::from(link.keep_alive) * 1_500;
        if now.saturating_sub(link.heard.get()) > allowed {
            link.close(ReasonCode::KEEP_ALIVE_TIMEOUT, format!("nothing heard for {allowed} ms (1.5 × keep alive)"));
        }
    }
}
