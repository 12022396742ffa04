//! The journal in this process, fed as the loops feed it, without sockets: what a reading costs the loop that encodes it and the
//! journal's thread that makes it durable.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use tidegate_actors::{
    ids::{LoopId, Position},
    journal::{Batch, Commit, CommitSink, FileJournal, Journal, JournalConfig, JournalFailure},
    limits,
    reading::Reading,
};

use crate::{process, reading};

/// Loops that feed the journal.
const LOOPS: u16 = 2;
/// Readings of a loop's turn, flat out: what one read of a busy connection brings.
const TURN: u64 = 64;
/// Time between a loop's turns, paced: each brings what has come since.
const TURN_TIME: Duration = Duration::from_micros(500);
/// Time between two tries to hand a batch to a full queue.
const RETRY: Duration = Duration::from_micros(100);
/// Time after which what is durable is freed again: nobody recovers it, and the disk is not to fill up.
const FREE_EVERY: Duration = Duration::from_millis(500);
/// How long a commit may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a reading cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) per_second: f64,
    /// Processor time of the loop that encodes it, in microseconds.
    pub(crate) encode_us: f64,
    /// Processor time of the journal's thread, in microseconds: queue, positions, CRC, write, `fdatasync`, notice.
    pub(crate) thread_us: f64,
    pub(crate) readings_per_commit: f64,
}

/// Feeds a journal in `dir` from two loops for `time`, at `rate` readings a second in all or as fast as it takes them.
///
/// # Errors
/// A journal that does not open or does not write.
pub(crate) fn measure(dir: &Path, rate: Option<u32>, time: Duration) -> Result<Cost> {
    let sink = Arc::new(Sink::default());
    let journal = FileJournal::open(dir, JournalConfig::default(), Position(1), Arc::<Sink>::clone(&sink) as _)?;
    let readings: Vec<_> = (0..reading::VARIANTS * 64).map(sample).collect();
    let thread_ns = || Ok::<_, anyhow::Error>(process::threads(std::process::id())?.get("journal").copied());
    while thread_ns()?.is_none() {
        // It gives itself its name, and says nothing when it has.
        thread::yield_now();
    }
    let thread_ns = || thread_ns()?.context("the journal's thread has ended");

    let (before, commits, start) = (thread_ns()?, journal.status().commits, Instant::now());
    let fed: Result<Vec<Fed>> = thread::scope(|scope| {
        let loops: Vec<_> = (0..LOOPS)
            .map(|id| {
                let (journal, sink, readings) = (&*journal, &*sink, &readings);
                let rate = rate.map(|rate| f64::from(rate) / f64::from(LOOPS));
                scope.spawn(move || Feeder { id, journal, sink, readings }.run(rate, start + time))
            })
            .collect();
        loops.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a loop panicked"))?).collect()
    });
    let elapsed = start.elapsed();
    let thread_ns = thread_ns()? - before;
    let commits = journal.status().commits - commits;
    journal.close();

    let fed = fed?;
    let readings = fed.iter().map(|fed| fed.readings).sum::<u64>() as f64;
    Ok(Cost {
        per_second: readings / elapsed.as_secs_f64(),
        encode_us: fed.iter().map(|fed| fed.encode_ns).sum::<u64>() as f64 / 1e3 / readings,
        thread_us: thread_ns as f64 / 1e3 / readings,
        readings_per_commit: readings / commits as f64,
    })
}

/// Commits batches of `batch` readings, one after the other, for `time`, and gives the readings a second: what is compared with sled
/// one to one.
///
/// # Errors
/// As [`measure`].
pub(crate) fn one_by_one(dir: &Path, batch: usize, time: Duration) -> Result<f64> {
    let sink = Arc::new(Sink::default());
    let journal = FileJournal::open(dir, JournalConfig::default(), Position(1), Arc::<Sink>::clone(&sink) as _)?;
    let readings: Vec<_> = (0..reading::VARIANTS * 64).map(sample).collect();
    let feeder = Feeder { id: 0, journal: &journal, sink: &sink, readings: &readings };
    let (start, mut done, mut freed) = (Instant::now(), 0, Instant::now());
    while start.elapsed() < time {
        let mut collected = Batch::new(LoopId(0));
        feeder.encode(&mut collected, done..done + batch as u64)?;
        done += batch as u64;
        ensure!(feeder.hand_over(collected).is_empty(), "the queue is not empty");
        sink.wait(0, done)?;
        feeder.free(&mut freed);
    }
    let per_second = done as f64 / start.elapsed().as_secs_f64();
    journal.close();
    Ok(per_second)
}

