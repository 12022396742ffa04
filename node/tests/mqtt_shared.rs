//! Shared subscriptions: one member of a group gets a message, each in turn, wherever its connection lives.

mod support;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use support::{
    House, Node, eventually,
    mqtt::{
        Connect, Packet, Raw,
        Version::{self, V3, V5},
        packet, publish, subscribe,
    },
    published::{Published, packet_with_id, retained, subscribe_with_id, unsubscribe},
};

const VERSIONS: [Version; 2] = [V3, V5];
const NO_LOCAL: u8 = 0b100;

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

/// Members with ids that put them on both loops.
#[track_caller]
fn members(node: &Node, version: Version, count: usize, filter: &str, qos: u8) -> Vec<Raw> {
    let members = (0..count).map(|n| {
        let mut member = Raw::connect(node.mqtt, version, &format!("member-{n}"));
        assert_eq!(member.subscribed(&subscribe(version, 1, filter, qos)), qos);
        member
    });
    members.collect()
}

/// Publishes `count` numbered messages at QoS 1 from two clients.
#[track_caller]
fn publish_numbered(node: &Node, topic: &str, count: usize) {
    let mut publishers = ["p-0", "p-1"].map(|id| Raw::connect(node.mqtt, V5, id));
    for n in 0..count {
        let bytes = publish(V5, topic, 1, 1, &[], n.to_string().as_bytes());
        assert_eq!(publishers[n % 2].acked(&bytes), 0);
    }
}

/// What each has been sent by now; all of it together must be the numbers up to `count`, each once.
#[track_caller]
fn shares_of(members: &mut [Raw], version: Version, count: usize) -> Vec<usize> {
    let mut seen = BTreeMap::new();
    let mut shares = vec![0; members.len()];
    eventually("every message has come", || {
        for (share, member) in shares.iter_mut().zip(members.iter_mut()) {
            for message in member.messages(version) {
                if message.qos == 1 {
                    member.send(&packet_with_id(0x40, message.id));
                }
                *share += 1;
                let double = seen.insert(message.payload.clone(), ());
                assert_eq!(double, None, "{message:?} came twice");
            }
        }
        (seen.len() == count).then_some(())
    });
    shares
}

#[test]
fn members_get_equal_shares_on_whatever_loops_they_are() {
    for version in VERSIONS {
        let (_house, node) = node();
        let mut members = members(&node, version, 4, "$share/group/work/+", 1);
        let mut all = Raw::connect(node.mqtt, V5, "all");
        all.subscribed(&subscribe(V5, 1, "work/#", 0));
        let mut shares = [0; 4];
        for _ in 0..5 {
            // No more than fit into the members' windows.
            publish_numbered(&node, "work/a", 40);
            for (sum, share) in shares.iter_mut().zip(shares_of(&mut members, version, 40)) {
                *sum += share;
            }
            assert_eq!(shares_of(std::slice::from_mut(&mut all), V5, 40), [40], "a plain subscription gets all");
        }
        assert!(shares.iter().all(|share| (45..=55).contains(share)), "{version:?}: {shares:?}");
    }
}

#[test]
fn each_group_gets_each_message_and_a_plain_subscription_of_a_member_too() {
    let (_house, node) = node();
    let mut both = Raw::connect(node.mqtt, V5, "both");
    both.subscribed(&subscribe_with_id(1, "$share/g1/a/#", 1, 7));
    both.subscribed(&subscribe_with_id(2, "$share/g2/a/1", 1, 8));
    both.subscribed(&subscribe_with_id(3, "a/+", 1, 9));
    let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
    publisher.acked(&publish(V5, "a/1", 1, 1, &[], b"x"));
    let mut ids: Vec<_> = (0..3).map(|_| both.message(V5).subscription_ids).collect();
    ids.sort();
    assert_eq!(ids, [[7], [8], [9]]);
    assert!(both.messages(V5).is_empty());
    // Leaving one group is not leaving the other.
    both.send(&unsubscribe(V5, 4, "$share/g1/a/#"));
    assert_eq!(both.expect(0xB0).body.last(), Some(&0));
    both.send(&unsubscribe(V5, 5, "$share/g1/a/#"));
    assert_eq!(both.expect(0xB0).body.last(), Some(&0x11), "no subscription existed");
    publisher.acked(&publish(V5, "a/1", 1, 1, &[], b"y"));
    let mut ids: Vec<_> = (0..2).map(|_| both.message(V5).subscription_ids).collect();
    ids.sort();
    assert_eq!(ids, [[8], [9]]);
}

#[test]
fn nothing_retained_is_sent_to_a_new_member() {
    let (_house, node) = node();
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.acked(&retained(V5, "a", 1, 1, &[], b"kept"));
    assert_eq!(client.subscribed(&subscribe(V5, 2, "$share/g/a", 1)), 1);
    assert!(client.messages(V5).is_empty());
}

#[test]
fn what_is_no_shared_subscription_is_refused() {
    let (_house, node) = node();
    for (filter, options, reason) in [
        ("$share/g/a", NO_LOCAL, 0x82),
        ("$share/g", 0, 0x8F),
        ("$share//a", 0, 0x8F),
        ("$share/+/a", 0, 0x8F),
        ("$share/g/", 0, 0x8F),
    ] {
        let mut client = Raw::connect(node.mqtt, V5, "client");
        client.send(&subscribe(V5, 1, filter, options));
        let bye: Vec<Packet> = client.rest();
        assert_eq!(bye.iter().map(Packet::disconnect_reason).collect::<Vec<_>>(), [reason], "{filter}");
    }
    node.assert_alive();
}

