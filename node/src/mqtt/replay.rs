//! Retained messages on their way to a session that has subscribed ([MQTT-3.3.1-6] and its likes): as fast as the client takes them,
//! in steps between which its loop turns. A million of them fill neither the session's queue nor the connection's buffer, and
//! what is published meanwhile goes first.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use hashbrown::{HashMap, HashSet};

use super::{
    connections::Link,
    packet::QoS,
    retained_entry::Entry,
    retained_walk::{Step, Walk},
    router::{Message, Options},
    session::{Session, SessionKey, Subscription},
    sys_feed,
};
use crate::edge::EdgeLoop;

/// Bytes that one step writes, at most, beside its last message.
const STEP_BYTES: usize = 32 * 1024;

/// The replays of a loop's sessions.
#[derive(Default)]
pub(crate) struct Replays(HashMap<SessionKey, Queue>);

/// One session's, oldest first.
#[derive(Default)]
struct Queue {
    replays: VecDeque<Replay>,
    /// Their filters: a client may have very many subscriptions.
    filters: HashSet<Box<str>>,
}

impl Queue {
    fn remove(&mut self, filter: &str) {
        if self.filters.remove(filter) {
            self.replays.retain(|replay| replay.walk.filter() != filter);
        }
    }
}

/// What one subscription is still to be sent.
struct Replay {
    walk: Walk,
    options: Options,
}

/// What a replay waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Nothing, or the client's acknowledgements: it goes on when they come.
    Quiet,
    /// Its next turn.
    Turn,
}

/// Begins to send a session what is retained for its new subscriptions, and what the node says of itself.
pub(crate) fn begin_all(edge: &EdgeLoop, link: &Link, subscriptions: &[(Box<str>, Subscription)]) {
    for (filter, subscription) in subscriptions {
        // It has unsubscribed before it was answered.
        if !link.session.subscriptions.borrow().contains_key(filter) {
            continue;
        }
        let options = Options::from(*subscription);
        sys_feed::show(edge, &link.session, filter, &options);
        begin(edge, &link.session, filter, options);
    }
}

/// Begins to send a session what is retained for its filter.
fn begin(edge: &EdgeLoop, session: &Session, filter: &str, options: Options) {
    // A message that is sent because of a SUBSCRIBE has the flag, whatever the subscription says ([MQTT-3.3.1-8]).
    let options = Options { retain_as_published: true, ..options };
    let replay = Replay { walk: Walk::new(filter, &edge.shared.retained), options };
    if replay.walk.finds_nothing(&edge.shared.retained, edge.uptime_ms()) {
        return;
    }
    let mut replays = edge.replays.borrow_mut();
    let queue = replays.0.entry(session.key).or_default();
    queue.remove(filter);
    queue.filters.insert(filter.into());
    queue.replays.push_back(replay);
}

/// A session has unsubscribed (`Some` filter) or is over.
pub(crate) fn stop(edge: &EdgeLoop, key: SessionKey, filter: Option<&str>) {
    let mut replays = edge.replays.borrow_mut();
    if replays.0.is_empty() {
        return;
    }
    match filter {
        None => drop(replays.0.remove(&key)),
        Some(filter) => {
            if let Some(queue) = replays.0.get_mut(&key) {
                queue.remove(filter);
            }
        }
    }
}

/// Writes the next retained messages that a connection has room for.
pub(crate) fn go_on(edge: &EdgeLoop, link: &Rc<Link>) -> Waits {
    let session = &link.session;
    let mut replays = edge.replays.borrow_mut();
    if replays.0.is_empty() || link.opening.get() {
        return Waits::Quiet;
    }
    let Some(queue) = replays.0.get_mut(&session.key) else { return Waits::Quiet };
    let Some(replay) = queue.replays.front_mut() else {
        replays.0.remove(&session.key);
        if replays.0.is_empty() {
            replays.0.shrink_to_fit();
        }
        return Waits::Quiet;
    };
    // What waits in the session's queue came before.
    let (window, is_level) = session.window(link);
    if !is_level {
        return Waits::Quiet;
    }
    let now = edge.uptime_ms();
    // Below what the connection's buffer may hold, so that nothing is dropped.
    let most = STEP_BYTES.min(edge.shared.settings.mqtt_outbound_bytes / 2);
    let mut bytes = link.out.borrow().len();
    let (mut room, mut blocked) = (window, false);
    let mut found = Vec::new();
    let step = replay.walk.step(&edge.shared.retained, now, |entry| {
        let with_id = entry.qos().min(replay.options.qos) > QoS::AtMostOnce;
        let is_full = bytes > 0 && bytes + entry.len() > most;
        if is_full || (with_id && room == 0) {
            blocked = !is_full;
            return false;
        }
        room -= usize::from(with_id);
        bytes += entry.len();
        found.push(Arc::new(message_of(entry)));
        true
    });
    let options = replay.options.clone();
    if step == Step::Done
        && let Some(done) = queue.replays.pop_front()
    {
        queue.filters.remove(done.walk.filter());
    }
    drop(replays);
    for message in found {
        session.deliver(edge, &message, &options);
    }
    if blocked { Waits::Quiet } else { Waits::Turn }
}

fn message_of(entry: &Entry) -> Message {
    Message {
        payload: entry.payload_bytes(),
        retain: true,
        properties: entry.properties().into(),
        deadline: entry.deadline(),
        ..Message::new(entry.topic(), entry.qos())
    }
}
