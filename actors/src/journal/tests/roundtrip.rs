//! What is written is read, in order, under the position that the sink was told.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::doubles::{WaitingSink, batch, record};
use crate::{
    ids::{LoopId, Position},
    journal::{FileJournal, Journal, JournalConfig, JournalError, Record, Retention, ScanReport, read, scan},
};

/// Small segments, so that a test sees many.
pub(super) const SMALL: JournalConfig = JournalConfig {
    segment_bytes: 4 * 1024,
    commit_max_delay: Duration::from_millis(1),
    gather: Duration::ZERO,
    segment_age: None,
};

/// Everything from `from` on.
pub(super) fn all(dir: &Path, from: u64) -> (Vec<(Position, Record)>, ScanReport) {
    let mut found = Vec::new();
    let report = scan(dir, Position(from), |position, record| {
        found.push((position, record));
        ControlFlow::Continue(())
    })
    .unwrap();
    (found, report)
}

#[test]
fn batches_of_several_loops_come_back_in_order_with_their_positions() {
    let dir = tempfile::tempdir().unwrap();
    let sink = WaitingSink::new();
    let journal = FileJournal::open(dir.path(), SMALL, Position(1), sink.clone()).unwrap();
    let mut sent: BTreeMap<u16, Vec<Vec<Record>>> = BTreeMap::new();
    let mut number = 0;
    for round in 0..60_u64 {
        let owner = (round % 3) as u16;
        let records = (0..round % 5 + 1).map(|i| record(number + i)).collect::<Vec<_>>();
        number += records.len() as u64;
        let mut next = batch(owner, &records);
        if round % 2 == 0 {
            next.set_urgent();
        }
        while let Err(back) = journal.try_append(next) {
            next = back;
            std::thread::yield_now();
        }
        sent.entry(owner).or_default().push(records);
        if round % 20 == 19 {
            sink.wait_for_records(number as usize);
        }
    }
    sink.wait_for_records(number as usize);
    assert_eq!(journal.status().committed, Position(number));
    assert!(journal.status().segments > 2, "{:?}", journal.status());
    journal.close();
    let (found, report) = all(dir.path(), 1);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.last, Position(number));
    assert!(found.iter().map(|(position, _)| position.0).eq(1..=number));
    sink.wait(|told| {
        for (owner, batches) in &sent {
            let commits = told.of(LoopId(*owner));
            assert_eq!(commits.len(), batches.len());
            for (commit, records) in commits.iter().zip(batches) {
                let first = commit.first.0 as usize - 1;
                let stored = found[first..first + commit.records].iter().map(|(_, record)| record);
                assert!(stored.eq(records));
            }
        }
        Some(())
    });
}

#[test]
fn a_journal_goes_on_where_it_ended_and_refuses_to_go_back() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let (found, report) = all(dir.path(), 1);
        assert_eq!((found.len() as u64, report.last), (round * 3, Position(round * 3)));
        let sink = WaitingSink::new();
        let journal = FileJournal::open(dir.path(), SMALL, report.last.plus(1), sink.clone()).unwrap();
        journal.try_append(batch(0, &[record(1), record(2), record(3)])).unwrap();
        sink.wait_for_records(3);
        journal.close();
    }
    let refused = FileJournal::open(dir.path(), SMALL, Position(5), WaitingSink::new()).unwrap_err();
    assert!(matches!(refused, JournalError::Ahead { found: Position(12), next: Position(5), .. }), "{refused}");
}

#[test]
fn a_segment_is_freed_only_when_all_of_it_is_covered() {
    let dir = tempfile::tempdir().unwrap();
    let sink = WaitingSink::new();
    let journal = FileJournal::open(dir.path(), SMALL, Position(1), sink.clone()).unwrap();
    for number in 0..300 {
        journal.try_append(batch(0, &[record(number)])).unwrap();
        sink.wait_for_records(number as usize + 1);
    }
    let before = journal.status();
    journal.release(Position(100));
    let (found, report) = all(dir.path(), 101);
    assert!(report.missing.is_empty(), "{report:?}");
    assert!(found.iter().map(|(position, _)| position.0).eq(101..=300));
    let after = journal.status();
    assert!(after.segments < before.segments && after.bytes < before.bytes, "{before:?} {after:?}");
    assert_eq!(after.appended_bytes, before.appended_bytes);
    journal.release(Position(u64::MAX - 1));
    assert_eq!(journal.status().segments, 1, "the one that is written stays");
    journal.close();
    let report = read(dir.path(), Position(1), |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.missing.len(), 1, "what was freed is missing to who asks for it: {report:?}");
}

