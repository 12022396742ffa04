//! The host's clock is set a year ahead or back while the node runs: nothing that lasts is measured with it.
//!
//! libfaketime (Debian's `faketime`) stands between the node and the clock of the host. Only the time of day is another one:
//! the monotonic clock stays as it is, as it does when an operator or a time server sets the clock.

mod support;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use support::{
    House, Node, eventually,
    http::Http,
    mqtt::{Connect, Packet, Raw, Version::V5, publish},
    websocket::Viewer,
};

const YEAR_MS: i64 = 366 * 24 * 3_600_000;
/// The keep alive of the connections that live through the jumps, in seconds: longer than a round takes on a busy machine.
const KEEP_ALIVE: u16 = 30;

/// The clock that the node sees: the host's, and an offset that the test sets.
struct FakeClock {
    file: PathBuf,
}

impl FakeClock {
    /// A house whose node sees this clock.
    fn house() -> (House, Self) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Self { file: dir.path().join("clock") };
        clock.set(0);
        let file = clock.file.display().to_string();
        let house = House::in_dir(dir)
            .variable("LD_PRELOAD", &library().display().to_string())
            .variable("FAKETIME_TIMESTAMP_FILE", &file)
            // Read anew at every look at the clock, so that a jump is seen at once.
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (house, clock)
    }

    /// Sets the clock so many milliseconds off the host's.
    fn set(&self, offset_ms: i64) {
        // Renamed into its place: the node reads it at any moment.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{:+}\n", offset_ms / 1_000)).expect("the offset is written");
        std::fs::rename(&new, &self.file).expect("the offset is put in place");
    }
}

/// The preloaded library, wherever the architecture has it.
fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten().map(|entry| entry.path());
    let found = places.map(|place| place.join("faketime/libfaketime.so.1")).find(|path| Path::exists(path));
    found.expect("libfaketime is needed: apt install faketime")
}

/// Milliseconds by which the node's clock is off the host's, as a reading that it has just taken shows.
fn offset(node: &Node, http: &mut Http, n: u64) -> i64 {
    let host = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    post(http, "probe", n);
    let device = node.device_with("probe", "n", &json!(n));
    device["receivedTime"].as_i64().expect("a time") - i64::try_from(host).expect("a time")
}

/// Posts a reading without a device time, which must be kept.
#[track_caller]
fn post(http: &mut Http, device: &str, n: u64) {
    http.send("POST", "/metrics?ack=processed", &[], json!({"deviceId": device, "n": n}).to_string().as_bytes());
    let response = http.receive();
    assert_eq!((response.status, &response.json()["outcome"]), (200, &json!("kept")), "{}", response.text());
}

/// What a client publishes with QoS 1 is acknowledged: the connection lives.
#[track_caller]
fn publish_acked(client: &mut Raw, device: &str, id: u16, n: u64) {
    let payload = json!({"n": n}).to_string();
    client.send(&publish(V5, &format!("devices/{device}/metrics"), 1, id, &[], payload.as_bytes()));
    let ack: Packet = client.expect(0x40);
    assert_eq!(ack.puback(), (id, 0));
}

#[test]
fn a_year_ahead_and_back_breaks_nothing() {
    let (house, clock) = FakeClock::house();
    let mut node = house.start();
    let mut http = node.http();
    let hello = |id| Connect { keep_alive: KEEP_ALIVE, ..Connect::new(V5, id) };
    let [mut quiet, mut busy] = ["quiet", "busy"].map(|id| Raw::connect_with(node.mqtt, &hello(id)));
    let mut viewer = Viewer::open(node.http, "?deviceId=busy");
    let mut n = 0;
    let mut brief = Raw::open(node.mqtt);
    for offset_ms in [0, YEAR_MS, 0, -YEAR_MS, YEAR_MS, -YEAR_MS] {
        // One second of keep alive, and the jump within it.
        brief = Raw::connect_with(node.mqtt, &Connect { keep_alive: 1, ..Connect::new(V5, "brief") });
        clock.set(offset_ms);
        n += 1;
        let seen = offset(&node, &mut http, n);
        assert!((seen - offset_ms).abs() < 3_600_000, "the node does not see the jump: {seen}, not {offset_ms}");
        // Connections are not taken for silent, and what they bring is kept.
        let id = u16::try_from(n).expect("few rounds");
        publish_acked(&mut busy, "busy", id, n);
        publish_acked(&mut quiet, "quiet", id, n);
        node.device_with("busy", "n", &json!(n));
        // The viewer is not taken for one that does not read.
        viewer.until("the update", |message| message["state"]["n"] == json!(n));
        // A device time far off the node's clock is taken for what it is.
        http.send("POST", "/devices/dated/metrics?ack=processed", &[], json!({"ts": n, "n": n}).to_string().as_bytes());
        let response = http.receive();
        assert_eq!(response.json()["outcome"], "kept", "{}", response.text());
        // Checkpoints go on: a state of after the jump reaches the store.
        let written = checkpointed(&node);
        eventually("a checkpoint after the jump", || (checkpointed(&node) > written).then_some(()));
        node.assert_alive();
    }
    // The silence of a client is still measured, with the time that passes: one that connected before the last jump is closed.
    assert_eq!(brief.expect(0xE0).disconnect_reason(), 0x8D);

    // Power fails under a clock that is a year behind; the node comes back under one that is a year ahead.
    n += 1;
    post(&mut http, "last", n);
    node.kill9();
    clock.set(YEAR_MS);
    let node = house.start();
    for (device, n) in [("probe", n - 1), ("busy", n - 1), ("quiet", n - 1), ("dated", n - 1), ("last", n)] {
        let found = node.device(device).unwrap_or_else(|| panic!("{device} is lost"));
        assert_eq!(found["state"]["n"], n, "{device}: {found}");
    }
    let mut http = node.http();
    clock.set(-YEAR_MS);
    post(&mut http, "last", n + 1);
    let ledger = node.settled_ledger();
    assert_eq!((&ledger["conflated"], &ledger["rejected"]), (&json!({}), &json!({})), "{ledger}");
}

/// The journal's position through which states are in the store.
fn checkpointed(node: &Node) -> u64 {
    // Something must have changed for a checkpoint to have work.
    node.post("/metrics", r#"{"deviceId":"more","n":1}"#);
    let overview = node.get("/api/overview").json();
    overview["checkpoint"]["folded"].as_u64().unwrap_or_else(|| panic!("no position in {overview}"))
}
