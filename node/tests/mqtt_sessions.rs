//! Sessions that outlive their connections: what is there when the client comes back, what is not, and who gets a session.

mod support;

use std::time::{Duration, Instant};

use support::{
    House, Node, eventually,
    mqtt::{
        Connect, Packet, Raw,
        Version::{self, V3, V5},
        ack, disconnect, packet, property, publish, subscribe, unsubscribe,
    },
};

const VERSIONS: [Version; 2] = [V3, V5];
const SESSION_EXPIRY: u8 = 0x11;
const MESSAGE_EXPIRY: u8 = 0x02;
const WILL_DELAY: u8 = 0x18;
/// As long as sessions are kept at most.
const TWO_HOURS: [u8; 5] = [SESSION_EXPIRY, 0, 0, 0x1C, 0x20];

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

/// The CONNECT of a client whose session is to outlive its connection.
fn stored(version: Version, client_id: &str) -> Connect<'_> {
    let properties = if version == V5 { &TWO_HOURS[..] } else { &[] };
    Connect { clean: false, properties, ..Connect::new(version, client_id) }
}

/// Publishes and waits until the node has taken it.
#[track_caller]
fn send(publisher: &mut Raw, topic: &str, qos: u8, id: u16, payload: &str) {
    publisher.send(&publish(V5, topic, qos, id, &[], payload.as_bytes()));
    match qos {
        0 => ping(publisher),
        _ => assert_eq!(publisher.expect(0x40).puback(), (id, 0)),
    }
}

/// The node has handled everything that was sent before.
#[track_caller]
fn ping(client: &mut Raw) {
    client.send(&packet(0xC0, b""));
    client.expect(0xD0);
}

#[track_caller]
fn subscribed(client: &mut Raw, version: Version, filter: &str, options: u8) {
    client.send(&subscribe(version, 1, filter, options));
    assert_eq!(client.expect(0x90).body.last().map(|code| code & 0x80), Some(0));
}

/// The client leaves, and the node knows it.
#[track_caller]
fn leave(mut client: Raw, version: Version) {
    client.send(&disconnect(version, 0, &[]));
    assert_eq!(client.rest(), []);
}

/// The payloads, ids and DUP flags of the next messages.
#[track_caller]
fn messages(client: &mut Raw, version: Version, count: usize) -> Vec<(String, u16, bool)> {
    let next = |_| {
        let message = client.next().expect("a message").message(version);
        (message.payload, message.id, message.dup)
    };
    (0..count).map(next).collect()
}

#[track_caller]
fn nothing_more(client: &mut Raw) {
    assert_eq!(client.next_within(Duration::from_millis(200)), None);
}

#[test]
fn messages_wait_for_a_client_that_is_away() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("away-{version:?}");
        let topic = format!("plant/{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        subscribed(&mut client, version, "plant/+", 1);
        leave(client, version);
        for (number, qos) in [(1, 1), (2, 0), (3, 1), (4, 1)] {
            send(&mut publisher, &topic, qos, number, &number.to_string());
        }
        let (mut client, present) = Raw::resume(node.mqtt, &stored(version, &id));
        assert!(present, "{version:?}");
        let waiting = messages(&mut client, version, 3);
        assert_eq!(waiting.iter().map(|(payload, ..)| &**payload).collect::<Vec<_>>(), ["1", "3", "4"]);
        assert!(waiting.iter().all(|(_, id, dup)| *id > 0 && !dup), "sent for the first time: {waiting:?}");
        waiting.iter().for_each(|(_, id, _)| client.send(&ack(0x40, *id)));
        // Its subscription has not gone, and what was acknowledged does not come again.
        send(&mut publisher, &topic, 1, 5, "5");
        assert_eq!(messages(&mut client, version, 1)[0].0, "5");
        leave(client, version);
        let (mut client, _) = Raw::resume(node.mqtt, &stored(version, &id));
        let again = messages(&mut client, version, 1);
        assert_eq!((&*again[0].0, again[0].2), ("5", true));
        leave(client, version);
    }
    assert!(node.metric("tidegate_mqtt_messages_dropped_total{reason=\"offline\"") >= 2.0, "QoS 0 does not wait");
    assert_eq!(node.metric("tidegate_mqtt_sessions_stored"), 2.0);
}

