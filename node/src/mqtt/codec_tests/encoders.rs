//! What the encoders write, read back: PUBLISH and the acknowledgements by our own decoder, the rest by rmqtt-codec, which
//! can also read what only a server sends.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use proptest::{collection::vec, option, prelude::*, sample::select};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder;

use super::{Outcome, Packet, ReasonCode, Version, outcome};
use crate::mqtt::{
    encode::{self, Connack, OutgoingPublish, Peer, TooLarge},
    packet::{Ack, QoS},
    properties::Property,
};

const V5_PEER: Peer = Peer { version: Version::V5, maximum_packet: usize::MAX, problem_info: true };
const V3_PEER: Peer = Peer { version: Version::V3, ..V5_PEER };

fn read_v5(bytes: &[u8]) -> v5::Packet {
    let mut rest = BytesMut::from(bytes);
    let (packet, _) = v5::Codec::new(0, 0).decode(&mut rest).unwrap().expect("a whole packet");
    assert!(rest.is_empty(), "bytes after the packet: {bytes:02X?}");
    packet
}

fn read_v3(bytes: &[u8]) -> v3::Packet {
    let mut rest = BytesMut::from(bytes);
    let (packet, _) = v3::Codec::new(0).decode(&mut rest).unwrap().expect("a whole packet");
    assert!(rest.is_empty(), "bytes after the packet: {bytes:02X?}");
    packet
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_filter_map("0", NonZeroU16::new)
}

