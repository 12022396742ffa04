//! The journal read back: every whole record in order, and a report of everything that was not one.
//!
//! Nothing that is read is trusted: lengths are bounded before they are used, a CRC stands over every frame, positions
//! must grow. Damage is stepped over to the next whole frame; its bytes are kept in `quarantine/`, never thrown away.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    disk,
    frame::{self, Frame},
    record::{self, DecodeError, Record},
    segment::{self, Segment},
};
use crate::ids::Position;

/// Damaged places that a report lists one by one; more are counted.
const LISTED: usize = 100;
/// How far a position may be beyond the last one for a frame after damage to be believed.
const PLAUSIBLE: u64 = 1 << 40;

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
    mut each: impl FnMut(Position, Record) -> ControlFlow<()>,
) -> Result<ScanReport, ScanError> {
    Scan { dir, from: from.0.max(1), repair: true, report: ScanReport::default(), expected: 0 }.run(&mut each)
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
    Scan { dir, from: from.0.max(1), repair: false, report: ScanReport::default(), expected: 0 }.run(&mut each)
}

/// The first position that the journal in `dir` may hold, by the name of its oldest segment; `None`: there is no segment.
///
/// # Errors
/// [`ScanError::Io`].
pub fn first_position(dir: &Path) -> Result<Option<Position>, ScanError> {
    let io = |source| ScanError::Io { what: "list", path: dir.to_owned(), source };
    Ok(segment::list(dir).map_err(io)?.first().map(|oldest| Position(oldest.first)))
}

/// The last position in a segment, by its frames alone.
pub(super) fn last_position(segment: &Segment) -> io::Result<Option<Position>> {
    let mut bytes = Window::open(&segment.path)?;
    let mut offset = segment::HEAD as u64;
    let mut last = None;
    while let Some((position, size)) = bytes.frame(offset)?.map(|frame| (frame.position, frame.size())) {
        last = Some(Position(position));
        offset += size as u64;
    }
    Ok(last)
}

struct Scan<'a> {
    dir: &'a Path,
    from: u64,
    repair: bool,
    report: ScanReport,
    /// The position that the next record should have; 0: the journal is empty so far.
    expected: u64,
}

type Each<'a> = &'a mut dyn FnMut(Position, Record) -> ControlFlow<()>;

