//! Any work, any checkpoints, any restarts.

use proptest::prelude::*;

use super::{Runtime, answer, fold, recovered, work};
use crate::{ids::Position, recovery::recover, store::StateStore};

#[derive(Debug, Clone, Copy)]
enum Step {
    Read { number: u64, routed: bool },
    Answer { device: u64, way: u64 },
    Keep { key: u64, value: Option<u64> },
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u64..50, any::<bool>()).prop_map(|(number, routed)| Step::Read { number, routed }),
        4 => (0_u64..7, 0_u64..5).prop_map(|(device, way)| Step::Answer { device, way }),
        4 => (0_u64..7, prop::option::of(0_u64..50)).prop_map(|(key, value)| Step::Keep { key, value }),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_recovery_finds_what_the_runtime_had(steps in steps(), segment_bytes in 300_u64..5_000) {
        let dir = tempfile::tempdir().unwrap();
        let mut runtime = Runtime::open(dir.path(), segment_bytes);
        for step in steps {
            match step {
                Step::Read { number, routed } => runtime.read(number, routed),
                Step::Answer { device, way } => answer(&mut runtime, device, way),
                Step::Keep { key, value } => {
                    runtime.keep(format!("key {key}"), value.map(|value| value.to_string().into()));
                }
                Step::Checkpoint => runtime.checkpoint(),
            }
        }
        let expected = runtime.stop();
        for _ in 0..2 {
            let found = recovered(dir.path());
            prop_assert!(found.report.is_clean(), "{:?}", found.report);
            expected.check(&found);
        }
    }
}

#[test]
fn only_what_is_beyond_the_checkpoint_is_folded_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    for number in 0..50 {
        runtime.read(number, false);
    }
    runtime.checkpoint();
    for number in 50..60 {
        runtime.read(number, false);
    }
    let expected = runtime.stop();
    let found = recovered(dir.path());
    expected.check(&found);
    assert_eq!((found.report.replayed_after, found.report.folded), (Position(50), 10));
    drop(found);
    let found = recovered(dir.path());
    expected.check(&found);
    assert_eq!((found.report.replayed_after, found.report.folded), (Position(60), 0));
}

#[test]
fn an_outcome_that_was_folded_but_is_not_in_the_journal_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    runtime.read(3, true);
    let first = runtime.waiting.values().flatten().next().unwrap().clone();
    runtime.fold(&first, &crate::script::Verdict::Unchanged, &[]);
    runtime.checkpoint();
    let expected = runtime.stop();
    let found = recovered(dir.path());
    assert_eq!(found.unfinished, []);
    assert_eq!(found.store.get(first.device().as_str()).unwrap().as_ref(), expected.states.values().next());
}

#[test]
fn a_lost_outcome_parks_its_reading() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 100_000);
    runtime.read(0, true);
    runtime.read(7, true);
    answer(&mut runtime, 0, 1);
    let damaged = runtime.last.0;
    answer(&mut runtime, 0, 1);
    let expected = runtime.stop();
    let path = dir.path().join("journal/00000000000000000001.tgj");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == damaged.to_le_bytes()).unwrap();
    bytes[at + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let found = recovered(dir.path());
    assert_eq!((found.report.orphaned, found.report.is_clean()), (1, false));
    assert_eq!(found.unfinished, []);
    let parked = found.store.parked(None, 10).unwrap();
    assert_eq!((parked.len(), parked[0].position), (1, Position(1)));
    assert!(parked[0].message.contains("lost in a damaged place"), "{parked:?}");
    assert_eq!(found.next, expected.last.plus(1));
    let state = found.store.get("pump-0").unwrap().unwrap();
    assert_eq!((state.position, &*state.state), (Position(2), b"{\"kept\":1}".as_slice()));
}

#[test]
fn the_defaults_recover_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtime = Runtime::open(dir.path(), 2_000);
    work(&mut runtime, 30);
    let expected = runtime.stop();
    expected.check(&recover(dir.path(), &mut fold).unwrap());
}
