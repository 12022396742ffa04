//! The latest state of a device: what is folded, stored, listed and fanned out.

use bytes::Bytes;

use crate::{
    clock::Millis,
    idempotency::Requests,
    ids::{DeviceId, Position},
    lifetime::DeviceCounts,
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
    /// The greatest [`crate::reading::Reading::ordering_time`] so far: a reading of a time before it is late.
    pub newest_device_time: Option<Millis>,
    /// Readings that made a state so far. 0: none did; then `state` is `{}`.
    pub version: u64,
    /// The journal position of the last reading that was folded in: replay skips what is not after it.
    pub position: Position,
    /// `ctx.state` of each handler that keeps one, by handler name, as JSON.
    pub script_state: Vec<(Box<str>, Bytes)>,
    /// What became of the device's readings that made no state.
    pub counts: DeviceCounts,
    /// The last requests that named themselves.
    pub requests: Requests,
}

impl DeviceState {
    /// A device of which nothing is known yet: version 0, at position 0.
    #[must_use]
    pub fn empty(device: DeviceId, received: Millis) -> Self {
        Self {
            device,
            state: Bytes::from_static(b"{}"),
            device_time: None,
            received,
            newest_device_time: None,
            version: 0,
            position: Position(0),
            script_state: Vec::new(),
            counts: DeviceCounts::default(),
            requests: Requests::default(),
        }
    }
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
