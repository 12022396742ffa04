//! Both stores against a `BTreeMap`, sled also over reopening.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use bytes::Bytes;
use proptest::prelude::*;

use super::{changes, parked, state};
use crate::{
    idempotency::Requests,
    ids::{DeviceId, Position},
    kept::KeptChange,
    lifetime::DeviceCounts,
    limits,
    state::{DeviceState, ParkedReading},
    store::{Changes, KEPT_PAGE_BYTES, MemoryStore, SledConfig, SledStore, StateStore, StoreError, record},
};

#[derive(Debug, Default)]
struct Model {
    states: BTreeMap<DeviceId, DeviceState>,
    parked: BTreeMap<Position, ParkedReading>,
    kept: BTreeMap<Bytes, Bytes>,
    folded: Position,
}

impl Model {
    fn write(&mut self, Changes { states, parked, kept, .. }: &Changes, folded: Position) {
        for KeptChange { key, value } in kept.iter().cloned() {
            match value {
                Some(value) => _ = self.kept.insert(key, value),
                None => _ = self.kept.remove(&key),
            }
        }
        self.states.extend(states.iter().map(|state| (state.device.clone(), state.clone())));
        self.parked.extend(parked.iter().map(|parked| (parked.position, parked.clone())));
        self.folded = folded;
    }

    fn check(&self, store: &dyn StateStore) {
        assert_eq!(store.count(), self.states.len() as u64);
        assert_eq!(store.folded(), self.folded);
        let mut found = Vec::new();
        store
            .for_each(&mut |state| {
                found.push(state);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(found.iter().eq(self.states.values()));
        for device in (0..40).map(|device| state(device, 0).device) {
            assert_eq!(store.get(device.as_str()).unwrap().as_ref(), self.states.get(&device));
        }
        let newest = self.parked.values().rev().take(5).cloned().collect::<Vec<_>>();
        assert_eq!(store.parked(None, 5).unwrap(), newest);
        for (after, prefix, limit) in [
            (None, "", 3),
            (None, "pump-01", 100),
            (Some("pump-015"), "pump-01", 2),
            (Some("pump-0"), "pump-02", 4),
            (Some("pump-03"), "pump-02", 4),
            (Some("zzz"), "", 4),
            (Some("pump-007"), "", 4),
            (None, "x", 4),
        ] {
            let matching = self.states.values().filter(|state| {
                state.device.as_str().starts_with(prefix) && after.is_none_or(|after| state.device.as_str() > after)
            });
            let page = store.page(after, prefix, limit).unwrap();
            assert!(page.iter().eq(matching.take(limit)), "{after:?} {prefix:?} {limit}: {page:?}");
        }
        assert_eq!(
            (store.kept_count(), store.is_empty()),
            (self.kept.len() as u64, self.states.len() + self.kept.len() == 0)
        );
        let pairs = || self.kept.iter().map(|(key, value)| (key.clone(), value.clone()));
        for prefix in [b"".as_slice(), b"k", b"k1", b"k\xff", b"none"] {
            let mut found = Vec::new();
            let all = store.kept(prefix, &mut |key, value| {
                found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            });
            all.unwrap();
            assert!(found.into_iter().eq(pairs().filter(|(key, _)| key.starts_with(prefix))), "{prefix:?}");
        }
        for (after, prefix, limit) in [
            (None, b"".as_slice(), 3),
            (Some(b"k1".as_slice()), b"k".as_slice(), 2),
            (Some(b"j"), b"k1", 9),
            (Some(b"z"), b"k", 9),
        ] {
            let matching =
                pairs().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| **key > *after));
            assert!(store.kept_page(after, prefix, limit).unwrap().into_iter().eq(matching.take(limit)), "{after:?}");
        }
    }
}

#[derive(Debug, Clone)]
struct Step {
    devices: Vec<u64>,
    parked: Vec<u64>,
    kept: Vec<(u8, Option<u16>)>,
    reopen: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kept = prop::collection::vec((0_u8..30, prop::option::of(0_u16..3_000)), 0..20);
    let step = (prop::collection::vec(0_u64..40, 0..30), prop::collection::vec(1_u64..60, 0..4), kept, any::<bool>())
        .prop_map(|(devices, parked, kept, reopen)| Step { devices, parked, kept, reopen });
    prop::collection::vec(step, 1..7)
}

/// Keys of text, and some of other bytes.
fn pair(number: u8, value: Option<u16>) -> KeptChange {
    let key = if number < 25 { format!("k{number}").into() } else { Bytes::from(vec![b'k', 0xff, number]) };
    KeptChange { key, value: value.map(|bytes| Bytes::from(vec![number; bytes.into()])) }
}

