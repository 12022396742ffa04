//! Snapshot files: all states, parked readings and kept pairs with the position up to which they are folded. They give the right to
//! free journal segments, and they rebuild the store.
//!
//! A snapshot is written beside, synced, renamed, and its directory synced: it is whole or it is not there. Each entry has a
//! CRC, and the last one counts the others. The format is described in `docs/journal.md`. A kind of entry that a build does not know
//! is of a newer one: so [`FORMAT`] need not change with a new kind, and a file without entries of it is readable by older builds.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    crash_point::CrashPoint,
    ids::Position,
    journal::{
        RecordTooLarge, disk,
        record::{DecodeError, decode_kept, encode_kept},
    },
    kept::KeptChange,
    state::{DeviceState, ParkedReading},
    store::{StateStore, StoreError, record},
};

const MAGIC: [u8; 8] = *b"TGSNAP\r\n";
const FORMAT: u32 = 1;
const HEAD: usize = 32;
const EXTENSION: &str = "tgs";
/// Snapshots that are kept: the newest, and one more in case it is damaged.
pub const KEPT: usize = 2;

/// Bytes that are read or written at a time.
const BUFFER: usize = 256 * 1024;

/// The kinds of an entry.
const STATE: u8 = 1;
const PARKED: u8 = 2;
const END: u8 = 3;
const KEPT_PAIR: u8 = 4;

/// A snapshot file. That it is listed does not say that it is whole: see [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything up to here is folded into its states.
    pub position: Position,
    /// The file.
    pub path: PathBuf,
}

/// Why a snapshot was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
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
    /// It is not what was written.
    #[error("the snapshot {path} is damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A newer Tidegate wrote it.
    #[error("the snapshot {path} was written by a newer version of tidegate", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The store did not give or take the states.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The snapshots in a directory, the newest first; none if it does not exist.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn list(dir: &Path) -> Result<Vec<Snapshot>, SnapshotError> {
    let io = |source| SnapshotError::Io { what: "list", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut snapshots = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if let Some(position) = position_of(&path) {
            snapshots.push(Snapshot { position: Position(position), path });
        }
    }
    snapshots.sort_unstable_by_key(|snapshot| std::cmp::Reverse(snapshot.position));
    Ok(snapshots)
}

/// Writes a snapshot of the store. Only for the thread that writes the store, while it does not: that makes it consistent.
///
/// # Errors
/// [`SnapshotError`]; no file is left.
pub fn write(store: &dyn StateStore, dir: &Path) -> Result<Snapshot, SnapshotError> {
    let position = store.folded();
    let path = dir.join(file_name(position));
    let beside = path.with_extension("tmp");
    let io = |what| {
        let path = beside.clone();
        move |source| SnapshotError::Io { what, path, source }
    };
    let written = (|| {
        disk::make_dir(dir).map_err(io("create the directory of"))?;
        CrashPoint::SnapshotBeforeWrite.pass();
        let file = File::create(&beside).map_err(io("create"))?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        fill(store, position, &mut out)?.map_err(io("write"))?;
        let file = out.into_inner().map_err(|error| io("write")(error.into_error()))?;
        CrashPoint::SnapshotAfterWrite.pass();
        file.sync_all().map_err(io("sync"))?;
        CrashPoint::SnapshotBeforeRename.pass();
        fs::rename(&beside, &path).map_err(io("rename"))?;
        CrashPoint::SnapshotAfterRename.pass();
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync the directory of"))
    })();
    match written {
        Ok(()) => Ok(Snapshot { position, path }),
        Err(error) => {
            let _ = fs::remove_file(&beside);
            Err(error)
        }
    }
}

/// A snapshot file of any name, with the position that its head says.
///
/// # Errors
/// [`SnapshotError`]: it has no head of a snapshot.
pub fn at(path: &Path) -> Result<Snapshot, SnapshotError> {
    let mut head = [0; HEAD];
    let file = File::open(path).map_err(|source| io_error("open", path, source))?;
    let whole = Reader { file, entry: Vec::new() }.fill(&mut head).map_err(|source| io_error("read", path, source))?;
    match whole.and_then(|()| parse_head(&head)) {
        Some((FORMAT, position)) => Ok(Snapshot { position, path: path.to_owned() }),
        Some(_) => Err(SnapshotError::Newer { path: path.to_owned() }),
        None => Err(damaged(path, "it has no head of a snapshot")),
    }
}

/// The name of the snapshot file of a position.
#[must_use]
pub fn file_name(position: Position) -> String {
    format!("{position:020}.{EXTENSION}")
}

