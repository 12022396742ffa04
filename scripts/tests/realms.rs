//! A context for each handler: what a handler does to its globals, its modules or its engine is nothing
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
