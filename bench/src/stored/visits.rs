//! Visits: connections that come, do one thing and leave with a DISCONNECT, a bounded number of them at a time.
//!
//! Owns the sockets. What a visit says and when it is over is decided by a [`Visit`], which owns none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::conn::{Conn, SCRATCH_BYTES};
use crate::mqtt;
use crate::poller::Poller;
use crate::scenario::{LOOK_UP, PATIENCE};

/// How long further visits may stand still once one has: what is missing is usually missing often.
const LESS_PATIENCE: Duration = Duration::from_secs(2);

/// What clients ask for as their keep alive. No visit is longer.
pub(crate) const KEEP_ALIVE_S: u16 = 600;

/// Goes the visit on after a packet?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It does.
    More,
    /// It is over: the client disconnects.
    Over,
}

/// A kind of visits.
pub(crate) trait Visit {
    /// What one visit knows.
    type State;

    /// A visit begins: its state, and its CONNECT.
    fn begin(&self, number: usize) -> (Self::State, Vec<u8>);

    /// A packet came, with this first byte and body. What is put into `out` is sent.
    ///
    /// # Errors
    /// A packet that ends the whole run.
    fn on_packet(&mut self, state: &mut Self::State, first: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next>;

    /// Nothing came for too long: the visit is given up.
    ///
    /// # Errors
    /// If that ends the whole run.
    fn give_up(&mut self, state: Self::State) -> Result<()>;
}

struct Slot<State> {
    conn: Conn,
    state: State,
    moved: Instant,
}

/// Makes the visits from 0 to `count`, at most `at_once` of them at a time, and gives the time that they took.
///
/// # Errors
/// A connection that is refused or closed by the server, and the visits' own errors.
pub(crate) fn run<V: Visit>(address: SocketAddr, count: usize, at_once: usize, visit: &mut V) -> Result<Duration> {
    let start = Instant::now();
    let mut poller = Poller::new()?;
    let mut scratch = vec![0; SCRATCH_BYTES];
    let (mut ready, mut out) = (Vec::new(), Vec::new());
    let mut slots: Vec<Option<Slot<V::State>>> = Vec::new();
    slots.resize_with(at_once.min(count), || None);
    let mut numbers = 0..count;
    let mut patience = PATIENCE;
    loop {
        for (token, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let Some(number) = numbers.next() else { break };
            let (state, hello) = visit.begin(number);
            let conn = Conn::start(address, token, &hello).with_context(|| format!("visit {number}"))?;
            conn.register(&poller)?;
            *slot = Some(Slot { conn, state, moved: Instant::now() });
        }
        if slots.iter().all(Option::is_none) {
            return Ok(start.elapsed());
        }
        poller.wait_until(Instant::now() + LOOK_UP, &mut ready)?;
        for event in &ready {
            let Some(slot) = slots.get_mut(event.token) else { bail!("an unknown token") };
            let Some(Slot { conn, state, moved }) = slot else { continue };
            if event.writable {
                conn.flush(&poller)?;
            }
            if !event.readable {
                continue;
            }
            let mut next = Next::More;
            conn.read(&mut scratch, |bytes| {
                mqtt::packets_with_flags(bytes, |first, body| {
                    if next == Next::More {
                        next = visit.on_packet(state, first, body, &mut out)?;
                    }
                    Ok(())
                })
            })?;
            *moved = Instant::now();
            if next == Next::Over {
                out.extend_from_slice(&mqtt::DISCONNECT);
            }
            if !out.is_empty() {
                conn.send(&poller, &out)?;
                out.clear();
            }
            if next == Next::Over {
                ensure!(!conn.is_backed_up(), "the server does not read");
                *slot = None;
            }
        }
        for slot in &mut slots {
            if let Some(gone) = slot.take_if(|slot| slot.moved.elapsed() > patience) {
                visit.give_up(gone.state)?;
                patience = LESS_PATIENCE;
            }
        }
    }
}
