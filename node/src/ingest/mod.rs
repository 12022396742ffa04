//! From payload bytes to readings: the shapes that devices send, checked once, with errors that say where.
//!
//! It knows JSON and the shapes, and neither MQTT nor HTTP: both edges call it.

mod ack;
#[cfg(test)]
mod corpus;
mod error;
mod idempotency;
#[cfg(test)]
mod invariants;
mod object;
mod scalar;
mod shape;

pub(crate) use ack::{ack_level, outcome, refused_at_limit};
pub(crate) use error::IngestError;
pub(crate) use idempotency::{BadKey, IdempotencyKey, RequestHash, key_reused};
pub(crate) use object::{LATEST, Object, check_depth, parse_object};
pub(crate) use scalar::scalar;
pub(crate) use shape::{Parsed, each_reading, split_lines};
