//! When a sender is answered: `received`, `committed` and `processed`, over HTTP and MQTT alike, chosen by the request or by the
//! listener's default; and what the answer says.

mod support;

use serde_json::{Value, json};
use support::{
    House, Node,
    driver::{Client, Library},
    eventually,
    http::{Http, Response, request},
    mqtt::{
        Raw,
        Version::{V3, V5},
        packet, publish, user_property,
    },
};

/// Its regular expression on a reading with `hang` does not end: the worker is killed at the deadline, and the reading is
/// parked. Until then nobody knows what becomes of it.
const HANDLER: &str = "
export function onMetric(metric) {
  if (metric.hang) return { hit: /^(a+)+$/.test('a'.repeat(40) + '!') };
  if (metric.fail) throw new Error('no good');
  if (metric.drop) return null;
  return { ...metric, seen: true };
}";

/// A node whose handler takes seconds for a reading with `hang`.
fn slow_house() -> House {
    House::new().handler("10-slow.js", HANDLER).variable("TIDEGATE_SCRIPTS__CALL_WALL_MS", "2500")
}

/// Waits until the reading that was sent is under way: what is sent from now on is behind it.
#[track_caller]
fn until_under_way(node: &Node) {
    eventually("a reading under way", || (node.get("/ledger").json()["inFlight"] == 1).then_some(()));
}

fn post(node: &Node, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    request(node.http, "POST", path, headers, body.to_string().as_bytes())
}

#[test]
fn over_http_committed_comes_before_the_handlers_and_processed_after() {
    let house = slow_house();
    let node = house.start();
    let mut processed = Http::connect(node.http);
    processed.send("POST", "/metrics?ack=processed", &[], br#"{"deviceId":"d1","hang":true,"n":1}"#);
    until_under_way(&node);
    // These are behind it in the device's order, and are answered before it.
    let later = json!({"deviceId":"d1","n":2});
    assert_eq!(post(&node, "/metrics?ack=received", &[], &later).status, 202);
    assert_eq!(post(&node, "/metrics?ack=committed", &[], &later).status, 200);
    assert!(node.device("d1").is_none_or(|device| device["version"] == 0), "the handlers have run already");
    let answer = processed.receive();
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("parked: deadline")), "{}", answer.text());
    let last = post(&node, "/metrics?ack=processed", &[], &json!({"deviceId":"d1","n":3}));
    assert_eq!(last.json()["outcome"], "kept");
    // Processed means that the very next look finds it.
    assert_eq!(node.device("d1").expect("known")["state"], json!({"n":3,"seen":true}));
    node.settled_ledger();
}

