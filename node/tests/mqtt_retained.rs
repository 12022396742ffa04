//! Retained messages: what is kept, who gets it, and that it is there after the node was killed.

mod support;

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::json;
use support::{
    House, Node, eventually,
    mqtt::{
        Connect, Raw,
        Version::{self, V3, V5},
        publish, subscribe,
    },
    published::{Published, packet_with_id, retained, subscribe_with_id, unsubscribe},
};

const VERSIONS: [Version; 2] = [V3, V5];
/// Bits of a SUBSCRIBE's options (section 3.8.3.1).
const RETAIN_AS_PUBLISHED: u8 = 0b1000;
const IF_NEW: u8 = 0b01_0000;
const NEVER: u8 = 0b10_0000;

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

fn texts(messages: &[Published]) -> Vec<(&str, &str, u8, bool)> {
    let mut texts: Vec<_> = messages
        .iter()
        .map(|message| (message.topic.as_str(), message.payload.as_str(), message.qos, message.retain))
        .collect();
    texts.sort_unstable();
    texts
}

#[test]
fn the_last_message_of_a_topic_is_sent_to_who_subscribes() {
    for version in VERSIONS {
        let (_house, node) = node();
        let mut publisher = Raw::connect(node.mqtt, version, "publisher");
        for (topic, qos, payload) in [("a/1", 0, "old"), ("a/1", 1, "one"), ("a/2", 0, "two"), ("a/3", 1, "three")] {
            publisher.send(&retained(version, topic, qos, 7, &[], payload.as_bytes()));
        }
        publisher.expect(0x40);
        publisher.expect(0x40);
        let mut subscriber = Raw::connect(node.mqtt, version, "subscriber");
        assert_eq!(subscriber.subscribed(&subscribe(version, 1, "a/#", 1)), 1);
        let messages: Vec<_> = (0..3).map(|_| subscriber.message(version)).collect();
        let expected = [("a/1", "one", 1, true), ("a/2", "two", 0, true), ("a/3", "three", 1, true)];
        assert_eq!(texts(&messages), expected, "{version:?}");

        // An empty payload clears; what is delivered as it comes has no flag.
        assert_eq!(publisher.acked(&retained(version, "a/1", 1, 8, &[], b"")), 0);
        assert!(!subscriber.message(version).retain);
        assert_eq!(publisher.acked(&publish(version, "a/2", 1, 9, &[], b"not retained")), 0);
        assert_eq!(subscriber.message(version).payload, "not retained");
        let mut later = Raw::connect(node.mqtt, version, "later");
        assert_eq!(later.subscribed(&subscribe(version, 1, "a/#", 0)), 0);
        let messages: Vec<_> = (0..2).map(|_| later.message(version)).collect();
        assert_eq!(texts(&messages), [("a/2", "two", 0, true), ("a/3", "three", 0, true)], "at the subscription's QoS");
        assert!(later.messages(version).is_empty());
        assert_eq!(node.metric("tidegate_mqtt_retained_messages"), 2.0);
    }
}

#[test]
fn a_retained_message_keeps_qos_2() {
    for version in VERSIONS {
        let (_house, node) = node();
        let mut publisher = Raw::connect(node.mqtt, version, "publisher");
        publisher.send(&retained(version, "a", 2, 9, &[], b"once"));
        publisher.expect(0x50);
        publisher.send(&packet_with_id(0x62, 9));
        publisher.expect(0x70);
        for (qos, expected) in [(2, 2), (1, 1), (0, 0)] {
            let mut subscriber = Raw::connect(node.mqtt, version, "subscriber");
            subscriber.subscribed(&subscribe(version, 1, "a", qos));
            let message = Published::of(version, &subscriber.next().expect("a PUBLISH"));
            assert_eq!((message.payload.as_str(), message.qos, message.retain), ("once", expected, true));
        }
    }
}

