//! Log lines about refused messages, at most one a reason in a while: a broker may send a million of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::ingest::IngestError;

/// Time between two lines of one reason.
const PAUSE: Duration = Duration::from_secs(10);

/// When each reason was logged last, and what was left out since.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<&'static str, (Instant, u64)>);

impl Complaints {
    pub(super) fn log(&mut self, bridge: &str, topic: &str, error: &IngestError) {
        let (reason, now) = (error.reason.name(), Instant::now());
        let unlogged = match self.0.get_mut(reason) {
            Some((last, unlogged)) if now.duration_since(*last) < PAUSE => {
                *unlogged += 1;
                return;
            }
            Some((_, unlogged)) => *unlogged,
            None => 0,
        };
        self.0.insert(reason, (now, 0));
        let (offset, limit) = (error.offset, error.limit.map(|(name, _)| name));
        tracing::warn!(bridge, topic, reason, offset, limit, unlogged, "refused a message of a bridge: {error}");
    }
}
