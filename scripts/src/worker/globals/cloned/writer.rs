//! A value → bytes.

use boa_engine::{
    Context, JsError, JsObject, JsString, JsValue,
    builtins::typed_array::TypedArrayKind,
    js_string,
    object::builtins::{JsArray, JsArrayBuffer, JsDataView, JsDate, JsMap, JsRegExp, JsSet, JsTypedArray},
    property::PropertyKey,
    string::JsStrVariant,
    value::JsVariant,
};
use hashbrown::HashMap;
use tidegate_actors::limits;

use super::{super::kinds, tag};
use crate::worker::{fault, local::Local};

/// Why a value does not cross.
pub(in super::super::super) enum Refused {
    /// This one in it does not.
    Value(JsValue),
    /// It is too large or too deep.
    Limit(String),
    /// A getter in it threw.
    Threw(JsError),
}

type Written = Result<(), Refused>;

/// The bytes of a value. `whole`: errors keep the properties of their own, as one that a task has thrown does.
///
/// # Errors
/// [`Refused`].
pub(in super::super::super) fn pack(value: &JsValue, whole: bool, context: &mut Context) -> Result<Vec<u8>, Refused> {
    let mut writer = Writer { out: Vec::new(), seen: HashMap::new(), whole, context };
    writer.value(value, 0)?;
    writer.bounded()?;
    Ok(writer.out)
}

/// The bytes of an error that no script has made.
pub(in super::super::super) fn pack_error(message: &str, code: &str, stack: &str) -> Vec<u8> {
    let mut out = vec![tag::ERROR];
    for text in ["Error", message, stack] {
        write_text(&mut out, &JsString::from(text));
    }
    out.push(0);
    let properties: u8 = if code.is_empty() { 0 } else { 1 };
    out.push(properties);
    if !code.is_empty() {
        write_text(&mut out, &js_string!("code"));
        write_text(&mut out, &JsString::from(code));
    }
    out
}

fn write_number(out: &mut Vec<u8>, mut number: usize) {
    // LEB128.
    while number >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits")]
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    out.push(number as u8);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn write_text(out: &mut Vec<u8>, text: &JsString) {
    match text.as_str().variant() {
        JsStrVariant::Latin1(bytes) => {
            out.push(tag::TEXT);
            write_bytes(out, bytes);
        }
        JsStrVariant::Utf16(units) => {
            out.push(tag::WIDE);
            write_number(out, units.len());
            units.iter().for_each(|unit| out.extend_from_slice(&unit.to_le_bytes()));
        }
    }
}

struct Writer<'a> {
    out: Vec<u8>,
    /// Objects by the order in which they came.
    seen: HashMap<JsObject, usize>,
    whole: bool,
    context: &'a mut Context,
}

