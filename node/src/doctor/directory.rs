//! The data directory: who holds it, and whether journal and snapshots are whole. Everything is read, nothing is repaired.

use std::{
    fs::{File, TryLockError},
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use serde_json::json;
use tidegate_actors::{
    ids::Position,
    journal::{self, ScanReport},
    recovery::DataDir,
    snapshot,
};

use super::report::{Check, bytes, count, many};

const LOCK: &str = "data directory";
const JOURNAL: &str = "journal";
const SNAPSHOTS: &str = "snapshots";
const LEFTOVERS: &str = "quarantine";

/// Who has the data directory.
pub(super) enum Holder {
    /// Nobody; the shared lock keeps it so.
    Nobody(#[allow(dead_code, reason = "held for its lock, which closing it gives up")] Option<File>),
    /// A node.
    Node {
        /// Its process, as the lock file says.
        pid: Option<u32>,
    },
    /// There is none.
    Missing,
}

impl Holder {
    /// The process of the node that has it.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Node { pid } => *pid,
            Self::Nobody(_) | Self::Missing => None,
        }
    }
}

/// Is it there, and who has it?
pub(super) fn lock(data: &DataDir) -> (Check, Holder) {
    let shown = data.path().display();
    let unusable = |error: &io::Error| {
        let advice = "check the path, and that the user of the node may read and write it";
        (Check::fail(LOCK, format!("{shown} cannot be used: {error}"), advice), Holder::Missing)
    };
    match std::fs::metadata(data.path()) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return unusable(&io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let advice = "nothing, if no node has run here; else name the directory with --data-dir";
            return (Check::warn(LOCK, format!("{shown} does not exist yet"), advice), Holder::Missing);
        }
        Err(error) => return unusable(&error),
    }
    let mut file = match File::open(data.lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_empty = std::fs::read_dir(data.path()).is_ok_and(|mut entries| entries.next().is_none());
            let check = if is_empty {
                Check::ok(LOCK, format!("{shown}: no node has run in it yet"))
            } else {
                let advice = "name the directory that has the node's LOCK, journal and snapshots with --data-dir";
                Check::warn(LOCK, format!("{shown} is not empty, and no node has ever run in it"), advice)
            };
            return (check, Holder::Nobody(None));
        }
        Err(error) => return unusable(&error),
    };
    match file.try_lock_shared() {
        Ok(()) => (Check::ok(LOCK, format!("{shown}: no node runs in it")), Holder::Nobody(Some(file))),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            let who = pid.map_or("a node".to_owned(), |pid: u32| format!("process {pid}"));
            (Check::ok(LOCK, format!("{shown}: {who} runs in it")).with(json!({ "pid": pid })), Holder::Node { pid })
        }
        Err(TryLockError::Error(error)) => unusable(&error),
    }
}

/// Reads the whole journal.
pub(super) fn journal(data: &DataDir, holder: &Holder) -> (Check, Option<ScanReport>) {
    let dir = data.journal();
    let read = || -> Result<_, journal::ScanError> {
        let first = journal::first_position(&dir)?;
        let report = journal::read(&dir, first.unwrap_or(Position(1)), |_, _| ControlFlow::Continue(()))?;
        Ok((first, report))
    };
    // A running node may free a segment between its listing and its reading; then another look helps.
    let (first, report) = match read().or_else(|_| read()) {
        Ok(read) => read,
        Err(error) => {
            let check = Check::fail(JOURNAL, error.to_string(), "check the disk and the permissions");
            return (check, None);
        }
    };
    let details = json!({ "first": first, "scan": report });
    (judge_journal(first, &report, matches!(holder, Holder::Node { .. })).with(details), Some(report))
}

