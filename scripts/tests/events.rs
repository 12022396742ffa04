//! Handlers' functions for what is no report of a device: connections, answers to commands, timers; and urgent handlers.

mod common;

use bytes::Bytes;
use common::{Rig, kept, parked, run_of};
use serde_json::json;
use tidegate_actors::{
    ids::DeviceId,
    reading::{Channel, Reading},
    script::{ParkReason, ScriptCall, ScriptEngine, ScriptOutcome, ScriptStatus, Verdict},
};

const HOOKS: &str = r#"
export const match = { devices: ["pump-*"], topics: ["devices/+/metrics"] };
export const timers = { sweep: "1h", other: { every: "1d", device: "plant" } };
export function onConnect(event, ctx) { ctx.state.seen = (ctx.state.seen ?? 0) + 1; return { ...ctx.previous, here: event.deviceId, at: event.ts }; }
export function onDisconnect(event, ctx) { ctx.emit("gone", { seen: ctx.state.seen, topic: ctx.topic }); }
export function onCommandReply(reply, ctx) { return { answered: reply.name, with: reply.reply }; }
export function onTimer(tick, ctx) { return { rang: tick.timer, every: tick.everyMs }; }
"#;

fn event(rig: &mut Rig, device: &str, channel: Channel, content: &str) -> ScriptCall {
    let call = rig.reading(device, "{}");
    let reading = Reading { channel, payload: Bytes::copy_from_slice(content.as_bytes()), ..call.reading };
    ScriptCall { route: rig.pool.route(&reading.device, channel), reading, ..call }
}

fn handled(rig: &mut Rig, device: &str, channel: Channel, content: &str) -> ScriptOutcome {
    let call = event(rig, device, channel, content);
    assert!(!call.route.is_empty(), "{channel:?} of {device} has no handler");
    rig.submit(vec![run_of(vec![call])]);
    rig.outcome()
}

