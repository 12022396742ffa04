//! Handlers that hang, throw, eat memory or attack the engine, in a real node. Throughout: another handler works, `/livez`
//! answers, what the hostile one was called with is parked with a reason, and the ledger balances.

#![expect(clippy::print_stdout, reason = "what was measured is told")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    node::tidegate,
    raw::{RawNode as Node, holds, send},
};

/// The neighbour: it works on other devices in the same worker processes.
const GOOD: (&str, &str) = (
    "10-good.js",
    "export const match = { devices: ['good-*'] };\nexport function onMetric(m) { return { ...m, double: m.t * 2 }; }",
);
/// Generous for two cores that everything else shares; what was measured is printed.
const LIVEZ: Duration = Duration::from_secs(1);

/// A node with the neighbour and a hostile handler for the devices `bad-*`.
fn node_with(source: &str) -> Node {
    let hostile = format!("export const match = {{ devices: ['bad-*'] }};\n{source}");
    // It has one worker, so the neighbour cannot simply run beside the hostile handler.
    Node::start(&[GOOD, ("20-hostile.js", &hostile)])
}

/// Asks for `/livez` without a pause, on connections of its own, until it is stopped.
struct Pulse {
    stop: Arc<AtomicBool>,
    worst_ms: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    fn of(node: &Node) -> Self {
        let (stop, worst_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, worst, port) = (Arc::clone(&stop), Arc::clone(&worst_ms), node.http);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answer = send(port, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                assert!(answer.ends_with(b"ok"), "{}", String::from_utf8_lossy(&answer));
                let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                worst.fetch_max(took, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, worst_ms, thread: Some(thread) }
    }

    /// The slowest answer.
    fn end(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("every answer was ok");
        }
        Duration::from_millis(self.worst_ms.load(Ordering::Relaxed))
    }
}

fn hostile_of(node: &Node) -> Value {
    let overview = node.get("/api/overview");
    let scripts = overview["scripts"].as_array().expect("scripts");
    scripts.iter().find(|script| script["name"] == "20-hostile.js").expect("the hostile one").clone()
}

fn restarts(node: &Node) -> u64 {
    let overview = node.get("/api/overview");
    overview["workers"].as_array().expect("workers").iter().filter_map(|worker| worker["restarts"].as_u64()).sum()
}

/// The children of a process that are not gone: zombies count.
fn children(pid: u32) -> Vec<String> {
    let stat = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // proc(5): behind the name's bracket come the state and the parent.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()?;
        (parent == pid).then_some(stat)
    };
    std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok).filter_map(stat).collect()
}

fn pids(children: &[String]) -> Vec<String> {
    children.iter().filter_map(|stat| stat.split(' ').next().map(str::to_owned)).collect()
}

fn rss_mb(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("kB") / 1024
}

#[track_caller]
fn good_works(node: &Node, t: u64) {
    let answer = node.post("/metrics?ack=processed", &json!({"deviceId": "good-1", "t": t}).to_string());
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("kept")), "{answer:?}");
    assert_eq!(node.get("/devices/good-1")["state"], json!({"t": t, "double": t * 2}));
}

/// The hostile handler's readings are parked for one of `reasons` and its breaker opens, and the neighbour works throughout.
/// Returns whether its worker was restarted.
#[track_caller]
fn survives(name: &str, source: &str, reasons: &[&str]) -> bool {
    let mut node = node_with(source);
    good_works(&node, 1);
    assert_eq!(hostile_of(&node)["status"], "closed", "{name}: it loads");
    let (before_mb, restarts_before, pulse) = (rss_mb(&node), restarts(&node), Pulse::of(&node));

    const BAD: u64 = 6;
    for n in 0..BAD {
        let bad = node.post("/metrics", &json!({"deviceId": format!("bad-{n}"), "n": n}).to_string());
        assert_eq!(bad.status, 202, "{name}: {bad:?}");
        good_works(&node, 10 + n);
    }
    let parked = |node: &Node| node.get("/parked?limit=100")["parked"].as_array().cloned().unwrap_or_default();
    assert!(holds(|| parked(&node).len() as u64 == BAD), "{name}: {:?}", parked(&node));
    for row in parked(&node) {
        assert_eq!(row["script"], "20-hostile.js", "{name}: {row}");
        let reason = row["reason"].as_str().unwrap_or_default();
        assert!(reason == "breaker-open" || reasons.contains(&reason), "{name}: {row}");
        assert!(row["message"].as_str().is_some_and(|message| !message.is_empty()), "{name}: {row}");
        assert!(row["payload"]["n"].is_u64(), "{name}: the reading is kept whole: {row}");
    }
    assert!(parked(&node).iter().any(|row| row["reason"] != "breaker-open"), "{name}");
    let hostile = hostile_of(&node);
    assert_eq!((&hostile["status"], &hostile["parked"]), (&json!("open"), &json!(BAD)), "{name}: {hostile}");
    assert!(hostile["lastError"]["message"].is_string(), "{name}: {hostile}");

    let ledger = node.get("/ledger");
    let parked_in_ledger: u64 =
        ledger["parked"].as_object().expect("an object").values().filter_map(Value::as_u64).sum();
    assert_eq!((&ledger["balanced"], parked_in_ledger), (&json!(true), BAD), "{name}: {ledger}");
    assert_eq!((&ledger["inFlight"], &ledger["received"]), (&json!(0), &json!(BAD + BAD + 1)), "{name}: {ledger}");

    good_works(&node, 100);
    let (slowest, restarted) = (pulse.end(), restarts(&node) - restarts_before);
    let after_mb = rss_mb(&node);
    println!("{name}: slowest /livez {slowest:?}, {restarted} restarts, node {before_mb} MB, then {after_mb} MB");
    assert!(slowest < LIVEZ, "{name}: /livez took {slowest:?}");
    assert!(after_mb < before_mb + 64, "{name}: the node had {before_mb} MB and has {after_mb} MB");
    ends_with_its_children(name, &mut node);
    restarted > 0
}