impl Writer<'_> {
    fn value(&mut self, value: &JsValue, depth: usize) -> Written {
        match value.variant() {
            JsVariant::Undefined => self.out.push(tag::UNDEFINED),
            JsVariant::Null => self.out.push(tag::NULL),
            JsVariant::Boolean(false) => self.out.push(tag::FALSE),
            JsVariant::Boolean(true) => self.out.push(tag::TRUE),
            JsVariant::Integer32(number) => self.number(number.into()),
            JsVariant::Float64(number) => self.number(number),
            JsVariant::String(text) => write_text(&mut self.out, &text),
            JsVariant::BigInt(number) => {
                self.out.push(tag::BIGINT);
                write_bytes(&mut self.out, number.to_string_radix(16).as_bytes());
            }
            JsVariant::Symbol(_) => return Err(Refused::Value(value.clone())),
            JsVariant::Object(object) => self.object(&object, depth)?,
        }
        self.bounded()
    }

    /// Is there room for more?
    fn bounded(&self) -> Written {
        let most = limits::SCRIPT_JOB_BYTES;
        if self.out.len() <= most {
            return Ok(());
        }
        Err(Refused::Limit(format!("a message has more than {most} bytes (limit script_job_bytes)")))
    }

    fn number(&mut self, number: f64) {
        self.out.push(tag::NUMBER);
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    fn object(&mut self, object: &JsObject, depth: usize) -> Written {
        if let Some(at) = self.seen.get(object) {
            self.out.push(tag::SEEN);
            write_number(&mut self.out, *at);
            return Ok(());
        }
        if depth >= limits::SCRIPT_CLONE_DEPTH {
            let most = limits::SCRIPT_CLONE_DEPTH;
            return Err(Refused::Limit(format!("a message is nested deeper than {most} (limit script_clone_depth)")));
        }
        self.seen.insert(object.clone(), self.seen.len());
        let refused = |_: JsError| Refused::Value(object.clone().into());
        match kinds::name_of(object, self.context) {
            "" => {
                self.out.push(tag::OBJECT);
                let keys = self.keys(object)?;
                self.fields(object, &keys, depth)
            }
            "Array" => self.array(object, depth),
            "Date" => {
                let time = JsDate::from_object(object.clone()).and_then(|date| date.get_time(self.context));
                self.out.push(tag::DATE);
                self.value(&time.map_err(refused)?, depth)
            }
            "RegExp" => {
                let regexp = JsRegExp::from_object(object.clone()).map_err(refused)?;
                let parts = [regexp.source(self.context), regexp.flags(self.context)];
                self.out.push(tag::REGEXP);
                for part in parts {
                    write_text(&mut self.out, &JsString::from(part.map_err(refused)?));
                }
                Ok(())
            }
            "Map" => {
                let (map, mut all) = (JsMap::from_object(object.clone()).map_err(refused)?, Vec::new());
                let taken = map.for_each_native(|key, value| {
                    all.push([key, value]);
                    Ok(())
                });
                taken.map_err(refused)?;
                self.out.push(tag::MAP);
                write_number(&mut self.out, all.len());
                all.iter().flatten().try_for_each(|value| self.value(value, depth + 1))
            }
            "Set" => {
                let set = JsSet::from_object(object.clone()).map_err(|object| Refused::Value(object.into()))?;
                let mut all = Vec::new();
                let taken = set.for_each_native(|value| {
                    all.push(value);
                    Ok(())
                });
                taken.map_err(refused)?;
                self.out.push(tag::SET);
                write_number(&mut self.out, all.len());
                all.iter().try_for_each(|value| self.value(value, depth + 1))
            }
            "ArrayBuffer" => {
                let buffer = JsArrayBuffer::from_object(object.clone()).map_err(refused)?;
                let data = buffer.to_vec().ok_or_else(|| Refused::Value(object.clone().into()))?;
                self.out.push(tag::BUFFER);
                write_bytes(&mut self.out, &data);
                Ok(())
            }
            "TypedArray" => {
                let array = JsTypedArray::from_object(object.clone()).map_err(refused)?;
                let kind = array.kind().and_then(number_of).ok_or_else(|| Refused::Value(object.clone().into()))?;
                let place = (array.byte_offset(self.context), array.length(self.context));
                let buffer = array.buffer(self.context).map_err(refused)?;
                self.out.extend_from_slice(&[tag::TYPED, kind]);
                self.view(&buffer, (place.0.map_err(refused)?, place.1.map_err(refused)?), depth)
            }
            "DataView" => {
                let view = JsDataView::from_object(object.clone()).map_err(refused)?;
                let place = [view.byte_offset(self.context), view.byte_length(self.context)];
                let [offset, length] = place.map(|number| number.map(|number| usize::try_from(number).unwrap_or(0)));
                let buffer = view.buffer(self.context).map_err(refused)?;
                self.out.push(tag::VIEW);
                self.view(&buffer, (offset.map_err(refused)?, length.map_err(refused)?), depth)
            }
            "Error" => self.error(object, depth),
            kind @ ("Number" | "String" | "Boolean" | "BigInt") => {
                let constructors = self.context.intrinsics().constructors();
                let prototype = match kind {
                    "Number" => constructors.number().prototype(),
                    "String" => constructors.string().prototype(),
                    "Boolean" => constructors.boolean().prototype(),
                    _ => constructors.bigint().prototype(),
                };
                let inner = prototype.get(js_string!("valueOf"), self.context);
                let inner =
                    inner.map_err(refused)?.as_function().ok_or_else(|| Refused::Value(object.clone().into()))?;
                let inner = inner.call(&object.clone().into(), &[], self.context).map_err(refused)?;
                self.out.push(tag::BOXED);
                self.value(&inner, depth)
            }
            _ => Err(Refused::Value(object.clone().into())),
        }
    }

    fn view(&mut self, buffer: &JsValue, (offset, length): (usize, usize), depth: usize) -> Written {
        write_number(&mut self.out, offset);
        write_number(&mut self.out, length);
        self.value(buffer, depth)
    }

    /// The keys of the properties that cross: those that can be enumerated and are no symbols.
    fn keys(&mut self, object: &JsObject) -> Result<Vec<PropertyKey>, Refused> {
        let mut keys = object.own_property_keys(self.context).map_err(Refused::Threw)?;
        let is_open = |key: &PropertyKey| {
            let property = object.borrow().properties().get(key);
            property.is_some_and(|property| property.enumerable() == Some(true))
        };
        keys.retain(|key| !matches!(key, PropertyKey::Symbol(_)) && is_open(key));
        Ok(keys)
    }

    fn fields(&mut self, object: &JsObject, keys: &[PropertyKey], depth: usize) -> Written {
        write_number(&mut self.out, keys.len());
        for key in keys {
            let name = match key {
                PropertyKey::String(name) => name.clone(),
                PropertyKey::Index(index) => JsString::from(index.get().to_string()),
                PropertyKey::Symbol(_) => continue,
            };
            write_text(&mut self.out, &name);
            let value = self.get(object, key)?;
            self.value(&value, depth + 1)?;
        }
        Ok(())
    }

    /// An own property; a getter is called.
    fn get(&mut self, object: &JsObject, key: &PropertyKey) -> Result<JsValue, Refused> {
        let property = object.borrow().properties().get(key);
        // One that an earlier getter has taken away.
        let Some(property) = property else { return Ok(JsValue::undefined()) };
        if let Some(value) = property.value() {
            return Ok(value.clone());
        }
        let Some(getter) = property.get().filter(|getter| getter.is_callable()).cloned() else {
            return Ok(JsValue::undefined());
        };
        let local = Local::of(self.context);
        let arguments = [getter, object.clone().into(), JsArray::from_iter([], self.context).into()];
        let value = local.bridge().callback.call(&JsValue::undefined(), &arguments, self.context);
        let thrown = local.thrown.borrow_mut().take();
        match thrown {
            Some(thrown) => Err(Refused::Threw(JsError::from_opaque(thrown))),
            None => value.map_err(Refused::Threw),
        }
    }

    /// Length, how many elements there are and whether they are the first ones, the elements, and what else it has.
    fn array(&mut self, object: &JsObject, depth: usize) -> Written {
        let array = JsArray::from_object(object.clone()).map_err(Refused::Threw)?;
        let length = array.length(self.context).map_err(Refused::Threw)?;
        if let Some(numbers) = numbers_of(object, length) {
            self.out.push(tag::ARRAY);
            write_number(&mut self.out, numbers.len());
            self.out.push(1);
            numbers.into_iter().for_each(|number| self.number(number));
            self.bounded()?;
            let names = names_of(object);
            return self.fields(object, &names, depth);
        }
        let keys = self.keys(object)?;
        let is_index = |key: &&PropertyKey| matches!(key, PropertyKey::Index(_));
        let indices = keys.iter().take_while(is_index).count();
        let is_dense = indices as u64 == length;
        self.out.push(tag::ARRAY);
        write_number(&mut self.out, usize::try_from(length).unwrap_or(usize::MAX));
        self.out.push(u8::from(is_dense));
        if !is_dense {
            return self.fields(object, &keys, depth);
        }
        for key in &keys[..indices] {
            let value = self.get(object, key)?;
            self.value(&value, depth + 1)?;
        }
        self.fields(object, &keys[indices..], depth)
    }

    /// Name, message, stack, cause, and of one that was thrown what else it has of its own.
    fn error(&mut self, object: &JsObject, depth: usize) -> Written {
        let text = |key: JsString| fault::inherited(object, &key.into()).and_then(|value| value.as_string());
        let (name, message) = (text(js_string!("name")), text(js_string!("message")));
        self.out.push(tag::ERROR);
        write_text(&mut self.out, &name.unwrap_or(js_string!("Error")));
        write_text(&mut self.out, &message.unwrap_or_default());
        let stack = fault::stack_of(&object.clone().into(), self.context).unwrap_or_default();
        write_text(&mut self.out, &JsString::from(stack));
        let own = |key: &PropertyKey| object.borrow().properties().get(key).and_then(|found| found.value().cloned());
        let cause = own(&js_string!("cause").into());
        self.out.push(u8::from(cause.is_some()));
        if let Some(cause) = cause {
            self.value(&cause, depth + 1)?;
        }
        let mut more = Vec::new();
        if self.whole {
            for key in object.own_property_keys(self.context).map_err(Refused::Threw)? {
                let PropertyKey::String(name) = &key else { continue };
                if [js_string!("message"), js_string!("stack"), js_string!("cause")].contains(name) {
                    continue;
                }
                // What does not cross is left out: the error itself has to.
                let Some(value) = own(&key) else { continue };
                if let Ok(packed) = pack(&value, false, self.context) {
                    more.push((name.clone(), packed));
                }
            }
        }
        write_number(&mut self.out, more.len());
        for (name, packed) in more {
            write_text(&mut self.out, &name);
            // It was packed by itself, and is read so.
            self.out.push(tag::BUFFER);
            write_bytes(&mut self.out, &packed);
        }
        Ok(())
    }
}

