//! Checkpoints: coalesced, on time, durable before they are told, and never beyond the slowest loop.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;

use super::*;
use crate::{
    dirty,
    journal::{
        CommitMode, FileJournal, JournalConfig, JournalStatus, MemoryJournal,
        tests::doubles::{WaitingSink, batch, record},
    },
    state::ParkedReading,
    store::{Changes, MemoryStore, tests::state},
};

/// A store in memory that counts writes, and refuses them on demand.
#[derive(Debug, Default)]
struct FaultyStore {
    memory: MemoryStore,
    refuses: AtomicBool,
    writes: AtomicU64,
}

impl StateStore for FaultyStore {
    fn get(&self, device: &str) -> Result<Option<DeviceState>, StoreError> {
        self.memory.get(device)
    }
    fn page(&self, after: Option<&str>, prefix: &str, limit: usize) -> Result<Vec<DeviceState>, StoreError> {
        self.memory.page(after, prefix, limit)
    }
    fn count(&self) -> u64 {
        self.memory.count()
    }
    fn write(&self, changes: &Changes, folded: Position) -> Result<(), StoreError> {
        self.writes.fetch_add(1, SeqCst);
        if self.refuses.load(SeqCst) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { what: "write", path: "a full disk".into(), source });
        }
        self.memory.write(changes, folded)
    }
    fn folded(&self) -> Position {
        self.memory.folded()
    }
    fn parked(&self, before: Option<Position>, limit: usize) -> Result<Vec<ParkedReading>, StoreError> {
        self.memory.parked(before, limit)
    }
    fn parked_dropped(&self) -> u64 {
        self.memory.parked_dropped()
    }
    fn for_each(&self, each: &mut dyn FnMut(DeviceState) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.memory.for_each(each)
    }
    fn kept_count(&self) -> u64 {
        self.memory.kept_count()
    }
    fn kept_page(&self, after: Option<&[u8]>, prefix: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.memory.kept_page(after, prefix, limit)
    }
    fn size_on_disk(&self) -> u64 {
        0
    }
}

struct Bench {
    store: Arc<FaultyStore>,
    checkpointer: Arc<Checkpointer>,
    _dir: tempfile::TempDir,
}

fn bench(loops: usize, interval: Duration) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FaultyStore::default());
    let journal = MemoryJournal::new(Position(1), CommitMode::Manual, WaitingSink::new());
    let config = CheckpointConfig { interval, ..CheckpointConfig::new(dir.path().join("snapshots"), loops) };
    let checkpointer = Checkpointer::start(store.clone(), journal, config).unwrap();
    Bench { store, checkpointer, _dir: dir }
}

