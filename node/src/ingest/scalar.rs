//! A payload that is one value, such as `21.5` or `ON`: brokers of the field often carry one a topic.

use serde::de::IgnoredAny;
use tidegate_actors::{ledger::RejectReason, limits};

use super::{IngestError, Parsed, check_depth};

/// The reading `{field: value}`. The value is JSON if it reads as JSON, and else a text.
///
/// # Errors
/// It is empty, not UTF-8, too large or too deep, or the field is one that means something else.
pub(crate) fn scalar(field: &str, payload: &[u8]) -> Result<Parsed, IngestError> {
    check_size(payload)?;
    if matches!(field, "ts" | "deviceId" | "") {
        let detail = format!("a value cannot be the field {field:?}: it has a meaning of its own");
        return Err(IngestError::new(RejectReason::BadShape, detail));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        let detail = format!("the payload is not UTF-8 (byte {})", error.valid_up_to());
        IngestError::new(RejectReason::BadJson, detail).at(error.valid_up_to())
    })?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(IngestError::new(RejectReason::BadShape, "the payload is empty: there is no value in it"));
    }
    check_depth(payload)?;
    let mut fields = Vec::with_capacity(field.len() + payload.len() + 8);
    fields.push(b'{');
    // A str always serializes.
    let _ = serde_json::to_writer(&mut fields, field);
    fields.push(b':');
    if serde_json::from_str::<IgnoredAny>(trimmed).is_ok() {
        fields.extend_from_slice(trimmed.as_bytes());
    } else {
        let _ = serde_json::to_writer(&mut fields, text);
    }
    fields.push(b'}');
    // A reading is the value and the field around it: without this, one at the limit could be stored and never be read back.
    check_size(&fields)?;
    check_depth(&fields).map_err(|error| IngestError { offset: None, ..error })?;
    Ok(Parsed { device_id: None, ts: None, fields: fields.into() })
}

fn check_size(reading: &[u8]) -> Result<(), IngestError> {
    if reading.len() <= limits::READING_BYTES {
        return Ok(());
    }
    let detail = format!("the reading has {} bytes, at most {} are allowed", reading.len(), limits::READING_BYTES);
    Err(IngestError::new(RejectReason::TooLarge, detail).limit("reading_bytes", limits::READING_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_fields() {
        for (payload, expected) in [
            ("21.5", r#"{"t":21.5}"#),
            (" 21.5\n", r#"{"t":21.5}"#),
            ("-1e3", r#"{"t":-1e3}"#),
            ("true", r#"{"t":true}"#),
            ("null", r#"{"t":null}"#),
            ("\"on\"", r#"{"t":"on"}"#),
            ("ON", r#"{"t":"ON"}"#),
            ("21,5", r#"{"t":"21,5"}"#),
            ("NaN", r#"{"t":"NaN"}"#),
            ("a \"b\"\u{1}", r#"{"t":"a \"b\"\u0001"}"#),
            ("[1,2]", r#"{"t":[1,2]}"#),
            ("007", r#"{"t":"007"}"#),
        ] {
            let parsed = scalar("t", payload.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&parsed.fields), expected, "{payload}");
        }
        assert_eq!(&scalar("a\"b", b"1").unwrap().fields[..], br#"{"a\"b":1}"#);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(limits::JSON_DEPTH + 1);
        let large = "1".repeat(limits::READING_BYTES + 1);
        // Within the limits, but for the field around it.
        let nested = format!("{}{}", "[".repeat(limits::JSON_DEPTH), "]".repeat(limits::JSON_DEPTH));
        let filling = "1".repeat(limits::READING_BYTES);
        for (field, payload, reason) in [
            ("t", &b""[..], RejectReason::BadShape),
            ("t", b"  ", RejectReason::BadShape),
            ("t", b"\xff", RejectReason::BadJson),
            ("ts", b"1", RejectReason::BadShape),
            ("", b"1", RejectReason::BadShape),
            ("t", deep.as_bytes(), RejectReason::TooDeep),
            ("t", large.as_bytes(), RejectReason::TooLarge),
            ("t", nested.as_bytes(), RejectReason::TooDeep),
            ("t", filling.as_bytes(), RejectReason::TooLarge),
        ] {
            assert_eq!(scalar(field, payload).unwrap_err().reason, reason);
        }
    }
}
