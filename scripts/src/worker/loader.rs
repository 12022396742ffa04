//! Imports of handlers: only files below the handlers' directory, as the node read them; a worker opens no file itself.

use std::{
    cell::RefCell,
    path::{Component, Path},
    rc::Rc,
};

use boa_engine::{
    Context, JsError, JsNativeError, JsResult, JsString, Module, Source,
    module::{ModuleLoader, ModuleRequest, Referrer},
};
use hashbrown::HashMap;

use super::host::Host;

/// The path of the entry module, and the one thing that only it can import.
const ENTRY: &str = "tidegate:entry";
const EXPORTS: &str = "tidegate:exports";

/// The files by path below the handlers' directory, and the modules made of them in this context.
pub(super) struct Loader {
    files: Rc<HashMap<String, String>>,
    modules: RefCell<HashMap<String, Module>>,
}

impl Loader {
    pub(super) fn new(files: Rc<HashMap<String, String>>) -> Self {
        Self { files, modules: RefCell::default() }
    }

    /// The module of a file; the same one each time.
    ///
    /// # Errors
    /// There is no such file, or it does not parse.
    pub(super) fn module(&self, path: &str, context: &mut Context) -> JsResult<Module> {
        if let Some(module) = self.modules.borrow().get(path) {
            return Ok(module.clone());
        }
        let Some(source) = self.files.get(path) else {
            return Err(JsNativeError::typ().with_message(format!("there is no file {path} to import")).into());
        };
        let module = if Path::new(path).extension().is_some_and(|extension| extension == "json") {
            let value = Host::of(context).parse_json(path, source, context)?;
            Module::from_value_as_default(value, context)
        } else {
            let parsed = Module::parse(Source::from_bytes(source).with_path(Path::new(path)), None, context);
            parsed.map_err(|error| in_file(&error, path))?
        };
        self.modules.borrow_mut().insert(path.to_owned(), module.clone());
        Ok(module)
    }
}

/// A module that hands the exports of a handler to the host ([`Host::take_exports`]).
///
/// Not by `Module::namespace`: Boa 0.22's namespace objects hold their modules in a field that the collector does not trace, so one
/// that was ever made is never freed, nor is its whole realm.
///
/// # Errors
/// None that a handler could cause: it does not parse.
pub(super) fn entry(handler: &str, exports: &str, context: &mut Context) -> JsResult<Module> {
    let from = serde_json::Value::from(format!("./{handler}"));
    let source = format!("import give from '{EXPORTS}'; import {{ {exports} }} from {from}; give({exports});");
    Module::parse(Source::from_bytes(&source).with_path(Path::new(ENTRY)), None, context)
}

impl ModuleLoader for Loader {
    fn load_imported_module(
        self: Rc<Self>,
        referrer: Referrer,
        request: ModuleRequest,
        context: &RefCell<&mut Context>,
    ) -> impl Future<Output = JsResult<Module>> {
        let context = &mut context.borrow_mut();
        if referrer.path() == Some(Path::new(ENTRY)) && *request.specifier() == EXPORTS {
            let module = Host::exports_module(context);
            return std::future::ready(Ok(module));
        }
        let module = resolve(referrer.path(), request.specifier()).and_then(|path| self.module(&path, context));
        std::future::ready(module)
    }
}

/// A syntax error, with the file that it is in behind the parser's `at line 3, col 9`.
fn in_file(error: &JsError, path: &str) -> JsError {
    let message = error.as_native().map_or("it does not parse", |native| native.message());
    JsNativeError::syntax().with_message(format!("{message} in {path}")).into()
}

/// A relative specifier → a path below the handlers' directory.
fn resolve(referrer: Option<&Path>, specifier: &JsString) -> JsResult<String> {
    let specifier = specifier.to_std_string_lossy();
    let refuse = |why: &str| JsNativeError::typ().with_message(format!("import of {specifier:?}: {why}"));
    if !specifier.starts_with("./") && !specifier.starts_with("../") {
        return Err(refuse("only relative files (./ or ../) can be imported").into());
    }
    let mut path = referrer.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(&specifier).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            _ => return Err(refuse("it is outside of the handlers' directory").into()),
        }
    }
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_stay_below_the_directory() {
        let from =
            |referrer: &str, specifier: &str| resolve(Some(Path::new(referrer)), &JsString::from(specifier)).ok();
        assert_eq!(from("a.js", "./lib/b.js").as_deref(), Some("lib/b.js"));
        assert_eq!(from("lib/b.js", "../c.mjs").as_deref(), Some("c.mjs"));
        assert_eq!(from("lib/b.js", "./../lib/./d.js").as_deref(), Some("lib/d.js"));
        for outside in ["../x.js", "./../../x.js", "/etc/passwd", "fs", "https://example.com/x.js", ""] {
            assert_eq!(from("a.js", outside), None, "{outside}");
        }
    }
}
