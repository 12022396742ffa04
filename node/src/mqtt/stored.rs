//! How a session is stored: keys, and values (bincode, append-only enums, one pair a part of a session).
//!
//! | key | value |
//! |---|---|
//! | `s` client id | the session: its owner, expiry, subscriptions, will |
//! | `q` length of the client id (u16) · client id · number (u64) | a message for the client |
//! | the same and a byte 1 | how far that message has come, or that it is over and was with QoS 2: its name |
//! | `i` length of the client id (u16) · client id · packet id (u16) | an exchange of QoS 2 with the client as sender |
//! | `r` topic | the topic's retained message |
//!
//! Numbers are big-endian, so a session's messages are in their order. Beside the journal's and the store's records this is
//! the only place that names bincode. A variant that has been released is never changed: the next one is added.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use tidegate_actors::{clock::Millis, limits};

use super::{
    outgoing::Parcel,
    packet::{QoS, Will},
    retained_entry::{Entry, Parts},
    router::{Again, Message},
    session::{Session, Subscription},
    topic::check_topic_name,
};

/// The time of day and the uptime, both in milliseconds: what is stored is in the former, deadlines are in the latter.
pub(crate) type Now = (Millis, u64);
/// What a decoder may claim: a largest record, and room for the tables of its slices.
const DECODE_BYTES: usize = 4 * limits::RECORD_BYTES;

/// A session as it was stored.
#[derive(Debug, PartialEq)]
pub(crate) struct StoredSession {
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) expiry: u32,
    /// Since when it has no connection; `None`: it had one.
    pub(crate) disconnected: Option<Millis>,
    pub(crate) subscriptions: Vec<(Box<str>, Subscription)>,
    pub(crate) will: Option<Will>,
}

/// How far a message for the client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) id: NonZeroU16,
    /// The client has it; only the PUBCOMP is missing.
    pub(crate) released: bool,
    /// The message's name.
    pub(crate) origin: u64,
}

/// What the second pair of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    UnderWay(Progress),
    /// Its exchange of QoS 2 is over. Should its publisher send it again after a crash, it is known by its name.
    Done {
        origin: u64,
    },
}

/// An exchange of QoS 2 with the client as sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// Names the message.
    pub(crate) origin: u64,
    /// Every stored session that was to have it has it.
    pub(crate) routed: bool,
    /// The message is where it belongs.
    pub(crate) received: bool,
}

/// Why stored bytes are not what their key says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum SessionPair<'a> {
    V1(SessionV1<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct SessionV1<'a> {
    principal: Option<&'a str>,
    expiry: u32,
    disconnected: Option<i64>,
    subscriptions: Vec<SubscriptionV1<'a>>,
    will: Option<WillV1<'a>>,
}

/// `options` as in a SUBSCRIBE (section 3.8.3.1); `id` 0: none.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct SubscriptionV1<'a> {
    filter: &'a str,
    options: u8,
    id: u32,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct WillV1<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: u8,
    retain: bool,
    delay: u32,
    properties: &'a [u8],
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum MessagePair<'a> {
    V1(MessageV1<'a>),
}