#[test]
fn retain_handling_and_retain_as_published() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    assert_eq!(publisher.acked(&retained(V5, "a", 1, 1, &[], b"1")), 0);
    let mut client = Raw::connect(node.mqtt, V5, "client");
    let mut sent = |options: u8| {
        client.subscribed(&subscribe(V5, 1, "a", options));
        client.messages(V5).len()
    };
    assert_eq!(sent(NEVER), 0);
    assert_eq!(sent(IF_NEW), 0, "it was there");
    assert_eq!(sent(0), 1);
    assert_eq!(sent(0), 1, "at every SUBSCRIBE");
    client.send(&unsubscribe(V5, 2, "a"));
    client.expect(0xB0);
    client.subscribed(&subscribe(V5, 1, "a", IF_NEW));
    assert_eq!(client.messages(V5).len(), 1, "now it is new");

    let mut as_published = Raw::connect(node.mqtt, V5, "as-published");
    as_published.subscribed(&subscribe(V5, 1, "b", RETAIN_AS_PUBLISHED));
    for (bytes, flag) in [(retained(V5, "b", 0, 0, &[], b"1"), true), (publish(V5, "b", 0, 0, &[], b"2"), false)] {
        publisher.send(&bytes);
        assert_eq!(as_published.message(V5).retain, flag);
    }
    // 3.1.1 knows no handling: every SUBSCRIBE is answered with what is retained.
    let mut old = Raw::connect(node.mqtt, V3, "old");
    for _ in 0..2 {
        old.subscribed(&subscribe(V3, 1, "a", 0));
        assert_eq!(old.messages(V3).len(), 1);
    }
}

#[test]
fn a_retained_message_carries_its_properties_and_the_subscription_identifier_and_expires() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    // Message expiry, content type, a user property.
    let with_expiry = |seconds: u8| [&[0x02, 0, 0, 0, seconds][..], b"\x03\0\x04text", b"\x26\0\x01k\0\x01v"].concat();
    publisher.acked(&retained(V5, "long", 1, 1, &with_expiry(200), b"1"));
    publisher.acked(&retained(V5, "short", 1, 2, &with_expiry(1), b"2"));
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.subscribed(&subscribe_with_id(1, "long", 1, 9));
    let message = client.message(V5);
    assert!((100..=200).contains(&message.expiry.expect("it has one")), "{message:?}");
    assert_eq!(message.subscription_ids, [9]);
    eventually("the short one is forgotten", || (node.metric("tidegate_mqtt_retained_messages") == 1.0).then_some(()));
    client.subscribed(&subscribe(V5, 2, "#", 1));
    let messages = client.messages(V5);
    assert_eq!(texts(&messages), [("long", "1", 1, true)]);
}

#[test]
fn wildcards_do_not_match_topics_that_begin_with_a_dollar() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.acked(&retained(V5, "$own/a", 1, 1, &[], b"1"));
    client.acked(&retained(V5, "plain/a", 1, 2, &[], b"2"));
    for (filter, topics) in
        [("#", vec!["plain/a"]), ("+/a", vec!["plain/a"]), ("$own/#", vec!["$own/a"]), ("$own/+", vec!["$own/a"])]
    {
        client.subscribed(&subscribe(V5, 3, filter, 0));
        let messages = client.messages(V5);
        assert_eq!(messages.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>(), topics, "{filter}");
    }
    // The node alone speaks under $SYS.
    assert_eq!(client.acked(&retained(V5, "$SYS/broker/uptime", 1, 4, &[], b"1")), 0x87);
}