fn words() -> impl Strategy<Value = String> {
    "[a-zäöü0-9 ]{0,20}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zä/]{1,300}"
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// Properties that a publisher may have sent, as on the wire.
fn forwarded() -> impl Strategy<Value = Vec<u8>> {
    let text = |id: u8, text: String| [vec![id], super::text(&text)].concat();
    (option::of(words()), option::of(topic()), option::of(any::<bool>()), vec((words(), words()), 0..4)).prop_map(
        move |(content, response, format, users)| {
            let users = users.into_iter().flat_map(|(name, value)| [text(0x26, name), super::text(&value)].concat());
            content
                .map(|content| text(0x03, content))
                .into_iter()
                .chain(response.map(|response| text(0x08, response)))
                .chain(format.map(|format| vec![0x01, u8::from(format)]))
                .flatten()
                .chain(users)
                .collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn publish(
        topic in topic(), dup in any::<bool>(), qos in qos(), retain in any::<bool>(), packet_id in id(),
        properties in forwarded(), message_expiry in option::of(1..=u32::MAX), topic_alias in option::of(id()),
        payload in vec(any::<u8>(), 0..20_000), subscription_ids in vec(1..268_435_455_u32, 0..3),
    ) {
        let message = OutgoingPublish {
            dup: dup && qos != QoS::AtMostOnce, qos, retain, topic: &topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            properties: &properties, message_expiry, topic_alias, subscription_ids: &[], payload: &payload,
        };
        for peer in [V3_PEER, V5_PEER] {
            let mut out = b"before".to_vec();
            encode::publish(&mut out, &peer, &message).unwrap();
            let Outcome::Packet(Packet::Publish(read)) = outcome(Some(peer.version), &out[6..]) else {
                panic!("{out:02X?}")
            };
            prop_assert_eq!((read.dup, read.qos, read.retain), (message.dup, qos, retain));
            prop_assert_eq!((read.topic, read.packet_id, read.payload), (&*topic, message.packet_id, &*payload));
            if peer.version == Version::V5 {
                prop_assert_eq!((read.message_expiry(), read.topic_alias()), (message_expiry, topic_alias));
                prop_assert_eq!(&*read.forwarded_properties(), &*properties);
                let others = |property: &Property<'_>| !matches!(property, Property::MessageExpiry(_) | Property::TopicAlias(_));
                prop_assert!(read.properties().filter(others).count() <= 7);
            }
            // The limit is exact, and nothing is written beyond it.
            let (bytes, mut none) = (out.len() - 6, Vec::new());
            encode::publish(&mut none, &Peer { maximum_packet: bytes, ..peer }, &message).unwrap();
            none.clear();
            let small = Peer { maximum_packet: bytes - 1, ..peer };
            let refused = encode::publish(&mut none, &small, &message);
            prop_assert_eq!((refused, &*none), (Err(TooLarge { bytes, limit: bytes - 1 }), &[][..]));
        }

        // Subscription identifiers go only to clients, so their decoder reads them.
        let ids: Vec<NonZeroU32> = subscription_ids.iter().filter_map(|&id| NonZeroU32::new(id)).collect();
        let mut out = Vec::new();
        encode::publish(&mut out, &V5_PEER, &OutgoingPublish { subscription_ids: &ids, ..message }).unwrap();
        let v5::Packet::Publish(read) = read_v5(&out) else { panic!() };
        prop_assert_eq!(read.properties.unwrap().subscription_ids, ids);
    }

    #[test]
    fn acknowledgements(packet_id in id(), text in words(), ok in any::<bool>(), problem_info in any::<bool>()) {
        for version in [Version::V3, Version::V5] {
            let peer = Peer { version, problem_info, ..V5_PEER };
            let check = |bytes: &[u8], make: fn(Ack) -> Packet<'static>, reason| {
                let reason = if version == Version::V3 { ReasonCode::SUCCESS } else { reason };
                assert_eq!(outcome(Some(version), bytes), Outcome::Packet(make(Ack { packet_id, reason })));
                let told = bytes.len() > 5 && bytes.ends_with(text.as_bytes());
                assert_eq!(told, version == Version::V5 && problem_info && !text.is_empty() && make(Ack { packet_id, reason }) != Packet::Pubrel(Ack { packet_id, reason }));
            };
            let mut out = Vec::new();
            let reason = if ok { ReasonCode::SUCCESS } else { ReasonCode::QUOTA_EXCEEDED };
            encode::puback(&mut out, &peer, packet_id, reason, &text);
            check(&out, Packet::Puback, reason);
            out.clear();
            encode::pubrec(&mut out, &peer, packet_id, reason, &text);
            check(&out, Packet::Pubrec, reason);
            out.clear();
            let reason = if ok { ReasonCode::SUCCESS } else { ReasonCode::PACKET_ID_NOT_FOUND };
            encode::pubrel(&mut out, &peer, packet_id, reason);
            assert_eq!(outcome(Some(version), &out), Outcome::Packet(Packet::Pubrel(Ack { packet_id, reason: if version == Version::V3 { ReasonCode::SUCCESS } else { reason } })));
            let pubrel = std::mem::take(&mut out);
            encode::pubcomp(&mut out, &peer, packet_id, reason);
            prop_assert_eq!((pubrel[0], out[0], &pubrel[1..]), (0x62, 0x70, &out[1..]));
        }
    }

    #[test]
    fn suback_and_unsuback(
        packet_id in id(), text in words(),
        codes in vec(select(vec![0x00_u8, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x97, 0x9E, 0xA1, 0xA2]), 1..300),
    ) {
        let reasons: Vec<ReasonCode> = codes.iter().map(|&code| ReasonCode(code)).collect();
        let mut out = Vec::new();
        encode::suback(&mut out, &V5_PEER, packet_id, &reasons, &text);
        let v5::Packet::SubscribeAck(read) = read_v5(&out) else { panic!() };
        prop_assert_eq!((read.packet_id, read.reason_string.as_deref().unwrap_or("")), (packet_id, &*text));
        prop_assert_eq!(read.status.iter().map(|&code| u8::from(code)).collect::<Vec<_>>(), &*codes);

        out.clear();
        encode::suback(&mut out, &V3_PEER, packet_id, &reasons, &text);
        let v3::Packet::SubscribeAck { packet_id: read, .. } = read_v3(&out) else { panic!() };
        prop_assert_eq!(read, packet_id);
        let expected: Vec<u8> = codes.iter().map(|&code| if code < 3 { code } else { 0x80 }).collect();
        prop_assert!(out.ends_with(&[&packet_id.get().to_be_bytes()[..], &expected].concat()));

        out.clear();
        encode::unsuback(&mut out, &V5_PEER, packet_id, &[ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED], &text);
        let v5::Packet::UnsubscribeAck(read) = read_v5(&out) else { panic!() };
        prop_assert_eq!((read.packet_id, read.reason_string.as_deref().unwrap_or("")), (packet_id, &*text));
        prop_assert_eq!(read.status.iter().map(|&code| u8::from(code)).collect::<Vec<_>>(), vec![0x00, 0x11]);

        out.clear();
        encode::unsuback(&mut out, &V3_PEER, packet_id, &[ReasonCode::SUCCESS], &text);
        prop_assert_eq!(read_v3(&out), v3::Packet::UnsubscribeAck { packet_id });
    }

    #[test]
    fn connack(
        session_present in any::<bool>(), reason in select(vec![0x00_u8, 0x80, 0x81, 0x85, 0x87, 0x89, 0x97]),
        reason_string in words(), session_expiry in option::of(any::<u32>()), receive_maximum in option::of(id()),
        maximum_qos in qos(), available in any::<[bool; 4]>(), maximum_packet_size in option::of(1..=u32::MAX),
        assigned_client_id in option::of(words()), topic_alias_maximum in any::<u16>(), server_keep_alive in option::of(any::<u16>()),
    ) {
        let [retain_available, wildcard_available, subscription_ids_available, shared_available] = available;
        let sent = Connack {
            session_present, reason: ReasonCode(reason), reason_string: &reason_string, session_expiry, receive_maximum,
            maximum_qos, retain_available, maximum_packet_size: maximum_packet_size.and_then(NonZeroU32::new),
            assigned_client_id: assigned_client_id.as_deref(), topic_alias_maximum, wildcard_available,
            subscription_ids_available, shared_available, server_keep_alive,
        };
        let mut out = Vec::new();
        prop_assert!(encode::connack(&mut out, &V5_PEER, &sent));
        let v5::Packet::ConnectAck(read) = read_v5(&out) else { panic!() };
        prop_assert_eq!(out[3], reason);
        prop_assert_eq!(read.session_present, session_present && reason == 0);
        prop_assert_eq!(read.reason_string.as_deref().unwrap_or(""), &*reason_string);
        prop_assert_eq!(read.session_expiry_interval_secs, session_expiry);
        prop_assert_eq!(read.receive_max, receive_maximum.unwrap_or(NonZeroU16::MAX));
        prop_assert_eq!(read.max_qos.value(), maximum_qos as u8);
        prop_assert_eq!(read.max_packet_size, maximum_packet_size);
        prop_assert_eq!(read.assigned_client_id.as_deref(), assigned_client_id.as_deref());
        prop_assert_eq!(read.topic_alias_max, topic_alias_maximum);
        prop_assert_eq!(read.server_keepalive_sec, server_keep_alive);
        prop_assert_eq!(
            [read.retain_available, read.wildcard_subscription_available, read.subscription_identifiers_available, read.shared_subscription_available],
            available
        );
    }

    #[test]
    fn disconnect(reason in select(vec![0x00_u8, 0x81, 0x8B, 0x8E, 0x95, 0x97]), text in words()) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, &V5_PEER, ReasonCode(reason), &text);
        let v5::Packet::Disconnect(read) = read_v5(&out) else { panic!() };
        prop_assert_eq!((u8::from(read.reason_code), read.reason_string.as_deref().unwrap_or("")), (reason, &*text));
        out.clear();
        encode::disconnect(&mut out, &V3_PEER, ReasonCode(reason), &text);
        prop_assert!(out.is_empty(), "a 3.1.1 server sends no DISCONNECT");
    }
}

