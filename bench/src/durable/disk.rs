//! The disk: how long an `fdatasync` takes after a write of a given size, alone one after the other, or now and then beside the node.
//!
//! As the journal writes: at the end of what was written, into space that was set aside for the file before.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, fallocate};
use tidegate_actors::limits;

use crate::scenario::record;

/// Time between two syncs beside the node: seldom enough to cost it next to nothing.
const BESIDE_EVERY: Duration = Duration::from_millis(10);

/// Writes and syncs `bytes` again and again for `time`; the times of the syncs go into `sync_us`.
///
/// # Errors
/// The disk's.
pub(crate) fn probe(dir: &Path, bytes: usize, time: Duration, sync_us: &mut Histogram<u64>) -> Result<()> {
    let end = Instant::now() + time;
    sync_until(dir, bytes, Duration::ZERO, || Instant::now() >= end, sync_us)
}

/// Does so every [`BESIDE_EVERY`] for as long as `run` takes.
///
/// # Errors
/// The disk's and those of `run`.
pub(crate) fn beside<T>(
    dir: &Path,
    bytes: usize,
    sync_us: &mut Histogram<u64>,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let disk = scope.spawn(|| sync_until(dir, bytes, BESIDE_EVERY, || over.load(Ordering::Relaxed), sync_us));
        let done = run();
        over.store(true, Ordering::Relaxed);
        disk.join().map_err(|_| anyhow::anyhow!("the probe of the disk panicked"))??;
        done
    })
}

fn sync_until(
    dir: &Path,
    bytes: usize,
    pause: Duration,
    is_over: impl Fn() -> bool,
    sync_us: &mut Histogram<u64>,
) -> Result<()> {
    let content = vec![b'x'; bytes.max(1)];
    let path = dir.join("disk-probe");
    while !is_over() {
        let mut file = File::create(&path)?;
        // A file system that cannot set space aside is measured on a growing file, as the journal would have it.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, limits::SEGMENT_BYTES);
        file.sync_all()?;
        let mut left = limits::SEGMENT_BYTES;
        while left >= content.len() as u64 && !is_over() {
            thread::sleep(pause);
            file.write_all(&content)?;
            left -= content.len() as u64;
            let start = Instant::now();
            file.sync_data()?;
            record(sync_us, start.elapsed());
        }
    }
    fs::remove_file(&path)?;
    Ok(())
}
