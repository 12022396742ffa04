//! Exports of a node at work against a model: the journal, read from its beginning to the export's position, and nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::*;
use crate::{
    ids::LoopId,
    journal::{
        Batch, FileJournal, Journal, JournalConfig, OutcomeRecord,
        tests::doubles::{WaitingSink, reading},
    },
    reading::Reading,
    recovery::recover,
    script::{ParkReason, Verdict},
    store::{SledConfig, SledStore},
};

/// A node of one loop: it journals, folds in the devices' order, and writes what changed to the store now and then.
struct Node {
    journal: Arc<FileJournal>,
    sink: Arc<WaitingSink>,
    store: Arc<SledStore>,
    /// Up to here everything that the store has is in the journal.
    journaled: Arc<AtomicU64>,
    sent: usize,
    states: BTreeMap<DeviceId, DeviceState>,
    parked: BTreeMap<Position, ParkedReading>,
    unparked: Vec<Position>,
    /// Changed pairs that the store does not have.
    kept: Vec<KeptChange>,
    waiting: BTreeMap<DeviceId, VecDeque<(Position, Reading, bool)>>,
    dice: u64,
}

impl Node {
    fn open(dir: &Path, seed: u64) -> Self {
        let sink = WaitingSink::new();
        let config = JournalConfig {
            segment_bytes: 20_000,
            commit_max_delay: Duration::ZERO,
            gather: Duration::ZERO,
            ..JournalConfig::default()
        };
        let journal = FileJournal::open(&dir.join("journal"), config, Position(1), sink.clone()).unwrap();
        let store = Arc::new(SledStore::open(&dir.join("state"), SledConfig::default()).unwrap());
        Self {
            journal,
            sink,
            store,
            journaled: Arc::default(),
            sent: 0,
            states: BTreeMap::new(),
            parked: BTreeMap::new(),
            unparked: Vec::new(),
            kept: Vec::new(),
            waiting: BTreeMap::new(),
            dice: seed,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn append(&mut self, fill: impl FnOnce(&mut Batch)) -> Position {
        let mut batch = Batch::new(LoopId(0));
        fill(&mut batch);
        self.sent += batch.records();
        self.journal.try_append(batch).unwrap();
        self.sink.wait_for_records(self.sent);
        self.journaled.store(self.sent as u64, Ordering::Release);
        Position(self.sent as u64)
    }

    fn step(&mut self) {
        match self.draw(23) {
            0..=9 => {
                let (number, routed) = (self.draw(60), self.draw(2) == 0);
                let reading = reading(number);
                let position = self.append(|batch| batch.push_reading(&reading, routed).unwrap());
                let device = reading.device.clone();
                self.waiting.entry(device.clone()).or_default().push_back((position, reading, routed));
                self.fold_unrouted(&device);
            }
            10..=16 => self.answer(),
            17 => {
                let Some(position) = self.parked.keys().next().copied() else { return };
                let device = self.parked[&position].reading.device.clone();
                self.append(|batch| batch.push_unparked(&device, position).unwrap());
                self.parked.remove(&position);
                self.unparked.push(position);
            }
            18 => {
                let way = self.draw(1_000);
                let device = DeviceId::new(&format!("brought-{}", way % 10)).unwrap();
                let state = Bytes::from(format!("{{\"way\":{way}}}"));
                let brought = DeviceState { state, version: way, ..DeviceState::empty(device.clone(), 5) };
                let position = self.append(|batch| batch.push_imported(&brought, true).unwrap());
                let (_, state) = crate::fold::fold_import(self.states.get(&device), position, &brought, true);
                self.states.extend(state.map(|state| (device, state)));
            }
            19..=21 => {
                let (key, value) = (format!("key {}", self.draw(40)), self.draw(1_000));
                let value = (value % 3 > 0).then(|| Bytes::from(value.to_string()));
                let change = KeptChange { key: key.into(), value };
                self.append(|batch| batch.push_kept(&change).unwrap());
                self.kept.push(change);
            }
            _ => self.checkpoint(),
        }
    }

    /// The handlers answer for the first reading of some device that waits for them.
    fn answer(&mut self) {
        let waiting: Vec<DeviceId> =
            self.waiting.iter().filter(|(_, queue)| !queue.is_empty()).map(|(id, _)| id.clone()).collect();
        if waiting.is_empty() {
            return;
        }
        let device = waiting[self.draw(waiting.len() as u64) as usize].clone();
        let Some(first) = self.waiting.get_mut(&device).and_then(VecDeque::pop_front) else { return };
        let way = self.draw(1_000);
        let script_state = match way % 2 {
            0 => SmallVec::new(),
            _ => SmallVec::from_iter([("10.js".into(), Bytes::from(way.to_string()))]),
        };
        let verdict = match way % 4 {
            0 => Verdict::Unchanged,
            1 => Verdict::Keep(Bytes::from(format!("{{\"kept\":{way}}}"))),
            2 => Verdict::Dropped { script: "10.js".into() },
            _ => Verdict::Parked { script: "10.js".into(), reason: ParkReason::Threw, message: "boom".into() },
        };
        let outcome = OutcomeRecord { device: device.clone(), reading: first.0, verdict, script_state };
        self.append(|batch| batch.push_outcome(&outcome).unwrap());
        self.fold(&first, &outcome.verdict, &outcome.script_state);
        self.fold_unrouted(&device);
    }

    fn fold_unrouted(&mut self, device: &DeviceId) {
        while let Some(first) = self.waiting.get_mut(device).and_then(|queue| queue.pop_front_if(|next| !next.2)) {
            self.fold(&first, &Verdict::Unchanged, &[]);
        }
    }

    fn fold(&mut self, what: &(Position, Reading, bool), verdict: &Verdict, script_state: &[(Box<str>, Bytes)]) {
        let (position, reading, _) = what;
        self.parked.extend(parked(*position, reading, verdict).map(|parked| (*position, parked)));
        let state = fold_state(self.states.get(&reading.device), *position, reading, verdict, script_state);
        self.states.extend(state.map(|state| (reading.device.clone(), state)));
    }

    fn checkpoint(&mut self) {
        let first = self.waiting.values().flatten().map(|(position, ..)| position.0).min();
        let folded = Position(first.map_or(self.sent as u64, |first| first - 1));
        let states = self.states.values().cloned().collect();
        let parked = self.parked.values().cloned().collect();
        self.store
            .write(
                &Changes {
                    states,
                    parked,
                    unparked: std::mem::take(&mut self.unparked),
                    kept: std::mem::take(&mut self.kept),
                },
                folded,
            )
            .unwrap();
    }
}

fn parked(position: Position, reading: &Reading, verdict: &Verdict) -> Option<ParkedReading> {
    let Verdict::Parked { script, reason, message } = verdict else { return None };
    let (script, reason, message) = (script.clone(), *reason, message.clone());
    Some(ParkedReading { position, reading: reading.clone(), script, reason, message })
}

/// What is to be exported, and how many readings wait.
#[derive(Debug, PartialEq)]
struct Content {
    states: Vec<DeviceState>,
    parked: Vec<ParkedReading>,
    kept: Vec<(Bytes, Bytes)>,
    unfinished: u64,
}

fn exported(export: &Export) -> Content {
    let (mut states, mut parked, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let taken = export.for_each(&mut |entry| {
        match entry {
            Entry::State(state) => states.push(state),
            Entry::Parked(reading) => parked.push(reading),
            Entry::Kept(key, value) => kept.push((key, value)),
        }
        Ok(())
    });
    taken.unwrap();
    assert_eq!((export.devices(), export.parked()), (states.len() as u64, parked.len() as u64));
    Content { states, parked, kept, unfinished: export.unfinished() }
}

/// The records of a journal up to a position, by position.
fn records(journal: &Path, through: Position) -> Vec<(Position, Record)> {
    let mut records = Vec::new();
    journal::read(journal, Position(1), |position, record| {
        if position <= through {
            records.push((position, record));
        }
        if position >= through { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    records
}

/// Device by device, as far as the outcomes go: nothing of the replay's way of doing it.
fn model(records: &[(Position, Record)]) -> Content {
    let mut outcomes = BTreeMap::new();
    let mut queues: BTreeMap<DeviceId, Vec<(Position, &Record)>> = BTreeMap::new();
    let mut unparked = HashSet::new();
    let mut kept = BTreeMap::new();
    for (position, record) in records {
        match record {
            Record::Reading { reading, .. } => {
                queues.entry(reading.device.clone()).or_default().push((*position, record));
            }
            Record::Imported { state, .. } => queues.entry(state.device.clone()).or_default().push((*position, record)),
            Record::Outcome(outcome) => _ = outcomes.insert(outcome.reading, outcome),
            Record::Unparked { position, .. } => _ = unparked.insert(*position),
            Record::Kept(KeptChange { key, value: Some(value) }) => _ = kept.insert(key.clone(), value.clone()),
            Record::Kept(KeptChange { key, value: None }) => _ = kept.remove(key),
        }
    }
    let mut content =
        Content { states: Vec::new(), parked: Vec::new(), kept: kept.into_iter().collect(), unfinished: 0 };
    let mut all_parked = BTreeMap::new();
    for queue in queues.into_values() {
        let mut state: Option<DeviceState> = None;
        let mut rest = queue.iter();
        for (position, record) in rest.by_ref() {
            let next = match record {
                Record::Reading { reading, routed: false } => {
                    fold_state(state.as_ref(), *position, reading, &Verdict::Unchanged, &[])
                }
                Record::Reading { reading, .. } => {
                    let Some(outcome) = outcomes.get(position) else {
                        content.unfinished += 1;
                        break;
                    };
                    all_parked.extend(parked(*position, reading, &outcome.verdict).map(|one| (*position, one)));
                    fold_state(state.as_ref(), *position, reading, &outcome.verdict, &outcome.script_state)
                }
                Record::Imported { state: brought, overwrite } => {
                    crate::fold::fold_import(state.as_ref(), *position, brought, *overwrite).1
                }
                _ => None,
            };
            state = next.or(state);
        }
        content.unfinished += rest.len() as u64;
        content.states.extend(state);
    }
    content.parked = all_parked.into_values().filter(|parked| !unparked.contains(&parked.position)).collect();
    content
}

/// What a node finds that starts from the journal up to there, and from nothing else.
fn recovered(records: &[(Position, Record)]) -> Content {
    let dir = tempfile::tempdir().unwrap();
    let sink = WaitingSink::new();
    let journal =
        FileJournal::open(&dir.path().join("journal"), JournalConfig::default(), Position(1), sink.clone()).unwrap();
    for chunk in records.chunks(500) {
        let mut batch = Batch::new(LoopId(0));
        for (_, record) in chunk {
            match record {
                Record::Reading { reading, routed } => batch.push_reading(reading, *routed).unwrap(),
                Record::Outcome(outcome) => batch.push_outcome(outcome).unwrap(),
                Record::Unparked { device, position } => batch.push_unparked(device, *position).unwrap(),
                Record::Imported { state, overwrite } => batch.push_imported(state, *overwrite).unwrap(),
                Record::Kept(change) => batch.push_kept(change).unwrap(),
            }
        }
        journal.try_append(batch).unwrap();
    }
    sink.wait_for_records(records.len());
    journal.close();
    let found = recover(dir.path(), &mut |previous, position, reading, verdict, script_state| {
        fold_state(previous, position, reading, verdict, script_state)
    });
    let found = found.unwrap();
    let mut parked = found.store.parked(None, usize::MAX).unwrap();
    parked.reverse();
    let states = found.store.page(None, "", usize::MAX).unwrap();
    let mut kept = Vec::new();
    let all = found.store.kept(b"", &mut |key, value| {
        kept.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    });
    all.unwrap();
    Content { states, parked, kept, unfinished: found.unfinished.len() as u64 }
}

#[test]
fn an_export_of_a_node_at_work_is_what_the_journal_says_at_its_position() {
    for seed in [1, 20, 333] {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::open(dir.path(), seed);
        let (store, journaled) = (Arc::clone(&node.store), Arc::clone(&node.journaled));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                node.step();
            }
            node
        });
        let (journal, scratch) = (dir.path().join("journal"), dir.path().join("export"));
        let mut exports = Vec::new();
        while exports.len() < 8 {
            // Each export is of another moment.
            let begun = journaled.load(Ordering::Acquire);
            while journaled.load(Ordering::Acquire) < begun + 40 {
                std::thread::yield_now();
            }
            let base = Base::take(&*store, &scratch, &mut |_| {}).unwrap();
            let at = Position(journaled.load(Ordering::Acquire));
            let export = base.fold(&journal, at).unwrap();
            exports.push((at, exported(&export)));
            drop(export);
            assert!(!scratch.exists(), "the copy goes with the export");
        }
        stop.store(true, Ordering::Relaxed);
        drop(work.join().unwrap());
        for (at, found) in exports {
            let records = records(&journal, at);
            assert_eq!(records.len() as u64, at.0);
            assert_eq!(found, model(&records), "at {at}");
            assert_eq!(found, recovered(&records), "at {at}");
        }
    }
}

#[test]
fn records_that_are_gone_are_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), 5);
    (0..300).for_each(|_| node.step());
    let base = Base::take(&*node.store, &dir.path().join("export"), &mut |_| {}).unwrap();
    let begun = base.snapshot.position;
    (0..3_000).for_each(|_| node.step());
    node.journal.release(Position(node.sent as u64));
    let error = base.fold(&dir.path().join("journal"), Position(node.sent as u64)).unwrap_err();
    assert!(matches!(error, ExportError::Missing { first, .. } if first == begun.plus(1)), "{error}");
}

#[test]
fn an_empty_node_exports_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), 5);
    let base = Base::take(&*node.store, &dir.path().join("export"), &mut |_| {}).unwrap();
    let export = base.fold(&dir.path().join("journal"), Position(0)).unwrap();
    assert_eq!(exported(&export), Content { states: Vec::new(), parked: Vec::new(), kept: Vec::new(), unfinished: 0 });
}
