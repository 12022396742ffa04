//! The journal read back: every whole record in order, and a report of everything that was not one.
//!
//! Nothing that is read is trusted: lengths are bounded before they are used, a CRC stands over every frame, positions
//! must grow. Damage is stepped over to the next whole frame; its bytes are kept in `quarantine/`, never thrown away.

use std::{
    fs::{self, File},
    io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use super::{
    disk,
    record::{self, DecodeError, Record},
    segment::{self, Segment},
    walk::{Place, Walk},
    window::Window,
};
use crate::ids::Position;

/// Damaged places that a report lists one by one; more are counted.
const LISTED: usize = 100;
/// Bytes after which the progress is told again.
const TOLD: u64 = 4 * 1024 * 1024;

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScanReport {
    /// Records that were handed out.
    pub records: u64,
    /// Segments in the directory.
    pub segments: usize,
    /// The last position that the journal holds or held; 0: none.
    pub last: Position,
    /// Bytes that were cut off the end of the last segment: a write that was never acknowledged, or damage there.
    pub torn_tail_bytes: u64,
    /// Places that were damaged (at most 100 are listed).
    pub quarantined: Vec<Quarantined>,
    /// How many places were damaged.
    pub quarantined_places: u64,
    /// Positions that should be in the journal and are not (at most 100 are listed).
    pub missing: Vec<Gap>,
    /// Records that stood there twice, after a write that had to be repeated; the second was skipped.
    pub repeated: u64,
}

impl ScanReport {
    /// Was everything as it should be? (A torn tail is what an abrupt stop leaves, but it is told as well.)
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn_tail_bytes == 0 && self.quarantined_places == 0 && self.missing.is_empty()
    }
}

/// A damaged place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The segment.
    pub segment: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What was wrong.
    pub why: String,
    /// The file that keeps the bytes; `None` when the scan was not to change anything, or the copy failed.
    pub kept_in: Option<PathBuf>,
}

/// Positions without a record, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// The first.
    pub first: Position,
    /// The last.
    pub last: Position,
}

/// Why a scan could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file system refused.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A newer Tidegate wrote this journal; reading on would drop what it knows.
    #[error("{path} was written by a newer version of tidegate: start that version, or restore a backup", path = path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
    },
}

/// Reads the journal in `dir` from the position `from` on, and repairs it: a torn tail is cut off, damage is copied to
/// `quarantine/`, and what is left is made durable. Only for the owner of the directory, while nobody writes.
///
/// `each` gets every whole record at or after `from`, in order, and may end the scan (then the end is not repaired).
/// Segments that end before `from` are not read. A directory that does not exist is an empty journal.
///
/// # Errors
/// [`ScanError`], naming the path. Damage is no error: it is in the report.
pub fn scan(
    dir: &Path,
    from: Position,
    each: impl FnMut(Position, Record) -> ControlFlow<()>,
) -> Result<ScanReport, ScanError> {
    scan_with(dir, from, &mut |_| {}, each)
}

/// As [`scan`], and says now and then how far it has come.
///
/// # Errors
/// As [`scan`].
pub fn scan_with(
    dir: &Path,
    from: Position,
    progress: &mut dyn FnMut(ScanProgress),
    mut each: impl FnMut(Position, Record) -> ControlFlow<()>,
) -> Result<ScanReport, ScanError> {
    Scan::new(dir, from, true, progress).run(&mut each)
}

/// As [`scan`], but changes nothing: for tools, also while a node writes.
///
/// # Errors
/// As [`scan`].
pub fn read(
    dir: &Path,
    from: Position,
    mut each: impl FnMut(Position, Record) -> ControlFlow<()>,
) -> Result<ScanReport, ScanError> {
    Scan::new(dir, from, false, &mut |_| {}).run(&mut each)
}

/// The first position that the journal in `dir` may hold, by the name of its oldest segment; `None`: there is no segment.
///
/// # Errors
/// [`ScanError::Io`].
pub fn first_position(dir: &Path) -> Result<Option<Position>, ScanError> {
    let io = |source| ScanError::Io { what: "list", path: dir.to_owned(), source };
    Ok(segment::list(dir).map_err(io)?.first().map(|oldest| Position(oldest.first)))
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanProgress {
    /// Bytes that were read.
    pub done: u64,
    /// Bytes that are to be read.
    pub total: u64,
}

/// Tells a scan's progress, not too often.
struct Progress<'a> {
    tell: &'a mut dyn FnMut(ScanProgress),
    /// Bytes of the segments that are through.
    before: u64,
    told: u64,
    total: u64,
}

impl Progress<'_> {
    fn at(&mut self, offset: u64) {
        let done = (self.before + offset).min(self.total);
        if done >= self.told + TOLD {
            self.told = done;
            (self.tell)(ScanProgress { done, total: self.total });
        }
    }

    fn through(&mut self, bytes: u64) {
        self.before += bytes;
        self.at(0);
    }
}

struct Scan<'a> {
    dir: &'a Path,
    from: u64,
    repair: bool,
    report: ScanReport,
    /// The position that the next record should have; 0: the journal is empty so far.
    expected: u64,
    progress: Progress<'a>,
}

type Each<'a> = &'a mut dyn FnMut(Position, Record) -> ControlFlow<()>;

