//! What a client may send, independent of the protocol's version. The session sees these types and no bytes.
//!
//! PUBLISH borrows from the read buffer (it is the hot one); everything else owns what it carries, so that it can be
//! moved to another loop.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

pub(crate) use super::publish::Publish;
use super::reason::ReasonCode;

/// The protocol's version, as negotiated by CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// MQTT 3.1.1 (protocol level 4).
    V3,
    /// MQTT 5 (protocol level 5).
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(clippy::enum_variant_names, reason = "the specification's words")]
pub(crate) enum QoS {
    /// Delivered at most once: no acknowledgement.
    AtMostOnce = 0,
    /// Delivered at least once: PUBACK.
    AtLeastOnce = 1,
    /// Delivered exactly once: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level of two bits; `None` for 3, which is malformed everywhere.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// One packet from a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    Puback(Ack),
    /// Section 3.5.
    Pubrec(Ack),
    /// Section 3.6.
    Pubrel(Ack),
    /// Section 3.7.
    Pubcomp(Ack),
    /// Section 3.8.
    Subscribe(Subscribe),
    /// Section 3.10.
    Unsubscribe(Unsubscribe),
    /// Section 3.12.
    Pingreq,
    /// Section 3.14.
    Disconnect(Disconnect),
    /// Section 3.15, only MQTT 5.
    Auth(Auth),
}

/// CONNECT. What MQTT 3.1.1 does not know has MQTT 5's default.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connect {
    /// The version that the client speaks from here on.
    pub(crate) version: Version,
    /// The client's id; empty: the server is to assign one. (3.1.1: only with `clean_start`.)
    pub(crate) client_id: String,
    /// Forget an earlier session of this client id (3.1.1: Clean Session).
    pub(crate) clean_start: bool,
    /// Seconds within which the client sends something; 0: it need not.
    pub(crate) keep_alive: u16,
    /// The user name, if given.
    pub(crate) username: Option<String>,
    /// The password, if given. (MQTT 5 allows one without a user name.)
    pub(crate) password: Option<Bytes>,
    /// What to publish when the connection is lost.
    pub(crate) will: Option<Will>,
    /// Seconds that the session outlives the connection; `u32::MAX`: for ever. For 3.1.1: 0 with a clean session,
    /// else for ever.
    pub(crate) session_expiry: u32,
    /// Unacknowledged QoS 1 and 2 messages that the client takes; 65,535 unless given.
    pub(crate) receive_maximum: NonZeroU16,
    /// Largest packet that the client takes, in bytes.
    pub(crate) maximum_packet_size: Option<NonZeroU32>,
    /// Topic aliases that the client takes; 0: none.
    pub(crate) topic_alias_maximum: u16,
    /// Whether the client wants reason strings and user properties on packets other than PUBLISH, CONNACK, DISCONNECT.
    pub(crate) request_problem_info: bool,
    /// Whether the client asks for response information in the CONNACK.
    pub(crate) request_response_info: bool,
    /// The name of the extended authentication, if the client wants one.
    pub(crate) auth_method: Option<String>,
    /// Its first data.
    pub(crate) auth_data: Option<Bytes>,
    /// The client's user properties, in order.
    pub(crate) user_properties: Vec<(String, String)>,
}

/// The message that a client leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Will {
    /// A valid topic name.
    pub(crate) topic: String,
    /// The message.
    pub(crate) payload: Bytes,
    /// Its quality of service.
    pub(crate) qos: QoS,
    /// Whether it is to be retained.
    pub(crate) retain: bool,
    /// Seconds to wait before it is published.
    pub(crate) delay: u32,
    /// Checked PUBLISH properties as they go on the wire, without the Will Delay Interval.
    pub(crate) properties: Vec<u8>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The packet id of the PUBLISH.
    pub(crate) packet_id: NonZeroU16,
    /// Always success in 3.1.1.
    pub(crate) reason: ReasonCode,
}

/// SUBSCRIBE: at least one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscribe {
    /// To be repeated in the SUBACK.
    pub(crate) packet_id: NonZeroU16,
    /// To be added to every message that these subscriptions match.
    pub(crate) subscription_id: Option<NonZeroU32>,
    /// The filters, in the order of the SUBACK's codes.
    pub(crate) filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE and its options (section 3.8.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscribeFilter {
    /// A valid filter, with its `$share/{group}/` if it is shared.
    pub(crate) filter: String,
    /// The highest quality of service to deliver with.
    pub(crate) qos: QoS,
    /// Do not send me what I published.
    pub(crate) no_local: bool,
    /// Keep the retain flag as it was published.
    pub(crate) retain_as_published: bool,
    /// When to send retained messages.
    pub(crate) retain_handling: RetainHandling,
}

/// When a subscription is sent the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    /// At every SUBSCRIBE (the only way of 3.1.1).
    Always,
    /// Only if the subscription is new.
    IfNew,
    /// Never.
    Never,
}

/// UNSUBSCRIBE: at least one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsubscribe {
    /// To be repeated in the UNSUBACK.
    pub(crate) packet_id: NonZeroU16,
    /// Valid filters, in the order of the UNSUBACK's codes.
    pub(crate) filters: Vec<String>,
}

/// DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnect {
    /// Success (the will is dropped) in 3.1.1.
    pub(crate) reason: ReasonCode,
    /// A new session expiry in seconds. (That it may not rise from 0 is the session's to check, [MQTT-3.14.2-2].)
    pub(crate) session_expiry: Option<u32>,
}

/// AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Auth {
    /// Continue authentication or re-authenticate.
    pub(crate) reason: ReasonCode,
    /// The same method as in the CONNECT; the session checks that.
    pub(crate) method: String,
    /// What the method makes of it.
    pub(crate) data: Option<Bytes>,
}
