//! What looks like a secret in a typed line, taken out of it. What is left may be written down: into the audit log (the node does
//! it again, since it trusts no client) and into a prompt's history.

use std::{borrow::Cow, sync::OnceLock};

use regex::Regex;

/// Tokens of ours, signed tokens, credentials of a header, user and password in an address, and the text after a name that says
/// what it is.
const PATTERNS: [(&str, &str); 5] = [
    (r"\btg_[A-Za-z0-9_-]+", "tg_…"),
    (r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?", "…"),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]+", "$1 …"),
    (r"://[^/\s@]+@", "://…@"),
    (
        r#"(?i)((?:pass(?:word|wd|phrase)?|secret|token|credential|authorization|api[-_]?key)[\w-]*["'`]?\s*(?:[:=,]|\s)\s*)(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|`(?:\\.|[^`\\])*`?)"#,
        "$1…",
    ),
];

/// The line without what looks like a secret.
pub(crate) fn redact(line: &str) -> Cow<'_, str> {
    static COMPILED: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| {
        let all = PATTERNS.iter().map(|(pattern, by)| (Regex::new(pattern).expect("a test reads them all"), *by));
        all.collect()
    });
    let mut line = Cow::Borrowed(line);
    for (pattern, by) in compiled {
        if pattern.is_match(&line) {
            line = Cow::Owned(pattern.replace_all(&line, *by).into_owned());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        for (line, left) in [
            ("count({ temperature: { $gt: 30 } })", "count({ temperature: { $gt: 30 } })"),
            ("device('pump-7').state", "device('pump-7').state"),
            ("x = 'tg_AbC-12_z'; y", "x = 'tg_…'; y"),
            (
                "call('POST', '/api/login', { user: 'a', password: 'p\\'w' })",
                "call('POST', '/api/login', { user: 'a', password: … })",
            ),
            ("{\"passwd\":\"x y\"}", "{\"passwd\":…}"),
            ("headers.authorization = \"Bearer abc.def\"", "headers.authorization = …"),
            ("'Basic YTpi'", "'Basic …'"),
            ("const apiKey = `k`", "const apiKey = …"),
            ("secretOfMine: 'open", "secretOfMine: …"),
            (".connect http://anna:pw@host:8080", ".connect http://…@host:8080"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "…"),
        ] {
            assert_eq!(redact(line), left);
        }
    }
}
