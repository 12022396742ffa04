//! Handlers that are replaced while readings come: nothing is lost and nothing is done twice, what does not load or does not do is
//! not taken, and what ran before comes back, also after a restart.
//!
//! `TIDEGATE_RELOADS=100` makes the test under load reload so often; by default it is a tenth of that.

mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{House, Node, eventually, http::Http, http::Response, node::tidegate};

/// Counts its device's readings, in all and by the version that worked on them.
fn counting(version: u64) -> String {
    format!(
        "export function onMetric(metric, ctx) {{
  ctx.state.count = (ctx.state.count ?? 0) + 1;
  ctx.state.by = {{ ...ctx.state.by, v{version}: (ctx.state.by?.v{version} ?? 0) + 1 }};
  return {{ n: metric.n, version: {version}, count: ctx.state.count, by: ctx.state.by }};
}}"
    )
}

fn write(house: &House, name: &str, source: &str) {
    let dir = house.path("handlers");
    fs::create_dir_all(&dir).expect("the handlers' directory");
    fs::write(dir.join(name), source).expect("a handler is written");
}

/// A canary that sees half of the devices and decides soon.
fn house() -> House {
    House::new()
        .variable("TIDEGATE_SCRIPTS__CANARY_SHARE", "50")
        .variable("TIDEGATE_SCRIPTS__CANARY_READINGS", "100")
        .variable("TIDEGATE_SCRIPTS__CANARY_MS", "3000")
}

fn script(node: &Node, arguments: &[&str]) -> std::process::Output {
    let url = format!("http://{}", node.http);
    let run = tidegate(Path::new("/")).arg("script").args(arguments).args(["--node", &url]).output();
    run.expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn reload(node: &Node) -> Response {
    node.post("/scripts/reload", "")
}

#[track_caller]
fn switched(response: &Response) -> u64 {
    let body = response.json();
    assert_eq!((response.status, &body["result"]), (200, &json!("switched")), "{body}");
    body["generation"].as_u64().expect("a generation")
}

/// The version that works on a reading of this device.
#[track_caller]
fn version(node: &Node, device: &str) -> Value {
    let answer = node.post("/metrics?ack=processed", &json!({"deviceId": device, "n": 0}).to_string());
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("kept")), "{}", answer.text());
    node.device(device).expect("known")["state"]["version"].clone()
}