#[test]
fn over_mqtt_5_committed_comes_before_the_handlers_and_processed_after() {
    let house = slow_house();
    let node = house.start();
    let connect = |id: &str| Client::connect(Library::Rumqttc, node.mqtt, V5, id);
    let (mut waiting, mut hurried) = (connect("waiting"), connect("hurried"));
    let topic = "devices/d1/metrics";
    waiting.send(json!({"topic": topic, "payload": r#"{"hang":true}"#, "ack": "processed"}));
    until_under_way(&node);
    for ack in ["received", "committed"] {
        hurried.send(json!({"topic": topic, "payload": r#"{"n":2}"#, "ack": ack}));
        assert_eq!(hurried.puback(), (0, None), "{ack}");
    }
    // Without a property the listener's default counts.
    hurried.send(json!({"topic": topic, "payload": r#"{"n":2}"#}));
    assert_eq!(hurried.puback(), (0, None));
    assert!(waiting.is_quiet());
    assert_eq!(waiting.puback(), (0, Some("parked: deadline".to_owned())));
    hurried.send(json!({"topic": topic, "payload": r#"{"n":3}"#, "ack": "processed"}));
    assert_eq!(hurried.puback(), (0, None));
    assert_eq!(node.device("d1").expect("known")["state"], json!({"n":3,"seen":true}));
    node.settled_ledger();
}

#[test]
fn a_listener_has_a_default_level() {
    for (level, status, outcome) in
        [("received", 202, None), ("committed", 200, None), ("processed", 200, Some("kept"))]
    {
        let house = House::new().variable("TIDEGATE_HTTP__DEFAULT_ACK", level);
        let node = house.start();
        let answer = post(&node, "/metrics", &[], &json!({"deviceId":"d1","n":1}));
        let found = answer.json()["outcome"].as_str().map(str::to_owned);
        assert_eq!((answer.status, found.as_deref()), (status, outcome), "{level}");
        // And a request chooses another.
        let answer = post(&node, "/metrics?ack=committed", &[], &json!({"deviceId":"d1","n":2}));
        assert_eq!((answer.status, answer.json()["outcome"].is_null()), (200, true), "{level}");
    }
}

#[test]
fn mqtt_has_a_default_level_for_every_version() {
    for (level, expected) in [("committed", ""), ("processed", "parked: threw")] {
        let house = House::new().handler("10-slow.js", HANDLER).variable("TIDEGATE_MQTT__DEFAULT_ACK", level);
        let node = house.start();
        let mut five = Raw::connect(node.mqtt, V5, "five");
        five.send(&publish(V5, "devices/five/metrics", 1, 1, &[], br#"{"fail":true}"#));
        let puback = five.expect(0x40);
        assert_eq!((puback.puback(), puback.reason_string().as_str()), ((1, 0), expected), "{level}");
        let mut three = Raw::connect(node.mqtt, V3, "three");
        for n in 1..=5_u16 {
            let payload = json!({"n": n}).to_string();
            three.send(&publish(V3, "devices/three/metrics", 1, n, &[], payload.as_bytes()));
            assert_eq!(three.expect(0x40).body, n.to_be_bytes(), "3.1.1 has room for the packet id only");
            if level == "processed" {
                // No waiting: the state has it.
                assert_eq!(node.device("three").expect("known")["state"]["n"], n);
            }
        }
    }
}

#[test]
fn a_puback_says_what_became_of_the_reading() {
    let house = House::new().handler("10-slow.js", HANDLER);
    let node = house.start();
    let mut client = Raw::connect(node.mqtt, V5, "d1");
    let mut ack = |properties: &[u8], topic: &str, payload: &str| {
        client.send(&publish(V5, topic, 1, 7, properties, payload.as_bytes()));
        let puback = client.expect(0x40);
        (puback.puback().1, puback.reason_string())
    };
    let processed = user_property("ack", "processed");
    let topic = "devices/d1/metrics";
    for (payload, text) in [
        (r#"{"ts":1000,"n":1}"#, ""),
        (r#"{"ts":999,"n":2}"#, "conflated: late"),
        (r#"{"drop":true}"#, "dropped by a handler"),
        (r#"{"fail":true}"#, "parked: threw"),
        // The last one's outcome speaks for all.
        (r#"[{"fail":true},{"ts":2000,"n":3}]"#, ""),
    ] {
        assert_eq!(ack(&processed, topic, payload), (0x00, text.to_owned()), "{payload}");
    }
    for (properties, topic, payload, code, text) in [
        (
            user_property("ack", "durable"),
            topic,
            "{}",
            0x99,
            "user property ack = \"durable\"; allowed: received, committed, processed",
        ),
        (Vec::new(), topic, "{oops}", 0x99, "not JSON: key must be a string at line 1, column 2"),
        (Vec::new(), topic, "21.5", 0x99, "a reading is a JSON object like {\"temperature\":21.5}, this is a number"),
        (Vec::new(), "devices//metrics", "{}", 0x90, "the topic's device: a device id must not be empty"),
        (processed.clone(), topic, r#"[{"n":1},5,{"n":2},"x"]"#, 0x00, "2 of 4 readings refused, the first: "),
        (Vec::new(), topic, "[1,2]", 0x99, "2 of 2 readings refused, the first: "),
    ] {
        let (found, words) = ack(&properties, topic, payload);
        assert_eq!(found, code, "{payload}: {words}");
        assert!(words.contains(text), "{payload}: {words:?} should say {text:?}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
    assert_eq!(ack(&[], topic, &deep), (0x99, "nested deeper than 64 levels (limit json_depth: 64)".to_owned()));
    node.settled_ledger();
}

#[test]
fn a_client_that_wants_no_reasons_gets_none() {
    let node_house = House::new();
    let node = node_house.start();
    // Request Problem Information 0 (section 3.1.2.11.7).
    let connect = support::mqtt::Connect { properties: &[0x17, 0], ..support::mqtt::Connect::new(V5, "terse") };
    let mut client = Raw::connect_with(node.mqtt, &connect);
    client.send(&publish(V5, "devices/d1/metrics", 1, 7, &[], b"{oops}"));
    let puback = client.expect(0x40);
    assert_eq!((puback.puback(), puback.body.len()), ((7, 0x99), 3), "{puback:02X?}");
}

#[test]
fn words_stay_with_their_puback_when_answers_come_out_of_order() {
    let house = slow_house();
    let node = house.start();
    let mut client = Raw::connect(node.mqtt, V5, "gateway");
    let processed = user_property("ack", "processed");
    // The first takes seconds; what is refused or answered behind it waits for its turn.
    client.send(&publish(V5, "devices/d1/metrics", 1, 1, &processed, br#"{"hang":true}"#));
    client.send(&publish(V5, "devices/d2/metrics", 1, 2, &[], b"{oops}"));
    client.send(&publish(V5, "plain/topic", 1, 3, &[], b"anything"));
    client.send(&publish(V5, "devices/d2/metrics", 1, 4, &processed, br#"{"fail":true}"#));
    let acks: Vec<_> = (0..4).map(|_| client.expect(0x40)).map(|ack| (ack.puback(), ack.reason_string())).collect();
    assert_eq!(acks[0], ((1, 0), "parked: deadline".to_owned()));
    assert!(acks[1].0 == (2, 0x99) && acks[1].1.starts_with("not JSON"), "{acks:?}");
    assert_eq!(acks[2], ((3, 0), String::new()));
    assert_eq!(acks[3], ((4, 0), "parked: threw".to_owned()));
}

#[test]
fn qos_0_is_received_whatever_it_wishes() {
    let (house, properties) = (House::new(), user_property("ack", "processed"));
    let node = house.start();
    let mut client = Raw::connect(node.mqtt, V5, "d1");
    client.send(&publish(V5, "devices/d1/metrics", 0, 0, &properties, br#"{"n":1}"#));
    node.device_with("d1", "n", &json!(1));
    // A level that there is not is refused all the same; the log says what there is.
    client.send(&publish(V5, "devices/d1/metrics", 0, 0, &user_property("ack", "sometime"), br#"{"n":2}"#));
    node.logged(&["client=d1", "sometime", "allowed: received, committed, processed"]);
    client.send(&packet(0xC0, b""));
    client.expect(0xD0);
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], &ledger["rejected"]), (&json!(1), &json!({"bad-shape":1})), "{ledger}");
}

#[test]
fn an_applied_preference_is_told() {
    let house = House::new();
    let node = house.start();
    let reading = json!({"deviceId":"d1","n":1});
    let applied = |path: &str, prefer: &[&str], body: &Value| {
        let headers: Vec<_> = prefer.iter().map(|value| ("prefer", *value)).collect();
        let answer = post(&node, path, &headers, body);
        (answer.status, answer.header("preference-applied").map(str::to_owned))
    };
    let told = |level: &str| Some(format!("ack={level}"));
    assert_eq!(applied("/metrics", &["ack=received"], &reading), (202, told("received")));
    assert_eq!(applied("/metrics", &["respond-async, ACK=\"committed\""], &reading), (200, told("committed")));
    assert_eq!(applied("/metrics", &["wait=5", "ack=processed"], &reading), (200, told("processed")));
    assert_eq!(
        applied("/metrics", &["ack=processed, ack=received"], &reading),
        (200, told("processed")),
        "the first counts"
    );
    assert_eq!(applied("/devices/d1/metrics", &["ack=committed"], &json!([{"n":1},{"n":2}])), (200, told("committed")));
    // The query wins: the preference was not applied, and an answer that nobody preferred says nothing.
    assert_eq!(applied("/metrics?ack=received", &["ack=processed"], &reading), (202, None));
    assert_eq!(applied("/metrics", &[], &reading), (202, None));
    let refused = post(&node, "/metrics", &[("prefer", "ack=durable")], &reading);
    let problem = refused.problem(400, "bad-parameter");
    assert!(
        problem["detail"].as_str().is_some_and(|d| d.contains("allowed: received, committed, processed")),
        "{problem}"
    );
}
