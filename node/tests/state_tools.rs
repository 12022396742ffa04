//! The state commands against real nodes: what was exported is what is imported, whatever happens in between.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::{Value, json};
use support::{
    Dice, House, Node, eventually,
    http::{self, Http},
    node::tidegate,
};

/// Keeps a count in `ctx.state`, drops every seventh reading and parks every eleventh.
const HANDLER: &str = r#"
export const match = { devices: ["h-*"] };
export function onMetric(metric, ctx) {
  ctx.state.count = (ctx.state.count ?? 0) + 1;
  if (metric.seq % 11 === 0) { throw new Error("eleven"); }
  if (metric.seq % 7 === 0) { return null; }
  return { ...metric, count: ctx.state.count };
}
"#;

fn house() -> House {
    House::new().handler("10-count.js", HANDLER)
}

/// Runs `tidegate state` with these words.
fn state(dir: &Path, words: &[&str]) -> Output {
    tidegate(dir).arg("state").args(words).output().expect("the binary runs")
}

#[track_caller]
fn ok(dir: &Path, words: &[&str]) -> String {
    let output = state(dir, words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {:?}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a command that is to fail with exit code 1, and gives what it said on stdout and stderr.
#[track_caller]
fn fails(dir: &Path, words: &[&str]) -> (String, String) {
    let output = state(dir, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn url(node: &Node) -> String {
    format!("http://{}", node.http)
}

/// Devices that report for as long as this lives.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(node: &Node) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2).map(|seed| {
            let (to, stop, sent) = (node.http, Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || report(to, seed, &stop, &sent))
        });
        Self { threads: threads.collect(), stop, sent }
    }

    #[track_caller]
    fn wait_for(&self, readings: u64) {
        eventually("some load", || (self.sent.load(Ordering::Relaxed) >= readings).then_some(()));
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("the load runs to its end"));
    }
}

fn report(to: SocketAddr, seed: u64, stop: &AtomicBool, sent: &AtomicU64) {
    let (mut http, mut dice) = (Http::connect(to), Dice(seed));
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch: Vec<Value> = (0..20)
            .map(|_| {
                seq += 1;
                let kind = ["h", "p"][dice.between(0, 1) as usize];
                let device = format!("{kind}-{seed}-{}", dice.between(0, 150));
                let mut reading = json!({ "deviceId": device, "seq": seq, "t": dice.between(0, 1_000) });
                if dice.between(0, 2) == 0 {
                    reading["ts"] = json!(1_700_000_000_000_u64 + dice.between(0, 1_000));
                }
                reading
            })
            .collect();
        http.send("POST", "/metrics?ack=committed", &[], json!(batch).to_string().as_bytes());
        let response = http.receive();
        assert!(response.status == 200 || response.status == 503, "{}", response.text());
        sent.fetch_add(20, Ordering::Relaxed);
    }
}

/// An NDJSON export: the head, and each device's line but for its position in the journal.
#[track_caller]
fn read_export(path: &Path) -> (Value, BTreeMap<String, Value>) {
    let text = fs::read_to_string(path).expect("the export is there");
    let mut lines = text.lines().map(json_of);
    let head = lines.next().expect("a head");
    assert_eq!(head["tidegateExport"], 1);
    let mut devices = BTreeMap::new();
    let mut end = None;
    for mut line in lines {
        assert_eq!(end, None, "nothing follows the end");
        if line.get("tidegateExportEnd").is_some() {
            end = Some(line["devices"].clone());
        } else {
            line.as_object_mut().expect("an object").remove("position").expect("a position");
            let id = line["deviceId"].as_str().expect("an id").to_owned();
            assert_eq!(devices.insert(id, line), None, "a device is there once");
        }
    }
    assert_eq!(end.as_ref(), Some(&head["devices"]));
    assert_eq!(head["devices"], devices.len());
    (head, devices)
}

