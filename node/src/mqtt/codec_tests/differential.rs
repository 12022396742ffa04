//! The same bytes through rmqtt-codec, which other people wrote and others use: where both take a packet they must read
//! the same, and where only one takes it, it is for a reason on the list below.

use bytes::BytesMut;
use rmqtt_codec::{error::DecodeError, v3, v5};
use tokio_util::codec::Decoder;

use super::{
    Packet, Version,
    conformance::{self, Expected},
    random::Mutations,
    read,
};
use crate::mqtt::{
    packet::{Ack, RetainHandling, Will},
    properties::{Place, Properties, Property},
};

#[derive(Debug)]
enum Theirs {
    V3(v3::Packet),
    V5(v5::Packet),
}

/// Their answer to one whole frame. For a CONNECT (`version` is `None`) they go by the level, as their broker does.
fn theirs(version: Option<Version>, frame: &[u8]) -> Result<Theirs, DecodeError> {
    let version = version.unwrap_or_else(|| {
        let name_at = frame.iter().position(|&byte| byte == b'M').unwrap_or(0);
        if frame.get(name_at..).is_some_and(|rest| rest.starts_with(b"MQTT\x05")) { Version::V5 } else { Version::V3 }
    });
    let mut bytes = BytesMut::from(frame);
    let missing = || DecodeError::InvalidLength;
    match version {
        Version::V3 => v3::Codec::new(0).decode(&mut bytes)?.map(|(packet, _)| Theirs::V3(packet)).ok_or_else(missing),
        Version::V5 => {
            v5::Codec::new(0, 0).decode(&mut bytes)?.map(|(packet, _)| Theirs::V5(packet)).ok_or_else(missing)
        }
    }
}

