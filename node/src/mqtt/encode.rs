//! What the server sends, written straight into the connection's output buffer. No packet is ever half written.

use std::num::{NonZeroU16, NonZeroU32};

use super::{
    frame::kind,
    packet::{Connect, QoS, Version},
    properties::{id, put_subscription_id, subscription_id_len},
    reason::{CodecError, ReasonCode},
    topic::TOPIC_BYTES,
    wire::{VARINT_MAX, put_binary, put_varint, varint_len},
};

/// What must be known of the client to write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The version of its CONNECT.
    pub(crate) version: Version,
    /// The largest packet that it takes, in bytes with the header ([MQTT-3.1.2-24]).
    pub(crate) maximum_packet: usize,
    /// Whether reason strings may stand in other packets than CONNACK and DISCONNECT ([MQTT-3.1.2-29]).
    pub(crate) problem_info: bool,
}

impl Peer {
    /// The largest packet that MQTT knows, in bytes.
    const UNLIMITED: usize = VARINT_MAX as usize + 5;

    /// A client of `version` that has set no limits (yet).
    pub(crate) fn unlimited(version: Version) -> Self {
        Self { version, maximum_packet: Self::UNLIMITED, problem_info: true }
    }

    /// The client of a CONNECT.
    pub(crate) fn of(connect: &Connect) -> Self {
        let maximum_packet = connect.maximum_packet_size.map_or(Self::UNLIMITED, |size| size.get() as usize);
        Self {
            version: connect.version,
            maximum_packet: maximum_packet.min(Self::UNLIMITED),
            problem_info: connect.request_problem_info,
        }
    }

    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// The reason string to write beside `others` bytes of body: cut to what a string holds; empty where it is unwanted
    /// or would make the packet too large ([MQTT-3.4.2-2] and its likes).
    fn reason_string<'t>(&self, text: &'t str, wanted: bool, others: usize) -> &'t str {
        let text = &text[..text.floor_char_boundary(text.len().min(TOPIC_BYTES))];
        // Fixed header and property length take at most 5 + 4 bytes more.
        let fits = others + reason_string_len(text) + 9 <= self.maximum_packet;
        if wanted && self.is_v5() && fits { text } else { "" }
    }
}

/// A message does not fit the client's Maximum Packet Size, or is no MQTT packet at all; it is to be dropped as if it
/// had been sent ([MQTT-3.1.2-25]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message takes {bytes} bytes, the client takes at most {limit}")]
pub(crate) struct TooLarge {
    /// The packet's length.
    pub(crate) bytes: usize,
    /// The client's limit.
    pub(crate) limit: usize,
}

/// A PUBLISH to a subscriber. The MQTT 5 parts are left out for a 3.1.1 client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutgoingPublish<'a> {
    /// Sent before on this session.
    pub(crate) dup: bool,
    /// Its quality of service.
    pub(crate) qos: QoS,
    /// The retain flag.
    pub(crate) retain: bool,
    /// A valid topic name, or empty with an alias.
    pub(crate) topic: &'a str,
    /// Needed for QoS 1 and 2; left out for QoS 0.
    pub(crate) packet_id: Option<NonZeroU16>,
    /// Valid properties as on the wire, see `Publish::forwarded_properties`.
    pub(crate) properties: &'a [u8],
    /// Seconds that the message has left to live.
    pub(crate) message_expiry: Option<u32>,
    /// An alias of this connection.
    pub(crate) topic_alias: Option<NonZeroU16>,
    /// The identifiers of the subscriptions that matched.
    pub(crate) subscription_ids: &'a [NonZeroU32],
    /// The message.
    pub(crate) payload: &'a [u8],
}

