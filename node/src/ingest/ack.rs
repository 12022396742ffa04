//! The words for ack levels and for what became of a reading: the same over HTTP and MQTT.

use std::borrow::Cow;

use tidegate_actors::{ledger::RejectReason, limits, reading::AckLevel, submission::Disposition};

use super::IngestError;

/// The ack level of a name.
///
/// # Errors
/// A sentence that names those that there are.
pub(crate) fn ack_level(name: &str) -> Result<AckLevel, String> {
    match name {
        "received" => Ok(AckLevel::Received),
        "committed" => Ok(AckLevel::Committed),
        "processed" => Ok(AckLevel::Processed),
        other => Err(format!("ack = {other:?}; allowed: received, committed, processed")),
    }
}

/// What became of a handled reading, for a sender that waited for it.
pub(crate) fn outcome(disposition: Disposition) -> Cow<'static, str> {
    match disposition {
        Disposition::Kept => "kept".into(),
        Disposition::Conflated(reason) => format!("conflated: {}", reason.name()).into(),
        Disposition::Dropped => "dropped by a handler".into(),
        Disposition::Parked(reason) => format!("parked: {}", reason.name()).into(),
    }
}

/// The refusal of a reading that the runtime had no room for.
pub(crate) fn refused_at_limit(reason: RejectReason, memory_limit: u64) -> IngestError {
    let (name, value) = match reason {
        RejectReason::Memory => ("memory_limit_bytes", usize::try_from(memory_limit).unwrap_or(usize::MAX)),
        RejectReason::DeviceInFlight => ("device_in_flight", limits::DEVICE_IN_FLIGHT_REFUSED),
        RejectReason::HandlerOpen => {
            let detail = "the breaker of a handler of this device is open, and the node refuses its readings until it closes (setting scripts.breaker_policy); try again later";
            return IngestError::new(reason, detail);
        }
        _ => ("loop_in_flight", limits::LOOP_IN_FLIGHT),
    };
    IngestError::new(reason, "the reading was refused at a limit; try again later").limit(name, value)
}
