//! The receipt of a published message: everyone who must store the message before its publisher is told holds a clone, on
//! whatever loop, until it is durable. When the last clone is dropped, the publisher's loop answers.

use std::{
    num::NonZeroU16,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tidegate_actors::{event_loop::LoopMessage, ids::LoopId};

use super::{connections::ConnectionKey, reason::ReasonCode, session::SessionKey};
use crate::edge::{EdgeLoop, Shared};

/// See the file's head.
pub(crate) struct Receipt {
    shared: Arc<Shared>,
    home: LoopId,
    answer: Answered,
    failed: AtomicBool,
}

/// Which PUBLISH is answered.
#[derive(Debug, Clone, Copy)]
struct Answered {
    connection: ConnectionKey,
    /// The session outlives the connection.
    session: Option<SessionKey>,
    id: NonZeroU16,
    failed: bool,
}

/// The receipts of a loop's publishers that are complete. As many as they have unanswered PUBLISHes, at most.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    complete: Mutex<Vec<Answered>>,
    any: AtomicBool,
}

impl Receipt {
    /// For a PUBLISH that came over a connection of this loop.
    pub(crate) fn new(edge: &EdgeLoop, connection: ConnectionKey, id: NonZeroU16) -> Arc<Self> {
        let session = edge.connections.borrow().get(connection).map(|link| link.session.key);
        Arc::new(Self {
            shared: Arc::clone(&edge.shared),
            home: edge.handle.id(),
            answer: Answered { connection, session, id, failed: false },
            failed: AtomicBool::new(false),
        })
    }

    /// Somebody who must store the message cannot: its publisher is told to send it again.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let receipts = &self.shared.receipts[self.home.index()];
        let mut complete = receipts.complete.lock().unwrap_or_else(PoisonError::into_inner);
        complete.push(Answered { failed: self.failed.load(Ordering::Relaxed), ..self.answer });
        let is_first = complete.len() == 1;
        receipts.any.store(true, Ordering::Release);
        drop(complete);
        if is_first {
            // A loop whose inbox is full has turns to come, and looks at the end of each.
            let nothing = LoopMessage::Task(Box::new(|_| {}));
            let _ = self.shared.runtime.services().outlets[self.home.index()].try_send(nothing);
        }
    }
}

/// Answers the PUBLISHes whose receipts are complete. At the end of each turn.
pub(crate) fn answer_complete(edge: &EdgeLoop) {
    let receipts = &edge.shared.receipts[edge.handle.id().index()];
    if !receipts.any.swap(false, Ordering::Acquire) {
        return;
    }
    let complete = std::mem::take(&mut *receipts.complete.lock().unwrap_or_else(PoisonError::into_inner));
    for answered in complete {
        answer(edge, answered);
    }
}

fn answer(edge: &EdgeLoop, Answered { connection, session, id, failed }: Answered) {
    let session = session.and_then(|key| edge.sessions.borrow().get(key));
    let link = edge.connections.borrow().get(connection);
    if let Some(link) = link {
        if failed {
            // A refusal would end an exchange that has half been done: sent again, those who have it do not get it twice.
            link.close(ReasonCode::QUOTA_EXCEEDED, "a message was not stored for all sessions (limit handover)");
        } else {
            link.answer(Some(id), ReasonCode::SUCCESS, "");
        }
        link.wake();
    }
    if let Some(session) = session {
        session.on_receipt(edge, id, failed);
    }
}
