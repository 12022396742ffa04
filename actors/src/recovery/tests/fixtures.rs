//! What older versions wrote, checked in as they wrote it: it stays readable for ever, with these values.
//!
//! One directory a version of the records below `recovery/fixtures`: a data directory without its view, and `states.bin`, stored
//! states as sled holds them. To make one for a new version, add its values here and run this module's tests with
//! `TIDEGATE_WRITE_FIXTURES` naming the new directory.

use std::{fmt::Write as _, fs, ops::ControlFlow, path::Path, time::Duration};

use bytes::Bytes;
use smallvec::smallvec;

use super::{Recovered, recovered};
use crate::{
    idempotency::{Idempotency, Requests},
    ids::{DeviceId, LoopId, Position},
    journal::{Batch, FileJournal, Journal, JournalConfig, OutcomeRecord, Record, read, tests::doubles::WaitingSink},
    kept::KeptChange,
    lifetime::DeviceCounts,
    reading::{Channel, Reading},
    script::{ParkReason, Verdict},
    snapshot::{self, Entry},
    state::{DeviceState, ParkedReading},
    store::{Changes, MemoryStore, StateStore, record},
};

fn reading(device: &str, n: i64) -> Reading {
    Reading {
        device: DeviceId::new(device).unwrap(),
        channel: if n % 2 == 0 { Channel::Metrics } else { Channel::Telemetry },
        device_time: (n % 3 != 0).then_some(1_700_000_000_000 + n),
        received: 1_700_000_000_500 + n,
        payload: Bytes::from(format!("{{\"n\":{n}}}")),
        idempotency: (n == 7).then_some(Idempotency { request: [0xab; 16], index: 3 }),
        retry_of: (n == 8).then_some(Position(8)),
    }
}

/// What a state has since version 2.
fn full_state() -> DeviceState {
    let counts = [("conflated", "late", 2), ("dropped", "handler", 3), ("parked", "threw", 4)];
    let mut requests = Requests::default();
    requests.add(&Idempotency { request: [0xcd; 16], index: 0 });
    DeviceState {
        state: Bytes::from_static(b"{\"t\":5}"),
        newest_device_time: Some(1_700_000_000_009),
        version: 9,
        counts: DeviceCounts::from_names(counts).unwrap(),
        requests,
        ..DeviceState::empty(DeviceId::new("pump-5").unwrap(), 1_700_000_000_510)
    }
}

/// Since version 3.
fn kept(key: &'static [u8], value: Option<&'static str>) -> KeptChange {
    KeptChange { key: Bytes::from_static(key), value: value.map(Bytes::from) }
}

fn outcome(device: &str, of: u64, verdict: Verdict) -> OutcomeRecord {
    let (device, reading) = (DeviceId::new(device).unwrap(), Position(of));
    OutcomeRecord { device, reading, verdict, script_state: smallvec![("10-a.js".into(), Bytes::from_static(b"[1]"))] }
}

