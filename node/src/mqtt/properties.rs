//! MQTT 5's properties (section 2.2.2.2): which exist, where a client may use them, and how each is read.
//!
//! One checked walk serves every packet. It allocates nothing.

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    reason::{CodecError, ReasonCode},
    topic,
    wire::{Reader, put_varint, varint_len},
};

/// The identifiers.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTH_METHOD: u8 = 0x15;
    pub(crate) const AUTH_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub(crate) const RESPONSE_INFO: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// Where properties stand. The numbers are bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    /// In a CONNECT.
    Connect = 1,
    /// Before a CONNECT's will.
    Will = 2,
    /// In a PUBLISH.
    Publish = 4,
    /// In a PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack = 8,
    /// In a SUBSCRIBE.
    Subscribe = 16,
    /// In an UNSUBSCRIBE.
    Unsubscribe = 32,
    /// In a DISCONNECT.
    Disconnect = 64,
    /// In an AUTH.
    Auth = 128,
}

/// One property that a client may send, borrowed from its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    /// The payload is UTF-8 text.
    PayloadIsText(bool),
    /// Seconds.
    MessageExpiry(u32),
    ContentType(&'a str),
    /// A valid topic name.
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(NonZeroU32),
    /// Seconds.
    SessionExpiry(u32),
    AuthMethod(&'a str),
    AuthData(&'a [u8]),
    RequestProblemInfo(bool),
    /// Seconds.
    WillDelay(u32),
    RequestResponseInfo(bool),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    /// Name and value.
    User(&'a str, &'a str),
    /// Bytes.
    MaximumPacketSize(NonZeroU32),
}

/// A walk over the properties of one packet; yields each property, or the first error and then nothing more.
#[derive(Debug, Clone)]
pub(crate) struct Properties<'a> {
    reader: Reader<'a>,
    place: Place,
    /// One bit an identifier that was seen.
    seen: u64,
    failed: bool,
}

impl<'a> Properties<'a> {
    /// A walk over `bytes` (without their length), which stand in `place`.
    pub(crate) fn new(bytes: &'a [u8], place: Place) -> Self {
        Self { reader: Reader::new(bytes), place, seen: 0, failed: false }
    }

    fn read(&mut self) -> Result<Property<'a>, CodecError> {
        // Every identifier in use has one byte; a longer one is unknown.
        let id = self.reader.u8("a property's identifier")?;
        let places = places(id);
        if places & self.place as u8 == 0 {
            return Err(misplaced(id, self.place));
        }
        let bit = 1_u64 << id;
        if self.seen & bit != 0 && id != id::USER {
            return Err(CodecError::protocol(format!("the property {} stands there twice [MQTT-2.2.2.2]", name(id))));
        }
        self.seen |= bit;
        read_value(&mut self.reader, id)
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<Property<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let property = self.read();
        self.failed = property.is_err();
        Some(property)
    }
}

/// Reads all properties and keeps none: whether they may stand there.
///
/// # Errors
/// Unknown, misplaced, repeated or malformed properties and forbidden values.
pub(crate) fn check(bytes: &[u8], place: Place) -> Result<(), CodecError> {
    Properties::new(bytes, place).try_for_each(|property| property.map(drop))
}

/// Copies checked properties byte by byte but those whose identifier `drop` names. Returns the bytes that were copied.
pub(crate) fn copy_without(bytes: &[u8], place: Place, drop: &[u8], out: &mut Vec<u8>) {
    let mut walk = Properties::new(bytes, place);
    let mut rest = bytes;
    while let (Some(&id), Some(Ok(_))) = (rest.first(), walk.next()) {
        let (property, after) = rest.split_at(rest.len() - walk.reader.len());
        if !drop.contains(&id) {
            out.extend_from_slice(property);
        }
        rest = after;
    }
}

/// Writes a Subscription Identifier.
pub(crate) fn put_subscription_id(out: &mut Vec<u8>, value: NonZeroU32) {
    out.push(id::SUBSCRIPTION_ID);
    put_varint(out, value.get() as usize);
}

/// Bytes that [`put_subscription_id`] writes.
pub(crate) fn subscription_id_len(value: NonZeroU32) -> usize {
    1 + varint_len(value.get() as usize)
}

/// Where a client may use the property, as bits of [`Place`] (table 2-4, without what only a server sends).
fn places(id: u8) -> u8 {
    const CONNECT: u8 = Place::Connect as u8;
    const MESSAGE: u8 = Place::Publish as u8 | Place::Will as u8;
    match id {
        id::USER => u8::MAX,
        id::PAYLOAD_FORMAT | id::MESSAGE_EXPIRY | id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::CORRELATION_DATA => {
            MESSAGE
        }
        id::TOPIC_ALIAS => Place::Publish as u8,
        id::WILL_DELAY => Place::Will as u8,
        id::SUBSCRIPTION_ID => Place::Subscribe as u8,
        id::SESSION_EXPIRY => CONNECT | Place::Disconnect as u8,
        id::AUTH_METHOD | id::AUTH_DATA => CONNECT | Place::Auth as u8,
        id::REASON_STRING => Place::Ack as u8 | Place::Disconnect as u8 | Place::Auth as u8,
        id::REQUEST_PROBLEM_INFO
        | id::REQUEST_RESPONSE_INFO
        | id::RECEIVE_MAXIMUM
        | id::TOPIC_ALIAS_MAXIMUM
        | id::MAXIMUM_PACKET_SIZE => CONNECT,
        _ => 0,
    }
}

