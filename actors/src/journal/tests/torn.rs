//! A commit of which a power cut let only some sectors through: nothing of it that stands behind the hole may count, and it is no
//! damage. What looks alike and is damage is told from it.

use std::fs;

use super::{
    doubles::{WaitingSink, batch, record},
    roundtrip::{SMALL, all},
};
use crate::{
    ids::Position,
    journal::{FileJournal, Journal, JournalConfig, segment},
};

const SECTOR: usize = 512;
/// Records of each of the two commits.
const RECORDS: u64 = 40;

/// The bytes of a segment with two commits, and where the second begins.
fn two_commits() -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { segment_bytes: 1 << 20, ..SMALL };
    let sink = WaitingSink::new();
    let journal = FileJournal::open(dir.path(), config, Position(1), sink.clone()).unwrap();
    let mut second = segment::HEAD;
    for commit in 0..2 {
        let records: Vec<_> = (commit * RECORDS..(commit + 1) * RECORDS).map(record).collect();
        let batch = batch(0, &records);
        second += if commit == 0 { batch.bytes() } else { 0 };
        journal.try_append(batch).unwrap();
        sink.wait_for_records(((commit + 1) * RECORDS) as usize);
    }
    journal.close();
    (fs::read(segment::path(dir.path(), 1)).unwrap(), second)
}

/// Scans the segment: the records that came out, whether damage was told, and whether a torn end was.
fn scanned(bytes: &[u8]) -> (usize, bool, bool) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(segment::path(dir.path(), 1), bytes).unwrap();
    let (found, report) = all(dir.path(), 1);
    let positions: Vec<u64> = found.iter().map(|(position, _)| position.0).collect();
    if report.quarantined_places == 0 {
        assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>(), "nothing stands behind a hole");
        let again = all(dir.path(), 1);
        assert_eq!((again.0, again.1.torn_tail_bytes), (found, 0), "it was cut off for good");
    }
    (positions.len(), report.quarantined_places > 0, report.torn_tail_bytes > 0)
}

#[test]
fn a_commit_with_a_hole_ends_at_the_hole() {
    let (bytes, second) = two_commits();
    let sectors = second / SECTOR..bytes.len() / SECTOR;
    assert!(sectors.len() > 4, "{sectors:?}");
    for sector in sectors {
        let mut torn = bytes.clone();
        // In the sector that the commits share, the first one's part is there.
        torn[(sector * SECTOR).max(second)..(sector + 1) * SECTOR].fill(0);
        let (records, damaged, cut) = scanned(&torn);
        assert!((RECORDS as usize..2 * RECORDS as usize).contains(&records), "sector {sector}: {records}");
        assert_eq!((damaged, cut), (false, true), "sector {sector}");
    }
}

#[test]
fn a_hole_before_a_later_commit_is_damage_and_costs_only_itself() {
    let (bytes, second) = two_commits();
    for sector in 1..second / SECTOR {
        let mut damaged = bytes.clone();
        damaged[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        let (records, told, cut) = scanned(&damaged);
        assert!(records > 2 * RECORDS as usize - 16, "sector {sector}: {records}");
        assert_eq!((told, cut), (true, false), "sector {sector}");
    }
}

#[test]
fn wrong_bytes_in_the_last_commit_are_damage_and_cost_only_their_record() {
    let (bytes, second) = two_commits();
    // Behind the last record there is nothing that could tell it from a torn end.
    for at in (second..bytes.len() - 4 * SECTOR).step_by(37) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        assert_eq!(scanned(&damaged), (2 * RECORDS as usize - 1, true, false), "byte {at}");
    }
}
