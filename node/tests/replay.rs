//! The same readings give the same states: after kill -9, a node that goes on and a node that makes everything anew from the journal
//! come to what the handlers had made before, though these draw chance, ask for the time and keep their own state.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use support::{Dice, House, Node, eventually, http::Http, websocket::Viewer};

/// Everything that could differ from run to run goes into the state, together with all that went before.
const HANDLER: &str = "
let module = 0; // A new worker begins anew: nothing may depend on it.
export function onMetric(metric, ctx) {
  module += 1;
  const chance = Math.random();
  ctx.state.calls = (ctx.state.calls ?? 0) + 1;
  ctx.state.sum = ((ctx.state.sum ?? 0) + chance) % 1;
  ctx.state.walk = [...(ctx.state.walk ?? []), Math.floor(chance * 1000)].slice(-8);
  if (metric.n % 11 === 10) return null;
  if (metric.n % 13 === 12) throw new Error('unlucky ' + chance);
  if (chance < 0.2) ctx.emit('low', { chance });
  return { ...metric, chance, again: Math.random(), now: Date.now(), date: new Date().toISOString(), same: Date.now() === ctx.now,
           before: ctx.previous?.chance ?? null, kept: ctx.state };
}";

/// Ends each line of states in a second handler, which sees what the first one made.
const SECOND: &str = "
export function onMetric(metric, ctx) {
  ctx.state.seen = (ctx.state.seen ?? 0) + Math.random();
  return { ...metric, second: ctx.state.seen };
}";

const DEVICES: usize = 6;

fn house() -> House {
    House::new()
        .handler("10-chance.js", HANDLER)
        .handler("20-second.js", SECOND)
        .variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "1000")
}

/// Every device's Device object, once nothing is under way.
#[track_caller]
fn states(node: &Node) -> BTreeMap<String, Value> {
    node.settled_ledger();
    let page = node.get("/devices?limit=1000").json();
    let devices = page["devices"].as_array().expect("devices").iter();
    devices.map(|device| (device["deviceId"].as_str().expect("an id").to_owned(), device.clone())).collect()
}

#[test]
fn a_crash_changes_no_result() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    println!("replay: seed {seed}");
    let mut dice = Dice(seed);
    let house = house();
    let mut shown: BTreeMap<(String, u64), Value> = BTreeMap::new();
    for round in 0..3 {
        let mut node = house.start();
        // By their names, so that each update comes and not just the latest.
        let names: Vec<String> = (0..DEVICES).map(|device| format!("deviceId=d{device}")).collect();
        let mut viewer = Viewer::open(node.http, &format!("?{}", names.join("&")));
        viewer.snapshot();
        load(&node, round, &mut dice);
        // What was shown before the crash must be what the state is, or was on its way to.
        while let Some(message) = viewer.next_within(Duration::from_millis(20)) {
            note(&mut shown, &message);
        }
        // In the middle: some are handled, some only committed.
        send(&node, round * 1_000 + 500, "received");
        node.kill9();

        let copy = copy_of(&house);
        let (went_on, anew) = (house.start(), copy.start());
        let (went_on, anew) = (states(&went_on), states(&anew));
        assert_eq!(went_on.len(), DEVICES);
        for (id, device) in &went_on {
            assert_eq!(device, &anew[id], "{id}: the journal makes another state");
            assert_eq!(device["state"]["same"], true);
            let version = device["version"].as_u64().expect("a version");
            if let Some(before) = shown.get(&(id.clone(), version)) {
                assert_eq!(
                    before, &device["state"],
                    "{id} at version {version}: it was shown otherwise before the crash"
                );
            }
        }
    }
    assert!(shown.len() > 100, "hardly anything was shown: {}", shown.len());
}

fn note(shown: &mut BTreeMap<(String, u64), Value>, message: &Value) {
    if message["type"] == "state" {
        let id = message["deviceId"].as_str().expect("an id").to_owned();
        let version = message["version"].as_u64().expect("a version");
        let state = message["state"].clone();
        let before = shown.insert((id.clone(), version), state.clone());
        // Over all crashes, a version of a device is one state.
        assert!(before.is_none_or(|before| before == state), "{id} at version {version} is shown in two ways");
    }
}

/// Readings of all devices, and a wait for what they came to; a part of them in the journal only.
fn load(node: &Node, round: usize, dice: &mut Dice) {
    for n in 0..60 {
        send(node, round * 1_000 + n, if dice.between(0, 3) == 0 { "processed" } else { "received" });
    }
    send(node, round * 1_000 + 60, "processed");
}

/// A reading of each device.
fn send(node: &Node, n: usize, ack: &str) {
    let body: Vec<Value> = (0..DEVICES).map(|device| json!({"deviceId": format!("d{device}"), "n": n})).collect();
    let mut http = Http::connect(node.http);
    http.send("POST", &format!("/metrics?ack={ack}"), &[], json!(body).to_string().as_bytes());
    let answer = http.receive();
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
}

/// The same journal in a house of its own, without anything that was folded from it.
fn copy_of(house: &House) -> House {
    let copy = self::house();
    copy_dir(&house.data(), &copy.data());
    let mut removed = 0;
    for entry in fs::read_dir(copy.data()).expect("a directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("state") {
            fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())).expect("it can be removed");
            removed += 1;
        }
    }
    assert!(removed > 0, "there was no view to remove");
    let snapshots = fs::read_dir(copy.data().join("snapshots")).map_or(0, Iterator::count);
    assert_eq!(snapshots, 0, "the journal alone must be enough");
    copy
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory is made");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.path().is_file() {
            // The admin socket of a node that was killed is still there.
            fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

#[test]
fn a_handlers_clock_is_the_readings() {
    let source = "
const loaded = Date.now();
export function onMetric(metric, ctx) {
  let turns = 0;
  const start = Date.now();
  for (let i = 0; i < 100000; i += 1) turns += Date.now() - start;
  return { now: Date.now(), date: +new Date(), ctx: ctx.now, ts: metric.ts, turns, zone: new Date().getTimezoneOffset(),
           random: Math.random() };
}";
    let house = House::new().handler("10-clock.js", source);
    let mut node = house.start();
    let state = |node: &Node, body: &str| {
        assert_eq!(node.post("/devices/d1/metrics?ack=processed", body).json()["outcome"], "kept");
        node.device("d1").expect("known")
    };
    // The time of arrival, whatever the device's own time is; and it stands still.
    let device = state(&node, r#"{"ts":1000}"#);
    let found = &device["state"];
    for member in ["now", "date", "ctx"] {
        assert_eq!(found[member], device["receivedTime"], "{member}: {device}");
    }
    assert_eq!((&found["ts"], &found["turns"], &found["zone"]), (&Value::Null, &json!(0), &json!(0)), "{device}");
    let first = found["random"].clone();
    // Chance comes from the place in the journal.
    let second = state(&node, r#"{"ts":1000}"#)["state"]["random"].clone();
    assert_ne!(first, second);
    node.kill9();
    node = house.start();
    eventually("the same state", || {
        node.device("d1").filter(|device| device["version"] == 2 && device["state"]["random"] == second)
    });
}
