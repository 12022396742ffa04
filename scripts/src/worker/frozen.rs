//! Frozen intrinsics: what the language brings with it (constructors, prototypes, `Math`, …) cannot be changed by a script, so what
//! one file of a handler patches is no surprise to another, nor to the host's own JavaScript. The global object itself stays open.
//!
//! A data property that cannot be written hides behind itself: with a frozen `Error.prototype`, `this.name = "X"` in a subclass
//! would throw, since the language asks the prototype first. So the properties that real code assigns on objects of its own become
//! accessors, as Node.js (`--frozen-intrinsics`) and SES do it: what is assigned becomes the receiver's own.

use boa_engine::{
    Context, JsArgs, JsNativeError, JsObject, JsResult, JsString, JsSymbol, JsValue, NativeFunction,
    context::intrinsics::StandardConstructor,
    js_string,
    object::FunctionObjectBuilder,
    property::{PropertyDescriptor, PropertyKey},
};
use hashbrown::HashSet;

/// All that any object inherits: the names of properties may come from a device.
const OF_OBJECTS: [&str; 11] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];
const OF_FUNCTIONS: [&str; 3] = ["bind", "constructor", "toString"];
const OF_ERRORS: [&str; 4] = ["constructor", "message", "name", "toString"];
/// The package `buffer` assigns its own on a prototype below theirs.
const OF_TYPED_ARRAYS: [&str; 8] =
    ["constructor", "fill", "includes", "indexOf", "lastIndexOf", "slice", "toLocaleString", "toString"];
/// What compilers of generators to ES5 assign.
const OF_ITERATORS: [&str; 5] = ["constructor", "next", "return", "throw", "toString"];
/// Of whatever else can be inherited from. No more: each read of an accessor is a call.
const OF_OTHERS: [&str; 3] = ["constructor", "toLocaleString", "toString"];
const CONSTRUCTOR: [&str; 1] = ["constructor"];

/// Under this name each of their getters has the value that it stands for, as in SES: who looks at properties without running
/// anything (`inspect.js`, the host's words for an error) finds it there.
const ORIGINAL: &str = "originalValue";

/// The value of a data property, or the one that an accessor of [`open`] stands for.
pub(super) fn value(property: &PropertyDescriptor) -> Option<JsValue> {
    let original = |getter: JsObject| getter.borrow().properties().get(&JsString::from(ORIGINAL).into());
    let stands_for = || original(property.get()?.as_object()?)?.value().cloned();
    property.value().cloned().or_else(stands_for)
}

/// Freezes the intrinsics of a context.
///
/// # Errors
/// The engine's.
pub(super) fn freeze(context: &mut Context) -> JsResult<()> {
    for (holder, names) in by_name(context) {
        for name in names {
            open(&holder, &PropertyKey::from(JsString::from(*name)), context)?;
        }
    }
    for (holder, symbol) in by_symbol(context) {
        open(&holder, &PropertyKey::from(symbol), context)?;
    }
    freeze_all(context)
}

/// Freezes what is reachable from the global object's properties and from what has no name there; not the global object.
fn freeze_all(context: &mut Context) -> JsResult<()> {
    let close = context.intrinsics().objects().reflect().get(js_string!("preventExtensions"), context)?;
    let close = close.as_function().ok_or_else(|| JsNativeError::typ().with_message("there is no Reflect"))?;
    let global = context.global_object();
    let (mut seen, mut pending) = (HashSet::new(), hidden(context));
    seen.insert(address(&global));
    for key in global.borrow().shape().keys() {
        pending.extend(global.borrow().properties().get(&key).iter().flat_map(parts));
    }
    while let Some(object) = pending.pop() {
        if !seen.insert(address(&object)) {
            continue;
        }
        pending.extend(object.borrow().prototype());
        let keys = object.borrow().shape().keys();
        for key in keys {
            let Some(property) = object.borrow().properties().get(&key) else { continue };
            pending.extend(parts(&property));
            // What `set_integrity_level` does, without its checks: none of these objects refuses anything.
            object.insert_property(key, fixed(&property));
        }
        close.call(&JsValue::undefined(), &[object.into()], context)?;
    }
    Ok(())
}

