//! The breakers of hosts: one that does not answer a few times in a row is not asked for a while, then once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tidegate_actors::limits;

/// The hosts that failed lately.
pub(super) struct Breakers {
    failures: u32,
    open_for: Duration,
    hosts: Mutex<HashMap<String, Host>>,
}

struct Host {
    failed: u32,
    last: Instant,
    /// One asks whether it is well again.
    is_tried: bool,
}

impl Breakers {
    pub(super) fn new(failures: u32, open_for: Duration) -> Self {
        Self { failures, open_for, hosts: Mutex::default() }
    }

    /// May a host be asked?
    ///
    /// # Errors
    /// The time until it may.
    pub(super) fn admit(&self, host: &str, now: Instant) -> Result<(), Duration> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = hosts.get_mut(host).filter(|host| host.failed >= self.failures) else { return Ok(()) };
        let since = now.saturating_duration_since(known.last);
        if since < self.open_for {
            return Err(self.open_for.saturating_sub(since));
        }
        // If the one that tries is never heard of again, the next may try after as long.
        if known.is_tried && since < self.open_for * 2 {
            return Err((self.open_for * 2).saturating_sub(since));
        }
        known.is_tried = true;
        Ok(())
    }

    /// Whether it answered.
    pub(super) fn tell(&self, host: &str, answered: bool, now: Instant) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            hosts.remove(host);
            return;
        }
        if !hosts.contains_key(host) && hosts.len() >= limits::SCRIPT_FETCH_HOSTS {
            let oldest = hosts.iter().min_by_key(|(_, host)| host.last).map(|(name, _)| name.clone());
            oldest.and_then(|name| hosts.remove(&name));
        }
        let known = hosts.entry(host.to_owned()).or_insert(Host { failed: 0, last: now, is_tried: false });
        known.failed = known.failed.saturating_add(1);
        known.last = now;
        known.is_tried = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_fails_in_a_row_is_left_alone_then_tried_once() {
        let breakers = Breakers::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..2 {
            breakers.tell("a", false, start);
        }
        breakers.tell("a", true, start);
        for _ in 0..3 {
            assert_eq!(breakers.admit("a", start), Ok(()));
            breakers.tell("a", false, start);
        }
        assert_eq!(breakers.admit("a", at(4)), Err(Duration::from_secs(6)));
        assert_eq!(breakers.admit("b", at(4)), Ok(()));
        assert_eq!(breakers.admit("a", at(10)), Ok(()));
        assert!(breakers.admit("a", at(11)).is_err(), "only one tries");
        breakers.tell("a", false, at(12));
        assert!(breakers.admit("a", at(21)).is_err());
        assert_eq!(breakers.admit("a", at(22)), Ok(()));
        breakers.tell("a", true, at(23));
        assert_eq!((breakers.admit("a", at(23)), breakers.admit("a", at(23))), (Ok(()), Ok(())));
    }

    #[test]
    fn hosts_are_bounded() {
        let (breakers, start) = (Breakers::new(1, Duration::from_secs(10)), Instant::now());
        for n in 0..limits::SCRIPT_FETCH_HOSTS as u64 + 5 {
            breakers.tell(&n.to_string(), false, start + Duration::from_millis(n));
        }
        assert_eq!(breakers.hosts.lock().expect("no panic").len(), limits::SCRIPT_FETCH_HOSTS);
        assert!(breakers.admit("0", start).is_ok() && breakers.admit("1000", start).is_err());
    }
}