/// Whether both read the same. Compares what both have, in their words.
fn same(ours: &Packet<'_>, theirs: &Theirs) -> bool {
    match (ours, theirs) {
        (Packet::Connect(a), Theirs::V3(v3::Packet::Connect(b))) => {
            a.version == Version::V3
                && (&*a.client_id, a.clean_start, a.keep_alive) == (&*b.client_id, b.clean_session, b.keep_alive)
                && (a.username.as_deref(), &a.password) == (b.username.as_deref(), &b.password)
                && a.will.as_ref().map(|will| (&*will.topic, &will.payload, will.qos as u8, will.retain))
                    == b.last_will.as_ref().map(|will| (&*will.topic, &will.message, will.qos.value(), will.retain))
        }
        (Packet::Connect(a), Theirs::V5(v5::Packet::Connect(b))) => {
            let users = |list: &[(bytestring::ByteString, bytestring::ByteString)]| {
                list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>()
            };
            a.version == Version::V5
                && (&*a.client_id, a.clean_start, a.keep_alive) == (&*b.client_id, b.clean_start, b.keep_alive)
                && (a.username.as_deref(), &a.password) == (b.username.as_deref(), &b.password)
                && (a.session_expiry, a.topic_alias_maximum) == (b.session_expiry_interval_secs, b.topic_alias_max)
                && Some(a.receive_maximum.get()) == b.receive_max.map(|max| max.get()).or(Some(u16::MAX))
                && a.maximum_packet_size == b.max_packet_size
                && (a.request_problem_info, a.request_response_info)
                    == (b.request_problem_info, b.request_response_info)
                && (a.auth_method.as_deref(), &a.auth_data) == (b.auth_method.as_deref(), &b.auth_data)
                && a.user_properties == users(&b.user_properties)
                && a.will.as_ref().map(|will| (&*will.topic, &will.payload, will.qos as u8, will.retain, will.delay))
                    == b.last_will.as_ref().map(|will| {
                        let delay = will.will_delay_interval_sec.unwrap_or(0);
                        (&*will.topic, &will.message, will.qos.value(), will.retain, delay)
                    })
        }
        (Packet::Publish(a), Theirs::V3(v3::Packet::Publish(b)) | Theirs::V5(v5::Packet::Publish(b))) => {
            let alias = b.properties.as_ref().and_then(|properties| properties.topic_alias);
            let expiry = b.properties.as_ref().and_then(|properties| properties.message_expiry_interval);
            (a.dup, a.qos as u8, a.retain) == (b.dup, b.qos.value(), b.retain)
                && (a.topic, a.packet_id, a.payload) == (&*b.topic, b.packet_id, &*b.payload)
                && (a.topic_alias(), a.message_expiry()) == (alias, expiry.map(|seconds| seconds.get()))
        }
        (Packet::Puback(a), Theirs::V3(v3::Packet::PublishAck { packet_id }))
        | (Packet::Pubrec(a), Theirs::V3(v3::Packet::PublishReceived { packet_id }))
        | (Packet::Pubrel(a), Theirs::V3(v3::Packet::PublishRelease { packet_id }))
        | (Packet::Pubcomp(a), Theirs::V3(v3::Packet::PublishComplete { packet_id })) => a.packet_id == *packet_id,
        (Packet::Puback(a), Theirs::V5(v5::Packet::PublishAck(b)))
        | (Packet::Pubrec(a), Theirs::V5(v5::Packet::PublishReceived(b))) => {
            let Ack { packet_id, reason } = *a;
            (packet_id, reason.0) == (b.packet_id, b.reason_code.into())
        }
        (Packet::Pubrel(a), Theirs::V5(v5::Packet::PublishRelease(b)))
        | (Packet::Pubcomp(a), Theirs::V5(v5::Packet::PublishComplete(b))) => {
            (a.packet_id, a.reason.0) == (b.packet_id, b.reason_code.into())
        }
        (Packet::Subscribe(a), Theirs::V3(v3::Packet::Subscribe { packet_id, topic_filters })) => {
            a.packet_id == *packet_id
                && a.filters.iter().map(|one| (&*one.filter, one.qos as u8)).collect::<Vec<_>>()
                    == topic_filters.iter().map(|(filter, qos)| (&**filter, qos.value())).collect::<Vec<_>>()
        }
        (Packet::Subscribe(a), Theirs::V5(v5::Packet::Subscribe(b))) => {
            let retain = |handling| match handling {
                RetainHandling::Always => 0,
                RetainHandling::IfNew => 1,
                RetainHandling::Never => 2,
            };
            let ours = a.filters.iter().map(|one| {
                (&*one.filter, one.qos as u8, one.no_local, one.retain_as_published, retain(one.retain_handling))
            });
            let theirs = b.topic_filters.iter().map(|(filter, options)| {
                let handling: u8 = options.retain_handling.into();
                (&**filter, options.qos.value(), options.no_local, options.retain_as_published, handling)
            });
            (a.packet_id, a.subscription_id) == (b.packet_id, b.id) && ours.eq(theirs)
        }
        (Packet::Unsubscribe(a), Theirs::V3(v3::Packet::Unsubscribe { packet_id, topic_filters })) => {
            a.packet_id == *packet_id
                && a.filters.iter().map(String::as_str).eq(topic_filters.iter().map(|text| &**text))
        }
        (Packet::Unsubscribe(a), Theirs::V5(v5::Packet::Unsubscribe(b))) => {
            a.packet_id == b.packet_id
                && a.filters.iter().map(String::as_str).eq(b.topic_filters.iter().map(|text| &**text))
        }
        (Packet::Pingreq, Theirs::V3(v3::Packet::PingRequest) | Theirs::V5(v5::Packet::PingRequest)) => true,
        (Packet::Disconnect(_), Theirs::V3(v3::Packet::Disconnect)) => true,
        (Packet::Disconnect(a), Theirs::V5(v5::Packet::Disconnect(b))) => {
            (a.reason.0, a.session_expiry) == (b.reason_code.into(), b.session_expiry_interval_secs)
        }
        (Packet::Auth(a), Theirs::V5(v5::Packet::Auth(b))) => {
            (a.reason.0, Some(&*a.method), &a.data) == (b.reason_code.into(), b.auth_method.as_deref(), &b.auth_data)
        }
        _ => false,
    }
}

