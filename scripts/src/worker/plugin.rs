//! One handler as it is loaded: its main file is run, its exports are taken, and a plugin's `initialize` is awaited.

use std::{rc::Rc, time::Duration};

use boa_engine::{
    Context, JsError, JsObject, JsResult, JsString, JsValue, Module, builtins::promise::PromiseState, js_string,
    object::builtins::JsFunction,
};
use tidegate_actors::{reading::Channel, script::ParkReason};

use super::{
    event_loop::{EventLoop, Failed},
    fault::{self, fault},
    host::Host,
    json_in, json_out,
    local::{Local, callable},
    modules::{Loader, entry, thrown},
};
use crate::{
    frame::{Exports, Fault},
    modules::{self, Format, Tree},
};

/// What an `await` at the top of a file may wait for, and `initialize` again.
const LOAD_WAIT: Duration = Duration::from_secs(2);
/// What the host looks for among the exports of a handler.
const EXPORTS: [&str; 10] = [
    "onMetric",
    "onConnect",
    "onDisconnect",
    "onCommandReply",
    "onTimer",
    "match",
    "timers",
    "priority",
    "initialize",
    "dispose",
];
/// The first of them are functions for what comes of devices; one of these it must have.
const FUNCTIONS: usize = 5;

type Found = [JsValue; EXPORTS.len()];

/// A handler that is loaded.
pub(super) struct Plugin {
    /// Its functions for what comes of devices, in the order of their names in [`EXPORTS`].
    functions: [Option<JsFunction>; FUNCTIONS],
    pub(super) dispose: Option<JsFunction>,
}

impl Plugin {
    /// Its function for what comes on the channel of this number.
    pub(super) fn function(&self, channel: u8) -> Option<&JsFunction> {
        self.functions.get(Channel::from_number(channel).map(function_of)?)?.as_ref()
    }
}

/// Which of the functions takes what comes on a channel.
fn function_of(channel: Channel) -> usize {
    match channel {
        Channel::Metrics | Channel::Telemetry => 0,
        Channel::Connected => 1,
        Channel::Disconnected => 2,
        Channel::CommandReply => 3,
        Channel::Timer => 4,
    }
}

/// A handler on its way there.
pub(super) struct Loading<'a> {
    pub(super) name: &'a str,
    pub(super) tree: &'a Tree,
    pub(super) host: &'a Rc<Host>,
    pub(super) events: &'a EventLoop,
    pub(super) local: &'a Local,
    pub(super) context: &'a mut Context,
}

