//! The shapes that hold one or many readings: an object, an array, ThingsBoard's telemetry, NDJSON.

use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_actors::{clock::Millis, ledger::RejectReason, limits};

use super::{IngestError, Object, parse_object};
use crate::ingest::object::Fields;

/// One reading of a payload: its device id and time as sent, and its fields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) device_id: Option<String>,
    pub(crate) ts: Option<Millis>,
    pub(crate) fields: Bytes,
}

/// Calls `found` for each reading of a payload that is an object or an array of objects, in order.
///
/// With `telemetry`, an object `{"ts":…,"values":{…}}` counts as ThingsBoard's: the fields are those of `values`.
/// `share` is the payload again if its bytes may be shared instead of copied.
///
/// # Errors
/// Only what makes the whole payload unusable: it is neither an object nor an array. What is wrong with one element is
/// given to `found`. A payload that is one object is one element.
pub(crate) fn each_reading(
    payload: &[u8],
    share: Option<&Bytes>,
    telemetry: bool,
    mut found: impl FnMut(Result<Parsed, IngestError>),
) -> Result<(), IngestError> {
    if payload.trim_ascii_start().first() != Some(&b'[') {
        found(one(payload, 0..payload.len(), share, telemetry));
        return Ok(());
    }
    for element in elements(payload)? {
        found(one(payload, element, share, telemetry));
    }
    Ok(())
}

/// The lines of an NDJSON body that are not blank, each with its place.
pub(crate) fn split_lines(body: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    ends.map(move |end| std::mem::replace(&mut start, end + 1)..end)
        .filter(|line| !body[line.clone()].trim_ascii().is_empty())
}

fn one(payload: &[u8], place: Range<usize>, share: Option<&Bytes>, telemetry: bool) -> Result<Parsed, IngestError> {
    let text = &payload[place.clone()];
    let Object { device_id, ts, values, has_more, fields } = parse_object(text).map_err(|e| e.shifted(place.start))?;
    let fields = match values {
        Some(values) if telemetry && !has_more => Fields::AsSent(values),
        _ => fields,
    };
    let shared = share.map(|bytes| bytes.slice(place));
    let device_id = device_id.map(std::borrow::Cow::into_owned);
    Ok(Parsed { device_id, ts, fields: fields.into_bytes(text, shared.as_ref()) })
}

/// The places of an array's elements.
fn elements(payload: &[u8]) -> Result<Vec<Range<usize>>, IngestError> {
    struct Elements<'a>(&'a str);
    impl<'a> Visitor<'a> for Elements<'a> {
        type Value = Vec<Range<usize>>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut places = Vec::new();
            while let Some(raw) = array.next_element::<&'a RawValue>()? {
                let start = raw.get().as_ptr() as usize - self.0.as_ptr() as usize;
                places.push(start..start + raw.get().len());
            }
            Ok(places)
        }
    }
    let bad = |detail: String, offset| IngestError::new(RejectReason::BadJson, detail).at(offset);
    let text = std::str::from_utf8(payload)
        .map_err(|e| bad(format!("the payload is not UTF-8 (byte {})", e.valid_up_to()), e.valid_up_to()))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let places = json.deserialize_seq(Elements(text)).and_then(|places| json.end().map(|()| places));
    let places = places.map_err(|error| super::object::syntax_error(text, &error))?;
    if places.len() > limits::READINGS_PER_REQUEST {
        let detail = format!("{} readings at once, at most {} are allowed", places.len(), limits::READINGS_PER_REQUEST);
        let error = IngestError::new(RejectReason::TooLarge, detail);
        return Err(error.limit("readings_per_request", limits::READINGS_PER_REQUEST));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(payload: &str, telemetry: bool) -> Vec<Result<(Option<Millis>, String), String>> {
        let mut found = Vec::new();
        let shared = Bytes::copy_from_slice(payload.as_bytes());
        let whole = each_reading(payload.as_bytes(), Some(&shared), telemetry, |reading| {
            found.push(reading.map(|r| (r.ts, String::from_utf8(r.fields.to_vec()).unwrap())).map_err(|e| e.detail));
        });
        if let Err(error) = whole {
            found.push(Err(error.detail));
        }
        found
    }

    #[test]
    fn thingsboards_three_shapes() {
        let ok = |ts, fields: &str| Ok((ts, fields.to_owned()));
        assert_eq!(readings(r#"{"k":1}"#, true), [ok(None, r#"{"k":1}"#)]);
        assert_eq!(readings(r#"{"ts":7,"values":{"k":1}}"#, true), [ok(Some(7), r#"{"k":1}"#)]);
        assert_eq!(
            readings(r#"[{"k":1},{"ts":8,"values":{"k":2}}]"#, true),
            [ok(None, r#"{"k":1}"#), ok(Some(8), r#"{"k":2}"#)]
        );
        // Outside telemetry, `values` is a field like any other.
        assert_eq!(readings(r#"{"ts":7,"values":{"k":1}}"#, false), [ok(Some(7), r#"{"values":{"k":1}}"#)]);
    }

    #[test]
    fn one_bad_element_spoils_no_other() {
        let found = readings(r#"[{"k":1}, 5, {"ts":"x"}]"#, false);
        assert_eq!(found.len(), 3);
        assert!(found[0].is_ok());
        assert!(found[1].as_ref().unwrap_err().contains("this is a number"), "{found:?}");
        assert!(found[2].as_ref().unwrap_err().contains("ts must be"), "{found:?}");
        assert!(readings("[{]", false)[0].as_ref().unwrap_err().contains("not JSON"));
    }

    #[test]
    fn lines_keep_their_places() {
        let body = b"{\"a\":1}\n\n  \r\n{\"b\":2}";
        let lines: Vec<_> = split_lines(body).collect();
        assert_eq!(lines, [0..7, 13..20]);
    }
}
