//! Who may come in, decided before anything is read of them and before any TLS handshake: clients that have not proved who they
//! are may take up only so much, together and by address, and come only so fast.
//!
//! [`Admission`] counts for the whole node; a [`Lobby`] is one loop's share: those that have come in there and are not connected
//! yet. At the limit a loop accepts nobody until somebody is through, and the one that has been silent longest gives way: so who
//! opens connections and says nothing shuts nobody out. Nothing here reads or writes a socket.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix_rt::task::JoinHandle;
use hashbrown::HashMap;

/// Time that a client is given to connect, however many others wait.
const GRACE: Duration = Duration::from_secs(2);
/// The dearest connection, in tokens: however slow the pace, there is room for one.
const DEAREST: f64 = 4.0;
/// Pause of a loop that accepts nobody.
const PAUSE: Duration = Duration::from_millis(5);
/// How often a loop looks whether another one is short of places.
const SHARE_OUT: Duration = Duration::from_millis(50);

/// The bounds, by the names of their keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Sockets of clients that the file descriptors allow.
    pub(crate) sockets: usize,
    /// What HTTP may have beyond [`Bounds::sockets`], so that the node can be asked when MQTT has taken all.
    pub(crate) sockets_for_http: usize,
    pub(crate) pre_auth_connections: usize,
    pub(crate) pre_auth_per_address: usize,
    /// For each loop.
    pub(crate) connects_per_s: f64,
    pub(crate) http_connections: usize,
}

/// The limit at which a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    FileDescriptors,
    PreAuthConnections,
    PreAuthPerAddress,
    HttpConnections,
    AdminConnections,
}

impl Limit {
    pub(crate) const ALL: [Self; 5] = [
        Self::FileDescriptors,
        Self::PreAuthConnections,
        Self::PreAuthPerAddress,
        Self::HttpConnections,
        Self::AdminConnections,
    ];

    /// Its name, as the configuration and refusals spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FileDescriptors => "file_descriptors",
            Self::PreAuthConnections => "mqtt.limits.pre_auth_connections",
            Self::PreAuthPerAddress => "mqtt.limits.pre_auth_per_address",
            Self::HttpConnections => "http.limits.connections",
            Self::AdminConnections => "admin_connections",
        }
    }
}

/// Counts the node's connections.
pub(crate) struct Admission {
    bounds: Bounds,
    /// MQTT clients that have not connected yet.
    waiting: AtomicUsize,
    http: AtomicUsize,
    /// Loops that have less than their part of the places, and wait for one.
    wanting: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    turned_away: [AtomicU64; Limit::ALL.len()],
}

impl Admission {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            waiting: AtomicUsize::new(0),
            http: AtomicUsize::new(0),
            wanting: AtomicUsize::new(0),
            by_address: Mutex::default(),
            turned_away: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// MQTT clients that have not connected yet, and HTTP connections.
    pub(crate) fn waiting_and_http(&self) -> (usize, usize) {
        (self.waiting.load(Ordering::Relaxed), self.http.load(Ordering::Relaxed))
    }

    /// How many were turned away at a limit.
    pub(crate) fn turned_away(&self, limit: Limit) -> u64 {
        self.turned_away[limit as usize].load(Ordering::Relaxed)
    }

    /// Lets an MQTT client in; `connected` are connected already.
    ///
    /// # Errors
    /// The limit at which it is turned away, counted.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, connected: usize) -> Result<Place, Limit> {
        if self.sockets(connected) >= self.bounds.sockets {
            return Err(self.turn_away(Limit::FileDescriptors));
        }
        let network = network(address);
        let mut by_address = self.by_address();
        let waiting = by_address.entry(network).or_default();
        if *waiting >= self.bounds.pre_auth_per_address {
            return Err(self.turn_away(Limit::PreAuthPerAddress));
        }
        *waiting += 1;
        drop(by_address);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(Place { admission: Arc::clone(self), network })
    }

    /// Lets an HTTP connection in.
    ///
    /// # Errors
    /// The limit at which it is turned away, counted.
    pub(crate) fn enter_http(self: &Arc<Self>, connected: usize) -> Result<HttpPlace, Limit> {
        if self.http.load(Ordering::Relaxed) >= self.bounds.http_connections {
            return Err(self.turn_away(Limit::HttpConnections));
        }
        if self.sockets(connected) >= self.bounds.sockets + self.bounds.sockets_for_http {
            return Err(self.turn_away(Limit::FileDescriptors));
        }
        self.http.fetch_add(1, Ordering::Relaxed);
        Ok(HttpPlace(Arc::clone(self)))
    }

    /// Do as many wait as may?
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.bounds.pre_auth_connections
    }

    pub(crate) fn turn_away(&self, limit: Limit) -> Limit {
        self.turned_away[limit as usize].fetch_add(1, Ordering::Relaxed);
        limit
    }

    fn sockets(&self, connected: usize) -> usize {
        let (waiting, http) = self.waiting_and_http();
        connected + waiting + http
    }

    fn by_address(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One network's clients count together: the address itself, or the /64 that one host of IPv6 has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

/// The place of an MQTT client that has not connected yet. Dropped: given back.
pub(crate) struct Place {
    admission: Arc<Admission>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.admission.by_address();
        if let Some(waiting) = by_address.get_mut(&self.network) {
            *waiting -= 1;
            if *waiting == 0 {
                by_address.remove(&self.network);
            }
        }
        // A flood's table is not kept.
        if by_address.is_empty() {
            by_address.shrink_to_fit();
        }
    }
}

