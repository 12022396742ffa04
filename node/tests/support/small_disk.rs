//! A disk that can really be filled: a small tmpfs in a mount namespace of its own, in which one test of this binary runs again.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Names the small disk to the test that runs on it.
const DISK: &str = "TIDEGATE_TEST_DISK";
/// What the shell exits with when there is no such disk to be had.
const NO_DISK: i32 = 77;

/// The small disk, for the test that was started on it; `None`: it was started as an ordinary test.
pub(crate) fn disk() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// Runs the test `child` of this binary on a tmpfs of `size`. Where the machine gives none, it says so.
#[track_caller]
pub(crate) fn run_on_it(child: &str, size: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = "mount -t tmpfs -o size=\"$3\" tmpfs \"$0\" || exit 77; exec \"$1\" --exact \"$2\" --nocapture";
    let binary = std::env::current_exe().expect("the test binary knows its path");
    let run = |namespace: &[&str]| -> std::io::Result<Output> {
        let mut unshare = Command::new("unshare");
        unshare.args(namespace).args(["sh", "-c", mount]).arg(dir.path()).arg(&binary).args([child, size]);
        unshare.env(DISK, dir.path()).output()
    };
    // An ordinary user may mount in a user namespace, where the machine allows those.
    let mut last = None;
    for namespace in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        match run(namespace) {
            Ok(output) if output.status.success() => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(said.contains("1 passed"), "{child} did not run: {said}");
                eprint!("{said}");
                return;
            }
            Ok(output) if output.status.code() == Some(101) => {
                panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            }
            Ok(output) if output.status.code() != Some(NO_DISK) && output.status.code() != Some(1) => {
                panic!("{child} ended by {}", output.status);
            }
            other => last = Some(other),
        }
    }
    eprintln!("no small disk to be had here, so this was not tried: {last:?}");
}

/// A file that takes the rest of the disk, but for `leave` bytes. Dropped: it is removed, and the disk has room.
pub(crate) struct Filler(PathBuf);

impl Filler {
    #[track_caller]
    pub(crate) fn fill(disk: &Path, leave: u64) -> Self {
        let filler = Self(disk.join("filler"));
        let mut file = File::create(&filler.0).expect("the filler is made");
        let mut bytes = vec![1; 64 * 1024];
        let mut written = 0;
        while !bytes.is_empty() {
            match file.write(&bytes) {
                Ok(count) => written += count as u64,
                // Ever smaller pieces, until not one byte fits.
                Err(_) => bytes.truncate(bytes.len() / 2),
            }
        }
        file.set_len(written.saturating_sub(leave)).expect("the filler is cut");
        filler
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
