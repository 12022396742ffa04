//! JavaScript values → JSON bytes, as `JSON.stringify` writes them, but natively: plain objects and arrays by a walk that runs no
//! script and remembers the key bytes of each shared shape; everything else (proxies, getters, `toJSON`, dates) by the engine.
//!
//! Unlike `JSON.stringify`, a lone surrogate becomes U+FFFD: what is kept must be readable by every JSON parser.

use std::{io::Write, rc::Rc};

use boa_engine::{
    Context, JsObject, JsString, JsValue, object::shape::Shape, property::PropertyKey, string::JsStrVariant,
    value::JsVariant,
};
use hashbrown::HashMap;
use tidegate_actors::limits;

use super::local::Local;

/// Shapes whose keys are remembered; more: all are forgotten and learnt anew.
const SHAPES: usize = 512;

/// Why a value has no JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonError {
    /// Deeper than [`limits::JSON_DEPTH`], or cyclic.
    Deep,
    /// Longer than [`limits::SCRIPT_VALUE_BYTES`].
    Long,
    /// It holds a `BigInt`.
    BigInt,
    /// A script ran in it (`toJSON`, a getter, a proxy) and threw; the host has the exception.
    Threw,
    /// The engine gave up in it.
    Engine(Box<str>),
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deep => write!(f, "cyclic, or nested deeper than {} (limit json_depth)", limits::JSON_DEPTH),
            Self::Long => {
                write!(f, "more than {} bytes of JSON (limit script_value_bytes)", limits::SCRIPT_VALUE_BYTES)
            }
            Self::BigInt => f.write_str("a BigInt has no JSON"),
            Self::Threw => f.write_str("a script in the value threw"),
            Self::Engine(message) => f.write_str(message),
        }
    }
}

/// A key of a shape, and its JSON with the colon.
struct ShapeKey {
    key: PropertyKey,
    json: Box<[u8]>,
    /// `deviceId` and `ts`, which the kept state leaves out at its top.
    leads: bool,
}

/// The key bytes of the shared shapes that were seen. A remembered shape is held, so that its address stays its own.
#[derive(Default)]
pub(super) struct Shapes(HashMap<usize, (Shape, Rc<[ShapeKey]>)>);

/// Writes a value's JSON. `Ok(false)`: it has none (undefined, a function, a symbol) and nothing was written.
///
/// # Errors
/// [`JsonError`]; what was written then is of no use.
pub(super) fn write(
    value: &JsValue,
    local: &Local,
    context: &mut Context,
    out: &mut Vec<u8>,
) -> Result<bool, JsonError> {
    Walk { local, strip: false, start: out.len() }.value(value, 0, context, out)
}

/// As [`write()`], without the top's `deviceId` and `ts`: what is kept of a metric.
///
/// # Errors
/// As [`write()`].
pub(super) fn write_kept(
    value: &JsValue,
    local: &Local,
    context: &mut Context,
    out: &mut Vec<u8>,
) -> Result<bool, JsonError> {
    Walk { local, strip: true, start: out.len() }.value(value, 0, context, out)
}

struct Walk<'a> {
    local: &'a Local,
    strip: bool,
    start: usize,
}

