//! Stored sessions whose subscriptions have changed in this turn. A session is kept as a whole, so it is kept once, at the turn's
//! end, however many SUBSCRIBEs and UNSUBSCRIBEs have come: else a thousand small packets would write it a thousand times.

use std::{cell::RefCell, rc::Rc};

use hashbrown::HashSet;

use super::{keeping, session::Session};
use crate::edge::EdgeLoop;

/// The changed sessions of a loop, each with an answer that waits for it. Never more than one turn's reads bring.
#[derive(Default)]
pub(crate) struct Changed(RefCell<Vec<(Rc<Session>, Answer)>>);

type Answer = Box<dyn FnOnce()>;

/// Keeps the session as it is at the end of this turn, and runs `answer` once that is durable.
pub(crate) fn answer_when_kept(edge: &EdgeLoop, session: &Rc<Session>, answer: impl FnOnce() + 'static) {
    edge.changed.0.borrow_mut().push((Rc::clone(session), Box::new(answer)));
    edge.handle.wake();
}

/// Runs at the end of each turn.
pub(crate) fn keep_all(edge: &EdgeLoop) {
    let changed = edge.changed.0.take();
    if changed.is_empty() {
        return;
    }
    let mut seen = HashSet::new();
    for (session, _) in &changed {
        // One that has ended meanwhile is forgotten already, and stays so.
        let is_there = seen.insert(session.key) && edge.sessions.borrow().get(session.key).is_some();
        if is_there && keeping::session(edge, session).is_err() {
            tracing::warn!(client = %session.client_id, "a session is too large to be stored (limit record_bytes)");
        }
    }
    keeping::when_durable(edge, move || changed.into_iter().for_each(|(_, answer)| answer()));
}
