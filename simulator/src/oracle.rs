//! The oracle: what the node owes to one device, and whether a state pays it. Pure; it asks nobody.
//!
//! The times and sequences of a device grow together, so whatever the order in which messages arrived, were sent twice or
//! were cut off, the state must end at or after the greatest acknowledged reading.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_actors::clock::Millis;

use crate::config::FieldCheck;

/// Readings after the greatest acknowledged one whose payloads are kept for comparison.
const KEPT: usize = 64;

/// What one device sent and what was acknowledged.
#[derive(Debug, Clone)]
pub struct Oracle {
    id: String,
    last_sent: u64,
    acked: Option<(u64, Millis)>,
    /// Readings from the greatest acknowledged one on, in the order of their sequence.
    recent: VecDeque<(u64, Millis, Bytes)>,
}

/// A device as `GET /devices` shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The device's id.
    pub device_id: String,
    /// Its latest state.
    pub state: Map<String, Value>,
    /// The device's own time of the reading that made the state.
    #[serde(default)]
    pub device_time: Option<Millis>,
}

/// What is wrong with a device's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "problem", rename_all = "camelCase")]
pub enum Fault {
    /// The node does not know the device although it acknowledged a reading.
    #[serde(rename_all = "camelCase")]
    Missing {
        /// The greatest acknowledged sequence.
        acked: u64,
    },
    /// The state is older than an acknowledged reading.
    #[serde(rename_all = "camelCase")]
    Stale {
        /// The greatest acknowledged sequence.
        acked: u64,
        /// The state's sequence.
        found: u64,
    },
    /// The state's sequence was never sent.
    #[serde(rename_all = "camelCase")]
    NeverSent {
        /// The greatest sequence that was sent.
        sent: u64,
        /// The state's sequence.
        found: u64,
    },
    /// The state has no `seq`: a handler removed it, so nothing can be checked.
    NoSequence,
    /// A field differs from what was sent with that sequence.
    #[serde(rename_all = "camelCase")]
    Differs {
        /// The sequence.
        seq: u64,
        /// The field's name.
        field: String,
        /// What was sent.
        sent: Value,
        /// What the state has.
        found: Value,
    },
}

impl Oracle {
    /// The oracle of a device that has sent nothing.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self { id, last_sent: 0, acked: None, recent: VecDeque::new() }
    }

    /// The device's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The greatest acknowledged sequence, if any was.
    #[must_use]
    pub fn acked_seq(&self) -> Option<u64> {
        self.acked.map(|(seq, _)| seq)
    }

    /// A reading was taken and will be sent. Sequences and times must grow.
    pub fn sent(&mut self, seq: u64, ts: Millis, payload: Bytes) {
        self.last_sent = seq;
        self.recent.push_back((seq, ts, payload));
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
    }

    /// The node promised that this reading is durable.
    pub fn acked(&mut self, seq: u64, ts: Millis) {
        if self.acked.is_none_or(|(greatest, _)| seq > greatest) {
            self.acked = Some((seq, ts));
            while self.recent.front().is_some_and(|(kept, ..)| *kept < seq) {
                self.recent.pop_front();
            }
        }
    }

    /// Whether the node pays what it owes. `None`: the node does not know the device.
    #[must_use]
    pub fn check(&self, observed: Option<&Observed>, fields: FieldCheck) -> Option<Fault> {
        let Some((acked, acked_ts)) = self.acked else {
            // Nothing was promised; yet what is there must have been sent.
            return observed.and_then(|observed| self.compare(observed, fields));
        };
        let Some(observed) = observed else { return Some(Fault::Missing { acked }) };
        let Some(found) = observed.seq() else { return Some(Fault::NoSequence) };
        // An earlier run's state may have a greater sequence, but never a later time.
        let older = observed.device_time.is_some_and(|time| time < acked_ts);
        if older || found < acked {
            return Some(Fault::Stale { acked, found });
        }
        self.compare(observed, fields)
    }

    fn compare(&self, observed: &Observed, check: FieldCheck) -> Option<Fault> {
        let found = observed.seq()?;
        if found > self.last_sent {
            return self.acked.map(|_| Fault::NeverSent { sent: self.last_sent, found });
        }
        let (seq, ts, payload) = self.recent.iter().find(|(seq, ..)| *seq == found)?;
        if let Some(time) = observed.device_time.filter(|time| time != ts) {
            // Without a promise it is an earlier run's state, which is nobody's fault.
            self.acked?;
            return Some(differs(*seq, "deviceTime", (*ts).into(), time.into()));
        }
        if check == FieldCheck::Any {
            return None;
        }
        let sent: Map<String, Value> = serde_json::from_slice(payload).ok()?;
        sent.into_iter().filter(|(name, _)| name != "ts" && name != "deviceId").find_map(|(name, value)| {
            let found = observed.state.get(&name)?;
            (!same(&value, found)).then(|| differs(*seq, &name, value, found.clone()))
        })
    }
}

impl Observed {
    /// The `seq` that the device put into the reading, if a handler has left it.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        let seq = self.state.get("seq")?;
        // A handler's JavaScript knows only doubles, so `7` may come back as `7.0`.
        seq.as_u64().or_else(|| seq.as_f64().filter(|seq| *seq >= 0.0 && seq.fract() == 0.0).map(|seq| seq as u64))
    }
}

fn differs(seq: u64, field: &str, sent: Value, found: Value) -> Fault {
    Fault::Differs { seq, field: field.to_owned(), sent, found }
}

