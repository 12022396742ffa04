//! The sessions that were stored, back on the loops that own their client ids. Runs once, at boot, before a listener opens: a
//! publisher must find every stored subscription on every loop.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_actors::{ids::LoopId, placement, store::StoreError};

use super::{
    announcements::{self, Change},
    keeping,
    outgoing::Parcel,
    router,
    session::Session,
    sessions,
    stored::{self, Progress, Stage, StoredSession, Unreadable},
};
use crate::edge::{EdgeLoop, Shared};

/// Pairs that go to a loop in one message: it turns in between.
const PIECE: usize = 4_096;

/// A pair on its way to its loop.
type Pair = (Bytes, Bytes);

/// How long a loop may be busy with the readings from before the stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the sessions are not back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A loop.
    #[error("loop {0} does not take them")]
    Loop(u16),
}

/// Restores all sessions. Returns how many there are.
///
/// # Errors
/// [`RestoreError`].
pub(crate) async fn restore(shared: &Arc<Shared>) -> Result<usize, RestoreError> {
    // Sessions come before what belongs to them.
    for prefix in [stored::SESSIONS, stored::MESSAGES, stored::INCOMING] {
        let loops = shared.runtime.services().loops();
        let mut pieces: Vec<VecDeque<Vec<Pair>>> = (0..loops).map(|_| VecDeque::new()).collect();
        shared.runtime.kept(prefix, &mut |key, value| {
            let client_id =
                if prefix == stored::SESSIONS { std::str::from_utf8(&key[1..]).ok() } else { stored::owner(key) };
            let Some(client_id) = client_id else {
                tracing::error!(?key, "a stored pair of an MQTT session has a key that is none; it is left as it is");
                return ControlFlow::Continue(());
            };
            let pieces = &mut pieces[placement::owner(client_id, loops).index()];
            if pieces.back().is_none_or(|piece| piece.len() >= PIECE) {
                pieces.push_back(Vec::new());
            }
            if let Some(piece) = pieces.back_mut() {
                piece.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            ControlFlow::Continue(())
        })?;
        for (id, pieces) in (0..loops).map(LoopId).zip(pieces) {
            for piece in pieces {
                let piece: Arc<[Pair]> = piece.into();
                on_loop(shared, id, move || take(&crate::edge::here(), &piece)).await?;
            }
        }
    }
    for id in (0..shared.runtime.services().loops()).map(LoopId) {
        // Every loop has heard of every subscription.
        while on_loop(shared, id, || crate::edge::here().announcements.are_under_way()).await? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(shared.stored_sessions.count())
}

/// Asks a loop, again while its inbox is full.
async fn on_loop<T: Send + 'static>(
    shared: &Shared,
    id: LoopId,
    ask: impl FnOnce() -> T + Clone + Send + 'static,
) -> Result<T, RestoreError> {
    let begin = Instant::now();
    loop {
        let ask = ask.clone();
        if let Ok(answer) = shared.runtime.on_loop(id, move |_| ask()).await {
            return Ok(answer);
        }
        if begin.elapsed() > PATIENCE {
            return Err(RestoreError::Loop(id.0));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes pairs of this loop's sessions.
fn take(edge: &Rc<EdgeLoop>, pairs: &[Pair]) {
    let mut changes = Vec::new();
    for (key, value) in pairs {
        if let Err(error) = take_one(edge, key, value, &mut changes) {
            let name = String::from_utf8_lossy(key).into_owned();
            tracing::error!(key = name, %error, "a stored pair of an MQTT session cannot be read; it is left as it is");
        }
    }
    announcements::announce(edge, changes, || {});
}

fn take_one(edge: &Rc<EdgeLoop>, key: &Bytes, value: &[u8], changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let kind = &key[..1];
    if kind == stored::SESSIONS {
        let client_id = std::str::from_utf8(&key[1..]).map_err(|error| Unreadable(error.to_string()))?;
        return take_session(edge, client_id, stored::decode_session(value)?, changes);
    }
    let session = stored::owner(key).and_then(|client_id| edge.sessions.borrow().find(client_id));
    let Some(session) = session else {
        // Its session has ended.
        keeping::forget_pair(edge, key.clone());
        return Ok(());
    };
    let bad_key = || Unreadable("the key is none".to_owned());
    if kind == stored::INCOMING {
        let (_, id) = stored::parse_incoming_key(key).ok_or_else(bad_key)?;
        let exchange = stored::decode_incoming(value)?;
        session.incoming.borrow_mut().get_or_insert_default().restore(id, exchange);
        return Ok(());
    }
    let (_, seq, is_progress) = stored::parse_message_key(key).ok_or_else(bad_key)?;
    if is_progress {
        match stored::decode_stage(value)? {
            Stage::UnderWay(progress) => restore_message(&session, seq, Some(progress), None),
            Stage::Done { origin } => {
                let forgotten = session.outgoing.borrow_mut().get_or_insert_default().remember(seq, origin, None);
                if let Some(seq) = forgotten {
                    keeping::forget_done(edge, &session, seq);
                }
            }
        }
    } else {
        let now = (edge.handle.services().clock.now(), edge.uptime_ms());
        let (parcel, id) = stored::decode_message(value, now)?;
        let origin = parcel.message.origin;
        restore_message(&session, seq, id.map(|id| Progress { id, released: false, origin }), Some(parcel));
    }
    Ok(())
}

fn restore_message(session: &Session, seq: u64, progress: Option<Progress>, parcel: Option<Parcel>) {
    session.outgoing.borrow_mut().get_or_insert_default().restore(seq, progress, parcel);
}

fn take_session(
    edge: &Rc<EdgeLoop>,
    client_id: &str,
    stored: StoredSession,
    changes: &mut Vec<Change>,
) -> Result<(), Unreadable> {
    let StoredSession { principal, expiry, disconnected, subscriptions, will } = stored;
    let expiry = edge.shared.settings.mqtt_session_expiry(expiry);
    let session = edge.sessions.borrow_mut().add(client_id, principal, expiry);
    edge.shared.counters.mqtt_sessions.fetch_add(1, Ordering::Relaxed);
    session.kept.set(true);
    edge.shared.stored_sessions.add(edge.handle.id());
    *session.will.borrow_mut() = will.map(Box::new);
    for (filter, subscription) in subscriptions {
        let (_, change) = router::subscribe(edge, &filter, &session, subscription);
        changes.extend(change);
        session.filter_bytes.set(session.filter_bytes.get() + filter.len());
        session.subscriptions.borrow_mut().insert(filter, subscription);
    }
    // A client that was connected left when the node ended; nobody knows when that was, so it counts from now.
    let now = edge.handle.services().clock.now();
    let gone = disconnected.map_or(0, |since| u64::try_from(now.saturating_sub(since)).unwrap_or(0));
    sessions::wait(edge, &session, gone);
    if disconnected.is_none() {
        let _ = keeping::session(edge, &session);
    }
    Ok(())
}
