//! What the dashboard tells of the sets of handlers: the one that runs, one under trial, and the last that had to go.

use std::{
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{canary::CanaryReport, pool::lock};

/// The sets, as they are now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetStatus {
    /// The number of the one that runs.
    pub generation: u64,
    /// Since when, milliseconds since 1970.
    pub since: u64,
    /// Its handlers.
    pub handlers: usize,
    /// Another one beside it.
    pub trial: Option<Trial>,
    /// The last one that was not taken, or was taken back, since the node started.
    pub rollback: Option<Rollback>,
}

/// A set under trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// The number that it gets if it is taken.
    pub generation: u64,
    /// Milliseconds since 1970.
    pub since: u64,
    /// The part of the devices whose readings it is tried on, in percent.
    pub share: u32,
    /// Readings after which it is decided.
    pub wanted: u64,
    /// What was seen so far.
    pub report: CanaryReport,
}

/// A set that had to go.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// Its number, or the one that it would have got.
    pub generation: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// In words.
    pub why: String,
}

/// Who changes sets notes it here.
#[derive(Debug, Default)]
pub(crate) struct Trials(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    since: u64,
    trial: Option<Trial>,
    rollback: Option<Rollback>,
}

impl Trials {
    /// A set runs from now on.
    pub(crate) fn runs(&self) {
        lock(&self.0).since = now();
    }

    pub(crate) fn begins(&self, generation: u64, share: u32, wanted: u64) {
        let report = CanaryReport::default();
        lock(&self.0).trial = Some(Trial { generation, since: now(), share, wanted, report });
    }

    /// What was seen so far.
    pub(crate) fn sees(&self, report: &CanaryReport) {
        if let Some(trial) = &mut lock(&self.0).trial {
            trial.report = report.clone();
        }
    }

    pub(crate) fn ends(&self) {
        lock(&self.0).trial = None;
    }

    /// A set had to go.
    pub(crate) fn goes(&self, generation: u64, why: String) {
        lock(&self.0).rollback = Some(Rollback { generation, time: now(), why });
    }

    pub(crate) fn status(&self, generation: u64, handlers: usize) -> SetStatus {
        let noted = lock(&self.0);
        let (trial, rollback) = (noted.trial.clone(), noted.rollback.clone());
        SetStatus { generation, since: noted.since, handlers, trial, rollback }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
