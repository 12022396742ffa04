//! What scripts find in `globalThis` as in Node.js, beyond the engine's own: each group is a file of JavaScript
//! on a few natives, which is run when a script first asks for one of its names. (A context is built anew after each error of the
//! engine: what no handler uses must cost nothing there.)

pub(super) mod bytes;
pub(super) mod cloned;
mod hashes;
mod kinds;

use boa_engine::{
    Context, JsArgs, JsNativeError, JsObject, JsResult, JsString, JsValue, NativeFunction, Source,
    native_function::NativeFunctionPointer,
    object::{
        ObjectInitializer,
        builtins::{JsArray, JsFunction},
    },
};
use url::{Url, quirks};

use super::{event_loop, local::callable, modules::LIBRARY, task, testing};

/// The groups by name.
const GROUPS: [(&str, &str); 15] = [
    ("loop", include_str!("../event_loop/loop.js")),
    ("console", include_str!("console.js")),
    ("events", include_str!("events.js")),
    ("clone", include_str!("clone.js")),
    ("text", include_str!("text.js")),
    ("url", include_str!("url.js")),
    ("crypto", include_str!("crypto.js")),
    ("buffer", include_str!("buffer.js")),
    ("slow", include_str!("slow.js")),
    ("hashes", include_str!("hashes.js")),
    ("zlib", include_str!("zlib.js")),
    ("files", include_str!("files.js")),
    ("dns", include_str!("dns.js")),
    ("fetch", include_str!("fetch.js")),
    ("tasks", include_str!("tasks.js")),
];

/// Sets up the names of a new context. The function gives the names of a group.
///
/// # Errors
/// The engine's.
pub(super) fn install(host_natives: &JsObject, context: &mut Context) -> JsResult<JsFunction> {
    let functions: [(&str, NativeFunctionPointer); 9] = [
        ("load", load),
        ("encode", bytes::encode),
        ("decode", bytes::decode),
        ("parse", parse),
        ("change", change),
        ("kind", kinds::kind),
        ("settled", kinds::settled),
        ("place", kinds::place),
        ("askNode", testing::ask),
    ];
    let of_tasks = task::natives(context);
    let mut natives = ObjectInitializer::new(context);
    let all = functions.into_iter().chain(event_loop::NATIVES).chain(hashes::NATIVES).chain(cloned::NATIVES);
    for (name, function) in all.chain(of_tasks.iter().copied()) {
        natives.function(NativeFunction::from_fn_ptr(function), JsString::from(name), 0);
    }
    let natives = natives.build();
    for name in ["random", "log", "fail"] {
        let native = host_natives.get(JsString::from(name), context)?;
        natives.set(JsString::from(name), native, true, context)?;
    }
    let setup = context.eval(Source::from_bytes(include_str!("globals.js")))?;
    let load = callable(&setup)?.call(&JsValue::undefined(), &[natives.into()], context)?;
    callable(&load)
}

/// The function of a group's file.
fn load(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let name = args.get_or_undefined(0).as_string().unwrap_or_default();
    let group = GROUPS.iter().chain(&LIBRARY).find(|(group, _)| name == *group);
    let (_, source) = group.ok_or_else(|| JsNativeError::typ().with_message("there is no such group"))?;
    context.eval(Source::from_bytes(*source))
}

/// Address and base → the parts of `url.js`; undefined: it is no address.
fn parse(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text = |at: usize| args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy());
    let base = text(1).map(|base| Url::parse(&base)).transpose();
    let url = base.and_then(|base| Url::options().base_url(base.as_ref()).parse(&text(0).unwrap_or_default()));
    Ok(url.map_or(JsValue::undefined(), |url| parts(&url, context)))
}

/// Address, the name of a part, its new value → the parts; undefined: it stays as it was.
fn change(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text =
        |at: usize| args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy()).unwrap_or_default();
    let Ok(mut url) = Url::parse(&text(0)) else { return Ok(JsValue::undefined()) };
    let value = text(2);
    let changed = match text(1).as_str() {
        "protocol" => quirks::set_protocol(&mut url, &value),
        "username" => quirks::set_username(&mut url, &value),
        "password" => quirks::set_password(&mut url, &value),
        "host" => quirks::set_host(&mut url, &value),
        "hostname" => quirks::set_hostname(&mut url, &value),
        "port" => quirks::set_port(&mut url, &value),
        "pathname" => {
            quirks::set_pathname(&mut url, &value);
            Ok(())
        }
        "search" => {
            quirks::set_search(&mut url, &value);
            Ok(())
        }
        "hash" => {
            quirks::set_hash(&mut url, &value);
            Ok(())
        }
        _ => Err(()),
    };
    Ok(changed.map_or(JsValue::undefined(), |()| parts(&url, context)))
}

fn parts(url: &Url, context: &mut Context) -> JsValue {
    let origin = quirks::origin(url);
    let parts = [
        quirks::href(url),
        &origin,
        quirks::protocol(url),
        quirks::username(url),
        quirks::password(url),
        quirks::host(url),
        quirks::hostname(url),
        quirks::port(url),
        quirks::pathname(url),
        quirks::search(url),
        quirks::hash(url),
    ];
    JsArray::from_iter(parts.map(|part| JsString::from(part).into()), context).into()
}