fn open(dir: &Path) -> SledStore {
    SledStore::open(&dir.join("state"), SledConfig::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn both_stores_are_a_btreemap(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut sled = open(dir.path());
        let mut model = Model::default();
        for (number, step) in steps.iter().enumerate() {
            let folded = Position(number as u64 * 100);
            let states = step.devices.iter().map(|device| state(*device, folded.0 + device)).collect::<Vec<_>>();
            let parked = step.parked.iter().map(|position| parked(*position)).collect::<Vec<_>>();
            let kept = step.kept.iter().map(|(key, value)| pair(*key, *value)).collect();
            let changes = Changes { kept, ..changes(&states, &parked) };
            memory.write(&changes, folded).unwrap();
            sled.write(&changes, folded).unwrap();
            model.write(&changes, folded);
            if step.reopen {
                drop(sled);
                sled = open(dir.path());
            }
            model.check(&memory);
            model.check(&sled);
            let newest = model.states.values().map(|state| state.position).max().unwrap_or_default();
            prop_assert!(sled.newest() >= newest, "a position that a state has is never used again");
        }
    }

    #[test]
    fn any_state_comes_back(
        device in 0_u64..1_000, position in any::<u32>(), cut in 1_usize..9, garbage in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let state = state(device, u64::from(position));
        let mut bytes = Vec::new();
        record::encode_state(&mut bytes, &state).unwrap();
        prop_assert!(record::decode_state(&bytes[..bytes.len() - cut]).is_err());
        prop_assert_eq!(record::decode_state(&bytes), Ok(state));
        let parked = parked(u64::from(position));
        bytes.clear();
        record::encode_parked(&mut bytes, &parked).unwrap();
        prop_assert!(record::decode_parked(&bytes[..bytes.len() - cut]).is_err());
        prop_assert_eq!(record::decode_parked(&bytes), Ok(parked));
        bytes.clear();
        record::encode_value(&mut bytes, &garbage).unwrap();
        prop_assert!(record::decode_value(&bytes[..bytes.len() - 1]).is_err());
        prop_assert_eq!(record::decode_value(&bytes), Ok(&*garbage));
        let _ = (record::decode_state(&garbage), record::decode_parked(&garbage), record::decode_value(&garbage));
    }
}

#[test]
fn large_pairs_come_in_small_pages() {
    let dir = tempfile::tempdir().unwrap();
    let large = |key: u8| KeptChange { key: vec![key].into(), value: Some(vec![key; KEPT_PAGE_BYTES / 2].into()) };
    for store in [&MemoryStore::new() as &dyn StateStore, &open(dir.path())] {
        store.write(&Changes { kept: (1..=5).map(large).collect(), ..Changes::default() }, Position(1)).unwrap();
        assert_eq!(store.kept_page(None, b"", 100).unwrap().len(), 2);
        let mut keys = Vec::<u8>::new();
        let some = store.kept(b"", &mut |key, value| {
            assert_eq!(value.len(), KEPT_PAGE_BYTES / 2);
            keys.extend(key);
            if key == [4] { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        some.unwrap();
        assert_eq!(keys, [1, 2, 3, 4], "it broke off");
    }
}

/// What version 1 wrote: see the journal's fixture.
#[test]
fn every_version_is_readable() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = |hex: &str| {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<_>>()
    };
    let written = "000870756d702d3030351c7b2274656d7065726174757265223a322c22706164223a227878227d01fd04d0ca9f1703\
                   0000fd06d0ca9f1703000002020204302e6a73013204312e6a730132";
    let mut now = Vec::new();
    record::encode_state(&mut now, &state(5, 2)).unwrap();
    let first = DeviceState {
        newest_device_time: state(5, 2).device_time,
        counts: DeviceCounts::default(),
        requests: Requests::default(),
        ..state(5, 2)
    };
    assert_eq!(record::decode_state(&bytes(written)), Ok(first));
    let second = "010870756d702d3030351c7b2274656d7065726174757265223a322c22706164223a227878227d01fd04d0ca9f1703\
                  0000fd06d0ca9f1703000002020204302e6a73013204312e6a7301320104010200020107070707070707070707070707070707\
                  010000";
    assert_eq!((hex(&now), record::decode_state(&bytes(second))), (second.to_owned(), Ok(state(5, 2))));
    let written = "00090670756d702d7801010012077b2261223a317d0c31302d656e726963682e6a730306626f6f6d2039";
    now.clear();
    record::encode_parked(&mut now, &parked(9)).unwrap();
    assert_eq!(hex(&now), written);
    assert_eq!(record::decode_parked(&bytes(written)), Ok(parked(9)));
}

#[test]
fn the_oldest_parked_readings_give_way_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let readings = (1..=limits::PARKED_READINGS as u64 + 3).map(parked).collect::<Vec<_>>();
    for store in [&MemoryStore::new() as &dyn StateStore, &open(dir.path())] {
        store.write(&changes(&[], &readings[..limits::PARKED_READINGS]), Position(1)).unwrap();
        assert_eq!(store.parked_dropped(), 0);
        store.write(&changes(&[], &readings[limits::PARKED_READINGS..]), Position(2)).unwrap();
        assert_eq!(store.parked_dropped(), 3);
        let kept = store.parked(None, usize::MAX).unwrap();
        assert_eq!((kept.len(), kept.last().unwrap().position), (limits::PARKED_READINGS, Position(4)));
    }
}

#[test]
fn a_second_process_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = SledStore::open(&dir.path().join("state"), SledConfig::default()).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("is in use by another node"), "{refused}");
    drop(store);
    open(dir.path());
}