/// Writes a PUBLISH (section 3.3).
///
/// # Errors
/// [`TooLarge`]; then nothing was written.
#[inline]
pub(crate) fn publish(out: &mut Vec<u8>, peer: &Peer, message: &OutgoingPublish<'_>) -> Result<(), TooLarge> {
    debug_assert_eq!(message.qos == QoS::AtMostOnce, message.packet_id.is_none());
    let properties = if peer.is_v5() { Some(publish_properties_len(message)) } else { None };
    let remaining = 2
        + message.topic.len()
        + if message.packet_id.is_some() { 2 } else { 0 }
        + properties.map_or(0, |length| varint_len(length) + length)
        + message.payload.len();
    let total = 1 + varint_len(remaining) + remaining;
    if total > peer.maximum_packet || message.topic.len() > TOPIC_BYTES {
        return Err(TooLarge { bytes: total, limit: peer.maximum_packet });
    }
    out.reserve(total);
    let flags = u8::from(message.dup) << 3 | (message.qos as u8) << 1 | u8::from(message.retain);
    out.push(kind::PUBLISH << 4 | flags);
    put_varint(out, remaining);
    put_binary(out, message.topic.as_bytes());
    if let Some(packet_id) = message.packet_id {
        out.extend_from_slice(&packet_id.get().to_be_bytes());
    }
    if let Some(length) = properties {
        put_varint(out, length);
        put_publish_properties(out, message);
    }
    out.extend_from_slice(message.payload);
    Ok(())
}

fn publish_properties_len(message: &OutgoingPublish<'_>) -> usize {
    message.properties.len()
        + if message.message_expiry.is_some() { 5 } else { 0 }
        + if message.topic_alias.is_some() { 3 } else { 0 }
        + message.subscription_ids.iter().map(|&id| subscription_id_len(id)).sum::<usize>()
}

fn put_publish_properties(out: &mut Vec<u8>, message: &OutgoingPublish<'_>) {
    out.extend_from_slice(message.properties);
    if let Some(seconds) = message.message_expiry {
        put_u32(out, id::MESSAGE_EXPIRY, seconds);
    }
    if let Some(alias) = message.topic_alias {
        put_u16(out, id::TOPIC_ALIAS, alias.get());
    }
    for &id in message.subscription_ids {
        put_subscription_id(out, id);
    }
}

/// Writes a PUBACK (section 3.4). `text` is the reason string, or empty.
#[inline]
pub(crate) fn puback(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, reason: ReasonCode, text: &str) {
    ack(out, peer, kind::PUBACK << 4, packet_id, reason, text);
}

/// Writes a PUBREC (section 3.5).
pub(crate) fn pubrec(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, reason: ReasonCode, text: &str) {
    ack(out, peer, kind::PUBREC << 4, packet_id, reason, text);
}

/// Writes a PUBREL (section 3.6).
pub(crate) fn pubrel(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, reason: ReasonCode) {
    ack(out, peer, kind::PUBREL << 4 | 0b0010, packet_id, reason, "");
}

/// Writes a PUBCOMP (section 3.7).
pub(crate) fn pubcomp(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, reason: ReasonCode) {
    ack(out, peer, kind::PUBCOMP << 4, packet_id, reason, "");
}

#[inline]
fn ack(out: &mut Vec<u8>, peer: &Peer, first: u8, packet_id: NonZeroU16, reason: ReasonCode, text: &str) {
    let [high, low] = packet_id.get().to_be_bytes();
    let text = peer.reason_string(text, peer.problem_info, 3);
    if !text.is_empty() {
        let length = reason_string_len(text);
        out.push(first);
        put_varint(out, 3 + varint_len(length) + length);
        out.extend_from_slice(&[high, low, reason.0]);
        put_reason_properties(out, text);
    } else if peer.is_v5() && reason != ReasonCode::SUCCESS {
        out.extend_from_slice(&[first, 3, high, low, reason.0]);
    } else {
        out.extend_from_slice(&[first, 2, high, low]);
    }
}

