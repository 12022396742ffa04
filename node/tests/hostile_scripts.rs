//! Sixty hostile handlers in one node at once, each let loose on its device, with one good handler among them. Throughout: `/livez`
//! answers, the good one's readings are processed, each hostile reading is parked with a reason, and what it took comes back.

mod support;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{House, memory::resident_kib, raw::send};

const GOOD: &str =
    "export const match = { devices: ['good'] };\nexport function onMetric(m) { return { double: m.t * 2 }; }";
/// Killed workers come back ever more slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// Generous for cores that everything else shares; what was measured is printed.
const LIVEZ: Duration = Duration::from_secs(1);

/// What each does with its reading. `await` in it makes the function async.
const HOSTILE: [&str; 60] = [
    // Loops, in sight of the engine.
    "while (true) {}",
    "for (;;) { try { for (;;) {} } catch {} }",
    "for (let i = 0; i < 900; i++) for (let j = 0; j < 99990; j++) {}",
    "const f = (n) => { for (let j = 0; j < 99990; j++) {} if (n) { f(n - 1); f(n - 1); } }; f(20);",
    "label: while (true) { do { continue label; } while (true); }",
    "for (const x of { [Symbol.iterator]: () => ({ next: () => ({ value: 1, done: false }) }) }) {}",
    "[...(function* () { for (;;) yield 1; })()];",
    "const f = () => f(); f();",
    "const a = () => b(), b = () => a(); a();",
    "class A { get x() { return this.x; } } new A().x;",
    "const p = new Proxy({}, { get: (t, k, r) => r[k] }); p.x;",
    "return { toJSON() { while (true) {} } };",
    // Loops, out of its sight.
    "/^(a+)+$/.test('a'.repeat(60) + 'b');",
    "/(x+x+)+y/.test('x'.repeat(60));",
    "new Array(4294967295).indexOf(1);",
    "let a = [1]; for (let i = 0; i < 40; i++) a = a.concat(a);",
    "String.raw({ raw: { length: 2 ** 53 } });",
    "3n ** 300000000n;",
    "Array.from({ length: 2 ** 32 - 1 });",
    "Array.prototype.forEach.call({ length: 2 ** 53 - 1 }, () => {});",
    "const sparse = []; sparse[4294967294] = 1; sparse.sort(); sparse.reverse();",
    // Memory.
    "let s = 'x'; for (;;) s += s;",
    "const all = []; for (let i = 0; ; i++) all.push(new ArrayBuffer(2 ** 24));",
    "new ArrayBuffer(2 ** 30);",
    "new Array(3e8).fill(0);",
    "Array(2 ** 27).join('x');",
    "'x'.padEnd(2 ** 30);",
    "'x'.repeat(2 ** 30);",
    "const s = new Set(); for (let i = 0; ; i++) s.add('k' + i);",
    "const map = new Map(); for (let i = 0; ; i++) map.set({}, new Array(1000));",
    "Reflect.apply(() => {}, null, { length: 2 ** 32 - 1 });",
    "Buffer.alloc(2 ** 31);",
    "structuredClone(Array.from({ length: 1e7 }, () => ({})));",
    "let deep = []; for (let i = 0; i < 1e7; i++) deep = [deep]; return { deep };",
    // Crashes of the engine.
    "let i = 0; new Float64Array(5000).sort(() => (i = (i * 7 + 3) % 11) - 5);",
    "let deep = {}; for (let i = 0; i < 5000; i++) deep = { deep }; return deep;",
    "let deep = []; for (let i = 0; i < 20000; i++) deep = [deep]; return { toJSON() { return deep; } };",
    "return JSON.parse('['.repeat(1e5));",
    // Exceptions that bite who looks at them.
    "throw { get message() { while (true) {} }, toString() { while (true) {} } };",
    "throw new Proxy({}, { get() { while (true) {} } });",
    "const e = new Error('x'); Object.defineProperty(e, 'name', { get() { throw e; } }); throw e;",
    "throw 'y'.repeat(1e6);",
    "const e = new Error('cyclic'); e.cause = e; throw e;",
    "throw undefined;",
    // Promises, timers, jobs.
    "await new Promise(() => {});",
    "const again = () => Promise.resolve().then(again); await again();",
    "(function again() { Promise.resolve().then(again); })();",
    "(function again() { process.nextTick(again); })();",
    "(function again() { queueMicrotask(again); })();",
    "(function again() { setImmediate(again); })();",
    "for (;;) setTimeout(() => {}, 1);",
    "await null; while (true) {}",
    "await { then() { while (true) {} } };",
    "for await (const x of (async function* () { for (;;) yield 1; })()) {}",
    "Promise.reject(new Error('nobody catches it')); await null; setTimeout(() => {}, 1);",
    // Results and effects.
    "return { x: 'y'.repeat(2e6) };",
    "return 7;",
    "const a = {}; a.a = a; return a;",
    "return { n: 1n };",
    "for (let i = 0; i < 1000; i++) ctx.emit('flood', { i });",
];

