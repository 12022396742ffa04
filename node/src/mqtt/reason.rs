//! Why a packet, a connection or a subscription was refused: MQTT 5's reason codes and the codec's one error.
//!
//! MQTT 3.1.1 has a handful of codes of its own; they are translated here and nowhere else.

use std::{borrow::Cow, fmt};

use super::packet::Version;

/// A reason code of MQTT 5 (section 2.4): below 0x80 a success, from 0x80 on a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ReasonCode(pub(crate) u8);

/// One line a code: its constant, its number and its name in the specification.
macro_rules! reason_codes {
    ($($constant:ident = $code:literal, $name:literal;)+) => {
        #[allow(dead_code, reason = "the specification's table is kept whole")]
        impl ReasonCode {
            $(#[doc = concat!("`", stringify!($code), "` ", $name, ".")] pub(crate) const $constant: Self = Self($code);)+

            /// The code's name in the specification; `unknown` for a number that it does not define.
            pub(crate) fn name(self) -> &'static str {
                match self.0 { $($code => $name,)+ _ => "unknown" }
            }
        }
    };
}

reason_codes! {
    SUCCESS = 0x00, "success";
    GRANTED_QOS_1 = 0x01, "granted QoS 1";
    GRANTED_QOS_2 = 0x02, "granted QoS 2";
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    REAUTHENTICATE = 0x19, "re-authenticate";
    UNSPECIFIED_ERROR = 0x80, "unspecified error";
    MALFORMED_PACKET = 0x81, "malformed packet";
    PROTOCOL_ERROR = 0x82, "protocol error";
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "implementation specific error";
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported protocol version";
    CLIENT_ID_NOT_VALID = 0x85, "client identifier not valid";
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    NOT_AUTHORIZED = 0x87, "not authorized";
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    SERVER_BUSY = 0x89, "server busy";
    BANNED = 0x8A, "banned";
    SERVER_SHUTTING_DOWN = 0x8B, "server shutting down";
    BAD_AUTHENTICATION_METHOD = 0x8C, "bad authentication method";
    KEEP_ALIVE_TIMEOUT = 0x8D, "keep alive timeout";
    SESSION_TAKEN_OVER = 0x8E, "session taken over";
    TOPIC_FILTER_INVALID = 0x8F, "topic filter invalid";
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    PACKET_ID_IN_USE = 0x91, "packet identifier in use";
    PACKET_ID_NOT_FOUND = 0x92, "packet identifier not found";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    PACKET_TOO_LARGE = 0x95, "packet too large";
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    RETAIN_NOT_SUPPORTED = 0x9A, "retain not supported";
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    USE_ANOTHER_SERVER = 0x9C, "use another server";
    SERVER_MOVED = 0x9D, "server moved";
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "shared subscriptions not supported";
    CONNECTION_RATE_EXCEEDED = 0x9F, "connection rate exceeded";
    MAXIMUM_CONNECT_TIME = 0xA0, "maximum connect time";
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1, "subscription identifiers not supported";
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// Whether the code tells a failure.
    pub(crate) fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1.1 (table 3.1) that says this, if it has one. Where it has none, a 3.1.1
    /// client is to be closed without a CONNACK.
    pub(crate) fn connect_return_code(self) -> Option<u8> {
        match self {
            Self::SUCCESS => Some(0),
            Self::UNSUPPORTED_PROTOCOL_VERSION => Some(1),
            Self::CLIENT_ID_NOT_VALID => Some(2),
            Self::SERVER_UNAVAILABLE
            | Self::SERVER_BUSY
            | Self::SERVER_SHUTTING_DOWN
            | Self::USE_ANOTHER_SERVER
            | Self::SERVER_MOVED
            | Self::QUOTA_EXCEEDED
            | Self::CONNECTION_RATE_EXCEEDED => Some(3),
            Self::BAD_USER_NAME_OR_PASSWORD => Some(4),
            Self::NOT_AUTHORIZED | Self::BANNED | Self::BAD_AUTHENTICATION_METHOD => Some(5),
            _ => None,
        }
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.0, self.name())
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why bytes are not a packet that a client may send. The connection is to be closed with [`CodecError::reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({reason})")]
pub(crate) struct CodecError {
    /// The code for the DISCONNECT or CONNACK.
    pub(crate) reason: ReasonCode,
    /// What is wrong, for the person who wrote the client; fits a Reason String.
    pub(crate) detail: Cow<'static, str>,
    /// Only from a CONNECT: the version to refuse it in. `None`: close without an answer.
    pub(crate) answer: Option<Version>,
}

impl CodecError {
    /// An error with any reason.
    #[cold]
    pub(crate) fn new(reason: ReasonCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, detail: detail.into(), answer: None }
    }

    /// The bytes cannot be read as the specification lays them out (0x81).
    #[cold]
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::MALFORMED_PACKET, detail)
    }

    /// The packet can be read but is not allowed (0x82).
    #[cold]
    pub(crate) fn protocol(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ReasonCode::PROTOCOL_ERROR, detail)
    }

    /// The same error, to be answered in `version`.
    pub(crate) fn answered_in(self, version: Version) -> Self {
        Self { answer: Some(version), ..self }
    }
}
