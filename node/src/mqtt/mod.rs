//! The MQTT side of the edge, server half of the wire format.
//!
//! Bytes become packets in the order of the files: `frame` (where a packet ends, and whether it may be that large) →
//! `codec` (which decoder) → `publish` (borrowed, the hot one), `connect`, `control` (the rest), all of which read by
//! `wire` and `properties`. Packets become bytes in `encode`. `topic` holds the rules for topic names and filters,
//! `filters` finds the subscriptions that match a topic, `reason` says why something was refused.
//!
//! Nothing here does I/O, keeps a session, reads a clock or logs: these are functions of bytes.

pub(crate) mod codec;
pub(crate) mod connect;
pub(crate) mod control;
pub(crate) mod encode;
pub(crate) mod filters;
pub(crate) mod frame;
pub(crate) mod packet;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod reason;
pub(crate) mod topic;
pub(crate) mod wire;

#[cfg(test)]
mod codec_tests;