#[test]
fn the_bytes_of_the_common_answers() {
    let id = NonZeroU16::new(0x0102).unwrap();
    let check = |write: &dyn Fn(&mut Vec<u8>), expected: &[u8]| {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out, expected);
    };
    check(&|out| encode::puback(out, &V3_PEER, id, ReasonCode::QUOTA_EXCEEDED, "ignored"), b"\x40\x02\x01\x02");
    check(&|out| encode::puback(out, &V5_PEER, id, ReasonCode::SUCCESS, ""), b"\x40\x02\x01\x02");
    check(&|out| encode::puback(out, &V5_PEER, id, ReasonCode::QUOTA_EXCEEDED, ""), b"\x40\x03\x01\x02\x97");
    check(&|out| encode::puback(out, &V5_PEER, id, ReasonCode::SUCCESS, "r"), b"\x40\x08\x01\x02\x00\x04\x1F\0\x01r");
    check(
        &|out| encode::suback(out, &V3_PEER, id, &[ReasonCode(1), ReasonCode(0x97)], "r"),
        b"\x90\x04\x01\x02\x01\x80",
    );
    check(&|out| encode::suback(out, &V5_PEER, id, &[ReasonCode(1)], ""), b"\x90\x04\x01\x02\0\x01");
    check(&|out| encode::unsuback(out, &V3_PEER, id, &[ReasonCode(0)], ""), b"\xB0\x02\x01\x02");
    check(&encode::pingresp, b"\xD0\0");
    check(&|out| encode::disconnect(out, &V5_PEER, ReasonCode::SESSION_TAKEN_OVER, ""), b"\xE0\x01\x8E");
    check(&|out| assert!(encode::connack(out, &V3_PEER, &Connack::accepted(true))), b"\x20\x02\x01\0");
    check(&|out| assert!(encode::connack(out, &V5_PEER, &Connack::accepted(false))), b"\x20\x03\0\0\0");
    let refused = Connack::refused(ReasonCode::NOT_AUTHORIZED, "");
    check(&|out| assert!(encode::connack(out, &V3_PEER, &refused)), b"\x20\x02\0\x05");
    let malformed = Connack::refused(ReasonCode::MALFORMED_PACKET, "");
    check(&|out| assert!(!encode::connack(out, &V3_PEER, &malformed)), b"");
}

/// A reason string gives way where the packet would grow beyond what the client takes, or a string.
#[test]
fn a_reason_string_gives_way_to_the_clients_limit() {
    let peer = Peer { maximum_packet: 40, ..V5_PEER };
    let write = |text: &str| {
        let mut out = Vec::new();
        encode::disconnect(&mut out, &peer, ReasonCode::QUOTA_EXCEEDED, text);
        out.len()
    };
    assert_eq!(write(&"x".repeat(27)), 2 + 1 + 1 + 3 + 27);
    assert_eq!(write(&"x".repeat(28)), 3);
    let mut out = Vec::new();
    encode::disconnect(&mut out, &V5_PEER, ReasonCode::QUOTA_EXCEEDED, &"ä".repeat(40_000));
    let v5::Packet::Disconnect(read) = read_v5(&out) else { panic!() };
    assert_eq!(read.reason_string.unwrap(), "ä".repeat(32_767));
}
