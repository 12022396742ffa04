//! What a loop tells the others about its subscriptions, and hears of theirs: the filters that it wants messages for, and how many
//! members it has in each shared subscription.
//!
//! One task sends it in order: a filter that is lost and gained again must arrive so. What is told has been heard by every
//! loop when `done` runs: then a SUBACK may promise it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tidegate_actors::event_loop::LoopMessage;

use super::{router, shared::Members};
use crate::edge::EdgeLoop;

/// Changes that go into one message, at most beside those of its last announcement.
const CHANGES: usize = 1_024;

/// One thing that the others must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The loop wants messages that match the filter, or no longer does.
    Interest { filter: Box<str>, gained: bool },
    /// The loop has so many members in a shared subscription now.
    Share { name: Arc<str>, members: Members },
}

/// What a loop has to tell.
#[derive(Default)]
pub(crate) struct Announcements {
    waiting: RefCell<VecDeque<(Vec<Change>, Done)>>,
    /// The task is there.
    sending: Cell<bool>,
    /// Announcements that not every loop has heard.
    under_way: Cell<usize>,
}

/// What is told in one message.
struct Announcement {
    changes: Arc<[Change]>,
    done: Vec<Done>,
}

type Done = Box<dyn FnOnce()>;

impl Announcements {
    /// Is there any that not every loop has heard?
    pub(crate) fn are_under_way(&self) -> bool {
        self.under_way.get() > 0
    }

    /// What waits, up to [`CHANGES`] together: a session that ends has as many announcements as subscriptions.
    fn next(&self) -> Option<Announcement> {
        let mut waiting = self.waiting.borrow_mut();
        let (mut changes, first) = waiting.pop_front()?;
        let mut done = vec![first];
        while changes.len() < CHANGES
            && let Some((more, next)) = waiting.pop_front()
        {
            changes.extend(more);
            done.push(next);
        }
        Some(Announcement { changes: changes.into(), done })
    }
}

/// Tells every other loop; `done` runs here when all know.
pub(crate) fn announce(edge: &Rc<EdgeLoop>, changes: Vec<Change>, done: impl FnOnce() + 'static) {
    if changes.is_empty() || edge.others().next().is_none() {
        done();
        return;
    }
    let announcements = &edge.announcements;
    announcements.waiting.borrow_mut().push_back((changes, Box::new(done)));
    announcements.under_way.set(announcements.under_way.get() + 1);
    if !announcements.sending.replace(true) {
        actix_rt::spawn(send(Rc::clone(edge)));
    }
}

async fn send(edge: Rc<EdgeLoop>) {
    let me = edge.handle.id();
    while let Some(Announcement { changes, done }) = edge.announcements.next() {
        let mut answers = Vec::new();
        for id in edge.others() {
            let changes = Arc::clone(&changes);
            let (reply, answer) = tokio::sync::oneshot::channel::<()>();
            let task = Box::new(move |_: &_| {
                router::hear(&crate::edge::here(), me, &changes);
                drop(reply);
            });
            let outlet = &edge.handle.services().outlets[id.index()];
            let mut message = LoopMessage::Task(task);
            // An interest must not get lost: a full inbox is tried again.
            while let Err(back) = outlet.try_send(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            answers.push(answer);
        }
        // The next one need not wait for the answers: inboxes keep the order.
        let edge = Rc::clone(&edge);
        actix_rt::spawn(async move {
            futures_util::future::join_all(answers).await;
            edge.announcements.under_way.set(edge.announcements.under_way.get() - done.len());
            done.into_iter().for_each(|done| done());
        });
    }
    edge.announcements.sending.set(false);
}