#[test]
fn what_is_not_acknowledged_comes_again_in_order_under_its_id() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("again-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        subscribed(&mut client, version, "again", 1);
        // More than the window of 32 holds.
        for number in 1..=40 {
            send(&mut publisher, "again", 1, number, &number.to_string());
        }
        let first = messages(&mut client, version, 32);
        nothing_more(&mut client);
        client.send(&ack(0x40, first[1].1));
        let next = messages(&mut client, version, 1);
        assert_eq!(next[0].0, "33");
        drop(client);
        let (mut client, present) = Raw::resume(node.mqtt, &stored(version, &id));
        assert!(present);
        let second = messages(&mut client, version, 32);
        let expected: Vec<_> = first.iter().chain(&next).filter(|(payload, ..)| payload != "2").collect();
        assert_eq!(second.len(), expected.len());
        for (sent, expected) in second.iter().zip(expected) {
            assert_eq!((&sent.0, sent.1, sent.2), (&expected.0, expected.1, true), "{version:?}");
        }
        second.iter().for_each(|(_, id, _)| client.send(&ack(0x40, *id)));
        let rest = messages(&mut client, version, 7);
        assert_eq!(
            rest.iter().map(|(payload, ..)| &**payload).collect::<Vec<_>>(),
            ["34", "35", "36", "37", "38", "39", "40"]
        );
        assert!(rest.iter().all(|(.., dup)| !dup));
        rest.iter().for_each(|(_, id, _)| client.send(&ack(0x40, *id)));
        nothing_more(&mut client);
    }
}

#[test]
fn a_later_connection_may_have_a_smaller_window() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "smaller"));
    subscribed(&mut client, V5, "w", 1);
    for number in 1..=5 {
        send(&mut publisher, "w", 1, number, &number.to_string());
    }
    messages(&mut client, V5, 5);
    drop(client);
    let properties = [&TWO_HOURS[..], &[0x21, 0, 2]].concat();
    let (mut client, _) = Raw::resume(node.mqtt, &Connect { properties: &properties, ..stored(V5, "smaller") });
    let mut seen = Vec::new();
    for round in 0..5 {
        if round == 0 {
            seen.extend(messages(&mut client, V5, 2));
            nothing_more(&mut client);
        } else if round < 4 {
            seen.extend(messages(&mut client, V5, 1));
        }
        client.send(&ack(0x40, seen[round].1));
    }
    assert_eq!(seen.iter().map(|(payload, ..)| &**payload).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_clean_start_ends_the_session() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("clean-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        subscribed(&mut client, version, "clean", 1);
        leave(client, version);
        send(&mut publisher, "clean", 1, 1, "lost");
        let (mut client, present) = Raw::resume(node.mqtt, &Connect { clean: true, ..stored(version, &id) });
        assert!(!present);
        send(&mut publisher, "clean", 1, 2, "not subscribed");
        ping(&mut client);
        leave(client, version);
        let (mut client, present) = Raw::resume(node.mqtt, &stored(version, &id));
        // 3.1.1's clean session is never kept; a clean start of 5 begins one that is.
        assert_eq!(present, version == V5);
        nothing_more(&mut client);
    }
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total{reason=\"session-ended\""), 2.0);
}

#[test]
fn a_session_expires() {
    let (_house, node) = node();
    let expiry = property(SESSION_EXPIRY, 1);
    let connect = Connect { properties: &expiry, ..stored(V5, "short") };
    let mut client = Raw::connect_with(node.mqtt, &connect);
    subscribed(&mut client, V5, "a", 1);
    drop(client);
    eventually("it is gone", || (node.metric("tidegate_mqtt_sessions_stored") == 0.0).then_some(()));
    Raw::connect_with(node.mqtt, &connect);
}

