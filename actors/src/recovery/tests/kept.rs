//! Kept pairs over crashes, checkpoints, snapshots and a store that is rebuilt: always what a `BTreeMap` says.

use std::{collections::BTreeMap, fs, io::Write, path::Path, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Runtime, apply, kept_in, recovered};
use crate::{
    checkpoint::{CheckpointBatch, CheckpointConfig, Checkpointer},
    child::killed_while_it_writes,
    export::Base,
    ids::LoopId,
    journal::Retention,
    kept::KeptChange,
    limits,
    recovery::DataDir,
    snapshot::{self, Entry, Writer},
    store::ParkedChanges,
};

#[derive(Debug, Clone)]
enum Step {
    Keep {
        key: u8,
        value: Option<u16>,
    },
    Read(u64),
    Checkpoint,
    /// Of what the store has at a checkpoint.
    Snapshot,
    /// The node ends without a checkpoint, and starts again.
    Crash,
    /// It ends, and its store is not to be trusted any more.
    Damage,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0_u8..12, prop::option::weighted(0.7, any::<u16>())).prop_map(|(key, value)| Step::Keep { key, value }),
        2 => (0_u64..20).prop_map(Step::Read),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Crash),
        1 => Just(Step::Damage),
    ];
    prop::collection::vec(step, 0..70)
}

/// Keys of many shapes: a prefix of another, bytes that are no text, a long one.
fn key(number: u8) -> Bytes {
    match number {
        0 => Bytes::from_static(b"s"),
        1 => Bytes::from_static(b"s\0"),
        2 => Bytes::from_static(b"\xff\xff"),
        3 => Bytes::from(vec![b'q'; limits::KEPT_KEY_BYTES]),
        number => Bytes::from(format!("s{number}")),
    }
}

fn end(runtime: Runtime, model: &BTreeMap<Bytes, Bytes>) {
    let expected = runtime.stop();
    assert_eq!(&expected.kept, model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn kept_pairs_are_a_btreemap_whatever_happens(steps in steps(), segment_bytes in 300_u64..5_000) {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snapshots");
        let mut model = BTreeMap::new();
        let mut runtime = Runtime::open(dir.path(), segment_bytes);
        for step in steps {
            match step {
                Step::Keep { key: number, value } => {
                    let value = value.map(|value| Bytes::from(vec![b'v'; usize::from(value) % 700]));
                    apply(&mut model, &KeptChange { key: key(number), value: value.clone() });
                    runtime.keep(key(number), value);
                }
                Step::Read(number) => runtime.read(number, false),
                Step::Checkpoint => runtime.checkpoint(),
                Step::Snapshot => {
                    runtime.checkpoint();
                    snapshot::write(&*runtime.store, &snapshots).unwrap();
                    snapshot::prune(&snapshots).unwrap();
                }
                Step::Crash => {
                    end(runtime, &model);
                    runtime = Runtime::open(dir.path(), segment_bytes);
                }
                Step::Damage => {
                    end(runtime, &model);
                    fs::write(dir.path().join("state.folded"), b"?").unwrap();
                    let found = recovered(dir.path());
                    prop_assert_eq!(kept_in(&*found.store), model.clone());
                    drop(found);
                    runtime = Runtime::open(dir.path(), segment_bytes);
                }
            }
        }
        let expected = runtime.stop();
        prop_assert_eq!(&expected.kept, &model);
        for _ in 0..2 {
            expected.check(&recovered(dir.path()));
        }
    }
}

#[test]
fn a_store_of_pairs_only_is_rebuilt_from_a_snapshot_whose_journal_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    for number in 0..100_u8 {
        runtime.keep(vec![number % 30], Some(vec![number; 100].into()));
    }
    runtime.checkpoint();
    snapshot::write(&*runtime.store, &dir.path().join("snapshots")).unwrap();
    let expected = runtime.stop();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    fs::remove_file(dir.path().join("state.folded")).unwrap();
    for _ in 0..2 {
        let found = recovered(dir.path());
        assert!(found.report.store_quarantined.is_none(), "{:?}", found.report);
        assert_eq!((kept_in(&*found.store), found.next), (expected.kept.clone(), expected.last.plus(1)));
    }
}

