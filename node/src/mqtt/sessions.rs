//! The sessions of one loop: when each begins, goes on with another connection, waits without one, and ends.
//!
//! A session is found by its client id, and by a key that is never used again. What happens in it is [`super::session`]'s.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hash::BuildHasher,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use slab::Slab;

use super::{
    connections::Link,
    drops::DropReason,
    encode::{self, Peer},
    keeping,
    listener::{self, Greeting},
    reason::ReasonCode,
    replay, router,
    session::{Deadlines, Session, SessionKey},
    wills,
};
use crate::{auth, commands, edge::EdgeLoop};

/// Sessions that one sweep ends or whose will it publishes, at most: the rest is the next one's.
const SWEEP: usize = 1_000;

/// The sessions of a loop.
#[derive(Default)]
pub(crate) struct Sessions {
    slab: Slab<Rc<Session>>,
    by_client: HashTable<SessionKey>,
    hasher: DefaultHashBuilder,
    serial: u32,
    /// When something is due in a session without a connection, in milliseconds of uptime.
    deadlines: BTreeSet<(u64, SessionKey)>,
}

/// Why a CONNECT is refused, in words.
pub(crate) type Refusal = (ReasonCode, String);

impl Sessions {
    pub(crate) fn get(&self, key: SessionKey) -> Option<Rc<Session>> {
        self.slab.get(index(key)).filter(|session| session.key == key).cloned()
    }

    /// The session of a client id.
    pub(crate) fn find(&self, client_id: &str) -> Option<Rc<Session>> {
        let hash = self.hasher.hash_one(client_id);
        let of = |key: &SessionKey| self.slab.get(index(*key)).is_some_and(|session| *session.client_id == *client_id);
        self.by_client.find(hash, of).and_then(|key| self.get(*key))
    }

    /// The client ids of the principals' sessions. Looks at all sessions.
    fn of_principals(&self, principals: &HashSet<Box<str>>) -> Vec<Rc<str>> {
        let is_of = |session: &Session| session.principal.as_deref().is_some_and(|name| principals.contains(name));
        let of = self.slab.iter().filter(|(_, session)| is_of(session));
        of.map(|(_, session)| Rc::clone(&session.client_id)).collect()
    }

    /// Adds a session of a client id that has none.
    pub(crate) fn add(&mut self, client_id: &str, principal: Option<Arc<str>>, expiry: u32) -> Rc<Session> {
        self.serial = self.serial.wrapping_add(1) & 0x7FFF_FFFF;
        let entry = self.slab.vacant_entry();
        let key = u64::from(self.serial) << 32 | entry.key() as u64;
        let session = Rc::new(Session {
            key,
            client_id: client_id.into(),
            principal,
            device: RefCell::new(listener::device_of(client_id)),
            expiry: Cell::new(expiry),
            kept: Cell::new(false),
            link: RefCell::default(),
            subscriptions: RefCell::default(),
            filter_bytes: Cell::new(0),
            will: RefCell::default(),
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            deadlines: Cell::default(),
        });
        entry.insert(Rc::clone(&session));
        let (slab, hasher) = (&self.slab, &self.hasher);
        let rehash = |key: &SessionKey| hasher.hash_one(&*slab[index(*key)].client_id);
        self.by_client.insert_unique(hasher.hash_one(client_id), key, rehash);
        session
    }

    fn remove(&mut self, session: &Session) {
        let hash = self.hasher.hash_one(&*session.client_id);
        if let Ok(entry) = self.by_client.find_entry(hash, |key| *key == session.key) {
            entry.remove();
            self.slab.remove(index(session.key));
        }
    }

    fn set_deadlines(&mut self, session: &Session, deadlines: Deadlines) {
        let old = session.deadlines.replace(deadlines);
        for due in [old.will, old.end].into_iter().flatten() {
            self.deadlines.remove(&(due, session.key));
        }
        for due in [deadlines.will, deadlines.end].into_iter().flatten() {
            self.deadlines.insert((due, session.key));
        }
    }

    fn next_due(&mut self, now: u64) -> Option<SessionKey> {
        let (due, key) = *self.deadlines.first()?;
        if due > now {
            return None;
        }
        self.deadlines.pop_first();
        Some(key)
    }
}

fn index(key: SessionKey) -> usize {
    (key & 0xFFFF_FFFF) as usize
}

