//! CommonJS files and the modules of the host, as modules of the engine.

use std::{path::PathBuf, rc::Rc};

use boa_engine::{
    Context, JsError, JsNativeError, JsObject, JsResult, JsString, JsValue, Module, Source, js_string,
    module::{SyntheticModule, SyntheticModuleInitializer},
    object::builtins::{JsArray, JsFunction},
};
use hashbrown::HashSet;

use super::{BUILTINS, Loader, natives};
use crate::{
    modules::{Format, Request, Target, names, require},
    worker::local::{Local, callable},
};

/// The functions of `commonjs.js`.
pub(super) struct Runtime {
    imported: JsFunction,
    json: JsFunction,
    names: JsFunction,
    values: JsFunction,
    main: JsFunction,
    pick: JsFunction,
}

impl Runtime {
    /// The value of a JSON file, shared with `require`.
    pub(super) fn json(&self, path: &str, context: &mut Context) -> JsResult<JsValue> {
        call(&self.json, &[text(path)], context)
    }
}

impl Loader {
    /// The functions of `commonjs.js`, which runs when they are first needed.
    pub(super) fn runtime(&self, context: &mut Context) -> JsResult<Rc<Runtime>> {
        if let Some(runtime) = &*self.runtime.borrow() {
            return Ok(Rc::clone(runtime));
        }
        let setup = callable(&context.eval(Source::from_bytes(include_str!("commonjs.js")))?)?;
        let builtins = context.eval(Source::from_bytes(include_str!("builtins.js")))?;
        let natives = natives::object(context)?;
        let group = Local::of(context).bridge().group.clone();
        let made = setup.call(&JsValue::undefined(), &[natives.into(), builtins, group.into()], context)?;
        let made =
            made.as_object().ok_or_else(|| JsNativeError::typ().with_message("commonjs.js returns an object"))?;
        let mut get = |name| callable(&made.get(js_string!(name), context)?);
        let runtime = Rc::new(Runtime {
            imported: get("imported")?,
            json: get("json")?,
            names: get("names")?,
            values: get("values")?,
            main: get("main")?,
            pick: get("pick")?,
        });
        *self.runtime.borrow_mut() = Some(Rc::clone(&runtime));
        Ok(runtime)
    }

    /// Runs a handler that is a CommonJS file: its `module.exports`.
    ///
    /// # Errors
    /// What it threw.
    pub(in super::super) fn run_main(&self, path: &str, context: &mut Context) -> JsResult<JsValue> {
        let runtime = self.runtime(context)?;
        call(&runtime.main, &[text(path)], context)
    }

    /// Properties of a value, whatever it is.
    ///
    /// # Errors
    /// What a getter threw.
    pub(in super::super) fn pick(&self, value: &JsValue, of: &[&str], context: &mut Context) -> JsResult<Vec<JsValue>> {
        let runtime = self.runtime(context)?;
        let of = JsArray::from_iter(of.iter().map(|name| text(name)), context);
        list(&call(&runtime.pick, &[value.clone(), of.into()], context)?, context)
    }

    /// A CommonJS file as an `import` sees it.
    pub(super) fn common_js(&self, path: &str, context: &mut Context) -> JsResult<Module> {
        // A source that was refused is told of at once.
        self.source(path, context)?;
        let mut found = Vec::new();
        self.names_of(path, &mut HashSet::new(), &mut found, context)?;
        found.retain(|name| name != "default");
        let names: Vec<JsString> = found.iter().map(|name| JsString::from(name.as_str())).collect();
        let all: Vec<JsString> = std::iter::once(js_string!("default")).chain(names.iter().cloned()).collect();
        let captures = (JsString::from(path), names);
        let run = SyntheticModuleInitializer::from_copy_closure_with_captures(run_imported, captures);
        Ok(Module::synthetic(&all, run, Some(PathBuf::from(path)), None, context))
    }