/// Equal as JSON, where `230` and `230.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { acked } => {
                write!(f, "missing: acknowledged up to {acked}, but the node does not know the device")
            }
            Self::Stale { acked, found } => write!(f, "stale: acknowledged up to {acked}, the state is at {found}"),
            Self::NeverSent { sent, found } => write!(f, "the state is at {found}, but only {sent} were sent"),
            Self::NoSequence => write!(f, "the state has no \"seq\", a handler must have removed it"),
            Self::Differs { seq, field, sent, found } => {
                write!(f, "at {seq}, {field:?} was sent as {sent}, the state has {found}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::device::Device;

    fn state(seq: u64, time: Option<Millis>, fields: &Value) -> Observed {
        let mut state = fields.as_object().cloned().unwrap_or_default();
        state.insert("seq".to_owned(), seq.into());
        Observed { device_id: "d".to_owned(), state, device_time: time }
    }

    /// Sent 1 to 5, at times 100 to 500, with `v` ten times the sequence; 3 is acknowledged.
    fn oracle() -> Oracle {
        let mut oracle = Oracle::new("d".to_owned());
        for seq in 1..=5 {
            let ts = seq as i64 * 100;
            oracle.sent(seq, ts, json!({"deviceId": "d", "ts": ts, "seq": seq, "v": seq * 10}).to_string().into());
        }
        oracle.acked(3, 300);
        oracle.acked(2, 200);
        oracle
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let check = |observed: Option<Observed>, expected: Option<Fault>| {
            assert_eq!(oracle().check(observed.as_ref(), FieldCheck::Exact), expected, "{observed:?}");
        };
        check(None, Some(Fault::Missing { acked: 3 }));
        check(Some(state(2, Some(200), &json!({"v": 20}))), Some(Fault::Stale { acked: 3, found: 2 }));
        check(Some(state(3, Some(300), &json!({"v": 30}))), None);
        check(Some(state(3, None, &json!({"v": 30.0}))), None);
        check(Some(state(5, Some(500), &json!({"v": 50, "added": true}))), None);
        check(Some(state(5, Some(500), &json!({}))), None);
        check(Some(state(6, Some(600), &json!({}))), Some(Fault::NeverSent { sent: 5, found: 6 }));
        // A state of an earlier run: a greater sequence at an older time.
        check(Some(state(900, Some(7), &json!({"v": 1}))), Some(Fault::Stale { acked: 3, found: 900 }));
        check(Some(state(4, Some(400), &json!({"v": 30}))), Some(differs(4, "v", json!(40), json!(30))));
        check(Some(state(4, Some(444), &json!({"v": 40}))), Some(differs(4, "deviceTime", json!(400), json!(444))));
        let without = Observed { state: Map::new(), ..state(0, None, &json!({})) };
        check(Some(without), Some(Fault::NoSequence));
    }

    #[test]
    fn a_handler_that_changes_fields_may_be_allowed() {
        let changed = state(4, Some(400), &json!({"v": "forty"}));
        assert_eq!(oracle().check(Some(&changed), FieldCheck::Any), None);
        let stale = state(1, Some(100), &json!({}));
        assert!(oracle().check(Some(&stale), FieldCheck::Any).is_some());
    }

    #[test]
    fn nothing_promised_nothing_owed() {
        let mut oracle = Oracle::new("d".to_owned());
        oracle.sent(1, 100, json!({"seq": 1, "v": 10}).to_string().into());
        assert_eq!(oracle.check(None, FieldCheck::Exact), None);
        assert_eq!(oracle.check(Some(&state(1, Some(100), &json!({"v": 10}))), FieldCheck::Exact), None);
        assert_eq!(oracle.check(Some(&state(77, Some(5), &json!({}))), FieldCheck::Exact), None);
        assert!(oracle.check(Some(&state(1, Some(100), &json!({"v": 11}))), FieldCheck::Exact).is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrives { lag: usize },
        Acked { lag: usize },
    }

    proptest! {
        /// A model node that folds by greatest time satisfies the oracle after any order of arrivals and acks; the same node
        /// that forgets the newest acknowledged reading never does.
        #[test]
        fn an_honest_node_passes_and_a_forgetful_one_fails(steps in proptest::collection::vec(
            prop_oneof![(0_usize..4).prop_map(|lag| Step::Arrives { lag }), (0_usize..4).prop_map(|lag| Step::Acked { lag })], 1..200)) {
            let mut device = Device::new(9, 1, "", true);
            let mut oracle = Oracle::new(device.id().to_owned());
            let (mut sent, mut arrived) = (Vec::new(), Vec::new());
            for (n, step) in steps.iter().enumerate() {
                match step {
                    Step::Arrives { lag } => {
                        let reading = device.next(1_000 + n as i64);
                        oracle.sent(reading.seq, reading.ts, reading.payload.clone());
                        sent.push(reading);
                        // The reading that arrives may be an older one, or one that arrived before.
                        arrived.push(sent[sent.len().saturating_sub(1 + lag)].clone());
                    }
                    Step::Acked { lag } if !arrived.is_empty() => {
                        let reading = &arrived[arrived.len().saturating_sub(1 + lag)];
                        oracle.acked(reading.seq, reading.ts);
                    }
                    Step::Acked { .. } => {}
                }
            }
            let observe = |readings: &[crate::device::Reading]| readings.iter().max_by_key(|r| r.ts).map(|r| {
                let mut state: Map<String, Value> = serde_json::from_slice(&r.payload).expect("an object");
                state.remove("ts");
                state.remove("deviceId");
                Observed { device_id: device.id().to_owned(), state, device_time: Some(r.ts) }
            });
            prop_assert_eq!(oracle.check(observe(&arrived).as_ref(), FieldCheck::Exact), None);
            if let Some(acked) = oracle.acked_seq() {
                let forgotten: Vec<_> = arrived.into_iter().filter(|r| r.seq < acked).collect();
                prop_assert!(oracle.check(observe(&forgotten).as_ref(), FieldCheck::Exact).is_some());
            }
        }
    }
}
