//! The session of one connection: what each packet of the client means ([MQTT 3.1.1 and 5], section 3).
//!
//! This node takes QoS 0 and 1; a session ends with its connection. The session owns no socket: it writes into its connection's
//! [`Link`]. What a PUBLISH with readings comes to is decided in [`super::readings`].

use std::{rc::Rc, sync::atomic::Ordering};

use bytes::Bytes;
use smallvec::SmallVec;
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    connections::Link,
    encode,
    listener::{self, Greeting},
    packet::{Packet, Publish, QoS, Subscribe, SubscribeFilter, Unsubscribe, Version, Will},
    readings,
    reason::{CodecError, ReasonCode},
    router::{self, Message, Options},
    topics::Target,
};
use crate::{
    commands::{self, Ears},
    edge::EdgeLoop,
    shadow,
};

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The socket is gone.
    Lost,
    /// The client said goodbye.
    Left,
    /// The client did what it may not do.
    Refused(CodecError),
}

/// The state of one session.
pub(crate) struct Session {
    /// The device whose connection it is, if the client id can be a device's.
    device: Option<DeviceId>,
    filters: Vec<Box<str>>,
    will: Option<Box<Will>>,
    /// Its subscriptions that take commands.
    ears: Ears,
}

impl Session {
    pub(crate) fn new(edge: &EdgeLoop, greeting: &Greeting) -> Self {
        let device = listener::device_of(&greeting.connect.client_id);
        if let Some(device) = &device {
            edge.handle.connected(device, true);
        }
        let will = greeting.connect.will.clone().map(Box::new);
        Self { device, filters: Vec::new(), will, ears: Ears::default() }
    }

    /// The connection is over: subscriptions go, the will is published unless the client said goodbye.
    pub(crate) fn end(&mut self, edge: &Rc<EdgeLoop>, link: &Link) {
        for filter in self.filters.drain(..) {
            router::unsubscribe(edge, &filter, link.key);
        }
        if let Some(device) = &self.device {
            edge.handle.connected(device, false);
            if !self.ears.is_empty() {
                commands::left(edge, device, link.key);
            }
        }
        if let Some(will) = self.will.take() {
            let message = Message {
                topic: will.topic.into(),
                payload: will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: will.properties.into(),
                expiry: None,
                from: None,
                command: None,
            };
            router::publish(edge, message);
        }
    }

    /// The client said goodbye: no will ([MQTT-3.14.4-3]).
    pub(crate) fn left(&mut self) {
        self.will = None;
    }

    /// Should the client's socket not be read now: too many of its device's readings are under way?
    pub(crate) fn is_device_pressed(&self, edge: &EdgeLoop) -> bool {
        self.device.as_ref().is_some_and(|device| edge.handle.is_device_pressed(device))
    }