#[test]
fn what_is_exported_under_load_is_what_the_journal_says_and_is_imported_the_same() {
    let (house, dir) = (house(), tempfile::tempdir().expect("a directory"));
    let mut node = house.start();
    let load = Load::on(&node);
    load.wait_for(3_000);
    let file = dir.path().join("states.ndjson");
    let path = file.to_str().expect("UTF-8");
    let summary = json_of(&ok(dir.path(), &["export", "--node", &url(&node), "-o", path, "--json"]));
    load.wait_for(5_000);
    load.end();
    let (head, exported) = read_export(&file);
    assert_eq!((&summary["position"], &summary["devices"]), (&head["position"], &head["devices"]));
    assert!(exported.len() > 300, "{head}");
    assert!(!dir.path().join("states.ndjson.partial").exists());
    assert!(!house.data().join("export").exists(), "nothing is left behind");
    node.kill9();

    let model = model(&house.data().join("journal"), head["position"].as_u64().expect("a position"));
    assert_eq!(exported.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
    for (id, (version, state)) in &model {
        assert_eq!((&exported[id]["version"], &exported[id]["state"]), (&json!(version), state), "{id}");
    }

    let (other, again) = (House::new(), dir.path().join("again.ndjson"));
    let fresh = other.start();
    let import = ["import", path, "--node", &url(&fresh), "--json"];
    let summary = json_of(&ok(dir.path(), &import));
    assert_eq!((&summary["imported"], &summary["failed"]), (&head["devices"], &json!(0)));
    assert!(!dir.path().join("states.ndjson.progress").exists() && !dir.path().join("states.ndjson.errors").exists());
    let once_more = json_of(&ok(dir.path(), &import));
    assert_eq!(once_more["unchanged"], head["devices"], "a second time changes nothing");
    ok(dir.path(), &["export", "--node", &url(&fresh), "-o", again.to_str().expect("UTF-8")]);
    assert_eq!(read_export(&again).1, exported);
    let _ = fresh.settled_ledger();
}

/// Version and state of each device, folded from the journal alone, device by device.
fn model(journal: &Path, through: u64) -> BTreeMap<String, (u64, Value)> {
    use std::ops::ControlFlow;
    use tidegate_actors::{fold::fold, ids::Position, journal::Record, script::Verdict};
    let (mut readings, mut outcomes) = (BTreeMap::<String, Vec<_>>::new(), BTreeMap::new());
    let report = tidegate_actors::journal::read(journal, Position(1), |position, record| {
        if position.0 > through {
            return ControlFlow::Break(());
        }
        match record {
            Record::Reading { reading, routed } => {
                readings.entry(reading.device.as_str().to_owned()).or_default().push((position, reading, routed));
            }
            Record::Outcome(outcome) => _ = outcomes.insert(outcome.reading, outcome),
            other => panic!("{other:?}"),
        }
        ControlFlow::Continue(())
    });
    assert!(report.expect("the journal is readable").missing.is_empty());
    let mut states = BTreeMap::new();
    for (device, readings) in readings {
        let mut state = None;
        for (position, reading, routed) in readings {
            let folded = match outcomes.get(&position) {
                Some(outcome) => fold(state.as_ref(), position, &reading, &outcome.verdict, &outcome.script_state),
                None if !routed => fold(state.as_ref(), position, &reading, &Verdict::Unchanged, &[]),
                None => break,
            };
            state = folded.into_state().or(state);
        }
        if let Some(state) = state {
            states.insert(device, (state.version, serde_json::from_slice(&state.state).expect("JSON")));
        }
    }
    states
}

/// An export of so many devices.
fn many(path: &Path, devices: u64) {
    let mut text = json!({ "tidegateExport": 1, "position": 9, "devices": devices, "time": 5 }).to_string();
    for number in 0..devices {
        text.push('\n');
        text.push_str(&line(number).to_string());
    }
    text.push_str(&format!("\n{}\n", json!({ "tidegateExportEnd": 1, "devices": devices })));
    fs::write(path, text).expect("the file is written");
}

fn line(number: u64) -> Value {
    json!({
        "deviceId": format!("d-{number:06}"), "state": { "t": number }, "deviceTime": 7, "receivedTime": 9,
        "newestDeviceTime": 8, "version": number + 1, "position": 4,
        "scripts": { "10-x.js": { "n": 1 } }, "ledger": { "conflated": { "late": 2 }, "dropped": {}, "parked": { "threw": 1 } },
    })
}

/// A child that is killed, by its own handle, when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let (house, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    let node = house.start();
    let file = dir.path().join("many.ndjson");
    many(&file, 6_000);
    let (path, progress) = (file.to_str().expect("UTF-8"), dir.path().join("many.ndjson.progress"));
    let words = ["state", "import", path, "--node", &url(&node), "--json", "--rate", "3000"];
    let mut first = Killed(
        tidegate(dir.path()).args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"),
    );
    eventually("some progress", || progress.exists().then_some(()));
    first.0.kill().expect("it is killed");
    first.0.wait().expect("it ends");
    let summary = json_of(&ok(dir.path(), &words[1..6]));
    let after = summary["resumedAfter"].as_u64().expect("a number");
    assert!((1..6_000).contains(&after), "{summary}");
    assert_eq!((&summary["records"], &summary["failed"]), (&json!(6_000), &json!(0)));
    assert!(!progress.exists());
    let again = dir.path().join("again.ndjson");
    ok(dir.path(), &["export", "--node", &url(&node), "-o", again.to_str().expect("UTF-8")]);
    let (_, devices) = read_export(&again);
    assert_eq!(devices.len(), 6_000);
    for (number, found) in (0..).zip(devices.values()) {
        let mut expected = line(number);
        expected.as_object_mut().expect("an object").remove("position");
        assert_eq!(*found, expected);
    }
}

