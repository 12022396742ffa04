//! The MQTT side of the edge: the wire format, and the connections that speak it.
//!
//! A client's way in: `listener` (accept, CONNECT, move to the owner's loop once) → `connection` (the actor: bytes to packets)
//! → `session` (what a packet means) → `topics` (is it a reading, or for the node?) → `readings` (to the device's actor, and its
//! answer back), and `router` (who has subscribed). `later` is the way back to a connection whose PUBACK another loop decides on.
//! `connections` is what the others on the loop reach of each connection.
//!
//! The wire format: bytes become packets in the order of the files: `frame` (where a packet ends, and whether it may be that large) →
//! `codec` (which decoder) → `publish` (borrowed, the hot one), `connect`, `control` (the rest), all of which read by
//! `wire` and `properties`. Packets become bytes in `encode`. `topic` holds the rules for topic names and filters,
//! `filters` finds the subscriptions that match a topic, `reason` says why something was refused.
//!
//! The wire format does no I/O, keeps no session, reads no clock and does not log: these are functions of bytes.

pub(crate) mod codec;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod control;
pub(crate) mod encode;
pub(crate) mod filters;
pub(crate) mod frame;
pub(crate) mod later;
pub(crate) mod listener;
pub(crate) mod packet;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod readings;
pub(crate) mod reason;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod topic;
pub(crate) mod topics;
pub(crate) mod wire;

#[cfg(test)]
mod codec_tests;