fn judge_journal(first: Option<Position>, report: &ScanReport, running: bool) -> Check {
    let Some(first) = first else { return Check::ok(JOURNAL, "empty") };
    let whole = format!(
        "{} at positions {} to {} in {}",
        many(report.records, "record", "records"),
        count(first.0),
        count(report.last.0),
        many(report.segments as u64, "segment", "segments")
    );
    if report.quarantined_places > 0 {
        let places = report.quarantined.iter().take(3).map(|place| {
            let name = place.segment.file_name().unwrap_or_default().to_string_lossy();
            format!("{name} at byte {} ({} bytes: {})", count(place.offset), count(place.bytes), place.why)
        });
        let places = places.collect::<Vec<_>>().join("; ");
        let summary =
            format!("{}: {places}. Else {whole}", many(report.quarantined_places, "damaged place", "damaged places"));
        let advice = "the next start keeps the damaged bytes in journal/quarantine and goes on without them. Look at the \
                      disk (dmesg, smartctl); restore a backup if these readings matter";
        return Check::fail(JOURNAL, summary, advice);
    }
    if let Some(gap) = report.missing.first() {
        let more = report.missing.len() - 1;
        let more =
            if more == 0 { String::new() } else { format!(" and {}", many(more as u64, "more gap", "more gaps")) };
        let summary =
            format!("records {} to {} are missing{more}. Else {whole}", count(gap.first.0), count(gap.last.0));
        return Check::fail(
            JOURNAL,
            summary,
            "a segment was removed or lost: restore a backup if these readings matter",
        );
    }
    match report.torn_tail_bytes {
        // What a running node is writing just now looks the same.
        0 => Check::ok(JOURNAL, whole),
        _ if running => Check::ok(JOURNAL, whole),
        torn => {
            let note =
                format!("{whole}; a torn end of {} after an abrupt stop, which the next start cuts", bytes(torn));
            Check::ok(JOURNAL, note)
        }
    }
}

