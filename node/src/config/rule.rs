//! What a key allows: its type, its bounds, and the words that say so. Pure.

use std::net::SocketAddr;

use tracing_subscriber::EnvFilter;

use super::{
    bind,
    value::{Raw, Value},
};

/// Most addresses of one listener.
const MOST_BINDS: usize = 16;
/// Longest text of a setting, in bytes.
const MOST_TEXT: usize = 1_024;
/// Units of a size, largest first, so that [`size`] finds the shortest spelling.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a key allows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// An integer from `.0` to `.1`.
    Count(u64, u64),
    /// A size from `.0` to `.1` bytes: an integer, or with a unit.
    Size(u64, u64),
    /// A time from `.0` to `.1` milliseconds.
    Millis(u64, u64),
    /// true or false.
    Switch,
    /// A path, relative to the working directory.
    Path,
    /// A path, or nothing.
    OptionalPath,
    /// Any text, also none.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words, separated by commas.
    Words(&'static [&'static str]),
    /// One address and port, or a list of them, which may be empty.
    Binds,
    /// Web origins, or `*` for any; which may be none.
    Origins,
    /// A log level, or levels by target.
    LogFilter,
    /// A text that a function accepts, and the words for what it accepts.
    Checked(&'static str, fn(&str) -> Result<(), String>),
    /// A text that is never shown.
    Secret,
}

/// Longest secret, in bytes: what MQTT's strings hold.
const MOST_SECRET_BYTES: usize = 65_535;

impl Rule {
    /// Checks `raw`. An error says what is wrong with it, in words that follow the value ("is not an integer").
    pub(crate) fn check(self, raw: &Raw) -> Result<Value, String> {
        match self {
            Self::Count(min, max) | Self::Millis(min, max) => within(integer(raw)?, min, max),
            Self::Size(min, max) => within(bytes(raw)?, min, max),
            Self::Switch => switch(raw).map(Value::Boolean),
            Self::Path => path(text(raw)?),
            Self::OptionalPath if text(raw)?.is_empty() => Ok(Value::Text(String::new())),
            Self::OptionalPath => path(text(raw)?),
            Self::Origins => origins(raw),
            Self::Text => plain(text(raw)?),
            Self::Choice(words) => choice(text(raw)?, words),
            Self::Words(words) => some_of(text(raw)?, words),
            Self::Binds => binds(raw),
            Self::LogFilter => log_filter(text(raw)?),
            Self::Checked(_, check) => text(raw).and_then(|text| check(text).map(|()| Value::Text(text.to_owned()))),
            Self::Secret => match text(raw)? {
                "" => Err("is empty".to_owned()),
                text if text.len() > MOST_SECRET_BYTES => Err("is too long".to_owned()),
                text => Ok(Value::Text(text.to_owned())),
            },
        }
    }

    /// Must its values not be repeated?
    pub(crate) fn is_secret(self) -> bool {
        matches!(self, Self::Secret)
    }

