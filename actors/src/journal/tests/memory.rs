//! The double in memory keeps the promises of the real one, and loses on demand what was not committed.

use super::doubles::{WaitingSink, batch, record};
use crate::{
    ids::{LoopId, Position},
    journal::{Commit, CommitMode, Journal, MemoryJournal},
    limits,
};

#[test]
fn what_was_not_committed_is_lost_with_the_power() {
    let sink = WaitingSink::new();
    let journal = MemoryJournal::new(Position(5), CommitMode::Manual, sink.clone());
    journal.try_append(batch(0, &[record(0), record(1)])).unwrap();
    journal.try_append(batch(1, &[record(2)])).unwrap();
    assert_eq!(journal.commit(), 3);
    journal.try_append(batch(0, &[record(3)])).unwrap();
    assert_eq!(journal.lose_unsynced(), 1);
    assert_eq!((journal.commit(), journal.status().committed), (0, Position(7)));
    assert_eq!(journal.durable(), (5..8).map(|at| (Position(at), record(at - 5))).collect::<Vec<_>>());
    sink.wait(|told| {
        assert_eq!(told.of(LoopId(0)), [Commit { first: Position(5), records: 2 }]);
        assert_eq!(told.of(LoopId(1)), [Commit { first: Position(7), records: 1 }]);
        Some(())
    });
    journal.release(Position(6));
    assert_eq!(journal.durable(), [(Position(7), record(2))]);
}

#[test]
fn a_failure_stops_commits_and_the_queue_is_bounded() {
    let sink = WaitingSink::new();
    let journal = MemoryJournal::new(Position(1), CommitMode::AtOnce, sink.clone());
    journal.try_append(batch(0, &[record(0)])).unwrap();
    journal.fail("pulled out");
    for _ in 0..limits::JOURNAL_QUEUE {
        journal.try_append(batch(0, &[record(1)])).unwrap();
    }
    assert!(journal.try_append(batch(0, &[record(1)])).is_err());
    assert_eq!(journal.status().reason.as_deref(), Some("pulled out"));
    journal.heal();
    sink.wait(|told| {
        assert_eq!((told.records(), told.failures.len(), told.recoveries), (1 + limits::JOURNAL_QUEUE, 1, 1));
        Some(())
    });
    journal.close();
    assert!(journal.try_append(batch(0, &[record(1)])).is_err());
}