fn script(number: usize, body: &str) -> String {
    let kind = if body.contains("await") { "async " } else { "" };
    format!(
        "export const match = {{ devices: ['bad-{number}'] }};\nexport {kind}function onMetric(m, ctx) {{ {body} }}"
    )
}

#[test]
fn sixty_hostile_handlers_hurt_nobody() {
    // One that waits is failed sooner, so that the test ends sooner.
    let house =
        House::new().variable("TIDEGATE_SCRIPTS__ASYNC_WALL_MS", "1000").variable("TIDEGATE_SCRIPTS__WORKERS", "4");
    let house = HOSTILE.iter().enumerate().fold(house.handler("00-good.js", GOOD), |house, (number, body)| {
        house.handler(&format!("bad-{number:02}.js"), &script(number, body))
    });
    let node = house.start();
    let overview = node.get("/api/overview").json();
    let scripts = overview["scripts"].as_array().expect("scripts");
    assert_eq!(scripts.len(), HOSTILE.len() + 1);
    let broken: Vec<_> = scripts.iter().filter(|script| script["status"] != "closed").collect();
    assert!(broken.is_empty(), "all load: {broken:?}");
    let before_kib = resident_kib(&node);

    let stop = Arc::new(AtomicBool::new(false));
    let pulse = std::thread::spawn({
        let (stop, http) = (Arc::clone(&stop), node.http);
        move || {
            let (mut looks, mut worst) = (0_u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                let answer = send(http, b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                assert!(answer.ends_with(b"ok"), "{}", String::from_utf8_lossy(&answer));
                (looks, worst) = (looks + 1, worst.max(start.elapsed()));
                std::thread::sleep(Duration::from_millis(5));
            }
            (looks, worst)
        }
    });

    let start = Instant::now();
    for number in 0..HOSTILE.len() {
        let answer = node.post(&format!("/devices/bad-{number}/metrics"), &json!({"number": number}).to_string());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let mut good = 0;
    let parked = loop {
        good += 1;
        let answer = node.post("/devices/good/metrics?ack=processed", &json!({"t": good}).to_string());
        assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("kept")), "{}", answer.text());
        let parked = node.parked();
        if parked.len() >= HOSTILE.len() {
            break parked;
        }
        let is_parked = |number: &usize| parked.iter().any(|row| row["deviceId"] == format!("bad-{number}"));
        let missing = (0..HOSTILE.len()).filter(|number| !is_parked(number)).map(|number| HOSTILE[number]);
        assert!(start.elapsed() < PATIENCE, "not parked after {PATIENCE:?}: {:#?}", missing.collect::<Vec<_>>());
    };
    let took = start.elapsed();
    assert_eq!(node.device("good").expect("it has a state")["state"], json!({"double": good * 2}));

    let mut table = String::new();
    for (number, body) in HOSTILE.iter().enumerate() {
        let rows: Vec<_> = parked.iter().filter(|row| row["deviceId"] == format!("bad-{number}")).collect();
        let [row] = rows[..] else { panic!("{body}: {rows:?}") };
        assert_eq!(
            (&row["script"], &row["payload"]["number"]),
            (&json!(format!("bad-{number:02}.js")), &json!(number))
        );
        let (reason, message) =
            (row["reason"].as_str().expect("a reason"), row["message"].as_str().expect("a message"));
        assert!(["threw", "deadline", "memory", "crashed", "bad-result"].contains(&reason), "{body}: {row}");
        assert!(!message.is_empty(), "{body}: {row}");
        let _ = writeln!(table, "{reason:10} {body}\n           {}", message.chars().take(120).collect::<String>());
    }
    let ledger = node.settled_ledger();
    let in_ledger: u64 = ledger["parked"].as_object().expect("reasons").values().filter_map(Value::as_u64).sum();
    assert_eq!((&ledger["balanced"], in_ledger), (&json!(true), HOSTILE.len() as u64), "{ledger}");

    stop.store(true, Ordering::Relaxed);
    let (looks, worst) = pulse.join().expect("every answer was ok");
    let after_kib = resident_kib(&node);
    println!(
        "{table}\n{} hostile readings parked in {took:?}, {good} good ones kept meanwhile; {looks} × /livez, the slowest {worst:?}; the node had {before_kib} KiB and has {after_kib} KiB",
        HOSTILE.len()
    );
    assert!(worst < LIVEZ, "/livez took {worst:?}");
    assert!(after_kib < before_kib + 64 * 1024, "the node had {before_kib} KiB and has {after_kib} KiB");
}
