//! The node's MQTT wire format and its parser of payloads, and what holds for them, as the fuzz targets see it.
//!
//! The files are the node's own, included by their path: they are private to a binary, and a library made for this alone would
//! make everything in them public. It also holds them to their word: they are functions of bytes and need nothing of the node;
//! a file that began to would not compile here.

#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, reason = "only a part of the node is here")]

extern crate self as tidegate_actors;

#[path = "../../actors/src/clock.rs"]
pub mod clock;
mod ingest;
#[path = "../../actors/src/ledger/reasons.rs"]
pub mod ledger;
#[path = "../../actors/src/limits.rs"]
pub mod limits;
mod mqtt;
#[path = "../../node/src/mqtt/codec_tests/pack.rs"]
pub mod pack;

pub use ingest::invariants::check_payload;
pub use mqtt::codec_tests::targets::run;

/// A fuzz target of the wire format.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($name, data));
    };
}
