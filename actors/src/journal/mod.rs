//! The journal: every reading and every handler's outcome, in one order, durable before it is acknowledged.
//!
//! The path of a record is one file a step: `record` (what is stored) → `batch` (a loop collects and encodes) →
//! `writer` (the bounded queue to the journal thread) → `commit` (one write, one `fdatasync`, one notice a loop) →
//! `segment` (a file with its head) on `disk` (the seam to the file system). `reader` goes the other way and repairs, `inspect`
//! shows and changes nothing; both step by `walk` through a `window`. `retention` says what may be freed, and `memory` is a double that
//! loses what was not synced. The format is described in `docs/journal.md`.
//!
//! Nothing here knows what a record means: folding is the business of `device` and of `recovery`.

mod batch;
mod commit;
pub(crate) mod disk;
mod frame;
mod inspect;
mod memory;
mod reader;
pub(crate) mod record;
mod retention;
mod segment;
mod status;
mod walk;
mod window;
mod writer;

pub use batch::Batch;
pub use inspect::{Damage, Found, Inspection, SegmentReport, Span, inspect};
pub use memory::{CommitMode, MemoryJournal};
pub use reader::{Gap, Quarantined, ScanError, ScanProgress, ScanReport, first_position, read, scan, scan_with};
pub use record::{OutcomeRecord, Record, RecordTooLarge};
pub use retention::Retention;
pub use status::JournalStatus;
pub use writer::{Commit, CommitSink, FileJournal, Journal, JournalConfig, JournalError, JournalFailure};

#[cfg(test)]
pub(crate) mod tests;