/// Opens the session of an accepted CONNECT: a new one, or the client's stored one. Its CONNACK is written when that is
/// durable; until then the connection is not read.
///
/// # Errors
/// The client may not have it, or there is no room for another.
pub(crate) fn open(edge: &Rc<EdgeLoop>, greeting: &Greeting) -> Result<Rc<Link>, Refusal> {
    let connect = &greeting.connect;
    let expiry = edge.shared.settings.mqtt_session_expiry(connect.session_expiry);
    let mut old = edge.sessions.borrow().find(&connect.client_id);
    let owner = old.as_ref().and_then(|old| old.principal.clone());
    let access = auth::mqtt::begin(edge, connect, greeting.principal.as_ref(), owner.as_deref())?;
    let principal: Option<Arc<str>> = access.as_ref().map(|access| Arc::from(&*access.principal.name));
    if access.is_some() && old.as_ref().is_some_and(|old| old.principal != principal) {
        // Of a time when nobody was asked, or an administrator's to take: what is in it is not this user's.
        terminate(edge, &connect.client_id, ReasonCode::SESSION_TAKEN_OVER, "another user has this client id now");
        old = None;
    }
    let was_kept = old.as_ref().is_some_and(|old| old.kept.get());
    let most = edge.shared.settings.mqtt_sessions;
    if expiry > 0 && !was_kept && edge.shared.stored_sessions.count() >= most {
        return Err((
            ReasonCode::QUOTA_EXCEEDED,
            format!("the node stores {most} sessions (limit mqtt.limits.sessions)"),
        ));
    }
    let resumed = old.filter(|old| take_over(edge, old, connect.clean_start));
    let present = resumed.is_some();
    let add = || {
        edge.shared.counters.mqtt_sessions.fetch_add(1, Ordering::Relaxed);
        edge.sessions.borrow_mut().add(&connect.client_id, principal, expiry)
    };
    let session = resumed.unwrap_or_else(add);
    session.expiry.set(expiry);
    if expiry == 0 {
        // It goes on for this connection only.
        keeping::forget(edge, &session);
    }
    *session.will.borrow_mut() = connect.will.clone().map(Box::new);

    let link = edge.connections.borrow_mut().add(|key| Link::new(edge, key, &session, connect));
    *session.link.borrow_mut() = Some(Rc::clone(&link));
    router::presence(edge, &session, true);
    if keeping::session(edge, &session).is_err() {
        edge.connections.borrow_mut().remove(&link);
        session.link.take();
        session.will.take();
        end(edge, &session);
        let text = "the session is too large to be stored (limit record_bytes); send a smaller will".to_owned();
        return Err((ReasonCode::QUOTA_EXCEEDED, text));
    }
    if let Some(access) = access {
        session.device.replace(access.device().cloned());
        link.access.replace(Some(Rc::new(access)));
    }
    if let Some(device) = &*session.device.borrow() {
        edge.handle.connected(device, true);
    }
    let mut connack = Vec::new();
    let acceptance = listener::acceptance(edge, greeting, expiry, present);
    encode::connack(&mut connack, &Peer::of(connect), &acceptance);
    if session.is_stored() || was_kept {
        let (edge_then, link) = (Rc::clone(edge), Rc::clone(&link));
        keeping::when_durable(edge, move || welcome(&edge_then, &link, &connack));
    } else {
        welcome(edge, &link, &connack);
    }
    Ok(link)
}

/// Writes the CONNACK and then what the session has for its client.
fn welcome(edge: &EdgeLoop, link: &Rc<Link>, connack: &[u8]) {
    if !link.session.is_linked_to(link) {
        // Another connection was faster.
        return;
    }
    link.out.borrow_mut().extend_from_slice(connack);
    link.opening.set(false);
    link.session.pump(edge, link);
    link.wake();
    // A stored session has its subscriptions already: commands that wait go out.
    if !link.session.subscriptions.borrow().is_empty() {
        commands::listens(&crate::edge::here(), &link.session);
    }
}

/// A new connection of the same client id: the old one is closed. Returns whether the session goes on.
fn take_over(edge: &Rc<EdgeLoop>, session: &Rc<Session>, clean_start: bool) -> bool {
    let link = session.link.take();
    let was_connected = link.is_some();
    if let Some(link) = link {
        link.close(ReasonCode::SESSION_TAKEN_OVER, "another connection with the same client id");
        disconnect(edge, session);
    }
    edge.sessions.borrow_mut().set_deadlines(session, Deadlines::default());
    if clean_start || !session.is_stored() {
        end(edge, session);
        return false;
    }
    let will = session.will.take();
    // A will that was to wait is not published: the client is back in time ([MQTT-3.1.3-9]).
    if let Some(will) = will.filter(|will| was_connected && will.delay == 0) {
        wills::publish(edge, session, *will);
    }
    true
}