    /// The names that a file exports, with those that it hands on.
    fn names_of(
        &self,
        path: &str,
        seen: &mut HashSet<String>,
        found: &mut Vec<String>,
        context: &mut Context,
    ) -> JsResult<()> {
        if !seen.insert(path.to_owned()) || self.format(path, context)? != Format::CommonJs {
            return Ok(());
        }
        let of = names(self.source(path, context)?);
        for name in of.names {
            if !found.contains(&name) {
                found.push(name);
            }
        }
        for specifier in of.from {
            let request = Request::new(&self.tree, path, true, &BUILTINS);
            // What cannot be resolved is told of when it runs.
            if let Ok(Target::File(path, _)) = require(&specifier, path, &request) {
                self.names_of(&path, seen, found, context)?;
            }
        }
        Ok(())
    }

    /// A module of the host.
    pub(super) fn builtin(&self, name: &str, context: &mut Context) -> JsResult<Module> {
        let key = format!("node:{name}");
        if let Some(module) = self.modules.borrow().get(&key) {
            return Ok(module.clone());
        }
        let runtime = self.runtime(context)?;
        let found = list(&call(&runtime.names, &[text(name)], context)?, context)?;
        let names: Vec<JsString> = found.iter().skip(1).filter_map(JsValue::as_string).collect();
        let all: Vec<JsString> = std::iter::once(js_string!("default"))
            .chain(names.iter().filter(|name| **name != "default").cloned())
            .collect();
        let captures = (JsString::from(name), found.first().cloned().unwrap_or_default(), names);
        let run = SyntheticModuleInitializer::from_copy_closure_with_captures(give_builtin, captures);
        let module = Module::synthetic(&all, run, None, None, context);
        self.modules.borrow_mut().insert(key, module.clone());
        Ok(module)
    }
}

/// Runs a CommonJS file that was imported.
fn run_imported(module: &SyntheticModule, of: &(JsString, Vec<JsString>), context: &mut Context) -> JsResult<()> {
    let (path, names) = of;
    let loader = Loader::of(context)?;
    let runtime = loader.runtime(context)?;
    let array = JsArray::from_iter(names.iter().cloned().map(JsValue::from), context);
    let values = call(&runtime.imported, &[path.clone().into(), array.into()], context)?;
    let values = list(&values, context)?;
    module.set_export(&js_string!("default"), values.first().cloned().unwrap_or_default())?;
    for (name, value) in names.iter().zip(values.into_iter().skip(1)) {
        module.set_export(name, value)?;
    }
    Ok(())
}

fn give_builtin(
    module: &SyntheticModule,
    of: &(JsString, JsValue, Vec<JsString>),
    context: &mut Context,
) -> JsResult<()> {
    let (builtin, all, names) = of;
    let runtime = Loader::of(context)?.runtime(context)?;
    let array = JsArray::from_iter(names.iter().cloned().map(JsValue::from), context);
    let values = list(&call(&runtime.values, &[builtin.clone().into(), array.into()], context)?, context)?;
    module.set_export(&js_string!("default"), all.clone())?;
    for (name, value) in names.iter().zip(values).filter(|(name, _)| **name != "default") {
        module.set_export(name, value)?;
    }
    Ok(())
}

/// Calls a function of `commonjs.js` through the prelude's `try`.
fn call(function: &JsFunction, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let local = Local::of(context);
    let values = JsArray::from_iter(args.iter().cloned(), context);
    let arguments = [function.clone().into(), JsValue::undefined(), values.into()];
    let result = local.bridge().callback.call(&JsValue::undefined(), &arguments, context)?;
    let thrown = local.thrown.borrow_mut().take();
    thrown.map_or(Ok(result), |thrown| Err(JsError::from_opaque(thrown)))
}

pub(super) fn list(value: &JsValue, context: &mut Context) -> JsResult<Vec<JsValue>> {
    let object: JsObject = value.as_object().ok_or_else(|| JsNativeError::typ().with_message("it is no list"))?;
    let array = JsArray::from_object(object)?;
    let length = i64::try_from(array.length(context)?).unwrap_or(0);
    (0..length).map(|at| array.at(at, context)).collect()
}

pub(super) fn text(text: &str) -> JsValue {
    JsString::from(text).into()
}
