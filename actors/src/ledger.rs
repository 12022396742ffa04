//! The ledger: what became of every reading. It is kept by each loop for its own devices and added up when asked for.
//!
//! Invariant: `received = committed + conflated + rejected + dropped + parked + in flight`, at any moment, on every loop.

mod reasons;

use hashbrown::HashMap;
use serde::ser::{Serialize, SerializeMap, Serializer};

pub use reasons::{ConflateReason, DropReason, RejectReason};

use crate::{ids::DeviceId, lifetime::Reasons, limits, script::ParkReason};

/// Counts of readings since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Readings that came in.
    pub received: u64,
    /// Readings that are in their device's state (or were, before a newer one).
    pub committed: u64,
    /// Readings that gave way to another one, by reason.
    pub conflated: [u64; ConflateReason::ALL.len()],
    /// Readings refused, by reason.
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Readings dropped, by reason.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Readings parked, by reason.
    pub parked: [u64; ParkReason::ALL.len()],
    /// Readings under way.
    pub in_flight: u64,
}

impl Ledger {
    /// Counts a reading that was refused at the edge.
    pub fn reject(&mut self, reason: RejectReason) {
        self.received += 1;
        self.rejected[reason as usize] += 1;
    }

    /// Readings that went all the way: into their device's state, or by a reason past it.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.committed + [&self.conflated[..], &self.dropped, &self.parked].into_iter().flatten().sum::<u64>()
    }

    /// Readings that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Received readings that are not accounted for: 0, or the node has lost count.
    #[must_use]
    pub fn difference(&self) -> i128 {
        i128::from(self.received)
            - i128::from(self.processed())
            - i128::from(self.refused())
            - i128::from(self.in_flight)
    }

    /// Is every received reading accounted for?
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.difference() == 0
    }

    /// As [`Ledger::balanced`], with what differs.
    ///
    /// # Errors
    /// [`Imbalance`]: a defect of the node.
    pub fn check(&self) -> Result<(), Imbalance> {
        if self.balanced() { Ok(()) } else { Err(Imbalance(Box::new(self.clone()))) }
    }

    /// Adds another loop's counts.
    pub fn add(&mut self, other: &Self) {
        fn sum(into: &mut [u64], from: &[u64]) {
            for (a, b) in into.iter_mut().zip(from) {
                *a += b;
            }
        }
        self.received += other.received;
        self.committed += other.committed;
        self.in_flight += other.in_flight;
        sum(&mut self.conflated, &other.conflated);
        sum(&mut self.rejected, &other.rejected);
        sum(&mut self.dropped, &other.dropped);
        sum(&mut self.parked, &other.parked);
    }

    /// Every kind that has reasons: the kind's name, and each reason with its count.
    pub fn kinds(&self) -> [(&'static str, Vec<(&'static str, u64)>); 4] {
        let pairs = |counts: &[u64], names: Vec<&'static str>| names.into_iter().zip(counts.iter().copied()).collect();
        [
            ("conflated", pairs(&self.conflated, ConflateReason::ALL.iter().map(|r| r.name()).collect())),
            ("rejected", pairs(&self.rejected, RejectReason::ALL.iter().map(|r| r.name()).collect())),
            ("dropped", pairs(&self.dropped, DropReason::ALL.iter().map(|r| r.name()).collect())),
            ("parked", pairs(&self.parked, ParkReason::ALL.iter().map(|r| r.name()).collect())),
        ]
    }
}

/// A ledger that does not account for every reading, or for more than came in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} received, {} accounted for ({} processed, {} rejected, {} in flight): difference {}",
    .0.received, i128::from(.0.received) - .0.difference(), .0.processed(), .0.refused(), .0.in_flight, .0.difference()
)]
pub struct Imbalance(Box<Ledger>);

/// Refused readings since the start, of the devices that they named; at most [`limits::LEDGER_DEVICES`] devices, for anybody can
/// name one. Those of further devices are in the loop's [`Ledger`] only.
#[derive(Debug, Default)]
pub(crate) struct Rejections(HashMap<DeviceId, [u32; RejectReason::ALL.len()]>);

impl Rejections {
    pub(crate) fn add(&mut self, device: &str, reason: RejectReason) {
        if let Some(counts) = self.0.get_mut(device) {
            counts[reason as usize] = counts[reason as usize].saturating_add(1);
        } else if self.0.len() < limits::LEDGER_DEVICES
            && let Ok(device) = DeviceId::new(device)
        {
            let mut counts = [0; RejectReason::ALL.len()];
            counts[reason as usize] = 1;
            self.0.insert(device, counts);
        }
    }

    /// The device's refused readings, by reason.
    pub(crate) fn of(&self, device: &str) -> [u64; RejectReason::ALL.len()] {
        self.0.get(device).copied().unwrap_or_default().map(u64::from)
    }
}

/// What became of one device's readings: those in its state over its lifetime, those refused since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceLedger {
    /// Readings that made a state, and those that did not; `None`: the device is not active here, the store knows.
    pub state: Option<(u64, Reasons)>,
    /// Refused since the start, by reason.
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Under way.
    pub in_flight: u64,
}

impl DeviceLedger {
    /// The same with the names and the form of the node's [`Ledger`]; it balances by its making.
    #[must_use]
    pub fn to_ledger(&self) -> Ledger {
        let (committed, reasons) = self.state.unwrap_or_default();
        let mut ledger = Ledger {
            received: 0,
            committed,
            conflated: reasons.conflated,
            rejected: self.rejected,
            dropped: reasons.dropped,
            parked: reasons.parked,
            in_flight: self.in_flight,
        };
        ledger.received = ledger.processed() + ledger.refused() + ledger.in_flight;
        ledger
    }
}

/// The counts of those reasons that happened, by name.
pub(crate) fn happened(
    names: impl Iterator<Item = &'static str>,
    counts: &[u64],
) -> std::collections::BTreeMap<&'static str, u64> {
    names.zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect()
}

/// `{"received":n,"committed":n,"processed":n,"conflated":{reason:n},"rejected":{reason:n},…,"inFlight":n,"balanced":bool}`;
/// reasons that never happened are left out.
impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("received", &self.received)?;
        map.serialize_entry("committed", &self.committed)?;
        map.serialize_entry("processed", &self.processed())?;
        for (kind, reasons) in self.kinds() {
            let (names, counts): (Vec<_>, Vec<_>) = reasons.into_iter().unzip();
            map.serialize_entry(kind, &happened(names.into_iter(), &counts))?;
        }
        map.serialize_entry("inFlight", &self.in_flight)?;
        map.serialize_entry("balanced", &self.balanced())?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_notices_a_lost_reading() {
        let mut ledger = Ledger::default();
        ledger.reject(RejectReason::BadJson);
        ledger.received += 2;
        ledger.committed += 1;
        ledger.in_flight += 1;
        assert!(ledger.balanced());
        ledger.in_flight -= 1;
        assert!(!ledger.balanced(), "a reading that left without a reason must show");
        let words = ledger.check().unwrap_err().to_string();
        assert_eq!(words, "3 received, 2 accounted for (1 processed, 1 rejected, 0 in flight): difference 1");
        let json = serde_json::to_value(&ledger).unwrap();
        assert_eq!(json["rejected"]["bad-json"], 1);
        assert_eq!(json["balanced"], false);
    }
}
