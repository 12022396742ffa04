//! What the codec's tests and the fuzz targets share.

#[path = "../../../../node/src/mqtt/codec_tests/client.rs"]
pub(crate) mod client;
#[path = "../../../../node/src/mqtt/codec_tests/invariants.rs"]
pub(crate) mod invariants;
#[path = "../../../../node/src/mqtt/codec_tests/targets.rs"]
pub(crate) mod targets;
