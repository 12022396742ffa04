//! `tidegate script replay`: the journal's readings through the same handlers come to the node's states byte by byte, each time; through
//! changed ones, the difference is shown.
//!
//! `TIDEGATE_REPLAYED=100000` replays so many readings; by default it is 3,000.

mod support;

use std::{fs, process::Output, time::Instant};

use serde_json::{Value, json};
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