/// After SIGTERM: exit code 0, and no child is left, neither running nor as a zombie.
#[track_caller]
fn ends_with_its_children(name: &str, node: &mut Node) {
    let workers = children(node.pid());
    assert!(!workers.iter().any(|stat| stat.contains(") Z ")), "{name}: zombies while it runs: {workers:?}");
    assert_eq!(node.node.stop(), Some(0), "{name}: {}", node.log());
    for pid in pids(&workers) {
        let gone = holds(|| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !line.contains("script-worker")
        });
        assert!(gone, "{name}: the worker {pid} outlives its node");
    }
}

#[test]
fn endless_loop() {
    survives("while(true)", "export function onMetric() { while (true) {} }", &["deadline"]);
}

#[test]
fn endless_native_loop() {
    let source = "export function onMetric() { new Array(3e8).fill(0); }";
    assert!(survives("fill", source, &["deadline", "memory"]), "its worker is killed");
}

#[test]
fn throwing() {
    survives("throw", "export function onMetric(m) { throw new TypeError('no ' + m.n); }", &["threw"]);
}

#[test]
fn throwing_what_is_no_error() {
    let source =
        "export function onMetric() { throw { get message() { while (true) {} }, toString() { while (true) {} } }; }";
    survives("throw a trap", source, &["threw", "deadline"]);
}

#[test]
fn memory_bomb() {
    let source = "export function onMetric() { const a = []; while (true) a.push(new Uint8Array(1 << 20)); }";
    survives("memory bomb", source, &["memory", "deadline", "crashed", "threw"]);
}

#[test]
fn string_bomb() {
    let source = "export function onMetric() { let s = 'x'; for (;;) s += s; }";
    survives("string bomb", source, &["memory", "deadline", "crashed", "threw"]);
}

#[test]
fn catastrophic_regex() {
    let source = "export function onMetric() { return { hit: /^(a+)+$/.test('a'.repeat(40) + '!') }; }";
    assert!(survives("regex", source, &["deadline"]), "its worker is killed");
}

#[test]
fn endless_recursion() {
    survives("recursion", "function f() { return f() + 1; }\nexport function onMetric() { return f(); }", &["threw"]);
}

#[test]
fn a_promise_that_never_settles() {
    survives("promise", "export async function onMetric() { await new Promise(() => {}); }", &["deadline"]);
}

#[test]
fn endless_microtasks() {
    let source = "export async function onMetric() { for (;;) await null; }";
    survives("microtasks", source, &["deadline"]);
}

#[test]
fn huge_result() {
    let source = "export function onMetric() { const x = 'x'.repeat(900000); return { a: x, b: x, c: x }; }";
    survives("huge result", source, &["bad-result"]);
}

#[test]
fn result_that_is_no_object() {
    survives("no object", "export function onMetric() { return 5; }", &["bad-result"]);
}

#[test]
fn too_many_events() {
    let source = "export function onMetric(m, ctx) { for (let i = 0; i < 1e5; i++) ctx.emit('e', { i }); }";
    survives("emits", source, &["threw", "bad-result"]);
}

