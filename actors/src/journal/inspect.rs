//! The journal shown as it is: every record with its place, what is damaged, and a summary of each segment. For people and
//! tools; changes nothing, and works while a node writes: what is written meanwhile is seen or not.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{
    reader::{Gap, ScanError},
    record::{self, DecodeError, Record},
    segment::{self, Segment},
    walk::{Place, Walk},
};
use crate::{clock::Millis, ids::Position};

/// Damaged places of a segment that are listed one by one; more are counted.
const LISTED: usize = 100;

/// Which positions are shown, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: Position,
    /// The last.
    pub to: Position,
}

impl Span {
    /// All of them.
    pub const ALL: Self = Self { from: Position(0), to: Position(u64::MAX) };

    fn holds(&self, position: Position) -> bool {
        (self.from..=self.to).contains(&position)
    }
}

/// What an inspection comes upon, in the order of the files.
#[derive(Debug)]
pub enum Found<'a> {
    /// A whole record.
    Record {
        /// Its segment.
        segment: &'a Path,
        /// Its frame's place in the file.
        bytes: Range<u64>,
        /// Its position.
        position: Position,
        /// The name of its kind.
        kind: &'static str,
        /// The record.
        record: &'a Record,
        /// It stood in an earlier segment as well: a write that had to be repeated.
        repeated: bool,
    },
    /// A place that holds no record.
    Damage {
        /// Its segment.
        segment: &'a Path,
        /// The place.
        damage: &'a Damage,
    },
    /// A segment is through.
    Segment(&'a SegmentReport),
}

/// A place that holds no record, or none that this build can read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub why: String,
}

/// What a segment holds, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// The position that its name says.
    pub begins: Position,
    /// The first position in it.
    pub first: Option<Position>,
    /// The last position in it.
    pub last: Option<Position>,
    /// Records.
    pub records: u64,
    /// Records by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Records that an earlier segment holds as well.
    pub repeated: u64,
    /// The file's length, with what was set aside for it.
    pub bytes: u64,
    /// Bytes up to the end of its last whole record.
    pub used_bytes: u64,
    /// When the file was written last.
    pub modified: Option<Millis>,
    /// The least and the greatest time at which a reading in it was received.
    pub received: Option<(Millis, Millis)>,
    /// Damaged places (at most 100 are listed).
    pub damage: Vec<Damage>,
    /// How many places are damaged.
    pub damaged_places: u64,
    /// What follows the last whole record of the last segment: a write under way, or one that was cut short.
    pub tail: Option<Damage>,
}

/// What an inspection found in all.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Segments that were read.
    pub segments: u64,
    /// The first position.
    pub first: Option<Position>,
    /// The last position.
    pub last: Option<Position>,
    /// Records.
    pub records: u64,
    /// Records by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Places that are damaged.
    pub damaged_places: u64,
    /// Positions that should be there and that no record has (at most 100 are listed).
    pub missing: Vec<Gap>,
}

/// Inspects a data directory, a journal directory or one segment. `each` may end it.
///
/// # Errors
/// [`ScanError`]: the path cannot be read, or there is no segment. Damage, also by a newer version, is no error: it is shown.
pub fn inspect(
    target: &Path,
    span: Span,
    each: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
) -> Result<Inspection, ScanError> {
    let segments = segments_of(target)?;
    let mut so_far = SoFar { all: Inspection::default(), expected: None, span };
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1);
        if segment.first > span.to.0 || next.is_some_and(|next| next.first <= span.from.0) {
            continue;
        }
        let io = |source| ScanError::Io { what: "read", path: segment.path.clone(), source };
        let walked = Walk::open(segment, next.is_none());
        let walk = match walked {
            // A running node has freed it since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && segments.len() > 1 => continue,
            walk => walk.map_err(io)?,
        };
        so_far.arrive(segment.first);
        if show(segment, walk, &mut so_far, each).map_err(io)?.is_break() {
            break;
        }
    }
    Ok(so_far.all)
}

/// What was found, and the position that should come next; `None`: no segment was met yet.
struct SoFar {
    all: Inspection,
    expected: Option<u64>,
    span: Span,
}

impl SoFar {
    /// What comes next is at `position`, or begins there: are there positions missing before it?
    fn arrive(&mut self, position: u64) {
        let expected = self.expected.get_or_insert(position.max(self.span.from.0));
        if position > *expected {
            if self.all.missing.len() < LISTED {
                self.all.missing.push(Gap { first: Position(*expected), last: Position(position - 1) });
            }
            *expected = position;
        }
    }

