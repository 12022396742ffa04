//! Delivers the journal's and the handlers' answers to the loops' inboxes, from their threads.

use std::sync::Arc;

use crate::{
    event_loop::LoopMessage,
    ids::LoopId,
    inbox::Outlet,
    journal::{Commit, CommitSink, JournalFailure},
    script::{OutcomeSink, ScriptOutcome},
};

/// Delivers the journal's and the handlers' answers to the loops.
#[derive(Clone)]
pub struct LoopSink {
    outlets: Vec<Outlet<LoopMessage>>,
}

impl LoopSink {
    /// A sink into these inboxes.
    #[must_use]
    pub fn new(outlets: Vec<Outlet<LoopMessage>>) -> Self {
        Self { outlets }
    }

    fn all(&self, message: impl Fn() -> LoopMessage) {
        for outlet in &self.outlets {
            let _ = outlet.send(message());
        }
    }
}

impl CommitSink for LoopSink {
    fn committed(&self, owner: LoopId, commits: Vec<Commit>) {
        // A loop that has ended wants no answers: its connections are gone.
        let outlet = &self.outlets[owner.index()];
        let _ = outlet.send(LoopMessage::Committed(commits));
        outlet.call();
    }

    fn failed(&self, error: &JournalFailure) {
        let reason: Arc<str> = error.to_string().into();
        self.all(|| LoopMessage::JournalFailed(Arc::clone(&reason)));
    }

    fn recovered(&self) {
        self.all(|| LoopMessage::JournalRecovered);
    }
}

impl OutcomeSink for LoopSink {
    fn deliver(&self, owner: LoopId, outcomes: Vec<ScriptOutcome>) {
        let _ = self.outlets[owner.index()].send(LoopMessage::Outcomes(outcomes));
    }
}
