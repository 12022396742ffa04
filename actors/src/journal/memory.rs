//! A journal in memory: a double that keeps apart what was written and what is durable, so that a test can cut the power.
//!
//! It has no thread: commits happen where the test says, on the caller's thread. It also serves a node that keeps nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use super::{
    batch::Batch,
    frame,
    record::{self, Record},
    retention::Retention,
    status::JournalStatus,
    writer::{Commit, CommitSink, Journal, JournalFailure},
};
use crate::{
    ids::{LoopId, Position},
    limits,
    lock::lock,
};

/// When a [`MemoryJournal`] commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// In `try_append`, before it returns.
    AtOnce,
    /// When [`MemoryJournal::commit`] is called.
    Manual,
}

/// A journal in memory.
pub struct MemoryJournal {
    mode: CommitMode,
    keep: bool,
    sink: Arc<dyn CommitSink>,
    state: Mutex<State>,
}

struct State {
    next: u64,
    waiting: VecDeque<Batch>,
    durable: VecDeque<(Position, Record)>,
    bytes: u64,
    commits: u64,
    records: u64,
    failure: Option<JournalFailure>,
    closed: bool,
}

impl std::fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryJournal").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl MemoryJournal {
    /// A journal that goes on at `next` and keeps every durable record for [`MemoryJournal::durable`].
    #[must_use]
    pub fn new(next: Position, mode: CommitMode, sink: Arc<dyn CommitSink>) -> Arc<Self> {
        Self::build(next, mode, true, sink)
    }

    /// A journal that commits at once and keeps nothing: for a node without a disk.
    #[must_use]
    pub fn forgetful(sink: Arc<dyn CommitSink>) -> Arc<Self> {
        Self::build(Position(1), CommitMode::AtOnce, false, sink)
    }

    /// Makes everything that waits durable and tells the loops. Returns how many records that were; 0 while failing.
    pub fn commit(&self) -> usize {
        let mut told: Vec<(LoopId, Vec<Commit>)> = Vec::new();
        let mut records = 0;
        {
            let mut state = lock(&self.state);
            if state.failure.is_some() {
                return 0;
            }
            while let Some(mut batch) = state.waiting.pop_front() {
                let commit = Commit { first: Position(state.next), records: batch.records() };
                batch.seal(state.next);
                state.next += batch.records() as u64;
                state.bytes += batch.bytes() as u64;
                records += batch.records();
                if self.keep {
                    state.durable.extend(decode(&batch));
                }
                match told.iter_mut().find(|(owner, _)| *owner == batch.owner) {
                    Some((_, commits)) => commits.push(commit),
                    None => told.push((batch.owner, vec![commit])),
                }
            }
            state.commits += u64::from(records > 0);
            state.records += records as u64;
        }
        for (owner, commits) in told {
            self.sink.committed(owner, commits);
        }
        records
    }

    /// Cuts the power: what was not committed is gone. Returns how many records that were.
    pub fn lose_unsynced(&self) -> usize {
        lock(&self.state).waiting.drain(..).map(|batch| batch.records()).sum()
    }

    /// The durable records that were not released, in order: what a recovery would find.
    #[must_use]
    pub fn durable(&self) -> Vec<(Position, Record)> {
        lock(&self.state).durable.iter().cloned().collect()
    }

    /// From now on nothing can be written.
    pub fn fail(&self, reason: &str) {
        let failure = JournalFailure { reason: reason.to_owned(), no_space: false };
        lock(&self.state).failure = Some(failure.clone());
        self.sink.failed(&failure);
    }

    /// The disk is well again. With [`CommitMode::AtOnce`] what waits is committed.
    pub fn heal(&self) {
        lock(&self.state).failure = None;
        if self.mode == CommitMode::AtOnce {
            self.commit();
        }
        self.sink.recovered();
    }

    fn build(next: Position, mode: CommitMode, keep: bool, sink: Arc<dyn CommitSink>) -> Arc<Self> {
        let state = State {
            next: next.0.max(1),
            waiting: VecDeque::new(),
            durable: VecDeque::new(),
            bytes: 0,
            commits: 0,
            records: 0,
            failure: None,
            closed: false,
        };
        Arc::new(Self { mode, keep, sink, state: Mutex::new(state) })
    }
}

impl Journal for MemoryJournal {
    fn try_append(&self, batch: Batch) -> Result<(), Batch> {
        if batch.is_empty() {
            return Ok(());
        }
        {
            let mut state = lock(&self.state);
            if state.closed || state.waiting.len() >= limits::JOURNAL_QUEUE {
                return Err(batch);
            }
            state.waiting.push_back(batch);
        }
        if self.mode == CommitMode::AtOnce {
            self.commit();
        }
        Ok(())
    }

    fn status(&self) -> JournalStatus {
        let state = lock(&self.state);
        JournalStatus {
            committed: Position(state.next - 1),
            bytes: if self.keep { state.bytes } else { 0 },
            appended_bytes: state.bytes,
            segments: 0,
            last_commit_ms: 0.0,
            commit_p50_ms: 0.0,
            commit_p99_ms: 0.0,
            commits: state.commits,
            records: state.records,
            healthy: state.failure.is_none(),
            reason: state.failure.as_ref().map(|failure| failure.reason.clone()),
        }
    }

    fn close(&self) {
        self.commit();
        lock(&self.state).closed = true;
    }

    fn beyond(&self, _: &Retention, _: Position) -> Position {
        Position(0)
    }

    fn release(&self, covered: Position) {
        lock(&self.state).durable.retain(|(position, _)| *position > covered);
    }
}

/// The records of a sealed batch.
fn decode(batch: &Batch) -> Vec<(Position, Record)> {
    let mut rest = batch.frames();
    let mut records = Vec::with_capacity(batch.records());
    while let Some(frame) = frame::parse(rest) {
        let record = record::decode(frame.kind, frame.version, frame.body).expect("it was encoded by this build");
        records.push((Position(frame.position), record));
        rest = &rest[frame.size()..];
    }
    records
}
