//! A request that is sent again is not a second reading: by the `Idempotency-Key` over HTTP and MQTT 5, over any connection, after
//! a crash, and for a batch of which half was kept. And what a redelivered PUBLISH is without one.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{
    House, Node,
    driver::{Client, Library},
    http::{Http, Response, request},
    mqtt::{
        Raw,
        Version::{V3, V5},
        again, publish, user_property,
    },
};

/// Counts its calls, so that a state tells how often the handler ran.
const COUNT: &str = "
export function onMetric(metric, ctx) {
  ctx.state.calls = (ctx.state.calls ?? 0) + 1;
  return { ...metric, calls: ctx.state.calls };
}";
const KEY: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

fn post_with(node: &Node, path: &str, key: &str, body: &str) -> Response {
    request(node.http, "POST", path, &[("idempotency-key", key)], body.as_bytes())
}

/// How many readings were taken for retries.
fn retries(ledger: &Value) -> u64 {
    ledger["conflated"]["idempotent-retry"].as_u64().unwrap_or(0)
}

#[test]
fn a_retry_is_answered_as_the_first_and_is_no_reading() {
    let house = House::new().handler("10-count.js", COUNT);
    let node = house.start();
    let body = r#"{"deviceId":"d1","n":1}"#;
    let first = post_with(&node, "/metrics?ack=processed", KEY, body);
    assert_eq!(first.json(), json!({"deviceId":"d1","accepted":1,"outcome":"kept"}));
    // In quotes, as the draft writes it, it is the same key.
    for key in [KEY, &format!("\"{KEY}\"")] {
        assert_eq!(post_with(&node, "/metrics", key, body).status, 202);
        let committed = post_with(&node, "/metrics?ack=committed", key, body);
        assert_eq!((committed.status, committed.json()), (200, json!({"deviceId":"d1","accepted":1})));
        let processed = post_with(&node, "/metrics?ack=processed", key, body).json();
        let retry = json!({"deviceId":"d1","accepted":1,"outcome":"conflated: idempotent-retry","duplicate":true});
        assert_eq!(processed, retry);
    }
    let device = node.device("d1").expect("known");
    assert_eq!((&device["version"], &device["state"]["calls"]), (&json!(1), &json!(1)), "{device}");
    // Without the key, or with another one, it is a reading.
    node.post("/metrics?ack=processed", body);
    assert_eq!(post_with(&node, "/metrics?ack=processed", "another-key", body).json()["outcome"], "kept");
    assert_eq!(node.device("d1").expect("known")["version"], 3);
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], retries(&ledger)), (&json!(3), 6), "{ledger}");
}

#[test]
fn every_item_of_a_batch_is_told_by_itself() {
    let house = House::new();
    let node = house.start();
    let array = r#"[{"deviceId":"a","n":1},{"deviceId":"b","n":1},{"n":0},{"deviceId":"a","n":2}]"#;
    let lines = "{\"deviceId\":\"a\",\"n\":3}\n{oops\n{\"deviceId\":\"b\",\"n\":3}\n";
    let ndjson = [("idempotency-key", "key-of-the-lines"), ("content-type", "application/x-ndjson")];
    let array = || post_with(&node, "/metrics?ack=processed", "key-of-the-array", array).json();
    let lines = || request(node.http, "POST", "/metrics?ack=processed", &ndjson, lines.as_bytes()).json();
    let told = |answer: &Value| -> Vec<(Value, bool)> {
        let items = answer["items"].as_array().expect("items").iter();
        items.map(|item| (item["outcome"].clone(), item["duplicate"] == true)).collect()
    };
    let kept = (json!("kept"), false);
    let retry = (json!("conflated: idempotent-retry"), true);
    let refused = (Value::Null, false);
    assert_eq!(told(&array()), [kept.clone(), kept.clone(), refused.clone(), kept.clone()]);
    assert_eq!(told(&lines()), [kept.clone(), refused.clone(), kept]);
    for _ in 0..2 {
        let again = array();
        assert_eq!((&again["accepted"], &again["rejected"]), (&json!(3), &json!(1)), "{again}");
        assert_eq!(told(&again), [retry.clone(), retry.clone(), refused.clone(), retry.clone()]);
        assert_eq!(told(&lines()), [retry.clone(), refused.clone(), retry.clone()]);
    }
    assert_eq!(["a", "b"].map(|id| node.device(id).expect("known")["version"].clone()), [json!(3), json!(2)]);
    assert_eq!(retries(&node.settled_ledger()), 10);
}

