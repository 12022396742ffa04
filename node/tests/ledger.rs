//! The ledger balances to zero difference, for the node and for each device, whatever becomes of the readings and of the node.
//! After every stop the doctor checks the data directory: the readings of the journal are those of the counts, none more or less.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Dice, House, Node, eventually_within, http};

/// Keeps, drops, throws, as the reading says.
const MIXED: &str = "export const match = { devices: ['h-*'] };
export function onMetric(metric, ctx) {
  if (metric.drop) return null;
  if (metric.fail) throw new Error('no');
  ctx.state.n = (ctx.state.n ?? 0) + 1;
  return { ...metric, n: ctx.state.n };
}";

/// Readings by what becomes of them, and the sum of a ledger's kind.
fn sum(ledger: &Value, kind: &str) -> u64 {
    match &ledger[kind] {
        Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
        count => count.as_u64().unwrap_or_else(|| panic!("{kind} of {ledger}")),
    }
}

/// The parts of a ledger make up the whole.
#[track_caller]
fn assert_adds_up(ledger: &Value) {
    let processed: u64 = ["committed", "conflated", "dropped", "parked"].iter().map(|kind| sum(ledger, kind)).sum();
    assert_eq!(ledger["processed"], processed, "{ledger}");
    let all = processed + sum(ledger, "rejected") + sum(ledger, "inFlight");
    assert_eq!((&ledger["received"], &ledger["balanced"]), (&json!(all), &json!(true)), "{ledger}");
}

#[track_caller]
fn device_ledger(node: &Node, device: &str) -> Value {
    let ledger = node.get(&format!("/ledger?deviceId={}", http::escape(device))).json();
    assert_adds_up(&ledger);
    ledger
}

#[track_caller]
fn post(node: &Node, query: &str, body: &Value) {
    let status = node.post(&format!("/metrics{query}"), &body.to_string()).status;
    assert!((200..300).contains(&status) || status == 207, "{status}: {body}");
}

/// One reading of everything that can become of one.
fn send_of_every_kind(node: &Node) {
    for n in 0..20 {
        post(node, "?ack=committed", &json!({"deviceId": "plain", "ts": 1_700_000_000_000_u64 + n, "n": n}));
    }
    for late in [3, 2, 1] {
        post(node, "?ack=processed", &json!({"deviceId": "plain", "ts": 1_600_000_000_000_u64 + late}));
    }
    for n in 0..10 {
        post(node, "?ack=processed", &json!({"deviceId": "h-1", "n": n, "drop": n % 5 == 4}));
    }
    post(node, "?ack=processed", &json!({"deviceId": "h-1", "fail": true}));
    // A device that never got a state has a ledger all the same.
    post(node, "?ack=processed", &json!({"deviceId": "h-2", "drop": true}));
    assert_eq!(node.post("/metrics", "{nonsense").status, 400);
    assert_eq!(node.post("/devices/plain/metrics", "{\"ts\":\"yesterday\"}").status, 400);
    assert_eq!(node.post("/devices/plain/metrics", "[1]").status, 400);
    let large = json!({"text": "x".repeat(300 * 1024)}).to_string();
    assert_eq!(node.post("/devices/plain/metrics", &large).status, 413);
}

