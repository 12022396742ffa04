//! A disk that refuses: acknowledgements stop, nothing is lost, nothing is acknowledged that is not durable.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use proptest::prelude::*;

use super::{
    doubles::{WaitingSink, batch, record},
    roundtrip::{SMALL, all},
};
use crate::{
    ids::{LoopId, Position},
    journal::{
        Commit, CommitSink, FileJournal, Journal, JournalConfig, JournalFailure, Record,
        disk::{Disk, DiskFile, FileSystem},
    },
    limits,
};

const RETRY: Duration = Duration::from_millis(5);

/// What a [`FaultyDisk`] refuses.
#[derive(Debug)]
struct Faults {
    /// Bytes that can still be written: the write that exceeds them is done in part.
    space: AtomicI64,
    /// Writes, syncs, creations and syncs of the directory that will fail with `EIO`; a write is done in part.
    writes: AtomicU64,
    syncs: AtomicU64,
    creates: AtomicU64,
    dir_syncs: AtomicU64,
    /// The disk is too full for a new file.
    create: AtomicBool,
    truncate: AtomicBool,
    remove: AtomicBool,
    /// Syncs of each file: good ones, and bad ones.
    synced: Mutex<HashMap<PathBuf, Vec<bool>>>,
}

impl Faults {
    fn none() -> Arc<Self> {
        Arc::new(Self {
            space: AtomicI64::new(i64::MAX),
            writes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            creates: AtomicU64::new(0),
            dir_syncs: AtomicU64::new(0),
            create: AtomicBool::new(false),
            truncate: AtomicBool::new(false),
            remove: AtomicBool::new(false),
            synced: Mutex::default(),
        })
    }

    fn heal(&self) {
        self.space.store(i64::MAX, SeqCst);
        for fault in [&self.writes, &self.syncs, &self.creates, &self.dir_syncs] {
            fault.store(0, SeqCst);
        }
        for fault in [&self.create, &self.truncate, &self.remove] {
            fault.store(false, SeqCst);
        }
    }
}

#[derive(Debug, Clone)]
struct FaultyDisk(Arc<Faults>);

struct FaultyFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    faults: Arc<Faults>,
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// Takes one of the failures that are to come; `EIO` if there was one.
fn broken(fault: &AtomicU64) -> io::Result<()> {
    let fails = fault.try_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
    if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
}

