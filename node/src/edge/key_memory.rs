//! The idempotency keys that the node remembers, each with its request, so that a key that comes again with another body is
//! told from a retry.
//!
//! It decides nothing about readings: a retry is told from a second reading by the device's fold, which is durable. What is
//! forgotten here, past the limit or by a restart, costs a refusal that would have helped whoever wrote the client.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;

use crate::ingest::{IdempotencyKey, RequestHash};

/// The keys of all loops. Its lock is met once a request that has a key, for one look-up.
pub(crate) struct KeyMemory {
    limit: usize,
    keys: Mutex<Keys>,
    forgotten: AtomicU64,
}

#[derive(Default)]
struct Keys {
    requests: HashMap<RequestHash, RequestHash>,
    /// The oldest first.
    order: VecDeque<RequestHash>,
}

/// The key came before, with another body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reused;

impl KeyMemory {
    /// Remembers `limit` keys at most, the newest.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, keys: Mutex::default(), forgotten: AtomicU64::new(0) }
    }

    /// Remembers that `key` came with `request`, in its scope (a device's id, or `""`).
    ///
    /// # Errors
    /// [`Reused`].
    pub(crate) fn remember(&self, scope: &str, key: &IdempotencyKey, request: RequestHash) -> Result<(), Reused> {
        let key = key.within(scope);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.requests.insert(key, request) {
            None => keys.order.push_back(key),
            Some(known) if known == request => {}
            Some(known) => {
                keys.requests.insert(key, known);
                return Err(Reused);
            }
        }
        if keys.order.len() > self.limit
            && let Some(oldest) = keys.order.pop_front()
        {
            keys.requests.remove(&oldest);
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many keys are remembered.
    pub(crate) fn len(&self) -> usize {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }

    /// How many were forgotten since start because there were too many.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_one_body_until_it_is_the_oldest() {
        let memory = KeyMemory::new(2);
        let key = |n: u32| IdempotencyKey::parse(format!("key-0000000{n}").as_bytes()).unwrap();
        let send = |n: u32, scope: &str, body: &str| memory.remember(scope, &key(n), key(n).request(body.as_bytes()));
        assert_eq!(send(1, "", "a"), Ok(()));
        assert_eq!(send(1, "", "a"), Ok(()), "a retry");
        assert_eq!(send(1, "", "b"), Err(Reused));
        assert_eq!(send(1, "", "a"), Ok(()), "the first body stays the key's");
        assert_eq!(send(1, "d1", "b"), Ok(()), "another scope");
        assert_eq!((memory.len(), memory.forgotten()), (2, 0));
        assert_eq!(send(2, "", "a"), Ok(()));
        assert_eq!((memory.len(), memory.forgotten()), (2, 1));
        assert_eq!(send(1, "", "b"), Ok(()), "it was the oldest");
    }
}
