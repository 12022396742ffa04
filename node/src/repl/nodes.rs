//! The nodes that a session knows, which of them is the current one, and clients of them that are not in use.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::client::{ClientError, NodeClient};

/// Nodes of one session; more: refused.
const NODES: usize = 64;
/// Idle clients that are kept, of all nodes.
const IDLE: usize = 8;

/// The nodes of a session.
#[derive(Clone)]
pub(super) struct Nodes(Arc<Mutex<Known>>);

struct Known {
    addresses: Vec<String>,
    current: usize,
    idle: Vec<NodeClient>,
}

impl Nodes {
    /// Those that were named; none: the node of this data directory, or the default address.
    ///
    /// # Errors
    /// One of them is no address.
    pub(super) fn new(named: &[String], data_dir: &Path) -> Result<Self, ClientError> {
        let mut addresses = Vec::new();
        for address in named {
            addresses.push(NodeClient::new(address)?.url().to_owned());
        }
        if addresses.is_empty() {
            addresses.push(NodeClient::local(data_dir)?.url().to_owned());
        }
        addresses.dedup();
        Ok(Self(Arc::new(Mutex::new(Known { addresses, current: 0, idle: Vec::new() }))))
    }

    /// The address of the current one.
    pub(super) fn current(&self) -> String {
        let known = self.known();
        known.addresses[known.current].clone()
    }

    /// All addresses, and the place of the current one.
    pub(super) fn all(&self) -> (Vec<String>, usize) {
        let known = self.known();
        (known.addresses.clone(), known.current)
    }

    /// What somebody means: a number of the list, or an address.
    ///
    /// # Errors
    /// Neither.
    pub(super) fn resolve(&self, words: &str) -> Result<String, String> {
        if words.is_empty() {
            return Err("which node? .connect NUMBER of .services, or .connect http://host:8080".to_owned());
        }
        if let Ok(number) = words.parse::<usize>() {
            let known = self.known();
            let address = number.checked_sub(1).and_then(|at| known.addresses.get(at)).cloned();
            return address.ok_or_else(|| format!("there is no node {number}; .services lists them"));
        }
        NodeClient::new(words).map(|client| client.url().to_owned()).map_err(|error| error.to_string())
    }

    /// From here on calls go to this address.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn switch(&self, address: &str) -> Result<(), String> {
        let mut known = self.known();
        let at = known.addresses.iter().position(|of| of == address);
        known.current = match at {
            Some(at) => at,
            None if known.addresses.len() >= NODES => {
                return Err(format!("{NODES} nodes are known already (limit repl_nodes)"));
            }
            None => {
                known.addresses.push(address.to_owned());
                known.addresses.len() - 1
            }
        };
        Ok(())
    }

    /// A client of this address.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn client(&self, address: &str) -> Result<NodeClient, ClientError> {
        let mut known = self.known();
        match known.idle.iter().position(|client| client.url() == address) {
            Some(at) => Ok(known.idle.swap_remove(at)),
            None => NodeClient::new(address),
        }
    }

    /// A client is not in use any more.
    pub(super) fn give_back(&self, client: NodeClient) {
        let mut known = self.known();
        if known.idle.len() < IDLE {
            known.idle.push(client);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
