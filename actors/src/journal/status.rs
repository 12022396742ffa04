//! How the journal fares: what readiness, the dashboard and the checkpoint thread read.

use std::time::Duration;

use crate::ids::Position;

/// How the journal fares.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    /// The last position that is durable; 0: none.
    #[serde(rename = "committedPosition")]
    pub committed: Position,
    /// Bytes of the segments that are kept (records, without what is only preallocated).
    pub bytes: u64,
    /// Bytes that were kept at start, and every byte of records since: never shrinks.
    pub appended_bytes: u64,
    /// Segments that are kept.
    pub segments: usize,
    /// Time of the last commit (write and `fdatasync`), milliseconds.
    pub last_commit_ms: f64,
    /// Median of the last commits.
    pub commit_p50_ms: f64,
    /// 99th percentile of the last commits.
    pub commit_p99_ms: f64,
    /// Commits since start.
    pub commits: u64,
    /// Records that were committed since start.
    pub records: u64,
    /// Does it take records? When not, nothing is acknowledged.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// The times of the last commits: enough for two percentiles.
#[derive(Debug, Default)]
pub(crate) struct CommitTimes {
    micros: Vec<u32>,
    next: usize,
}

impl CommitTimes {
    /// Commits that are remembered.
    const KEPT: usize = 512;

    pub(crate) fn add(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        match self.micros.get_mut(self.next) {
            Some(slot) => *slot = micros,
            None => self.micros.push(micros),
        }
        self.next = (self.next + 1) % Self::KEPT;
    }

    /// The median and the 99th percentile, milliseconds; 0 when there was no commit.
    pub(crate) fn percentiles(&self) -> (f64, f64) {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).map_or(0.0, |us| f64::from(*us) / 1_000.0);
        (at(50), at(99))
    }
}
