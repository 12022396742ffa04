//! PUBLISH from a client, borrowed from the read buffer (section 3.3). This is the hot one: no allocation, one pass over
//! the topic, no look at the payload.

use std::{borrow::Cow, num::NonZeroU16};

use super::{
    frame::Frame,
    packet::{QoS, Version},
    properties::{self, Place, Properties, Property, id},
    reason::{CodecError, ReasonCode},
    topic::{self, TopicError},
    wire::{Reader, utf8},
};

/// A message of a client. All its parts are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    /// The client may have sent it before.
    pub(crate) dup: bool,
    /// Its quality of service.
    pub(crate) qos: QoS,
    /// Whether it is to be retained.
    pub(crate) retain: bool,
    /// A valid topic name; or empty, and then there is a topic alias.
    pub(crate) topic: &'a str,
    /// Given for QoS 1 and 2 only.
    pub(crate) packet_id: Option<NonZeroU16>,
    /// MQTT 5's properties as on the wire, without their length; empty for 3.1.1.
    pub(crate) properties: &'a [u8],
    /// Any bytes. That a payload said to be text is text, is not checked.
    pub(crate) payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads the body of a PUBLISH whose first byte the framer checked.
    ///
    /// # Errors
    /// Any rule of section 3.3 for what a client may send.
    #[inline]
    pub(crate) fn decode(version: Version, frame: &Frame, body: &'a [u8]) -> Result<Self, CodecError> {
        let flags = frame.first & 0x0F;
        let (dup, retain) = (flags & 0b1000 != 0, flags & 0b0001 != 0);
        let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or_else(|| CodecError::malformed("QoS 3 [MQTT-3.3.1-4]"))?;
        if dup && qos == QoS::AtMostOnce {
            return Err(CodecError::malformed("a PUBLISH with QoS 0 may not have the DUP flag [MQTT-3.3.1-2]"));
        }
        let mut reader = Reader::new(body);
        let topic = utf8(reader.binary("the topic name")?, "the topic name")?;
        match topic::check_topic_name(topic) {
            Ok(()) => {}
            Err(TopicError::Empty) if version == Version::V5 => {}
            Err(error) => return Err(topic_error(error)),
        }
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let properties = if version == Version::V5 { reader.properties()? } else { &[] };
        let publish = Self { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() };
        if !properties.is_empty() {
            properties::check(properties, Place::Publish)?;
        }
        if topic.is_empty() && publish.topic_alias().is_none() {
            return Err(CodecError::protocol("an empty topic name needs a topic alias [MQTT-3.3.2.1]"));
        }
        Ok(publish)
    }

    /// The properties one by one.
    pub(crate) fn properties(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        // `decode` has seen that there is no error among them.
        Properties::new(self.properties, Place::Publish).filter_map(Result::ok)
    }

    /// The topic alias, which the session replaces by a topic or remembers.
    pub(crate) fn topic_alias(&self) -> Option<NonZeroU16> {
        self.properties().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        })
    }

    /// Seconds after which the message is worthless.
    pub(crate) fn message_expiry(&self) -> Option<u32> {
        self.properties().find_map(|property| match property {
            Property::MessageExpiry(seconds) => Some(seconds),
            _ => None,
        })
    }

    /// The value of the first user property of that name.
    pub(crate) fn user_property(&self, name: &str) -> Option<&'a str> {
        self.properties().find_map(|property| match property {
            Property::User(key, value) if key == name => Some(value),
            _ => None,
        })
    }

    /// The properties that a subscriber gets: all but the topic alias, which belongs to this connection alone, and the
    /// message expiry, which is written anew as it shrinks ([MQTT-3.3.2-6]).
    pub(crate) fn forwarded_properties(&self) -> Cow<'a, [u8]> {
        if self.topic_alias().is_none() && self.message_expiry().is_none() {
            return Cow::Borrowed(self.properties);
        }
        let mut kept = Vec::with_capacity(self.properties.len());
        properties::copy_without(self.properties, Place::Publish, &[id::TOPIC_ALIAS, id::MESSAGE_EXPIRY], &mut kept);
        Cow::Owned(kept)
    }
}

#[cold]
fn topic_error(error: TopicError) -> CodecError {
    let reason = match error {
        TopicError::Nul => ReasonCode::MALFORMED_PACKET,
        _ => ReasonCode::TOPIC_NAME_INVALID,
    };
    CodecError::new(reason, format!("the topic name: {error}"))
}
