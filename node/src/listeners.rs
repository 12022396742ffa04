//! The listening sockets: one for each address and loop, sharing the port by SO_REUSEPORT.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for an accepting loop.
const BACKLOG: i32 = 4_096;

/// What is spoken at a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Mqtt,
    Mqtts,
    Ws,
    Wss,
    Http,
    Https,
}

impl Door {
    /// Its name in the ready line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Mqtts => "mqtts",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// What a connection costs, in those on plain TCP: a TLS handshake takes its time of the loop.
    pub(crate) fn cost(self) -> u32 {
        match self {
            Self::Mqtts | Self::Wss | Self::Https => 4,
            Self::Mqtt | Self::Ws | Self::Http => 1,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Mqtts => "MQTT over TLS",
            Self::Ws => "MQTT over WebSocket",
            Self::Wss => "MQTT over WebSocket over TLS",
            Self::Http => "HTTP",
            Self::Https => "HTTP over TLS",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::Mqtt => "--mqtt-bind",
            Self::Mqtts => "--mqtts-bind",
            Self::Ws => "--ws-bind",
            Self::Wss => "--wss-bind",
            Self::Http => "--http-bind",
            Self::Https => "--https-bind",
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {reason}")]
pub(crate) struct ListenError {
    what: &'static str,
    address: SocketAddr,
    reason: String,
}

/// The sockets of one address, one for each loop, and the address itself (with the port that was taken for port 0).
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

/// Listens on `address` with one socket for each of `loops` loops.
///
/// # Errors
/// [`ListenError`] says what to do, above all when the port is in use.
pub(crate) fn bind(door: Door, address: SocketAddr, loops: usize) -> Result<Bound, ListenError> {
    let (what, flag) = (door.what(), door.flag());
    let explain = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => format!(
                "the port is in use by another program (another node, or a broker?): stop it, or choose another with {flag}"
            ),
            std::io::ErrorKind::PermissionDenied => {
                format!("ports below 1024 need privileges: choose another with {flag}")
            }
            std::io::ErrorKind::AddrNotAvailable => format!("this machine does not have that address: check {flag}"),
            _ => error.to_string(),
        };
        ListenError { what, address, reason }
    };
    // Sockets that share a port would join another node's without a word, so the port is first tried alone.
    let alone = open(address, false).map_err(explain)?;
    let address = alone.local_addr().map_err(explain)?;
    drop(alone);
    let sockets = (0..loops).map(|_| open(address, true)).collect::<Result<_, _>>().map_err(explain)?;
    Ok(Bound { address, sockets })
}

fn open(address: SocketAddr, share: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_noticed_although_ports_are_shared() {
        let first = bind(Door::Mqtt, ([127, 0, 0, 1], 0).into(), 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let error = bind(Door::Mqtt, first.address, 2).err().unwrap().to_string();
        assert!(error.contains("in use") && error.contains("--mqtt-bind"), "{error}");
    }
}
