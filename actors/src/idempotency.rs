//! Requests that name themselves: a request that is sent again, because its answer was lost, must not become a second reading.
//!
//! Each device remembers its last requests in its own state, so the memory is durable with it and is replayed with it.

use smallvec::{SmallVec, smallvec};

use crate::limits;

/// Which reading of which request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// A hash of the request: its key and its content.
    pub request: [u8; 16],
    /// Which of *this device's* readings in the request it is, from 0: the same request numbers them the same again.
    pub index: u32,
}

/// The last requests of a device, oldest first; at most [`limits::IDEMPOTENT_REQUESTS`]. Costs a word while there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::box_collection, reason = "a state without requests is the rule, and there are a million of them")]
pub struct Requests(Option<Box<Vec<Request>>>);

/// A request of a device, and which of its readings have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) request: [u8; 16],
    /// Indexes from the first to the last, both included, in order and apart: a reading in between may have been refused.
    pub(crate) seen: SmallVec<[(u32, u32); 1]>,
}

impl Requests {
    /// Has this reading come before?
    #[must_use]
    pub fn has(&self, reading: &Idempotency) -> bool {
        let of = |request: &&Request| request.request == reading.request;
        let seen = self.all().iter().rev().find(of).map(|request| &request.seen);
        seen.is_some_and(|seen| seen.iter().any(|(first, last)| (*first..=*last).contains(&reading.index)))
    }

    /// Remembers a reading. What is too much is forgotten, the oldest first: then a retry of it counts as a reading.
    pub fn add(&mut self, reading: &Idempotency) {
        let index = reading.index;
        let all = self.0.get_or_insert_default();
        let Some(request) = all.iter_mut().rev().find(|request| request.request == reading.request) else {
            if all.len() >= limits::IDEMPOTENT_REQUESTS {
                all.remove(0);
            }
            all.push(Request { request: reading.request, seen: smallvec![(index, index)] });
            return;
        };
        match request.seen.iter_mut().find(|(first, last)| index.checked_sub(1) == Some(*last) || index + 1 == *first) {
            Some((first, last)) => (*first, *last) = ((*first).min(index), (*last).max(index)),
            None => {
                if request.seen.len() >= limits::IDEMPOTENT_GAPS {
                    request.seen.remove(0);
                }
                request.seen.push((index, index));
            }
        }
    }

    pub(crate) fn all(&self) -> &[Request] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn from_all(all: Vec<Request>) -> Self {
        Self((!all.is_empty()).then(|| Box::new(all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(request: u8, index: u32) -> Idempotency {
        Idempotency { request: [request; 16], index }
    }

    #[test]
    fn a_reading_that_was_refused_in_between_is_still_missing() {
        let mut requests = Requests::default();
        for index in [0, 1, 2, 4, 5] {
            assert!(!requests.has(&one(7, index)));
            requests.add(&one(7, index));
        }
        let seen: Vec<u32> = (0..8).filter(|index| requests.has(&one(7, *index))).collect();
        assert_eq!(seen, [0, 1, 2, 4, 5]);
        assert!(!requests.has(&one(8, 0)), "another request");
        requests.add(&one(7, 3));
        assert!(requests.has(&one(7, 3)));
    }

    #[test]
    fn it_forgets_the_oldest_and_stays_bounded() {
        let mut requests = Requests::default();
        for request in 0..=limits::IDEMPOTENT_REQUESTS as u8 {
            requests.add(&one(request, 0));
        }
        assert_eq!(requests.all().len(), limits::IDEMPOTENT_REQUESTS);
        assert!(!requests.has(&one(0, 0)) && requests.has(&one(1, 0)));
        for index in 0..1_000 {
            requests.add(&one(9, 2 * index));
        }
        assert!(requests.all().iter().all(|request| request.seen.len() <= limits::IDEMPOTENT_GAPS));
        assert!(requests.has(&one(9, 1_998)) && !requests.has(&one(9, 0)));
    }
}
