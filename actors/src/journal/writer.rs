//! The journal as the loops see it: hand a batch over without blocking, and be told once a commit what is durable.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use super::{
    batch::Batch,
    commit::{self, Committer, Shared},
    disk::{self, Disk, FileSystem},
    retention::{Kept, Retention},
    segment::{self, Segment},
    status::JournalStatus,
    walk,
};
use crate::{
    crash_point::CrashPoint,
    ids::{LoopId, Position},
    limits,
    lock::{lock, read, write},
};

/// Where loops put their records. Real: [`FileJournal`]; a double that loses what was not synced: [`super::MemoryJournal`].
pub trait Journal: Send + Sync + 'static {
    /// Hands a batch over. Never blocks. The sink is told when it is durable: batches of one loop in their order.
    ///
    /// # Errors
    /// Gives the batch back when the queue ([`limits::JOURNAL_QUEUE`]) is full or the journal is closed: keep it, stop
    /// reading, and try again after the next commit or tick.
    fn try_append(&self, batch: Batch) -> Result<(), Batch>;

    /// How the journal fares.
    fn status(&self) -> JournalStatus;

    /// Commits what was handed over, and ends. Blocks; never call it on a loop. When the disk refuses the rest a second
    /// time, it is given up: nobody was told that it is durable.
    fn close(&self);

    /// Frees the segments whose every record is at or before `covered`. Only a snapshot file gives the right to.
    fn release(&self, covered: Position);

    /// The last position of the oldest segments that `retention` gives up and whose every record is at or before `covered`;
    /// 0: there are none.
    fn beyond(&self, retention: &Retention, covered: Position) -> Position;
}

/// Who is told about commits. Called on the journal's thread: hand on, do not work.
pub trait CommitSink: Send + Sync + 'static {
    /// These batches of the loop are durable: one [`Commit`] a batch, in the order in which the loop handed them over.
    /// Called once a commit for each loop that had a part in it.
    fn committed(&self, owner: LoopId, commits: Vec<Commit>);

    /// The journal cannot write; until [`CommitSink::recovered`] nothing is committed. Told once.
    fn failed(&self, error: &JournalFailure);

    /// The journal writes again. What waited was committed just before.
    fn recovered(&self);
}

/// One batch that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// The position of its first record; the others follow without a gap.
    pub first: Position,
    /// How many records it had.
    pub records: usize,
}

/// Why the journal cannot write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot write: {reason}")]
pub struct JournalFailure {
    /// What an operator should read: the call, the file, the system's reason.
    pub reason: String,
    /// Is the disk full?
    pub no_space: bool,
}

/// Why the journal did not open.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
    /// The directory holds records at or after the position that was to be next: it was not recovered first.
    #[error("the journal in {path} already holds position {found}, it cannot go on at {next}", path = path.display())]
    Ahead {
        /// The journal's directory.
        path: PathBuf,
        /// The last position that it holds.
        found: Position,
        /// The position that was to be next.
        next: Position,
    },
}

/// What can be set about a [`FileJournal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalConfig {
    /// Size at which a segment is closed, and that is set aside for a new one.
    pub segment_bytes: u64,
    /// How long a commit that nobody waits for waits for company.
    pub commit_max_delay: Duration,
    /// Time between two commits when they come in fast; zero: each as soon as it can.
    pub gather: Duration,
    /// Age at which a segment with records is closed ([`Retention::segment_age`]); `None`: only its size counts.
    pub segment_age: Option<Duration>,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES,
            commit_max_delay: limits::COMMIT_COMPANY,
            gather: limits::GATHER,
            segment_age: None,
        }
    }
}