#[test]
fn a_will_and_a_reading_are_retained_too() {
    let (_house, node) = node();
    let mut device = Raw::connect(node.mqtt, V5, "d1");
    assert_eq!(device.acked(&retained(V5, "devices/d1/metrics", 1, 1, &[], br#"{"t":21}"#)), 0);
    node.device_with("d1", "t", &json!(21));
    let with_will = Connect { will: Some(("wills/x", b"gone", 1, &[])), ..Connect::new(V5, "x") };
    let mut bytes = with_will.bytes();
    // The will's retain flag, in the CONNECT's flags: header, "MQTT", level.
    bytes[2 + 6 + 1] |= 0x20;
    let mut dying = Raw::open(node.mqtt);
    dying.send(&bytes);
    assert_eq!(dying.expect(0x20).body[1], 0);
    drop(dying);
    eventually("the will is retained", || (node.metric("tidegate_mqtt_retained_messages") == 2.0).then_some(()));
    let mut client = Raw::connect(node.mqtt, V3, "client");
    client.subscribed(&subscribe(V3, 1, "#", 1));
    let messages: Vec<_> = (0..2).map(|_| client.message(V3)).collect();
    assert_eq!(texts(&messages), [("devices/d1/metrics", r#"{"t":21}"#, 1, true), ("wills/x", "gone", 1, true)]);
    node.settled_ledger();
}

#[test]
fn at_the_limit_a_message_is_refused_by_its_name_or_delivered_only() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__RETAINED_MESSAGES", "2");
    let node = house.start();
    let mut listener = Raw::connect(node.mqtt, V5, "listener");
    listener.subscribed(&subscribe(V5, 1, "#", 0));
    let mut five = Raw::connect(node.mqtt, V5, "five");
    for topic in ["a", "b"] {
        assert_eq!(five.acked(&retained(V5, topic, 1, 1, &[], b"1")), 0);
        listener.message(V5);
    }
    five.send(&retained(V5, "c", 1, 2, &[], b"1"));
    let refused = five.expect(0x40);
    assert_eq!(refused.puback(), (2, 0x97));
    assert!(refused.reason_string().contains("mqtt.limits.retained_messages"), "{}", refused.reason_string());
    assert_eq!(five.acked(&retained(V5, "a", 1, 3, &[], b"2")), 0, "in place of another");
    assert_eq!(listener.message(V5).payload, "2", "the refused one is not delivered");
    let mut three = Raw::connect(node.mqtt, V3, "three");
    assert_eq!(three.acked(&retained(V3, "d", 1, 1, &[], b"3")), 0);
    assert_eq!(listener.message(V5).payload, "3");
    assert_eq!(node.metric("tidegate_mqtt_messages_not_retained_total"), 2.0);
    assert_eq!(node.metric("tidegate_mqtt_retained_messages"), 2.0);
    node.logged(&["not retained", "mqtt.limits.retained_messages", "topic"]);
}

#[test]
fn what_was_acknowledged_is_retained_after_the_node_was_killed() {
    const TOPICS: u16 = 5_000;
    let house = House::new();
    let mut node = house.start();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let payload = |n: u16, round: u8| format!("{round}-{n}");
    let mut bytes = Vec::new();
    for (round, topics) in [(1, 0..TOPICS), (2, 0..TOPICS / 2)] {
        for n in topics {
            let topic = format!("fleet/{n}/config");
            let properties = if n % 7 == 0 { &[0x02, 0, 0, 0x0F, 0xFF][..] } else { &[] };
            bytes = retained(V5, &topic, 1, n % 1_000 + 1, properties, payload(n, round).as_bytes());
            publisher.send(&bytes);
            assert_eq!(publisher.expect(0x40).puback().1, 0);
        }
    }
    drop(bytes);
    for n in (0..TOPICS).step_by(10) {
        assert_eq!(publisher.acked(&retained(V5, &format!("fleet/{n}/config"), 1, 1, &[], b"")), 0);
    }
    for round in 0..2 {
        node.kill9();
        node = house.start();
        let mut client = Raw::connect(node.mqtt, V5, "client");
        client.subscribed(&subscribe(V5, 1, "fleet/+/config", 1));
        let left = (0..TOPICS).filter(|n| n % 10 != 0);
        let messages = client.messages_by_topic(V5, left.clone().count());
        for n in left {
            let message = &messages[&format!("fleet/{n}/config")];
            let expected = payload(n, if n < TOPICS / 2 { 2 } else { 1 });
            assert_eq!((&message.payload, message.retain), (&expected, true), "start {round}");
            assert_eq!(message.expiry.is_some(), n % 7 == 0);
        }
        assert!(client.messages(V5).is_empty());
    }
    // And after an orderly stop.
    assert_eq!(node.stop(), Some(0));
    let node = house.start();
    assert_eq!(node.metric("tidegate_mqtt_retained_messages"), f64::from(TOPICS - TOPICS / 10));
}

/// Far more than the connection's buffer and the session's queue would hold.
#[test]
fn a_subscription_with_very_many_matches_drops_none_and_holds_nobody_up() {
    const TOPICS: usize = 60_000;
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let payload = "x".repeat(100);
    for chunk in 0..TOPICS / 500 {
        let bytes: Vec<u8> =
            (0..500).flat_map(|n| retained(V5, &format!("t/{chunk}/{n}"), 0, 0, &[], payload.as_bytes())).collect();
        publisher.send(&bytes);
    }
    publisher.acked(&retained(V5, "t/last", 1, 1, &[], b"end"));
    assert_eq!(node.metric("tidegate_mqtt_retained_messages"), (TOPICS + 1) as f64);

    // One that reads at once, one at QoS 1 with a window of its own, and one that reads late.
    let mut slow = Raw::connect(node.mqtt, V5, "slow");
    slow.send(&subscribe(V5, 1, "t/#", 0));
    for (id, qos) in [("fast", 0), ("acking", 1)] {
        let mut client = Raw::connect(node.mqtt, V5, id);
        client.subscribed(&subscribe(V5, 1, "t/#", qos));
        let begun = Instant::now();
        client.messages_by_topic(V5, 1_000);
        // Others are served meanwhile.
        let mut other = Raw::connect(node.mqtt, V5, "other");
        other.subscribed(&subscribe(V5, 1, "live", 1));
        publisher.acked(&publish(V5, "live", 1, 1, &[], b"1"));
        assert_eq!(other.message(V5).payload, "1");
        client.messages_by_topic(V5, TOPICS + 1 - 1_000);
        assert!(client.messages(V5).is_empty());
        eprintln!("{id}: {} messages in {:?}", TOPICS + 1, begun.elapsed());
    }
    slow.expect(0x90);
    let messages = slow.messages_by_topic(V5, TOPICS + 1);
    assert!(messages.values().all(|message| message.retain));
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total"), 0.0);
}

#[test]
fn what_is_published_during_a_long_replay_is_not_lost_nor_older_than_the_replay() {
    const TOPICS: u32 = 5_000;
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for n in 0..TOPICS {
        publisher.send(&retained(V5, &format!("t/{n:05}"), 0, 0, &[], b"old"));
    }
    publisher.acked(&retained(V5, "done", 1, 1, &[], b""));
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.subscribed(&subscribe(V5, 1, "t/+", 1));
    // The window is full, and the client has acknowledged nothing: the replay stands.
    for n in [0, TOPICS / 2, TOPICS - 1] {
        publisher.acked(&retained(V5, &format!("t/{n:05}"), 1, 1, &[], b"new"));
    }
    let mut last = std::collections::BTreeMap::new();
    let mut count = 0;
    while last.len() < TOPICS as usize || last.get("t/04999") != Some(&"new".to_owned()) {
        let message = client.message(V5);
        count += 1;
        last.insert(message.topic, message.payload);
    }
    count += client.messages(V5).len();
    for n in 0..TOPICS {
        let new = [0, TOPICS / 2, TOPICS - 1].contains(&n);
        assert_eq!(last[&format!("t/{n:05}")], if new { "new" } else { "old" });
    }
    assert!((TOPICS as usize..=TOPICS as usize + 3).contains(&count), "{count}");
}

#[test]
fn an_unsubscribe_ends_a_replay() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for n in 0..1_000 {
        publisher.send(&retained(V5, &format!("t/{n}"), 1, n + 1, &[], b"1"));
        publisher.expect(0x40);
    }
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.subscribed(&subscribe(V5, 1, "#", 1));
    client.send(&unsubscribe(V5, 2, "#"));
    let mut got = Vec::new();
    loop {
        let packet = client.next().expect("an UNSUBACK");
        if packet.first == 0xB0 {
            break;
        }
        got.push(Published::of(V5, &packet).id);
    }
    got.iter().for_each(|id| client.send(&packet_with_id(0x40, *id)));
    assert!(client.messages(V5).is_empty() && got.len() < 100, "{}", got.len());
}

// ---- mosquitto's tools

fn mosquitto(node: &Node, program: &str, arguments: &[&str]) -> Output {
    let (host, port) = (node.mqtt.ip().to_string(), node.mqtt.port().to_string());
    let output = Command::new(program).args(["-h", &host, "-p", &port]).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{error}; install mosquitto-clients"))
}

#[test]
fn mosquittos_tools_set_get_and_clear() {
    let house = House::new();
    let mut node = house.start();
    for version in ["mqttv311", "mqttv5"] {
        let topic = format!("tool/{version}");
        let set = mosquitto(&node, "mosquitto_pub", &["-V", version, "-q", "1", "-r", "-t", &topic, "-m", "kept"]);
        assert!(set.status.success(), "{set:?}");
        node.kill9();
        node = house.start();
        let get = ["-V", version, "-t", "tool/#", "-C", "1", "-W", "10", "-F", "%r %q %t %p", "-q", "1"];
        let got = mosquitto(&node, "mosquitto_sub", &get);
        assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), format!("1 1 {topic} kept"));
        let cleared = mosquitto(&node, "mosquitto_pub", &["-V", version, "-q", "1", "-r", "-t", &topic, "-n"]);
        assert!(cleared.status.success(), "{cleared:?}");
        let none = mosquitto(&node, "mosquitto_sub", &["-V", version, "-t", "tool/#", "-C", "1", "-W", "1"]);
        assert!(none.stdout.is_empty(), "{none:?}");
    }
    let mut raw = Raw::connect(node.mqtt, V5, "silent");
    raw.subscribed(&subscribe(V5, 1, "tool/#", 0));
    raw.is_silent(Duration::from_millis(200));
}