fn refused(fault: &AtomicBool) -> io::Result<()> {
    if fault.load(SeqCst) { Err(io::Error::other("refused by the test")) } else { Ok(()) }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, _: u64) -> io::Result<Box<dyn DiskFile>> {
        if self.0.create.load(SeqCst) {
            return Err(full());
        }
        broken(&self.0.creates)?;
        let file = FileSystem.create(path, 0)?;
        Ok(Box::new(FaultyFile { file, path: path.to_owned(), faults: self.0.clone() }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        refused(&self.0.remove)?;
        self.0.synced.lock().unwrap().remove(path);
        FileSystem.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        broken(&self.0.dir_syncs)?;
        FileSystem.sync_dir(dir)
    }
}

impl DiskFile for FaultyFile {
    fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes = parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>();
        if let Err(error) = broken(&self.faults.writes) {
            self.file.write(&mut [IoSlice::new(&bytes[..bytes.len() / 2])])?;
            return Err(error);
        }
        let space = self.faults.space.fetch_sub(bytes.len() as i64, SeqCst);
        let fits = bytes.len().min(space.max(0) as usize);
        self.file.write(&mut [IoSlice::new(&bytes[..fits])])?;
        if fits < bytes.len() { Err(full()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        let outcome = broken(&self.faults.syncs);
        self.faults.synced.lock().unwrap().entry(self.path.clone()).or_default().push(outcome.is_ok());
        outcome?;
        self.file.sync()
    }
    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        refused(&self.faults.truncate)?;
        self.file.truncate(bytes)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    faults: Arc<Faults>,
    sink: Arc<WaitingSink>,
    journal: Arc<FileJournal>,
    sent: Vec<Record>,
}

impl Bench {
    fn new(config: JournalConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (faults, sink) = (Faults::none(), WaitingSink::new());
        let disk = Box::new(FaultyDisk(faults.clone()));
        let journal = FileJournal::open_on(disk, RETRY, dir.path(), config, Position(1), sink.clone()).unwrap();
        Self { dir, faults, sink, journal, sent: Vec::new() }
    }

    fn send(&mut self, records: usize) {
        let new = (0..records).map(|i| record((self.sent.len() + i) as u64)).collect::<Vec<_>>();
        self.journal.try_append(batch(0, &new)).unwrap();
        self.sent.extend(new);
    }

    fn commit(&self) {
        self.sink.wait_for_records(self.sent.len());
    }

    fn wait_for_failures(&self, failures: usize) {
        self.sink.wait(|told| (told.failures.len() >= failures).then_some(()));
    }

    /// All that was sent is committed under the positions that were told, and readable.
    fn check(self) -> u64 {
        self.commit();
        self.journal.close();
        let (found, report) = all(self.dir.path(), 1);
        assert!(found.iter().map(|(_, record)| record).eq(&self.sent), "{report:?}");
        assert!(found.iter().map(|(position, _)| position.0).eq(1..=self.sent.len() as u64), "{report:?}");
        assert!(report.missing.is_empty(), "{report:?}");
        let mut next = Position(1);
        self.sink.wait(|told| {
            for commit in told.of(LoopId(0)) {
                assert_eq!(commit.first, next);
                next = next.plus(commit.records as u64);
            }
            Some(())
        });
        for (path, syncs) in &*self.faults.synced.lock().unwrap() {
            let after_failure = syncs.iter().skip_while(|good| **good).skip(1).count();
            assert_eq!(after_failure, 0, "{} was synced again after a failure", path.display());
        }
        report.repeated
    }
}

#[test]
fn a_full_disk_stops_acks_and_loses_nothing() {
    let mut bench = Bench::new(SMALL);
    bench.send(3);
    bench.commit();
    assert!(bench.journal.status().healthy);
    bench.faults.space.store(100, SeqCst);
    bench.faults.create.store(true, SeqCst);
    bench.send(4);
    bench.wait_for_failures(1);
    let status = bench.journal.status();
    assert!(!status.healthy && status.reason.unwrap().contains("no space left"), "the operator reads why");
    assert_eq!(status.committed, Position(3));
    bench.send(2);
    bench.sink.wait(|told| {
        assert_eq!((told.records(), told.failures.len(), told.recoveries), (3, 1, 0));
        assert!(told.failures[0].no_space && told.failures[0].reason.contains(".tgj"), "{:?}", told.failures);
        Some(())
    });
    bench.faults.heal();
    bench.commit();
    bench.sink.wait(|told| (told.recoveries == 1).then_some(()));
    assert!(bench.journal.status().healthy);
    bench.send(1);
    bench.check();
}

#[test]
fn a_failed_sync_is_not_tried_again_on_its_file() {
    let mut bench = Bench::new(SMALL);
    bench.send(3);
    bench.commit();
    bench.faults.syncs.store(1, SeqCst);
    bench.send(4);
    bench.wait_for_failures(1);
    assert_eq!(bench.check(), 0, "the failed write was cut off");
}

/// Every call that the journal makes, broken, in every combination of one and more failures in a row: acknowledgements stop, the
/// operator reads why, and it goes on.
#[test]
fn a_broken_disk_stops_acks_whichever_call_fails() {
    for failures in [1, 2, 3] {
        for (name, from_the_start) in [
            ("write", false),
            ("sync", false),
            ("create", true),
            ("directory sync", true),
            ("write", true),
            ("sync", true),
        ] {
            let what = format!("{name}, {failures} in a row, in a new segment: {from_the_start}");
            let mut bench = Bench::new(SMALL);
            bench.send(3);
            bench.commit();
            if from_the_start {
                // The segment is full: the next group needs a new one.
                while bench.journal.status().bytes < SMALL.segment_bytes - 400 {
                    bench.send(1);
                    bench.commit();
                }
            }
            let faults = bench.faults.clone();
            let fault = match name {
                "write" => &faults.writes,
                "sync" => &faults.syncs,
                "create" => &faults.creates,
                _ => &faults.dir_syncs,
            };
            let before = bench.sent.len();
            fault.store(failures, SeqCst);
            bench.send(12);
            bench.wait_for_failures(1);
            bench.sink.wait(|told| {
                let reason = &told.failures[0].reason;
                assert!(!told.failures[0].no_space && reason.contains("os error 5"), "{what}: {reason}");
                assert!([before, before + 12].contains(&told.records()), "{what}: acknowledged on a broken disk");
                (told.recoveries == 1).then_some(())
            });
            assert!(bench.journal.status().healthy, "{what}");
            bench.send(1);
            bench.check();
        }
    }
}

#[test]
fn a_failed_write_that_cannot_be_cut_off_is_read_once() {
    let mut bench = Bench::new(SMALL);
    bench.send(3);
    bench.commit();
    bench.faults.truncate.store(true, SeqCst);
    bench.faults.syncs.store(1, SeqCst);
    bench.send(4);
    bench.wait_for_failures(1);
    assert_eq!(bench.check(), 4, "both segments hold them");
}

#[test]
fn a_segment_without_a_commit_gives_its_name_back() {
    let mut bench = Bench::new(SMALL);
    bench.faults.space.store(10, SeqCst);
    bench.faults.remove.store(true, SeqCst);
    bench.send(4);
    bench.wait_for_failures(1);
    bench.faults.remove.store(false, SeqCst);
    bench.faults.space.store(i64::MAX, SeqCst);
    bench.commit();
    assert_eq!(bench.journal.status().segments, 1);
    bench.check();
}

#[test]
fn what_waits_behind_a_failure_is_bounded_and_keeps_its_order() {
    let mut bench = Bench::new(SMALL);
    bench.faults.space.store(0, SeqCst);
    bench.send(1);
    bench.wait_for_failures(1);
    for _ in 0..limits::JOURNAL_QUEUE {
        bench.send(2);
    }
    let back = bench.journal.try_append(batch(0, &[record(0)])).unwrap_err();
    assert_eq!(back.records(), 1, "a full queue gives the batch back");
    bench.faults.heal();
    bench.check();
}

#[test]
fn a_journal_that_cannot_write_can_be_closed() {
    let mut bench = Bench::new(SMALL);
    bench.send(3);
    bench.commit();
    bench.faults.syncs.store(u64::MAX, SeqCst);
    bench.send(4);
    bench.wait_for_failures(1);
    bench.journal.close();
    assert!(bench.journal.try_append(batch(0, &[record(0)])).is_err());
    let (found, report) = all(bench.dir.path(), 1);
    assert_eq!((found.len(), report.is_clean()), (3, true), "what was never acknowledged was cut off");
    bench.sink.wait(|told| {
        assert_eq!(told.of(LoopId(0)), [Commit { first: Position(1), records: 3 }]);
        Some(())
    });
}

#[test]
fn a_sink_that_panics_ends_the_journal_and_it_says_so() {
    struct Panicking;
    impl CommitSink for Panicking {
        fn committed(&self, _: LoopId, _: Vec<Commit>) {
            panic!("a bug in the sink");
        }
        fn failed(&self, _: &JournalFailure) {}
        fn recovered(&self) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = FileJournal::open(dir.path(), SMALL, Position(1), Arc::new(Panicking)).unwrap();
    journal.try_append(batch(0, &[record(0)])).unwrap();
    // The queue closes when the thread has ended.
    while journal.try_append(batch(0, &[record(1)])).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    journal.close();
    let status = journal.status();
    assert!(!status.healthy && status.reason.unwrap().contains("a bug in the sink"));
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Space(i64),
    Syncs(u64),
    SyncsAndNoCut(u64),
    Create,
    NoRemove(i64),
    Writes(u64),
    Creates(u64),
    DirSyncs(u64),
}

fn faults() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        3 => Just(None),
        1 => (0_i64..900).prop_map(|bytes| Some(Fault::Space(bytes))),
        1 => (1_u64..4).prop_map(|syncs| Some(Fault::Syncs(syncs))),
        1 => (1_u64..4).prop_map(|syncs| Some(Fault::SyncsAndNoCut(syncs))),
        1 => Just(Some(Fault::Create)),
        1 => (0_i64..900).prop_map(|bytes| Some(Fault::NoRemove(bytes))),
        1 => (1_u64..4).prop_map(|writes| Some(Fault::Writes(writes))),
        1 => (1_u64..4).prop_map(|creates| Some(Fault::Creates(creates))),
        1 => (1_u64..4).prop_map(|syncs| Some(Fault::DirSyncs(syncs))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever fails, and however often: all is committed once the disk is well, once and in order.
    #[test]
    fn any_faults_lose_nothing(steps in prop::collection::vec((1_usize..12, faults()), 1..12)) {
        let mut bench = Bench::new(JournalConfig { segment_bytes: 1_500, commit_max_delay: Duration::ZERO, gather: Duration::ZERO, segment_age: None });
        for (records, fault) in steps {
            match fault {
                None => {}
                Some(Fault::Space(bytes)) => bench.faults.space.store(bytes, SeqCst),
                Some(Fault::Syncs(syncs)) => bench.faults.syncs.store(syncs, SeqCst),
                Some(Fault::SyncsAndNoCut(syncs)) => {
                    bench.faults.truncate.store(true, SeqCst);
                    bench.faults.syncs.store(syncs, SeqCst);
                }
                Some(Fault::Writes(writes)) => bench.faults.writes.store(writes, SeqCst),
                Some(Fault::Creates(creates)) => bench.faults.creates.store(creates, SeqCst),
                Some(Fault::DirSyncs(syncs)) => bench.faults.dir_syncs.store(syncs, SeqCst),
                Some(Fault::Create) => bench.faults.create.store(true, SeqCst),
                Some(Fault::NoRemove(bytes)) => {
                    bench.faults.remove.store(true, SeqCst);
                    bench.faults.space.store(bytes, SeqCst);
                }
            }
            bench.send(records);
            let sent = bench.sent.len();
            bench.sink.wait(|told| {
                (told.records() == sent || told.failures.len() > told.recoveries).then_some(())
            });
            bench.faults.heal();
            bench.commit();
        }
        bench.check();
    }
}
