//! Identity and authorization: who somebody is, and what they may do.
//!
//! `principal` is somebody; `directory` is the users' file (`edit` and `command` change it), `password`, `secret` and `jwt` check
//! proofs, `verified` remembers them. `acl` and `filter` are rules, `access` is what one connection may do. `gate` brings it together:
//! a credential goes in, a principal or a refusal comes out. `mqtt` and `http` are what the two doors ask; `revoke` tells the
//! living of a change; `login` is the dashboard's way in. `bans` keeps out, `audit` writes down.
//!
//! No secret is logged, kept or compared in the clear. Slow hashes run on the blocking pool, never on a loop.

mod access;
mod acl;
pub(crate) mod audit;
mod bans;
pub(crate) mod command;
mod directory;
mod edit;
mod filter;
mod gate;
pub(crate) mod http;
mod jwt;
mod jwt_crypto;
pub(crate) mod login;
pub(crate) mod mqtt;
mod password;
mod place;
mod principal;
pub(crate) mod revoke;
mod secret;
mod verified;

pub(crate) use access::{Access, Grant};
pub(crate) use gate::{Auth, AuthError, check};
pub(crate) use principal::{Principal, Role};
