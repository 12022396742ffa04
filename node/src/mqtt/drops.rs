//! Messages that a subscriber did not get, counted by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum DropReason {
    /// QoS 0, and the client does not read what it has (limit `mqtt_outbound_bytes`).
    Slow,
    /// QoS 0, and the session has no connection.
    Offline,
    /// As many messages wait for the session as may (limits `mqtt_queue`, `mqtt_queue_bytes`): the newest is dropped.
    Queue,
    /// Its message expiry interval has passed.
    Expired,
    /// It is above the client's maximum packet size, or above what can be stored.
    TooLarge,
    /// The queue to another loop is full (limits `handover`, `loop_inbox`).
    Loop,
    /// The session ended while it waited.
    Ended,
}

impl DropReason {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Slow, Self::Offline, Self::Queue, Self::Expired, Self::TooLarge, Self::Loop, Self::Ended];

    /// The label of the metric.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Offline => "offline",
            Self::Queue => "queue",
            Self::Expired => "expired",
            Self::TooLarge => "too-large",
            Self::Loop => "loop",
            Self::Ended => "session-ended",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    /// Counts `count` messages.
    pub(crate) fn count(&self, reason: DropReason, count: u64) {
        self.0[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Messages dropped for `reason` since the start.
    pub(crate) fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}
