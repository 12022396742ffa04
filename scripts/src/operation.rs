//! The kinds of slow work that a script can ask for, and what tells them apart.

use bincode::{Decode, Encode};

/// A kind of slow work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) enum Operation {
    /// `crypto.pbkdf2`.
    Pbkdf2,
    /// `crypto.scrypt`.
    Scrypt,
    /// What `zlib` packs and unpacks.
    Zlib,
    /// What `fs` reads.
    ReadFile,
    /// What `fs` changes.
    WriteFile,
    /// `dns.lookup`.
    Lookup,
    /// `fetch`.
    Fetch,
    /// A file of the handlers that runs in a process of its own: `new Worker`.
    Task,
}

impl Operation {
    pub(crate) const ALL: [Self; 8] = [
        Self::Pbkdf2,
        Self::Scrypt,
        Self::Zlib,
        Self::ReadFile,
        Self::WriteFile,
        Self::Lookup,
        Self::Fetch,
        Self::Task,
    ];

    /// Its name in the natives, the metrics and the dashboard.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pbkdf2 => "pbkdf2",
            Self::Scrypt => "scrypt",
            Self::Zlib => "zlib",
            Self::ReadFile => "fs.read",
            Self::WriteFile => "fs.write",
            Self::Lookup => "dns.lookup",
            Self::Fetch => "fetch",
            Self::Task => "task",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Does its answer follow from its arguments alone? Then it is the same when the reading is handled again.
    pub(crate) fn is_pure(self) -> bool {
        matches!(self, Self::Pbkdf2 | Self::Scrypt | Self::Zlib | Self::Task)
    }

    /// Can it be seen outside of this process? Then a shadow and a replay must not do it.
    pub(crate) fn has_effect(self) -> bool {
        matches!(self, Self::WriteFile | Self::Lookup | Self::Fetch)
    }

    /// May it take seconds, because it waits for others than this machine or because it is a script's? Then it must not keep the short
    /// pieces from the pool.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Lookup | Self::Fetch | Self::Task)
    }
}