/// Reads a snapshot from end to end, and says whether it is whole.
///
/// # Errors
/// [`SnapshotError`] says what it is not.
pub fn verify(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    load(snapshot, &mut |_| Ok(()))
}

/// One entry of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The latest state of a device.
    State(DeviceState),
    /// A parked reading.
    Parked(ParkedReading),
    /// A pair of the edge: key and value.
    Kept(Bytes, Bytes),
}

/// Reads a snapshot, and hands out its entries: the states by device id, then the parked readings, then the kept pairs by key. [`verify`] it before,
/// because entries come out before the end is seen.
///
/// # Errors
/// [`SnapshotError`], also that of `each`.
pub fn load(
    snapshot: &Snapshot,
    each: &mut dyn FnMut(Entry) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let mut entries = Entries::open(snapshot)?;
    while let Some(entry) = entries.next()? {
        each(entry)?;
    }
    Ok(())
}

/// The entries of a snapshot, one by one: see [`load`].
pub struct Entries {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
    counts: Counts,
}

impl Entries {
    /// Opens a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        let path = snapshot.path.clone();
        let file = File::open(&path).map_err(|source| io_error("open", &path, source))?;
        let mut reader = Reader { file: BufReader::with_capacity(BUFFER, file), entry: Vec::new() };
        let mut head = [0; HEAD];
        let whole = reader.fill(&mut head).map_err(|source| io_error("read", &path, source))?;
        whole.ok_or_else(|| damaged(&path, "it has no head"))?;
        match parse_head(&head) {
            Some((FORMAT, position)) if position == snapshot.position => {}
            Some((FORMAT, _)) => return Err(damaged(&path, "its name and its head do not agree")),
            Some(_) => return Err(SnapshotError::Newer { path }),
            None => return Err(damaged(&path, "its head is damaged")),
        }
        Ok(Self { path, reader, counts: Counts::default() })
    }

    /// The next entry; `None`: that was all, and the snapshot is whole.
    ///
    /// # Errors
    /// [`SnapshotError`].
    #[allow(clippy::should_implement_trait, reason = "an iterator that goes on behind an error would be no help")]
    pub fn next(&mut self) -> Result<Option<Entry>, SnapshotError> {
        let Self { path, reader, counts } = self;
        let decoded = |error| match error {
            DecodeError::Newer => SnapshotError::Newer { path: path.clone() },
            error => damaged(path, &error.to_string()),
        };
        let entry = reader.entry().map_err(|source| io_error("read", path, source))?;
        match entry.ok_or_else(|| damaged(path, "an entry is damaged or missing"))? {
            (STATE, body) => {
                counts.states += 1;
                Ok(Some(Entry::State(record::decode_state(body).map_err(decoded)?)))
            }
            (PARKED, body) => {
                counts.parked += 1;
                Ok(Some(Entry::Parked(record::decode_parked(body).map_err(decoded)?)))
            }
            (KEPT_PAIR, body) => {
                counts.kept += 1;
                let KeptChange { key, value } = decode_kept(body).map_err(decoded)?;
                let value = value.ok_or_else(|| damaged(path, "a kept pair has no value"))?;
                Ok(Some(Entry::Kept(key, value)))
            }
            (END, body) if body == counts.end() => {
                let more = reader.fill(&mut [0]).map_err(|source| io_error("read", path, source))?;
                more.map_or(Ok(None), |()| Err(damaged(path, "bytes follow its end")))
            }
            (END, _) => Err(damaged(path, "entries are missing")),
            _ => Err(SnapshotError::Newer { path: path.clone() }),
        }
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { what, path: path.to_owned(), source }
}

fn damaged(path: &Path, reason: &str) -> SnapshotError {
    SnapshotError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

/// Takes a damaged snapshot out of the list, and keeps it for who wants to look: `<name>.damaged`.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn set_aside(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    fs::rename(&snapshot.path, snapshot.path.with_extension("tgs.damaged")).map_err(|source| SnapshotError::Io {
        what: "set aside",
        path: snapshot.path.clone(),
        source,
    })
}

