//! A context for each handler, and frozen intrinsics in it: what a handler does to its globals, its modules or its engine is nothing
//! to its neighbours.

mod common;

use common::{Rig, kept, parked};
use serde_json::{Value, json};
use tidegate_actors::script::{ParkReason, ScriptEngine};

/// A reading that costs its handler's context, unless calls wait in it.
const COSTLY: &str = "for (;;) {}";

/// Long enough for what waits while contexts are lost.
fn rig(files: &[(&str, &str)]) -> Rig {
    Rig::with(files, |config| {
        config.limits.breaker_failures = u32::MAX;
        config.limits.call_wall = std::time::Duration::from_secs(10);
    })
}

#[test]
fn what_a_handler_does_to_its_globals_no_other_sees() {
    // CommonJS without "use strict": a write to what is frozen is ignored.
    let vandal = r#"
        Array.prototype.first = 1; Array.prototype.push = null; delete Array.prototype.map; Object.prototype.polluted = 1;
        JSON.parse = null; Math.random = () => 4; Promise.prototype.then = null; Error.captureStackTrace = 1;
        Array = null; JSON = { stringify: () => "{}" }; setTimeout = null; Buffer = null; globalThis.mark = "mine"; Symbol = null;
        Reflect = { apply() { throw 1; } };
        exports.onMetric = (m) => ({ mark, polluted: typeof {}.polluted, first: typeof [].first, map: typeof [].map, array: Array });
        "#;
    let neighbour = r#"
        export function onMetric(m, ctx) {
          return { ...m, mark2: typeof mark, polluted2: typeof {}.polluted, list: [3, 1].map(String).join(), parsed: JSON.parse("[1]")[0], text: JSON.stringify([1]),
                   isArray: [] instanceof Array, random: Math.random() < 1, buffer: typeof Buffer.from, timer: typeof setTimeout, symbol: typeof Symbol.iterator };
        }"#;
    for files in [[("10-a.cjs", vandal), ("20-b.js", neighbour)], [("10-a.js", neighbour), ("20-b.cjs", vandal)]] {
        let mut rig = rig(&files);
        for _ in 0..2 {
            let seen = kept(&rig.one("{}"));
            if files[0].0 == "10-a.cjs" {
                assert_eq!(
                    seen,
                    json!({"mark": "mine", "polluted": "undefined", "first": "undefined", "map": "function", "array": null,
                        "mark2": "undefined", "polluted2": "undefined", "list": "3,1", "parsed": 1, "text": "[1]", "isArray": true, "random": true,
                        "buffer": "function", "timer": "function", "symbol": "symbol"})
                );
            } else {
                assert_eq!(seen["mark"], "mine");
            }
        }
    }
}

#[test]
fn each_handler_has_its_own_instances_of_modules() {
    let (lib, common) = ("let n = 0; export const next = () => ++n;", "let n = 0; exports.next = () => ++n;");
    let handler = r#"
        import { next } from "./lib/count.mjs"; import common from "./lib/count.cjs"; import emitter from "node:events";
        emitter.mark = (emitter.mark ?? 0) + 1;
        export function onMetric(m, ctx) { return { ...m, [m.KEY ?? "first"]: [next(), common.next(), emitter.mark], KEY: "second" }; }"#;
    let mut rig =
        rig(&[("10-a.mjs", handler), ("20-b.mjs", handler), ("lib/count.mjs", lib), ("lib/count.cjs", common)]);
    for n in 1..=3 {
        let seen = kept(&rig.one("{}"));
        assert_eq!((&seen["first"], &seen["second"]), (&json!([n, n, 1]), &json!([n, n, 1])));
    }
}

