//! The mailbox of one viewer: a dashboard's WebSocket, an SSE stream.
//!
//! Any loop may put an update in, without waiting; the connection takes them out as fast as its socket drains. Past
//! [`limits::VIEWER_BUFFER_BYTES`] the waiting updates are conflated to the latest of each device, and a viewer that takes
//! nothing for [`limits::VIEWER_STALL`] is closed. Gaps show in the `version` numbers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hashbrown::HashMap;

use crate::{clock::Uptime, fanout::Update, ids::DeviceId, limits};

/// Which devices a viewer watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Single devices.
    pub devices: Vec<DeviceId>,
    /// Every device whose id starts so.
    pub prefixes: Vec<Box<str>>,
    /// Every device.
    pub fleet: bool,
}

impl Filter {
    /// The same devices, each of them once: what a prefix has is not named again, and no prefix begins with another one.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        if self.fleet {
            return Self { fleet: true, ..Self::default() };
        }
        self.prefixes.sort_unstable();
        let mut shortest: Vec<Box<str>> = Vec::with_capacity(self.prefixes.len());
        for prefix in self.prefixes {
            if shortest.last().is_none_or(|last| !prefix.starts_with(&**last)) {
                shortest.push(prefix);
            }
        }
        self.devices.retain(|id| !shortest.iter().any(|prefix| id.as_str().starts_with(&**prefix)));
        self.devices.sort_unstable();
        self.devices.dedup();
        Self { devices: self.devices, prefixes: shortest, fleet: false }
    }

    /// Does it want this device?
    #[must_use]
    pub fn wants(&self, device: &str) -> bool {
        self.fleet
            || self.devices.iter().any(|id| id.as_str() == device)
            || self.prefixes.iter().any(|prefix| device.starts_with(&**prefix))
    }
}

/// What bounds a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewerLimits {
    /// Bytes of updates that wait one by one; past it they are conflated to the latest of each device.
    pub buffer_bytes: usize,
    /// Time after which a viewer that does not read is closed.
    pub stall: Duration,
}

impl Default for ViewerLimits {
    fn default() -> Self {
        Self { buffer_bytes: limits::VIEWER_BUFFER_BYTES, stall: limits::VIEWER_STALL }
    }
}

/// The mailbox of one viewer, shared between its connection and the loops.
#[derive(Debug)]
pub struct Viewer {
    limits: ViewerLimits,
    waker: AtomicWaker,
    mailbox: Mutex<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    /// What waits, in order. In a conflated mailbox a device's older state is an empty slot.
    waiting: VecDeque<Option<Update>>,
    /// The slot of each device's waiting state, counted from the first update ever; only kept while conflating.
    latest: Option<HashMap<DeviceId, u64>>,
    /// The number of the first slot in `waiting`.
    first: u64,
    bytes: usize,
    /// Loops that have not yet delivered their share of the snapshot.
    unsynced: usize,
    announce_synced: bool,
    always_conflate: bool,
    conflated: u64,
    last_taken: Uptime,
    closed: bool,
}

/// What [`Viewer::take`] found.
#[derive(Debug, Default)]
pub struct Drained {
    /// The updates, in order.
    pub updates: Vec<Update>,
    /// The snapshot is complete after these.
    pub synced: bool,
    /// More waits.
    pub more: bool,
    /// The viewer was closed by the node: it did not read.
    pub closed: bool,
}

