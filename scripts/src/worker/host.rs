//! The host's side of a call: the one call under way in this worker, in whichever context, and the native functions through which a
//! script reaches it (`ctx`, `console`, `Math.random`, `JSON.parse`). There is one `ctx` object for all calls of a context; its
//! getters read the call under way, so that a handler pays only for what it touches.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use boa_engine::{
    Context, JsArgs, JsNativeError, JsObject, JsResult, JsString, JsValue, NativeFunction,
    context::time::{Clock, JsInstant},
    js_string,
    object::{FunctionObjectBuilder, IntegrityLevel, ObjectInitializer},
    property::{PropertyDescriptor, PropertyKey},
};
use hashbrown::HashMap;
use tidegate_actors::{
    ids::{DeviceId, Position},
    limits,
    script::command_id,
};

use super::{
    event_loop::{AskId, CallId},
    fault,
    json_in::{self, Keys},
    json_out::{self, JsonError},
    local::Local,
    task::TaskSide,
};
use crate::frame::{Ask, Command, LogLevel, LogLine, clip};

/// Log lines of one call; more: dropped, and said so.
const LOG_LINES: usize = 20;
/// Characters of one log line.
const LOG_CHARS: usize = 1_000;
/// Longest name of an event, in bytes.
const EMIT_NAME_BYTES: usize = 256;

/// A JSON text that becomes a value when a script first asks for it.
#[derive(Default)]
pub(super) struct Lazy {
    pub(super) json: Option<Rc<[u8]>>,
    pub(super) value: Option<JsValue>,
}

/// What the contexts of one worker share: the call under way. What belongs to one of them is in [`Local`].
#[derive(Default)]
pub(super) struct Host {
    /// The received time of the call's reading: `ctx.now`.
    pub(super) received: Cell<i64>,
    /// What every clock shows: that time, and what the call's timers have waited since.
    pub(super) now: Cell<i64>,
    /// The state of `Math.random`.
    pub(super) random: Cell<u64>,
    pub(super) script: Cell<u8>,
    /// What the node names the call's run by.
    pub(super) run: Cell<u32>,
    /// Is it a reading's call? Only these may ask for slow work.
    pub(super) may_ask: Cell<bool>,
    /// Slow work that is asked for and not sent yet, and what nobody waits for any more.
    pub(super) asks: RefCell<Vec<Ask>>,
    pub(super) forgotten: RefCell<Vec<AskId>>,
    /// All that is under way, with the handler and its call that waits for it.
    pub(super) open_asks: RefCell<HashMap<AskId, (u8, CallId)>>,
    asked: Cell<AskId>,
    pub(super) device: RefCell<JsString>,
    pub(super) topic: RefCell<JsString>,
    /// The device's state before.
    pub(super) previous: RefCell<Lazy>,
    /// `ctx.state` of the script under way.
    pub(super) state: RefCell<Lazy>,
    pub(super) emits: RefCell<Vec<(String, Vec<u8>)>>,
    pub(super) commands: RefCell<Vec<Command>>,
    /// The reading's place in the journal.
    pub(super) position: Cell<u64>,
    /// Bytes of events and commands.
    pub(super) emitted_bytes: Cell<usize>,
    pub(super) logs: RefCell<Vec<LogLine>>,
    pub(super) logged: Cell<usize>,
    /// A limit that the call broke; it fails, whatever the script makes of it.
    pub(super) broken_limit: RefCell<Option<String>>,
    keys: RefCell<Keys>,
    /// Calls so far, in all contexts.
    calls: Cell<CallId>,
    /// Calls beside the one that was asked for that callbacks ran for since the last look: how they stand may have changed.
    pub(super) entered: RefCell<Vec<CallId>>,
    /// Asks the node, in a worker that runs tests.
    pub(super) ask_node: RefCell<Option<AskNode>>,
    /// The task, in a worker that runs one.
    pub(super) task: RefCell<Option<TaskSide>>,
}

/// A question of a test to the node, and its answer, both as JSON.
pub(super) type AskNode = Box<dyn FnMut(String) -> std::io::Result<String>>;

impl Host {
    /// The host of a context.
    pub(super) fn of(context: &Context) -> Rc<Self> {
        context.get_data::<Rc<Self>>().cloned().unwrap_or_default()
    }