#[test]
fn an_error_of_the_engine_costs_its_own_handler_only() {
    let costly = format!(
        "const born = [Date.now(), Math.random()]; let n = 0;
         export function onMetric(m) {{ n += 1; if (m.bad) {{ {COSTLY} }} return {{ ...m, n, born }}; }}"
    );
    let neighbour = "let n = 0; export function onMetric(m) { n += 1; return { ...m, neighbour: n }; }";
    let mut rig = rig(&[("10-costly.js", &costly), ("20-b.js", neighbour)]);
    let first = kept(&rig.one("{}"));
    assert_eq!((&first["n"], &first["neighbour"]), (&json!(1), &json!(1)));
    assert_eq!(kept(&rig.one("{}"))["n"], 2);
    assert_eq!(parked(&rig.one(r#"{"bad":1}"#)).0, ParkReason::Deadline);
    let after = kept(&rig.one("{}"));
    assert_eq!((&after["n"], &after["neighbour"]), (&json!(1), &json!(3)), "a new context here, the old one there");
    assert_eq!(after["born"], first["born"], "what a file finds while it loads is the same each time");
    assert_eq!(rig.pool.workers()[0].restarts, 0);
}

#[test]
fn a_neighbours_reading_that_waits_goes_on_undisturbed() {
    let costly = format!("export const match = {{ devices: ['bad'] }}; export function onMetric() {{ {COSTLY} }}");
    let waiting = r#"
        export const match = { devices: ["w"] };
        let n = 0;
        export async function onMetric(m) {
          n += 1;
          const mine = n;
          if (m.wait) await new Promise((done) => setTimeout(done, 2500));
          return { mine, n };
        }"#;
    let mut rig = rig(&[("10-costly.js", &costly), ("20-waiting.js", waiting)]);
    for n in 1..=3 {
        assert_eq!(kept(&rig.one_of("w", "{}"))["n"], n);
    }
    let (run, bad) = (rig.run("w", &[r#"{"wait":1}"#]), rig.run("bad", &["{}"; 10]));
    rig.submit(vec![run, bad]);
    let outcomes = rig.outcomes(11);
    let (waited, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.device.as_str() == "w");
    // More errors than a shared context would have borne.
    assert!(lost.iter().all(|outcome| parked(outcome).0 == ParkReason::Deadline));
    assert_eq!(kept(&waited[0]), json!({"mine": 4, "n": 4}), "it was called once, in the context that it began in");
}

#[test]
fn a_state_from_a_context_that_is_lost_is_read_anew() {
    let counting = format!(
        "export function onMetric(m, ctx) {{
           if (ctx.deviceId === 'bad') {{ {COSTLY} }}
           ctx.state.n = (ctx.state.n ?? 0) + 1;
           return {{ n: ctx.state.n, own: ctx.state instanceof Object && (ctx.previous ?? {{}}) instanceof Object }};
         }}"
    );
    let waiting = "export const match = { devices: ['w'] }; export const onMetric = (m) => new Promise((done) => setTimeout(done, 1500, { ...m }));";
    let mut rig = rig(&[("10-counting.js", &counting), ("20-waiting.js", waiting)]);
    let (run, bad) = (rig.run("w", &["{}"; 3]), rig.run("bad", &["{}"]));
    rig.submit(vec![run, bad]);
    let outcomes = rig.outcomes(4);
    let (waited, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|outcome| outcome.device.as_str() == "w");
    assert_eq!(parked(&lost[0]).0, ParkReason::Deadline);
    let seen: Vec<Value> = waited.iter().map(kept).collect();
    assert_eq!(seen, [1, 2, 3].map(|n| json!({"n": n, "own": true})));
}

#[test]
fn a_handler_that_is_loaded_again_leaves_the_reading_under_way_alone() {
    let emitting = "export function onMetric(m, ctx) { ctx.emit('seen', { at: ctx.deviceId }); ctx.command(ctx.deviceId, 'look', {}); return m; }";
    let costly = format!(
        "console.log('loaded'); export function onMetric(m, ctx) {{ if (m.bad) {{ {COSTLY} }} return {{ at: ctx.now, id: ctx.deviceId }}; }}"
    );
    let mut rig = rig(&[("10-emitting.js", emitting), ("20-costly.js", &costly)]);
    assert_eq!(parked(&rig.one_of("bad", r#"{"bad":1}"#)).0, ParkReason::Deadline);
    let outcome = rig.one_of("d2", "{}");
    assert_eq!(kept(&outcome), json!({"at": 1_000_002, "id": "d2"}));
    assert_eq!((outcome.emits.len(), outcome.commands.len()), (1, 1), "{outcome:?}");
}

/// Expressions in a strict handler and what they give.
const STRICT: [(&str, &str); 24] = [
    ("(class E extends Error { constructor(m) { super(m); this.name = 'E'; } })", "no"),
    ("String(new (class E extends Error { constructor(m) { super(m); this.name = 'E'; } })('x'))", "E: x"),
    ("Object.keys(Object.assign(new TypeError('x'), { name: 'N', message: 'm' })).join()", "name"),
    ("(() => { const e = new Error(); e.message = 'later'; e.message += '!'; return `${e}`; })()", "Error: later!"),
    (
        "(() => { const o = {}; o.toString = () => 'own'; o.valueOf = () => 7; o.constructor = 1; o.hasOwnProperty = 2; return `${o} ${o * 1} ${o.constructor} ${o.hasOwnProperty}`; })()",
        "own 7 1 2",
    ),
    (
        "(() => { function A() {} A.prototype.toString = () => 'A'; A.prototype.constructor = A; function B() {} B.prototype = Object.create(A.prototype); B.prototype.constructor = B; return `${new B()} ${new B().constructor.name}`; })()",
        "A B",
    ),
    (
        "(() => { const extend = (d, b) => { Object.setPrototypeOf(d, b); function T() { this.constructor = d; } T.prototype = b.prototype; d.prototype = new T(); }; return [Error, Array, Map, Promise, Date, Uint8Array, RegExp].map((base) => { function D() {} extend(D, base); return D.prototype.constructor === D; }).join(); })()",
        "true,true,true,true,true,true,true",
    ),
    (
        "(() => { class L extends Array { last() { return this.at(-1); } } const l = L.from([1, 2]); l.push(3); return `${l.last()} ${l.map((x) => x * 2) instanceof L} ${l.length}`; })()",
        "3 true 3",
    ),
    (
        "(() => { class M extends Map { get(k) { return super.get(k) ?? 'none'; } } const m = new M([[1, 2]]); return `${m.get(1)} ${m.get(3)} ${m.size}`; })()",
        "2 none 1",
    ),
    (
        "(() => { class P extends Promise {} return `${P.resolve(1).then(() => 1) instanceof P} ${P.resolve(1).constructor === P}`; })()",
        "true true",
    ),
    (
        "(() => { function B(n) { const b = new Uint8Array(n); Object.setPrototypeOf(b, B.prototype); return b; } Object.setPrototypeOf(B.prototype, Uint8Array.prototype); B.prototype.toString = () => 'B'; B.prototype.slice = () => 's'; B.prototype.fill = () => 'f'; B.prototype.indexOf = () => -7; return `${B(2)} ${B(2).slice()} ${B(2).fill()} ${B(2).indexOf(0)} ${B(2).length}`; })()",
        "B s f -7 2",
    ),
    (
        "(() => { const I = Object.create(Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()))); I.next = () => ({ done: true }); I.constructor = 1; I.toString = () => 'I'; I[Symbol.iterator] = function () { return this; }; I[Symbol.toStringTag] = 'G'; return `${[...I].length} ${I}`; })()",
        "0 I",
    ),
    (
        "(() => { const counts = {}; for (const key of ['constructor', 'toString', '__defineGetter__', 'isPrototypeOf', 'hasOwnProperty', 'x']) counts[key] = 1; return Object.keys(counts).length; })()",
        "6",
    ),
    ("(() => { const f = () => 1; f.toString = () => 'f'; f.bind = 2; return `${f} ${f.bind}`; })()", "f 2"),
    (
        "(() => { if (!Array.prototype.at) Array.prototype.at = 1; if (typeof Promise.prototype.finally !== 'function') throw 1; return 'polyfilled'; })()",
        "polyfilled",
    ),
    (
        "(() => { globalThis.mine = 1; globalThis.WeakSet = class {}; return `${mine} ${typeof WeakSet.prototype.add}`; })()",
        "1 undefined",
    ),
    (
        "[Object, Object.prototype, Array, Array.prototype, Math, JSON, Reflect, Promise.prototype, Error.prototype, (function* () {}).prototype.__proto__.__proto__, Uint8Array.__proto__.prototype].map(Object.isFrozen).join()",
        "true,true,true,true,true,true,true,true,true,true,true",
    ),
    ("Object.isFrozen(globalThis)", "false"),
    ("Array.prototype.x = 1", "TypeError"),
    ("Array.prototype.push = 1", "TypeError"),
    ("Error.prototype.name = 'mine'", "TypeError"),
    ("delete Math.abs", "TypeError"),
    ("Object.setPrototypeOf(Array.prototype, null)", "TypeError"),
    (
        "`${Buffer.from('hé').toString('hex')} ${new URL('http://a/b?c=1').searchParams.get('c')} ${structuredClone(new Map([[1, { a: 1 }]])).get(1).a} ${new TextDecoder().decode(new TextEncoder().encode('é'))} ${new AbortController().signal.aborted} ${new Headers({ A: '1' }).get('a')}`",
        "68c3a9 1 1 é false 1",
    ),
];

#[test]
fn code_lives_with_frozen_intrinsics() {
    let cases: Vec<String> = STRICT.iter().map(|(source, _)| format!("() => {source}")).collect();
    let handler = format!(
        "const cases = [{}];
         export function onMetric(m) {{
           let found;
           try {{ found = cases[m.at](); found = typeof found === 'function' ? 'no' : String(found); }} catch (error) {{ found = error.name; }}
           return {{ found }};
         }}",
        cases.join(",\n")
    );
    let mut rig = rig(&[("a.mjs", &handler)]);
    for (at, (source, expected)) in STRICT.iter().enumerate() {
        let outcome = rig.one(&json!({ "at": at }).to_string());
        assert_eq!(kept(&outcome)["found"], *expected, "{source}");
    }
}

#[test]
fn errors_of_frozen_prototypes_are_told_by_their_names() {
    let handler = r#"
        class Hot extends RangeError { constructor(m) { super(m); this.name = "Hot"; } }
        class Named extends Error { get name() { return "never asked"; } }
        export function onMetric(m) {
          if (m.kind === "hot") throw new Hot("own");
          if (m.kind === "plain") throw new RangeError("none");
          if (m.kind === "empty") throw new SyntaxError();
          if (m.kind === "getter") throw new Named("a getter");
          console.log(new TypeError("shown"), [new Hot("in a list")].length);
        }"#;
    let mut rig = rig(&[("a.js", handler)]);
    for (kind, words) in
        [("hot", "Hot: own ("), ("plain", "RangeError: none ("), ("empty", "SyntaxError ("), ("getter", "a getter (")]
    {
        let outcome = rig.one(&json!({ "kind": kind }).to_string());
        assert!(parked(&outcome).1.starts_with(words), "{kind}: {outcome:?}");
    }
    rig.one("{}");
}
