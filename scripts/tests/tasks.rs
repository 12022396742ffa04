//! Tasks of handlers (`new Worker` of `node:worker_threads`) in real worker processes: beside what Node.js makes of the same, what a
//! hostile one can do, and what a call sees of them each time.

mod common;

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use common::{Rig, kept, parked};
use serde_json::{Value, json};
use tidegate_actors::script::{ParkReason, ScriptEngine as _};
use tidegate_scripts::PoolConfig;

/// What every case has: a worker of the task, and what is heard of it until its end.
const COMMON: &str = r#"
import { Worker } from "node:worker_threads";
const heard = (worker) => new Promise((done) => {
  const all = [];
  worker.on("online", () => all.push(["online"]));
  worker.on("message", (value) => { all.push(["message", value]); Promise.resolve().then(() => all.push(["job"])); });
  worker.on("error", (error) => all.push(["error", error instanceof Error, error?.name, error?.message ?? error, error?.code]));
  worker.on("exit", (code) => { all.push(["exit", code, worker.threadId]); done(all); });
});
"#;

fn handler(body: &str) -> String {
    format!("{COMMON}\nexport async function onMetric(m, ctx) {{\n{body}\n}}")
}

fn rig(task: &str, body: &str, change: impl FnOnce(&mut PoolConfig)) -> Rig {
    Rig::with(&[("a.mjs", &handler(body)), ("t.task.mjs", task)], change)
}

fn one(task: &str, body: &str) -> Value {
    kept(&rig(task, body, |_| {}).one("{}"))
}

/// What Node.js prints as JSON.
fn node(task: &str, body: &str) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let source = format!("{COMMON}\nconst run = async () => {{ {body} }};\nconsole.log(JSON.stringify(await run()));");
    fs::write(dir.path().join("a.mjs"), source).expect("a file");
    fs::write(dir.path().join("t.task.mjs"), task).expect("a file");
    let ran = Command::new("node").arg("a.mjs").current_dir(dir.path()).output();
    let ran = ran.expect("node runs: it is needed for this test");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

/// The import that nearly every task begins with.
fn task(source: &str) -> String {
    format!(
        "import {{ parentPort, workerData, isMainThread, threadId, receiveMessageOnPort }} from 'worker_threads';\n{source}"
    )
}

const PLAIN: &str = "return { all: await heard(new Worker('./t.task.mjs', { workerData: { n: 3 } })) };";

