//! The modules of one context: ES modules, CommonJS, JSON and those of the host, as Node.js 20 has them, on the sources that the
//! node sent ([`crate::modules`] says where a specifier leads). A worker opens no file itself.
//!
//! An ES module is one of the engine's. A CommonJS file runs in `commonjs.js`; to an `import` it is a synthetic module whose
//! names were found in its source, and which runs it when its turn comes.

mod commonjs;
mod graph;
mod library;
mod natives;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, path::Path, rc::Rc};

use boa_engine::{
    Context, JsError, JsNativeError, JsObject, JsResult, JsString, JsValue, Module, NativeFunction, Script, Source,
    js_string,
    module::{ModuleLoader, ModuleRequest, Referrer},
    object::FunctionObjectBuilder,
    property::PropertyDescriptor,
};
use hashbrown::{HashMap, HashSet};
use url::Url;

use self::commonjs::Runtime;
pub(super) use self::library::LIBRARY;
use super::{host::Host, local::exports_module};
use crate::modules::{
    Class, Format, REFUSED, Request, ResolveError, Target, Tree, format, import, is_body, module_of, shown,
};

/// The path of the module that asks for a handler's exports, and the one thing that only it can import.
const ENTRY: &str = "tidegate:entry";
const EXPORTS: &str = "tidegate:exports";
/// The path of a module that stands before an ES module for `require`.
const FACADE: &str = "tidegate:facade";
/// What is put before a CommonJS source, on its first line.
pub(super) const WRAPPER: &str = "(function (exports, require, module, __filename, __dirname) {";
/// The modules of the host (`builtins.js`).
const BUILTINS: [&str; 27] = [
    "assert",
    "assert/strict",
    "buffer",
    "console",
    "crypto",
    "dns",
    "dns/promises",
    "events",
    "fs",
    "fs/promises",
    "module",
    "path",
    "path/posix",
    "perf_hooks",
    "process",
    "querystring",
    "string_decoder",
    "test",
    "tidegate:test",
    "timers",
    "timers/promises",
    "url",
    "util",
    "util/types",
    "sys",
    "worker_threads",
    "zlib",
];

/// The modules of one context.
pub(super) struct Loader {
    tree: Rc<Tree>,
    /// By path and what followed it in the import, and `node:name`.
    modules: RefCell<HashMap<String, Module>>,
    formats: RefCell<HashMap<String, Format>>,
    /// Of files with another first line than [`WRAPPER`]: its length.
    shifts: RefCell<HashMap<String, usize>>,
    /// CommonJS sources that are parsed and have not run.
    scripts: RefCell<HashMap<String, Script>>,
    /// JSON that an import read before there was a `require` to share it with.
    jsons: RefCell<HashMap<String, JsValue>>,
    runtime: RefCell<Option<Rc<Runtime>>>,
    /// Who imports whom.
    imports: RefCell<HashMap<String, Vec<String>>>,
    /// The ES modules that are known to have run.
    finished: RefCell<HashSet<String>>,
    /// The last import that led nowhere: what was said of it, and where it is.
    stray: RefCell<Option<Stray>>,
}

