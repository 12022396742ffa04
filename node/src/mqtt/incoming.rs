//! The QoS 2 messages of a client whose exchange is not over: their packet ids, from the PUBLISH to the PUBREL
//! (section 4.3.3, "method A": the message is passed on before the PUBREC).
//!
//! Here it is decided whether a PUBLISH is one that the session has had before. Nothing here writes or stores.

use std::num::NonZeroU16;

use hashbrown::HashMap;

use super::{connections::ConnectionKey, stored};

/// The exchanges of one session.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    ids: HashMap<NonZeroU16, Exchange>,
    /// How many of them have had their PUBREC.
    received: usize,
}

/// One exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// The connection over which its PUBLISH came last; 0: before the node's start.
    pub(crate) connection: ConnectionKey,
    /// Names the message, so that what was stored of it before a crash is known again.
    pub(crate) origin: u64,
    /// The message is where it belongs: its PUBREC may go out, and only its PUBREL is missing.
    pub(crate) received: bool,
    /// Whoever was to have it has it, or it has been on its way there since the node's start.
    pub(crate) routed: bool,
}

/// What a PUBLISH with QoS 2 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A message.
    New { origin: u64 },
    /// A message whose PUBREC the client has not seen: it gets another, and nothing else happens ([MQTT-4.3.3-10]).
    Again,
    /// The same, while the first one is still being worked on: it is answered with that.
    UnderWay,
    /// One that the session has had, though it is not known whether it went where it belongs: it goes there again, under its old
    /// name. `routed`: whoever was to have it has it, and only the answer is missing.
    Unsure { origin: u64, routed: bool },
}

impl Incoming {
    /// A PUBLISH with QoS 2. `origin` is its name if it is new.
    ///
    /// A client that sends a message again says so (DUP, [MQTT-3.3.1-1]). One that uses a packet id anew over a later
    /// connection has lost its memory of the exchange: that message is another one.
    pub(crate) fn arrive(&mut self, id: NonZeroU16, dup: bool, connection: ConnectionKey, origin: u64) -> Arrival {
        let new = Exchange { connection, origin, received: false, routed: true };
        let Some(known) = self.ids.get_mut(&id) else {
            self.ids.insert(id, new);
            return Arrival::New { origin };
        };
        let same = known.connection == connection;
        if !same && !dup {
            self.received -= usize::from(known.received);
            *known = new;
            return Arrival::New { origin };
        }
        known.connection = connection;
        match (known.received, same) {
            (true, _) => Arrival::Again,
            (false, true) => Arrival::UnderWay,
            (false, false) => {
                let routed = std::mem::replace(&mut known.routed, true);
                Arrival::Unsure { origin: known.origin, routed }
            }
        }
    }

    /// The message is where it belongs. Returns its exchange, if it goes on.
    pub(crate) fn received(&mut self, id: NonZeroU16) -> Option<Exchange> {
        let exchange = self.ids.get_mut(&id)?;
        self.received += usize::from(!exchange.received);
        exchange.received = true;
        Some(*exchange)
    }

    /// The exchange is over: a PUBREL, or a PUBREC that refuses. Returns whether there was one.
    pub(crate) fn release(&mut self, id: NonZeroU16) -> bool {
        let Some(exchange) = self.ids.remove(&id) else { return false };
        self.received -= usize::from(exchange.received);
        true
    }

    /// The exchange with a packet id.
    pub(crate) fn get_mut(&mut self, id: NonZeroU16) -> Option<&mut Exchange> {
        self.ids.get_mut(&id)
    }

    /// Puts an exchange back that was stored.
    pub(crate) fn restore(&mut self, id: NonZeroU16, stored: stored::Incoming) {
        let stored::Incoming { origin, routed, received } = stored;
        self.ids.insert(id, Exchange { connection: 0, origin, received, routed });
        self.received += usize::from(received);
    }

    /// Is there an exchange with this packet id?
    pub(crate) fn has(&self, id: NonZeroU16) -> bool {
        self.ids.contains_key(&id)
    }

    /// Exchanges that wait for their PUBREL.
    pub(crate) fn awaiting_release(&self) -> usize {
        self.received
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The packet ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NonZeroU16> {
        self.ids.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NonZeroU16 = NonZeroU16::new(7).expect("not 0");

    #[test]
    fn a_message_that_comes_again_is_known_until_its_pubrel() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.arrive(ID, false, 1, 100), Arrival::New { origin: 100 });
        assert_eq!(incoming.arrive(ID, true, 1, 101), Arrival::UnderWay);
        assert_eq!(incoming.awaiting_release(), 0);
        incoming.received(ID);
        assert_eq!(incoming.awaiting_release(), 1);
        assert_eq!(incoming.arrive(ID, true, 1, 102), Arrival::Again);
        assert_eq!(incoming.arrive(ID, false, 1, 103), Arrival::Again, "on one connection the id says enough");
        assert!(incoming.release(ID));
        assert!(!incoming.release(ID));
        assert_eq!((incoming.awaiting_release(), incoming.is_empty()), (0, true));
        assert_eq!(incoming.arrive(ID, false, 1, 104), Arrival::New { origin: 104 });
    }

    #[test]
    fn a_later_connection_goes_on_with_an_exchange_or_begins_a_new_one() {
        let mut incoming = Incoming::default();
        incoming.arrive(ID, false, 1, 100);
        assert_eq!(incoming.arrive(ID, true, 2, 101), Arrival::Unsure { origin: 100, routed: true });
        assert_eq!(incoming.arrive(ID, true, 2, 102), Arrival::UnderWay);
        incoming.received(ID);
        assert_eq!(incoming.arrive(ID, true, 3, 103), Arrival::Again);
        assert_eq!(incoming.arrive(ID, false, 4, 104), Arrival::New { origin: 104 }, "the client has lost its memory");
        assert_eq!(incoming.awaiting_release(), 0);
        incoming.restore(NonZeroU16::MAX, stored::Incoming { origin: 9, routed: true, received: true });
        assert_eq!(incoming.arrive(NonZeroU16::MAX, true, 4, 105), Arrival::Again);
        assert_eq!(incoming.ids().count(), 2);
        incoming.restore(ID, stored::Incoming { origin: 5, routed: false, received: false });
        assert_eq!(incoming.arrive(ID, true, 4, 106), Arrival::Unsure { origin: 5, routed: false });
        assert_eq!(incoming.arrive(ID, true, 5, 107), Arrival::Unsure { origin: 5, routed: true });
    }
}
