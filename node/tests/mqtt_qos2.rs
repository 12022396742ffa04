//! QoS 2 in both directions, packet by packet: what comes once, what is told twice, and in which order.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    House, Node,
    mqtt::{
        Connect, Raw,
        Version::{self, V3, V5},
        ack, again, packet, publish, subscribe, user_property,
    },
};

const VERSIONS: [Version; 2] = [V3, V5];
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const TWO_HOURS: [u8; 5] = [0x11, 0, 0, 0x1C, 0x20];

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

fn stored(version: Version, client_id: &str) -> Connect<'_> {
    let properties = if version == V5 { &TWO_HOURS[..] } else { &[] };
    Connect { clean: false, properties, ..Connect::new(version, client_id) }
}

#[track_caller]
fn subscriber(node: &Node, version: Version, filter: &str, options: u8) -> Raw {
    let mut client = Raw::connect(node.mqtt, version, "subscriber");
    client.send(&subscribe(version, 1, filter, options));
    assert_eq!(client.expect(0x90).body.last(), Some(&(options & 3)));
    client
}

#[track_caller]
fn nothing_more(client: &mut Raw) {
    assert_eq!(client.next_within(Duration::from_millis(200)), None);
}

/// Sends a PUBLISH with QoS 2 and completes its exchange.
#[track_caller]
fn send(client: &mut Raw, version: Version, topic: &str, id: u16, payload: &str) {
    client.send(&publish(version, topic, 2, id, &[], payload.as_bytes()));
    assert_eq!(client.expect(PUBREC).ack(PUBREC), (id, 0));
    client.send(&ack(PUBREL, id));
    assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (id, 0));
}

// ---- from the client

#[test]
fn a_message_that_is_sent_again_is_one_message() {
    let (_house, node) = node();
    for version in VERSIONS {
        let mut hearing = subscriber(&node, V5, "#", 0);
        let device = format!("once-{version:?}");
        let topic = format!("devices/{device}/metrics");
        let mut client = Raw::connect(node.mqtt, version, &device);
        let reading = publish(version, &topic, 2, 7, &[], br#"{"t":1}"#);
        client.send(&[reading.clone(), again(&reading)].concat());
        client.send(&again(&reading));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (7, 0));
        client.send(&again(&reading));
        client.send(&ack(PUBREL, 7));
        // However many PUBRECs there were, it goes on.
        let pubcomp = std::iter::from_fn(|| client.next()).find(|packet| packet.first != PUBREC).expect("a PUBCOMP");
        assert_eq!(pubcomp.ack(PUBCOMP), (7, 0));
        client.send(&ack(PUBREL, 7));
        let unknown = if version == V5 { 0x92 } else { 0 };
        assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (7, unknown), "it is over");
        node.device_with(&device, "t", &json!(1));
        // The same id is free for another message.
        send(&mut client, version, &topic, 7, r#"{"t":2}"#);
        node.device_with(&device, "t", &json!(2));
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let message = hearing.next().expect("a message").message(V5);
            if message.topic == topic {
                heard.push(message.payload);
            }
        }
        assert_eq!(heard, [r#"{"t":1}"#, r#"{"t":2}"#]);
    }
    assert_eq!(node.settled_ledger()["received"], 4);
}

#[test]
fn pubrecs_and_pubacks_come_in_the_order_of_the_publishes() {
    let (_house, node) = node();
    for version in VERSIONS {
        let mut client = Raw::connect(node.mqtt, version, "order");
        let mut bytes = Vec::new();
        for id in 1..=90 {
            let topic = match id % 3 {
                0 => "plain".to_owned(),
                1 => format!("devices/here-{id}/metrics"),
                _ => format!("devices/there-{id}/metrics"),
            };
            bytes.extend(publish(version, &topic, 1 + u8::from(id % 2 == 0), id, &[], br#"{"t":1}"#));
        }
        client.send(&bytes);
        for id in 1..=90 {
            let first = if id % 2 == 0 { PUBREC } else { 0x40 };
            assert_eq!(client.expect(first).ack(first), (id, 0));
        }
    }
}

#[test]
fn a_pubrec_says_what_a_puback_would() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V5, "says");
    for (id, payload, properties, code) in [
        (1, &b"{bad"[..], vec![], 0x99),
        (2, br#"{"t":1}"#, user_property("ack", "processed"), 0),
        (3, br#"{"t":1}"#, user_property("ack", "maybe"), 0x99),
    ] {
        client.send(&publish(V5, "devices/says/metrics", 2, id, &properties, payload));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (id, code));
        client.send(&ack(PUBREL, id));
        // A refusal ends the exchange (section 4.3.3).
        assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (id, if code == 0 { 0 } else { 0x92 }));
    }
    // MQTT 3.1.1 has no word for it.
    let mut old = Raw::connect(node.mqtt, V3, "says-old");
    send(&mut old, V3, "devices/says-old/metrics", 1, "{bad");
}

#[test]
fn exchanges_that_are_not_over_count_for_the_receive_maximum() {
    let house = House::new().variable("TIDEGATE_MQTT__LIMITS__RECEIVE_MAXIMUM", "10");
    let node = house.start();
    for version in VERSIONS {
        let mut client = Raw::connect(node.mqtt, version, "maximum");
        for id in 1..=10 {
            client.send(&publish(version, "a", 2, id, &[], b"x"));
            assert_eq!(client.expect(PUBREC).ack(PUBREC), (id, 0));
        }
        client.send(&again(&publish(version, "a", 2, 3, &[], b"x")));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (3, 0), "one that is known takes no place");
        client.send(&ack(PUBREL, 3));
        client.expect(PUBCOMP);
        client.send(&publish(version, "a", 2, 11, &[], b"x"));
        client.expect(PUBREC);
        client.send(&publish(version, "a", 1 + u8::from(version == V3), 12, &[], b"x"));
        match version {
            V3 => assert_eq!(client.rest(), []),
            V5 => assert_eq!(client.expect(0xE0).disconnect_reason(), 0x93),
        }
    }
}

