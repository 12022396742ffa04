//! A damaged store or snapshot: moved away, reported, and rebuilt with the same states.

use std::{fs, path::Path, time::Duration};

use super::{Expected, Runtime, recovered, work};
use crate::{
    checkpoint::{CheckpointBatch, CheckpointConfig, Checkpointer},
    ids::{LoopId, Position},
    journal::{Journal, Retention},
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

/// Every file of sled, cut or overwritten anywhere: the states come out the same, from sled or from the journal.
/// `TIDEGATE_DAMAGE_SEED` repeats a run.
#[test]
fn any_damage_to_sled_is_found_or_harmless() {
    let original = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(original.path(), 2_000);
    work(&mut runtime, 80);
    let expected = runtime.stop();
    // Folded and written by a recovery, and opened again: sled has made a snapshot of its own by then.
    expected.check(&recovered(original.path()));
    expected.check(&recovered(original.path()));
    let state = original.path().join("state");
    let mut files = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|path| path.is_file());
    files.sort();
    let names = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>();
    for part in ["db", "conf", "snap."] {
        assert!(names.iter().any(|name| name.starts_with(part)), "{names:?}");
    }

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = std::env::var("TIDEGATE_DAMAGE_SEED").map_or(now.as_nanos() as u64, |seed| seed.parse().unwrap());
    println!("TIDEGATE_DAMAGE_SEED={seed}");
    let mut number = seed;
    let mut below = |most: usize| {
        // SplitMix64.
        number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % most.max(1) as u64) as usize
    };
    for round in 0..48 {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        let name = names[round % names.len()];
        let path = dir.path().join("state").join(name);
        let mut bytes = fs::read(&path).unwrap();
        // Most of `db` is not used yet: one in two is where the data is.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let most = if below(2) == 0 { used } else { bytes.len() };
        let at = below(most);
        let to = (at + 1 + below(64)).min(bytes.len());
        match below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at..to].fill(0),
            2 => bytes[at..to].iter_mut().for_each(|byte| *byte = below(256) as u8),
            _ => bytes[at] ^= 1 << below(8),
        }
        fs::write(&path, bytes).unwrap();
        println!("round {round}: {name} at {at}");
        expected.check(&recovered(dir.path()));
        let again = recovered(dir.path());
        expected.check(&again);
        assert!(again.report.is_clean(), "it is well afterwards: {:?}", again.report);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if path.is_dir() { copy(&path, &to.join(name)) } else { fs::copy(&path, to.join(name)).map(|_| ()).unwrap() }
    }
}

/// A runtime with two snapshots, and a journal that begins after the older one.
fn with_snapshots(dir: &Path) -> Expected {
    let mut runtime = Runtime::open(dir, 600);
    let config = CheckpointConfig {
        interval: Duration::from_millis(5),
        snapshot_dir: dir.join("snapshots"),
        retention: Retention { bytes: 8_000, age: None },
        loops: 1,
    };
    let checkpointer = Checkpointer::start(runtime.store.clone(), runtime.journal.clone(), config).unwrap();
    for round in 0..12 {
        for number in 0..25 {
            runtime.read(round * 25 + number, false);
            runtime.keep(format!("key {}", number % 10), (number < 20).then(|| round.to_string().into()));
        }
        let batch = CheckpointBatch {
            owner: LoopId(0),
            states: runtime.states.values().cloned().collect(),
            parked: ParkedChanges::default(),
            kept: runtime.unstored.take(),
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