#[test]
fn who_leaves_gives_what_it_has_not_acknowledged_to_the_others() {
    for version in VERSIONS {
        let (_house, node) = node();
        // The first takes its messages and acknowledges none; its window of 32 is full, the others wait behind it.
        let mut first = Raw::connect(node.mqtt, version, "first");
        first.subscribed(&subscribe(version, 1, "$share/g/a", 1));
        publish_numbered(&node, "a", 100);
        let mut second = Raw::connect(node.mqtt, version, "second");
        let early = second.subscribed_with(version, &subscribe(version, 1, "$share/g/a", 1));
        for message in &early {
            second.send(&packet_with_id(0x40, message.id));
        }
        let window = first.messages(version);
        assert_eq!(window.len(), 32);
        for message in &window[..10] {
            first.send(&packet_with_id(0x40, message.id));
        }
        first.send(&packet(0xC0, b""));
        while first.next().expect("a PINGRESP").first != 0xD0 {}
        drop(first);
        let mut rest = second.messages_by_payload(version, 90 - early.len());
        rest.extend(early.into_iter().map(|message| (message.payload.clone(), message)));
        assert_eq!(rest.len(), 90);
        assert!(window[..10].iter().all(|message| !rest.contains_key(&message.payload)));
        assert!(second.messages(version).is_empty());
    }
}

#[test]
fn a_member_whose_window_is_full_is_passed_over() {
    let (_house, node) = node();
    let mut stuck = Raw::connect(node.mqtt, V5, "stuck");
    stuck.subscribed(&subscribe(V5, 1, "$share/g/a", 1));
    let mut lively = members(&node, V5, 4, "$share/g/a", 1);
    let mut publisher = Raw::connect(node.mqtt, V5, "p");
    for n in 0..1_000_u32 {
        assert_eq!(publisher.acked(&publish(V5, "a", 1, 1, &[], n.to_string().as_bytes())), 0);
        for member in &mut lively {
            for message in member.messages(V5) {
                member.send(&packet_with_id(0x40, message.id));
            }
        }
    }
    drop(stuck);
    node.assert_alive();
    assert_eq!(node.metric("tidegate_mqtt_messages_dropped_total"), 0.0);
}

#[test]
fn who_is_away_gets_messages_only_while_nobody_is_connected() {
    let (_house, node) = node();
    let stored = |id: &str| {
        let mut bytes = Connect { properties: &[0x11, 0, 0, 1, 0], ..Connect::new(V5, id) }.bytes();
        // Not a clean start: the flags, after header, "MQTT" and level.
        bytes[2 + 6 + 1] &= !0x02;
        let mut raw = Raw::open(node.mqtt);
        raw.send(&bytes);
        (raw.expect(0x20).body[0], raw)
    };
    let (present, mut away) = stored("away");
    assert_eq!(present, 0);
    away.subscribed(&subscribe(V5, 1, "$share/g/a", 1));
    let mut here = Raw::connect(node.mqtt, V5, "here");
    here.subscribed(&subscribe(V5, 1, "$share/g/a", 1));
    away.send(&packet(0xE0, b""));
    assert_eq!(away.next(), None);
    publish_numbered(&node, "a", 20);
    assert_eq!(shares_of(std::slice::from_mut(&mut here), V5, 20), [20]);
    here.send(&packet(0xE0, b""));
    assert_eq!(here.next(), None);
    // The loops hear of it in their own time; what came before they did went to who was here last.
    publish_numbered(&node, "a", 20);
    let (present, mut back) = stored("away");
    assert_eq!(present, 1);
    let got: Vec<Published> = (0..15).map(|_| back.message(V5)).collect();
    assert!(got.iter().all(|message| message.topic == "a"));
}

// ---- mosquitto's tools

#[test]
fn mosquittos_subscribers_share() {
    let (_house, node) = node();
    let (host, port) = (node.mqtt.ip().to_string(), node.mqtt.port().to_string());
    for version in ["mqttv311", "mqttv5"] {
        let subscribers = ["a", "b"].map(|id| {
            let arguments =
                ["-V", version, "-h", &host, "-p", &port, "-i", id, "-q", "1", "-t", "$share/g/tools", "-C", "10"];
            Command::new("mosquitto_sub").args(arguments).stdout(Stdio::piped()).spawn().expect("mosquitto_sub")
        });
        eventually("both have subscribed", || (node.metric("tidegate_mqtt_subscriptions") == 2.0).then_some(()));
        let mut publisher = Raw::connect(node.mqtt, V5, "publisher");
        for n in 0..20_u32 {
            publisher.acked(&publish(V5, "tools", 1, 1, &[], n.to_string().as_bytes()));
        }
        let mut all: Vec<u32> = Vec::new();
        for subscriber in subscribers {
            let output = subscriber.wait_with_output().expect("it ends after ten messages");
            let lines = String::from_utf8_lossy(&output.stdout).into_owned();
            all.extend(lines.lines().map(|line| line.parse::<u32>().expect("a number")));
        }
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        eventually("both have left", || (node.metric("tidegate_mqtt_subscriptions") == 0.0).then_some(()));
    }
}
