//! Handlers that hear of more than readings: who connects and leaves, what became of a command, timers; end to end, with the ledger.

mod support;

use serde_json::json;
use support::{
    House, eventually,
    mqtt::{Raw, Version::V5, publish, subscribe},
};

const PRESENCE: &str = r#"
export const match = { devices: ["pump-*"] };
export function onConnect(event, ctx) {
  ctx.state.connects = (ctx.state.connects ?? 0) + 1;
  ctx.command(ctx.deviceId, "hello", { n: ctx.state.connects });
  return { ...ctx.previous, online: true, connects: ctx.state.connects };
}
export function onDisconnect(event, ctx) {
  return { ...ctx.previous, online: false };
}
export function onCommandReply(reply, ctx) {
  return { ...ctx.previous, command: reply.name, status: reply.status, reply: reply.reply ?? null, reason: reply.reason ?? null };
}
"#;

#[test]
fn connections_and_replies_become_states() {
    let house = House::new().handler("10-presence.js", PRESENCE);
    let mut node = house.start();
    let mut pump = Raw::connect(node.mqtt, V5, "pump-1");
    pump.send(&subscribe(V5, 1, "devices/pump-1/commands/+", 1));
    pump.expect(0x90);
    // The handler's command for the device that has come.
    let command = pump.expect(0x32).message(V5);
    assert!(command.payload.contains(r#""name":"hello","params":{"n":1}"#), "{command:?}");
    let [high, low] = command.id.to_be_bytes();
    pump.send(&[0x40, 2, high, low]);
    pump.send(&publish(V5, &format!("{}/reply", command.topic), 1, 1, &[], br#"{"fine":true}"#));
    pump.expect(0x40);
    let state = eventually("the reply in the state", || {
        let state = node.device("pump-1")?["state"].clone();
        (state["status"] == "replied").then_some(state)
    });
    let expected = json!({"online": true, "connects": 1, "command": "hello", "status": "replied", "reply": {"fine": true}, "reason": null});
    assert_eq!(state, expected);
    drop(pump);
    eventually("the device is gone", || (node.device("pump-1")?["state"]["online"] == false).then_some(()));
    // Whom no handler wants makes nothing.
    let before = node.settled_ledger();
    drop(Raw::connect(node.mqtt, V5, "fan-1"));
    assert_eq!(node.settled_ledger()["received"], before["received"]);
    // The events are durable.
    node.kill9();
    let node = house.start();
    // If its outcome was not yet on the disk, the event is handled again.
    node.settled_ledger();
    let state = node.device("pump-1").expect("it has a state")["state"].clone();
    assert_eq!((&state["online"], &state["connects"]), (&json!(false), &json!(1)));
}

const CLOCK: &str = r#"
export const timers = { beat: "1s", plant: { every: 1000, device: "plant-1" } };
export function onTimer(tick, ctx) {
  if (tick.timer === "plant") return { ...ctx.previous, beats: (ctx.previous?.beats ?? 0) + 1, by: tick.timer };
  ctx.emit("beat", { every: tick.everyMs });
}
"#;

#[test]
fn timers_ring_and_readings_of_their_device_go_on() {
    let house = House::new().handler("20-clock.js", CLOCK);
    let node = house.start();
    node.post("/devices/plant-1/metrics?ack=processed", r#"{"level":3}"#);
    let state = eventually("two beats", || {
        let state = node.device("plant-1")?["state"].clone();
        (state["beats"].as_u64() >= Some(2)).then_some(state)
    });
    assert_eq!((&state["by"], &state["level"]), (&json!("plant"), &json!(3)), "{state}");
    // A timer that makes no state is counted as an event that none was made of.
    let ledger = eventually("an event", || {
        let ledger = node.get("/ledger").json();
        (ledger["conflated"]["event"].as_u64() >= Some(1)).then_some(ledger)
    });
    assert_eq!(ledger["balanced"], true, "{ledger}");
}
