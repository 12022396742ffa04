//! Who is kept out for a while: addresses that guess passwords, and clients that come and go without a word.
//!
//! Both tables are bounded (limit `auth_ban_entries`): at the limit those go that are not banned; one more is then not counted.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use tidegate_actors::limits;

use crate::config::AuthBans;

/// How much of something leads to a ban, and how long that is.
#[derive(Debug, Clone, Copy)]
struct Measure {
    /// 0: never.
    most: u32,
    within: Duration,
    ban: Duration,
}

/// One offender.
#[derive(Debug)]
struct Window {
    since: Instant,
    count: u32,
    banned_until: Option<Instant>,
}

#[derive(Debug)]
struct Table<K> {
    measure: Measure,
    windows: Mutex<HashMap<K, Window>>,
    banned: AtomicU64,
}

impl<K: Eq + Hash> Table<K> {
    fn new(measure: Measure) -> Self {
        Self { measure, windows: Mutex::default(), banned: AtomicU64::new(0) }
    }

    /// How long it is still banned.
    fn rest(&self, key: &K, now: Instant) -> Option<Duration> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.get(key)?.banned_until?.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Counts one more; returns whether that was the one too many.
    fn count(&self, key: K, now: Instant) -> bool {
        let Measure { most, within, ban } = self.measure;
        if most == 0 {
            return false;
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= limits::AUTH_BAN_ENTRIES && !windows.contains_key(&key) {
            let over = |window: &Window| window.banned_until.map_or(now - window.since > within, |until| until <= now);
            windows.retain(|_, window| !over(window));
            if windows.len() >= limits::AUTH_BAN_ENTRIES {
                windows.retain(|_, window| window.banned_until.is_some());
            }
            if windows.len() >= limits::AUTH_BAN_ENTRIES {
                return false;
            }
        }
        let window = windows.entry(key).or_insert(Window { since: now, count: 0, banned_until: None });
        if now - window.since > within || window.banned_until.is_some_and(|until| until <= now) {
            *window = Window { since: now, count: 0, banned_until: None };
        }
        window.count = window.count.saturating_add(1);
        if window.count < most || window.banned_until.is_some() {
            return false;
        }
        window.banned_until = Some(now + ban);
        self.banned.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Both tables.
#[derive(Debug)]
pub(crate) struct Bans {
    addresses: Table<IpAddr>,
    clients: Table<(Box<str>, Box<str>)>,
    spare_loopback: bool,
}

impl Bans {
    pub(super) fn new(config: &AuthBans) -> Self {
        let guesses = Measure {
            most: config.wrong_passwords,
            within: config.wrong_passwords_within,
            ban: config.wrong_passwords_ban,
        };
        let flaps =
            Measure { most: config.disconnects, within: config.disconnects_within, ban: config.disconnects_ban };
        Self { addresses: Table::new(guesses), clients: Table::new(flaps), spare_loopback: config.spare_loopback }
    }

    /// How long the address is still banned.
    pub(super) fn of_address(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.addresses.rest(&network(address), now)
    }

    /// A wrong password came from this address; returns whether it is banned from now on.
    pub(super) fn wrong_password(&self, address: IpAddr, now: Instant) -> bool {
        if self.spare_loopback && address.to_canonical().is_loopback() {
            return false;
        }
        self.addresses.count(network(address), now)
    }

    /// How long the client is still banned.
    pub(super) fn of_client(&self, user: &str, client_id: &str, now: Instant) -> Option<Duration> {
        self.clients.rest(&(user.into(), client_id.into()), now)
    }

    /// A client's connection ended without a goodbye; returns whether it is banned from now on.
    pub(super) fn lost(&self, user: &str, client_id: &str, now: Instant) -> bool {
        self.clients.count((user.into(), client_id.into()), now)
    }

    /// How often addresses and clients were banned.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.addresses.banned.load(Ordering::Relaxed), self.clients.banned.load(Ordering::Relaxed))
    }
}

/// Who has one IPv6 address has its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bans() -> Bans {
        Bans::new(&AuthBans { wrong_passwords: 3, disconnects: 2, ..AuthBans::default() })
    }

    #[test]
    fn an_address_that_guesses_is_banned_for_its_time() {
        let (bans, now) = (bans(), Instant::now());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let [minute, second] = [60, 1].map(Duration::from_secs);
        assert_eq!([0, 1, 2].map(|_| bans.wrong_password(address, now)), [false, false, true]);
        assert!(!bans.wrong_password(address, now), "it is banned already");
        assert_eq!(bans.of_address(address, now + minute - second), Some(second));
        assert_eq!(bans.of_address(address, now + minute), None);
        assert_eq!(bans.of_address("192.0.2.2".parse().unwrap(), now), None);
        assert!(!bans.wrong_password(address, now + minute), "it begins anew");
        // Slow guesses are let be.
        let slow: IpAddr = "192.0.2.3".parse().unwrap();
        assert!((0..20).all(|n| !bans.wrong_password(slow, now + (minute + second) * n)));
        assert_eq!(bans.counts(), (1, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_loopback_can_be_spared() {
        let (bans, now) = (bans(), Instant::now());
        for host in 1..=3 {
            bans.wrong_password(format!("2001:db8::{host}").parse().unwrap(), now);
        }
        assert!(bans.of_address("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(bans.of_address("2001:db8:0:1::1".parse().unwrap(), now).is_none());
        let spared = Bans::new(&AuthBans { wrong_passwords: 1, spare_loopback: true, ..AuthBans::default() });
        assert!(!spared.wrong_password("127.0.0.1".parse().unwrap(), now));
        assert!(!spared.wrong_password("::ffff:127.0.0.1".parse().unwrap(), now));
    }

    #[test]
    fn clients_are_told_apart_by_their_user_and_the_table_is_bounded() {
        let (bans, now) = (bans(), Instant::now());
        assert!(!bans.lost("d1", "c", now) && bans.lost("d1", "c", now));
        assert!(bans.of_client("d1", "c", now).is_some() && bans.of_client("d2", "c", now).is_none());
        for n in 0..2 * limits::AUTH_BAN_ENTRIES {
            bans.lost("x", &n.to_string(), now);
        }
        assert!(bans.clients.windows.lock().unwrap().len() <= limits::AUTH_BAN_ENTRIES);
        assert!(bans.of_client("d1", "c", now).is_some(), "a ban is not forgotten for want of room");
    }
}
