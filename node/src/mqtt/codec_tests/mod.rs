//! Tests of the codec as a whole: a table of conformance cases, round trips, random bytes, and a comparison with
//! rmqtt-codec, a decoder by other people.

mod client;
mod conformance;
mod corpus;
mod differential;
mod encoders;
mod invariants;
mod pack;
mod random;
mod round_trip;
mod targets;
mod trie;

use invariants::MAX;

use super::{
    codec::decode,
    frame::{Framing, frame},
    packet::{Packet, Version},
    reason::{CodecError, ReasonCode},
    wire::put_varint,
};

/// A packet from its first byte and the parts of its body.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    put_varint(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

/// A string with its length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// Properties with their length.
fn properties(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = Vec::new();
    put_varint(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

/// What became of bytes.
#[derive(Debug, Clone, PartialEq)]
enum Outcome<'a> {
    Packet(Packet<'a>),
    Refused(ReasonCode),
    Incomplete(usize),
}

/// Frames and decodes what is hopefully one packet.
fn outcome(version: Option<Version>, bytes: &[u8]) -> Outcome<'_> {
    match read(version, bytes) {
        Ok(Some((packet, total))) => {
            assert!(total <= bytes.len(), "consumed beyond the bytes");
            Outcome::Packet(packet)
        }
        Ok(None) => match frame(bytes, MAX) {
            Ok(Framing::Incomplete { needed }) => Outcome::Incomplete(needed),
            other => panic!("framing is not stable: {other:?}"),
        },
        Err(error) => Outcome::Refused(error.reason),
    }
}

fn read(version: Option<Version>, bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, CodecError> {
    match frame(bytes, MAX)? {
        Framing::Incomplete { .. } => Ok(None),
        Framing::Complete(frame) => Ok(Some((decode(version, &frame, bytes)?, frame.total))),
    }
}
