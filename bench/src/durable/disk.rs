//! The disk alone: how long an `fdatasync` takes after a write of a given size, one after the other.
//!
//! As the journal writes: at the end of what was written, into space that was set aside for the file before.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, fallocate};
use tidegate_actors::limits;

use crate::scenario::record;

/// Writes and syncs `bytes` again and again for `time`; the times of the syncs go into `sync_us`.
///
/// # Errors
/// The disk's.
pub(crate) fn probe(dir: &Path, bytes: usize, time: Duration, sync_us: &mut Histogram<u64>) -> Result<()> {
    let content = vec![b'x'; bytes.max(1)];
    let path = dir.join("disk-probe");
    let end = Instant::now() + time;
    while Instant::now() < end {
        let mut file = File::create(&path)?;
        // A file system that cannot set space aside is measured on a growing file, as the journal would have it.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, limits::SEGMENT_BYTES);
        file.sync_all()?;
        let mut left = limits::SEGMENT_BYTES;
        while left >= content.len() as u64 && Instant::now() < end {
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
