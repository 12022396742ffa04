//! The configuration file: TOML text → values as typed, each with its line and column. Knows the keys' names, not their rules.

use std::{
    borrow::Cow,
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Given, keys,
    rows::{self, Content, RawCell, RawRow},
    source::{Problem, Source, printable},
    suggest,
    value::Raw,
};

/// The file that is read where no `--config` is given, if it is there.
pub(crate) const DEFAULT_PATH: &str = "tidegate.toml";
/// Largest configuration file, in bytes; larger: refused.
const MOST_BYTES: u64 = 1024 * 1024;
/// Longest value that an error repeats, in characters.
const SHOWN_CHARS: usize = 60;

/// The text of the file to use, with its path: `--config`, or `tidegate.toml` if present, or none.
pub(crate) fn open(config: Option<&Path>) -> Result<Option<(PathBuf, String)>, Problem> {
    let path = config.unwrap_or(Path::new(DEFAULT_PATH));
    let refuse = |message: String| Problem::new(Source::WholeFile(path.to_owned()), message);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && config.is_none() => return Ok(None),
        Err(error) => return Err(refuse(format!("cannot be read: {}", reason(&error)))),
        Ok(_) if bytes.len() as u64 > MOST_BYTES => {
            return Err(refuse(format!("is larger than {MOST_BYTES} bytes, the limit of a configuration file")));
        }
        Ok(_) => {}
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) => Err(refuse(format!("is not UTF-8 text (at byte {})", error.utf8_error().valid_up_to()))),
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What a file says.
pub(crate) struct Said {
    /// The values of keys, sorted by name.
    pub(crate) values: Vec<Given>,
    /// The lists of tables by name, as they stand.
    pub(crate) lists: Vec<(String, Vec<RawRow>)>,
}

/// What `text` says; what is wrong goes to `problems`.
pub(crate) fn read(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Said {
    let mut walk = Walk { path, text, found: Said { values: Vec::new(), lists: Vec::new() }, problems };
    match DeTable::parse(text) {
        Ok(table) => walk.table("", table.get_ref()),
        Err(error) => {
            let message = format!("is not TOML: {}", printable(error.message()));
            walk.problem(error.span().unwrap_or_default(), None, message);
        }
    }
    walk.found
}

/// A walk through the tables of one file.
struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    found: Said,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let inside = format!("{path}.");
            if let Some(key) = keys::find(&path) {
                let span = value.span();
                // The span of a table is only its head.
                let words =
                    if value.get_ref().is_table() { "{…}" } else { self.text.get(span.clone()).unwrap_or_default() };
                let shown = shorten(words);
                self.found.values.push(Given { key, raw: raw(value.get_ref()), shown, source: self.at(&span) });
            } else if section.is_empty() && rows::LISTS.contains(&path.as_str()) {
                self.list(path, name.span(), value);
            } else if !keys::keys().any(|key| key.path.starts_with(&inside)) {
                self.unknown(&path, name.span(), value);
            } else if let DeValue::Table(table) = value.get_ref() {
                self.table(&path, table);
            } else {
                let names: Vec<_> = keys::keys().filter_map(|key| key.path.strip_prefix(&inside)).collect();
                let message = format!("{path} is a section, not a value; allowed: [{path}] with {}", names.join(", "));
                self.problem(name.span(), Some(&path), message);
            }
        }
    }

    /// A list of tables that there may be.
    fn list(&mut self, path: String, name: Range<usize>, value: &Spanned<DeValue<'_>>) {
        match self.rows(value) {
            Some(rows) => self.found.lists.push((path, rows)),
            None => {
                let message = format!("{path} is a list of tables: begin each with [[{path}]]");
                self.problem(name, Some(&path), message);
            }
        }
    }

    /// The tables of an array that holds nothing else.
    fn rows(&self, value: &Spanned<DeValue<'_>>) -> Option<Vec<RawRow>> {
        let DeValue::Array(items) = value.get_ref() else { return None };
        let row = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::Table(table) => {
                let mut cells: Vec<_> = table.iter().map(|(name, value)| self.cell(name, value)).collect();
                cells.sort_by(|one, other| one.at.cmp(&other.at));
                Some(RawRow { at: self.at(&item.span()), cells })
            }
            _ => None,
        };
        items.iter().map(row).collect()
    }

    fn cell(&self, name: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> RawCell {
        let content = match self.rows(value).filter(|rows| !rows.is_empty()) {
            Some(rows) => Content::Rows(rows),
            None => {
                let span = value.span();
                let words =
                    if value.get_ref().is_table() { "{…}" } else { self.text.get(span.clone()).unwrap_or_default() };
                Content::Value { raw: raw(value.get_ref()), shown: shorten(words), at: self.at(&span) }
            }
        };
        RawCell { name: name.get_ref().to_string(), at: self.at(&name.span()), content }
    }

    /// An unknown section is reported once, not once a key.
    fn unknown(&mut self, path: &str, span: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let (what, nearest) = if self.rows(value).is_some_and(|rows| !rows.is_empty()) {
            let near = suggest::nearest(path, rows::LISTS.iter().copied());
            (format!("unknown section [[{}]]", printable(path)), near.map(|name| format!("[[{name}]]")))
        } else if matches!(value.get_ref(), DeValue::Table(_)) {
            let sections = keys::SECTIONS.iter().map(|section| section.path);
            (
                format!("unknown section [{}]", printable(path)),
                suggest::nearest(path, sections).map(|name| format!("[{name}]")),
            )
        } else {
            let known = keys::keys().map(|key| key.path);
            (format!("unknown key {}", printable(path)), suggest::nearest(path, known).map(str::to_owned))
        };
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        self.problem(span, Some(path), what + &hint);
    }

    fn problem(&mut self, span: Range<usize>, key: Option<&str>, message: String) {
        self.problems.push(Problem { source: self.at(&span), key: key.map(str::to_owned), message });
    }

    fn at(&self, span: &Range<usize>) -> Source {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Source::File {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].trim_start_matches('\u{feff}').chars().count() + 1,
        }
    }
}

