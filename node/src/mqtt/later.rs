//! A PUBACK that the loop of another device decides on, perhaps after a commit: the way back to the connection.

use std::{num::NonZeroU16, rc::Rc};

use tidegate_actors::ids::LoopId;

use super::{
    connections::{ConnectionKey, Link},
    reason::ReasonCode,
};
use crate::edge::EdgeLoop;

/// Whom to answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Later {
    home: LoopId,
    key: ConnectionKey,
    packet_id: Option<NonZeroU16>,
}

impl Later {
    /// The answer to a PUBLISH of this connection; with QoS 0 there is none.
    pub(crate) fn new(edge: &EdgeLoop, link: &Link, packet_id: Option<NonZeroU16>) -> Self {
        Self { home: edge.handle.id(), key: link.key, packet_id }
    }

    /// Answers, from any loop. `text` is the reason string, or empty.
    pub(crate) fn answer(self, edge: &Rc<EdgeLoop>, reason: ReasonCode, text: String) {
        let Self { home, key, packet_id: packet_id @ Some(_) } = self else { return };
        edge.at_loop_surely(home, move |edge| {
            let mut connections = edge.connections.borrow_mut();
            let Some(link) = connections.get(key) else { return };
            link.answer(packet_id, reason, &text);
            connections.mark_dirty(&link);
            drop(connections);
            // The answer leaves at the end of a turn.
            edge.handle.wake();
        });
    }
}
