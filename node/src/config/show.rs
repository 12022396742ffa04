//! The effective configuration as text: TOML that can be read back, each value with its source, or JSON. Pure.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use super::{
    Loaded, bridges,
    keys::{Key, SECTIONS, keys},
    source::Source,
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
    text + &bridges::toml(&loaded.config.bridges, &loaded.places)
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

/// `{"mqtt.bind": {"value": ["127.0.0.1:1883"], "source": {"kind": "default", "at": "default"}}, …}`; sizes are bytes. Lists of tables are lists.
pub(crate) fn json(loaded: &Loaded) -> Json {
    let entry = |key: &Key| {
        let value = (key.get)(&loaded.config).to_json();
        (key.path.to_owned(), json!({ "value": value, "source": loaded.origin(key.path).to_json() }))
    };
    let mut all = keys().map(entry).collect::<Map<_, _>>();
    if !loaded.config.bridges.is_empty() {
        all.insert("bridge".to_owned(), bridges::json(&loaded.config.bridges, &loaded.places));
    }
    Json::Object(all)
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
