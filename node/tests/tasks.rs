//! Tasks of handlers (`new Worker`) in a real node, over MQTT and HTTP: other devices go on beside them, hostile ones cost nobody
//! anything, a replay comes to the same states, a new set has its own version of a task, and tests of handlers run them.

mod support;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    House, eventually,
    mqtt::{Version, publish},
    node::tidegate,
};

/// Hands `metric.do` to its task and keeps what it says.
const HANDLER: &str = r#"
import { Worker } from "node:worker_threads";
export async function onMetric(metric, ctx) {
  ctx.state.seen = (ctx.state.seen ?? 0) + 1;
  if (!metric.do) return { plain: ctx.state.seen };
  const said = await new Promise((resolve, reject) => {
    const worker = new Worker("./work.task.js", { workerData: metric });
    worker.once("message", resolve);
    worker.once("error", reject);
    worker.once("exit", (code) => reject(new Error(`it left with ${code}`)));
  });
  return { said, seen: ctx.state.seen };
}"#;
const TASK: &str = r#"
import { parentPort, workerData } from "node:worker_threads";
const works = {
  sum({ rounds }) { let sum = 0; for (let i = 0; i < rounds; i++) sum += i % 7; return sum; },
  chance() { return [Math.random(), crypto.randomUUID(), Date.now()]; },
  loop() { for (;;) {} },
  memory() { let s = "x".repeat(65536); s += s; s += s; s += s; s += s; const all = []; for (;;) all.push(s + all.length); },
  regex() { return /^(a+)+$/.test("a".repeat(60) + "b"); },
  timer() { setInterval(() => {}, 1000); },
  throws() { throw new RangeError("its own"); },
  leaves() { process.exit(3); },
};
const said = works[workerData.do](workerData);
if (said !== undefined) parentPort.postMessage(said);
"#;

fn house() -> House {
    House::new().handler("10-work.js", HANDLER).handler("work.task.js", TASK)
}

