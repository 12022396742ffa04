//! A disk that is really full: a small tmpfs in a mount namespace of its own, where the machine lets us have one.

use std::fs;

use super::{
    doubles::{WaitingSink, batch, record},
    roundtrip::{SMALL, all},
};
use crate::{
    child::on_a_small_disk,
    ids::Position,
    journal::{FileJournal, Journal},
};

const DIR: &str = "TIDEGATE_TEST_SMALL_DISK";

/// The child's part, inside the namespace: does nothing when it is run as a test.
#[test]
fn child_fills_the_disk() {
    let Some(disk) = std::env::var_os(DIR) else { return };
    let disk = std::path::PathBuf::from(disk);
    let (dir, filler) = (disk.join("journal"), disk.join("filler"));
    let sink = WaitingSink::new();
    let journal = FileJournal::open(&dir, SMALL, Position(1), sink.clone()).unwrap();
    journal.try_append(batch(0, &[record(0)])).unwrap();
    sink.wait_for_records(1);
    // Another takes the rest of the disk; the journal fills the space that it had set aside, and then cannot go on.
    let _ = fs::write(&filler, vec![1; 16 * 1024 * 1024]);
    let mut sent = 1;
    while journal.status().healthy {
        if journal.try_append(batch(0, &[record(sent)])).is_ok() {
            sent += 1;
        }
    }
    let reason = sink.wait(|told| told.failures.first().cloned());
    assert!(reason.no_space && reason.reason.contains("no space left"), "{reason}");
    let before = journal.status().committed;
    assert!(before.0 < sent, "what waits is not acknowledged");
    fs::remove_file(&filler).unwrap();
    sink.wait_for_records(sent as usize);
    sink.wait(|told| (told.recoveries == 1).then_some(()));
    journal.close();
    let (found, report) = all(&dir, 1);
    assert!(report.missing.is_empty() && found.len() as u64 == sent, "{report:?}");
    for (position, found) in found {
        assert_eq!(found, record(position.0 - 1));
    }
    println!("the journal went on after a full disk");
}

#[test]
fn a_disk_that_is_really_full() {
    on_a_small_disk("journal::tests::full_disk::child_fills_the_disk", DIR, "1m", "went on after a full disk");
}
