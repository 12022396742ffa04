//! The store in sled 0.34, with what it takes to trust it: see `docs/adr/0002-journal-and-sled.md`.
//!
//! - Its `flush` does not survive a power cut, so `db` is synced by us after each.
//! - It may panic on a damaged file, so every call into it is guarded.
//! - It may come back with less and say nothing, so the folded position is held inside and beside it, and compared.
//! - A write error stays for good, so it is dropped and opened again.

use std::{
    fmt,
    fs::{self, File},
    io,
    ops::{Bound, ControlFlow},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Changes, KEPT_PAGE_BYTES, StateStore, StoreError,
    folded::{self, FoldedFile, Said},
    record,
};
use crate::{
    background,
    blocking::message,
    crash_point::CrashPoint,
    ids::Position,
    journal::{disk, record::DecodeError},
    kept::KeptChange,
    lifetime::Lifetime,
    limits,
    lock::{lock, read, write},
    state::{DeviceState, ParkedReading},
};

/// What can be set about a [`SledStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SledConfig {
    /// Memory for sled's page cache, in bytes: at least four times the live bytes, or overwriting gets slow.
    pub cache_bytes: u64,
}

impl Default for SledConfig {
    fn default() -> Self {
        Self { cache_bytes: 128 * 1024 * 1024 }
    }
}

/// The least that makes sense.
const CACHE_BYTES_LEAST: u64 = 64 * 1024 * 1024;
/// How long a lock that a dying process still holds is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// The place of the folded position in the tree `meta`.
const FOLDED: &[u8] = b"folded";

/// The store in sled.
pub struct SledStore {
    dir: PathBuf,
    config: SledConfig,
    /// `None`: it failed and is to be opened again.
    opened: RwLock<Option<Opened>>,
    side: Mutex<FoldedFile>,
    folded: AtomicU64,
    count: AtomicU64,
    parked: AtomicU64,
    parked_dropped: AtomicU64,
    kept: AtomicU64,
    newest: AtomicU64,
    /// Of the states that it had when it was opened.
    lifetime: Lifetime,
}

struct Opened {
    db: sled::Db,
    states: sled::Tree,
    parked: sled::Tree,
    kept: sled::Tree,
    meta: sled::Tree,
    /// sled's own file, for our own `fdatasync`.
    data: File,
}

/// What the first scan found.
struct Found {
    folded: Position,
    states: u64,
    parked: u64,
    kept: u64,
    newest: Position,
    lifetime: Lifetime,
}

/// An error of sled, or of what is stored in it.
enum Failure {
    Sled(sled::Error),
    Stored(DecodeError),
    TooLarge(StoreError),
    Panicked(String),
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        Self::Sled(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Sled(sled::Error::Io(error))
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Stored(error)
    }
}

impl SledStore {
    /// Opens the store in `dir` (made when it does not exist), reads all of it once, and compares its position with that of
    /// the side file (`<dir>.folded`).
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it for more than a second; [`StoreError::Damaged`] when it cannot be
    /// trusted: then it is to be moved away and rebuilt (see [`crate::recovery`]).
    pub fn open(dir: &Path, config: SledConfig) -> Result<Self, StoreError> {
        let side_path = folded::path(dir);
        let io = |source| StoreError::Io { what: "use", path: side_path.clone(), source };
        let said = FoldedFile::read(&side_path).map_err(io)?;
        let (opened, found) = open_guarded(dir, config)?;
        compare(dir, said, found.folded)?;
        let side = FoldedFile::open(&side_path, found.folded).map_err(io)?;
        Ok(Self {
            dir: dir.to_owned(),
            config,
            opened: RwLock::new(Some(opened)),
            side: Mutex::new(side),
            folded: found.folded.0.into(),
            count: found.states.into(),
            parked: found.parked.into(),
            parked_dropped: AtomicU64::new(0),
            kept: found.kept.into(),
            newest: found.newest.0.into(),
            lifetime: found.lifetime,
        })
    }

