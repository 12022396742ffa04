//! A raw MQTT client: the test writes the bytes of its packets and sees the node's packets as they came. It keeps no rule for
//! itself, so that it can break them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use super::PATIENCE;

/// The version of a connection: its protocol level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3 = 4,
    V5 = 5,
}

/// A packet of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The first byte: type and flags.
    pub(crate) first: u8,
    /// What comes after the remaining length.
    pub(crate) body: Vec<u8>,
}

/// A PUBLISH of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) id: u16,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// As on the wire, without their length.
    pub(crate) properties: Vec<u8>,
}

/// One connection.
pub(crate) struct Raw {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    #[track_caller]
    pub(crate) fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).expect("the node's MQTT port takes connections");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Self { stream, bytes: Vec::new() }
    }

    /// Opens a connection to a node that may be gone, and connects; also whether there is a session.
    pub(crate) fn try_resume(to: SocketAddr, connect: &Connect<'_>) -> Option<(Self, bool)> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut raw = Self { stream, bytes: Vec::new() };
        raw.try_send(&connect.bytes()).ok()?;
        let connack = raw.next()?;
        assert_eq!((connack.first, connack.body[1]), (0x20, 0), "{connack:?}");
        Some((raw, connack.body[0] == 1))
    }

    /// Opens a connection and connects with a clean session.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr, version: Version, client_id: &str) -> Self {
        Self::connect_with(to, &Connect::new(version, client_id))
    }

    #[track_caller]
    pub(crate) fn connect_with(to: SocketAddr, connect: &Connect<'_>) -> Self {
        let (raw, present) = Self::resume(to, connect);
        assert!(!present, "a session is there already");
        raw
    }

    /// Opens a connection; also whether the CONNACK says that there is a session.
    #[track_caller]
    pub(crate) fn resume(to: SocketAddr, connect: &Connect<'_>) -> (Self, bool) {
        let mut raw = Self::open(to);
        raw.send(&connect.bytes());
        let connack = raw.next().expect("a CONNACK");
        assert_eq!((connack.first, connack.body[1]), (0x20, 0), "{connack:?}");
        (raw, connack.body[0] == 1)
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the bytes are written");
    }

    /// As [`Raw::send`], to a node that may have closed already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Nothing more will be sent; what the node sends still comes.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next packet; `None` when the node has closed the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.take() {
                return Some(packet);
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.bytes.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no packet within {PATIENCE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// Has the node closed the connection? Only what [`Raw::next_within`] has not given yet is left.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        self.stream.set_nonblocking(true).expect("a socket option");
        let peeked = self.stream.peek(&mut byte);
        self.stream.set_nonblocking(false).expect("a socket option");
        match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// The next packet, if one comes within `time`.
    #[track_caller]
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<Packet> {
        let mut buffer = [0; 16 * 1024];
        self.stream.set_read_timeout(Some(time)).expect("a socket option");
        while self.take_length().is_none() {
            match self.stream.read(&mut buffer) {
                Ok(read) if read > 0 => self.bytes.extend_from_slice(&buffer[..read]),
                _ => break,
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        self.take()
    }

    /// Has the node closed the connection, or is it about to? Does not wait; what has come is thrown away.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket option");
        let read = self.stream.read(&mut [0; 16 * 1024]);
        self.stream.set_nonblocking(false).expect("a socket option");
        match read {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// All packets until the node closes the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next packet must have this first byte.
    #[track_caller]
    pub(crate) fn expect(&mut self, first: u8) -> Packet {
        let packet = self.next().unwrap_or_else(|| panic!("the node closed instead of sending 0x{first:02X}"));
        assert_eq!(packet.first, first, "{packet:?}");
        packet
    }

    /// The next packet with this first byte; others are passed over.
    #[track_caller]
    pub(crate) fn next_of(&mut self, first: u8) -> Packet {
        loop {
            let packet = self.next().unwrap_or_else(|| panic!("the node closed instead of sending 0x{first:02X}"));
            if packet.first == first {
                return packet;
            }
        }
    }

    fn take_length(&self) -> Option<(usize, usize)> {
        whole(&self.bytes)
    }

    fn take(&mut self) -> Option<Packet> {
        let (head, length) = self.take_length()?;
        let packet = Packet { first: self.bytes[0], body: self.bytes[head..head + length].to_vec() };
        self.bytes.drain(..head + length);
        Some(packet)
    }
}

impl Packet {
    /// The reason code of a v5 DISCONNECT.
    #[track_caller]
    pub(crate) fn disconnect_reason(&self) -> u8 {
        assert_eq!(self.first, 0xE0, "{self:?}");
        self.body.first().copied().unwrap_or(0)
    }

    /// The packet id and reason code of a PUBACK.
    #[track_caller]
    pub(crate) fn puback(&self) -> (u16, u8) {
        self.ack(0x40)
    }

    /// The packet id and reason code of a PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70).
    #[track_caller]
    pub(crate) fn ack(&self, first: u8) -> (u16, u8) {
        assert_eq!(self.first, first, "{self:02X?}");
        (u16::from_be_bytes([self.body[0], self.body[1]]), self.body.get(2).copied().unwrap_or(0))
    }

    /// A PUBLISH of the node, taken apart.
    #[track_caller]
    pub(crate) fn message(&self, version: Version) -> Message {
        assert_eq!(self.first >> 4, 3, "no PUBLISH: {self:02X?}");
        let qos = self.first >> 1 & 0b11;
        let two = |at: usize| u16::from_be_bytes([self.body[at], self.body[at + 1]]);
        let mut at = 2 + usize::from(two(0));
        let topic = String::from_utf8_lossy(&self.body[2..at]).into_owned();
        let mut id = 0;
        if qos > 0 {
            id = two(at);
            at += 2;
        }
        let mut properties = Vec::new();
        if version == Version::V5 {
            let mut length = usize::from(self.body[at]);
            at += 1;
            if length >= 128 {
                length = length - 128 + 128 * usize::from(self.body[at]);
                at += 1;
            }
            properties = self.body[at..at + length].to_vec();
            at += length;
        }
        let payload = String::from_utf8_lossy(&self.body[at..]).into_owned();
        Message { topic, payload, qos, id, dup: self.first & 8 != 0, retain: self.first & 1 != 0, properties }
    }

    /// The reason string of a v5 PUBACK, which has no other property; empty if there is none.
    #[track_caller]
    pub(crate) fn reason_string(&self) -> String {
        assert_eq!(self.first, 0x40, "{self:?}");
        // Packet id and reason code, then the properties' length: one byte below 128, else two.
        let Some(properties) = self.body.get(3..).filter(|rest| !rest.is_empty()) else { return String::new() };
        let properties = &properties[if properties[0] < 128 { 1 } else { 2 }..];
        let text = properties.strip_prefix(&[0x1F]).and_then(|string| string.get(2..));
        String::from_utf8_lossy(text.unwrap_or_else(|| panic!("{self:?}"))).into_owned()
    }
}

/// The whole packets at the start of `bytes`.
pub(crate) fn packets(mut bytes: &[u8]) -> Vec<Packet> {
    let mut found = Vec::new();
    while let Some((head, length)) = whole(bytes) {
        found.push(Packet { first: bytes[0], body: bytes[head..head + length].to_vec() });
        bytes = &bytes[head + length..];
    }
    found
}

/// The lengths of head and body of the packet at the start of `bytes`, if it is whole.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((index + 2, length)).filter(|(head, length)| bytes.len() >= head + length);
        }
    }
    None
}

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub(crate) struct Connect<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) keep_alive: u16,
    /// Clean session (3.1.1) or clean start (5).
    pub(crate) clean: bool,
    pub(crate) properties: &'a [u8],
    /// Topic, payload, QoS and properties.
    pub(crate) will: Option<(&'a str, &'a [u8], u8, &'a [u8])>,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
}

