//! An operator's work on handlers that fail: what `tidegate script list` shows, re-arming, switching off and on, and what becomes of
//! the readings of a handler whose breaker is open.

mod support;

use std::{path::Path, process::Output};

use serde_json::{Value, json};
use support::{House, Node, auth, eventually, http::Response, node::tidegate};

/// Fails on `bad` and hangs on `hang`.
const PICKY: &str = "export const match = { devices: ['p-*'] };
export function onMetric(metric) {
  if (metric.hang) return { hit: /^(a+)+$/.test('a'.repeat(40) + '!') };
  if (metric.bad) throw new TypeError('no good');
  return { ...metric, picky: true };
}";
const LAST: &str = "export function onMetric(metric) { return { ...metric, last: true }; }";

fn house(policy: &str) -> House {
    House::new()
        .handler("10-picky.js", PICKY)
        .handler("20-last.js", LAST)
        .variable("TIDEGATE_SCRIPTS__BREAKER_POLICY", policy)
        .variable("TIDEGATE_SCRIPTS__BREAKER_OPEN_MS", "86400000")
}

fn script(node: &Node, arguments: &[&str]) -> Output {
    let url = format!("http://{}", node.http);
    let run = tidegate(Path::new("/")).arg("script").args(arguments).args(["--node", &url]).output();
    run.expect("the binary starts")
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn send(node: &Node, reading: &Value) -> Response {
    node.post("/metrics?ack=processed", &reading.to_string())
}

#[track_caller]
fn outcome(node: &Node, reading: &Value) -> Value {
    let answer = send(node, reading);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outcome"].clone()
}

/// Fails until the breaker is open.
#[track_caller]
fn open(node: &Node) {
    for n in 0..3 {
        assert_eq!(outcome(node, &json!({"deviceId": "p-1", "bad": true, "n": n})), "parked: threw");
    }
    assert_eq!(picky(node)["status"], "open");
}

fn picky(node: &Node) -> Value {
    let scripts = node.get("/scripts").json()["scripts"].clone();
    let scripts = scripts.as_array().expect("scripts");
    scripts.iter().find(|script| script["name"] == "10-picky.js").expect("the picky one").clone()
}

#[test]
fn the_list_shows_what_is_wrong_and_one_command_mends_it() {
    let house = house("park");
    let mut node = house.start();
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "n": 1})), "kept");
    open(&node);
    node.logged(&["the breaker is open", "tidegate script rearm 10-picky.js"]);

    let list = said(&script(&node, &["list"]));
    let row = list.lines().find(|line| line.starts_with("10-picky.js")).expect("its row");
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[2], cells[3]), ("1", "OPEN", "4"), "generation, breaker, calls: {row}");
    assert!(row.contains(" us") && row.contains(" %"), "{row}");
    for part in [
        "TypeError: no good (10-picky.js:4:",
        "device p-1, position ",
        r#"{"bad":true,"n":2}"#,
        "are parked; re-arm it: tidegate script rearm 10-picky.js",
    ] {
        assert!(list.contains(part), "{part} in {list}");
    }
    let json: Value = serde_json::from_str(&said(&script(&node, &["list", "--json"]))).expect("JSON");
    let listed = &json["scripts"][0];
    assert_eq!((&listed["status"], &listed["errors"], &listed["policy"]), (&json!("open"), &json!(3), &json!("park")));
    assert_eq!(
        (&listed["lastError"]["line"], &listed["lastInput"]["deviceId"]),
        (&json!(4), &json!("p-1")),
        "{listed}"
    );

    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "n": 2})), "parked: breaker-open");
    assert_eq!(outcome(&node, &json!({"deviceId": "other", "n": 2})), "kept", "its neighbour works");
    assert_eq!(said(&script(&node, &["rearm", "10-picky.js"])), "10-picky.js: CLOSED\n");
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "n": 3})), "kept");
    let ledger = node.settled_ledger();
    assert_eq!(ledger["parked"], json!({"threw": 3, "breaker-open": 1}), "{ledger}");

    let unknown = script(&node, &["rearm", "10-piky.js"]);
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && words.contains("10-picky.js, 20-last.js"), "{words}");
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn with_pass_readings_go_on_without_the_handler() {
    let node = house("pass").start();
    open(&node);
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "n": 7})), "kept");
    assert_eq!(node.device("p-1").expect("known")["state"], json!({"n": 7, "last": true}), "the others work on it");
    assert_eq!(node.settled_ledger()["parked"], json!({"threw": 3}));
    said(&script(&node, &["rearm", "10-picky.js"]));
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "n": 8})), "kept");
    assert_eq!(node.device("p-1").expect("known")["state"], json!({"n": 8, "picky": true, "last": true}));
}