    /// What became of every reading of the devices that it had when it was opened.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The greatest position in any state: at or beyond [`StateStore::folded`].
    #[must_use]
    pub fn newest(&self) -> Position {
        Position(self.newest.load(Ordering::Relaxed))
    }

    /// Works on the open sled, guarded.
    fn with<T>(&self, work: impl FnOnce(&Opened) -> Result<T, Failure>) -> Result<T, StoreError> {
        let opened = read(&self.opened);
        let Some(opened) = &*opened else {
            let reason = io::Error::other("it failed and is being opened again");
            return Err(StoreError::Io { what: "read", path: self.dir.clone(), source: reason });
        };
        guarded(|| work(opened)).map_err(|failure| explain(&self.dir, "read", failure))
    }

    /// Opens sled again after a write error, which would stay for good.
    fn reopen(&self) -> Result<(), StoreError> {
        // The write lock waits for every reader, and holds up those that come: only when there is something to do.
        if read(&self.opened).is_some() {
            return Ok(());
        }
        let mut opened = write(&self.opened);
        if opened.is_none() {
            let (again, found) = open_guarded(&self.dir, self.config)?;
            compare(&self.dir, Said::Folded(self.folded()), found.folded)?;
            self.count.store(found.states, Ordering::Relaxed);
            self.parked.store(found.parked, Ordering::Relaxed);
            self.kept.store(found.kept, Ordering::Relaxed);
            *opened = Some(again);
        }
        Ok(())
    }

