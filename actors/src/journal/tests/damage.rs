//! A damaged journal: never a panic, never a wrong record, always a message.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path, time::Duration};

use proptest::prelude::*;

use super::{
    doubles::{WaitingSink, batch, record},
    roundtrip::{SMALL, all},
};
use crate::{
    ids::Position,
    journal::{FileJournal, Found, Journal, JournalConfig, Record, ScanError, Span, frame, inspect, scan, segment},
};

const RECORDS: u64 = 12;

/// Segments by name, and what is in them.
type Files = Vec<(String, Vec<u8>)>;

/// A journal of three segments: the files, by name, and the records.
fn small_journal() -> (Files, Vec<(Position, Record)>) {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        segment_bytes: 450,
        commit_max_delay: Duration::ZERO,
        gather: Duration::ZERO,
        segment_age: None,
    };
    let sink = WaitingSink::new();
    let journal = FileJournal::open(dir.path(), config, Position(1), sink.clone()).unwrap();
    for number in 0..RECORDS {
        journal.try_append(batch(0, &[record(number)])).unwrap();
        sink.wait_for_records(number as usize + 1);
    }
    journal.close();
    let segments = segment::list(dir.path()).unwrap();
    assert!(segments.len() >= 3, "{segments:?}");
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let files = segments.iter().map(|segment| (name(&segment.path), fs::read(&segment.path).unwrap())).collect();
    (files, all(dir.path(), 1).0)
}