#[test]
fn tasks_do_as_those_of_node() {
    for (what, source, body) in [
        ("messages in order", "for (let i = 0; i < workerData.n; i++) parentPort.postMessage({ i });", PLAIN),
        ("nothing said", "", PLAIN),
        ("an error, then exit 1", "parentPort.postMessage('before'); throw new RangeError('bad');", PLAIN),
        ("an error with a code", "throw Object.assign(new TypeError('coded'), { code: 'E_MINE' });", PLAIN),
        (
            "an error of its own class",
            "class Mine extends Error { constructor(m) { super(m); this.name = 'Mine'; } } throw new Mine('own');",
            PLAIN,
        ),
        ("a value that is thrown", "throw 'text';", PLAIN),
        (
            "a late error",
            "setTimeout(() => { throw new Error('late'); }, 5); setTimeout(() => parentPort.postMessage('never'), 500);",
            PLAIN,
        ),
        ("a rejection", "Promise.reject(new Error('floating'));", PLAIN),
        ("an error at the top after await", "await null; throw new Error('awaited');", PLAIN),
        ("process.exit", "parentPort.postMessage(1); process.exit(7); parentPort.postMessage(2);", PLAIN),
        ("process.exitCode", "process.exitCode = 4; parentPort.postMessage(1);", PLAIN),
        (
            "exit listeners",
            "process.on('exit', (code) => parentPort.postMessage(['exit', code])); process.exit(3);",
            PLAIN,
        ),
        ("an await that never settles", "await new Promise(() => {});", PLAIN),
        (
            "timers and jobs",
            "setTimeout(() => parentPort.postMessage('timer'), 10); setImmediate(() => parentPort.postMessage('immediate')); queueMicrotask(() => parentPort.postMessage('job')); process.nextTick(() => parentPort.postMessage('tick')); parentPort.postMessage('top');",
            PLAIN,
        ),
        ("what it is", "parentPort.postMessage([isMainThread, threadId, typeof parentPort.on, workerData]);", PLAIN),
        (
            "another module",
            "import { createHash } from 'node:crypto'; parentPort.postMessage(createHash('md5').update('a').digest('hex'));",
            PLAIN,
        ),
        (
            "a missing import",
            "import './none.mjs';",
            "const all = await heard(new Worker('./t.task.mjs')); return { all: [all.at(-2).slice(0, 3), all.at(-2)[4], all.at(-1)] };",
        ),
        (
            "values",
            "parentPort.postMessage(workerData);",
            r#"
            const shared = { deep: [1, , 3] };
            const sent = { a: shared, b: shared, map: new Map([[1, new Set(["x"])]]), date: new Date(5), big: 12n ** 20n, re: /a+/gi,
              bytes: new Uint8Array([1, 2, 3]).subarray(1), floats: new Float64Array([0.1, NaN]), nothing: undefined, zero: -0, text: "ä漢\ud800", error: new TypeError("t"), get computed() { return 7; } };
            sent.self = sent;
            const got = await new Promise((done, fail) => new Worker("./t.task.mjs", { workerData: sent }).once("message", done).once("error", fail));
            return { all: [got.a === got.b, got.self === got, 1 in got.a.deep, got.a.deep.length, got.map.get(1).has("x"), got.date.getTime(), String(got.big), String(got.re),
              [...got.bytes], got.bytes.byteOffset, got.bytes.buffer.byteLength, String(got.floats), "nothing" in got, Object.is(got.zero, -0), got.text === sent.text, got.error instanceof TypeError, got.error.message, Object.getOwnPropertyDescriptor(got, "computed").value] };"#,
        ),
        (
            "messages to it",
            "parentPort.on('message', (m) => { parentPort.postMessage(['got', m]); if (m === 'end') parentPort.close(); });",
            "const worker = new Worker('./t.task.mjs'); const all = heard(worker); worker.postMessage(1); worker.postMessage({ two: 2 }); worker.postMessage('end'); return { all: await all };",
        ),
        (
            "a message that is taken",
            "parentPort.postMessage([receiveMessageOnPort(parentPort), receiveMessageOnPort(parentPort) ?? null]);",
            "const worker = new Worker('./t.task.mjs'); const all = heard(worker); worker.postMessage(1); return { all: await all };",
        ),
        (
            "onmessage",
            "parentPort.onmessage = (event) => { parentPort.postMessage(event.data * 2); parentPort.close(); };",
            "const worker = new Worker('./t.task.mjs'); const all = heard(worker); worker.postMessage(21); return { all: await all };",
        ),
        (
            "terminate once it has said something",
            "parentPort.on('message', () => {}); parentPort.postMessage('up');",
            "const worker = new Worker('./t.task.mjs'); const all = heard(worker); await new Promise((up) => worker.once('message', up)); const code = await worker.terminate(); return { code, again: (await worker.terminate()) ?? null, all: await all };",
        ),
        (
            "terminate by who does not wait",
            "parentPort.on('message', () => {});",
            "const worker = new Worker('./t.task.mjs'); const order = []; worker.on('exit', () => order.push('exit')); const done = worker.terminate().then(() => order.push('then')); order.push('called'); await done; return { order };",
        ),
        (
            "what does not cross",
            "",
            r#"
            const thrown = (f) => { try { f(); return "no"; } catch (error) { return [error.name, error.code, error.constructor.name]; } };
            const worker = new Worker("./t.task.mjs");
            return { all: [thrown(() => new Worker("./t.task.mjs", { workerData: () => 1 })), thrown(() => worker.postMessage({ s: Symbol("s") })), thrown(() => new Worker("t.task.mjs")), thrown(() => new Worker(5)),
              thrown(() => new Worker(new URL("http://x/y.js")))], exit: (await heard(worker)).at(-1) };"#,
        ),
        (
            "a function that does not cross back",
            "try { parentPort.postMessage(() => 1); } catch (error) { parentPort.postMessage([error.name, error.message, error.code]); }",
            PLAIN,
        ),
        (
            "what is missing",
            "",
            "const all = await heard(new Worker('./nowhere.mjs')); return { all: [all.at(-2).slice(0, 3), all.at(-1).slice(0, 2)] };",
        ),
        (
            "url",
            "parentPort.postMessage(import.meta.url.split('/').at(-1));",
            "return { all: await heard(new Worker(new URL('./t.task.mjs', import.meta.url))) };",
        ),
        (
            "two at once",
            "parentPort.postMessage(workerData.n);",
            "const all = await Promise.all([1, 2, 3].map((n) => heard(new Worker('./t.task.mjs', { workerData: { n } })))); return { all: all.map((one) => one.find(([kind]) => kind === 'message')) };",
        ),
    ] {
        let source = task(source);
        // Node.js' threads race on a busy machine: an error may overtake the message before it. Then it is asked again.
        let (ours, mut theirs) = (one(&source, body), node(&source, body));
        for _ in 0..4 {
            if ours != theirs {
                theirs = node(&source, body);
            }
        }
        assert_eq!(ours, theirs, "{what}");
    }
}

