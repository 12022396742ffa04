//! The stored form of records: what goes in comes out, what does not belong is refused, and version 1 stays readable.

use bytes::Bytes;
use proptest::prelude::*;
use smallvec::{SmallVec, smallvec};

use super::doubles::{reading, record};
use crate::{
    idempotency::Idempotency,
    ids::{DeviceId, LoopId, Position},
    journal::{
        Batch, OutcomeRecord, Record, RecordTooLarge,
        frame::{self, Frame},
        record::{self, BODY_VERSION, DecodeError, Kind},
    },
    kept::KeptChange,
    limits,
    reading::{Channel, Reading},
    script::{ParkReason, Verdict},
    store::tests::state,
};

fn encode(record: &Record) -> (Kind, Vec<u8>) {
    let mut body = Vec::new();
    match record {
        Record::Reading { reading, routed } => {
            record::encode_reading(&mut body, reading, *routed).unwrap();
            (Kind::Reading, body)
        }
        Record::Outcome(outcome) => {
            record::encode_outcome(&mut body, outcome).unwrap();
            (Kind::Outcome, body)
        }
        Record::Unparked { device, position } => {
            record::encode_unparked(&mut body, device, *position).unwrap();
            (Kind::Unparked, body)
        }
        Record::Imported { state, overwrite } => {
            record::encode_imported(&mut body, state, *overwrite).unwrap();
            (Kind::Imported, body)
        }
        Record::Kept(KeptChange { key, value }) => {
            record::encode_kept(&mut body, key, value.as_deref()).unwrap();
            (Kind::Kept, body)
        }
    }
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn device() -> impl Strategy<Value = DeviceId> {
    "[a-zA-Z0-9._äé-]{1,60}".prop_map(|text| DeviceId::new(&text).unwrap())
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Unchanged),
        bytes().prop_map(Verdict::Keep),
        "[a-z0-9.-]{0,20}".prop_map(|script| Verdict::Dropped { script: script.into() }),
        ("[a-z]{0,9}", prop::sample::select(ParkReason::ALL.to_vec()), ".{0,80}").prop_map(
            |(script, reason, message)| Verdict::Parked { script: script.into(), reason, message: message.into() }
        ),
    ]
}

pub(crate) fn readings() -> impl Strategy<Value = Reading> {
    let idempotency = any::<Option<([u8; 16], u32)>>();
    let channel = prop::sample::select(Channel::ALL.to_vec());
    (device(), channel, any::<Option<i64>>(), any::<i64>(), bytes(), idempotency, any::<Option<u64>>()).prop_map(
        |(device, channel, device_time, received, payload, idempotency, retry_of)| Reading {
            idempotency: idempotency.map(|(request, index)| Idempotency { request, index }),
            retry_of: retry_of.map(Position),
            ..Reading::new(device, channel, device_time, received, payload)
        },
    )
}

fn records() -> impl Strategy<Value = Record> {
    let script_state = prop::collection::vec(("[a-z.]{0,12}", bytes()), 0..4).prop_map(|states| {
        states.into_iter().map(|(name, json)| (name.into_boxed_str(), json)).collect::<SmallVec<_>>()
    });
    prop_oneof![
        (readings(), any::<bool>()).prop_map(|(reading, routed)| Record::Reading { reading, routed }),
        (device(), any::<u64>())
            .prop_map(|(device, position)| Record::Unparked { device, position: Position(position) }),
        (0..900_u64, 0..900_u64, any::<bool>())
            .prop_map(|(device, position, overwrite)| Record::Imported { state: state(device, position), overwrite }),
        (prop::collection::vec(any::<u8>(), 1..100), prop::option::of(bytes()))
            .prop_map(|(key, value)| Record::Kept(KeptChange { key: key.into(), value })),
        (device(), any::<u64>(), verdicts(), script_state).prop_map(|(device, reading, verdict, script_state)| {
            Record::Outcome(OutcomeRecord { device, reading: Position(reading), verdict, script_state })
        }),
    ]
}