    /// A number for a call.
    pub(super) fn next_call(&self) -> CallId {
        self.calls.set(self.calls.get() + 1);
        self.calls.get()
    }

    /// A number for a piece of slow work.
    pub(super) fn next_ask(&self) -> AskId {
        self.asked.set(self.asked.get() + 1);
        self.asked.get()
    }

    /// Nobody waits for it any more.
    pub(super) fn forget_ask(&self, id: AskId) {
        if self.open_asks.borrow_mut().remove(&id).is_none() {
            return;
        }
        let mut asks = self.asks.borrow_mut();
        match asks.iter().position(|ask| ask.id == id) {
            Some(at) => drop(asks.remove(at)),
            None => self.forgotten.borrow_mut().push(id),
        }
    }

    /// Forgets what a context leaves behind that is about to go: the handler of this number lived in it.
    pub(super) fn forget_context(&self, script: u8) {
        self.forget_values();
        let of_script = |(id, (of, _)): (&AskId, &(u8, CallId))| (*of == script).then_some(*id);
        let open: Vec<_> = self.open_asks.borrow().iter().filter_map(of_script).collect();
        open.into_iter().for_each(|id| self.forget_ask(id));
    }

    /// No call is under way whose state could be asked for.
    pub(super) fn forget_values(&self) {
        *self.previous.borrow_mut() = Lazy::default();
        *self.state.borrow_mut() = Lazy::default();
    }

    /// Begins the calls of one reading.
    pub(super) fn begin_reading(&self) {
        self.emits.borrow_mut().clear();
        self.commands.borrow_mut().clear();
        self.emitted_bytes.set(0);
        self.logged.set(0);
        *self.broken_limit.borrow_mut() = None;
    }

    /// Builds the metric that a handler gets.
    ///
    /// # Errors
    /// As [`json_in::metric`].
    pub(super) fn metric(&self, json: &[u8], ts: i64, context: &mut Context) -> Result<JsValue, serde_json::Error> {
        let keys = &mut *self.keys.borrow_mut();
        let (device_id, ts_key) = (PropertyKey::from(js_string!("deviceId")), PropertyKey::from(js_string!("ts")));
        #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds is far below 2^53")]
        let ts = json_in::number(ts as f64);
        json_in::metric(json, [(&device_id, self.device.borrow().clone().into()), (&ts_key, ts)], keys, context)
    }

    /// The value of a lazy JSON text.
    fn value(
        &self,
        lazy: &RefCell<Lazy>,
        absent: impl FnOnce(&Context) -> JsValue,
        context: &mut Context,
    ) -> JsResult<JsValue> {
        if let Some(value) = &lazy.borrow().value {
            return Ok(value.clone());
        }
        let json = lazy.borrow().json.clone();
        let value = match json {
            Some(json) => self.parse(&json, context)?,
            None => absent(context),
        };
        lazy.borrow_mut().value = Some(value.clone());
        Ok(value)
    }

    fn parse(&self, json: &[u8], context: &mut Context) -> JsResult<JsValue> {
        json_in::parse(json, &mut self.keys.borrow_mut(), context)
            .map_err(|error| JsNativeError::syntax().with_message(format!("JSON: {error}")).into())
    }

    /// The value of a JSON file that is imported.
    ///
    /// # Errors
    /// A syntax error with the file's name.
    pub(super) fn parse_json(&self, path: &str, json: &str, context: &mut Context) -> JsResult<JsValue> {
        json_in::parse(json.as_bytes(), &mut self.keys.borrow_mut(), context)
            .map_err(|error| JsNativeError::syntax().with_message(format!("{path}: {error}")).into())
    }

    /// Parses a text, for tests.
    #[cfg(test)]
    pub(super) fn parse_text(&self, json: &[u8], context: &mut Context) -> Result<JsValue, String> {
        json_in::parse(json, &mut self.keys.borrow_mut(), context).map_err(|error| error.to_string())
    }

    fn log(&self, level: LogLevel, values: &[JsValue], context: &mut Context) {
        let logged = self.logged.get();
        self.logged.set(logged + 1);
        if logged > LOG_LINES {
            return;
        }
        let text = if logged == LOG_LINES {
            format!("more than {LOG_LINES} lines in one call: the others are left out")
        } else {
            let texts: Vec<String> = values.iter().map(|value| show(value, context)).collect();
            clip(&texts.join(" "), LOG_CHARS)
        };
        let device = self.device.borrow().to_std_string_lossy();
        self.logs.borrow_mut().push(LogLine { level, script: self.script.get(), device, text });
    }
}

