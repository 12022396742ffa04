//! The faults that a swarm injects, and the traffic of one device with its faults in it: which messages go out at each tick.
//! Pure and seeded; it sends nothing.

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tidegate_actors::clock::Millis;

use crate::{
    device::Device,
    dice::{Dice, Stream},
    error::SwarmError,
};

/// How often each fault strikes: probabilities from 0 to 1, per reading.
#[derive(Debug, Clone, Copy, PartialEq, Default, Args, Serialize)]
pub struct FaultPlan {
    /// Probability per reading that the connection is cut, without a DISCONNECT, before the answer; the device sends again
    #[arg(long = "fault-disconnect", id = "fault_disconnect", default_value_t = 0.0, value_name = "P")]
    pub disconnect: f64,
    /// Probability per reading that it is sent twice
    #[arg(long = "fault-duplicate", id = "fault_duplicate", default_value_t = 0.0, value_name = "P")]
    pub duplicate: f64,
    /// Probability per reading that it is held back and sent after one to three newer ones
    #[arg(long = "fault-late", id = "fault_late", default_value_t = 0.0, value_name = "P")]
    pub late: f64,
    /// Probability per reading that a payload which is no reading is sent as well
    #[arg(long = "fault-garbage", id = "fault_garbage", default_value_t = 0.0, value_name = "P")]
    pub garbage: f64,
}

impl FaultPlan {
    /// Checks the probabilities.
    ///
    /// # Errors
    /// [`SwarmError::Config`] when one is not from 0 to 1.
    pub fn check(&self) -> Result<(), SwarmError> {
        let all = [self.disconnect, self.duplicate, self.late, self.garbage];
        if all.iter().all(|probability| (0.0..=1.0).contains(probability)) {
            return Ok(());
        }
        Err(SwarmError::Config("the probabilities of faults must be from 0 to 1".to_owned()))
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A reading, in its turn.
    Reading,
    /// A reading that was held back: newer ones went before.
    Late,
    /// The same reading once more.
    Duplicate,
    /// No reading at all.
    Garbage,
}

/// One message to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) class: Class,
    /// The reading's sequence; 0 for garbage.
    pub(crate) seq: u64,
    /// The reading's time.
    pub(crate) ts: Millis,
    pub(crate) payload: Bytes,
    /// Cut the connection once it is written, before its answer.
    pub(crate) cut: bool,
}

/// The messages of one device, faults included.
#[derive(Debug)]
pub(crate) struct Traffic {
    device: Device,
    plan: FaultPlan,
    dice: Dice,
    /// A reading that is held back, and how many newer ones go first.
    held: Option<(Message, u64)>,
}

impl Traffic {
    pub(crate) fn new(device: Device, seed: u64, index: u64, plan: FaultPlan) -> Self {
        Self { device, plan, dice: Dice::of(seed, index, Stream::Faults), held: None }
    }

    /// The messages of the tick at `ts`: usually one. The first return value is the reading that was taken now, even if it
    /// is held back.
    pub(crate) fn tick(&mut self, ts: Millis) -> (Message, Vec<Message>) {
        let reading = self.device.next(ts);
        // Every die is thrown at every reading, so that one probability does not shift another's strikes.
        let cut = self.dice.chance(self.plan.disconnect);
        let twice = self.dice.chance(self.plan.duplicate);
        let late = self.dice.chance(self.plan.late);
        let hold_for = 1 + self.dice.below(3);
        let garbage = self.dice.chance(self.plan.garbage).then(|| self.dice.below(GARBAGE.len() as u64));

        let message = Message { class: Class::Reading, seq: reading.seq, ts, payload: reading.payload, cut };
        let mut out = Vec::with_capacity(1);
        if late && self.held.is_none() {
            self.held = Some((Message { class: Class::Late, ..message.clone() }, hold_for));
        } else {
            out.push(message.clone());
            if twice {
                out.push(Message { class: Class::Duplicate, cut: false, ..message.clone() });
            }
            out.extend(self.release());
        }
        if let Some(which) = garbage {
            let payload = Bytes::from_static(GARBAGE[which as usize]);
            out.push(Message { class: Class::Garbage, seq: 0, ts, payload, cut: false });
        }
        (message, out)
    }

    /// What is still held back, when no newer reading will come.
    pub(crate) fn flush(&mut self) -> Option<Message> {
        self.held.take().map(|(message, _)| message)
    }

    /// One newer reading went out: the held one may be due.
    fn release(&mut self) -> Option<Message> {
        let (_, newer_first) = self.held.as_mut()?;
        *newer_first = newer_first.saturating_sub(1);
        if *newer_first > 0 {
            return None;
        }
        self.flush()
    }
}

/// Payloads that no node may take for a reading: nothing, no JSON, half a JSON, JSON that is no object, too deep an object.
const GARBAGE: [&[u8]; 7] = [
    b"",
    b"temperature=21.5",
    b"{\"temperature\":21.",
    b"\xff\xfe\x00\x01\x80 not text",
    b"42",
    b"\"21.5\"",
    b"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":\
      [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn messages(plan: FaultPlan, ticks: u64) -> Vec<Message> {
        let mut traffic = Traffic::new(Device::new(3, 1, "", false), 3, 1, plan);
        let mut out: Vec<_> = (0..ticks).flat_map(|n| traffic.tick(n as i64 * 1_000).1).collect();
        out.extend(traffic.flush());
        out
    }

    #[test]
    fn without_faults_every_reading_goes_once_in_order() {
        let out = messages(FaultPlan::default(), 100);
        assert!(out.iter().all(|message| message.class == Class::Reading && !message.cut));
        assert_eq!(out.iter().map(|message| message.seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn with_every_fault_each_reading_still_goes_once_and_the_same_seed_strikes_alike() {
        let plan = FaultPlan { disconnect: 0.1, duplicate: 0.2, late: 0.3, garbage: 0.2 };
        let out = messages(plan, 2_000);
        assert_eq!(out, messages(plan, 2_000));

        let mut firsts: Vec<u64> =
            out.iter().filter(|m| matches!(m.class, Class::Reading | Class::Late)).map(|m| m.seq).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, (1..=2_000).collect::<Vec<_>>());

        let mut count: HashMap<&'static str, usize> = HashMap::new();
        let mut newest = 0;
        for message in &out {
            match message.class {
                Class::Reading => newest = newest.max(message.seq),
                Class::Late => {
                    assert!(message.seq < newest || message.seq == 2_000, "{} after {newest}", message.seq);
                    *count.entry("late").or_default() += 1;
                }
                Class::Duplicate => *count.entry("duplicate").or_default() += 1,
                Class::Garbage => *count.entry("garbage").or_default() += 1,
            }
            if message.cut {
                *count.entry("cut").or_default() += 1;
            }
        }
        for (name, low, high) in [("late", 250, 700), ("duplicate", 150, 450), ("garbage", 300, 500), ("cut", 120, 280)]
        {
            assert!((low..high).contains(&count[name]), "{name}: {}", count[name]);
        }
    }

    #[test]
    fn faults_do_not_alter_the_readings() {
        let payloads = |plan| -> HashMap<u64, Bytes> {
            messages(plan, 50).into_iter().filter(|m| m.seq > 0).map(|m| (m.seq, m.payload)).collect()
        };
        let all = FaultPlan { disconnect: 1.0, duplicate: 1.0, late: 1.0, garbage: 1.0 };
        assert_eq!(payloads(FaultPlan::default()), payloads(all));
    }

    #[test]
    fn garbage_is_no_reading() {
        for payload in GARBAGE {
            let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload);
            assert!(parsed.is_err(), "{payload:?}");
        }
    }
}
