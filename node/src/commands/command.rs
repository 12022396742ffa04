//! One command to a device: what is asked, how far it has come, and how it is shown.

use std::sync::Arc;

use serde_json::value::RawValue;
use tidegate_actors::{clock::Millis, ids::DeviceId};
use tokio::sync::oneshot;

/// Names a command of its device; it is the level of its topic.
pub(crate) type RequestId = Arc<str>;

/// What a device is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) name: Box<str>,
    /// JSON.
    pub(crate) params: Box<str>,
    /// How long the device may take to answer (or to acknowledge) once it was sent.
    pub(crate) timeout_ms: u64,
    /// How long it may wait for the device; 0: the device must be there.
    pub(crate) expiry_ms: u64,
    /// No reply is wanted.
    pub(crate) oneway: bool,
}

impl Order {
    /// May it wait for its device? Then it is durable.
    pub(crate) fn may_wait(&self) -> bool {
        self.expiry_ms > 0
    }
}

/// How far a command has come. The numbers are stored: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// It waits for its device.
    Queued = 0,
    /// It went to the device's connection.
    Sent = 1,
    /// The device has acknowledged it (PUBACK).
    Delivered = 2,
    /// The device has answered.
    Replied = 3,
    /// The device did not come in time.
    Expired = 4,
    /// The device did not answer in time, or with too much.
    Failed = 5,
    /// It was taken back before it was sent.
    Cancelled = 6,
}

impl Status {
    pub(crate) const ALL: [Self; 7] =
        [Self::Queued, Self::Sent, Self::Delivered, Self::Replied, Self::Expired, Self::Failed, Self::Cancelled];

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Replied => "replied",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Failure {
    /// No reply, or no acknowledgement, in time.
    Timeout = 1,
    /// The reply cannot be taken.
    BadReply = 2,
}

/// How it ended, for who waits for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    pub(crate) failure: Option<Failure>,
    pub(crate) reason: Box<str>,
    /// The command as it is shown.
    pub(crate) json: String,
}

/// Who waits for the end of a command.
pub(crate) type Waiter = oneshot::Sender<Ended>;

/// A command and how far it has come.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: RequestId,
    pub(crate) order: Order,
    pub(crate) status: Status,
    pub(crate) created: Millis,
    pub(crate) sent: Option<Millis>,
    pub(crate) delivered: Option<Millis>,
    pub(crate) ended: Option<Millis>,
    /// Times that it was sent.
    pub(crate) tries: u32,
    /// The number that it has in ThingsBoard's topics; 0: none.
    pub(crate) number: u32,
    /// JSON.
    pub(crate) reply: Option<Box<str>>,
    pub(crate) failure: Option<Failure>,
    /// Why it ended as it did, in words.
    pub(crate) reason: Box<str>,
    /// Until when it may wait for its device, in milliseconds since the node's start.
    pub(super) expires: u64,
    /// Its next deadline, and the place of that among those of the same time.
    pub(super) timer: Option<(u64, u64)>,
    pub(super) waiter: Option<Waiter>,
}

impl Command {
    pub(super) fn new(id: RequestId, order: Order, created: Millis, expires: u64) -> Self {
        Self {
            id,
            order,
            status: Status::Queued,
            created,
            sent: None,
            delivered: None,
            ended: None,
            tries: 0,
            number: 0,
            reply: None,
            failure: None,
            reason: Box::default(),
            expires,
            timer: None,
            waiter: None,
        }
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let reply = self.reply.as_ref().map_or(0, |reply| reply.len());
        size_of::<Self>() + self.id.len() + self.order.name.len() + self.order.params.len() + reply + self.reason.len()
    }

    /// The command as it is shown over HTTP.
    pub(crate) fn json(&self, device: &DeviceId) -> String {
        self.shown(Some(device))
    }

    /// The command as handlers see it when it is over: they know the device.
    pub(crate) fn event(&self) -> String {
        self.shown(None)
    }

    fn shown(&self, device: Option<&DeviceId>) -> String {
        let order = &self.order;
        let shown = Shown {
            request: &self.id,
            device_id: device.map(DeviceId::as_str),
            name: &order.name,
            params: raw(&order.params),
            status: self.status.name(),
            oneway: order.oneway,
            timeout_ms: order.timeout_ms,
            expiry_ms: order.expiry_ms,
            created_time: self.created,
            sent_time: self.sent,
            delivered_time: self.delivered,
            ended_time: self.ended,
            tries: self.tries,
            reply: self.reply.as_deref().and_then(raw),
            reason: Some(&*self.reason).filter(|reason| !reason.is_empty()),
        };
        // Texts, numbers and checked JSON: it always serializes.
        serde_json::to_string(&shown).unwrap_or_default()
    }
}

fn raw(json: &str) -> Option<&RawValue> {
    serde_json::from_str(json).ok()
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    name: &'a str,
    params: Option<&'a RawValue>,
    status: &'static str,
    oneway: bool,
    timeout_ms: u64,
    expiry_ms: u64,
    created_time: Millis,
    sent_time: Option<Millis>,
    delivered_time: Option<Millis>,
    ended_time: Option<Millis>,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}
