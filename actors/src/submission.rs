//! What the edge hands to a loop, and what it gets back: a reading with the wish for an answer, and the answer.

use crate::{
    ids::LoopId,
    ledger::{ConflateReason, RejectReason},
    reading::{AckLevel, Reading},
    script::ParkReason,
};

/// A reading, and who waits for what.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The reading.
    pub reading: Reading,
    /// When to answer. At [`AckLevel::Received`] only refusals are answered.
    pub level: AckLevel,
    /// Whom to answer; `None`: nobody waits.
    pub ack: Option<AckTo>,
}

/// Names who waits for an answer: the loop on which he waits, his key there, and which of his readings it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckTo {
    /// The loop of the connection or request.
    pub home: LoopId,
    /// The edge's key of the connection or request on that loop.
    pub key: u64,
    /// MQTT: the packet id; HTTP: the index in the body.
    pub item: u32,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Whom it is for.
    pub to: AckTo,
    /// What is answered.
    pub answer: Answer,
}

/// What became of a reading that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is durable.
    Committed,
    /// It was handled and folded.
    Processed(Disposition),
    /// It was refused before it was written.
    Refused(RejectReason),
}

/// How a handled reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It made the device's state.
    Kept,
    /// It gave way to another reading.
    Conflated(ConflateReason),
    /// A handler returned `null`.
    Dropped,
    /// No handler could work on it.
    Parked(ParkReason),
}
