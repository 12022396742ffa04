//! `kill -9` at any moment: what was acknowledged is there. The child is this test binary, writing until it is killed.

use std::{io::Write, sync::Arc};

use super::{
    doubles::{batch, record},
    roundtrip::{SMALL, all},
};
use crate::{
    child::killed_while_it_writes,
    ids::{LoopId, Position},
    journal::{Commit, CommitSink, FileJournal, Journal, JournalFailure},
};

const DIR: &str = "TIDEGATE_TEST_JOURNAL";

/// Says on the standard output what is committed, as an acknowledgement.
struct Speaking;

impl CommitSink for Speaking {
    fn committed(&self, _: LoopId, commits: Vec<Commit>) {
        for commit in commits {
            let last = commit.first.0 + commit.records as u64 - 1;
            writeln!(std::io::stdout(), "committed {last}").expect("the parent reads, or has killed us");
        }
    }
    fn failed(&self, error: &JournalFailure) {
        panic!("{error}");
    }
    fn recovered(&self) {}
}

/// The child's part: does nothing when it is run as a test.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (_, report) = all(dir.as_ref(), 1);
    let mut number = report.last.0;
    let journal = FileJournal::open(dir.as_ref(), SMALL, Position(number + 1), Arc::new(Speaking)).unwrap();
    loop {
        let records = (number..number + number % 5 + 1).map(record).collect::<Vec<_>>();
        let mut next = batch((number % 2) as u16, &records);
        next.set_urgent();
        while let Err(back) = journal.try_append(next) {
            next = back;
            std::thread::yield_now();
        }
        number += records.len() as u64;
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..8 {
        let child = "journal::tests::crash::child_writes_until_it_is_killed";
        let acknowledged = killed_while_it_writes(child, DIR, dir.path(), 20 + 37 * round);
        let (found, report) = all(dir.path(), 1);
        assert!(report.last.0 >= acknowledged, "{acknowledged} was acknowledged: {report:?}");
        assert!(acknowledged > before, "it went on from {before}");
        assert!(report.missing.is_empty() && report.quarantined.is_empty(), "{report:?}");
        assert!(found.iter().map(|(position, _)| position.0).eq(1..=report.last.0));
        for (position, found) in found {
            assert_eq!(found, record(position.0 - 1));
        }
        before = report.last.0;
    }
}