/// The clock of scripts: it moves on only with the timers of the call.
pub(super) struct ScriptClock(pub(super) Rc<Host>);

impl Clock for ScriptClock {
    fn now(&self) -> JsInstant {
        JsInstant::new(0, 0)
    }

    fn system_time_millis(&self) -> i64 {
        self.0.now.get()
    }
}

/// The one `ctx` object: frozen, all getters.
///
/// # Errors
/// The engine's.
pub(super) fn ctx_object(context: &mut Context) -> JsResult<JsObject> {
    let object = ObjectInitializer::new(context)
        .function(NativeFunction::from_fn_ptr(emit), js_string!("emit"), 2)
        .function(NativeFunction::from_fn_ptr(command), js_string!("command"), 3)
        .function(NativeFunction::from_fn_ptr(ctx_log), js_string!("log"), 1)
        .build();
    let getters: [(&str, boa_engine::native_function::NativeFunctionPointer); 5] = [
        ("now", |_, _, context| Ok(JsValue::new(Host::of(context).received.get()))),
        ("deviceId", |_, _, context| Ok(Host::of(context).device.borrow().clone().into())),
        ("topic", |_, _, context| Ok(Host::of(context).topic.borrow().clone().into())),
        ("previous", |_, _, context| {
            let host = Host::of(context);
            host.value(&host.previous, |_| JsValue::null(), context)
        }),
        ("state", |_, _, context| {
            let host = Host::of(context);
            host.value(&host.state, |context| json_in::new_object(context).into(), context)
        }),
    ];
    for (name, getter) in getters {
        let get = FunctionObjectBuilder::new(context.realm(), NativeFunction::from_fn_ptr(getter)).build();
        let mut property = PropertyDescriptor::builder().get(get).enumerable(true).configurable(false);
        if name == "state" {
            let set = NativeFunction::from_fn_ptr(set_state);
            property = property.set(FunctionObjectBuilder::new(context.realm(), set).length(1).build());
        }
        object.define_property_or_throw(js_string!(name), property, context)?;
    }
    object.set_integrity_level(IntegrityLevel::Frozen, context)?;
    Ok(object)
}

/// `JSON.parse` without a reviver.
pub(super) fn parse(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let text = args.get_or_undefined(0).as_string().unwrap_or_default();
    let text = text.to_std_string().map_err(|_| JsNativeError::syntax().with_message("JSON: lone surrogate"))?;
    Host::of(context).parse(text.as_bytes(), context)
}

/// `Math.random`: SplitMix64 from the call's seed.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn random(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    const TWO_POW_53: f64 = 9_007_199_254_740_992.0;
    let host = Host::of(context);
    let state = host.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    host.random.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    Ok(JsValue::new((mixed >> 11) as f64 / TWO_POW_53))
}

/// A value as a line of the log shows it.
fn show(value: &JsValue, context: &mut Context) -> String {
    let local = Local::of(context);
    let shown = value.as_object().and_then(|_| local.inspect(value, context).ok().flatten());
    // What an inspection threw is not the script's failure.
    local.thrown.take();
    shown.unwrap_or_else(|| fault::describe(value))
}

/// `console.*`: the level, then the values.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
pub(super) fn console(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let level = match args.get_or_undefined(0).as_string() {
        Some(level) if level == "debug" => LogLevel::Debug,
        Some(level) if level == "warn" => LogLevel::Warn,
        Some(level) if level == "error" => LogLevel::Error,
        _ => LogLevel::Info,
    };
    Host::of(context).log(level, args.get(1..).unwrap_or_default(), context);
    Ok(JsValue::undefined())
}

#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn ctx_log(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Host::of(context).log(LogLevel::Info, args, context);
    Ok(JsValue::undefined())
}

