//! How a typed line reaches a node's audit log: as a header of the first request that it makes. The CLI writes it, the node's
//! guard reads it. Neither believes that the other has taken the secrets out.

use percent_encoding::percent_decode_str;
use tidegate_actors::limits;

use super::secrets::redact;
use crate::client::encode;

/// The header.
pub(crate) const HEADER: &str = "tidegate-repl";

/// What is sent of a line.
pub(super) fn header(line: Option<&str>) -> Option<String> {
    line.map(|line| encode(&clip(&redact(line))))
}

/// What the log gets of what was sent.
pub(crate) fn line(header: &str) -> String {
    clip(&redact(&percent_decode_str(header).decode_utf8_lossy()))
}

fn clip(line: &str) -> String {
    line[..line.floor_char_boundary(line.len().min(limits::AUDIT_DETAIL_BYTES))].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_arrives_without_its_secrets_and_bounded() {
        let sent = header(Some("call('POST', '/x', { password: 'pw', n: 'ä\n' })")).expect("a line");
        assert!(sent.is_ascii() && !sent.contains("pw"), "{sent}");
        assert_eq!(line(&sent), "call('POST', '/x', { password: …, n: 'ä\n' })");
        assert_eq!(line("token%3D%22abc%22"), "token=…", "another client did not take it out");
        assert_eq!(header(None), None);
        assert!(line(&header(Some(&"ä".repeat(5_000))).expect("a line")).len() <= limits::AUDIT_DETAIL_BYTES);
    }
}
