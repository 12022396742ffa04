//! The audit of data directories that are sound, and of some in which one thing was changed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    super::{recover, recover_with},
    *,
};
use crate::{
    ids::LoopId,
    journal::{
        Batch, FileJournal, Journal, JournalConfig, OutcomeRecord,
        tests::doubles::{WaitingSink, reading},
    },
    kept::KeptChange,
    script::{ParkReason, Verdict},
    store::Changes,
};

/// A data directory that a node has run in.
struct House(tempfile::TempDir);

impl House {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> DataDir {
        DataDir::new(self.0.path())
    }

    /// Takes records into the journal, and nowhere else. Returns the position of the first.
    fn journal(&self, fill: impl FnOnce(&mut Batch)) -> Position {
        let recovered = recover(self.0.path(), &mut fold_state).unwrap();
        let sink = WaitingSink::new();
        let config = JournalConfig {
            segment_bytes: 1 << 20,
            commit_max_delay: Duration::ZERO,
            gather: Duration::ZERO,
            ..JournalConfig::default()
        };
        let journal =
            FileJournal::open(&self.data().journal(), config, recovered.next, Arc::clone(&sink) as _).unwrap();
        let mut batch = Batch::new(LoopId(0));
        fill(&mut batch);
        let records = batch.records();
        journal.try_append(batch).unwrap();
        sink.wait_for_records(records);
        journal.close();
        recovered.next
    }

    /// Folds what the journal has into the view, as a start does, and changes the view.
    fn change(&self, change: impl FnOnce(&SledStore) -> Changes) {
        let recovered = recover_with(self.0.path(), SledConfig::default(), &mut fold_state).unwrap();
        let changes = change(&recovered.store);
        recovered.store.write(&changes, recovered.store.folded()).unwrap();
    }

    fn start(&self) {
        self.change(|_| Changes::default());
    }

    fn snapshot(&self) {
        let recovered = recover(self.0.path(), &mut fold_state).unwrap();
        snapshot::write(&*recovered.store, &self.data().snapshots()).unwrap();
    }

