//! One JSON object of a reading: syntax, depth and size are checked, `deviceId` and `ts` are taken out, the rest stays as sent.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_actors::{clock::Millis, ledger::RejectReason, limits};

use super::IngestError;

/// The latest time that a device may claim: the end of the year 9999.
pub(crate) const LATEST: Millis = 253_402_300_799_999;

/// A parsed object. Borrows from the payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    /// The value of `deviceId`, if there was one.
    pub(crate) device_id: Option<Cow<'a, str>>,
    /// The value of `ts`, if there was one, in milliseconds since the epoch.
    pub(crate) ts: Option<Millis>,
    /// Where ThingsBoard's `values` object is, if there was one.
    pub(crate) values: Option<Range<usize>>,
    /// Whether there are other fields than `deviceId`, `ts` and `values`.
    pub(crate) has_more: bool,
    /// The object without `deviceId` and `ts`.
    pub(crate) fields: Fields,
}

/// The remaining fields: a part of the payload, or rebuilt because something was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    AsSent(Range<usize>),
    Rebuilt(Vec<u8>),
}

impl Fields {
    /// The fields as bytes of their own; `share` is the payload, if it can be shared.
    pub(crate) fn into_bytes(self, payload: &[u8], share: Option<&Bytes>) -> Bytes {
        match (self, share) {
            (Self::Rebuilt(bytes), _) => Bytes::from(bytes),
            (Self::AsSent(range), Some(shared)) => shared.slice(range),
            (Self::AsSent(range), None) => Bytes::copy_from_slice(&payload[range]),
        }
    }
}

/// Parses one object.
///
/// # Errors
/// [`IngestError`] with the offset in `payload`.
pub(crate) fn parse_object(payload: &[u8]) -> Result<Object<'_>, IngestError> {
    if payload.len() > limits::READING_BYTES {
        let detail = format!("the reading has {} bytes, at most {} are allowed", payload.len(), limits::READING_BYTES);
        return Err(IngestError::new(RejectReason::TooLarge, detail).limit("reading_bytes", limits::READING_BYTES));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        let detail = format!("the payload is not UTF-8 (byte {})", error.valid_up_to());
        IngestError::new(RejectReason::BadJson, detail).at(error.valid_up_to())
    })?;
    check_depth(payload)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json.deserialize_map(ObjectVisitor { text }).and_then(|object| json.end().map(|()| object));
    match parsed {
        Ok(object) => object,
        Err(error) => Err(syntax_error(text, &error)),
    }
}

pub(super) fn syntax_error(text: &str, error: &serde_json::Error) -> IngestError {
    let trimmed = text.trim_start();
    if trimmed.is_empty() {
        return IngestError::new(RejectReason::BadJson, "the payload is empty; a reading is a JSON object").at(0);
    }
    if trimmed.starts_with('{') {
        return not_json(text, error);
    }
    // It may be wrong as an object only. Serde's words for that would quote all of it, so they are not used.
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => {
            let found = match trimmed.as_bytes()[0] {
                b'[' => "an array",
                b'"' => "a string",
                b't' | b'f' => "a boolean",
                b'n' => "null",
                _ => "a number",
            };
            let detail = format!("a reading is a JSON object like {{\"temperature\":21.5}}, this is {found}");
            IngestError::new(RejectReason::BadShape, detail).at(text.len() - trimmed.len())
        }
        Err(error) => not_json(text, &error),
    }
}

fn not_json(text: &str, error: &serde_json::Error) -> IngestError {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    let (line, column) = (error.line(), error.column());
    let detail = format!("not JSON: {what} at line {line}, column {column}");
    IngestError::new(RejectReason::BadJson, detail).at(offset_of(text, line, column))
}

/// The byte offset of a line and column (from 1) of serde_json, which counts the byte at fault as read.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let line_start =
        if line <= 1 { 0 } else { memchr::memchr_iter(b'\n', text.as_bytes()).nth(line - 2).map_or(0, |n| n + 1) };
    (line_start + column.saturating_sub(1)).min(text.len())
}

/// Nesting is checked before anything recursive sees the text.
pub(crate) fn check_depth(payload: &[u8]) -> Result<(), IngestError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (offset, byte) in payload.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    let detail = format!("nested deeper than {} levels", limits::JSON_DEPTH);
                    let error = IngestError::new(RejectReason::TooDeep, detail).at(offset);
                    return Err(error.limit("json_depth", limits::JSON_DEPTH));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

struct ObjectVisitor<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for ObjectVisitor<'a> {
    // The inner result is ours: a serde error could not carry an offset and a reason.
    type Value = Result<Object<'a>, IngestError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let text = self.text;
        let start = text.find('{').ok_or_else(|| A::Error::custom("expected an object"))?;
        let mut object =
            Object { device_id: None, ts: None, values: None, has_more: false, fields: Fields::AsSent(start..start) };
        let mut rebuilt: Option<Vec<u8>> = None;
        let mut problem = None;
        let mut previous_end = start + 1;
        while let Some(key) = map.next_key::<Key>()? {
            let raw = map.next_value::<&'a RawValue>()?.get();
            let value_start = raw.as_ptr() as usize - text.as_ptr() as usize;
            let end = value_start + raw.len();
            let taken = match key {
                Key::DeviceId => device_id(raw, value_start).map(|id| object.device_id = Some(id)),
                Key::Ts => time(raw, value_start).map(|ts| object.ts = Some(ts)),
                Key::Values | Key::Other => Ok(()),
            };
            if let Err(error) = taken {
                problem.get_or_insert(error);
            }
            match key {
                Key::Values if raw.starts_with('{') => object.values = Some(value_start..end),
                Key::Values | Key::Other => object.has_more = true,
                Key::DeviceId | Key::Ts => {}
            }
            if matches!(key, Key::DeviceId | Key::Ts) {
                rebuilt.get_or_insert_with(|| text.as_bytes()[start..previous_end].to_vec());
            } else if let Some(out) = &mut rebuilt {
                let entry = text[previous_end..end].trim_start_matches([',', ' ', '\t', '\n', '\r']);
                if out.last() != Some(&b'{') {
                    out.push(b',');
                }
                out.extend_from_slice(entry.as_bytes());
            }
            previous_end = end;
        }
        object.fields = match rebuilt {
            Some(mut out) => {
                out.push(b'}');
                Fields::Rebuilt(out)
            }
            None => Fields::AsSent(start..text.trim_end().len()),
        };
        Ok(problem.map_or(Ok(object), Err))
    }
}