/// Writes the fixture of this version: does nothing when it is run as a test.
#[test]
fn write_fixtures() {
    let Some(dir) = std::env::var_os("TIDEGATE_WRITE_FIXTURES") else { return };
    let dir = Path::new(&dir);
    let mut batch = Batch::new(LoopId(0));
    batch.push_reading(&reading("pump-1", 1), false).unwrap();
    batch.push_reading(&reading("pump-1", 2), true).unwrap();
    batch.push_outcome(&outcome("pump-1", 2, Verdict::Keep(Bytes::from_static(b"{\"kept\":2}")))).unwrap();
    batch.push_reading(&reading("pump-2", 3), true).unwrap();
    batch.push_outcome(&outcome("pump-2", 4, Verdict::Unchanged)).unwrap();
    batch.push_reading(&reading("Gerät 3", 4), true).unwrap();
    batch.push_outcome(&outcome("Gerät 3", 6, Verdict::Dropped { script: "20-b.js".into() })).unwrap();
    batch.push_reading(&reading("pump-2", 5), true).unwrap();
    let parked =
        Verdict::Parked { script: "20-b.js".into(), reason: ParkReason::Threw, message: "boom 20-b.js:3:7".into() };
    batch.push_outcome(&outcome("pump-2", 8, parked)).unwrap();
    batch.push_reading(&reading("pump-4", 6), true).unwrap();
    batch.push_reading(&reading("pump-6", 7), false).unwrap();
    batch.push_reading(&reading("pump-2", 8), false).unwrap();
    batch.push_unparked(&DeviceId::new("pump-9").unwrap(), Position(2)).unwrap();
    batch.push_imported(&full_state(), true).unwrap();
    batch.push_kept(&kept(b"s/pump-1", Some("session"))).unwrap();
    batch.push_kept(&kept(b"s/old", None)).unwrap();
    let sink = WaitingSink::new();
    let config =
        JournalConfig { segment_bytes: 1, commit_max_delay: Duration::ZERO, gather: Duration::ZERO, segment_age: None };
    let journal = FileJournal::open(&dir.join("journal"), config, Position(1), sink.clone()).unwrap();
    let records = batch.records();
    journal.try_append(batch).unwrap();
    sink.wait_for_records(records);
    journal.close();

    let older = ["pump-1", "pump-2"].map(|device| DeviceState {
        state: Bytes::from_static(b"{\"t\":21.5}"),
        device_time: (device == "pump-1").then_some(1_700_000_000_002),
        newest_device_time: (device == "pump-1").then_some(1_700_000_000_002),
        version: 7,
        position: Position(2),
        script_state: vec![("10-a.js".into(), Bytes::from_static(b"{\"count\":2}"))],
        ..DeviceState::empty(DeviceId::new(device).unwrap(), 1_700_000_000_502)
    });
    let states = [older.as_slice(), &[full_state()]].concat();
    let parked = ParkedReading {
        position: Position(2),
        reading: reading("pump-9", 2),
        script: "10-a.js".into(),
        reason: ParkReason::Memory,
        message: "heap".into(),
    };
    let store = MemoryStore::new();
    let kept = vec![kept(b"s/old", Some("{}")), kept(b"s/\0\xff", Some("")), kept(b"r/t", Some("retained"))];
    let changes = Changes { states: states.clone(), parked: vec![parked], unparked: vec![], kept };
    store.write(&changes, Position(3)).unwrap();
    snapshot::write(&store, &dir.join("snapshots")).unwrap();
    // Each with its length before it.
    let mut stored = Vec::new();
    for state in &states {
        let mut bytes = Vec::new();
        record::encode_state(&mut bytes, state).unwrap();
        stored.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        stored.extend(bytes);
    }
    fs::write(dir.join("states.bin"), stored).unwrap();
}

fn time(time: Option<i64>) -> String {
    time.map_or("-".to_owned(), |time| time.to_string())
}

/// In words that do not change when a type gets a field.
fn show_reading(reading: &Reading) -> String {
    let Reading { device, channel, device_time, received, payload, .. } = reading;
    let payload = String::from_utf8_lossy(payload);
    let request = reading.idempotency.map(|one| format!(" request={:02x}..#{}", one.request[0], one.index));
    let retry = reading.retry_of.map(|parked| format!(" retry-of={parked}"));
    let (request, retry) = (request.unwrap_or_default(), retry.unwrap_or_default());
    format!("{device} {channel:?} {} {received} {payload}{request}{retry}", time(*device_time))
}

fn show_state(more: &DeviceState) -> String {
    let DeviceState { device, state, device_time, received, version, position, script_state, .. } = more;
    let scripts = script_state.iter().map(|(name, json)| format!(" {name}={}", String::from_utf8_lossy(json)));
    let (json, sent, newest) = (String::from_utf8_lossy(state), time(*device_time), time(more.newest_device_time));
    let counts = serde_json::to_string(&more.counts.reasons()).unwrap();
    let requests = more.requests.all().iter().map(|one| format!(" {:02x}..{:?}", one.request[0], one.seen));
    let (scripts, requests) = (scripts.collect::<String>(), requests.collect::<String>());
    format!("{device} {json} {sent} {received} v{version} @{position}{scripts} newest={newest} {counts}{requests}")
}

