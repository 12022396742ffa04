//! Shadows: over HTTP, over MQTT, and from one to the other; what was accepted is still there after kill -9.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{
    Dice, House, Node,
    driver::{Client, Library, Message},
    http::{self, Response},
    mqtt::Version::{self, V3, V5},
};

#[test]
fn rumqttc_v3() {
    scenario(Library::Rumqttc, V3);
}

#[test]
fn rumqttc_v5() {
    scenario(Library::Rumqttc, V5);
}

#[test]
fn paho_v3() {
    scenario(Library::Paho, V3);
}

#[test]
fn paho_v5() {
    scenario(Library::Paho, V5);
}

/// What AWS' own example does with a lamp, by a device over MQTT and an application over HTTP.
fn scenario(library: Library, version: Version) {
    let house = House::new();
    let mut node = house.start();
    for id in ["lamp-1", "lamp-2", "lamp-3"] {
        let topic = |rest: &str| format!("devices/{id}/shadow/{rest}");
        let path = format!("/devices/{id}/shadow");
        node.get(&path).problem(404, "no-shadow");
        let mut device = Client::connect(library, node.mqtt, version, id);
        assert_eq!(device.subscribe(&topic("#"), 1), 1);
        assert_eq!(device.publish(&topic("get"), r#"{"clientToken":"first"}"#), 0);
        let (on, body) = heard(&mut device);
        assert_eq!((on, &body["code"], &body["clientToken"]), (topic("get/rejected"), &json!(404), &json!("first")));

        // The application wants something.
        let answer = patch(&node, id, &json!({"state": {"desired": {"on": true, "color": {"r": 255}}}}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["version"], 1);
        let (on, body) = heard(&mut device);
        assert_eq!((on, &body["state"]["desired"]["on"]), (topic("update/accepted"), &json!(true)));
        let (on, delta) = heard(&mut device);
        assert_eq!((on, &delta["state"]), (topic("update/delta"), &json!({"on": true, "color": {"r": 255}})));
        assert!(delta["metadata"]["color"]["r"]["timestamp"].is_i64(), "{delta}");
        let (on, documents) = heard(&mut device);
        assert_eq!(on, topic("update/documents"));
        assert_eq!((&documents["previous"]["version"], &documents["current"]["version"]), (&json!(0), &json!(1)));

        // The device does part of it.
        let report =
            json!({"state": {"reported": {"on": true, "color": {"r": 254}}}, "version": 1, "clientToken": "t"});
        assert_eq!(device.publish(&topic("update"), &report.to_string()), 0);
        let (on, body) = heard(&mut device);
        assert_eq!((on, &body["clientToken"], &body["version"]), (topic("update/accepted"), &json!("t"), &json!(2)));
        let (on, delta) = heard(&mut device);
        assert_eq!((on, &delta["state"]), (topic("update/delta"), &json!({"color": {"r": 255}})));
        heard(&mut device);
        let shadow = node.get(&path).json();
        assert_eq!(shadow["state"]["delta"], json!({"color": {"r": 255}}), "{shadow}");
        assert_eq!(shadow["state"]["reported"], json!({"on": true, "color": {"r": 254}}));
        assert!(shadow["metadata"]["reported"]["on"]["timestamp"].is_i64() && shadow["timestamp"].is_i64());

        // For a version that has passed: a conflict, over both ways.
        let stale = json!({"state": {"reported": {"on": false}}, "version": 1, "clientToken": "stale"});
        assert_eq!(device.publish(&topic("update"), &stale.to_string()), 0);
        let (on, body) = heard(&mut device);
        assert_eq!((on, &body["code"], &body["clientToken"]), (topic("update/rejected"), &json!(409), &json!("stale")));
        let problem = patch(&node, id, &stale).problem(409, "version-conflict");
        assert_eq!(problem["clientToken"], "stale", "{problem}");

        // The rest, and a key goes.
        let rest = json!({"state": {"reported": {"color": {"r": 255, "g": null}}, "desired": {"on": null}}});
        assert_eq!(device.publish(&topic("update"), &rest.to_string()), 0);
        assert_eq!([heard(&mut device).0, heard(&mut device).0], [topic("update/accepted"), topic("update/documents")]);
        assert_eq!(device.publish(&topic("get"), ""), 0);
        let (on, body) = heard(&mut device);
        let state = json!({"desired": {"color": {"r": 255}}, "reported": {"on": true, "color": {"r": 255}}});
        assert_eq!((on, &body["state"], &body["version"]), (topic("get/accepted"), &state, &json!(3)));

        // What is no update.
        for (payload, code) in [("no", 400), (r#"{"state":{"desired":1}}"#, 400), (r#"{"state":{"wanted":{}}}"#, 400)] {
            assert_eq!(device.publish(&topic("update"), payload), 0);
            let (on, body) = heard(&mut device);
            assert_eq!((on, &body["code"]), (topic("update/rejected"), &json!(code)), "{payload}");
        }
        // It is deleted, and its versions go on.
        assert_eq!(device.publish(&topic("delete"), ""), 0);
        let (on, body) = heard(&mut device);
        assert_eq!((on, &body["version"]), (topic("delete/accepted"), &json!(3)));
        node.get(&path).problem(404, "no-shadow");
        http::request(node.http, "DELETE", &path, &[], b"").problem(404, "no-shadow");
        assert_eq!(patch(&node, id, &json!({"state": {"reported": {"on": false}}})).json()["version"], 4);
        device.leave();
    }
    assert_eq!(node.metric("tidegate_shadow_requests_total{result=\"conflict\"}"), 6.0);
    node.assert_alive();
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn limits_are_named() {
    let house = House::new();
    let node = house.start();
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"k": inner}));
    assert_eq!(patch(&node, "d1", &json!({"state": {"desired": nested(8)}})).status, 200);
    let problem = patch(&node, "d1", &json!({"state": {"desired": nested(9)}})).problem(400, "bad-shadow");
    assert_eq!((&problem["limit"], &problem["limitValue"]), (&json!("shadow_depth"), &json!(8)));
    let problem = patch(&node, "d1", &json!({"state": {"reported": {"k": "x".repeat(8_192)}}}));
    let problem = problem.problem(413, "shadow-too-large");
    assert_eq!((&problem["limit"], &problem["limitValue"]), (&json!("shadow_bytes"), &json!(8_192)));
    let problem = patch(&node, "d1", &json!({"state": {}, "clientToken": "x".repeat(65)})).problem(400, "bad-shadow");
    assert_eq!(problem["limit"], "shadow_token_bytes");
    http::request(node.http, "PATCH", "/devices/d1/shadow", &[], b"{").problem(400, "bad-shadow");
    http::request(node.http, "PATCH", "/devices/a%2Fb/shadow", &[], b"{\"state\":{}}").problem(400, "bad-device-id");
    http::request(node.http, "PATCH", "/devices/d1/shadow?version=1", &[], b"{\"state\":{}}")
        .problem(400, "bad-parameter");
    let answer = http::request(node.http, "PUT", "/devices/d1/shadow", &[], b"");
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET, PATCH, POST, DELETE"));
    assert_eq!(node.get("/devices/d1/shadow").json()["version"], 1, "what was refused has changed nothing");
}

#[test]
fn of_many_writers_of_one_version_one_wins() {
    let house = House::new();
    let node = house.start();
    let mut version = 0;
    for round in 0..10 {
        let to = node.http;
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let body = json!({"state": {"desired": {"writer": writer}}, "version": version}).to_string();
                std::thread::spawn(move || http::request(to, "POST", "/devices/d1/shadow", &[], body.as_bytes()))
            })
            .collect();
        let answers: Vec<Response> = writers.into_iter().map(|writer| writer.join().expect("an answer")).collect();
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        let lost = answers.iter().filter(|answer| answer.status == 409).count();
        assert_eq!((won, lost), (1, 7), "round {round}");
        version += 1;
        assert_eq!(node.get("/devices/d1/shadow").json()["version"], version);
    }
}

