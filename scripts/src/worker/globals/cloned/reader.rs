//! Bytes → a value.

use boa_engine::{
    Context, JsBigInt, JsNativeError, JsObject, JsResult, JsString, JsValue, js_string,
    object::builtins::{JsArray, JsArrayBuffer, JsMap, JsSet},
    property::{PropertyDescriptor, PropertyKey},
};
use tidegate_actors::limits;

use super::{tag, unreadable};
use crate::worker::json_in::{new_object, number};

/// The value of some bytes.
///
/// # Errors
/// They are none of a value's.
pub(in super::super::super) fn unpack(bytes: &[u8], context: &mut Context) -> JsResult<JsValue> {
    unpack_at(bytes, 0, context)
}

fn unpack_at(bytes: &[u8], depth: usize, context: &mut Context) -> JsResult<JsValue> {
    let mut reader = Reader { bytes, known: Vec::new(), context };
    let value = reader.value(depth)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err(unreadable()) }
}

struct Reader<'a, 'c> {
    bytes: &'a [u8],
    known: Vec<JsValue>,
    context: &'c mut Context,
}

impl Reader<'_, '_> {
    fn take(&mut self, count: usize) -> JsResult<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(unreadable)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> JsResult<u8> {
        Ok(self.take(1)?[0])
    }