    /// What is allowed, as the end of an error and in the reference.
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Count(min, max) => format!("an integer from {min} to {max}"),
            Self::Size(min, max) => {
                format!("{} to {}, as bytes or with a unit: B, KiB, MiB, GiB, TiB", size(min), size(max))
            }
            Self::Millis(min, max) => format!("milliseconds, an integer from {min} to {max}"),
            Self::Switch => "true or false".to_owned(),
            Self::Path => "a path; a relative one starts at the working directory".to_owned(),
            Self::OptionalPath => "a path, a relative one starts at the working directory; empty: none".to_owned(),
            Self::Origins => {
                "origins such as https://example.org or http://localhost:3000, separated by commas; * for any; empty: none"
                    .to_owned()
            }
            Self::Text => format!("a text of at most {MOST_TEXT} bytes"),
            Self::Choice(words) => words.join(", "),
            Self::Words(words) => format!("one or several, separated by commas, of {}", words.join(", ")),
            Self::Binds => {
                format!(
                    "an address and a port, such as 127.0.0.1:1883 or [::1]:1883, or a list of at most {MOST_BINDS}; [] for none"
                )
            }
            Self::LogFilter => format!("{}, or levels by target: \"info,tidegate=debug\"", LEVELS.join(", ")),
            Self::Checked(words, _) => words.to_owned(),
            Self::Secret => format!("a text of 1 to {MOST_SECRET_BYTES} bytes"),
        }
    }

    /// A checked value in TOML's spelling, which [`Rule::check`] reads back.
    pub(crate) fn show(self, value: &Value) -> String {
        match (self, value) {
            (Self::Size(..), Value::Number(number)) => quote(&size(*number)),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Boolean(on)) => on.to_string(),
            (_, Value::Absent) => String::new(),
            (_, Value::Text(text)) => quote(text),
            (_, Value::Binds(binds)) => {
                format!("[{}]", binds.iter().map(|bind| quote(&bind.to_string())).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A size in its largest exact unit.
pub(crate) fn size(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(unit, factor)| *unit != "B" && bytes > 0 && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// "is a list": for a value whose type does not fit.
fn is_a(raw: &Raw) -> String {
    let name = match raw {
        Raw::Word(_) | Raw::Text(_) => "a string",
        Raw::Integer(_) => "an integer",
        Raw::Boolean(_) => "a boolean",
        Raw::List(_) => "a list",
        Raw::Other(name) => return format!("is a {name}"),
    };
    format!("is {name}")
}

fn within(number: i128, min: u64, max: u64) -> Result<Value, String> {
    match u64::try_from(number) {
        Ok(fits) if (min..=max).contains(&fits) => Ok(Value::Number(fits)),
        _ => Err("is out of range".to_owned()),
    }
}

fn integer(raw: &Raw) -> Result<i128, String> {
    match raw {
        Raw::Integer(number) => Ok(*number),
        Raw::Word(word) => word.trim().parse().map_err(|_| "is not an integer".to_owned()),
        other => Err(is_a(other)),
    }
}

fn bytes(raw: &Raw) -> Result<i128, String> {
    let text = match raw {
        Raw::Integer(number) => return Ok(*number),
        Raw::Word(text) | Raw::Text(text) => text.trim(),
        other => return Err(is_a(other)),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" => Some(1),
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
    };
    let number = number.parse::<u64>().map_err(|_| "is not a size".to_owned())?;
    Ok(i128::from(number) * i128::from(factor.ok_or("is not a size")?))
}

fn switch(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Boolean(on) => Ok(*on),
        Raw::Word(word) => word.trim().parse().map_err(|_| "is not a boolean".to_owned()),
        other => Err(is_a(other)),
    }
}

fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Word(text) | Raw::Text(text) => Ok(text),
        other => Err(is_a(other)),
    }
}

fn path(text: &str) -> Result<Value, String> {
    match text {
        "" => Err("is empty".to_owned()),
        text if text.contains('\0') => Err("contains a NUL".to_owned()),
        text => Ok(Value::Text(text.to_owned())),
    }
}

fn choice(text: &str, words: &[&str]) -> Result<Value, String> {
    if words.contains(&text) { Ok(Value::Text(text.to_owned())) } else { Err("is not known".to_owned()) }
}

fn plain(text: &str) -> Result<Value, String> {
    if text.len() > MOST_TEXT {
        return Err(format!("has {} bytes", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("contains {c:?}")),
        None => Ok(Value::Text(text.to_owned())),
    }
}

fn some_of(text: &str, words: &[&str]) -> Result<Value, String> {
    let given: Vec<_> = text.split(',').map(str::trim).collect();
    match given.iter().find(|word| !words.contains(word)) {
        Some(word) => Err(format!("holds {word:?}, which is not known")),
        None => Ok(Value::Text(given.join(","))),
    }
}

fn binds(raw: &Raw) -> Result<Value, String> {
    let addresses: Vec<SocketAddr> = match raw {
        Raw::Word(text) => text.split(',').map(|one| bind::parse(one.trim())).collect::<Result<_, _>>()?,
        Raw::Text(text) => vec![bind::parse(text)?],
        Raw::List(items) => items
            .iter()
            .map(|item| match item {
                Raw::Text(text) => bind::parse(text),
                other => Err(format!("holds something that {}", is_a(other))),
            })
            .collect::<Result<_, _>>()?,
        other => return Err(is_a(other)),
    };
    if addresses.len() > MOST_BINDS {
        return Err(format!("holds {} addresses", addresses.len()));
    }
    if let Some(twice) = bind::first_shared(&addresses) {
        return Err(format!("holds {twice} twice"));
    }
    Ok(Value::Binds(addresses))
}

/// Most web origins.
const MOST_ORIGINS: usize = 64;

/// An origin is a scheme, a host and perhaps a port (RFC 6454, section 6.2), in lower case as browsers send it.
fn origins(raw: &Raw) -> Result<Value, String> {
    let words: Vec<&str> = match raw {
        Raw::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
        other => text(other)?.split(',').map(str::trim).filter(|word| !word.is_empty()).collect(),
    };
    if words.len() > MOST_ORIGINS {
        return Err(format!("holds {} origins; the most are {MOST_ORIGINS}", words.len()));
    }
    for word in &words {
        let host = word.split_once("://").map_or("", |(_, host)| host);
        let is_origin = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', ',']) && host != "*";
        if *word != "*" && !is_origin {
            return Err(format!("holds {word:?}, which is no origin"));
        }
    }
    Ok(Value::Text(words.join(",").to_ascii_lowercase()))
}

/// `EnvFilter` takes a mistyped level for the name of a target and then logs nothing: hence the check of our own.
fn log_filter(text: &str) -> Result<Value, String> {
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let (target, level) = directive.rsplit_once('=').unwrap_or(("-", directive));
        if target.is_empty() || !LEVELS.contains(&level) {
            return Err(format!("holds {directive:?}, which is not a level"));
        }
    }
    let filter = directives.join(",");
    EnvFilter::try_new(&filter).map_err(|error| format!("is not a log filter ({error})"))?;
    Ok(Value::Text(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(rule: Rule, raw: &Raw, expected: &str) {
        assert_eq!(rule.check(raw).expect_err("refused"), expected, "{rule:?} {raw:?}");
    }

    #[track_caller]
    fn accepted(rule: Rule, raw: &Raw, expected: &Value) {
        assert_eq!(rule.check(raw).as_ref(), Ok(expected), "{rule:?} {raw:?}");
    }

    fn word(text: &str) -> Raw {
        Raw::Word(text.to_owned())
    }

    fn quoted(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn counts() {
        let rule = Rule::Count(1, 64);
        accepted(rule, &Raw::Integer(1), &Value::Number(1));
        accepted(rule, &word(" 64 "), &Value::Number(64));
        refused(rule, &Raw::Integer(0), "is out of range");
        refused(rule, &Raw::Integer(65), "is out of range");
        refused(rule, &Raw::Integer(-1), "is out of range");
        refused(rule, &Raw::Integer(1 << 100), "is out of range");
        refused(rule, &word("four"), "is not an integer");
        refused(rule, &word(""), "is not an integer");
        refused(rule, &quoted("4"), "is a string");
        refused(rule, &Raw::Boolean(true), "is a boolean");
        refused(rule, &Raw::List(vec![]), "is a list");
        refused(rule, &Raw::Other("float"), "is a float");
    }

    #[test]
    fn sizes() {
        let rule = Rule::Size(1, 4 << 30);
        for (text, bytes) in [("1", 1), ("64MiB", 64 << 20), ("4 GiB", 4 << 30), ("2kib", 2048), ("7B", 7)] {
            accepted(rule, &word(text), &Value::Number(bytes));
            accepted(rule, &quoted(text), &Value::Number(bytes));
        }
        refused(rule, &quoted("64MB"), "is not a size");
        refused(rule, &quoted("MiB"), "is not a size");
        refused(rule, &quoted("1.5GiB"), "is not a size");
        refused(rule, &quoted("-1"), "is not a size");
        refused(rule, &quoted("5GiB"), "is out of range");
        refused(rule, &quoted("16777216TiB"), "is out of range");
        refused(rule, &quoted("99999999999999999999"), "is not a size");
        for (bytes, text) in [(0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1KiB"), (3 << 29, "1536MiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn switches_paths_and_choices() {
        accepted(Rule::Switch, &word("true"), &Value::Boolean(true));
        refused(Rule::Switch, &word("yes"), "is not a boolean");
        refused(Rule::Switch, &quoted("true"), "is a string");
        refused(Rule::Path, &word(""), "is empty");
        refused(Rule::Path, &quoted("a\0b"), "contains a NUL");
        refused(Rule::Choice(&["json", "pretty"]), &word("JSON"), "is not known");
        accepted(Rule::OptionalPath, &quoted(""), &Value::Text(String::new()));
        accepted(Rule::Words(&["a", "b"]), &word("b, a"), &Value::Text("b,a".to_owned()));
        refused(Rule::Words(&["a", "b"]), &word("a,,b"), "holds \"\", which is not known");
        refused(Rule::Text, &quoted("a\nb"), "contains '\\n'");
    }

    #[test]
    fn addresses() {
        let one = Value::Binds(vec!["127.0.0.1:1883".parse().unwrap()]);
        accepted(Rule::Binds, &quoted("127.0.0.1:1883"), &one);
        accepted(Rule::Binds, &Raw::List(vec![quoted("127.0.0.1:1883")]), &one);
        let two = Value::Binds(vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        accepted(Rule::Binds, &word("127.0.0.1:1, [::1]:2"), &two);
        accepted(Rule::Binds, &Raw::List(vec![]), &Value::Binds(vec![]));
        refused(Rule::Binds, &Raw::List(vec![Raw::Integer(1883)]), "holds something that is an integer");
        refused(Rule::Binds, &word("127.0.0.1:1,127.0.0.1:1"), "holds 127.0.0.1:1 twice");
        refused(Rule::Binds, &Raw::Integer(1883), "is an integer");
        refused(Rule::Binds, &word(&vec!["127.0.0.1:0"; 17].join(",")), "holds 17 addresses");
    }

    #[test]
    fn web_origins_and_optional_paths() {
        let two = Value::Text("https://a.example,http://localhost:3000".to_owned());
        accepted(Rule::Origins, &word("https://A.example, http://localhost:3000"), &two);
        accepted(Rule::Origins, &Raw::List(vec![quoted("https://a.example"), quoted("http://localhost:3000")]), &two);
        accepted(Rule::Origins, &quoted("*"), &Value::Text("*".to_owned()));
        accepted(Rule::Origins, &quoted(""), &Value::Text(String::new()));
        refused(Rule::Origins, &quoted("a.example"), "holds \"a.example\", which is no origin");
        refused(Rule::Origins, &quoted("https://a.example/"), "holds \"https://a.example/\", which is no origin");
        refused(Rule::Origins, &Raw::Integer(1), "is an integer");
        accepted(Rule::OptionalPath, &quoted(""), &Value::Text(String::new()));
        accepted(Rule::OptionalPath, &quoted("ca.pem"), &Value::Text("ca.pem".to_owned()));
        refused(Rule::OptionalPath, &quoted("a\0b"), "contains a NUL");
    }

    #[test]
    fn log_filters() {
        for text in ["info", "off", "info,tidegate=debug", "warn,tidegate::mqtt=trace"] {
            accepted(Rule::LogFilter, &word(text), &Value::Text(text.to_owned()));
        }
        accepted(Rule::LogFilter, &word("warn, a=trace"), &Value::Text("warn,a=trace".to_owned()));
        refused(Rule::LogFilter, &word("inof"), "holds \"inof\", which is not a level");
        refused(Rule::LogFilter, &word("info,tidegate=loud"), "holds \"tidegate=loud\", which is not a level");
        refused(Rule::LogFilter, &word("=info"), "holds \"=info\", which is not a level");
        refused(Rule::LogFilter, &word(""), "holds \"\", which is not a level");
    }
}
