//! What handlers can do: the metric, the context, the chain, the routes.

mod common;

use common::{Rig, kept, parked};
use tidegate_actors::script::{ParkReason, Verdict};

const GOOD: &str = "export function onMetric(metric, ctx) { return { ...metric, twice: metric.t * 2 }; }";

#[test]
fn a_handler_returns_the_state_and_a_throw_parks() {
    let mut rig = Rig::new(&[(
        "10-a.js",
        "export function onMetric(m) {\n  if (m.bad) {\n    throw new TypeError('too ' + m.bad);\n  }\n  return { t: m.t * 2, id: m.deviceId, at: m.ts };\n}",
    )]);
    let outcome = rig.one(r#"{"t":21}"#);
    assert_eq!(kept(&outcome), serde_json::json!({"t": 42, "id": "d1", "at": 1_000_001}));
    let outcome = rig.one(r#"{"bad":"hot"}"#);
    assert_eq!(parked(&outcome), (ParkReason::Threw, "TypeError: too hot (10-a.js:3:11)"));
    assert_eq!(kept(&rig.one(r#"{"t":1}"#))["t"], 2);
    let health = rig.health("10-a.js");
    assert_eq!((health.calls, health.errors, health.parked), (3, 1, 1));
    assert_eq!(health.last_error.map(|error| (error.line, error.column)), Some((Some(3), Some(11))));
    let _ = (GOOD, Verdict::Unchanged);
}
