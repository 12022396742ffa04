//! The device that a path names. The router's own decoding leaves `%2F`, `%2B` and `%25` as they are and replaces what is no
//! UTF-8: a device would go by another id here than in a body or a topic.

use actix_web::{HttpRequest, http::StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tidegate_actors::ids::DeviceId;

use super::problem::Problem;

/// The id of `/devices/{id}` and `/devices/{id}/…`, decoded once (RFC 3986 section 2.1).
///
/// # Errors
/// The id is not percent-encoded UTF-8, or not a device id.
pub(crate) fn device(request: &HttpRequest) -> Result<DeviceId, Problem> {
    of_path(request.uri().path()).map_err(|detail| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-device-id", "No valid device id", detail).with("field", "id")
    })
}

/// A device id as a segment of a path: all but RFC 3986's unreserved characters percent-encoded.
pub(super) fn escape(id: &str) -> impl std::fmt::Display + '_ {
    const KEPT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(id, &KEPT)
}

fn of_path(path: &str) -> Result<DeviceId, String> {
    let id = decode(path.split('/').nth(2).unwrap_or_default())?;
    DeviceId::new(&id).map_err(|error| error.to_string())
}

fn decode(segment: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or("in a path, % stands before two hex digits; the character % itself is written %25")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("the device id in the path is not UTF-8 from its byte {} on", error.utf8_error().valid_up_to())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_the_path_that_names_it() {
        for id in ["d1", "50%", "a b", "%25", "Gerät", "a.b-c_d~e", "q?x=1", "{n}"] {
            assert_eq!(of_path(&format!("/devices/{}/commands", escape(id))).unwrap().as_str(), id);
        }
    }

    #[test]
    fn an_id_is_decoded_once_and_wholly() {
        for (path, id) in [
            ("/devices/d1", "d1"),
            ("/devices/d1/metrics", "d1"),
            ("/devices/50%25/metrics", "50%"),
            ("/devices/a%20b", "a b"),
            ("/devices/%2525", "%25"),
            ("/devices/Ger%C3%A4t", "Gerät"),
        ] {
            assert_eq!(of_path(path).unwrap().as_str(), id, "{path}");
        }
        for (path, words) in [
            ("/devices/a%2Fb", "'/' (at byte 1)"),
            ("/devices/a%2bb/metrics", "'+' (at byte 1)"),
            ("/devices/a%ffb", "not UTF-8 from its byte 1"),
            ("/devices/a%", "%25"),
            ("/devices/a%4", "%25"),
            ("/devices/a%+4", "%25"),
            ("/devices/", "empty"),
            ("/devices", "empty"),
        ] {
            let error = of_path(path).unwrap_err();
            assert!(error.contains(words), "{path}: {error}");
        }
    }
}
