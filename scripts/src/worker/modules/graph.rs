//! `require` of an ES module: its graph is loaded, checked and run at once.

use std::path::Path;

use boa_engine::{
    Context, JsError, JsObject, JsResult, Module, Source,
    ast::{
        operations::{ContainsSymbol, contains},
        scope::Scope,
    },
    builtins::promise::PromiseState,
    interner::Interner,
    object::builtins::JsPromise,
    parser::Parser,
};
use hashbrown::HashSet;

use super::{FACADE, Loader, thrown};
use crate::{
    modules::{Class, Format, ResolveError, shown},
    worker::event_loop::EventLoop,
};

impl Loader {
    /// The namespace of an ES module, for `require`; `running`: what the cache holds that is not done.
    ///
    /// # Errors
    /// It does not load, waits at its top, is among those that wait for the file that asks, or threw.
    pub(super) fn require_module(
        &self,
        path: &str,
        from: &str,
        running: &[String],
        context: &mut Context,
    ) -> JsResult<JsObject> {
        let module = self.module(path, "", context)?;
        load(&module, context)?;
        let graph = self.graph(path);
        // To link or run a module again that is being run would end the process; and Node.js refuses a graph with a CommonJS file
        // that is being run.
        let is_running =
            self.formats.borrow().get(from) == Some(&Format::Module) && !self.finished.borrow().contains(from);
        let from = is_running.then(|| from.to_owned());
        let running = running.iter().chain(&from).find(|other| graph.contains(*other) && *other != path).cloned();
        if let Some(running) = running {
            let message = format!(
                "Cannot require() ES Module {} in a cycle. A cycle involving require(esm) is not allowed: {} is still being loaded",
                shown(path),
                shown(&running)
            );
            return Err(thrown(&ResolveError::new(Class::Error, "ERR_REQUIRE_CYCLE_MODULE", message), context));
        }
        if graph.iter().any(|path| self.waits_at_top(path)) {
            let message = format!(
                "require() cannot be used on an ESM graph with top-level await. Use import() instead. (It requires {})",
                shown(path)
            );
            return Err(thrown(&ResolveError::new(Class::Error, "ERR_REQUIRE_ASYNC_MODULE", message), context));
        }
        run(&module, context)
    }

    /// The exports of an ES module with `__esModule`, which tells transpiled code that `default` is one of them.
    ///
    /// # Errors
    /// None: the module has run.
    pub(super) fn facade(&self, path: &str, context: &mut Context) -> JsResult<JsObject> {
        let key = format!("{FACADE}:{path}");
        let known = self.modules.borrow().get(&key).cloned();
        if let Some(module) = known {
            return Ok(module.namespace(context));
        }
        let from = serde_json::Value::from(path);
        let source = format!("export * from {from}; export {{ default }} from {from}; export const __esModule = true;");
        let module = Module::parse(Source::from_bytes(&source).with_path(Path::new(FACADE)), None, context)?;
        self.modules.borrow_mut().insert(key, module.clone());
        load(&module, context)?;
        run(&module, context)
    }

    /// A module has run, and with it all that it imports.
    pub(in super::super) fn finish(&self, path: &str) {
        let graph = self.graph(path);
        self.finished.borrow_mut().extend(graph);
    }

    /// A module and all that it imports.
    fn graph(&self, path: &str) -> HashSet<String> {
        let imports = self.imports.borrow();
        let mut found = HashSet::from([path.to_owned()]);
        let mut left = vec![path.to_owned()];
        while let Some(path) = left.pop() {
            for next in imports.get(&path).into_iter().flatten() {
                if found.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        found
    }

    /// Is there an `await` at the top of an ES module?
    fn waits_at_top(&self, path: &str) -> bool {
        let Some(source) = self.tree.source(path).filter(|source| source.contains("await")) else { return false };
        if self.formats.borrow().get(path) != Some(&Format::Module) {
            return false;
        }
        let parsed =
            Parser::new(Source::from_bytes(source)).parse_module(&Scope::new_global(), &mut Interner::default());
        parsed.is_ok_and(|module| contains(&module, ContainsSymbol::AwaitExpression))
    }
}

/// Loads a module and what it imports, now.
fn load(module: &Module, context: &mut Context) -> JsResult<()> {
    let events = EventLoop::of(context);
    let loaded = events.load_now(module, context)?;
    settled(&loaded, &events).map(drop)
}

/// Links and runs a module that waits for nothing.
fn run(module: &Module, context: &mut Context) -> JsResult<JsObject> {
    module.link(context)?;
    let ran = module.evaluate(context)?;
    settled(&ran, &EventLoop::of(context))?;
    Ok(module.namespace(context))
}

/// What a promise that was settled at once came to.
fn settled(promise: &JsPromise, events: &EventLoop) -> JsResult<()> {
    if let PromiseState::Rejected(reason) = promise.state() {
        // It is told of here.
        events.handled(&promise.clone().into());
        return Err(JsError::from_opaque(reason));
    }
    Ok(())
}
