//! What the node does with clients that break the rules, byte by byte. After each the node goes on, and its log has one line
//! about it.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    House, Node, eventually,
    mqtt::{
        Connect, Packet, Raw,
        Version::{self, V3, V5},
        packet, publish, string, subscribe, user_property, variable_length,
    },
};

const VERSIONS: [Version; 2] = [V3, V5];

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

/// The node lives, and exactly one line of its log (connections come and go below `info`) has these words.
#[track_caller]
fn noted_once(node: &Node, words: &[&str]) {
    let lines = node.logged(words);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    node.assert_alive();
}

/// A client of each version that breaks a rule is closed: a v5 client is told `reason`, a v3 client just loses its
/// connection. The log has one line about it with the client's id and `words`.
#[track_caller]
fn closed(name: &str, reason: u8, words: &str, offence: impl Fn(Version) -> Vec<u8>) {
    let (_house, node) = node();
    let mut bystander = Raw::connect(node.mqtt, V5, "bystander");
    for version in VERSIONS {
        let id = format!("{name}-{version:?}");
        let mut client = Raw::connect(node.mqtt, version, &id);
        client.send(&offence(version));
        check_goodbye(version, &client.rest(), reason);
        noted_once(&node, &[&format!("client={id} "), words]);
    }
    assert_eq!(node.log().matches(" WARN ").count(), 2, "one line for each offence");
    bystander.send(&packet(0xC0, b""));
    bystander.expect(0xD0);
}

#[track_caller]
fn check_goodbye(version: Version, packets: &[Packet], reason: u8) {
    match (version, packets) {
        (V3, []) => {}
        (V5, [bye]) => assert_eq!(bye.disconnect_reason(), reason, "{bye:02X?}"),
        _ => panic!("{version:?}: {packets:02X?}"),
    }
}

// ---- CONNECT

#[test]
fn a_connect_may_come_byte_by_byte() {
    let (_house, node) = node();
    for version in VERSIONS {
        let mut client = Raw::open(node.mqtt);
        let mut bytes = Connect::new(version, "slow").bytes();
        bytes.extend(packet(0xC0, b""));
        for byte in bytes {
            client.send(&[byte]);
        }
        assert_eq!(client.expect(0x20).body[..2], [0, 0]);
        client.expect(0xD0);
    }
    // And what stands right behind the CONNECT in one segment is not lost.
    let mut client = Raw::open(node.mqtt);
    let mut bytes = Connect::new(V5, "quick").bytes();
    bytes.extend(publish(V5, "devices/quick/metrics", 1, 7, &[], br#"{"t":1}"#));
    bytes.extend(packet(0xC0, b""));
    client.send(&bytes);
    client.expect(0x20);
    let answers = [client.next().expect("two answers"), client.next().expect("two answers")];
    assert!(answers.iter().any(|answer| answer.first == 0x40 && answer.puback() == (7, 0)), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.first == 0xD0), "{answers:?}");
    node.device_with("quick", "t", &json!(1));
}

#[test]
fn the_connack_says_what_is_offered() {
    let (_house, node) = node();
    let mut client = Raw::open(node.mqtt);
    let session_expiry = [0x11, 0, 1, 0, 0];
    client.send(&Connect { properties: &session_expiry, ..Connect::new(V5, "") }.bytes());
    let connack = client.expect(0x20);
    let properties = &connack.body[3..];
    let starts = |property: &[u8]| properties.windows(property.len()).any(|window| window == property);
    assert_eq!(connack.body[..2], [0, 0], "no session, success");
    assert!(starts(&[0x11, 0, 0, 0x1C, 0x20]), "sessions are kept for two hours at most: {properties:02X?}");
    assert!(starts(&[0x21, 0x04, 0x00]), "receive maximum 1,024: {properties:02X?}");
    assert!(starts(&[0x22, 0, 32]), "topic alias maximum 32: {properties:02X?}");
    assert!(!properties.contains(&0x24), "any QoS: {properties:02X?}");
    assert!(!properties.contains(&0x25), "messages are retained: {properties:02X?}");
    assert!(starts(&[0x27, 0, 0x10, 0, 0]), "maximum packet size 1 MiB: {properties:02X?}");
    assert!(!properties.contains(&0x2A), "subscriptions may be shared: {properties:02X?}");
    let assigned = properties.iter().position(|byte| *byte == 0x12).expect("an assigned client id");
    assert_eq!(&properties[assigned + 3..assigned + 8], b"auto-", "{properties:02X?}");
}

#[test]
fn what_is_no_connect_is_refused() {
    for (name, bytes, words) in [
        ("publish", publish(V5, "a", 0, 0, &[], b""), "must be CONNECT"),
        ("ping", packet(0xC0, b""), "must be CONNECT"),
        ("http", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "HTTP on the MQTT port"),
        ("tls", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01], "TLS handshake"),
        ("zeros", vec![0; 64], "refused a CONNECT"),
        ("name", packet(0x10, b"\0\x04MQTX\x04\x02\0\0\0\0"), "protocol name"),
    ] {
        let (_house, node) = node();
        let mut client = Raw::open(node.mqtt);
        client.send(&bytes);
        // Only HTTP is answered in its own words; whoever speaks no MQTT would not understand a CONNACK.
        let answer = client.rest();
        assert_eq!(answer.is_empty(), name != "http", "{name}: {answer:?}");
        noted_once(&node, &[words]);
        assert_eq!(node.log().matches("refused a ").count(), 1, "{name}");
    }
}