/// A backup is a snapshot of an export; a restore puts it where a start looks for snapshots.
#[test]
fn pairs_survive_a_backup_of_a_running_node_and_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    for number in 0..50_u8 {
        runtime.keep(vec![b's', number % 20], (number % 7 > 0).then(|| vec![number; 30].into()));
        runtime.read(number.into(), false);
        if number == 30 {
            runtime.checkpoint();
        }
    }
    let base = Base::take(&*runtime.store, &dir.path().join("export"), &mut |_| ()).unwrap();
    // Put, changed and forgotten after the copy.
    runtime.keep(vec![b's', 3], Some(Bytes::from_static(b"changed")));
    runtime.keep(vec![b's', 4], None);
    runtime.keep(vec![b'a'], Some(Bytes::from_static(b"first")));
    runtime.keep(vec![b'z'], Some(Bytes::new()));
    let export = base.fold(&DataDir::new(dir.path()).journal(), runtime.last).unwrap();
    let to = tempfile::tempdir().unwrap();
    let snapshots = DataDir::new(to.path()).snapshots();
    fs::create_dir_all(&snapshots).unwrap();
    let file = fs::File::create(snapshots.join(snapshot::file_name(export.position()))).unwrap();
    let mut writer = Writer::begin(file, export.position()).unwrap();
    let mut put = |entry| match entry {
        Entry::State(state) => writer.state(&state),
        Entry::Parked(parked) => writer.parked(&parked),
        Entry::Kept(key, value) => writer.kept(&key, &value),
    };
    export.for_each(&mut put).unwrap();
    writer.end().unwrap();
    let restored = recovered(to.path());
    assert_eq!(kept_in(&*restored.store), runtime.kept);
}

const DIR: &str = "TIDEGATE_TEST_KEPT";

/// What the record at a position is: 50 keys, put again and again, and sometimes forgotten.
fn nth(position: u64) -> KeptChange {
    let value = (!position.is_multiple_of(7)).then(|| Bytes::from(format!("value {position}")));
    KeptChange { key: format!("key {}", position % 50).into(), value }
}

/// The child's part: does nothing when it is run as a test.
#[test]
fn child_keeps_until_it_is_killed() {
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
    let mut unsent = Vec::new();
    loop {
        let KeptChange { key, value } = nth(runtime.last.0 + 1);
        runtime.keep(key, value);
        writeln!(std::io::stdout(), "committed {}", runtime.last).expect("the parent reads, or has killed us");
        if runtime.last.0.is_multiple_of(5) {
            unsent.append(&mut runtime.unstored.borrow_mut());
            let batch = CheckpointBatch {
                owner: LoopId(0),
                states: Vec::new(),
                parked: ParkedChanges::default(),
                kept: std::mem::take(&mut unsent),
                folded_through: runtime.folded_through(),
            };
            if let Err(back) = checkpointer.try_submit(batch) {
                unsent = back.kept;
            }
        }
    }
}

#[test]
fn kept_pairs_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let child = "recovery::tests::kept::child_keeps_until_it_is_killed";
        let acknowledged = killed_while_it_writes(child, DIR, dir.path(), 150 + 83 * round);
        let found = recovered(dir.path());
        assert!(found.report.is_clean(), "{:?}", found.report);
        assert!(found.next.0 > acknowledged, "{acknowledged} was acknowledged: {:?}", found.report);
        let mut expected = BTreeMap::new();
        (1..found.next.0).for_each(|position| apply(&mut expected, &nth(position)));
        assert_eq!(kept_in(&*found.store), expected, "{:?}", found.report);
    }
    assert!(dir.path().join("snapshots").read_dir().unwrap().count() > 0, "snapshots were written meanwhile");
}