/// `id` 0: it has no packet id yet.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct MessageV1<'a> {
    topic: &'a str,
    payload: &'a [u8],
    properties: &'a [u8],
    published_qos: u8,
    qos: u8,
    retain: bool,
    expires: Option<i64>,
    subscription_ids: Vec<u32>,
    origin: u64,
    id: u16,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum ProgressPair {
    V1 { id: u16, released: bool, origin: u64 },
    Done { origin: u64 },
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum IncomingPair {
    V1 { origin: u64, routed: bool, received: bool },
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum RetainedPair<'a> {
    V1(RetainedV1<'a>),
}

/// `expires` in the time of day.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct RetainedV1<'a> {
    payload: &'a [u8],
    qos: u8,
    properties: &'a [u8],
    expires: Option<i64>,
}

// ---- keys

/// The first byte of a session's key.
pub(crate) const SESSIONS: &[u8] = b"s";
/// The first byte of the keys of messages.
pub(crate) const MESSAGES: &[u8] = b"q";
/// The first byte of the keys of exchanges.
pub(crate) const INCOMING: &[u8] = b"i";
/// The first byte of the keys of retained messages.
pub(crate) const RETAINED: &[u8] = b"r";
/// What follows a message's key in that of its progress.
const PROGRESS: u8 = 1;

pub(crate) fn session_key(client_id: &str) -> Bytes {
    [SESSIONS, client_id.as_bytes()].concat().into()
}

pub(crate) fn message_key(client_id: &str, seq: u64) -> Bytes {
    let mut key = key_of(MESSAGES, client_id, 8);
    key.put_u64(seq);
    key.freeze()
}

pub(crate) fn progress_key(client_id: &str, seq: u64) -> Bytes {
    let mut key = key_of(MESSAGES, client_id, 9);
    key.put_u64(seq);
    key.put_u8(PROGRESS);
    key.freeze()
}

pub(crate) fn incoming_key(client_id: &str, id: NonZeroU16) -> Bytes {
    let mut key = key_of(INCOMING, client_id, 2);
    key.put_u16(id.get());
    key.freeze()
}

pub(crate) fn retained_key(topic: &str) -> Bytes {
    [RETAINED, topic.as_bytes()].concat().into()
}

fn key_of(prefix: &[u8], client_id: &str, more: usize) -> BytesMut {
    let mut key = BytesMut::with_capacity(prefix.len() + 2 + client_id.len() + more);
    key.put_slice(prefix);
    // A client id is a string of MQTT, which has at most 65,535 bytes.
    key.put_u16(client_id.len() as u16);
    key.put_slice(client_id.as_bytes());
    key
}

/// The client id in a key of [`MESSAGES`] or [`INCOMING`].
pub(crate) fn owner(key: &[u8]) -> Option<&str> {
    parse_key(key).map(|(client_id, _)| client_id)
}

/// A key of [`MESSAGES`], taken apart: client id, number, and whether it is the progress.
pub(crate) fn parse_message_key(key: &[u8]) -> Option<(&str, u64, bool)> {
    let (client_id, rest) = parse_key(key)?;
    let (seq, rest) = rest.split_first_chunk()?;
    let is_progress = match rest {
        [] => false,
        [PROGRESS] => true,
        _ => return None,
    };
    Some((client_id, u64::from_be_bytes(*seq), is_progress))
}

/// A key of [`INCOMING`], taken apart: client id and packet id.
pub(crate) fn parse_incoming_key(key: &[u8]) -> Option<(&str, NonZeroU16)> {
    let (client_id, rest) = parse_key(key)?;
    Some((client_id, NonZeroU16::new(u16::from_be_bytes(rest.try_into().ok()?))?))
}

fn parse_key(key: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = key.get(1..)?.split_first_chunk()?;
    let (client_id, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(client_id).ok()?, rest))
}

// ---- values

/// A session as it is now.
pub(crate) fn encode_session(session: &Session, now: Now) -> Bytes {
    let subscriptions = session.subscriptions.borrow();
    let will = session.will.borrow();
    let connected = session.link.borrow().is_some();
    encode(SessionPair::V1(SessionV1 {
        principal: session.principal.as_deref(),
        expiry: session.expiry.get(),
        disconnected: (!connected).then_some(now.0),
        subscriptions: subscriptions
            .iter()
            .map(|(filter, subscription)| SubscriptionV1 {
                filter,
                options: subscription.qos as u8
                    | u8::from(subscription.no_local) << 2
                    | u8::from(subscription.retain_as_published) << 3,
                id: subscription.id.map_or(0, NonZeroU32::get),
            })
            .collect(),
        will: will.as_ref().map(|will| WillV1 {
            topic: &will.topic,
            payload: &will.payload,
            qos: will.qos as u8,
            retain: will.retain,
            delay: will.delay,
            properties: &will.properties,
        }),
    }))
}

pub(crate) fn decode_session(bytes: &[u8]) -> Result<StoredSession, Unreadable> {
    let SessionPair::V1(stored) = decode(bytes)?;
    let mut subscriptions = Vec::with_capacity(stored.subscriptions.len());
    for SubscriptionV1 { filter, options, id } in stored.subscriptions {
        let subscription = Subscription {
            qos: qos(options & 0b11)?,
            no_local: options & 0b100 != 0,
            retain_as_published: options & 0b1000 != 0,
            id: NonZeroU32::new(id),
        };
        subscriptions.push((filter.into(), subscription));
    }
    let will = stored.will.map(|will| {
        Ok(Will {
            topic: will.topic.to_owned(),
            payload: Bytes::copy_from_slice(will.payload),
            qos: qos(will.qos)?,
            retain: will.retain,
            delay: will.delay,
            properties: will.properties.to_vec(),
        })
    });
    Ok(StoredSession {
        principal: stored.principal.map(Arc::from),
        expiry: stored.expiry,
        disconnected: stored.disconnected,
        subscriptions,
        will: will.transpose()?,
    })
}