fn sample(number: usize) -> Reading {
    crate::inside::reading(&format!("bench-{number:06}"), reading::mqtt(number, number % reading::VARIANTS).into())
        .expect("a valid id")
}

/// A loop, as far as the journal sees it.
struct Feeder<'a> {
    id: u16,
    journal: &'a FileJournal,
    sink: &'a Sink,
    readings: &'a [Reading],
}

struct Fed {
    readings: u64,
    encode_ns: u64,
}

impl Feeder<'_> {
    fn run(&self, rate: Option<f64>, end: Instant) -> Result<Fed> {
        let start = Instant::now();
        let clock_ns = clock_cost_ns();
        let mut fed = Fed { readings: 0, encode_ns: 0 };
        let mut batch = Batch::new(LoopId(self.id));
        let mut freed = start;
        while Instant::now() < end {
            if self.id == 0 {
                self.free(&mut freed);
            }
            let due = match rate {
                None => TURN,
                Some(rate) => ((start.elapsed().as_secs_f64() * rate) as u64).saturating_sub(fed.readings),
            };
            if due > 0 {
                let before = thread_cpu_ns();
                self.encode(&mut batch, fed.readings..fed.readings + due)?;
                fed.encode_ns += (thread_cpu_ns() - before).saturating_sub(clock_ns);
                fed.readings += due;
            }
            batch = self.hand_over(batch);
            if rate.is_some() {
                thread::sleep(TURN_TIME);
            } else {
                // As a loop that reads no sockets until there is room again.
                while batch.bytes() >= limits::JOURNAL_BATCH_BYTES {
                    thread::sleep(RETRY);
                    batch = self.hand_over(batch);
                }
                self.sink.wait(self.id, fed.readings.saturating_sub(limits::LOOP_IN_FLIGHT as u64))?;
            }
        }
        while !batch.is_empty() {
            batch = self.hand_over(batch);
            thread::sleep(RETRY);
        }
        self.sink.wait(self.id, fed.readings)?;
        Ok(fed)
    }

    fn encode(&self, batch: &mut Batch, numbers: Range<u64>) -> Result<()> {
        for number in numbers {
            let reading = &self.readings[number as usize % self.readings.len()];
            batch.push_reading(reading, false).context("a reading that is too large")?;
        }
        batch.set_urgent();
        Ok(())
    }

    fn free(&self, last: &mut Instant) {
        if last.elapsed() >= FREE_EVERY {
            *last = Instant::now();
            self.journal.release(self.journal.status().committed);
        }
    }

    /// What the journal's full queue refuses goes on growing.
    fn hand_over(&self, batch: Batch) -> Batch {
        match self.journal.try_append(batch) {
            Ok(()) => Batch::new(LoopId(self.id)),
            Err(back) => back,
        }
    }
}

/// Counts what is durable, and frees what is old.
#[derive(Default)]
struct Sink {
    committed: [AtomicU64; LOOPS as usize],
    failure: Mutex<Option<String>>,
    told: Condvar,
}

impl Sink {
    /// Waits until `readings` of the loop are durable.
    fn wait(&self, id: u16, readings: u64) -> Result<()> {
        let done = || self.committed[usize::from(id)].load(Ordering::Acquire) >= readings;
        if done() {
            return Ok(());
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(failure, PATIENCE, |failure| failure.is_none() && !done());
        let (failure, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(failure.is_none(), "the journal failed: {failure:?}");
        ensure!(done(), "no commit for {PATIENCE:?}");
        Ok(())
    }

    fn tell(&self, failure: Option<String>) {
        let mut told = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            *told = failure;
        }
        self.told.notify_all();
    }
}

impl CommitSink for Sink {
    fn committed(&self, owner: LoopId, commits: Vec<Commit>) {
        let records = commits.iter().map(|commit| commit.records as u64).sum();
        self.committed[owner.index()].fetch_add(records, Ordering::Release);
        self.tell(None);
    }

    fn failed(&self, error: &JournalFailure) {
        self.tell(Some(error.reason.clone()));
    }

    fn recovered(&self) {}
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).unsigned_abs()
}

/// What reading that clock twice costs itself.
fn clock_cost_ns() -> u64 {
    const TIMES: u64 = 1_000;
    let before = thread_cpu_ns();
    for _ in 0..TIMES {
        std::hint::black_box(thread_cpu_ns());
    }
    (thread_cpu_ns() - before) / TIMES
}
