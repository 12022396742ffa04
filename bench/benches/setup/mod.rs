//! What the benches share: Criterion's settings, and readings as a fleet sends them.

use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use tidegate_actors::{
    ids::DeviceId,
    reading::{Channel, Reading},
};

#[path = "../../src/reading.rs"]
#[allow(dead_code, unused_imports, reason = "each bench uses a part of it, and its tests run elsewhere")]
mod samples;

/// Short windows: a bench tells a change of some percent, and all of them together take little more than a minute.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// The id of a device.
#[allow(dead_code, reason = "not every bench needs it")]
pub(crate) fn device(number: usize) -> DeviceId {
    DeviceId::new(&format!("sensor-{number:05}")).expect("a valid id")
}

/// A payload of about 200 bytes.
pub(crate) fn payload(device: usize, variant: usize) -> Bytes {
    samples::mqtt(device, variant % samples::VARIANTS).into()
}

/// A body of `POST /metrics`.
#[allow(dead_code, reason = "not every bench needs it")]
pub(crate) fn http_body(device_id: &str, device: usize, variant: usize) -> String {
    samples::http(device_id, device, variant % samples::VARIANTS)
}

/// A reading without a device time.
#[allow(dead_code, reason = "not every bench needs it")]
pub(crate) fn reading(number: usize, variant: usize) -> Reading {
    Reading {
        device: device(number),
        channel: Channel::Metrics,
        device_time: None,
        received: 1_700_000_000_000,
        payload: payload(number, variant),
        idempotency: None,
        retry_of: None,
    }
}