#[test]
fn a_key_belongs_to_its_body() {
    let house = House::new();
    let node = house.start();
    let body = |n: u32| json!([{"n": n}, {"n": n}]).to_string();
    assert_eq!(post_with(&node, "/devices/d1/metrics?ack=committed", KEY, &body(1)).status, 200);
    let reused = post_with(&node, "/devices/d1/metrics?ack=committed", KEY, &body(2));
    assert_eq!(reused.problem(422, "idempotency-key-reused")["field"], "Idempotency-Key");
    assert_eq!(post_with(&node, "/devices/d1/metrics?ack=committed", KEY, &body(1)).status, 200, "the first stays");
    // It is a key of this device: another one may have the same.
    for path in ["/devices/d2/metrics", "/metrics"] {
        let body = r#"{"deviceId":"d2","n":3}"#;
        assert_eq!(post_with(&node, path, KEY, body).status, 202, "{path}");
    }
    // A body of which nothing was taken does not use the key up.
    assert_eq!(post_with(&node, "/devices/d3/metrics", KEY, "{oops").status, 400);
    assert_eq!(post_with(&node, "/devices/d3/metrics", KEY, r#"{"n":1}"#).status, 202);
    let ledger = node.settled_ledger();
    assert_eq!(ledger["rejected"], json!({"bad-json":1,"idempotency-key-reused":2}), "{ledger}");
    assert_eq!(node.device("d1").expect("known")["state"], json!({"n":1}));
    assert_eq!(node.metric("tidegate_idempotency_keys") as u64, 4);
    assert_eq!(node.metric("tidegate_idempotency_keys_forgotten_total") as u64, 0);
}

#[test]
fn two_devices_with_one_key_are_two_readings() {
    let house = House::new();
    let node = house.start();
    // Enough of them that both loops have some.
    for n in 0..8 {
        for outcome in ["kept", "conflated: idempotent-retry"] {
            let answer = post_with(&node, &format!("/devices/d{n}/metrics?ack=processed"), KEY, r#"{"n":1}"#);
            assert_eq!(answer.json()["outcome"], outcome, "d{n}");
        }
    }
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], retries(&ledger)), (&json!(8), 8), "{ledger}");
}

