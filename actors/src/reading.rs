//! One reading of one device, as the edge hands it in: validated JSON, both times, and where it came from.

use bytes::Bytes;

use crate::{clock::Millis, ids::DeviceId};

/// A reading that the edge has checked: `payload` is one compact or as-sent JSON object, without its `deviceId` and `ts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The device that reports.
    pub device: DeviceId,
    /// The topic family it arrived on; HTTP counts as [`Channel::Metrics`].
    pub channel: Channel,
    /// The device's own time, if it sent one.
    pub device_time: Option<Millis>,
    /// When the node received it.
    pub received: Millis,
    /// The JSON object of the reported fields.
    pub payload: Bytes,
}

impl Reading {
    /// The time that orders readings of one device: the device's own, or else the node's.
    #[must_use]
    pub fn effective_time(&self) -> Millis {
        self.device_time.unwrap_or(self.received)
    }
}

/// The topic family of a reading. The numbers are stored in the journal: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// `devices/{id}/metrics`, and HTTP.
    Metrics = 0,
    /// ThingsBoard's `v1/devices/me/telemetry`.
    Telemetry = 1,
}

impl Channel {
    /// Every channel, in the order of its number.
    pub const ALL: [Self; 2] = [Self::Metrics, Self::Telemetry];

    /// The channel of a stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == number)
    }

    /// The MQTT topic that handlers' `topics` filters are matched against.
    #[must_use]
    pub fn topic(self, device: &DeviceId) -> String {
        match self {
            Self::Metrics => format!("devices/{device}/metrics"),
            Self::Telemetry => "v1/devices/me/telemetry".to_owned(),
        }
    }
}

/// How far a reading must have come before its sender is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// The node has it in memory (HTTP 202, QoS 0).
    #[default]
    Received,
    /// It is in the journal and `fdatasync` has returned.
    Committed,
    /// The handlers ran and the device's state has it.
    Processed,
}