#[test]
fn a_bad_connect_is_answered_in_its_version() {
    let (_house, node) = node();
    let connect = |level: u8, flags: u8, rest: &[u8]| {
        let mut body = string("MQTT");
        body.extend_from_slice(&[level, flags, 0, 60]);
        body.extend_from_slice(rest);
        packet(0x10, &body)
    };
    // Level, flags, rest, and the code of the CONNACK; none where MQTT 3.1.1 knows no word for it.
    let cases: [(u8, u8, &[u8], Option<u8>); 7] = [
        (3, 0x02, b"\0\x01a", Some(0x01)),
        (6, 0x02, b"\0\0\x01a", Some(0x84)),
        (4, 0x03, b"\0\x01a", None),
        (5, 0x03, b"\0\0\x01a", Some(0x81)),
        (5, 0x02, b"\0\0\x01a+", Some(0x81)),
        (5, 0x02, b"\0\0\x01\0", Some(0x81)),
        (4, 0x00, b"\0\0", Some(0x02)),
    ];
    for (index, (level, flags, rest, code)) in cases.into_iter().enumerate() {
        let mut client = Raw::open(node.mqtt);
        client.send(&connect(level, flags, rest));
        let answers = client.rest();
        let codes: Vec<u8> = answers.iter().map(|answer| answer.body[1]).collect();
        assert_eq!(codes, code.into_iter().collect::<Vec<_>>(), "case {index}: {answers:02X?}");
        assert!(answers.iter().all(|answer| answer.first == 0x20 && answer.body[0] == 0), "{answers:02X?}");
        eventually("one line a case", || (node.logged(&["refused a CONNECT"]).len() == index + 1).then_some(()));
    }
    node.assert_alive();
}

#[test]
fn a_connection_without_a_connect_is_closed_in_time() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__CONNECT_TIMEOUT_MS", "300");
    let node = house.start();
    let begin = Instant::now();
    let mut silent = Raw::open(node.mqtt);
    let mut half = Raw::open(node.mqtt);
    half.send(&Connect::new(V5, "half").bytes()[..9]);
    assert_eq!((silent.rest(), half.rest()), (vec![], vec![]));
    let took = begin.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&took), "{took:?}");
    eventually("a line for each", || (node.logged(&["no CONNECT within 300ms"]).len() == 2).then_some(()));
    let mut client = Raw::connect(node.mqtt, V5, "in-time");
    std::thread::sleep(Duration::from_millis(400));
    client.send(&packet(0xC0, b""));
    client.expect(0xD0);
    node.assert_alive();
}

