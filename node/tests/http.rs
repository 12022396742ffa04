//! The HTTP interface from outside: readings in, states out, ledger, health and refusals.

mod support;

use std::{collections::BTreeSet, io::Write};

use serde_json::{Value, json};
use support::{
    House, Node, eventually,
    http::{escape, request},
    websocket::Viewer,
};

/// Counts its calls per device in `ctx.state` and marks what it has seen.
const MARK: &str = r#"
export const match = { devices: ["handled-*"] };
export function onMetric(metric, ctx) {
  if (metric.drop) return null;
  return { ...metric, doubled: metric.t * 2 };
}
"#;

fn node() -> (House, Node) {
    let house = House::new();
    let node = house.start();
    (house, node)
}

#[test]
fn one_object_is_accepted_and_becomes_the_state() {
    let (_house, node) = node();
    let response = node.post("/metrics", r#"{"deviceId":"d1","ts":1700000000000,"t":21.5,"ok":true}"#);
    assert_eq!((response.status, response.json()), (202, json!({"deviceId":"d1","accepted":1})));

    let device = node.device_with("d1", "t", &json!(21.5));
    assert_eq!(device["deviceId"], "d1");
    assert_eq!(device["state"], json!({"t":21.5,"ok":true}), "deviceId and ts are no part of the state");
    assert_eq!(device["deviceTime"], 1_700_000_000_000_i64);
    assert_eq!((&device["version"], &device["connected"]), (&json!(1), &json!(false)));
    assert!(device["receivedTime"].as_i64().is_some_and(|time| time > 1_700_000_000_000));
    assert_eq!(device.as_object().map(serde_json::Map::len), Some(6), "{device}");
}

#[test]
fn ack_levels_are_chosen_by_query_or_header() {
    let house = House::new().handler("10-mark.js", MARK);
    let node = house.start();
    let post = |path: &str, headers: &[(&str, &str)], body: &str| {
        let response = request(node.http, "POST", path, headers, body.as_bytes());
        (response.status, response.json())
    };
    let body = r#"{"deviceId":"handled-1","t":2}"#;
    let accepted = json!({"deviceId":"handled-1","accepted":1});
    let kept = json!({"deviceId":"handled-1","accepted":1,"outcome":"kept"});
    assert_eq!(post("/metrics?ack=received", &[], body), (202, accepted.clone()));
    assert_eq!(post("/metrics?ack=committed", &[], body), (200, accepted.clone()));
    assert_eq!(post("/metrics", &[("prefer", "ack=committed")], body), (200, accepted));
    assert_eq!(post("/metrics?ack=processed", &[], body), (200, kept.clone()));
    // `processed` means that the very next read sees the handler's result.
    assert_eq!(node.device("handled-1").expect("known")["state"], json!({"t":2,"doubled":4}));
    assert_eq!(post("/metrics", &[("prefer", "respond-async, ack=\"processed\"")], body), (200, kept));

    let dropped = post("/metrics?ack=processed", &[], r#"{"deviceId":"handled-1","t":3,"drop":true}"#);
    assert_eq!(dropped, (200, json!({"deviceId":"handled-1","accepted":1,"outcome":"dropped by a handler"})));
    assert_eq!(node.device("handled-1").expect("known")["state"]["t"], 2);

    let refused = request(node.http, "POST", "/metrics?ack=maybe", &[], body.as_bytes());
    assert_eq!(refused.problem(400, "bad-parameter")["field"], "ack");
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["committed"]), (&json!(6), &json!(5)), "{ledger}");
    assert_eq!(ledger["dropped"], json!({"handler":1}));
}

