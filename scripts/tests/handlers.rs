//! What handlers can do: the metric, the context, the chain, the routes.

mod common;

use bytes::Bytes;
use common::{Rig, kept, parked, run_of};
use serde_json::json;
use tidegate_actors::{
    ids::DeviceId,
    reading::Channel,
    script::{ParkReason, Route, ScriptEngine, ScriptStatus, Verdict},
};

#[test]
fn a_handler_returns_the_state_and_a_throw_parks() {
    let mut rig = Rig::new(&[(
        "10-a.js",
        "export function onMetric(m) {\n  if (m.bad) {\n    throw new TypeError('too ' + m.bad);\n  }\n  return { t: m.t * 2, id: m.deviceId, at: m.ts };\n}",
    )]);
    let outcome = rig.one(r#"{"t":21}"#);
    assert_eq!(kept(&outcome), json!({"t": 42, "id": "d1", "at": 1_000_001}));
    let outcome = rig.one(r#"{"bad":"hot"}"#);
    assert_eq!(parked(&outcome), (ParkReason::Threw, "TypeError: too hot (10-a.js:3:11)"));
    assert_eq!(kept(&rig.one(r#"{"t":1}"#))["t"], 2);
    let health = rig.health("10-a.js");
    assert_eq!((health.calls, health.errors, health.parked), (3, 1, 1));
    assert_eq!(health.last_error.map(|error| (error.line, error.column)), Some((Some(3), Some(11))));
    assert!(health.p50_us > 0.0 && health.p99_us >= health.p50_us);
}

#[test]
fn what_a_return_value_means() {
    let mut rig = Rig::new(&[(
        "a.js",
        r#"
        const results = {
          undefined: () => undefined, null: () => null, number: () => 7, text: () => "x", array: () => [1], fn: () => () => 1,
          object: () => ({ a: 1, u: undefined, f() {}, n: NaN, i: Infinity, z: -0, list: [undefined, () => 1, NaN] }),
          date: () => new Date(5), inside: () => ({ d: new Date(5), m: new Map([[1, 2]]), s: new String("s") }),
          tojson: () => ({ toJSON() { return { deviceId: "x", ts: 1, via: "toJSON" }; } }),
          getter: () => ({ get a() { return 1; }, deviceId: 2 }), proxy: () => new Proxy({ a: 1 }, {}),
          index: () => ({ b: 1, 10: "ten", 2: "two" }), hidden: () => Object.defineProperty({ a: 1 }, "b", { value: 2 }),
          proto: () => Object.create({ inherited: 1 }, { own: { value: 1, enumerable: true } }), bare: () => Object.assign(Object.create(null), { a: 1 }),
          bigint: () => ({ a: 1n }), cyclic: () => { const a = {}; a.a = a; return a; }, symbol: () => ({ [Symbol("s")]: 1, a: 1 }),
          throwing: () => ({ get a() { throw new RangeError("in a getter"); } }), lone: () => ({ a: "\ud800x", b: "\u{1f600}é\n\"" }),
          loneEngine: () => ({ get a() { return "\\\ud800x\\ud800"; } }), metric: (m) => m, holes: () => ({ a: [1, , 3] }),
          nested: () => ({ deviceId: "x", inner: { deviceId: "kept", ts: 5 } }), cls: () => new (class { a = 1; })(), huge: () => { const a = "x".repeat(65536); return { a: Array.from({ length: 20 }, () => a) }; },
        };
        export function onMetric(metric, ctx) { return results[metric.want](metric); }
        "#,
    )]);
    let mut want = |what: &str| rig.one(&json!({ "want": what }).to_string());
    assert_eq!(want("undefined").verdict, Verdict::Unchanged);
    assert_eq!(want("null").verdict, Verdict::Dropped { script: "a.js".into() });
    for bad in ["number", "text", "array", "fn", "date"] {
        let outcome = want(bad);
        assert_eq!(parked(&outcome).0, ParkReason::BadResult, "{bad}: {outcome:?}");
        want("undefined");
    }
    for (what, expected) in [
        ("object", json!({"a": 1, "n": null, "i": null, "z": 0, "list": [null, null, null]})),
        ("inside", json!({"d": "1970-01-01T00:00:00.005Z", "m": {}, "s": "s"})),
        ("tojson", json!({"via": "toJSON"})),
        ("getter", json!({"a": 1})),
        ("proxy", json!({"a": 1})),
        ("index", json!({"2": "two", "10": "ten", "b": 1})),
        ("hidden", json!({"a": 1})),
        ("proto", json!({"own": 1})),
        ("bare", json!({"a": 1})),
        ("symbol", json!({"a": 1})),
        ("lone", json!({"a": "\u{fffd}x", "b": "\u{1f600}é\n\""})),
        ("loneEngine", json!({"a": "\\\u{fffd}x\\ud800"})),
        ("metric", json!({"want": "metric"})),
        ("holes", json!({"a": [1, null, 3]})),
        ("nested", json!({"inner": {"deviceId": "kept", "ts": 5}})),
        ("cls", json!({"a": 1})),
    ] {
        assert_eq!(kept(&want(what)), expected, "{what}");
    }
    for (bad, words) in [("bigint", "BigInt"), ("cyclic", "cyclic"), ("huge", "script_value_bytes")] {
        let outcome = want(bad);
        let (reason, message) = parked(&outcome);
        assert!(reason == ParkReason::BadResult && message.contains(words), "{bad}: {message}");
        want("metric");
    }
    let outcome = want("throwing");
    let (reason, message) = parked(&outcome);
    assert!(reason == ParkReason::Threw && message.contains("RangeError: in a getter"), "{message}");
}

#[test]
fn a_mutation_without_a_return_is_not_kept() {
    let mut rig = Rig::new(&[("a.js", "export function onMetric(m) { m.t = 99; delete m.x; }")]);
    assert_eq!(rig.one(r#"{"t":1,"x":2}"#).verdict, Verdict::Unchanged);
}

#[test]
fn state_and_previous_go_through_a_run_and_late_readings_do_not_become_previous() {
    let script = r#"
        export function onMetric(m, ctx) {
          ctx.state.n = (ctx.state.n ?? 0) + 1;
          if (m.bad) throw new Error("no");
          if (m.drop) return null;
          return { v: m.v, n: ctx.state.n, before: ctx.previous?.v ?? null };
        }"#;
    let mut rig = Rig::new(&[("10-count.js", script)]);
    let mut run =
        rig.run("d1", &[r#"{"v":1}"#, r#"{"bad":1}"#, r#"{"v":2}"#, r#"{"drop":1}"#, r#"{"v":3}"#, r#"{"v":4}"#]);
    run.previous = Some((Bytes::from_static(b"{\"v\":0}"), 10));
    run.script_state = vec![("10-count.js".into(), Bytes::from_static(b"{\"n\":100}"))];
    // The fifth is late: kept by its own outcome, but not the state before the sixth.
    run.calls[4].reading.device_time = Some(5);
    rig.submit(vec![run]);
    let outcomes = rig.outcomes(6);
    let positions: Vec<_> = outcomes.iter().map(|outcome| outcome.position.0).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
    assert_eq!(kept(&outcomes[0]), json!({"v": 1, "n": 101, "before": 0}));
    assert_eq!(parked(&outcomes[1]).0, ParkReason::Threw);
    assert!(outcomes[1].script_state.is_empty(), "a parked reading changes no state");
    assert_eq!(kept(&outcomes[2]), json!({"v": 2, "n": 102, "before": 1}));
    assert_eq!(outcomes[3].verdict, Verdict::Dropped { script: "10-count.js".into() });
    assert_eq!(&*outcomes[3].script_state[0].1, b"{\"n\":103}", "a dropped reading changes the state");
    assert_eq!(kept(&outcomes[4]), json!({"v": 3, "n": 104, "before": 2}));
    assert_eq!(kept(&outcomes[5]), json!({"v": 4, "n": 105, "before": 2}));
    assert_eq!(&*outcomes[5].script_state[0].0, "10-count.js");
}

#[test]
fn an_unchanged_state_is_not_written_back() {
    let script =
        "export function onMetric(m, ctx) { if (m.set) ctx.state = { v: m.set }; return { v: ctx.state.v ?? null }; }";
    let mut rig = Rig::new(&[("a.js", script)]);
    let run = rig.run("d1", &["{}", r#"{"set":1}"#, "{}", r#"{"set":1}"#]);
    rig.submit(vec![run]);
    let outcomes = rig.outcomes(4);
    let changed: Vec<_> = outcomes.iter().map(|outcome| outcome.script_state.len()).collect();
    assert_eq!(changed, [0, 1, 0, 0]);
    assert_eq!(kept(&outcomes[2]), json!({"v": 1}));
}

#[test]
fn the_context_gives_what_it_promises_and_is_deterministic() {
    let script = r#"
        export function onMetric(m, ctx) {
          ctx.emit("alarm", { level: 3, at: new Date().toISOString() });
          ctx.emit("bare");
          return { now: ctx.now, clock: Date.now(), id: ctx.deviceId, topic: ctx.topic, previous: ctx.previous,
                   random: Math.random(), more: Math.random(), frozen: Object.isFrozen(ctx), zone: new Date().getTimezoneOffset() };
        }"#;
    let mut rig = Rig::new(&[("a.js", script)]);
    let run = rig.run("d1", &["{}"]);
    rig.submit(vec![run.clone(), run]);
    let outcomes = rig.outcomes(2);
    let first = kept(&outcomes[0]);
    assert_eq!(first, kept(&outcomes[1]), "the same call gives the same result");
    assert_eq!((&first["now"], &first["clock"]), (&json!(1_000_001), &json!(1_000_001)));
    assert_eq!((&first["id"], &first["topic"]), (&json!("d1"), &json!("devices/d1/metrics")));
    assert_eq!((&first["previous"], &first["frozen"], &first["zone"]), (&json!(null), &json!(true), &json!(0)));
    assert_ne!(first["random"], first["more"]);
    let other = kept(&rig.one("{}"));
    assert_ne!(other["random"], first["random"], "another position, another seed");
    let emits: Vec<_> = outcomes[0].emits.iter().map(|(name, json)| (&**name, &**json)).collect();
    assert_eq!(emits, [("alarm", &br#"{"level":3,"at":"1970-01-01T00:16:40.001Z"}"#[..]), ("bare", b"null")]);
}

#[test]
fn emits_are_bounded_and_a_failed_call_emits_nothing() {
    let script = r#"
        export function onMetric(m, ctx) {
          for (let i = 0; i < m.n; i++) { try { ctx.emit("e", i); } catch {} }
          if (m.name !== undefined) ctx.emit(m.name);
          if (m.bad) throw 1;
        }"#;
    let mut rig = Rig::new(&[("a.js", script)]);
    assert_eq!(rig.one(r#"{"n":100}"#).emits.len(), 100);
    let outcome = rig.one(r#"{"n":101}"#);
    assert!(parked(&outcome).1.contains("limit script_emits") && outcome.emits.is_empty(), "{outcome:?}");
    assert_eq!(rig.one(r#"{"n":1}"#).emits.len(), 1);
    let outcome = rig.one(r#"{"n":1,"bad":true}"#);
    assert_eq!((parked(&outcome).1, outcome.emits.len()), ("1 (a.js)", 0));
    assert!(parked(&rig.one(r#"{"n":0,"name":""}"#)).1.contains("ctx.emit"));
}

#[test]
fn commands_have_the_ids_of_their_reading_and_are_bounded() {
    let script = r#"
        export function onMetric(m, ctx) {
          const ids = [];
          for (let i = 0; i < (m.n ?? 0); i++) { try { ids.push(ctx.command("valve-" + i, "open", { i })); } catch {} }
          if (m.device !== undefined) ctx.command(m.device, m.name ?? "n", m.large ? "x".repeat(70000) : undefined);
          if (m.bad) throw 1;
          return { ids };
        }"#;
    let mut rig = Rig::new(&[("a.js", script)]);
    let run = rig.run("d1", &[r#"{"n":2}"#]);
    let position = run.calls[0].position;
    rig.submit(vec![run.clone(), run]);
    let outcomes = rig.outcomes(2);
    assert_eq!(outcomes[0], outcomes[1], "the same call wants the same commands");
    let commands: Vec<_> = outcomes[0].commands.iter().map(|c| (&*c.device, &*c.name, &*c.params)).collect();
    assert_eq!(commands, [("valve-0", "open", &br#"{"i":0}"#[..]), ("valve-1", "open", br#"{"i":1}"#)]);
    let ids = [0, 1].map(|index| tidegate_actors::script::command_id(position, index));
    assert_eq!(kept(&outcomes[0])["ids"], json!(ids));

    let outcome = rig.one(r#"{"device":"d2"}"#);
    assert_eq!(&*outcome.commands[0].params, b"{}");
    assert_eq!(rig.one(r#"{"n":20}"#).commands.len(), 20);
    for (reading, words) in [
        (r#"{"n":21}"#, "limit script_commands"),
        (r#"{"device":"d1","large":true}"#, "limit command_params_bytes"),
        (r#"{"device":"a/b"}"#, "ctx.command: a device id may not contain '/'"),
        (r#"{"device":7}"#, "ctx.command: the device id must be a string"),
        (r#"{"device":"d1","name":""}"#, "ctx.command: the name"),
        (r#"{"n":1,"bad":true}"#, "1 (a.js)"),
    ] {
        let outcome = rig.one(reading);
        assert!(parked(&outcome).1.contains(words) && outcome.commands.is_empty(), "{reading}: {outcome:?}");
        // Three failures in a row would open the breaker.
        rig.one("{}");
    }
}

#[test]
fn handlers_are_chained_in_name_order() {
    let mut rig = Rig::new(&[
        (
            "20-b.js",
            "export function onMetric(m) { if (m.dropB) return null; return { ...m, trail: m.trail + 'b', id: m.deviceId, has: 'ts' in m }; }",
        ),
        (
            "10-a.js",
            "export function onMetric(m) { if (m.dropA) return null; return { dropB: m.dropB, bad: m.bad, trail: 'a' }; }",
        ),
        (
            "30-c.mjs",
            "export function onMetric(m, ctx) { ctx.state.c = 1; if (m.bad) throw new Error('c'); m.trail = 'lost'; }",
        ),
    ]);
    let outcome = rig.one("{}");
    assert_eq!(kept(&outcome), json!({"trail": "ab", "id": "d1", "has": true}));
    assert_eq!(outcome.script_state[0], ("30-c.mjs".into(), Bytes::from_static(b"{\"c\":1}")));
    assert_eq!(rig.one(r#"{"dropA":1}"#).verdict, Verdict::Dropped { script: "10-a.js".into() });
    assert_eq!(rig.one(r#"{"dropB":1}"#).verdict, Verdict::Dropped { script: "20-b.js".into() });
    let outcome = rig.one(r#"{"bad":1}"#);
    assert!(matches!(&outcome.verdict, Verdict::Parked { script, .. } if &**script == "30-c.mjs"));
    assert_eq!(rig.health("10-a.js").calls, 4);
    assert_eq!(rig.health("30-c.mjs").calls, 2);
}

#[test]
fn handlers_may_be_async() {
    let script = r#"
        const wait = (n) => n === 0 ? Promise.resolve("done") : Promise.resolve().then(() => wait(n - 1));
        export async function onMetric(m, ctx) {
          const text = await wait(20);
          ctx.state.n = (ctx.state.n ?? 0) + 1;
          if (m.bad) { await null; throw new Error("late"); }
          if (m.thenable) return { then(resolve) { resolve({ t: 1 }); } };
          if (m.thrower) return Promise.all([1, Promise.reject(new TypeError("one of all"))]);
          return { text, n: ctx.state.n };
        }"#;
    let mut rig = Rig::new(&[("a.js", script)]);
    let run = rig.run("d1", &["{}", r#"{"bad":1}"#, "{}", r#"{"thenable":1}"#, r#"{"thrower":1}"#]);
    rig.submit(vec![run]);
    let outcomes = rig.outcomes(5);
    assert_eq!(kept(&outcomes[0]), json!({"text": "done", "n": 1}));
    assert_eq!(parked(&outcomes[1]), (ParkReason::Threw, "Error: late (a.js:6:42)"));
    assert_eq!(kept(&outcomes[2]), json!({"text": "done", "n": 2}));
    assert_eq!(kept(&outcomes[3]), json!({"t": 1}));
    assert!(parked(&outcomes[4]).1.contains("TypeError: one of all"));
}

#[test]
fn matches_make_routes() {
    let handler = "export function onMetric() {}";
    let rig = Rig::new(&[
        ("10-all.js", handler),
        ("20-pumps.js", &format!("export const match = {{ devices: ['pump-*', 'p?'] }}; {handler}")),
        ("30-topic.js", &format!("export const match = {{ topics: ['v1/#'] }}; {handler}")),
        ("40-none.js", &format!("export const match = {{ devices: [] }}; {handler}")),
        ("50-bad.js", &format!("export const match = {{ topics: ['a/#/b'] }}; {handler}")),
        ("60.test.js", "throw 1"),
    ]);
    let route = |device: &str, channel| rig.pool.route(&DeviceId::new(device).expect("an id"), channel);
    assert_eq!(route("pump-1", Channel::Metrics), Route(0b011));
    assert_eq!(route("p7", Channel::Telemetry), Route(0b111));
    assert_eq!(route("meter", Channel::Metrics), Route(0b001));
    assert_eq!(rig.pool.generation(), 1);
    let statuses: Vec<_> = rig.pool.scripts().into_iter().map(|script| script.status).collect();
    assert_eq!(statuses, [ScriptStatus::Closed; 4].into_iter().chain([ScriptStatus::Broken]).collect::<Vec<_>>());
}

#[test]
fn broken_scripts_do_not_keep_the_good_ones_from_running() {
    let handler = "export function onMetric(m) { return { good: true }; }";
    let mut rig = Rig::new(&[
        ("10-syntax.js", "export function onMetric(m) {\n  return { a: ;\n}"),
        ("20-throws.js", "export function onMetric(m) {}\nnull.x;"),
        ("30-nothing.js", "export const x = 1;"),
        ("40-loop.js", "export function onMetric(m) {}\nwhile (true) {}"),
        ("50-deep.js", &format!("const x = {}1{};", "(".repeat(10_000), ")".repeat(10_000))),
        (
            "60-hang.js",
            "export function onMetric(m) {}\n'x'.repeat(40).match(/^(x+)+$/); /^(a+)+$/.test('a'.repeat(60) + 'b');",
        ),
        (
            "65-bomb.js",
            "export function onMetric(m) {}\nconst all = []; for (;;) all.push('x'.repeat(2 ** 24) + all.length);",
        ),
        ("70-await.js", "export function onMetric(m) {}\nawait new Promise(() => {});"),
        ("80-import.js", "import { x } from './lib/none.js';\nexport function onMetric(m) {}"),
        ("85-outside.js", "import x from '../../etc/passwd';\nexport function onMetric(m) {}"),
        ("90-good.js", handler),
    ]);
    assert_eq!(kept(&rig.one("{}")), json!({"good": true}));
    for (name, words, line) in [
        ("10-syntax.js", "unexpected token ';'", Some(2)),
        ("20-throws.js", "TypeError", Some(2)),
        ("30-nothing.js", "exports no function onMetric", None),
        ("40-loop.js", "a loop went round more than", None),
        ("50-deep.js", "limit script_nesting", Some(1)),
        ("60-hang.js", "does not finish loading", None),
        ("65-bomb.js", "out of memory", None),
        ("70-await.js", "does not finish loading", None),
        ("80-import.js", "Cannot find module '/handlers/lib/none.js' imported from /handlers/80-import.js", Some(1)),
        ("85-outside.js", "outside of the handlers' directory", None),
    ] {
        let health = rig.health(name);
        assert_eq!(health.status, ScriptStatus::Broken, "{name}");
        let error = health.last_error.expect("an error");
        assert!(error.message.contains(words), "{name}: {error:?}");
        assert!(line.is_none() || error.line == line, "{name}: {error:?}");
    }
    assert_eq!(rig.health("90-good.js").status, ScriptStatus::Closed);
}

#[test]
fn without_handlers_there_is_no_work_and_no_process() {
    let rig = Rig::new(&[]);
    assert_eq!(rig.pool.route(&DeviceId::new("d1").expect("an id"), Channel::Metrics), Route::NONE);
    assert!(rig.pool.workers().is_empty() && rig.pool.scripts().is_empty());
}

#[test]
fn handlers_import_files_and_tables() {
    let mut rig = Rig::new(&[
        (
            "a.js",
            "import { twice } from './lib/math.js'; import table from './table.json' with { type: 'json' };\nexport function onMetric(m) { return { t: twice(m.t), unit: table.units[0], lazy: null }; }",
        ),
        ("lib/math.js", "import { one } from './one.mjs'; export const twice = (x) => 2 * x * one;"),
        ("lib/one.mjs", "export const one = 1;"),
        ("table.json", r#"{"units":["°C"]}"#),
    ]);
    assert_eq!(kept(&rig.one(r#"{"t":4}"#)), json!({"t": 8, "unit": "°C", "lazy": null}));
}

#[test]
fn the_realm_has_no_way_out_and_a_native_json_parse() {
    let script = r#"
        const tried = (f) => { try { return f() ?? "undefined"; } catch (e) { return e.name; } };
        export function onMetric(m) {
          return {
            eval: tried(() => eval("1")), Function: tried(() => new Function("return 1")()),
            globals: ["Atomics", "SharedArrayBuffer", "WeakRef", "FinalizationRegistry", "require", "XMLHttpRequest"].filter((n) => n in globalThis),
            parse: JSON.parse('{"a":[1,{"b":"ü"}]}'), revived: JSON.parse('{"a":1,"b":[2,3],"c":4}', (k, v) => typeof v === "number" ? (v === 4 ? undefined : v * 2) : v),
            bad: tried(() => JSON.parse("{bad")), deep: tried(() => JSON.parse("[".repeat(1000) + "]".repeat(1000))), coerced: JSON.parse(7),
            ctor: tried(() => (() => {}).constructor("return 1")()),
          };
        }"#;
    let mut rig = Rig::new(&[("a.js", script)]);
    let result = kept(&rig.one("{}"));
    assert_eq!(
        result,
        json!({"eval": "EvalError", "Function": "EvalError", "globals": [], "parse": {"a": [1, {"b": "ü"}]},
               "revived": {"a": 2, "b": [4, 6]}, "bad": "SyntaxError", "deep": "SyntaxError", "coerced": 7, "ctor": "EvalError"})
    );
}

#[test]
fn a_run_longer_than_a_batch_and_many_devices_keep_their_order() {
    let script = "export function onMetric(m, ctx) { ctx.state.n = (ctx.state.n ?? 0) + 1; return { n: ctx.state.n, i: m.i, before: ctx.previous?.i ?? -1 }; }";
    let mut rig = Rig::with(&[("a.js", script)], |config| config.workers = 2);
    let texts: Vec<String> = (0..1_000).map(|i| json!({ "i": i }).to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let runs: Vec<_> =
        (0..20).map(|device| rig.run(&format!("d{device}"), &texts[..if device == 0 { 1_000 } else { 50 }])).collect();
    rig.submit(runs);
    let mut next = std::collections::HashMap::new();
    for outcome in rig.outcomes(1_000 + 19 * 50) {
        let next = next.entry(outcome.device.clone()).or_insert(0);
        assert_eq!(kept(&outcome), json!({"n": *next + 1, "i": *next, "before": *next - 1}));
        *next += 1;
    }
    rig.assert_quiet();
}

#[test]
fn a_reading_that_is_not_for_javascript_is_parked_with_words() {
    let mut rig = Rig::new(&[("a.js", "export function onMetric(m) { return m; }")]);
    for (bad, words) in [
        (r#"{"a":1e400}"#, "number out of range"),
        (r#"{"a":"\ud800"}"#, "hex escape"),
        ("[1]", "object"),
        (&format!("{{\"a\":{}{}}}", "[".repeat(70), "]".repeat(70)), "limit json_depth"),
    ] {
        let outcome = rig.one(bad);
        assert!(parked(&outcome).1.contains(words), "{bad}: {outcome:?}");
        rig.one("{}");
    }
    let call = rig.reading("d1", r#"{"a":9007199254740993,"b":-0,"c":1e21,"d":0.1,"e":123456789012345680000}"#);
    rig.submit(vec![run_of(vec![call])]);
    assert_eq!(
        kept(&rig.outcome()),
        json!({"a": 9_007_199_254_740_992_i64, "b": 0, "c": 1e21, "d": 0.1, "e": 123_456_789_012_345_680_000_f64})
    );
}

#[test]
fn the_demos_handler_enriches_every_kind_of_device() {
    let mut rig = Rig::new(&[("10-enrich.js", include_str!("../../node/demo/handlers/10-enrich.js"))]);
    let thermostat = rig.one_of(
        "thermostat-00001",
        r#"{"temperature":18.2,"setpoint":21.5,"humidity":44.0,"heating":true,"battery":9.5}"#,
    );
    let state = kept(&thermostat);
    assert_eq!(
        (&state["comfort"], &state["lowBattery"], &state["temperature"]),
        (&json!("cold"), &json!(true), &json!(18.2))
    );

    let meter = |energy: f64| {
        json!({"power": 1150.0, "energy": energy, "voltage": 230.0, "current": 5.0, "frequency": 50.0}).to_string()
    };
    let mut run = rig.run("meter-00001", &[&meter(100.0), &meter(100.5)]);
    run.calls[0].reading.device_time = Some(0);
    run.calls[1].reading.device_time = Some(1_800_000);
    rig.submit(vec![run]);
    let states: Vec<_> = rig.outcomes(2).iter().map(kept).collect();
    assert_eq!((&states[0]["powerFactor"], &states[0]["meanPower"]), (&json!(1), &json!(null)));
    assert_eq!(states[1]["meanPower"], 1_000);

    let pump = |vibration: f64| {
        json!({"rpm": 2900, "flow": 36.0, "pressure": 2.0, "vibration": vibration, "bearingTemperature": 50.0, "status": "running"}).to_string()
    };
    let readings: Vec<String> = [1.0, 4.7, 4.2, 3.9, 1.0].map(pump).into();
    let readings: Vec<&str> = readings.iter().map(String::as_str).collect();
    let run = rig.run("pump-00001", &readings);
    rig.submit(vec![run]);
    let outcomes = rig.outcomes(5);
    let alarms: Vec<_> = outcomes.iter().map(|outcome| kept(outcome)["alarm"] == true).collect();
    assert_eq!(alarms, [false, true, true, false, false]);
    let events: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.emits).map(|(name, _)| &**name).collect();
    assert_eq!(events, ["vibration-alarm", "vibration-calm"]);
    assert_eq!(kept(&outcomes[0])["hydraulicPower"], 2);
}
