//! Parked readings from outside: listed as soon as they are answered, shown, retried and dropped, over HTTP and the command line,
//! and over kill -9.

mod support;

use serde_json::{Value, json};
use support::{
    House, Node, eventually,
    http::{Http, Response, request},
    raw::run,
};

/// Cannot work on a reading with `bad` until one with `heal` has come for the device; counts what it worked on.
const HANDLER: &str = "
export function onMetric(metric, ctx) {
  if (metric.hang) return { hit: /^(a+)+$/.test('a'.repeat(40) + '!') };
  if (metric.bad && !ctx.state.healed) throw new TypeError('no good');
  ctx.state.healed = ctx.state.healed || metric.heal;
  ctx.state.calls = (ctx.state.calls ?? 0) + 1;
  return { ...metric, calls: ctx.state.calls };
}";
const FIXED: &str = "export function onMetric(metric) { return { ...metric, fixed: true }; }";

fn house() -> House {
    // The breaker is another test's matter.
    House::new().handler("10-picky.js", HANDLER).variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "1000")
}

/// Parks a reading and returns its position, which is listed at once.
#[track_caller]
fn park(node: &Node, device: &str, reading: &Value) -> u64 {
    let answer = node.post(&format!("/devices/{device}/metrics?ack=processed"), &reading.to_string());
    assert_eq!(answer.json()["outcome"], "parked: threw", "{}", answer.text());
    let newest = node.get(&format!("/parked?limit=1&deviceId={device}")).json()["parked"][0].clone();
    let mut payload = reading.clone();
    payload.as_object_mut().expect("an object").remove("ts");
    assert_eq!((&newest["deviceId"], &newest["payload"]), (&json!(device), &payload), "{newest}");
    newest["position"].as_u64().expect("a position")
}

fn positions(node: &Node, query: &str) -> Vec<u64> {
    let list = node.get(&format!("/parked{query}")).json();
    list["parked"].as_array().expect("a list").iter().filter_map(|row| row["position"].as_u64()).collect()
}

fn retry(node: &Node, position: u64) -> Response {
    node.post(&format!("/parked/{position}/retry"), "")
}

fn drop_one(node: &Node, position: u64) -> Response {
    request(node.http, "DELETE", &format!("/parked/{position}"), &[], b"")
}

#[test]
fn a_parked_reading_is_listed_shown_retried_and_gone() {
    let house = house();
    let node = house.start();
    let first = park(&node, "d1", &json!({"bad": true, "ts": 5000}));
    let row = node.get(&format!("/parked/{first}")).json();
    assert_eq!(
        (&row["script"], &row["reason"], &row["deviceTime"]),
        (&json!("10-picky.js"), &json!("threw"), &json!(5000))
    );
    assert!(row["message"].as_str().is_some_and(|message| message.contains("no good")), "{row}");

    // Nothing has changed: it is parked again, at a position of its own, and once.
    let again = retry(&node, first);
    let expected = json!({"position": first, "deviceId": "d1", "result": "parked", "reason": "threw"});
    assert_eq!((again.status, again.json()), (200, expected));
    let second = positions(&node, "")[..].to_vec();
    assert!(second.len() == 1 && second[0] > first, "{second:?}");
    let problem = retry(&node, first).problem(404, "unknown-parked");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("retried or dropped")), "{problem}");

    node.post("/devices/d1/metrics?ack=processed", r#"{"heal":true,"ts":4000}"#);
    let kept = retry(&node, second[0]).json();
    assert_eq!(kept, json!({"position": second[0], "deviceId": "d1", "result": "kept"}));
    assert_eq!(node.get("/parked").json(), json!({"parked":[],"next":null}));
    let device = node.device("d1").expect("known");
    assert_eq!(
        (&device["state"]["calls"], &device["deviceTime"], &device["version"]),
        (&json!(2), &json!(5000), &json!(2))
    );
    for response in [retry(&node, second[0]), drop_one(&node, second[0]), node.get(&format!("/parked/{}", second[0]))] {
        response.problem(404, "unknown-parked");
    }
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], &ledger["parked"]), (&json!(2), &json!({"threw":2})), "{ledger}");
}

