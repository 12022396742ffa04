//! Where records come from: the items of a file, each with its place, in an order that is the same every time.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use tidegate_actors::{
    limits,
    snapshot::{self, Entries, Entry},
    state::DeviceState,
};

use super::line::{self, Line};

/// Longest line that is kept: what is longer is no state.
const LINE_BYTES: usize = 2 * limits::RECORD_BYTES;

/// The items of one or more files.
pub(super) struct Source {
    /// How many there are, if that is known.
    pub(super) total: Option<u64>,
    /// The items. An error ends them: the file cannot be read on.
    pub(super) items: Box<dyn Iterator<Item = anyhow::Result<Item>>>,
}

/// A record of a file.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) place: Place,
    /// The text as it stands in the file, as far as it is worth showing.
    pub(super) text: String,
    /// The state, or why there is none.
    pub(super) state: Result<Box<DeviceState>, String>,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    /// From 1; in a binary file the number of the entry.
    pub(super) line: u64,
    /// From 1.
    pub(super) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// The records of an export, NDJSON or binary.
pub(super) fn export(path: &Path) -> anyhow::Result<Source> {
    let file: Arc<Path> = path.into();
    match snapshot::at(path) {
        Ok(found) => {
            // Whole, before the first record goes out: a part of it can be had from its NDJSON.
            snapshot::verify(&found)?;
            let entries = Entries::open(&found)?;
            Ok(Source { total: None, items: Box::new(Binary { entries, file, number: 0, parked: 0, kept: 0 }) })
        }
        Err(snapshot::SnapshotError::Damaged { .. }) => {
            let mut lines = Lines::open(path)?;
            let first = lines.next().transpose()?;
            let head = first.as_ref().and_then(|(_, text)| line::parse(text).ok());
            let total = if let Some(Line::Head(head)) = head { Some(head.devices) } else { None };
            let lines: Box<dyn Iterator<Item = anyhow::Result<(u64, Vec<u8>)>>> = match (total, first) {
                (None, Some(first)) => Box::new(std::iter::once(Ok(first)).chain(lines)),
                _ => Box::new(lines),
            };
            Ok(Source { total, items: Box::new(Ndjson { lines, file, total, states: 0, last: 1, ended: false }) })
        }
        Err(error) => Err(error.into()),
    }
}

/// The lines of a file, with their numbers; blank ones are left out, and of one that is too long the beginning is given.
pub(super) struct Lines {
    file: BufReader<File>,
    path: PathBuf,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file: BufReader::with_capacity(256 * 1024, file), path: path.to_owned(), number: 0 })
    }

    fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let buffer = self.file.fill_buf()?;
            if buffer.is_empty() {
                return Ok((!line.is_empty()).then_some(line));
            }
            let end = memchr::memchr(b'\n', buffer);
            let used = end.map_or(buffer.len(), |end| end + 1);
            let room = LINE_BYTES.saturating_sub(line.len()).min(used);
            line.extend_from_slice(&buffer[..room]);
            self.file.consume(used);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.line().with_context(|| format!("cannot read {}", self.path.display()));
            let line = match line.transpose()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            self.number += 1;
            if !line.trim_ascii().is_empty() {
                return Some(Ok((self.number, line)));
            }
        }
    }
}

/// The items of an NDJSON export. Without its last line it is not whole, which is an item in error at its end.
struct Ndjson<L> {
    lines: L,
    file: Arc<Path>,
    total: Option<u64>,
    states: u64,
    last: u64,
    ended: bool,
}

impl<L: Iterator<Item = anyhow::Result<(u64, Vec<u8>)>>> Iterator for Ndjson<L> {
    type Item = anyhow::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = |line, column| Place { file: Arc::clone(&self.file), line, column };
        loop {
            let (number, text) = match self.lines.next() {
                Some(Ok(line)) => line,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    let total = self.total.take()?;
                    if self.ended {
                        return None;
                    }
                    let reason = format!(
                        "the export ends here without its last line: it was cut, {} of its {total} devices are in it",
                        self.states
                    );
                    return Some(Ok(Item { place: place(self.last, 1), text: String::new(), state: Err(reason) }));
                }
            };
            self.last = number;
            let (column, state) = match line::parse(&text) {
                Ok(Line::State(state)) => {
                    self.states += 1;
                    (1, Ok(state))
                }
                Ok(Line::Head(_)) => (1, Err("another export begins here: import one file at a time".to_owned())),
                Ok(Line::End(devices)) if Some(devices) == self.total || self.total.is_none() => {
                    self.ended = true;
                    continue;
                }
                Ok(Line::End(devices)) => {
                    self.ended = true;
                    (1, Err(format!("it ends with {devices} devices, and began with another number")))
                }
                Err(error) => (error.column, Err(error.to_string())),
            };
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            return Some(Ok(Item { place: place(number, column), text, state }));
        }
    }
}

/// The states of a snapshot file.
struct Binary {
    entries: Entries,
    file: Arc<Path>,
    number: u64,
    parked: u64,
    kept: u64,
}

impl Iterator for Binary {
    type Item = anyhow::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.number += 1;
            match self.entries.next() {
                Ok(Some(Entry::State(state))) => {
                    let mut text = Vec::new();
                    line::put_state(&mut text, &state);
                    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
                    let place = Place { file: Arc::clone(&self.file), line: self.number, column: 1 };
                    return Some(Ok(Item { place, text, state: Ok(Box::new(state)) }));
                }
                Ok(Some(Entry::Parked(_))) => self.parked += 1,
                Ok(Some(Entry::Kept(..))) => self.kept += 1,
                Ok(None) => {
                    if self.parked > 0 {
                        let parked = self.parked;
                        eprintln!(
                            "{parked} parked readings are not imported: `tidegate state restore` brings them back"
                        );
                    }
                    if self.kept > 0 {
                        let kept = self.kept;
                        eprintln!(
                            "{kept} kept pairs (sessions, retained messages) are not imported: `tidegate state restore` brings them back"
                        );
                    }
                    return None;
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