impl<'a> Connect<'a> {
    pub(crate) fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            client_id,
            keep_alive: 60,
            clean: true,
            properties: &[],
            will: None,
            user: None,
            password: None,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = string("MQTT");
        let will = self.will.map_or(0, |(_, _, qos, _)| 0x04 | qos << 3);
        let who = self.user.map_or(0, |_| 0x80) | self.password.map_or(0, |_| 0x40);
        body.extend_from_slice(&[self.version as u8, u8::from(self.clean) << 1 | will | who]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            body.extend(counted(self.properties));
        }
        body.extend(string(self.client_id));
        if let Some((topic, payload, _, properties)) = self.will {
            if self.version == Version::V5 {
                body.extend(counted(properties));
            }
            body.extend(string(topic));
            body.extend(binary(payload));
        }
        self.user.into_iter().chain(self.password).for_each(|word| body.extend(string(word)));
        packet(0x10, &body)
    }
}

/// A PUBLISH; `id` is left out at QoS 0.
pub(crate) fn publish(version: Version, topic: &str, qos: u8, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if version == Version::V5 {
        body.extend(counted(properties));
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

/// The same PUBLISH once more, with the DUP flag: a client that has not seen its PUBACK.
pub(crate) fn again(publish: &[u8]) -> Vec<u8> {
    let mut bytes = publish.to_vec();
    bytes[0] |= 0x08;
    bytes
}

/// A SUBSCRIBE with one filter and its options byte.
pub(crate) fn subscribe(version: Version, id: u16, filter: &str, options: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
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

/// A PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) that says success.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// A DISCONNECT; `reason` and `properties` are for MQTT 5.
pub(crate) fn disconnect(version: Version, reason: u8, properties: &[u8]) -> Vec<u8> {
    if version == Version::V3 {
        return packet(0xE0, &[]);
    }
    let mut body = vec![reason];
    body.extend(counted(properties));
    packet(0xE0, &body)
}

/// A four byte property, such as the session expiry (0x11) or the message expiry (0x02).
pub(crate) fn property(id: u8, value: u32) -> Vec<u8> {
    let mut out = vec![id];
    out.extend_from_slice(&value.to_be_bytes());
    out
}

/// A packet of its first byte and its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(variable_length(body.len()));
    out.extend_from_slice(body);
    out
}

/// A variable byte integer (section 1.5.5).
pub(crate) fn variable_length(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = u8::try_from(value % 128).expect("below 128");
        value /= 128;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

/// A UTF-8 string with its length.
pub(crate) fn string(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(bytes.len()).expect("short enough for MQTT").to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// Properties with their length.
fn counted(properties: &[u8]) -> Vec<u8> {
    let mut out = variable_length(properties.len());
    out.extend_from_slice(properties);
    out
}

/// A user property (section 2.2.2.2).
pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0x26];
    out.extend(string(name));
    out.extend(string(value));
    out
}