#[test]
fn a_list_has_pages_and_devices() {
    let house = house();
    let node = house.start();
    let bad = json!({"bad": true});
    let all: Vec<u64> = (0..7).map(|n| park(&node, ["a", "b", "c"][n % 3], &bad)).collect();
    let mut newest_first = all.clone();
    newest_first.reverse();
    assert_eq!(positions(&node, ""), newest_first);
    let page = node.get("/parked?limit=3").json();
    assert_eq!(page["next"], newest_first[2]);
    assert_eq!(positions(&node, &format!("?limit=3&before={}", newest_first[2])), newest_first[3..6]);
    assert_eq!(node.get(&format!("/parked?limit=3&before={}", newest_first[5])).json()["next"], Value::Null);
    let of_a = [all[6], all[3], all[0]];
    assert_eq!(positions(&node, "?deviceId=a"), of_a);
    assert_eq!(positions(&node, &format!("?deviceId=a&limit=1&before={}", all[6])), [all[3]]);
    // The same when the store has them, and when it does not have the last changes.
    eventually("a checkpoint", || {
        let overview = node.get("/api/overview").json();
        (overview["checkpoint"]["folded"].as_u64() >= overview["journal"]["committed"].as_u64()).then_some(())
    });
    assert_eq!(positions(&node, ""), newest_first);
    assert_eq!(drop_one(&node, all[3]).status, 204);
    let newer = park(&node, "a", &bad);
    assert_eq!(positions(&node, "?deviceId=a"), [newer, all[6], all[0]]);
    assert_eq!(positions(&node, "?limit=2&deviceId=a"), [newer, all[6]]);
    assert_eq!(positions(&node, "?limit=1000").len(), 7);
    for (path, words) in [
        ("/parked/last", "a position is a whole number"),
        ("/parked?before=x", "a position is a whole number"),
        ("/parked?deviceId=a%2Fb", "may not contain '/'"),
        ("/parked?device=a", "allowed: before, deviceId, limit"),
    ] {
        let problem = node.get(path).problem(400, "bad-parameter");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{path}: {problem}");
    }
    let refused = node.get(&format!("/parked/{newer}/retry"));
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    let refused = node.post(&format!("/parked/{newer}"), "");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, DELETE")));
}

#[test]
fn one_operator_at_a_time() {
    let house = house().variable("TIDEGATE_SCRIPTS__CALL_WALL_MS", "2500");
    let node = house.start();
    let answer = node.post("/devices/d1/metrics?ack=processed", r#"{"hang":true}"#);
    assert_eq!(answer.json()["outcome"], "parked: deadline");
    let position = positions(&node, "")[0];
    let mut first = Http::connect(node.http);
    first.send("POST", &format!("/parked/{position}/retry"), &[], b"");
    eventually("the retry under way", || (node.get("/ledger").json()["inFlight"] == 1).then_some(()));
    for response in [retry(&node, position), drop_one(&node, position)] {
        let problem = response.problem(409, "parked-busy");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("being retried")), "{problem}");
    }
    assert_eq!(node.get(&format!("/parked/{position}")).status, 200, "until it is through");
    assert_eq!(first.receive().json()["result"], "parked");
    retry(&node, position).problem(404, "unknown-parked");
    assert_eq!(positions(&node, "").len(), 1);
}

