//! Recovery against a model of the runtime: whatever was checkpointed, and whatever is damaged, the states come out the same.

mod crash;
mod damage;
mod directory;
mod fixtures;
mod kept;
mod model;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Recovered, Unfinished, recover_with};
use crate::{
    idempotency::Requests,
    ids::{DeviceId, LoopId, Position},
    journal::{
        Batch, FileJournal, Journal, JournalConfig, OutcomeRecord,
        tests::doubles::{WaitingSink, reading},
    },
    kept::KeptChange,
    lifetime::DeviceCounts,
    reading::Reading,
    script::{ParkReason, Verdict},
    state::{DeviceState, ParkedReading},
    store::{Changes, SledConfig, SledStore, StateStore},
};

/// The fold that the tests use: the latest wins, a dropped or parked reading changes only `ctx.state`.
fn fold(
    previous: Option<&DeviceState>,
    position: Position,
    reading: &Reading,
    verdict: &Verdict,
    script_state: &[(Box<str>, Bytes)],
) -> Option<DeviceState> {
    let state = match verdict {
        Verdict::Unchanged => reading.payload.clone(),
        Verdict::Keep(json) => json.clone(),
        Verdict::Dropped { .. } | Verdict::Parked { .. } if script_state.is_empty() => return None,
        Verdict::Dropped { .. } | Verdict::Parked { .. } => previous?.state.clone(),
    };
    Some(DeviceState {
        newest_device_time: None,
        counts: DeviceCounts::default(),
        requests: Requests::default(),
        device: reading.device.clone(),
        state,
        device_time: reading.device_time,
        received: reading.received,
        version: previous.map_or(0, |previous| previous.version) + 1,
        position,
        script_state: if script_state.is_empty() {
            previous.map(|previous| previous.script_state.clone()).unwrap_or_default()
        } else {
            script_state.to_vec()
        },
    })
}

/// One loop of a runtime, as simple as it can be: it journals, folds in the devices' order, and checkpoints when told.
struct Runtime {
    journal: Arc<FileJournal>,
    sink: Arc<WaitingSink>,
    store: Arc<SledStore>,
    sent: usize,
    last: Position,
    states: BTreeMap<DeviceId, DeviceState>,
    parked: BTreeMap<Position, ParkedReading>,
    kept: BTreeMap<Bytes, Bytes>,
    /// Changes that the store does not have.
    unstored: RefCell<Vec<KeptChange>>,
    waiting: BTreeMap<DeviceId, VecDeque<Unfinished>>,
}

impl Runtime {
    fn open(dir: &Path, segment_bytes: u64) -> Self {
        let Recovered { store, next, unfinished, report, data, .. } = recovered(dir);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(unfinished, []);
        let sink = WaitingSink::new();
        let config = JournalConfig {
            segment_bytes,
            commit_max_delay: Duration::ZERO,
            gather: Duration::ZERO,
            segment_age: None,
        };
        let journal = FileJournal::open(&data.journal(), config, next, sink.clone()).unwrap();
        let states = store.page(None, "", usize::MAX).unwrap();
        let kept = kept_in(&*store);
        Self {
            journal,
            sink,
            store,
            sent: 0,
            last: Position(next.0 - 1),
            states: states.into_iter().map(|state| (state.device.clone(), state)).collect(),
            parked: BTreeMap::new(),
            kept,
            unstored: RefCell::default(),
            waiting: BTreeMap::new(),
        }
    }

    fn append(&mut self, fill: impl FnOnce(&mut Batch)) -> Position {
        let mut batch = Batch::new(LoopId(0));
        fill(&mut batch);
        self.sent += batch.records();
        self.last = self.last.plus(batch.records() as u64);
        self.journal.try_append(batch).unwrap();
        self.sink.wait_for_records(self.sent);
        self.last
    }

    fn read(&mut self, number: u64, routed: bool) {
        let reading = reading(number);
        let position = self.append(|batch| batch.push_reading(&reading, routed).unwrap());
        let device = reading.device.clone();
        self.waiting.entry(device.clone()).or_default().push_back(Unfinished::Reading { position, reading, routed });
        self.fold_unrouted(&device);
    }

    fn keep(&mut self, key: impl Into<Bytes>, value: Option<Bytes>) {
        let change = KeptChange { key: key.into(), value };
        self.append(|batch| batch.push_kept(&change).unwrap());
        apply(&mut self.kept, &change);
        self.unstored.borrow_mut().push(change);
    }

    /// The handlers answer for the first reading of this device that waits for them.
    fn answer(&mut self, device: &DeviceId, verdict: Verdict, script_state: SmallVec<[(Box<str>, Bytes); 1]>) {
        let Some(first) = self.waiting.get_mut(device).and_then(VecDeque::pop_front) else { return };
        assert!(first.is_routed());
        let outcome = OutcomeRecord { device: device.clone(), reading: first.position(), verdict, script_state };
        self.append(|batch| batch.push_outcome(&outcome).unwrap());
        self.fold(&first, &outcome.verdict, &outcome.script_state);
        self.fold_unrouted(device);
    }

