//! The node's files of the wire format, under the names by which they call each other.

#[path = "../../../node/src/mqtt/codec.rs"]
pub(crate) mod codec;
#[path = "../../../node/src/mqtt/connect.rs"]
pub(crate) mod connect;
#[path = "../../../node/src/mqtt/control.rs"]
pub(crate) mod control;
#[path = "../../../node/src/mqtt/encode.rs"]
pub(crate) mod encode;
#[path = "../../../node/src/mqtt/frame.rs"]
pub(crate) mod frame;
#[path = "../../../node/src/mqtt/packet.rs"]
pub(crate) mod packet;
#[path = "../../../node/src/mqtt/properties.rs"]
pub(crate) mod properties;
#[path = "../../../node/src/mqtt/publish.rs"]
pub(crate) mod publish;
#[path = "../../../node/src/mqtt/reason.rs"]
pub(crate) mod reason;
#[path = "../../../node/src/mqtt/topic.rs"]
pub(crate) mod topic;
#[path = "../../../node/src/mqtt/wire.rs"]
pub(crate) mod wire;

pub(crate) mod codec_tests;
