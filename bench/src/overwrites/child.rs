//! The runtime without sockets and handlers, overwriting: journal → fold → checkpoint → sled, wired as the node wires it.
//!
//! Each loop feeds its own devices, as connections of its own would: as many readings at a time as may be unacknowledged.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use tidegate_actors::{
    blocking::BlockingPool,
    checkpoint::{CheckpointConfig, Checkpointer},
    clock::SystemClock,
    fold::{Folded, fold},
    handover::Handover,
    inbox,
    journal::{FileJournal, Journal, JournalConfig, Retention},
    limits,
    loop_handle::{Edge, LoopHandle},
    loop_sink::LoopSink,
    reading::AckLevel,
    recovery::{self, Recovered},
    runtime::{Runtime, RuntimeHandle, Services},
    script::NoScripts,
    store::{SledConfig, StateStore},
    submission::{Ack, AckTo, Answer, Submission},
    turn::Shown,
};

use super::Million;
use crate::{inside, process, reading};

/// How large the journal may grow: small, so that its segments are freed all the time.
pub(crate) const RETENTION_BYTES: u64 = 64 << 20;
/// Small for the same reason.
const SEGMENT_BYTES: u64 = 16 << 20;
/// As the node's default.
const SLED_CACHE_BYTES: u64 = 256 << 20;
const LOOPS: usize = 2;
/// Unacknowledged readings of a loop.
const WINDOW: u64 = 8_192;
/// Readings that a loop takes in between two turns.
const TURN: u64 = 1_024;
/// Time between two looks at memory and disk.
const LOOK: Duration = Duration::from_millis(100);
/// Without a reading for so long the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Overwrites, and prints a line of JSON about each million.
///
/// # Errors
/// A runtime that does not start, refuses a reading, or does not go on.
pub(crate) fn run(dir: &Path, devices: usize, rate: Option<u32>, millions: u64) -> Result<()> {
    let sled = SledConfig { cache_bytes: SLED_CACHE_BYTES };
    let recovered = recovery::recover_with(dir, sled, &mut |previous, position, reading, verdict, script_state| {
        Folded::into_state(fold(previous, position, reading, verdict, script_state))
    })?;
    let Recovered { store, next, lifetime, data, lock, .. } = recovered;
    let (outlets, inboxes): (Vec<_>, Vec<_>) = (0..LOOPS).map(|_| inbox::inbox(limits::LOOP_INBOX)).unzip();
    let sink = Arc::new(LoopSink::new(outlets.clone()));
    let config = JournalConfig { segment_bytes: SEGMENT_BYTES, ..JournalConfig::default() };
    let journal: Arc<dyn Journal> = FileJournal::open(&data.journal(), config, next, sink)?;
    let retention = Retention { bytes: RETENTION_BYTES, age: None };
    let checkpoints = CheckpointConfig { retention, ..CheckpointConfig::new(data.snapshots(), LOOPS) };
    let checkpointer =
        Checkpointer::start(Arc::clone(&store) as Arc<dyn StateStore>, Arc::clone(&journal), checkpoints)?;
    let services = Arc::new(Services {
        clock: Arc::new(SystemClock),
        journal,
        scripts: Arc::new(NoScripts),
        store,
        checkpointer,
        pool: Arc::new(BlockingPool::new(limits::BLOCKING_THREADS, limits::BLOCKING_JOBS)?),
        outlets,
        handovers: (0..LOOPS).map(|_| Handover::default()).collect(),
        commit_max_delay: limits::COMMIT_MAX_DELAY,
        gather: limits::GATHER,
        checkpoint_interval: limits::CHECKPOINT_INTERVAL,
        panics: AtomicU64::new(0),
        heartbeats: inboxes.iter().map(|_| AtomicU64::new(0)).collect(),
        started: Instant::now(),
    });

    let order =
        Arc::new(Order { devices, total: millions * 1_000_000, rate, start: Instant::now(), done: Done::default() });
    let feed = Arc::clone(&order);
    let watched = Arc::clone(&services);
    actix_rt::System::new().block_on(async move {
        let runtime = Runtime::start(RuntimeHandle::new(services, lifetime), inboxes, move |handle| {
            let feeder = Feeder::new(handle.clone(), Arc::clone(&feed));
            handle.set_edge(Rc::new(feeder));
            handle.wake();
        })?;
        watch(&order, &watched, dir).await?;
        ensure!(runtime.drain(PATIENCE).await, "readings are still under way");
        ensure!(runtime.stop().await, "the last checkpoint is not complete");
        Ok(())
    })?;
    drop(lock);
    Ok(())
}

/// What is to be done, and what is.
struct Order {
    devices: usize,
    total: u64,
    rate: Option<u32>,
    start: Instant,
    done: Done,
}

