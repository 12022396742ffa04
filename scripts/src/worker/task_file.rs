//! The file of a task: it runs until its module has run and then until nothing that it began is left.

use std::time::Duration;

use boa_engine::{
    JsError, JsString, JsValue, builtins::promise::PromiseState, js_string, property::PropertyDescriptor,
};

use super::{
    event_loop::Failed,
    fault,
    globals::cloned::{pack, pack_error},
    modules::Loader,
    plugin::Loading,
};
use crate::modules::{self, Format};

impl Loading<'_> {
    /// Runs the file as a task: until its module has run, and then until nothing that it began is left. Its exit code.
    ///
    /// # Errors
    /// What nobody in it caught, packed, and whether that was a limit or the engine.
    pub(super) fn run_task(mut self) -> Result<i32, (Vec<u8>, bool)> {
        /// Of a task that waits for what never comes, as in Node.js.
        const UNSETTLED: i32 = 13;
        let (path, loader) = (self.name.to_owned(), Loader::of(self.context));
        let loader = loader.map_err(|error| self.uncaught(&error, &path))?;
        if !self.tree.is_file(&path) {
            let message = format!("Cannot find module '{}'", modules::shown(&path));
            return Err((pack_error(&message, "MODULE_NOT_FOUND", ""), false));
        }
        match loader.format(&path, self.context) {
            Ok(Format::Module) => {
                let module = loader.module(&path, "", self.context).map_err(|error| self.uncaught(&error, &path))?;
                let promise = module.load_link_evaluate(self.context);
                self.events.await_settled(promise.clone().into());
                self.work_off_task(&path)?;
                match promise.state() {
                    PromiseState::Fulfilled(_) => loader.finish(&path),
                    PromiseState::Rejected(reason) => return Err(self.uncaught(&JsError::from_opaque(reason), &path)),
                    PromiseState::Pending => return Ok(UNSETTLED),
                }
            }
            Ok(_) => drop(loader.run_main(&path, self.context).map_err(|error| self.uncaught(&error, &path))?),
            Err(error) => return Err(self.uncaught(&error, &path)),
        }
        self.events.await_nothing();
        self.work_off_task(&path)?;
        let code = self.exit_code();
        Ok(code)
    }

    /// What a task has queued, and its turns, until nothing keeps it going.
    fn work_off_task(&mut self, path: &str) -> Result<(), (Vec<u8>, bool)> {
        // Its time is virtual: what it waits for takes none.
        const WAIT: Duration = Duration::from_secs(100 * 366 * 86_400);
        self.events.work_off(WAIT, self.context).map_err(|error| self.uncaught(&error, path))?;
        match self.events.failure() {
            None => Ok(()),
            Some(Failed::Threw(reason)) => Err(self.uncaught(&JsError::from_opaque(reason), path)),
            Some(Failed::RanAway) => {
                let most = self.events.manner().jobs;
                let message = format!("the task queued more than {most} jobs (limit script_task_jobs)");
                Err((pack_error(&message, "ERR_TIDEGATE_LIMIT", ""), true))
            }
        }
    }

    /// Tells the listeners of `exit`; what they make of `process.exitCode`, if anybody has asked for `process`.
    fn exit_code(&mut self) -> i32 {
        let _ = self.events.tell_exit(self.context);
        let group = self.local.bridge().group.call(&JsValue::undefined(), &[js_string!("loop").into()], self.context);
        let process = group.ok().and_then(|group| group.as_object()?.get(js_string!("process"), self.context).ok());
        let code = process.and_then(|process| process.as_object()?.get(js_string!("exitCode"), self.context).ok());
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let code = code.and_then(|code| code.as_number()).unwrap_or(0.0) as i32;
        code
    }

    /// An error that nobody in a task caught, packed with its stack; `true`: it was a limit or the engine.
    fn uncaught(&mut self, error: &JsError, path: &str) -> (Vec<u8>, bool) {
        let fault = self.broken(error, path);
        let place = fault.file.as_deref().unwrap_or(path);
        let stack = format!("{}\n    at {place}:{}:{}", fault.message, fault.line, fault.column);
        // One of the engine itself (a limit of it) is no value of the language.
        let Ok(value) = error.clone().into_opaque(self.context) else {
            return (pack_error(&fault.message, "ERR_TIDEGATE_LIMIT", &stack), true);
        };
        let has_place = fault::stack_of(&value, self.context)
            .is_some_and(|stack| stack.lines().any(|line| fault::parse_frame(line).is_some()));
        if let Some(object) = value.as_object().filter(|_| !has_place)
            && object.is::<boa_engine::builtins::error::Error>()
        {
            // A syntax error has its place in its message only.
            let stack = PropertyDescriptor::builder().value(JsString::from(stack.as_str())).configurable(true);
            let _ = object.define_property_or_throw(js_string!("stack"), stack, self.context);
        }
        match pack(&value, true, self.context) {
            Ok(packed) => (packed, false),
            Err(_) => (pack_error(&fault.message, "", &stack), false),
        }
    }
}