#[test]
fn an_array_and_ndjson_give_each_item_its_own_result() {
    let (_house, node) = node();
    let array = node.post("/metrics?ack=committed", r#"[{"deviceId":"a","t":1},{"deviceId":"b","t":2}]"#);
    let expected = json!({"accepted":2,"rejected":0,"items":[
        {"index":0,"deviceId":"a","status":"accepted"},{"index":1,"deviceId":"b","status":"accepted"}]});
    assert_eq!((array.status, array.json()), (200, expected));

    let lines = "{\"deviceId\":\"c\",\"t\":3}\n\n{\"t\":4}\n{\"deviceId\":\"e\",\"t\":}\n{\"deviceId\":\"f\",\"t\":6}";
    let headers = [("content-type", "application/x-ndjson")];
    let mixed = request(node.http, "POST", "/metrics", &headers, lines.as_bytes());
    let body = mixed.json();
    assert_eq!((mixed.status, &body["accepted"], &body["rejected"]), (202, &json!(2), &json!(2)), "{body}");
    let items: Vec<_> = body["items"].as_array().expect("items").iter().map(|item| item["status"].clone()).collect();
    assert_eq!(items, ["accepted", "rejected", "rejected", "accepted"]);
    let no_id = &body["items"][1]["problem"];
    assert_eq!(
        (&no_id["type"], &no_id["field"]),
        (&json!("https://tidegate.dev/problems/bad-device-id"), &json!("deviceId"))
    );
    let no_json = &body["items"][2]["problem"];
    assert_eq!(no_json["type"], "https://tidegate.dev/problems/bad-json");
    let line = lines.lines().nth(3).expect("the fourth line");
    let column = line.rfind('}').expect("a brace") + 1;
    assert_eq!((&no_json["line"], &no_json["column"]), (&json!(4), &json!(column)), "{no_json}");
    node.device_with("f", "t", &json!(6));

    let none = node.post("/metrics", r#"[{"t":1},5]"#);
    assert_eq!((none.status, &none.json()["rejected"]), (400, &json!(2)));
    for (body, kind) in
        [("", "bad-json"), ("[]", "bad-shape"), ("{", "bad-json"), ("[{\"deviceId\":\"a\"}", "bad-json")]
    {
        assert!(node.post("/metrics", body).problem(400, kind).is_object(), "{body}");
    }
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["committed"]), (&json!(12), &json!(4)), "{ledger}");
}

