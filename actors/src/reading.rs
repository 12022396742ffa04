//! One reading of one device, as the edge hands it in: validated JSON, both times, and where it came from.

use bytes::Bytes;

use crate::{
    clock::Millis,
    idempotency::Idempotency,
    ids::{DeviceId, Position},
    limits,
};

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
    /// The request that it came with, if its sender named one: the same again is a retry, not a reading.
    pub idempotency: Option<Idempotency>,
    /// The parked reading that this is another attempt at: it is parked no more once this one is folded.
    pub retry_of: Option<Position>,
}

impl Reading {
    /// A reading of a request that does not name itself.
    #[must_use]
    pub fn new(
        device: DeviceId,
        channel: Channel,
        device_time: Option<Millis>,
        received: Millis,
        payload: Bytes,
    ) -> Self {
        Self { device, channel, device_time, received, payload, idempotency: None, retry_of: None }
    }

    /// The time that handlers and people see: the device's own, or else the node's.
    #[must_use]
    pub fn effective_time(&self) -> Millis {
        self.device_time.unwrap_or(self.received)
    }

    /// The time that orders this reading among the device's others; `None`: its device sent none, and the order of arrival
    /// counts. The node's own clock orders nothing: it may jump. A device's clock that runs ahead counts as at most
    /// [`limits::DEVICE_TIME_AHEAD`] ahead of the time of arrival, so that it can be set right again; but never as less than
    /// `newest`, the greatest ordering time so far, or a node whose clock jumps back would call good times late.
    #[must_use]
    pub fn ordering_time(&self, newest: Option<Millis>) -> Option<Millis> {
        let ahead = self.received.saturating_add(limits::DEVICE_TIME_AHEAD.as_millis() as Millis);
        let most = newest.map_or(ahead, |newest| newest.max(ahead));
        self.device_time.map(|time| time.min(most))
    }
}

/// The topic family of a reading, or what happened to its device. The numbers are stored in the journal: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// `devices/{id}/metrics`, and HTTP.
    Metrics = 0,
    /// ThingsBoard's `v1/devices/me/telemetry`.
    Telemetry = 1,
    /// Not a report: the device's first connection came.
    Connected = 2,
    /// Not a report: the device's last connection went.
    Disconnected = 3,
    /// Not a report: a command to the device is over, mostly because it has answered.
    CommandReply = 4,
    /// Not a report: a handler's timer is due.
    Timer = 5,
}

impl Channel {
    /// Every channel, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Metrics, Self::Telemetry, Self::Connected, Self::Disconnected, Self::CommandReply, Self::Timer];

    /// Is it something that happened, and no report of the device? Handlers see it; by itself it changes no state.
    #[must_use]
    pub fn is_event(self) -> bool {
        !matches!(self, Self::Metrics | Self::Telemetry)
    }

    /// The channel of a stored number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| *channel as u8 == number)
    }

    /// The MQTT topic that handlers' `topics` filters are matched against. (Of an event it is only shown.)
    #[must_use]
    pub fn topic(self, device: &DeviceId) -> String {
        match self {
            Self::Metrics => format!("devices/{device}/metrics"),
            Self::Telemetry => "v1/devices/me/telemetry".to_owned(),
            Self::Connected => format!("$events/{device}/connected"),
            Self::Disconnected => format!("$events/{device}/disconnected"),
            Self::CommandReply => format!("$events/{device}/command-reply"),
            Self::Timer => format!("$events/{device}/timer"),
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
