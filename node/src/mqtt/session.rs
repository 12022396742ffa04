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
    auth::{self, Grant},
    edge::EdgeLoop,
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
}

impl Session {
    pub(crate) fn new(edge: &EdgeLoop, greeting: &Greeting, link: &Link) -> Self {
        let device = match &*link.access.borrow() {
            None => listener::device_of(&greeting.connect.client_id),
            Some(access) => access.device().cloned(),
        };
        if let Some(device) = &device {
            edge.handle.connected(device, true);
        }
        Self { device, filters: Vec::new(), will: greeting.connect.will.clone().map(Box::new) }
    }

    /// The connection is over: subscriptions go, the will is published unless the client said goodbye.
    pub(crate) fn end(&mut self, edge: &Rc<EdgeLoop>, link: &Link) {
        for filter in self.filters.drain(..) {
            router::unsubscribe(edge, &filter, link.key);
        }
        if let Some(device) = &self.device {
            edge.handle.connected(device, false);
        }
        if let Some(will) = self.will.take().filter(|will| link.may_publish(&will.topic)) {
            let message = Message {
                topic: will.topic.into(),
                payload: will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: will.properties.into(),
                expiry: None,
                from: None,
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
            Packet::Puback(ack) => link.acked(ack.packet_id),
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

    fn on_publish(&self, edge: &EdgeLoop, link: &Rc<Link>, publish: &Publish<'_>) -> Result<(), CodecError> {
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
        if !link.may_publish(publish.topic) {
            auth::mqtt::answer_denied(edge, link, publish.packet_id, publish.topic);
            return Ok(());
        }
        if !edge.router.borrow().is_empty() && !auth::mqtt::is_for_the_node(link, publish.topic) {
            router::publish(edge, message_of(edge, link, publish));
        }
        match Target::of(publish.topic) {
            Target::Reading(device, channel) => {
                readings::take(edge, link, publish, (device, self.device.as_ref()), channel);
            }
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
        let most = edge.shared.settings.mqtt_subscriptions;
        for filter in filters {
            if filter.filter.starts_with("$share/") {
                text = "shared subscriptions are not offered".to_owned();
                codes.push(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
                continue;
            }
            let grant = link.grant(&filter.filter);
            if grant == Grant::Denied {
                text = "not a filter that this user may subscribe to".to_owned();
                codes.push(auth::mqtt::subscription_denied(edge, link, &filter.filter));
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
            if router::subscribe(edge, &filter.filter, link.key, options(&filter, granted, subscription_id, grant))
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
        router::announce(edge, new, true, move || {
            encode::suback(&mut link.out.borrow_mut(), &link.peer, packet_id, &codes, &text);
            link.wake();
        });
    }

    fn on_unsubscribe(&mut self, edge: &Rc<EdgeLoop>, link: &Link, unsubscribe: &Unsubscribe) {
        let mut codes = SmallVec::<[ReasonCode; 4]>::new();
        for filter in &unsubscribe.filters {
            self.filters.retain(|own| **own != **filter);
            let existed = router::unsubscribe(edge, filter, link.key);
            codes.push(if existed { ReasonCode::SUCCESS } else { ReasonCode::NO_SUBSCRIPTION_EXISTED });
        }
        encode::unsuback(&mut link.out.borrow_mut(), &link.peer, unsubscribe.packet_id, &codes, "");
    }
}

fn options(filter: &SubscribeFilter, qos: QoS, subscription_id: Option<std::num::NonZeroU32>, grant: Grant) -> Options {
    Options {
        qos,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        checked: grant == Grant::Checked,
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
