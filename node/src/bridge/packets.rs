//! MQTT as a subscribing client speaks it, 3.1.1 and 5 behind one pair of types: rumqttc's packets do the encoding and decoding.
//!
//! Its event loop is not used (docs/adr/0007-bridge-packets.md). No I/O and no state here.

use bytes::{Bytes, BytesMut};
use rumqttc::{
    Packet as P3, QoS as QoS3,
    mqttbytes::{self, v4},
    v5::mqttbytes::{self as bytes5, QoS as QoS5, v5},
};
use tidegate_actors::limits;

use crate::config::{Bridge, Version};

/// Largest packet that is decoded; a larger PUBLISH is passed over, see [`Decoded::Oversized`].
const MOST_BYTES: usize = limits::MQTT_PACKET_BYTES;

/// A packet of the broker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Accepted.
    Connected {
        session_present: bool,
        keep_alive: Option<u16>,
    },
    /// Not accepted, in words.
    Refused(String),
    /// One answer for each filter: `None` is a yes.
    Subscribed(Vec<Option<String>>),
    Publish(Publish),
    /// The broker has our PUBREC.
    Release(u16),
    /// The broker says goodbye, and perhaps why.
    Disconnect(String),
    /// Nothing to do.
    Other,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
}

/// What is at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Not a whole packet yet.
    Incomplete,
    Packet(Incoming),
    /// A PUBLISH over the limit, without its payload: `bytes` of it follow in the stream and are passed over.
    Oversized {
        publish: Publish,
        bytes: usize,
    },
}

/// What the node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    PubAck(u16),
    PubRec(u16),
    PubComp(u16),
    Ping,
    Disconnect,
}

/// Takes the first packet off `bytes`. An error says what is wrong with them: the connection is of no use any more.
pub(crate) fn decode(version: Version, bytes: &mut BytesMut) -> Result<Decoded, String> {
    let Some((head, body)) = frame(bytes)? else { return Ok(Decoded::Incomplete) };
    if head + body > MOST_BYTES {
        return oversized(bytes, head, body);
    }
    if bytes.len() < head + body {
        return Ok(Decoded::Incomplete);
    }
    // rumqttc takes a DISCONNECT without properties for a broken one.
    if bytes[0] >> 4 == 14 {
        let reason = bytes.get(head).filter(|_| body > 0).copied().unwrap_or(0);
        bytes.clear();
        return Ok(Decoded::Packet(Incoming::Disconnect(disconnect_words(reason))));
    }
    let packet = match version {
        Version::V3 => of_v3(P3::read(bytes, MOST_BYTES).map_err(|error| broken(&error))?),
        Version::V5 => {
            let most = u32::try_from(MOST_BYTES).ok();
            of_v5(v5::Packet::read(bytes, most).map_err(|error| broken(&error))?)?
        }
    };
    Ok(Decoded::Packet(packet))
}

/// The lengths of the fixed header and of what follows it, once they are there.
fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    if bytes.len() >= 5 { Err("the broker sent a packet without a length".to_owned()) } else { Ok(None) }
}

/// A packet that is too large: its topic and its id are worth having, so that it can be acknowledged and does not come for ever.
fn oversized(bytes: &mut BytesMut, head: usize, body: usize) -> Result<Decoded, String> {
    let first = bytes[0];
    let qos = first >> 1 & 3;
    if first >> 4 != 3 || qos > 2 {
        return Err(format!("the broker sent a packet of {body} bytes that is no message"));
    }
    let Some(length) = bytes.get(head..head + 2) else { return Ok(Decoded::Incomplete) };
    let topic_end = head + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let end = topic_end + if qos > 0 { 2 } else { 0 };
    if bytes.len() < end {
        return Ok(Decoded::Incomplete);
    }
    let topic = String::from_utf8_lossy(&bytes[head + 2..topic_end]).into_owned();
    let packet_id = if qos > 0 { u16::from_be_bytes([bytes[topic_end], bytes[topic_end + 1]]) } else { 0 };
    let (dup, retain) = (first & 8 != 0, first & 1 != 0);
    let publish = Publish { topic, payload: Bytes::new(), qos, packet_id, dup, retain };
    Ok(Decoded::Oversized { publish, bytes: head + body })
}

