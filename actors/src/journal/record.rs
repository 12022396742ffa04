//! What the journal stores: the record types, and their stored form (bincode, append-only enums).
//!
//! Together with `store/record.rs` this is the only place that names bincode.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    idempotency::Idempotency,
    ids::{DeviceId, Position},
    kept::KeptChange,
    limits,
    reading::{Channel, Reading},
    script::{ParkReason, Verdict},
    state::DeviceState,
    store::record::{decode_state, encode_state},
};

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A reading as the edge handed it in.
    Reading {
        /// The reading.
        reading: Reading,
        /// Do handlers want it? Then an [`OutcomeRecord`] follows, and the reading folds with that one's verdict;
        /// otherwise it folds unchanged.
        routed: bool,
    },
    /// What the handlers made of an earlier reading.
    Outcome(OutcomeRecord),
    /// An operator dropped a parked reading.
    Unparked {
        /// Its device.
        device: DeviceId,
        /// Its position.
        position: Position,
    },
    /// A device's state was brought in from elsewhere.
    Imported {
        /// The state, as it was where it came from.
        state: DeviceState,
        /// Does it go over a newer one?
        overwrite: bool,
    },
    /// A pair of the edge was put, or forgotten.
    Kept(KeptChange),
}

/// What the handlers made of a reading. What they emitted is not stored: it went to the viewers, or it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// The device.
    pub device: DeviceId,
    /// The position of the reading that this answers.
    pub reading: Position,
    /// What becomes of the reading.
    pub verdict: Verdict,
    /// `ctx.state` of the scripts that changed theirs, by script name, as JSON.
    pub script_state: SmallVec<[(Box<str>, Bytes); 1]>,
}

/// A record that is larger than the journal may hold; nothing was stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a journal record has at most {limit} bytes (limit record_bytes), {scripts} script states, and a key of 1 to {key} bytes (limit kept_key_bytes), this one has {bytes} bytes",
    limit = limits::RECORD_BYTES, scripts = limits::SCRIPTS, key = limits::KEPT_KEY_BYTES
)]
pub struct RecordTooLarge {
    /// Its size, in bytes.
    pub bytes: usize,
}

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A version that this build does not know: written by a newer one.
    #[error("it was written by a newer version of tidegate")]
    Newer,
    /// The bytes make no sense.
    #[error("{0}")]
    Malformed(String),
}

/// The kind byte of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A [`Record::Reading`].
    Reading = 1,
    /// A [`Record::Outcome`].
    Outcome = 2,
    /// A [`Record::Unparked`].
    Unparked = 3,
    /// A [`Record::Imported`].
    Imported = 4,
    /// A [`Record::Kept`].
    Kept = 5,
}

/// How bodies are encoded today: bincode 2, standard configuration.
pub(crate) const BODY_VERSION: u8 = 1;

