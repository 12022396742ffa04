//! What a running node says of its journal in `GET /api/overview`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::http;

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