/// Writes a SUBACK (section 3.9): one code a filter, in the order of the SUBSCRIBE. A 3.1.1 client gets 0x80 for any failure.
pub(crate) fn suback(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, codes: &[ReasonCode], text: &str) {
    answer(out, peer, kind::SUBACK, packet_id, codes, text);
}

/// Writes an UNSUBACK (section 3.11): one code a filter, in the order of the UNSUBSCRIBE. A 3.1.1 client gets none.
pub(crate) fn unsuback(out: &mut Vec<u8>, peer: &Peer, packet_id: NonZeroU16, codes: &[ReasonCode], text: &str) {
    let codes = if peer.is_v5() { codes } else { &[] };
    answer(out, peer, kind::UNSUBACK, packet_id, codes, text);
}

fn answer(out: &mut Vec<u8>, peer: &Peer, kind: u8, packet_id: NonZeroU16, codes: &[ReasonCode], text: &str) {
    let text = peer.reason_string(text, peer.problem_info, 2 + codes.len());
    let length = reason_string_len(text);
    out.push(kind << 4);
    put_varint(out, 2 + if peer.is_v5() { varint_len(length) + length } else { 0 } + codes.len());
    out.extend_from_slice(&packet_id.get().to_be_bytes());
    if peer.is_v5() {
        put_reason_properties(out, text);
        out.extend(codes.iter().map(|code| code.0));
    } else {
        out.extend(codes.iter().map(|code| if code.is_error() { 0x80 } else { code.0 }));
    }
}

/// Writes a PINGRESP (section 3.13).
#[inline]
pub(crate) fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// Writes a DISCONNECT (section 3.14). A 3.1.1 server has none: nothing is written, the connection is just closed.
pub(crate) fn disconnect(out: &mut Vec<u8>, peer: &Peer, reason: ReasonCode, text: &str) {
    if !peer.is_v5() {
        return;
    }
    let text = peer.reason_string(text, true, 1);
    if text.is_empty() {
        out.extend_from_slice(&[kind::DISCONNECT << 4, 1, reason.0]);
        return;
    }
    let length = reason_string_len(text);
    out.push(kind::DISCONNECT << 4);
    put_varint(out, 1 + varint_len(length) + length);
    out.push(reason.0);
    put_reason_properties(out, text);
}

/// A CONNACK (section 3.2). All but the first two fields is for MQTT 5 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connack<'a> {
    /// The session of an earlier connection goes on. Never true in a refusal ([MQTT-3.2.2-6]).
    pub(crate) session_present: bool,
    /// Success or why not.
    pub(crate) reason: ReasonCode,
    /// For people; empty: none.
    pub(crate) reason_string: &'a str,
    /// Seconds that the session is kept, if other than asked for.
    pub(crate) session_expiry: Option<u32>,
    /// Unacknowledged QoS 1 and 2 messages that we take, if fewer than 65,535.
    pub(crate) receive_maximum: Option<NonZeroU16>,
    /// The highest quality of service that we take.
    pub(crate) maximum_qos: QoS,
    /// Whether messages can be retained.
    pub(crate) retain_available: bool,
    /// The largest packet that we take, in bytes.
    pub(crate) maximum_packet_size: Option<NonZeroU32>,
    /// The client id that we made up for a client that sent none.
    pub(crate) assigned_client_id: Option<&'a str>,
    /// Topic aliases that we take.
    pub(crate) topic_alias_maximum: u16,
    /// Whether filters may have wildcards.
    pub(crate) wildcard_available: bool,
    /// Whether subscriptions may have identifiers.
    pub(crate) subscription_ids_available: bool,
    /// Whether subscriptions may be shared.
    pub(crate) shared_available: bool,
    /// Seconds of keep alive that the client must use in place of its own.
    pub(crate) server_keep_alive: Option<u16>,
}

impl<'a> Connack<'a> {
    /// A plain acceptance: everything available, no limits.
    pub(crate) fn accepted(session_present: bool) -> Self {
        Self {
            session_present,
            reason: ReasonCode::SUCCESS,
            reason_string: "",
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive: None,
        }
    }

