//! The power goes at any moment: what was acknowledged is there. On a disk that forgets what was not synced, in any mixture.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    doubles::{WaitingSink, batch, record},
    roundtrip::all,
};
use crate::{
    ids::Position,
    journal::{
        FileJournal, Journal, JournalConfig,
        disk::{Disk, DiskFile},
    },
};

/// Bytes that reach the disk together or not at all.
const SECTOR: usize = 64;

#[derive(Debug, Clone, Default)]
struct ForgetfulFile {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Its name is durable.
    named: bool,
}

#[derive(Debug)]
struct Power {
    files: BTreeMap<PathBuf, ForgetfulFile>,
    /// Calls until the power goes.
    left: usize,
}

/// A disk in memory that loses its power after some calls.
#[derive(Debug, Clone)]
struct ForgetfulDisk(Arc<Mutex<Power>>);

struct Handle {
    disk: ForgetfulDisk,
    path: PathBuf,
}

impl ForgetfulDisk {
    fn new(calls: usize) -> Self {
        Self(Arc::new(Mutex::new(Power { files: BTreeMap::new(), left: calls })))
    }

    fn call<T>(&self, work: impl FnOnce(&mut BTreeMap<PathBuf, ForgetfulFile>) -> T) -> io::Result<T> {
        let mut power = self.0.lock().unwrap();
        if power.left == 0 {
            return Err(io::Error::other("the power is off"));
        }
        power.left -= 1;
        Ok(work(&mut power.files))
    }

    /// What is found after the power came back: of what was not synced, `luck` says what stayed.
    fn lay_out(&self, dir: &Path, mut luck: impl FnMut() -> bool) {
        for (path, file) in &self.0.lock().unwrap().files {
            if !file.named && luck() {
                continue;
            }
            let mut content = file.synced.clone();
            if luck() {
                content.resize(file.written.len().max(content.len()), 0);
            }
            let whole = content.len().min(file.written.len());
            for (sector, bytes) in content[..whole].chunks_mut(SECTOR).enumerate() {
                let written = &file.written[sector * SECTOR..][..bytes.len()];
                if luck() {
                    bytes.copy_from_slice(written);
                }
            }
            fs::write(dir.join(path.file_name().unwrap()), content).unwrap();
        }
    }
}

impl Disk for ForgetfulDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let _ = bytes;
        self.call(|files| files.insert(path.to_owned(), ForgetfulFile::default()))?;
        Ok(Box::new(Handle { disk: self.clone(), path: path.to_owned() }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|files| files.remove(path)).map(|_| ())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.call(|files| files.values_mut().for_each(|file| file.named = true))
    }
}

impl Handle {
    fn with(&self, work: impl FnOnce(&mut ForgetfulFile)) -> io::Result<()> {
        self.disk.call(|files| work(files.get_mut(&self.path).unwrap()))
    }
}

impl DiskFile for Handle {
    fn write(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.with(|file| parts.iter().for_each(|part| file.written.extend_from_slice(part)))
    }
    fn sync(&mut self) -> io::Result<()> {
        self.with(|file| file.synced.clone_from(&file.written))
    }
    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.with(|file| file.written.truncate(bytes as usize))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_acknowledged_survives_a_power_cut(
        calls in 4_usize..80,
        sizes in prop::collection::vec(1_usize..9, 1..40),
        segment_bytes in 300_u64..3_000,
        seed in any::<u64>(),
    ) {
        let unused = tempfile::tempdir().unwrap();
        let (disk, sink) = (ForgetfulDisk::new(calls), WaitingSink::new());
        let config = JournalConfig { segment_bytes, commit_max_delay: Duration::ZERO, gather: Duration::ZERO, segment_age: None };
        let retry = Duration::from_millis(1);
        let journal =
            FileJournal::open_on(Box::new(disk.clone()), retry, unused.path(), config, Position(1), sink.clone());
        let journal = journal.unwrap();
        let mut sent = 0;
        for size in sizes {
            let records = (0..size).map(|i| record((sent + i) as u64)).collect::<Vec<_>>();
            if journal.try_append(batch(0, &records)).is_err() {
                break;
            }
            sent += size;
            // Committed one by one, until the power goes.
            sink.wait(|told| (told.records() == sent || !told.failures.is_empty()).then_some(()));
        }
        journal.close();
        let acknowledged = sink.wait(|told| Some(told.records()));

        let dir = tempfile::tempdir().unwrap();
        let mut state = seed | 1;
        disk.lay_out(dir.path(), || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 4 == 0
        });
        let (found, report) = all(dir.path(), 1);
        prop_assert!(found.len() >= acknowledged, "{} of {acknowledged}: {:?}", found.len(), report);
        for (position, found) in found {
            prop_assert_eq!(found, record(position.0 - 1));
        }
        prop_assert!(report.last.0 >= acknowledged as u64);
    }
}