#[test]
fn a_segment_that_nobody_writes_to_is_closed_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let sink = WaitingSink::new();
    let config = JournalConfig { segment_age: Some(Duration::from_millis(30)), ..SMALL };
    let journal = FileJournal::open(dir.path(), config, Position(1), sink.clone()).unwrap();
    let wait_for_segments = |segments| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while journal.status().segments != segments {
            assert!(Instant::now() < deadline, "{segments} segments: {:?}", journal.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for number in 0..3 {
        journal.try_append(batch(0, &[record(number)])).unwrap();
        sink.wait_for_records(number as usize + 1);
        wait_for_segments(number as usize + 2);
    }
    let hour = Retention { bytes: u64::MAX, age: Some(Duration::from_secs(3_600)) };
    assert_eq!(journal.beyond(&hour, Position(u64::MAX)), Position(0));
    let soon = Retention { bytes: u64::MAX, age: Some(Duration::from_millis(1)) };
    assert_eq!(journal.beyond(&soon, Position(2)), Position(2));
    journal.close();
    let (found, report) = all(dir.path(), 1);
    assert!(report.is_clean() && found.len() == 3, "{report:?}");
}

/// The files' times are a year apart, as a clock that jumps leaves them: nothing is freed for that.
#[test]
fn a_clock_that_jumped_frees_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let age = Duration::from_secs(168 * 3_600);
    let retention = Retention { bytes: u64::MAX, age: Some(age) };
    let config = JournalConfig { segment_age: retention.segment_age(), ..SMALL };
    for round in 0..4 {
        let sink = WaitingSink::new();
        let journal = FileJournal::open(dir.path(), config, Position(round + 1), sink.clone()).unwrap();
        assert_eq!(journal.beyond(&retention, Position(u64::MAX)), Position(0), "round {round}");
        journal.try_append(batch(0, &[record(round)])).unwrap();
        sink.wait_for_records(1);
        journal.close();
        let year = Duration::from_secs(365 * 24 * 3_600);
        let now = std::time::SystemTime::now();
        let time = if round % 2 == 0 { now + year } else { now - year };
        let path = dir.path().join(format!("{:020}.tgj", round + 1));
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Against a `Vec`: any batches, any restarts, any segment size.
    #[test]
    fn the_journal_is_a_vec(
        rounds in prop::collection::vec(prop::collection::vec(1_usize..40, 0..6), 1..5),
        segment_bytes in 200_u64..20_000,
        from in 1_u64..200,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { segment_bytes, commit_max_delay: Duration::ZERO, gather: Duration::ZERO, segment_age: None };
        let mut model: Vec<Record> = Vec::new();
        for batches in rounds {
            let sink = WaitingSink::new();
            let next = Position(model.len() as u64 + 1);
            let journal = FileJournal::open(dir.path(), config, next, sink.clone()).unwrap();
            let before = model.len();
            for size in batches {
                let records = (0..size).map(|i| record((model.len() + i) as u64)).collect::<Vec<_>>();
                journal.try_append(batch(0, &records)).unwrap();
                model.extend(records);
            }
            sink.wait_for_records(model.len() - before);
            journal.close();
        }
        let (found, report) = all(dir.path(), from);
        prop_assert!(report.is_clean() || from > model.len() as u64, "{:?}", report);
        prop_assert_eq!(report.last, Position(model.len() as u64));
        let expected = model.iter().enumerate().map(|(i, record)| (Position(i as u64 + 1), record.clone()));
        prop_assert_eq!(found, expected.filter(|(position, _)| position.0 >= from).collect::<Vec<_>>());
    }
}
