//! The packets around the messages: acknowledgements, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, AUTH
//! (sections 3.4 to 3.8, 3.10, 3.14, 3.15).

use bytes::Bytes;

use super::{
    frame::kind,
    packet::{Ack, Auth, Disconnect, QoS, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, Version},
    properties::{self, Place, Properties, Property},
    reason::{CodecError, ReasonCode},
    topic,
    wire::Reader,
};

impl Ack {
    /// Reads the body of an acknowledgement of the packet type `kind`.
    ///
    /// # Errors
    /// Packet id 0, a reason that this packet may not have, other properties than it may have, bytes too many.
    pub(crate) fn decode(version: Version, kind: u8, body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut reason = ReasonCode::SUCCESS;
        if version == Version::V5 && !reader.is_empty() {
            reason = ReasonCode(reader.u8("the reason code")?);
            check_reason(kind, reason)?;
            optional_properties(&mut reader, Place::Ack)?;
        }
        reader.end(kind::name(kind))?;
        Ok(Self { packet_id, reason })
    }
}

impl Subscribe {
    /// Reads the body of a SUBSCRIBE.
    ///
    /// # Errors
    /// No filter, an invalid filter (0x8F), options that do not exist, and what any packet may have wrong.
    pub(crate) fn decode(version: Version, body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        let mut subscription_id = None;
        if version == Version::V5 {
            for property in Properties::new(reader.properties()?, Place::Subscribe) {
                if let Property::SubscriptionId(id) = property? {
                    subscription_id = Some(id);
                }
            }
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(SubscribeFilter::decode(version, &mut reader)?);
        }
        if filters.is_empty() {
            return Err(CodecError::protocol("a SUBSCRIBE needs at least one topic filter [MQTT-3.8.3-2]"));
        }
        Ok(Self { packet_id, subscription_id, filters })
    }
}

impl SubscribeFilter {
    fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let text = reader.string("the topic filter")?;
        let filter = topic::check_filter(text).map_err(|error| filter_error(text, error))?;
        let options = reader.u8("the subscription options")?;
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(CodecError::malformed(format!(
                "the options of {:?} have reserved bits set [MQTT-3.8.3-5]",
                beginning(text)
            )));
        }
        let qos = QoS::from_bits(options & 0b11).ok_or_else(|| {
            CodecError::malformed(format!("the options of {:?} ask for QoS 3 [MQTT-3.8.3-4]", beginning(text)))
        })?;
        let no_local = options & 0b100 != 0;
        if no_local && filter.group.is_some() {
            return Err(CodecError::protocol("a shared subscription may not have no-local [MQTT-3.8.3-4]"));
        }
        let retain_handling = match options >> 4 & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => {
                return Err(CodecError::protocol(format!(
                    "the options of {:?} have retain handling 3 [MQTT-3.8.3.1]",
                    beginning(text)
                )));
            }
        };
        Ok(Self { filter: text.to_owned(), qos, no_local, retain_as_published: options & 0b1000 != 0, retain_handling })
    }
}

impl Unsubscribe {
    /// Reads the body of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// No filter, an invalid filter (0x8F), and what any packet may have wrong.
    pub(crate) fn decode(version: Version, body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let packet_id = reader.packet_id()?;
        if version == Version::V5 {
            properties::check(reader.properties()?, Place::Unsubscribe)?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let text = reader.string("the topic filter")?;
            topic::check_filter(text).map_err(|error| filter_error(text, error))?;
            filters.push(text.to_owned());
        }
        if filters.is_empty() {
            return Err(CodecError::protocol("an UNSUBSCRIBE needs at least one topic filter [MQTT-3.10.3-2]"));
        }
        Ok(Self { packet_id, filters })
    }
}

impl Disconnect {
    /// Reads the body of a DISCONNECT.
    ///
    /// # Errors
    /// A body in 3.1.1, a reason that only a server may give, other properties than it may have, bytes too many.
    pub(crate) fn decode(version: Version, body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Self { reason: ReasonCode::SUCCESS, session_expiry: None };
        if version == Version::V5 && !reader.is_empty() {
            disconnect.reason = ReasonCode(reader.u8("the reason code")?);
            check_reason(kind::DISCONNECT, disconnect.reason)?;
            for property in Properties::new(optional_properties(&mut reader, Place::Disconnect)?, Place::Disconnect) {
                if let Property::SessionExpiry(seconds) = property? {
                    disconnect.session_expiry = Some(seconds);
                }
            }
        }
        reader.end("DISCONNECT")?;
        Ok(disconnect)
    }
}

impl Auth {
    /// Reads the body of an AUTH of MQTT 5.
    ///
    /// # Errors
    /// A reason that only a server may give, no authentication method, other properties than it may have, bytes too many.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        // An AUTH without a body says success (section 3.15.2.1), which only a server may say.
        let reason = if reader.is_empty() { ReasonCode::SUCCESS } else { ReasonCode(reader.u8("the reason code")?) };
        check_reason(kind::AUTH, reason)?;
        let (mut method, mut data) = (None, None);
        for property in Properties::new(optional_properties(&mut reader, Place::Auth)?, Place::Auth) {
            match property? {
                Property::AuthMethod(name) => method = Some(name.to_owned()),
                Property::AuthData(bytes) => data = Some(Bytes::copy_from_slice(bytes)),
                _ => {}
            }
        }
        reader.end("AUTH")?;
        let method =
            method.ok_or_else(|| CodecError::protocol("an AUTH needs an authentication method [MQTT-3.15.2.2.2]"))?;
        Ok(Self { reason, method, data })
    }
}

/// Properties that, with their length, may be left out at the end of a packet.
fn optional_properties<'a>(reader: &mut Reader<'a>, place: Place) -> Result<&'a [u8], CodecError> {
    if reader.is_empty() {
        return Ok(&[]);
    }
    let bytes = reader.properties()?;
    properties::check(bytes, place)?;
    Ok(bytes)
}

/// The reasons that a client may give (tables 3-4 to 3-10, "sent by client").
fn check_reason(kind: u8, reason: ReasonCode) -> Result<(), CodecError> {
    let ok = match kind {
        kind::PUBACK | kind::PUBREC => matches!(reason.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99),
        kind::PUBREL | kind::PUBCOMP => matches!(reason.0, 0x00 | 0x92),
        kind::DISCONNECT => matches!(reason.0, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99),
        kind::AUTH => matches!(reason.0, 0x18 | 0x19),
        _ => false,
    };
    if ok {
        return Ok(());
    }
    Err(CodecError::protocol(format!("a client's {} may not have the reason code {reason}", kind::name(kind))))
}

#[cold]
fn filter_error(text: &str, error: topic::TopicError) -> CodecError {
    CodecError::new(ReasonCode::TOPIC_FILTER_INVALID, format!("the topic filter {:?}: {error}", beginning(text)))
}

/// A filter may be 65,535 bytes long, and longer still when escaped; whoever wrote it knows it by its beginning.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}
