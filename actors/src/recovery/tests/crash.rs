//! `kill -9` of everything at once: journal, checkpoints into sled, snapshots, freed segments. The states come out right.

use std::{io::Write, path::Path, time::Duration};

use super::{Runtime, fold, recovered};
use crate::{
    checkpoint::{CheckpointBatch, CheckpointConfig, Checkpointer},
    child::killed_while_it_writes,
    ids::{LoopId, Position},
    journal::{Retention, tests::doubles::reading},
    script::Verdict,
    store::{ParkedChanges, StateStore},
};

const DIR: &str = "TIDEGATE_TEST_DATA";

/// The child's part: does nothing when it is run as a test. The record at position `p` is the reading number `p - 1`.
#[test]
fn child_runs_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let mut runtime = Runtime::open(dir, 2_000);
    let config = CheckpointConfig {
        interval: Duration::from_millis(3),
        snapshot_dir: dir.join("snapshots"),
        retention: Retention { bytes: 20_000, age: None },
        loops: 1,
    };
    let checkpointer = Checkpointer::start(runtime.store.clone(), runtime.journal.clone(), config).unwrap();
    loop {
        let number = runtime.last.0;
        runtime.read(number, false);
        writeln!(std::io::stdout(), "committed {}", number + 1).expect("the parent reads, or has killed us");
        if number.is_multiple_of(5) {
            let states = runtime.states.values().cloned().collect();
            let folded_through = runtime.folded_through();
            let owner = LoopId(0);
            let _ = checkpointer.try_submit(CheckpointBatch {
                owner,
                states,
                parked: ParkedChanges::default(),
                kept: Vec::new(),
                folded_through,
            });
        }
    }
}

#[test]
fn the_states_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let child = "recovery::tests::crash::child_runs_until_it_is_killed";
        let acknowledged = killed_while_it_writes(child, DIR, dir.path(), 150 + 83 * round);

        let found = recovered(dir.path());
        assert!(found.report.is_clean(), "{:?}", found.report);
        assert!(found.next.0 > acknowledged, "{acknowledged} was acknowledged: {:?}", found.report);
        let mut expected = std::collections::BTreeMap::new();
        for number in 0..found.next.0 - 1 {
            let reading = reading(number);
            let previous = expected.get(&reading.device);
            let state = fold(previous, Position(number + 1), &reading, &Verdict::Unchanged, &[]).unwrap();
            expected.insert(reading.device.clone(), state);
        }
        assert!(found.store.page(None, "", 100).unwrap().iter().eq(expected.values()), "{:?}", found.report);
    }
    assert!(dir.path().join("snapshots").read_dir().unwrap().count() > 0, "snapshots were written meanwhile");
}