#[test]
fn the_client_may_change_the_expiry_when_it_leaves() {
    let (_house, node) = node();
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "at-once"));
    client.send(&disconnect(V5, 0, &property(SESSION_EXPIRY, 0)));
    assert_eq!(client.rest(), []);
    assert_eq!(node.metric("tidegate_mqtt_sessions_stored"), 0.0);
    let client = Raw::connect_with(node.mqtt, &stored(V5, "at-once"));
    leave(client, V5);
    assert!(Raw::resume(node.mqtt, &stored(V5, "at-once")).1, "left out, it is the CONNECT's");
    // From nothing to something is not allowed ([MQTT-3.14.2-2]).
    let mut client = Raw::connect(node.mqtt, V5, "rising");
    client.send(&disconnect(V5, 0, &property(SESSION_EXPIRY, 10)));
    assert_eq!(client.expect(0xE0).disconnect_reason(), 0x82);
}

#[test]
fn unsubscribing_holds_for_the_session() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("un-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        subscribed(&mut client, version, "un/1", 1);
        subscribed(&mut client, version, "un/2", 1);
        client.send(&unsubscribe(version, 3, "un/1"));
        client.expect(0xB0);
        leave(client, version);
        send(&mut publisher, "un/1", 1, 1, "no");
        send(&mut publisher, "un/2", 1, 2, "yes");
        let (mut client, _) = Raw::resume(node.mqtt, &stored(version, &id));
        assert_eq!(messages(&mut client, version, 1)[0].0, "yes");
        nothing_more(&mut client);
    }
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("twice-{version:?}");
        let mut first = Raw::connect_with(node.mqtt, &stored(version, &id));
        subscribed(&mut first, version, "twice", 1);
        send(&mut publisher, "twice", 1, 1, "1");
        let (mut second, present) = Raw::resume(node.mqtt, &stored(version, &id));
        assert!(present);
        let last = first.rest().pop().expect("the message, and in MQTT 5 the goodbye");
        match version {
            V3 => assert_eq!(last.message(V3).payload, "1"),
            V5 => assert_eq!(last.disconnect_reason(), 0x8E),
        }
        assert_eq!(messages(&mut second, version, 1)[0].0, "1");
        send(&mut publisher, "twice", 1, 2, "2");
        assert_eq!(messages(&mut second, version, 1)[0].0, "2");
        leave(second, version);
        assert!(Raw::resume(node.mqtt, &stored(version, &id)).1);
    }
}

#[test]
fn a_full_queue_drops_the_newest_and_counts_them() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__QUEUE", "3");
    let node = house.start();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "full"));
    subscribed(&mut client, V5, "full", 1);
    leave(client, V5);
    for number in 1..=5 {
        send(&mut publisher, "full", 1, number, &number.to_string());
    }
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total{reason=\"queue\""), 2.0);
    let (mut client, _) = Raw::resume(node.mqtt, &stored(V5, "full"));
    let waiting = messages(&mut client, V5, 3);
    assert_eq!(waiting.iter().map(|(payload, ..)| &**payload).collect::<Vec<_>>(), ["1", "2", "3"]);
    nothing_more(&mut client);
}

#[test]
fn a_full_queue_is_full_by_bytes_too() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__QUEUE_BYTES", "10000");
    let node = house.start();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut client = Raw::connect_with(node.mqtt, &stored(V3, "full"));
    subscribed(&mut client, V3, "full", 1);
    leave(client, V3);
    let payload = "x".repeat(4_000);
    (1..=5).for_each(|number| send(&mut publisher, "full", 1, number, &payload));
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total{reason=\"queue\""), 3.0);
    let (mut client, _) = Raw::resume(node.mqtt, &stored(V3, "full"));
    messages(&mut client, V3, 2);
    nothing_more(&mut client);
}

