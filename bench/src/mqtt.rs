//! The bytes of MQTT 3.1.1 that the generator sends and reads: prebuilt packets out, framing in.
//!
//! Not a client: no session, no reconnect. Section numbers are those of the OASIS standard, version 3.1.1.

use anyhow::{Context, Result, bail, ensure};

/// PINGREQ (3.12).
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT (3.14).
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// The type of CONNACK (2.2.1).
pub(crate) const CONNACK: u8 = 2;
/// The type of PUBLISH.
pub(crate) const PUBLISH: u8 = 3;
/// The type of PUBACK.
pub(crate) const PUBACK: u8 = 4;
/// The type of SUBACK.
pub(crate) const SUBACK: u8 = 9;
/// The type of PINGRESP.
pub(crate) const PINGRESP: u8 = 13;

/// CONNECT (3.1) with a clean session and a keep-alive of `keep_alive_s` seconds.
pub(crate) fn connect(client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    connect_with(0b10, client_id, keep_alive_s)
}

/// CONNECT without a clean session: the session outlives the connection, and is resumed if it is there.
pub(crate) fn connect_stored(client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    connect_with(0, client_id, keep_alive_s)
}

fn connect_with(flags: u8, client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags];
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    put_string(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE (3.8) to one filter with QoS 0.
pub(crate) fn subscribe(filter: &str) -> Vec<u8> {
    subscribe_with(filter, 0)
}

/// SUBSCRIBE to one filter with QoS 1.
pub(crate) fn subscribe_with_acks(filter: &str) -> Vec<u8> {
    subscribe_with(filter, 1)
}

fn subscribe_with(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    put_string(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// PUBACK (3.4).
pub(crate) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// A PUBLISH (3.3) that can be sent many times.
pub(crate) struct Publish {
    bytes: Vec<u8>,
    topic_at: usize,
    id_at: Option<usize>,
}

impl Publish {
    /// A PUBLISH with QoS 0, or with QoS 1 and room for the packet identifier.
    pub(crate) fn new(topic: &str, payload: &[u8], with_ack: bool) -> Self {
        Self::build(if with_ack { 0x32 } else { 0x30 }, topic, payload)
    }

    /// A PUBLISH with QoS 1 and the retain flag.
    pub(crate) fn retained(topic: &str, payload: &[u8]) -> Self {
        Self::build(0x33, topic, payload)
    }

    fn build(first: u8, topic: &str, payload: &[u8]) -> Self {
        let with_ack = first & 0b110 != 0;
        let mut body = Vec::new();
        put_string(&mut body, topic);
        let id_in_body = body.len();
        if with_ack {
            body.extend_from_slice(&[0, 1]);
        }
        body.extend_from_slice(payload);
        let bytes = packet(first, &body);
        let body_at = bytes.len() - body.len();
        Self { bytes, topic_at: body_at + 2, id_at: with_ack.then_some(body_at + id_in_body) }
    }

    /// Writes `text` over the topic's bytes from `at` on.
    pub(crate) fn overwrite_topic(&mut self, at: usize, text: &[u8]) {
        let at = self.topic_at + at;
        self.bytes[at..at + text.len()].copy_from_slice(text);
    }

    /// The packet as it goes out; `id` is written into it where it has QoS 1.
    pub(crate) fn bytes(&mut self, id: u16) -> &[u8] {
        if let Some(at) = self.id_at {
            self.bytes[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        &self.bytes
    }
}

/// Calls `each` with the type and the body of every whole packet in `buffer` and returns how many bytes they took.
///
/// # Errors
/// A remaining length (2.2.3) of more than four bytes, and whatever `each` objects to.
pub(crate) fn packets(buffer: &[u8], mut each: impl FnMut(u8, &[u8]) -> Result<()>) -> Result<usize> {
    packets_with_flags(buffer, |first, body| each(first >> 4, body))
}

/// As [`packets`], but with the whole first byte: the flags beside the type (2.2.2).
///
/// # Errors
/// As [`packets`].
pub(crate) fn packets_with_flags(buffer: &[u8], mut each: impl FnMut(u8, &[u8]) -> Result<()>) -> Result<usize> {
    let mut used = 0;
    while let Some((header, length)) = frame(&buffer[used..])? {
        let packet = &buffer[used..used + header + length];
        each(packet[0], &packet[header..])?;
        used += packet.len();
    }
    Ok(used)
}

/// A PUBLISH that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) retain: bool,
    /// `None`: QoS 0.
    pub(crate) id: Option<u16>,
}

/// Takes a PUBLISH apart: its first byte, and what follows the remaining length.
///
/// # Errors
/// One that is too short for what it says.
pub(crate) fn message(first: u8, body: &[u8]) -> Result<Message<'_>> {
    let (topic, rest) = string(body).context("a PUBLISH without a topic")?;
    let (id, payload) = if first & 0b110 == 0 {
        (None, rest)
    } else {
        let (id, payload) = rest.split_first_chunk().context("a PUBLISH without its packet identifier")?;
        (Some(u16::from_be_bytes(*id)), payload)
    };
    Ok(Message { topic, payload, retain: first & 1 == 1, id })
}

fn string(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The length of an accepting CONNACK at the start of `buffer`, when it is all there.
///
/// # Errors
/// Another packet, or a refusal.
pub(crate) fn connack(buffer: &[u8]) -> Result<Option<usize>> {
    answer(buffer, CONNACK, |body| {
        ensure!(body.get(1) == Some(&0), "CONNECT was refused: {body:?}");
        Ok(())
    })
}

/// The length of a granting SUBACK at the start of `buffer`, when it is all there.
///
/// # Errors
/// Another packet, or a refusal.
pub(crate) fn suback(buffer: &[u8]) -> Result<Option<usize>> {
    answer(buffer, SUBACK, |body| {
        ensure!(body.get(2).is_some_and(|&code| code < 0x80), "SUBSCRIBE was refused: {body:?}");
        Ok(())
    })
}

fn answer(buffer: &[u8], expected: u8, check: impl FnOnce(&[u8]) -> Result<()>) -> Result<Option<usize>> {
    let Some((header, length)) = frame(buffer)? else { return Ok(None) };
    ensure!(buffer[0] >> 4 == expected, "packet type {} where {expected} was expected", buffer[0] >> 4);
    check(&buffer[header..header + length])?;
    Ok(Some(header + length))
}

/// The lengths of the header and of the rest of the packet that `buffer` starts with, when it is all there.
fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for index in 0..4 {
        let Some(&byte) = buffer.get(1 + index) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let header = 2 + index;
            return Ok((buffer.len() >= header + length).then_some((header, length)));
        }
    }
    bail!("a remaining length of more than four bytes")
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let more = if left > 0x7F { 0x80 } else { 0 };
        bytes.push((left & 0x7F) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn put_string(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: usize) {
        let mut publish = Publish::new("t/1", &vec![b'x'; length], true);
        let bytes = publish.bytes(0x1234).to_vec();
        let mut seen = Vec::new();
        let used = packets(&bytes, |kind, body| {
            seen.push((kind, body.to_vec()));
            Ok(())
        });
        assert_eq!(used.expect("well formed"), bytes.len());
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].0, PUBLISH);
        assert_eq!(&seen[0].1[5..7], &[0x12, 0x34]);
        assert_eq!(seen[0].1.len(), 7 + length);
    }

    #[test]
    fn publish_is_framed_at_every_length_of_the_remaining_length() {
        for length in [0, 100, 120, 121, 127, 128, 16_000, 17_000] {
            check(length);
        }
    }

    #[test]
    fn a_message_is_taken_apart_as_it_was_put_together() {
        let taken = |bytes: &[u8]| {
            let mut seen = Vec::new();
            packets_with_flags(bytes, |first, body| {
                let Message { topic, payload, retain, id } = message(first, body)?;
                seen.push((topic.to_vec(), payload.to_vec(), retain, id));
                Ok(())
            })
            .map(|_| seen)
        };
        let expected = |retain, id| vec![(b"t/1".to_vec(), b"21.5".to_vec(), retain, id)];
        assert_eq!(taken(Publish::retained("t/1", b"21.5").bytes(7)).expect("whole"), expected(true, Some(7)));
        assert_eq!(taken(Publish::new("t/1", b"21.5", true).bytes(9)).expect("whole"), expected(false, Some(9)));
        assert_eq!(taken(Publish::new("t/1", b"21.5", false).bytes(0)).expect("whole"), expected(false, None));
        assert!(taken(&[0x32, 4, 0, 3, b't', b'/']).is_err(), "a topic that is cut off");
        assert!(taken(&[0x32, 3, 0, 1, b't']).is_err(), "no packet identifier");
    }

    #[test]
    fn half_a_packet_is_left_alone() {
        let ping = [0xD0, 0, 0x40, 2, 0];
        assert_eq!(packets(&ping, |_, _| Ok(())).expect("well formed"), 2);
        assert!(packets(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], |_, _| Ok(())).is_err());
    }

    #[test]
    fn a_refused_connect_is_an_error() {
        assert!(connack(&[0x20, 2, 0, 5]).is_err());
        assert_eq!(connack(&[0x20, 2, 0, 0]).expect("accepted"), Some(4));
        assert_eq!(connack(&[0x20, 2, 0]).expect("not all there"), None);
    }
}
