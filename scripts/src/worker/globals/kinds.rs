//! What a value is, for `inspect`, deep equality and `util.types`: what only the engine knows of an object.

use boa_engine::{
    Context, JsArgs, JsObject, JsResult, JsString, JsValue,
    builtins::{error::Error as ErrorObject, promise::PromiseState},
    js_string,
    object::builtins::{
        JsArray, JsArrayBuffer, JsDataView, JsDate, JsGenerator, JsMap, JsPromise, JsProxy, JsRegExp, JsSet,
        JsTypedArray, JsWeakMap, JsWeakSet,
    },
    value::JsVariant,
};

use super::super::fault;

/// Value → `Map`, `Array`, `Error` and so on; an empty text: an object like any other, or no object.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn kind(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let name = args.get_or_undefined(0).as_object().map_or("", |object| name_of(&object, context));
    Ok(JsString::from(name).into())
}

pub(super) fn name_of(object: &JsObject, context: &mut Context) -> &'static str {
    if object.is_ordinary() {
        return "";
    }
    if object.is_array() {
        return "Array";
    }
    if object.is_callable() {
        return "Function";
    }
    if object.is::<ErrorObject>() {
        return "Error";
    }
    let is = |found: bool, name| found.then_some(name);
    let made = || object.clone();
    is(JsMap::from_object(made()).is_ok(), "Map")
        .or_else(|| is(JsSet::from_object(made()).is_ok(), "Set"))
        .or_else(|| is(JsDate::from_object(made()).is_ok(), "Date"))
        .or_else(|| is(JsRegExp::from_object(made()).is_ok(), "RegExp"))
        .or_else(|| is(JsTypedArray::from_object(made()).is_ok(), "TypedArray"))
        .or_else(|| is(JsArrayBuffer::from_object(made()).is_ok(), "ArrayBuffer"))
        .or_else(|| is(JsDataView::from_object(made()).is_ok(), "DataView"))
        .or_else(|| is(JsPromise::from_object(made()).is_ok(), "Promise"))
        .or_else(|| is(JsWeakMap::from_object(made()).is_ok(), "WeakMap"))
        .or_else(|| is(JsWeakSet::from_object(made()).is_ok(), "WeakSet"))
        .or_else(|| is(JsGenerator::from_object(made()).is_ok(), "Generator"))
        .or_else(|| is(JsProxy::from_object(made()).is_ok(), "Proxy"))
        .unwrap_or_else(|| boxed(object, context))
}

/// A boxed primitive or the arguments of a function.
fn boxed(object: &JsObject, context: &mut Context) -> &'static str {
    let intrinsics = context.intrinsics().constructors();
    let methods = [
        ("Number", intrinsics.number().prototype()),
        ("String", intrinsics.string().prototype()),
        ("Boolean", intrinsics.boolean().prototype()),
        ("BigInt", intrinsics.bigint().prototype()),
        ("Symbol", intrinsics.symbol().prototype()),
    ];
    for (name, prototype) in methods {
        // The engine's own `valueOf` throws at what is none of its kind. (A script that replaced it is told what it says.)
        let Ok(method) = prototype.get(js_string!("valueOf"), context) else { continue };
        let Some(method) = method.as_function() else { continue };
        if let Ok(inner) = method.call(&object.clone().into(), &[], context)
            && !matches!(inner.variant(), JsVariant::Object(_))
        {
            return name;
        }
    }
    ""
}

/// Promise → its state and what it settled with.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn settled(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let promise = args.get_or_undefined(0).as_object().and_then(|object| JsPromise::from_object(object).ok());
    let (state, value) = match promise.map(|promise| promise.state()) {
        Some(PromiseState::Fulfilled(value)) => ("fulfilled", value),
        Some(PromiseState::Rejected(reason)) => ("rejected", reason),
        Some(PromiseState::Pending) | None => ("pending", JsValue::undefined()),
    };
    Ok(JsArray::from_iter([JsString::from(state).into(), value], context).into())
}

/// Error → file, line and column of where it was made, if that is in a script's file.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn place(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let Some((file, line, column)) = fault::place_of(args.get_or_undefined(0), context) else {
        return Ok(JsValue::undefined());
    };
    Ok(JsArray::from_iter([JsString::from(file.as_str()).into(), line.into(), column.into()], context).into())
}