impl Walk<'_> {
    fn value(
        &self,
        value: &JsValue,
        depth: usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, JsonError> {
        match value.variant() {
            JsVariant::Undefined | JsVariant::Symbol(_) => return Ok(false),
            JsVariant::Null => out.extend_from_slice(b"null"),
            JsVariant::Boolean(true) => out.extend_from_slice(b"true"),
            JsVariant::Boolean(false) => out.extend_from_slice(b"false"),
            JsVariant::Integer32(number) => write_integer(number.into(), out),
            JsVariant::Float64(number) => write_number(number, out),
            JsVariant::BigInt(_) => return Err(JsonError::BigInt),
            JsVariant::String(string) => {
                self.room(string.len(), out)?;
                write_string(&string, out);
            }
            JsVariant::Object(object) => return self.object(&object, value, depth, context, out),
        }
        self.room(0, out)?;
        Ok(true)
    }

    fn object(
        &self,
        object: &JsObject,
        value: &JsValue,
        depth: usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, JsonError> {
        if depth >= limits::JSON_DEPTH {
            return Err(JsonError::Deep);
        }
        let back = out.len();
        let written = if object.is_array() {
            self.array(object, depth, context, out)?
        } else if is_plain(object, context) {
            self.plain(object, depth, context, out)?
        } else {
            None
        };
        if let Some(written) = written {
            return Ok(written);
        }
        out.truncate(back);
        self.by_engine(value, depth, context, out)
    }

    /// The fields of a plain object. `None`: it needs the engine (an accessor, a `toJSON`).
    fn plain(
        &self,
        object: &JsObject,
        depth: usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<Option<bool>, JsonError> {
        let strip = self.strip && depth == 0;
        out.push(b'{');
        let mut first = true;
        let mut indices: Vec<u32> = object.borrow().properties().index_property_keys().collect();
        indices.sort_unstable();
        for index in indices {
            let key = PropertyKey::from(index);
            let Some(Some(value)) = data(object, &key) else { return Ok(None) };
            let (back, was_first) = (out.len(), first);
            separate(&mut first, out);
            out.push(b'"');
            write_integer(index.into(), out);
            out.extend_from_slice(b"\":");
            if !self.value(&value, depth + 1, context, out)? {
                out.truncate(back);
                first = was_first;
            }
        }
        let Some(keys) = self.keys(object) else { return Ok(None) };
        for ShapeKey { key, json, leads } in keys.iter() {
            if strip && *leads {
                continue;
            }
            // A key that has gone since: a script in an earlier field removed it.
            let Some(found) = data(object, key) else { continue };
            let Some(value) = found else { return Ok(None) };
            let (back, was_first) = (out.len(), first);
            separate(&mut first, out);
            out.extend_from_slice(json);
            if !self.value(&value, depth + 1, context, out)? {
                out.truncate(back);
                first = was_first;
            }
        }
        out.push(b'}');
        self.room(0, out)?;
        Ok(Some(true))
    }

    /// The elements of a dense array. `None`: it needs the engine (holes, accessors, a `toJSON` of its own).
    fn array(
        &self,
        array: &JsObject,
        depth: usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<Option<bool>, JsonError> {
        let length = {
            let object = array.borrow();
            let prototype = context.intrinsics().constructors().array().prototype();
            let length = object.properties().get(&PropertyKey::from(boa_engine::js_string!("length")));
            // An array of this realm: holes alone look further, and they go to the engine.
            let length = length.filter(|_| object.prototype() == Some(prototype));
            length.and_then(|length| length.value().and_then(JsValue::as_number))
        };
        // What else it has is not written, unless it is a `toJSON`.
        let Some(length) = length.filter(|_| self.keys(array).is_some()) else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an array's length is below 2^32")]
        let length = length as u32;
        out.push(b'[');
        for index in self.numbers(array, length, out)?..length {
            let Some(Some(value)) = data(array, &PropertyKey::from(index)) else { return Ok(None) };
            if index > 0 {
                out.push(b',');
            }
            if !self.value(&value, depth + 1, context, out)? {
                out.extend_from_slice(b"null");
            }
        }
        out.push(b']');
        self.room(0, out)?;
        Ok(Some(true))
    }

    /// The numbers that a dense array of `length` elements begins with, in one borrow: no script can run between them.
    /// Says how many there were.
    fn numbers(&self, array: &JsObject, length: u32, out: &mut Vec<u8>) -> Result<u32, JsonError> {
        let object = array.borrow();
        let properties = object.properties();
        // The keys of a sparse array come in any order.
        if !properties.index_property_keys().eq(0..length) {
            return Ok(0);
        }
        let mut written = 0;
        for property in properties.index_property_values() {
            let Some(number) = property.value().and_then(JsValue::as_number) else { break };
            if written > 0 {
                out.push(b',');
            }
            write_number(number, out);
            self.room(0, out)?;
            written += 1;
        }
        Ok(written)
    }

    fn by_engine(
        &self,
        value: &JsValue,
        depth: usize,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> Result<bool, JsonError> {
        let Some(text) = self.local.stringify(value, context)? else { return Ok(false) };
        self.room(text.len(), out)?;
        let text = without_lone_surrogates(text.to_std_string_lossy());
        let text = if self.strip && depth == 0 { strip_leads(text) } else { text };
        if depth + nesting(text.as_bytes()) > limits::JSON_DEPTH {
            return Err(JsonError::Deep);
        }
        out.extend_from_slice(text.as_bytes());
        self.room(0, out)?;
        Ok(true)
    }

    /// The keys of an object's shape with their JSON. `None`: an own `toJSON` wants the engine.
    fn keys(&self, object: &JsObject) -> Option<Rc<[ShapeKey]>> {
        let shape = object.borrow().shape().clone();
        if shape.is_unique() {
            return learn(object, &shape);
        }
        let address = shape.to_addr_usize();
        if let Some(known) = self.local.shapes(|shapes| shapes.0.get(&address).map(|(_, keys)| Rc::clone(keys))) {
            return Some(known);
        }
        let keys = learn(object, &shape)?;
        self.local.shapes(|shapes| {
            if shapes.0.len() >= SHAPES {
                shapes.0.clear();
            }
            shapes.0.insert(address, (shape, Rc::clone(&keys)));
        });
        Some(keys)
    }

    fn room(&self, more: usize, out: &[u8]) -> Result<(), JsonError> {
        if out.len() - self.start + more > limits::SCRIPT_VALUE_BYTES { Err(JsonError::Long) } else { Ok(()) }
    }
}

/// An ordinary object with this realm's `Object.prototype`, or none: no script can run when its data properties are read.
fn is_plain(object: &JsObject, context: &Context) -> bool {
    object.is_ordinary()
        && object
            .borrow()
            .prototype()
            .is_none_or(|prototype| prototype == context.intrinsics().constructors().object().prototype())
}

/// An own data property. Outer `None`: no such property; inner `None`: an accessor.
fn data(object: &JsObject, key: &PropertyKey) -> Option<Option<JsValue>> {
    object.borrow().properties().get(key).map(|property| property.value().cloned())
}

/// The enumerable string keys of a shape. `None` when there is an own `toJSON`.
fn learn(object: &JsObject, shape: &Shape) -> Option<Rc<[ShapeKey]>> {
    let object = object.borrow();
    let mut keys = Vec::new();
    for key in shape.keys() {
        let PropertyKey::String(name) = &key else { continue };
        if *name == "toJSON" {
            return None;
        }
        if object.properties().get(&key).and_then(|property| property.enumerable()) != Some(true) {
            continue;
        }
        let mut json = Vec::new();
        write_string(name, &mut json);
        json.push(b':');
        let leads = *name == "deviceId" || *name == "ts";
        keys.push(ShapeKey { key, json: json.into(), leads });
    }
    Some(keys.into())
}

fn separate(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail; serde_json's integers do without the formatting machinery.
    let _ = serde_json::to_writer(out, &number);
}

fn write_number(number: f64, out: &mut Vec<u8>) {
    /// Integers below are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    /// From here on JavaScript writes integers with an exponent.
    const EXPONENT: f64 = 1e21;
    let is_integer = number.trunc() == number;
    if !number.is_finite() {
        out.extend_from_slice(b"null");
    } else if is_integer && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
        write_integer(number as i64, out);
    } else if is_integer && number.abs() < EXPONENT {
        let _ = write!(out, "{number}");
    } else {
        // The shortest digits that read back as the same double, as JavaScript writes them.
        let _ = serde_json::to_writer(out, &number);
    }
}

fn write_string(string: &JsString, out: &mut Vec<u8>) {
    out.push(b'"');
    match string.as_str().variant() {
        JsStrVariant::Latin1(bytes) => {
            for &byte in bytes {
                if byte < 0x80 { write_ascii(byte, out) } else { write_char(char::from(byte), out) }
            }
        }
        JsStrVariant::Utf16(units) => {
            for char in char::decode_utf16(units.iter().copied()) {
                match char.unwrap_or(char::REPLACEMENT_CHARACTER) {
                    char if char.is_ascii() => write_ascii(char as u8, out),
                    char => write_char(char, out),
                }
            }
        }
    }
    out.push(b'"');
}

fn write_ascii(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0..0x20 => {
            let _ = write!(out, "\\u{byte:04x}");
        }
        _ => out.push(byte),
    }
}

fn write_char(char: char, out: &mut Vec<u8>) {
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The kept fields of a metric that the engine wrote. What does not read as an object stays as it is: the caller refuses it.
fn strip_leads(json: String) -> String {
    let Ok(mut fields) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&json) else { return json };
    if fields.remove("deviceId").is_none() & fields.remove("ts").is_none() {
        return json;
    }
    serde_json::to_string(&fields).unwrap_or(json)
}

/// `JSON.stringify` writes lone surrogates, and only them, as `\udXXX`: make each U+FFFD.
fn without_lone_surrogates(mut json: String) -> String {
    let mut from = 0;
    while let Some(at) = json[from..].find('\\').map(|at| from + at) {
        // An escape is ASCII, and never the last character.
        let lone = json.as_bytes().get(at + 1..at + 3) == Some(b"ud");
        if lone && json.is_char_boundary(at + 6) {
            json.replace_range(at..at + 6, "\u{fffd}");
        }
        from = at + if lone { '\u{fffd}'.len_utf8() } else { 2 };
    }
    json
}

/// How deep the brackets of a well-formed JSON text go.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
