//! What holds whatever a payload is. The replay of the fuzzers' corpus and the fuzz target `payload` check the same.
//!
//! The fuzz target includes this file, so it uses nothing but the parsers beside it.

use bytes::Bytes;
use serde_json::{Map, Value};
use tidegate_actors::limits;

use super::{
    IngestError, LATEST, Parsed, check_depth,
    object::{Object, parse_object},
    scalar::scalar,
    shape::{each_reading, split_lines},
};

/// A refusal is for a log line and a reason string, however long the text is that was wrong.
const DETAIL: usize = 600;

/// Reads a payload in every way in which the node reads payloads. The first byte of `data` says whether it came as
/// ThingsBoard's telemetry.
#[allow(unreachable_pub, reason = "the fuzz crate exports it")]
pub fn check_payload(data: &[u8]) {
    let Some((&first, payload)) = data.split_first() else { return };
    let telemetry = first & 1 == 1;
    let read = readings(payload, None, telemetry);
    assert_eq!(read, readings(payload, Some(&Bytes::copy_from_slice(payload)), telemetry), "shared bytes are others");
    let (found, whole) = &read;
    let oracle = serde_json::from_slice::<Value>(payload).ok();
    let elements = match &oracle {
        Some(Value::Array(elements)) => elements.iter().map(Some).collect(),
        Some(one) => vec![Some(one)],
        None => vec![None; found.len()],
    };
    match whole {
        Ok(()) => {
            assert_eq!(found.len(), elements.len(), "elements are missing");
            found
                .iter()
                .zip(elements)
                .for_each(|(reading, element)| check_reading(reading, element, telemetry, payload));
        }
        Err(error) => {
            assert!(found.is_empty(), "an unusable payload has readings");
            check_refusal(error, payload);
        }
    }
    check_scalar(payload);
    check_lines(payload);
}

/// What was found in the payload, in order, and whether it is usable at all.
type Found = (Vec<Result<Parsed, IngestError>>, Result<(), IngestError>);

fn readings(payload: &[u8], share: Option<&Bytes>, telemetry: bool) -> Found {
    let mut found = Vec::new();
    let whole = each_reading(payload, share, telemetry, |reading| found.push(reading));
    (found, whole)
}

/// `element` is what another parser made of the same text, if it takes it: serde_json's own values have a range for numbers and
/// know no halves of surrogate pairs, which readings may have.
fn check_reading(reading: &Result<Parsed, IngestError>, element: Option<&Value>, telemetry: bool, payload: &[u8]) {
    let reading = match reading {
        Ok(reading) => reading,
        Err(error) => return check_refusal(error, payload),
    };
    let fields = &reading.fields[..];
    assert!(fields.len() <= limits::READING_BYTES && check_depth(fields) == Ok(()), "{fields:?}");
    assert!(reading.ts.is_none_or(|ts| (0..=LATEST).contains(&ts)), "{reading:?}");
    let again = parse_object(fields).unwrap_or_else(|error| panic!("{error}: {fields:?}"));
    if let Some(element) = element {
        let Value::Object(mut map) = element.clone() else { panic!("{element} is no reading") };
        let id = map.remove("deviceId");
        assert_eq!(id.as_ref().map(|id| id.as_str()), reading.device_id.as_deref().map(Some), "{reading:?}");
        let ts = map.remove("ts");
        assert_eq!(ts.is_some(), reading.ts.is_some(), "{reading:?}");
        if let (Some(sent), Some(ts)) = (ts.and_then(|ts| ts.as_f64()), reading.ts) {
            assert!((sent - ts as f64).abs() < 1.0, "{sent} became {ts}");
        }
        check_fields(fields, &map, telemetry);
    }
    if !telemetry {
        // What was taken out is out, and nothing else is.
        let Object { device_id, ts, fields: same, .. } = again;
        assert_eq!((device_id, ts), (None, None), "{fields:?}");
        assert_eq!(same.into_bytes(fields, None), fields);
    }
}

/// The fields are those that were sent, or those of ThingsBoard's `values` where there is nothing else.
fn check_fields(fields: &[u8], sent: &Map<String, Value>, telemetry: bool) {
    let kept: Map<String, Value> = serde_json::from_slice(fields).unwrap_or_else(|error| panic!("{error}: {fields:?}"));
    let values = sent.get("values").and_then(Value::as_object).filter(|_| telemetry && sent.len() == 1);
    assert!(kept == *sent || values == Some(&kept), "{sent:?} became {kept:?}");
}

fn check_refusal(error: &IngestError, payload: &[u8]) {
    assert!(error.detail.len() <= DETAIL, "{} bytes: {error}", error.detail.len());
    assert!(error.offset.is_none_or(|offset| offset <= payload.len()), "{error:?}");
    assert_eq!(error.line_and_column(payload).is_some(), error.offset.is_some(), "{error:?}");
}

fn check_scalar(payload: &[u8]) {
    match scalar("a\"field", payload) {
        Ok(reading) => {
            let object = parse_object(&reading.fields).unwrap_or_else(|error| panic!("{error}: {reading:?}"));
            assert!(object.device_id.is_none() && object.ts.is_none() && object.has_more, "{reading:?}");
            if let Ok(kept) = serde_json::from_slice::<Map<String, Value>>(&reading.fields) {
                let text = std::str::from_utf8(payload).expect("a value is text");
                let expected = match serde_json::from_str::<Value>(text.trim()) {
                    Ok(value) => value,
                    Err(_) => Value::from(text),
                };
                assert_eq!((kept.len(), kept.get("a\"field")), (1, Some(&expected)), "{reading:?}");
            }
        }
        Err(error) => check_refusal(&error, payload),
    }
}

fn check_lines(payload: &[u8]) {
    let mut end = 0;
    for line in split_lines(payload) {
        assert!(line.start >= end && line.end <= payload.len());
        assert!(payload[end..line.start].trim_ascii().is_empty(), "a line is left out");
        assert!(!payload[line.clone()].contains(&b'\n'));
        end = line.end;
    }
    assert!(payload[end..].trim_ascii().is_empty(), "a line is left out");
}
