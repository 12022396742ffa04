//! `tidegate prove-durability` from outside: what was acknowledged is there, round after round, and the report says so.

mod support;

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{eventually, node::tidegate};

/// The command, in a directory of its own and with its temporary files there.
fn prove(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = tidegate(dir);
    command.env("TMPDIR", dir).arg("prove-durability").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = prove(dir.path(), arguments).output().expect("the binary starts");
    let left = std::fs::read_dir(dir.path()).expect("it is there").count();
    assert_eq!(left > 0, output.status.code() != Some(0), "only what went wrong is left: {}", text(&output));
    output
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// Nothing lost, nothing wrong, and there was something to be lost.
#[track_caller]
fn assert_held(report: &Value, rounds: u64) {
    for figure in ["lost", "wrong", "notOpened", "quarantined", "errors", "unbalanced"] {
        assert_eq!(report[figure], 0, "{figure}: {report:#}");
    }
    assert_eq!((&report["held"], &report["rounds"]), (&Value::from(true), &Value::from(rounds)), "{report:#}");
    assert!(report["acked"].as_u64() > Some(100 * rounds), "there was hardly any load: {report:#}");
    assert!(report["recoveryMs"]["max"].as_f64() > Some(0.0), "{report:#}");
    let at_points: u64 =
        report["points"].as_object().into_iter().flatten().filter_map(|(_, times)| times.as_u64()).sum();
    let ended = at_points + report["atRandom"].as_u64().unwrap_or(0) + report["notReached"].as_u64().unwrap_or(0);
    assert_eq!(ended, rounds, "every round ended in one way: {report:#}");
}

#[test]
fn ten_crashes_lose_nothing() {
    let report = report(&run(&["--rounds", "10", "--seed", "10", "--json"]));
    assert_held(&report, 10);
    assert_eq!(report["withHandler"], 3);
    // Every other round aims at a point; on a busy machine not all of them come to it in their time.
    assert_eq!(report["atRandom"], 5, "{report:#}");
}

#[test]
fn three_power_cuts_lose_nothing() {
    let output = run(&["--rounds", "3", "--power-loss", "--seed", "3", "--json"]);
    if output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("--power-loss needs FUSE") {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let report = report(&output);
    assert_held(&report, 3);
    assert_eq!(report["powerLoss"], true);
}

#[test]
fn the_text_says_that_nothing_was_lost() {
    let output = run(&["--rounds", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    for line in ["  lost              0 acknowledged readings", "every promise was kept"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
}

#[test]
fn a_signal_ends_it_with_a_report_of_what_was_done() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = prove(dir.path(), &["--rounds", "100000", "--json", "--dir", "proof"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut child = KilledOnDrop(Some(child));
    let pid = child.0.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?)).expect("a pid");
    let data = dir.path().join("proof/plain/disk/data/LOCK");
    eventually("a node in its directory", || data.exists().then_some(()));
    kill_process(pid, Signal::INT).expect("it runs");
    let output = child.0.take().expect("it was started").wait_with_output().expect("it ends");
    let report = report(&output);
    assert_eq!((&report["interrupted"], &report["held"]), (&Value::from(true), &Value::from(true)), "{report:#}");
    assert!(report["rounds"].as_u64().is_some_and(|rounds| (1..100_000).contains(&rounds)), "{report:#}");
    assert!(data.exists(), "a directory that was named is kept");
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("precious"), "data").expect("it is written");
    let output = prove(dir.path(), &["--rounds", "1", "--dir", "."]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("it is not empty"), "{}", text(&output));
}

/// A prover that a failed test leaves is stopped.
struct KilledOnDrop(Option<Child>);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
