//! Credentials that were verified lately, so that a fleet that reconnects costs no password hashes. What is kept is a hash with
//! a key of this process; it holds until its time is up or the stored password is another.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use tidegate_actors::limits;

use super::secret::Key;

/// The credentials. Bounded (limit `auth_verified`): at the limit those whose time is up go, else all.
pub(super) struct Verified {
    key: Key,
    lifetime: Duration,
    known: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Verified {
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new(lifetime: Duration) -> Result<Self, String> {
        Ok(Self { key: Key::new()?, lifetime, known: Mutex::default() })
    }

    /// The name under which a credential is remembered: user, password, and what was stored for the user at that time.
    pub(super) fn name(&self, user: &str, password: &[u8], stamp: u64) -> [u8; 32] {
        self.key.sign(&[user.as_bytes(), password, &stamp.to_be_bytes()])
    }

    pub(super) fn knows(&self, name: &[u8; 32], now: Instant) -> bool {
        self.lock().get(name).is_some_and(|until| now < *until)
    }

    pub(super) fn remember(&self, name: [u8; 32], now: Instant) {
        if self.lifetime.is_zero() {
            return;
        }
        let mut known = self.lock();
        if known.len() >= limits::AUTH_VERIFIED {
            known.retain(|_, until| now < *until);
            if known.len() >= limits::AUTH_VERIFIED {
                known.clear();
            }
        }
        known.insert(name, now + self.lifetime);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_known_for_its_time_and_its_stored_password() {
        let verified = Verified::new(Duration::from_secs(10)).unwrap();
        let now = Instant::now();
        let name = verified.name("d1", b"secret", 7);
        assert!(!verified.knows(&name, now));
        verified.remember(name, now);
        assert!(verified.knows(&name, now + Duration::from_secs(9)));
        assert!(!verified.knows(&name, now + Duration::from_secs(10)));
        assert!(!verified.knows(&verified.name("d1", b"secret", 8), now), "the password was changed");
        assert!(!verified.knows(&verified.name("d1", b"Secret", 7), now));
        for n in 0..=limits::AUTH_VERIFIED as u64 {
            verified.remember(verified.name("x", b"", n), now);
        }
        assert!(verified.lock().len() <= limits::AUTH_VERIFIED);
        let none = Verified::new(Duration::ZERO).unwrap();
        none.remember(name, now);
        assert!(!none.knows(&name, now));
    }
}