#[test]
fn a_large_connect_is_refused_before_it_is_read() {
    let (_house, node) = node();
    let mut client = Raw::open(node.mqtt);
    let mut bytes = vec![0x10];
    bytes.extend(variable_length(64 * 1024));
    client.send(&bytes);
    assert_eq!(client.rest(), []);
    noted_once(&node, &["refused a CONNECT", "mqtt.limits.pre_auth_packet_bytes"]);
}

// ---- rules of an open connection

#[test]
fn a_second_connect_ends_the_connection() {
    closed("second", 0x82, "a second CONNECT", |version| Connect::new(version, "other").bytes());
}

#[test]
fn an_oversized_packet_is_refused_by_its_header() {
    closed("large", 0x95, "limit mqtt.limits.packet_bytes", |_| {
        let mut bytes = vec![0x30];
        bytes.extend(variable_length(1024 * 1024));
        bytes
    });
}

#[test]
fn malformed_packets_end_the_connection() {
    closed("flags", 0x81, "may not have the flags", |_| packet(0x81, &[0, 1]));
    closed("qos3", 0x81, "both QoS bits", |_| packet(0x36, b"\0\x01a\0\x01"));
    closed("length", 0x81, "remaining length", |_| vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF]);
    closed("id0", 0x82, "packet id", |version| publish(version, "a", 1, 0, &[], b""));
    closed("nul", 0x81, "U+0000", |version| publish(version, "a\0b", 1, 1, &[], b""));
    closed("utf8", 0x81, "UTF-8", |_| packet(0x30, b"\0\x02\xC3\x28"));
}

#[test]
fn a_topic_with_wildcards_ends_the_connection() {
    closed("wild", 0x90, "'+' or '#'", |version| publish(version, "devices/+/metrics", 1, 1, &[], b"{}"));
}

