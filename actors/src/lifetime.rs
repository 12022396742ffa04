//! The durable part of the ledger: what became of every reading of a device, in its state, and of all devices together.
//!
//! It is folded like everything else in a state, so a replay comes to the same counts. The since-start counts, with what was
//! refused and what is under way, are `ledger`'s.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::{
    ledger::{ConflateReason, DropReason, happened},
    script::ParkReason,
    state::DeviceState,
    submission::Disposition,
};

/// A device's readings that made no state, by what became of them. Costs a word while there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceCounts(Option<Box<Reasons>>);

/// Readings by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons {
    /// Readings that gave way to another one.
    pub conflated: [u64; ConflateReason::ALL.len()],
    /// Readings that a handler dropped.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Readings that were parked.
    pub parked: [u64; ParkReason::ALL.len()],
}

impl Reasons {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.each().map(|(_, _, count)| count).sum()
    }

    /// Every kind of fate: its name, and each reason with its readings.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, Vec<(&'static str, u64)>); 3] {
        let pairs = |counts: &[u64], names: Vec<&'static str>| names.into_iter().zip(counts.iter().copied()).collect();
        [
            ("conflated", pairs(&self.conflated, ConflateReason::ALL.iter().map(|r| r.name()).collect())),
            ("dropped", pairs(&self.dropped, DropReason::ALL.iter().map(|r| r.name()).collect())),
            ("parked", pairs(&self.parked, ParkReason::ALL.iter().map(|r| r.name()).collect())),
        ]
    }

    /// Kind of fate (0 conflated, 1 dropped, 2 parked), number of the reason, readings.
    fn each(&self) -> impl Iterator<Item = (u8, u8, u64)> {
        fn numbered(kind: u8, counts: &[u64]) -> impl Iterator<Item = (u8, u8, u64)> {
            (0..).zip(counts).map(move |(reason, count)| (kind, reason, *count))
        }
        numbered(0, &self.conflated).chain(numbered(1, &self.dropped)).chain(numbered(2, &self.parked))
    }

    fn count_mut(&mut self, kind: u8, reason: u8) -> Option<&mut u64> {
        match kind {
            0 => self.conflated.get_mut(usize::from(reason)),
            1 => self.dropped.get_mut(usize::from(reason)),
            2 => self.parked.get_mut(usize::from(reason)),
            _ => None,
        }
    }

    /// Adds `more` and takes `less` away; never below nothing.
    fn change(&mut self, more: &Self, less: &Self) {
        let (more, less) = (more.each(), less.each());
        for ((kind, reason, more), (_, _, less)) in more.zip(less) {
            if let Some(count) = self.count_mut(kind, reason) {
                *count = count.saturating_add(more).saturating_sub(less);
            }
        }
    }
}

impl DeviceCounts {
    /// The counts.
    #[must_use]
    pub fn reasons(&self) -> Reasons {
        self.0.as_deref().copied().unwrap_or_default()
    }

    /// Counts a settled reading; one that made a state is counted by the state's version.
    pub fn settle(&mut self, disposition: Disposition) {
        let (kind, reason) = match disposition {
            Disposition::Kept => return,
            Disposition::Conflated(reason) => (0, reason as u8),
            Disposition::Dropped => (1, DropReason::Handler as u8),
            Disposition::Parked(reason) => (2, reason as u8),
        };
        if let Some(count) = self.0.get_or_insert_default().count_mut(kind, reason) {
            *count += 1;
        }
    }

    /// What is stored: kind of fate, number of the reason, readings; those that happened.
    pub(crate) fn stored(&self) -> Vec<(u8, u8, u64)> {
        self.0.as_deref().map(|reasons| reasons.each().filter(|(_, _, count)| *count > 0).collect()).unwrap_or_default()
    }

    /// The counts from what is stored; `None`: a kind or reason that this build does not know.
    pub(crate) fn from_stored(stored: &[(u8, u8, u64)]) -> Option<Self> {
        let mut counts = Self::default();
        for (kind, reason, count) in stored {
            *counts.0.get_or_insert_default().count_mut(*kind, *reason)? = *count;
        }
        Some(counts)
    }

