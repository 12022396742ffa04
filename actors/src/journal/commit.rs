//! The journal's thread: take all that waits, one write, one `fdatasync`, one notice a loop.
//!
//! **When the disk fails** the group under way stays in memory with its positions, acknowledgements stop, and the segment
//! is given up: after a failed `fdatasync` nobody knows which of its pages are on the disk, and a second `fdatasync` would
//! say that all is well. The segment is cut to its last good length, if the disk lets us, and the same bytes with the same
//! positions go into a new segment, tried every [`RETRY`]. So a position may stand in two segments, but only with the same
//! record, and the reader takes the first.

use std::{
    io::{self, IoSlice},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flume::{Receiver, RecvTimeoutError};

use super::{
    batch::Batch,
    disk::{Disk, DiskFile},
    retention::{self, Kept, Retention},
    segment::{self, Segment},
    status::{CommitTimes, JournalStatus},
    writer::{Commit, CommitSink, JournalConfig, JournalFailure},
};
use crate::{
    blocking::message,
    company::Company,
    crash_point::CrashPoint,
    ids::{LoopId, Position},
    lock::lock,
};

/// Time between two attempts to write after a failure.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// Bytes after which a group takes no more batches: it bounds the time of one commit, and the memory that is held.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Records that must be expected between two ticks, or an urgent commit does not wait for the next one.
const WORTH_WAITING: f64 = 3.0;
/// Batches of one group: one write takes that many pieces and the head of a segment (`IOV_MAX` is 1,024).
const GROUP_BATCHES: usize = 512;

/// What the journal's thread shares with the rest of the node.
#[derive(Debug)]
pub(super) struct Shared {
    /// The queue has no senders any more: do not wait for the disk to become well.
    pub(super) closing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The segments that are kept, in order. The last is the one that is written, unless it has just failed.
    segments: Vec<Kept>,
    committed: u64,
    appended_bytes: u64,
    commits: u64,
    records: u64,
    last: Duration,
    times: CommitTimes,
    failure: Option<String>,
}

impl Shared {
    pub(super) fn new(segments: Vec<Kept>, next: Position) -> Self {
        let state = State {
            appended_bytes: segments.iter().map(|kept| kept.segment.bytes).sum(),
            segments,
            committed: next.0 - 1,
            commits: 0,
            records: 0,
            last: Duration::ZERO,
            times: CommitTimes::default(),
            failure: None,
        };
        Self { closing: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(super) fn status(&self) -> JournalStatus {
        let state = lock(&self.state);
        let (commit_p50_ms, commit_p99_ms) = state.times.percentiles();
        JournalStatus {
            committed: Position(state.committed),
            bytes: state.segments.iter().map(|kept| kept.segment.bytes).sum(),
            appended_bytes: state.appended_bytes,
            segments: state.segments.len(),
            last_commit_ms: state.last.as_secs_f64() * 1_000.0,
            commit_p50_ms,
            commit_p99_ms,
            commits: state.commits,
            records: state.records,
            healthy: state.failure.is_none(),
            reason: state.failure.clone(),
        }
    }

    /// Says why the journal does not write.
    pub(super) fn fail(&self, reason: String) {
        lock(&self.state).failure = Some(reason);
    }

    /// Takes the segments off the list whose every record is at or before `covered`; never the last one.
    pub(super) fn release(&self, covered: Position) -> Vec<Segment> {
        let mut state = lock(&self.state);
        let is_covered = |pair: &&[Kept]| pair[1].segment.first <= covered.0.saturating_add(1);
        let free = state.segments.windows(2).take_while(is_covered).count();
        state.segments.drain(..free).map(|kept| kept.segment).collect()
    }

    /// The last position of the segments that `retention` gives up and that `covered` covers; 0: there are none.
    pub(super) fn beyond(&self, retention: &Retention, covered: Position) -> Position {
        Position(retention::beyond(&lock(&self.state).segments, retention, covered.0).map_or(0, |next| next - 1))
    }
}

/// The segment that is written.
struct Open {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    first: u64,
    since: Instant,
    /// Bytes that are durable: head and committed records.
    bytes: u64,
}

/// The batches of one commit.
struct Group {
    batches: Vec<Batch>,
    bytes: usize,
    /// Does anybody wait for one of them?
    urgent: bool,
}

impl Group {
    fn of(first: Batch) -> Self {
        let mut group = Self { batches: Vec::new(), bytes: 0, urgent: false };
        group.add(first);
        group
    }

    fn add(&mut self, batch: Batch) {
        self.urgent |= batch.is_urgent();
        self.bytes += batch.bytes();
        self.batches.push(batch);
    }

    fn records(&self) -> usize {
        self.batches.iter().map(Batch::records).sum()
    }

    fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES || self.batches.len() >= GROUP_BATCHES
    }

    /// Takes what waits.
    fn fill(&mut self, batches: &Receiver<Batch>) {
        while !self.is_full()
            && let Ok(batch) = batches.try_recv()
        {
            self.add(batch);
        }
    }
}

/// The journal's thread.
pub(super) struct Committer {
    disk: Box<dyn Disk>,
    retry: Duration,
    dir: PathBuf,
    config: JournalConfig,
    /// The position of the next record.
    next: u64,
    open: Option<Open>,
    company: Company,
    /// The sink was told of a failure, and not yet of its end.
    failing: bool,
    shared: Arc<Shared>,
    sink: Arc<dyn CommitSink>,
}

impl Committer {
    pub(super) fn new(
        disk: Box<dyn Disk>,
        retry: Duration,
        dir: PathBuf,
        config: JournalConfig,
        next: u64,
        shared: Arc<Shared>,
        sink: Arc<dyn CommitSink>,
    ) -> Self {
        let company = Company::new(config.gather, config.gather / 16, WORTH_WAITING);
        Self { disk, retry, dir, config, next, open: None, company, failing: false, shared, sink }
    }

    /// Runs until the last sender is gone and the queue is empty. A panic, which only the sink can bring about, is told as a
    /// failure: the queue is closed then, and nothing is acknowledged any more.
    pub(super) fn run(self, batches: &Receiver<Batch>) {
        let shared = self.shared.clone();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.commit_all(batches))) {
            let reason = format!("its thread panicked: {}", message(&*panic));
            tracing::error!(reason, "the journal has ended");
            shared.fail(reason);
        }
    }

    fn commit_all(mut self, batches: &Receiver<Batch>) {
        while let Some(mut group) = self.next_group(batches) {
            let mut next = self.next;
            group.first_mut().into_iter().for_each(Batch::begin_commit);
            for batch in &mut group {
                batch.seal(next);
                next += batch.records() as u64;
            }
            if !self.commit(&group) {
                tracing::error!(records = next - self.next, "gave records up that were never committed");
                return;
            }
            let first = std::mem::replace(&mut self.next, next);
            CrashPoint::AckBefore.pass();
            self.tell(&group, first);
            CrashPoint::AckAfter.pass();
            if std::mem::take(&mut self.failing) {
                tracing::info!("the journal writes again");
                self.sink.recovered();
            }
        }
        if let Some(mut open) = self.open.take() {
            // What was set aside and not used is given back.
            let _ = open.file.truncate(open.bytes);
        }
    }

    /// Waits for a batch and takes all that wait with it; for how long it waits for more, see [`Company`]. Without an urgent
    /// one it waits for one.
    fn next_group(&mut self, batches: &Receiver<Batch>) -> Option<Vec<Batch>> {
        let mut group = Group::of(self.first_batch(batches)?);
        group.fill(batches);
        let deadline = Instant::now() + self.config.commit_max_delay;
        while !group.urgent
            && !group.is_full()
            && let Ok(batch) = batches.recv_deadline(deadline)
        {
            group.add(batch);
        }
        let wait = if group.urgent && !group.is_full() { self.company.wait(Instant::now()) } else { None };
        let before = group.records();
        if let Some(wait) = wait {
            // Asleep, and not at the queue: each batch would wake this thread.
            std::thread::sleep(wait);
            group.fill(batches);
        }
        // Records, not batches: of those the loops make more when they do not wait themselves.
        let records = group.records();
        self.company.begins(Instant::now(), records, wait.map(|wait| (wait, records - before)));
        Some(group.batches)
    }

    /// Waits for a batch. Meanwhile the segment that is written is closed when it is old enough.
    fn first_batch(&mut self, batches: &Receiver<Batch>) -> Option<Batch> {
        loop {
            let Some(old_at) = self.open.as_ref().and_then(|open| self.old_at(open)) else {
                return batches.recv().ok();
            };
            match batches.recv_deadline(old_at) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Disconnected) => return None,
                // The old one is closed in any case; the next batch will try again, and tell what is wrong.
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.start_segment() {
                        tracing::warn!(%error, "cannot start a segment after an old one was closed");
                    }
                }
            }
        }
    }

    /// When a segment is to be closed because of its age; never without a record in it.
    fn old_at(&self, open: &Open) -> Option<Instant> {
        let age = self.config.segment_age.filter(|_| open.bytes > segment::HEAD as u64)?;
        open.since.checked_add(age)
    }

    /// Makes a group durable, however long it takes; `false`: given up, because the journal is being closed.
    fn commit(&mut self, group: &[Batch]) -> bool {
        loop {
            let started = Instant::now();
            match self.write(group) {
                Ok(bytes) => {
                    self.note_commit(group, bytes, started.elapsed());
                    return true;
                }
                Err(error) => {
                    let closing = self.shared.closing.load(Ordering::Acquire);
                    let failure = self.give_segment_up(&error);
                    self.shared.fail(failure.reason.clone());
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(failure.reason, "the journal cannot write: acknowledgements stop");
                        self.sink.failed(&failure);
                    } else if closing {
                        return false;
                    }
                    std::thread::park_timeout(self.retry);
                }
            }
        }
    }

    /// One write and one `fdatasync`, in a new segment if the last is full or was given up. Returns the bytes written.
    fn write(&mut self, group: &[Batch]) -> io::Result<u64> {
        let bytes = group.iter().map(|batch| batch.bytes() as u64).sum::<u64>();
        let full = |open: &Open| open.bytes > segment::HEAD as u64 && open.bytes + bytes > self.config.segment_bytes;
        let old = |open: &Open| self.old_at(open).is_some_and(|old_at| Instant::now() >= old_at);
        if self.open.as_ref().is_none_or(|open| full(open) || old(open)) {
            self.start_segment()?;
        }
        let open = self.open.as_mut().expect("a segment was just started");
        let mut parts = group.iter().map(|batch| IoSlice::new(batch.frames())).collect::<Vec<_>>();
        CrashPoint::JournalBeforeWrite.pass();
        open.file.write(&mut parts)?;
        CrashPoint::JournalAfterWrite.pass();
        CrashPoint::JournalBeforeSync.pass();
        open.file.sync()?;
        CrashPoint::JournalAfterSync.pass();
        open.bytes += bytes;
        Ok(bytes)
    }

    /// Closes the segment that is written, and starts the next one: it is durable, with its name, before it is used.
    pub(super) fn start_segment(&mut self) -> io::Result<()> {
        if let Some(mut full) = self.open.take() {
            // Only to give unused space back: a reader takes zeros at the end of any segment for its end.
            let _ = full.file.truncate(full.bytes);
        }
        let path = segment::path(&self.dir, self.next);
        let head = segment::head(self.next);
        let started = (|| {
            CrashPoint::SegmentBeforeCreate.pass();
            let mut file = self.disk.create(&path, self.config.segment_bytes)?;
            CrashPoint::SegmentAfterCreate.pass();
            file.write(&mut [IoSlice::new(&head)])?;
            file.sync()?;
            self.disk.sync_dir(&self.dir)?;
            CrashPoint::SegmentAfterSync.pass();
            Ok(file)
        })();
        match started {
            Ok(file) => {
                let bytes = head.len() as u64;
                self.open = Some(Open { file, path: path.clone(), first: self.next, since: Instant::now(), bytes });
                let mut state = lock(&self.shared.state);
                state.segments.retain(|kept| kept.segment.first != self.next);
                state.segments.iter_mut().for_each(Kept::close);
                state.segments.push(Kept::open(Segment { first: self.next, path, bytes }));
                state.appended_bytes += bytes;
                Ok(())
            }
            Err(error) => {
                // A half-made segment holds nothing; the next attempt needs its name and its space.
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    /// Leaves the segment in which a write failed, and says in words what happened.
    fn give_segment_up(&mut self, error: &io::Error) -> JournalFailure {
        let no_space = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let why = if no_space { format!("no space left on the disk ({error})") } else { error.to_string() };
        let Some(mut open) = self.open.take() else {
            let reason = format!("cannot start a segment in {}: {why}", self.dir.display());
            return JournalFailure { reason, no_space };
        };
        if open.first == self.next {
            // Nothing in it was committed, and the next attempt needs its name.
            drop(open.file);
            let _ = self.disk.remove(&open.path);
        } else if open.file.truncate(open.bytes).is_err() {
            tracing::warn!(segment = %open.path.display(), "cannot cut a failed write off; the reader will skip it");
        }
        JournalFailure { reason: format!("cannot write {}: {why}", open.path.display()), no_space }
    }

    fn note_commit(&self, group: &[Batch], bytes: u64, took: Duration) {
        let records = group.iter().map(|batch| batch.records() as u64).sum::<u64>();
        let mut state = lock(&self.shared.state);
        if let Some(kept) = state.segments.last_mut() {
            kept.segment.bytes += bytes;
        }
        state.appended_bytes += bytes;
        state.committed = self.next + records - 1;
        state.commits += 1;
        state.records += records;
        state.last = took;
        state.times.add(took);
        state.failure = None;
    }

    /// Tells each loop once, its batches in their order. `first` is the position of the group's first record.
    fn tell(&self, group: &[Batch], mut first: u64) {
        let mut told: Vec<(LoopId, Vec<Commit>)> = Vec::new();
        for batch in group {
            let commit = Commit { first: Position(first), records: batch.records() };
            first += batch.records() as u64;
            match told.iter_mut().find(|(owner, _)| *owner == batch.owner) {
                Some((_, commits)) => commits.push(commit),
                None => told.push((batch.owner, vec![commit])),
            }
        }
        for (owner, commits) in told {
            self.sink.committed(owner, commits);
        }
    }
}
