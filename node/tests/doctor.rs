//! `tidegate doctor` on directories that are well and on some that are not: what it says, its exit code, and that it changes nothing.

mod support;

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use support::{House, node::tidegate};

fn doctor(house: &House, words: &[&str]) -> Output {
    let mut command = tidegate(house.data().parent().expect("the house"));
    command.args(["doctor", "--data-dir"]).arg(house.data()).args(words).output().expect("the binary starts")
}

/// The exit code and the checks by name.
#[track_caller]
fn checks(house: &House, words: &[&str]) -> (Option<i32>, BTreeMap<String, Value>) {
    let run = doctor(house, &[words, &["--json"]].concat());
    let report: Value = serde_json::from_slice(&run.stdout).expect("a JSON document");
    assert_eq!(report["ok"], run.status.code() == Some(0), "{report:#}");
    let checks = report["checks"].as_array().expect("checks").iter();
    (
        run.status.code(),
        checks.map(|check| (check["name"].as_str().expect("a name").to_owned(), check.clone())).collect(),
    )
}

#[track_caller]
fn assert_status(checks: &BTreeMap<String, Value>, name: &str, status: &str, words: &str) {
    let check = checks.get(name).unwrap_or_else(|| panic!("no {name} in {checks:#?}"));
    let summary = check["summary"].as_str().expect("a sentence");
    assert!(check["status"] == status && summary.contains(words), "{check:#}");
    assert_eq!(status == "ok", check["advice"].is_null(), "what is not well has advice: {check:#}");
}

/// A directory in which a node has run, with this many readings of two devices.
fn lived_in(readings: u64) -> House {
    let house = House::new();
    let mut node = house.start();
    for n in 0..readings {
        let body = json!({"deviceId": format!("d{}", n % 2), "n": n}).to_string();
        assert_eq!(node.post("/metrics?ack=committed", &body).status, 200);
    }
    assert_eq!(node.stop(), Some(0));
    house
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
    found
}

#[test]
fn a_directory_that_is_well_is_said_to_be_and_stays_as_it_is() {
    let house = lived_in(10);
    let before = files(&house.data());
    let (code, checks) = checks(&house, &[]);
    assert_eq!(code, Some(0), "{checks:#?}");
    assert_status(&checks, "configuration", "ok", "valid");
    assert_status(&checks, "data directory", "ok", "no node runs in it");
    assert_status(&checks, "journal", "ok", "10 records at positions 1 to 10 in 1 segment");
    assert_status(&checks, "view", "ok", "2 devices are what the journal comes to");
    assert_status(&checks, "ledger", "ok", "difference 0: 0 counted before + 10 in the journal since = 10 kept");
    assert!(before == files(&house.data()), "the doctor changed something");
    let text = String::from_utf8(doctor(&house, &[]).stdout).expect("text");
    assert!(text.contains("ok    ledger ") && text.trim_end().ends_with("0 failed"), "{text}");
}

#[test]
fn a_damaged_journal_a_wrong_configuration_and_what_was_set_aside_are_told() {
    let house = lived_in(10);
    let segment = house.data().join("journal/00000000000000000001.tgj");
    std::fs::File::options()
        .write(true)
        .open(&segment)
        .expect("a segment")
        .write_all_at(b"\xff\xff", 200)
        .expect("a write");
    let quarantine = house.data().join("state.quarantined-1");
    std::fs::create_dir(&quarantine).expect("a directory");
    let config = house.data().with_file_name("bad.toml");
    std::fs::write(&config, "[mqtt]\nbindd = 1\n").expect("a file");
    let (code, checks) = checks(&house, &["--config", config.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(1));
    assert_status(&checks, "configuration", "fail", "unknown key mqtt.bindd");
    assert_status(&checks, "journal", "fail", "1 damaged place: 00000000000000000001.tgj at byte ");
    assert_status(&checks, "quarantine", "warn", "state.quarantined-1");
    // The view has the reading that the journal has lost.
    assert_status(&checks, "view", "fail", "1 of 2 devices");
    assert_status(&checks, "ledger", "fail", "difference -1: ");
}

#[test]
fn a_running_node_is_asked() {
    let house = House::new().handler("10-ok.js", "export function onMetric(metric) { return metric; }");
    let node = house.start();
    assert_eq!(node.post("/metrics?ack=processed", r#"{"deviceId":"d1","n":1}"#).status, 200);
    let address = format!("http://{}", node.http);
    let (code, asked) = checks(&house, &["--node", &address]);
    assert_eq!(code, Some(0), "{asked:#?}");
    assert_status(&asked, "data directory", "ok", &format!("process {} runs in it", node.pid()));
    assert_status(&asked, "file descriptors", "ok", "of the node");
    assert_status(&asked, "journal", "ok", "2 records");
    assert_status(&asked, "node", "ok", &format!("{address} is ready"));
    assert_status(&asked, "ledger", "ok", "difference 0: 1 received since the start = 1 committed");
    assert_status(&asked, "handlers", "ok", "1 loaded, 1 worker, 0 restarts");
    assert_status(&asked, "clock", "ok", "agrees");
    assert!(!asked.contains_key("view"), "the view is the node's while it runs");
    // Nobody listens there.
    let (code, asked) = checks(&house, &["--node", "http://127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert_status(&asked, "node", "fail", "no node answers at http://127.0.0.1:1");
    node.assert_alive();
}

#[test]
fn a_directory_that_is_not_there_is_no_failure() {
    let house = House::new();
    let (code, checks) = checks(&house, &[]);
    assert_eq!(code, Some(0), "{checks:#?}");
    assert_status(&checks, "data directory", "warn", "does not exist yet");
    assert!(!house.data().exists());
}