#[test]
fn an_exchange_goes_on_over_the_next_connection() {
    let (_house, node) = node();
    for version in VERSIONS {
        let device = format!("next-{version:?}");
        let topic = format!("devices/{device}/metrics");
        let reading = publish(version, &topic, 2, 1, &[], br#"{"t":1}"#);
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &device));
        client.send(&reading);
        client.expect(PUBREC);
        drop(client);
        let (mut client, present) = Raw::resume(node.mqtt, &stored(version, &device));
        assert!(present);
        client.send(&again(&reading));
        assert_eq!(client.expect(PUBREC).ack(PUBREC), (1, 0));
        client.send(&ack(PUBREL, 1));
        assert_eq!(client.expect(PUBCOMP).ack(PUBCOMP), (1, 0));
        node.device_with(&device, "t", &json!(1));
        // A client that has lost its memory begins at 1 again, and says that it is for the first time.
        client.send(&publish(version, &topic, 2, 1, &[], br#"{"t":2}"#));
        client.expect(PUBREC);
        drop(client);
        let (mut client, _) = Raw::resume(node.mqtt, &stored(version, &device));
        send(&mut client, version, &topic, 1, r#"{"t":3}"#);
        node.device_with(&device, "t", &json!(3));
    }
    assert_eq!(node.settled_ledger()["received"], 6);
}

// ---- to the client

#[test]
fn a_subscriber_gets_a_message_once() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let mut client = subscriber(&node, version, "two", 2);
        send(&mut publisher, V5, "two", 1, "x");
        let message = client.next().expect("the message").message(version);
        assert_eq!((message.qos, message.dup, &*message.payload), (2, false, "x"));
        client.send(&ack(PUBREC, message.id));
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (message.id, 0));
        client.send(&ack(PUBREC, message.id));
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (message.id, 0), "asked again");
        client.send(&ack(PUBCOMP, message.id));
        client.send(&ack(PUBREC, message.id));
        let unknown = if version == V5 { 0x92 } else { 0 };
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (message.id, unknown), "it is over");
        nothing_more(&mut client);
    }
}

#[test]
fn the_lower_qos_counts() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for subscribed in 0..=2 {
        let mut client = subscriber(&node, V5, "lower", subscribed);
        for published in 0..=2 {
            match published {
                2 => send(&mut publisher, V5, "lower", 1, "x"),
                _ => publisher.send(&publish(V5, "lower", published, 1, &[], b"x")),
            }
            if published == 1 {
                publisher.expect(0x40);
            }
            assert_eq!(client.next().expect("the message").message(V5).qos, subscribed.min(published));
        }
    }
}

#[test]
fn the_window_holds_until_the_pubcomp() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    let receive_maximum = [0x21, 0, 1];
    let mut client = Raw::connect_with(node.mqtt, &Connect { properties: &receive_maximum, ..Connect::new(V5, "one") });
    client.send(&subscribe(V5, 1, "w", 2));
    client.expect(0x90);
    for id in 1..=3 {
        send(&mut publisher, V5, "w", id, &id.to_string());
    }
    let first = client.next().expect("a message").message(V5);
    client.send(&ack(PUBREC, first.id));
    client.expect(PUBREL);
    nothing_more(&mut client);
    client.send(&ack(PUBCOMP, first.id));
    let second = client.next().expect("a message").message(V5);
    assert_eq!(second.payload, "2");
    // A client that refuses it (0x80 and above) gives its place back.
    client.send(&packet(PUBREC, &[&second.id.to_be_bytes()[..], &[0x97]].concat()));
    assert_eq!(client.next().expect("a message").message(V5).payload, "3");
}

#[test]
fn an_interrupted_delivery_goes_on_where_it_was() {
    let (_house, node) = node();
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    for version in VERSIONS {
        let id = format!("interrupted-{version:?}");
        let mut client = Raw::connect_with(node.mqtt, &stored(version, &id));
        client.send(&subscribe(version, 1, "i", 2));
        client.expect(0x90);
        for number in 1..=4 {
            send(&mut publisher, V5, "i", number, &number.to_string());
        }
        let sent: Vec<_> = (0..4).map(|_| client.next().expect("a message").message(version)).collect();
        // The first is over, the second has its PUBREC, and the third and fourth have nothing.
        client.send(&ack(PUBREC, sent[0].id));
        client.expect(PUBREL);
        client.send(&[ack(PUBCOMP, sent[0].id), ack(PUBREC, sent[1].id)].concat());
        client.expect(PUBREL);
        drop(client);
        let (mut client, present) = Raw::resume(node.mqtt, &stored(version, &id));
        assert!(present);
        assert_eq!(client.expect(PUBREL).ack(PUBREL), (sent[1].id, 0));
        for before in &sent[2..] {
            let message = client.next().expect("a message").message(version);
            assert_eq!((message.id, message.dup, &message.payload), (before.id, true, &before.payload));
            client.send(&ack(PUBREC, message.id));
        }
        client.send(&ack(PUBCOMP, sent[1].id));
        for before in &sent[2..] {
            assert_eq!(client.expect(PUBREL).ack(PUBREL), (before.id, 0));
            client.send(&ack(PUBCOMP, before.id));
        }
        nothing_more(&mut client);
        drop(client);
        let (mut client, _) = Raw::resume(node.mqtt, &stored(version, &id));
        nothing_more(&mut client);
    }
}
