//! What a loop collects in one turn for the journal: frames, encoded where the records are made.
//!
//! The journal thread is one for all loops, so it does as little as it can: it fills in positions and CRCs, and writes.

use super::{
    frame,
    record::{self, Kind, OutcomeRecord, RecordTooLarge},
};
use crate::{
    ids::{DeviceId, LoopId, Position},
    kept::KeptChange,
    reading::Reading,
    state::DeviceState,
};

/// Records of one loop, in order. They get their positions when they are written.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The loop that is told when they are durable.
    pub owner: LoopId,
    frames: Vec<u8>,
    records: usize,
    urgent: bool,
}

impl Batch {
    /// An empty batch of this loop.
    #[must_use]
    pub fn new(owner: LoopId) -> Self {
        Self { owner, frames: Vec::new(), records: 0, urgent: false }
    }

    /// Adds a reading. `routed`: handlers want it, its outcome will follow.
    ///
    /// # Errors
    /// [`RecordTooLarge`]; the batch is as it was. Cannot happen to a reading within [`crate::limits::READING_BYTES`].
    pub fn push_reading(&mut self, reading: &Reading, routed: bool) -> Result<(), RecordTooLarge> {
        self.push(Kind::Reading, |frames| record::encode_reading(frames, reading, routed))
    }

    /// Adds an outcome.
    ///
    /// # Errors
    /// [`RecordTooLarge`], when the states of its scripts are too large together; the batch is as it was.
    pub fn push_outcome(&mut self, outcome: &OutcomeRecord) -> Result<(), RecordTooLarge> {
        self.push(Kind::Outcome, |frames| record::encode_outcome(frames, outcome))
    }

    /// Adds that an operator dropped the parked reading at `position`.
    ///
    /// # Errors
    /// [`RecordTooLarge`]: cannot happen.
    pub fn push_unparked(&mut self, device: &DeviceId, position: Position) -> Result<(), RecordTooLarge> {
        self.push(Kind::Unparked, |frames| record::encode_unparked(frames, device, position))
    }

    /// Adds a state that was brought in from elsewhere.
    ///
    /// # Errors
    /// [`RecordTooLarge`], when the state and those of its scripts are too large together; the batch is as it was.
    pub fn push_imported(&mut self, state: &DeviceState, overwrite: bool) -> Result<(), RecordTooLarge> {
        self.push(Kind::Imported, |frames| record::encode_imported(frames, state, overwrite))
    }

    /// Adds that a pair of the edge was put (or, without a value, forgotten).
    ///
    /// # Errors
    /// [`RecordTooLarge`], also for a key without a byte; the batch is as it was.
    pub fn push_kept(&mut self, change: &KeptChange) -> Result<(), RecordTooLarge> {
        self.push(Kind::Kept, |frames| record::encode_kept(frames, &change.key, change.value.as_deref()))
    }

    /// How many records it holds.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// How many bytes it will take up in the journal.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// Does it hold nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Somebody waits for this batch: it is to be committed at once.
    pub fn set_urgent(&mut self) {
        self.urgent = true;
    }

    /// Does somebody wait for it?
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Its first record is the first of a commit. Before [`Self::seal`].
    pub(crate) fn begin_commit(&mut self) {
        frame::begin_commit(&mut self.frames);
    }

    /// Gives the records the positions from `first` on.
    pub(crate) fn seal(&mut self, first: u64) {
        let sealed = frame::seal(&mut self.frames, first);
        debug_assert_eq!(sealed, self.records as u64);
    }

    /// The frames, to be written.
    pub(crate) fn frames(&self) -> &[u8] {
        &self.frames
    }

    fn push(
        &mut self,
        kind: Kind,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), RecordTooLarge>,
    ) -> Result<(), RecordTooLarge> {
        let start = frame::begin(&mut self.frames, kind, record::BODY_VERSION);
        if let Err(error) = body(&mut self.frames) {
            self.frames.truncate(start);
            return Err(error);
        }
        frame::end(&mut self.frames, start);
        self.records += 1;
        Ok(())
    }
}