impl Loading<'_> {
    /// The handler's functions, and its other exports.
    ///
    /// # Errors
    /// Why it is broken.
    pub(super) fn load(mut self) -> Result<(Plugin, Exports), Fault> {
        let loader = Loader::of(self.context).map_err(|_| not_loaded())?;
        let path = self.path()?;
        let exports = match loader.format(&path, self.context) {
            Ok(Format::Module) => self.of_module(&loader, &path)?,
            Ok(_) => self.of_common_js(&loader, &path)?,
            Err(error) => return Err(self.broken(&error, &path)),
        };
        let [on_metric, on_connect, on_disconnect, on_reply, on_timer, matching, timers, priority, initialize, dispose] =
            exports;
        let functions = [on_metric, on_connect, on_disconnect, on_reply, on_timer].map(|value| value.as_function());
        if functions.iter().all(Option::is_none) {
            let names = EXPORTS[1..FUNCTIONS].join(", ");
            return Err(fault(ParkReason::Threw, format!("it exports no function onMetric (nor {names})")));
        }
        let takes = |channel: &Channel| functions[function_of(*channel)].is_some();
        let channels = Channel::ALL.into_iter().filter(takes).fold(0, |bits, channel| bits | 1 << channel as u8);
        let exports = Exports {
            channels,
            matching: self.json("match", &matching)?,
            timers: self.json("timers", &timers)?,
            priority: self.json("priority", &priority)?,
        };
        if let Some(initialize) = initialize.as_function() {
            let config = self.config()?;
            run(&initialize, &[config], LOAD_WAIT, self.events, self.local, self.context).map_err(|fault| Fault {
                message: format!("initialize: {}", fault.message),
                ..in_file(fault, &path)
            })?;
        }
        Ok((Plugin { functions, dispose: dispose.as_function() }, exports))
    }

    /// An export's JSON; `None`: it has none.
    fn json(&mut self, name: &str, value: &JsValue) -> Result<Option<Vec<u8>>, Fault> {
        let mut json = Vec::new();
        let has_json = json_out::write(value, self.local, self.context, &mut json)
            .map_err(|error| fault(ParkReason::BadResult, format!("its export {name}: {error}")))?;
        Ok(has_json.then_some(json))
    }

    /// Loads a file of tests, as one that is imported: the names of its tests as JSON, and what runs the test of a number.
    ///
    /// # Errors
    /// Why it does not load.
    pub(super) fn load_tests(mut self, filter: &str) -> Result<(String, Plugin), Fault> {
        let loader = Loader::of(self.context).map_err(|_| not_loaded())?;
        let path = self.path()?;
        match loader.format(&path, self.context) {
            Ok(Format::Module) => drop(self.run_module(&loader, &path)?),
            Ok(_) => drop(self.run_common_js(&loader, &path)?),
            Err(error) => return Err(self.broken(&error, &path)),
        }
        let group = self.local.bridge().group.call(&JsValue::undefined(), &[js_string!("test").into()], self.context);
        let made = group.and_then(|group| {
            let group = group.as_object().unwrap_or_else(|| json_in::new_object(self.context));
            let plan = callable(&group.get(js_string!("plan"), self.context)?)?;
            let names = plan.call(&JsValue::undefined(), &[JsString::from(filter).into()], self.context)?;
            Ok((names, callable(&group.get(js_string!("step"), self.context)?)?))
        });
        let (names, step) = made.map_err(|error| self.broken(&error, &path))?;
        let names = names.as_string().map(|names| names.to_std_string_lossy()).unwrap_or_default();
        Ok((names, Plugin { functions: [Some(step), None, None, None, None], dispose: None }))
    }

    /// Its main file.
    fn path(&mut self) -> Result<String, Fault> {
        if self.tree.is_file(self.name) {
            return Ok(self.name.to_owned());
        }
        match modules::plugin(self.tree, self.name) {
            Ok(modules::Plugin::Entry(path)) => Ok(path),
            Ok(modules::Plugin::Library) => Err(fault(ParkReason::Threw, "its package.json names no main file")),
            Err(error) => {
                let error = thrown(&error, self.context);
                Err(self.broken(&error, &Tree::join(self.name, "package.json")))
            }
        }
    }

    /// Its configuration: an object, empty if there is no file of it.
    fn config(&mut self) -> Result<JsValue, Fault> {
        let path = modules::config_of(self.tree, self.name);
        let Some(source) = self.tree.source(&path) else { return Ok(json_in::new_object(self.context).into()) };
        if let Some(why) = source.strip_prefix(modules::REFUSED) {
            return Err(in_file(fault(ParkReason::Threw, why.trim_matches(['"', ')', ';'])), &path));
        }
        let context = &mut *self.context;
        self.host.parse_json(&path, source, context).map_err(|_| {
            let (line, column, message) = match serde_json::from_str::<serde::de::IgnoredAny>(source) {
                Ok(_) => (0, 0, "it cannot be read".to_owned()),
                Err(error) => (error.line(), error.column(), error.to_string()),
            };
            let (line, column) = (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0));
            Fault {
                line,
                column,
                ..in_file(fault(ParkReason::Threw, format!("its configuration is no JSON: {message}")), &path)
            }
        })
    }

    fn run_module(&mut self, loader: &Loader, path: &str) -> Result<Module, Fault> {
        let module = loader.module(path, "", self.context).map_err(|error| self.broken(&error, path))?;
        match self.evaluate(&module).map_err(|error| self.broken(&error, path))? {
            PromiseState::Fulfilled(_) => loader.finish(path),
            PromiseState::Rejected(reason) => return Err(self.broken(&JsError::from_opaque(reason), path)),
            PromiseState::Pending => return Err(fault(ParkReason::Deadline, "it does not finish loading")),
        }
        Ok(module)
    }

    fn of_module(&mut self, loader: &Loader, path: &str) -> Result<Found, Fault> {
        self.run_module(loader, path)?;
        let source = self.tree.source(path).unwrap_or_default();
        // What a source does not name it does not export, but for what it hands on whole.
        let hands_on = source.contains('*');
        let names: Vec<&str> = EXPORTS.into_iter().filter(|name| hands_on || source.contains(name)).collect();
        let mut found = nothing();
        if let Some(values) = self.exports(path, &names)? {
            place(&names, values, &mut found);
        } else {
            // A name that is not exported fails all of them.
            for name in names {
                let values = self.exports(path, &[name])?;
                place(&[name], values.unwrap_or_default(), &mut found);
            }
        }
        if found[..FUNCTIONS].iter().all(JsValue::is_undefined)
            && (hands_on || source.contains("default"))
            && let Some(values) = self.exports(path, &["default"])?
        {
            let all = values.first().cloned().unwrap_or_default();
            return self.pick(loader, &all, path);
        }
        Ok(found)
    }

    /// Exports of a module that has run. `None`: one of them is not exported.
    fn exports(&mut self, path: &str, names: &[&str]) -> Result<Option<Vec<JsValue>>, Fault> {
        if names.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let entry = entry(path, &names.join(", "), self.context).map_err(|error| self.broken(&error, path))?;
        let ran = self.evaluate(&entry);
        Ok(matches!(ran, Ok(PromiseState::Fulfilled(_))).then(|| self.local.take_exports()))
    }

    fn of_common_js(&mut self, loader: &Loader, path: &str) -> Result<Found, Fault> {
        let exports = self.run_common_js(loader, path)?;
        self.pick(loader, &exports, path)
    }

    fn run_common_js(&mut self, loader: &Loader, path: &str) -> Result<JsValue, Fault> {
        let ran = loader.run_main(path, self.context);
        let exports = ran.map_err(|error| self.broken(&error, path))?;
        // What its top left to do.
        self.events.work_off(LOAD_WAIT, self.context).map_err(|error| self.broken(&error, path))?;
        if let Some(Failed::Threw(reason)) = self.events.failure() {
            return Err(self.broken(&JsError::from_opaque(reason), path));
        }
        Ok(exports)
    }

    fn pick(&mut self, loader: &Loader, exports: &JsValue, path: &str) -> Result<Found, Fault> {
        let values = loader.pick(exports, &EXPORTS, self.context).map_err(|error| self.broken(&error, path))?;
        let mut found = nothing();
        place(&EXPORTS, values, &mut found);
        Ok(found)
    }

    /// Loads, links and evaluates a module, and waits for what is awaited at its top.
    fn evaluate(&mut self, module: &Module) -> JsResult<PromiseState> {
        let promise = module.load_link_evaluate(self.context);
        self.events.await_settled(promise.clone().into());
        self.events.work_off(LOAD_WAIT, self.context)?;
        Ok(match self.events.failure() {
            Some(Failed::Threw(reason)) => PromiseState::Rejected(reason),
            Some(Failed::RanAway) => PromiseState::Pending,
            None => promise.state(),
        })
    }

    /// An error in words, with its place.
    pub(super) fn broken(&mut self, error: &JsError, path: &str) -> Fault {
        let fault = with_syntax_place(fault::engine(error, &self.local.bridge().stack_of, self.context), path);
        let Ok(loader) = Loader::of(self.context) else { return fault };
        match loader.take_stray(&fault.message) {
            Some(stray) if fault.line == 0 => {
                Fault { file: Some(stray.file), line: stray.line, column: stray.column, ..fault }
            }
            _ => fault,
        }
    }
}

