//! The address of a broker as it stands in the configuration: `mqtt://host:port` or `mqtts://host:port`. Looks no name up.

use std::fmt;

/// Ports where the URL names none.
const PLAIN_PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Is the connection encrypted?
    pub(crate) tls: bool,
}

impl BrokerUrl {
    /// Reads a URL. The error follows the value ("has no host").
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("is not a URL")?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(format!("has the scheme {other:?}")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("holds a user; username and password are keys of their own".to_owned());
        }
        if rest.contains(['/', '?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("has more than a host and a port".to_owned());
        }
        let default = if tls { TLS_PORT } else { PLAIN_PORT };
        let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or("has a '[' without its ']'")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("has [{host}], which is not an IPv6 address"))?;
            (
                host,
                if after.is_empty() {
                    None
                } else {
                    Some(after.strip_prefix(':').ok_or("has more than a host and a port")?)
                },
            )
        } else {
            match rest.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(format!("has an IPv6 address without brackets: [{rest}]"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        let port = match port {
            None => default,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(format!("has the port {port:?}, which is not from 1 to 65535")),
            },
        };
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(out, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, expected) in [
            ("mqtt://broker", Ok("mqtt://broker:1883")),
            ("mqtts://broker/", Ok("mqtts://broker:8883")),
            ("mqtt://10.0.0.1:1884", Ok("mqtt://10.0.0.1:1884")),
            ("mqtts://[::1]:8884", Ok("mqtts://[::1]:8884")),
            ("mqtt://[::1]", Ok("mqtt://[::1]:1883")),
            ("broker:1883", Err("is not a URL")),
            ("tcp://broker", Err("has the scheme \"tcp\"")),
            ("mqtt://", Err("has no host")),
            ("mqtt://:1883", Err("has no host")),
            ("mqtt://::1", Err("has an IPv6 address without brackets: [::1]")),
            ("mqtt://[x]", Err("has [x], which is not an IPv6 address")),
            ("mqtt://a:0", Err("has the port \"0\", which is not from 1 to 65535")),
            ("mqtt://a:70000", Err("has the port \"70000\", which is not from 1 to 65535")),
            ("mqtt://u:p@a", Err("holds a user; username and password are keys of their own")),
            ("mqtt://a/topic", Err("has more than a host and a port")),
        ] {
            let found = BrokerUrl::parse(text).map(|url| url.to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
