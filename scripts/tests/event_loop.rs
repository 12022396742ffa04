//! Handlers that wait: what goes on meanwhile, what they see after it, and what ends those that wait too long.

mod common;

use std::time::{Duration, Instant};

use common::{Rig, kept, parked, run_of};
use serde_json::json;
use tidegate_actors::{
    limits,
    script::{ParkReason, ScriptEngine, ScriptOutcome, Verdict},
};

const PAUSE: &str = "const pause = (ms, value) => new Promise((resolve) => setTimeout(resolve, ms, value));\n";

fn handler(body: &str) -> String {
    format!("{PAUSE}export async function onMetric(m, ctx) {{\n{body}\n}}")
}

fn devices(outcomes: &[ScriptOutcome]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome.device.as_str()).collect()
}

#[test]
fn others_go_on_while_one_waits_and_its_own_readings_keep_their_order() {
    let script = handler(
        "ctx.state.n = (ctx.state.n ?? 0) + 1; if (m.wait) await pause(m.wait); return { n: ctx.state.n, before: ctx.previous?.n ?? 0 };",
    );
    let mut rig = Rig::new(&[("a.js", &script)]);
    let begun = Instant::now();
    let slow = rig.run("slow", &[r#"{"wait":400}"#, "{}", r#"{"wait":50}"#, "{}"]);
    let beside = rig.run("beside", &["{}", "{}"]);
    rig.submit(vec![slow, beside]);
    assert_eq!(devices(&rig.outcomes(2)), ["beside", "beside"]);
    // In further batches, too.
    for round in 0..20 {
        let outcome = rig.one_of(&format!("other-{round}"), "{}");
        assert_eq!(kept(&outcome), json!({"n": 1, "before": 0}));
    }
    let meanwhile = begun.elapsed();
    let outcomes = rig.outcomes(4);
    assert!(meanwhile < Duration::from_millis(400), "the others waited: {meanwhile:?}");
    assert!(begun.elapsed() >= Duration::from_millis(450), "it did not wait: {:?}", begun.elapsed());
    assert_eq!(devices(&outcomes), ["slow"; 4]);
    for (n, outcome) in (1..).zip(&outcomes) {
        assert_eq!(kept(outcome), json!({"n": n, "before": n - 1}));
    }
    rig.assert_quiet();
}

#[test]
fn a_call_that_waits_keeps_its_own_context_clock_and_randomness() {
    let script = handler(
        r#"
        const first = [Date.now(), performance.now(), Math.random(), ctx.deviceId, ctx.topic, ctx.now];
        ctx.state.mine = ctx.deviceId;
        for (let i = 0; i < 3; i++) { await pause(m.ms); ctx.emit("round", { i, of: ctx.deviceId }); }
        await null;
        const id = ctx.command(ctx.deviceId, "go", { at: Date.now() });
        return { first, then: [Date.now(), performance.now(), Math.random(), ctx.deviceId, ctx.topic, ctx.now], state: ctx.state.mine,
          before: ctx.previous, id, uuid: crypto.randomUUID() };
        "#,
    );
    let all = |times: usize| {
        let mut rig = Rig::new(&[("a.js", &script)]);
        let runs: Vec<_> = (0..times)
            .map(|number| {
                let mut run = rig.run(&format!("d{number}"), &[&json!({"ms": 10 + number % 7}).to_string()]);
                run.previous = Some((format!("{{\"was\":{number}}}").into(), 1));
                run
            })
            .collect();
        rig.submit(runs);
        let mut outcomes = rig.outcomes(times);
        outcomes.sort_by_key(|outcome| outcome.position);
        outcomes
    };
    let outcomes = all(40);
    for (number, outcome) in outcomes.iter().enumerate() {
        let (state, device) = (kept(outcome), format!("d{number}"));
        let (received, ms) =
            (1_000_001 + i64::try_from(number).expect("small"), 10 + i64::try_from(number).expect("small") % 7);
        let (first, then) = (&state["first"], &state["then"]);
        assert_eq!(
            (&first[0], &first[1], &first[3], &first[5]),
            (&json!(received), &json!(0), &json!(device), &json!(received))
        );
        // The clock has moved by exactly what was waited for.
        assert_eq!((&then[0], &then[1]), (&json!(received + 3 * ms), &json!(3 * ms)), "{state}");
        assert_eq!((&then[3], &then[4], &then[5]), (&first[3], &first[4], &first[5]));
        assert_ne!(then[2], first[2]);
        assert_eq!((&state["state"], &state["before"]["was"]), (&json!(device), &json!(number)));
        assert_eq!((outcome.emits.len(), outcome.commands.len()), (3, 1));
        assert_eq!(&*outcome.emits[2].1, json!({"i": 2, "of": device}).to_string().as_bytes());
        assert_eq!(&*outcome.commands[0].device, device);
    }
    // What was lost in a crash is handled again, beside others than before, and comes to the same.
    assert_eq!(all(3), outcomes[..3]);
}

#[test]
fn several_handlers_wait_one_after_the_other() {
    let add = |name: &str| {
        handler(&format!(
            "await pause(5); if (m.drop === '{name}') return null; return {{ ...m, {name}: Date.now() - ctx.now }};"
        ))
    };
    let mut rig = Rig::new(&[
        ("10-a.js", &add("a")),
        ("20-b.js", "export function onMetric(m) { return { ...m, b: 1 }; }"),
        ("30-c.js", &add("c")),
    ]);
    let run = rig.run("d", &["{}", r#"{"drop":"a"}"#, r#"{"drop":"c"}"#, "{}"]);
    rig.submit(vec![run]);
    let outcomes = rig.outcomes(4);
    assert_eq!(kept(&outcomes[0]), json!({"a": 5, "b": 1, "c": 5}));
    assert_eq!(outcomes[1].verdict, Verdict::Dropped { script: "10-a.js".into() });
    assert_eq!(outcomes[2].verdict, Verdict::Dropped { script: "30-c.js".into() });
    assert_eq!(kept(&outcomes[3])["c"], 5);
}

#[test]
fn without_a_promise_a_call_ends_with_its_last_timer_and_with_one_when_it_settles() {
    let script = "export function onMetric(m, ctx) {
        const out = { list: [] };
        setTimeout(() => { out.list.push('timer'); ctx.emit('late', {}); ctx.state.t = 1; }, 20);
        setImmediate(() => out.list.push('immediate'));
        setTimeout(() => out.list.push('never'), 60).unref();
        if (m.promise) return Promise.resolve(out);
        return out;
    }";
    let mut rig = Rig::new(&[("a.js", script)]);
    let outcome = rig.one("{}");
    assert_eq!(kept(&outcome), json!({"list": ["immediate", "timer"]}));
    assert_eq!((outcome.emits.len(), outcome.script_state.len()), (1, 1));
    let outcome = rig.one(r#"{"promise":1}"#);
    assert_eq!((kept(&outcome), outcome.emits.len()), (json!({"list": []}), 0));
}

/// A reading that fails, and one of another device that waits beside it and must not notice.
fn fails(body: &str, wall: Duration, reason: ParkReason, words: &str) {
    let script = handler(&format!(
        "if (m.bad) {{ {body} }}\n await pause(150); ctx.state.n = (ctx.state.n ?? 0) + 1; return {{ n: ctx.state.n }};"
    ));
    let mut rig = Rig::with(&[("a.js", &script)], |config| {
        config.limits.async_wall = wall;
        if reason == ParkReason::Memory {
            // On a busy machine memory is not used up within half a second.
            config.limits.call_wall = Duration::from_secs(10);
        }
    });
    let runs = vec![rig.run("waits", &["{}", "{}"]), rig.run("bad", &["{}", r#"{"bad":1}"#, "{}"])];
    rig.submit(runs);
    let outcomes = rig.outcomes(5);
    let of = |device: &str| outcomes.iter().filter(|outcome| outcome.device.as_str() == device).collect::<Vec<_>>();
    let (waits, bad) = (of("waits"), of("bad"));
    assert_eq!((kept(waits[0]), kept(waits[1])), (json!({"n": 1}), json!({"n": 2})), "{body}");
    let (found, message) = parked(bad[1]);
    eprintln!("{body}: {found:?} {message}");
    assert!(found == reason && message.contains(words), "{body}: {found:?} {message}");
    assert_eq!((kept(bad[0]), kept(bad[2])), (json!({"n": 1}), json!({"n": 2})), "{body}");
    rig.assert_quiet();
}

#[test]
fn who_waits_too_long_is_parked() {
    use ParkReason::Deadline;
    let second = Duration::from_secs(1);
    fails("await pause(60000);", second, Deadline, "script_async_wall");
    fails("for (;;) await pause(30);", second, Deadline, "script_async_wall");
    fails("await new Promise(() => {});", second, Deadline, "never settles");
    fails("setInterval(() => {}, 10); await new Promise(() => {});", second, Deadline, "scripts.async_wall_ms");
    fails("await new Promise((resolve) => setTimeout(resolve, 5)); for (;;) {}", second, Deadline, "");
}

#[test]
fn who_queues_too_much_is_parked() {
    use ParkReason::{Deadline, Threw};
    let wall = limits::SCRIPT_ASYNC_WALL;
    fails("for (;;) await null;", wall, Deadline, "script_jobs");
    fails("const again = () => process.nextTick(again); again(); await pause(5);", wall, Deadline, "script_jobs");
    fails("const again = () => queueMicrotask(again); again(); await pause(5);", wall, Deadline, "script_jobs");
    fails(
        "const again = () => setImmediate(again); again(); await new Promise(() => {});",
        wall,
        Deadline,
        "script_jobs",
    );
    fails("try { for (;;) setTimeout(() => {}, 5); } catch {} return {};", wall, Threw, "script_timers");
    fails("try { for (;;) setImmediate(() => {}); } catch {} return {};", wall, Threw, "script_timers");
    fails("try { for (;;) process.nextTick(() => {}); } catch {} return {};", wall, Threw, "script_jobs");
}

#[test]
fn what_nobody_catches_parks_the_reading() {
    use ParkReason::Threw;
    let wall = limits::SCRIPT_ASYNC_WALL;
    fails("await pause(5); throw new TypeError('late');", wall, Threw, "TypeError: late (a.js:");
    fails("setTimeout(() => { throw new Error('in a timer'); }, 5); await pause(50);", wall, Threw, "in a timer");
    fails("Promise.reject(new Error('floating')); await pause(50);", wall, Threw, "floating");
    fails("process.nextTick(() => { throw new Error('in a tick'); }); return {};", wall, Threw, "in a tick");
}

#[test]
fn who_kills_the_worker_after_a_wait_is_found_among_those_that_wait() {
    let wall = limits::SCRIPT_ASYNC_WALL;
    fails("await pause(30); /^(a+)+$/.test('a'.repeat(60) + 'b');", wall, ParkReason::Deadline, "script_call_wall");
    fails(
        "await pause(30); let s = 'x'.repeat(65536); s += s; s += s; s += s; s += s; const all = []; for (;;) all.push(s + all.length);",
        wall,
        ParkReason::Memory,
        "script_heap_bytes",
    );
}

#[test]
fn hooks_of_process_hear_what_belongs_to_their_script() {
    let hook = "process.on('uncaughtException', (error, origin) => console.log('heard', error.message, origin));
        process.on('unhandledRejection', (reason) => console.log('rejected', reason));
        export async function onMetric(m) { await null; if (m.timer) setTimeout(() => { throw new Error('x'); }, 5); if (m.floating) Promise.reject('y'); await new Promise((r) => setTimeout(r, 20)); return { ok: true }; }";
    let bare = "export const match = { devices: ['bare-*'] }; export function onMetric(m) { if (m.floating) Promise.reject(new Error('alone')); }";
    let mut rig = Rig::new(&[("10-hook.js", hook), ("20-bare.js", bare)]);
    assert_eq!(kept(&rig.one_of("d", r#"{"timer":1}"#)), json!({"ok": true}));
    assert_eq!(kept(&rig.one_of("d", r#"{"floating":1}"#)), json!({"ok": true}));
    let outcome = rig.one_of("bare-1", r#"{"floating":1}"#);
    assert!(
        matches!(outcome.verdict, Verdict::Keep(_)),
        "the first handler left no floating to the second: {outcome:?}"
    );
    let mut rig = Rig::new(&[
        ("10-hook.js", "process.on('unhandledRejection', () => {}); export function onMetric() {}"),
        ("20-bare.js", bare),
    ]);
    let outcome = rig.one_of("bare-1", r#"{"floating":1}"#);
    assert_eq!(parked(&outcome).0, ParkReason::Threw);
    assert!(parked(&outcome).1.contains("alone"), "{outcome:?}");
}

#[test]
fn many_wait_at_once_and_a_full_worker_takes_no_more() {
    let script = handler("await pause(m.ms); return { ms: m.ms };");
    let mut rig = Rig::with(&[("a.js", &script)], |config| config.limits.queue = 4_096);
    let count = limits::SCRIPT_WAITING + 200;
    let begun = Instant::now();
    let runs: Vec<_> = (0..count).map(|number| rig.run(&format!("d{number}"), &[r#"{"ms":700}"#])).collect();
    rig.submit(runs);
    let outcomes = rig.outcomes(count);
    assert!(outcomes.iter().all(|outcome| matches!(outcome.verdict, Verdict::Keep(_))), "all are kept");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_400), "no more than {} wait at once: {took:?}", limits::SCRIPT_WAITING);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn the_top_of_a_file_may_wait() {
    let script =
        format!("{PAUSE}const ready = await pause(50, 7);\nexport function onMetric() {{ return {{ ready }}; }}");
    let endless = "await new Promise(() => {});\nexport function onMetric() {}";
    let mut rig = Rig::new(&[("10-top.js", &script), ("20-endless.js", endless)]);
    assert_eq!(kept(&rig.one("{}")), json!({"ready": 7}));
    let health = rig.health("20-endless.js");
    assert!(health.last_error.is_some_and(|error| error.message.contains("does not finish loading")));
    assert_eq!(rig.pool.scripts().len(), 2);
    let call = rig.reading("d9", "{}");
    rig.submit(vec![run_of(vec![call])]);
    assert_eq!(kept(&rig.outcome())["ready"], 7);
}

#[test]
fn what_a_failed_call_leaves_is_not_counted_against_the_next() {
    let script = format!(
        "{PAUSE}async function good(m) {{ if (m.wait) await pause(m.wait); for (let i = 0; i < 2000; i++) await null; return {{ ok: 1 }}; }}
         export function onMetric(m) {{ if (!m.bad) return good(m); for (let i = 0; i < 9000; i++) queueMicrotask(() => {{}}); return nothing; }}"
    );
    let mut rig = Rig::with(&[("a.js", &script)], |config| config.limits.breaker_failures = u32::MAX);
    let runs = vec![
        rig.run("waits", &[r#"{"wait":300}"#]),
        rig.run("bad-1", &[r#"{"bad":1}"#]),
        rig.run("good", &["{}"]),
        rig.run("bad-2", &[r#"{"bad":1}"#]),
    ];
    rig.submit(runs);
    for outcome in rig.outcomes(4) {
        if outcome.device.as_str().starts_with("bad") {
            let (reason, message) = parked(&outcome);
            assert!(reason == ParkReason::Threw && message.contains("nothing"), "{message}");
        } else {
            assert_eq!(kept(&outcome), json!({"ok": 1}), "{}", outcome.device.as_str());
        }
    }
}

#[test]
fn who_waits_in_a_context_that_is_lost_begins_anew_and_comes_to_the_same() {
    let script = handler(
        "if (m.bad) { const f = () => f(); f(); }\n const first = Math.random(); ctx.state.n = (ctx.state.n ?? 0) + 1; await pause(300); return { first, n: ctx.state.n, now: Date.now() - ctx.now };",
    );
    let outcome = |bad: usize| {
        let mut rig = Rig::with(&[("a.js", &script)], |config| config.limits.breaker_failures = u32::MAX);
        let mut runs = vec![rig.run("waits", &["{}", "{}"])];
        runs.extend((0..bad).map(|number| rig.run(&format!("bad-{number}"), &[r#"{"bad":1}"#])));
        rig.submit(runs);
        let (waits, bad): (Vec<_>, Vec<_>) =
            rig.outcomes(2 + bad).into_iter().partition(|outcome| outcome.device.as_str() == "waits");
        assert!(bad.iter().all(|outcome| parked(outcome).1.contains("recursive")), "{bad:?}");
        assert_eq!(rig.pool.workers()[0].restarts, 0);
        waits.iter().map(kept).collect::<Vec<_>>()
    };
    let alone = outcome(0);
    assert_eq!((&alone[1]["n"], &alone[1]["now"]), (&json!(2), &json!(300)));
    // So many errors of the engine that its context is dropped under the one that waits.
    assert_eq!(outcome(20), alone);
}

#[test]
fn a_callback_sees_its_own_call_even_if_another_call_settled_its_promise() {
    let script = "let open; const gate = new Promise((resolve) => (open = resolve));
        export async function onMetric(m, ctx) {
          ctx.state.of = ctx.deviceId;
          if (m.opens) { open(); await null; }
          else { setTimeout(() => {}, 5000); await gate; ctx.emit('through', {}); }
          return { of: ctx.deviceId, state: ctx.state.of };
        }";
    let mut rig = Rig::new(&[("a.js", script)]);
    let begun = Instant::now();
    let runs = vec![rig.run("waits", &["{}"]), rig.run("opens", &[r#"{"opens":1}"#])];
    rig.submit(runs);
    for outcome in rig.outcomes(2) {
        let device = outcome.device.as_str();
        assert_eq!(kept(&outcome), json!({"of": device, "state": device}));
        assert_eq!(outcome.emits.len(), usize::from(device == "waits"));
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "it is looked at at once: {:?}", begun.elapsed());
}

#[test]
fn a_worker_whose_readings_wait_sleeps() {
    let mut rig = Rig::new(&[("a.js", &handler("await pause(5); await pause(5); await pause(1000); return {};"))]);
    let runs = (0..50).map(|number| rig.run(&format!("d{number}"), &["{}"])).collect();
    rig.wait("the worker is up", |pool| pool.workers()[0].pid != 0);
    let pid = rig.pool.workers()[0].pid;
    let spent = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the worker's threads");
        let nanos = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).expect("its time");
            text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).expect("a number")
        };
        tasks.flatten().map(nanos).sum()
    };
    rig.submit(runs);
    let before = spent();
    assert!(rig.outcomes(50).iter().all(|outcome| kept(outcome) == json!({})));
    let spent = Duration::from_nanos(spent() - before);
    assert!(spent < Duration::from_millis(400), "{spent:?} of processor time for a second of waiting");
}
