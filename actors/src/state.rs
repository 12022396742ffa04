//! The latest state of a device: what is folded, stored, listed and fanned out.

use bytes::Bytes;

use crate::{
    clock::Millis,
    ids::{DeviceId, Position},
};

/// The latest state of one device. Cheap to clone: ids and bodies are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    /// The device.
    pub device: DeviceId,
    /// The JSON object that is kept: the handlers' result, or the reading unchanged.
    pub state: Bytes,
    /// The device's own time of the reading that made this state.
    pub device_time: Option<Millis>,
    /// When the node received that reading.
    pub received: Millis,
    /// Grows by one with every update.
    pub version: u64,
    /// The journal position of the last reading that was folded in: replay skips what is not after it.
    pub position: Position,
    /// `ctx.state` of each handler that keeps one, by handler name, as JSON.
    pub script_state: Vec<(Box<str>, Bytes)>,
}

/// A reading that no handler could work on: kept with its reason, so that an operator can retry or drop it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedReading {
    /// Its place in the journal.
    pub position: Position,
    /// The reading as it was handed to the handlers.
    pub reading: crate::reading::Reading,
    /// The handler that failed (its file name), or empty when no single handler is to blame.
    pub script: Box<str>,
    /// Why.
    pub reason: crate::script::ParkReason,
    /// What an operator should read: message and `file:line:column`.
    pub message: Box<str>,
}