    /// The counts from their names, as [`Reasons`] shows them: kind of fate, reason, readings. `None`: an unknown name.
    #[must_use]
    pub fn from_names<'a>(named: impl IntoIterator<Item = (&'a str, &'a str, u64)>) -> Option<Self> {
        let mut counts = Self::default();
        for (kind, reason, count) in named {
            let (kind, reason) = match kind {
                "conflated" => (0, ConflateReason::ALL.iter().position(|known| known.name() == reason)?),
                "dropped" => (1, DropReason::ALL.iter().position(|known| known.name() == reason)?),
                "parked" => (2, ParkReason::ALL.iter().position(|known| known.name() == reason)?),
                _ => return None,
            };
            *counts.0.get_or_insert_default().count_mut(kind, u8::try_from(reason).ok()?)? = count;
        }
        Some(counts)
    }
}

/// `{"conflated":{reason:n},"dropped":{reason:n},"parked":{reason:n}}`; reasons that never happened are left out.
impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("conflated", &happened(ConflateReason::ALL.iter().map(|r| r.name()), &self.conflated))?;
        map.serialize_entry("dropped", &happened(DropReason::ALL.iter().map(|r| r.name()), &self.dropped))?;
        map.serialize_entry("parked", &happened(ParkReason::ALL.iter().map(|r| r.name()), &self.parked))?;
        map.end()
    }
}

/// What became of every reading that this data directory ever took in: the sum over its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Lifetime {
    /// Readings that made a state.
    pub committed: u64,
    /// Readings that made none.
    #[serde(flatten)]
    pub reasons: Reasons,
}

impl Lifetime {
    /// A device's state has changed.
    pub fn change(&mut self, old: Option<&DeviceState>, new: &DeviceState) {
        let before = old.map_or(0, |old| old.version);
        self.committed = self.committed.saturating_add(new.version).saturating_sub(before);
        let old_counts = old.and_then(|old| old.counts.0.as_deref());
        let new_counts = new.counts.0.as_deref();
        if old_counts.is_some() || new_counts.is_some() {
            let of = |counts: Option<&Reasons>| counts.copied().unwrap_or_default();
            self.reasons.change(&of(new_counts), &of(old_counts));
        }
    }

    /// Every reading in it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.committed + self.reasons.total()
    }

    /// Adds another one's readings.
    pub fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.reasons.change(&other.reasons, &Reasons::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;

    #[test]
    fn a_lifetime_is_the_sum_of_its_devices_however_they_changed() {
        let mut a = DeviceState::empty(DeviceId::new("a").unwrap(), 0);
        let mut lifetime = Lifetime::default();
        let mut change = |a: &mut DeviceState, disposition| {
            let old = a.clone();
            match disposition {
                Disposition::Kept => a.version += 1,
                other => a.counts.settle(other),
            }
            lifetime.change(Some(&old), a);
        };
        change(&mut a, Disposition::Kept);
        change(&mut a, Disposition::Parked(ParkReason::ALL[1]));
        change(&mut a, Disposition::Parked(ParkReason::ALL[1]));
        change(&mut a, Disposition::Dropped);
        change(&mut a, Disposition::Conflated(ConflateReason::Late));
        assert_eq!((lifetime.committed, lifetime.reasons), (1, a.counts.reasons()));
        assert_eq!(lifetime.total(), 5);
        assert_eq!(DeviceCounts::from_stored(&a.counts.stored()), Some(a.counts));
        assert_eq!(DeviceCounts::from_stored(&[(2, 200, 1)]), None);
        let json = serde_json::to_value(lifetime).unwrap();
        assert_eq!(json["parked"][ParkReason::ALL[1].name()], 2);
    }

    #[test]
    fn counts_come_back_from_their_names() {
        let mut counts = DeviceCounts::default();
        counts.settle(Disposition::Conflated(ConflateReason::Late));
        counts.settle(Disposition::Dropped);
        let named = [("conflated", "late", 1), ("dropped", "handler", 1)];
        assert_eq!(DeviceCounts::from_names(named), Some(counts));
        assert_eq!(DeviceCounts::from_names([("parked", "no such reason", 1)]), None);
    }
}
