//! From payload bytes to readings: the shapes that devices send, checked once, with errors that say where.
//!
//! It knows JSON and the shapes, and neither MQTT nor HTTP: both edges call it.

mod error;
mod object;
mod shape;

pub(crate) use error::IngestError;
pub(crate) use object::{LATEST, Object, check_depth, parse_object};
pub(crate) use shape::{Parsed, each_reading, split_lines};
