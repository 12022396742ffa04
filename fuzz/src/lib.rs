//! The node's MQTT wire format, and what holds for it, as the fuzz targets see it.
//!
//! The files are the node's own, included by their path: the wire format is private to a binary, and a library made for this
//! alone would make everything in it public. It also holds the wire format to its word: it is functions of bytes and needs
//! nothing of the node; a file that began to would not compile here.

#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, reason = "only a part of the node is here")]

extern crate self as tidegate_actors;

#[path = "../../actors/src/limits.rs"]
pub mod limits;

mod mqtt;
#[path = "../../node/src/mqtt/codec_tests/pack.rs"]
pub mod pack;

pub use mqtt::codec_tests::targets::run;

/// A fuzz target named after its file.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($name, data));
    };
}
