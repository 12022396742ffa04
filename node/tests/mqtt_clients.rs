//! One scenario, driven by the client libraries that people use: paho-mqtt, MQTT.js, rumqttc. mosquitto's tools are in
//! `mqtt_tools.rs`; docs/mqtt.md has the table of what is tested with which client.

mod support;

use serde_json::{Value, json};
use support::{
    House, Node,
    driver::{Client, Library},
    eventually,
    mqtt::Version::{self, V3, V5},
    tools::Tools,
    websocket::Viewer,
};

/// Adds a field, so that a state tells whether the handler has seen it.
const DOUBLE: &str = "export function onMetric(metric) { return { ...metric, doubled: metric.t * 2 }; }";

#[test]
fn paho_v3() {
    scenario(Library::Paho, V3);
}

#[test]
fn paho_v5() {
    scenario(Library::Paho, V5);
}

#[test]
fn mqttjs_v3() {
    scenario(Library::MqttJs, V3);
}

#[test]
fn mqttjs_v5() {
    scenario(Library::MqttJs, V5);
}

#[test]
fn rumqttc_v3() {
    scenario(Library::Rumqttc, V3);
}

#[test]
fn rumqttc_v5() {
    scenario(Library::Rumqttc, V5);
}

fn scenario(library: Library, version: Version) {
    let house = House::new().handler("10-double.js", DOUBLE);
    let node = house.start();
    let world = World { node: &node, library, version };
    world.a_reading_becomes_a_state_for_everybody();
    world.one_connection_reports_for_many_devices();
    world.messages_go_to_whoever_subscribed();
    world.a_will_is_published_when_the_connection_breaks();
    world.a_second_connection_takes_over();
    world.messages_come_exactly_once();
    world.a_stored_session_waits();
    world.the_last_message_is_retained();
    world.a_group_shares_its_messages();
    world.mosquitto_rr_is_answered();
    if version == V5 {
        world.own_messages_do_not_come_back_with_no_local();
        world.subscription_identifiers_come_with_the_message();
        world.refusals_and_ack_levels();
    }
    node.settled_ledger();
    node.assert_alive();
}

struct World<'a> {
    node: &'a Node,
    library: Library,
    version: Version,
}

