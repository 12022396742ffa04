//! Sinks that can be waited for, and records to write.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use smallvec::smallvec;

use crate::{
    ids::{DeviceId, LoopId, Position},
    journal::{Batch, Commit, CommitSink, JournalFailure, OutcomeRecord, Record},
    reading::{Channel, Reading},
    script::{ParkReason, Verdict},
};

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a sink was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) commits: Vec<(LoopId, Vec<Commit>)>,
    pub(crate) failures: Vec<JournalFailure>,
    pub(crate) recoveries: usize,
}

impl Told {
    /// The commits of one loop, in order.
    pub(crate) fn of(&self, owner: LoopId) -> Vec<Commit> {
        self.commits.iter().filter(|(told, _)| *told == owner).flat_map(|(_, commits)| commits.clone()).collect()
    }

    pub(crate) fn records(&self) -> usize {
        self.commits.iter().flat_map(|(_, commits)| commits).map(|commit| commit.records).sum()
    }
}

/// A sink that remembers, and can be waited for.
#[derive(Debug, Default)]
pub(crate) struct WaitingSink {
    told: Mutex<Told>,
    news: Condvar,
}

impl WaitingSink {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until `done`, and gives what it answers.
    pub(crate) fn wait<T>(&self, mut done: impl FnMut(&Told) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut told = self.told.lock().unwrap();
        loop {
            if let Some(answer) = done(&told) {
                return answer;
            }
            let left = deadline.checked_duration_since(Instant::now()).expect("it should have happened by now");
            told = self.news.wait_timeout(told, left).unwrap().0;
        }
    }

    pub(crate) fn wait_for_records(&self, records: usize) {
        self.wait(|told| (told.records() >= records).then_some(()));
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap());
        self.news.notify_all();
    }
}

impl CommitSink for WaitingSink {
    fn committed(&self, owner: LoopId, commits: Vec<Commit>) {
        self.tell(|told| told.commits.push((owner, commits)));
    }

    fn failed(&self, error: &JournalFailure) {
        self.tell(|told| told.failures.push(error.clone()));
    }

    fn recovered(&self) {
        self.tell(|told| told.recoveries += 1);
    }
}

/// A reading that is told from others by its number.
pub(crate) fn reading(number: u64) -> Reading {
    Reading {
        device: DeviceId::new(&format!("pump-{}", number % 7)).unwrap(),
        channel: if number.is_multiple_of(2) { Channel::Metrics } else { Channel::Telemetry },
        device_time: (!number.is_multiple_of(3)).then_some(1_700_000_000_000 + number as i64),
        received: 1_700_000_000_500 + number as i64,
        payload: Bytes::from(format!("{{\"temperature\":{number},\"unit\":\"C\"}}")),
        idempotency: None,
        retry_of: None,
    }
}

/// Any record, told from others by its number: readings mostly, and outcomes of every verdict.
pub(crate) fn record(number: u64) -> Record {
    let verdict = match number % 10 {
        3 => Verdict::Unchanged,
        5 => Verdict::Keep(Bytes::from(format!("{{\"kept\":{number}}}"))),
        7 => Verdict::Dropped { script: "10-enrich.js".into() },
        9 => Verdict::Parked {
            script: "20-alarm.js".into(),
            reason: ParkReason::ALL[number as usize % ParkReason::ALL.len()],
            message: format!("boom {number} 20-alarm.js:3:7").into(),
        },
        routed => return Record::Reading { reading: reading(number), routed: routed == 1 },
    };
    Record::Outcome(OutcomeRecord {
        device: reading(number).device,
        reading: Position(number / 2 + 1),
        verdict,
        script_state: smallvec![("10-enrich.js".into(), Bytes::from(format!("{{\"n\":{number}}}")))],
    })
}

/// A batch of these records.
pub(crate) fn batch(owner: u16, records: &[Record]) -> Batch {
    let mut batch = Batch::new(LoopId(owner));
    for record in records {
        match record {
            Record::Reading { reading, routed } => batch.push_reading(reading, *routed).unwrap(),
            Record::Outcome(outcome) => batch.push_outcome(outcome).unwrap(),
            Record::Unparked { device, position } => batch.push_unparked(device, *position).unwrap(),
            Record::Imported { state, overwrite } => batch.push_imported(state, *overwrite).unwrap(),
            Record::Kept(change) => batch.push_kept(change).unwrap(),
        }
    }
    batch
}
