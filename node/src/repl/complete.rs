//! What Tab could complete: pure, from the text before the cursor.

use std::sync::OnceLock;

use regex::Regex;

/// What is being typed, and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A command with a dot.
    Dot(&'a str),
    /// A node behind `.connect`.
    Node(&'a str),
    /// A device's id.
    Id(&'a str),
    /// A property of a device.
    OfDevice(&'a str),
    /// A field of a device's state: the device, the fields above, the beginning.
    Field {
        device: &'a str,
        above: Vec<&'a str>,
        prefix: &'a str,
    },
    /// A name that a path of names leads to; an empty path: a global.
    Member {
        path: Vec<&'a str>,
        prefix: &'a str,
    },
    Nothing,
}

impl Target<'_> {
    /// What is typed of it already.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Dot(prefix) | Self::Node(prefix) | Self::Id(prefix) | Self::OfDevice(prefix) => prefix,
            Self::Field { prefix, .. } | Self::Member { prefix, .. } => prefix,
            Self::Nothing => "",
        }
    }
}

/// A device's properties.
pub(super) const OF_DEVICE: [&str; 12] = [
    "at",
    "command(",
    "commands",
    "connected",
    "deviceTime",
    "id",
    "ledger",
    "parked",
    "receivedTime",
    "shadow",
    "state",
    "version",
];

/// What is before the cursor.
pub(super) fn target(before: &str) -> Target<'_> {
    static PATTERNS: OnceLock<[Regex; 6]> = OnceLock::new();
    let [dot, behind, id, field, of_device, member] = PATTERNS.get_or_init(|| {
        [
            r"^\s*(\.\w*)$",
            r"^\s*\.(connect|devices)\s+(\S*)$",
            r#"\bdevices?\(\s*["'`]([^"'`\\]*)$"#,
            r#"\bdevice\(\s*["'`]([^"'`\\]*)["'`]\s*\)\.state\.((?:[\w$]+\.)*)([\w$]*)$"#,
            r#"\bdevice\(\s*["'`][^"'`\\]*["'`]\s*\)\.([\w$]*)$"#,
            r"(?:^|[^\w$.)\]])((?:[A-Za-z_$][\w$]*\.)*)([A-Za-z_$][\w$]*|)$",
        ]
        .map(|pattern| Regex::new(pattern).expect("a test uses them all"))
    });
    let part = |found: &regex::Captures<'_>, at: usize| found.get(at).map_or(0..0, |part| part.range());
    if let Some(found) = dot.captures(before) {
        return Target::Dot(&before[part(&found, 1)]);
    }
    if let Some(found) = behind.captures(before) {
        let rest = &before[part(&found, 2)];
        return if &found[1] == "connect" { Target::Node(rest) } else { Target::Id(rest) };
    }
    if let Some(found) = id.captures(before) {
        return Target::Id(&before[part(&found, 1)]);
    }
    if let Some(found) = field.captures(before) {
        let above = before[part(&found, 2)].split('.').filter(|name| !name.is_empty()).collect();
        return Target::Field { device: &before[part(&found, 1)], above, prefix: &before[part(&found, 3)] };
    }
    if let Some(found) = of_device.captures(before) {
        return Target::OfDevice(&before[part(&found, 1)]);
    }
    match member.captures(before) {
        Some(found) => {
            let path: Vec<_> = before[part(&found, 1)].split('.').filter(|name| !name.is_empty()).collect();
            let prefix = &before[part(&found, 2)];
            if path.is_empty() && prefix.is_empty() { Target::Nothing } else { Target::Member { path, prefix } }
        }
        None => Target::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_typed_is_known() {
        for (before, expected) in [
            (".de", Target::Dot(".de")),
            (".connect http://", Target::Node("http://")),
            (".devices pump", Target::Id("pump")),
            ("device(\"pu", Target::Id("pu")),
            ("await device('", Target::Id("")),
            ("x + devices(\"a", Target::Id("a")),
            ("device(\"d1\").", Target::OfDevice("")),
            ("device(\"d1\").sta", Target::OfDevice("sta")),
            ("device(\"d1\").state.", Target::Field { device: "d1", above: vec![], prefix: "" }),
            ("device('d1').state.motor.sp", Target::Field { device: "d1", above: vec!["motor"], prefix: "sp" }),
            ("cou", Target::Member { path: vec![], prefix: "cou" }),
            ("f(console.l", Target::Member { path: vec!["console"], prefix: "l" }),
            ("a.b.", Target::Member { path: vec!["a", "b"], prefix: "" }),
            ("", Target::Nothing),
            ("f().x", Target::Nothing),
            ("1 + ", Target::Nothing),
        ] {
            assert_eq!(target(before), expected, "{before}");
        }
    }
}