impl World<'_> {
    #[track_caller]
    fn client(&self, id: &str) -> Client {
        Client::connect(self.library, self.node.mqtt, self.version, id)
    }

    fn a_reading_becomes_a_state_for_everybody(&self) {
        let mut viewer = Viewer::open(self.node.http, "?deviceId=d1");
        viewer.snapshot();
        let mut subscriber = self.client("subscriber");
        assert_eq!(subscriber.subscribe("devices/+/state", 1), 1);
        let mut device = self.client("d1");
        assert_eq!(device.publish("devices/d1/metrics", r#"{"t":21}"#), 0);

        let state = self.node.device_with("d1", "doubled", &json!(42));
        assert_eq!((&state["connected"], &state["version"]), (&json!(true), &json!(1)));
        let seen = viewer.until("the handler's result", |message| message["type"] == "state").pop().expect("a state");
        assert_eq!(seen["state"], json!({"t":21,"doubled":42}));
        let message = subscriber.message();
        assert_eq!((message.topic.as_str(), message.qos), ("devices/d1/state", 0));
        let published: Value = serde_json::from_str(&message.payload).expect("JSON");
        assert_eq!((&published["deviceId"], &published["state"]["doubled"]), (&json!("d1"), &json!(42)));

        let telemetry = r#"[{"ts":4100000000000,"values":{"t":5}}]"#;
        assert_eq!(device.publish("v1/devices/me/telemetry", telemetry), 0);
        assert_eq!(self.node.device_with("d1", "doubled", &json!(10))["deviceTime"], 4_100_000_000_000_i64);
        viewer.until("the telemetry", |message| message["state"]["doubled"] == 10);
        device.leave();
        viewer.until("the device has left", |message| message["connected"] == false);
    }

    fn messages_come_exactly_once(&self) {
        let mut subscriber = self.client("once-subscriber");
        assert_eq!(subscriber.subscribe("once/+", 2), 2);
        let mut publisher = self.client("once-publisher");
        for number in 0..50 {
            publisher.publish_once("once/1", &number.to_string());
        }
        publisher.publish_once("devices/once-publisher/metrics", r#"{"t":4}"#);
        for number in 0..50 {
            subscriber.expect_message("once/1", &number.to_string(), 2);
        }
        self.node.device_with("once-publisher", "doubled", &json!(8));
        assert!(subscriber.is_quiet());
    }

    fn a_stored_session_waits(&self) {
        let stored = || Client::connect_stored(self.library, self.node.mqtt, self.version, "stored");
        let mut subscriber = stored();
        assert_eq!(subscriber.subscribe("stored/+", 2), 2);
        subscriber.leave();
        let mut publisher = self.client("stored-publisher");
        assert_eq!(publisher.publish("stored/1", "one"), 0);
        publisher.publish_once("stored/2", "two");
        publisher.tell("stored/3", "does not wait");
        assert_eq!(publisher.publish("stored/4", "four"), 0);
        let mut subscriber = stored();
        // paho and MQTT.js hand a message with QoS 2 on at its PUBREL.
        let mut waited: Vec<_> =
            (0..3).map(|_| subscriber.message()).map(|seen| (seen.topic, seen.payload, seen.qos)).collect();
        waited.sort();
        let sent = [("stored/1", "one", 1), ("stored/2", "two", 2), ("stored/4", "four", 1)];
        assert_eq!(waited, sent.map(|(topic, payload, qos)| (topic.to_owned(), payload.to_owned(), qos)));
        publisher.publish_once("stored/5", "five");
        subscriber.expect_message("stored/5", "five", 2);
        subscriber.unsubscribe("stored/+");
        subscriber.leave();
    }

    fn one_connection_reports_for_many_devices(&self) {
        let mut subscriber = self.client("many-subscriber");
        subscriber.subscribe("devices/+/state", 0);
        let mut gateway = self.client("gateway");
        let ids: Vec<String> = (0..40).map(|n| format!("many-{n:02}")).collect();
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(gateway.publish(&format!("devices/{id}/metrics"), &json!({"t": n}).to_string()), 0);
        }
        // The former device's last state may still be on its way.
        let messages = std::iter::repeat_with(|| subscriber.message().topic);
        let mut topics: Vec<String> =
            messages.filter(|topic| topic.starts_with("devices/many-")).take(ids.len()).collect();
        topics.sort();
        assert_eq!(topics, ids.iter().map(|id| format!("devices/{id}/state")).collect::<Vec<_>>());
        for (n, id) in ids.iter().enumerate() {
            let device = self.node.device(id).expect("known");
            assert_eq!((&device["state"]["doubled"], &device["connected"]), (&json!(2 * n), &json!(false)));
        }
    }

    fn messages_go_to_whoever_subscribed(&self) {
        // Different ids, so that publisher and subscribers live on both loops.
        let mut publisher = self.client("plain-publisher");
        let (mut plus, mut hash) = (self.client("plus"), self.client("hash-1"));
        assert_eq!(plus.subscribe("plant/+/temp", 1), 1);
        assert_eq!(hash.subscribe("plant/#", 0), 0);
        assert_eq!(publisher.publish("plant/1/temp", "one"), 0);
        plus.expect_message("plant/1/temp", "one", 1);
        hash.expect_message("plant/1/temp", "one", 0);
        publisher.tell("plant/2/temp", "two");
        plus.expect_message("plant/2/temp", "two", 0);
        hash.expect_message("plant/2/temp", "two", 0);
        publisher.publish("plant/3/temp/inside", "three");
        hash.expect_message("plant/3/temp/inside", "three", 0);

        hash.unsubscribe("plant/#");
        hash.subscribe("marker", 1);
        publisher.publish("plant/4/temp", "four");
        publisher.publish("marker", "end");
        hash.expect_message("marker", "end", 1);
        plus.expect_message("plant/4/temp", "four", 1);
    }

    fn a_will_is_published_when_the_connection_breaks(&self) {
        let mut heir = self.client("heir");
        heir.subscribe("wills/+", 1);
        let with_will = |id: &str| {
            let (topic, payload) = (format!("wills/{id}"), format!("{id} is gone"));
            let will = Some((topic.as_str(), payload.as_str()));
            Client::connect_with_will(self.library, self.node.mqtt, self.version, id, will)
        };
        with_will("polite").leave();
        with_will("broken").die();
        heir.expect_message("wills/broken", "broken is gone", 1);
    }

    fn a_second_connection_takes_over(&self) {
        let mut first = self.client("same");
        first.publish("devices/same/metrics", r#"{"t":1}"#);
        let mut second = self.client("same");
        let code = first.lost();
        if self.version == V5 {
            assert_eq!(code, Some(0x8E), "session taken over");
        }
        second.subscribe("same/+", 1);
        second.publish("same/1", "to myself");
        second.expect_message("same/1", "to myself", 1);
        drop(first);
        let device = self.node.device_with("same", "doubled", &json!(2));
        assert_eq!(device["connected"], true, "the second connection is the device's now");
    }

    fn the_last_message_is_retained(&self) {
        let mut publisher = self.client("retainer");
        for payload in ["old", "kept"] {
            let command = json!({"topic": "kept/1", "payload": payload, "retain": true});
            assert_eq!(publisher.publish_with(command), 0);
        }
        let mut subscriber = self.client("late");
        subscriber.subscribe("kept/#", 1);
        assert!(subscriber.expect_message("kept/1", "kept", 1).retain);
        publisher.publish_with(json!({"topic": "kept/1", "payload": "", "retain": true}));
        assert!(!subscriber.expect_message("kept/1", "", 1).retain, "as it comes it has no flag");
        let mut later = self.client("later");
        later.subscribe("kept/#", 1);
        publisher.publish("kept/2", "end");
        later.expect_message("kept/2", "end", 1);
    }

    fn a_group_shares_its_messages(&self) {
        let mut members = ["share-1", "share-2"].map(|id| self.client(id));
        for member in &mut members {
            assert_eq!(member.subscribe("$share/group/jobs/+", 1), 1);
        }
        let mut publisher = self.client("share-publisher");
        for n in 0..10 {
            publisher.publish(&format!("jobs/{n}"), "job");
        }
        let mut topics: Vec<_> =
            members.iter_mut().flat_map(|member| (0..5).map(|_| member.message().topic).collect::<Vec<_>>()).collect();
        topics.sort();
        assert_eq!(topics, (0..10).map(|n| format!("jobs/{n}")).collect::<Vec<_>>());
    }

    fn mosquitto_rr_is_answered(&self) {
        let mut answers = self.client("answers");
        assert_eq!(answers.subscribe("ask/+", 2), 2);
        let tools = Tools::new(self.node.mqtt, self.version);
        for qos in 0..=2 {
            let mut arguments = vec!["-e", "answers/1", "-W", "20"];
            if self.version == V5 {
                arguments.extend(["-D", "publish", "correlation-data", "27"]);
            }
            let asker = tools.ask(qos, "asks", "ask/1", "how much?", &arguments);
            let request = answers.expect_message("ask/1", "how much?", u64::from(qos));
            let mut answer = json!({"topic": "answers/1", "payload": "21.5"});
            if self.version == V5 {
                assert_eq!(request.reply_to, Some(("answers/1".to_owned(), "27".to_owned())));
                answer["correlation"] = json!("27");
            }
            assert_eq!(answers.publish_with(answer), 0);
            assert_eq!(asker.answer(), "21.5");
        }
    }

    fn own_messages_do_not_come_back_with_no_local(&self) {
        let mut own = self.client("no-local");
        assert_eq!(own.subscribe_with(json!({"filter": "local/#", "qos": 1, "noLocal": true})), 1);
        own.publish("local/own", "mine");
        let mut other = self.client("local-other");
        other.publish("local/other", "yours");
        own.expect_message("local/other", "yours", 1);
    }

    fn subscription_identifiers_come_with_the_message(&self) {
        let mut subscriber = self.client("identified");
        subscriber.subscribe_with(json!({"filter": "ids/+", "qos": 1, "subscriptionId": 7}));
        subscriber.subscribe_with(json!({"filter": "ids/#", "qos": 0, "subscriptionId": 200_000}));
        let mut publisher = self.client("identified-publisher");
        publisher.publish("ids/both", "both");
        let message = subscriber.expect_message("ids/both", "both", 1);
        assert_eq!(message.ids, [7, 200_000], "once, with both identifiers");
        publisher.publish("ids/one/level", "one");
        assert_eq!(subscriber.expect_message("ids/one/level", "one", 0).ids, [200_000]);
    }

    fn refusals_and_ack_levels(&self) {
        let mut device = self.client("levels");
        let topic = "devices/levels/metrics";
        for round in 0..5 {
            let payload = json!({"t": round}).to_string();
            assert_eq!(device.publish_with(json!({"topic": topic, "payload": payload, "ack": "processed"})), 0);
            // No waiting: "processed" means that the state has it.
            assert_eq!(self.node.device("levels").expect("known")["state"]["doubled"], 2 * round);
        }
        for ack in ["received", "committed"] {
            assert_eq!(device.publish_with(json!({"topic": topic, "payload": r#"{"t":9}"#, "ack": ack})), 0, "{ack}");
        }
        assert_eq!(device.publish_with(json!({"topic": topic, "payload": r#"{"t":10}"#, "ack": "maybe"})), 0x99);
        assert_eq!(device.publish(topic, "{not json"), 0x99);
        assert_eq!(device.publish("devices//metrics", "{}"), 0x90);
        assert_eq!(device.publish(topic, r#"{"t":11}"#), 0, "a refusal ends nothing");
        self.node.device_with("levels", "doubled", &json!(22));
    }
}

// ---- over a kill -9

#[test]
fn paho_sessions_are_kept() {
    a_stored_session_waits_over_a_kill(Library::Paho);
}

#[test]
fn mqttjs_sessions_are_kept() {
    a_stored_session_waits_over_a_kill(Library::MqttJs);
}

#[test]
fn rumqttc_sessions_are_kept() {
    a_stored_session_waits_over_a_kill(Library::Rumqttc);
}

fn a_stored_session_waits_over_a_kill(library: Library) {
    for version in [V3, V5] {
        let house = House::new();
        let mut node = house.start();
        let (mut away, present) = Client::resume(library, node.mqtt, version, "away");
        assert!(!present, "the first of its kind");
        assert_eq!(away.subscribe("kept/+", 2), 2);
        away.leave();
        let mut publisher = Client::connect(library, node.mqtt, version, "publisher");
        assert_eq!(publisher.publish("kept/1", "one"), 0);
        publisher.publish_once("kept/2", "two");
        let retained = json!({"topic": "kept/3", "payload": "three", "retain": true});
        assert_eq!(publisher.publish_with(retained), 0);

        node.kill9();
        publisher.lost();
        node = house.start();
        let (mut back, present) = Client::resume(library, node.mqtt, version, "away");
        assert!(present, "{library:?} {version:?}");
        // paho and MQTT.js hand a message with QoS 2 on at its PUBREL.
        let mut waited: Vec<_> =
            (0..3).map(|_| back.message()).map(|seen| (seen.topic, seen.payload, seen.qos)).collect();
        waited.sort();
        let sent = [("kept/1", "one", 1), ("kept/2", "two", 2), ("kept/3", "three", 1)];
        assert_eq!(waited, sent.map(|(topic, payload, qos)| (topic.to_owned(), payload.to_owned(), qos)));
        // The subscription is there as well, and whoever comes now finds what is retained.
        let mut publisher = Client::connect(library, node.mqtt, version, "publisher");
        publisher.publish_once("kept/4", "four");
        back.expect_message("kept/4", "four", 2);
        assert!(back.is_quiet(), "each message once");
        let mut late = Client::connect(library, node.mqtt, version, "late");
        late.subscribe("kept/#", 1);
        assert!(late.expect_message("kept/3", "three", 1).retain);
        node.settled_ledger();
    }
}

#[test]
fn the_ledger_counts_what_every_protocol_brought() {
    let house = House::new();
    let node = house.start();
    let mut client = Client::connect(Library::Rumqttc, node.mqtt, V5, "d1");
    for n in 0..10 {
        assert_eq!(client.publish("devices/d1/metrics", &json!({"n": n}).to_string()), 0);
        client.tell("devices/d1/metrics", &json!({"n": n}).to_string());
    }
    assert_eq!(client.publish("devices/d1/metrics", "[]"), 0, "an empty array is nothing, not an error");
    assert_eq!(client.publish("devices/d1/metrics", "5"), 0x99);
    node.post("/metrics?ack=committed", r#"[{"deviceId":"d1","n":10},{"n":11}]"#);
    let ledger = eventually("all are counted", || {
        Some(node.settled_ledger()).filter(|ledger| ledger["received"].as_u64() >= Some(23))
    });
    assert_eq!((&ledger["received"], &ledger["committed"]), (&json!(23), &json!(21)), "{ledger}");
    assert_eq!(ledger["rejected"], json!({"bad-shape":1,"bad-device-id":1}));
}