/// Words of our refusals of what they take: each is a rule of the specification, or a limit, that they leave to their caller.
const THEY_LEAVE: &[&str] = &[
    "MQTT 3.1.1 has no password without a user name",
    "a PINGREQ has no body",
    "a PUBLISH with QoS 0 may not have the DUP flag",
    "a client's PUBLISH may not have a subscription identifier",
    "a second CONNECT",
    "a shared subscription may not have no-local",
    "after its last field",
    "an AUTH needs an authentication method",
    "an empty topic name needs a topic alias",
    "authentication data needs an authentication method",
    "contains U+0000",
    "is not served",
    "may not have the reason code",
    "only a server sends",
    "only a server's DISCONNECT",
    "reserved bits set",
    "takes more bytes than it needs",
    "the first packet is",
    "the response topic: ",
    "the topic filter ",
    "the topic name: ",
    "the will topic: ",
    "there is a will QoS or will retain flag",
];

/// What we take and they do not, though the specification allows it: an expiry of 0, and a client of MQTT 5 that leaves
/// its name to the server without a clean start.
fn they_are_too_strict(ours: &Packet<'_>) -> bool {
    match ours {
        Packet::Publish(message) => message.message_expiry() == Some(0),
        Packet::Connect(connect) if connect.version == Version::V5 => {
            let expires_at_once = |will: &Will| {
                let mut properties = Properties::new(&will.properties, Place::Will);
                properties.any(|property| property == Ok(Property::MessageExpiry(0)))
            };
            (connect.client_id.is_empty() && !connect.clean_start) || connect.will.as_ref().is_some_and(expires_at_once)
        }
        _ => false,
    }
}

#[test]
fn rmqtt_codec_reads_the_same_but_for_the_rules_that_it_leaves_to_its_caller() {
    for (version, seed) in [(Version::V3, 0x646966660003), (Version::V5, 0x646966660005)] {
        println!("seed {seed:#x}");
        let mut mutations = Mutations::new(seed, version);
        let mut both = 0;
        for _ in 0..100_000 {
            let bytes = mutations.next();
            let asked = if bytes.first().is_some_and(|first| first >> 4 == 1) { None } else { Some(version) };
            match read(asked, &bytes) {
                Ok(None) => {}
                Ok(Some((ours, total))) => match theirs(asked, &bytes[..total]) {
                    Ok(theirs) => {
                        assert!(same(&ours, &theirs), "{version:?} {bytes:02X?}\nours   {ours:?}\ntheirs {theirs:?}");
                        both += 1;
                    }
                    Err(error) => assert!(they_are_too_strict(&ours), "{version:?} {bytes:02X?}\n{ours:?}\n{error}"),
                },
                Err(error) => {
                    let known = THEY_LEAVE.iter().any(|words| error.detail.contains(words));
                    assert!(known || theirs(asked, &bytes).is_err(), "{version:?} {bytes:02X?}\n{error}");
                }
            }
        }
        assert!(both > 5_000, "only {both} packets were read by both");
    }
}

/// The count that docs/adr/0001-mqtt-codec.md rests on: once it is small, rmqtt-codec may read the control packets.
#[test]
fn the_conformance_table_through_rmqtt_codec() {
    for version in [Version::V3, Version::V5] {
        let (mut wrong, mut total) = (0, 0);
        for case in conformance::cases() {
            let of = case.version.unwrap_or(if case.bytes.get(8) == Some(&5) { Version::V5 } else { Version::V3 });
            let end = match read(case.version, &case.bytes) {
                Ok(Some((_, total))) => total,
                Ok(None) => continue, // Framing is ours in any case.
                Err(_) => case.bytes.len(),
            };
            if of != version {
                continue;
            }
            let right = match (&case.expected, theirs(case.version, &case.bytes[..end])) {
                (Expected::Packet(expected), Ok(theirs)) => same(expected, &theirs),
                (Expected::Taken, Ok(_)) | (Expected::Refused(_), Err(_)) => true,
                _ => false,
            };
            total += 1;
            wrong += u32::from(!right);
        }
        println!("rmqtt-codec, {version:?}: {wrong} of {total} wrong");
        assert!(wrong > total / 10, "rmqtt-codec has caught up: read the decision record again");
    }
}
