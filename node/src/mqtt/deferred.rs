//! PUBLISHes of one connection that wait for the disk before anything is done with them: one with QoS 2 of a stored session, until
//! the node would know its packet id again after a crash, if it concerns another loop, whose commits are not in order with this
//! one's; and whatever came behind it, so that a device's order holds.

use std::{collections::VecDeque, num::NonZeroU16};

use bytes::Bytes;

use super::{
    packet::{Publish, QoS},
    router::Again,
};

/// The waiting PUBLISHes, oldest first. As many as the client may have unanswered, and what one read brings.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    publish: Owned,
    /// Nothing but its place in the order keeps it.
    ready: bool,
}

/// What is known of a message besides itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) origin: u64,
    pub(crate) again: Again,
}

/// A PUBLISH that has left its read buffer.
#[derive(Debug)]
pub(crate) struct Owned {
    qos: QoS,
    retain: bool,
    topic: Box<str>,
    packet_id: Option<NonZeroU16>,
    properties: Box<[u8]>,
    payload: Bytes,
    pub(crate) name: Name,
}

impl Owned {
    pub(crate) fn new(publish: &Publish<'_>, name: Name) -> Self {
        Self {
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic.into(),
            packet_id: publish.packet_id,
            properties: publish.properties.into(),
            payload: Bytes::copy_from_slice(publish.payload),
            name,
        }
    }

    /// The PUBLISH as the session sees it.
    pub(crate) fn publish(&self) -> Publish<'_> {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties: &self.properties,
            payload: &self.payload,
        }
    }
}

impl Deferred {
    /// Lets a PUBLISH wait behind the others.
    pub(crate) fn push(&mut self, publish: Owned, ready: bool) {
        self.waiting.push_back(Waiting { publish, ready });
    }

    /// The oldest one that waited for the disk need not wait any more.
    pub(crate) fn durable(&mut self) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| !waiting.ready) {
            waiting.ready = true;
        }
    }

    /// The next one whose turn it is.
    pub(crate) fn next(&mut self) -> Option<Owned> {
        self.waiting.pop_front_if(|first| first.ready).map(|first| first.publish)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_a_held_one_waits_for_it() {
        let mut deferred = Deferred::default();
        for (topic, ready) in [("1", false), ("2", true), ("3", false), ("4", true)] {
            let publish = Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic,
                packet_id: None,
                properties: &[],
                payload: b"",
            };
            deferred.push(Owned::new(&publish, Name::default()), ready);
        }
        assert!(deferred.next().is_none());
        deferred.durable();
        let first: Vec<_> =
            std::iter::from_fn(|| deferred.next()).map(|owned| owned.publish().topic.to_owned()).collect();
        assert_eq!(first, ["1", "2"]);
        deferred.durable();
        let rest: Vec<_> =
            std::iter::from_fn(|| deferred.next()).map(|owned| owned.publish().topic.to_owned()).collect();
        assert_eq!(rest, ["3", "4"]);
        assert_eq!(deferred.len(), 0);
    }
}