#[test]
fn common_js_and_one_file_for_both_sides_work() {
    let both = "const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
        if (!isMainThread) { let sum = 0; for (let i = 0; i < workerData; i++) sum += i; parentPort.postMessage(sum); }
        exports.match = { devices: ['d1'] }; exports.onMetric = (m) => new Promise((resolve, reject) => {
          const worker = new Worker(__filename, { workerData: m.n });
          worker.once('message', (sum) => resolve({ sum }));
          worker.once('error', reject);
        });";
    let plugin = "import { Worker } from 'node:worker_threads'; import { half } from './lib/half.js';
        export const match = { devices: ['p-*'] };
        export const onMetric = (m) => half(m.n);";
    let lib = "import { Worker } from 'node:worker_threads'; import { once } from 'node:events';
        export async function half(n) { const [half] = await once(new Worker('../tasks/half.js', { workerData: n }), 'message'); return { half }; }";
    let half = "import { parentPort, workerData } from 'node:worker_threads'; parentPort.postMessage(workerData / 2);";
    let mut rig = Rig::new(&[
        ("10-both.cjs", both),
        ("20-plugin/package.json", r#"{"type":"module","main":"index.js"}"#),
        ("20-plugin/index.js", plugin),
        ("20-plugin/lib/half.js", lib),
        ("20-plugin/tasks/half.js", half),
        ("only.task.js", "throw new Error('it is no handler')"),
    ]);
    let names: Vec<_> =
        rig.pool.scripts().into_iter().map(|script| (script.name.to_string(), script.last_error)).collect();
    assert_eq!(names, [("10-both.cjs".to_owned(), None), ("20-plugin".to_owned(), None)]);
    // More rounds than a loop of a handler may have.
    assert_eq!(kept(&rig.one(r#"{"n":3000000}"#)), json!({"sum": 4_499_998_500_000_u64}));
    assert_eq!(kept(&rig.one_of("p-1", r#"{"n":5}"#)), json!({"half": 2.5}));
}

/// A task that fails: what its handler hears, and then a reading of the same device and one of another.
fn fails(source: &str, change: impl FnOnce(&mut PoolConfig), name: &str, words: &str) -> Duration {
    let body = "
        if (!m.bad) return { fine: true };
        const all = await heard(new Worker('./t.task.mjs'));
        return { error: all.find(([kind]) => kind === 'error'), exit: all.at(-1) };";
    let mut rig = rig(&task(source), body, change);
    let began = Instant::now();
    let runs = vec![rig.run("d1", &[r#"{"bad":1}"#, "{}"]), rig.run("d2", &["{}"])];
    rig.submit(runs);
    let first = rig.outcome();
    assert_eq!((first.device.as_str(), kept(&first)), ("d2", json!({"fine": true})), "{source}: the other goes on");
    let outcome = rig.outcome();
    let took = began.elapsed();
    let state = kept(&outcome);
    eprintln!("{source}: {state} {took:?}");
    assert_eq!(state["exit"][1], 1, "{source}: {state}");
    assert_eq!(state["error"][2], name, "{source}: {state}");
    assert!(state["error"].to_string().contains(words), "{source}: {state}");
    assert_eq!(kept(&rig.outcome()), json!({"fine": true}), "{source}: in order");
    assert_eq!(rig.pool.workers()[0].restarts, 0, "{source}: the worker goes on");
    took
}

#[test]
fn a_hostile_task_fails_by_itself() {
    let soon = |config: &mut PoolConfig| config.limits.task_wall = Duration::from_millis(700);
    let small = |config: &mut PoolConfig| config.limits.heap_bytes = 48 * 1024 * 1024;
    for source in ["while (true) {}", "/^(a+)+$/.test('a'.repeat(60) + 'b');", "new Array(4294967295).indexOf(1);"] {
        let took = fails(source, soon, "Error", "limit script_task_wall");
        assert!(took < Duration::from_secs(20), "{source}: {took:?}");
    }
    let bomb =
        "let s = 'x'.repeat(65536); s += s; s += s; s += s; s += s; const all = []; for (;;) all.push(s + all.length);";
    fails(bomb, small, "Error", "ERR_WORKER_OUT_OF_MEMORY");
    fails("setInterval(() => {}, 1000);", |_| {}, "Error", "limit script_task_jobs");
    fails("const again = () => process.nextTick(again); again();", |_| {}, "Error", "limit script_task_jobs");
    fails("const f = () => f() + 1; f();", |_| {}, "Error", "recursi");
    fails(
        "let i = 0; new Float64Array(5000).sort(() => (i = (i * 7 + 3) % 11) - 5);",
        |_| {},
        "Error",
        "the engine panicked",
    );
    fails("throw new Error('thrown');", |_| {}, "Error", "thrown");
    fails(
        &format!("const x = {}1{};", "(".repeat(5_000), ")".repeat(5_000)),
        |_| {},
        "SyntaxError",
        "limit script_nesting",
    );
    fails("const x = ;", |_| {}, "SyntaxError", "");
    fails(
        "for (let i = 0; i < 10; i++) parentPort.postMessage(new Uint8Array(1e6));",
        |_| {},
        "RangeError",
        "limit script_job_bytes",
    );
    fails("new Worker('./t.task.mjs');", |_| {}, "ReferenceError", "Worker");
    fails(
        "const { Worker } = await import('worker_threads'); new Worker('./t.task.mjs');",
        |_| {},
        "Error",
        "a Worker within a task",
    );
    fails("await fetch('http://127.0.0.1:1/');", |_| {}, "TypeError", "a task asks for no slow work");
}

#[test]
fn an_error_that_nobody_hears_parks_the_reading_with_its_place_in_the_task() {
    let source = task("const deep = () => {\n  throw new TypeError('in the task');\n};\ndeep();");
    let body =
        "const worker = new Worker('./t.task.mjs');\n await new Promise((done) => worker.once('message', done));";
    let outcome = rig(&source, body, |_| {}).one("{}");
    let (reason, message) = parked(&outcome);
    assert!(reason == ParkReason::Threw, "{message}");
    assert!(message.contains("TypeError: in the task (t.task.mjs:3:"), "{message}");
    // One that was killed is told of where it was made.
    let outcome =
        rig(&task("for (;;) {}"), body, |config| config.limits.task_wall = Duration::from_millis(300)).one("{}");
    let (_, message) = parked(&outcome);
    assert!(message.contains("setting scripts.task_wall_ms") && message.contains("(a.mjs:"), "{message}");
}

#[test]
fn what_there_is_not_is_refused_by_name() {
    let body = r#"
        const wt = await import("node:worker_threads");
        const thrown = (f) => { try { f(); return "no"; } catch (error) { return `${error.code} ${error.message}`; } };
        const worker = new Worker("./t.task.mjs");
        const all = [
          thrown(() => new Worker("1", { eval: true })), thrown(() => new Worker("./t.task.mjs", { argv: ["x"] })), thrown(() => new wt.MessageChannel()), thrown(() => new wt.BroadcastChannel("x")),
          thrown(() => worker.postMessage(1, [new ArrayBuffer(1)])), thrown(() => new Worker("./t.task.mjs", { workerData: 1, transferList: [new ArrayBuffer(1)] })),
          thrown(() => wt.setEnvironmentData("a", 1)),
        ];
        await heard(worker);
        const late = new Worker("./t.task.mjs");
        await new Promise((done) => setTimeout(done, 1));
        all.push(thrown(() => late.postMessage(1)));
        return { all, shared: typeof SharedArrayBuffer };"#;
    let state = one("", body);
    let all = state["all"].as_array().expect("a list");
    for (at, word) in
        ["eval", "argv", "MessageChannel", "BroadcastChannel", "transferList", "transferList", "setEnvironmentData"]
            .iter()
            .enumerate()
    {
        let said = all[at].as_str().unwrap_or_default();
        assert!(said.starts_with("ERR_TIDEGATE_UNSUPPORTED") && said.contains(word), "{word}: {said}");
    }
    assert_eq!(state["shared"], "undefined", "there is none");
    let late = all[7].as_str().unwrap_or_default();
    assert!(late.starts_with("ERR_TIDEGATE_UNSUPPORTED a message to a task that has begun"), "{late}");

    let outcome = Rig::new(&[(
        "a.mjs",
        "import { Worker } from 'worker_threads'; new Worker('./t.task.mjs'); export function onMetric() {}",
    )]);
    let error = outcome.health("a.mjs").last_error.expect("it is broken");
    assert!(error.message.contains("for a reading's handler"), "{error:?}");
}

#[test]
fn a_call_sees_the_same_of_its_tasks_each_time() {
    let source = task(
        "import { randomUUID } from 'node:crypto';
         setTimeout(() => parentPort.postMessage([Date.now() - workerData, Math.random(), randomUUID(), performance.now(), threadId]), 86_400_000);",
    );
    let body = "
        const before = Date.now();
        const first = await heard(new Worker('./t.task.mjs', { workerData: ctx.now }));
        const clock = Date.now() - before;
        const pair = await Promise.all([1, 2].map(() => heard(new Worker('./t.task.mjs', { workerData: ctx.now }))));
        return { all: [first, ...pair].map((all) => all.find(([kind]) => kind === 'message')[1]), clock, after: Math.random() };";
    let all = |times: usize| {
        let mut rig = rig(&source, body, |_| {});
        let runs: Vec<_> = (0..times).map(|number| rig.run(&format!("d{number}"), &["{}"])).collect();
        rig.submit(runs);
        let mut outcomes = rig.outcomes(times);
        outcomes.sort_by_key(|outcome| outcome.position);
        outcomes
    };
    let outcomes = all(4);
    let state = kept(&outcomes[0]);
    assert_eq!(state["clock"], 1, "pure work takes a millisecond: {state}");
    let (first, second) = (&state["all"][0], &state["all"][1]);
    assert_eq!((&first[0], &first[3], &first[4]), (&json!(86_400_000), &json!(86_400_000), &json!(1)));
    assert_eq!((&second[0], &second[4]), (&json!(86_400_001), &json!(2)), "its clock is that of its call: {state}");
    assert!(first[1] != second[1] && first[2] != second[2], "each has random numbers of its own: {state}");
    assert_eq!(all(2), outcomes[..2]);
}

#[test]
fn other_devices_go_on_beside_tasks_and_a_device_keeps_its_order() {
    let source = task("let sum = 0; for (let i = 0; i < workerData; i++) sum += i % 7; parentPort.postMessage(sum);");
    let body = "
        ctx.state.seen = [...(ctx.state.seen ?? []), m.n];
        if (!m.rounds) return { seen: ctx.state.seen };
        const { promise, resolve, reject } = Promise.withResolvers?.() ?? (() => { let a = {}; a.promise = new Promise((x, y) => { a.resolve = x; a.reject = y; }); return a; })();
        new Worker('./t.task.mjs', { workerData: m.rounds }).once('message', resolve).once('error', reject);
        return { sum: await promise, seen: ctx.state.seen };";
    let mut rig = rig(&source, body, |_| {});
    let heavy = r#"{"rounds":8000000,"n":1}"#;
    let run = rig.run("heavy", &[heavy, r#"{"n":2}"#, r#"{"n":3}"#]);
    rig.submit(vec![run]);
    let mut beside = 0;
    let heavy = loop {
        let run = rig.run(&format!("light-{beside}"), &[r#"{"n":0}"#]);
        rig.submit(vec![run]);
        let outcome = rig.outcome();
        if outcome.device.as_str() == "heavy" {
            break outcome;
        }
        beside += 1;
    };
    assert!(beside > 100, "{beside} readings beside one task");
    assert_eq!(kept(&heavy)["seen"], json!([1]));
    let rest: Vec<_> = rig.outcomes(3).into_iter().filter(|outcome| outcome.device.as_str() == "heavy").collect();
    assert_eq!((&kept(&rest[0])["seen"], &kept(&rest[1])["seen"]), (&json!([1, 2]), &json!([1, 2, 3])));
    let work = rig.pool.slow_work();
    let ended = |result: &str| work.tasks.ended.iter().find(|of| of.result == result).map_or(0, |of| of.count);
    assert_eq!((work.tasks.started, ended("done"), ended("threw")), (1, 1, 0));
    assert!(work.tasks.us > 10_000, "{:?}", work.tasks);
    let of = work.operations.iter().find(|of| of.name == "task").expect("it is counted");
    assert_eq!((of.done, of.failed), (1, 0));
}

#[test]
fn a_hundred_thousand_numbers_cross_both_ways_within_a_calls_budget() {
    let source = task(
        "parentPort.postMessage(workerData.map((n) => n + 1)); parentPort.postMessage(new Float64Array(workerData));",
    );
    let body = "
        const all = await heard(new Worker('./t.task.mjs', { workerData: m.samples }));
        const [list, floats] = all.filter(([kind]) => kind === 'message').map(([, value]) => value);
        return { length: list.length, last: list.at(-1), floats: floats.length, type: floats.constructor.name };";
    let samples: Vec<u32> = (0..100_000).collect();
    let mut rig = rig(&source, body, |_| {});
    let state = kept(&rig.one(&json!({ "samples": samples }).to_string()));
    assert_eq!(state, json!({"length": 100_000, "last": 100_000, "floats": 100_000, "type": "Float64Array"}));
    eprintln!("{:?} us", rig.health("a.mjs").p50_us);
}

#[test]
fn a_task_that_nobody_waits_for_is_ended() {
    let body = "
        const worker = new Worker('./t.task.mjs');
        if (m.left) return { left: true };
        if (m.terminate) return { code: await worker.terminate() };
        return { all: await heard(worker) };";
    let mut rig = rig(&task("for (;;) {}"), body, |config| config.limits.async_wall = Duration::from_millis(300));
    // What nobody waits for when its turn ends is not begun.
    assert_eq!(kept(&rig.one(r#"{"left":1}"#)), json!({"left": true}));
    assert_eq!(kept(&rig.one(r#"{"terminate":1}"#)), json!({"code": 1}));
    assert_eq!(rig.pool.slow_work().tasks.started, 0);
    // One whose call is over is killed, long before its own time is.
    let outcome = rig.one("{}");
    let (reason, message) = parked(&outcome);
    assert!(reason == ParkReason::Deadline && message.contains("script_async_wall"), "{message}");
    let began = Instant::now();
    rig.wait("it is killed", |pool| {
        let tasks = pool.slow_work().tasks;
        tasks.started == 1 && tasks.ended.iter().any(|of| of.result == "forgotten" && of.count == 1)
    });
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // And so is that of a worker which dies; its reading is handled again.
    let run = rig.run("d2", &["{}"]);
    rig.submit(vec![run]);
    rig.wait("it has begun", |pool| pool.slow_work().tasks.started == 2);
    let worker = i32::try_from(rig.pool.workers()[0].pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(worker.expect("it lives"), rustix::process::Signal::KILL).expect("killed");
    assert!(parked(&rig.outcome()).1.contains("script_async_wall"));
    rig.wait("all are killed", |pool| {
        let work = pool.slow_work();
        let killed = work.tasks.ended.iter().find(|of| of.result == "forgotten").map_or(0, |of| of.count);
        (work.tasks.started, killed, work.running) == (3, 3, 0)
    });
}

#[test]
fn lines_of_the_log_come_with_their_call() {
    // What is printed comes in order beside messages; seen here by its number in the log's limit of a call.
    let source = task("console.log('from the task', { n: 1 }); parentPort.postMessage(1); console.warn('second');");
    let body = "const all = await heard(new Worker('./t.task.mjs')); return { kinds: all.map(([kind]) => kind) };";
    assert_eq!(one(&source, body), json!({"kinds": ["online", "message", "job", "exit"]}));
}

#[test]
fn a_task_costs_a_process() {
    let body = "const all = await heard(new Worker('./t.task.mjs')); return { n: all.length };";
    let mut rig = rig(&task("parentPort.postMessage(1);"), body, |_| {});
    let (mut best, mut all) = (Duration::MAX, Duration::ZERO);
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(kept(&rig.one("{}")), json!({"n": 4}));
        best = best.min(began.elapsed());
        all += began.elapsed();
    }
    eprintln!("a task: {best:?} at best, {:?} on average", all / 20);
    assert!(best < Duration::from_secs(1), "{best:?}");
}