/// A message for a client, with its packet id if it has one.
pub(crate) fn encode_message(parcel: &Parcel, id: Option<NonZeroU16>, now: Now) -> Bytes {
    let message = &parcel.message;
    let left = |deadline: u64| i64::try_from(deadline.saturating_sub(now.1)).unwrap_or(i64::MAX);
    encode(MessagePair::V1(MessageV1 {
        topic: &message.topic,
        payload: &message.payload,
        properties: &message.properties,
        published_qos: message.qos as u8,
        qos: parcel.qos as u8,
        retain: parcel.retain,
        expires: message.deadline.map(|deadline| now.0.saturating_add(left(deadline))),
        subscription_ids: parcel.subscription_ids.iter().map(|id| id.get()).collect(),
        origin: message.origin,
        id: id.map_or(0, NonZeroU16::get),
    }))
}

pub(crate) fn decode_message(bytes: &[u8], now: Now) -> Result<(Parcel, Option<NonZeroU16>), Unreadable> {
    let MessagePair::V1(stored) = decode(bytes)?;
    let left = |expires: i64| u64::try_from(expires.saturating_sub(now.0)).unwrap_or(0);
    let message = Message {
        topic: stored.topic.into(),
        payload: Bytes::copy_from_slice(stored.payload),
        qos: qos(stored.published_qos)?,
        retain: stored.retain,
        properties: stored.properties.into(),
        deadline: stored.expires.map(|expires| now.1.saturating_add(left(expires))),
        from: None,
        origin: stored.origin,
        again: Again::No,
        command: None,
    };
    let parcel = Parcel {
        message: Arc::new(message),
        qos: qos(stored.qos)?,
        retain: stored.retain,
        subscription_ids: stored.subscription_ids.into_iter().filter_map(NonZeroU32::new).collect(),
        share: None,
    };
    Ok((parcel, NonZeroU16::new(stored.id)))
}

pub(crate) fn encode_stage(stage: Stage) -> Bytes {
    encode(match stage {
        Stage::UnderWay(Progress { id, released, origin }) => ProgressPair::V1 { id: id.get(), released, origin },
        Stage::Done { origin } => ProgressPair::Done { origin },
    })
}

pub(crate) fn decode_stage(bytes: &[u8]) -> Result<Stage, Unreadable> {
    match decode(bytes)? {
        ProgressPair::V1 { id, released, origin } => {
            let id = NonZeroU16::new(id).ok_or_else(|| Unreadable("packet id 0".to_owned()))?;
            Ok(Stage::UnderWay(Progress { id, released, origin }))
        }
        ProgressPair::Done { origin } => Ok(Stage::Done { origin }),
    }
}

pub(crate) fn encode_incoming(incoming: Incoming) -> Bytes {
    let Incoming { origin, routed, received } = incoming;
    encode(IncomingPair::V1 { origin, routed, received })
}

pub(crate) fn decode_incoming(bytes: &[u8]) -> Result<Incoming, Unreadable> {
    let IncomingPair::V1 { origin, routed, received } = decode(bytes)?;
    Ok(Incoming { origin, routed, received })
}

pub(crate) fn encode_retained(entry: &Entry, now: Now) -> Bytes {
    let left = |deadline: u64| i64::try_from(deadline.saturating_sub(now.1)).unwrap_or(i64::MAX);
    encode(RetainedPair::V1(RetainedV1 {
        payload: entry.payload(),
        qos: entry.qos() as u8,
        properties: entry.properties(),
        expires: entry.deadline().map(|deadline| now.0.saturating_add(left(deadline))),
    }))
}

/// A retained message of its pair, as the index has it.
pub(crate) fn decode_retained(key: &[u8], value: &[u8], now: Now) -> Result<Entry, Unreadable> {
    let RetainedPair::V1(stored) = decode(value)?;
    let topic = key.strip_prefix(RETAINED).and_then(|topic| std::str::from_utf8(topic).ok());
    let topic = topic.filter(|topic| check_topic_name(topic).is_ok());
    let left = |expires: i64| u64::try_from(expires.saturating_sub(now.0)).unwrap_or(0);
    let parts = Parts {
        topic: topic.ok_or_else(|| Unreadable("its key is no topic".to_owned()))?,
        payload: stored.payload,
        qos: qos(stored.qos)?,
        properties: stored.properties,
        deadline: stored.expires.map(|expires| now.1.saturating_add(left(expires))),
    };
    Ok(Entry::pack(&parts, 0))
}