fn device_id(raw: &str, offset: usize) -> Result<Cow<'_, str>, IngestError> {
    // Only a string with an escape needs a copy.
    let plain = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).filter(|text| !text.contains('\\'));
    if let Some(text) = plain {
        return Ok(Cow::Borrowed(text));
    }
    serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|_| {
        let detail = format!("deviceId must be a string, this is {}", excerpt(raw));
        IngestError::new(RejectReason::BadDeviceId, detail).field("deviceId").at(offset)
    })
}

fn time(raw: &str, offset: usize) -> Result<Millis, IngestError> {
    let millis = raw.parse::<Millis>().ok().or_else(|| {
        let float = raw.parse::<f64>().ok().filter(|float| float.is_finite() && float.abs() < 9e15)?;
        #[expect(clippy::cast_possible_truncation, reason = "bounded in the line above")]
        Some(float as Millis)
    });
    millis.filter(|millis| (0..=LATEST).contains(millis)).ok_or_else(|| {
        let detail = format!(
            "ts must be a number of milliseconds since 1970-01-01 UTC, at most {LATEST} (year 9999), this is {}",
            excerpt(raw)
        );
        IngestError::new(RejectReason::BadTime, detail).field("ts").at(offset)
    })
}

/// The start of a value, short enough for a message.
fn excerpt(raw: &str) -> String {
    let end = raw.char_indices().nth(40).map_or(raw.len(), |(index, _)| index);
    if end < raw.len() { format!("{}…", &raw[..end]) } else { raw.to_owned() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    DeviceId,
    Ts,
    Values,
    Other,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "deviceId" => Key::DeviceId,
                    "ts" => Key::Ts,
                    "values" => Key::Values,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(payload: &str) -> (Option<String>, Option<Millis>, String) {
        let object = parse_object(payload.as_bytes()).unwrap();
        let bytes = object.fields.into_bytes(payload.as_bytes(), None);
        (object.device_id.map(Cow::into_owned), object.ts, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn the_envelope_is_taken_out_and_the_rest_stays_as_sent() {
        for (payload, id, ts, rest) in [
            (r#"{"t":21.50}"#, None, None, r#"{"t":21.50}"#),
            (r#" {"t": [1, 2]} "#, None, None, r#"{"t": [1, 2]}"#),
            (r#"{"deviceId":"d1","t":1}"#, Some("d1"), None, r#"{"t":1}"#),
            (r#"{"t":1,"deviceId":"d1"}"#, Some("d1"), None, r#"{"t":1}"#),
            (
                r#"{"a":1, "deviceId":"d1" , "b":{"ts":3},"ts":5, "c":","}"#,
                Some("d1"),
                Some(5),
                r#"{"a":1,"b":{"ts":3},"c":","}"#,
            ),
            (r#"{"deviceId":"d\u0031","ts":1e3}"#, Some("d1"), Some(1000), "{}"),
            ("{}", None, None, "{}"),
        ] {
            assert_eq!(fields(payload), (id.map(str::to_owned), ts, rest.to_owned()), "{payload}");
        }
    }

    #[test]
    fn errors_say_what_where_and_which_limit() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::READING_BYTES));
        let long = format!("\"{}\" x", "x".repeat(5_000));
        for (payload, reason, offset, words) in [
            ("", RejectReason::BadJson, Some(0), "empty"),
            ("{\"t\":}", RejectReason::BadJson, Some(5), "line 1, column 6"),
            ("{\"t\":1", RejectReason::BadJson, Some(5), "EOF"),
            ("{\"t\":1} x", RejectReason::BadJson, Some(8), "trailing"),
            ("{\"t\":NaN}", RejectReason::BadJson, Some(5), "not JSON"),
            ("[1]", RejectReason::BadShape, Some(0), "an array"),
            (" 21.5", RejectReason::BadShape, Some(1), "a number"),
            ("{\"deviceId\":5}", RejectReason::BadDeviceId, Some(12), "must be a string, this is 5"),
            ("{\"ts\":\"now\"}", RejectReason::BadTime, Some(6), "milliseconds"),
            ("{\"ts\":-1}", RejectReason::BadTime, Some(6), "year 9999"),
            (&deep, RejectReason::TooDeep, Some(5 + 63), "64 levels"),
            (&large, RejectReason::TooLarge, None, "at most 262144"),
            (&long, RejectReason::BadJson, Some(5_003), "not JSON: trailing characters"),
        ] {
            let error = parse_object(payload.as_bytes()).unwrap_err();
            assert_eq!((error.reason, error.offset), (reason, offset), "{payload:.60}: {error}");
            assert!(error.detail.contains(words) && error.detail.len() < 200, "{payload:.60}: {error}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}").unwrap_err().offset, Some(6));
    }
}
