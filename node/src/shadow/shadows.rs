//! The shadows of a loop's devices: each request in order, its change kept, its answer given once the change is durable.
//!
//! Held in memory in their stored form, which is small, and taken apart when one is asked for. What a request changes is seen by
//! the next request at once, and by nobody outside before it is durable.

use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Map, Value};
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    document::Document,
    messages,
    request::{Rejection, Update},
    stored,
};
use crate::{edge::EdgeLoop, kept};

/// The shadows of a loop.
#[derive(Default)]
pub(crate) struct Shadows {
    entries: HashMap<DeviceId, Entry>,
    swept: u64,
}

struct Entry {
    stored: Bytes,
    /// Changes that are not durable yet.
    under_way: u32,
}

/// What is asked of a shadow, with the request's `clientToken`.
#[derive(Debug)]
pub(crate) enum Ask {
    Get(Option<Box<str>>),
    Update(Update),
    Delete(Option<Box<str>>),
}

impl Ask {
    fn token(&self) -> Option<Box<str>> {
        match self {
            Self::Get(token) | Self::Delete(token) => token.clone(),
            Self::Update(update) => update.token.clone(),
        }
    }
}

/// What is counted of all shadows.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) updates: AtomicU64,
    pub(crate) deletes: AtomicU64,
    pub(crate) gets: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