#[derive(Default)]
struct Done {
    committed: AtomicU64,
    refused: AtomicU64,
}

/// Looks at memory and disk until all is done.
async fn watch(order: &Order, services: &Services, dir: &Path) -> Result<()> {
    let mut peak = Million::default();
    let (mut moved, mut last) = (Instant::now(), 0);
    for number in 1..=order.total / 1_000_000 {
        loop {
            let done = order.done.committed.load(Ordering::Relaxed);
            look(&mut peak, dir);
            if done >= number * 1_000_000 {
                break;
            }
            let refused = order.done.refused.load(Ordering::Relaxed);
            ensure!(refused == 0, "{refused} readings were refused");
            if done > last {
                (moved, last) = (Instant::now(), done);
            }
            ensure!(moved.elapsed() < PATIENCE, "nothing moves after {done} readings: {:?}", services.journal.status());
            actix_rt::time::sleep(LOOK).await;
        }
        let checkpoint = services.checkpointer.status();
        ensure!(checkpoint.healthy, "checkpoints fail: {:?}", checkpoint.reason);
        peak.number = number;
        peak.seconds = order.start.elapsed().as_secs_f64();
        peak.checkpoints = checkpoint.written;
        writeln!(io::stdout(), "{}", serde_json::to_string(&peak)?)?;
        peak = Million::default();
    }
    Ok(())
}

fn look(peak: &mut Million, dir: &Path) {
    let raise = |peak: &mut u64, now: u64| *peak = now.max(*peak);
    raise(&mut peak.rss_bytes, process::own_rss_bytes());
    raise(&mut peak.sled_bytes, inside::disk_bytes(&dir.join("state")));
    raise(&mut peak.journal_bytes, inside::disk_bytes(&dir.join("journal")));
    raise(&mut peak.snapshot_bytes, inside::disk_bytes(&dir.join("snapshots")));
    raise(&mut peak.data_bytes, inside::disk_bytes(dir));
}

/// The connections of one loop's devices, as far as the loop sees them.
struct Feeder {
    handle: LoopHandle,
    order: Arc<Order>,
    /// The numbers of this loop's devices.
    devices: Vec<usize>,
    payloads: Vec<String>,
    /// This loop's share of the readings.
    share: u64,
    submitted: Cell<u64>,
    acked: Cell<u64>,
}

impl Feeder {
    fn new(handle: LoopHandle, order: Arc<Order>) -> Self {
        let mine = |device: &usize| handle.owner_of(&name(*device)) == handle.id();
        let devices: Vec<_> = (0..order.devices).filter(mine).collect();
        // Rounded up: the shares together are not less than the total.
        let share = (order.total * devices.len() as u64).div_ceil(order.devices as u64);
        let payloads = (0..reading::VARIANTS).map(|variant| reading::mqtt(variant, variant)).collect();
        Self { handle, order, devices, payloads, share, submitted: Cell::new(0), acked: Cell::new(0) }
    }

    fn feed(&self) {
        let first = self.submitted.get();
        let due = match self.order.rate {
            None => self.share,
            Some(rate) => {
                let rate = f64::from(rate) * self.share as f64 / self.order.total as f64;
                self.share.min((self.order.start.elapsed().as_secs_f64() * rate) as u64)
            }
        };
        let until = due.min(self.acked.get() + WINDOW).min(first + TURN);
        if self.handle.is_pressed() {
            return;
        }
        for number in first..until {
            let device = self.devices[(number % self.devices.len() as u64) as usize];
            let payload = &self.payloads[(number / self.devices.len() as u64) as usize % self.payloads.len()];
            // A device's own copy, as from a socket: it stays in memory as long as it is the latest.
            let Ok(reading) = inside::reading(&name(device), Bytes::copy_from_slice(payload.as_bytes())) else {
                continue;
            };
            let ack = Some(AckTo { home: self.handle.id(), key: 0, item: 0 });
            self.handle.submit(Submission { reading, level: AckLevel::Committed, ack });
        }
        self.submitted.set(until.max(first));
    }
}

impl Edge for Feeder {
    fn on_acks(&self, acks: Vec<Ack>) {
        let committed = acks.iter().filter(|ack| ack.answer == Answer::Committed).count() as u64;
        self.acked.set(self.acked.get() + committed);
        self.order.done.committed.fetch_add(committed, Ordering::Relaxed);
        self.order.done.refused.fetch_add(acks.len() as u64 - committed, Ordering::Relaxed);
    }

    fn on_shown(&self, _: Vec<Shown>) {}

    fn on_turn_end(&self) {
        self.feed();
    }
}

fn name(device: usize) -> String {
    format!("bench-{device:06}")
}
