//! `$SYS/broker/...`: what the node says of itself, to who asks.

mod support;

use std::collections::BTreeMap;

use support::{
    House, Node, eventually,
    mqtt::{
        Raw,
        Version::{V3, V5},
        publish, subscribe,
    },
    published::retained,
};

fn all(node: &Node, id: &str) -> BTreeMap<String, String> {
    let mut client = Raw::connect(node.mqtt, V5, id);
    client.subscribed(&subscribe(V5, 1, "$SYS/#", 1));
    let messages = client.messages(V5);
    assert!(messages.iter().all(|message| message.retain && message.qos == 0));
    messages.into_iter().map(|message| (message.topic, message.payload)).collect()
}

#[test]
fn who_subscribes_gets_the_values_at_once() {
    let house = House::new();
    let node = house.start();
    let mut client = Raw::connect(node.mqtt, V3, "client");
    client.subscribed(&subscribe(V3, 1, "a/#", 1));
    client.subscribed(&subscribe(V3, 2, "$share/g/b", 1));
    client.acked(&retained(V3, "kept", 1, 1, &[], b"1"));
    client.send(&publish(V3, "a/1", 0, 0, &[], b"12345"));
    client.message(V3);
    let mut round = 0;
    let values = eventually("the traffic is counted", || {
        round += 1;
        let values = all(&node, &format!("reader-{round}"));
        let number = |name: &str| values[&format!("$SYS/broker/{name}")].parse::<u64>().expect("a number");
        (number("messages/received") >= 6 && number("messages/sent") >= 5).then_some(values)
    });
    let value = |name: &str| values[&format!("$SYS/broker/{name}")].as_str();
    let number = |name: &str| value(name).parse::<u64>().expect("a number");
    assert_eq!(value("version"), concat!("tidegate version ", env!("CARGO_PKG_VERSION")));
    assert!(value("uptime").ends_with(" seconds"));
    assert_eq!(number("retained messages/count"), 1);
    assert!(number("clients/connected") >= 2 && number("clients/maximum") >= 2);
    assert!(number("subscriptions/count") >= 3);
    assert_eq!(number("shared_subscriptions/count"), 1);
    assert_eq!(number("publish/messages/received"), 2);
    assert!(number("bytes/sent") > 20 && number("bytes/received") > 60, "{values:#?}");
    assert_eq!(value("load/publish/received/15min").split('.').count(), 2);
    assert_eq!(number("publish/messages/dropped"), 0);
}

#[test]
fn what_changes_is_published_while_somebody_listens() {
    let house = House::new().variable("TIDEGATE_MQTT__SYS_INTERVAL_S", "1");
    let node = house.start();
    let mut everything = Raw::connect(node.mqtt, V5, "everything");
    everything.subscribed(&subscribe(V5, 1, "#", 0));
    let mut client = Raw::connect(node.mqtt, V5, "client");
    client.subscribed(&subscribe(V5, 1, "$SYS/broker/uptime", 0));
    let first = client.message(V5);
    assert!(first.retain);
    for _ in 0..2 {
        let next = client.message(V5);
        assert!(!next.retain && next.topic == "$SYS/broker/uptime" && next.payload.ends_with(" seconds"));
        assert_ne!(next.payload, first.payload);
    }
    assert!(everything.messages(V5).is_empty(), "wildcards do not match $SYS");
    // mosquitto's own tool reads it.
    let (host, port) = (node.mqtt.ip().to_string(), node.mqtt.port().to_string());
    let arguments = ["-h", &host, "-p", &port, "-t", "$SYS/broker/clients/connected", "-C", "1", "-W", "10"];
    let output = std::process::Command::new("mosquitto_sub").args(arguments).output().expect("mosquitto_sub");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3");
}

#[test]
fn it_can_be_turned_off_and_nobody_else_may_speak_there() {
    let house = House::new().variable("TIDEGATE_MQTT__SYS_INTERVAL_S", "0");
    let node = house.start();
    assert!(all(&node, "client").is_empty());
    let mut client = Raw::connect(node.mqtt, V5, "liar");
    client.subscribed(&subscribe(V5, 1, "$SYS/#", 0));
    assert_eq!(client.acked(&publish(V5, "$SYS/broker/uptime", 1, 1, &[], b"never")), 0x87);
    let mut old = Raw::connect(node.mqtt, V3, "old-liar");
    assert_eq!(old.acked(&publish(V3, "$SYS/broker/uptime", 1, 1, &[], b"never")), 0, "3.1.1 has no word for it");
    assert!(client.messages(V5).is_empty());
    node.logged(&["$SYS", "old-liar"]);
}