#[test]
fn what_is_no_key_is_refused_by_its_name() {
    let house = House::new();
    let node = house.start();
    let long = "k".repeat(256);
    for (key, words) in [
        ("short", "has 5 characters; allowed: 8 to 255"),
        (long.as_str(), "has 256 characters; allowed: 8 to 255"),
        ("", "has 0 characters"),
        ("with a blank", "not visible ASCII at byte 4"),
        ("caf\u{e9}-12345678", "not visible ASCII at byte 3"),
        ("\"open-ended", "begins with a quote"),
    ] {
        let problem = post_with(&node, "/metrics", key, r#"{"deviceId":"d1"}"#).problem(400, "bad-idempotency-key");
        assert_eq!(problem["field"], "Idempotency-Key", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{key:.20}: {problem}");
    }
    assert_eq!(post_with(&node, "/metrics", &long[..255], r#"{"deviceId":"d1"}"#).status, 202);
    let mut client = Client::connect(Library::Rumqttc, node.mqtt, V5, "d1");
    client.send(json!({"topic": "devices/d1/metrics", "payload": "{}", "key": "short"}));
    let (code, reason) = client.puback();
    assert_eq!(code, 0x99);
    assert!(reason.is_some_and(|reason| reason.contains("idempotency-key") && reason.contains("8 to 255")));
    node.settled_ledger();
}

#[test]
fn a_hundred_retries_at_once_are_one_reading() {
    let house = House::new().handler("10-count.js", COUNT);
    let node = house.start();
    let body = r#"{"deviceId":"d1","n":1}"#;
    std::thread::scope(|scope| {
        for thread in 0..20 {
            let node = &node;
            scope.spawn(move || {
                let mut http = Http::connect(node.http);
                for turn in 0..5 {
                    let level = ["received", "committed", "processed"][(thread + turn) % 3];
                    let path = format!("/metrics?ack={level}");
                    http.send("POST", &path, &[("idempotency-key", KEY)], body.as_bytes());
                    let answer = http.receive();
                    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
                }
            });
        }
    });
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["committed"], retries(&ledger)), (&json!(100), &json!(1), 99), "{ledger}");
    let device = node.device("d1").expect("known");
    assert_eq!((&device["version"], &device["state"]["calls"]), (&json!(1), &json!(1)), "{device}");
}

#[test]
fn a_retry_after_kill_9_is_no_reading() {
    let house = House::new().handler("10-count.js", COUNT);
    let body = r#"{"deviceId":"d1","n":1}"#;
    let mut node = house.start();
    assert_eq!(post_with(&node, "/metrics?ack=committed", KEY, body).status, 200);
    for _ in 0..2 {
        // The answer may have been lost with the node.
        node.kill9();
        node = house.start();
        let retry = post_with(&node, "/metrics?ack=processed", KEY, body);
        assert_eq!(retry.json()["duplicate"], true, "{}", retry.text());
        let device = node.device("d1").expect("known");
        assert_eq!((&device["version"], &device["state"]["calls"]), (&json!(1), &json!(1)), "{device}");
    }
    // The node has forgotten which body the key came with, and the device has not forgotten the request.
    let other = post_with(&node, "/metrics?ack=processed", "another-key", r#"{"deviceId":"d1","n":2}"#);
    assert_eq!(other.json()["outcome"], "kept");
    node.settled_ledger();
}

#[test]
fn a_retry_completes_a_batch_of_which_half_was_kept() {
    const READINGS: usize = 2_000;
    let house = House::new();
    let body: Vec<Value> = (0..READINGS).map(|n| json!({"n": n, "pad": "x".repeat(50)})).collect();
    let body = json!(body).to_string();
    let mut node = house.start();
    assert_eq!(post_with(&node, "/devices/d1/metrics?ack=committed", KEY, &body).status, 200);
    node.kill9();
    // As if the power had gone while the batch was written: half of it is on the disk, and nothing of the view.
    cut_in_half(&house.data());
    let mut node = house.start();
    let kept = node.device("d1").expect("known")["version"].as_u64().expect("a number");
    assert!((1..READINGS as u64).contains(&kept), "the cut left {kept}");
    let retry = post_with(&node, "/devices/d1/metrics?ack=processed", KEY, &body).json();
    let duplicates = retry["items"].as_array().expect("items").iter().filter(|item| item["duplicate"] == true).count();
    assert_eq!((&retry["accepted"], duplicates as u64), (&json!(READINGS), kept));
    assert!(retry["items"][0]["duplicate"] == true && retry["items"][READINGS - 1]["duplicate"].is_null());
    let device = node.device("d1").expect("known");
    assert_eq!((&device["version"], &device["state"]["n"]), (&json!(READINGS), &json!(READINGS - 1)));
    // And once more, over a crash.
    node.kill9();
    let node = house.start();
    let again = post_with(&node, "/devices/d1/metrics?ack=processed", KEY, &body).json();
    assert!(again["items"].as_array().expect("items").iter().all(|item| item["duplicate"] == true));
    assert_eq!(node.device("d1").expect("known")["version"], READINGS);
}

/// Cuts the journal in the middle of what was written, and removes what was folded from it.
fn cut_in_half(data: &Path) {
    let mut segments: Vec<_> = fs::read_dir(data.join("journal")).expect("a journal").flatten().collect();
    segments.retain(|entry| entry.path().extension().is_some_and(|extension| extension == "tgj"));
    assert_eq!(segments.len(), 1, "one segment has it all");
    let path = segments[0].path();
    let bytes = fs::read(&path).expect("the segment can be read");
    // It may have been made longer beforehand.
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something was written");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the segment can be written");
    file.set_len(written as u64 / 2).expect("it can be cut");
    for entry in fs::read_dir(data).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("state") {
            fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())).expect("it can be removed");
        }
    }
}