    /// Handles one packet.
    pub(crate) fn on_packet(&mut self, edge: &Rc<EdgeLoop>, link: &Rc<Link>, packet: Packet<'_>) -> Result<(), Stop> {
        match packet {
            Packet::Publish(publish) => self.on_publish(edge, link, &publish).map_err(Stop::Refused)?,
            Packet::Pingreq => encode::pingresp(&mut link.out.borrow_mut()),
            Packet::Puback(ack) => {
                let acked = link.acked(ack.packet_id).filter(|_| !ack.reason.is_error());
                if let Some(command) = acked.as_ref().and_then(|message| message.command.as_ref()) {
                    commands::acknowledged(edge, link.key, command);
                }
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(edge, link, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(edge, link, &unsubscribe),
            Packet::Disconnect(disconnect) => {
                // "Disconnect with will message" is a goodbye that keeps the will.
                return Err(if disconnect.reason == ReasonCode::DISCONNECT_WITH_WILL {
                    Stop::Lost
                } else {
                    Stop::Left
                });
            }
            Packet::Pubrec(_) | Packet::Pubrel(_) | Packet::Pubcomp(_) => {
                let detail = "a packet of the QoS 2 exchange, but this node sends and takes QoS 0 and 1 only";
                return Err(Stop::Refused(CodecError::protocol(detail)));
            }
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

    // ---- PUBLISH

    fn on_publish(&self, edge: &Rc<EdgeLoop>, link: &Rc<Link>, publish: &Publish<'_>) -> Result<(), CodecError> {
        edge.shared.counters.mqtt_received.fetch_add(1, Ordering::Relaxed);
        if publish.qos == QoS::ExactlyOnce {
            let detail = "QoS 2 is not offered (the CONNACK says Maximum QoS 1); publish with QoS 0 or 1";
            return Err(CodecError::new(ReasonCode::QOS_NOT_SUPPORTED, detail));
        }
        if publish.topic_alias().is_some() {
            let detail = "a topic alias, but the CONNACK allows none (Topic Alias Maximum 0)";
            return Err(CodecError::new(ReasonCode::TOPIC_ALIAS_INVALID, detail));
        }
        if publish.retain && link.peer.version == Version::V5 {
            let detail = "a retained message, but the CONNACK says Retain Available 0";
            return Err(CodecError::new(ReasonCode::RETAIN_NOT_SUPPORTED, detail));
        }
        if let Some(packet_id) = publish.packet_id {
            let mut unanswered = link.unanswered.borrow_mut();
            if unanswered.len() >= usize::from(limits::MQTT_RECEIVE_MAXIMUM) && link.peer.version == Version::V5 {
                let detail = format!("more than {} unacknowledged PUBLISHes", limits::MQTT_RECEIVE_MAXIMUM);
                return Err(CodecError::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, detail));
            }
            unanswered.push_back((packet_id, None));
        }
        let target = Target::of(publish.topic);
        if !target.is_consumed() && !edge.router.borrow().is_empty() {
            router::publish(edge, message_of(edge, link, publish));
        }
        match target {
            Target::Reading(device, channel) => {
                readings::take(edge, link, publish, (device, self.device.as_ref()), channel);
            }
            Target::Reply(reply) => commands::take_reply(edge, link, publish, reply, self.device.as_ref()),
            Target::Shadow(device, verb) => shadow::messages::take(edge, link, publish, device, verb),
            Target::Plain => link.answer(publish.packet_id, ReasonCode::SUCCESS, ""),
        }
        Ok(())
    }

    // ---- SUBSCRIBE, UNSUBSCRIBE

    fn on_subscribe(&mut self, edge: &Rc<EdgeLoop>, link: &Rc<Link>, subscribe: Subscribe) {
        let Subscribe { packet_id, subscription_id, filters } = subscribe;
        let mut codes = SmallVec::<[ReasonCode; 4]>::new();
        let mut new = Vec::new();
        let mut text = String::new();
        let mut hears = false;
        let most = edge.shared.settings.mqtt_subscriptions;
        for filter in filters {
            if filter.filter.starts_with("$share/") {
                text = "shared subscriptions are not offered".to_owned();
                codes.push(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
                continue;
            }
            let known = self.filters.iter().any(|own| **own == filter.filter);
            // Known here is not yet known everywhere while an announcement is on its way.
            let announcing = edge.announcements.are_under_way();
            if !known && self.filters.len() >= most {
                text = format!("limit mqtt.limits.subscriptions: {most} a connection");
                tracing::warn!(client = %link.client_id, filter = filter.filter, "refused a subscription: {text}");
                codes.push(ReasonCode::QUOTA_EXCEEDED);
                continue;
            }
            let granted = filter.qos.min(QoS::AtLeastOnce);
            let device = self.device.as_ref();
            hears |= device.is_some_and(|device| self.ears.subscribed(device, &filter.filter, granted));
            if router::subscribe(edge, &filter.filter, link.key, options(&filter, granted, subscription_id))
                || announcing
            {
                new.push(Box::from(filter.filter.as_str()));
            }
            if !known {
                self.filters.push(filter.filter.into());
            }
            codes.push(if granted == QoS::AtMostOnce { ReasonCode::SUCCESS } else { ReasonCode::GRANTED_QOS_1 });
        }
        let link = Rc::clone(link);
        let listening = self.device.clone().filter(|_| hears).map(|device| (device, self.ears.listening()));
        let home = Rc::clone(edge);
        router::announce(edge, new, true, move || {
            encode::suback(&mut link.out.borrow_mut(), &link.peer, packet_id, &codes, &text);
            link.wake();
            // Commands that wait go out behind the SUBACK.
            if let Some((device, listening)) = listening {
                commands::listens(&home, &device, link.key, listening);
            }
        });
    }

    fn on_unsubscribe(&mut self, edge: &Rc<EdgeLoop>, link: &Link, unsubscribe: &Unsubscribe) {
        let mut codes = SmallVec::<[ReasonCode; 4]>::new();
        let mut hears = false;
        for filter in &unsubscribe.filters {
            self.filters.retain(|own| **own != **filter);
            hears |= self.ears.unsubscribed(filter);
            let existed = router::unsubscribe(edge, filter, link.key);
            codes.push(if existed { ReasonCode::SUCCESS } else { ReasonCode::NO_SUBSCRIPTION_EXISTED });
        }
        if let Some(device) = self.device.as_ref().filter(|_| hears) {
            if self.ears.is_empty() {
                commands::left(edge, device, link.key);
            } else {
                commands::listens(edge, device, link.key, self.ears.listening());
            }
        }
        encode::unsuback(&mut link.out.borrow_mut(), &link.peer, unsubscribe.packet_id, &codes, "");
    }
}

fn options(filter: &SubscribeFilter, qos: QoS, subscription_id: Option<std::num::NonZeroU32>) -> Options {
    Options {
        qos,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        subscription_id: subscription_id.into_iter().collect(),
    }
}

fn message_of(edge: &EdgeLoop, link: &Link, publish: &Publish<'_>) -> Message {
    Message {
        topic: publish.topic.into(),
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        properties: publish.forwarded_properties().into(),
        expiry: publish.message_expiry(),
        from: Some((edge.handle.id(), link.key)),
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
