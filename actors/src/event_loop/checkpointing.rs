//! The loop's tick, and its part in checkpoints: which changed states go out when, and which devices may be put to sleep.
//!
//! The position that a checkpoint claims is what recovery stands on: see `checkpoint`.

use std::task::Waker;

use super::{EventLoop, PAUSED_ASKED};
use crate::{checkpoint::CheckpointBatch, clock::Uptime, ids::Position, limits, store::ParkedChanges};

/// A checkpoint under way: the states and pairs that had changed when it began go out in batches, the last with the position.
#[derive(Default)]
pub(super) struct CheckpointCycle {
    pub(super) remaining: Option<usize>,
    pub(super) folded: Position,
    pub(super) last_folded: Position,
    pub(super) batches: u64,
    pub(super) ready: Option<Ready>,
    /// After a panic: the position does not move any more.
    pub(super) held: bool,
}

/// A batch of changes on its way to the checkpoint thread. What handlers made of a reading is folded before it is durable; the
/// store must not have it earlier than the journal, or a store that is rebuilt from the journal lacks it. So with kept pairs.
pub(super) struct Ready {
    batch: CheckpointBatch,
    /// How many of the loop's batches the journal must have committed.
    after: u64,
}

impl EventLoop {
    /// What the loop does now and then: checkpoints, passivation, second tries.
    pub(crate) fn tick(&mut self, now: Uptime, start_checkpoint: bool) {
        self.turn.now = now;
        self.turn.loads.append(&mut self.failed_loads.due());
        if now.since(self.paused_asked) >= PAUSED_ASKED {
            // Those who still wait come back; those who have gone would otherwise stay for as long as the pressure lasts.
            self.paused_asked = now;
            self.paused.drain(..).for_each(Waker::wake);
        }
        self.passivate(now);
        self.ring_timers(now);
        if start_checkpoint {
            self.turn.watchers.sweep();
            if self.checkpoint.remaining.is_none() {
                let known = if self.committing.is_empty() {
                    self.services.journal.status().committed
                } else {
                    self.last_committed
                };
                if !self.checkpoint.held {
                    self.checkpoint.folded = self.turn.folded_through(known).max(self.checkpoint.last_folded);
                }
                self.checkpoint.remaining = Some(self.turn.dirty.len());
                self.turn.kept.begin();
            }
        }
        self.submit_checkpoint();
    }

    /// Sends batches of the checkpoint under way until it is through or the thread's queue is full.
    fn submit_checkpoint(&mut self) {
        if !self.submit_ready() {
            return;
        }
        let Some(remaining) = self.checkpoint.remaining else { return };
        let count = remaining.min(limits::CHECKPOINT_BATCH);
        let (kept, kept_is_through) = self.turn.kept.take();
        let last = count == remaining && kept_is_through;
        let folded = if last { self.checkpoint.folded } else { self.checkpoint.last_folded };
        self.checkpoint.remaining = if last { None } else { Some(remaining - count) };
        let nothing = count == 0 && kept.is_empty() && self.turn.parked.is_empty();
        if nothing && folded == self.checkpoint.last_folded {
            return;
        }
        self.checkpoint.batches += 1;
        let mut states = Vec::with_capacity(count);
        for key in self.turn.dirty.drain(..count) {
            if let Some(device) = self.devices.get_mut(key as usize) {
                device.dirty = false;
                device.checkpointed_in = self.checkpoint.batches;
                states.extend(device.state().cloned());
            }
        }
        self.checkpoint.last_folded = folded;
        let parked = std::mem::take(&mut self.turn.parked);
        if !parked.is_empty() {
            self.unwritten_parked.push_back((self.checkpoint.batches, parked.clone()));
        }
        let batch = CheckpointBatch { owner: self.turn.id, states, parked, kept, folded_through: folded };
        let after = self.batches_sent + u64::from(!self.turn.batch.is_empty());
        self.checkpoint.ready = Some(Ready { batch, after });
        self.submit_ready();
    }

    /// Hands over the batch that is ready, once the journal has what its states were folded from. Returns whether none is left.
    fn submit_ready(&mut self) -> bool {
        let committed = self.batches_sent - self.committing.len() as u64;
        let Some(Ready { batch, after }) = self.checkpoint.ready.take_if(|ready| ready.after <= committed) else {
            return self.checkpoint.ready.is_none();
        };
        match self.services.checkpointer.try_submit(batch) {
            Ok(()) => true,
            Err(batch) => {
                self.checkpoint.ready = Some(Ready { batch, after });
                false
            }
        }
    }

    /// What happened to parked readings of this loop and may not be in the store yet.
    pub(crate) fn unwritten_parked(&self) -> ParkedChanges {
        let mut all = ParkedChanges::default();
        self.unwritten_parked.iter().for_each(|(_, changes)| all.append(changes.clone()));
        all.append(self.turn.parked.clone());
        all
    }

    /// Is everything that ever changed with the checkpoint thread?
    pub(crate) fn is_checkpointed(&self) -> bool {
        self.turn.dirty.is_empty()
            && self.turn.parked.is_empty()
            && self.turn.kept.is_empty()
            && self.checkpoint.ready.is_none()
            && self.checkpoint.remaining.is_none()
    }

    /// Forgets what the store has by now: idle devices are put to sleep, a few at a time.
    fn passivate(&mut self, now: Uptime) {
        let written = self.services.checkpointer.written_through(self.turn.id);
        while self.unwritten_parked.front().is_some_and(|(batch, _)| *batch <= written) {
            self.unwritten_parked.pop_front();
        }
        let end = (self.sweep_at + 1_024).min(self.devices.capacity());
        for key in self.sweep_at..end {
            let Some(device) = self.devices.get(key) else { continue };
            if device.is_idle(now, written) && !self.turn.is_connected(device.device()) {
                let device = self.devices.remove(key);
                self.by_id.remove(device.device());
                self.by_order.remove(device.device());
            }
        }
        self.sweep_at = if end >= self.devices.capacity() { 0 } else { end };
    }
}
