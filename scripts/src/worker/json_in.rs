//! JSON bytes → JavaScript values, natively: objects share shapes, so that handlers' inline caches hit, and keys are interned in a
//! bounded cache. Replaces Boa's `from_json` (a shape an object) and `JSON.parse` (interns strings for ever).
//!
//! Numbers are doubles, as everywhere in JavaScript: integers beyond 2^53 are rounded; a number beyond the doubles (`1e400`)
//! and an escaped lone surrogate (`"\ud800"`) are errors.

use std::fmt;

use boa_engine::{
    Context, JsObject, JsString, JsValue,
    builtins::object::OrdinaryObject,
    object::builtins::JsArray,
    property::{PropertyDescriptor, PropertyKey},
};
use hashbrown::HashMap;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use tidegate_actors::limits;

/// Keys that are kept interned; more: built anew each time.
const KEYS: usize = 4_096;
/// Longest key that is kept interned, in bytes.
const KEY_BYTES: usize = 64;

/// The interned keys of the objects that this worker has built.
#[derive(Default)]
pub(crate) struct Keys(HashMap<Box<str>, PropertyKey>);

impl Keys {
    fn get(&mut self, key: &str) -> PropertyKey {
        if let Some(known) = self.0.get(key) {
            return known.clone();
        }
        let made = PropertyKey::from(JsString::from(key));
        if self.0.len() < KEYS && key.len() <= KEY_BYTES {
            self.0.insert(key.into(), made.clone());
        }
        made
    }
}

/// Parses one JSON text of any kind.
///
/// # Errors
/// What serde_json says, with line and column; too deep: names the limit.
pub(crate) fn parse(json: &[u8], keys: &mut Keys, context: &mut Context) -> Result<JsValue, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_slice(json);
    let value = Value { keys, context, depth: 0 }.deserialize(&mut input)?;
    input.end()?;
    Ok(value)
}

/// Parses a reading's object with `lead` as its first properties: the metric that a handler gets.
///
/// # Errors
/// As [`parse`], and when the text is no object.
pub(super) fn metric(
    json: &[u8],
    lead: [(&PropertyKey, JsValue); 2],
    keys: &mut Keys,
    context: &mut Context,
) -> Result<JsValue, serde_json::Error> {
    let object = new_object(context);
    for (key, value) in lead {
        insert(&object, key.clone(), value);
    }
    let mut input = serde_json::Deserializer::from_slice(json);
    let value = Fields { object, keys, context, depth: 0 }.deserialize(&mut input)?;
    input.end()?;
    Ok(value)
}

/// An empty plain object at the start of the shared shapes.
pub(super) fn new_object(context: &Context) -> JsObject {
    let prototype = context.intrinsics().constructors().object().prototype();
    JsObject::new(context.root_shape(), prototype, OrdinaryObject).upcast()
}

fn insert(object: &JsObject, key: PropertyKey, value: JsValue) {
    let property = PropertyDescriptor::builder().value(value).writable(true).enumerable(true).configurable(true);
    object.insert_property(key, property);
}

/// A JavaScript number: the small integers in the engine's integer form.
pub(super) fn number(value: f64) -> JsValue {
    #[expect(clippy::cast_possible_truncation, reason = "compared with what it came from")]
    let small = value as i32;
    if f64::from(small).to_bits() == value.to_bits() { JsValue::new(small) } else { JsValue::new(value) }
}

/// Any JSON value.
struct Value<'a> {
    keys: &'a mut Keys,
    context: &'a mut Context,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = JsValue;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<JsValue, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = JsValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsValue, E> {
        Ok(JsValue::new(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "documented: JavaScript's numbers are doubles")]
    fn visit_i64<E>(self, value: i64) -> Result<JsValue, E> {
        Ok(i32::try_from(value).map_or_else(|_| number(value as f64), JsValue::new))
    }

    #[expect(clippy::cast_precision_loss, reason = "documented: JavaScript's numbers are doubles")]
    fn visit_u64<E>(self, value: u64) -> Result<JsValue, E> {
        Ok(i32::try_from(value).map_or_else(|_| number(value as f64), JsValue::new))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsValue, E> {
        Ok(number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<JsValue, E> {
        Ok(JsString::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<JsValue, E> {
        Ok(JsValue::null())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<JsValue, A::Error> {
        let depth = deeper(self.depth)?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Value { keys: self.keys, context: self.context, depth })? {
            values.push(value);
        }
        Ok(JsArray::from_iter(values, self.context).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<JsValue, A::Error> {
        let object = new_object(self.context);
        Fields { object, keys: self.keys, context: self.context, depth: self.depth }.visit_map(fields)
    }
}

/// The fields of an object, added to one that may have some already.
struct Fields<'a> {
    object: JsObject,
    keys: &'a mut Keys,
    context: &'a mut Context,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = JsValue;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<JsValue, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = JsValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<JsValue, A::Error> {
        let depth = deeper(self.depth)?;
        while let Some(key) = fields.next_key_seed(Key(self.keys))? {
            let value = fields.next_value_seed(Value { keys: self.keys, context: self.context, depth })?;
            insert(&self.object, key, value);
        }
        Ok(self.object.into())
    }
}

/// An object's key, interned.
struct Key<'a>(&'a mut Keys);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = PropertyKey;

    fn deserialize<D: de::Deserializer<'de>>(self, input: D) -> Result<PropertyKey, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = PropertyKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<PropertyKey, E> {
        Ok(self.0.get(key))
    }
}

fn deeper<E: de::Error>(depth: usize) -> Result<usize, E> {
    if depth < limits::JSON_DEPTH {
        Ok(depth + 1)
    } else {
        Err(E::custom(format_args!("nested deeper than {} (limit json_depth)", limits::JSON_DEPTH)))
    }
}