#[test]
fn what_was_accepted_survives_kill_9() {
    let seed = 20_261_127;
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    let house = House::new();
    let mut model: BTreeMap<String, (u64, Value)> = BTreeMap::new();
    let mut gone = 0;
    for round in 0..4 {
        let mut node = house.start();
        for (id, (version, state)) in &model {
            let shadow = node.get(&format!("/devices/{id}/shadow"));
            if state.is_null() {
                shadow.problem(404, "no-shadow");
                continue;
            }
            let shadow = shadow.json();
            assert_eq!((&shadow["version"], &shadow["state"]["reported"]), (&json!(version), state), "{id}, {round}");
        }
        let mut device = Client::connect(Library::Rumqttc, node.mqtt, V3, "writer");
        for _ in 0..60 {
            let id = format!("s{}", dice.between(0, 9));
            let n = dice.next() % 1_000;
            let (version, state) = model.entry(id.clone()).or_insert((0, Value::Null));
            if dice.between(0, 9) == 0 && !state.is_null() {
                assert_eq!(http::request(node.http, "DELETE", &format!("/devices/{id}/shadow"), &[], b"").status, 200);
                *state = Value::Null;
                gone += 1;
                continue;
            }
            let update = json!({"state": {"reported": {"n": n, "round": round}}, "version": version});
            if dice.between(0, 1) == 0 {
                assert_eq!(patch(&node, &id, &update).status, 200);
            } else {
                // Its PUBACK says that it is durable.
                assert_eq!(device.publish(&format!("devices/{id}/shadow/update"), &update.to_string()), 0);
            }
            (*version, *state) = (*version + 1, json!({"n": n, "round": round}));
        }
        node.kill9();
    }
    assert!(gone > 0, "no shadow was deleted");
    let mut node = house.start();
    assert_eq!(node.stop(), Some(0));
}

// ---- what the tests share

#[track_caller]
fn patch(node: &Node, device: &str, body: &Value) -> Response {
    let path = format!("/devices/{}/shadow", http::escape(device));
    http::request(node.http, "PATCH", &path, &[], body.to_string().as_bytes())
}

/// The next message's topic and JSON.
#[track_caller]
fn heard(client: &mut Client) -> (String, Value) {
    let Message { topic, payload, .. } = client.message();
    let body = serde_json::from_str(&payload).unwrap_or_else(|error| panic!("{error}: {payload}"));
    (topic, body)
}
