//! What holds whatever the bytes are. The random tests, the replay of the fuzzers' corpus and the fuzz targets check the same.
//!
//! The fuzz targets include this file, so it uses nothing but the wire format and the client's half of it (`client`).

use super::{
    super::{
        codec::decode,
        encode::{self, OutgoingPublish, Peer},
        frame::{Framing, frame, kind},
        packet::{Packet, Publish, Version},
        reason::CodecError,
        topic::{check_filter, check_topic_name},
        wire::put_varint,
    },
    client,
};

/// Larger than any packet of the tests.
pub(crate) const MAX: usize = 1 << 20;
/// A refusal is for a log line and a reason string, however long the text is that was wrong.
const DETAIL: usize = 600;

/// What became of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They are a packet that a client may send.
    Taken,
    /// They are not.
    Refused,
    /// They are the beginning of one.
    Incomplete,
}

/// The bytes of one packet: `data` is the first byte, with type and flags, and the body. Its length is put in between, and
/// a CONNECT's protocol name and level in front of the body: bytes that only the framer or the first check would see are the
/// stream's.
pub(crate) fn packet_of(version: Version, data: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = data.split_first() else { return Vec::new() };
    let level: &[u8] = if version == Version::V5 { b"\0\x04MQTT\x05" } else { b"\0\x04MQTT\x04" };
    let head = if first >> 4 == kind::CONNECT { level } else { &[] };
    let mut bytes = vec![first];
    put_varint(&mut bytes, head.len() + rest.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(rest);
    bytes
}

/// Frames and decodes what may be one packet, or part of one, or more. A CONNECT is read as the first packet of a connection.
pub(crate) fn check_bytes(version: Version, bytes: &[u8]) -> Fate {
    let asked = if bytes.first().is_some_and(|first| first >> 4 == kind::CONNECT) { None } else { Some(version) };
    let frame = match frame(bytes, MAX) {
        Ok(Framing::Complete(frame)) => frame,
        Ok(Framing::Incomplete { needed }) => {
            assert!(needed > bytes.len() && needed <= MAX, "{bytes:02X?} are said to be too few for {needed}");
            return Fate::Incomplete;
        }
        Err(error) => {
            check_refusal(&error);
            return Fate::Refused;
        }
    };
    assert!(frame.total <= bytes.len() && frame.body().end == frame.total, "{bytes:02X?}");
    let result = decode(asked, &frame, bytes);
    // A decoder that looked beyond the frame would see something else now.
    assert_eq!(result, decode(asked, &frame, &bytes[..frame.total]), "{bytes:02X?}");
    assert!(decode(asked, &frame, &bytes[..frame.total - 1]).is_err(), "{bytes:02X?}");
    match result {
        Ok(packet) => {
            check_taken(&packet, version);
            Fate::Taken
        }
        Err(error) => {
            check_refusal(&error);
            Fate::Refused
        }
    }
}

/// Bytes that come in pieces are cut into the same packets as bytes that come at once, and what waits for its end is never
/// more than the framer has allowed. `data` is the size of a piece (less one) and the stream.
pub(crate) fn check_stream(version: Version, data: &[u8]) -> usize {
    let Some((&size, stream)) = data.split_first() else { return 0 };
    let whole = cut(version, [stream]);
    let pieces = cut(version, stream.chunks(usize::from(size % 32) + 1));
    assert_eq!(whole, pieces, "in pieces of {}: {stream:02X?}", size % 32 + 1);
    whole.0.len()
}

/// The lengths of the packets of a stream, and the refusal that ends it.
fn cut<'a>(version: Version, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, Option<CodecError>) {
    let (mut held, mut needed, mut packets) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut start = 0;
        // A connection does not ask again before so many bytes are there.
        while held.len() > start && held.len() - start >= needed {
            let at_hand = &held[start..];
            match frame(at_hand, MAX) {
                Ok(Framing::Incomplete { needed: more }) => {
                    assert!(more > at_hand.len() && more <= MAX, "{at_hand:02X?} are too few for {more}");
                    needed = more;
                }
                Ok(Framing::Complete(frame)) => {
                    assert!(frame.total >= needed && frame.total <= at_hand.len());
                    let asked = if frame.kind() == kind::CONNECT { None } else { Some(version) };
                    match decode(asked, &frame, at_hand) {
                        Ok(packet) => check_taken(&packet, version),
                        Err(error) => return (packets, Some(error)),
                    }
                    packets.push(frame.total);
                    start += frame.total;
                    needed = 0;
                }
                Err(error) => return (packets, Some(error)),
            }
        }
        held.drain(..start);
    }
    (packets, None)
}

