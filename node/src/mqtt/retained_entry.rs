//! One retained message in as few bytes as it needs: a single allocation, which the index orders by topic.
//!
//! Levels are compared one by one: the `/` between them counts as less than any character, so that everything below a topic
//! lies behind it without a gap. A topic holds no U+0000, so the topic is kept with that in place of each `/`, and comparing
//! is comparing bytes.

use std::borrow::Borrow;

use bytes::Bytes;

use super::packet::QoS;

/// What stands in place of `/` in a key.
pub(crate) const SEPARATOR: u8 = 0;

const QOS: u8 = 0b0011;
const HAS_PROPERTIES: u8 = 0b0100;
const EXPIRES: u8 = 0b1000;

/// Where the parts begin: flags, the topic's length, the serial.
const TOPIC_LEN: usize = 1;
const SERIAL: usize = 3;
const HEAD: usize = 11;

/// A message as it is retained. What it borrows is copied when it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    /// MQTT 5 properties as on the wire, without the message expiry.
    pub(crate) properties: &'a [u8],
    /// When the message is worthless, in milliseconds of uptime.
    pub(crate) deadline: Option<u64>,
}

/// A packed message. Equal and ordered by its topic alone.
#[derive(Debug)]
pub(crate) struct Entry(Box<[u8]>);

impl Entry {
    /// Packs a message. `serial` says when it came, see [`super::retained::Retained`].
    pub(crate) fn pack(parts: &Parts<'_>, serial: u64) -> Self {
        let Parts { topic, payload, qos, properties, deadline } = *parts;
        let mut out = Vec::with_capacity(Self::packed_len(parts));
        let flags = qos as u8
            | if properties.is_empty() { 0 } else { HAS_PROPERTIES }
            | if deadline.is_some() { EXPIRES } else { 0 };
        out.push(flags);
        let topic_len = u16::try_from(topic.len()).expect("a valid topic has at most 65,535 bytes");
        out.extend_from_slice(&topic_len.to_le_bytes());
        out.extend_from_slice(&serial.to_le_bytes());
        if let Some(deadline) = deadline {
            out.extend_from_slice(&deadline.to_le_bytes());
        }
        if !properties.is_empty() {
            let len = u32::try_from(properties.len()).expect("a packet's properties have at most 256 MiB");
            out.extend_from_slice(&len.to_le_bytes());
        }
        out.extend(topic.bytes().map(|byte| if byte == b'/' { SEPARATOR } else { byte }));
        out.extend_from_slice(properties);
        out.extend_from_slice(payload);
        Self(out.into_boxed_slice())
    }

    /// The bytes that a packed message takes.
    pub(crate) fn packed_len(parts: &Parts<'_>) -> usize {
        HEAD + if parts.deadline.is_some() { 8 } else { 0 }
            + if parts.properties.is_empty() { 0 } else { 4 }
            + parts.topic.len()
            + parts.properties.len()
            + parts.payload.len()
    }

    /// The bytes that this one takes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The topic's key.
    pub(crate) fn key(&self) -> &[u8] {
        let begin = self.topic_begin();
        &self.0[begin..begin + self.topic_len()]
    }

    pub(crate) fn topic(&self) -> String {
        topic_of(self.key())
    }

    pub(crate) fn qos(&self) -> QoS {
        QoS::from_bits(self.0[0] & QOS).unwrap_or(QoS::AtMostOnce)
    }

    pub(crate) fn serial(&self) -> u64 {
        self.u64_at(SERIAL)
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        (self.0[0] & EXPIRES != 0).then(|| self.u64_at(HEAD))
    }

    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(crate) fn properties(&self) -> &[u8] {
        let begin = self.topic_begin() + self.topic_len();
        &self.0[begin..begin + self.properties_len()]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[self.topic_begin() + self.topic_len() + self.properties_len()..]
    }

    /// The payload, for a message that leaves the index.
    pub(crate) fn payload_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.payload())
    }

    fn topic_len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[TOPIC_LEN], self.0[TOPIC_LEN + 1]]))
    }

    fn properties_at(&self) -> usize {
        HEAD + if self.0[0] & EXPIRES != 0 { 8 } else { 0 }
    }

    fn properties_len(&self) -> usize {
        if self.0[0] & HAS_PROPERTIES == 0 {
            return 0;
        }
        let at = self.properties_at();
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes")) as usize
    }

    fn topic_begin(&self) -> usize {
        self.properties_at() + if self.0[0] & HAS_PROPERTIES != 0 { 4 } else { 0 }
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }
}

/// The key of a topic, or of a filter's level.
pub(crate) fn key_of(topic: &str) -> Vec<u8> {
    topic.bytes().map(|byte| if byte == b'/' { SEPARATOR } else { byte }).collect()
}

/// The topic of a key.
pub(crate) fn topic_of(key: &[u8]) -> String {
    let bytes = key.iter().map(|&byte| if byte == SEPARATOR { b'/' } else { byte }).collect();
    String::from_utf8(bytes).expect("a key is a topic but for its separators")
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(other.key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out(
            topic in "[a-zä/$ ]{1,40}",
            payload in vec(any::<u8>(), 0..200),
            properties in vec(any::<u8>(), 0..50),
            qos in 0..3_u8,
            deadline in any::<Option<u64>>(),
            serial in any::<u64>(),
        ) {
            let qos = QoS::from_bits(qos).unwrap();
            let parts = Parts { topic: &topic, payload: &payload, qos, properties: &properties, deadline };
            let entry = Entry::pack(&parts, serial);
            prop_assert_eq!(entry.len(), Entry::packed_len(&parts));
            prop_assert_eq!((entry.topic(), entry.serial()), (topic.clone(), serial));
            prop_assert_eq!((entry.payload(), entry.properties()), (&payload[..], &properties[..]));
            prop_assert_eq!((entry.qos(), entry.deadline()), (qos, deadline));
        }
    }
}
