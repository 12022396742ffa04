//! What a store promises, tried on both of them; and what only sled has to stand.

mod damage;
mod full_disk;
mod model;

use bytes::Bytes;

use crate::{
    ids::{DeviceId, Position},
    reading::{Channel, Reading},
    script::ParkReason,
    state::{DeviceState, ParkedReading},
};

/// A state that is told from others by its numbers.
pub(crate) fn state(device: u64, position: u64) -> DeviceState {
    DeviceState {
        device: DeviceId::new(&format!("pump-{device:03}")).unwrap(),
        state: Bytes::from(format!(
            "{{\"temperature\":{position},\"pad\":\"{}\"}}",
            "x".repeat(position as usize % 90)
        )),
        device_time: (!device.is_multiple_of(3)).then_some(1_700_000_000_000 + position as i64),
        received: 1_700_000_000_001 + position as i64,
        version: position / 2 + 1,
        position: Position(position),
        script_state: (0..device % 3).map(|n| (format!("{n}.js").into(), Bytes::from(format!("{position}")))).collect(),
    }
}

/// A parked reading.
pub(crate) fn parked(position: u64) -> ParkedReading {
    ParkedReading {
        position: Position(position),
        reading: Reading {
            device: DeviceId::new("pump-x").unwrap(),
            channel: Channel::Telemetry,
            device_time: None,
            received: position as i64,
            payload: Bytes::from_static(b"{\"a\":1}"),
        },
        script: "10-enrich.js".into(),
        reason: ParkReason::ALL[position as usize % ParkReason::ALL.len()],
        message: format!("boom {position}").into(),
    }
}
