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

use super::{connections::ConnectionKey, packet::Version, reason::ReasonCode};
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
        Arc::new(Self {
            shared: Arc::clone(&edge.shared),
            home: edge.handle.id(),
            answer: Answered { connection, id, failed: false },
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
    for Answered { connection, id, failed } in complete {
        let Some(link) = edge.connections.borrow().get(connection) else { continue };
        if !failed {
            link.answer(Some(id), ReasonCode::SUCCESS, "");
        } else if link.peer.version == Version::V5 {
            let text = "not stored for all sessions that have subscribed: limit handover; send it again later";
            link.answer(Some(id), ReasonCode::QUOTA_EXCEEDED, text);
        } else {
            link.close(ReasonCode::QUOTA_EXCEEDED, "a message was not stored for all sessions: limit handover");
        }
        edge.connections.borrow_mut().mark_dirty(&link);
    }
}