fn qos(bits: u8) -> Result<QoS, Unreadable> {
    QoS::from_bits(bits).ok_or_else(|| Unreadable(format!("QoS {bits}")))
}

fn encode(value: impl bincode::Encode) -> Bytes {
    // Writing into memory fails for no type that is used here.
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap_or_default().into()
}

fn decode<'a, T: bincode::BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Unreadable> {
    let config = bincode::config::standard().with_limit::<DECODE_BYTES>();
    match bincode::borrow_decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(Unreadable(format!("{} bytes after its end", bytes.len() - read))),
        Err(bincode::error::DecodeError::UnexpectedVariant { .. }) => {
            Err(Unreadable("it was written by a newer version of tidegate".to_owned()))
        }
        Err(error) => Err(Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};
    use smallvec::SmallVec;

    use super::*;

    const NOW: Now = (1_795_530_511_790, 5_000);

    fn parcel(topic: String, payload: Vec<u8>, qos: (u8, u8), retain: bool, left: Option<u32>) -> Parcel {
        let qos = (QoS::from_bits(qos.0).expect("0 to 2"), QoS::from_bits(qos.1).expect("0 to 2"));
        let message = Message {
            payload: payload.into(),
            retain,
            properties: Box::from(&[1_u8, 0][..]),
            deadline: left.map(|left| NOW.1 + u64::from(left)),
            origin: 7,
            ..Message::new(topic, qos.0)
        };
        let subscription_ids: SmallVec<_> = [1, 268_435_455].into_iter().filter_map(NonZeroU32::new).collect();
        Parcel { message: Arc::new(message), qos: qos.1, retain, subscription_ids, share: None }
    }

    fn session(client_id: &str, filters: &[(String, u8, u32)], will: Option<Will>, principal: Option<&str>) -> Bytes {
        let session = Session::for_test(client_id, principal, 7_200);
        for (filter, options, id) in filters {
            let subscription = Subscription {
                qos: QoS::from_bits(options % 3).expect("0 to 2"),
                no_local: options & 4 != 0,
                retain_as_published: options & 8 != 0,
                id: NonZeroU32::new(*id),
            };
            session.subscriptions.borrow_mut().insert(filter.as_str().into(), subscription);
        }
        *session.will.borrow_mut() = will.map(Box::new);
        encode_session(&session, NOW)
    }

    proptest! {
        #[test]
        fn a_message_comes_back(
            topic in ".{0,40}", payload: Vec<u8>, published in 0..3_u8, qos in 0..3_u8, retain: bool, left: Option<u32>, id: u16,
        ) {
            let sent = parcel(topic, payload, (published, qos), retain, left);
            let id = NonZeroU16::new(id);
            let (read, read_id) = decode_message(&encode_message(&sent, id, NOW), NOW).expect("it was just written");
            prop_assert_eq!(read_id, id);
            let parts = |parcel: &Parcel| {
                let Message { topic, payload, qos, properties, deadline, origin, .. } = &*parcel.message;
                let message = (topic.clone(), payload.clone(), *qos, properties.clone(), *deadline, *origin);
                (message, parcel.qos, parcel.retain, parcel.subscription_ids.clone())
            };
            prop_assert_eq!(parts(&read), parts(&sent));
        }

        #[test]
        fn a_session_comes_back(
            filters in proptest::collection::hash_map(".{1,30}", (0..16_u8, 0..268_435_456_u32), 0..20),
            principal in proptest::option::of(".{1,10}"), retain: bool, delay: u32, payload: Vec<u8>,
        ) {
            let filters: Vec<_> = filters.into_iter().map(|(filter, (options, id))| (filter, options, id)).collect();
            let will = Will {
                topic: "w".to_owned(), payload: payload.into(), qos: QoS::ExactlyOnce, retain, delay, properties: vec![1, 1],
            };
            let bytes = session("client", &filters, Some(will.clone()), principal.as_deref());
            let read = decode_session(&bytes).expect("it was just written");
            prop_assert_eq!(read.principal.as_deref(), principal.as_deref());
            prop_assert_eq!((read.expiry, read.disconnected, read.will), (7_200, Some(NOW.0), Some(will)));
            prop_assert_eq!(read.subscriptions.len(), filters.len());
            for (filter, subscription) in read.subscriptions {
                let (_, options, id) = filters.iter().find(|(of, ..)| **of == *filter).expect("one of them");
                prop_assert_eq!(subscription.qos as u8, options % 3);
                prop_assert_eq!(subscription.no_local, options & 4 != 0);
                prop_assert_eq!(subscription.retain_as_published, options & 8 != 0);
                prop_assert_eq!(subscription.id.map_or(0, NonZeroU32::get), *id);
            }
        }

        #[test]
        fn progress_and_exchanges_come_back(id in 1..=u16::MAX, released: bool, origin: u64) {
            let id = NonZeroU16::new(id).expect("not 0");
            for stage in [Stage::UnderWay(Progress { id, released, origin }), Stage::Done { origin }] {
                prop_assert_eq!(decode_stage(&encode_stage(stage)), Ok(stage));
            }
            let incoming = Incoming { origin, routed: !released, received: released };
            prop_assert_eq!(decode_incoming(&encode_incoming(incoming)), Ok(incoming));
        }

        #[test]
        fn keys_are_taken_apart_and_keep_the_order(client_id in ".{0,40}", seq: u64, id in 1..=u16::MAX) {
            let id = NonZeroU16::new(id).expect("not 0");
            let (message, progress) = (message_key(&client_id, seq), progress_key(&client_id, seq));
            prop_assert_eq!(parse_message_key(&message), Some((&*client_id, seq, false)));
            prop_assert_eq!(parse_message_key(&progress), Some((&*client_id, seq, true)));
            prop_assert!(message < progress && (seq == u64::MAX || progress < message_key(&client_id, seq + 1)));
            let incoming = incoming_key(&client_id, id);
            prop_assert_eq!(parse_incoming_key(&incoming), Some((&*client_id, id)));
            prop_assert_eq!(owner(&message), Some(&*client_id));
        }

        #[test]
        fn damaged_bytes_are_refused_or_read_and_never_panic(at: Index, byte: u8, cut: Index) {
            let filters = [("a/+".to_owned(), 5, 3), ("b/#".to_owned(), 2, 0)];
            let values = [
                encode_message(&parcel("t".to_owned(), vec![1, 2, 3], (2, 1), true, Some(9)), NonZeroU16::new(5), NOW),
                session("client", &filters, None, Some("p")),
                encode_stage(Stage::UnderWay(Progress { id: NonZeroU16::MIN, released: true, origin: 3 })),
                encode_stage(Stage::Done { origin: 3 }),
                encode_incoming(Incoming { origin: 1, routed: true, received: false }),
            ];
            for value in values {
                let mut bytes = value.to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                for bytes in [&bytes[..], &value[..cut.index(value.len())], &[&value[..], &[0]].concat()] {
                    let _ = (decode_message(bytes, NOW), decode_session(bytes), decode_stage(bytes), decode_incoming(bytes));
                    let _ = (parse_message_key(bytes), parse_incoming_key(bytes));
                }
                prop_assert!(decode_message(&[&value[..], &[0]].concat(), NOW).is_err());
            }
        }
    }

    #[test]
    fn a_length_that_claims_the_memory_of_the_machine_is_refused() {
        let mut bytes = vec![0, 0, 0, 0];
        bytes.extend_from_slice(&[253, 255, 255, 255, 255, 255, 255, 255, 127]);
        assert!(decode_session(&bytes).is_err());
    }

    /// Written by the first version.
    const MESSAGE_V1: &[u8] =
        b"\0\x01t\x01\t\x02\x01\0\x02\x01\x01\x01\xfdp\xab\xea\x1bD\x03\0\0\x02\x01\xfc\xff\xff\xff\x0f\x07\x05";
    const SESSION_V1: &[u8] = b"\0\x01\x01p\xfb\x20\x1c\x01\xfd\x5c\xab\xea\x1bD\x03\0\0\x01\x03a/+\x06\x03\x01\x01w\x01x\x01\x01\xfb\x2c\x01\x02\x01\x01";

    #[test]
    fn the_first_version_stays_readable() {
        let message = parcel("t".to_owned(), vec![9], (2, 1), true, Some(10));
        let bytes = encode_message(&message, NonZeroU16::new(5), NOW);
        assert_eq!(bytes, MESSAGE_V1);
        let filters = [("a/+".to_owned(), 5, 3)];
        let will = Will {
            topic: "w".to_owned(),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: 300,
            properties: vec![1, 1],
        };
        let bytes = session("client", &filters, Some(will), Some("p"));
        assert_eq!(bytes, SESSION_V1);
    }
}
