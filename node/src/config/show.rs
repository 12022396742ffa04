//! The effective configuration as text: TOML that can be read back, each value with its source, or JSON. Pure.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::{
    Loaded,
    keys::{Key, SECTIONS, keys},
    source::Source,
    value::Value,
};

/// The configuration as TOML, with a comment after each value that names its source.
pub(crate) fn toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let lines: Vec<_> = section.keys.iter().map(|key| (line_of(loaded, key), origin(loaded, key))).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let _ = writeln!(text, "{}[{}]", if text.is_empty() { "" } else { "\n" }, section.path);
        for (line, origin) in lines {
            let _ = writeln!(text, "{line:width$}  # {origin}");
        }
    }
    text
}

fn line_of(loaded: &Loaded, key: &Key) -> String {
    format!("{} = {}", key.name(), key.rule.show(&(key.get)(&loaded.config)))
}

fn origin(loaded: &Loaded, key: &Key) -> String {
    match (loaded.origin(key.path), key.derived) {
        (Source::Default, Some(words)) => format!("default: {words}"),
        (source, _) => source.to_string(),
    }
}

/// `{"mqtt.bind": {"value": ["127.0.0.1:1883"], "source": {"kind": "default", "at": "default"}}, …}`; sizes are bytes.
pub(crate) fn json(loaded: &Loaded) -> Json {
    let entry = |key: &Key| {
        let value = match (key.get)(&loaded.config) {
            Value::Number(number) => json!(number),
            Value::Boolean(on) => json!(on),
            Value::Text(text) => json!(text),
            Value::Binds(binds) => json!(binds),
        };
        (key.path.to_owned(), json!({ "value": value, "source": loaded.origin(key.path).to_json() }))
    };
    Json::Object(keys().map(entry).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_back() {
        let awkward = "a \"b\"\\ c\n# 'd'".to_owned();
        let flags = vec![("data.dir", awkward.clone()), ("mqtt.bind", "127.0.0.1:1,[::1]:2".to_owned())];
        let empty = tempfile::NamedTempFile::new().unwrap();
        let loaded = super::super::load(Some(empty.path()), std::iter::empty(), &flags).unwrap();
        assert_eq!(loaded.config.data.dir.to_str(), Some(awkward.as_str()));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml(&loaded)).unwrap();
        let again = super::super::load(Some(file.path()), std::iter::empty(), &[]).unwrap();
        assert_eq!(again.config, loaded.config);
    }
}