fn show_parked(parked: &ParkedReading) -> String {
    let ParkedReading { position, reading, script, reason, message } = parked;
    format!("{position}: {} / {script} {} {message}", show_reading(reading), reason.name())
}

fn show_pair(key: &[u8], value: &[u8]) -> String {
    format!("{}={}", key.escape_ascii(), value.escape_ascii())
}

fn show_record(position: Position, record: &Record) -> String {
    let mut line = format!("{position} ");
    let _ = match record {
        Record::Reading { reading, routed } => write!(line, "{} routed={routed}", show_reading(reading)),
        Record::Unparked { device, position } => write!(line, "{device} unparked {position}"),
        Record::Imported { state, overwrite } => write!(line, "imported overwrite={overwrite} {}", show_state(state)),
        Record::Kept(KeptChange { key, value }) => {
            write!(line, "kept {} {:?}", key.escape_ascii(), value.as_deref().map(String::from_utf8_lossy))
        }
        Record::Outcome(outcome) => {
            let scripts =
                outcome.script_state.iter().map(|(name, json)| format!(" {name}={}", String::from_utf8_lossy(json)));
            let scripts = scripts.collect::<String>();
            match &outcome.verdict {
                Verdict::Unchanged => write!(line, "{} of {} unchanged{scripts}", outcome.device, outcome.reading),
                Verdict::Keep(json) => {
                    let json = String::from_utf8_lossy(json);
                    write!(line, "{} of {} keep {json}{scripts}", outcome.device, outcome.reading)
                }
                Verdict::Dropped { script } => {
                    write!(line, "{} of {} dropped {script}{scripts}", outcome.device, outcome.reading)
                }
                Verdict::Parked { script, reason, message } => {
                    let reason = reason.name();
                    write!(
                        line,
                        "{} of {} parked {script} {reason} {message}{scripts}",
                        outcome.device, outcome.reading
                    )
                }
            }
        }
    };
    line
}

/// What the journals hold: later versions have more kinds.
const RECORDS: [&str; 16] = [
    "1 pump-1 Telemetry 1700000000001 1700000000501 {\"n\":1} routed=false",
    "2 pump-1 Metrics 1700000000002 1700000000502 {\"n\":2} routed=true",
    "3 pump-1 of 2 keep {\"kept\":2} 10-a.js=[1]",
    "4 pump-2 Telemetry - 1700000000503 {\"n\":3} routed=true",
    "5 pump-2 of 4 unchanged 10-a.js=[1]",
    "6 Gerät 3 Metrics 1700000000004 1700000000504 {\"n\":4} routed=true",
    "7 Gerät 3 of 6 dropped 20-b.js 10-a.js=[1]",
    "8 pump-2 Telemetry 1700000000005 1700000000505 {\"n\":5} routed=true",
    "9 pump-2 of 8 parked 20-b.js threw boom 20-b.js:3:7 10-a.js=[1]",
    "10 pump-4 Metrics - 1700000000506 {\"n\":6} routed=true",
    "11 pump-6 Telemetry 1700000000007 1700000000507 {\"n\":7} request=ab..#3 routed=false",
    "12 pump-2 Metrics 1700000000008 1700000000508 {\"n\":8} retry-of=8 routed=false",
    "13 pump-9 unparked 2",
    "14 imported overwrite=true pump-5 {\"t\":5} - 1700000000510 v9 @0 newest=1700000000009 \
     {\"conflated\":{\"late\":2},\"dropped\":{\"handler\":3},\"parked\":{\"threw\":4}} cd..[(0, 0)]",
    "15 kept s/pump-1 Some(\"session\")",
    "16 kept s/old None",
];
/// The stored states, here and in the snapshots: version 2 has one more, with what only it can say.
const STATES: [&str; 3] = [
    "pump-1 {\"t\":21.5} 1700000000002 1700000000502 v7 @2 10-a.js={\"count\":2} newest=1700000000002 \
     {\"conflated\":{},\"dropped\":{},\"parked\":{}}",
    "pump-2 {\"t\":21.5} - 1700000000502 v7 @2 10-a.js={\"count\":2} newest=- \
     {\"conflated\":{},\"dropped\":{},\"parked\":{}}",
    "pump-5 {\"t\":5} - 1700000000510 v9 @0 newest=1700000000009 \
     {\"conflated\":{\"late\":2},\"dropped\":{\"handler\":3},\"parked\":{\"threw\":4}} cd..[(0, 0)]",
];
/// The kept pairs of the snapshot, since version 3.
const KEPT: [&str; 3] = ["r/t=retained", "s/\\x00\\xff=", "s/old={}"];
const PARKED: &str = "2: pump-9 Metrics 1700000000002 1700000000502 {\"n\":2} / 10-a.js memory heap";

