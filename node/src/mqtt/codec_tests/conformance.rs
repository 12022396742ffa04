//! The table of conformance cases: bytes, and what the clause of the specification makes of them.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::{
    super::packet::{
        Ack, Auth, Connect, Disconnect, Publish, QoS, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, Will,
    },
    super::{encode::refuse_connect, frame},
    Outcome, Packet, ReasonCode, Version, outcome, packet, properties, text,
};

/// What a case expects.
#[derive(Debug)]
pub(super) enum Expected {
    /// Exactly this packet.
    Packet(Packet<'static>),
    /// Any packet: the case is about its being taken.
    Taken,
    /// A refusal with this reason.
    Refused(ReasonCode),
    /// More bytes, at least so many in all.
    Incomplete(usize),
}

/// One line of the table.
pub(super) struct Case {
    pub(super) clause: &'static str,
    pub(super) version: Option<Version>,
    pub(super) bytes: Vec<u8>,
    pub(super) expected: Expected,
}

/// What a packet is put together from.
type Parts<'a> = &'a [&'a [u8]];
type OfBoth = fn() -> Expected;
type OfVersion = fn(Version) -> Expected;
type OfAck = fn(Ack) -> Packet<'static>;

const MALFORMED: Expected = Expected::Refused(ReasonCode::MALFORMED_PACKET);
const PROTOCOL: Expected = Expected::Refused(ReasonCode::PROTOCOL_ERROR);
const BAD_FILTER: Expected = Expected::Refused(ReasonCode::TOPIC_FILTER_INVALID);
const BAD_TOPIC: Expected = Expected::Refused(ReasonCode::TOPIC_NAME_INVALID);
const BAD_VERSION: Expected = Expected::Refused(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
const V3: Option<Version> = Some(Version::V3);
const V5: Option<Version> = Some(Version::V5);

fn id(value: u16) -> NonZeroU16 {
    NonZeroU16::new(value).unwrap()
}

fn case(clause: &'static str, version: Option<Version>, bytes: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { clause, version, bytes: bytes.into(), expected }
}

/// The same in both versions.
fn both(clause: &'static str, bytes: &[u8], expected: OfBoth) -> [Case; 2] {
    [case(clause, V3, bytes, expected()), case(clause, V5, bytes, expected())]
}

fn taken(packet: Packet<'static>) -> Expected {
    Expected::Packet(packet)
}

/// A CONNECT with the client id `c` from its level, flags and payload after the client id.
fn connect(level: u8, flags: u8, props: &[&[u8]], rest: &[&[u8]]) -> Vec<u8> {
    connect_as("c", level, flags, props, rest)
}

fn connect_as(client_id: &str, level: u8, flags: u8, props: &[&[u8]], rest: &[&[u8]]) -> Vec<u8> {
    let props = if level == 5 { properties(props) } else { Vec::new() };
    let head: &[&[u8]] = &[b"\0\x04MQTT", &[level, flags, 0, 60], &props, &text(client_id)];
    packet(0x10, &[head, rest].concat())
}

fn plain_connect(version: Version) -> Connect {
    Connect {
        version,
        client_id: "c".into(),
        clean_start: true,
        keep_alive: 60,
        username: None,
        password: None,
        will: None,
        session_expiry: 0,
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_problem_info: true,
        request_response_info: false,
        auth_method: None,
        auth_data: None,
        user_properties: Vec::new(),
    }
}

fn connected(connect: Connect) -> Expected {
    taken(Packet::Connect(Box::new(connect)))
}

fn ack(reason: ReasonCode) -> Ack {
    Ack { packet_id: id(0x4321), reason }
}

/// A PUBLISH of QoS 0 to `a/b` with these properties and the payload `hi`.
fn publish5(props: &[&[u8]]) -> Vec<u8> {
    packet(0x30, &[b"\0\x03a/b", &properties(props), b"hi"])
}

fn published(properties: &'static [u8]) -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        properties,
        payload: b"hi",
    }
}

/// A SUBSCRIBE with packet id 1 to these filters with their options.
fn subscribe(version: Option<Version>, filters: &[(&str, u8)]) -> Vec<u8> {
    let props: &[u8] = if version == V5 { &[0] } else { &[] };
    let filters: Vec<u8> =
        filters.iter().flat_map(|(filter, options)| [text(filter), vec![*options]].concat()).collect();
    packet(0x82, &[&[0, 1], props, &filters])
}

fn unsubscribe(version: Option<Version>, filters: &[&str]) -> Vec<u8> {
    let props: &[u8] = if version == V5 { &[0] } else { &[] };
    packet(0xA2, &[&[0, 1], props, &filters.iter().flat_map(|filter| text(filter)).collect::<Vec<u8>>()])
}

fn subscribed(filter: &str, qos: QoS) -> SubscribeFilter {
    SubscribeFilter {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

fn framing() -> Vec<Case> {
    let mut cases = vec![
        case("2.1 empty", V3, b"", Expected::Incomplete(2)),
        case("2.1 one byte", V3, b"\xC0", Expected::Incomplete(2)),
        case("2.1.4 length not complete", V5, b"\x30\x80", Expected::Incomplete(3)),
        case("2.1.4 length not complete, third byte", V5, b"\x30\x80\x80\x80", Expected::Incomplete(5)),
        case("2.1.4 body not complete", V5, b"\x30\x05\0\x01a", Expected::Incomplete(7)),
        case("1.5.5-1 padded length", V5, b"\xC0\x80\x00", MALFORMED),
        case("2.2.3 (3.1.1) padded length is not forbidden", V3, b"\xC0\x80\x00", taken(Packet::Pingreq)),
        case("2.2.1 (3.1.1) type 15", V3, b"\xF0\x00", MALFORMED),
        case("3.12 PINGREQ leaves the next packet alone", V3, b"\xC0\x00\xC0", taken(Packet::Pingreq)),
    ];
    for (clause, bytes) in [
        ("2.1.4 five bytes of length", &b"\x30\xFF\xFF\xFF\xFF\x01"[..]),
        ("2.1.2 type 0", b"\x00\x00"),
        ("2.1.3-1 CONNECT flags", b"\x11\x00"),
        ("2.1.3-1 PUBACK flags", b"\x42\x02\0\x01"),
        ("2.1.3-1 PUBREC flags", b"\x51\x02\0\x01"),
        ("3.6.1-1 PUBREL without its flag", b"\x60\x02\0\x01"),
        ("2.1.3-1 PUBCOMP flags", b"\x7F\x02\0\x01"),
        ("3.8.1-1 SUBSCRIBE without its flag", b"\x80\x05\0\x01\0\x01a"),
        ("3.10.1-1 UNSUBSCRIBE without its flag", b"\xA0\x05\0\x01\0\x01a"),
        ("2.1.3-1 PINGREQ flags", b"\xC1\x00"),
        ("3.14.1-1 DISCONNECT flags", b"\xE2\x00"),
        ("3.15.1-1 AUTH flags", b"\xF1\x00"),
        ("3.3.1-4 QoS 3, told before the body is there", b"\x36"),
        ("2.1.3-1 wrong flags, told before the length is there", b"\x83"),
        ("3.12 PINGREQ with a body", b"\xC0\x01\x00"),
    ] {
        cases.extend(both(clause, bytes, || MALFORMED));
    }
    for (clause, bytes) in [
        ("3.2 CONNACK from a client", &b"\x20\x02\0\0"[..]),
        ("3.9 SUBACK from a client", b"\x90\x03\0\x01\0"),
        ("3.11 UNSUBACK from a client", b"\xB0\x02\0\x01"),
        ("3.13 PINGRESP from a client", b"\xD0\x00"),
        ("3.1.0-2 second CONNECT", b"\x10\x0D\0\x04MQTT\x04\x02\0\x3C\0\x01c"),
    ] {
        cases.extend(both(clause, bytes, || PROTOCOL));
    }
    cases.extend(both("3.12 PINGREQ", b"\xC0\x00", || taken(Packet::Pingreq)));
    cases.push(case("3.1.0-1 PINGREQ before CONNECT", None, b"\xC0\x00", PROTOCOL));
    cases.push(case("3.1.0-1 PUBLISH before CONNECT", None, b"\x30\x03\0\x01a", PROTOCOL));
    cases.push(case("2.1.4 TLS on the plain port", None, b"\x16\x03\x01\x02\x00", MALFORMED));
    cases.push(case("2.1.3-1 HTTP on the MQTT port", None, b"GET / HTTP/1.1", MALFORMED));
    cases
}

fn connects() -> Vec<Case> {
    let will = Will {
        topic: "w".into(),
        payload: Bytes::from_static(b"bye"),
        qos: QoS::AtLeastOnce,
        retain: true,
        delay: 0,
        properties: Vec::new(),
    };
    let with_will = |version| Connect { will: Some(will.clone()), ..plain_connect(version) };
    let both_levels = |clause, flags, rest: Parts<'_>, expected: OfVersion| {
        [(4, Version::V3), (5, Version::V5)]
            .map(|(level, version)| case(clause, None, connect(level, flags, &[], rest), expected(version)))
    };
    let mut cases = vec![
        case("3.1.3.1 plain", None, connect(4, 2, &[], &[]), connected(plain_connect(Version::V3))),
        case("3.1.3.1 plain", None, connect(5, 2, &[], &[]), connected(plain_connect(Version::V5))),
        case(
            "3.1.3.2 will",
            None,
            connect(4, 0x2E, &[], &[b"\0\x01w", b"\0\x03bye"]),
            connected(with_will(Version::V3)),
        ),
        case(
            "3.1.3.2 will",
            None,
            connect(5, 0x2E, &[], &[b"\0", b"\0\x01w", b"\0\x03bye"]),
            connected(with_will(Version::V5)),
        ),
        case(
            "3.1.3.2 will properties",
            None,
            connect(
                5,
                0x2E,
                &[],
                &[&properties(&[b"\x02\0\0\0\0", b"\x18\0\0\0\x05", b"\x03\0\x01t"]), b"\0\x01w", b"\0\x03bye"],
            ),
            connected(Connect {
                will: Some(Will { delay: 5, properties: b"\x02\0\0\0\0\x03\0\x01t".to_vec(), ..will.clone() }),
                ..plain_connect(Version::V5)
            }),
        ),
        case(
            "3.1.2.4 (3.1.1) a session that is not clean is kept",
            None,
            connect(4, 0, &[], &[]),
            connected(Connect { clean_start: false, session_expiry: u32::MAX, ..plain_connect(Version::V3) }),
        ),
        case(
            "3.1.2.11 all properties",
            None,
            connect(
                5,
                2,
                &[
                    b"\x11\0\0\x1C\x20",
                    b"\x21\0\x0A",
                    b"\x27\0\0\x04\0",
                    b"\x22\0\x07",
                    b"\x19\x01",
                    b"\x17\0",
                    b"\x26\0\x01k\0\x01v",
                    b"\x26\0\x01k\0\x01w",
                    b"\x15\0\x02xm",
                    b"\x16\0\x01d",
                ],
                &[],
            ),
            connected(Connect {
                session_expiry: 7200,
                receive_maximum: id(10),
                maximum_packet_size: NonZeroU32::new(1024),
                topic_alias_maximum: 7,
                request_problem_info: false,
                request_response_info: true,
                auth_method: Some("xm".into()),
                auth_data: Some(Bytes::from_static(b"d")),
                user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
                ..plain_connect(Version::V5)
            }),
        ),
        case(
            "3.1.2.11.5 topic alias maximum 0 is allowed",
            None,
            connect(5, 2, &[b"\x22\0\0"], &[]),
            connected(plain_connect(Version::V5)),
        ),
        case("3.1.2.11.3 receive maximum 0", None, connect(5, 2, &[b"\x21\0\0"], &[]), PROTOCOL),
        case("3.1.2.11.4 maximum packet size 0", None, connect(5, 2, &[b"\x27\0\0\0\0"], &[]), PROTOCOL),
        case(
            "3.1.2.11.2 session expiry twice",
            None,
            connect(5, 2, &[b"\x11\0\0\0\x01", b"\x11\0\0\0\x01"], &[]),
            PROTOCOL,
        ),
        case("3.1.2.11.6 request response info 2", None, connect(5, 2, &[b"\x19\x02"], &[]), PROTOCOL),
        case("3.1.2.11.7 request problem info 2", None, connect(5, 2, &[b"\x17\x02"], &[]), PROTOCOL),
        case("3.1.2.11.10 auth data without method", None, connect(5, 2, &[b"\x16\0\x01d"], &[]), PROTOCOL),
        case("2.2.2.2 a topic alias in CONNECT", None, connect(5, 2, &[b"\x23\0\x01"], &[]), MALFORMED),
        case("2.2.2.2 a server's property in CONNECT", None, connect(5, 2, &[b"\x12\0\x01x"], &[]), MALFORMED),
        case("2.2.2.2 unknown property", None, connect(5, 2, &[b"\x7E\0"], &[]), MALFORMED),
        case("2.2.2.2 a will delay among CONNECT's", None, connect(5, 2, &[b"\x18\0\0\0\0"], &[]), MALFORMED),
        case(
            "2.2.2.1 property length beyond the packet",
            None,
            packet(0x10, &[b"\0\x04MQTT\x05\x02\0\x3C\x7F\0\x01c"]),
            MALFORMED,
        ),
        case(
            "3.1.3.2 (5) a session expiry in the will",
            None,
            connect(5, 6, &[], &[&properties(&[b"\x11\0\0\0\0"]), b"\0\x01w\0\0"]),
            MALFORMED,
        ),
        case(
            "3.1.3.5 (5) password without user name",
            None,
            connect(5, 0x42, &[], &[b"\0\x01p"]),
            connected(Connect { password: Some(Bytes::from_static(b"p")), ..plain_connect(Version::V5) }),
        ),
        case("3.1.2-22 (3.1.1) password without user name", None, connect(4, 0x42, &[], &[b"\0\x01p"]), MALFORMED),
        case(
            "3.1.3-8 (3.1.1) empty client id, not clean",
            None,
            connect_as("", 4, 0, &[], &[]),
            Expected::Refused(ReasonCode::CLIENT_ID_NOT_VALID),
        ),
        case(
            "3.1.3-7 (3.1.1) empty client id, clean",
            None,
            connect_as("", 4, 2, &[], &[]),
            connected(Connect { client_id: String::new(), ..plain_connect(Version::V3) }),
        ),
        case(
            "3.1.3-6 (5) empty client id, clean start",
            None,
            connect_as("", 5, 2, &[], &[]),
            connected(Connect { client_id: String::new(), ..plain_connect(Version::V5) }),
        ),
        case(
            "3.1.3-6 (5) empty client id, no clean start",
            None,
            connect_as("", 5, 0, &[], &[]),
            connected(Connect { client_id: String::new(), clean_start: false, ..plain_connect(Version::V5) }),
        ),
        case("3.1.2-1 protocol name", None, packet(0x10, &[b"\0\x04MQTX\x04\x02\0\x3C\0\x01c"]), BAD_VERSION),
        case(
            "3.1.2-1 protocol name in lower case",
            None,
            packet(0x10, &[b"\0\x04mqtt\x04\x02\0\x3C\0\x01c"]),
            BAD_VERSION,
        ),
        case("3.1.2-1 MQTT 3.1", None, packet(0x10, &[b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01c"]), BAD_VERSION),
        case("3.1.2-2 level 3", None, connect(3, 2, &[], &[]), BAD_VERSION),
        case("3.1.2-2 level 6", None, connect(6, 2, &[], &[]), BAD_VERSION),
        case("3.1.2-2 a bridge's level", None, connect(0x84, 2, &[], &[]), BAD_VERSION),
        case("3.1 nothing at all", None, b"\x10\x00", MALFORMED),
        case("3.1 cut in the protocol name", None, packet(0x10, &[b"\0\x04MQ"]), MALFORMED),
        case("3.1 cut before the client id", None, packet(0x10, &[b"\0\x04MQTT\x04\x02\0\x3C"]), MALFORMED),
        case(
            "1.5.5-1 padded length",
            None,
            [&[0x10, 0x8E, 0x00][..], &connect(5, 2, &[], &[])[2..]].concat(),
            MALFORMED,
        ),
        case(
            "2.2.3 (3.1.1) padded length",
            None,
            [&[0x10, 0x8D, 0x00][..], &connect(4, 2, &[], &[])[2..]].concat(),
            connected(plain_connect(Version::V3)),
        ),
    ];
    let tables: [(&str, u8, Parts<'_>, OfVersion); 9] = [
        ("3.1.2-3 reserved flag", 0x03, &[], |_| MALFORMED),
        ("3.1.2-11 will QoS without will", 0x0A, &[], |_| MALFORMED),
        ("3.1.2-13 will retain without will", 0x22, &[], |_| MALFORMED),
        ("3.1.3 bytes after the end", 0x02, &[b"x"], |_| MALFORMED),
        ("3.1.2-16 user name flag, no user name", 0x82, &[], |_| MALFORMED),
        ("3.1.2-9 will flag, no will", 0x06, &[], |_| MALFORMED),
        ("3.1.3.5 user name and password", 0xC2, &[b"\0\x01u", b"\0\x01p"], |version| {
            connected(Connect {
                username: Some("u".into()),
                password: Some(Bytes::from_static(b"p")),
                ..plain_connect(version)
            })
        }),
        ("3.1.3-11 user name not UTF-8", 0x82, &[b"\0\x01\xFF"], |_| MALFORMED),
        ("1.5.4-2 NUL in the user name", 0x82, &[b"\0\x02u\0"], |_| MALFORMED),
    ];
    for (clause, flags, rest, expected) in tables {
        cases.extend(both_levels(clause, flags, rest, expected));
    }
    for (level, gap) in [(4, &b""[..]), (5, b"\0")] {
        cases.push(case("3.1.2-12 will QoS 3", None, connect(level, 0x1E, &[], &[gap, b"\0\x01w\0\0"]), MALFORMED));
        cases.push(case(
            "4.7.1-1 wildcard in the will topic",
            None,
            connect(level, 6, &[], &[gap, b"\0\x01#\0\0"]),
            BAD_TOPIC,
        ));
        cases.push(case("4.7.3-1 empty will topic", None, connect(level, 6, &[], &[gap, b"\0\0\0\0"]), BAD_TOPIC));
        cases.push(case("1.5.4-2 NUL in the client id", None, connect_as("a\0", level, 2, &[], &[]), MALFORMED));
        cases.push(case(
            "1.5.4 U+FFFE in the client id is allowed",
            None,
            connect_as("\u{FFFE}", level, 2, &[], &[]),
            Expected::Taken,
        ));
        let surrogate: &[&[u8]] = &[b"\0\x04MQTT", &[level, 2, 0, 60], gap, b"\0\x03\xED\xA0\x80"];
        cases.push(case("1.5.4-1 surrogate in the client id", None, packet(0x10, surrogate), MALFORMED));
    }
    cases
}

fn publishes() -> Vec<Case> {
    let qos1 = |properties| Publish {
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: true,
        packet_id: Some(id(10)),
        ..published(properties)
    };
    let mut cases = vec![
        case("3.3 QoS 0", V3, b"\x30\x07\0\x03a/bhi", taken(Packet::Publish(published(b"")))),
        case("3.3 QoS 0", V5, publish5(&[]), taken(Packet::Publish(published(b"")))),
        case("3.3 DUP, QoS 1, retain", V3, b"\x3B\x09\0\x03a/b\0\x0Ahi", taken(Packet::Publish(qos1(b"")))),
        case("3.3 DUP, QoS 1, retain", V5, b"\x3B\x0A\0\x03a/b\0\x0A\0hi", taken(Packet::Publish(qos1(b"")))),
        case("3.3 QoS 2", V3, b"\x34\x09\0\x03a/b\0\x0Ahi", taken(Packet::Publish(Publish { dup: false, retain: false, qos: QoS::ExactlyOnce, ..qos1(b"") }))),
        case("3.3.3 no payload", V3, b"\x30\x05\0\x03a/b", taken(Packet::Publish(Publish { payload: b"", ..published(b"") }))),
        case("3.3.3 no payload", V5, b"\x30\x06\0\x03a/b\0", taken(Packet::Publish(Publish { payload: b"", ..published(b"") }))),
        case("3.3.2.3 no properties' length", V5, b"\x30\x05\0\x03a/b", MALFORMED),
        case(
            "3.3.2.3 all properties",
            V5,
            publish5(&[b"\x01\x01", b"\x02\0\0\0\x09", b"\x23\0\x03", b"\x08\0\x01r", b"\x09\0\x01c", b"\x26\0\x01k\0\x01v", b"\x26\0\x01k\0\x01v", b"\x03\0\x01t"]),
            taken(Packet::Publish(published(
                b"\x01\x01\x02\0\0\0\x09\x23\0\x03\x08\0\x01r\x09\0\x01c\x26\0\x01k\0\x01v\x26\0\x01k\0\x01v\x03\0\x01t",
            ))),
        ),
        case("3.3.2.3.3 message expiry 0", V5, publish5(&[b"\x02\0\0\0\0"]), Expected::Taken),
        case("3.3.2-8 topic alias 0", V5, publish5(&[b"\x23\0\0"]), Expected::Refused(ReasonCode::TOPIC_ALIAS_INVALID)),
        case("3.3.2.1 empty topic with an alias", V5, b"\x30\x06\0\0\x03\x23\0\x01", taken(Packet::Publish(Publish { topic: "", payload: b"", ..published(b"\x23\0\x01") }))),
        case("3.3.2.1 empty topic without an alias", V5, b"\x30\x03\0\0\0", PROTOCOL),
        case("4.7.3-1 empty topic", V3, b"\x30\x02\0\0", BAD_TOPIC),
        case("3.3.2.3.2 payload format 2", V5, publish5(&[b"\x01\x02"]), PROTOCOL),
        case("3.3.2.3.2 payload format twice", V5, publish5(&[b"\x01\x01", b"\x01\x01"]), PROTOCOL),
        case("3.3.2.3.4 topic alias twice", V5, publish5(&[b"\x23\0\x01", b"\x23\0\x01"]), PROTOCOL),
        case("3.3.2-14 wildcard in the response topic", V5, publish5(&[b"\x08\0\x01#"]), PROTOCOL),
        case("3.3.2.3.5 empty response topic", V5, publish5(&[b"\x08\0\0"]), PROTOCOL),
        case("3.3.2-13 response topic not UTF-8", V5, publish5(&[b"\x08\0\x01\xFF"]), MALFORMED),
        case("3.3.2-19 content type not UTF-8", V5, publish5(&[b"\x03\0\x01\xFF"]), MALFORMED),
        case("1.5.4-2 NUL in a user property's name", V5, publish5(&[b"\x26\0\x01\0\0\0"]), MALFORMED),
        case("1.5.4-2 NUL in a user property's value", V5, publish5(&[b"\x26\0\x01k\0\x01\0"]), MALFORMED),
        case("3.3.4-6 subscription id from a client", V5, publish5(&[b"\x0B\x01"]), PROTOCOL),
        case("2.2.2.2 receive maximum in PUBLISH", V5, publish5(&[b"\x21\0\x01"]), MALFORMED),
        case("2.2.2.2 unknown property", V5, publish5(&[b"\x04\0"]), MALFORMED),
        case("2.2.2.2 property 0xFF", V5, publish5(&[b"\xFF\x01"]), MALFORMED),
        case("2.2.2 property cut by the properties' end", V5, publish5(&[b"\x02\0\0"]), MALFORMED),
        case("2.2.2.1 properties longer than the packet", V5, b"\x30\x06\0\x03a/b\x05", MALFORMED),
        case("1.5.5-1 padded property length", V5, b"\x30\x07\0\x03a/b\x80\0", MALFORMED),
        case("2.2.2.1 property length not complete", V5, b"\x30\x06\0\x03a/b\x80", MALFORMED),
    ];
    let rest: [(&str, &[u8], OfBoth); 12] = [
        ("3.3.1-2 DUP with QoS 0", b"\x38\x06\0\x03a/b\0", || MALFORMED),
        ("2.2.1-3 packet id 0", b"\x32\x08\0\x03a/b\0\0\0", || PROTOCOL),
        ("2.2.1-2 no packet id", b"\x32\x05\0\x03a/b", || MALFORMED),
        ("2.2.1-2 half a packet id", b"\x32\x06\0\x03a/b\0", || MALFORMED),
        ("3.3.2-2 + in the topic", b"\x30\x06\0\x03a/+\0", || BAD_TOPIC),
        ("3.3.2-2 # in the topic", b"\x30\x06\0\x03a/#\0", || BAD_TOPIC),
        ("1.5.4-2 NUL in the topic", b"\x30\x06\0\x03a\0b\0", || MALFORMED),
        ("1.5.4-1 topic not UTF-8", b"\x30\x06\0\x03a\xC3(\0", || MALFORMED),
        ("1.5.4-1 surrogate in the topic", b"\x30\x06\0\x03\xED\xA0\x80\0", || MALFORMED),
        ("3.3.2 topic longer than the packet", b"\x30\x05\0\x09a/b", || MALFORMED),
        ("3.3.2 no topic", b"\x30\x00", || MALFORMED),
        ("1.5.4 U+FFFE in the topic", b"\x30\x06\0\x03\xEF\xBF\xBE\0", || Expected::Taken),
    ];
    for (clause, bytes, expected) in rest {
        cases.extend(both(clause, bytes, expected));
    }
    cases
}

fn acks() -> Vec<Case> {
    let kinds: [(&str, u8, OfAck, u8); 4] = [
        ("3.4 PUBACK", 0x40, Packet::Puback, 0x10),
        ("3.5 PUBREC", 0x50, Packet::Pubrec, 0x97),
        ("3.6 PUBREL", 0x62, Packet::Pubrel, 0x92),
        ("3.7 PUBCOMP", 0x70, Packet::Pubcomp, 0x92),
    ];
    let mut cases = Vec::new();
    for (clause, first, make, code) in kinds {
        let ok = |reason| taken(make(ack(reason)));
        cases.extend([
            case(clause, V3, packet(first, &[b"\x43\x21"]), ok(ReasonCode::SUCCESS)),
            case(clause, V5, packet(first, &[b"\x43\x21"]), ok(ReasonCode::SUCCESS)),
            case(clause, V5, packet(first, &[b"\x43\x21", &[code]]), ok(ReasonCode(code))),
            case(clause, V5, packet(first, &[b"\x43\x21", &[code], b"\0"]), ok(ReasonCode(code))),
            case(
                clause,
                V5,
                packet(first, &[b"\x43\x21", &[code], &properties(&[b"\x1F\0\x01r", b"\x26\0\x01k\0\x01v"])]),
                ok(ReasonCode(code)),
            ),
            case(
                clause,
                V5,
                packet(first, &[b"\x43\x21", &[code], &properties(&[b"\x1F\0\x01r", b"\x1F\0\x01r"])]),
                PROTOCOL,
            ),
            case(clause, V5, packet(first, &[b"\x43\x21", &[code], &properties(&[b"\x1F\0\x01\0"])]), MALFORMED),
            case(clause, V5, packet(first, &[b"\x43\x21", &[code], &properties(&[b"\x23\0\x01"])]), MALFORMED),
            case(clause, V5, packet(first, &[b"\x43\x21", &[code], b"\0x"]), MALFORMED),
            case(clause, V5, packet(first, &[b"\x43\x21\x05"]), PROTOCOL),
            case(clause, V3, packet(first, &[b"\x43\x21\0"]), MALFORMED),
            case(clause, V3, packet(first, &[b"\0\0"]), PROTOCOL),
            case(clause, V5, packet(first, &[b"\0\0"]), PROTOCOL),
            case(clause, V3, packet(first, &[b"\x43"]), MALFORMED),
            case(clause, V5, packet(first, &[]), MALFORMED),
        ]);
    }
    cases
}

fn subscriptions() -> Vec<Case> {
    let two = |subscription_id| {
        taken(Packet::Subscribe(Subscribe {
            packet_id: id(1),
            subscription_id,
            filters: vec![subscribed("a/+", QoS::AtLeastOnce), subscribed("#", QoS::ExactlyOnce)],
        }))
    };
    let subscribe5 = |props: &[&[u8]]| packet(0x82, &[&[0, 1], &properties(props), b"\0\x03a/+\x01\0\x01#\x02"]);
    let mut cases = vec![
        case("3.8 SUBSCRIBE", V3, subscribe(V3, &[("a/+", 1), ("#", 2)]), two(None)),
        case("3.8 SUBSCRIBE", V5, subscribe(V5, &[("a/+", 1), ("#", 2)]), two(None)),
        case(
            "3.8.2.1.2 subscription id",
            V5,
            subscribe5(&[b"\x0B\xFF\xFF\xFF\x7F", b"\x26\0\0\0\0"]),
            two(NonZeroU32::new(268_435_455)),
        ),
        case("3.8.2.1.2 subscription id 0", V5, subscribe5(&[b"\x0B\0"]), PROTOCOL),
        case("3.8.2.1.2 subscription id twice", V5, subscribe5(&[b"\x0B\x01", b"\x0B\x02"]), PROTOCOL),
        case("1.5.5-1 padded subscription id", V5, subscribe5(&[b"\x0B\x81\0"]), MALFORMED),
        case("1.5.5 subscription id of five bytes", V5, subscribe5(&[b"\x0B\xFF\xFF\xFF\xFF\x01"]), MALFORMED),
        case("2.2.2.2 reason string in SUBSCRIBE", V5, subscribe5(&[b"\x1F\0\0"]), MALFORMED),
        case(
            "3.8.3.1 all options",
            V5,
            subscribe(V5, &[("a", 0b0010_1110), ("b", 0b0001_0000)]),
            taken(Packet::Subscribe(Subscribe {
                packet_id: id(1),
                subscription_id: None,
                filters: vec![
                    SubscribeFilter {
                        no_local: true,
                        retain_as_published: true,
                        retain_handling: RetainHandling::Never,
                        ..subscribed("a", QoS::ExactlyOnce)
                    },
                    SubscribeFilter { retain_handling: RetainHandling::IfNew, ..subscribed("b", QoS::AtMostOnce) },
                ],
            })),
        ),
        case("3.8.3-4 (3.1.1) reserved bits", V3, subscribe(V3, &[("a", 0x05)]), MALFORMED),
        case("3.8.3-5 (5) reserved bits", V5, subscribe(V5, &[("a", 0x41)]), MALFORMED),
        case("3.8.3-5 (5) reserved bits", V5, subscribe(V5, &[("a", 0x80)]), MALFORMED),
        case("3.8.3.1 retain handling 3", V5, subscribe(V5, &[("a", 0x30)]), PROTOCOL),
        case("3.8.3-4 no local on a shared subscription", V5, subscribe(V5, &[("$share/g/a", 0x04)]), PROTOCOL),
        case("4.8.2 shared subscription", V5, subscribe(V5, &[("$share/g/a", 0x01)]), Expected::Taken),
        case("3.8.2 no properties", V5, b"\x82\x02\0\x01", MALFORMED),
    ];
    for version in [V3, V5] {
        let props: &[u8] = if version == V5 { &[0] } else { &[] };
        cases.extend([
            case("3.8.3-4 QoS 3", version, subscribe(version, &[("a", 3)]), MALFORMED),
            case("3.8.3-2 no filters", version, subscribe(version, &[]), PROTOCOL),
            case("2.2.1-3 packet id 0", version, packet(0x82, &[&[0, 0], props, b"\0\x01a\0"]), PROTOCOL),
            case("3.8.3 filter without options", version, packet(0x82, &[&[0, 1], props, b"\0\x01a"]), MALFORMED),
            case("3.8.3-1 filter not UTF-8", version, packet(0x82, &[&[0, 1], props, b"\0\x01\xFF\0"]), MALFORMED),
            case("4.7.3-1 empty filter", version, subscribe(version, &[("", 0)]), BAD_FILTER),
            case("4.7.1-1 # in the middle", version, subscribe(version, &[("a/#/b", 0)]), BAD_FILTER),
            case("4.7.1-1 # beside text", version, subscribe(version, &[("a#", 0)]), BAD_FILTER),
            case("4.7.1-2 + beside text", version, subscribe(version, &[("a", 0), ("a/b+", 0)]), BAD_FILTER),
            case("1.5.4-2 NUL in a filter", version, subscribe(version, &[("a\0", 0)]), MALFORMED),
            case("4.8.2-1 share without a group", version, subscribe(version, &[("$share//a", 0)]), BAD_FILTER),
            case("4.8.2-2 share with a wildcard group", version, subscribe(version, &[("$share/+/a", 0)]), BAD_FILTER),
            case(
                "3.10 UNSUBSCRIBE",
                version,
                unsubscribe(version, &["a/+", "#"]),
                taken(Packet::Unsubscribe(Unsubscribe { packet_id: id(1), filters: vec!["a/+".into(), "#".into()] })),
            ),
            case("3.10.3-2 no filters", version, unsubscribe(version, &[]), PROTOCOL),
            case("2.2.1-3 packet id 0", version, packet(0xA2, &[&[0, 0], props, b"\0\x01a"]), PROTOCOL),
            case("3.10.3 filter cut short", version, packet(0xA2, &[&[0, 1], props, b"\0\x02a"]), MALFORMED),
            case("4.7.1-1 # in the middle", version, unsubscribe(version, &["#/a"]), BAD_FILTER),
            case("4.7.3-1 empty filter", version, unsubscribe(version, &[""]), BAD_FILTER),
        ]);
    }
    cases.push(case(
        "3.10.2.1 subscription id in UNSUBSCRIBE",
        V5,
        packet(0xA2, &[&[0, 1], &properties(&[b"\x0B\x01"]), b"\0\x01a"]),
        MALFORMED,
    ));
    cases.push(case(
        "3.10.2.1.2 user property",
        V5,
        packet(0xA2, &[&[0, 1], &properties(&[b"\x26\0\0\0\0"]), b"\0\x01a"]),
        Expected::Taken,
    ));
    cases
}

fn ends() -> Vec<Case> {
    let bye = |reason, session_expiry| taken(Packet::Disconnect(Disconnect { reason, session_expiry }));
    let auth = |reason, data| taken(Packet::Auth(Auth { reason, method: "m".into(), data }));
    vec![
        case("3.14 DISCONNECT", V3, b"\xE0\x00", bye(ReasonCode::SUCCESS, None)),
        case("3.14 DISCONNECT", V5, b"\xE0\x00", bye(ReasonCode::SUCCESS, None)),
        case("3.14 (3.1.1) DISCONNECT has no body", V3, b"\xE0\x01\0", MALFORMED),
        case("3.14.2.1 reason", V5, b"\xE0\x01\x04", bye(ReasonCode::DISCONNECT_WITH_WILL, None)),
        case("3.14.2.2 no properties", V5, b"\xE0\x02\0\0", bye(ReasonCode::SUCCESS, None)),
        case(
            "3.14.2.2.2 session expiry",
            V5,
            packet(0xE0, &[b"\0", &properties(&[b"\x11\0\0\0\x09", b"\x1F\0\0"])]),
            bye(ReasonCode::SUCCESS, Some(9)),
        ),
        case(
            "3.14.2.2.2 session expiry twice",
            V5,
            packet(0xE0, &[b"\0", &properties(&[b"\x11\0\0\0\x09", b"\x11\0\0\0\x09"])]),
            PROTOCOL,
        ),
        case(
            "3.14.2.2.5 server reference from a client",
            V5,
            packet(0xE0, &[b"\0", &properties(&[b"\x1C\0\0"])]),
            PROTOCOL,
        ),
        case("3.14.2.1 a server's reason", V5, b"\xE0\x01\x8B", PROTOCOL),
        case("3.14.2.1 unknown reason", V5, b"\xE0\x01\x7F", PROTOCOL),
        case("3.14.2.2 bytes after the properties", V5, b"\xE0\x03\0\0x", MALFORMED),
        case("3.14.2.2 properties cut short", V5, b"\xE0\x02\0\x05", MALFORMED),
        case(
            "3.15 AUTH",
            V5,
            packet(0xF0, &[b"\x18", &properties(&[b"\x15\0\x01m", b"\x16\0\x01d"])]),
            auth(ReasonCode::CONTINUE_AUTHENTICATION, Some(Bytes::from_static(b"d"))),
        ),
        case(
            "3.15 AUTH again",
            V5,
            packet(0xF0, &[b"\x19", &properties(&[b"\x15\0\x01m"])]),
            auth(ReasonCode::REAUTHENTICATE, None),
        ),
        case(
            "3.15.2.1 success is the server's to say",
            V5,
            packet(0xF0, &[b"\0", &properties(&[b"\x15\0\x01m"])]),
            PROTOCOL,
        ),
        case("3.15.2.1 an empty AUTH says success", V5, b"\xF0\x00", PROTOCOL),
        case("3.15.2.1 unknown reason", V5, packet(0xF0, &[b"\x17", &properties(&[b"\x15\0\x01m"])]), PROTOCOL),
        case("3.15.2.2.2 no method", V5, b"\xF0\x02\x18\0", PROTOCOL),
        case("3.15.2.2.2 no method", V5, b"\xF0\x01\x18", PROTOCOL),
        case(
            "2.2.2.2 session expiry in AUTH",
            V5,
            packet(0xF0, &[b"\x18", &properties(&[b"\x11\0\0\0\0"])]),
            MALFORMED,
        ),
        case(
            "3.15.2.2 bytes after the properties",
            V5,
            packet(0xF0, &[b"\x18", &properties(&[b"\x15\0\x01m"]), b"x"]),
            MALFORMED,
        ),
    ]
}

/// The whole table.
pub(super) fn cases() -> Vec<Case> {
    [framing(), connects(), publishes(), acks(), subscriptions(), ends()].into_iter().flatten().collect()
}

#[test]
fn every_case_of_the_table_comes_out_as_the_specification_says() {
    let cases = cases();
    assert!(cases.len() > 250, "{}", cases.len());
    let mut wrong = Vec::new();
    for Case { clause, version, bytes, expected } in &cases {
        let actual = outcome(*version, bytes);
        let ok = match (expected, &actual) {
            (Expected::Packet(expected), Outcome::Packet(actual)) => expected == actual,
            (Expected::Refused(expected), Outcome::Refused(actual)) => expected == actual,
            (Expected::Incomplete(expected), Outcome::Incomplete(actual)) => expected == actual,
            (Expected::Taken, Outcome::Packet(_)) => true,
            _ => false,
        };
        if !ok {
            wrong.push(format!("{clause} ({version:?}) {bytes:02X?}\n  expected {expected:?}\n  actual   {actual:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// No decoder may depend on where the packet's end is, so a whole packet cut anywhere is incomplete or refused, and the
/// same packet with more behind it is the same packet.
#[test]
fn a_packet_cut_anywhere_is_never_taken_and_one_with_a_successor_is_the_same() {
    for Case { clause, version, bytes, expected } in &cases() {
        if matches!(expected, Expected::Packet(_) | Expected::Taken) {
            let whole = match frame::frame(bytes, super::MAX) {
                Ok(frame::Framing::Complete(frame)) => frame.total,
                other => panic!("{clause}: {other:?}"),
            };
            for end in 0..whole {
                assert!(matches!(outcome(*version, &bytes[..end]), Outcome::Incomplete(_)), "{clause} cut at {end}");
            }
            let longer = [bytes, &b"\xFF\x00\xFF\xFF"[..]].concat();
            assert_eq!(outcome(*version, &longer), outcome(*version, bytes), "{clause}");
        }
    }
}

#[test]
fn a_packet_above_the_limit_is_refused_before_its_body_is_there() {
    let total = 3 + 200;
    let head = b"\x30\xC8\x01";
    assert_eq!(frame::frame(head, total), Ok(frame::Framing::Incomplete { needed: total }));
    let error = frame::frame(head, total - 1).unwrap_err();
    assert_eq!(error.reason, ReasonCode::PACKET_TOO_LARGE);
    assert_eq!(error.detail, "the packet has 203 bytes, at most 202 are allowed (limit mqtt.limits.packet_bytes)");
}

/// How a CONNECT that cannot be read is answered: section 3.1.4, and table 3.1 of 3.1.1.
#[test]
fn a_refused_connect_is_answered_in_the_clients_own_version() {
    let check = |bytes: &[u8], expected: Option<[u8; 3]>| {
        let mut out = Vec::new();
        let error = super::read(None, bytes).unwrap_err();
        let answered = refuse_connect(&mut out, &error);
        assert_eq!(answered.then(|| [out[0], out[2], out[3]]), expected, "{error}");
        assert_eq!(answered, !out.is_empty());
    };
    check(&connect(3, 2, &[], &[]), Some([0x20, 0, 1]));
    check(&packet(0x10, &[b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01c"]), Some([0x20, 0, 1]));
    check(&connect(0x84, 2, &[], &[]), Some([0x20, 0, 1]));
    check(&connect_as("", 4, 0, &[], &[]), Some([0x20, 0, 2]));
    check(&connect(4, 3, &[], &[]), None);
    check(&packet(0x10, &[b"\0\x04HTTP\x04\x02\0\x3C\0\x01c"]), None);
    check(b"\xC0\x00", None);
    check(&connect(6, 2, &[], &[]), Some([0x20, 0, 0x84]));
    check(&connect(5, 3, &[], &[]), Some([0x20, 0, 0x81]));
}

#[test]
fn the_messages_say_what_to_do() {
    let detail = |version, bytes: &[u8]| super::read(version, bytes).unwrap_err().to_string();
    assert_eq!(
        detail(V3, &subscribe(V3, &[("a/#/b", 0)])),
        "the topic filter \"a/#/b\": '#' must be alone in the last level, as in a/b/# [MQTT-4.7.1-1] (0x8F topic filter invalid)"
    );
    assert_eq!(
        detail(None, &connect(3, 2, &[], &[])),
        "protocol level 3 is not served; MQTT 3.1.1 (4) and MQTT 5 (5) are [MQTT-3.1.2-2] (0x84 unsupported protocol version)"
    );
    assert_eq!(
        detail(V5, b"\x30\x05\0\x09a/b"),
        "the topic name is cut short by the packet's end (0x81 malformed packet)"
    );
}

#[test]
fn a_published_message_gives_its_properties() {
    let bytes = publish5(&[
        b"\x02\0\0\0\x09",
        b"\x23\0\x03",
        b"\x26\0\x03ack\0\x09committed",
        b"\x26\0\x03ack\0\x01x",
        b"\x03\0\x01t",
    ]);
    let Outcome::Packet(Packet::Publish(message)) = outcome(V5, &bytes) else { panic!() };
    assert_eq!(message.topic_alias(), NonZeroU16::new(3));
    assert_eq!(message.message_expiry(), Some(9));
    assert_eq!(message.user_property("ack"), Some("committed"));
    assert_eq!(message.user_property("none"), None);
    assert_eq!(&*message.forwarded_properties(), b"\x26\0\x03ack\0\x09committed\x26\0\x03ack\0\x01x\x03\0\x01t");
}