#[test]
fn ten_thousand_parentheses_do_not_load() {
    let nested = format!("export function onMetric() {{ return {}1{}; }}", "(".repeat(10_000), ")".repeat(10_000));
    let mut node = node_with(&nested);
    let hostile = hostile_of(&node);
    assert_eq!(hostile["status"], "broken", "{hostile}");
    assert!(hostile["lastError"]["message"].as_str().is_some_and(|text| text.contains("script_nesting")), "{hostile}");
    // Without its handler a reading is kept as it came.
    let answer = node.post("/metrics?ack=processed", r#"{"deviceId":"bad-1","n":1}"#);
    assert_eq!(answer.json()["outcome"], "kept", "{answer:?}");
    good_works(&node, 1);
    ends_with_its_children("parentheses", &mut node);
}

#[test]
fn a_flood_of_lines_is_cut_off() {
    let source =
        "export function onMetric(m) { for (let i = 0; i < 5000; i++) console.log('x'.repeat(1000)); return m; }";
    let mut node = node_with(source);
    let pulse = Pulse::of(&node);
    for n in 0..20 {
        assert_eq!(node.post("/metrics", &json!({"deviceId": "bad-1", "n": n}).to_string()).status, 202);
        good_works(&node, n);
    }
    assert!(holds(|| node.get("/ledger")["inFlight"] == 0));
    let slowest = pulse.end();
    let bytes = node.log().len();
    println!("console flood: slowest /livez {slowest:?}, {bytes} bytes of log for 100 MB printed");
    assert!(slowest < LIVEZ, "/livez took {slowest:?}");
    assert!(bytes < 5_000_000, "{bytes} bytes of log");
    assert_eq!(node.get("/ledger")["balanced"], true);
    ends_with_its_children("console flood", &mut node);
}

/// What a handler does to the shared globals must not reach its neighbour or the host, whatever becomes of itself.
#[test]
fn prototypes() {
    for (name, source) in [
        ("Object.prototype.x", "Object.prototype.x = 'polluted'; Object.prototype.deviceId = 'other';"),
        (
            "Array.prototype.push",
            "Array.prototype.push = () => { throw new Error('mine'); }; Array.prototype.map = null;",
        ),
        ("toJSON", "Object.prototype.toJSON = () => 'mine'; String.prototype.toJSON = () => 'mine';"),
        ("a setter", "Object.defineProperty(Object.prototype, 'double', { set() {}, get() { return 'mine'; } });"),
        ("Promise.prototype.then", "Promise.prototype.then = () => { while (true) {} };"),
        ("JSON", "JSON.parse = JSON.stringify = () => ({ mine: true }); globalThis.JSON = null;"),
        (
            "globalThis",
            "for (const name of ['Object', 'Array', 'Error', 'console', 'Math']) globalThis[name] = undefined;",
        ),
        ("__proto__", "({}).__proto__.polluted = 1; [].__proto__.__proto__.t = 0;"),
    ] {
        // Once while it loads, and once in a call.
        let source = format!(
            "try {{ {source} }} catch {{}}\nexport function onMetric(m) {{ try {{ {source} }} catch {{}} return m; }}"
        );
        let mut node = node_with(&source);
        for n in 0..3 {
            let answer = node.post("/metrics?ack=processed", &json!({"deviceId": "bad-1", "n": n}).to_string());
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            good_works(&node, n);
        }
        assert_eq!(node.get("/devices/bad-1")["deviceId"], "bad-1", "{name}");
        assert_eq!(node.get("/ledger")["balanced"], true, "{name}");
        ends_with_its_children(name, &mut node);
    }
}

/// The breaker's half-open probe: the node goes on asking whether the handler is well, and says when it is.
#[test]
fn the_breaker_closes_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("tidegate.toml"), "[scripts]\nbreaker_open_ms = 1000\n").expect("a file");
    std::fs::create_dir(dir.path().join("handlers")).expect("a directory");
    let source = "export function onMetric(m) { if (m.n < 0) throw new Error('negative'); return m; }";
    std::fs::write(dir.path().join("handlers/20-hostile.js"), source).expect("a file");
    // The key is checked by the command before the node relies on it.
    let checked = tidegate(dir.path()).args(["config", "check"]).output().expect("the binary runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let node = Node::start_in(dir);
    let outcome = |n: i32| {
        let answer = node.post("/metrics?ack=processed", &json!({"deviceId": "d", "n": n}).to_string());
        answer.json()["outcome"].as_str().unwrap_or_default().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(outcome(-1), "parked: threw");
    }
    assert_eq!(outcome(1), "parked: breaker-open");
    assert!(holds(|| outcome(1) == "kept"), "{}", hostile_of(&node));
    assert_eq!(hostile_of(&node)["status"], "closed");
}

#[test]
fn every_worker_is_walled_in_also_one_that_was_started_again() {
    let node = node_with("export function onMetric() { /^(a+)+$/.test('a'.repeat(60) + 'b'); }");
    let walled = |former: Option<u64>| {
        let mut pid = None;
        let is_up = holds(|| {
            let overview = node.get("/api/overview");
            let workers = overview["workers"].as_array().expect("workers").clone();
            pid = workers[0]["pid"].as_u64().filter(|pid| *pid != 0 && Some(*pid) != former);
            pid.is_some()
        });
        assert!(is_up, "a worker runs");
        let pid = pid.expect("it is up");
        // The walls stand before the first handler is loaded, a moment after the process.
        let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let says = |line: &str| status().lines().any(|said| said == line);
        assert!(holds(|| says("Seccomp:\t2") && says("NoNewPrivs:\t1")), "{}", status());
        pid
    };
    good_works(&node, 1);
    let first = walled(None);
    assert_eq!(node.post("/metrics?ack=processed", r#"{"deviceId":"bad-1"}"#).json()["outcome"], "parked: deadline");
    walled(Some(first));
    good_works(&node, 2);
}