/// The journal in local files, with its own thread.
#[derive(Debug)]
pub struct FileJournal {
    queue: RwLock<Option<flume::Sender<Batch>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FileJournal {
    /// Opens the journal in `dir` (which is created) to go on at `next`, in a new segment. The directory must have been
    /// recovered before ([`super::scan`]): `next` is beyond every record in it.
    ///
    /// # Errors
    /// [`JournalError`], naming the path.
    pub fn open(
        dir: &Path,
        config: JournalConfig,
        next: Position,
        sink: Arc<dyn CommitSink>,
    ) -> Result<Arc<Self>, JournalError> {
        Self::open_on(Box::new(FileSystem), commit::RETRY, dir, config, next, sink)
    }

    /// As [`FileJournal::open`], on a disk that may be a double, with a time between attempts that suits it.
    pub(crate) fn open_on(
        disk: Box<dyn Disk>,
        retry: Duration,
        dir: &Path,
        config: JournalConfig,
        next: Position,
        sink: Arc<dyn CommitSink>,
    ) -> Result<Arc<Self>, JournalError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { what, path, source }
        };
        disk::make_dir(dir).map_err(io("create", dir))?;
        let next = Position(next.0.max(1));
        let segments = kept_segments(dir, next)?;
        let modified =
            segments.iter().map(Segment::modified).collect::<io::Result<Vec<_>>>().map_err(io("read", dir))?;
        let segments = Kept::found(segments, &modified, config.segment_age.unwrap_or_default());
        let shared = Arc::new(Shared::new(segments, next));
        let mut committer = Committer::new(disk, retry, dir.to_owned(), config, next.0, shared.clone(), sink);
        committer.start_segment().map_err(io("create a segment in", dir))?;
        let (queue, batches) = flume::bounded(limits::JOURNAL_QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || committer.run(&batches))
            .map_err(io("start the journal's thread for", dir))?;
        Ok(Arc::new(Self { queue: RwLock::new(Some(queue)), shared, thread: Mutex::new(Some(thread)) }))
    }
}

impl Journal for FileJournal {
    fn try_append(&self, batch: Batch) -> Result<(), Batch> {
        if batch.is_empty() {
            return Ok(());
        }
        match &*read(&self.queue) {
            Some(queue) => queue.try_send(batch).map_err(flume::TrySendError::into_inner),
            None => Err(batch),
        }
    }

    fn status(&self) -> JournalStatus {
        self.shared.status()
    }

    fn close(&self) {
        // Without a sender the thread ends when the queue is empty.
        drop(write(&self.queue).take());
        self.shared.closing.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the journal's thread had panicked");
            }
        }
    }

    fn beyond(&self, retention: &Retention, covered: Position) -> Position {
        self.shared.beyond(retention, covered)
    }

    fn release(&self, covered: Position) {
        for segment in self.shared.release(covered) {
            CrashPoint::SegmentBeforeDelete.pass();
            let removed = std::fs::remove_file(&segment.path);
            CrashPoint::SegmentAfterDelete.pass();
            match removed {
                Ok(()) => tracing::info!(segment = %segment.path.display(), "freed a journal segment"),
                Err(error) => {
                    tracing::warn!(segment = %segment.path.display(), %error, "cannot remove a freed journal segment");
                }
            }
        }
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.close();
    }
}

/// The segments that stay, after making sure that none reaches `next`. An empty one of the same name gives way.
fn kept_segments(dir: &Path, next: Position) -> Result<Vec<Segment>, JournalError> {
    let io = |what, path: &Path, source| JournalError::Io { what, path: path.to_owned(), source };
    let mut segments = segment::list(dir).map_err(|error| io("list", dir, error))?;
    if let Some(last) = segments.last() {
        let found = walk::last_position(last).map_err(|error| io("read", &last.path, error))?;
        if found.is_some_and(|found| found >= next) || last.first > next.0 {
            let found = found.unwrap_or(Position(last.first.saturating_sub(1)));
            return Err(JournalError::Ahead { path: dir.to_owned(), found, next });
        }
        if last.first == next.0 {
            std::fs::remove_file(&last.path).map_err(|error| io("remove", &last.path, error))?;
            segments.pop();
        }
    }
    Ok(segments)
}
