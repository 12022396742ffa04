//! A failure of a handler, in words: from a thrown value or an engine error, without ever running a script to find them.

use boa_engine::{
    Context, JsError, JsObject, JsValue,
    builtins::error::Error as ErrorObject,
    error::{EngineError, RuntimeLimitError},
    js_string,
    object::builtins::JsFunction,
    property::PropertyKey,
    value::JsVariant,
};
use tidegate_actors::script::ParkReason;

use super::{frozen, local::Local, modules::Loader};
use crate::frame::{Fault, clip};

/// Most characters of a thrown value's name and message.
const MESSAGE_CHARS: usize = 500;
/// How far up a prototype chain a name is looked for.
const CHAIN: usize = 16;

/// A fault without a place.
pub(super) fn fault(reason: ParkReason, message: impl AsRef<str>) -> Fault {
    Fault { reason: reason as u8, message: clip(message.as_ref(), MESSAGE_CHARS), file: None, line: 0, column: 0 }
}

/// What a script threw.
pub(super) fn thrown(value: &JsValue, stack_of: &JsFunction, context: &mut Context) -> Fault {
    let mut fault = fault(ParkReason::Threw, describe(value));
    if let Some(place) = place(value, stack_of, context) {
        (fault.file, fault.line, fault.column) = (Some(place.0), place.1, place.2);
    }
    fault
}

/// An error that the engine gave the host: a limit, a panic that it caught, or a native error.
pub(super) fn engine(error: &JsError, stack_of: &JsFunction, context: &mut Context) -> Fault {
    if let Some(value) = error.as_opaque() {
        return thrown(value, stack_of, context);
    }
    let mut fault = match error.as_engine() {
        Some(EngineError::RuntimeLimit(RuntimeLimitError::LoopIteration)) => fault(
            ParkReason::Deadline,
            format!("a loop went round more than {} times in one call", super::live::LOOP_ITERATIONS),
        ),
        Some(EngineError::RuntimeLimit(limit)) => fault(ParkReason::Threw, limit.to_string()),
        Some(other) => fault(ParkReason::Crashed, other.to_string()),
        // A native error: its text is the engine's own, with the place in it.
        None => fault(ParkReason::Threw, error.as_native().map_or("unknown error", |native| native.message())),
    };
    // The engine's own display of its own error: no value of a script is in it.
    if let Some((file, line, column)) = error.to_string().lines().find_map(parse_frame) {
        let (file, line, column) = in_source((file, line, column), context);
        (fault.file, fault.line, fault.column) = (Some(file), line, column);
    }
    fault
}

/// Any value in one line, by its own data properties: no getter, no proxy trap, no `toString` runs.
pub(super) fn describe(value: &JsValue) -> String {
    match value.variant() {
        JsVariant::String(text) => text.to_std_string_lossy(),
        JsVariant::Object(object) => describe_object(&object),
        JsVariant::Symbol(symbol) => symbol.descriptive_string().to_std_string_lossy(),
        JsVariant::BigInt(_) => "a BigInt".to_owned(),
        JsVariant::Undefined => "undefined".to_owned(),
        JsVariant::Null => "null".to_owned(),
        JsVariant::Boolean(truth) => truth.to_string(),
        JsVariant::Integer32(number) => number.to_string(),
        JsVariant::Float64(number) => number.to_string(),
    }
}

fn describe_object(object: &JsObject) -> String {
    let text = |key| {
        let value = inherited(object, &PropertyKey::from(key))?;
        value.as_string().map(|text| text.to_std_string_lossy())
    };
    match (text(js_string!("name")), text(js_string!("message"))) {
        (Some(name), Some(message)) if !message.is_empty() => format!("{name}: {message}"),
        (Some(name), _) => name,
        (None, Some(message)) => message,
        (None, None) if object.is_array() => "an array".to_owned(),
        (None, None) if object.is_callable() => "a function".to_owned(),
        (None, None) => "an object".to_owned(),
    }
}

/// A data property of an ordinary or error object, or of its prototypes. An accessor that stands for a frozen one is as good.
pub(super) fn inherited(object: &JsObject, key: &PropertyKey) -> Option<JsValue> {
    let mut next = Some(object.clone());
    for _ in 0..CHAIN {
        let object = next?;
        if !object.is_ordinary() && !object.is::<ErrorObject>() {
            return None;
        }
        let borrowed = object.borrow();
        if let Some(property) = borrowed.properties().get(key) {
            return frozen::value(&property);
        }
        next = borrowed.prototype();
    }
    None
}

/// Where an error object was made, for scripts.
pub(super) fn place_of(value: &JsValue, context: &mut Context) -> Option<(String, u32, u32)> {
    let local = Local::of(context);
    place(value, &local.bridge().stack_of, context)
}

/// The stack of an error object: that of its own, if it has one (an error of a task brings it along), or what the engine recorded.
pub(super) fn stack_of(value: &JsValue, context: &mut Context) -> Option<String> {
    if let Some(stack) = own_stack(value) {
        return Some(stack);
    }
    let local = Local::of(context);
    let stack = local.bridge.get()?.stack_of.call(value, &[], context).ok()?;
    stack.as_string().map(|stack| stack.to_std_string_lossy())
}

/// The property `stack` of an error object itself.
fn own_stack(value: &JsValue) -> Option<String> {
    let object = value.as_object().filter(JsObject::is::<ErrorObject>)?;
    let stack = object.borrow().properties().get(&js_string!("stack").into())?.value().cloned();
    stack?.as_string().map(|stack| stack.to_std_string_lossy())
}

/// Where an error object was made: the first place on its stack.
fn place(value: &JsValue, stack_of: &JsFunction, context: &mut Context) -> Option<(String, u32, u32)> {
    if let Some(place) = own_stack(value).and_then(|stack| stack.lines().find_map(parse_frame)) {
        return Some(place);
    }
    // The engine's own getter, not a script's `stack`: it only formats what the engine recorded.
    value.as_object().filter(JsObject::is::<ErrorObject>)?;
    let stack = stack_of.call(value, &[], context).ok()?.as_string()?.to_std_string_lossy();
    stack.lines().find_map(parse_frame).map(|place| in_source(place, context))
}

/// A place in what the parser saw → in the file.
fn in_source((file, line, column): (String, u32, u32), context: &Context) -> (String, u32, u32) {
    let column = Loader::of(context).map_or(column, |loader| loader.unwrapped(&file, line, column));
    (file, line, column)
}

/// `    at name (file:line:column)` → its place, if it is one in a handler's file (the engine's own are in Rust).
pub(super) fn parse_frame(line: &str) -> Option<(String, u32, u32)> {
    let place = line.trim().strip_prefix("at ")?;
    let place = place.rsplit_once('(').map_or(place, |(_, place)| place).trim_end_matches(')');
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    if ![".js", ".mjs", ".cjs"].iter().any(|end| file.ends_with(end)) {
        return None;
    }
    // The engine does not know the place of every instruction: `?`.
    let number = |text: &str| if text == "?" { Some(0) } else { text.parse().ok() };
    Some((file.to_owned(), number(line)?, number(column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_line_gives_its_place() {
        assert_eq!(parse_frame("    at onMetric (10-a.js:3:9)"), Some(("10-a.js".to_owned(), 3, 9)));
        assert_eq!(parse_frame("at lib/b.js:12:1"), Some(("lib/b.js".to_owned(), 12, 1)));
        for no in
            ["", "at", "at f (native)", "Error: at x:1", "at x (unknown at :?:?)", "at f (native at src/x.rs:5:3)"]
        {
            assert_eq!(parse_frame(no), None, "{no}");
        }
    }
}