fn broken(error: &dyn std::fmt::Display) -> String {
    format!("the broker sent what is no MQTT: {error}")
}

fn of_v3(packet: P3) -> Incoming {
    match packet {
        P3::ConnAck(connack) => match connack.code {
            v4::ConnectReturnCode::Success => {
                Incoming::Connected { session_present: connack.session_present, keep_alive: None }
            }
            code => Incoming::Refused(spaced(&format!("{code:?}"))),
        },
        P3::SubAck(suback) => {
            let refused = |code: &v4::SubscribeReasonCode| match code {
                v4::SubscribeReasonCode::Success(_) => None,
                v4::SubscribeReasonCode::Failure => Some("refused".to_owned()),
            };
            Incoming::Subscribed(suback.return_codes.iter().map(refused).collect())
        }
        P3::Publish(publish) => Incoming::Publish(Publish {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos as u8,
            packet_id: publish.pkid,
            dup: publish.dup,
            retain: publish.retain,
        }),
        P3::PubRel(release) => Incoming::Release(release.pkid),
        _ => Incoming::Other,
    }
}

fn of_v5(packet: v5::Packet) -> Result<Incoming, String> {
    Ok(match packet {
        v5::Packet::ConnAck(connack) => {
            let properties = connack.properties;
            match connack.code {
                v5::ConnectReturnCode::Success => Incoming::Connected {
                    session_present: connack.session_present,
                    keep_alive: properties.and_then(|properties| properties.server_keep_alive),
                },
                code => {
                    let said = properties.and_then(|properties| properties.reason_string);
                    let said = said.map_or_else(String::new, |said| format!(" ({said:?})"));
                    Incoming::Refused(spaced(&format!("{code:?}")) + &said)
                }
            }
        }
        v5::Packet::SubAck(suback) => {
            let refused = |code: &v5::SubscribeReasonCode| match code {
                v5::SubscribeReasonCode::Success(_) => None,
                code => Some(spaced(&format!("{code:?}"))),
            };
            Incoming::Subscribed(suback.return_codes.iter().map(refused).collect())
        }
        v5::Packet::Publish(publish) => Incoming::Publish(Publish {
            topic: String::from_utf8(publish.topic.to_vec()).map_err(|_| broken(&"a topic is not UTF-8"))?,
            payload: publish.payload,
            qos: publish.qos as u8,
            packet_id: publish.pkid,
            dup: publish.dup,
            retain: publish.retain,
        }),
        v5::Packet::PubRel(release) => Incoming::Release(release.pkid),
        _ => Incoming::Other,
    })
}

fn disconnect_words(reason: u8) -> String {
    v5::DisconnectReasonCode::try_from(reason)
        .map_or_else(|_| format!("reason {reason:#04x}"), |reason| spaced(&format!("{reason:?}")))
}