fn address(object: &JsObject) -> usize {
    std::ptr::from_ref(object.as_ref()).cast::<()>() as usize
}

/// The objects that a property leads to.
fn parts(property: &PropertyDescriptor) -> impl Iterator<Item = JsObject> {
    [property.value(), property.get(), property.set()]
        .map(|part| part.and_then(JsValue::as_object))
        .into_iter()
        .flatten()
}

/// A property that stays as it is.
fn fixed(property: &PropertyDescriptor) -> PropertyDescriptor {
    PropertyDescriptor::builder()
        .maybe_value(property.value().cloned())
        .maybe_writable(property.is_data_descriptor().then_some(false))
        .maybe_get(property.get().cloned())
        .maybe_set(property.set().cloned())
        .maybe_enumerable(property.enumerable())
        .configurable(false)
        .build()
}

/// Makes an accessor of a data property.
fn open(holder: &JsObject, key: &PropertyKey, context: &mut Context) -> JsResult<()> {
    let property = holder.borrow().properties().get(key);
    let Some(value) = property.as_ref().and_then(|property| property.value().cloned()) else { return Ok(()) };
    let get = NativeFunction::from_copy_closure_with_captures(|_, _, value, _| Ok(value.clone()), value.clone());
    let set = NativeFunction::from_copy_closure_with_captures(assign, (holder.clone(), JsValue::from(key)));
    let get = FunctionObjectBuilder::new(context.realm(), get).build();
    let set = FunctionObjectBuilder::new(context.realm(), set).length(1).build();
    get.define_property_or_throw(JsString::from(ORIGINAL), PropertyDescriptor::builder().value(value), context)?;
    let enumerable = property.and_then(|property| property.enumerable()).unwrap_or(false);
    let accessor = PropertyDescriptor::builder().get(get).set(set).enumerable(enumerable).configurable(false);
    holder.define_property_or_throw(key.clone(), accessor, context)?;
    Ok(())
}

/// What is assigned becomes the receiver's own property, as it would if nothing were frozen.
fn assign(
    this: &JsValue,
    args: &[JsValue],
    (holder, key): &(JsObject, JsValue),
    context: &mut Context,
) -> JsResult<JsValue> {
    let key = key.to_property_key(context)?;
    let receiver = this.as_object().filter(|receiver| !JsObject::equals(receiver, holder));
    let Some(receiver) = receiver else {
        let message = format!("cannot assign to property '{key}': what the language brings with it is frozen");
        return Err(JsNativeError::typ().with_message(message).into());
    };
    let value = PropertyDescriptor::builder().value(args.get_or_undefined(0).clone());
    let property = if receiver.has_own_property(key.clone(), context)? {
        value
    } else {
        value.writable(true).enumerable(true).configurable(true)
    };
    receiver.define_property_or_throw(key, property, context)?;
    Ok(JsValue::undefined())
}

fn by_name(context: &Context) -> Vec<(JsObject, &'static [&'static str])> {
    let (of, objects) = (context.intrinsics().constructors(), context.intrinsics().objects());
    let prototypes = |of: &[&StandardConstructor], names| -> Vec<(JsObject, &'static [&'static str])> {
        of.iter().map(|constructor| (constructor.prototype(), names)).collect()
    };
    let mut all = vec![
        (of.object().prototype(), OF_OBJECTS.as_slice()),
        (of.function().prototype(), OF_FUNCTIONS.as_slice()),
        (of.typed_array().prototype(), OF_TYPED_ARRAYS.as_slice()),
        (objects.generator(), OF_ITERATORS.as_slice()),
        (objects.async_generator(), OF_ITERATORS.as_slice()),
        (of.iterator().prototype(), OF_ITERATORS.as_slice()),
    ];
    all.extend(prototypes(&[of.array(), of.date(), of.regexp()], OF_OTHERS.as_slice()));
    let errors = [
        of.error(),
        of.aggregate_error(),
        of.eval_error(),
        of.range_error(),
        of.reference_error(),
        of.syntax_error(),
        of.type_error(),
        of.uri_error(),
    ];
    all.extend(prototypes(&errors, OF_ERRORS.as_slice()));
    let plain = [
        of.array_buffer(),
        of.bigint(),
        of.boolean(),
        of.data_view(),
        of.map(),
        of.number(),
        of.promise(),
        of.set(),
        of.string(),
        of.symbol(),
        of.weak_map(),
        of.weak_set(),
        of.async_function(),
        of.generator_function(),
        of.async_generator_function(),
        of.typed_bigint64_array(),
        of.typed_biguint64_array(),
        of.typed_float32_array(),
        of.typed_float64_array(),
        of.typed_int16_array(),
        of.typed_int32_array(),
        of.typed_int8_array(),
        of.typed_uint16_array(),
        of.typed_uint32_array(),
        of.typed_uint8_array(),
        of.typed_uint8clamped_array(),
    ];
    all.extend(prototypes(&plain, CONSTRUCTOR.as_slice()));
    all
}

