//! The stored form of states and parked readings (bincode, append-only enums): in sled, and in snapshot files.
//!
//! Together with `journal/record.rs` this is the only place that names bincode.

use bytes::Bytes;

use smallvec::SmallVec;

use crate::{
    idempotency::{Request, Requests},
    ids::Position,
    journal::record::{self, DecodeError, ReadingV1, RecordTooLarge},
    lifetime::DeviceCounts,
    limits,
    state::{DeviceState, ParkedReading},
};

/// Largest stored state: the state and every script's own, and their names.
pub(crate) const STATE_BYTES: usize = (limits::SCRIPTS + 2) * limits::SCRIPT_VALUE_BYTES;
/// What a decoder may claim.
const DECODE_BYTES: usize = STATE_BYTES + record::DECODE_TABLES;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredState<'a> {
    V1(StateV1<'a>),
    V2(StateV2<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StateV1<'a> {
    device: &'a str,
    state: &'a [u8],
    device_time: Option<i64>,
    received: i64,
    version: u64,
    position: u64,
    script_state: Vec<(&'a str, &'a [u8])>,
}

/// A request: its hash, and the runs of its readings that came.
type RequestV2 = ([u8; 16], Vec<(u32, u32)>);

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StateV2<'a> {
    state: StateV1<'a>,
    newest_device_time: Option<i64>,
    counts: Vec<(u8, u8, u64)>,
    requests: Vec<RequestV2>,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredParked<'a> {
    V1(ParkedV1<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct ParkedV1<'a> {
    position: u64,
    reading: ReadingV1<'a>,
    script: &'a str,
    reason: u8,
    message: &'a str,
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum StoredValue<'a> {
    V1(&'a [u8]),
}

/// Appends the stored form of a state.
pub(crate) fn encode_state(into: &mut Vec<u8>, state: &DeviceState) -> Result<(), RecordTooLarge> {
    let requests = state.requests.all().iter().map(|request| (request.request, request.seen.to_vec())).collect();
    let v1 = StateV1 {
        device: state.device.as_str(),
        state: &state.state,
        device_time: state.device_time,
        received: state.received,
        version: state.version,
        position: state.position.0,
        script_state: state.script_state.iter().map(|(name, json)| (&**name, &**json)).collect(),
    };
    let stored = StoredState::V2(StateV2 {
        state: v1,
        newest_device_time: state.newest_device_time,
        counts: state.counts.stored(),
        requests,
    });
    record::append(into, &stored, STATE_BYTES)
}

/// Reads a stored state.
pub(crate) fn decode_state(bytes: &[u8]) -> Result<DeviceState, DecodeError> {
    let (stored, newest_device_time, counts, requests) = match record::parse::<_, DECODE_BYTES>(bytes)? {
        StoredState::V1(stored) => {
            let newest = stored.device_time;
            (stored, newest, Vec::new(), Vec::new())
        }
        StoredState::V2(stored) => (stored.state, stored.newest_device_time, stored.counts, stored.requests),
    };
    let requests = requests.into_iter().map(|(request, seen)| Request { request, seen: SmallVec::from_vec(seen) });
    Ok(DeviceState {
        newest_device_time,
        counts: DeviceCounts::from_stored(&counts).ok_or(DecodeError::Newer)?,
        requests: Requests::from_all(requests.collect()),
        device: record::device(stored.device)?,
        state: Bytes::copy_from_slice(stored.state),
        device_time: stored.device_time,
        received: stored.received,
        version: stored.version,
        position: Position(stored.position),
        script_state: stored
            .script_state
            .into_iter()
            .map(|(name, json)| (Box::from(name), Bytes::copy_from_slice(json)))
            .collect(),
    })
}

/// Appends the stored form of a kept pair's value. Its key is stored as it is.
pub(crate) fn encode_value(into: &mut Vec<u8>, value: &[u8]) -> Result<(), RecordTooLarge> {
    record::append(into, &StoredValue::V1(value), STATE_BYTES)
}

/// Reads the stored value of a kept pair.
pub(crate) fn decode_value(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let StoredValue::V1(value) = record::parse::<_, DECODE_BYTES>(bytes)?;
    Ok(value)
}

/// Appends the stored form of a parked reading.
pub(crate) fn encode_parked(into: &mut Vec<u8>, parked: &ParkedReading) -> Result<(), RecordTooLarge> {
    let stored = StoredParked::V1(ParkedV1 {
        position: parked.position.0,
        reading: ReadingV1::of(&parked.reading, true),
        script: &parked.script,
        reason: parked.reason as u8,
        message: &parked.message,
    });
    record::append(into, &stored, STATE_BYTES)
}

/// Reads a stored parked reading.
pub(crate) fn decode_parked(bytes: &[u8]) -> Result<ParkedReading, DecodeError> {
    let StoredParked::V1(stored) = record::parse::<_, DECODE_BYTES>(bytes)?;
    Ok(ParkedReading {
        position: Position(stored.position),
        reading: stored.reading.into_reading()?,
        script: stored.script.into(),
        reason: record::park_reason(stored.reason)?,
        message: stored.message.into(),
    })
}
