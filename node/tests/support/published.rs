//! A PUBLISH of the node taken apart, and what tests with retained messages, shared subscriptions and `$SYS` do with a raw client.

use std::{collections::BTreeMap, time::Duration};

use super::{
    PATIENCE,
    mqtt::{Packet, Raw, Version, packet, publish, string},
};

/// A PUBLISH of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) expiry: Option<u32>,
    pub(crate) subscription_ids: Vec<u32>,
}

impl Published {
    #[track_caller]
    pub(crate) fn of(version: Version, packet: &Packet) -> Self {
        assert_eq!(packet.first >> 4, 3, "no PUBLISH: {packet:02X?}");
        let qos = packet.first >> 1 & 3;
        let mut rest = &packet.body[..];
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken.to_vec()
        };
        let length = usize::from(u16::from_be_bytes(take(2).try_into().expect("two bytes")));
        let topic = String::from_utf8(take(length)).expect("text");
        let id = if qos > 0 { u16::from_be_bytes(take(2).try_into().expect("two bytes")) } else { 0 };
        let (mut expiry, mut subscription_ids) = (None, Vec::new());
        if version == Version::V5 {
            let length = varint(&mut take) as usize;
            let properties = take(length);
            let mut at = 0;
            while at < properties.len() {
                let name = properties[at];
                let mut next = |count: usize| {
                    at += count;
                    properties[at - count..at].to_vec()
                };
                next(1);
                match name {
                    0x02 => expiry = Some(u32::from_be_bytes(next(4).try_into().expect("four bytes"))),
                    0x0B => subscription_ids.push(varint(&mut next)),
                    0x01 => drop(next(1)),
                    0x23 => panic!("a topic alias that nobody asked for"),
                    0x26 => {
                        for _ in 0..2 {
                            let length = u16::from_be_bytes(next(2).try_into().expect("two bytes"));
                            next(usize::from(length));
                        }
                    }
                    _ => {
                        let length = u16::from_be_bytes(next(2).try_into().expect("two bytes"));
                        next(usize::from(length));
                    }
                }
            }
        }
        let payload = String::from_utf8_lossy(rest).into_owned();
        Self { topic, payload, qos, retain: packet.first & 1 == 1, id, expiry, subscription_ids }
    }
}

fn varint(take: &mut impl FnMut(usize) -> Vec<u8>) -> u32 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(1)[0];
        value |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// A PUBLISH with the retain flag.
pub(crate) fn retained(version: Version, topic: &str, qos: u8, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = publish(version, topic, qos, id, properties, payload);
    bytes[0] |= 1;
    bytes
}

/// A SUBSCRIBE with a subscription identifier below 128 (MQTT 5).
pub(crate) fn subscribe_with_id(id: u16, filter: &str, options: u8, subscription_id: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend_from_slice(&[2, 0x0B, subscription_id]);
    body.extend(string(filter));
    body.push(options);
    packet(0x82, &body)
}

/// An UNSUBSCRIBE with one filter.
pub(crate) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(string(filter));
    packet(0xA2, &body)
}

impl Raw {
    /// Sends a QoS 1 PUBLISH and waits for its PUBACK, whose reason code is returned. Nothing else may come before it.
    #[track_caller]
    pub(crate) fn acked(&mut self, publish: &[u8]) -> u8 {
        self.send(publish);
        self.expect(0x40).puback().1
    }

    /// Sends a SUBSCRIBE with one filter and waits for its SUBACK, whose code is returned.
    #[track_caller]
    pub(crate) fn subscribed(&mut self, subscribe: &[u8]) -> u8 {
        self.send(subscribe);
        *self.expect(0x90).body.last().expect("a code")
    }

    /// Sends a SUBSCRIBE with one filter where messages wait for whoever subscribes: what comes before the SUBACK
    /// (MQTT 5, 3.8.4 permits it), not acknowledged.
    #[track_caller]
    pub(crate) fn subscribed_with(&mut self, version: Version, subscribe: &[u8]) -> Vec<Published> {
        self.send(subscribe);
        let mut early = Vec::new();
        loop {
            let packet = self.next().expect("a SUBACK");
            if packet.first == 0x90 {
                return early;
            }
            early.push(Published::of(version, &packet));
        }
    }

    /// The next packet, a PUBLISH, which is acknowledged if it wants that.
    #[track_caller]
    pub(crate) fn message(&mut self, version: Version) -> Published {
        let packet = self.next().expect("a PUBLISH");
        let message = Published::of(version, &packet);
        if message.qos == 1 {
            self.send(&packet_with_id(0x40, message.id));
        }
        message
    }

    /// All that comes before the answer to a PINGREQ that is sent now: what the node had for this client.
    #[track_caller]
    pub(crate) fn messages(&mut self, version: Version) -> Vec<Published> {
        self.send(&packet(0xC0, b""));
        let mut messages = Vec::new();
        loop {
            let packet = self.next().expect("a PINGRESP");
            if packet.first == 0xD0 {
                return messages;
            }
            messages.push(Published::of(version, &packet));
        }
    }

    /// The next `count` messages by topic, acknowledged; each topic once.
    #[track_caller]
    pub(crate) fn messages_by_topic(&mut self, version: Version, count: usize) -> BTreeMap<String, Published> {
        let mut by_topic = BTreeMap::new();
        for _ in 0..count {
            let message = self.message(version);
            let double = by_topic.insert(message.topic.clone(), message);
            assert_eq!(double, None);
        }
        by_topic
    }

    /// The next `count` messages by payload, acknowledged; each payload once.
    #[track_caller]
    pub(crate) fn messages_by_payload(&mut self, version: Version, count: usize) -> BTreeMap<String, Published> {
        let mut by_payload = BTreeMap::new();
        for _ in 0..count {
            let message = self.message(version);
            let double = by_payload.insert(message.payload.clone(), message);
            assert_eq!(double, None);
        }
        by_payload
    }

    /// Nothing comes any more.
    #[track_caller]
    pub(crate) fn is_silent(&mut self, time: Duration) {
        assert!(time < PATIENCE);
        if let Some(packet) = self.next_within(time) {
            panic!("something came: {packet:02X?}");
        }
    }
}

/// A packet that consists of a packet id.
pub(crate) fn packet_with_id(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}