    fn fold_unrouted(&mut self, device: &DeviceId) {
        while let Some(first) =
            self.waiting.get_mut(device).and_then(|queue| queue.pop_front_if(|next| !next.is_routed()))
        {
            self.fold(&first, &Verdict::Unchanged, &[]);
        }
    }

    fn fold(&mut self, what: &Unfinished, verdict: &Verdict, script_state: &[(Box<str>, Bytes)]) {
        let Unfinished::Reading { position, reading, .. } = what else { panic!("{what:?}") };
        if let Verdict::Parked { script, reason, message } = verdict {
            let (script, reason, message) = (script.clone(), *reason, message.clone());
            let parked = ParkedReading { position: *position, reading: reading.clone(), script, reason, message };
            self.parked.insert(*position, parked);
        }
        let previous = self.states.get(&reading.device);
        if let Some(state) = fold(previous, *position, reading, verdict, script_state) {
            self.states.insert(reading.device.clone(), state);
        }
    }

    /// What a checkpoint may say: everything at or before this is folded.
    fn folded_through(&self) -> Position {
        let first = self.waiting.values().flatten().map(|waiting| waiting.position().0).min();
        first.map_or(self.last, |first| Position(first - 1))
    }

    fn checkpoint(&self) {
        let states = self.states.values().cloned().collect::<Vec<_>>();
        let parked = self.parked.values().cloned().collect::<Vec<_>>();
        let kept = self.unstored.take();
        self.store.write(&Changes { states, parked, kept, unparked: Vec::new() }, self.folded_through()).unwrap();
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        let mut unfinished = self.waiting.values().flatten().cloned().collect::<Vec<_>>();
        unfinished.sort_by_key(Unfinished::position);
        unfinished
    }

    /// Stops without a checkpoint, and gives what a recovery must find.
    fn stop(self) -> Expected {
        self.journal.close();
        let unfinished = self.unfinished();
        Expected { states: self.states, parked: self.parked, kept: self.kept, unfinished, last: self.last }
    }
}

/// What a recovery must find.
#[derive(Debug)]
struct Expected {
    states: BTreeMap<DeviceId, DeviceState>,
    parked: BTreeMap<Position, ParkedReading>,
    kept: BTreeMap<Bytes, Bytes>,
    unfinished: Vec<Unfinished>,
    last: Position,
}

impl Expected {
    fn check(&self, found: &Recovered) {
        let states = found.store.page(None, "", usize::MAX).unwrap();
        assert!(states.iter().eq(self.states.values()), "{states:#?}\n{:#?}\n{:?}", self.states, found.report);
        let parked = found.store.parked(None, usize::MAX).unwrap();
        assert!(parked.iter().rev().eq(self.parked.values()), "{parked:?} {:?}", self.parked);
        assert_eq!(kept_in(&*found.store), self.kept);
        assert_eq!(found.unfinished, self.unfinished);
        assert_eq!(found.next, self.last.plus(1));
        let first = self.unfinished.first().map_or(found.next, Unfinished::position);
        assert_eq!(found.store.folded().plus(1), first);
    }
}

/// All kept pairs of a store.
fn kept_in(store: &dyn StateStore) -> BTreeMap<Bytes, Bytes> {
    let mut kept = BTreeMap::new();
    let all = store.kept(b"", &mut |key, value| {
        kept.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    });
    all.unwrap();
    assert_eq!(store.kept_count(), kept.len() as u64);
    kept
}

fn apply(kept: &mut BTreeMap<Bytes, Bytes>, KeptChange { key, value }: &KeptChange) {
    match value {
        Some(value) => _ = kept.insert(key.clone(), value.clone()),
        None => _ = kept.remove(key),
    }
}

fn recovered(dir: &Path) -> Recovered {
    recover_with(dir, SledConfig::default(), &mut fold).unwrap()
}

/// Work of all kinds, some of it checkpointed, some unfinished.
fn work(runtime: &mut Runtime, rounds: u64) {
    for number in 0..rounds {
        runtime.read(number, number.is_multiple_of(3));
        if number % 5 == 4 {
            answer(runtime, number, number);
        }
        if number % 4 == 1 {
            let value = (number % 3 > 0).then(|| Bytes::from(format!("value {number}")));
            runtime.keep(format!("key {}", number % 9), value);
        }
        if number == rounds / 2 {
            runtime.checkpoint();
        }
    }
}

/// The handlers answer for some device, in one of the four ways.
fn answer(runtime: &mut Runtime, device: u64, way: u64) {
    let (verdict, script_state) = match way % 5 {
        0 => (Verdict::Unchanged, SmallVec::new()),
        1 => (Verdict::Keep(Bytes::from(format!("{{\"kept\":{way}}}"))), SmallVec::new()),
        2 => (Verdict::Dropped { script: "10.js".into() }, SmallVec::new()),
        3 => (
            Verdict::Parked { script: "10.js".into(), reason: ParkReason::Threw, message: "boom".into() },
            SmallVec::new(),
        ),
        _ => (Verdict::Keep(Bytes::from_static(b"{}")), SmallVec::from_iter([("10.js".into(), Bytes::from("1"))])),
    };
    runtime.answer(&reading(device).device, verdict, script_state);
}
