//! A message on its way to subscribers, and how each of them gets it.

use std::{num::NonZeroU32, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;
use tidegate_actors::ids::LoopId;

use super::{
    packet::QoS,
    session::{SessionKey, Subscription},
};
use crate::commands::Addressed;

/// A message on its way to subscribers; shared by all of them.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Box<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// MQTT 5 properties as on the wire.
    pub(crate) properties: Box<[u8]>,
    /// When it is worthless, in milliseconds of uptime.
    pub(crate) deadline: Option<u64>,
    /// The session that published it, for subscriptions with no local.
    pub(crate) from: Option<(LoopId, SessionKey)>,
    /// Names a message with QoS 2 of a stored session; 0: it has no name.
    pub(crate) origin: u64,
    /// Was the message, under its name, routed before?
    pub(crate) again: Again,
    /// It is a command to a device.
    pub(crate) command: Option<Box<Addressed>>,
}

/// See [`Message::again`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Again {
    /// No.
    #[default]
    No,
    /// Perhaps, before a crash: who has it already does not get it again.
    BeforeACrash,
    /// Yes: nobody gets it again, and who stores it still has to make it durable.
    SinceTheStart,
}

impl Message {
    /// An empty message.
    pub(crate) fn new(topic: impl Into<Box<str>>, qos: QoS) -> Self {
        Self {
            topic: topic.into(),
            payload: Bytes::new(),
            qos,
            retain: false,
            properties: Box::default(),
            deadline: None,
            from: None,
            origin: 0,
            again: Again::No,
            command: None,
        }
    }

    /// A message of the node itself.
    pub(crate) fn of_node(topic: impl Into<Box<str>>, payload: impl Into<Bytes>, qos: QoS) -> Self {
        Self { payload: payload.into(), ..Self::new(topic, qos) }
    }

    /// Has its message expiry interval passed?
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Seconds that it has left to live ([MQTT-3.3.2-6]), rounded up.
    pub(crate) fn seconds_left(&self, now: impl FnOnce() -> u64) -> Option<u32> {
        let left = self.deadline?.saturating_sub(now()).div_ceil(1_000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// How a message is delivered to one session: the options of the subscriptions that it matches, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: SmallVec<[NonZeroU32; 1]>,
    /// The shared subscription of which the session is one member: the message goes to another if the session ends.
    pub(crate) share: Option<Arc<str>>,
}

impl From<Subscription> for Options {
    fn from(subscription: Subscription) -> Self {
        let Subscription { qos, retain_as_published, id, .. } = subscription;
        Self { qos, retain_as_published, subscription_id: id.into_iter().collect(), share: None }
    }
}