impl<'a> Scan<'a> {
    fn new(dir: &'a Path, from: Position, repair: bool, tell: &'a mut dyn FnMut(ScanProgress)) -> Self {
        let progress = Progress { tell, before: 0, told: 0, total: 0 };
        Self { dir, from: from.0.max(1), repair, report: ScanReport::default(), expected: 0, progress }
    }

    fn run(mut self, each: Each<'_>) -> Result<ScanReport, ScanError> {
        let segments = segment::list(self.dir).map_err(|source| ScanError::Io {
            what: "list",
            path: self.dir.to_owned(),
            source,
        })?;
        self.report.segments = segments.len();
        // The one before the first that begins after `from` is the first that may hold it.
        let start = segments.iter().rposition(|segment| segment.first <= self.from).unwrap_or(0);
        self.progress.total = segments[start..].iter().map(|segment| segment.bytes).sum();
        if let Some(segment) = segments.get(start) {
            self.expected = segment.first.min(self.from);
        }
        for (index, segment) in segments.iter().enumerate().skip(start) {
            let last = index + 1 == segments.len();
            if self.segment(segment, last, each)?.is_break() {
                break;
            }
        }
        self.report.last = Position(self.expected.max(1) - 1);
        Ok(self.report)
    }

    fn segment(&mut self, segment: &Segment, last: bool, each: Each<'_>) -> Result<ControlFlow<()>, ScanError> {
        let io = |what| move |source| ScanError::Io { what, path: segment.path.clone(), source };
        let newer = || ScanError::Newer { path: segment.path.clone() };
        let mut walk = Walk::open(segment, last).map_err(io("open"))?;
        self.arrive(segment.first);
        while let Some(place) = walk.next(self.expected).map_err(io("read"))? {
            match place {
                Place::Newer { .. } => return Err(newer()),
                Place::Damage { at, why } => self.quarantine(segment, &walk.window, at, &why),
                Place::Tail { at } => {
                    self.report.torn_tail_bytes += at.end - at.start;
                    self.keep(segment, &walk.window, at);
                }
                Place::Frame { at } => {
                    let frame = walk.frame(&at).map_err(io("read"))?;
                    let position = Position(frame.position);
                    if !self.is_new(position) {
                        self.report.repeated += 1;
                    } else if position.0 >= self.from {
                        match record::decode(frame.kind, frame.version, frame.body) {
                            Ok(record) => {
                                self.report.records += 1;
                                if each(position, record).is_break() {
                                    return Ok(ControlFlow::Break(()));
                                }
                            }
                            Err(DecodeError::Newer) => return Err(newer()),
                            Err(error) => self.quarantine(segment, &walk.window, at.clone(), &error.to_string()),
                        }
                    }
                    self.progress.at(at.end);
                }
            }
        }
        self.progress.through(walk.window.len);
        if last && self.repair {
            self.cut(segment, walk.whole)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A segment begins: are there records missing before it?
    fn arrive(&mut self, first: u64) {
        if first > self.expected {
            self.miss(self.expected, first - 1);
            self.expected = first;
        }
    }

    /// Takes note of a record's position; `false`: it was there before.
    fn is_new(&mut self, position: Position) -> bool {
        if position.0 < self.expected {
            return false;
        }
        self.arrive(position.0);
        self.expected = position.0 + 1;
        true
    }

    fn miss(&mut self, first: u64, last: u64) {
        let first = first.max(self.from);
        if first <= last && self.report.missing.len() < LISTED {
            self.report.missing.push(Gap { first: Position(first), last: Position(last) });
        }
    }

    fn quarantine(&mut self, segment: &Segment, bytes: &Window, place: Range<u64>, why: &str) {
        self.report.quarantined_places += 1;
        if self.report.quarantined.len() < LISTED {
            let kept_in = self.keep(segment, bytes, place.clone());
            self.report.quarantined.push(Quarantined {
                segment: segment.path.clone(),
                offset: place.start,
                bytes: place.end - place.start,
                why: why.to_owned(),
                kept_in,
            });
        }
    }

    /// Copies a place to the quarantine, as far as the disk lets us: failing here must not keep the node from starting.
    fn keep(&self, segment: &Segment, bytes: &Window, place: Range<u64>) -> Option<PathBuf> {
        if !self.repair {
            return None;
        }
        let dir = self.dir.join("quarantine");
        let name = segment.path.file_stem().unwrap_or_default().to_string_lossy();
        let kept_in = dir.join(format!("{name}-at-{}.bin", place.start));
        let kept = fs::create_dir_all(&dir).and_then(|()| bytes.copy(place, &kept_in));
        match kept {
            Ok(()) => Some(kept_in),
            Err(error) => {
                tracing::warn!(path = %kept_in.display(), %error, "cannot keep damaged bytes of the journal");
                None
            }
        }
    }

    /// Ends the last segment after its last whole record (one without head and records goes), and makes durable what an abrupt stop left in the page cache.
    fn cut(&self, segment: &Segment, end: u64) -> Result<(), ScanError> {
        let io = |what| move |source| ScanError::Io { what, path: segment.path.clone(), source };
        if end == 0 {
            fs::remove_file(&segment.path).map_err(io("remove"))?;
        } else {
            let file = File::options().write(true).open(&segment.path).map_err(io("open"))?;
            if end < file.metadata().map_err(io("read"))?.len() {
                file.set_len(end).map_err(io("cut"))?;
            }
            file.sync_all().map_err(io("sync"))?;
        }
        disk::sync_dir(self.dir).map_err(io("sync the directory of"))
    }
}