fn lay_out(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Scans damaged files: what comes out is some of what was written, in order. Then goes on writing, and all is readable.
fn check(files: &[(String, Vec<u8>)], written: &[(Position, Record)], what: &str) -> (usize, bool) {
    check_scan(files, written, what, true)
}

/// As [`check`]; `go_on`: also the second half, which takes its time.
fn check_scan(files: &[(String, Vec<u8>)], written: &[(Position, Record)], what: &str, go_on: bool) -> (usize, bool) {
    let dir = lay_out(files);
    let shown = shown(dir.path());
    let (found, report) = all(dir.path(), 1);
    assert_eq!(shown.0, found, "{what}: an inspection shows what a scan finds");
    assert_eq!(shown.1, !report.is_clean(), "{what}: an inspection tells of damage where a scan does");
    let mut rest = written.iter();
    for entry in &found {
        assert!(rest.any(|original| original == entry), "{what}: {entry:?} was not written, or not here");
    }
    let lost = written.len() - found.len();
    let missing: u64 = report.missing.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
    let cut_off = RECORDS - report.last.0;
    assert_eq!(lost as u64, missing + cut_off, "{what}: every lost record is accounted for: {report:?}");
    assert!(lost == 0 || cut_off > 0 || !report.is_clean(), "{what}: {report:?}");

    if !go_on {
        return (lost, report.is_clean());
    }
    let (again, second) = all(dir.path(), 1);
    assert_eq!(again, found, "{what}: a second scan finds the same");
    assert_eq!(second.torn_tail_bytes, 0, "{what}: a torn tail is cut once");

    let sink = WaitingSink::new();
    let journal = FileJournal::open(dir.path(), SMALL, report.last.plus(1), sink.clone()).unwrap();
    journal.try_append(batch(0, &[record(77)])).unwrap();
    sink.wait_for_records(1);
    journal.close();
    let (after, _) = all(dir.path(), 1);
    assert_eq!(after.split_last().unwrap(), (&(report.last.plus(1), record(77)), &*found), "{what}: it goes on");
    (lost, report.is_clean())
}

/// What an inspection shows: the records, and whether anything is wrong. It changes nothing.
fn shown(dir: &Path) -> (Vec<(Position, Record)>, bool) {
    let contents = || {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = contents();
    let (mut records, mut damaged) = (Vec::new(), false);
    let all = inspect(dir, Span::ALL, &mut |found| {
        match found {
            Found::Record { position, record, repeated, .. } if !repeated => records.push((position, record.clone())),
            Found::Record { .. } => {}
            Found::Damage { .. } => damaged = true,
            Found::Segment(report) => damaged |= report.tail.is_some(),
        }
        ControlFlow::Continue(())
    });
    let all = all.unwrap();
    assert_eq!(all.records, records.len() as u64);
    assert!(contents() == before, "an inspection changes nothing");
    (records, damaged || !all.missing.is_empty())
}

#[test]
fn a_flipped_byte_anywhere_costs_at_most_its_record_and_is_told() {
    let (files, written) = small_journal();
    for (number, (name, bytes)) in files.iter().enumerate() {
        for at in 0..bytes.len() {
            let mut damaged = files.clone();
            damaged[number].1[at] ^= 1 << (at % 8);
            let what = format!("{name} flipped at {at}");
            let (lost, clean) = check_scan(&damaged, &written, &what, at % 8 == 0);
            assert!(!clean, "{what}: not told");
            assert_eq!(lost, usize::from(at >= segment::HEAD), "{what}");
        }
    }
}

#[test]
fn a_cut_anywhere_keeps_what_is_before_it() {
    let (files, written) = small_journal();
    let last = files.len() - 1;
    for number in [0, last] {
        let ends = frame_ends(&files[number].1);
        for length in 0..files[number].1.len() {
            let mut damaged = files.clone();
            damaged[number].1.truncate(length);
            let what = format!("{} cut to {length}", files[number].0);
            let (lost, clean) = check_scan(&damaged, &written, &what, length % 4 == 0);
            assert_eq!(lost, ends.iter().filter(|end| **end > length).count(), "{what}");
            // At the end of a record of the last segment there is nothing to be seen, as after an orderly stop.
            let orderly = number == last && (length == 0 || length == segment::HEAD || ends.contains(&length));
            assert_eq!(clean, orderly, "{what}");
        }
    }
}

#[test]
fn space_that_was_set_aside_is_no_damage() {
    let (mut files, written) = small_journal();
    for (_, bytes) in &mut files {
        bytes.resize(bytes.len() + 3 * 1024 * 1024, 0);
    }
    assert_eq!(check(&files, &written, "zeros behind each segment"), (0, true));
    let dir = lay_out(&files);
    all(dir.path(), 1);
    let last = segment::list(dir.path()).unwrap().pop().unwrap();
    assert!(last.bytes < 1024, "the last segment gave its space back: {last:?}");
}

#[test]
fn damaged_bytes_are_kept() {
    let (mut files, _) = small_journal();
    let (first, second) = (frame_ends(&files[0].1)[0], frame_ends(&files[0].1)[1]);
    files[0].1[first + 20] ^= 0xff;
    let dir = lay_out(&files);
    let (_, report) = all(dir.path(), 1);
    let [place] = &*report.quarantined else { panic!("{report:?}") };
    assert_eq!((place.offset, place.bytes), (first as u64, (second - first) as u64));
    assert_eq!(fs::read(place.kept_in.as_ref().unwrap()).unwrap(), files[0].1[first..second]);
    assert_eq!(report.missing.len(), 1);
    let unread = scan(dir.path(), Position(9), |_, _| ControlFlow::Continue(())).unwrap();
    assert!(unread.is_clean(), "segments that end before the start are not read: {unread:?}");
}

#[test]
fn records_of_a_repeated_write_come_once() {
    let (mut files, written) = small_journal();
    // A failed write left its record in the old segment, and it was written again to a new one.
    let second = files[1].1[segment::HEAD..frame_ends(&files[1].1)[0]].to_vec();
    files[0].1.extend(second);
    let dir = lay_out(&files);
    let (found, report) = all(dir.path(), 1);
    assert_eq!(found, written);
    assert_eq!((report.repeated, report.is_clean()), (1, true));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (mut files, _) = small_journal();
    let first = segment::first_of(Path::new(&files[1].0)).unwrap();
    files[1].1[segment::HEAD + 17] = 9;
    frame::seal(&mut files[1].1[segment::HEAD..], first);
    let dir = lay_out(&files);
    let refused = scan(dir.path(), Position(1), |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, ScanError::Newer { .. }), "{refused}");

    let mut head = segment::head(1);
    head[8] = 9;
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    let (mut files, _) = small_journal();
    files[0].1[..segment::HEAD].copy_from_slice(&head);
    let dir = lay_out(&files);
    let refused = scan(dir.path(), Position(1), |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, ScanError::Newer { .. }), "{refused}");
}

/// Where the frames of a segment end.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = segment::HEAD;
    while let Some(frame) = frame::parse(&bytes[at..]) {
        at += frame.size();
        ends.push(at);
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whole pages of garbage or zeros, as a torn write over several pages leaves them.
    #[test]
    fn garbage_in_the_middle_costs_only_what_it_covers(
        at in 0_usize..1_000,
        garbage in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 1..300),
        segment in 0_usize..3,
    ) {
        let (mut files, written) = small_journal();
        let bytes = &mut files[segment].1;
        let start = at % bytes.len();
        let end = bytes.len().min(start + garbage.len());
        bytes[start..end].copy_from_slice(&garbage[..end - start]);
        check(&files, &written, &format!("garbage at {start}..{end} of segment {segment}"));
    }
}
