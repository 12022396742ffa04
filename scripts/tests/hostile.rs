//! What handlers can do to their worker, and that it costs nobody else anything: every probe is parked with its reason, and the
//! readings after it go on.

mod common;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use common::{Rig, exists, kept, parked};
use serde_json::json;
use tidegate_actors::script::{ParkReason, ScriptEngine, ScriptStatus, Verdict};

/// A handler that runs `probe` for a reading with `bad`, and counts the others.
fn probing(probe: &str) -> String {
    format!(
        "export {} function onMetric(m, ctx) {{\n  if (m.bad) {{ {probe} }}\n  ctx.state.n = (ctx.state.n ?? 0) + 1;\n  return {{ n: ctx.state.n }};\n}}",
        if probe.contains("await") { "async" } else { "" }
    )
}

/// Long enough for an unoptimized engine to come to its own limits.
const LONG: Duration = Duration::from_secs(10);

/// As [`check_within`], with the wall deadline that the node has.
fn check(probe: &str, reasons: &[ParkReason], words: &str) {
    check_within(Duration::from_millis(500), probe, reasons, words);
}

/// One device's readings with the bad one in their midst, and another device's behind it: all but the bad one go on as if it had
/// not been there.
fn check_within(wall: Duration, probe: &str, reasons: &[ParkReason], words: &str) {
    let mut rig = Rig::with(&[("a.js", &probing(probe))], |config| config.limits.call_wall = wall);
    let runs = vec![rig.run("d1", &["{}", "{}", r#"{"bad":1}"#, "{}"]), rig.run("d2", &["{}", "{}"])];
    rig.submit(runs);
    let outcomes = rig.outcomes(6);
    let (d1, d2): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.device.as_str() == "d1");
    assert_eq!(kept(&d1[0]), json!({"n": 1}), "{probe}");
    assert_eq!(kept(&d1[1]), json!({"n": 2}), "{probe}");
    let Verdict::Parked { reason, message, .. } = &d1[2].verdict else { panic!("{probe}: {:?}", d1[2]) };
    eprintln!("{probe}: {reason:?} {message}");
    assert!(reasons.contains(reason) && message.contains(words), "{probe}: {reason:?} {message}");
    assert!(message.contains("(a.js"), "{probe}: {message}");
    assert_eq!(kept(&d1[3]), json!({"n": 3}), "{probe}");
    assert_eq!(kept(&d2[1]), json!({"n": 2}), "{probe}");
    rig.assert_quiet();
    assert_eq!(rig.health("a.js").errors, 1, "{probe}");
}

#[test]
fn endless_loops_end() {
    use ParkReason::{Deadline, Threw};
    check_within(LONG, "while (true) {}", &[Deadline], "a loop went round more than");
    check_within(LONG, "for (;;) { try { for (;;) {} } catch {} }", &[Deadline], "a loop went round");
    check_within(LONG, "const f = () => f(); f();", &[Threw], "recursive calls");
    check("for (let i = 0; i < 900; i++) for (let j = 0; j < 99990; j++) {}", &[Deadline], "");
    check(
        "const f = (n) => { for (let j = 0; j < 99990; j++) {} if (n) { f(n - 1); f(n - 1); } }; f(20);",
        &[Deadline],
        "script_call_wall",
    );
}

#[test]
fn native_code_that_hangs_is_killed() {
    for probe in [
        "/^(a+)+$/.test('a'.repeat(60) + 'b');",
        "new Array(4294967295).indexOf(1);",
        "let a = [1]; for (let i = 0; i < 40; i++) a = a.concat(a);",
        "String.raw({ raw: { length: 2 ** 53 } });",
        "3n ** 300000000n;",
    ] {
        check(probe, &[ParkReason::Deadline, ParkReason::Memory, ParkReason::Threw], "");
    }
}

#[test]
fn memory_bombs_end_their_worker_only() {
    use ParkReason::{Crashed, Deadline, Memory, Threw};
    // On a busy machine memory is not used up within half a second.
    check_within(LONG, "let s = 'x'; for (;;) s += s;", &[Memory, Threw], "");
    check_within(
        LONG,
        "let s = 'x'.repeat(65536); s += s; s += s; s += s; s += s; const all = []; for (;;) all.push(s + all.length);",
        &[Memory],
        "limit script_heap_bytes",
    );
    check("const all = []; for (let i = 0; ; i++) all.push(new ArrayBuffer(2 ** 24));", &[Memory, Threw, Deadline], "");
    check("new ArrayBuffer(2 ** 30);", &[Threw], "RangeError");
    check("new Array(3e8).fill(0);", &[Memory, Deadline], "");
    check("Array(2 ** 27).join('x');", &[Memory, Deadline, Threw], "");
    check("'x'.padEnd(2 ** 30);", &[Memory, Deadline, Threw], "");
    check("const s = new Set(); for (let i = 0; ; i++) s.add('k' + i);", &[Memory, Deadline], "");
    check("Reflect.apply(() => {}, null, { length: 2 ** 32 - 1 });", &[Memory, Deadline, Threw, Crashed], "");
}

#[test]
fn engine_crashes_are_parked() {
    use ParkReason::{Crashed, Deadline, Memory, Threw};
    check("let i = 0; new Float64Array(5000).sort(() => (i = (i * 7 + 3) % 11) - 5);", &[Crashed, Threw], "");
    check(
        "let deep = {}; for (let i = 0; i < 5000; i++) deep = { deep }; return deep;",
        &[ParkReason::BadResult],
        "json_depth",
    );
    check(
        "let deep = []; for (let i = 0; i < 20000; i++) deep = [deep]; return { toJSON() { return deep; } };",
        &[Crashed, Memory, Threw, ParkReason::BadResult, Deadline],
        "",
    );
    check("return JSON.parse('['.repeat(1e5));", &[Threw], "SyntaxError");
}

#[test]
fn hostile_exceptions_are_described_without_running_them() {
    use ParkReason::Threw;
    check("throw { get message() { while (true) {} }, toString() { while (true) {} } };", &[Threw], "an object");
    check("throw new Proxy({}, { get() { while (true) {} } });", &[Threw], "an object");
    check(
        "const e = new Error('x'); Object.defineProperty(e, 'name', { get() { throw e; } }); throw e;",
        &[Threw],
        "x",
    );
    check("null.x;", &[Threw], "TypeError");
    check("nothing();", &[Threw], "ReferenceError");
    check("throw undefined;", &[Threw], "undefined");
    check("throw 'y'.repeat(1e6);", &[Threw], "yyyy");
    check("throw Object.assign(() => {}, { message: 'a function' });", &[Threw], "a function");
    check("const e = new Error('cyclic'); e.cause = e; throw e;", &[Threw], "cyclic");
}

#[test]
fn promises_that_never_settle_are_parked() {
    use ParkReason::Deadline;
    check_within(LONG, "await new Promise(() => {});", &[Deadline], "never settles");
    check_within(LONG, "const again = () => Promise.resolve().then(again); await again();", &[Deadline], "script_jobs");
    check_within(LONG, "(function again() { Promise.resolve().then(again); })();", &[Deadline], "script_jobs");
    check_within(LONG, "await null; while (true) {}", &[Deadline], "");
    check_within(LONG, "await { then() { while (true) {} } };", &[Deadline], "");
    check_within(LONG, "for await (const x of (async function* () { for (;;) yield 1; })()) {}", &[Deadline], "");
}

#[test]
fn many_errors_in_a_row_leave_the_engine_well() {
    let script = r#"
        export function onMetric(m, ctx) {
          if (m.kind === "deep") (function f(n) { if (n) f(n - 1); else throw new Error("deep"); })(20);
          if (m.kind === "stringify") return { get x() { throw new Error("getter"); } };
          if (m.kind === "callback") return [1, 2].map(() => { throw new Error("callback"); });
          if (m.kind === "async") return (async () => { await null; throw new Error("async"); })();
          if (m.kind === "then") return Promise.resolve().then(() => { throw new Error("then"); });
          return { well: true };
        }"#;
    let mut rig = Rig::with(&[("a.js", script)], |config| config.limits.breaker_failures = u32::MAX);
    for kind in ["deep", "stringify", "callback", "async", "then"] {
        let text = json!({ "kind": kind }).to_string();
        let run = rig.run("d1", &vec![text.as_str(); 800]);
        rig.submit(vec![run]);
        for outcome in rig.outcomes(800) {
            assert_eq!(parked(&outcome).0, ParkReason::Threw);
            assert!(parked(&outcome).1.contains(if kind == "stringify" { "getter" } else { kind }), "{outcome:?}");
        }
        assert_eq!(kept(&rig.one("{}")), json!({"well": true}), "after 800 × {kind}");
    }
    assert_eq!(rig.pool.workers()[0].restarts, 0);
}

#[test]
fn a_worker_killed_from_outside_loses_and_doubles_nothing() {
    let script = "export function onMetric(m, ctx) { let x = 0; for (let i = 0; i < 20000; i++) x += i; ctx.state.n = (ctx.state.n ?? 0) + 1; return { n: ctx.state.n, i: m.i, before: ctx.previous?.i ?? -1 }; }";
    let mut rig = Rig::with(&[("a.js", script)], |config| config.workers = 2);
    rig.wait("both workers are up", |pool| pool.workers().iter().all(|worker| worker.pid != 0));
    let texts: Vec<String> = (0..100).map(|i| json!({ "i": i }).to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let runs: Vec<_> = (0..10).map(|device| rig.run(&format!("d{device}"), &texts)).collect();
    rig.submit(runs);
    let mut next = std::collections::HashMap::new();
    for seen in 0..1_000 {
        if seen == 50 || seen == 400 {
            rig.wait("a worker is busy", |pool| pool.workers().iter().any(|worker| worker.busy && worker.pid != 0));
            let busy = rig.pool.workers().into_iter().find(|worker| worker.busy && worker.pid != 0);
            if let Some(worker) = busy {
                let killed = Command::new("kill").args(["-9", &worker.pid.to_string()]).status().expect("kill runs");
                assert!(killed.success());
            }
        }
        let outcome = rig.outcome();
        let next = next.entry(outcome.device.clone()).or_insert(0);
        assert_eq!(kept(&outcome), json!({"n": *next + 1, "i": *next, "before": *next - 1}));
        *next += 1;
    }
    rig.assert_quiet();
    let restarts: u64 = rig.pool.workers().iter().map(|worker| worker.restarts).sum();
    assert!(restarts >= 1, "a worker was killed");
    assert_eq!(rig.health("a.js").errors, 0);
}

#[test]
fn an_idle_worker_that_was_killed_is_replaced_without_blame() {
    let mut rig = Rig::new(&[("a.js", "export function onMetric(m) { return { ok: 1 }; }")]);
    rig.one("{}");
    let pid = rig.pool.workers()[0].pid;
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
    for _ in 0..3 {
        assert_eq!(kept(&rig.one("{}")), json!({"ok": 1}));
    }
    assert_eq!(rig.health("a.js").parked, 0);
}

#[test]
fn the_breaker_opens_and_closes_again() {
    let script = "export function onMetric(m) { if (m.bad) throw new Error('bad'); return { ok: 1 }; }";
    let other = "export const match = { devices: ['other'] }; export function onMetric(m) { return { other: 1 }; }";
    let open = Duration::from_millis(300);
    let mut rig = Rig::with(
        &[("10-a.js", &format!("export const match = {{ devices: ['d*'] }}; {script}")), ("20-other.js", other)],
        |config| config.limits.breaker_open = open,
    );
    for _ in 0..3 {
        assert_eq!(parked(&rig.one(r#"{"bad":1}"#)).0, ParkReason::Threw);
    }
    assert_eq!(rig.health("10-a.js").status, ScriptStatus::Open);
    let calls = rig.health("10-a.js").calls;
    let outcome = rig.one("{}");
    assert_eq!(parked(&outcome).0, ParkReason::BreakerOpen);
    assert!(parked(&outcome).1.contains("10-a.js"));
    assert_eq!(kept(&rig.one_of("other", "{}")), json!({"other": 1}), "the neighbour's breaker is closed");
    assert_eq!(rig.health("10-a.js").calls, calls, "no call while it is open");
    rig.wait("half-open", |pool| pool.scripts()[0].status == ScriptStatus::HalfOpen);
    // One probe fails: open again. The readings behind it in the run are refused, in order.
    let run = rig.run("d1", &[r#"{"bad":1}"#, "{}", "{}"]);
    rig.submit(vec![run]);
    let reasons: Vec<_> = rig.outcomes(3).iter().map(|outcome| parked(outcome).0).collect();
    assert_eq!(reasons, [ParkReason::Threw, ParkReason::BreakerOpen, ParkReason::BreakerOpen]);
    rig.wait("half-open", |pool| pool.scripts()[0].status == ScriptStatus::HalfOpen);
    assert_eq!(kept(&rig.one("{}")), json!({"ok": 1}), "the probe is well");
    assert_eq!(rig.health("10-a.js").status, ScriptStatus::Closed);
    let run = rig.run("d1", &["{}", "{}"]);
    rig.submit(vec![run]);
    assert!(rig.outcomes(2).iter().all(|outcome| matches!(outcome.verdict, Verdict::Keep(_))));
    let health = rig.health("10-a.js");
    assert_eq!((health.errors, health.parked), (4, 7));
}

#[test]
fn the_breaker_ends_a_row_of_killings() {
    let mut rig = Rig::new(&[("a.js", "export function onMetric() { /^(a+)+$/.test('a'.repeat(60) + 'b'); }")]);
    let run = rig.run("d1", &["{}"; 20]);
    rig.submit(vec![run]);
    let reasons: Vec<_> = rig.outcomes(20).iter().map(|outcome| parked(outcome).0).collect();
    assert_eq!(reasons[..3], [ParkReason::Deadline; 3]);
    assert_eq!(reasons[3..], [ParkReason::BreakerOpen; 17]);
}

#[test]
fn a_hung_worker_holds_up_nobody_elses_readings() {
    let script = "export function onMetric(m) { if (m.bad) /^(a+)+$/.test('a'.repeat(60) + 'b'); return { ok: 1 }; }";
    let mut rig = Rig::with(&[("a.js", script)], |config| {
        config.workers = 2;
        config.limits.call_wall = Duration::from_secs(3);
    });
    rig.wait("both workers are up", |pool| pool.workers().iter().all(|worker| worker.pid != 0));
    let bad = rig.run("bad", &[r#"{"bad":1}"#]);
    rig.submit(vec![bad]);
    rig.wait("one is busy", |pool| pool.workers().iter().any(|worker| worker.busy));
    for _ in 0..20 {
        let outcome = rig.one_of("good", "{}");
        assert_eq!(outcome.device.as_str(), "good", "before the hung one is through");
        assert_eq!(kept(&outcome), json!({"ok": 1}));
    }
    assert_eq!(parked(&rig.outcome()).0, ParkReason::Deadline);
}

#[test]
fn garbage_is_collected_and_a_worker_that_keeps_too_much_retires() {
    let script = r#"
        const kept = [];
        const big = () => { let s = "x".repeat(1024) + kept.length; while (s.length < 1e6) s += s; return s; };
        export function onMetric(m) {
          if (m.garbage) for (let i = 0; i < 4; i++) { const o = { big: big() }; o.self = o; }
          if (m.keep) kept.push(big());
          return { kept: kept.length };
        }"#;
    let mut rig = Rig::with(&[("a.js", script)], |config| config.limits.call_wall = LONG);
    for _ in 0..100 {
        kept(&rig.one(r#"{"garbage":1.5}"#));
    }
    assert_eq!(rig.pool.workers()[0].restarts, 0, "garbage alone never costs a worker");
    for _ in 0..150 {
        kept(&rig.one(r#"{"keep":"x"}"#));
    }
    assert!(rig.pool.workers()[0].restarts >= 1, "what is kept does");
    assert_eq!(rig.health("a.js").parked, 0, "but no reading");
}

#[test]
fn stopping_ends_the_workers_and_refuses_runs() {
    let mut rig = Rig::with(&[("a.js", "export function onMetric(m) { return m; }")], |config| config.workers = 2);
    rig.wait("both workers are up", |pool| pool.workers().iter().all(|worker| worker.pid != 0));
    let pids: Vec<u32> = rig.pool.workers().iter().map(|worker| worker.pid).collect();
    rig.one("{}");
    rig.pool.stop();
    assert!(pids.iter().all(|pid| !exists(*pid)), "no worker is left");
    let run = rig.run("d1", &["{}"]);
    assert!(rig.pool.try_submit(vec![run]).is_err());
}

#[test]
fn stopping_does_not_wait_for_a_long_batch() {
    let script = "export function onMetric(m) { for (let i = 0; i < 100000; i++); return m; }";
    let mut rig = Rig::with(&[("a.js", script)], |config| config.limits.call_wall = LONG);
    let run = rig.run("d1", &["{}"; 4_000]);
    rig.submit(vec![run]);
    rig.outcome();
    let stopping = Instant::now();
    rig.pool.stop();
    assert!(stopping.elapsed() < LONG, "{:?}", stopping.elapsed());
}

#[test]
fn a_full_queue_gives_runs_back_in_order() {
    let script = "export function onMetric(m) { let x = 0; for (let i = 0; i < 900000; i++) x += i; return m; }";
    let mut rig = Rig::with(&[("a.js", script)], |config| config.limits.queue = 4);
    let runs: Vec<_> = (0..40).map(|device| rig.run(&format!("d{device}"), &["{}"])).collect();
    let back = rig.pool.try_submit(runs).expect_err("more than the queue holds");
    let positions: Vec<u64> = back.iter().map(|run| run.calls[0].position.0).collect();
    assert!(positions.len() <= 36 && positions.is_sorted(), "{positions:?}");
    let taken = 40 - back.len();
    rig.outcomes(taken);
    rig.assert_quiet();
}
