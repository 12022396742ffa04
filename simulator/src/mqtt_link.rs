//! One MQTT connection, of either version, behind rumqttc: what goes out, and the few events that a device cares about.
//! A link is used for one connection only: a device that reconnects opens a new one and decides itself what to send again.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use rumqttc::{Outgoing, v5};

use crate::config::{Ack, MqttVersion, SwarmConfig};

/// Keep-alive that the devices ask for.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Time to open the connection and get its CONNACK, in seconds.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Events that a link makes room for at first, instead of rumqttc's 100: the ring fills in the long run, and with thousands
/// of links it is a third of their memory.
const EVENTS: usize = 4;

/// What happened on a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// The CONNACK is here.
    Connected,
    /// The next of the messages in turn is written. Its packet identifier; 0 with QoS 0.
    Written(u16),
    /// A PUBACK: the packet identifier, and the reason if it is a refusal (MQTT 5).
    Acked(u16, Option<&'static str>),
    /// The DISCONNECT is written.
    Disconnected,
    /// Nothing that matters here.
    Other,
}

/// Why a link ended, in words that do not vary from device to device.
#[derive(Debug)]
pub(crate) struct LinkError(pub(crate) String);

/// The half that sends.
pub(crate) enum Publisher {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The half that is polled.
pub(crate) enum Link {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Makes a link; polling it connects.
pub(crate) fn open(config: &SwarmConfig, target: SocketAddr, client_id: &str) -> (Publisher, Link) {
    // rumqttc joins host and port with a colon, so an IPv6 address needs its brackets here.
    let host = if target.is_ipv6() { format!("[{}]", target.ip()) } else { target.ip().to_string() };
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    // Room for every message that may be unacknowledged, so that `publish` never finds it full.
    let capacity = usize::from(config.inflight);
    match config.mqtt_version {
        MqttVersion::V311 => {
            let mut options = rumqttc::MqttOptions::new(client_id, host, target.port());
            options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_inflight(config.inflight);
            if let Some((name, password)) = &config.credentials {
                options.set_credentials(name, password);
            }
            network.set_connection_timeout(CONNECT_TIMEOUT_S);
            let (client, mut events) = rumqttc::AsyncClient::new(options, capacity);
            events.set_network_options(network);
            events.state.events.shrink_to(EVENTS);
            (Publisher::V311(client), Link::V311(Box::new(events)))
        }
        MqttVersion::V5 => {
            let mut options = v5::MqttOptions::new(client_id, host, target.port());
            options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_connection_timeout(CONNECT_TIMEOUT_S);
            options.set_outgoing_inflight_upper_limit(config.inflight);
            options.set_network_options(network);
            if let Some((name, password)) = &config.credentials {
                options.set_credentials(name, password);
            }
            let (client, mut events) = v5::AsyncClient::new(options, capacity);
            events.state.events.shrink_to(EVENTS);
            (Publisher::V5(client), Link::V5(Box::new(events)))
        }
    }
}

impl Publisher {
    /// Hands a message over, to be written when the link is polled next. False when the link is full or gone.
    pub(crate) fn publish(&self, topic: &str, ack: Ack, payload: Bytes) -> bool {
        match self {
            Self::V311(client) => {
                let qos = if ack == Ack::Committed { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
            Self::V5(client) => {
                let qos = match ack {
                    Ack::Committed => v5::mqttbytes::QoS::AtLeastOnce,
                    Ack::Received => v5::mqttbytes::QoS::AtMostOnce,
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
        }
    }

    /// Asks for a DISCONNECT. False when the link is full or gone.
    pub(crate) fn disconnect(&self) -> bool {
        match self {
            Self::V311(client) => client.try_disconnect().is_ok(),
            Self::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Link {
    /// The next event. To be awaited to its end: a call that is dropped midway may lose the connection attempt.
    pub(crate) async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        match self {
            Self::V311(events) => Ok(match events.poll().await.map_err(|error| LinkError(reason_v311(&error)))? {
                rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_)) => LinkEvent::Connected,
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(ack)) => LinkEvent::Acked(ack.pkid, None),
                rumqttc::Event::Outgoing(Outgoing::Publish(id)) => LinkEvent::Written(id),
                rumqttc::Event::Outgoing(Outgoing::Disconnect) => LinkEvent::Disconnected,
                _ => LinkEvent::Other,
            }),
            Self::V5(events) => Ok(match events.poll().await.map_err(|error| LinkError(reason_v5(&error)))? {
                v5::Event::Incoming(v5::mqttbytes::v5::Packet::ConnAck(_)) => LinkEvent::Connected,
                v5::Event::Incoming(v5::mqttbytes::v5::Packet::PubAck(ack)) => {
                    LinkEvent::Acked(ack.pkid, refusal(ack.reason))
                }
                v5::Event::Outgoing(Outgoing::Publish(id)) => LinkEvent::Written(id),
                v5::Event::Outgoing(Outgoing::Disconnect) => LinkEvent::Disconnected,
                _ => LinkEvent::Other,
            }),
        }
    }
}

/// The PUBACK reason codes of MQTT 5, section 3.4.2.1, that refuse.
fn refusal(reason: v5::mqttbytes::v5::PubAckReason) -> Option<&'static str> {
    use v5::mqttbytes::v5::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => None,
        Reason::UnspecifiedError => Some("puback 0x80 unspecified error"),
        Reason::ImplementationSpecificError => Some("puback 0x83 implementation specific error"),
        Reason::NotAuthorized => Some("puback 0x87 not authorized"),
        Reason::TopicNameInvalid => Some("puback 0x90 topic name invalid"),
        Reason::PacketIdentifierInUse => Some("puback 0x91 packet identifier in use"),
        Reason::QuotaExceeded => Some("puback 0x97 quota exceeded"),
        Reason::PayloadFormatInvalid => Some("puback 0x99 payload format invalid"),
    }
}

fn reason_v311(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectionError as E, StateError};
    match error {
        E::Io(error) | E::MqttState(StateError::Io(error)) => error.to_string(),
        E::ConnectionRefused(code) => format!("connack {code:?}"),
        E::NetworkTimeout => "no connack in time".to_owned(),
        E::MqttState(StateError::Deserialization(rumqttc::mqttbytes::Error::Io(error))) => error.to_string(),
        E::MqttState(error) => error.to_string(),
        E::NotConnAck(_) => "the first packet was no connack".to_owned(),
        other => other.to_string(),
    }
}

fn reason_v5(error: &v5::ConnectionError) -> String {
    use v5::{ConnectionError as E, StateError};
    match error {
        E::Io(error) | E::MqttState(StateError::Io(error)) => error.to_string(),
        E::ConnectionRefused(code) => format!("connack {code:?}"),
        E::Timeout(_) => "no connack in time".to_owned(),
        E::MqttState(StateError::ServerDisconnect { reason_code, .. }) => format!("disconnect {reason_code:?}"),
        E::MqttState(error) => error.to_string(),
        E::NotConnAck(_) => "the first packet was no connack".to_owned(),
        other => other.to_string(),
    }
}