impl Scan<'_> {
    fn run(mut self, each: Each<'_>) -> Result<ScanReport, ScanError> {
        let segments = segment::list(self.dir).map_err(|source| ScanError::Io {
            what: "list",
            path: self.dir.to_owned(),
            source,
        })?;
        self.report.segments = segments.len();
        // The one before the first that begins after `from` is the first that may hold it.
        let start = segments.iter().rposition(|segment| segment.first <= self.from).unwrap_or(0);
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
        let mut bytes = Window::open(&segment.path).map_err(io("open"))?;
        let data_end = bytes.data_end().map_err(io("read"))?;
        let mut offset = segment::HEAD as u64;
        let head = segment::parse_head(bytes.at(0, segment::HEAD).map_err(io("read"))?);
        // The end of what is whole; where the last segment is cut.
        let mut whole = if head == (segment::Head::Valid { first: segment.first }) { offset } else { 0 };
        match head {
            segment::Head::Valid { first } if first == segment.first => {}
            segment::Head::Valid { first } => {
                self.quarantine(segment, &bytes, 0..offset, &format!("its head says that it begins at {first}"));
            }
            segment::Head::Newer { .. } => return Err(ScanError::Newer { path: segment.path.clone() }),
            // It was being created, and held nothing yet.
            segment::Head::Damaged if last && data_end <= offset => offset = 0,
            segment::Head::Damaged => {
                offset = offset.min(bytes.len);
                self.quarantine(segment, &bytes, 0..offset, "its head is damaged");
            }
        }
        self.arrive(segment.first);
        loop {
            if let Some(frame) = bytes.frame(offset).map_err(io("read"))? {
                let end = offset + frame.size() as u64;
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
                        Err(DecodeError::Newer) => return Err(ScanError::Newer { path: segment.path.clone() }),
                        Err(error) => self.quarantine(segment, &bytes, offset..end, &error.to_string()),
                    }
                }
                (offset, whole) = (end, end);
            } else if offset >= data_end {
                break;
            } else if let Some(next) = bytes.next_frame(offset + 1, data_end, self.expected).map_err(io("read"))? {
                self.quarantine(segment, &bytes, offset..next, "no whole record here");
                offset = next;
            } else if last {
                self.report.torn_tail_bytes += data_end - offset;
                self.keep(segment, &bytes, offset..data_end);
                break;
            } else {
                self.quarantine(segment, &bytes, offset..data_end, "no whole record from here to its end");
                break;
            }
        }
        if last && self.repair {
            self.cut(segment, whole)?;
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

/// A file that is read through a window of bounded size.
struct Window {
    file: File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes that are read at a time, unless a frame is larger.
    const CHUNK: usize = 1024 * 1024;

    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len, start: 0, bytes: Vec::new() })
    }

    /// The bytes from `offset` on: `want` of them, or as many as there are.
    fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let end = self.len.min(offset + want as u64);
        if offset >= end {
            return Ok(&[]);
        }
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let size = (self.len - offset).min(want.max(Self::CHUNK) as u64);
            self.bytes.resize(usize::try_from(size).expect("a chunk or a frame fits"), 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(offset - self.start).expect("inside the window");
        Ok(&self.bytes[from..from + usize::try_from(end - offset).expect("inside the window")])
    }

    /// The whole frame at `offset`, if there is one.
    fn frame(&mut self, offset: u64) -> io::Result<Option<Frame<'_>>> {
        match frame::claimed_size(self.at(offset, frame::HEAD)?) {
            Some(size) => Ok(frame::parse(self.at(offset, size)?)),
            None => Ok(None),
        }
    }

    /// The first whole frame at or after `offset` that can follow what was read. A reading cannot feign one: the upper
    /// bytes of a position are zero, and JSON holds no zero byte.
    fn next_frame(&mut self, mut offset: u64, data_end: u64, floor: u64) -> io::Result<Option<u64>> {
        let plausible = floor..floor.saturating_add(PLAUSIBLE);
        while offset < data_end {
            let remaining = self.len - offset;
            let chunk = self.at(offset, Self::CHUNK)?;
            let candidate = chunk.windows(frame::HEAD).position(|head| {
                frame::claimed_size(head).is_some_and(|size| size as u64 <= remaining)
                    && frame::claimed_position(head).is_some_and(|position| plausible.contains(&position))
            });
            match candidate {
                Some(at) => {
                    offset += at as u64;
                    if self.frame(offset)?.is_some() {
                        return Ok(Some(offset));
                    }
                    offset += 1;
                }
                None if chunk.len() < frame::HEAD => return Ok(None),
                None => offset += (chunk.len() - frame::HEAD + 1) as u64,
            }
        }
        Ok(None)
    }

    /// The end of the last byte that is not zero: behind it is only what was set aside.
    fn data_end(&self) -> io::Result<u64> {
        let mut chunk = vec![0; 64 * 1024];
        let mut end = self.len;
        while end > 0 {
            let start = end.saturating_sub(chunk.len() as u64);
            let part = &mut chunk[..usize::try_from(end - start).expect("at most a chunk")];
            self.file.read_exact_at(part, start)?;
            if let Some(at) = part.iter().rposition(|byte| *byte != 0) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// Copies a place to a new file, durably.
    fn copy(&self, place: Range<u64>, to: &Path) -> io::Result<()> {
        let mut copy = File::create(to)?;
        let mut chunk = vec![0; 64 * 1024];
        let mut at = place.start;
        while at < place.end {
            let part = &mut chunk[..usize::try_from((place.end - at).min(64 * 1024)).expect("at most a chunk")];
            self.file.read_exact_at(part, at)?;
            copy.write_all(part)?;
            at += part.len() as u64;
        }
        copy.sync_all()
    }
}
