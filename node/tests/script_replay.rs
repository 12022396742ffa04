//! `tidegate script replay`: the journal's readings through the same handlers come to the node's states byte by byte, each time; through
//! changed ones, the difference is shown.
//!
//! `TIDEGATE_REPLAYED=100000` replays so many readings; by default it is 3,000.

mod support;

use std::{fs, process::Output, time::Instant};

use serde_json::{Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};
use support::{House, http::Http, node::tidegate};

/// Everything that could differ from run to run goes into the state.
const HANDLER: &str = "
export function onMetric(metric, ctx) {
  const chance = Math.random();
  ctx.state.calls = (ctx.state.calls ?? 0) + 1;
  if (metric.n % 11 === 10) return null;
  if (metric.n % 13 === 12) throw new Error('unlucky ' + chance);
  if (chance < 0.2) ctx.emit('low', { chance });
  return { ...metric, chance, now: Date.now(), before: ctx.previous?.chance ?? null, calls: ctx.state.calls };
}";
const DEVICES: u64 = 20;

fn replay(house: &House, arguments: &[&str]) -> Output {
    let (data, handlers) = (house.data(), house.path("handlers"));
    let mut command = tidegate(&house.path("."));
    command.args(["script", "replay", "--data-dir"]).arg(data).arg("--handlers").arg(handlers).args(arguments);
    command.output().expect("the binary starts")
}

#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

/// A house whose node has had so many readings, and what it has of the first device.
fn lived(readings: u64) -> (House, Value) {
    let house = House::new()
        .handler("10-chance.js", HANDLER)
        .handler("20-other.js", "export const match = { devices: ['none'] };\nexport function onMetric() {}")
        // At the breaker's mercy, too: what it refused is in the journal.
        .variable("TIDEGATE_SCRIPTS__BREAKER_OPEN_MS", "100");
    let mut node = house.start();
    let mut http = Http::connect(node.http);
    let reading = |n: u64| json!({"deviceId": format!("d{}", n % DEVICES), "n": n, "ts": 1_000_000 + n - n % 7 * 20});
    for first in (0..readings).step_by(1_000) {
        let last = readings.min(first + 1_000);
        let body = Value::from((first..last).map(reading).collect::<Vec<_>>()).to_string();
        http.send("POST", "/metrics?ack=processed", &[], body.as_bytes());
        assert_eq!(http.receive().status, 200);
    }
    node.post("/devices/plain/metrics?ack=processed", r#"{"t":1}"#);
    let device = node.device("d0").expect("known");
    assert_eq!(node.stop(), Some(0));
    (house, device)
}

#[test]
fn the_same_handlers_come_to_the_same_states_each_time() {
    let readings = std::env::var("TIDEGATE_REPLAYED").map_or(3_000, |count| count.parse().expect("a number"));
    let (house, _) = lived(readings);
    let same = house.path("handlers/10-chance.js").display().to_string();
    let start = Instant::now();
    let first = replay(&house, &["--with", &same, "--json"]);
    println!("{readings} readings through both sides in {:.1?}", start.elapsed());
    let first_report = report(&first);
    assert_eq!(first.status.code(), Some(0), "{first_report:#}");
    assert_eq!((&first_report["readings"], &first_report["devices"]), (&json!(readings + 1), &json!(DEVICES + 1)));
    let states = &first_report["states"];
    assert_eq!(
        (&states["oldIsLive"], &states["different"], &states["old"]),
        (&json!(true), &json!(0), &states["new"]),
        "{first_report:#}"
    );
    assert_eq!(first_report["notAsJournaled"], 0, "{first_report:#}");
    assert!(first_report["failed"]["new"].as_u64() > Some(0));
    assert_eq!(report(&replay(&house, &["--with", &same, "--json"])), first_report, "and again");
}

/// State, chance, the clock, timers and promises: whatever could come out otherwise the next time.
const WAITING: &str = "
export async function onMetric(metric, ctx) {
  const chance = Math.random(), before = Date.now();
  ctx.state.calls = (ctx.state.calls ?? 0) + 1;
  ctx.state.sum = (ctx.state.sum ?? 0) + chance;
  if (metric.n % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 1 + (chance * 3)));
  else if (metric.n % 3 === 0) await null;
  if (metric.n % 101 === 100) throw new Error('unlucky ' + chance);
  return { ...metric, chance, before, after: Date.now(), last: Math.random(), previous: ctx.previous?.chance ?? null };
}";