impl Bench {
    fn submit(&self, owner: u16, states: Vec<DeviceState>, folded_through: u64) {
        let owner = LoopId(owner);
        let folded_through = Position(folded_through);
        let mut batch =
            CheckpointBatch { owner, states, parked: ParkedChanges::default(), kept: Vec::new(), folded_through };
        while let Err(back) = self.checkpointer.try_submit(batch) {
            batch = back;
            std::thread::yield_now();
        }
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.checkpointer.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_latest_state_of_each_device_is_written_once() {
    let bench = bench(1, Duration::from_secs(3600));
    for position in 1..=50 {
        bench.submit(0, vec![state(1, position), state(2, position)], position);
    }
    assert_eq!(bench.store.count(), 0, "it is not time yet");
    bench.checkpointer.stop().unwrap();
    assert_eq!((bench.store.writes.load(SeqCst), bench.store.count()), (1, 2));
    assert_eq!(bench.store.get("pump-001").unwrap(), Some(state(1, 50)));
    assert_eq!((bench.store.folded(), bench.checkpointer.written_through(LoopId(0))), (Position(50), 50));
    let late = CheckpointBatch {
        owner: LoopId(0),
        states: vec![],
        parked: ParkedChanges::default(),
        kept: Vec::new(),
        folded_through: Position(51),
    };
    assert!(bench.checkpointer.try_submit(late).is_err(), "it has ended");
    bench.checkpointer.stop().unwrap();
}

#[test]
fn the_slowest_loop_holds_the_position() {
    let bench = bench(2, Duration::from_millis(5));
    bench.submit(0, vec![state(1, 40)], 40);
    bench.wait("its state is written all the same", || bench.checkpointer.written_through(LoopId(0)) == 1);
    assert_eq!((bench.store.folded(), bench.store.count()), (Position(0), 1));
    assert_eq!(bench.checkpointer.written_through(LoopId(1)), 0);
    // A loop without readings says how far it has come.
    bench.submit(1, Vec::new(), 30);
    bench.wait("the least counts", || bench.store.folded() == Position(30));
    bench.submit(1, Vec::new(), 90);
    bench.wait("the least counts", || bench.store.folded() == Position(40));
    assert_eq!(bench.checkpointer.status().folded, Position(40));
    bench.checkpointer.stop().unwrap();
}

#[test]
fn a_store_that_refuses_gets_it_all_later() {
    let bench = bench(1, Duration::from_millis(2));
    bench.store.refuses.store(true, SeqCst);
    bench.submit(0, vec![state(1, 5)], 5);
    bench.wait("it is told", || !bench.checkpointer.status().healthy);
    assert!(bench.checkpointer.status().reason.unwrap().contains("a full disk"));
    assert_eq!(bench.checkpointer.written_through(LoopId(0)), 0, "not durable, not told");
    bench.submit(0, vec![state(2, 6)], 6);
    bench.store.refuses.store(false, SeqCst);
    bench.wait("it is written", || bench.checkpointer.written_through(LoopId(0)) == 2);
    assert!(bench.checkpointer.status().healthy);
    assert_eq!((bench.store.folded(), bench.store.count()), (Position(6), 2));
    bench.store.refuses.store(true, SeqCst);
    bench.submit(0, vec![state(3, 7)], 7);
    assert!(bench.checkpointer.stop().is_err(), "the last checkpoint was not written, and that is told");
}

#[test]
fn memory_is_bounded_while_the_store_refuses() {
    let bench = bench(1, Duration::from_millis(2));
    bench.store.refuses.store(true, SeqCst);
    let states = (0..dirty::STATES as u64).map(|device| state(device, 1)).collect::<Vec<_>>();
    bench.submit(0, states, 1);
    bench.wait("it is tried before its time", || bench.store.writes.load(SeqCst) > 0);
    let one = || CheckpointBatch {
        owner: LoopId(0),
        states: vec![],
        parked: ParkedChanges::default(),
        kept: Vec::new(),
        folded_through: Position(2),
    };
    bench.wait("the queue fills up", || bench.checkpointer.try_submit(one()).is_err());
    assert!(bench.checkpointer.stop().is_err());
}

#[test]
fn batches_that_keep_coming_do_not_put_a_checkpoint_off() {
    let bench = bench(1, Duration::from_millis(10));
    bench.wait("a checkpoint in the middle of it", || {
        for position in 1..10 {
            bench.submit(0, vec![state(1, position)], position);
        }
        bench.store.writes.load(SeqCst) > 2
    });
    bench.checkpointer.stop().unwrap();
}

/// A journal in files, and a checkpoint after each record, until `enough`. Checks after each step that what was freed is
/// covered by the older of the snapshots. Returns the positions of the snapshots, the newest first.
fn keeps_house(retention: Retention, enough: impl Fn(&JournalStatus, u64) -> bool) -> (tempfile::TempDir, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let (sink, store) = (WaitingSink::new(), Arc::new(MemoryStore::new()));
    let config = JournalConfig {
        segment_bytes: 1_000,
        commit_max_delay: Duration::ZERO,
        gather: Duration::ZERO,
        segment_age: retention.segment_age(),
    };
    let journal = FileJournal::open(&dir.path().join("journal"), config, Position(1), sink.clone()).unwrap();
    let snapshot_dir = dir.path().join("snapshots");
    let config = CheckpointConfig {
        interval: Duration::from_millis(1),
        retention,
        ..CheckpointConfig::new(snapshot_dir.clone(), 1)
    };
    let checkpointer = Checkpointer::start(store, journal.clone(), config).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut position = 0;
    loop {
        position += 1;
        journal.try_append(batch(0, &[record(position)])).unwrap();
        sink.wait_for_records(position as usize);
        let states = vec![state(1, position)];
        let folded_through = Position(position);
        let parked = ParkedChanges::default();
        checkpointer
            .try_submit(CheckpointBatch { owner: LoopId(0), states, parked, kept: Vec::new(), folded_through })
            .unwrap();
        while checkpointer.written_through(LoopId(0)) < position {
            std::thread::yield_now();
        }
        let first = std::fs::read_dir(dir.path().join("journal")).unwrap();
        let first = first.filter_map(|entry| entry.unwrap().path().file_stem()?.to_str()?.parse::<u64>().ok()).min();
        // The older one, as it is now or will be in a moment: never later than that.
        let snapshots = snapshot::list(&snapshot_dir).unwrap();
        let older = snapshots.get(1).map_or(0, |older| older.position.0);
        assert!(first.unwrap() <= older + 1, "{first:?} freed what {older} does not cover");
        if enough(&journal.status(), first.unwrap()) {
            checkpointer.stop().unwrap();
            return (dir, snapshots.iter().map(|snapshot| snapshot.position.0).collect());
        }
        assert!(Instant::now() < deadline, "{:?}", journal.status());
    }
}

#[test]
fn the_journal_is_bounded_by_bytes_and_keeps_them() {
    let most = std::cell::Cell::new(0);
    let retention = Retention { bytes: 10_000, age: None };
    let (_dir, snapshots) = keeps_house(retention, |journal, first| {
        most.set(most.get().max(journal.bytes));
        assert!(first == 1 || journal.bytes > 8_000, "what is within the retention is kept: {journal:?}");
        journal.records == 1_000
    });
    assert!(most.get() < 12_000, "at most the retention and a segment: {most:?}");
    assert_eq!(snapshots.len(), snapshot::KEPT);
}

#[test]
fn the_journal_is_bounded_by_age() {
    let retention = Retention { bytes: u64::MAX, age: Some(Duration::from_millis(160)) };
    keeps_house(retention, |_, first| first > 300);
}

#[test]
fn a_journal_without_a_bound_by_age_keeps_what_is_within_the_bytes() {
    let retention = Retention { bytes: 1_000_000, age: None };
    let (_dir, snapshots) = keeps_house(retention, |journal, first| {
        assert_eq!(first, 1);
        journal.records == 500
    });
    assert!(snapshots.is_empty(), "no snapshot is needed yet: {snapshots:?}");
}