#[test]
fn the_number_of_stored_sessions_has_a_limit() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__SESSIONS", "1");
    let node = house.start();
    leave(Raw::connect_with(node.mqtt, &stored(V5, "one")), V5);
    for (version, code) in [(V3, 3), (V5, 0x97)] {
        let mut client = Raw::open(node.mqtt);
        client.send(&stored(version, "another").bytes());
        let connack = client.expect(0x20);
        assert_eq!(connack.body[..2], [0, code]);
        assert_eq!(String::from_utf8_lossy(&connack.body).contains("mqtt.limits.sessions"), version == V5);
        assert_eq!(client.rest(), []);
    }
    Raw::connect(node.mqtt, V5, "clean");
    assert!(Raw::resume(node.mqtt, &stored(V5, "one")).1, "its own place is its own");
    node.assert_alive();
}

// ---- message expiry

#[test]
fn messages_expire_while_they_wait_and_tell_what_is_left() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut client = Raw::connect_with(node.mqtt, &stored(V5, "late"));
    subscribed(&mut client, V5, "late", 1);
    leave(client, V5);
    for (number, seconds) in [(1, 1), (2, 100)] {
        publisher.send(&publish(V5, "late", 1, number, &property(MESSAGE_EXPIRY, seconds), b"x"));
        publisher.expect(0x40);
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let (mut client, _) = Raw::resume(node.mqtt, &stored(V5, "late"));
    let message = client.next().expect("the one that has not expired").message(V5);
    assert_eq!(message.properties[0], MESSAGE_EXPIRY, "{message:?}");
    let left = u32::from_be_bytes(message.properties[1..5].try_into().expect("four bytes"));
    assert!((50..100).contains(&left), "{left}");
    nothing_more(&mut client);
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total{reason=\"expired\""), 1.0);
}

// ---- wills

/// A client that subscribed to wills.
fn heir(node: &Node) -> Raw {
    let mut heir = Raw::connect(node.mqtt, V5, "heir");
    subscribed(&mut heir, V5, "will/#", 2);
    heir
}

#[test]
fn a_will_waits_and_the_client_may_be_back_in_time() {
    let (_house, node) = node();
    let mut heir = heir(&node);
    let delay = property(WILL_DELAY, 1);
    let connect = Connect { will: Some(("will/a", b"gone", 1, &delay)), ..stored(V5, "delayed") };
    // Lost without a goodbye: the will waits.
    let begin = Instant::now();
    drop(Raw::connect_with(node.mqtt, &connect));
    let will = heir.next().expect("the will").message(V5);
    let took = begin.elapsed();
    assert_eq!((&*will.topic, &*will.payload, will.qos), ("will/a", "gone", 1));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    heir.send(&ack(0x40, will.id));
    // Back in time: it is not published.
    drop(Raw::resume(node.mqtt, &connect));
    let (client, present) = Raw::resume(node.mqtt, &connect);
    assert!(present);
    assert_eq!(heir.next_within(Duration::from_millis(2_500)), None);
    leave(client, V5);
    nothing_more(&mut heir);
}

#[test]
fn the_end_of_the_session_does_not_wait_for_the_will_delay() {
    let (_house, node) = node();
    let mut heir = heir(&node);
    let delay = property(WILL_DELAY, 3_600);
    // A session that ends with its connection.
    let will = Some(("will/a", &b"a"[..], 0, &delay[..]));
    drop(Raw::connect_with(node.mqtt, &Connect { will, ..Connect::new(V5, "clean") }));
    assert_eq!(heir.next().expect("the will").message(V5).payload, "a");
    // One that expires first.
    let expiry = property(SESSION_EXPIRY, 1);
    drop(Raw::connect_with(node.mqtt, &Connect { will, properties: &expiry, ..stored(V5, "short") }));
    assert_eq!(heir.next().expect("the will").message(V5).payload, "a");
    // One that is started anew.
    drop(Raw::connect_with(node.mqtt, &Connect { will, ..stored(V5, "anew") }));
    nothing_more(&mut heir);
    Raw::connect(node.mqtt, V5, "anew");
    assert_eq!(heir.next().expect("the will").message(V5).payload, "a");
}

