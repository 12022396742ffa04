//! For tests only: parts of a test that run in a process of their own, which is this test binary again with one test selected.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

fn this_test_binary() -> std::path::PathBuf {
    std::env::current_exe().expect("the test binary knows its path")
}

/// Runs the test `child` with `variable` naming `dir`, kills it -9 some lines after its `first` "committed N", and returns the
/// greatest N that it had said: its acknowledgement.
#[track_caller]
pub(crate) fn killed_while_it_writes(child: &str, variable: &str, dir: &Path, first: usize) -> u64 {
    let mut process = Command::new(this_test_binary())
        .args(["--exact", child, "--nocapture"])
        .env(variable, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test binary runs");
    let mut said = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let committed = |line: String| line.strip_prefix("committed ").and_then(|last| last.parse::<u64>().ok());
    // Kill it in the middle of its work, then hear what it had still said.
    let early = said.by_ref().filter_map(committed).nth(first);
    process.kill().expect("a child of ours");
    process.wait().expect("a child of ours");
    said.filter_map(committed).max().or(early).expect("it wrote until it was killed")
}

/// Runs the test `child` with `variable` naming a tmpfs of `size` in a mount namespace of its own; it must say `words`.
/// Where the machine gives no such disk, it says so and lets the fault doubles speak.
#[track_caller]
pub(crate) fn on_a_small_disk(child: &str, variable: &str, size: &str, words: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = "mount -t tmpfs -o size=\"$3\" tmpfs \"$0\" || exit 77; exec \"$1\" --exact \"$2\" --nocapture";
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", mount])
        .arg(dir.path())
        .arg(this_test_binary())
        .args([child, size])
        .env(variable, dir.path())
        .output();
    match ran {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(words), "{said}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        other => println!("no small disk to be had here: {other:?}"),
    }
}