impl Counters {
    fn count(&self, ask: &Ask, result: Option<&Rejection>) {
        let counter = match (result, ask) {
            (Some(rejection), _) if rejection.code == 409 => &self.conflicts,
            (Some(_), _) => &self.rejected,
            (None, Ask::Get(_)) => &self.gets,
            (None, Ask::Update(_)) => &self.updates,
            (None, Ask::Delete(_)) => &self.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shadows {
    /// Shadows and remembered versions.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn document(&self, device: &DeviceId) -> Result<Document, Rejection> {
        let Some(entry) = self.entries.get(device) else { return Ok(Document::default()) };
        stored::decode(&entry.stored).map_err(|error| {
            tracing::error!(%device, error, "a shadow that is kept cannot be read");
            Rejection::new(500, "the stored shadow cannot be read; the node's log says why")
        })
    }

    /// Changes a shadow in memory; durable later.
    fn put(&mut self, device: &DeviceId, stored: Bytes) {
        let entry = self.entries.entry(device.clone()).or_insert(Entry { stored: Bytes::new(), under_way: 0 });
        entry.stored = stored;
        entry.under_way += 1;
    }

    fn is_durable(&self, device: &DeviceId) -> bool {
        self.entries.get(device).is_none_or(|entry| entry.under_way == 0)
    }

    fn on_durable(&mut self, device: &DeviceId) {
        if let Some(entry) = self.entries.get_mut(device) {
            entry.under_way = entry.under_way.saturating_sub(1);
        }
    }
}

/// A shadow as the last run of the node left it.
pub(crate) fn recovered(edge: &EdgeLoop, key: &[u8], value: &[u8]) {
    let Some(device) = stored::device_of(key) else {
        tracing::error!(key = %key.escape_ascii(), "left out a shadow whose key names no device");
        return;
    };
    if let Err(error) = stored::decode(value) {
        // It stays as it is: a request for it is told so, and a newer node may read it.
        tracing::error!(%device, error, "a shadow that is kept cannot be read");
    }
    let entry = Entry { stored: Bytes::copy_from_slice(value), under_way: 0 };
    edge.shadows.borrow_mut().entries.insert(device, entry);
}

/// Does what is asked of a device of this loop; `done` gets the answer, once it is durable.
pub(crate) fn serve(
    edge: &Rc<EdgeLoop>,
    device: DeviceId,
    ask: &Ask,
    done: impl FnOnce(&Rc<EdgeLoop>, Result<Value, Rejection>) + 'static,
) {
    let changed = change(edge, &device, ask);
    edge.shared.shadows.count(ask, changed.as_ref().err());
    match changed {
        Err(rejection) => done(edge, Err(Rejection { token: ask.token(), ..rejection })),
        Ok(Changed { answer, then }) => {
            let wrote = then.is_some();
            if !wrote && edge.shadows.borrow().is_durable(&device) {
                return done(edge, Ok(answer));
            }
            let later = Rc::clone(edge);
            kept::when_durable(edge, move || {
                if wrote {
                    later.shadows.borrow_mut().on_durable(&device);
                }
                for message in then.into_iter().flatten() {
                    messages::publish(&later, &device, &message);
                }
                done(&later, Ok(answer));
            });
        }
    }
}

/// What a request comes to: its answer, and, if it changed something, what subscribers are told.
struct Changed {
    answer: Value,
    then: Option<Vec<messages::Told>>,
}

fn change(edge: &EdgeLoop, device: &DeviceId, ask: &Ask) -> Result<Changed, Rejection> {
    let now = edge.handle.services().clock.now() / 1_000;
    let before = edge.shadows.borrow().document(device)?;
    if !before.exists() && !matches!(ask, Ask::Update(_)) {
        return Err(Rejection::new(404, format!("No shadow exists with name: {device}")));
    }
    let stamped = |mut fields: Map<String, Value>| {
        fields.insert("timestamp".to_owned(), now.into());
        if let Some(token) = ask.token() {
            fields.insert("clientToken".to_owned(), String::from(token).into());
        }
        Value::Object(fields)
    };
    match ask {
        Ask::Get(_) => Ok(Changed { answer: stamped(before.json()), then: None }),
        Ask::Delete(_) => {
            let after = before.deleted(now);
            keep(edge, device, &after)?;
            let answer = stamped(Map::from_iter([("version".to_owned(), after.version.into())]));
            Ok(Changed { then: Some(vec![messages::Told::Deleted(answer.clone())]), answer })
        }
        Ask::Update(update) => {
            let after = before.updated(update, now)?;
            if before.version == 0 && edge.shadows.borrow().len() >= limits::SHADOWS {
                let message = format!("this loop has {} shadows (limit shadows)", limits::SHADOWS);
                return Err(Rejection::new(503, message).limit("shadows", limits::SHADOWS));
            }
            keep(edge, device, &after)?;
            let answer = stamped(Map::from_iter([
                ("state".to_owned(), update.state().into()),
                ("metadata".to_owned(), update.metadata(now).into()),
                ("version".to_owned(), after.version.into()),
            ]));
            let mut told = vec![messages::Told::Accepted(answer.clone())];
            let delta = after.delta();
            if !delta.values.is_empty() {
                told.push(messages::Told::Delta(stamped(Map::from_iter([
                    ("state".to_owned(), delta.values.into()),
                    ("metadata".to_owned(), delta.times.into()),
                    ("version".to_owned(), after.version.into()),
                ]))));
            }
            let documents = [("previous", before.stored_json()), ("current", after.stored_json())];
            let documents = documents.map(|(name, document)| (name.to_owned(), document.into()));
            told.push(messages::Told::Documents(stamped(Map::from_iter(documents))));
            Ok(Changed { answer, then: Some(told) })
        }
    }
}

fn keep(edge: &EdgeLoop, device: &DeviceId, document: &Document) -> Result<(), Rejection> {
    let value = stored::encode(document);
    kept::keep(edge, stored::key(device), Some(value.clone())).map_err(|error| Rejection::new(413, error))?;
    edge.shadows.borrow_mut().put(device, value);
    Ok(())
}

/// Forgets the versions of shadows that were deleted long ago. Called once a second, looks once an hour.
pub(crate) fn sweep(edge: &EdgeLoop) {
    const EVERY_MS: u64 = 3_600_000;
    let now = edge.uptime_ms();
    if now.saturating_sub(edge.shadows.borrow().swept) < EVERY_MS {
        return;
    }
    let kept_for = i64::try_from(limits::SHADOW_DELETED_KEPT.as_secs()).unwrap_or(i64::MAX);
    let oldest = edge.handle.services().clock.now() / 1_000 - kept_for;
    let mut gone = Vec::new();
    {
        let mut shadows = edge.shadows.borrow_mut();
        shadows.swept = now;
        shadows.entries.retain(|device, entry| {
            let forgotten = entry.under_way == 0
                && stored::decode(&entry.stored).is_ok_and(|document| document.is_forgotten(oldest));
            if forgotten {
                gone.push(stored::key(device));
            }
            !forgotten
        });
    }
    for key in gone {
        // Forgetting is never too large.
        let _ = kept::keep(edge, key, None);
    }
}