proptest! {
    #[test]
    fn any_record_comes_back(record in records()) {
        let (kind, body) = encode(&record);
        prop_assert_eq!(record::decode(kind as u8, BODY_VERSION, &body), Ok(record));
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(kind in 1_u8..6, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = record::decode(kind, BODY_VERSION, &body);
        let _ = frame::parse(&body);
    }

    #[test]
    fn a_body_is_no_longer_and_no_shorter(record in records(), cut in 1_usize..20) {
        let (kind, mut body) = encode(&record);
        let shorter = &body[..body.len().saturating_sub(cut)];
        prop_assert!(record::decode(kind as u8, BODY_VERSION, shorter).is_err());
        body.push(0);
        let longer = record::decode(kind as u8, BODY_VERSION, &body);
        prop_assert_eq!(longer, Err(DecodeError::Malformed("1 bytes follow its end".to_owned())));
    }
}

/// What version 1 wrote. These bytes are on disks: if this test fails, the change needs a version of its own.
#[test]
fn version_1_is_readable() {
    let cases = [
        (
            2_u64,
            "000670756d702d32000001fd04d0ca9f17030000fdecd3ca9f170300001c7b2274656d706572 \
             6174757265223a322c22756e6974223a2243227d",
        ),
        (3, "000670756d702d330200010c31302d656e726963682e6a73077b226e223a337d"),
        (
            5,
            "000670756d702d3503010a7b226b657074223a357d010c31302d656e726963682e6a73077b22 \
             6e223a357d",
        ),
        (
            7,
            "000670756d702d3004020c31302d656e726963682e6a73010c31302d656e726963682e6a7307 \
             7b226e223a377d",
        ),
        (
            9,
            "000670756d702d3205030b32302d616c61726d2e6a730316626f6f6d20392032302d616c6172 \
             6d2e6a733a333a37010c31302d656e726963682e6a73077b226e223a397d",
        ),
    ];
    for (number, hex) in cases {
        let digits = hex.bytes().filter(|digit| *digit != b' ').collect::<Vec<_>>();
        let written = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect::<Vec<_>>();
        let (kind, now) = encode(&record(number));
        assert_eq!(record::decode(kind as u8, 1, &written), Ok(record(number)), "record {number}");
        assert_eq!(now, written, "record {number} is written differently now");
    }
}

#[test]
fn a_newer_record_is_told_from_a_broken_one() {
    let (kind, mut body) = encode(&record(0));
    assert_eq!(record::decode(kind as u8, 2, &body), Err(DecodeError::Newer));
    assert_eq!(record::decode(99, BODY_VERSION, &body), Err(DecodeError::Newer));
    body[0] = 99;
    assert_eq!(record::decode(kind as u8, BODY_VERSION, &body), Err(DecodeError::Newer));
    let hostile = [0, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'x'];
    assert!(matches!(record::decode(kind as u8, BODY_VERSION, &hostile), Err(DecodeError::Malformed(_))));
}

#[test]
fn the_largest_reading_fits_and_a_larger_record_is_refused_without_a_trace() {
    let mut batch = Batch::new(LoopId(0));
    let mut largest = reading(1);
    largest.device = DeviceId::new(&"d".repeat(limits::DEVICE_ID_BYTES)).unwrap();
    largest.payload = vec![b'1'; limits::READING_BYTES].into();
    batch.push_reading(&largest, true).unwrap();
    let before = (batch.records(), batch.bytes());
    let state = Bytes::from(vec![b'1'; limits::SCRIPT_VALUE_BYTES]);
    let mut outcome = OutcomeRecord {
        device: largest.device.clone(),
        reading: Position(1),
        verdict: Verdict::Keep(state.clone()),
        script_state: smallvec![("a".into(), state.clone()), ("b".into(), state.clone())],
    };
    batch.push_outcome(&outcome).unwrap();
    let after = (batch.records(), batch.bytes());
    outcome.script_state.extend([("c".into(), state.clone()), ("d".into(), state)]);
    assert!(matches!(batch.push_outcome(&outcome), Err(RecordTooLarge { bytes }) if bytes > limits::RECORD_BYTES));
    outcome.script_state = (0..=limits::SCRIPTS).map(|n| (n.to_string().into(), Bytes::new())).collect();
    assert!(batch.push_outcome(&outcome).is_err());
    assert_eq!((batch.records(), batch.bytes()), after);
    assert_eq!(before.0 + 1, after.0);

    batch.seal(41);
    let first = frame::parse(batch.frames()).unwrap();
    let second = frame::parse(&batch.frames()[first.size()..]).unwrap();
    assert_eq!((first.position, second.position), (41, 42));
    let decoded = |frame: Frame<'_>| record::decode(frame.kind, frame.version, frame.body);
    assert_eq!(decoded(first), Ok(Record::Reading { reading: largest, routed: true }));
    assert!(matches!(decoded(second), Ok(Record::Outcome(_))));
}

#[test]
fn a_pair_is_within_its_limits_or_refused() {
    let change = |key: usize, value: usize| KeptChange { key: vec![1; key].into(), value: Some(vec![2; value].into()) };
    let mut batch = Batch::new(LoopId(0));
    batch.push_kept(&change(limits::KEPT_KEY_BYTES, 4_000_000)).unwrap();
    let before = (batch.records(), batch.bytes());
    for (key, value) in [(0, 1), (limits::KEPT_KEY_BYTES + 1, 0), (1, limits::RECORD_BYTES)] {
        let refused = batch.push_kept(&change(key, value)).unwrap_err().to_string();
        assert!(refused.contains("limit record_bytes") && refused.contains("limit kept_key_bytes"), "{refused}");
    }
    assert_eq!((batch.records(), batch.bytes()), before);
    batch.seal(7);
    let frame = frame::parse(batch.frames()).unwrap();
    let decoded = record::decode(frame.kind, frame.version, frame.body);
    assert_eq!(decoded, Ok(Record::Kept(change(limits::KEPT_KEY_BYTES, 4_000_000))));
    // Bytes that claim a key without a byte.
    assert!(matches!(record::decode(Kind::Kept as u8, BODY_VERSION, &[0, 0, 0]), Err(DecodeError::Malformed(_))));
    // What version 1 of this record looks like on a disk.
    let stored =
        encode(&Record::Kept(KeptChange { key: Bytes::from_static(b"sc"), value: Some(Bytes::from_static(b"v")) }));
    assert_eq!(stored.1, [0, 2, b's', b'c', 1, 1, b'v']);
    let stored = encode(&Record::Kept(KeptChange { key: Bytes::from_static(b"sc"), value: None }));
    assert_eq!(stored.1, [0, 2, b's', b'c', 0]);
}