impl Viewer {
    /// A mailbox whose snapshot comes from `sources` places. `conflate`: always keep only the latest state of each device.
    #[must_use]
    pub fn new(limits: ViewerLimits, conflate: bool, sources: usize, now: Uptime) -> Arc<Self> {
        let mailbox = Mailbox {
            latest: conflate.then(HashMap::new),
            always_conflate: conflate,
            unsynced: sources,
            last_taken: now,
            ..Mailbox::default()
        };
        Arc::new(Self { limits, waker: AtomicWaker::new(), mailbox: Mutex::new(mailbox) })
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // A panic while the lock was held leaves at worst one update out; the mailbox stays usable.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an update in. Returns `false` when the viewer is closed and should be forgotten.
    pub fn offer(&self, update: &Update, now: Uptime) -> bool {
        let mut mailbox = self.lock();
        if mailbox.closed {
            return false;
        }
        if mailbox.waiting.is_empty() {
            // The stall is counted from the moment when something first waits.
            mailbox.last_taken = now;
        } else if now.since(mailbox.last_taken) > self.limits.stall {
            *mailbox = Mailbox { closed: true, conflated: mailbox.conflated, ..Mailbox::default() };
            drop(mailbox);
            self.waker.wake();
            return false;
        }
        mailbox.put(update, self.limits.buffer_bytes);
        drop(mailbox);
        self.waker.wake();
        true
    }

    /// One source has delivered its share of the snapshot.
    pub fn source_synced(&self) {
        let mut mailbox = self.lock();
        mailbox.unsynced = mailbox.unsynced.saturating_sub(1);
        mailbox.announce_synced = mailbox.unsynced == 0;
        drop(mailbox);
        self.waker.wake();
    }

    /// Whom to wake when something waits. Call it before [`Viewer::take`].
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes out updates of about `max_bytes` at most (at least one, if one waits).
    #[must_use]
    pub fn take(&self, max_bytes: usize, now: Uptime) -> Drained {
        let mut mailbox = self.lock();
        let mut drained = Drained { closed: mailbox.closed, ..Drained::default() };
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some(slot) = mailbox.waiting.pop_front() else { break };
            mailbox.first += 1;
            let Some(update) = slot else { continue };
            bytes += update.frame().len();
            mailbox.bytes -= update.frame().len();
            if let Some(latest) = &mut mailbox.latest
                && !update.is_event()
            {
                latest.remove(&update.device);
            }
            drained.updates.push(update);
        }
        if !drained.updates.is_empty() {
            mailbox.last_taken = now;
        }
        drained.more = !mailbox.waiting.is_empty();
        if !drained.more {
            drained.synced = std::mem::take(&mut mailbox.announce_synced);
            if !mailbox.always_conflate {
                mailbox.latest = None;
            }
        }
        drained
    }

    /// Ends the viewer: the loops forget it at the next update.
    pub fn close(&self) {
        let mut mailbox = self.lock();
        *mailbox = Mailbox { closed: true, conflated: mailbox.conflated, ..Mailbox::default() };
    }

    /// Has it ended?
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Updates that gave way to a newer one of the same device.
    #[must_use]
    pub fn conflated(&self) -> u64 {
        self.lock().conflated
    }
}

impl Mailbox {
    fn put(&mut self, update: &Update, buffer_bytes: usize) {
        if self.latest.is_none() && self.bytes + update.frame().len() > buffer_bytes {
            self.conflate();
        }
        let slot = self.first + self.waiting.len() as u64;
        if let Some(latest) = &mut self.latest {
            if update.is_event() {
                // Events cannot be merged. A viewer that is behind loses them past the buffer, and it is counted.
                if self.bytes + update.frame().len() > buffer_bytes {
                    self.conflated += 1;
                    return;
                }
            } else if let Some(old) = latest.insert(update.device.clone(), slot) {
                self.retire(old);
            }
        }
        self.bytes += update.frame().len();
        self.waiting.push_back(Some(update.clone()));
    }

    /// Empties a slot whose state was overtaken.
    fn retire(&mut self, slot: u64) {
        let index = usize::try_from(slot - self.first).unwrap_or(usize::MAX);
        if let Some(old) = self.waiting.get_mut(index).and_then(Option::take) {
            self.bytes -= old.frame().len();
            self.conflated += 1;
        }
        if self.waiting.len() > 64 && self.waiting.len() > 4 * self.latest.as_ref().map_or(0, HashMap::len) {
            self.compact();
        }
    }

    /// Switches to keeping only the latest state of each device.
    fn conflate(&mut self) {
        let mut latest = HashMap::new();
        for (slot, update) in (self.first..).zip(&mut self.waiting) {
            let Some(device) = update.as_ref().filter(|u| !u.is_event()).map(|u| u.device.clone()) else { continue };
            latest.insert(device, slot);
        }
        for (slot, entry) in (self.first..).zip(&mut self.waiting) {
            let overtaken = entry.as_ref().is_some_and(|u| !u.is_event() && latest.get(&u.device) != Some(&slot));
            if overtaken && let Some(old) = entry.take() {
                self.bytes -= old.frame().len();
                self.conflated += 1;
            }
        }
        self.latest = Some(latest);
        self.compact();
    }