fn read_value<'a>(reader: &mut Reader<'a>, id: u8) -> Result<Property<'a>, CodecError> {
    let what = name(id);
    Ok(match id {
        id::PAYLOAD_FORMAT => Property::PayloadIsText(flag(reader, what)?),
        id::MESSAGE_EXPIRY => Property::MessageExpiry(reader.u32(what)?),
        id::CONTENT_TYPE => Property::ContentType(reader.string(what)?),
        id::RESPONSE_TOPIC => {
            let name = reader.string(what)?;
            topic::check_topic_name(name)
                .map_err(|error| CodecError::protocol(format!("the response topic: {error} [MQTT-3.3.2-14]")))?;
            Property::ResponseTopic(name)
        }
        id::CORRELATION_DATA => Property::CorrelationData(reader.binary(what)?),
        id::SUBSCRIPTION_ID => Property::SubscriptionId(not_zero(NonZeroU32::new(reader.varint(what)?), what)?),
        id::SESSION_EXPIRY => Property::SessionExpiry(reader.u32(what)?),
        id::AUTH_METHOD => Property::AuthMethod(reader.string(what)?),
        id::AUTH_DATA => Property::AuthData(reader.binary(what)?),
        id::REQUEST_PROBLEM_INFO => Property::RequestProblemInfo(flag(reader, what)?),
        id::WILL_DELAY => Property::WillDelay(reader.u32(what)?),
        id::REQUEST_RESPONSE_INFO => Property::RequestResponseInfo(flag(reader, what)?),
        id::REASON_STRING => Property::ReasonString(reader.string(what)?),
        id::RECEIVE_MAXIMUM => Property::ReceiveMaximum(not_zero(NonZeroU16::new(reader.u16(what)?), what)?),
        id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(reader.u16(what)?),
        id::TOPIC_ALIAS => Property::TopicAlias(NonZeroU16::new(reader.u16(what)?).ok_or_else(|| {
            CodecError::new(ReasonCode::TOPIC_ALIAS_INVALID, "the topic alias is 0; they count from 1 [MQTT-3.3.2-8]")
        })?),
        id::USER => Property::User(reader.string("a user property's name")?, reader.string("a user property's value")?),
        id::MAXIMUM_PACKET_SIZE => Property::MaximumPacketSize(not_zero(NonZeroU32::new(reader.u32(what)?), what)?),
        _ => return Err(CodecError::malformed(format!("the property 0x{id:02X} is unknown [MQTT-2.2.2.2]"))),
    })
}

fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, CodecError> {
    match reader.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::protocol(format!("{what} is {other}; it may be 0 or 1"))),
    }
}

fn not_zero<N>(value: Option<N>, what: &'static str) -> Result<N, CodecError> {
    value.ok_or_else(|| CodecError::protocol(format!("{what} may not be 0")))
}

/// A property that the table does not allow: of the wrong packet type it is malformed (section 2.2.2.2), but one that the
/// packet may have when the *server* sends it is a protocol error (section 3.3.4, 3.14.2.2.5).
#[cold]
fn misplaced(id: u8, place: Place) -> CodecError {
    match (id, place) {
        (id::SUBSCRIPTION_ID, Place::Publish) => {
            CodecError::protocol("a client's PUBLISH may not have a subscription identifier [MQTT-3.3.4-6]")
        }
        (id::SERVER_REFERENCE, Place::Disconnect) => {
            CodecError::protocol("only a server's DISCONNECT has a server reference [MQTT-3.14.2.2.5]")
        }
        _ if name(id) == UNKNOWN => CodecError::malformed(format!("the property 0x{id:02X} is unknown [MQTT-2.2.2.2]")),
        _ => CodecError::malformed(format!("{} may not stand in a client's {place:?} [MQTT-2.2.2.2]", name(id))),
    }
}

const UNKNOWN: &str = "unknown";

/// The property's name for messages.
fn name(id: u8) -> &'static str {
    match id {
        id::PAYLOAD_FORMAT => "the payload format indicator",
        id::MESSAGE_EXPIRY => "the message expiry interval",
        id::CONTENT_TYPE => "the content type",
        id::RESPONSE_TOPIC => "the response topic",
        id::CORRELATION_DATA => "the correlation data",
        id::SUBSCRIPTION_ID => "the subscription identifier",
        id::SESSION_EXPIRY => "the session expiry interval",
        id::ASSIGNED_CLIENT_ID => "the assigned client identifier",
        id::SERVER_KEEP_ALIVE => "the server keep alive",
        id::AUTH_METHOD => "the authentication method",
        id::AUTH_DATA => "the authentication data",
        id::REQUEST_PROBLEM_INFO => "request problem information",
        id::WILL_DELAY => "the will delay interval",
        id::REQUEST_RESPONSE_INFO => "request response information",
        id::RESPONSE_INFO => "the response information",
        id::SERVER_REFERENCE => "the server reference",
        id::REASON_STRING => "the reason string",
        id::RECEIVE_MAXIMUM => "the receive maximum",
        id::TOPIC_ALIAS_MAXIMUM => "the topic alias maximum",
        id::TOPIC_ALIAS => "the topic alias",
        id::MAXIMUM_QOS => "the maximum QoS",
        id::RETAIN_AVAILABLE => "retain available",
        id::USER => "a user property",
        id::MAXIMUM_PACKET_SIZE => "the maximum packet size",
        id::WILDCARD_AVAILABLE => "wildcard subscription available",
        id::SUBSCRIPTION_IDS_AVAILABLE => "subscription identifiers available",
        id::SHARED_AVAILABLE => "shared subscription available",
        _ => UNKNOWN,
    }
}