/// Devices that report without a pause: so many readings a second of `{prefix}-0` and on, each with its number.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    const DEVICES: u64 = 50;

    fn start(node: &Node, prefix: &'static str, per_second: u64) -> Self {
        let (stop, sent, to) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), node.http);
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let (mut http, start) = (Http::connect(to), Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                let due = u64::try_from(start.elapsed().as_millis()).expect("small") * per_second / 1_000;
                if due < first + Self::DEVICES {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                let reading = |n: u64| json!({"deviceId": format!("{prefix}-{}", n % Self::DEVICES), "n": n});
                let last = due.min(first + 20 * Self::DEVICES);
                let body = Value::from((first..last).map(reading).collect::<Vec<_>>()).to_string();
                if http.try_send("POST", "/metrics?ack=committed", &[], body.as_bytes()).is_err() {
                    return;
                }
                // A node that was killed answers no more.
                let Ok(answer) = http.try_receive() else { return };
                assert_eq!(answer.status, 200, "{}", answer.text());
                count.store(last, Ordering::Relaxed);
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// Stops it; how many readings were acknowledged.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("every reading was taken");
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The states of the devices of a load.
fn states(node: &Node, prefix: &str) -> Vec<Value> {
    (0..Load::DEVICES).filter_map(|device| node.device(&format!("{prefix}-{device}"))).collect()
}

#[test]
fn reloads_under_load_lose_nothing_and_do_nothing_twice() {
    let reloads: u64 = std::env::var("TIDEGATE_RELOADS").map_or(10, |count| count.parse().expect("a number"));
    let house = house();
    write(&house, "10-count.js", &counting(0));
    let mut node = house.start();
    let load = Load::start(&node, "d", 5_000);
    eventually("readings", || Some(()).filter(|()| load.sent.load(Ordering::Relaxed) > 1_000));
    let (start, before) = (Instant::now(), load.sent.load(Ordering::Relaxed));
    for version in 1..=reloads {
        write(&house, "10-count.js", &counting(version));
        let answer = reload(&node);
        assert_eq!(switched(&answer), version + 1);
        let canary = &answer.json()["canary"];
        assert!(canary["readings"].as_u64().is_some_and(|readings| readings > 0), "{canary}");
    }
    let (took, during) = (start.elapsed(), load.sent.load(Ordering::Relaxed) - before);
    // The request that was under way may have been the last version's but one; the next one is not.
    let largest = 20 * Load::DEVICES;
    eventually("a request after the last reload", || {
        Some(()).filter(|()| load.sent.load(Ordering::Relaxed) > before + during + largest)
    });
    let sent = load.end();
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["committed"]), (&json!(sent), &json!(sent)), "{ledger}");

    let (mut counted, mut versions) = (0, std::collections::BTreeMap::<String, u64>::new());
    for device in states(&node, "d") {
        let state = &device["state"];
        let by: Vec<_> = state["by"].as_object().expect("counts").iter().collect();
        by.iter().for_each(|(version, count)| {
            *versions.entry((*version).clone()).or_default() += count.as_u64().expect("a count");
        });
        let sum: u64 = by.iter().filter_map(|(_, count)| count.as_u64()).sum();
        // One version each, and each reading once: the handlers' own counts say so.
        assert_eq!((&state["count"], &device["version"]), (&json!(sum), &json!(sum)), "{device}");
        counted += sum;
    }
    assert_eq!(counted, sent, "each reading was worked on by exactly one version");
    assert_eq!(versions.len() as u64, reloads + 1, "every version has worked: {versions:?}");
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = during as f64 / took.as_secs_f64();
    println!(
        "{reloads} reloads in {took:.1?} at {rate:.0} readings/s: {sent} readings, none lost, none by two versions"
    );
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_kill_while_handlers_are_replaced_loses_nothing_and_does_nothing_twice() {
    let house = house();
    write(&house, "10-count.js", &counting(0));
    let mut sent = 0;
    for round in 1..=4 {
        let mut node = house.start();
        let load = Load::start(&node, "d", 2_000);
        eventually("readings", || Some(()).filter(|()| load.sent.load(Ordering::Relaxed) > 300));
        write(&house, "10-count.js", &counting(round));
        node.signal(Signal::HUP);
        node.logged(&["new handlers are tried"]);
        if round % 2 == 0 {
            node.logged(&["new handlers run"]);
        }
        node.kill9();
        sent += load.end();
    }
    let node = house.start();
    let ledger = node.settled_ledger();
    assert_eq!(ledger["parked"], json!({}), "{ledger}");
    let mut counted = 0;
    for device in states(&node, "d") {
        assert_eq!(device["state"]["count"], device["version"], "each of them once: {device}");
        counted += device["version"].as_u64().expect("a version");
    }
    // What was not acknowledged may be there as well.
    assert!(counted >= sent, "{counted} of {sent}");
}

#[test]
fn what_does_not_load_is_refused_with_its_place_and_the_old_handlers_go_on() {
    let house = house();
    write(&house, "10-count.js", &counting(1));
    let mut node = house.start();
    assert_eq!(version(&node, "d1"), 1);
    let broken = "export function onMetric(metric) {\n  return { a: ;\n}";
    write(&house, "10-count.js", broken);
    write(&house, "20-none.js", "export const x = 1;");

    let problem = reload(&node).problem(422, "scripts-broken");
    let names: Vec<_> = problem["scripts"].as_array().expect("scripts").iter().map(|script| &script["name"]).collect();
    assert_eq!(names, ["10-count.js", "20-none.js"]);
    assert_eq!(
        (&problem["scripts"][0]["error"]["line"], &problem["scripts"][0]["error"]["column"]),
        (&json!(2), &json!(15))
    );

    let run = script(&node, &["reload"]);
    let said = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{said}{}", text(&run.stderr));
    assert!(said.contains("10-count.js:2:15") && said.contains("^") && said.contains("go on"), "{said}");
    node.signal(Signal::HUP);
    node.logged(&["script is broken", "10-count.js:2:15"]);
    assert_eq!((version(&node, "d1"), &node.get("/scripts").json()["generation"]), (json!(1), &json!(1)));

    // A start does not take up what was refused: the last good handlers are kept with their sources.
    assert_eq!(node.stop(), Some(0));
    let node = house.start();
    node.logged(&["the last good handlers run"]);
    assert_eq!(version(&node, "d1"), 1);
    fs::remove_file(house.path("handlers/20-none.js")).expect("it was there");
    write(&house, "10-count.js", &counting(2));
    node.signal(Signal::HUP);
    node.logged(&["new handlers run"]);
    assert_eq!(version(&node, "d1"), 2);
}

#[test]
fn a_canary_with_a_bug_is_rolled_back_by_itself() {
    let house = house();
    write(&house, "10-count.js", &counting(1));
    let mut node = house.start();
    let load = Load::start(&node, "d", 1_000);
    let bug = counting(2).replace("return", "if (metric.n % 7 === 3) throw new TypeError('a bug');\n  return");
    write(&house, "10-count.js", &bug);
    let problem = reload(&node).problem(409, "canary-failed");
    let canary = &problem["canary"];
    assert!(canary["new"]["failed"].as_u64().is_some_and(|failed| failed > 0), "{canary}");
    assert_eq!(canary["old"]["failed"], 0, "{canary}");
    assert!(canary["verdict"].as_str().is_some_and(|why| why.contains("a bug (10-count.js:4:")), "{canary}");
    node.logged(&["ERROR", "rolled back by the canary", "a bug"]);

    // One that is right but far too dear.
    let dear = counting(3).replace("return", "for (let i = 0; i < 200000; i++);\n  return");
    write(&house, "10-count.js", &dear);
    let run = script(&node, &["reload"]);
    let said = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{said}{}", text(&run.stderr));
    assert!(said.contains("of CPU time") && said.contains("scripts.canary_cost_factor"), "{said}");

    let sent = load.end();
    let ledger = node.settled_ledger();
    assert_eq!(
        (&ledger["committed"], &ledger["parked"]),
        (&json!(sent), &json!({})),
        "no device has noticed: {ledger}"
    );
    assert!(states(&node, "d").iter().all(|device| device["state"]["version"] == 1));
    assert_eq!(node.get("/scripts").json()["generation"], 1);

    // Nor does a start take it up.
    assert_eq!(node.stop(), Some(0));
    let node = house.start();
    assert_eq!(version(&node, "d-1"), 1);
    // Whoever wants it all the same gets it.
    let run = script(&node, &["reload", "--no-canary", "--json"]);
    let said: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!((&said["result"], &said["canary"]), (&json!("switched"), &Value::Null), "{said}");
    assert_eq!(version(&node, "d-1"), 3);
}

#[test]
fn a_handler_for_other_devices_is_tried_on_their_readings() {
    let house = house();
    write(&house, "10-a.js", "export const match = { devices: ['a-*'] };\nexport function onMetric() {}");
    let node = house.start();
    let load = Load::start(&node, "b", 500);
    write(&house, "20-b.js", "export const match = { devices: ['b-*'] };\nexport function onMetric() { null.x; }");
    let canary = reload(&node).problem(409, "canary-failed")["canary"].clone();
    assert!(canary["new"]["firstFailure"].as_str().is_some_and(|first| first.contains("20-b.js:2:")), "{canary}");
    write(
        &house,
        "20-b.js",
        "export const match = { devices: ['b-*'] };\nexport function onMetric(m) { return { b: m.n }; }",
    );
    let answer = reload(&node);
    switched(&answer);
    let canary = &answer.json()["canary"];
    assert!(canary["different"].as_u64() > Some(0) && canary["firstDifference"].as_str().is_some(), "{canary}");
    let sent = load.end();
    assert_eq!(node.settled_ledger()["committed"], sent);
    node.post("/metrics?ack=processed", r#"{"deviceId":"b-1","n":7}"#);
    assert_eq!(node.device("b-1").expect("known")["state"], json!({"b": 7}));
}

#[test]
fn a_rollback_brings_the_former_handlers_back_also_over_restarts() {
    let house = house();
    write(
        &house,
        "10-count.js",
        "import { version } from './lib/version.js';\nexport function onMetric() { return { version }; }",
    );
    write(&house, "20-pass.js", "export function onMetric() {}");
    fs::create_dir(house.path("handlers/lib")).expect("a directory");
    fs::write(house.path("handlers/lib/version.js"), "export const version = 1;").expect("written");
    let mut node = house.start();
    assert_eq!(version(&node, "d1"), 1);
    node.post("/scripts/rollback", "").problem(409, "nothing-kept");
    assert_eq!(reload(&node).json(), json!({"result": "unchanged", "generation": 1}));
    fs::write(house.path("handlers/lib/version.js"), "export const version = 2;").expect("written");
    assert_eq!(switched(&reload(&node)), 2);
    assert_eq!(version(&node, "d1"), 2);
    assert_eq!(node.stop(), Some(0));

    let mut node = house.start();
    assert_eq!((version(&node, "d1"), &node.get("/scripts").json()["generation"]), (json!(2), &json!(2)));
    let run = script(&node, &["rollback"]);
    assert!(run.status.success() && text(&run.stdout).contains("generation 3"), "{}", text(&run.stdout));
    assert_eq!(version(&node, "d1"), 1);
    let names: Vec<_> =
        node.get("/scripts").json()["scripts"].as_array().expect("scripts").iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["10-count.js", "20-pass.js"]);
    assert_eq!(node.stop(), Some(0));

    // The directory still holds what was rolled back.
    let mut node = house.start();
    node.logged(&["rolled back", "the last good handlers run"]);
    assert_eq!((version(&node, "d1"), &node.get("/scripts").json()["generation"]), (json!(1), &json!(3)));
    node.post("/scripts/rollback", "").problem(409, "nothing-kept");
    assert_eq!(node.stop(), Some(0));

    fs::write(house.path("handlers/lib/version.js"), "export const version = 4;").expect("written");
    let node = house.start();
    assert_eq!((version(&node, "d1"), &node.get("/scripts").json()["generation"]), (json!(4), &json!(4)));
}

#[test]
fn handlers_come_and_go_as_a_whole() {
    let house = house();
    let mut node = house.start();
    let plain = |node: &Node| {
        node.post("/metrics?ack=processed", r#"{"deviceId":"d1","n":1}"#);
        node.device("d1").expect("known")["state"].clone()
    };
    assert_eq!((plain(&node), node.get("/scripts").json()["scripts"].clone()), (json!({"n": 1}), json!([])));
    write(&house, "10-count.js", &counting(1));
    switched(&reload(&node));
    assert_eq!(version(&node, "d1"), 1);
    let load = Load::start(&node, "d", 2_000);
    eventually("readings", || Some(()).filter(|()| load.sent.load(Ordering::Relaxed) > 500));
    // A directory that is away is not one without handlers.
    fs::rename(house.path("handlers"), house.path("away")).expect("renamed");
    reload(&node).problem(422, "scripts-unreadable");
    fs::rename(house.path("away"), house.path("handlers")).expect("renamed");
    assert_eq!(reload(&node).json()["result"], "unchanged");
    fs::remove_file(house.path("handlers/10-count.js")).expect("it was there");
    switched(&reload(&node));
    let sent = load.end();
    assert_eq!(node.settled_ledger()["committed"], sent + 2);
    assert_eq!((plain(&node), node.get("/scripts").json()["workers"].clone()), (json!({"n": 1}), json!([])));
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_handler_that_waits_is_finished_by_the_version_that_began_it() {
    let house = house();
    let waits = |version: u64| {
        format!(
            "export async function onMetric(m) {{\n  await new Promise((go) => setTimeout(go, m.wait ?? 0));\n  return {{ version: {version} }};\n}}"
        )
    };
    write(&house, "10-wait.js", &waits(1));
    let node = house.start();
    let mut slow = Http::connect(node.http);
    slow.send("POST", "/metrics?ack=processed", &[], br#"{"deviceId":"slow","wait":3000}"#);
    let is_taken = || {
        let scripts = node.get("/scripts").json();
        scripts["workers"].as_array().is_some_and(|workers| workers.iter().any(|worker| worker["busy"] == true))
    };
    eventually("a worker has the slow one", || is_taken().then_some(()));
    write(&house, "10-wait.js", &waits(2));
    let start = Instant::now();
    assert!(script(&node, &["reload", "--no-canary"]).status.success());
    assert_eq!(version(&node, "d1"), 2);
    assert!(start.elapsed() < Duration::from_millis(2_500), "nobody waits for the slow one: {:?}", start.elapsed());
    assert_eq!(slow.receive().json()["outcome"], "kept");
    assert_eq!(node.device("slow").expect("known")["state"], json!({"version": 1}));
}
