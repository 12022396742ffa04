//! A really full disk under sled: a small tmpfs in a mount namespace of its own, where the machine lets us have one.

use std::fs;

use super::{changes, state};
use crate::{
    child::on_a_small_disk,
    ids::Position,
    store::{SledConfig, SledStore, StateStore},
};

const DIR: &str = "TIDEGATE_TEST_SMALL_STORE";

/// The child's part, inside the namespace: does nothing when it is run as a test.
#[test]
fn child_fills_the_disk() {
    let Some(disk) = std::env::var_os(DIR) else { return };
    let disk = std::path::PathBuf::from(disk);
    let filler = disk.join("filler");
    let store = SledStore::open(&disk.join("state"), SledConfig::default()).unwrap();
    let states = |round: u64| (0..500).map(|device| state(device, round * 1_000 + device)).collect::<Vec<_>>();
    store.write(&changes(&states(0), &[]), Position(1)).unwrap();
    let _ = fs::write(&filler, vec![1; 64 * 1024 * 1024]);
    let mut round = 1;
    let refused = loop {
        match store.write(&changes(&states(round), &[]), Position(round + 1)) {
            Ok(()) => round += 1,
            Err(error) => break error,
        }
    };
    println!("refused in round {round}: {refused}");
    assert_eq!(store.folded(), Position(round), "what was not durable is not promised");
    fs::remove_file(&filler).unwrap();
    store.write(&changes(&states(round), &[]), Position(round + 1)).unwrap();
    drop(store);
    let store = SledStore::open(&disk.join("state"), SledConfig::default()).unwrap();
    assert_eq!((store.folded(), store.count()), (Position(round + 1), 500));
    assert_eq!(store.get("pump-007").unwrap(), Some(state(7, round * 1_000 + 7)));
    println!("the store went on after a full disk");
}

#[test]
fn a_disk_that_is_really_full() {
    on_a_small_disk("store::tests::full_disk::child_fills_the_disk", DIR, "8m", "went on after a full disk");
}
