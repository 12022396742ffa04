//! The list of parked readings as it will be: what the store has, changed by what is on its way into it.

use super::{changes, parked as a_parked};
use crate::{
    ids::{DeviceId, Position},
    state::ParkedReading,
    store::{MemoryStore, PAGE, ParkedChanges, StateStore},
};

/// Every tenth is another device's.
fn one(position: u64) -> ParkedReading {
    let mut one = a_parked(position);
    if position.is_multiple_of(10) {
        one.reading.device = DeviceId::new("pump-y").unwrap();
    }
    one
}

#[test]
fn a_list_is_that_of_a_store_that_has_it_all() {
    let newest = PAGE as u64 * 2 + 50;
    let (store, whole) = (MemoryStore::default(), MemoryStore::default());
    let stored: Vec<_> = (1..newest - 20).map(one).collect();
    store.write(&changes(&[], &stored), Position(newest)).unwrap();
    // Some are in the store by now though they were on their way a moment ago, and some have gone meanwhile.
    let mut unwritten = ParkedChanges::default();
    (newest - 40..newest).for_each(|position| unwritten.park(one(position)));
    let mut later = ParkedChanges::default();
    let gone = [3, 40, 300, newest - 30, newest - 10].map(Position);
    gone.into_iter().for_each(|position| later.unpark(position));
    unwritten.append(later);
    let mut all = changes(&[], &(1..newest).map(one).collect::<Vec<_>>());
    all.unparked = gone.to_vec();
    whole.write(&all, Position(newest)).unwrap();

    let pump_y = DeviceId::new("pump-y").unwrap();
    for device in [None, Some(&pump_y)] {
        let everything = whole.parked(None, usize::MAX).unwrap();
        let wanted: Vec<_> =
            everything.into_iter().filter(|parked| device.is_none_or(|id| parked.reading.device == *id)).collect();
        for before in [None, Some(newest - 10), Some(newest - 35), Some(301), Some(4), Some(1)] {
            for limit in [1, 3, 60, PAGE, PAGE + 1, 10_000] {
                let listed = unwritten.clone().over(&store, device, before.map(Position), limit).unwrap();
                let expected = wanted.iter().filter(|parked| before.is_none_or(|before| parked.position.0 < before));
                let expected: Vec<_> = expected.take(limit).cloned().collect();
                assert_eq!(listed, expected, "{device:?} before {before:?}, at most {limit}");
            }
        }
    }
    assert_eq!(unwritten.at(Position(newest - 30)), Some(None), "gone");
    assert_eq!(unwritten.at(Position(newest - 29)), Some(Some(&one(newest - 29))));
    assert_eq!(unwritten.at(Position(7)), None, "the store knows");
}