fn nothing() -> Found {
    [const { JsValue::undefined() }; EXPORTS.len()]
}

/// Puts values where their names are.
fn place(names: &[&str], values: Vec<JsValue>, found: &mut Found) {
    for (name, value) in names.iter().zip(values) {
        if let Some(at) = EXPORTS.iter().position(|of| of == name) {
            found[at] = value;
        }
    }
}

/// Calls a function of a plugin, and waits for what it returns.
///
/// # Errors
/// It threw, or is not done in time.
pub(super) fn run(
    function: &JsFunction,
    args: &[JsValue],
    allowed: Duration,
    events: &EventLoop,
    local: &Local,
    context: &mut Context,
) -> Result<(), Fault> {
    let bridge = local.bridge();
    let mut arguments = vec![function.clone().into()];
    arguments.extend_from_slice(args);
    let value = bridge.call.call(&JsValue::undefined(), &arguments, context);
    let value = value.map_err(|error| fault::engine(&error, &bridge.stack_of, context))?;
    if let Some(thrown) = local.thrown.borrow_mut().take() {
        return Err(fault::thrown(&thrown, &bridge.stack_of, context));
    }
    let promise: Option<JsObject> = value.as_object().filter(is_promise);
    if let Some(promise) = &promise {
        events.await_settled(promise.clone());
    }
    events.work_off(allowed, context).map_err(|error| fault::engine(&error, &bridge.stack_of, context))?;
    let late = || fault(ParkReason::Deadline, format!("it is not done within {} ms", allowed.as_millis()));
    let failed = match events.failure() {
        Some(Failed::RanAway) => return Err(late()),
        Some(Failed::Threw(reason)) => Some(reason),
        None => None,
    };
    let settled = promise.and_then(|promise| boa_engine::object::builtins::JsPromise::from_object(promise).ok());
    match (failed, settled.map(|promise| promise.state())) {
        (Some(reason), _) | (None, Some(PromiseState::Rejected(reason))) => {
            Err(fault::thrown(&reason, &bridge.stack_of, context))
        }
        (None, Some(PromiseState::Pending)) => Err(late()),
        (None, _) => Ok(()),
    }
}

