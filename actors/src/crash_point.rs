//! Named moments at which the process can be made to kill itself, for `tidegate prove-durability`. Off unless armed, and then
//! one relaxed load a pass. It kills and does nothing else: what is on the disk at that moment is what a crash leaves.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

/// The environment variable that arms a point, read by the node at its start: `journal.after_write:17` kills at the 17th pass.
pub const VARIABLE: &str = "TIDEGATE_CRASH_AT";

/// No point is armed.
const OFF: u8 = u8::MAX;

static ARMED: AtomicU8 = AtomicU8::new(OFF);
static PASSES_LEFT: AtomicU32 = AtomicU32::new(0);

macro_rules! crash_points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A moment of the durable path.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum CrashPoint {
            $($(#[$doc])* $point,)*
        }

        impl CrashPoint {
            /// Every point, in the order of a reading's way.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name, as the variable and the reports have it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

crash_points! {
    /// A group of records is complete in memory.
    JournalBeforeWrite = "journal.before_write",
    /// The group was written to its segment.
    JournalAfterWrite = "journal.after_write",
    /// Its `fdatasync` is next.
    JournalBeforeSync = "journal.before_sync",
    /// It is durable.
    JournalAfterSync = "journal.after_sync",
    /// The loops are about to hear that it is durable.
    AckBefore = "ack.before",
    /// The loops have heard it.
    AckAfter = "ack.after",
    /// A segment is about to be created.
    SegmentBeforeCreate = "segment.before_create",
    /// Its file is there, without a head.
    SegmentAfterCreate = "segment.after_create",
    /// Its head and its name are durable.
    SegmentAfterSync = "segment.after_sync",
    /// A segment that a snapshot covers is about to be deleted.
    SegmentBeforeDelete = "segment.before_delete",
    /// It was deleted.
    SegmentAfterDelete = "segment.after_delete",
    /// Changed states are about to go to the store.
    CheckpointBeforeWrite = "checkpoint.before_write",
    /// sled has flushed them, and our own `fdatasync` is next.
    StoreBeforeSync = "store.before_sync",
    /// sled has them durably, and the side file is about to say so.
    FoldedBeforeWrite = "folded.before_write",
    /// The side file has said so.
    FoldedAfterWrite = "folded.after_write",
    /// The checkpoint is complete.
    CheckpointAfterWrite = "checkpoint.after_write",
    /// A snapshot is about to be written, beside.
    SnapshotBeforeWrite = "snapshot.before_write",
    /// It is written, not synced.
    SnapshotAfterWrite = "snapshot.after_write",
    /// It is synced, not renamed.
    SnapshotBeforeRename = "snapshot.before_rename",
    /// It has its name, which is not synced.
    SnapshotAfterRename = "snapshot.after_rename",
}

impl CrashPoint {
    /// To be called where the point is.
    #[inline]
    pub(crate) fn pass(self) {
        if ARMED.load(Ordering::Relaxed) == self as u8 {
            count_down();
        }
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A point and the pass at which it kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashAt {
    /// The point.
    pub point: CrashPoint,
    /// The pass, from 1.
    pub pass: u32,
}

impl CrashAt {
    /// Arms the point: the process kills itself there.
    pub fn arm(self) {
        PASSES_LEFT.store(self.pass, Ordering::Relaxed);
        ARMED.store(self.point as u8, Ordering::Release);
    }
}

impl fmt::Display for CrashAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.point, self.pass)
    }
}

/// The words are not a point and a pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={0:?} is not <point>:<pass>, such as journal.after_write:17")]
pub struct BadCrashAt(String);

impl FromStr for CrashAt {
    type Err = BadCrashAt;

    fn from_str(words: &str) -> Result<Self, BadCrashAt> {
        let parsed = words.split_once(':').and_then(|(name, pass)| {
            let point = CrashPoint::ALL.iter().copied().find(|point| point.name() == name)?;
            Some(Self { point, pass: pass.parse().ok().filter(|pass| *pass > 0)? })
        });
        parsed.ok_or_else(|| BadCrashAt(words.to_owned()))
    }
}

#[cold]
fn count_down() {
    // Below one: another thread is already killing us.
    if PASSES_LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            // The signal is on its way; nothing may happen after it.
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_named_once_and_found_by_its_name() {
        for (index, point) in CrashPoint::ALL.iter().enumerate() {
            assert_eq!(*point as usize, index);
            let at = CrashAt { point: *point, pass: 17 };
            assert_eq!(at.to_string().parse(), Ok(at));
        }
    }

    #[test]
    fn other_words_are_refused() {
        for words in ["", "journal.after_write", "journal.after_write:", "journal.after_write:0", "journal:1", ":1"] {
            assert_eq!(words.parse::<CrashAt>(), Err(BadCrashAt(words.to_owned())));
        }
    }
}
