//! A command as it is kept: key `c`, the device's id with its length before it, and the command's id; value a numbered bincode
//! form. Append only.

use bytes::Bytes;
use tidegate_actors::{clock::Millis, ids::DeviceId, limits};

use super::command::{Command, Failure, Order, Status};
use crate::kept;

/// The first byte of a command's key.
pub(crate) const PREFIX: u8 = b'c';

/// What a decoder may claim, in bytes.
const DECODE_BYTES: usize = limits::COMMAND_PARAMS_BYTES + limits::COMMAND_REPLY_BYTES + 64 * 1024;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum Stored<'a> {
    V1(CommandV1<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct CommandV1<'a> {
    name: &'a str,
    params: &'a str,
    timeout_ms: u64,
    expiry_ms: u64,
    oneway: bool,
    status: u8,
    created: i64,
    sent: Option<i64>,
    delivered: Option<i64>,
    ended: Option<i64>,
    tries: u32,
    number: u32,
    reply: Option<&'a str>,
    /// 0: none.
    failure: u8,
    reason: &'a str,
}

/// The key of a command.
pub(crate) fn key(device: &DeviceId, id: &str) -> Bytes {
    let device = device.as_str().as_bytes();
    let mut key = vec![PREFIX];
    // A device id has at most 256 bytes.
    key.extend_from_slice(&u16::try_from(device.len()).unwrap_or(u16::MAX).to_be_bytes());
    key.extend_from_slice(device);
    key.extend_from_slice(id.as_bytes());
    key.into()
}

/// The device and the command that a key names.
pub(crate) fn names_of(key: &[u8]) -> Option<(DeviceId, &str)> {
    let (length, rest) = key.strip_prefix(&[PREFIX])?.split_first_chunk::<2>()?;
    let (device, id) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let device = DeviceId::new(std::str::from_utf8(device).ok()?).ok()?;
    let id = std::str::from_utf8(id).ok().filter(|id| !id.is_empty())?;
    Some((device, id))
}

/// The stored form of a command.
pub(super) fn encode(command: &Command) -> Bytes {
    let Order { name, params, timeout_ms, expiry_ms, oneway } = &command.order;
    kept::encode(&Stored::V1(CommandV1 {
        name,
        params,
        timeout_ms: *timeout_ms,
        expiry_ms: *expiry_ms,
        oneway: *oneway,
        status: command.status as u8,
        created: command.created,
        sent: command.sent,
        delivered: command.delivered,
        ended: command.ended,
        tries: command.tries,
        number: command.number,
        reply: command.reply.as_deref(),
        failure: command.failure.map_or(0, |failure| failure as u8),
        reason: &command.reason,
    }))
}

/// Reads a stored command. Its deadlines are those of another run: they are the caller's to set.
///
/// # Errors
/// It is none; in words.
pub(super) fn decode(id: &str, bytes: &[u8]) -> Result<Command, String> {
    let Stored::V1(stored) = kept::decode::<_, DECODE_BYTES>(bytes)?;
    let newer = |what: &str| format!("{what} is of a newer version");
    let failure = match stored.failure {
        0 => None,
        1 => Some(Failure::Timeout),
        2 => Some(Failure::BadReply),
        _ => return Err(newer("its failure")),
    };
    let order = Order {
        name: stored.name.into(),
        params: stored.params.into(),
        timeout_ms: stored.timeout_ms,
        expiry_ms: stored.expiry_ms,
        oneway: stored.oneway,
    };
    let created: Millis = stored.created;
    Ok(Command {
        status: Status::of_number(stored.status).ok_or_else(|| newer("its status"))?,
        sent: stored.sent,
        delivered: stored.delivered,
        ended: stored.ended,
        tries: stored.tries,
        number: stored.number,
        reply: stored.reply.map(Into::into),
        failure,
        reason: stored.reason.into(),
        ..Command::new(id.into(), order, created, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let order = Order {
            name: "open".into(),
            params: r#"{"valve":7}"#.into(),
            timeout_ms: 10_000,
            expiry_ms: 60_000,
            oneway: false,
        };
        Command {
            status: Status::Replied,
            sent: Some(1),
            ended: Some(2),
            tries: 1,
            number: 9,
            reply: Some("true".into()),
            ..Command::new("0001".into(), order, 0, 0)
        }
    }

    #[test]
    fn a_command_comes_back_as_it_was() {
        let device = DeviceId::new("Gerät 5").unwrap();
        for status in Status::ALL {
            let command = Command { status, failure: Some(Failure::BadReply), ..command() };
            let back = decode(&command.id, &encode(&command)).unwrap();
            assert_eq!(format!("{back:?}"), format!("{command:?}"));
            assert_eq!(back.json(&device), command.json(&device));
        }
        assert_eq!(names_of(&key(&device, "0001")), Some((device, "0001")));
        assert_eq!(names_of(b"c\x00\x05d1"), None);
        assert_eq!(names_of(b"c\x00\x02d1"), None, "no id");
    }

    /// The bytes of the first version: what a node has written must be read for ever.
    #[test]
    fn the_first_version_is_read() {
        let bytes = b"\x00\x04open\x0b{\"valve\":7}\xfb\x10\x27\xfb\x60\xea\x00\x03\x00\x01\x02\x00\x01\x04\x01\x09\x01\x04true\x00\x00";
        assert_eq!(format!("{:?}", decode("0001", bytes).unwrap()), format!("{:?}", command()));
        assert_eq!(&encode(&command())[..], bytes);
    }

    #[test]
    fn damage_is_told() {
        let bytes = encode(&command());
        for cut in 0..bytes.len() {
            assert!(decode("0001", &bytes[..cut]).is_err(), "{cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode("0001", &longer).is_err());
        assert!(decode("0001", &[7]).is_err(), "a version to come");
    }
}
