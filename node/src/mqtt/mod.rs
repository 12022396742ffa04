//! The MQTT side of the edge: the wire format, and the connections that speak it.
//!
//! A client's way in: `listener` (accept, CONNECT, move to the owner's loop once) → `connection` (the actor: bytes to packets)
//! → `session` (what a packet means; `sessions` begins and ends them) → `topics` (is it a reading, or for the node?) → `readings` (to the device's actor, and its answer back),
//! and `route` (to whoever has subscribed).
//! `connections` is what the others on the loop reach of each connection, `answers` its PUBACKs and PUBRECs in order;
//! `later` is the way back to a connection when another loop decides on them.
//!
//! A session's way out: `delivery`, with `outgoing` (what is under way and what waits) and `aliases`. The exchanges of QoS 2 with
//! the client as sender are in `incoming`, PUBLISHes that wait for the disk first in `deferred`. What of a session is durable is in `keeping` (after SUBSCRIBEs: `changed`), its form in `stored`, its way back at boot in `restore`; `receipt` tells a publisher
//! when every stored session has its message, `remembered` says for how long a session knows what it was done with. `wills` makes a message of a will, `drops` counts what subscribers did not get.
//!
//! Who gets a message: `route` (its way) by `router` (who has subscribed), with `filters` (the index), `shared` (which member of a group) and `announcements` (what loops tell
//! each other). `retaining` keeps what has the retain flag in `retained` (`retained_entry`: one message) and on disk; `replay` sends it
//! to who subscribes, step by step (`retained_walk`). `sys` and `sys_feed` are what the node says of itself.
//!
//! The wire format: bytes become packets in the order of the files: `frame` (where a packet ends, and whether it may be that large) →
//! `codec` (which decoder) → `publish` (borrowed, the hot one), `connect`, `control` (the rest), all of which read by
//! `wire` and `properties`. Packets become bytes in `encode`. `topic` holds the rules for topic names and filters,
//! `filters` finds the subscriptions that match a topic, `reason` says why something was refused.
//!
//! The wire format does no I/O, keeps no session, reads no clock and does not log: these are functions of bytes.

pub(crate) mod aliases;
pub(crate) mod announcements;
pub(crate) mod answers;
pub(crate) mod changed;
pub(crate) mod codec;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod control;
pub(crate) mod deferred;
pub(crate) mod delivery;
pub(crate) mod drops;
pub(crate) mod encode;
pub(crate) mod filters;
pub(crate) mod frame;
pub(crate) mod incoming;
pub(crate) mod keeping;
pub(crate) mod later;
pub(crate) mod listener;
pub(crate) mod message;
pub(crate) mod outgoing;
pub(crate) mod packet;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod readings;
pub(crate) mod reason;
pub(crate) mod receipt;
pub(crate) mod remembered;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod retained;
pub(crate) mod retained_entry;
pub(crate) mod retained_walk;
pub(crate) mod retaining;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod sessions;
pub(crate) mod shared;
pub(crate) mod stored;
pub(crate) mod sys;
pub(crate) mod sys_feed;
pub(crate) mod topic;
pub(crate) mod topics;
pub(crate) mod wills;
pub(crate) mod wire;

#[cfg(test)]
mod codec_tests;
