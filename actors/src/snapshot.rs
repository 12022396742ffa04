//! Snapshot files: all states and parked readings with the position up to which they are folded. They give the right to free
//! journal segments, and they rebuild the store.
//!
//! A snapshot is written beside, synced, renamed, and its directory synced: it is whole or it is not there. Each entry has a
//! CRC, and the last one counts the others. The format is described in `docs/journal.md`.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::{
    crash_point::CrashPoint,
    ids::Position,
    journal::{RecordTooLarge, disk, record::DecodeError},
    state::{DeviceState, ParkedReading},
    store::{StateStore, StoreError, record},
};

const MAGIC: [u8; 8] = *b"TGSNAP\r\n";
const FORMAT: u32 = 1;
const HEAD: usize = 32;
const EXTENSION: &str = "tgs";
/// Snapshots that are kept: the newest, and one more in case it is damaged.
pub const KEPT: usize = 2;

/// The kinds of an entry.
const STATE: u8 = 1;
const PARKED: u8 = 2;
const END: u8 = 3;

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
    let path = dir.join(format!("{position:020}.{EXTENSION}"));
    let beside = path.with_extension("tmp");
    let io = |what| {
        let path = beside.clone();
        move |source| SnapshotError::Io { what, path, source }
    };
    let written = (|| {
        disk::make_dir(dir).map_err(io("create the directory of"))?;
        CrashPoint::SnapshotBeforeWrite.pass();
        let file = File::create(&beside).map_err(io("create"))?;
        let mut writer = Writer { file: BufWriter::with_capacity(256 * 1024, file), entry: Vec::new() };
        fill(store, position, &mut writer)?.map_err(io("write"))?;
        let file = writer.file.into_inner().map_err(|error| io("write")(error.into_error()))?;
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
}

/// Reads a snapshot, and hands out its entries: the states by device id, then the parked readings. [`verify`] it before,
/// because entries come out before the end is seen.
///
/// # Errors
/// [`SnapshotError`], also that of `each`.
pub fn load(
    snapshot: &Snapshot,
    each: &mut dyn FnMut(Entry) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let io = |what| move |source| SnapshotError::Io { what, path: snapshot.path.clone(), source };
    let damaged = |reason: &str| SnapshotError::Damaged { path: snapshot.path.clone(), reason: reason.to_owned() };
    let file = File::open(&snapshot.path).map_err(io("open"))?;
    let mut reader = Reader { file: BufReader::with_capacity(256 * 1024, file), entry: Vec::new() };
    let mut head = [0; HEAD];
    reader.fill(&mut head).map_err(io("read"))?.ok_or_else(|| damaged("it has no head"))?;
    match parse_head(&head) {
        Some((FORMAT, position)) if position == snapshot.position => {}
        Some((FORMAT, _)) => return Err(damaged("its name and its head do not agree")),
        Some(_) => return Err(SnapshotError::Newer { path: snapshot.path.clone() }),
        None => return Err(damaged("its head is damaged")),
    }
    let decoded = |error| match error {
        DecodeError::Newer => SnapshotError::Newer { path: snapshot.path.clone() },
        error => damaged(&error.to_string()),
    };
    let (mut states, mut parked) = (0_u64, 0_u64);
    loop {
        match reader.entry().map_err(io("read"))?.ok_or_else(|| damaged("an entry is damaged or missing"))? {
            (STATE, body) => {
                states += 1;
                each(Entry::State(record::decode_state(body).map_err(decoded)?))?;
            }
            (PARKED, body) => {
                parked += 1;
                each(Entry::Parked(record::decode_parked(body).map_err(decoded)?))?;
            }
            (END, body) if body == end(states, parked) => break,
            (END, _) => return Err(damaged("entries are missing")),
            _ => return Err(SnapshotError::Newer { path: snapshot.path.clone() }),
        }
    }
    if reader.fill(&mut [0]).map_err(io("read"))?.is_some() {
        return Err(damaged("bytes follow its end"));
    }
    Ok(())
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
fn fill(store: &dyn StateStore, position: Position, writer: &mut Writer) -> Result<io::Result<()>, StoreError> {
    let (mut states, mut parked) = (0_u64, 0_u64);
    let mut written = writer.file.write_all(&head(position));
    store.for_each(&mut |state| {
        states += 1;
        written = match written {
            Ok(()) => writer.entry(STATE, |body| record::encode_state(body, &state)),
            Err(_) => return ControlFlow::Break(()),
        };
        ControlFlow::Continue(())
    })?;
    for reading in store.parked(None, usize::MAX)?.iter().rev() {
        parked += 1;
        written = written.and_then(|()| writer.entry(PARKED, |body| record::encode_parked(body, reading)));
    }
    let counted = end(states, parked);
    let end = |body: &mut Vec<u8>| {
        body.extend_from_slice(&counted);
        Ok(())
    };
    Ok(written.and_then(|()| writer.entry(END, end)))
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

fn end(states: u64, parked: u64) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&states.to_le_bytes());
    body[8..].copy_from_slice(&parked.to_le_bytes());
    body
}

fn position_of(path: &Path) -> Option<u64> {
    (path.extension()? == EXTENSION).then(|| path.file_stem()?.to_str()?.parse().ok())?
}

/// Entries: length of kind and body (4), CRC-32C of kind and body (4), kind (1), body.
struct Writer {
    file: BufWriter<File>,
    entry: Vec<u8>,
}

impl Writer {
    fn entry(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>) -> Result<(), RecordTooLarge>) -> io::Result<()> {
        self.entry.clear();
        self.entry.push(kind);
        body(&mut self.entry).map_err(io::Error::other)?;
        let length = u32::try_from(self.entry.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32c::crc32c(&self.entry).to_le_bytes())?;
        self.file.write_all(&self.entry)
    }
}

struct Reader {
    file: BufReader<File>,
    entry: Vec<u8>,
}

impl Reader {
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