/// `BadUserNamePassword` as people write it.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// The CONNECT of a bridge.
pub(crate) fn connect(bridge: &Bridge, out: &mut BytesMut) -> Result<(), String> {
    let keep_alive = u16::try_from(bridge.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let password = bridge.password.as_ref().map_or("", |password| password.reveal());
    let written = match bridge.version {
        Version::V3 => {
            let mut connect = v4::Connect::new(bridge.client_id());
            (connect.keep_alive, connect.clean_session) = (keep_alive, bridge.clean);
            connect.login = bridge.username.as_ref().map(|name| v4::Login::new(name, password));
            P3::Connect(connect).write(out, MOST_BYTES).map_err(|error| error.to_string())
        }
        Version::V5 => {
            let mut properties = v5::ConnectProperties::new();
            properties.receive_maximum = Some(bridge.in_flight);
            properties.max_packet_size = u32::try_from(MOST_BYTES).ok();
            // The broker may not forget before it is told to; it says so in its own settings.
            properties.session_expiry_interval = (!bridge.clean).then_some(u32::MAX);
            let connect = v5::Connect {
                keep_alive,
                client_id: bridge.client_id(),
                clean_start: bridge.clean,
                properties: Some(properties),
            };
            let login = bridge.username.as_ref().map(|name| v5::Login::new(name, password));
            v5::Packet::Connect(connect, None, login).write(out, None).map_err(|error| error.to_string())
        }
    };
    written.map(drop)
}

/// The SUBSCRIBE of a bridge.
pub(crate) fn subscribe(bridge: &Bridge, out: &mut BytesMut) -> Result<(), String> {
    const PACKET_ID: u16 = 1;
    let filters =
        bridge.subscriptions.iter().filter_map(|one| Some((one.filter.as_ref()?.subscribed().to_owned(), one)));
    let written = match bridge.version {
        Version::V3 => {
            let filters = filters.map(|(path, one)| {
                let qos = mqttbytes::qos(one.qos).unwrap_or(QoS3::AtLeastOnce);
                v4::SubscribeFilter::new(path, qos)
            });
            let mut subscribe = v4::Subscribe::new_many(filters);
            subscribe.pkid = PACKET_ID;
            P3::Subscribe(subscribe).write(out, usize::MAX).map_err(|error| error.to_string())
        }
        Version::V5 => {
            let filters = filters.map(|(path, one)| {
                let mut filter = v5::Filter::new(path, bytes5::qos(one.qos).unwrap_or(QoS5::AtLeastOnce));
                // A retained message is a reading once, not with every new connection.
                filter.retain_forward_rule =
                    if one.retained { v5::RetainForwardRule::OnNewSubscribe } else { v5::RetainForwardRule::Never };
                filter
            });
            let mut subscribe = v5::Subscribe::new_many(filters, None);
            subscribe.pkid = PACKET_ID;
            v5::Packet::Subscribe(subscribe).write(out, None).map_err(|error| error.to_string())
        }
    };
    written.map(drop)
}

/// Any other packet of the node. They are the same in both versions, since all of them say yes.
pub(crate) fn encode(packet: Outgoing, out: &mut BytesMut) {
    let (first, id) = match packet {
        Outgoing::PubAck(id) => (0x40, Some(id)),
        Outgoing::PubRec(id) => (0x50, Some(id)),
        Outgoing::PubComp(id) => (0x70, Some(id)),
        Outgoing::Ping => (0xC0, None),
        Outgoing::Disconnect => (0xE0, None),
    };
    match id {
        Some(id) => out.extend_from_slice(&[first, 2, id.to_be_bytes()[0], id.to_be_bytes()[1]]),
        None => out.extend_from_slice(&[first, 0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Subscription;

    fn decoded(version: Version, bytes: &[u8]) -> Result<Decoded, String> {
        decode(version, &mut BytesMut::from(bytes))
    }

    fn message(topic: &str, payload: &'static [u8], qos: u8, packet_id: u16) -> Decoded {
        let (topic, payload) = (topic.to_owned(), Bytes::from_static(payload));
        Decoded::Packet(Incoming::Publish(Publish { topic, payload, qos, packet_id, dup: false, retain: false }))
    }

    #[test]
    fn what_brokers_send() {
        use Version::{V3, V5};
        let yes = |session_present| Decoded::Packet(Incoming::Connected { session_present, keep_alive: None });
        let no = |words: &str| Decoded::Packet(Incoming::Refused(words.to_owned()));
        let gone = |words: &str| Decoded::Packet(Incoming::Disconnect(words.to_owned()));
        for (version, bytes, expected) in [
            (V3, &[0x20, 2, 1, 0][..], yes(true)),
            (V5, &[0x20, 3, 0, 0, 0], yes(false)),
            (V3, &[0x20, 2, 0, 4], no("bad user name password")),
            (V5, &[0x20, 3, 0, 0x87, 0], no("not authorized")),
            (
                V3,
                &[0x90, 4, 0, 1, 1, 0x80],
                Decoded::Packet(Incoming::Subscribed(vec![None, Some("refused".to_owned())])),
            ),
            (V3, &[0x32, 7, 0, 1, b'a', 0, 9, b'4', b'2'], message("a", b"42", 1, 9)),
            (V5, &[0x34, 8, 0, 1, b'a', 0, 9, 0, b'4', b'2'], message("a", b"42", 2, 9)),
            (V3, &[0x62, 2, 0, 9], Decoded::Packet(Incoming::Release(9))),
            (V5, &[0x62, 2, 0, 9], Decoded::Packet(Incoming::Release(9))),
            (V3, &[0xD0, 0], Decoded::Packet(Incoming::Other)),
            (V5, &[0xE0, 1, 0x8E], gone("session taken over")),
            (V5, &[0xE0, 0], gone("normal disconnection")),
            (V3, &[0x32], Decoded::Incomplete),
            (V3, &[0x32, 7, 0], Decoded::Incomplete),
        ] {
            assert_eq!(decoded(version, bytes), Ok(expected), "{bytes:02x?}");
        }
        assert!(decoded(V3, &[0x32, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
        assert!(decoded(V3, &[0x32, 2, 0, 9]).is_err());
    }

    #[test]
    fn a_message_that_is_too_large_is_passed_over_by_its_head() {
        // 4 MiB announced: fixed header of 5 bytes.
        let mut bytes = BytesMut::from(&[0x3A, 0x80, 0x80, 0x80, 0x02, 0, 3, b'a', b'/', b'b', 0, 7, b'{'][..]);
        let Ok(Decoded::Oversized { publish, bytes: length }) = decode(Version::V3, &mut bytes) else {
            panic!("not seen")
        };
        assert_eq!((publish.topic.as_str(), publish.qos, publish.packet_id, publish.dup), ("a/b", 1, 7, true));
        assert_eq!(length, 5 + 4 * 1024 * 1024);
        assert_eq!(decoded(Version::V3, &[0x3A, 0x80, 0x80, 0x80, 0x02, 0, 3, b'a']), Ok(Decoded::Incomplete));
    }

    #[test]
    fn what_the_node_sends() {
        let mut out = BytesMut::new();
        for packet in
            [Outgoing::PubAck(258), Outgoing::PubRec(1), Outgoing::PubComp(1), Outgoing::Ping, Outgoing::Disconnect]
        {
            encode(packet, &mut out);
        }
        assert_eq!(&out[..], [0x40, 2, 1, 2, 0x50, 2, 0, 1, 0x70, 2, 0, 1, 0xC0, 0, 0xE0, 0]);
        let subscription = Subscription { filter: Pattern::parse("a/{b}").ok(), ..Subscription::default() };
        let mut bridge = Bridge { name: "x".to_owned(), subscriptions: vec![subscription], ..Bridge::default() };
        let mut out = BytesMut::new();
        connect(&bridge, &mut out).unwrap();
        assert_eq!(&out[..], b"\x10\x16\0\x04MQTT\x04\0\0\x1e\0\x0atidegate-x");
        out.clear();
        subscribe(&bridge, &mut out).unwrap();
        assert_eq!(&out[..], b"\x82\x08\0\x01\0\x03a/+\x01");
        bridge.version = Version::V5;
        out.clear();
        subscribe(&bridge, &mut out).unwrap();
        // QoS 1, and retained messages for new subscriptions.
        assert_eq!(&out[..], b"\x82\x09\0\x01\0\0\x03a/+\x11");
    }

    use crate::bridge::Pattern;
}
