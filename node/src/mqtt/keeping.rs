//! What of a session is durable: which change is kept when, as pairs of the node's journal ([`super::stored`] has their form).
//!
//! Sessions that end with their connection keep nothing. Everything is kept on the loop that owns the client id.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::{
    outgoing::Parcel,
    session::Session,
    stored::{self, Incoming, Progress, Stage},
};
use crate::edge::EdgeLoop;

/// More than a record may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Keeps a session as it is now: that it is there, its subscriptions, its will, since when it is without a connection.
///
/// # Errors
/// It is too large.
pub(crate) fn session(edge: &EdgeLoop, session: &Session) -> Result<(), TooLarge> {
    if !session.is_stored() {
        return Ok(());
    }
    let now = (edge.handle.services().clock.now(), edge.uptime_ms());
    put(edge, stored::session_key(&session.client_id), Some(stored::encode_session(session, now)))?;
    if !session.kept.replace(true) {
        edge.shared.stored_sessions.add(edge.handle.id());
    }
    Ok(())
}

/// Forgets a session and everything of it.
pub(crate) fn forget(edge: &EdgeLoop, session: &Session) {
    if !session.kept.replace(false) {
        return;
    }
    edge.shared.stored_sessions.remove(edge.handle.id());
    forget_pair(edge, stored::session_key(&session.client_id));
    if let Some(outgoing) = &*session.outgoing.borrow() {
        for seq in outgoing.seqs() {
            forget_pair(edge, stored::message_key(&session.client_id, seq));
            forget_pair(edge, stored::progress_key(&session.client_id, seq));
        }
    }
    if let Some(incoming) = &*session.incoming.borrow() {
        incoming.ids().for_each(|id| forget_pair(edge, stored::incoming_key(&session.client_id, id)));
    }
}

/// Keeps a message for the client, with its packet id if it has one.
///
/// # Errors
/// It is too large.
pub(crate) fn message(
    edge: &EdgeLoop,
    session: &Session,
    seq: u64,
    parcel: &Parcel,
    id: Option<NonZeroU16>,
) -> Result<(), TooLarge> {
    let now = (edge.handle.services().clock.now(), edge.uptime_ms());
    put(edge, stored::message_key(&session.client_id, seq), Some(stored::encode_message(parcel, id, now)))
}

/// Keeps how far a message has come: its packet id, and whether the client has it (PUBREC), for then it is itself forgotten.
pub(crate) fn progress(edge: &EdgeLoop, session: &Session, seq: u64, progress: Progress) {
    let released = progress.released;
    let stage = stored::encode_stage(Stage::UnderWay(progress));
    let _ = put(edge, stored::progress_key(&session.client_id, seq), Some(stage));
    if released {
        forget_pair(edge, stored::message_key(&session.client_id, seq));
    }
}

/// A message with QoS 2 is over; its name is remembered until [`forget_done`].
pub(crate) fn done(edge: &EdgeLoop, session: &Session, seq: u64, origin: u64) {
    let stage = stored::encode_stage(Stage::Done { origin });
    let _ = put(edge, stored::progress_key(&session.client_id, seq), Some(stage));
    forget_pair(edge, stored::message_key(&session.client_id, seq));
}

/// Forgets the name of a message that is over.
pub(crate) fn forget_done(edge: &EdgeLoop, session: &Session, seq: u64) {
    forget_pair(edge, stored::progress_key(&session.client_id, seq));
}

/// A message is over.
pub(crate) fn forget_message(edge: &EdgeLoop, session: &Session, seq: u64, has_progress: bool) {
    forget_pair(edge, stored::message_key(&session.client_id, seq));
    if has_progress {
        forget_pair(edge, stored::progress_key(&session.client_id, seq));
    }
}

/// Keeps an exchange of QoS 2 with the client.
pub(crate) fn incoming(edge: &EdgeLoop, session: &Session, id: NonZeroU16, incoming: Incoming) {
    if session.is_stored() {
        let incoming = stored::encode_incoming(incoming);
        let _ = put(edge, stored::incoming_key(&session.client_id, id), Some(incoming));
    }
}

/// An exchange of QoS 2 with the client is over.
pub(crate) fn forget_incoming(edge: &EdgeLoop, session: &Session, id: NonZeroU16) {
    if session.kept.get() {
        forget_pair(edge, stored::incoming_key(&session.client_id, id));
    }
}

/// Forgets one pair.
pub(crate) fn forget_pair(edge: &EdgeLoop, key: Bytes) {
    // Only a pair that is kept can be too large.
    let _ = put(edge, key, None);
}

fn put(edge: &EdgeLoop, key: Bytes, value: Option<Bytes>) -> Result<(), TooLarge> {
    edge.handle.keep(key, value).map_err(|_| TooLarge)
}

/// Runs `then` here once everything that was kept so far is durable. Never before this returns.
pub(crate) fn when_durable(edge: &EdgeLoop, then: impl FnOnce() + 'static) {
    edge.handle.when_durable(then);
}
