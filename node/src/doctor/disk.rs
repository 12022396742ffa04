//! The data directory's disk: is there room, and how long does it take to make something durable?

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, Mode, OFlags, openat, statfs, statvfs};
use serde_json::json;
use tidegate_actors::recovery::DataDir;

use super::report::{Check, bytes, count};
use crate::config::Data;

const SPACE: &str = "disk space";
const LATENCY: &str = "disk latency";

/// What the store may take besides the journal, at least.
const VIEW_BYTES: u64 = 256 << 20;
/// Free inodes below which somebody should look.
const FEW_INODES: u64 = 1_000;
/// Samples of the disk's latency, and the longest that they may take together.
const SAMPLES: usize = 16;
const SAMPLING: Duration = Duration::from_secs(3);
/// A sync slower than this makes every acknowledgement slow.
const SLOW: Duration = Duration::from_millis(20);
/// One sync slower than this is a hiccup that devices notice.
const HICCUP: Duration = Duration::from_millis(200);
/// No medium is as fast as this.
const TOO_FAST: Duration = Duration::from_micros(15);

/// Free bytes and inodes, against what the journal may still grow by.
pub(super) fn space(data: &DataDir, config: &Data) -> Check {
    let place = existing(data.path());
    let disk = match statvfs(&place) {
        Ok(disk) => disk,
        Err(error) => {
            let advice = "check the path and its permissions";
            return Check::fail(SPACE, format!("cannot ask for the room at {}: {error}", place.display()), advice);
        }
    };
    let journal = bytes_in(&data.journal());
    let wanted = (config.journal_retention_bytes + 2 * config.segment_bytes).saturating_sub(journal) + VIEW_BYTES;
    judge_space(
        disk.f_bavail.saturating_mul(disk.f_frsize),
        wanted,
        config.segment_bytes,
        (disk.f_files, disk.f_favail),
    )
}

fn judge_space(free: u64, wanted: u64, segment: u64, (inodes, free_inodes): (u64, u64)) -> Check {
    // Some file systems count no inodes.
    let few = inodes > 0 && free_inodes < FEW_INODES;
    let of_inodes = if inodes > 0 { format!(", {} inodes", count(free_inodes)) } else { String::new() };
    let summary = format!("{}{of_inodes} are free; the data may grow by {}", bytes(free), bytes(wanted));
    let details = json!({ "freeBytes": free, "wantedBytes": wanted, "freeInodes": free_inodes });
    let make_room = "make room, or lower data.journal_retention_bytes. On a full disk acknowledgements stop; nothing that \
                     was acknowledged is lost";
    if free < segment || (inodes > 0 && free_inodes == 0) {
        Check::fail(SPACE, summary, make_room)
    } else if free < wanted || few {
        Check::warn(SPACE, summary, make_room)
    } else {
        Check::ok(SPACE, summary)
    }
    .with(details)
}

/// The time of a write of a page and its `fdatasync`, in a file without a name: nothing is left of it.
pub(super) fn latency(data: &DataDir) -> Check {
    let place = existing(data.path());
    let kind = statfs(&place).map(|disk| Kind::of(u32::try_from(disk.f_type).unwrap_or(0))).unwrap_or(Kind::Other);
    match sample(&place) {
        Ok(samples) => judge_latency(kind, samples),
        Err(error) => {
            let summary = format!("not measured: {} takes no file without a name ({error})", place.display());
            Check::warn(LATENCY, summary, "nothing, if the directory is not there yet or is another user's")
        }
    }
}

