//! The door of the codec: one whole frame in, one packet out.

use super::{
    frame::{Frame, kind},
    packet::{Ack, Auth, Connect, Disconnect, Packet, Subscribe, Unsubscribe, Version},
    publish::Publish,
    reason::{CodecError, ReasonCode},
};

/// Reads the packet that `frame` found at the start of `bytes`. `version` is `None` until the CONNECT was read, which tells it.
///
/// # Errors
/// Whatever a client may not send, see [`CodecError`]; the connection is then to be closed. Nothing is read beyond the
/// frame, and nothing panics, whatever the bytes.
#[inline]
pub(crate) fn decode<'a>(version: Option<Version>, frame: &Frame, bytes: &'a [u8]) -> Result<Packet<'a>, CodecError> {
    let body = bytes
        .get(frame.body())
        .ok_or_else(|| CodecError::new(ReasonCode::UNSPECIFIED_ERROR, "the frame is not all there"))?;
    match version {
        Some(Version::V5) if !frame.is_minimal() => {
            Err(CodecError::malformed("the remaining length takes more bytes than it needs [MQTT-1.5.5-1]"))
        }
        Some(version) if frame.kind() == kind::PUBLISH => Ok(Packet::Publish(Publish::decode(version, frame, body)?)),
        Some(version) => decode_control(version, frame.kind(), body),
        None if frame.kind() == kind::CONNECT => {
            let connect = Connect::decode(body)?;
            if connect.version == Version::V5 && !frame.is_minimal() {
                let detail = "the remaining length takes more bytes than it needs [MQTT-1.5.5-1]";
                return Err(CodecError::malformed(detail).answered_in(Version::V5));
            }
            Ok(Packet::Connect(Box::new(connect)))
        }
        None => {
            let name = kind::name(frame.kind());
            Err(CodecError::protocol(format!("the first packet is {name}; it must be CONNECT [MQTT-3.1.0-1]")))
        }
    }
}

fn decode_control<'a>(version: Version, kind: u8, body: &[u8]) -> Result<Packet<'a>, CodecError> {
    Ok(match kind {
        kind::PINGREQ if body.is_empty() => Packet::Pingreq,
        kind::PUBACK => Packet::Puback(Ack::decode(version, kind, body)?),
        kind::PUBREC => Packet::Pubrec(Ack::decode(version, kind, body)?),
        kind::PUBREL => Packet::Pubrel(Ack::decode(version, kind, body)?),
        kind::PUBCOMP => Packet::Pubcomp(Ack::decode(version, kind, body)?),
        kind::SUBSCRIBE => Packet::Subscribe(Subscribe::decode(version, body)?),
        kind::UNSUBSCRIBE => Packet::Unsubscribe(Unsubscribe::decode(version, body)?),
        kind::DISCONNECT => Packet::Disconnect(Disconnect::decode(version, body)?),
        kind::AUTH if version == Version::V5 => Packet::Auth(Auth::decode(body)?),
        kind::AUTH => return Err(CodecError::malformed("packet type 15 is reserved in MQTT 3.1.1 [MQTT-2.2.1]")),
        kind::PINGREQ => return Err(CodecError::malformed("a PINGREQ has no body [MQTT-3.12]")),
        kind::CONNECT => return Err(CodecError::protocol("a second CONNECT on one connection [MQTT-3.1.0-2]")),
        _ => return Err(CodecError::protocol(format!("only a server sends {}", super::frame::kind::name(kind)))),
    })
}
