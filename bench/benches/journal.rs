//! What a durable reading costs: its encoding, which is the processor's, and its commit, which is the disk's.
//!
//! The journal lies in the target folder, so that it is on a disk where the temporary folder is only memory.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tidegate_actors::{
    ids::{LoopId, Position},
    journal::{Batch, Commit, CommitSink, FileJournal, Journal, JournalConfig, JournalFailure},
    reading::Reading,
};

mod setup;

/// Readings to draw from.
const READINGS: usize = 1_000;

fn main() {
    let mut criterion = setup::criterion();
    let readings: Vec<_> = (0..READINGS).map(|n| setup::reading(n, n)).collect();
    encode(&mut criterion, &readings);
    commit(&mut criterion, &readings);
    criterion.final_summary();
}

fn batch(readings: &[Reading]) -> Batch {
    let mut batch = Batch::new(LoopId(0));
    for reading in readings {
        batch.push_reading(reading, false).expect("a small reading");
    }
    batch.set_urgent();
    batch
}

fn encode(criterion: &mut Criterion, readings: &[Reading]) {
    let mut group = criterion.benchmark_group("journal/encode");
    group.throughput(Throughput::Elements(readings.len() as u64));
    group.bench_function("1000", |bencher| bencher.iter(|| batch(readings)));
    group.finish();
}

/// A batch handed over until it is durable, one after the other: a write, an `fdatasync` and two wake-ups each.
fn commit(criterion: &mut Criterion, readings: &[Reading]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (told, commits) = mpsc::channel();
    let journal = FileJournal::open(dir.path(), JournalConfig::default(), Position(1), Arc::new(Sink(told)))
        .expect("a journal in an empty folder");
    let mut group = criterion.benchmark_group("journal/commit");
    group.measurement_time(Duration::from_secs(2));
    for size in [1, 100, 1_000] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let append = |batch| {
                assert!(journal.try_append(batch).is_ok(), "the queue is empty");
                let commit = commits.recv().expect("a journal").expect("a disk that writes");
                assert_eq!(commit.records, size);
                // What lies behind is of no use: the folder must not grow with the samples.
                journal.release(commit.first);
            };
            bencher.iter_batched(|| batch(&readings[..size]), append, BatchSize::PerIteration);
        });
    }
    group.finish();
    journal.close();
}

struct Sink(mpsc::Sender<Result<Commit, JournalFailure>>);

impl CommitSink for Sink {
    fn committed(&self, _: LoopId, commits: Vec<Commit>) {
        for commit in commits {
            // Nobody listens any more when the journal closes.
            let _ = self.0.send(Ok(commit));
        }
    }

    fn failed(&self, error: &JournalFailure) {
        let _ = self.0.send(Err(error.clone()));
    }

    fn recovered(&self) {}
}