#[test]
fn only_a_goodbye_without_a_complaint_takes_the_will_along() {
    let (_house, node) = node();
    let mut heir = heir(&node);
    for version in VERSIONS {
        let connect = Connect { will: Some(("will/b", b"b", 2, &[])), ..Connect::new(version, "leaver") };
        leave(Raw::connect_with(node.mqtt, &connect), version);
        nothing_more(&mut heir);
    }
    for reason in [0x04, 0x80] {
        let connect = Connect { will: Some(("will/b", b"b", 2, &[])), ..Connect::new(V5, "leaver") };
        let mut client = Raw::connect_with(node.mqtt, &connect);
        client.send(&disconnect(V5, reason, &[]));
        assert_eq!(client.rest(), []);
        let will = heir.next().expect("the will").message(V5);
        assert_eq!((will.qos, &*will.payload), (2, "b"));
        heir.send(&ack(0x50, will.id));
        assert_eq!(heir.expect(0x62).ack(0x62), (will.id, 0));
        heir.send(&ack(0x70, will.id));
    }
    // Taken over, without a delay: the old connection's will is published.
    let connect = Connect { will: Some(("will/c", b"c", 0, &[])), ..stored(V5, "taken") };
    let first = Raw::connect_with(node.mqtt, &connect);
    let second = Raw::resume(node.mqtt, &connect);
    assert_eq!(heir.next().expect("the will").message(V5).payload, "c");
    drop((first, second));
}

#[test]
fn a_wills_message_expiry_begins_when_it_is_published() {
    let (_house, node) = node();
    let mut heir = heir(&node);
    let properties = [property(WILL_DELAY, 1), property(MESSAGE_EXPIRY, 60)].concat();
    drop(Raw::connect_with(node.mqtt, &Connect { will: Some(("will/e", b"e", 0, &properties)), ..stored(V5, "e") }));
    let will = heir.next().expect("the will").message(V5);
    assert_eq!(will.properties, property(MESSAGE_EXPIRY, 60));
}

// ---- what the CONNACK says

#[test]
fn the_connack_tells_what_was_granted() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__KEEP_ALIVE_S", "30");
    let node = house.start();
    let connack = |connect: &Connect<'_>| -> Packet {
        let mut client = Raw::open(node.mqtt);
        client.send(&connect.bytes());
        client.expect(0x20)
    };
    let has = |packet: &Packet, property: &[u8]| packet.body.windows(property.len()).any(|window| window == property);
    let server_keep_alive = [0x13, 0, 30];
    for (keep_alive, told) in [(0, true), (60, true), (30, false), (10, false)] {
        let answer = connack(&Connect { keep_alive, ..Connect::new(V5, "keep") });
        assert_eq!(has(&answer, &server_keep_alive), told, "{keep_alive}: {answer:02X?}");
    }
    for (expiry, told) in [(0, None), (7_200, None), (7_201, Some(7_200)), (u32::MAX, Some(7_200))] {
        let properties = property(SESSION_EXPIRY, expiry);
        let answer = connack(&Connect { properties: &properties, ..stored(V5, &format!("e{expiry}")) });
        let said =
            told.map_or(answer.body.contains(&SESSION_EXPIRY), |told| !has(&answer, &property(SESSION_EXPIRY, told)));
        assert!(!said, "{expiry}: {answer:02X?}");
    }
}

#[test]
fn no_session_outlives_its_connection_where_that_is_configured() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__SESSION_EXPIRY_S", "0");
    let node = house.start();
    for version in VERSIONS {
        leave(Raw::connect_with(node.mqtt, &stored(version, "none")), version);
        assert!(!Raw::resume(node.mqtt, &stored(version, "none")).1);
    }
    assert_eq!(node.metric("tidegate_mqtt_sessions_stored"), 0.0);
}

// ---- topic aliases

