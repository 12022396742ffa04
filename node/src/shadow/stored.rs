//! A shadow as it is kept: key `d` and the device's id, value a numbered bincode form. Append only.

use bytes::Bytes;
use serde_json::{Map, Value};
use tidegate_actors::ids::DeviceId;

use super::document::{Document, Section};
use crate::kept;

/// The first byte of a shadow's key.
pub(crate) const PREFIX: u8 = b'd';

/// What a decoder may claim, in bytes: a shadow's JSON is bounded, and so are the times beside it.
const DECODE_BYTES: usize = 1024 * 1024;

#[derive(bincode::Encode, bincode::BorrowDecode)]
enum Stored<'a> {
    V1(ShadowV1<'a>),
}

#[derive(bincode::Encode, bincode::BorrowDecode)]
struct ShadowV1<'a> {
    version: u64,
    /// Seconds since 1970.
    changed: i64,
    deleted: bool,
    /// JSON: values and times of `desired`, then of `reported`.
    sections: [&'a [u8]; 4],
}

/// The key of a device's shadow.
pub(crate) fn key(device: &DeviceId) -> Bytes {
    let mut key = vec![PREFIX];
    key.extend_from_slice(device.as_str().as_bytes());
    key.into()
}

/// The device that a key names.
pub(crate) fn device_of(key: &[u8]) -> Option<DeviceId> {
    DeviceId::new(std::str::from_utf8(key.strip_prefix(&[PREFIX])?).ok()?).ok()
}

/// The stored form of a shadow.
pub(crate) fn encode(document: &Document) -> Bytes {
    let Document { version, changed, deleted, desired, reported } = document;
    let text = |fields: &Map<String, Value>| serde_json::to_vec(fields).unwrap_or_default();
    let texts = [&desired.values, &desired.times, &reported.values, &reported.times].map(text);
    let sections = texts.each_ref().map(Vec::as_slice);
    kept::encode(&Stored::V1(ShadowV1 { version: *version, changed: *changed, deleted: *deleted, sections }))
}

/// Reads a stored shadow.
///
/// # Errors
/// It is none; in words.
pub(crate) fn decode(bytes: &[u8]) -> Result<Document, String> {
    let Stored::V1(ShadowV1 { version, changed, deleted, sections }) = kept::decode::<_, DECODE_BYTES>(bytes)?;
    let read = |text: &[u8]| serde_json::from_slice::<Map<String, Value>>(text).map_err(|error| error.to_string());
    let [values, times, reported, reported_times] = sections;
    Ok(Document {
        version,
        changed,
        deleted,
        desired: Section { values: read(values)?, times: read(times)? },
        reported: Section { values: read(reported)?, times: read(reported_times)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::request::Update;

    #[test]
    fn a_shadow_comes_back_as_it_was() {
        let update = br#"{"state":{"desired":{"a":{"b":[1,2.5,"x"]}},"reported":{"c":true}}}"#;
        let document = Document::default().updated(&Update::parse(update).unwrap(), 1_795_530_511).unwrap();
        assert_eq!(decode(&encode(&document)).unwrap(), document);
        let deleted = document.deleted(1_795_530_600);
        assert_eq!(decode(&encode(&deleted)).unwrap(), deleted);
        let device = DeviceId::new("Gerät 5").unwrap();
        assert_eq!(device_of(&key(&device)), Some(device));
    }

    /// The bytes of the first version: what a node has written must be read for ever.
    #[test]
    fn the_first_version_is_read() {
        let bytes = b"\x00\x07\xfb\x1e\x02\x00\x07{\"a\":1}\x17{\"a\":{\"timestamp\":271}}\x02{}\x02{}";
        let document = decode(bytes).unwrap();
        let update = Update::parse(br#"{"state":{"desired":{"a":1}},"version":6}"#).unwrap();
        let before = Document { version: 6, ..Document::default() };
        assert_eq!(document, before.updated(&update, 271).unwrap());
        assert_eq!(&encode(&document)[..], bytes);
    }

    #[test]
    fn damage_is_told() {
        let document = Document { version: 1, ..Document::default() };
        let bytes = encode(&document);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode(&longer).is_err());
        assert!(decode(&[9, 0, 0]).is_err(), "a version to come");
    }
}