/// An import that led nowhere.
pub(super) struct Stray {
    pub(super) message: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Loader {
    pub(super) fn new(tree: Rc<Tree>) -> Self {
        Self {
            tree,
            modules: RefCell::default(),
            formats: RefCell::default(),
            shifts: RefCell::default(),
            scripts: RefCell::default(),
            jsons: RefCell::default(),
            runtime: RefCell::default(),
            imports: RefCell::default(),
            finished: RefCell::default(),
            stray: RefCell::default(),
        }
    }

    /// The loader of a context.
    ///
    /// # Errors
    /// It is no context of a worker.
    pub(super) fn of(context: &Context) -> JsResult<Rc<Self>> {
        let loader = context.downcast_module_loader::<Self>();
        loader.ok_or_else(|| JsNativeError::typ().with_message("there are no modules here").into())
    }

    /// The import that led nowhere, if this is what was said of it.
    pub(super) fn take_stray(&self, message: &str) -> Option<Stray> {
        self.stray.take().filter(|stray| message.ends_with(&stray.message))
    }

    /// The kind of a file. Of an unclear one: what it parses as.
    ///
    /// # Errors
    /// Its package's manifest cannot be read.
    pub(super) fn format(&self, path: &str, context: &mut Context) -> JsResult<Format> {
        if let Some(format) = self.formats.borrow().get(path) {
            return Ok(*format);
        }
        let found = format(&self.tree, path).map_err(|error| thrown(&error, context))?;
        let found = if found == Format::Unclear { self.tried(path, context) } else { found };
        self.formats.borrow_mut().insert(path.to_owned(), found);
        Ok(found)
    }

    fn tried(&self, path: &str, context: &mut Context) -> Format {
        if let Ok(script) = self.parse_script(path, context) {
            self.scripts.borrow_mut().insert(path.to_owned(), script);
            return Format::CommonJs;
        }
        match self.parse_module(path, context) {
            Ok(module) => {
                self.modules.borrow_mut().insert(path.to_owned(), module);
                Format::Module
            }
            Err(_) => Format::CommonJs,
        }
    }

    /// A file's source.
    ///
    /// # Errors
    /// There is none, or it was refused before any parser saw it.
    fn source(&self, path: &str, context: &mut Context) -> JsResult<&str> {
        let Some(source) = self.tree.source(path) else {
            let message = format!("Cannot find module '{}'", shown(path));
            return Err(thrown(&ResolveError::new(Class::Error, "ERR_MODULE_NOT_FOUND", message), context));
        };
        match source.strip_prefix(REFUSED).and_then(|rest| rest.strip_suffix(");")) {
            Some(why) => {
                let why = serde_json::from_str::<String>(why).unwrap_or_default();
                Err(thrown(&ResolveError::new(Class::SyntaxError, "", why), context))
            }
            None => Ok(source),
        }
    }

    fn parse_module(&self, path: &str, context: &mut Context) -> JsResult<Module> {
        let source = without_mark(self.source(path, context)?);
        let parsed = Module::parse(Source::from_bytes(source).with_path(Path::new(path)), None, context);
        parsed.map_err(|error| in_file(&error, path, 0))
    }

    fn parse_script(&self, path: &str, context: &mut Context) -> JsResult<Script> {
        let source = self.source(path, context)?;
        let source = without_mark(source);
        if is_body(path) {
            let (before, body) = module_of(path, source).map_err(|error| thrown(&error, context))?;
            let wrapped = format!("{before}{body}");
            self.shifts.borrow_mut().insert(path.to_owned(), before.len());
            let parsed = Script::parse(Source::from_bytes(&wrapped).with_path(Path::new(path)), None, context);
            return parsed.map_err(|error| in_file(&error, path, before.len()));
        }
        // A first line for the shell.
        let comment = if source.starts_with("#!") { "//" } else { "" };
        let wrapped = format!("{WRAPPER}{comment}{source}\n}})");
        let parsed = Script::parse(Source::from_bytes(&wrapped).with_path(Path::new(path)), None, context);
        parsed.map_err(|error| in_file(&error, path, WRAPPER.len() + comment.len()))
    }

    /// Is this place in a file that is wrapped? Then its first line is shifted.
    pub(super) fn unwrapped(&self, file: &str, line: u32, column: u32) -> u32 {
        let shift = self.shifts.borrow().get(file).copied().unwrap_or(WRAPPER.len());
        let shift = u32::try_from(shift).unwrap_or(0);
        let is_wrapped = line == 1 && self.formats.borrow().get(file) == Some(&Format::CommonJs);
        if is_wrapped { column.saturating_sub(shift).max(1) } else { column }
    }

    /// The module of a file; the same one each time.
    ///
    /// # Errors
    /// There is no such file, or it does not parse.
    pub(super) fn module(&self, path: &str, suffix: &str, context: &mut Context) -> JsResult<Module> {
        let key = format!("{path}{suffix}");
        if let Some(module) = self.modules.borrow().get(&key) {
            return Ok(module.clone());
        }
        let module = match self.format(path, context)? {
            Format::Json => {
                let value = self.json(path, context)?;
                Module::from_value_as_default(value, context)
            }
            Format::Module => {
                let tried = self.modules.borrow().get(&key).cloned();
                match tried {
                    Some(module) => module,
                    None => self.parse_module(path, context)?,
                }
            }
            Format::CommonJs | Format::Unclear => self.common_js(path, context)?,
        };
        self.modules.borrow_mut().insert(key, module.clone());
        Ok(module)
    }

    /// The value of a JSON file.
    fn json(&self, path: &str, context: &mut Context) -> JsResult<JsValue> {
        let runtime = self.runtime.borrow().clone();
        if let Some(runtime) = runtime {
            return runtime.json(path, context);
        }
        let source = without_mark(self.source(path, context)?);
        let value = Host::of(context).parse_json(path, source, context)?;
        self.jsons.borrow_mut().insert(path.to_owned(), value.clone());
        Ok(value)
    }

    /// Where an import leads.
    fn import(&self, from: &str, specifier: &str, context: &mut Context) -> JsResult<Target> {
        let request = Request::new(&self.tree, from, false, &BUILTINS);
        import(specifier, from, &request).map_err(|error| {
            self.note_stray(from, specifier, &error.message);
            thrown(&error, context)
        })
    }

    /// Remembers where an import is that led nowhere.
    fn note_stray(&self, from: &str, specifier: &str, message: &str) {
        let Some(source) = self.tree.source(from) else { return };
        let found = ['"', '\''].iter().filter_map(|quote| source.find(&format!("{quote}{specifier}{quote}"))).min();
        let Some(at) = found else { return };
        let before = &source[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        *self.stray.borrow_mut() = Some(Stray {
            message: message.to_owned(),
            file: from.to_owned(),
            line: u32::try_from(line).unwrap_or(0),
            column: u32::try_from(column).unwrap_or(0),
        });
    }

    fn load(&self, referrer: &Referrer, request: &ModuleRequest, context: &mut Context) -> JsResult<Module> {
        let specifier = request.specifier().to_std_string_lossy();
        let from = referrer.path().map(|path| path.to_string_lossy().into_owned());
        let Some(from) = from else {
            return Err(JsNativeError::typ().with_message("an import without a file").into());
        };
        if from == ENTRY && specifier == EXPORTS {
            return Ok(exports_module(context));
        }
        if from == ENTRY || from == FACADE {
            return self.module(&specifier, "", context);
        }
        let target = self.import(&from, &specifier, context)?;
        check_attributes(&self.tree, request, &target, context)?;
        let (key, module) = match target {
            Target::File(path, suffix) => {
                let module = self.module(&path, &suffix, context)?;
                (path, module)
            }
            Target::Builtin(name) => {
                let module = self.builtin(&name, context)?;
                (format!("node:{name}"), module)
            }
        };
        let mut imports = self.imports.borrow_mut();
        let of = imports.entry(from).or_default();
        if !of.contains(&key) {
            of.push(key);
        }
        Ok(module)
    }
}

impl ModuleLoader for Loader {
    fn load_imported_module(
        self: Rc<Self>,
        referrer: Referrer,
        request: ModuleRequest,
        context: &RefCell<&mut Context>,
    ) -> impl Future<Output = JsResult<Module>> {
        std::future::ready(self.load(&referrer, &request, &mut context.borrow_mut()))
    }

    fn init_import_meta(self: Rc<Self>, meta: &JsObject, module: &Module, context: &mut Context) {
        let modules = self.modules.borrow();
        let Some(key) = modules.iter().find(|(_, of)| *of == module).map(|(key, _)| key.clone()) else { return };
        drop(modules);
        let path = module.path().map_or_else(|| key.clone(), |path| path.to_string_lossy().into_owned());
        let suffix = key.strip_prefix(&path).unwrap_or_default();
        let resolve = FunctionObjectBuilder::new(
            context.realm(),
            NativeFunction::from_copy_closure_with_captures(natives::meta_resolve, JsString::from(path.as_str())),
        )
        .name(js_string!("resolve"))
        .length(1)
        .build();
        let text = |text: &str| JsValue::from(JsString::from(text));
        let values = [
            ("dirname", text(&shown(Tree::folder_of(&path)))),
            ("filename", text(&shown(&path))),
            ("resolve", resolve.into()),
            ("url", text(&format!("{}{suffix}", url_of(&shown(&path))))),
        ];
        for (name, value) in values {
            let property =
                PropertyDescriptor::builder().value(value).writable(true).enumerable(true).configurable(true);
            // It is a fresh object: nothing refuses a property of it.
            let _ = meta.define_property_or_throw(JsString::from(name), property, context);
        }
    }
}

/// A module that hands exports of a handler to the host ([`super::local::Local::take_exports`]).
///
/// Not by `Module::namespace`: Boa 0.22's namespace objects hold their modules in a field that the collector does not trace, so one
/// that was ever made is never freed, nor is its whole realm.
///
/// # Errors
/// None that a handler could cause: it does not parse.
pub(super) fn entry(path: &str, exports: &str, context: &mut Context) -> JsResult<Module> {
    let from = serde_json::Value::from(path);
    // A name of their own: `default` is none that can be given on.
    let imported: Vec<_> = exports.split(", ").enumerate().map(|(at, name)| format!("{name} as e{at}")).collect();
    let given: Vec<_> = (0..imported.len()).map(|at| format!("e{at}")).collect();
    let source = format!(
        "import give from '{EXPORTS}'; import {{ {} }} from {from}; give({});",
        imported.join(", "),
        given.join(", ")
    );
    Module::parse(Source::from_bytes(&source).with_path(Path::new(ENTRY)), None, context)
}

/// Is there a file at this path?
pub(super) fn has_file(path: &str, context: &Context) -> bool {
    Loader::of(context).is_ok_and(|loader| loader.tree.is_file(path))
}

/// `with { type: "json" }` is for JSON, and nothing else is known.
fn check_attributes(tree: &Tree, request: &ModuleRequest, target: &Target, context: &mut Context) -> JsResult<()> {
    for attribute in request.attributes() {
        let (key, value) = (attribute.key().to_std_string_lossy(), attribute.value().to_std_string_lossy());
        let specifier = request.specifier().to_std_string_lossy();
        let bad = |code, message: String| ResolveError::new(Class::TypeError, code, message);
        let error = match (key.as_str(), value.as_str()) {
            ("type", "json") => {
                let Target::File(path, _) = target else { continue };
                if matches!(format(tree, path), Ok(Format::Json)) {
                    continue;
                }
                let message = format!("Module \"{}\" is not of type \"json\"", url_of(&shown(path)));
                bad("ERR_IMPORT_ASSERTION_TYPE_FAILED", message)
            }
            ("type", _) => bad(
                "ERR_IMPORT_ASSERTION_TYPE_UNSUPPORTED",
                format!("Import attribute \"type\" with value \"{value}\" is not supported"),
            ),
            _ => bad(
                "ERR_IMPORT_ATTRIBUTE_UNSUPPORTED",
                format!("Import attribute \"{key}\" with value \"{value}\" is not supported in {specifier}"),
            ),
        };
        return Err(thrown(&error, context));
    }
    Ok(())
}

/// `/handlers/a b.js` → `file:///handlers/a%20b.js`.
fn url_of(path: &str) -> String {
    Url::from_file_path(path).map_or_else(|()| format!("file://{path}"), |url| url.to_string())
}

/// A source without its byte order mark.
fn without_mark(source: &str) -> &str {
    source.strip_prefix('\u{feff}').unwrap_or(source)
}

/// An error as scripts see it.
pub(super) fn thrown(error: &ResolveError, context: &mut Context) -> JsError {
    let native = match error.class {
        Class::Error => JsNativeError::error(),
        Class::TypeError => JsNativeError::typ(),
        Class::SyntaxError => JsNativeError::syntax(),
    };
    let object = native.with_message(error.message.clone()).into_opaque(context);
    if !error.code.is_empty() {
        let code = PropertyDescriptor::builder()
            .value(JsString::from(error.code))
            .writable(true)
            .enumerable(true)
            .configurable(true);
        if let Err(error) = object.define_property_or_throw(js_string!("code"), code, context) {
            return error;
        }
    }
    JsError::from_opaque(object.into())
}

/// A syntax error, with the file that it is in behind the parser's `at line 3, col 9`. `shift`: characters before its first line.
fn in_file(error: &JsError, path: &str, shift: usize) -> JsError {
    let Some(native) = error.as_native() else { return error.clone() };
    let message = native.message();
    let message = match message.rsplit_once("at line 1, col ") {
        Some((before, column)) if shift > 0 => match column.parse::<usize>() {
            Ok(column) => format!("{before}at line 1, col {}", column.saturating_sub(shift).max(1)),
            Err(_) => message.to_owned(),
        },
        _ => message.to_owned(),
    };
    JsNativeError::syntax().with_message(format!("{message} in {path}")).into()
}