/// The states of a stopped node by the name that a replay gives them, from their bytes as `tidegate state export` writes them.
fn name_of_states(house: &House) -> (usize, String) {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        device_id: &'a str,
        #[serde(borrow)]
        state: &'a RawValue,
        #[serde(borrow, default)]
        scripts: std::collections::BTreeMap<&'a str, &'a RawValue>,
    }
    let mut command = tidegate(&house.path("."));
    let export =
        command.args(["state", "export", "-o", "-", "--data-dir"]).arg(house.data()).output().expect("it runs");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let text = String::from_utf8(export.stdout).expect("UTF-8");
    let (mut hash, mut devices) = (Sha256::new(), 0);
    // The first line and the last say what stands between them.
    for line in text.lines().filter(|line| line.starts_with("{\"deviceId\"")) {
        let line: Line<'_> = serde_json::from_str(line).expect("a state");
        let scripts = line.scripts.iter().flat_map(|(script, json)| [*script, json.get()]);
        for part in [line.device_id, line.state.get()].into_iter().chain(scripts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        devices += 1;
    }
    (devices, hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn a_hundred_thousand_readings_come_to_the_live_states_twice_byte_by_byte() {
    const READINGS: u64 = 100_000;
    const FLEET: u64 = 500;
    let house = House::new().handler("10-waiting.js", WAITING).variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "1000");
    let start = Instant::now();
    // One life ends in the midst of it, without a goodbye.
    for life in 0..2 {
        let mut node = house.start();
        let mut http = Http::connect(node.http);
        for first in (life * READINGS / 2..(life + 1) * READINGS / 2).step_by(1_000) {
            let reading =
                |n: u64| json!({"deviceId": format!("d{}", n * 7 % FLEET), "n": n, "ts": 1_000_000 + n - n % 7 * 20});
            let body = Value::from((first..first + 1_000).map(reading).collect::<Vec<_>>()).to_string();
            http.send("POST", "/metrics?ack=processed", &[], body.as_bytes());
            assert_eq!(http.receive().status, 200);
        }
        if life == 0 {
            node.kill9();
        } else {
            assert_eq!(node.stop(), Some(0));
        }
    }
    let lived = start.elapsed();
    let (devices, live) = name_of_states(&house);
    let same = house.path("handlers/10-waiting.js").display().to_string();
    let first = replay(&house, &["--with", &same, "--json"]);
    let replayed = start.elapsed() - lived;
    let second = replay(&house, &["--with", &same, "--json"]);
    println!("{READINGS} readings lived in {lived:.1?}, replayed through both sides in {replayed:.1?}");
    let report = report(&first);
    assert_eq!(first.status.code(), Some(0), "{report:#}");
    assert_eq!((&report["readings"], &report["devices"]), (&json!(READINGS), &json!(devices)));
    assert_eq!((&report["notAsJournaled"], &report["unfinished"]), (&json!(0), &json!(0)), "{report:#}");
    let states = &report["states"];
    assert_eq!((&states["old"], &states["new"], &states["oldIsLive"]), (&json!(live), &json!(live), &json!(true)));
    assert!(report["failed"]["new"].as_u64() > Some(0));
    assert_eq!(second.stdout, first.stdout, "byte by byte");
}

#[test]
fn changed_handlers_are_shown_with_what_they_change() {
    let (house, device) = lived(600);
    let changed = HANDLER.replace("calls: ctx.state.calls", "calls: -ctx.state.calls").replace("'low'", "'small'");
    fs::create_dir(house.path("next")).expect("a directory");
    let with = house.path("next/10-chance.js");
    fs::write(&with, changed).expect("written");
    let with = with.display().to_string();

    let run = replay(&house, &["--with", &with, "--device", "d0", "--limit", "1000"]);
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(run.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&run.stderr));
    let calls = device["state"]["calls"].as_u64().expect("a count");
    for part in [
        "device d0, position ",
        "  - emit low {",
        "  + emit small {",
        &format!("\"calls\":-{calls}}}"),
        "state of d0\n",
        "30 readings of 1 devices",
        "states: 1 differ; old ",
        "(the node's)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("device d1,"), "{text}");

    // From a place in the journal on: the state before it is the node's.
    let all = report(&replay(&house, &["--with", &with, "--device", "d0", "--json", "--limit", "1000"]));
    let half = all["differences"][10]["position"].as_u64().expect("a position");
    let from = report(&replay(&house, &["--with", &with, "--device", "d0", "--since", &half.to_string(), "--json"]));
    assert_eq!(from["states"]["oldIsLive"], true, "{from:#}");
    assert_eq!(from["differences"][0], all["differences"][10]);
    let none = report(&replay(&house, &["--with", &with, "--since", "2100-01-01T00:00:00Z", "--json"]));
    assert_eq!((&none["readings"], &none["different"]), (&json!(0), &json!(0)));
    let recent = report(&replay(&house, &["--with", &with, "--since", "2h", "--json"]));
    assert_eq!(recent["readings"], 601);

    let broken = house.path("next/20-other.js");
    fs::write(&broken, "export function onMetric() {\n  return { a: ;\n}").expect("written");
    let refused = replay(&house, &["--with", &broken.display().to_string()]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("20-other.js:2:15"), "{words}");
}

#[test]
fn a_file_of_a_plugin_is_changed_in_its_place() {
    let plugin = |name: &str, factor: u32| {
        [
            (format!("{name}/package.json"), r#"{"type":"module","main":"index.js"}"#.to_owned()),
            (
                format!("{name}/index.js"),
                "import { by } from './lib/by.js'; export function onMetric(m) { return { ...m, t: m.t * by }; }"
                    .to_owned(),
            ),
            (format!("{name}/lib/by.js"), format!("export const by = {factor};")),
        ]
    };
    let files = [plugin("10-one", 2), plugin("20-two", 5)].concat();
    let house = files.iter().fold(House::new(), |house, (name, source)| house.handler(name, source));
    let mut node = house.start();
    assert_eq!(node.post("/devices/d/metrics?ack=processed", r#"{"t":1}"#).status, 200);
    assert_eq!(node.device("d").expect("known")["state"]["t"], 10);
    assert_eq!(node.stop(), Some(0));

    let changed = |path: &str| {
        let path = house.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a directory");
        fs::write(&path, "export const by = 3;").expect("written");
        path.display().to_string()
    };
    let states = |arguments: &[&str]| {
        let run = replay(&house, &[arguments, &["--json"]].concat());
        let report = report(&run);
        (report["changedFile"].clone(), report["states"]["differences"][0]["new"][0].clone())
    };
    // Its place shows in its path.
    let with = changed("next/20-two/lib/by.js");
    assert_eq!(states(&["--with", &with]), (json!("20-two/lib/by.js"), json!(r#"{"t":6}"#)));
    // It does not: both plugins have such a file.
    let alone = changed("elsewhere/by.js");
    let refused = replay(&house, &["--with", &alone]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    let places = "could stand in the place of 10-one/lib/by.js or of 20-two/lib/by.js; say which with --as";
    assert!(!refused.status.success() && words.contains(places), "{words}");
    assert_eq!(
        states(&["--with", &alone, "--as", "10-one/lib/by.js"]),
        (json!("10-one/lib/by.js"), json!(r#"{"t":15}"#))
    );
    // Nothing of the handlers themselves is changed.
    assert_eq!(fs::read_to_string(house.path("handlers/10-one/lib/by.js")).expect("there"), "export const by = 2;");
    let outside = replay(&house, &["--with", &alone, "--as", "../by.js"]);
    assert!(!outside.status.success(), "{outside:?}");
}