    /// Drops the empty slots and numbers the rest anew.
    fn compact(&mut self) {
        self.waiting.retain(Option::is_some);
        let Some(latest) = &mut self.latest else { return };
        for (slot, update) in (self.first..).zip(self.waiting.iter().flatten()) {
            if !update.is_event() {
                latest.insert(update.device.clone(), slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Uptime = Uptime(0);

    fn update(device: &str, version: u64) -> Update {
        Update::new(DeviceId::new(device).unwrap(), version, &[b' '; 100])
    }

    fn versions(drained: &Drained) -> Vec<(String, u64)> {
        drained.updates.iter().map(|u| (u.device.to_string(), u.version)).collect()
    }

    #[test]
    fn a_filter_names_each_device_once() {
        let devices = ["z", "pump-1", "a", "z"].map(|id| DeviceId::new(id).unwrap());
        let prefixes = ["pump-1", "pump-", "q", "pump-", "pump"].map(Box::<str>::from);
        let filter = Filter { devices: devices.to_vec(), prefixes: prefixes.to_vec(), fleet: false }.normalized();
        assert_eq!(filter.devices.iter().map(DeviceId::as_str).collect::<Vec<_>>(), ["a", "z"]);
        assert_eq!(filter.prefixes.iter().map(|p| &**p).collect::<Vec<_>>(), ["pump", "q"]);
    }

    #[test]
    fn a_reading_viewer_gets_every_update() {
        let viewer = Viewer::new(ViewerLimits::default(), false, 1, BEGIN);
        for version in 1..=100 {
            assert!(viewer.offer(&update("d1", version), BEGIN));
        }
        viewer.source_synced();
        let drained = viewer.take(usize::MAX, BEGIN);
        assert_eq!(versions(&drained), (1..=100).map(|v| ("d1".to_owned(), v)).collect::<Vec<_>>());
        assert!(drained.synced && !drained.more);
    }

    #[test]
    fn a_slow_viewer_is_conflated_to_the_latest_and_stays_bounded() {
        let viewer = Viewer::new(ViewerLimits::default(), false, 0, BEGIN);
        for version in 1..=100_000 {
            assert!(viewer.offer(&update(if version % 2 == 0 { "even" } else { "odd" }, version), BEGIN));
        }
        assert!(viewer.lock().waiting.len() < 5_000, "the queue must not grow with the updates");
        let mut seen = Vec::new();
        loop {
            let drained = viewer.take(1024, BEGIN);
            seen.extend(versions(&drained));
            if !drained.more {
                break;
            }
        }
        let mut last = seen.split_off(seen.len() - 2);
        last.sort();
        assert_eq!(last, vec![("even".to_owned(), 100_000), ("odd".to_owned(), 99_999)]);
        assert!(viewer.conflated() > 90_000);
        // Once it has caught up it gets every update again.
        for version in 1..=3 {
            viewer.offer(&update("even", 200_000 + version), BEGIN);
        }
        assert_eq!(viewer.take(usize::MAX, BEGIN).updates.len(), 3);
    }

    #[test]
    fn a_fleet_viewer_sees_each_device_once() {
        let viewer = Viewer::new(ViewerLimits::default(), true, 0, BEGIN);
        for version in 1..=10 {
            for device in ["a", "b", "c"] {
                viewer.offer(&update(device, version), BEGIN);
            }
        }
        assert_eq!(versions(&viewer.take(usize::MAX, BEGIN)), [("a".into(), 10), ("b".into(), 10), ("c".into(), 10)]);
    }

    #[test]
    fn a_viewer_that_never_reads_is_closed() {
        let viewer = Viewer::new(ViewerLimits::default(), true, 0, BEGIN);
        assert!(viewer.offer(&update("a", 1), BEGIN));
        let later = Uptime(limits::VIEWER_STALL.as_millis() as u64 + 1);
        assert!(!viewer.offer(&update("a", 2), later));
        assert!(viewer.take(usize::MAX, later).closed);
    }
}