fn sample(place: &Path) -> io::Result<Vec<Duration>> {
    let mut file = File::from(openat(CWD, place, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?);
    let begin = Instant::now();
    let mut samples = Vec::with_capacity(SAMPLES);
    while samples.len() < SAMPLES && begin.elapsed() < SAMPLING {
        let start = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    Ok(samples)
}

fn judge_latency(kind: Kind, mut samples: Vec<Duration>) -> Check {
    samples.sort_unstable();
    let (median, most) = (samples[samples.len() / 2], samples[samples.len() - 1]);
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let summary = format!("fdatasync p50 {}, max {} of {} ({})", ms(median), ms(most), samples.len(), kind.words());
    let details = json!({
        "p50Ms": median.as_secs_f64() * 1e3, "maxMs": most.as_secs_f64() * 1e3,
        "samples": samples.len(), "fileSystem": kind.words(),
    });
    match kind {
        Kind::Network(_) => Check::warn(
            LATENCY,
            summary,
            "use a local disk: locks and syncs over a network may not hold what they promise",
        ),
        Kind::Memory => Check::warn(LATENCY, summary, "use a disk: this one is gone with the machine's power"),
        _ if median < TOO_FAST => {
            let advice = "ask what is below: nothing durable answers so fast. A cache that is not written through loses \
                          acknowledged readings when the power goes";
            Check::warn(LATENCY, summary, advice)
        }
        _ if median > SLOW || most > HICCUP => {
            let advice = "use a faster disk, or find out who else uses it: an acknowledgement takes at least this long";
            Check::warn(LATENCY, summary, advice)
        }
        _ => Check::ok(LATENCY, summary),
    }
    .with(details)
}

/// What a directory is on, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Behind a network.
    Network(&'static str),
    /// In memory.
    Memory,
    /// Anything else.
    Other,
}

impl Kind {
    /// By the magic number of `statfs(2)`.
    fn of(magic: u32) -> Self {
        match magic {
            0x6969 => Self::Network("NFS"),
            0x517b | 0xff53_4d42 | 0xfe53_4d42 => Self::Network("SMB"),
            0x00c3_6400 => Self::Network("Ceph"),
            0x0102_1997 => Self::Network("9p"),
            0x6573_5546 => Self::Network("FUSE"),
            0x0102_1994 | 0x8584_58f6 => Self::Memory,
            _ => Self::Other,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Network(name) => name,
            Self::Memory => "a file system in memory",
            Self::Other => "a local file system",
        }
    }
}

/// The path itself, or the nearest directory above it that is there.
fn existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Bytes of the files in a directory, as far as it can be read.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};

    #[test]
    fn a_disk_is_judged_by_what_the_data_may_still_grow_by() {
        let check = |free, inodes| judge_space(free, 1 << 30, 64 << 20, inodes).status;
        assert_eq!(check(2 << 30, (0, 0)), Status::Ok);
        assert_eq!(check(500 << 20, (0, 0)), Status::Warn);
        assert_eq!(check(10 << 20, (0, 0)), Status::Fail);
        assert_eq!(check(2 << 30, (1_000_000, 12)), Status::Warn);
        assert_eq!(check(2 << 30, (1_000_000, 0)), Status::Fail);
    }

    #[test]
    fn slow_disks_disks_that_lie_and_networks_are_told() {
        let ms = Duration::from_millis;
        let check = |kind, samples: &[Duration]| judge_latency(kind, samples.to_vec()).status;
        assert_eq!(check(Kind::Other, &[ms(2), ms(3), ms(9)]), Status::Ok);
        assert_eq!(check(Kind::Other, &[ms(2), ms(3), ms(900)]), Status::Warn);
        assert_eq!(check(Kind::Other, &[ms(30), ms(30), ms(30)]), Status::Warn);
        assert_eq!(check(Kind::Other, &[Duration::from_micros(3); 5]), Status::Warn);
        assert_eq!(check(Kind::of(0x6969), &[ms(2)]), Status::Warn);
        assert_eq!(check(Kind::of(0x0102_1994), &[ms(2)]), Status::Warn);
        assert_eq!(Kind::of(0xef53), Kind::Other, "ext4");
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let check = latency(&DataDir::new(dir.path().join("not/there/yet")));
        assert!(check.summary.starts_with("fdatasync p50") || check.summary.starts_with("not measured"), "{check:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