/// `text` on one line and not longer than an error can bear.
pub(crate) fn shorten(text: &str) -> String {
    let line = printable(text);
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        // What i128 does not hold is out of every range, whichever end it is beyond.
        DeValue::Integer(number) => {
            Raw::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX))
        }
        DeValue::Boolean(on) => Raw::Boolean(*on),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        other => Raw::Other(other.type_str()),
    }
}

/// One TOML value, for tests that read back what was shown.
#[cfg(test)]
pub(crate) fn parse_value(text: &str) -> Result<Raw, toml::de::Error> {
    DeValue::parse(text).map(|value| raw(value.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let mut problems = Vec::new();
        read(Path::new("t.toml"), text, &mut problems);
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn names() {
        check("", &[]);
        check(
            "[mqtt]\nbind = \"127.0.0.1:1\"\nlimits.inflight = 3\n[mqtt.limits]\n",
            &["t.toml:4:7: is not TOML: duplicate key"],
        );
        check("[mqtt]\nbind = \"127.0.0.1:1\"\nlimits.inflight = 3", &[]);
        check("[mqtt]\n\n  bnd = 1", &["t.toml:3:3: unknown key mqtt.bnd; did you mean mqtt.bind?"]);
        check("[mqt]\nbind = 1\nx = 2", &["t.toml:1:2: unknown section [mqt]; did you mean [mqtt]?"]);
        check("[mqtt.limit]", &["t.toml:1:7: unknown section [mqtt.limit]; did you mean [mqtt.limits]?"]);
        check("inflight = 1", &["t.toml:1:1: unknown key inflight; did you mean mqtt.limits.inflight?"]);
        check("[tls]", &["t.toml:1:2: unknown section [tls]"]);
        check("[tls]\ncert = 1", &["t.toml:1:2: unknown section [tls]"]);
        check("\"a\\nb\" = 1", &["t.toml:1:1: unknown key a\\nb"]);
        check(
            "security = true\nlog = 3",
            &[
                "t.toml:2:1: log is a section, not a value; allowed: [log] with format, level",
                "t.toml:1:1: security is a section, not a value; allowed: [security] with insecure_allow_anonymous",
            ],
        );
        check("zz = 1\naa = 2", &["t.toml:2:1: unknown key aa", "t.toml:1:1: unknown key zz"]);
        check("data = { dir = \"ü\", zz = 1 }", &["t.toml:1:21: unknown key data.zz"]);
        check("\u{feff}zz = 1", &["t.toml:1:1: unknown key zz"]);
        check("# ü\r\n\"ü\" = { x = 1 }\r\n", &["t.toml:2:1: unknown section [ü]"]);
    }

    #[test]
    fn values_come_with_their_place_and_their_words() {
        let mut problems = Vec::new();
        let text = "[mqtt]\nbind = [\n  \"127.0.0.1:1\",\n]\n[runtime]\n\"loops\" =  0x1F\n[data]\ndir = \"ü\" # why\n";
        let given = read(Path::new("t.toml"), text, &mut problems).values;
        assert_eq!(problems, []);
        let found: Vec<_> =
            given.iter().map(|given| format!("{} {} {}", given.source, given.key.path, given.shown)).collect();
        assert_eq!(
            found,
            [
                "t.toml:8:7 data.dir \"ü\"",
                "t.toml:2:8 mqtt.bind [\\n  \"127.0.0.1:1\",\\n]",
                "t.toml:6:12 runtime.loops 0x1F",
            ]
        );
        assert_eq!(given[2].raw, Raw::Integer(31));
    }
}