#[test]
fn with_reject_readings_are_refused_at_the_door_and_one_is_tried_later() {
    let house = house("reject").variable("TIDEGATE_SCRIPTS__BREAKER_OPEN_MS", "1500");
    let mut node = house.start();
    open(&node);
    let refused = send(&node, &json!({"deviceId": "p-1", "n": 7}));
    assert!(refused.header("retry-after").is_some(), "{}", refused.text());
    refused.problem(503, "handler-open");
    assert_eq!(outcome(&node, &json!({"deviceId": "other", "n": 7})), "kept");
    let ledger = node.get("/ledger").json();
    assert_eq!(
        (&ledger["rejected"], &ledger["parked"]),
        (&json!({"handler-open": 1}), &json!({"threw": 3})),
        "{ledger}"
    );
    // The one that is let through closes it.
    eventually("it takes readings again", || {
        Some(()).filter(|()| send(&node, &json!({"deviceId": "p-1", "n": 8})).status == 200)
    });
    assert_eq!(
        (&picky(&node)["status"], outcome(&node, &json!({"deviceId": "p-1", "n": 9}))),
        (&json!("closed"), json!("kept"))
    );
    node.settled_ledger();
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_handler_that_costs_too_many_workers_is_shut_although_most_readings_go_well() {
    let house = house("park")
        .variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "1000")
        .variable("TIDEGATE_SCRIPTS__CALL_WALL_MS", "100");
    let node = house.start();
    let mut hung = 0;
    while picky(&node)["status"] == "closed" {
        assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "hang": true})), "parked: deadline");
        hung += 1;
        assert!(hung <= 3, "each of them costs two workers, and five are allowed");
        let well = outcome(&node, &json!({"deviceId": "p-2", "n": hung}));
        assert!(well == "kept" || picky(&node)["status"] == "open", "{well}");
    }
    assert_eq!((hung, &picky(&node)["status"]), (3, &json!("open")));
    node.logged(&["the breaker is open", "too many restarts of workers"]);
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "hang": true})), "parked: breaker-open");
    assert_eq!(outcome(&node, &json!({"deviceId": "other", "n": 7})), "kept");
}

#[test]
fn a_handler_that_is_switched_off_stays_off_until_it_is_switched_on() {
    let house = house("park");
    let mut node = house.start();
    assert_eq!(said(&script(&node, &["disable", "10-picky.js"])), "10-picky.js: CLOSED, switched off\n");
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "bad": true})), "kept");
    assert_eq!(node.device("p-1").expect("known")["state"], json!({"bad": true, "last": true}));
    let row = said(&script(&node, &["list"]));
    assert!(row.lines().any(|line| line.starts_with("10-picky.js") && line.ends_with("no")), "{row}");
    assert_eq!(node.stop(), Some(0));

    let node = house.start();
    assert_eq!(
        (&picky(&node)["enabled"], outcome(&node, &json!({"deviceId": "p-1", "bad": true}))),
        (&json!(false), json!("kept"))
    );
    // It stays off in a new version, too.
    std::fs::write(house.path("handlers/10-picky.js"), format!("{PICKY}\n// changed")).expect("written");
    said(&script(&node, &["reload", "--no-canary"]));
    assert_eq!((&picky(&node)["enabled"], &picky(&node)["generation"]), (&json!(false), &json!(2)));
    let on: Value = serde_json::from_str(&said(&script(&node, &["enable", "10-picky.js", "--json"]))).expect("JSON");
    assert_eq!((&on["enabled"], &on["name"]), (&json!(true), &json!("10-picky.js")));
    assert_eq!(outcome(&node, &json!({"deviceId": "p-1", "bad": true})), "parked: threw");
}

#[test]
fn who_may_look_may_not_change_and_changes_are_audited() {
    let house = house("park");
    auth::user(&house, "ann", "operator", "secret-1");
    auth::user(&house, "vic", "viewer", "secret-2");
    auth::user(&house, "d1", "device", "secret-3");
    let mut node = house.start();
    for (user, password, looks, changes) in
        [("ann", "secret-1", 200, 200), ("vic", "secret-2", 200, 403), ("d1", "secret-3", 403, 403)]
    {
        node.as_user(user, password);
        assert_eq!(node.get("/scripts").status, looks, "{user}");
        for path in [
            "/scripts/10-picky.js/rearm",
            "/scripts/10-picky.js/disable",
            "/scripts/10-picky.js/enable",
            "/scripts/reload",
        ] {
            assert_eq!(node.post(path, "").status, changes, "{user} {path}");
        }
    }
    node.showing(None);
    assert_eq!(node.post("/scripts/rollback", "").status, 401);
    assert_eq!(node.get("/scripts/10-picky.js/rearm").status, 401);
    assert_eq!(node.stop(), Some(0));
    assert_eq!(auth::audited(&house, &["ann", "200", "POST /scripts/10-picky.js/rearm"]).len(), 1);
    assert_eq!(auth::audited(&house, &["ann", "200", "POST /scripts/reload"]).len(), 1);
    assert_eq!(auth::audited(&house, &["vic", "denied", "POST /scripts/10-picky.js/disable"]).len(), 1);
}
