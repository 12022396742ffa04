//! The hosts that scripts may reach: an operator's list. Empty: none.

use std::str::FromStr;

use url::{Host, Url};

/// Most entries of a list.
const MOST: usize = 1_024;

/// A list of hosts: `api.example.org`, `*.example.org` (below it), `10.0.0.7:8080`, `[::1]:*`. Without a port it is that of the
/// scheme; `*` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    host: String,
    /// It is for what is below the host.
    is_below: bool,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    OfScheme,
    Any,
    This(u16),
}

impl FromStr for Hosts {
    type Err = String;

    /// Reads entries separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let entries = words.map(Entry::read).collect::<Result<Vec<_>, _>>()?;
        if entries.len() > MOST { Err(format!("has more than {MOST} hosts")) } else { Ok(Self(entries)) }
    }
}

impl Hosts {
    /// May this address be asked?
    pub(super) fn allow(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let port = url.port_or_known_default();
        self.0.iter().any(|entry| {
            entry.is_for(host)
                && match entry.port {
                    Port::Any => true,
                    Port::OfScheme => url.port().is_none(),
                    Port::This(allowed) => port == Some(allowed),
                }
        })
    }

    /// May this name be looked up?
    pub(super) fn allow_name(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.0.iter().any(|entry| entry.is_for(host.trim_end_matches('.')))
    }
}

impl Entry {
    fn read(word: &str) -> Result<Self, String> {
        let (is_below, rest) = word.strip_prefix("*.").map_or((false, word), |rest| (true, rest));
        let bracket = rest.find(']').map_or(0, |at| at + 1);
        let (host, port) = match rest[bracket..].rfind(':') {
            Some(at) => (&rest[..bracket + at], Some(&rest[bracket + at + 1..])),
            None => (rest, None),
        };
        let port = match port {
            None => Port::OfScheme,
            Some("*") => Port::Any,
            Some(digits) => Port::This(digits.parse().map_err(|_| format!("has no port {digits:?} in {word:?}"))?),
        };
        if host.contains('*') {
            return Err(format!("has a * in {word:?}: it stands for the names below one only, as in *.example.org"));
        }
        let parsed = Host::parse(host).map_err(|_| format!("has no host in {word:?}"))?;
        if is_below && !matches!(parsed, Host::Domain(_)) {
            return Err(format!("has no name behind *. in {word:?}"));
        }
        // As it stands in a parsed address.
        Ok(Self { host: parsed.to_string(), is_below, port })
    }

    fn is_for(&self, host: &str) -> bool {
        match (self.is_below, host.strip_suffix(self.host.as_str())) {
            (false, _) => host == self.host,
            (true, Some(before)) => before.ends_with('.') && before.len() > 1,
            (true, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_may_be_reached() {
        let hosts: Hosts =
            "api.example.org, *.Example.com, 127.0.0.1:8080,[::1]:*, plain:80".parse().expect("a list of hosts");
        for (url, allowed) in [
            ("https://api.example.org/a?b", true),
            ("http://API.example.org", true),
            ("http://api.example.org:80/", true),
            ("http://api.example.org:81/", false),
            ("http://x.api.example.org/", false),
            ("http://example.org/", false),
            ("https://a.example.com/", true),
            ("https://a.b.example.com/", true),
            ("https://example.com/", false),
            ("https://.example.com/", false),
            ("https://badexample.com/", false),
            ("https://example.com.evil.org/", false),
            ("http://127.0.0.1:8080/", true),
            ("http://0x7f000001:8080/", true),
            ("http://127.0.0.1/", false),
            ("http://[::1]:5/", true),
            ("http://[::2]:5/", false),
            ("http://plain/", true),
            ("https://plain/", false),
            ("data:text/plain,a", false),
        ] {
            let parsed = Url::parse(url);
            assert_eq!(parsed.is_ok_and(|url| hosts.allow(&url)), allowed, "{url}");
        }
        assert!(!Hosts::default().allow(&Url::parse("http://localhost").expect("an address")));
        assert!(hosts.allow_name("Api.Example.org.") && !hosts.allow_name("example.org"));
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for text in ["*", "*.", "a b", "http://a", "a:x", "a:99999", "*.1.2.3.4", "[::1", "a/b"] {
            assert!(text.parse::<Hosts>().is_err(), "{text}");
        }
        assert_eq!(" , ".parse::<Hosts>(), Ok(Hosts::default()));
    }
}