fn check_refusal(error: &CodecError) {
    assert!(error.reason.is_error(), "{error}");
    assert!(error.detail.len() <= DETAIL, "{} bytes: {error}", error.detail.len());
    // Whatever was refused can be told, in either version.
    for version in [Version::V3, Version::V5] {
        let mut out = Vec::new();
        encode::disconnect(&mut out, &Peer::unlimited(version), error.reason, &error.detail);
        encode::refuse_connect(&mut out, error);
    }
}

/// What holds for every packet that is taken, whatever it was made of.
fn check_taken(packet: &Packet<'_>, version: Version) {
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let written = client::write(packet, version);
    let asked = if matches!(packet, Packet::Connect(_)) { None } else { Some(version) };
    match frame(&written, 2 * MAX) {
        Ok(Framing::Complete(frame)) if frame.total == written.len() => {
            assert_eq!(decode(asked, &frame, &written).as_ref(), Ok(packet), "written anew: {written:02X?}");
        }
        other => panic!("{packet:?} written anew is {other:?}"),
    }
    match packet {
        Packet::Publish(message) => check_publish(message, version),
        Packet::Connect(connect) => {
            assert!(!connect.client_id.contains('\0'));
            assert!(connect.will.as_ref().is_none_or(|will| check_topic_name(&will.topic).is_ok()));
        }
        Packet::Subscribe(subscribe) => {
            assert!(!subscribe.filters.is_empty());
            assert!(subscribe.filters.iter().all(|one| check_filter(&one.filter).is_ok()));
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(!unsubscribe.filters.is_empty());
            assert!(unsubscribe.filters.iter().all(|filter| check_filter(filter).is_ok()));
        }
        _ => {}
    }
}

fn check_publish(message: &Publish<'_>, version: Version) {
    let aliased = version == Version::V5 && message.topic_alias().is_some();
    assert!(check_topic_name(message.topic).is_ok() || (message.topic.is_empty() && aliased));
    assert_eq!(message.packet_id.is_some(), message.qos as u8 > 0);
    assert!(version == Version::V5 || message.properties.is_empty());
    let forwarded = message.forwarded_properties();
    assert!(forwarded.len() <= message.properties.len());
    // What one client may send, the others can read.
    for to in [Version::V3, Version::V5] {
        let outgoing = OutgoingPublish {
            dup: message.dup,
            qos: message.qos,
            retain: message.retain,
            topic: if message.topic.is_empty() { "what/the/alias/means" } else { message.topic },
            packet_id: message.packet_id,
            properties: &forwarded,
            message_expiry: message.message_expiry(),
            topic_alias: None,
            subscription_ids: &[],
            payload: message.payload,
        };
        let mut out = Vec::new();
        assert_eq!(encode::publish(&mut out, &Peer::unlimited(to), &outgoing), Ok(()));
        let Ok(Framing::Complete(frame)) = frame(&out, 2 * MAX) else { panic!("{out:02X?}") };
        let Ok(Packet::Publish(read)) = decode(Some(to), &frame, &out) else { panic!("{out:02X?}") };
        assert_eq!((read.topic, read.payload, read.qos), (outgoing.topic, message.payload, message.qos));
        if to == Version::V5 {
            assert_eq!(read.message_expiry(), message.message_expiry());
            assert_eq!(&*read.forwarded_properties(), &*forwarded);
        }
    }
}