/// What compilers of generators assign by symbols.
fn by_symbol(context: &Context) -> Vec<(JsObject, JsSymbol)> {
    let (of, objects) = (context.intrinsics().constructors(), context.intrinsics().objects());
    let (iterator, async_iterator) = (of.iterator().prototype(), objects.iterator_prototypes().async_iterator());
    let tag = JsSymbol::to_string_tag;
    vec![
        (iterator.clone(), JsSymbol::iterator()),
        (iterator, tag()),
        (async_iterator.clone(), JsSymbol::async_iterator()),
        (async_iterator, tag()),
        (objects.generator(), tag()),
        (objects.async_generator(), tag()),
    ]
}

/// What no property of the global object leads to.
fn hidden(context: &Context) -> Vec<JsObject> {
    let (of, objects) = (context.intrinsics().constructors(), context.intrinsics().objects());
    let iterators = objects.iterator_prototypes();
    let mut all: Vec<JsObject> =
        [of.async_function(), of.generator_function(), of.async_generator_function(), of.typed_array(), of.iterator()]
            .into_iter()
            .flat_map(|of| [of.constructor(), of.prototype()])
            .collect();
    all.extend([
        objects.generator(),
        objects.async_generator(),
        objects.throw_type_error().into(),
        iterators.array(),
        iterators.async_iterator(),
        iterators.async_from_sync_iterator(),
        iterators.map(),
        iterators.regexp_string(),
        iterators.set(),
        iterators.string(),
        iterators.iterator_helper(),
        iterators.wrap_for_valid_iterator(),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use boa_engine::Source;

    use super::*;

    /// Walks from the global object and from what syntax alone leads to, and names what is not frozen.
    const WALK: &str = r#"
        const seen = new Set([globalThis]), open = [];
        const visit = (value, path) => {
          if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return;
          seen.add(value);
          if (!Object.isFrozen(value)) open.push(path);
          visit(Object.getPrototypeOf(value), `${path}.__proto__`);
          for (const key of Reflect.ownKeys(value)) {
            const { get, set, value: found } = Object.getOwnPropertyDescriptor(value, key);
            for (const part of [get, set, found]) visit(part, `${path}.${String(key)}`);
          }
        };
        const roots = [
          function* () {}, async function () {}, async function* () {}, Object.getPrototypeOf((function* () {})()), Object.getPrototypeOf((async function* () {})()), () => {}, [][Symbol.iterator](),
          new Map()[Symbol.iterator](), new Set()[Symbol.iterator](), ""[Symbol.iterator](), "".matchAll(/x/g), [].values().map((x) => x), /x/, 1n, 1, true, Symbol(),
        ];
        for (const root of roots) visit(Object.getPrototypeOf(root), String(root?.constructor?.name));
        for (const key of Reflect.ownKeys(globalThis)) visit(globalThis[key], String(key));
        `${seen.size > 700 || seen.size} ${open.join()}`"#;

    #[test]
    fn nothing_that_can_be_reached_is_left_open() {
        let mut context = Context::default();
        freeze(&mut context).expect("it freezes");
        let open = context.eval(Source::from_bytes(WALK)).expect("it walks");
        assert_eq!(open.as_string().map(|open| open.to_std_string_lossy()).as_deref(), Some("true "));
    }
}