#[test]
fn over_mqtt_5_the_key_is_a_user_property() {
    let house = House::new().handler("10-count.js", COUNT);
    let node = house.start();
    let connect = |id: &str| Client::connect(Library::Rumqttc, node.mqtt, V5, id);
    let (mut one, mut other) = (connect("one"), connect("other"));
    let message =
        |payload: &str| json!({"topic": "devices/d1/metrics", "payload": payload, "ack": "processed", "key": KEY});
    let ask = |client: &mut Client, message: Value| {
        client.send(message);
        client.puback()
    };
    assert_eq!(ask(&mut one, message(r#"{"n":1}"#)), (0, None));
    let retry = (0, Some("conflated: idempotent-retry".to_owned()));
    // Over its own connection, over another one, and over HTTP.
    assert_eq!(ask(&mut one, message(r#"{"n":1}"#)), retry);
    assert_eq!(ask(&mut other, message(r#"{"n":1}"#)), retry);
    let http = post_with(&node, "/devices/d1/metrics?ack=processed", KEY, r#"{"n":1}"#);
    assert_eq!(http.json()["duplicate"], true, "{}", http.text());
    let (code, reason) = ask(&mut other, message(r#"{"n":2}"#));
    assert_eq!(code, 0x83);
    assert!(reason.is_some_and(|reason| reason.contains("came with another body")));
    // An array is one request, and another device is another request.
    let array =
        json!({"topic": "devices/d2/metrics", "payload": r#"[{"n":1},{"n":2}]"#, "ack": "processed", "key": KEY});
    assert_eq!(ask(&mut one, array.clone()), (0, None));
    assert_eq!(ask(&mut other, array), retry);
    assert_eq!(node.device("d1").expect("known")["state"], json!({"n":1,"calls":1}));
    assert_eq!(node.device("d2").expect("known")["state"], json!({"n":2,"calls":2}));
    assert_eq!(retries(&node.settled_ledger()), 5);
}

#[test]
fn a_redelivered_publish_is_a_second_reading_unless_it_has_a_key() {
    let house = House::new().handler("10-count.js", COUNT);
    let node = house.start();
    for version in [V3, V5] {
        let device = format!("dup-{version:?}");
        let topic = format!("devices/{device}/metrics");
        let mut client = Raw::connect(node.mqtt, version, &device);
        let mut send = |bytes: &[u8]| {
            client.send(bytes);
            assert_eq!(client.expect(0x40).puback().1, 0);
        };
        // The flag promises nothing: a client may set it on what the node has never seen (MQTT 5 section 3.3.1.1).
        send(&again(&publish(version, &topic, 1, 1, &[], br#"{"n":1}"#)));
        node.device_with(&device, "n", &json!(1));
        let timed = publish(version, &topic, 1, 2, &[], br#"{"n":2,"ts":1000}"#);
        send(&timed);
        node.device_with(&device, "calls", &json!(2));
        let before = node.device(&device).expect("known");
        send(&again(&timed));
        let after = node.device_with(&device, "calls", &json!(3));
        // The same state, made twice: but for what the handler itself counts.
        assert_eq!((&after["state"]["n"], &after["deviceTime"]), (&before["state"]["n"], &before["deviceTime"]));
        assert_eq!(after["version"], 3);
        if version == V5 {
            let wishes = [user_property("ack", "processed"), user_property("idempotency-key", KEY)].concat();
            let keyed = publish(version, &topic, 1, 3, &wishes, br#"{"n":3}"#);
            send(&keyed);
            send(&again(&keyed));
            assert_eq!(node.device(&device).expect("known")["state"], json!({"n":3,"calls":4}));
        }
    }
    assert_eq!(retries(&node.settled_ledger()), 1);
}
