//! The fuzz targets by name: one a packet type and version, and one a version for streams. The replay of the corpus and the
//! fuzzers call the same.
//!
//! The fuzz crate includes this file, so it uses nothing but its neighbours.

use super::{
    super::{frame::kind, packet::Version},
    invariants::{check_bytes, check_stream, packet_of},
};

/// What a target reads its bytes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One packet of this type.
    Packet(u8),
    /// Whatever a connection may bring.
    Stream,
}

/// Every target: its name, its version and what it reads its bytes as.
pub(crate) const SUBJECTS: [(&str, Version, Subject); 23] = [
    ("v3_connect", Version::V3, Subject::Packet(kind::CONNECT)),
    ("v3_publish", Version::V3, Subject::Packet(kind::PUBLISH)),
    ("v3_puback", Version::V3, Subject::Packet(kind::PUBACK)),
    ("v3_pubrec", Version::V3, Subject::Packet(kind::PUBREC)),
    ("v3_pubrel", Version::V3, Subject::Packet(kind::PUBREL)),
    ("v3_pubcomp", Version::V3, Subject::Packet(kind::PUBCOMP)),
    ("v3_subscribe", Version::V3, Subject::Packet(kind::SUBSCRIBE)),
    ("v3_unsubscribe", Version::V3, Subject::Packet(kind::UNSUBSCRIBE)),
    ("v3_pingreq", Version::V3, Subject::Packet(kind::PINGREQ)),
    ("v3_disconnect", Version::V3, Subject::Packet(kind::DISCONNECT)),
    ("v3_stream", Version::V3, Subject::Stream),
    ("v5_connect", Version::V5, Subject::Packet(kind::CONNECT)),
    ("v5_publish", Version::V5, Subject::Packet(kind::PUBLISH)),
    ("v5_puback", Version::V5, Subject::Packet(kind::PUBACK)),
    ("v5_pubrec", Version::V5, Subject::Packet(kind::PUBREC)),
    ("v5_pubrel", Version::V5, Subject::Packet(kind::PUBREL)),
    ("v5_pubcomp", Version::V5, Subject::Packet(kind::PUBCOMP)),
    ("v5_subscribe", Version::V5, Subject::Packet(kind::SUBSCRIBE)),
    ("v5_unsubscribe", Version::V5, Subject::Packet(kind::UNSUBSCRIBE)),
    ("v5_pingreq", Version::V5, Subject::Packet(kind::PINGREQ)),
    ("v5_disconnect", Version::V5, Subject::Packet(kind::DISCONNECT)),
    ("v5_auth", Version::V5, Subject::Packet(kind::AUTH)),
    ("v5_stream", Version::V5, Subject::Stream),
];

/// Gives `data` to the target of this name. Panics if something does not hold that must.
#[allow(unreachable_pub, reason = "the fuzz crate exports it")]
pub fn run(target: &str, data: &[u8]) {
    let (_, version, subject) = SUBJECTS.iter().find(|(name, ..)| *name == target).expect("a target of the list");
    match subject {
        Subject::Packet(kind) => {
            check_bytes(*version, &packet_of(*version, *kind, data));
        }
        Subject::Stream => {
            check_stream(*version, data);
        }
    }
}