    fn put(&self, opened: &Opened, changes: &Changes, folded: Position) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        // In the order of the keys sled touches each page once.
        let mut sorted = changes.states.iter().collect::<Vec<_>>();
        sorted.sort_unstable_by(|one, other| one.device.cmp(&other.device));
        for state in sorted {
            bytes.clear();
            record::encode_state(&mut bytes, state).map_err(|error| {
                Failure::TooLarge(StoreError::TooLarge { device: state.device.clone(), bytes: error.bytes })
            })?;
            if opened.states.insert(state.device.as_str(), &*bytes)?.is_none() {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            self.newest.fetch_max(state.position.0, Ordering::Relaxed);
        }
        for parked in &changes.parked {
            bytes.clear();
            record::encode_parked(&mut bytes, parked).map_err(|error| {
                Failure::TooLarge(StoreError::TooLarge { device: parked.reading.device.clone(), bytes: error.bytes })
            })?;
            if opened.parked.insert(parked.position.0.to_be_bytes(), &*bytes)?.is_none() {
                self.parked.fetch_add(1, Ordering::Relaxed);
            }
        }
        for position in &changes.unparked {
            if opened.parked.remove(position.0.to_be_bytes())?.is_some() {
                self.parked.fetch_sub(1, Ordering::Relaxed);
            }
        }
        while self.parked.load(Ordering::Relaxed) > limits::PARKED_READINGS as u64 {
            if opened.parked.pop_min()?.is_none() {
                break;
            }
            self.parked.fetch_sub(1, Ordering::Relaxed);
            self.parked_dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.put_kept(opened, &changes.kept)?;
        // Last: sled keeps its log in order, so whoever finds this position finds what was put in before it.
        opened.meta.insert(FOLDED, &folded.0.to_be_bytes())?;
        opened.db.flush()?;
        CrashPoint::StoreBeforeSync.pass();
        opened.data.sync_data()?;
        Ok(())
    }

    fn put_kept(&self, opened: &Opened, kept: &[KeptChange]) -> Result<(), Failure> {
        let mut sorted = kept.iter().collect::<Vec<_>>();
        // Stable: of two changes of one key the later one counts.
        sorted.sort_by(|one, other| one.key.cmp(&other.key));
        let mut bytes = Vec::new();
        for KeptChange { key, value } in sorted {
            let Some(value) = value else {
                if opened.kept.remove(key)?.is_some() {
                    self.kept.fetch_sub(1, Ordering::Relaxed);
                }
                continue;
            };
            bytes.clear();
            record::encode_value(&mut bytes, value)
                .map_err(|error| Failure::TooLarge(StoreError::PairTooLarge { bytes: error.bytes }))?;
            if opened.kept.insert(key, &*bytes)?.is_none() {
                self.kept.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl StateStore for SledStore {
    fn get(&self, device: &str) -> Result<Option<DeviceState>, StoreError> {
        self.with(|opened| match opened.states.get(device)? {
            Some(bytes) => Ok(Some(record::decode_state(&bytes)?)),
            None => Ok(None),
        })
    }

    fn page(&self, after: Option<&str>, prefix: &str, limit: usize) -> Result<Vec<DeviceState>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        self.with(|opened| {
            let mut page = Vec::new();
            for entry in opened.states.range::<&[u8], _>((start, Bound::Unbounded)).take(limit) {
                let (device, bytes) = entry?;
                if !device.starts_with(prefix.as_bytes()) {
                    break;
                }
                page.push(record::decode_state(&bytes)?);
            }
            Ok(page)
        })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn write(&self, changes: &Changes, folded: Position) -> Result<(), StoreError> {
        self.reopen()?;
        let put = {
            let opened = read(&self.opened);
            let opened = opened.as_ref().expect("it was just opened, and there is one writer");
            guarded(|| self.put(opened, changes, folded))
        };
        match put {
            Ok(()) => {}
            Err(Failure::TooLarge(error)) => return Err(error),
            Err(failure) => {
                drop(write(&self.opened).take());
                return Err(explain(&self.dir, "write", failure));
            }
        }
        CrashPoint::FoldedBeforeWrite.pass();
        let side = lock(&self.side).write(folded);
        CrashPoint::FoldedAfterWrite.pass();
        side.map_err(|source| StoreError::Io { what: "write", path: folded::path(&self.dir), source })?;
        self.folded.store(folded.0, Ordering::Release);
        Ok(())
    }

    fn folded(&self) -> Position {
        Position(self.folded.load(Ordering::Acquire))
    }

    fn parked(&self, before: Option<Position>, limit: usize) -> Result<Vec<ParkedReading>, StoreError> {
        self.with(|opened| {
            let before = before.map_or(u64::MAX, |before| before.0).to_be_bytes();
            let newest_first = opened.parked.range(..before).rev().take(limit);
            newest_first.map(|entry| Ok(record::decode_parked(&entry?.1)?)).collect()
        })
    }

    fn parked_dropped(&self) -> u64 {
        self.parked_dropped.load(Ordering::Relaxed)
    }

    fn for_each(&self, each: &mut dyn FnMut(DeviceState) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.with(|opened| {
            for entry in &opened.states {
                if each(record::decode_state(&entry?.1)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn kept_count(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    fn kept_page(&self, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with(|opened| {
            let (mut page, mut read) = (Vec::new(), 0);
            let pairs = opened.kept.range::<&[u8], _>((super::page_start(after, prefix), Bound::Unbounded));
            for entry in pairs.take(limit) {
                let (key, bytes) = entry?;
                if !key.starts_with(prefix) {
                    break;
                }
                read += key.len() + bytes.len();
                let value = Bytes::copy_from_slice(record::decode_value(&bytes)?);
                page.push((Bytes::copy_from_slice(&key), value));
                if read >= KEPT_PAGE_BYTES {
                    break;
                }
            }
            Ok(page)
        })
    }

    fn size_on_disk(&self) -> u64 {
        self.with(|opened| Ok(opened.db.size_on_disk()?)).unwrap_or(0)
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("dir", &self.dir).field("folded", &self.folded()).finish_non_exhaustive()
    }
}

/// Opens sled and reads all of it once; waits a little for a lock.
fn open_guarded(dir: &Path, config: SledConfig) -> Result<(Opened, Found), StoreError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match guarded(|| open_once(dir, config)) {
            Err(Failure::Sled(sled::Error::Io(error))) if is_locked(&error) => {
                if Instant::now() >= deadline {
                    return Err(StoreError::InUse { dir: dir.to_owned() });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other.map_err(|failure| explain(dir, "open", failure)),
        }
    }
}

fn open_once(dir: &Path, config: SledConfig) -> Result<(Opened, Found), Failure> {
    let settings = sled::Config::new()
        .path(dir)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(config.cache_bytes.max(CACHE_BYTES_LEAST))
        // Its garbage collection runs in this thread only.
        .flush_every_ms(Some(500));
    // Its own threads inherit their priority from the one that opens it.
    let db = background::run(|| settings.open())?;
    let states = db.open_tree("states")?;
    let parked = db.open_tree("parked")?;
    let kept = db.open_tree("kept")?;
    let meta = db.open_tree("meta")?;
    let mut found = Found {
        folded: Position(0),
        states: 0,
        parked: 0,
        kept: 0,
        newest: Position(0),
        lifetime: Lifetime::default(),
    };
    if let Some(folded) = meta.get(FOLDED)? {
        let folded =
            folded.as_ref().try_into().map_err(|_| DecodeError::Malformed("its position is cut".to_owned()))?;
        found.folded = Position(u64::from_be_bytes(folded));
    }
    for entry in &states {
        let (device, bytes) = entry?;
        let state = record::decode_state(&bytes)?;
        if state.device.as_str().as_bytes() != device.as_ref() {
            return Err(DecodeError::Malformed(format!("the state of {} is stored elsewhere", state.device)).into());
        }
        found.newest = found.newest.max(state.position);
        found.lifetime.change(None, &state);
        found.states += 1;
    }
    for entry in &parked {
        record::decode_parked(&entry?.1)?;
        found.parked += 1;
    }
    for entry in &kept {
        record::decode_value(&entry?.1)?;
        found.kept += 1;
    }
    let data = File::open(dir.join("db"))?;
    settle(dir)?;
    Ok((Opened { db, states, parked, kept, meta, data }, found))
}

/// Makes sled's files and their names durable: it syncs neither its `conf` nor its directory, and without them a power cut
/// takes all that is in `db`.
fn settle(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            File::open(path)?.sync_all()?;
        }
    }
    disk::sync_dir(dir)?;
    dir.parent().map_or(Ok(()), disk::sync_dir)
}

/// Is what sled came back with at least what it had promised?
fn compare(dir: &Path, said: Said, folded: Position) -> Result<(), StoreError> {
    let reason = match said {
        Said::Folded(promised) if promised <= folded => return Ok(()),
        Said::Missing | Said::Damaged if folded == Position(0) => return Ok(()),
        Said::Folded(promised) => format!("it was folded up to {promised} and came back with {folded}"),
        Said::Missing => "its position file is missing".to_owned(),
        Said::Damaged => "its position file is damaged".to_owned(),
    };
    Err(StoreError::Damaged { dir: dir.to_owned(), reason })
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::Panicked(message(&*panic))))
}

/// Tells a refusal of the file system from damage.
fn explain(dir: &Path, what: &'static str, failure: Failure) -> StoreError {
    let dir = dir.to_owned();
    let reason = match failure {
        Failure::TooLarge(error) => return error,
        Failure::Stored(DecodeError::Newer) => return StoreError::Newer { dir },
        Failure::Sled(sled::Error::Io(source)) if is_refusal(&source) => {
            return StoreError::Io { what, path: dir, source };
        }
        Failure::Sled(error) => error.to_string(),
        Failure::Stored(error) => error.to_string(),
        Failure::Panicked(panic) => format!("sled panicked: {panic}"),
    };
    StoreError::Damaged { dir, reason }
}

/// Does another process hold sled's lock? sled says so in words; to take it for damage would move a live store away.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Does the system refuse (then the files may be well), or are the files not what they should be?
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind;
    !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound | ErrorKind::Other)
}
