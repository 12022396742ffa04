//! What the node is compared with: every batch of readings put into sled and made durable before it would be acknowledged.
//!
//! sled alone, with the readings already in memory: no sockets, no parsing, no fold, no acknowledgement. Its settings are those of the
//! node's own store; `flush` alone would not survive a power cut, so its file is synced after it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{process, reading};

/// Coprime with every count of devices that is not its multiple: batches of devices from all over the keys.
const STRIDE: usize = 7_919;

/// How a batch gets into sled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// As sled's own `Batch`: all of it or nothing, as a commit of the journal is.
    Batch,
    /// Entry by entry, in the order of the keys, so that sled touches each page once: a crash may leave a part of it. It is what a
    /// caller does that knows sled well and can do without the other half of the promise.
    Inserts,
}

/// sled with one entry a device.
pub(crate) struct Sled {
    db: sled::Db,
    file: File,
    devices: usize,
    values: Vec<String>,
    /// Readings so far.
    next: usize,
}

/// What sled did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Processor time of this process for a reading, sled's own threads included.
    pub(crate) cpu_us: f64,
}

impl Sled {
    /// sled in `dir`, with every device in it.
    ///
    /// # Errors
    /// sled's.
    pub(crate) fn open(dir: &Path, devices: usize) -> Result<Self> {
        let db = sled::Config::new()
            .path(dir)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(256 * 1024 * 1024)
            .flush_every_ms(Some(500))
            .open()?;
        let file = File::open(dir.join("db"))?;
        let values = (0..reading::VARIANTS).map(|variant| reading::mqtt(variant, variant)).collect();
        let mut sled = Self { db, file, devices, values, next: 0 };
        for _ in 0..devices.div_ceil(1_000) {
            sled.commit(1_000, Way::Inserts)?;
        }
        Ok(sled)
    }

    /// Commits batches of `batch` readings, one after the other, for `time`.
    ///
    /// # Errors
    /// sled's.
    pub(crate) fn run(&mut self, batch: usize, way: Way, time: Duration) -> Result<Rate> {
        let (start, cpu_us) = (Instant::now(), process::own_cpu_us()?);
        let mut readings = 0;
        while start.elapsed() < time {
            self.commit(batch, way)?;
            readings += batch;
        }
        let cpu_us = process::own_cpu_us()? - cpu_us;
        let readings = readings as f64;
        Ok(Rate { per_second: readings / start.elapsed().as_secs_f64(), cpu_us: cpu_us as f64 / readings })
    }

    fn commit(&mut self, batch: usize, way: Way) -> Result<()> {
        let mut devices: Vec<_> = (0..batch).map(|number| (self.next + number) * STRIDE % self.devices).collect();
        self.next += batch;
        devices.sort_unstable();
        let mut together = sled::Batch::default();
        for device in devices {
            // With a number that grows, as a state has its version: what is the same as before sled does not write.
            let value = format!("{}{:016x}", self.values[device % self.values.len()], self.next);
            let key = format!("bench-{device:06}");
            match way {
                Way::Batch => together.insert(key.as_bytes(), value.as_bytes()),
                Way::Inserts => drop(self.db.insert(key, value.as_bytes())?),
            }
        }
        self.db.apply_batch(together)?;
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(())
    }
}
