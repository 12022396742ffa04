//! Live views from outside: what a filter names twice comes once, and a viewer sees what it asked for last.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{House, Node, websocket::Viewer};

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

#[test]
fn a_device_that_a_filter_names_twice_comes_once() {
    let (_house, node) = node();
    node.post("/metrics?ack=processed", r#"{"deviceId":"pump-1","n":1}"#);
    let query = "?deviceId=pump-1&deviceId=pump-1&prefix=pump-&prefix=pump&deviceId=z";
    let mut viewer = Viewer::open(node.http, query);
    let snapshot = viewer.snapshot();
    assert_eq!(snapshot.iter().filter(|message| message["type"] == "state").count(), 1, "{snapshot:?}");
    for n in 2..=20 {
        node.post("/metrics?ack=processed", &json!({"deviceId":"pump-1","n":n}).to_string());
    }
    node.post("/metrics?ack=processed", r#"{"deviceId":"z","n":1}"#);
    let seen = viewer.until("the update of z", |message| message["deviceId"] == "z");
    let versions: Vec<_> = seen
        .iter()
        .filter(|message| message["deviceId"] == "pump-1")
        .map(|message| message["version"].clone())
        .collect();
    assert_eq!(versions, (2..=20).map(|version| json!(version)).collect::<Vec<_>>());
}

#[test]
fn a_viewer_that_changes_its_mind_sees_what_it_asked_for_last() {
    let (_house, node) = node();
    let lines: String = (0..2_000).map(|n| json!({"deviceId": format!("d{n}"), "n": n}).to_string() + "\n").collect();
    for chunk in lines.lines().collect::<Vec<_>>().chunks(500) {
        node.post("/metrics?ack=processed", &format!("[{}]", chunk.join(",")));
    }
    let mut viewer = Viewer::open(node.http, "");
    for _ in 0..30 {
        viewer.send(&json!({"watch":{"fleet":true}}));
        viewer.send(&json!({"watch":{"deviceIds":["z"]}}));
    }
    while viewer.next_within(Duration::from_secs(1)).is_some() {}
    node.post("/metrics?ack=processed", r#"{"deviceId":"d1","n":1}"#);
    node.post("/metrics?ack=processed", r#"{"deviceId":"d2","n":1}"#);
    node.post("/metrics?ack=processed", r#"{"deviceId":"z","n":1}"#);
    let seen = viewer.until("the update of z", |message| message["deviceId"] == "z");
    assert_eq!(seen.len(), 1, "{seen:?}");
}
