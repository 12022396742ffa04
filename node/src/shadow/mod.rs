//! Device shadows: for each device a document of what it is to be and what it is, over HTTP and MQTT, in the shape of AWS'
//! device shadows.
//!
//! A request's way: `request` (what it says) → `shadows` (the loop that owns the device: merged by `document`, kept as `stored`
//! says, answered once durable) → `messages` (what subscribers see). One loop owns a device's shadow and does one request after
//! the other, so there is an order and no lock.

mod document;
#[cfg(test)]
mod document_tests;
pub(crate) mod messages;
mod request;
mod shadows;
pub(crate) mod stored;

pub(crate) use request::{Rejection, Update, bare};
pub(crate) use shadows::{Ask, Counters, Shadows, recovered, serve, sweep};
pub(crate) use stored::{PREFIX, device_of};
