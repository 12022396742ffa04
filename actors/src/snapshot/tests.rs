//! A snapshot is whole or refused: every byte flipped, every cut.

use super::*;
use crate::store::{
    Changes, MemoryStore,
    tests::{changes, parked, state},
};

fn small_store() -> MemoryStore {
    let store = MemoryStore::new();
    let states = (0..5).map(|device| state(device, device + 10)).collect::<Vec<_>>();
    let kept = ["r/topic", "s/client"].map(|key| KeptChange { key: key.into(), value: Some(Bytes::from_static(b"v")) });
    let changes = Changes { kept: kept.to_vec(), ..changes(&states, &[parked(3), parked(9)]) };
    store.write(&changes, Position(14)).unwrap();
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
    let value = Bytes::from_static(b"v");
    expected.extend(["r/topic", "s/client"].map(|key| Entry::Kept(key.into(), value.clone())));
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

#[test]
fn an_entry_of_a_kind_that_came_later_is_of_a_newer_version_and_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file_name(Position(14)));
    let mut writer = Writer::begin(File::create(&path).unwrap(), Position(14)).unwrap();
    writer.state(&state(1, 14)).unwrap();
    writer.entry(KEPT_PAIR + 1, |_| Ok(())).unwrap();
    writer.end().unwrap();
    let written = Snapshot { position: Position(14), path };
    assert!(matches!(verify(&written), Err(SnapshotError::Newer { .. })));
}

/// A build that knows no pairs compares the end with two counts.
#[test]
fn a_snapshot_without_pairs_ends_as_it_always_did() {
    let written = Writer::begin(Vec::new(), Position(14)).unwrap().end().unwrap();
    assert_eq!(written.len(), HEAD + 4 + 4 + 1 + 16);
}
