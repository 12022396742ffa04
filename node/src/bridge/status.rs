//! What a bridge tells of itself: counters and its connection, written by its task, read by health, metrics and the dashboard.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use serde_json::{Value, json};
use tidegate_actors::{clock::Millis, ledger::RejectReason};

use crate::config::Bridge;

/// A bridge's state, shared.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) name: String,
    url: String,
    version: &'static str,
    connected: AtomicBool,
    /// Since the node started.
    has_subscribed: AtomicBool,
    /// Messages that came in, acknowledged or not.
    pub(crate) messages: AtomicU64,
    /// Readings that the journal has.
    pub(crate) readings: AtomicU64,
    /// Messages acknowledged to the broker.
    pub(crate) acknowledged: AtomicU64,
    /// Retained messages that were left out, as configured.
    pub(crate) left_out: AtomicU64,
    /// Messages under way.
    pub(crate) in_flight: AtomicU64,
    /// Connections that were accepted after the first one.
    reconnects: AtomicU64,
    refused: [AtomicU64; RejectReason::ALL.len()],
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    was_connected: bool,
    since: Millis,
    error: Option<(String, Millis)>,
}

impl Status {
    pub(crate) fn new(bridge: &Bridge, now: Millis) -> Self {
        Self {
            name: bridge.name.clone(),
            url: bridge.url.as_ref().map_or_else(String::new, ToString::to_string),
            version: bridge.version.name(),
            connected: AtomicBool::new(false),
            has_subscribed: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            readings: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            last: Mutex::new(Last { since: now, ..Last::default() }),
        }
    }

    /// The broker accepted the connection and the subscriptions.
    pub(crate) fn connected(&self, now: Millis) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut last.was_connected, true) {
            self.reconnects.fetch_add(1, Relaxed);
        }
        last.since = now;
        self.connected.store(true, Relaxed);
    }

    /// The broker has taken the subscriptions.
    pub(crate) fn subscribed(&self) {
        self.has_subscribed.store(true, Relaxed);
    }

    /// Has it, since the node started?
    pub(crate) fn has_subscribed(&self) -> bool {
        self.has_subscribed.load(Relaxed)
    }

    /// There is no connection, for this reason.
    pub(crate) fn disconnected(&self, error: String, now: Millis) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.connected.swap(false, Relaxed) {
            last.since = now;
        }
        last.error = Some((error, now));
    }

    /// Something went wrong that did not end the connection.
    pub(crate) fn complain(&self, error: String, now: Millis) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).error = Some((error, now));
    }

    pub(crate) fn refuse(&self, reason: RejectReason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(Relaxed)
    }

    /// What was refused, by reason; only what there was.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let count = |reason: &RejectReason| (reason.name(), self.refused[*reason as usize].load(Relaxed));
        RejectReason::ALL.iter().map(count).filter(|(_, count)| *count > 0)
    }

    /// The bridge's entry in `/api/overview`.
    pub(crate) fn json(&self) -> Value {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let refused: serde_json::Map<String, Value> =
            self.refused().map(|(reason, count)| (reason.to_owned(), json!(count))).collect();
        json!({
            "name": self.name,
            "url": self.url,
            "version": self.version,
            "connected": self.is_connected(),
            "since": last.since,
            "messages": self.messages.load(Relaxed),
            "readings": self.readings.load(Relaxed),
            "acknowledged": self.acknowledged.load(Relaxed),
            "leftOut": self.left_out.load(Relaxed),
            "refused": refused,
            "inFlight": self.in_flight.load(Relaxed),
            "reconnects": self.reconnects(),
            "lastError": last.error.as_ref().map(|(message, time)| json!({ "message": message, "time": time })),
        })
    }
}