#[test]
fn after_a_normal_run_every_reading_is_accounted_for_by_node_device_and_journal() {
    let house = House::new().handler("10-mixed.js", MIXED);
    let mut node = house.start();
    send_of_every_kind(&node);
    let ledger = node.settled_ledger();
    assert_adds_up(&ledger);
    assert_eq!(ledger["committed"], 28, "{ledger}");
    assert_eq!(ledger["conflated"], json!({"late": 3}));
    assert_eq!(ledger["dropped"], json!({"handler": 3}));
    assert_eq!(ledger["parked"], json!({"threw": 1}));
    assert_eq!(ledger["rejected"], json!({"bad-json": 1, "bad-shape": 1, "bad-time": 1, "too-large": 1}));
    let lifetime = json!({
        "committed": 28, "conflated": {"late": 3}, "dropped": {"handler": 3}, "parked": {"threw": 1},
    });
    assert_eq!(ledger["lifetime"], lifetime);

    let plain = device_ledger(&node, "plain");
    assert_eq!((&plain["committed"], &plain["conflated"]), (&json!(20), &json!({"late": 3})), "{plain}");
    // What names no device belongs to none; what names one by its path does.
    assert_eq!(plain["rejected"], json!({"bad-shape": 1, "bad-time": 1, "too-large": 1}), "{plain}");
    let handled = device_ledger(&node, "h-1");
    assert_eq!((&handled["committed"], sum(&handled, "dropped"), sum(&handled, "parked")), (&json!(8), 2, 1));
    assert_eq!(sum(&device_ledger(&node, "h-2"), "dropped"), 1);
    assert_eq!(device_ledger(&node, "never-heard-of")["received"], 0);
    assert_eq!(node.metric("tidegate_ledger_balanced"), 1.0);
    assert_eq!(node.metric("tidegate_lifetime_readings{outcome=\"committed\",reason=\"\"}"), 28.0);
    assert_eq!(node.metric("tidegate_lifetime_readings{outcome=\"parked\",reason=\"threw\"}"), 1.0);

    assert_eq!(node.stop(), Some(0));
    let audited = house.ledger_balances();
    assert_eq!((&audited["readings"], &audited["unfinished"]), (&json!(35), &json!(0)), "{audited}");

    // Counts since the start begin anew, the lifetime goes on.
    let mut node = house.start();
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["received"], &ledger["lifetime"]), (&json!(0), &lifetime), "{ledger}");
    assert_eq!(device_ledger(&node, "plain")["committed"], 20);
    post(&node, "?ack=processed", &json!({"deviceId": "plain", "n": 21}));
    assert_eq!(node.settled_ledger()["lifetime"]["committed"], 29);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn after_kill_9_the_counts_are_the_journals_readings() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs());
    println!("ledger: seed {seed}");
    let mut dice = Dice(seed);
    // A checkpoint is never far from the crash.
    let house = House::new().handler("10-mixed.js", MIXED).variable("TIDEGATE_DATA__CHECKPOINT_INTERVAL_MS", "100");
    let (mut acked, mut n) = (0, 0_u64);
    for _ in 0..4 {
        let mut node = house.start();
        let until = Instant::now() + Duration::from_millis(dice.between(50, 600));
        while Instant::now() < until {
            let batch: Vec<Value> = (0..dice.between(1, 40))
                .map(|_| {
                    n += 1;
                    let device = if dice.between(0, 1) == 0 { format!("p-{}", n % 7) } else { format!("h-{}", n % 5) };
                    json!({"deviceId": device, "n": n, "drop": n % 11 == 0, "fail": n % 97 == 0})
                })
                .collect();
            let level = ["received", "committed", "processed"][usize::try_from(dice.between(0, 2)).expect("small")];
            post(&node, &format!("?ack={level}"), &json!(batch));
            acked += if level == "received" { 0 } else { batch.len() as u64 };
        }
        node.kill9();
        house.ledger_balances();
    }
    let mut node = house.start();
    let ledger = node.settled_ledger();
    assert_adds_up(&ledger);
    let lifetime = &ledger["lifetime"];
    let counted: u64 = ["committed", "conflated", "dropped", "parked"].iter().map(|kind| sum(lifetime, kind)).sum();
    assert_eq!(node.stop(), Some(0));
    let audited = house.ledger_balances();
    assert_eq!((&audited["readings"], &audited["unfinished"]), (&json!(counted), &json!(0)), "{audited}");
    assert!((acked..=n).contains(&counted), "{acked} acknowledged, {n} sent, {counted} counted");
}

#[test]
fn readings_that_were_parked_stay_counted_as_parked() {
    let house = House::new().handler("10-mixed.js", MIXED);
    let mut node = house.start();
    for n in 0..12 {
        post(&node, "?ack=processed", &json!({"deviceId": "h-1", "n": n, "fail": true}));
    }
    // After three in a row the breaker parks the rest untried.
    let ledger = device_ledger(&node, "h-1");
    assert_eq!(ledger["parked"], json!({"threw": 3, "breaker-open": 9}), "{ledger}");
    assert_eq!(node.stop(), Some(0));
    let node = house.start();
    let ledger = device_ledger(&node, "h-1");
    assert_eq!((sum(&ledger, "parked"), &ledger["received"]), (12, &json!(12)), "{ledger}");
}

#[test]
fn what_is_refused_in_an_overload_is_counted_with_its_device() {
    let house = House::new().handler("10-mixed.js", MIXED);
    let mut node = house.start();
    let burst: Vec<Value> = (0..10_000).map(|n| json!({"n": n})).collect();
    let burst = json!(burst).to_string();
    let mut sent = 0;
    // Faster than its handler works: at 18,192 under way the rest is refused.
    let rejected = eventually_within(Duration::from_secs(60), "readings of the device are refused", || {
        assert_eq!(node.post("/devices/h-flood/metrics?ack=received", &burst).status, 202);
        sent += 10_000_u64;
        Some(sum(&device_ledger(&node, "h-flood"), "rejected")).filter(|rejected| *rejected > 0)
    });
    assert!(rejected > 0);
    assert_eq!(node.post("/metrics", "{").status, 400);
    let ledger = eventually_within(Duration::from_secs(120), "the flood is worked off", || {
        Some(node.get("/ledger").json()).filter(|ledger| ledger["inFlight"] == 0)
    });
    assert_adds_up(&ledger);
    assert_eq!(ledger["received"], sent + 1);
    let device = device_ledger(&node, "h-flood");
    assert_eq!((&device["received"], &device["rejected"]["bad-json"]), (&json!(sent), &Value::Null), "{device}");
    assert_eq!(device["rejected"]["device-in-flight"], ledger["rejected"]["device-in-flight"]);
    assert_eq!(node.stop(), Some(0));
    let audited = house.ledger_balances();
    assert_eq!(audited["readings"], sent - sum(&device, "rejected"));
}
