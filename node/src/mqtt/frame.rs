//! Where a packet begins and ends (the fixed header, section 2.1), before a byte of it is kept or understood.
//!
//! Wrong headers and packets that are too large are refused here, so that nobody buffers them.

use std::ops::Range;

use super::reason::{CodecError, ReasonCode};

/// The packet types (section 2.1.2).
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const UNSUBACK: u8 = 11;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;

    /// The packet type's name.
    pub(crate) fn name(kind: u8) -> &'static str {
        const NAMES: [&str; 16] = [
            "reserved type 0",
            "CONNECT",
            "CONNACK",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "SUBACK",
            "UNSUBSCRIBE",
            "UNSUBACK",
            "PINGREQ",
            "PINGRESP",
            "DISCONNECT",
            "AUTH",
        ];
        NAMES[usize::from(kind & 0x0F)]
    }
}

/// What the bytes at hand amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The packet is not all there: it makes no sense to ask again with fewer than `needed` bytes.
    Incomplete {
        /// Bytes from the packet's first, at least.
        needed: usize,
    },
    /// The first `total` bytes are one packet.
    Complete(Frame),
}

/// The extent of one whole packet, counted from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The packet's first byte: type and flags, already checked.
    pub(crate) first: u8,
    /// Length of the fixed header, in bytes (2 to 5).
    header: u8,
    /// Length of the packet with its header, in bytes.
    pub(crate) total: usize,
}

impl Frame {
    /// The packet type, see [`kind`].
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Where the variable header and the payload are.
    pub(crate) fn body(&self) -> Range<usize> {
        usize::from(self.header)..self.total
    }

    /// Whether the remaining length takes no more bytes than it must. MQTT 5 asks for it ([MQTT-1.5.5-1]); 3.1.1 does
    /// not, and small clients do pad it.
    pub(crate) fn is_minimal(&self) -> bool {
        usize::from(self.header) == 1 + super::wire::varint_len(self.total - usize::from(self.header))
    }
}

/// Reads the fixed header at the start of `bytes`. `max_packet` counts the whole packet, in bytes.
///
/// # Errors
/// A reserved type, flags that the type may not have, QoS 3, a remaining length of more than four bytes (all 0x81), or a
/// packet above `max_packet` (0x95), each as early as it can be told.
pub(crate) fn frame(bytes: &[u8], max_packet: usize) -> Result<Framing, CodecError> {
    let Some(&first) = bytes.first() else { return Ok(Framing::Incomplete { needed: 2 }) };
    check_first(first)?;
    let mut remaining = 0_usize;
    for index in 0..4 {
        let Some(&byte) = bytes.get(1 + index) else { return Ok(Framing::Incomplete { needed: 2 + index }) };
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let header = 2 + index;
            let total = header + remaining;
            if total > max_packet {
                return Err(too_large(total, max_packet));
            }
            return Ok(if bytes.len() < total {
                Framing::Incomplete { needed: total }
            } else {
                Framing::Complete(Frame { first, header: header as u8, total })
            });
        }
    }
    Err(CodecError::malformed(
        "the remaining length has more than four bytes [MQTT-2.1.4]; is this MQTT, or TLS on a plain port?",
    ))
}

/// The flags that section 2.1.3 fixes for each type; PUBLISH uses all four.
#[inline]
fn check_first(first: u8) -> Result<(), CodecError> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    let ok = match kind {
        0 => false,
        kind::PUBLISH => flags & 0b0110 != 0b0110,
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => flags == 0b0010,
        _ => flags == 0,
    };
    if ok { Ok(()) } else { Err(bad_first(first)) }
}

#[cold]
fn bad_first(first: u8) -> CodecError {
    let name = kind::name(first >> 4);
    CodecError::malformed(match first >> 4 {
        0 => "packet type 0 is reserved [MQTT-2.1.2]; is this MQTT?".to_owned(),
        kind::PUBLISH => "a PUBLISH may not have both QoS bits set [MQTT-3.3.1-4]".to_owned(),
        _ => format!("a {name} may not have the flags 0x{:X} [MQTT-2.1.3-1]", first & 0x0F),
    })
}

#[cold]
fn too_large(total: usize, max_packet: usize) -> CodecError {
    let detail =
        format!("the packet has {total} bytes, at most {max_packet} are allowed (limit mqtt.limits.packet_bytes)");
    CodecError::new(ReasonCode::PACKET_TOO_LARGE, detail)
}
/// How many packets these bytes of our own are.
#[inline]
pub(crate) fn count(bytes: &[u8]) -> u64 {
    let (mut count, mut at) = (0, 0);
    while at < bytes.len() {
        let (mut length, mut shift) = (0_usize, 0);
        for &byte in bytes[at + 1..].iter().take(4) {
            at += 1;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += 1 + length;
        count += 1;
    }
    count
}