/// Removes all but the newest [`KEPT`].
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn prune(dir: &Path) -> Result<(), SnapshotError> {
    for snapshot in list(dir)?.into_iter().skip(KEPT) {
        fs::remove_file(&snapshot.path).map_err(|source| SnapshotError::Io {
            what: "remove",
            path: snapshot.path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Writes head, entries and end: what the store says, and within it what the file system says.
fn fill<W: Write>(store: &dyn StateStore, position: Position, out: W) -> Result<io::Result<()>, StoreError> {
    let mut writer = match Writer::begin(out, position) {
        Ok(writer) => writer,
        Err(error) => return Ok(Err(error)),
    };
    let mut written = Ok(());
    store.for_each(&mut |state| {
        written = writer.state(&state);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    for reading in store.parked(None, usize::MAX)?.iter().rev() {
        written = written.and_then(|()| writer.parked(reading));
    }
    if written.is_ok() {
        store.kept(b"", &mut |key, value| {
            written = writer.kept(key, value);
            if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok(written.and_then(|()| writer.end()).and_then(|mut out| out.flush()))
}

/// Magic, format, position, zero, CRC-32C of all that.
fn head(position: Position) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..20].copy_from_slice(&position.0.to_le_bytes());
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

fn parse_head(head: &[u8; HEAD]) -> Option<(u32, Position)> {
    let whole = head[..8] == MAGIC && head[28..] == crc32c::crc32c(&head[..28]).to_le_bytes();
    let format = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
    let position = u64::from_le_bytes(head[12..20].try_into().expect("eight bytes"));
    whole.then_some((format, Position(position)))
}

/// How many entries of each kind there are.
#[derive(Debug, Default)]
struct Counts {
    states: u64,
    parked: u64,
    kept: u64,
}

impl Counts {
    /// The body of the end. It tells of kept pairs only where there are some: the others are as they always were.
    fn end(&self) -> Vec<u8> {
        let kept = (self.kept > 0).then_some(self.kept);
        [self.states, self.parked].into_iter().chain(kept).flat_map(u64::to_le_bytes).collect()
    }
}

fn position_of(path: &Path) -> Option<u64> {
    (path.extension()? == EXTENSION).then(|| path.file_stem()?.to_str()?.parse().ok())?
}

/// Writes a snapshot, entry by entry, wherever it goes: the states by device id, then the parked readings by position, then the kept
/// pairs by key, then the end, without which it is none. An entry is: length of kind and body (4), CRC-32C of kind and body (4), kind (1), body.
pub struct Writer<W> {
    out: W,
    entry: Vec<u8>,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Writes the head.
    ///
    /// # Errors
    /// Of `out`.
    pub fn begin(mut out: W, position: Position) -> io::Result<Self> {
        out.write_all(&head(position))?;
        Ok(Self { out, entry: Vec::new(), counts: Counts::default() })
    }

    /// Writes a state.
    ///
    /// # Errors
    /// Of `out`, or the state is larger than any can be.
    pub fn state(&mut self, state: &DeviceState) -> io::Result<()> {
        self.counts.states += 1;
        self.entry(STATE, |body| record::encode_state(body, state))
    }

    /// Writes a parked reading.
    ///
    /// # Errors
    /// As [`Writer::state`].
    pub fn parked(&mut self, reading: &ParkedReading) -> io::Result<()> {
        self.counts.parked += 1;
        self.entry(PARKED, |body| record::encode_parked(body, reading))
    }

    /// Writes a kept pair.
    ///
    /// # Errors
    /// As [`Writer::state`].
    pub fn kept(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.counts.kept += 1;
        self.entry(KEPT_PAIR, |body| encode_kept(body, key, Some(value)))
    }

    /// Writes the end, and gives `out` back; it is not flushed.
    ///
    /// # Errors
    /// Of `out`.
    pub fn end(mut self) -> io::Result<W> {
        let counted = self.counts.end();
        self.entry(END, |body| {
            body.extend_from_slice(&counted);
            Ok(())
        })?;
        Ok(self.out)
    }

    fn entry(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>) -> Result<(), RecordTooLarge>) -> io::Result<()> {
        self.entry.clear();
        self.entry.push(kind);
        body(&mut self.entry).map_err(io::Error::other)?;
        let length = u32::try_from(self.entry.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&crc32c::crc32c(&self.entry).to_le_bytes())?;
        self.out.write_all(&self.entry)
    }
}

struct Reader<R> {
    file: R,
    entry: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Fills `bytes`; `None`: the file ends before that.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<Option<()>> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next entry; `None`: there is no whole one.
    fn entry(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        let mut head = [0; 8];
        if self.fill(&mut head)?.is_none() {
            return Ok(None);
        }
        let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
        if !(1..=1 + record::STATE_BYTES).contains(&length) {
            return Ok(None);
        }
        // As it comes, not all at once: a wrong length must not allocate what is not there.
        self.entry.clear();
        self.file.by_ref().take(length as u64).read_to_end(&mut self.entry)?;
        let whole = self.entry.len() == length && crc32c::crc32c(&self.entry).to_le_bytes() == head[4..];
        Ok(whole.then(|| (self.entry[0], &self.entry[1..])))
    }
}

#[cfg(test)]
mod tests;
