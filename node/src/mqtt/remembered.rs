//! The names of messages with QoS 2 that stored sessions are done with. Such a message may come again after a crash, if its
//! publisher's exchange was not over: a session that knows its name does not take it twice. No exchange needs the name for long, and
//! each is a durable pair, so it is forgotten after [`limits::MQTT_REMEMBERED_FOR`].

use std::{cell::RefCell, collections::VecDeque};

use tidegate_actors::limits;

use super::{
    keeping,
    session::{Session, SessionKey},
};
use crate::edge::EdgeLoop;

/// Sessions that one sweep looks at, at most: the rest is the next one's.
const SWEEP: usize = 1_000;

/// The sessions of a loop that will forget a name, each once, in the order in which they are looked at.
#[derive(Default)]
pub(crate) struct Remembered(RefCell<VecDeque<SessionKey>>);

/// A stored session is done with a message. Its name, if it has one (it was published with QoS 2), stays for a while.
pub(crate) fn is_over(edge: &EdgeLoop, session: &Session, seq: u64, origin: u64) {
    if origin == 0 {
        keeping::forget_message(edge, session, seq, true);
        return;
    }
    keeping::done(edge, session, seq, origin);
    let mut slot = session.outgoing.borrow_mut();
    let outgoing = slot.get_or_insert_default();
    if !outgoing.will_forget() {
        edge.remembered.0.borrow_mut().push_back(session.key);
    }
    let forgotten = outgoing.remember(seq, origin, Some(edge.uptime_ms()));
    drop(slot);
    if let Some(seq) = forgotten {
        keeping::forget_done(edge, session, seq);
    }
}

/// Forgets what was over long enough ago. Runs once a second.
pub(crate) fn sweep(edge: &EdgeLoop) {
    let age = u64::try_from(limits::MQTT_REMEMBERED_FOR.as_millis()).unwrap_or(u64::MAX);
    let moment = edge.uptime_ms().saturating_sub(age);
    let most = edge.remembered.0.borrow().len().min(SWEEP);
    for _ in 0..most {
        let Some(key) = edge.remembered.0.borrow_mut().pop_front() else { return };
        // One that has ended has taken its names with it.
        let Some(session) = edge.sessions.borrow().get(key) else { continue };
        let mut slot = session.outgoing.borrow_mut();
        let Some(outgoing) = slot.as_deref_mut() else { continue };
        let forgotten = outgoing.forget_done_before(moment);
        if outgoing.will_forget() {
            edge.remembered.0.borrow_mut().push_back(key);
        }
        drop(slot);
        for seq in forgotten {
            keeping::forget_done(edge, &session, seq);
        }
    }
}
