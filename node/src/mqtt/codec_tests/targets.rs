//! The fuzz targets of the wire format by name: in each version any one packet, and whatever a connection may bring. The
//! replay of the corpus and the fuzzers call the same.
//!
//! The fuzz crate includes this file, so it uses nothing but its neighbours.

use super::{
    super::packet::Version,
    invariants::{check_bytes, check_stream, packet_of},
};

/// What a target reads its bytes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One packet, whose length is put right: the first byte says of what type.
    Packet,
    /// Whatever a connection may bring.
    Stream,
}

/// Every target: its name, its version and what it reads its bytes as.
pub(crate) const SUBJECTS: [(&str, Version, Subject); 4] = [
    ("v3_packet", Version::V3, Subject::Packet),
    ("v3_stream", Version::V3, Subject::Stream),
    ("v5_packet", Version::V5, Subject::Packet),
    ("v5_stream", Version::V5, Subject::Stream),
];

/// Gives `data` to the target of this name. Panics if something does not hold that must.
#[allow(unreachable_pub, reason = "the fuzz crate exports it")]
pub fn run(target: &str, data: &[u8]) {
    let (_, version, subject) = SUBJECTS.iter().find(|(name, ..)| *name == target).expect("a target of the list");
    match subject {
        Subject::Packet => {
            check_bytes(*version, &packet_of(*version, data));
        }
        Subject::Stream => {
            check_stream(*version, data);
        }
    }
}