    /// `false`: there was a record of this position before.
    fn is_new(&mut self, position: Position) -> bool {
        if self.expected.is_some_and(|expected| position.0 < expected) {
            return false;
        }
        self.arrive(position.0);
        self.expected = Some(position.0 + 1);
        true
    }
}

/// What is meant by a path: see [`inspect`].
fn segments_of(target: &Path) -> Result<Vec<Segment>, ScanError> {
    let io = |what, source| ScanError::Io { what, path: target.to_owned(), source };
    let metadata = fs::metadata(target).map_err(|source| io("open", source))?;
    if metadata.is_file() {
        let first = segment::first_of(target).ok_or_else(|| {
            io("inspect", io::Error::other("a segment is named by its first position: <20 digits>.tgj"))
        })?;
        return Ok(vec![Segment { first, path: target.to_owned(), bytes: metadata.len() }]);
    }
    let below = target.join("journal");
    let dir = if below.is_dir() { &*below } else { target };
    let segments = segment::list(dir).map_err(|source| io("list", source))?;
    if segments.is_empty() {
        return Err(io("inspect", io::Error::other("there is no journal segment (*.tgj) here")));
    }
    Ok(segments)
}

fn show(
    segment: &Segment,
    mut walk: Walk,
    so_far: &mut SoFar,
    each: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let path = &*segment.path;
    let modified = segment.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let mut report = SegmentReport {
        path: path.to_owned(),
        begins: Position(segment.first),
        bytes: walk.window.len,
        modified: modified.and_then(|since| Millis::try_from(since.as_millis()).ok()),
        ..SegmentReport::default()
    };
    let mut ended = ControlFlow::Continue(());
    while ended.is_continue()
        && let Some(place) = walk.next(so_far.expected.unwrap_or_default().min(segment.first))?
    {
        let (at, why) = match place {
            Place::Frame { at } => match open_frame(&mut walk, &at)? {
                (position, Ok(record)) => {
                    if so_far.span.holds(position) {
                        let (kind, repeated) = (kind(&record), report.note(so_far, position, &record));
                        let (segment, bytes, record) = (path, at, &record);
                        ended = each(Found::Record { segment, bytes, position, kind, record, repeated });
                    }
                    continue;
                }
                (position, Err(error)) => (at, format!("position {position}: {error}")),
            },
            Place::Damage { at, why } => (at, why),
            Place::Tail { at } => {
                let why = "a write under way, or one that was cut short".to_owned();
                report.tail = Some(Damage { offset: at.start, bytes: at.end - at.start, why });
                continue;
            }
            Place::Newer { format } => (0..walk.window.len, format!("its format {format} is of a newer tidegate")),
        };
        let damage = Damage { offset: at.start, bytes: at.end - at.start, why };
        ended = each(Found::Damage { segment: path, damage: &damage });
        report.damaged_places += 1;
        if report.damage.len() < LISTED {
            report.damage.push(damage);
        }
    }
    report.used_bytes = walk.whole;
    so_far.all.segments += 1;
    so_far.all.bytes += report.bytes;
    so_far.all.damaged_places += report.damaged_places;
    if ended.is_continue() {
        ended = each(Found::Segment(&report));
    }
    Ok(ended)
}

fn open_frame(walk: &mut Walk, at: &Range<u64>) -> io::Result<(Position, Result<Record, DecodeError>)> {
    let frame = walk.frame(at)?;
    Ok((Position(frame.position), record::decode(frame.kind, frame.version, frame.body)))
}

impl SegmentReport {
    /// Counts a record; `true`: it was there before.
    fn note(&mut self, so_far: &mut SoFar, position: Position, record: &Record) -> bool {
        if !so_far.is_new(position) {
            self.repeated += 1;
            return true;
        }
        let all = &mut so_far.all;
        for (first, last) in [(&mut self.first, &mut self.last), (&mut all.first, &mut all.last)] {
            first.get_or_insert(position);
            *last = Some(position);
        }
        self.records += 1;
        all.records += 1;
        let kind = kind(record);
        *self.kinds.entry(kind).or_default() += 1;
        *all.kinds.entry(kind).or_default() += 1;
        if let Record::Reading { reading, .. } = record {
            let (least, greatest) = self.received.unwrap_or((reading.received, reading.received));
            self.received = Some((least.min(reading.received), greatest.max(reading.received)));
        }
        false
    }
}

/// The name of a record's kind.
fn kind(record: &Record) -> &'static str {
    match record {
        Record::Reading { .. } => "reading",
        Record::Outcome(_) => "outcome",
        Record::Unparked { .. } => "unparked",
        Record::Imported { .. } => "imported",
        Record::Kept(_) => "kept",
    }
}
