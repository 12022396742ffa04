//! A shadow as a document: what its device is to be (`desired`), what it says it is (`reported`), and when each value was set.
//!
//! The merge is RFC 7396's (a `null` removes a key), the difference and the times are those of AWS' device shadows. Pure: no
//! clock, no queue, no I/O.

use serde_json::{Map, Value, json};
use tidegate_actors::limits;

use super::request::{Patch, Rejection, Update};

/// One half of a shadow: its values, and beside each value when it was set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Section {
    pub(super) values: Map<String, Value>,
    /// The same tree; in place of each value `{"timestamp": seconds}`, of each array an array of them.
    pub(super) times: Map<String, Value>,
}

/// A device's shadow.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Document {
    /// Grows by one with each change, and does not begin anew when the shadow is deleted and made again.
    pub(crate) version: u64,
    /// When it was last changed, in seconds since 1970.
    pub(super) changed: i64,
    /// It was deleted: only its version is left.
    pub(super) deleted: bool,
    pub(super) desired: Section,
    pub(super) reported: Section,
}

impl Document {
    /// Is there a shadow, and not only the version of one that was deleted?
    pub(crate) fn exists(&self) -> bool {
        self.version > 0 && !self.deleted
    }

    /// The document after an update at `now` (seconds).
    ///
    /// # Errors
    /// The update is for another version, or makes the document too large or too deep. The document is as before.
    pub(crate) fn updated(&self, update: &Update, now: i64) -> Result<Self, Rejection> {
        if let Some(version) = update.version.filter(|version| *version != self.version) {
            let message =
                format!("Version conflict: the update is for version {version}, the shadow has {}", self.version);
            return Err(Rejection::new(409, message));
        }
        let mut next = self.clone();
        next.version += 1;
        next.changed = now;
        next.deleted = false;
        for (section, patch) in [(&mut next.desired, &update.desired), (&mut next.reported, &update.reported)] {
            match patch {
                Patch::Absent => {}
                Patch::Clear => *section = Section::default(),
                Patch::Merge(patch) => merge(&mut section.values, &mut section.times, patch, now),
            }
        }
        for (name, section) in [("desired", &next.desired), ("reported", &next.reported)] {
            if depth(&section.values) > limits::SHADOW_DEPTH {
                let message = format!(
                    "JSON contains too many levels of nesting: {name} has more than {} (limit shadow_depth)",
                    limits::SHADOW_DEPTH
                );
                return Err(Rejection::new(400, message).limit("shadow_depth", limits::SHADOW_DEPTH));
            }
        }
        let bytes = text_bytes(&next.desired.values) + text_bytes(&next.reported.values);
        if bytes > limits::SHADOW_BYTES {
            let message = format!(
                "desired and reported would take {bytes} bytes, at most {} are kept (limit shadow_bytes); null removes a key",
                limits::SHADOW_BYTES
            );
            return Err(Rejection::new(413, message).limit("shadow_bytes", limits::SHADOW_BYTES));
        }
        Ok(next)
    }

    /// What is left of it once it is deleted.
    pub(crate) fn deleted(&self, now: i64) -> Self {
        Self { version: self.version, changed: now, deleted: true, ..Self::default() }
    }

    /// Was it deleted before `oldest` (seconds)? Then its version need not be remembered.
    pub(super) fn is_forgotten(&self, oldest: i64) -> bool {
        self.deleted && self.changed < oldest
    }

    /// The part of `desired` that differs from `reported`, with its times; empty: the device is as it is to be.
    pub(crate) fn delta(&self) -> Section {
        let (values, times) = difference(&self.desired.values, &self.desired.times, &self.reported.values);
        Section { values, times }
    }

    /// The whole document, as it is got: state with the delta, metadata, version.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let mut document = self.stored_json();
        let delta = self.delta();
        if !delta.values.is_empty()
            && let Some(Value::Object(state)) = document.get_mut("state")
        {
            state.insert("delta".to_owned(), delta.values.into());
        }
        document
    }

    /// State without the delta, metadata and version: what `update/documents` shows.
    pub(crate) fn stored_json(&self) -> Map<String, Value> {
        let (mut state, mut metadata) = (Map::new(), Map::new());
        for (name, section) in [("desired", &self.desired), ("reported", &self.reported)] {
            if !section.values.is_empty() {
                state.insert(name.to_owned(), section.values.clone().into());
                metadata.insert(name.to_owned(), section.times.clone().into());
            }
        }
        Map::from_iter([
            ("state".to_owned(), state.into()),
            ("metadata".to_owned(), metadata.into()),
            ("version".to_owned(), self.version.into()),
        ])
    }
}

/// Merges a patch (RFC 7396), and notes the time of every value that it sets.
fn merge(values: &mut Map<String, Value>, times: &mut Map<String, Value>, patch: &Map<String, Value>, now: i64) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                values.remove(key);
                times.remove(key);
            }
            Value::Object(inner) => {
                if !matches!(values.get(key), Some(Value::Object(_))) {
                    values.insert(key.clone(), Value::Object(Map::new()));
                    times.insert(key.clone(), Value::Object(Map::new()));
                }
                if let (Some(Value::Object(values)), Some(Value::Object(times))) =
                    (values.get_mut(key), times.get_mut(key))
                {
                    merge(values, times, inner, now);
                }
            }
            other => {
                values.insert(key.clone(), other.clone());
                times.insert(key.clone(), times_of(other, now));
            }
        }
    }
}

/// The times of a value that was set whole.
pub(super) fn times_of(value: &Value, now: i64) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| times_of(item, now)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), times_of(value, now))).collect())
        }
        _ => json!({ "timestamp": now }),
    }
}

fn difference(
    desired: &Map<String, Value>,
    times: &Map<String, Value>,
    reported: &Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut values, mut set) = (Map::new(), Map::new());
    for (key, wanted) in desired {
        let when = times.get(key);
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(is))) => {
                let none = Map::new();
                let (inner, when) = difference(wanted, when.and_then(Value::as_object).unwrap_or(&none), is);
                if !inner.is_empty() {
                    values.insert(key.clone(), inner.into());
                    set.insert(key.clone(), when.into());
                }
            }
            (wanted, Some(is)) if same(wanted, is) => {}
            (wanted, _) => {
                values.insert(key.clone(), wanted.clone());
                if let Some(when) = when {
                    set.insert(key.clone(), when.clone());
                }
            }
        }
    }
    (values, set)
}

/// Equal as JSON values: 1 and 1.0 are one number.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Levels of keys and indices.
fn depth(fields: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Object(fields) => depth(fields),
            Value::Array(items) if items.is_empty() => 0,
            Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
            _ => 0,
        }
    }
    if fields.is_empty() { 0 } else { 1 + fields.values().map(of).max().unwrap_or(0) }
}

fn text_bytes(fields: &Map<String, Value>) -> usize {
    // A map of strings to values always serializes.
    serde_json::to_vec(fields).map_or(0, |text| text.len())
}