/// The session's connection is over.
fn disconnect(edge: &Rc<EdgeLoop>, session: &Session) {
    // Commands to its device are sent again by those who keep them.
    if let Some(outgoing) = &mut *session.outgoing.borrow_mut() {
        outgoing.rewind(|parcel| parcel.is_command_to(edge, session.key));
    }
    commands::left(edge, session);
}

/// A connection has ended.
pub(crate) fn closed(edge: &Rc<EdgeLoop>, link: &Rc<Link>) {
    edge.connections.borrow_mut().remove(link);
    let session = &link.session;
    if let Some(device) = &*session.device.borrow() {
        edge.handle.connected(device, false);
    }
    // Taken over, or ended from outside.
    if !session.is_linked_to(link) {
        return;
    }
    session.link.take();
    disconnect(edge, session);
    if !session.is_stored() {
        end(edge, session);
        return;
    }
    router::presence(edge, session, false);
    if session.will.borrow().as_ref().is_some_and(|will| will.delay == 0)
        && let Some(will) = session.will.take()
    {
        wills::publish(edge, session, *will);
    }
    wait(edge, session, 0);
    let _ = keeping::session(edge, session);
}

/// The session waits for its client, who has been gone for some milliseconds.
pub(crate) fn wait(edge: &EdgeLoop, session: &Session, gone: u64) {
    let after = |seconds: u32| edge.uptime_ms() + (u64::from(seconds) * 1_000).saturating_sub(gone);
    let expiry = session.expiry.get();
    let deadlines = Deadlines {
        will: session.will.borrow().as_ref().map(|will| after(will.delay)),
        // The greatest number means for ever ([MQTT-3.1.2.11.2]).
        end: (expiry != u32::MAX).then(|| after(expiry)),
    };
    edge.sessions.borrow_mut().set_deadlines(session, deadlines);
}

/// Ends a session: everything of it is forgotten, and its will, if it still has one, is published.
fn end(edge: &Rc<EdgeLoop>, session: &Rc<Session>) {
    let filters = std::mem::take(&mut *session.subscriptions.borrow_mut());
    for filter in filters.into_keys() {
        router::unsubscribe(edge, &filter, session.key);
    }
    keeping::forget(edge, session);
    replay::stop(edge, session.key, None);
    let (lost, shared) = session.outgoing.take().map(|outgoing| outgoing.into_shared()).unwrap_or_default();
    edge.shared.counters.mqtt_dropped.count(DropReason::Ended, lost as u64);
    session.incoming.take();
    let mut sessions = edge.sessions.borrow_mut();
    sessions.set_deadlines(session, Deadlines::default());
    sessions.remove(session);
    drop(sessions);
    edge.shared.counters.mqtt_sessions.fetch_sub(1, Ordering::Relaxed);
    for (share, message) in shared {
        router::hand_on(edge, &share, message);
    }
    if let Some(will) = session.will.take() {
        wills::publish(edge, session, *will);
    }
}

/// Ends the session of a client id from outside: its connection is closed with `reason`, its subscriptions and whatever is
/// stored of it are gone, its will is not published. Runs on the loop that owns the client id. Returns whether there was one.
pub(crate) fn terminate(edge: &Rc<EdgeLoop>, client_id: &str, reason: ReasonCode, text: &str) -> bool {
    let Some(session) = edge.sessions.borrow().find(client_id) else { return false };
    if let Some(link) = session.link.take() {
        link.close(reason, text);
        disconnect(edge, &session);
    }
    session.will.take();
    end(edge, &session);
    true
}

/// As [`terminate`], for all sessions of these principals on this loop. Returns how many there were.
pub(crate) fn terminate_all(
    edge: &Rc<EdgeLoop>,
    principals: &HashSet<Box<str>>,
    reason: ReasonCode,
    text: &str,
) -> usize {
    let clients = edge.sessions.borrow().of_principals(principals);
    clients.iter().filter(|client_id| terminate(edge, client_id, reason, text)).count()
}

/// Publishes the wills and ends the sessions that are due. Runs once a second.
pub(crate) fn sweep(edge: &Rc<EdgeLoop>) {
    let now = edge.uptime_ms();
    for _ in 0..SWEEP {
        let Some(key) = edge.sessions.borrow_mut().next_due(now) else { return };
        let Some(session) = edge.sessions.borrow().get(key) else { continue };
        if session.deadlines.get().end.is_some_and(|end| end <= now) {
            tracing::debug!(client = %session.client_id, "session expired");
            end(edge, &session);
        } else if let Some(will) = session.will.take() {
            session.deadlines.set(Deadlines { will: None, ..session.deadlines.get() });
            wills::publish(edge, &session, *will);
            let _ = keeping::session(edge, &session);
        }
    }
}
