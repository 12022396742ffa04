//! Who somebody is once a credential was accepted: a name, a role, perhaps a device, and what it was proved with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_actors::ids::DeviceId;

use super::acl::Rules;

/// What a principal may do, before the rules of an `acl_file` add to it or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Its own topics, its own readings.
    Device,
    /// The topics and readings of all devices.
    Gateway,
    /// Reads everything, changes nothing.
    Viewer,
    /// Everything but users and tokens.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, as files and flags spell it.
    pub(crate) const NAMES: [&'static str; 5] = ["device", "gateway", "viewer", "operator", "admin"];

    /// The role of a word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "device" => Self::Device,
            "gateway" => Self::Gateway,
            "viewer" => Self::Viewer,
            "operator" => Self::Operator,
            "admin" => Self::Admin,
            _ => return None,
        })
    }

    /// As files and flags spell it.
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// May it read states, streams and the ledger over HTTP?
    pub(crate) fn reads(self) -> bool {
        self >= Self::Viewer
    }

    /// May it change what the node has: parked readings, imports, commands?
    pub(crate) fn operates(self) -> bool {
        self >= Self::Operator
    }
}

/// What a principal was proved with. A stamp names the entry of the users' file as it was: another stamp, another credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A password.
    Password { stamp: u64 },
    /// A token of the users' file, by its id.
    Token { id: Box<str>, stamp: u64 },
    /// A signed token of somebody else.
    Jwt,
    /// A client certificate.
    Certificate,
    /// The admin socket: the kernel says who it is.
    Socket,
    /// None was asked for.
    Nothing,
}

/// Somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The user's name; what else is owned (sessions, client ids) is owned under it.
    pub(crate) name: Box<str>,
    pub(crate) role: Role,
    /// The device that it is, if it is one.
    pub(crate) device: Option<DeviceId>,
    pub(crate) proof: Proof,
    /// When the proof ends, in milliseconds since 1970.
    pub(crate) expires: Option<i64>,
    /// Rules that the proof itself brings.
    pub(super) rules: Option<Arc<Rules>>,
}

impl Principal {
    /// Somebody who was not asked.
    pub(super) fn anonymous(role: Role) -> Self {
        Self { name: Box::default(), role, device: None, proof: Proof::Nothing, expires: None, rules: None }
    }

    /// Somebody who came by the admin socket.
    pub(super) fn of_socket(uid: u32) -> Self {
        let name = format!("uid {uid}").into();
        Self { name, role: Role::Admin, device: None, proof: Proof::Socket, expires: None, rules: None }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.proof == Proof::Nothing
    }

    /// As logs and the audit call it.
    pub(crate) fn shown(&self) -> &str {
        if self.is_anonymous() { "(anonymous)" } else { &self.name }
    }

    /// May it bring in readings of this device?
    pub(crate) fn reports(&self, device: &str) -> bool {
        match self.role {
            Role::Device => self.device.as_ref().is_some_and(|own| own.as_str() == device),
            Role::Viewer => false,
            Role::Gateway | Role::Operator | Role::Admin => true,
        }
    }
}
