//! What a store promises, tried on both of them; and what only sled has to stand.

mod damage;
mod full_disk;
mod model;
mod parked;

use bytes::Bytes;

use crate::{
    idempotency::{Idempotency, Requests},
    ids::{DeviceId, Position},
    lifetime::DeviceCounts,
    reading::{Channel, Reading},
    script::ParkReason,
    state::{DeviceState, ParkedReading},
    store::Changes,
    submission::Disposition,
};

/// New states and parked readings.
pub(crate) fn changes(states: &[DeviceState], parked: &[ParkedReading]) -> Changes {
    Changes { states: states.to_vec(), parked: parked.to_vec(), ..Changes::default() }
}

/// A state that is told from others by its numbers.
pub(crate) fn state(device: u64, position: u64) -> DeviceState {
    let mut counts = DeviceCounts::default();
    (0..position % 3).for_each(|_| counts.settle(Disposition::Parked(ParkReason::Threw)));
    let mut requests = Requests::default();
    (0..device as u32 % 4).for_each(|index| requests.add(&Idempotency { request: [7; 16], index: index * 2 }));
    DeviceState {
        counts,
        requests,
        newest_device_time: position.is_multiple_of(2).then_some(position as i64),
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
        reading: Reading::new(
            DeviceId::new("pump-x").unwrap(),
            Channel::Telemetry,
            None,
            position as i64,
            Bytes::from_static(b"{\"a\":1}"),
        ),
        script: "10-enrich.js".into(),
        reason: ParkReason::ALL[position as usize % ParkReason::ALL.len()],
        message: format!("boom {position}").into(),
    }
}
