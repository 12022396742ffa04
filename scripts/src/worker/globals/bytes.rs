//! Text ↔ bytes in the encodings of Node.js's `Buffer`.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsString, JsValue,
    object::builtins::{JsArrayBuffer, JsUint8Array},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const PADDED: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT.with_encode_padding(false));

/// Text and encoding → a `Uint8Array`.
pub(super) fn encode(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text = args.get_or_undefined(0).as_string().unwrap_or_default();
    let bytes = match name(args, 1).as_str() {
        "utf8" => text.to_std_string_lossy().into_bytes(),
        "utf16le" => text.to_vec().into_iter().flat_map(u16::to_le_bytes).collect(),
        "hex" => from_hex(&text.to_vec()),
        "base64" | "base64url" => from_base64(&text.to_std_string_lossy()),
        // Of each unit the lower byte.
        _ => text.to_vec().into_iter().map(|unit| unit.to_le_bytes()[0]).collect(),
    };
    array(&bytes, context)
}

/// Bytes as a `Uint8Array`.
pub(in super::super) fn array(bytes: &[u8], context: &mut Context) -> JsResult<JsValue> {
    let buffer = JsArrayBuffer::new(bytes.len(), context)?;
    if let Some(mut data) = buffer.data_mut() {
        data.copy_from_slice(bytes);
    }
    Ok(JsUint8Array::from_array_buffer(buffer, context)?.into())
}

/// The bytes of a `Uint8Array`.
pub(in super::super) fn of(value: &JsValue, context: &mut Context) -> JsResult<Vec<u8>> {
    let array = value.as_object().ok_or_else(|| JsNativeError::typ().with_message("a Uint8Array was expected"))?;
    let array = JsUint8Array::from_object(array)?;
    let (start, length) = (array.byte_offset(context)?, array.byte_length(context)?);
    let buffer = array.buffer(context)?.as_object().map(JsArrayBuffer::from_object).transpose()?;
    Ok(buffer.and_then(|buffer| buffer.data()?.get(start..start + length).map(<[u8]>::to_vec)).unwrap_or_default())
}

/// `Uint8Array`, encoding, and whether it must be well-formed → the text; undefined: it is not.
pub(super) fn decode(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let bytes = of(args.get_or_undefined(0), context)?;
    let text = match name(args, 1).as_str() {
        "utf8" if args.get_or_undefined(2).to_boolean() => match String::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => return Ok(JsValue::undefined()),
        },
        "utf8" => JsString::from(&*String::from_utf8_lossy(&bytes)),
        "utf16le" => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            JsString::from(&*units)
        }
        "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        "base64" => PADDED.encode(&bytes).into(),
        "base64url" => URL.encode(&bytes).into(),
        "ascii" => bytes.iter().map(|byte| char::from(byte & 0x7f)).collect::<String>().into(),
        _ => bytes.into_iter().map(char::from).collect::<String>().into(),
    };
    Ok(text.into())
}

fn name(args: &[JsValue], at: usize) -> String {
    args.get_or_undefined(at).as_string().map(|name| name.to_std_string_lossy()).unwrap_or_default()
}

/// Pairs of digits, up to the first that is none.
fn from_hex(units: &[u16]) -> Vec<u8> {
    let digit = |unit: u16| char::from_u32(unit.into()).and_then(|digit| digit.to_digit(16));
    let byte = |pair: &[u16]| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok();
    units.chunks_exact(2).map_while(byte).collect()
}

/// Either alphabet; what is no digit of it is skipped, and padding ends it, as Node.js reads it.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        byte if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' => Some(byte),
        _ => None,
    };
    let mut digits: Vec<u8> = text.bytes().take_while(|byte| *byte != b'=').filter_map(digit).collect();
    // A digit alone is no byte.
    if digits.len() % 4 == 1 {
        digits.pop();
    }
    PADDED.decode(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_and_hex_are_read_leniently() {
        for (text, bytes) in [
            ("aGk=", "hi"),
            ("aGk", "hi"),
            ("a-G_k", "\u{0}"),
            ("a G\nk=", "hi"),
            ("aGk=aGk=", "hi"),
            ("a", ""),
            ("", ""),
        ] {
            let read = from_base64(text);
            assert!(text == "a-G_k" && read.len() == 3 || read == bytes.as_bytes(), "{text}: {read:?}");
        }
        let hex = |text: &str| from_hex(&text.encode_utf16().collect::<Vec<_>>());
        assert_eq!((hex("00ffA"), hex("0gff"), hex("")), (vec![0, 255], vec![], vec![]));
    }
}
