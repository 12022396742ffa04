//! CONNECT (section 3.1): the one packet whose version is in itself.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::{
    packet::{Connect, QoS, Version, Will},
    properties::{self, Place, Properties, Property, id},
    reason::{CodecError, ReasonCode},
    topic,
    wire::Reader,
};

/// The connect flags (section 3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USERNAME: u8 = 0x80;
}

impl Connect {
    /// Reads the body of a CONNECT.
    ///
    /// # Errors
    /// Any rule of section 3.1. The error says in which version to answer, unless this is not MQTT at all.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let version = protocol(&mut reader)?;
        Self::decode_rest(version, reader).map_err(|error| error.answered_in(version))
    }

    fn decode_rest(version: Version, mut reader: Reader<'_>) -> Result<Self, CodecError> {
        let flags = reader.u8("the connect flags")?;
        check_flags(version, flags)?;
        let clean_start = flags & flag::CLEAN_START != 0;
        let mut connect = Self {
            version,
            client_id: String::new(),
            clean_start,
            keep_alive: reader.u16("the keep alive")?,
            username: None,
            password: None,
            will: None,
            session_expiry: if version == Version::V3 && !clean_start { u32::MAX } else { 0 },
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_problem_info: true,
            request_response_info: false,
            auth_method: None,
            auth_data: None,
            user_properties: Vec::new(),
        };
        if version == Version::V5 {
            connect.take_properties(reader.properties()?)?;
        }
        connect.client_id = reader.string("the client id")?.to_owned();
        if connect.client_id.is_empty() && version == Version::V3 && !clean_start {
            let detail = "an empty client id needs a clean session, as nothing could be kept under it [MQTT-3.1.3-8]";
            return Err(CodecError::new(ReasonCode::CLIENT_ID_NOT_VALID, detail));
        }
        if flags & flag::WILL != 0 {
            connect.will = Some(will(version, flags, &mut reader)?);
        }
        if flags & flag::USERNAME != 0 {
            connect.username = Some(reader.string("the user name")?.to_owned());
        }
        if flags & flag::PASSWORD != 0 {
            connect.password = Some(Bytes::copy_from_slice(reader.binary("the password")?));
        }
        reader.end("CONNECT")?;
        Ok(connect)
    }

    fn take_properties(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        for property in Properties::new(bytes, Place::Connect) {
            match property? {
                Property::SessionExpiry(seconds) => self.session_expiry = seconds,
                Property::ReceiveMaximum(count) => self.receive_maximum = count,
                Property::MaximumPacketSize(size) => self.maximum_packet_size = Some(size),
                Property::TopicAliasMaximum(count) => self.topic_alias_maximum = count,
                Property::RequestProblemInfo(wanted) => self.request_problem_info = wanted,
                Property::RequestResponseInfo(wanted) => self.request_response_info = wanted,
                Property::AuthMethod(method) => self.auth_method = Some(method.to_owned()),
                Property::AuthData(data) => self.auth_data = Some(Bytes::copy_from_slice(data)),
                Property::User(name, value) => self.user_properties.push((name.to_owned(), value.to_owned())),
                _ => {} // The walk lets no other property pass here.
            }
        }
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(CodecError::protocol("authentication data needs an authentication method [MQTT-3.1.2.11.10]"));
        }
        Ok(())
    }
}

/// Reads the protocol's name and level.
fn protocol(reader: &mut Reader<'_>) -> Result<Version, CodecError> {
    let name = reader.binary("the protocol name")?;
    if name != b"MQTT" && name != b"MQIsdp" {
        let detail = "the protocol name is not MQTT [MQTT-3.1.2-1]";
        return Err(CodecError::new(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, detail));
    }
    let level = reader.u8("the protocol level")?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V3),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => {
            let detail =
                format!("protocol level {level} is not served; MQTT 3.1.1 (4) and MQTT 5 (5) are [MQTT-3.1.2-2]");
            // Bit 7 marks the bridges of some brokers, which fall back to their real level when refused in its format.
            let answer = if level & 0x7F < 5 { Version::V3 } else { Version::V5 };
            Err(CodecError::new(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, detail).answered_in(answer))
        }
    }
}

fn check_flags(version: Version, flags: u8) -> Result<(), CodecError> {
    let error = if flags & flag::RESERVED != 0 {
        "the reserved connect flag is set [MQTT-3.1.2-3]"
    } else if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        "there is a will QoS or will retain flag, but no will flag [MQTT-3.1.2-11]"
    } else if flags & flag::WILL_QOS == flag::WILL_QOS {
        "the will's QoS is 3 [MQTT-3.1.2-12]"
    } else if version == Version::V3 && flags & flag::PASSWORD != 0 && flags & flag::USERNAME == 0 {
        "MQTT 3.1.1 has no password without a user name [MQTT-3.1.2-22]"
    } else {
        return Ok(());
    };
    Err(CodecError::malformed(error))
}

fn will(version: Version, flags: u8, reader: &mut Reader<'_>) -> Result<Will, CodecError> {
    let (mut delay, mut kept) = (0, Vec::new());
    if version == Version::V5 {
        let bytes = reader.properties()?;
        for property in Properties::new(bytes, Place::Will) {
            if let Property::WillDelay(seconds) = property? {
                delay = seconds;
            }
        }
        properties::copy_without(bytes, Place::Will, &[id::WILL_DELAY], &mut kept);
    }
    let topic = reader.string("the will topic")?;
    topic::check_topic_name(topic)
        .map_err(|error| CodecError::new(ReasonCode::TOPIC_NAME_INVALID, format!("the will topic: {error}")))?;
    Ok(Will {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(reader.binary("the will's payload")?),
        qos: QoS::from_bits((flags & flag::WILL_QOS) >> 3).unwrap_or(QoS::AtMostOnce), // `check_flags` refuses 3.
        retain: flags & flag::WILL_RETAIN != 0,
        delay,
        properties: kept,
    })
}