    fn size(&mut self) -> JsResult<usize> {
        let mut size = 0_usize;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            size |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(size);
            }
        }
        Err(unreadable())
    }

    /// A count of values that follow: each has a byte at least.
    fn count(&mut self) -> JsResult<usize> {
        let count = self.size()?;
        if count <= self.bytes.len() { Ok(count) } else { Err(unreadable()) }
    }

    fn text(&mut self) -> JsResult<JsString> {
        let kind = self.byte()?;
        self.text_of(kind)
    }

    fn text_of(&mut self, kind: u8) -> JsResult<JsString> {
        let size = self.size()?;
        match kind {
            tag::TEXT => {
                let bytes = self.take(size)?;
                match std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()) {
                    Some(text) => Ok(JsString::from(text)),
                    None => Ok(JsString::from(bytes.iter().map(|byte| char::from(*byte)).collect::<String>())),
                }
            }
            tag::WIDE => {
                let bytes = self.take(size.checked_mul(2).ok_or_else(unreadable)?)?;
                let units: Vec<u16> =
                    bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
                Ok(JsString::from(&*units))
            }
            _ => Err(unreadable()),
        }
    }

    /// A place for an object that others may name before it is read to its end.
    fn keep(&mut self, object: &JsObject) {
        self.known.push(object.clone().into());
    }

    fn value(&mut self, depth: usize) -> JsResult<JsValue> {
        if depth > 2 * limits::SCRIPT_CLONE_DEPTH {
            return Err(unreadable());
        }
        let kind = self.byte()?;
        Ok(match kind {
            tag::UNDEFINED => JsValue::undefined(),
            tag::NULL => JsValue::null(),
            tag::FALSE => false.into(),
            tag::TRUE => true.into(),
            tag::NUMBER => number(self.double()?),
            tag::TEXT | tag::WIDE => self.text_of(kind)?.into(),
            tag::BIGINT => {
                let size = self.size()?;
                let digits = std::str::from_utf8(self.take(size)?).map_err(|_| unreadable())?;
                JsBigInt::from_string_radix(digits, 16).ok_or_else(unreadable)?.into()
            }
            tag::SEEN => {
                let at = self.size()?;
                self.known.get(at).cloned().ok_or_else(unreadable)?
            }
            tag::OBJECT => {
                let object = new_object(self.context);
                self.keep(&object);
                self.fields(&object, depth)?;
                object.into()
            }
            tag::ARRAY => self.array(depth)?,
            tag::DATE => {
                let at = self.reserve();
                let time = self.value(depth + 1)?;
                let date = self.context.intrinsics().constructors().date().constructor();
                let date = date.construct(&[time], None, self.context)?;
                self.made(at, date)
            }
            tag::REGEXP => {
                let (source, flags) = (self.text()?, self.text()?);
                let regexp = self.context.intrinsics().constructors().regexp().constructor();
                let regexp = regexp.construct(&[source.into(), flags.into()], None, self.context)?;
                self.keep(&regexp);
                regexp.into()
            }
            tag::MAP => {
                let (map, count) = (JsMap::new(self.context), self.count()?);
                self.known.push(map.clone().into());
                for _ in 0..count {
                    let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
                    map.set(key, value, self.context)?;
                }
                map.into()
            }
            tag::SET => {
                let (set, count) = (JsSet::new(self.context), self.count()?);
                self.known.push(set.clone().into());
                for _ in 0..count {
                    let value = self.value(depth + 1)?;
                    set.add(value, self.context)?;
                }
                set.into()
            }
            tag::BUFFER => {
                let size = self.count()?;
                let buffer = JsArrayBuffer::new(size, self.context)?;
                let bytes = self.take(size)?;
                if let Some(mut data) = buffer.data_mut() {
                    data.copy_from_slice(bytes);
                }
                self.known.push(buffer.clone().into());
                buffer.into()
            }
            tag::TYPED => {
                let (at, kind) = (self.reserve(), self.byte()?);
                let place = self.view(depth)?;
                let constructors = self.context.intrinsics().constructors();
                let constructor = match kind {
                    0 => constructors.typed_int8_array(),
                    1 => constructors.typed_uint8_array(),
                    2 => constructors.typed_uint8clamped_array(),
                    3 => constructors.typed_int16_array(),
                    4 => constructors.typed_uint16_array(),
                    5 => constructors.typed_int32_array(),
                    6 => constructors.typed_uint32_array(),
                    7 => constructors.typed_bigint64_array(),
                    8 => constructors.typed_biguint64_array(),
                    9 => constructors.typed_float32_array(),
                    10 => constructors.typed_float64_array(),
                    _ => return Err(unreadable()),
                };
                let constructor = constructor.constructor();
                let view = constructor.construct(&place, None, self.context)?;
                self.made(at, view)
            }
            tag::VIEW => {
                let at = self.reserve();
                let place = self.view(depth)?;
                let constructor = self.context.intrinsics().constructors().data_view().constructor();
                let view = constructor.construct(&place, None, self.context)?;
                self.made(at, view)
            }
            tag::ERROR => self.error(depth)?,
            tag::BOXED => {
                let at = self.reserve();
                let inner = self.value(depth + 1)?;
                let boxed = inner.to_object(self.context)?;
                self.made(at, boxed)
            }
            _ => return Err(unreadable()),
        })
    }

    fn double(&mut self) -> JsResult<f64> {
        let bytes = self.take(8)?.try_into().map_err(|_| unreadable())?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// The place of an object that is made of what follows.
    fn reserve(&mut self) -> usize {
        self.known.push(JsValue::undefined());
        self.known.len() - 1
    }

    fn made(&mut self, at: usize, object: JsObject) -> JsValue {
        self.known[at] = object.clone().into();
        object.into()
    }

    /// Buffer, offset, length.
    fn view(&mut self, depth: usize) -> JsResult<[JsValue; 3]> {
        let (offset, length) = (self.size()?, self.size()?);
        let buffer = self.value(depth + 1)?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53, or the engine refuses it")]
        Ok([buffer, number(offset as f64), number(length as f64)])
    }

    fn fields(&mut self, object: &JsObject, depth: usize) -> JsResult<()> {
        for _ in 0..self.count()? {
            let key = PropertyKey::from(self.text()?);
            let value = self.value(depth + 1)?;
            let property =
                PropertyDescriptor::builder().value(value).writable(true).enumerable(true).configurable(true);
            object.define_property_or_throw(key, property, self.context)?;
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> JsResult<JsValue> {
        let (length, is_dense) = (self.size()?, self.byte()? == 1);
        if is_dense && let Some(numbers) = self.numbers(length) {
            let array = JsArray::from_iter(numbers, self.context);
            self.known.push(array.clone().into());
            let object: JsObject = array.into();
            self.fields(&object, depth)?;
            return Ok(object.into());
        }
        let array = JsArray::new(self.context)?;
        self.known.push(array.clone().into());
        if is_dense {
            for _ in 0..length {
                let value = self.value(depth + 1)?;
                array.push(value, self.context)?;
            }
        } else {
            #[expect(clippy::cast_precision_loss, reason = "below 2^32, or the engine refuses it")]
            array.set(js_string!("length"), number(length as f64), true, self.context)?;
        }
        let object: JsObject = array.into();
        self.fields(&object, depth)?;
        Ok(object.into())
    }

    /// The next values, if they are so many numbers.
    fn numbers(&mut self, count: usize) -> Option<Vec<JsValue>> {
        const BYTES: usize = 9;
        let (bytes, rest) = self.bytes.split_at_checked(count.checked_mul(BYTES)?)?;
        let one = |bytes: &[u8]| match bytes {
            [tag::NUMBER, double @ ..] => Some(number(f64::from_le_bytes(double.try_into().ok()?))),
            _ => None,
        };
        let numbers = bytes.chunks_exact(BYTES).map(one).collect::<Option<_>>()?;
        self.bytes = rest;
        Some(numbers)
    }

    fn error(&mut self, depth: usize) -> JsResult<JsValue> {
        let at = self.reserve();
        let (name, message, stack) = (self.text()?, self.text()?, self.text()?);
        let cause = if self.byte()? == 1 { Some(self.value(depth + 1)?) } else { None };
        let native = match name.to_std_string_lossy().as_str() {
            "EvalError" => JsNativeError::eval(),
            "RangeError" => JsNativeError::range(),
            "ReferenceError" => JsNativeError::reference(),
            "SyntaxError" => JsNativeError::syntax(),
            "TypeError" => JsNativeError::typ(),
            "URIError" => JsNativeError::uri(),
            _ => JsNativeError::error(),
        };
        let error = native.with_message(message.to_std_string_lossy()).into_opaque(self.context);
        let hidden = |value: JsValue| PropertyDescriptor::builder().value(value).writable(true).configurable(true);
        error.define_property_or_throw(js_string!("stack"), hidden(stack.into()), self.context)?;
        if let Some(cause) = cause {
            error.define_property_or_throw(js_string!("cause"), hidden(cause), self.context)?;
        }
        for _ in 0..self.count()? {
            let (key, is_name) = {
                let key = self.text()?;
                (PropertyKey::from(key.clone()), key == js_string!("name"))
            };
            let packed = match self.bytes.first() {
                Some(&tag::BUFFER) => {
                    self.take(1)?;
                    let size = self.size()?;
                    let packed = self.take(size)?.to_vec();
                    unpack_at(&packed, depth + 1, self.context)?
                }
                _ => self.value(depth + 1)?,
            };
            let property = hidden(packed).enumerable(!is_name);
            error.define_property_or_throw(key, property, self.context)?;
        }
        self.known[at] = error.clone().into();
        Ok(error.into())
    }
}