#[test]
fn readings_of_other_devices_go_on_beside_a_task_and_its_device_keeps_the_order() {
    let house = house().variable("TIDEGATE_SCRIPTS__WORKERS", "1");
    let mut node = house.start();
    let overview = node.get("/api/overview").json();
    assert_eq!(overview["scripts"].as_array().map(Vec::len), Some(1), "a task is no handler: {overview}");
    let mut heavy = support::mqtt::Raw::connect(node.mqtt, Version::V5, "heavy");
    let send = |client: &mut support::mqtt::Raw, id: u16, reading: &str| {
        client.send(&publish(Version::V5, "devices/heavy/metrics", 1, id, &[], reading.as_bytes()));
    };
    send(&mut heavy, 1, r#"{"do":"sum","rounds":12000000}"#);
    send(&mut heavy, 2, r#"{"then":1}"#);
    eventually("the task runs", || (node.metric("tidegate_script_tasks_started_total") == 1.0).then_some(()));
    let (began, mut beside) = (Instant::now(), 0);
    while node.metric("tidegate_script_work_running") > 0.0 {
        beside += 1;
        node.processed(&format!("light-{beside}"), r#"{"n":1}"#);
        assert_eq!(node.get("/livez").status, 200);
    }
    let took = began.elapsed();
    assert!(beside > 20, "{beside} readings in {took:?}");
    // The reading that came behind the task's saw its state.
    node.device_with("heavy", "plain", &json!(2));
    assert_eq!(node.metric("tidegate_script_tasks_total{result=\"done\"}"), 1.0);
    assert_eq!(node.metric("tidegate_script_work_total{operation=\"task\",result=\"done\"}"), 1.0);
    assert!(node.metric("tidegate_script_tasks_seconds_total") > 0.05);
    let tasks = &node.get("/api/overview").json()["slowWork"]["tasks"];
    assert_eq!((&tasks["started"], &tasks["ended"][0]), (&json!(1), &json!({"result": "done", "count": 1})));
    assert_eq!(node.stop(), Some(0));
    house.ledger_balances();
}

#[test]
fn hostile_tasks_park_their_own_reading_with_the_limits_name() {
    let house = house()
        .variable("TIDEGATE_SCRIPTS__TASK_WALL_MS", "3000")
        .variable("TIDEGATE_SCRIPTS__HEAP_BYTES", "64MiB")
        .variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "100");
    let mut node = house.start();
    let probes = [
        ("loop", "ran longer than 3000 ms (limit script_task_wall, setting scripts.task_wall_ms)"),
        ("regex", "limit script_task_wall"),
        ("memory", "limit script_heap_bytes"),
        // A million callbacks, or the time for them: a busy machine comes to that first.
        ("timer", "limit script_task_"),
        ("throws", "RangeError: its own (work.task.js:10:"),
        ("leaves", "it left with 3"),
        ("nothing", "TypeError"),
    ];
    for (number, (what, _)) in probes.iter().enumerate() {
        let path = format!("/devices/bad-{number}/metrics");
        assert_eq!(node.post(&path, &json!({"do": what}).to_string()).status, 202);
        assert_eq!(node.post(&path, r#"{"behind":1}"#).status, 202);
    }
    let began = Instant::now();
    for number in 0..20 {
        node.processed(&format!("good-{number}"), r#"{"n":1}"#);
        assert_eq!(node.get("/livez").status, 200);
    }
    let meanwhile = began.elapsed();
    assert!(meanwhile < Duration::from_secs(3), "they waited: {meanwhile:?}");
    let parked = eventually("all are parked", || Some(node.parked()).filter(|all| all.len() == probes.len()));
    for (number, (what, words)) in probes.iter().enumerate() {
        let device = format!("bad-{number}");
        let of = parked.iter().find(|of| of["deviceId"] == *device || of["device"] == *device);
        let of = of.unwrap_or_else(|| panic!("{what} is not parked: {parked:?}"));
        let message = of["message"].as_str().unwrap_or_default();
        assert!(of["reason"] == "threw" && message.contains(words), "{what}: {of}");
        node.device_with(&device, "plain", &json!(1));
    }
    let ended = |result: &str| node.metric(&format!("tidegate_script_tasks_total{{result=\"{result}\"}}"));
    assert_eq!((ended("memory"), ended("threw")), (1.0, 2.0));
    assert!(ended("deadline") >= 2.0 && ended("deadline") + ended("failed") == 3.0);
    assert_eq!(node.metric("tidegate_script_worker_restarts_total"), 0.0, "no worker has died of it");
    assert_eq!(node.stop(), Some(0));
    house.ledger_balances();
}

#[test]
fn a_replay_comes_to_the_same_states() {
    let house = house();
    let mut node = house.start();
    for n in 0..12 {
        let what = if n % 3 == 0 { "chance" } else { "sum" };
        node.processed(&format!("d{}", n % 4), &json!({"do": what, "rounds": 1000 * n}).to_string());
    }
    let state = node.device("d0").expect("known")["state"].clone();
    assert_eq!(node.stop(), Some(0));
    let handler = house.path("handlers/10-work.js");
    let replay = || {
        let mut command = tidegate(&house.path("."));
        command.args(["script", "replay", "--json", "--data-dir"]).arg(house.data());
        let run = command.arg("--handlers").arg(house.path("handlers")).arg("--with").arg(&handler).output();
        serde_json::from_slice::<Value>(&run.expect("the binary starts").stdout).expect("JSON")
    };
    let report = replay();
    assert_eq!((&report["readings"], &report["notAsJournaled"]), (&json!(12), &json!(0)), "{report:#} {state}");
    assert_eq!(
        (&report["states"]["oldIsLive"], &report["states"]["different"]),
        (&json!(true), &json!(0)),
        "{report:#}"
    );
    assert_eq!(report["failed"]["new"], 0, "{report:#}");
    assert_eq!(replay(), report, "and again");
}

#[test]
fn a_new_set_has_its_own_version_of_a_task_also_while_it_is_tried() {
    let house = house()
        .variable("TIDEGATE_SCRIPTS__CANARY_SHARE", "100")
        .variable("TIDEGATE_SCRIPTS__CANARY_READINGS", "5")
        .variable("TIDEGATE_SCRIPTS__CANARY_COST_FACTOR", "1000");
    let mut node = house.start();
    let reading = r#"{"do":"sum","rounds":7}"#;
    node.processed("d1", reading);
    node.device_with("d1", "said", &json!(21));
    // One whose call is under way while the set changes ends with its own version.
    assert_eq!(node.post("/devices/slow/metrics", r#"{"do":"sum","rounds":14000000}"#).status, 202);
    fs::write(house.path("handlers/work.task.js"), TASK.replace("return sum;", "return -sum;")).expect("written");
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| node.post("/scripts/reload", ""));
        let mut n = 0;
        while !reload.is_finished() {
            n += 1;
            node.post(&format!("/devices/early-{n}/metrics?ack=processed"), reading);
        }
        reload.join().expect("it answers")
    });
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let canary = &reloaded.json()["canary"];
    assert!(canary["different"].as_u64() > Some(0) && canary["new"]["failed"] == 0, "{canary}");
    node.processed("d1", reading);
    node.device_with("d1", "said", &json!(-21));
    let slow = eventually("it is there", || node.device("slow").map(|device| device["state"]["said"].clone()));
    assert!(slow.as_i64() > Some(0), "{slow}");

    // A task at the top by another name is taken for a handler, and the message says so.
    fs::write(house.path("handlers/20-lost.js"), TASK).expect("written");
    let refused = node.post("/scripts/reload", "");
    assert!(refused.text().contains("NAME.task.js"), "{}", refused.text());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn tests_of_handlers_run_tasks_and_other_pure_work() {
    let house = house()
        .handler("20-key.js", "import { pbkdf2 } from 'node:crypto'; import { promisify } from 'node:util'; export const match = { devices: ['key'] }; export async function onMetric() { return { key: (await promisify(pbkdf2)('p', 's', 1000, 8, 'sha256')).toString('hex') }; }")
        .handler("30-ask.js", "export const match = { devices: ['ask'] }; export async function onMetric() { await fetch('http://127.0.0.1:1/'); }")
        .handler(
            "10-work.test.js",
            r#"
            import { test } from "node:test"; import assert from "node:assert"; import { send } from "tidegate:test"; import { Worker } from "node:worker_threads";
            test("a task", async () => {
              const result = await send("d1", { do: "sum", rounds: 3000000 });
              assert.equal(result.state.said, 8999994);
            });
            test("one that fails", async () => {
              const result = await send("d1", { do: "throws" });
              assert.match(result.parked.message, /its own/);
              assert.equal(result.parked.file, "work.task.js");
            });
            test("of its own", () => { assert.throws(() => new Worker("./work.task.js"), /reading's handler/); });
            test("hashes", async () => { assert.equal((await send("key", {})).state.key.length, 16); });
            test("no effects", async () => { assert.match((await send("ask", {})).parked.message, /a test or the trial/); });
            "#,
        );
    let ran = tidegate(&house.path(".")).args(["script", "test", "--json"]).arg(house.path("handlers")).output();
    let ran = ran.expect("the binary starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{out}\n{err}");
}