#[test]
fn a_retry_does_not_replace_what_came_meanwhile() {
    let house = house();
    let node = house.start();
    let position = park(&node, "d1", &json!({"bad": true}));
    let came = node.get(&format!("/parked/{position}")).json()["receivedTime"].as_i64();
    // Until it came in another millisecond, and so later by the clock.
    eventually("a later reading", || {
        node.post("/devices/d1/metrics?ack=processed", r#"{"heal":true,"n":2}"#);
        (node.device("d1")?["receivedTime"].as_i64() > came).then_some(())
    });
    let late = retry(&node, position).json();
    assert_eq!((&late["result"], &late["reason"]), (&json!("conflated"), &json!("late")));
    assert_eq!(node.device("d1").expect("known")["state"]["n"], 2);
    assert_eq!(positions(&node, ""), [0_u64; 0]);
}

#[test]
fn a_parked_request_is_retried_though_it_has_a_key() {
    let house = house();
    let node = house.start();
    let body = r#"{"bad":true,"ts":9000}"#;
    let send = || {
        request(
            node.http,
            "POST",
            "/devices/d1/metrics?ack=processed",
            &[("idempotency-key", "key-00000001")],
            body.as_bytes(),
        )
    };
    assert_eq!(send().json()["outcome"], "parked: threw");
    assert_eq!(send().json()["duplicate"], true, "its sender's retry is not parked a second time");
    let parked = positions(&node, "");
    assert_eq!(parked.len(), 1);
    node.post("/devices/d1/metrics?ack=processed", r#"{"heal":true,"ts":1}"#);
    assert_eq!(retry(&node, parked[0]).json()["result"], "kept");
    assert_eq!(send().json()["duplicate"], true);
    assert_eq!(node.device("d1").expect("known")["version"], 2);
}

#[test]
fn what_is_parked_retried_and_dropped_survives_kill_9() {
    let house = house();
    let mut node = house.start();
    let of = |node: &Node, device: &str| positions(node, &format!("?deviceId={device}"));
    let kept = park(&node, "kept", &json!({"bad": true, "n": 1}));
    let retried = park(&node, "retried", &json!({"bad": true, "n": 2}));
    let dropped = park(&node, "dropped", &json!({"bad": true, "n": 3}));
    node.kill9();
    node = house.start();
    assert_eq!([of(&node, "kept"), of(&node, "retried"), of(&node, "dropped")], [[kept], [retried], [dropped]]);
    // In order, so that what the old handler made of them is in the journal: what is not, the new one would be asked for.
    assert_eq!(node.stop(), Some(0));

    // With a handler that can work on them.
    let house = house.handler("10-picky.js", FIXED);
    node = house.start();
    assert_eq!(retry(&node, retried).json()["result"], "kept");
    assert_eq!(drop_one(&node, dropped).status, 204);
    for _ in 0..2 {
        // Right after the answers: no checkpoint has to have been written.
        node.kill9();
        node = house.start();
        node.settled_ledger();
        assert_eq!(positions(&node, ""), [kept]);
        retry(&node, retried).problem(404, "unknown-parked");
        drop_one(&node, dropped).problem(404, "unknown-parked");
        let device = node.device("retried").expect("known");
        assert_eq!((&device["version"], &device["state"]), (&json!(1), &json!({"bad":true,"n":2,"fixed":true})));
        assert!(node.device("dropped").is_none_or(|device| device["version"] == 0));
    }
}

#[test]
fn the_command_line_lists_shows_retries_and_drops() {
    let house = house();
    let node = house.start();
    let url = format!("http://{}", node.http);
    let dir = tempfile::tempdir().expect("a directory");
    let parked = |words: &[&str]| {
        let mut arguments = vec!["parked"];
        arguments.extend(words);
        arguments.extend(["--node", &url]);
        let output = run(dir.path(), &arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(parked(&["list"]), (Some(0), "nothing is parked\n".to_owned(), String::new()));
    assert_eq!(parked(&["retry", "--all"]).1, "nothing is parked\n");
    let a: Vec<u64> = (0..3).map(|n| park(&node, "a", &json!({"bad": true, "n": n, "ts": n + 1}))).collect();
    let b = park(&node, "b", &json!({"bad": true, "ts": 1}));

    let (code, text, _) = parked(&["list"]);
    assert_eq!((code, text.lines().count()), (Some(0), 5), "{text}");
    assert!(text.starts_with("POSITION") && text.contains("10-picky.js") && text.contains("no good"), "{text}");
    let (_, text, more) = parked(&["list", "--limit", "2"]);
    assert!(text.lines().count() == 3 && more.contains("there are more"), "{text}{more}");
    let rows: Value = serde_json::from_str(&parked(&["list", "--device", "a", "--json"]).1).expect("JSON");
    let listed: Vec<u64> = rows.as_array().expect("rows").iter().filter_map(|row| row["position"].as_u64()).collect();
    assert_eq!(listed, [a[2], a[1], a[0]]);
    let (code, text, _) = parked(&["show", &b.to_string()]);
    assert!(code == Some(0) && text.contains("\"bad\": true") && text.contains("TypeError"), "{text}");

    // Still bad: exit 1, and they are parked anew.
    let (code, text, _) = parked(&["retry", &b.to_string()]);
    assert_eq!((code, text), (Some(1), format!("{b}  parked: threw\n1 parked\n")));
    let (code, text, _) = parked(&["retry", &b.to_string()]);
    assert!(code == Some(1) && text.contains("gone") && text.ends_with("1 gone\n"), "{text}");
    node.post("/devices/a/metrics?ack=processed", r#"{"heal":true,"ts":0}"#);
    let (code, text, _) = parked(&["retry", "--device", "a", "--json"]);
    let done: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &done["summary"]), (Some(0), &json!({"kept":3})), "{text}");
    assert_eq!(done["results"][0], json!({"position": a[0], "result": "kept"}), "the oldest first");
    assert_eq!(node.device("a").expect("known")["state"]["n"], 2);
    let (code, text, _) = parked(&["drop", "--all"]);
    assert!(code == Some(0) && text.ends_with("1 dropped\n"), "{text}");
    assert_eq!(positions(&node, ""), [0_u64; 0]);

    let (code, _, error) = parked(&["show", "999999"]);
    assert!(code == Some(1) && error.contains("no reading is parked at position 999999"), "{error}");
    assert_eq!(parked(&["drop"]).0, Some(2), "which?");
    assert_eq!(parked(&["drop", "--all", "--device", "a"]).0, Some(2), "one of them");
    let nobody = run(dir.path(), &["parked", "list", "--node", "http://127.0.0.1:9"]);
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(nobody.status.code() == Some(1) && error.contains("no node answers at http://127.0.0.1:9"), "{error}");
    node.assert_alive();
}
