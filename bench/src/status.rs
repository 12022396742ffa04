//! What a running node says of its journal and its checkpoints in `GET /api/overview`.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::http;

/// How long checkpoints may take to come up with the journal.
const CHECKPOINTS: Duration = Duration::from_secs(60);

/// The journal's part of the overview.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JournalStatus {
    /// Every byte of records since the start.
    pub(crate) appended_bytes: u64,
    /// Commits since the start.
    pub(crate) commits: u64,
    /// Records that they had.
    pub(crate) records: u64,
    /// The median of the last commits, in milliseconds.
    pub(crate) commit_p50_ms: f64,
    /// What one of the last commits in a hundred exceeded.
    pub(crate) commit_p99_ms: f64,
}

impl JournalStatus {
    /// Asks the node that serves HTTP at `address`.
    ///
    /// # Errors
    /// No answer, or one without these figures.
    pub(crate) fn of(address: SocketAddr) -> Result<Self> {
        #[derive(Deserialize)]
        struct Overview {
            journal: JournalStatus,
        }
        let body = http::get(address, "/api/overview")?;
        Ok(serde_json::from_slice::<Overview>(&body).context("reading /api/overview")?.journal)
    }
}

/// Waits until the store has all that the journal has.
///
/// # Errors
/// When it has not after a minute.
pub(crate) fn wait_for_checkpoints(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + CHECKPOINTS;
    loop {
        let overview: Value = serde_json::from_slice(&http::get(address, "/api/overview")?)?;
        let (committed, folded) = (&overview["journal"]["committedPosition"], &overview["checkpoint"]["folded"]);
        if committed.as_u64().context("the overview has no committed position")? == folded.as_u64().unwrap_or(0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("after {CHECKPOINTS:?} the store has {folded} of {committed}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}
