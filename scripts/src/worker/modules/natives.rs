//! What `commonjs.js` finds of the host.

use boa_engine::{
    Context, JsArgs, JsObject, JsResult, JsString, JsValue, NativeFunction, js_string,
    native_function::NativeFunctionPointer,
    object::{ObjectInitializer, builtins::JsArray},
};

use super::{
    BUILTINS, Loader,
    commonjs::{list, text},
    thrown, url_of, without_mark,
};
use crate::{
    modules::{Format, ROOT, Request, Target, import, located, look_up_paths, require, shown},
    worker::host::Host,
};

/// The natives as an object.
pub(super) fn object(context: &mut Context) -> JsResult<JsObject> {
    let functions: [(&str, NativeFunctionPointer); 7] = [
        ("resolve", resolve),
        ("kind", kind),
        ("compile", compile),
        ("read", read),
        ("namespace", namespace),
        ("facade", facade),
        ("paths", paths),
    ];
    let mut natives = ObjectInitializer::new(context);
    for (name, function) in functions {
        natives.function(NativeFunction::from_fn_ptr(function), JsString::from(name), 0);
    }
    let natives = natives.build();
    let builtins = JsArray::from_iter(BUILTINS.map(text), context);
    natives.set(js_string!("ROOT"), text(ROOT), true, context)?;
    natives.set(js_string!("BUILTINS"), builtins, true, context)?;
    Ok(natives)
}

fn argument(args: &[JsValue], at: usize) -> String {
    args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy()).unwrap_or_default()
}

/// Specifier, path of the file that asks → a path, or `node:name`.
fn resolve(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let loader = Loader::of(context)?;
    let from = argument(args, 1);
    let request = Request::new(&loader.tree, &from, true, &BUILTINS);
    match require(&argument(args, 0), &from, &request) {
        Ok(Target::File(path, _)) => Ok(text(&path)),
        Ok(Target::Builtin(name)) => Ok(text(&format!("node:{name}"))),
        Err(error) => Err(thrown(&error, context)),
    }
}

/// Path → `module`, `commonjs` or `json`.
fn kind(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let kind = match Loader::of(context)?.format(&argument(args, 0), context)? {
        Format::Module => "module",
        Format::Json => "json",
        Format::CommonJs | Format::Unclear => "commonjs",
    };
    Ok(text(kind))
}

/// Path → the function of a CommonJS file.
fn compile(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (loader, path) = (Loader::of(context)?, argument(args, 0));
    let tried = loader.scripts.borrow_mut().remove(&path);
    let script = match tried {
        Some(script) => script,
        None => loader.parse_script(&path, context)?,
    };
    script.evaluate(context)
}

/// Path → the value of a JSON file.
fn read(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let (loader, path) = (Loader::of(context)?, argument(args, 0));
    let known = loader.jsons.borrow_mut().remove(&path);
    if let Some(value) = known {
        return Ok(value);
    }
    let source = without_mark(loader.source(&path, context)?);
    Host::of(context).parse_json(&path, source, context)
}

/// Path, path of the file that asks, what is being run → the namespace of an ES module, which is loaded and run at once.
fn namespace(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let running = list(args.get_or_undefined(2), context)?;
    let running: Vec<_> =
        running.iter().filter_map(JsValue::as_string).map(|path| path.to_std_string_lossy()).collect();
    Loader::of(context)?.require_module(&argument(args, 0), &argument(args, 1), &running, context).map(JsValue::from)
}

/// Path of an ES module → its exports with `__esModule`.
fn facade(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Loader::of(context)?.facade(&argument(args, 0), context).map(JsValue::from)
}

/// Specifier, path of the file that asks → where it is looked for; null: it is a module of the host.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn paths(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let Some(paths) = look_up_paths(&argument(args, 0), &argument(args, 1), &BUILTINS) else {
        return Ok(JsValue::null());
    };
    Ok(JsArray::from_iter(paths.iter().map(|path| text(path)), context).into())
}

/// `import.meta.resolve(specifier)` of the module at a path.
pub(super) fn meta_resolve(_: &JsValue, args: &[JsValue], from: &JsString, context: &mut Context) -> JsResult<JsValue> {
    let (loader, from) = (Loader::of(context)?, from.to_std_string_lossy());
    let specifier = args.get_or_undefined(0).to_string(context)?.to_std_string_lossy();
    let request = Request::new(&loader.tree, &from, false, &BUILTINS);
    match import(&specifier, &from, &request) {
        Ok(Target::File(path, suffix)) => Ok(text(&format!("{}{suffix}", url_of(&shown(&path))))),
        Ok(Target::Builtin(name)) => Ok(text(&format!("node:{name}"))),
        Err(error) => match located(&specifier, &from) {
            // Where it would be, as in Node.js.
            Some(path) if error.code == "ERR_MODULE_NOT_FOUND" => Ok(text(&url_of(&path))),
            _ => Err(thrown(&error, context)),
        },
    }
}
