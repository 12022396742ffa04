//! Addresses to listen on: how they are spelled, and who can reach them. No name is looked up.

use std::net::{Ipv6Addr, SocketAddr};

/// Reads `address:port`; `localhost` stands for 127.0.0.1. The error follows the value ("has no port").
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("has no port; an IPv6 address goes in brackets: [{text}]:1883"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("has no port".to_owned());
    };
    let port = port.parse::<u16>().map_err(|_| format!("has the port {port:?}, which is not from 0 to 65535"))?;
    match host {
        "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        "" => Err(format!("has no address; every address of this machine is 0.0.0.0:{port}")),
        _ => Err(format!("has the host {host:?}, which is not an IP address")),
    }
}

/// Whether only this machine can reach `address`.
pub(crate) fn is_local(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The first address that stands twice in `addresses`. Port 0 asks for any free port, so it clashes with nothing.
pub(crate) fn first_shared(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    let fixed = |address: &&SocketAddr| address.port() != 0;
    addresses.iter().enumerate().filter(|(_, a)| fixed(a)).find(|(at, a)| addresses[..*at].contains(a)).map(|(_, a)| *a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        #[track_caller]
        fn check(text: &str, expected: Result<&str, &str>) {
            let expected = expected.map(|ok| ok.parse::<SocketAddr>().unwrap()).map_err(std::borrow::ToOwned::to_owned);
            assert_eq!(parse(text), expected, "{text}");
        }
        check("127.0.0.1:1883", Ok("127.0.0.1:1883"));
        check("[::1]:0", Ok("[::1]:0"));
        check("localhost:8080", Ok("127.0.0.1:8080"));
        check("127.0.0.1", Err("has no port"));
        check("1883", Err("has no port"));
        check("127.0.0.1:", Err("has the port \"\", which is not from 0 to 65535"));
        check("127.0.0.1:70000", Err("has the port \"70000\", which is not from 0 to 65535"));
        check("127.0.0.1:mqtt", Err("has the port \"mqtt\", which is not from 0 to 65535"));
        check(":1883", Err("has no address; every address of this machine is 0.0.0.0:1883"));
        check("::1", Err("has no port; an IPv6 address goes in brackets: [::1]:1883"));
        check("example.org:1883", Err("has the host \"example.org\", which is not an IP address"));
        check("", Err("is empty"));
    }

    #[test]
    fn who_can_reach_it() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.1.5:1", false),
        ] {
            assert_eq!(is_local(&text.parse().unwrap()), local, "{text}");
        }
    }
}