/// Reads every snapshot, and compares them with where the journal begins.
pub(super) fn snapshots(data: &DataDir, journal: Option<&ScanReport>) -> Check {
    let listed = match snapshot::list(&data.snapshots()) {
        Ok(listed) => listed,
        Err(error) => return Check::fail(SNAPSHOTS, error.to_string(), "check the disk and the permissions"),
    };
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for found in &listed {
        match snapshot::verify(found) {
            Ok(()) => whole.push(found.position),
            // A running node removes those that it needs no more.
            Err(_) if !found.path.exists() => {}
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let first = journal::first_position(&data.journal()).ok().flatten();
    let newest = whole.iter().copied().max();
    let details = json!({ "whole": whole, "damaged": damaged, "journalBegins": first });
    let last = journal.map_or(Position(0), |report| report.last);
    judge_snapshots(newest, whole.len(), &damaged, first, last).with(details)
}

fn judge_snapshots(
    newest: Option<Position>,
    whole: usize,
    damaged: &[String],
    first: Option<Position>,
    last: Position,
) -> Check {
    let covered = newest.unwrap_or(Position(0));
    if let Some(first) = first.filter(|first| *first > covered.plus(1)) {
        let summary = format!(
            "whole snapshots reach to position {}, and the journal begins at {}: what lies between is in the view only",
            count(covered.0),
            count(first.0)
        );
        return Check::fail(
            SNAPSHOTS,
            summary,
            "make a backup now, with the node running; restore one if the view is lost",
        );
    }
    if let Some(first) = damaged.first() {
        let summary = format!("{first}; {whole} whole");
        let advice =
            "the older one and the journal still rebuild everything. Look at the disk; the next snapshot replaces it";
        return Check::fail(SNAPSHOTS, summary, advice);
    }
    match newest {
        None => Check::ok(SNAPSHOTS, "none yet: the journal holds everything"),
        Some(newest) => Check::ok(
            SNAPSHOTS,
            format!("{whole} whole, the newest at position {} of {}", count(newest.0), count(last.max(newest).0)),
        ),
    }
}

/// Is there anything that a recovery set aside?
pub(super) fn leftovers(data: &DataDir) -> Check {
    let mut found = Vec::new();
    found.extend(files(&data.journal().join("quarantine"), |_| true));
    found.extend(files(data.path(), |name| name.starts_with("state.quarantined-")));
    found.extend(files(&data.snapshots(), |name| name.ends_with(".damaged")));
    let Some(first) = found.first() else { return Check::ok(LEFTOVERS, "nothing was ever set aside") };
    let summary = format!(
        "{} set aside by earlier starts, such as {}",
        many(found.len() as u64, "damaged file was", "damaged files were"),
        first.display()
    );
    let advice = "the log of that start says why. Look at them, then remove them: the node never does";
    Check::warn(LEFTOVERS, summary, advice).with(json!({ "files": found }))
}

fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use tidegate_actors::journal::{Gap, Quarantined};

    use super::{super::report::Status, *};

    fn scanned() -> ScanReport {
        ScanReport { records: 7, segments: 1, last: Position(7), ..ScanReport::default() }
    }

    #[test]
    fn damage_is_named_by_segment_and_offset() {
        assert_eq!(judge_journal(Some(Position(1)), &scanned(), false).status, Status::Ok);
        let place = Quarantined {
            segment: "/d/journal/00000000000000000001.tgj".into(),
            offset: 4_321,
            bytes: 99,
            why: "no whole record here".to_owned(),
            kept_in: None,
        };
        let damaged = ScanReport { quarantined: vec![place], quarantined_places: 1, ..scanned() };
        let check = judge_journal(Some(Position(1)), &damaged, false);
        assert_eq!(check.status, Status::Fail);
        assert!(check.summary.contains("00000000000000000001.tgj at byte 4,321 (99 bytes"), "{}", check.summary);
        let gap = ScanReport { missing: vec![Gap { first: Position(3), last: Position(5) }], ..scanned() };
        let check = judge_journal(Some(Position(1)), &gap, false);
        assert_eq!((check.status, check.summary.contains("records 3 to 5 are missing")), (Status::Fail, true));
        let torn = ScanReport { torn_tail_bytes: 12, ..scanned() };
        assert!(judge_journal(Some(Position(1)), &torn, false).summary.contains("torn end of 12 B"));
        assert!(!judge_journal(Some(Position(1)), &torn, true).summary.contains("torn"), "it is being written");
    }

    #[test]
    fn snapshots_must_reach_to_where_the_journal_begins() {
        let check = |newest: Option<u64>, damaged: &[String], first: u64| {
            judge_snapshots(newest.map(Position), 1, damaged, Some(Position(first)), Position(100)).status
        };
        assert_eq!(check(None, &[], 1), Status::Ok);
        assert_eq!(check(None, &[], 2), Status::Fail);
        assert_eq!(check(Some(50), &[], 51), Status::Ok);
        assert_eq!(check(Some(50), &[], 52), Status::Fail);
        assert_eq!(check(Some(50), &["damaged".to_owned()], 40), Status::Fail);
    }

    #[test]
    fn the_lock_says_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().join("data"));
        assert!(matches!(lock(&data).1, Holder::Missing));
        std::fs::create_dir(data.path()).unwrap();
        assert!(matches!(lock(&data).1, Holder::Nobody(None)));
        std::fs::write(data.lock(), "4711\n").unwrap();
        let node = File::options().write(true).open(data.lock()).unwrap();
        node.try_lock().unwrap();
        let (check, holder) = lock(&data);
        assert_eq!((holder.pid(), check.status), (Some(4_711), Status::Ok));
        drop(node);
        let (_, holder) = lock(&data);
        assert!(matches!(holder, Holder::Nobody(Some(_))));
        let node = File::options().write(true).open(data.lock()).unwrap();
        assert!(node.try_lock().is_err(), "no node starts while the doctor looks");
        assert!(matches!(lock(&data).1, Holder::Nobody(Some(_))), "two doctors may look at once");
    }
}