/// A loop that has less than its part of the places, and waits for one.
struct Wanting<'a>(&'a Admission);

impl<'a> Wanting<'a> {
    fn new(admission: &'a Admission) -> Self {
        admission.wanting.fetch_add(1, Ordering::Relaxed);
        Self(admission)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.wanting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of an HTTP connection. Dropped: given back.
pub(crate) struct HttpPlace(Arc<Admission>);

impl Drop for HttpPlace {
    fn drop(&mut self) {
        self.0.http.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The MQTT clients of one loop that have not connected yet, the oldest first.
pub(crate) struct Lobby {
    admission: Arc<Admission>,
    /// This loop's part of all places: beyond it, its guests give way to those of a loop that has less than its own.
    share: usize,
    guests: RefCell<BTreeMap<u64, Guest>>,
    serial: Cell<u64>,
    pace: RefCell<Pace>,
}

struct Guest {
    since: Instant,
    task: Option<JoinHandle<()>>,
}

impl Lobby {
    pub(crate) fn new(admission: Arc<Admission>, loops: usize) -> Self {
        let pace = Pace::new(admission.bounds.connects_per_s, Instant::now());
        let share = admission.bounds.pre_auth_connections.div_ceil(loops.max(1));
        Self { admission, share, guests: RefCell::default(), serial: Cell::new(0), pace: RefCell::new(pace) }
    }

    /// Waits until the pace lets another connection in that costs so much.
    pub(crate) async fn wait_for_turn(&self, cost: u32) {
        loop {
            let wait = self.pace.borrow_mut().take(f64::from(cost), Instant::now());
            match wait {
                None => return,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Waits until there is a place for another client that has not connected.
    pub(crate) async fn wait_for_room(&self) {
        while self.admission.is_full() && !self.oldest_gives_way() {
            let is_short = self.guests.borrow().len() < self.share;
            let _wanting = is_short.then(|| Wanting::new(&self.admission));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gives places back that another loop is short of: who comes there could wait for good, if all places were those of guests of this
    /// loop. Runs as a task of the loop.
    pub(crate) async fn share_out(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SHARE_OUT).await;
            if self.admission.wanting.load(Ordering::Relaxed) > 0 && self.guests.borrow().len() > self.share {
                self.oldest_gives_way();
            }
        }
    }

    /// Sends away the one that has waited longest, if it had its time.
    pub(crate) fn oldest_gives_way(&self) -> bool {
        let mut guests = self.guests.borrow_mut();
        let Some(oldest) = guests.first_entry().filter(|oldest| oldest.get().since.elapsed() >= GRACE) else {
            return false;
        };
        let Guest { task, .. } = oldest.remove();
        drop(guests);
        if let Some(task) = task {
            // Its place is given back when the task is dropped, which the loop does before it accepts the next one.
            task.abort();
        }
        self.admission.turn_away(Limit::PreAuthConnections);
        true
    }

    /// The CONNECT has come: what it waits for now is the node, and it does not give way. It still counts.
    pub(crate) fn has_spoken(&self, serial: u64) {
        self.guests.borrow_mut().remove(&serial);
    }

    /// Greets a client in a task of its own, which is dropped if the client has to give way. `greeting` is given its number, for
    /// [`Lobby::has_spoken`].
    pub(crate) fn receive<F>(self: &Rc<Self>, greeting: impl FnOnce(u64) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        self.guests.borrow_mut().insert(serial, Guest { since: Instant::now(), task: None });
        let lobby = Rc::clone(self);
        let greeting = greeting(serial);
        let task = actix_rt::spawn(async move {
            greeting.await;
            lobby.guests.borrow_mut().remove(&serial);
        });
        if let Some(guest) = self.guests.borrow_mut().get_mut(&serial) {
            guest.task = Some(task);
        }
    }
}

/// A token bucket: so many a second, and as many at once after a quiet second.
struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    fn new(per_second: f64, now: Instant) -> Self {
        Self { per_second, tokens: Self::burst(per_second), filled: now }
    }

    fn burst(per_second: f64) -> f64 {
        per_second.max(DEAREST)
    }

    /// Takes tokens, or says how long to wait for them.
    fn take(&mut self, tokens: f64, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed * self.per_second).min(Self::burst(self.per_second));
        if self.tokens >= tokens {
            self.tokens -= tokens;
            return None;
        }
        Some(Duration::from_secs_f64((tokens - self.tokens) / self.per_second).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            sockets: 10,
            sockets_for_http: 2,
            pre_auth_connections: 4,
            pre_auth_per_address: 3,
            connects_per_s: 100.0,
            http_connections: 5,
        }
    }

    #[test]
    fn places_are_counted_by_address_together_and_with_http_and_given_back() {
        let admission = Admission::new(bounds());
        let [one, other] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let mut places: Vec<_> = (0..3).map(|_| admission.enter(one, 0).ok().unwrap()).collect();
        assert_eq!(admission.enter(one, 0).err(), Some(Limit::PreAuthPerAddress));
        assert!(!admission.is_full());
        places.push(admission.enter(other, 0).ok().unwrap());
        assert!(admission.is_full());
        assert_eq!(admission.enter(other, 6).err(), Some(Limit::FileDescriptors));
        let http: Vec<_> = (0..2).map(|_| admission.enter_http(6).ok().unwrap()).collect();
        assert_eq!(admission.enter_http(6).err(), Some(Limit::FileDescriptors));
        let more: Vec<_> = (0..3).map(|_| admission.enter_http(0).ok().unwrap()).collect();
        assert_eq!(admission.enter_http(0).err(), Some(Limit::HttpConnections));
        assert_eq!(Limit::ALL.map(|limit| admission.turned_away(limit)), [2, 0, 1, 1, 0]);
        drop((places, http, more));
        assert_eq!(admission.waiting_and_http(), (0, 0));
        assert!(admission.by_address().is_empty());
    }

    #[test]
    fn one_host_of_ipv6_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::4"), of("2001:db8:1:3::4"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn a_burst_of_a_second_and_then_the_pace() {
        let mut now = Instant::now();
        let mut pace = Pace::new(10.0, now);
        assert_eq!((0..20).take_while(|_| pace.take(1.0, now).is_none()).count(), 10);
        let wait = pace.take(1.0, now).unwrap();
        assert!(wait > Duration::from_millis(90) && wait <= Duration::from_millis(110), "{wait:?}");
        now += Duration::from_millis(500);
        assert_eq!((0..20).take_while(|_| pace.take(1.0, now).is_none()).count(), 5);
        // A dearer one waits for as much.
        assert!(pace.take(4.0, now).unwrap() > Duration::from_millis(390));
        now += Duration::from_secs(3_600);
        assert_eq!((0..20).take_while(|_| pace.take(1.0, now).is_none()).count(), 10);
    }

    /// Who comes to a loop that has none of the places gets one from the loop that has them all.
    #[test]
    fn a_loop_that_is_short_of_places_gets_them_from_one_that_has_more_than_its_part() {
        actix_rt::System::new().block_on(async {
            let admission = Admission::new(Bounds { pre_auth_per_address: 10, ..bounds() });
            let [full, empty] = [0, 1].map(|_| Rc::new(Lobby::new(Arc::clone(&admission), 2)));
            for _ in 0..4 {
                let place = admission.enter(IpAddr::from([10, 0, 0, 1]), 0).ok().unwrap();
                full.receive(|_| async move {
                    let _place = place;
                    std::future::pending::<()>().await;
                });
            }
            for guest in full.guests.borrow_mut().values_mut() {
                guest.since -= GRACE;
            }
            let sharing = actix_rt::spawn(Rc::clone(&full).share_out());
            let room = tokio::time::timeout(Duration::from_secs(20), empty.wait_for_room()).await;
            assert!(room.is_ok(), "it waits for good");
            assert!(full.guests.borrow().len() >= 2, "no more than its part is taken");
            assert_eq!((admission.turned_away(Limit::PreAuthConnections), admission.waiting_and_http().0), (1, 3));
            sharing.abort();
        });
    }
}
