//! Values that were written as text, as the values they were: what ThingsBoard gives with `useStrictDataTypes`.

use serde_json::value::RawValue;

/// The JSON of a value that stands there as text: a number, a boolean, an object or an array if it is written as one in JSON,
/// else the text. `007` and `1,5` are texts: they are no numbers in JSON.
pub(super) fn of_text(text: &str) -> String {
    let trimmed = text.trim();
    let looks_typed = matches!(trimmed.as_bytes().first(), Some(b'{' | b'[' | b'-' | b'0'..=b'9'))
        || matches!(trimmed, "true" | "false");
    if looks_typed && serde_json::from_str::<&RawValue>(trimmed).is_ok() {
        return trimmed.replace(['\n', '\r'], " ");
    }
    quoted(text)
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An object under way.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn put(&mut self, name: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
    }

    pub(super) fn json(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}