#[test]
fn silence_past_the_keep_alive_ends_the_connection() {
    let (_house, node) = node();
    for version in VERSIONS {
        let id = format!("silent-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &Connect { keep_alive: 1, ..Connect::new(version, &id) });
        // A PINGREQ keeps it alive.
        std::thread::sleep(Duration::from_millis(900));
        let mut heard = Instant::now();
        client.send(&packet(0xC0, b""));
        client.expect(0xD0);
        std::thread::sleep(Duration::from_millis(900));
        client.send(&packet(0xC0, b""));
        client.expect(0xD0);
        heard = heard.max(Instant::now());
        let goodbye = client.rest();
        let silent = heard.elapsed();
        check_goodbye(version, &goodbye, 0x8D);
        // One and a half times the keep alive, looked at once a second; the rest is for a busy machine.
        assert!((1_450..4_000).contains(&silent.as_millis()), "{silent:?}");
        noted_once(&node, &[&format!("client={id} "), "nothing heard"]);
    }
    let mut patient = Raw::connect_with(node.mqtt, &Connect { keep_alive: 0, ..Connect::new(V5, "patient") });
    assert_eq!(patient.next_within(Duration::from_secs(3)), None);
    patient.send(&packet(0xC0, b""));
    patient.expect(0xD0);
}

#[test]
fn bad_filters_end_the_connection_or_are_refused() {
    for filter in ["a/#/b", "a+", ""] {
        let (_house, node) = node();
        let mut client = Raw::connect(node.mqtt, V5, "filters");
        client.send(&subscribe(V5, 1, filter, 0));
        let answer = client.next().expect("an answer");
        let code = if answer.first == 0x90 { answer.body.last().copied() } else { Some(answer.disconnect_reason()) };
        assert!(matches!(code, Some(0x81 | 0x82 | 0x8F)), "{filter}: {answer:02X?}");
        noted_once(&node, &["client=filters "]);
    }
}

// ---- PUBLISH and its PUBACK

#[test]
fn bad_readings_are_refused_in_the_puback() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V5, "bad");
    let ack = user_property("ack", "maybe");
    let cases: [(&str, &[u8], &[u8], u8); 6] = [
        ("devices/bad/metrics", b"{not json", &[], 0x99),
        ("devices/bad/metrics", b"\"text\"", &[], 0x99),
        ("devices/bad/metrics", br#"{"ts":"yesterday"}"#, &[], 0x99),
        ("devices/bad/metrics", br#"{"deviceId":"other"}"#, &[], 0x99),
        ("devices//metrics", b"{}", &[], 0x90),
        ("devices/bad/metrics", b"{}", &ack, 0x99),
    ];
    for (id, (topic, payload, properties, code)) in (1..).zip(cases) {
        client.send(&publish(V5, topic, 1, id, properties, payload));
        assert_eq!(client.expect(0x40).puback(), (id, code), "{topic} {}", String::from_utf8_lossy(payload));
        eventually("one line each", || {
            (node.logged(&["client=bad ", "refused a reading"]).len() == usize::from(id)).then_some(())
        });
    }
    // MQTT 3.1.1 has no word for it: acknowledged, or the device would send it for ever; counted and logged.
    let mut old = Raw::connect(node.mqtt, V3, "bad-old");
    old.send(&publish(V3, "devices/bad-old/metrics", 1, 9, &[], b"{not json"));
    assert_eq!(old.expect(0x40).puback(), (9, 0));
    noted_once(&node, &["client=bad-old ", "refused a reading"]);
    client.send(&publish(V5, "devices/bad/metrics", 1, 99, &[], br#"{"t":1}"#));
    assert_eq!(client.expect(0x40).puback(), (99, 0), "the connection goes on");
    assert_eq!(node.settled_ledger()["committed"], 1);
}

#[test]
fn pubacks_come_in_the_order_of_the_publishes() {
    const PUBLISHES: u16 = 200;
    let (_house, node) = node();
    for version in VERSIONS {
        let mut client = Raw::connect(node.mqtt, version, "gateway");
        let mut bytes = Vec::new();
        for id in 1..=PUBLISHES {
            // Devices of both loops, plain messages that are answered at once, and refusals.
            bytes.extend(match id % 5 {
                0 => publish(version, "plain/topic", 1, id, &[], b"x"),
                1 => publish(version, &format!("devices/order-{id}/metrics"), 1, id, &[], b"{bad"),
                _ => publish(version, &format!("devices/order-{id}/metrics"), 1, id, &[], br#"{"t":1}"#),
            });
        }
        client.send(&bytes);
        for id in 1..=PUBLISHES {
            let code = if id % 5 == 1 && version == V5 { 0x99 } else { 0 };
            assert_eq!(client.expect(0x40).puback(), (id, code), "{version:?}");
        }
    }
    assert_eq!(node.settled_ledger()["committed"], u64::from(PUBLISHES) / 5 * 3 * 2);
}

#[test]
fn a_client_past_the_receive_maximum_is_told_so() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V5, "flood");
    let reading = |id: u16| publish(V5, "devices/flood/metrics", 1, id, &[], br#"{"t":1}"#);
    // One segment holds more than the node may take before it has answered one.
    let bytes: Vec<u8> = (1..=1_500).flat_map(reading).collect();
    // The node may close before the last byte is written; where the bytes come in smaller pieces, it stops reading in time
    // and answers all.
    let _ = client.try_send(&bytes);
    for id in 1..=1_500 {
        let packet = client.next().expect("a PUBACK or a DISCONNECT");
        if packet.first == 0xE0 {
            check_goodbye(V5, &[packet], 0x93);
            assert_eq!(client.rest(), []);
            break;
        }
        assert_eq!(packet.puback(), (id, 0));
    }
    node.assert_alive();
}

#[test]
fn the_same_packet_id_twice_is_answered_twice() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V3, "twice");
    let mut bytes = publish(V3, "devices/twice/metrics", 1, 5, &[], br#"{"t":1}"#);
    let mut again = publish(V3, "devices/twice/metrics", 1, 5, &[], br#"{"t":2}"#);
    again[0] |= 0x08;
    bytes.extend(again);
    client.send(&bytes);
    assert_eq!((client.expect(0x40).puback(), client.expect(0x40).puback()), ((5, 0), (5, 0)));
    node.device_with("twice", "t", &json!(2));
}

// ---- delivery

#[test]
fn unacknowledged_messages_wait_for_the_subscriber() {
    let (_house, node) = node();
    let receive_maximum = [0x21, 0, 2];
    let mut subscriber =
        Raw::connect_with(node.mqtt, &Connect { properties: &receive_maximum, ..Connect::new(V5, "slow-subscriber") });
    subscriber.send(&subscribe(V5, 1, "q/+", 1));
    subscriber.expect(0x90);
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for id in 1..=5 {
        publisher.send(&publish(V5, &format!("q/{id}"), 1, id, &[], b"x"));
        publisher.expect(0x40);
    }
    let mut seen = Vec::new();
    for round in 0..5 {
        if round == 0 {
            seen.push(subscriber.expect(0x32));
            seen.push(subscriber.expect(0x32));
            assert_eq!(subscriber.next_within(Duration::from_millis(200)), None, "the client takes two at a time");
        } else if round < 4 {
            seen.push(subscriber.expect(0x32));
        }
        // Each acknowledgement lets one more come.
        let packet_id = &seen[round].body[5..7];
        subscriber.send(&packet(0x40, packet_id));
    }
    let topics: Vec<_> = seen.iter().map(|message| message.body[2..5].to_vec()).collect();
    assert_eq!(topics, [b"q/1", b"q/2", b"q/3", b"q/4", b"q/5"]);
}

#[test]
fn a_subscriber_that_does_not_read_stops_nobody() {
    let (_house, node) = node();
    let mut deaf = Raw::connect(node.mqtt, V3, "deaf");
    deaf.send(&subscribe(V3, 1, "flood/#", 0));
    deaf.expect(0x90);
    let mut hearing = Raw::connect(node.mqtt, V3, "hearing");
    hearing.send(&subscribe(V3, 1, "flood/last", 0));
    hearing.expect(0x90);
    let mut publisher = Raw::connect(node.mqtt, V3, "publisher");
    let message = publish(V3, "flood/x", 0, 0, &[], &vec![b'x'; 100_000]);
    // Far more than sockets and the node's buffer hold.
    for _ in 0..200 {
        publisher.send(&message);
    }
    publisher.send(&publish(V3, "flood/last", 0, 0, &[], b"end"));
    hearing.expect(0x30);
    assert!(node.metric("tidegate_mqtt_messages_dropped_total") > 0.0, "what the deaf one lost is counted");
    node.assert_alive();
}

/// A client that breaks a rule while it goes on sending still learns why: its socket is not reset under it.
#[test]
fn who_is_closed_amid_a_flood_still_reads_why() {
    let (_house, node) = node();
    for round in 0..20 {
        let mut client = Raw::connect(node.mqtt, V5, &format!("flood-{round}"));
        let flood = publish(V5, "a/b", 0, 0, &[], &[b'x'; 1_000]).repeat(200);
        client.send(&[&b"\x30\x02\0\0"[..], &flood].concat());
        for _ in 0..20 {
            let _ = client.try_send(&flood);
        }
        check_goodbye(V5, &client.rest(), 0x81);
    }
    node.assert_alive();
}