/// What a decoder may claim: a largest record, and room for the tables of its slices.
const DECODE_BYTES: usize = limits::RECORD_BYTES + DECODE_TABLES;
/// Room for the tables of a value's slices, which a decoder counts and an encoder does not.
pub(crate) const DECODE_TABLES: usize = 64 * 1024;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredReading<'a> {
    V1(ReadingV1<'a>),
    /// Of a request that names itself, or another attempt at a parked reading: few are, and the others need no room for it.
    V2(ReadingV2<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct ReadingV2<'a> {
    reading: ReadingV1<'a>,
    idempotency: Option<([u8; 16], u32)>,
    retry_of: Option<u64>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct ReadingV1<'a> {
    device: &'a str,
    channel: u8,
    routed: bool,
    device_time: Option<i64>,
    received: i64,
    payload: &'a [u8],
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredOutcome<'a> {
    V1(OutcomeV1<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct OutcomeV1<'a> {
    device: &'a str,
    reading: u64,
    verdict: VerdictV1<'a>,
    script_state: Vec<(&'a str, &'a [u8])>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum VerdictV1<'a> {
    Unchanged,
    Keep(&'a [u8]),
    Dropped { script: &'a str },
    Parked { script: &'a str, reason: u8, message: &'a str },
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredUnparked<'a> {
    V1 { device: &'a str, position: u64 },
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredKept<'a> {
    V1 { key: &'a [u8], value: Option<&'a [u8]> },
}

/// Appends the stored form of a reading.
pub(crate) fn encode_reading(into: &mut Vec<u8>, reading: &Reading, routed: bool) -> Result<(), RecordTooLarge> {
    let stored = ReadingV1::of(reading, routed);
    let stored = if reading.idempotency.is_none() && reading.retry_of.is_none() {
        StoredReading::V1(stored)
    } else {
        StoredReading::V2(ReadingV2 {
            reading: stored,
            idempotency: reading.idempotency.map(|one| (one.request, one.index)),
            retry_of: reading.retry_of.map(|position| position.0),
        })
    };
    append(into, &stored, limits::RECORD_BYTES)
}

/// Appends the stored form of an operator's dropping of a parked reading.
pub(crate) fn encode_unparked(into: &mut Vec<u8>, device: &DeviceId, position: Position) -> Result<(), RecordTooLarge> {
    append(into, &StoredUnparked::V1 { device: device.as_str(), position: position.0 }, limits::RECORD_BYTES)
}

/// Appends the stored form of an imported state: whether it goes over a newer one (a byte), and the state.
pub(crate) fn encode_imported(into: &mut Vec<u8>, state: &DeviceState, overwrite: bool) -> Result<(), RecordTooLarge> {
    let start = into.len();
    into.push(u8::from(overwrite));
    encode_state(into, state)?;
    let bytes = into.len() - start;
    if bytes > limits::RECORD_BYTES {
        into.truncate(start);
        return Err(RecordTooLarge { bytes });
    }
    Ok(())
}

/// Appends the stored form of a change of a kept pair.
pub(crate) fn encode_kept(into: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordTooLarge> {
    if !(1..=limits::KEPT_KEY_BYTES).contains(&key.len()) {
        return Err(RecordTooLarge { bytes: key.len() });
    }
    append(into, &StoredKept::V1 { key, value }, limits::RECORD_BYTES)
}

/// Reads the stored form of a change of a kept pair.
pub(crate) fn decode_kept(body: &[u8]) -> Result<KeptChange, DecodeError> {
    let StoredKept::V1 { key, value } = parse::<_, DECODE_BYTES>(body)?;
    if !(1..=limits::KEPT_KEY_BYTES).contains(&key.len()) {
        return Err(DecodeError::Malformed(format!("it has a key of {} bytes", key.len())));
    }
    Ok(KeptChange { key: Bytes::copy_from_slice(key), value: value.map(Bytes::copy_from_slice) })
}

/// Appends the stored form of an outcome.
pub(crate) fn encode_outcome(into: &mut Vec<u8>, outcome: &OutcomeRecord) -> Result<(), RecordTooLarge> {
    let stored = StoredOutcome::V1(OutcomeV1 {
        device: outcome.device.as_str(),
        reading: outcome.reading.0,
        verdict: VerdictV1::of(&outcome.verdict),
        script_state: outcome.script_state.iter().map(|(name, json)| (&**name, &**json)).collect(),
    });
    if outcome.script_state.len() > limits::SCRIPTS {
        return Err(RecordTooLarge {
            bytes: outcome.script_state.iter().map(|(name, json)| name.len() + json.len()).sum(),
        });
    }
    append(into, &stored, limits::RECORD_BYTES)
}

/// Reads the body of a frame.
pub(crate) fn decode(kind: u8, version: u8, body: &[u8]) -> Result<Record, DecodeError> {
    if version != BODY_VERSION {
        return Err(DecodeError::Newer);
    }
    if kind == Kind::Reading as u8 {
        let (stored, idempotency, retry_of) = match parse::<_, DECODE_BYTES>(body)? {
            StoredReading::V1(stored) => (stored, None, None),
            StoredReading::V2(stored) => (stored.reading, stored.idempotency, stored.retry_of),
        };
        let routed = stored.routed;
        let idempotency = idempotency.map(|(request, index)| Idempotency { request, index });
        let reading = Reading { idempotency, retry_of: retry_of.map(Position), ..stored.into_reading()? };
        Ok(Record::Reading { reading, routed })
    } else if kind == Kind::Outcome as u8 {
        let StoredOutcome::V1(stored) = parse::<_, DECODE_BYTES>(body)?;
        stored.into_outcome().map(Record::Outcome)
    } else if kind == Kind::Unparked as u8 {
        let StoredUnparked::V1 { device: id, position } = parse::<_, DECODE_BYTES>(body)?;
        Ok(Record::Unparked { device: device(id)?, position: Position(position) })
    } else if kind == Kind::Imported as u8 {
        let (overwrite, state) = match body.split_first() {
            Some((overwrite @ 0..=1, state)) => (*overwrite == 1, state),
            _ => return Err(DecodeError::Malformed("it does not say whether it overwrites".to_owned())),
        };
        Ok(Record::Imported { state: decode_state(state)?, overwrite })
    } else if kind == Kind::Kept as u8 {
        decode_kept(body).map(Record::Kept)
    } else {
        Err(DecodeError::Newer)
    }
}

/// Appends a stored value; takes it back when it is larger than `limit`.
pub(crate) fn append<T: bincode::Encode>(into: &mut Vec<u8>, value: &T, limit: usize) -> Result<(), RecordTooLarge> {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    let start = into.len();
    let encoded = bincode::encode_into_writer(value, Sink(into), bincode::config::standard());
    let bytes = into.len() - start;
    if encoded.is_err() || bytes > limit {
        into.truncate(start);
        return Err(RecordTooLarge { bytes });
    }
    Ok(())
}

/// Reads a stored value that takes up all of `bytes`, and may claim `LIMIT` bytes of memory.
pub(crate) fn parse<'a, T: bincode::BorrowDecode<'a, ()>, const LIMIT: usize>(
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    // Without the limit a hostile length would abort the process by its allocation.
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::borrow_decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(DecodeError::Malformed(format!("{} bytes follow its end", bytes.len() - read))),
        Err(bincode::error::DecodeError::UnexpectedVariant { .. }) => Err(DecodeError::Newer),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// A device id from stored text.
pub(crate) fn device(text: &str) -> Result<DeviceId, DecodeError> {
    DeviceId::new(text).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// A park reason from its stored number.
pub(crate) fn park_reason(number: u8) -> Result<ParkReason, DecodeError> {
    ParkReason::from_number(number).ok_or(DecodeError::Newer)
}

impl<'a> ReadingV1<'a> {
    pub(crate) fn of(reading: &'a Reading, routed: bool) -> Self {
        Self {
            device: reading.device.as_str(),
            channel: reading.channel as u8,
            routed,
            device_time: reading.device_time,
            received: reading.received,
            payload: &reading.payload,
        }
    }

    pub(crate) fn into_reading(self) -> Result<Reading, DecodeError> {
        Ok(Reading {
            device: device(self.device)?,
            channel: Channel::from_number(self.channel).ok_or(DecodeError::Newer)?,
            device_time: self.device_time,
            received: self.received,
            payload: Bytes::copy_from_slice(self.payload),
            idempotency: None,
            retry_of: None,
        })
    }
}

impl OutcomeV1<'_> {
    fn into_outcome(self) -> Result<OutcomeRecord, DecodeError> {
        Ok(OutcomeRecord {
            device: device(self.device)?,
            reading: Position(self.reading),
            verdict: self.verdict.into_verdict()?,
            script_state: self
                .script_state
                .into_iter()
                .map(|(name, json)| (Box::from(name), Bytes::copy_from_slice(json)))
                .collect(),
        })
    }
}

impl<'a> VerdictV1<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Unchanged => Self::Unchanged,
            Verdict::Keep(json) => Self::Keep(json),
            Verdict::Dropped { script } => Self::Dropped { script },
            Verdict::Parked { script, reason, message } => Self::Parked { script, reason: *reason as u8, message },
        }
    }

    fn into_verdict(self) -> Result<Verdict, DecodeError> {
        Ok(match self {
            Self::Unchanged => Verdict::Unchanged,
            Self::Keep(json) => Verdict::Keep(Bytes::copy_from_slice(json)),
            Self::Dropped { script } => Verdict::Dropped { script: script.into() },
            Self::Parked { script, reason, message } => {
                Verdict::Parked { script: script.into(), reason: park_reason(reason)?, message: message.into() }
            }
        })
    }
}
