//! What the workers have made, on its way to the loops: as few deliveries as there are loops.

use tidegate_actors::{
    ids::LoopId,
    script::{OutcomeSink, ScriptOutcome},
};

/// Outcomes that wait to be delivered, by loop.
#[derive(Default)]
pub(crate) struct Outbox(Vec<(LoopId, Vec<ScriptOutcome>)>);

impl Outbox {
    pub(crate) fn push(&mut self, owner: LoopId, outcome: ScriptOutcome) {
        match self.0.iter_mut().find(|(of, _)| *of == owner) {
            Some((_, outcomes)) => outcomes.push(outcome),
            None => self.0.push((owner, vec![outcome])),
        }
    }

    pub(crate) fn deliver(&mut self, sink: &dyn OutcomeSink) {
        for (owner, outcomes) in self.0.drain(..) {
            sink.deliver(owner, outcomes);
        }
    }
}