#[test]
fn each_event_has_a_function_of_its_own() {
    let mut rig = Rig::new(&[("10-hooks.js", HOOKS)]);
    let outcome = handled(&mut rig, "pump-1", Channel::Connected, "{}");
    assert_eq!(kept(&outcome), json!({"here": "pump-1", "at": 1_000_001}));
    assert_eq!(outcome.script_state[0].1, r#"{"seen":1}"#);
    let outcome = handled(&mut rig, "pump-1", Channel::Disconnected, "{}");
    assert_eq!((&outcome.verdict, &*outcome.emits[0].0), (&Verdict::Unchanged, "gone"));
    assert_eq!(outcome.emits[0].1, r#"{"topic":"$events/pump-1/disconnected"}"#);
    let outcome = handled(&mut rig, "pump-1", Channel::CommandReply, r#"{"name":"open","reply":[1]}"#);
    assert_eq!(kept(&outcome), json!({"answered": "open", "with": [1]}));
    let tick = r#"{"script":"10-hooks.js","timer":"sweep","everyMs":3600000}"#;
    let outcome = handled(&mut rig, "script-10-hooks", Channel::Timer, tick);
    assert_eq!(kept(&outcome), json!({"rang": "sweep", "every": 3_600_000}));
}

#[test]
fn nobody_is_asked_who_has_no_function_or_matches_another_device() {
    let mut rig = Rig::new(&[("10-hooks.js", HOOKS), ("20-metric.js", "export function onMetric() {}")]);
    let route = |device: &str, channel| rig.pool.route(&DeviceId::new(device).expect("an id"), channel).0;
    assert_eq!(route("fan-1", Channel::Connected), 0);
    assert_eq!(route("pump-1", Channel::Connected), 0b01);
    assert_eq!(route("pump-1", Channel::Metrics), 0b10, "the first has no onMetric");
    assert_eq!((route("pump-1", Channel::Timer), route("plant", Channel::Timer)), (0, 0b01));
    assert_eq!(rig.pool.timers().len(), 2);
    assert_eq!(rig.one_of("pump-1", "{}").verdict, Verdict::Unchanged);
}

#[test]
fn an_event_is_no_state_and_each_handler_sees_it_as_it_was() {
    let first = "export function onConnect(e, ctx) { return { by: 'first' }; }";
    let second = "export function onConnect(e, ctx) { return { saw: e.by ?? 'the event', previous: ctx.previous }; }
        export function onDisconnect() {}
        export function onMetric(m, ctx) { return { previous: ctx.previous }; }";
    // A frame has one reading: what comes of each goes through both sides to the next.
    let mut rig = Rig::with(&[("10-first.js", first), ("20-second.js", second)], |config| config.limits.batch = 1);
    let calls = vec![
        rig.reading("d", r#"{"t":1}"#),
        event(&mut rig, "d", Channel::Disconnected, r#"{"not":"a state"}"#),
        rig.reading("d", r#"{"t":2}"#),
        event(&mut rig, "d", Channel::Connected, "{}"),
    ];
    rig.submit(vec![run_of(calls)]);
    let outcomes = rig.outcomes(4);
    assert_eq!(kept(&outcomes[0]), json!({"previous": null}));
    assert_eq!(outcomes[1].verdict, Verdict::Unchanged);
    assert_eq!(kept(&outcomes[2]), json!({"previous": {"previous": null}}), "the event is not the state before");
    assert_eq!(kept(&outcomes[3])["saw"], "the event");
}

#[test]
fn of_two_handlers_with_timers_on_one_device_each_hears_its_own() {
    let text = |name: &str| {
        format!(
            "export const timers = {{ tick: {{ every: '1m', device: 'plant' }} }};
             export function onTimer() {{ return {{ by: '{name}' }}; }}"
        )
    };
    let mut rig = Rig::new(&[("a.js", &text("a")), ("b.js", &text("b"))]);
    for name in ["a", "b"] {
        let tick = json!({"script": format!("{name}.js"), "timer": "tick", "everyMs": 60_000}).to_string();
        assert_eq!(kept(&handled(&mut rig, "plant", Channel::Timer, &tick)), json!({"by": name}));
    }
    let unknown = json!({"script": "gone.js", "timer": "tick", "everyMs": 60_000}).to_string();
    assert_eq!(handled(&mut rig, "plant", Channel::Timer, &unknown).verdict, Verdict::Unchanged);
}

#[test]
fn an_event_whose_handler_fails_is_parked() {
    let mut rig = Rig::new(&[("a.cjs", "exports.onConnect = () => { throw new Error('not you'); };")]);
    let outcome = handled(&mut rig, "d", Channel::Connected, "{}");
    let (reason, message) = parked(&outcome);
    assert_eq!(reason, ParkReason::Threw);
    assert!(message.contains("not you (a.cjs:1"), "{message}");
}

#[test]
fn a_handler_with_exports_that_make_no_sense_is_broken() {
    let rig = Rig::new(&[
        ("a.js", "export const timers = { t: '1s' }; export function onMetric() {}"),
        ("b.js", "export function onTimer() {}"),
        ("c.js", "export const priority = 'urgent'; export function onMetric() {}"),
        ("d.js", "export const nothing = 1;"),
        ("e.js", "export function onMetric() {}"),
    ]);
    for (name, words) in [
        ("a.js", "no function onTimer"),
        ("b.js", "no timers"),
        ("c.js", "\"high\" or \"normal\""),
        ("d.js", "it exports no function onMetric (nor onConnect"),
    ] {
        let health = rig.health(name);
        assert_eq!(health.status, ScriptStatus::Broken, "{name}");
        let error = health.last_error.expect("why").message;
        assert!(error.contains(words), "{name}: {error}");
    }
    assert_eq!(rig.health("e.js").status, ScriptStatus::Closed);
}

/// How many runs of others come before the alarm's.
fn place_of_the_alarm(priority: &str) -> usize {
    const TELEMETRY: usize = 300;
    let alarm = format!(
        "export const priority = '{priority}'; export const match = {{ devices: ['alarm'] }}; export function onMetric() {{}}"
    );
    let slow = "export const match = { devices: ['t-*'] };
        export function onMetric() { let n = 0; for (let i = 0; i < 20000; i++) n += i; return { n }; }";
    let mut rig = Rig::with(&[("10-alarm.js", &alarm), ("20-slow.js", slow)], |config| config.limits.batch = 8);
    let runs: Vec<_> = (0..TELEMETRY).map(|n| rig.run(&format!("t-{n}"), &["{}"])).collect();
    rig.submit(runs);
    let alarm = rig.run("alarm", &["{}"]);
    rig.submit(vec![alarm]);
    let outcomes = rig.outcomes(TELEMETRY + 1);
    outcomes.iter().position(|outcome| outcome.device.as_str() == "alarm").expect("its outcome")
}

#[test]
fn an_alarm_does_not_wait_behind_the_telemetry() {
    let (urgent, patient) = (place_of_the_alarm("high"), place_of_the_alarm("normal"));
    assert!(patient > 250, "without a priority it is the last, or nearly: {patient}");
    assert!(urgent < 150, "with one it goes before most of the others: {urgent}");
}
