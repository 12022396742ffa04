//! A snapshot is whole or refused: every byte flipped, every cut.

use super::*;
use crate::store::{
    MemoryStore,
    tests::{changes, parked, state},
};

fn small_store() -> MemoryStore {
    let store = MemoryStore::new();
    let states = (0..5).map(|device| state(device, device + 10)).collect::<Vec<_>>();
    store.write(&changes(&states, &[parked(3), parked(9)]), Position(14)).unwrap();
    store
}

fn entries(snapshot: &Snapshot) -> Result<Vec<Entry>, SnapshotError> {
    let mut entries = Vec::new();
    load(snapshot, &mut |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

#[test]
fn a_snapshot_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("snapshots");
    assert_eq!(list(&snapshots).unwrap(), []);
    let written = write(&small_store(), &snapshots).unwrap();
    assert_eq!(list(&snapshots).unwrap(), std::slice::from_ref(&written));
    let mut expected = (0..5).map(|device| Entry::State(state(device, device + 10))).collect::<Vec<_>>();
    expected.extend([Entry::Parked(parked(3)), Entry::Parked(parked(9))]);
    assert_eq!(entries(&written).unwrap(), expected);
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn a_flipped_byte_or_a_cut_anywhere_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let written = write(&small_store(), dir.path()).unwrap();
    let whole = fs::read(&written.path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [&flipped, &whole[..at]] {
            fs::write(&written.path, damaged).unwrap();
            let refused = verify(&written).unwrap_err();
            assert!(matches!(refused, SnapshotError::Damaged { .. }), "{at}: {refused}");
        }
    }
    fs::write(&written.path, [&*whole, b"x"].concat()).unwrap();
    assert!(verify(&written).is_err(), "bytes behind its end");
}

#[test]
fn the_newest_two_are_kept_and_a_damaged_one_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_store();
    for position in [20, 30, 40, 50] {
        store.write(&changes(&[], &[]), Position(position)).unwrap();
        write(&store, dir.path()).unwrap();
    }
    let positions = || list(dir.path()).unwrap().iter().map(|snapshot| snapshot.position.0).collect::<Vec<_>>();
    prune(dir.path()).unwrap();
    assert_eq!(positions(), [50, 40]);
    set_aside(&list(dir.path()).unwrap()[0]).unwrap();
    assert_eq!(positions(), [40]);
    assert!(dir.path().join("00000000000000000050.tgs.damaged").exists());
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let written = write(&small_store(), dir.path()).unwrap();
    let mut bytes = fs::read(&written.path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..HEAD].copy_from_slice(&crc.to_le_bytes());
    fs::write(&written.path, bytes).unwrap();
    assert!(matches!(verify(&written), Err(SnapshotError::Newer { .. })));
}
