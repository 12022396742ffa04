//! A damaged store or snapshot: moved away, reported, and rebuilt with the same states.

use std::{fs, path::Path, time::Duration};

use super::{Expected, Runtime, recovered, work};
use crate::{
    checkpoint::{CheckpointBatch, CheckpointConfig, Checkpointer},
    ids::{LoopId, Position},
    journal::Journal,
    snapshot,
    store::ParkedChanges,
};

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let from = bytes.len() / 3;
    let to = bytes.len() * 2 / 3;
    bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(path, bytes).unwrap();
}

fn rebuilt(dir: &Path, expected: &Expected) {
    let found = recovered(dir);
    expected.check(&found);
    let (moved, reason) = found.report.store_quarantined.clone().expect("it was moved away");
    assert!(moved.is_dir() && !reason.is_empty(), "{moved:?} {reason}");
    assert!(!found.report.is_clean());
    drop(found);
    let again = recovered(dir);
    expected.check(&again);
    assert!(again.report.is_clean(), "it is well afterwards: {:?}", again.report);
}

#[test]
fn a_damaged_sled_is_rebuilt_from_the_journal() {
    for file in ["db", "conf", "gone", "position"] {
        let dir = tempfile::tempdir().unwrap();
        let mut runtime = Runtime::open(dir.path(), 2_000);
        work(&mut runtime, 80);
        let expected = runtime.stop();
        match file {
            "gone" => fs::remove_dir_all(dir.path().join("state")).unwrap(),
            "position" => fs::write(dir.path().join("state.folded"), b"?").unwrap(),
            _ => damage(&dir.path().join("state").join(file)),
        }
        rebuilt(dir.path(), &expected);
    }
}

#[test]
fn a_damaged_sled_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    work(&mut runtime, 80);
    let expected = runtime.stop();
    // sled writes a snapshot of its own when it is opened.
    expected.check(&recovered(dir.path()));
    let snapshots = fs::read_dir(dir.path().join("state")).unwrap().map(|entry| entry.unwrap().path());
    let snapshots = snapshots.filter(|path| path.display().to_string().contains("snap.")).collect::<Vec<_>>();
    assert!(!snapshots.is_empty(), "sled has a snapshot file");
    snapshots.iter().for_each(|path| damage(path));
    expected.check(&recovered(dir.path()));
}

/// A runtime with two snapshots, and a journal that begins after the older one.
fn with_snapshots(dir: &Path) -> Expected {
    let mut runtime = Runtime::open(dir, 600);
    let config = CheckpointConfig {
        interval: Duration::from_millis(5),
        snapshot_dir: dir.join("snapshots"),
        journal_retention_bytes: 8_000,
        loops: 1,
    };
    let checkpointer = Checkpointer::start(runtime.store.clone(), runtime.journal.clone(), config).unwrap();
    for round in 0..12 {
        for number in 0..25 {
            runtime.read(round * 25 + number, false);
        }
        let batch = CheckpointBatch {
            owner: LoopId(0),
            states: runtime.states.values().cloned().collect(),
            parked: ParkedChanges::default(),
            folded_through: runtime.folded_through(),
        };
        checkpointer.try_submit(batch).unwrap();
        while checkpointer.written_through(LoopId(0)) < round + 1 {
            std::thread::yield_now();
        }
    }
    checkpointer.stop().unwrap();
    drop(checkpointer);
    // Beyond the last checkpoint.
    runtime.read(1_000, false);
    let segments = runtime.journal.status().segments;
    let expected = runtime.stop();
    let first = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().file_name()).min().unwrap();
    assert!(first.to_str().unwrap() > "00000000000000000001.tgj", "segments were freed: {first:?} of {segments}");
    expected
}

#[test]
fn a_store_is_rebuilt_from_the_newest_snapshot_and_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let expected = with_snapshots(dir.path());
    let newest = snapshot::list(&dir.path().join("snapshots")).unwrap()[0].position;
    damage(&dir.path().join("state/db"));
    rebuilt(dir.path(), &expected);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    fs::remove_file(dir.path().join("state.folded")).unwrap();
    let found = recovered(dir.path());
    expected.check(&found);
    assert_eq!(found.report.snapshot_used, Some(newest));
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let expected = with_snapshots(dir.path());
    let snapshots = snapshot::list(&dir.path().join("snapshots")).unwrap();
    assert_eq!(snapshots.len(), snapshot::KEPT);
    damage(&snapshots[0].path);
    damage(&dir.path().join("state/db"));
    let found = recovered(dir.path());
    expected.check(&found);
    assert_eq!(found.report.snapshot_used, Some(snapshots[1].position));
    assert_eq!(found.report.snapshots_damaged.len(), 1, "{:?}", found.report);
    assert!(found.report.journal.missing.is_empty(), "{:?}", found.report);
}

#[test]
fn when_nothing_covers_what_was_freed_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    with_snapshots(dir.path());
    for snapshot in snapshot::list(&dir.path().join("snapshots")).unwrap() {
        damage(&snapshot.path);
    }
    damage(&dir.path().join("state/db"));
    let found = recovered(dir.path());
    assert_eq!(found.report.snapshots_damaged.len(), 2);
    assert_eq!(found.report.journal.missing[0].first, Position(1));
    assert!(!found.report.is_clean());
}

#[test]
fn a_store_behind_a_snapshot_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    work(&mut runtime, 20);
    let expected = runtime.stop();
    // A backup of the store, side file and all, is put back under a newer snapshot.
    let backup = tempfile::tempdir().unwrap();
    for name in ["state", "state.folded"] {
        fs::rename(dir.path().join(name), backup.path().join(name)).unwrap();
    }
    let found = recovered(dir.path());
    expected.check(&found);
    let made = snapshot::write(&*found.store, &dir.path().join("snapshots")).unwrap();
    drop(found);
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    for name in ["state", "state.folded"] {
        fs::rename(backup.path().join(name), dir.path().join(name)).unwrap();
    }
    let found = recovered(dir.path());
    expected.check(&found);
    assert_eq!(found.report.snapshot_used, Some(made.position));
    assert!(found.report.store_quarantined.as_ref().unwrap().1.contains("and a snapshot up to"), "{:?}", found.report);
}
