//! A damaged sled is refused or right: it never comes back with less than it had promised, and never panics.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{changes, parked, state};
use crate::{
    ids::Position,
    state::DeviceState,
    store::{SledConfig, SledStore, StateStore, StoreError, folded},
};

const DEVICES: u64 = 400;

/// A store of some checkpoints, closed; and what is in it.
fn written(dir: &Path) -> Vec<DeviceState> {
    let store = SledStore::open(&dir.join("state"), SledConfig::default()).unwrap();
    for round in 0..6 {
        let states = (0..DEVICES).filter(|device| device % (round + 1) == 0);
        let states = states.map(|device| state(device, round * 1_000 + device)).collect::<Vec<_>>();
        store.write(&changes(&states, &[parked(round + 1)]), Position(round * 1_000)).unwrap();
    }
    content(&store).unwrap()
}

fn content(store: &SledStore) -> Result<Vec<DeviceState>, StoreError> {
    let mut content = Vec::new();
    store.for_each(&mut |state| {
        content.push(state);
        ControlFlow::Continue(())
    })?;
    Ok(content)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if path.is_dir() { copy(&path, &to.join(name)) } else { fs::copy(&path, to.join(name)).map(|_| ()).unwrap() }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

#[test]
fn a_damaged_file_is_refused_or_all_is_there() {
    let original = tempfile::tempdir().unwrap();
    let expected = written(original.path());
    let names = files(&original.path().join("state"));
    assert!(names.iter().any(|name| name.ends_with("db")) && names.iter().any(|name| name.ends_with("conf")));
    let mut refused = 0;
    let mut tried = 0;
    for name in names {
        let name = name.file_name().unwrap().to_owned();
        let length = fs::metadata(original.path().join("state").join(&name)).unwrap().len() as usize;
        for share in 0..24 {
            for cut in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                copy(original.path(), dir.path());
                let path = dir.path().join("state").join(&name);
                let mut bytes = fs::read(&path).unwrap();
                let at = (length * share / 24).min(length - 1);
                if cut {
                    bytes.truncate(at);
                } else {
                    bytes[at..(at + 16).min(length)].iter_mut().for_each(|byte| *byte ^= 0x5a);
                }
                fs::write(&path, bytes).unwrap();
                tried += 1;
                let what = format!("{} of {}, {length} bytes", if cut { "cut" } else { "flipped" }, name.display());
                match SledStore::open(&dir.path().join("state"), SledConfig::default()) {
                    Ok(store) => {
                        assert_eq!(store.folded(), Position(5_000), "{what} at {at}");
                        assert!(content(&store).unwrap() == expected, "{what} at {at}: it lost something");
                    }
                    Err(StoreError::Damaged { .. }) => refused += 1,
                    Err(other) => panic!("{what} at {at}: {other}"),
                }
            }
        }
    }
    assert!(refused > 10 && refused < tried, "{refused} of {tried} were refused");
}

#[test]
fn a_store_that_comes_back_with_less_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let state_dir = dir.path().join("state");
    // An older copy of sled beside the newer side file: what a rollback looks like.
    let older = tempfile::tempdir().unwrap();
    copy(&state_dir, &older.path().join("state"));
    let store = SledStore::open(&state_dir, SledConfig::default()).unwrap();
    store.write(&changes(&[state(1, 6_000)], &[]), Position(6_000)).unwrap();
    drop(store);
    fs::remove_dir_all(&state_dir).unwrap();
    copy(&older.path().join("state"), &state_dir);
    let refused = SledStore::open(&state_dir, SledConfig::default()).unwrap_err();
    assert!(refused.to_string().contains("folded up to 6000 and came back with 5000"), "{refused}");

    let side = folded::path(&state_dir);
    fs::write(&side, b"garbage").unwrap();
    assert!(matches!(SledStore::open(&state_dir, SledConfig::default()), Err(StoreError::Damaged { .. })));
    fs::remove_file(&side).unwrap();
    assert!(matches!(SledStore::open(&state_dir, SledConfig::default()), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_torn_side_file_still_says_what_was_said_before() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let side = folded::path(&dir.path().join("state"));
    let whole = fs::read(&side).unwrap();
    for at in 0..whole.len() {
        let mut torn = whole.clone();
        torn[at] ^= 1;
        fs::write(&side, torn).unwrap();
        let said = folded::FoldedFile::read(&side).unwrap();
        let allowed = [folded::Said::Folded(Position(5_000)), folded::Said::Folded(Position(4_000))];
        assert!(allowed.contains(&said), "flipped at {at}: {said:?}");
    }
}