    /// A refusal.
    pub(crate) fn refused(reason: ReasonCode, reason_string: &'a str) -> Self {
        Self { reason, reason_string, ..Self::accepted(false) }
    }
}

/// Writes a CONNACK. Returns whether it did: 3.1.1 has no return code for some refusals, there the connection is just
/// closed ([MQTT-3.2.2-6] of 3.1.1).
pub(crate) fn connack(out: &mut Vec<u8>, peer: &Peer, connack: &Connack<'_>) -> bool {
    let session_present = u8::from(connack.session_present && connack.reason == ReasonCode::SUCCESS);
    if !peer.is_v5() {
        let Some(code) = connack.reason.connect_return_code() else { return false };
        out.extend_from_slice(&[kind::CONNACK << 4, 2, session_present, code]);
        return true;
    }
    let mut properties = Vec::with_capacity(64);
    put_connack_properties(&mut properties, connack);
    let text = peer.reason_string(connack.reason_string, true, 2 + properties.len());
    put_reason_string(&mut properties, text);
    out.push(kind::CONNACK << 4);
    put_varint(out, 2 + varint_len(properties.len()) + properties.len());
    out.extend_from_slice(&[session_present, connack.reason.0]);
    put_varint(out, properties.len());
    out.extend_from_slice(&properties);
    true
}

/// Answers a CONNECT that could not be read. Returns whether there is an answer; the connection is closed either way.
pub(crate) fn refuse_connect(out: &mut Vec<u8>, error: &CodecError) -> bool {
    let Some(version) = error.answer else { return false };
    connack(out, &Peer::unlimited(version), &Connack::refused(error.reason, &error.detail))
}

fn put_connack_properties(out: &mut Vec<u8>, connack: &Connack<'_>) {
    if let Some(seconds) = connack.session_expiry {
        put_u32(out, id::SESSION_EXPIRY, seconds);
    }
    if let Some(count) = connack.receive_maximum {
        put_u16(out, id::RECEIVE_MAXIMUM, count.get());
    }
    if connack.maximum_qos != QoS::ExactlyOnce {
        out.extend_from_slice(&[id::MAXIMUM_QOS, connack.maximum_qos as u8]);
    }
    if let Some(size) = connack.maximum_packet_size {
        put_u32(out, id::MAXIMUM_PACKET_SIZE, size.get());
    }
    if let Some(client_id) = connack.assigned_client_id {
        out.push(id::ASSIGNED_CLIENT_ID);
        put_binary(out, client_id.as_bytes());
    }
    if connack.topic_alias_maximum > 0 {
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, connack.topic_alias_maximum);
    }
    let availables = [
        (id::RETAIN_AVAILABLE, connack.retain_available),
        (id::WILDCARD_AVAILABLE, connack.wildcard_available),
        (id::SUBSCRIPTION_IDS_AVAILABLE, connack.subscription_ids_available),
        (id::SHARED_AVAILABLE, connack.shared_available),
    ];
    for (id, available) in availables {
        if !available {
            out.extend_from_slice(&[id, 0]); // Their default is 1.
        }
    }
    if let Some(seconds) = connack.server_keep_alive {
        put_u16(out, id::SERVER_KEEP_ALIVE, seconds);
    }
}

/// Bytes of a reason string's property; none for an empty one.
fn reason_string_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { 3 + text.len() }
}

/// The properties of a packet that has none but perhaps a reason string.
fn put_reason_properties(out: &mut Vec<u8>, text: &str) {
    put_varint(out, reason_string_len(text));
    put_reason_string(out, text);
}

fn put_reason_string(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() {
        out.push(id::REASON_STRING);
        put_binary(out, text.as_bytes());
    }
}

fn put_u16(out: &mut Vec<u8>, id: u8, value: u16) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, id: u8, value: u32) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}