/// The JSON of a value for a script: what cannot be written is thrown at it.
fn json(value: &JsValue, context: &mut Context) -> JsResult<Vec<u8>> {
    let (local, mut json) = (Local::of(context), Vec::new());
    match json_out::write(value, &local, context, &mut json) {
        Ok(true) => Ok(json),
        Ok(false) => Ok(b"null".to_vec()),
        Err(JsonError::Threw) => {
            let thrown = local.thrown.borrow_mut().take();
            Err(boa_engine::JsError::from_opaque(thrown.unwrap_or_default()))
        }
        Err(error) => Err(JsNativeError::typ().with_message(error.to_string()).into()),
    }
}

/// `ctx.emit(name, payload)`.
fn emit(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let host = Host::of(context);
    let name = args.get_or_undefined(0).as_string().map(|name| name.to_std_string_lossy());
    let Some(name) = name.filter(|name| (1..=EMIT_NAME_BYTES).contains(&name.len())) else {
        let message = format!("ctx.emit: the name must be a string of 1 to {EMIT_NAME_BYTES} bytes");
        return Err(JsNativeError::typ().with_message(message).into());
    };
    let payload = json(args.get_or_undefined(1), context)?;
    let bytes = host.emitted_bytes.get() + name.len() + payload.len();
    host.emitted_bytes.set(bytes);
    let broken = if host.emits.borrow().len() >= limits::SCRIPT_EMITS {
        Some(format!("more than {} ctx.emit calls (limit script_emits)", limits::SCRIPT_EMITS))
    } else if bytes > limits::SCRIPT_VALUE_BYTES {
        Some(format!("ctx.emit of more than {} bytes (limit script_value_bytes)", limits::SCRIPT_VALUE_BYTES))
    } else {
        None
    };
    if let Some(message) = broken {
        *host.broken_limit.borrow_mut() = Some(message.clone());
        return Err(JsNativeError::range().with_message(message).into());
    }
    host.emits.borrow_mut().push((name, payload));
    Ok(JsValue::undefined())
}

/// `ctx.command(deviceId, name, params)`: sent once the reading's outcome is durable. Gives back the command's id.
fn command(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let host = Host::of(context);
    let text = |at: usize| args.get_or_undefined(at).as_string().map(|text| text.to_std_string_lossy());
    let device = text(0).ok_or_else(|| "the device id must be a string".to_owned());
    let device = device.and_then(|id| DeviceId::check(&id).map(|()| id).map_err(|error| error.to_string()));
    let device = device.map_err(|error| JsNativeError::typ().with_message(format!("ctx.command: {error}")))?;
    let Some(name) = text(1).filter(|name| (1..=limits::COMMAND_NAME_BYTES).contains(&name.len())) else {
        let message = format!("ctx.command: the name must be a string of 1 to {} bytes", limits::COMMAND_NAME_BYTES);
        return Err(JsNativeError::typ().with_message(message).into());
    };
    let params = match args.get_or_undefined(2) {
        params if params.is_undefined() => b"{}".to_vec(),
        params => json(params, context)?,
    };
    let index = host.commands.borrow().len();
    let bytes = host.emitted_bytes.get() + name.len() + params.len();
    host.emitted_bytes.set(bytes);
    let broken = if index >= limits::SCRIPT_COMMANDS {
        Some(format!("more than {} ctx.command calls (limit script_commands)", limits::SCRIPT_COMMANDS))
    } else if params.len() > limits::COMMAND_PARAMS_BYTES {
        let most = limits::COMMAND_PARAMS_BYTES;
        Some(format!("ctx.command with parameters of more than {most} bytes (limit command_params_bytes)"))
    } else if bytes > limits::SCRIPT_VALUE_BYTES {
        Some(format!(
            "events and commands of more than {} bytes (limit script_value_bytes)",
            limits::SCRIPT_VALUE_BYTES
        ))
    } else {
        None
    };
    if let Some(message) = broken {
        *host.broken_limit.borrow_mut() = Some(message.clone());
        return Err(JsNativeError::range().with_message(message).into());
    }
    host.commands.borrow_mut().push(Command { device, name, params });
    Ok(JsString::from(command_id(Position(host.position.get()), index).as_str()).into())
}

/// `ctx.state = {…}`.
fn set_state(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let value = args.get_or_undefined(0);
    if value.as_object().is_none_or(|object| object.is_array() || object.is_callable()) {
        return Err(JsNativeError::typ().with_message("ctx.state must be an object").into());
    }
    Host::of(context).state.borrow_mut().value = Some(value.clone());
    Ok(JsValue::undefined())
}