/// A fixture, laid out where a recovery may work on it.
fn laid_out(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

macro_rules! fixture {
    ($version:literal) => {
        fixture!($version, "journal/00000000000000000001.tgj", "snapshots/00000000000000000003.tgs", "states.bin")
    };
    ($version:literal, $($name:literal),+) => {
        [$(($name, include_bytes!(concat!("../fixtures/", $version, "/", $name)).as_slice())),+]
    };
}

/// Reads a fixture's journal, snapshot and stored states, and lets a recovery work on it.
fn check(
    files: &[(&str, &[u8]); 3],
    records: &[&str],
    expected: &[&str],
    expected_kept: &[&str],
) -> (tempfile::TempDir, Recovered) {
    let dir = laid_out(files);
    let mut found = Vec::new();
    let report = read(&dir.path().join("journal"), Position(1), |position, record| {
        found.push(show_record(position, &record));
        ControlFlow::Continue(())
    });
    assert!(report.unwrap().is_clean());
    assert_eq!(found, records);

    let (mut states, mut parked, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let snapshots = snapshot::list(&dir.path().join("snapshots")).unwrap();
    snapshot::load(&snapshots[0], &mut |entry| {
        match entry {
            Entry::State(state) => states.push(show_state(&state)),
            Entry::Parked(reading) => parked.push(show_parked(&reading)),
            Entry::Kept(key, value) => kept.push(show_pair(&key, &value)),
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(states, expected);
    assert_eq!(parked, [PARKED]);
    assert_eq!(kept, expected_kept);

    let mut stored = files[2].1;
    for expected in expected {
        let (length, rest) = stored.split_first_chunk::<4>().unwrap();
        let (state, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        assert_eq!(show_state(&record::decode_state(state).unwrap()), *expected);
        stored = rest;
    }
    assert_eq!(stored.len(), 0);

    let found = recovered(dir.path());
    assert!(found.report.is_clean(), "{:?}", found.report);
    assert_eq!((found.next, found.report.snapshot_used), (Position(records.len() as u64 + 1), Some(Position(3))));
    let unfinished = found.unfinished.iter().map(|one| one.device().as_str()).collect::<Vec<_>>();
    assert_eq!(unfinished, ["pump-4"]);
    (dir, found)
}

#[test]
fn version_1_is_readable() {
    let (_dir, found) = check(&fixture!("v1"), &RECORDS[..10], &STATES[..2], &[]);
    let pump_2 = found.store.get("pump-2").unwrap().unwrap();
    assert_eq!((&*pump_2.state, pump_2.position), (b"{\"n\":3}".as_slice(), Position(8)));
    assert_eq!(found.store.parked(None, 10).unwrap().len(), 2);
}

#[test]
fn version_2_is_readable() {
    let (_dir, found) = check(&fixture!("v2"), &RECORDS[..14], &STATES, &[]);
    let pump_2 = found.store.get("pump-2").unwrap().unwrap();
    assert_eq!((&*pump_2.state, pump_2.position), (b"{\"n\":8}".as_slice(), Position(12)));
    let brought = found.store.get("pump-5").unwrap().unwrap();
    assert_eq!((brought.version, brought.position), (9, Position(14)));
}

#[test]
fn version_3_is_readable() {
    let (_dir, found) = check(&fixture!("v3"), &RECORDS, &STATES, &KEPT);
    let mut kept = Vec::new();
    let all = found.store.kept(b"", &mut |key, value| {
        kept.push(show_pair(key, value));
        ControlFlow::Continue(())
    });
    all.unwrap();
    assert_eq!(kept, [KEPT[0], KEPT[1], "s/pump-1=session"]);
}