#[test]
fn a_devices_own_path_takes_thingsboards_shapes() {
    let (_house, node) = node();
    let post = |body: &str| {
        let response = node.post("/devices/tb-1/metrics?ack=processed", body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let device = node.device("tb-1").expect("known");
        (device["state"].clone(), device["deviceTime"].clone())
    };
    assert_eq!(post(r#"{"ts":1700000000001,"values":{"t":2}}"#), (json!({"t":2}), json!(1_700_000_000_001_i64)));
    let array = r#"[{"ts":1700000000002,"values":{"t":3}},{"ts":1700000000003,"values":{"t":4,"values":5}}]"#;
    assert_eq!(post(array), (json!({"t":4,"values":5}), json!(1_700_000_000_003_i64)));
    assert_eq!(post(r#"{"t":1}"#), (json!({"t":1}), Value::Null));
    assert_eq!(post(r#"[{"t":6},{"t":7}]"#), (json!({"t":7}), Value::Null));

    let other = node.post("/devices/tb-1/metrics", r#"{"deviceId":"tb-2","t":1}"#);
    assert_eq!(other.problem(400, "bad-device-id")["field"], "deviceId");
}

#[test]
fn ids_are_percent_decoded_once() {
    let (_house, node) = node();
    for id in
        ["pump 7", "Wärmepumpe №1 🌊", "50%", "%41", "a&b=c;d", "q?x", "back\\slash", "\"quoted\"", "..", "tilde~"]
    {
        let posted = node.post(&format!("/devices/{}/metrics?ack=processed", escape(id)), r#"{"t":1}"#);
        assert_eq!((posted.status, &posted.json()["deviceId"]), (200, &json!(id)), "{}", posted.text());
        assert_eq!(node.device(id).unwrap_or_else(|| panic!("{id} is known"))["deviceId"], id);
        let page = node.get(&format!("/devices?prefix={}", escape(id))).json();
        assert_eq!(page["devices"][0]["deviceId"], id, "{page}");
        let message = json!({"deviceId": id, "t": 2});
        assert_eq!(node.post("/metrics?ack=processed", &message.to_string()).status, 200);
        assert_eq!(node.device(id).expect("known")["state"]["t"], 2, "{id}");
    }
    assert_eq!(node.get("/devices/never-seen").problem(404, "unknown-device")["status"], 404);
    for bad in ["a%2Fb", "a%2Bb", "a%23b", "a%00b", &"x".repeat(257)] {
        assert_eq!(node.get(&format!("/devices/{bad}")).problem(400, "bad-device-id")["field"], "id", "{bad}");
    }
}

#[test]
fn pages_are_sorted_complete_and_without_duplicates() {
    const DEVICES: usize = 2_500;
    let (_house, node) = node();
    // Posted in an order that is not the order of the ids.
    let ids: Vec<String> = (0..DEVICES).map(|n| format!("page-{:05}", n * 1_003 % DEVICES)).collect();
    for part in ids.chunks(500) {
        let lines: Vec<String> = part.iter().map(|id| json!({"deviceId": id, "t": 1}).to_string()).collect();
        let headers = [("content-type", "application/x-ndjson")];
        let posted = request(node.http, "POST", "/metrics?ack=processed", &headers, lines.join("\n").as_bytes());
        assert_eq!((posted.status, &posted.json()["accepted"]), (200, &json!(500)));
    }
    node.post("/metrics?ack=processed", r#"[{"deviceId":"aaa","t":1},{"deviceId":"zzz","t":1}]"#);

    let walk = |query: &str, pages: &[usize]| {
        let mut seen: Vec<String> = Vec::new();
        let mut after = String::new();
        for (index, size) in pages.iter().enumerate() {
            let page = node.get(&format!("/devices?after={}{query}", escape(&after))).json();
            let devices = page["devices"].as_array().expect("devices");
            assert_eq!(devices.len(), *size, "page {index} of {query}");
            assert_eq!(page["total"], DEVICES + 2);
            seen.extend(devices.iter().map(|device| device["deviceId"].as_str().expect("an id").to_owned()));
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => assert_eq!(index, pages.len() - 1, "{query} ended early"),
            }
        }
        assert!(seen.is_sorted(), "{query}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{query}");
        seen
    };
    let all = walk("&limit=1000", &[1_000, 1_000, 502]);
    assert_eq!((all[0].as_str(), all[2_501].as_str()), ("aaa", "zzz"));
    assert_eq!(walk("&limit=1000&prefix=page-", &[1_000, 1_000, 500]), all[1..2_501]);
    assert_eq!(walk("&prefix=page-00", &[100; 10])[..1_000], all[1..1_001]);
    assert_eq!(walk("&limit=7&prefix=page-0001", &[7, 3]), all[11..21]);
    assert_eq!(walk("&prefix=none", &[0]), Vec::<String>::new());

    for query in ["limit=0", "limit=1001", "limit=x"] {
        assert_eq!(node.get(&format!("/devices?{query}")).problem(400, "bad-parameter")["field"], "limit");
    }
    assert!(
        node.get("/devices?page=2").problem(400, "bad-parameter")["detail"].as_str().expect("text").contains("page")
    );
}

#[test]
fn late_data_does_not_overwrite_newer_data() {
    let (_house, node) = node();
    let post = |body: &str| node.post("/metrics?ack=processed", body).json()["outcome"].clone();
    assert_eq!(post(r#"{"deviceId":"d1","ts":1700000002000,"t":2}"#), "kept");
    assert_eq!(post(r#"{"deviceId":"d1","ts":1700000001000,"t":1}"#), "conflated: late");
    assert_eq!(node.device("d1").expect("known")["state"]["t"], 2);
    assert_eq!(post(r#"{"deviceId":"d1","ts":1700000002000,"t":3}"#), "kept", "of equal times the later one wins");
    let device = node.device("d1").expect("known");
    assert_eq!((&device["state"]["t"], &device["version"]), (&json!(3), &json!(2)));
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], &ledger["conflated"]), (&json!(2), &json!({"late":1})));
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let (_house, node) = node();
    assert!(node.get("/nothing").problem(404, "not-found")["detail"].as_str().expect("text").contains("/nothing"));
    for (method, path, allow) in [
        ("DELETE", "/metrics", "GET, POST"),
        ("GET", "/devices/d1/metrics", "POST"),
        ("POST", "/devices", "GET"),
        ("PUT", "/devices/d1", "GET"),
        ("POST", "/ledger", "GET"),
        ("POST", "/livez", "GET"),
    ] {
        let response = request(node.http, method, path, &[], b"");
        response.problem(405, "method-not-allowed");
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    }
    let large = "x".repeat(1024 * 1024 + 1);
    let refused = node.post("/metrics", &large).problem(413, "too-large");
    assert_eq!((&refused["limit"], &refused["limitValue"]), (&json!("http_body_bytes"), &json!(1024 * 1024)));
    let deep = format!(r#"{{"deviceId":"d1","t":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
    assert_eq!(node.post("/metrics", &deep).json()["limit"], "json_depth");
    assert_eq!(node.get("/ws").problem(426, "not-a-websocket")["status"], 426);
    let ledger = node.settled_ledger();
    assert_eq!(ledger["rejected"], json!({"too-large":1,"too-deep":1}), "{ledger}");
    node.assert_alive();
}

#[test]
fn metrics_are_prometheus_text() {
    let house = House::new().handler("10-mark.js", MARK);
    let node = house.start();
    node.post("/metrics?ack=processed", r#"[{"deviceId":"handled-1","t":1},{"deviceId":"d2","t":1},{"t":1}]"#);
    let response = node.get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    let mut typed = BTreeSet::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n'), "the last line must end, too");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            let (keyword, name) = (words.next().expect("a keyword"), words.next().expect("a name"));
            match keyword {
                "HELP" => {}
                "TYPE" => {
                    assert!(typed.insert(name.to_owned()), "{name} has two types");
                    let kind = words.next();
                    assert!(matches!(kind, Some("counter" | "gauge" | "summary")), "{line}");
                    if kind == Some("summary") {
                        typed.extend(["_sum", "_count"].map(|part| format!("{name}{part}")));
                    }
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        let name = sample.split('{').next().expect("a name");
        assert!(typed.contains(name), "{line} has no type before it");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{line}");
        if let Some(labels) = sample.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).expect("braces");
            for label in labels.split(',') {
                let (_, value) = label.split_once('=').expect("a label");
                assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        assert!(seen.insert(sample.to_owned()), "{sample} stands there twice");
    }
    assert_eq!(node.metric("tidegate_readings_received_total") as u64, 3);
    assert_eq!(node.metric("tidegate_readings_committed_total") as u64, 2);
    assert_eq!(node.metric("tidegate_readings_rejected_total{reason=\"bad-device-id\"}") as u64, 1);
    assert_eq!(node.metric("tidegate_script_calls_total{script=\"10-mark.js\"}") as u64, 1);
    assert_eq!(node.metric("tidegate_script_call_seconds_count{script=\"10-mark.js\"}") as u64, 1);
    let seconds = node.metric("tidegate_script_call_seconds_sum{script=\"10-mark.js\"}");
    assert!(seconds > 0.0 && seconds < 1.0, "{seconds}");
    assert_eq!(node.metric("tidegate_ledger_balanced") as u64, 1);
}

#[test]
fn health_overview_and_description_are_there() {
    let (_house, node) = node();
    node.assert_alive();
    node.post("/metrics?ack=processed", r#"{"deviceId":"d1","t":1}"#);
    let overview = eventually("an overview with the device", || {
        Some(node.get("/api/overview").json()).filter(|overview| overview["devices"]["known"] == 1)
    });
    assert_eq!(overview["node"]["pid"], node.pid());
    assert_eq!(overview["loops"].as_array().map(Vec::len), Some(2));
    assert_eq!(overview["journal"]["healthy"], true);
    let openapi = node.get("/openapi.json").json();
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    // A live stream has no end to wait for.
    for (path, methods) in openapi["paths"].as_object().expect("paths").iter().filter(|(path, _)| *path != "/stream") {
        for method in methods.as_object().expect("methods").keys().filter(|method| *method == "get") {
            let path = path
                .replace("{id}", "d1")
                .replace("{file}", "app.js")
                .replace("{position}", "1")
                .replace("{request}", "c-1");
            let response = node.get(&path);
            // Nothing is parked here, no command was sent, no shadow made, which the routes themselves say.
            let says_so =
                ["unknown-parked", "unknown-command", "no-shadow"].iter().any(|kind| response.text().contains(kind));
            let is_served = response.status != 404 || says_so;
            assert!(is_served && response.status != 405, "{method} {path} is described, but not served");
        }
    }
    let page = node.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<html"), "{}", page.text());
    assert_eq!(node.get("/parked").json(), json!({"parked":[],"next":null}));
}

#[test]
fn a_parked_reading_shows_who_parked_it_and_why() {
    let thrower = "export function onMetric(metric) { if (metric.bad) throw new TypeError('no good'); }";
    let house = House::new().handler("20-throw.js", thrower);
    let node = house.start();
    let parked = node.post("/metrics?ack=processed", r#"{"deviceId":"d1","bad":true}"#);
    assert_eq!(parked.json()["outcome"], "parked: threw", "{}", parked.text());
    assert_eq!(node.post("/metrics?ack=processed", r#"{"deviceId":"d1","t":1}"#).json()["outcome"], "kept");
    // Whoever was told of it finds it.
    let row = node.get("/parked").json()["parked"][0].clone();
    assert_eq!(
        (&row["deviceId"], &row["script"], &row["reason"]),
        (&json!("d1"), &json!("20-throw.js"), &json!("threw"))
    );
    assert_eq!(row["payload"], json!({"bad":true}));
    assert!(row["message"].as_str().is_some_and(|message| message.contains("no good")), "{row}");
    assert_eq!(node.settled_ledger()["parked"], json!({"threw":1}));
}

#[test]
fn a_kept_connection_answers_pipelined_requests_in_order() {
    const REQUESTS: usize = 200;
    let (_house, node) = node();
    let mut http = node.http();
    for n in 0..REQUESTS {
        // Readings that wait for their commit and queries that do not, of devices on both loops.
        let body = json!({"deviceId": format!("pipe-{n}"), "t": n}).to_string();
        match n % 4 {
            0 => http.send("POST", "/metrics?ack=committed", &[], body.as_bytes()),
            1 => http.send("GET", "/livez", &[], b""),
            2 => http.send("POST", "/metrics?ack=processed", &[], body.as_bytes()),
            _ => http.send("GET", &format!("/devices/pipe-{}", n - 1), &[], b""),
        }
    }
    for n in 0..REQUESTS {
        let response = http.receive();
        assert_eq!(response.status, 200, "request {n}: {}", response.text());
        match n % 4 {
            1 => assert_eq!(response.text(), "ok"),
            3 => assert_eq!(response.json()["state"]["t"], n - 1),
            _ => assert_eq!(response.json()["deviceId"], format!("pipe-{n}")),
        }
    }
    // The same connection still serves a body that comes in pieces.
    let head = "POST /metrics?ack=processed HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    for piece in [head, "5\r\n{\"dev\r\n", "14\r\niceId\":\"last\",\"t\":1}\r\n", "0\r\n\r\n"] {
        http.socket().write_all(piece.as_bytes()).expect("the piece is written");
    }
    let response = http.receive();
    assert_eq!((response.status, &response.json()["deviceId"]), (200, &json!("last")), "{}", response.text());
    assert_eq!(node.settled_ledger()["committed"], REQUESTS / 2 + 1);
}

#[test]
fn the_largest_array_of_one_device_is_kept_whole() {
    const READINGS: usize = 10_000;
    let (_house, node) = node();
    for device in ["one", "other"] {
        let body: Vec<Value> = (0..READINGS).map(|n| json!({"ts": n, "n": n})).collect();
        let response = node.post(&format!("/devices/{device}/metrics"), &json!(body).to_string());
        assert_eq!((response.status, &response.json()["accepted"]), (202, &json!(READINGS)), "{}", response.text());
        node.device_with(device, "n", &json!(READINGS - 1));
    }
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["rejected"]), (&json!(2 * READINGS), &json!({})), "{ledger}");
}

#[test]
fn what_was_received_first_stays_first_over_whatever_connection() {
    const READINGS: usize = 400;
    let (_house, node) = node();
    let mut viewer = Viewer::open(node.http, "?deviceId=d1");
    viewer.snapshot();
    // Enough of them that both loops have some.
    let mut connections: Vec<_> = (0..8).map(|_| node.http()).collect();
    for n in 0..READINGS {
        let http = &mut connections[n % 8];
        http.send("POST", "/metrics", &[], json!({"deviceId": "d1", "n": n}).to_string().as_bytes());
        assert_eq!(http.receive().status, 202);
    }
    // A viewer that reads sees every state, in the order in which the device's readings were taken.
    let seen = viewer.until("the last reading", |message| message["state"]["n"] == json!(READINGS - 1));
    let order: Vec<_> = seen.iter().filter_map(|message| message["state"]["n"].as_u64()).collect();
    assert_eq!(order, (0..READINGS as u64).collect::<Vec<_>>());
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["committed"], &ledger["conflated"]), (&json!(READINGS), &json!({})), "{ledger}");
}