pub(super) fn is_promise(object: &JsObject) -> bool {
    object.is::<boa_engine::builtins::promise::Promise>()
}

pub(super) fn not_loaded() -> Fault {
    fault(ParkReason::Crashed, "the handler is not loaded")
}

/// A fault without any place is in this file.
fn in_file(mut fault: Fault, file: &str) -> Fault {
    fault.file.get_or_insert_with(|| file.to_owned());
    fault
}

/// A parser's message ends with `at line 3, col 9 in a.js`: that is the place, wherever the file was asked for. A fault without any
/// place is in the handler's file.
fn with_syntax_place(mut fault: Fault, file: &str) -> Fault {
    if let Some((message, line, column, file)) = syntax_place(&fault.message) {
        fault = Fault { message: message.to_owned(), line, column, file: Some(file.to_owned()), ..fault };
    }
    in_file(fault, file)
}

/// Message, line, column and file.
fn syntax_place(message: &str) -> Option<(&str, u32, u32, &str)> {
    let (rest, file) = message.rsplit_once(" in ")?;
    let (rest, place) = rest.rsplit_once("at line ")?;
    let (line, column) = place.split_once(", col ")?;
    Some((rest.trim_end_matches([' ', ',']), line.parse().ok()?, column.parse().ok()?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_message_gives_its_place() {
        let message = "expected token ';', got 'foo' in expression statement at line 3, col 9 in lib/a.js";
        let place = ("expected token ';', got 'foo' in expression statement", 3, 9, "lib/a.js");
        assert_eq!(syntax_place(message), Some(place));
        assert_eq!(syntax_place("no place in a.js"), None);
    }
}