#[test]
fn a_broken_file_names_its_lines_and_the_rest_is_imported() {
    let (house, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    let node = house.start();
    let file = dir.path().join("broken.ndjson");
    many(&file, 20);
    let text = fs::read_to_string(&file).expect("it is there");
    let mut lines: Vec<&str> = text.lines().collect();
    lines[3] = "garbage";
    let bad = line(4).to_string().replace("\"version\":5", "\"version\":\"five\"");
    lines[5] = &bad;
    let whole = lines.join("\n");
    // In the middle of the line of the device d-000015, which is line 17.
    let cut = whole.find("d-000015").expect("it is there") + 20;
    fs::write(&file, &whole[..cut]).expect("it is written");
    let words = ["import", file.to_str().expect("UTF-8"), "--node", &url(&node), "--json"];

    let (_, said) = fails(dir.path(), &[&words[..], &["--dry-run"]].concat());
    assert!(said.contains("broken.ndjson:4:") && said.contains("broken.ndjson:6:"), "{said}");
    assert_eq!(node.get("/devices").json()["total"], 0, "a dry run sends nothing");

    let (summary, said) = fails(dir.path(), &words);
    let summary = json_of(&summary);
    assert_eq!((&summary["imported"], &summary["failed"]), (&json!(13), &json!(4)), "{said}");
    assert!(said.contains(":6:") && said.contains("version: "), "{said}");
    let errors = fs::read_to_string(dir.path().join("broken.ndjson.errors")).expect("the file of errors");
    let errors: Vec<Value> = errors.lines().map(json_of).collect();
    let at: Vec<u64> = errors.iter().filter_map(|error| error["line"].as_u64()).collect();
    assert_eq!(at, [4, 6, 17, 17], "{errors:?}");
    assert_eq!((&errors[0]["text"], errors[1]["text"].as_str()), (&json!("garbage"), Some(bad.as_str())));
    assert!(errors[3]["reason"].as_str().is_some_and(|reason| reason.contains("it was cut")), "{errors:?}");
    assert_eq!(node.get("/devices").json()["total"], 13);
}

#[test]
fn a_newer_state_stays_unless_it_is_told_otherwise() {
    let (house, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    let node = house.start();
    let file = dir.path().join("one.ndjson");
    many(&file, 1);
    node.post("/metrics?ack=processed", r#"{"deviceId":"d-000000","ts":100,"own":1}"#);
    let words = ["import", file.to_str().expect("UTF-8"), "--node", &url(&node), "--json"];
    assert_eq!(json_of(&ok(dir.path(), &words))["older"], 1);
    assert_eq!(node.device("d-000000").expect("it is known")["state"], json!({ "own": 1 }));
    assert_eq!(json_of(&ok(dir.path(), &[&words[..], &["--overwrite"]].concat()))["imported"], 1);
    assert_eq!(node.device("d-000000").expect("it is known")["state"], json!({ "t": 0 }));
}

#[test]
fn each_systems_values_are_migrated() {
    let (house, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    let node = house.start();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("it is written");
    put("latest.json", r#"{"n1":{"deviceId":"n1","temperature":21.5,"ts":1700000000000}}"#);
    put("tb-1.json", r#"{"temperature":[{"ts":1700000000001,"value":"21.5"}],"on":[{"ts":5,"value":"true"}]}"#);
    put("tb.csv", "Entity name;Timestamp;temperature\ntb-2;1700000000002;7\ntb-3;never;8\n");
    put(
        "readings.ndjson",
        "{\"deviceId\":\"r1\",\"ts\":1,\"a\":1}\n{\"deviceId\":\"r1\",\"ts\":3,\"a\":3}\n{\"deviceId\":\"r1\",\"ts\":2,\"a\":2}\n",
    );
    let address = url(&node);
    let words = |from: &str, file: &str| -> Vec<String> {
        ["migrate", "--from", from, file, "--node", &address, "--json"].map(str::to_owned).to_vec()
    };
    let run = |words: &[String]| ok(dir.path(), &words.iter().map(String::as_str).collect::<Vec<_>>());
    let dry = [&words("node-json", "latest.json")[..], &["--dry-run".to_owned()]].concat();
    assert_eq!(json_of(&run(&dry))["first"][0]["state"], json!({ "temperature": 21.5 }));
    assert_eq!(node.get("/devices").json()["total"], 0);
    run(&words("node-json", "latest.json"));
    run(&words("thingsboard-json", "tb-1.json"));
    let summary = json_of(&run(&words("ndjson", "readings.ndjson")));
    assert_eq!((&summary["imported"], &summary["older"]), (&json!(2), &json!(1)));
    let (_, said) = fails(dir.path(), &["migrate", "--from", "thingsboard-csv", "tb.csv", "--node", &address]);
    assert!(said.contains("tb.csv:3:6: Timestamp: \"never\" is no time"), "{said}");
    for (id, time, state) in [
        ("n1", 1_700_000_000_000_i64, json!({ "temperature": 21.5 })),
        ("tb-1", 1_700_000_000_001, json!({ "temperature": 21.5, "on": true })),
        ("tb-2", 1_700_000_000_002, json!({ "temperature": 7 })),
        ("r1", 3, json!({ "a": 3 })),
    ] {
        let device = node.device(id).unwrap_or_else(|| panic!("{id} is known"));
        assert_eq!((&device["state"], &device["deviceTime"]), (&state, &json!(time)), "{id}");
    }
}

#[test]
fn a_backup_under_load_comes_back_whole() {
    let (source, dir) = (house(), tempfile::tempdir().expect("a directory"));
    let mut node = source.start();
    let load = Load::on(&node);
    load.wait_for(2_000);
    let backup = dir.path().join("backup");
    let (place, data) = (backup.to_str().expect("UTF-8"), dir.path().join("data"));
    let manifest = json_of(&ok(dir.path(), &["backup", place, "--node", &url(&node), "--json"]));
    load.end();
    node.kill9();
    let (_, said) = fails(dir.path(), &["backup", place, "--node", &url(&node)]);
    assert!(said.contains("is not empty"), "{said}");

    let restore = ["restore", place, "--data-dir", data.to_str().expect("UTF-8")];
    ok(dir.path(), &restore);
    let (_, said) = fails(dir.path(), &restore);
    assert!(said.contains("is not empty"), "{said}");
    // The house is the directory that `data` is in.
    let restored = House::in_dir(dir);
    let mut node = restored.start();
    let at = restored.data();
    let again = at.with_file_name("again.tgs");
    let export = ["export", "--node", &url(&node), "--format", "binary", "-o", again.to_str().expect("UTF-8")];
    ok(&at, &export);
    let (states, parked) = entries(&again);
    assert_eq!((states.clone(), parked.clone()), entries(&backup.join("states.tgs")));
    assert_eq!((json!(states.len()), json!(parked.len())), (manifest["devices"].clone(), manifest["parked"].clone()));
    assert!(!parked.is_empty() && states.len() > 200, "{manifest}");

    // The same of a node that is stopped; of one that runs it is refused.
    let stopped = ["export", "--data-dir", at.to_str().expect("UTF-8"), "--format", "binary", "-o"];
    let into = at.with_file_name("stopped.tgs");
    let words = [&stopped[..], &[into.to_str().expect("UTF-8")]].concat();
    let (_, said) = fails(&at, &words);
    assert!(said.contains("is in use by process") && said.contains("--node"), "{said}");
    assert_eq!(node.stop(), Some(0));
    ok(&at, &words);
    assert_eq!(entries(&into), (states, parked));

    let mut damaged = fs::read(backup.join("states.tgs")).expect("it is there");
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(backup.join("states.tgs"), damaged).expect("it is written");
    let (_, said) = fails(&at, &["restore", place, "--data-dir", at.with_file_name("other").to_str().expect("UTF-8")]);
    assert!(said.contains("is damaged"), "{said}");
}

/// The states and parked readings of a snapshot file.
#[track_caller]
fn entries(path: &Path) -> (Vec<tidegate_actors::state::DeviceState>, Vec<tidegate_actors::state::ParkedReading>) {
    use tidegate_actors::snapshot::{self, Entries, Entry};
    let (mut states, mut parked) = (Vec::new(), Vec::new());
    let found = snapshot::at(path).expect("a snapshot");
    let mut entries = Entries::open(&found).expect("it opens");
    while let Some(entry) = entries.next().expect("it is whole") {
        match entry {
            Entry::State(state) => states.push(state),
            Entry::Parked(reading) => parked.push(reading),
            Entry::Kept(..) => {}
        }
    }
    (states, parked)
}

#[test]
fn one_export_at_a_time_and_a_reader_that_goes_ends_it() {
    let house = House::new();
    let node = house.start();
    let body: String =
        (0..2_000).map(|n| format!("{{\"deviceId\":\"d-{n}\",\"a\":\"{}\"}}\n", "x".repeat(300))).collect();
    let headers = [("content-type", "application/x-ndjson")];
    assert_eq!(http::request(node.http, "POST", "/metrics?ack=processed", &headers, body.as_bytes()).status, 200);
    let mut slow = node.http();
    slow.send("GET", "/state/export?rate=200", &[], b"");
    let head = slow.head().expect("it begins");
    assert_eq!((head.status, head.header("tidegate-devices")), (200, Some("2000")));
    assert!(slow.chunk().expect("a piece").is_some());
    node.get("/state/export").problem(409, "export-running");
    node.assert_alive();
    drop(slow);
    let whole = eventually("the next export", || Some(node.get("/state/export")).filter(|answer| answer.status == 200));
    assert!(whole.text().ends_with("{\"devices\":2000,\"tidegateExportEnd\":1}\n"));
    for query in ["format=xml", "rate=0", "rate=fast", "speed=1"] {
        node.get(&format!("/state/export?{query}")).problem(400, "bad-parameter");
    }
}

#[test]
fn an_import_over_http_answers_for_every_line() {
    let house = House::new();
    let node = house.start();
    let bad = "{\"deviceId\":\"a/b\",\"state\":{},\"receivedTime\":1,\"version\":1}";
    let body = format!("{}\n{bad}\n\nnot json\n{}\n", line(0), line(1));
    let answer = node.post("/state/import", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let results: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|result| result["result"].as_str()).collect();
    assert_eq!(results, [Some("imported"), Some("invalid"), Some("invalid"), Some("imported")], "{answer}");
    assert!(answer["results"][1]["detail"].as_str().is_some_and(|detail| detail.starts_with("deviceId: ")), "{answer}");
    assert_eq!((&answer["imported"], &answer["invalid"]), (&json!(2), &json!(2)));
    node.post("/state/import?overwrite=maybe", "").problem(400, "bad-parameter");
    assert_eq!(node.get("/state/import").status, 405);
    assert_eq!(node.device("d-000001").expect("it is known")["version"], 2);
}

#[test]
fn nobody_there_is_said_plainly() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let (_, said) = fails(dir.path(), &["export", "--node", &format!("http://{free}"), "-o", "x"]);
    assert!(said.contains("start one with `tidegate serve`"), "{said}");
    assert!(!dir.path().join("x").exists());
    many(&dir.path().join("y"), 3);
    let (_, said) = fails(dir.path(), &["import", "y", "--node", &format!("http://{free}")]);
    assert!(said.contains("the same command goes on") && said.contains("no node answers"), "{said}");
}

/// Writes a journal of kept pairs, as a node leaves one that is killed before its first checkpoint.
fn journal_of_pairs(data: &Path, pairs: &[(&'static [u8], Option<&'static [u8]>)]) {
    use tidegate_actors::{
        ids::{LoopId, Position},
        journal::{Batch, Commit, CommitSink, FileJournal, Journal, JournalConfig, JournalFailure},
        kept::KeptChange,
    };
    struct Nobody;
    impl CommitSink for Nobody {
        fn committed(&self, _: LoopId, _: Vec<Commit>) {}
        fn failed(&self, error: &JournalFailure) {
            panic!("{error}");
        }
        fn recovered(&self) {}
    }
    let mut batch = Batch::new(LoopId(0));
    for (key, value) in pairs {
        let (key, value) = (bytes::Bytes::from_static(key), value.map(bytes::Bytes::from_static));
        batch.push_kept(&KeptChange { key, value }).expect("it is small");
    }
    let journal = data.join("journal");
    let journal =
        FileJournal::open(&journal, JournalConfig::default(), Position(1), Arc::new(Nobody)).expect("it opens");
    journal.try_append(batch).expect("there is room");
    // It writes what it has first.
    journal.close();
}

/// The kept pairs of a snapshot file. Keys of the edge itself are not shown: it may keep some of its own.
#[track_caller]
fn pairs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    use tidegate_actors::snapshot::{self, Entries, Entry};
    let mut entries = Entries::open(&snapshot::at(path).expect("a snapshot")).expect("it opens");
    let mut pairs = Vec::new();
    while let Some(entry) = entries.next().expect("it is whole") {
        if let Entry::Kept(key, value) = entry
            && key.starts_with(b"~test")
        {
            pairs.push((key.to_vec(), value.to_vec()));
        }
    }
    pairs
}

#[test]
fn kept_pairs_survive_a_kill_a_backup_and_a_restore_and_are_shown() {
    let (source, dir) = (House::new(), tempfile::tempdir().expect("a directory"));
    journal_of_pairs(
        &source.data(),
        &[
            (b"~test/a", Some(b"1")),
            (b"~test/b", Some(b"gone")),
            (b"~test/\xff\0", Some(b"\0\x01")),
            (b"~test/b", None),
            (b"~test/a", Some(b"2")),
        ],
    );
    let output = tidegate(dir.path()).args(["journal", "inspect", "--json"]).arg(source.data()).output();
    let shown = String::from_utf8(output.expect("the binary runs").stdout).expect("UTF-8");
    let shown: Vec<Value> = shown.lines().map(json_of).filter(|line| line["kind"] == "kept").collect();
    let (keys, lengths): (Vec<_>, Vec<_>) = shown.iter().map(|line| (&line["key"], &line["valueBytes"])).unzip();
    assert_eq!(keys, ["~test/a", "~test/b", "~test/\\xff\\u{0}", "~test/b", "~test/a"]);
    assert_eq!(lengths, [&json!(1), &json!(4), &json!(2), &Value::Null, &json!(1)]);

    let expected = vec![(b"~test/a".to_vec(), b"2".to_vec()), (b"~test/\xff\0".to_vec(), b"\0\x01".to_vec())];
    let mut node = source.start();
    node.post("/metrics?ack=committed", r#"{"deviceId":"d1","a":1}"#);
    node.kill9();
    let mut node = source.start();
    let backup = dir.path().join("backup");
    let (place, data) = (backup.to_str().expect("UTF-8"), dir.path().join("data"));
    let manifest = json_of(&ok(dir.path(), &["backup", place, "--node", &url(&node), "--json"]));
    assert!(manifest["kept"].as_u64().is_some_and(|kept| kept >= 2), "{manifest}");
    assert_eq!(pairs(&backup.join("states.tgs")), expected);
    assert_eq!(node.stop(), Some(0));

    ok(dir.path(), &["restore", place, "--data-dir", data.to_str().expect("UTF-8")]);
    let restored = House::in_dir(dir);
    let mut node = restored.start();
    assert!(node.device("d1").is_some());
    assert_eq!(node.stop(), Some(0));
    let at = restored.data();
    let (from, again) = (at.to_str().expect("UTF-8"), at.with_file_name("again.tgs"));
    ok(&at, &["export", "--data-dir", from, "--format", "binary", "-o", again.to_str().expect("UTF-8")]);
    assert_eq!(pairs(&again), expected);
}

#[test]
fn an_export_that_is_through_makes_room_for_the_next() {
    let house = House::new();
    let node = house.start();
    node.post("/metrics?ack=committed", r#"{"deviceId":"d1","a":1}"#);
    // The end of the body says that it is through.
    for number in 0..500 {
        let answer = node.get("/state/export");
        assert_eq!(answer.status, 200, "export {number}: {}", answer.text());
    }
}

#[test]
fn a_backup_has_the_versions_of_the_handlers_and_which_are_off() {
    let version = |n: u32| format!("export function onMetric(m) {{ return {{ ...m, version: {n} }}; }}");
    let source = House::new()
        .handler("10-a.js", &version(1))
        .handler("20-b.js", "export function onMetric(m) { return { ...m, b: true }; }");
    let node = source.start();
    fs::write(source.path("handlers/10-a.js"), version(2)).expect("it is written");
    assert_eq!(node.post("/scripts/reload?canary=false", "").json()["generation"], 2);
    assert_eq!(node.post("/scripts/20-b.js/disable", "").status, 200);

    let dir = tempfile::tempdir().expect("a directory");
    let backup = dir.path().join("backup");
    let place = backup.to_str().expect("UTF-8").to_owned();
    let manifest = json_of(&ok(dir.path(), &["backup", &place, "--node", &url(&node), "--json"]));
    assert_eq!((&manifest["scripts"]["file"], &manifest["scripts"]["sets"]), (&json!("scripts.json"), &json!(2)));
    let data = dir.path().join("data");
    let restored =
        json_of(&ok(dir.path(), &["restore", &place, "--data-dir", data.to_str().expect("UTF-8"), "--json"]));
    assert_eq!(restored["sets"], 2);

    // The same files as before: the same version, the same handler off, and the former version to go back to.
    let again = House::in_dir(dir)
        .handler("10-a.js", &version(2))
        .handler("20-b.js", "export function onMetric(m) { return { ...m, b: true }; }");
    let mut node = again.start();
    let kept = |node: &support::node::Node, state: Value| {
        assert_eq!(node.post("/devices/d/metrics?ack=processed", r#"{"t":1}"#).status, 200);
        assert_eq!(node.device("d").expect("it is known")["state"], state);
    };
    let scripts = node.get("/scripts").json();
    assert_eq!((&scripts["generation"], &scripts["scripts"][1]["enabled"]), (&json!(2), &json!(false)), "{scripts}");
    kept(&node, json!({"t": 1, "version": 2}));
    let back = node.post("/scripts/rollback", "");
    assert_eq!((back.status, &back.json()["generation"]), (200, &json!(3)), "{}", back.text());
    kept(&node, json!({"t": 1, "version": 1}));
    assert_eq!(node.stop(), Some(0));

    let file = backup.join("scripts.json");
    let damaged = fs::read_to_string(&file).expect("it is there").replace("version: 1", "version: 7");
    fs::write(&file, damaged).expect("it is written");
    let other = again.path("other").display().to_string();
    let (_, said) = fails(&again.path("."), &["restore", &place, "--data-dir", &other]);
    assert!(said.contains("scripts.json is damaged"), "{said}");
    // A backup of a version that had none of it.
    let path = backup.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("JSON");
    manifest.as_object_mut().expect("an object").remove("scripts");
    fs::write(&path, manifest.to_string()).expect("it is written");
    ok(&again.path("."), &["restore", &place, "--data-dir", &other]);
}