/// The elements of an array that has nothing but numbers, in one borrow: samples come by the thousands.
fn numbers_of(array: &JsObject, length: u64) -> Option<Vec<f64>> {
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= limits::SCRIPT_JOB_BYTES)?;
    let object = array.borrow();
    let properties = object.properties();
    // The keys of a sparse array come in any order.
    if !properties.index_property_keys().eq(0..length) {
        return None;
    }
    properties.index_property_values().map(|property| property.value().and_then(JsValue::as_number)).collect()
}

/// The names of an array's other properties, as far as they can be enumerated.
fn names_of(array: &JsObject) -> Vec<PropertyKey> {
    let object = array.borrow();
    let is_open = |key: &PropertyKey| {
        let property = object.properties().get(key);
        matches!(key, PropertyKey::String(_)) && property.is_some_and(|property| property.enumerable() == Some(true))
    };
    object.shape().keys().into_iter().filter(is_open).collect()
}

/// The number of a kind of typed arrays on the wire.
fn number_of(kind: TypedArrayKind) -> Option<u8> {
    Some(match kind {
        TypedArrayKind::Int8 => 0,
        TypedArrayKind::Uint8 => 1,
        TypedArrayKind::Uint8Clamped => 2,
        TypedArrayKind::Int16 => 3,
        TypedArrayKind::Uint16 => 4,
        TypedArrayKind::Int32 => 5,
        TypedArrayKind::Uint32 => 6,
        TypedArrayKind::BigInt64 => 7,
        TypedArrayKind::BigUint64 => 8,
        TypedArrayKind::Float32 => 9,
        TypedArrayKind::Float64 => 10,
        #[expect(unreachable_patterns, reason = "the engine may be built with further kinds")]
        _ => return None,
    })
}