fn alias(number: u8) -> [u8; 3] {
    [0x23, 0, number]
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let (_house, node) = node();
    let mut subscriber = Raw::connect(node.mqtt, V5, "subscriber");
    subscribed(&mut subscriber, V5, "alias/#", 0);
    let mut client = Raw::connect(node.mqtt, V5, "client");
    for (topic, payload) in [("alias/1", "a"), ("", "b"), ("alias/2", "c"), ("", "d")] {
        client.send(&publish(V5, topic, 0, 0, &alias(32), payload.as_bytes()));
    }
    for expected in [("alias/1", "a"), ("alias/1", "b"), ("alias/2", "c"), ("alias/2", "d")] {
        let message = subscriber.next().expect("a message").message(V5);
        assert_eq!((&*message.topic, &*message.payload), expected);
        assert!(message.properties.is_empty(), "an alias belongs to its connection");
    }
    // A reading by its alias is a reading.
    client.send(&publish(V5, "devices/client/metrics", 1, 1, &alias(1), br#"{"t":1}"#));
    client.send(&publish(V5, "", 1, 2, &alias(1), br#"{"t":2}"#));
    assert_eq!((client.expect(0x40).puback(), client.expect(0x40).puback()), ((1, 0), (2, 0)));
    assert_eq!(node.settled_ledger()["received"], 2);
    for (properties, code) in [(alias(33), 0x94), (alias(0), 0x94), (alias(7), 0x82)] {
        let mut client = Raw::connect(node.mqtt, V5, "wrong");
        client.send(&publish(V5, if code == 0x94 { "a" } else { "" }, 0, 0, &properties, b""));
        assert_eq!(client.expect(0xE0).disconnect_reason(), code);
    }
}

#[test]
fn a_subscriber_that_takes_aliases_gets_them_at_once_and_then_for_topics_that_come_again() {
    let (_house, node) = node();
    let maximum = [0x22, 0, 1];
    let connect = Connect { properties: &maximum, ..Connect::new(V5, "subscriber") };
    let mut subscriber = Raw::connect_with(node.mqtt, &connect);
    subscribed(&mut subscriber, V5, "#", 0);
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for topic in ["a", "a", "a", "b", "b", "b", "a"] {
        publisher.send(&publish(V5, topic, 0, 0, &[], b"x"));
    }
    let spellings: Vec<_> = (0..7)
        .map(|_| {
            let message = subscriber.next().expect("a message").message(V5);
            (message.topic, message.properties)
        })
        .collect();
    let full = |topic: &str| (topic.to_owned(), vec![]);
    let with = |topic: &str| (topic.to_owned(), alias(1).to_vec());
    assert_eq!(spellings, [with("a"), with(""), with(""), full("b"), with("b"), with(""), full("a")]);
}

#[test]
fn a_session_of_3_1_1_and_5_is_one_session() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let mut client = Raw::connect_with(node.mqtt, &stored(V3, "upgraded"));
    subscribed(&mut client, V3, "both", 1);
    leave(client, V3);
    let properties = [0x03, 0, 4].iter().copied().chain(*b"text").collect::<Vec<u8>>();
    publisher.send(&publish(V5, "both", 1, 1, &properties, b"x"));
    publisher.expect(0x40);
    let (mut client, present) = Raw::resume(node.mqtt, &stored(V5, "upgraded"));
    assert!(present);
    assert_eq!(client.next().expect("the message").message(V5).properties, properties);
}

#[test]
fn what_a_slow_subscriber_is_owed_waits_for_room() {
    const MESSAGES: u16 = 60;
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__QUEUE_BYTES", "100000000");
    let node = house.start();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let mut client = Raw::connect(node.mqtt, version, "slow");
        subscribed(&mut client, version, "slow", 1);
        // Far more than sockets and the node's buffer hold, and the client reads nothing meanwhile.
        let payload = "x".repeat(400_000);
        for number in 1..=MESSAGES {
            send(&mut publisher, "slow", 1, number, &format!("{number} {payload}"));
        }
        for number in 1..=MESSAGES {
            let message = client.next().expect("a message").message(version);
            assert_eq!(message.payload.split(' ').next(), Some(&*number.to_string()));
            client.send(&ack(0x40, message.id));
        }
        nothing_more(&mut client);
    }
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total"), 0.0);
}