    /// Audits it, and makes sure that nothing in it changed.
    fn audit(&self) -> Audit {
        let before = files(self.0.path());
        let scratch = tempfile::tempdir().unwrap();
        let audit = audit(&self.data(), scratch.path()).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let on_disk = audit_with(&self.data(), scratch.path(), 0).unwrap();
        assert_eq!(on_disk, audit, "in memory and on disk it comes to the same");
        assert!(before == files(self.0.path()), "the audit changed something");
        audit
    }
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn outcome(number: u64, position: Position, verdict: Verdict) -> OutcomeRecord {
    OutcomeRecord { device: reading(number).device, reading: position, verdict, script_state: SmallVec::new() }
}

fn parked() -> Verdict {
    Verdict::Parked { script: "a.js".into(), reason: ParkReason::ALL[0], message: "no".into() }
}

/// 20 readings that fold as they are, and of pump-0 one of each that handlers drop and park.
fn lived_in() -> House {
    let house = House::new();
    house.journal(|batch| {
        for number in 0..20 {
            batch.push_reading(&reading(number), false).unwrap();
        }
        batch.push_reading(&reading(21), true).unwrap();
        batch.push_reading(&reading(28), true).unwrap();
        batch.push_outcome(&outcome(21, Position(21), Verdict::Dropped { script: "a.js".into() })).unwrap();
        batch.push_outcome(&outcome(28, Position(22), parked())).unwrap();
    });
    house.start();
    house
}

#[test]
fn what_a_node_left_is_sound_with_and_without_a_snapshot_and_before_and_after_the_next_start() {
    let house = lived_in();
    let audit = house.audit();
    assert!(audit.is_sound(), "{audit:?}");
    assert_eq!((audit.snapshot, audit.has_view, audit.devices), (None, true, 7));
    assert_eq!((audit.ledger.before, audit.ledger.readings, audit.ledger.unfinished), (0, 22, 0));
    let reasons = audit.ledger.now.reasons;
    assert_eq!((audit.ledger.now.total(), reasons.dropped.iter().sum::<u64>()), (22, 1));

    house.snapshot();
    house.journal(|batch| {
        for number in 30..40 {
            batch.push_reading(&reading(number), false).unwrap();
        }
        // Its handlers had not answered when the node ended.
        batch.push_reading(&reading(42), true).unwrap();
    });
    for _ in 0..2 {
        // At first the view does not have it yet, then the start has folded it.
        let audit = house.audit();
        assert!(audit.is_sound(), "{audit:?}");
        assert_eq!(audit.snapshot, Some(Position(24)));
        assert_eq!((audit.ledger.before, audit.ledger.readings, audit.ledger.unfinished), (22, 11, 1));
        assert_eq!(audit.ledger.now.total(), 32);
        house.start();
    }
}

#[test]
fn a_changed_count_is_found_and_makes_a_difference() {
    let house = lived_in();
    house.change(|store| {
        let state = store.get("pump-3").unwrap().unwrap();
        Changes { states: vec![DeviceState { version: state.version - 1, ..state }], ..Changes::default() }
    });
    let audit = house.audit();
    assert!(!audit.is_sound());
    assert_eq!((audit.ledger.difference, audit.differing), (1, 1));
    assert_eq!(audit.differences[0].device.as_str(), "pump-3");
    assert!(audit.differences[0].what.starts_with("version: 2 in the view, 3 by the journal"), "{audit:?}");

    house.change(|store| {
        let mut state = store.get("pump-0").unwrap().unwrap();
        state.counts.settle(crate::submission::Disposition::Dropped);
        Changes { states: vec![state], ..Changes::default() }
    });
    let audit = house.audit();
    assert_eq!((audit.ledger.difference, audit.differing), (0, 2), "the sums agree, the devices do not");
    assert!(audit.differences[0].what.starts_with("counts: "), "{audit:?}");
}

#[test]
fn a_changed_state_a_stranger_and_a_missing_parked_reading_are_found() {
    let house = lived_in();
    house.change(|store| {
        let state = store.get("pump-1").unwrap().unwrap();
        let stranger = DeviceState { device: DeviceId::new("stranger").unwrap(), ..state.clone() };
        let changed = DeviceState { state: Bytes::from_static(b"{\"temperature\":-1}"), ..state };
        Changes { states: vec![stranger, changed], unparked: vec![Position(22)], ..Changes::default() }
    });
    let audit = house.audit();
    let what: Vec<_> = audit.differences.iter().map(|one| (one.device.as_str(), one.what.as_str())).collect();
    assert!(what[0].0 == "pump-1" && what[0].1.starts_with("state: "), "{what:?}");
    assert_eq!(what[1], ("stranger", "it is in the view only"));
    assert_eq!((audit.parked_differing, audit.ledger.difference), (1, -3));
}

#[test]
fn kept_pairs_that_differ_are_found() {
    let house = lived_in();
    let change =
        |key: u8, value: Option<&'static str>| KeptChange { key: vec![key].into(), value: value.map(Bytes::from) };
    house.journal(|batch| {
        (1..=5).for_each(|key| batch.push_kept(&change(key, Some("as it should be"))).unwrap());
        batch.push_kept(&change(5, None)).unwrap();
    });
    for _ in 0..2 {
        let audit = house.audit();
        assert!(audit.is_sound(), "{audit:?}");
        assert_eq!((audit.kept, audit.kept_differing), (4, 0));
        house.start();
    }
    let kept = vec![change(0, Some("a stranger")), change(2, Some("changed")), change(4, None)];
    house.change(|_| Changes { kept, ..Changes::default() });
    let audit = house.audit();
    assert!(!audit.is_sound());
    assert_eq!((audit.kept, audit.kept_differing, audit.differing), (5, 3, 0));
}

#[test]
fn an_outcome_that_the_view_has_and_the_journal_lacks_is_not_taken_for_damage() {
    let house = lived_in();
    let position = house.journal(|batch| batch.push_reading(&reading(43), true).unwrap());
    house.change(|store| {
        let device = reading(43).device;
        let before = store.get(device.as_str()).unwrap();
        let state = fold_state(before.as_ref(), position, &reading(43), &Verdict::Unchanged, &[]).unwrap();
        Changes { states: vec![state], ..Changes::default() }
    });
    let audit = house.audit();
    assert!(audit.is_sound(), "{audit:?}");
    assert_eq!((audit.ahead, audit.devices, audit.ledger.unfinished), (1, 6, 0));
}

#[test]
fn imported_states_bring_their_counts_and_dropped_parked_readings_are_gone() {
    let house = lived_in();
    let state = {
        let recovered = recover(house.0.path(), &mut fold_state).unwrap();
        recovered.store.get("pump-0").unwrap().unwrap()
    };
    let brought = DeviceState { device: DeviceId::new("brought").unwrap(), version: 900, ..state.clone() };
    house.journal(|batch| {
        batch.push_imported(&brought, false).unwrap();
        batch.push_imported(&DeviceState { version: 50, received: i64::MAX, ..state }, true).unwrap();
        batch.push_unparked(&reading(28).device, Position(22)).unwrap();
    });
    house.start();
    let audit = house.audit();
    assert!(audit.is_sound(), "{audit:?}");
    assert_eq!(audit.ledger.readings, 22);
    assert!(audit.ledger.before > 900, "{audit:?}");
}

#[test]
fn a_directory_without_a_view_says_so_and_a_view_behind_a_snapshot_is_an_error() {
    let house = lived_in();
    house.snapshot();
    let old = tempfile::tempdir().unwrap();
    copy_dir(&house.data().state(), &old.path().join("state")).unwrap();
    fs::copy(house.0.path().join("state.folded"), old.path().join("state.folded")).unwrap();
    house.journal(|batch| batch.push_reading(&reading(30), false).unwrap());
    house.start();
    house.snapshot();
    fs::remove_dir_all(house.data().state()).unwrap();
    fs::remove_file(house.0.path().join("state.folded")).unwrap();
    let audit = house.audit();
    assert!(!audit.has_view && audit.is_sound(), "{audit:?}");
    assert_eq!((audit.ledger.before, audit.ledger.readings, audit.ledger.now.total()), (22, 1, 23));

    copy_dir(&old.path().join("state"), &house.data().state()).unwrap();
    fs::copy(old.path().join("state.folded"), house.0.path().join("state.folded")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let error = super::audit(&house.data(), scratch.path()).unwrap_err();
    assert!(matches!(error, AuditError::Behind { .. }), "{error}");
}
