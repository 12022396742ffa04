//! What belongs to one context, and goes with it: the prelude's functions, values on their way to the host, the shapes of its
//! objects. What belongs to the call under way is the worker's ([`super::host`]): no value of a script may be kept there for
//! longer than a call.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
};

use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsString, JsValue, Module, NativeFunction, js_string,
    object::{
        FunctionObjectBuilder, ObjectInitializer,
        builtins::{JsArray, JsFunction},
    },
};

use super::{
    frozen, globals, host,
    json_out::{JsonError, Shapes},
};

/// The functions of `prelude.js` through which the host calls scripts.
pub(super) struct Bridge {
    pub(super) call: JsFunction,
    pub(super) callback: JsFunction,
    pub(super) stack_of: JsFunction,
    /// Loads a group of `globals` or of the modules' library.
    pub(super) group: JsFunction,
    stringify: JsFunction,
}

/// What belongs to one context.
#[derive(Default)]
pub(super) struct Local {
    pub(super) bridge: OnceCell<Bridge>,
    /// What the script threw, on its way to the host.
    pub(super) thrown: RefCell<Option<JsValue>>,
    /// The handler's exports, on their way to the host.
    exports: RefCell<Vec<JsValue>>,
    shapes: RefCell<Shapes>,
}

impl Local {
    /// That of a context.
    pub(super) fn of(context: &Context) -> Rc<Self> {
        context.get_data::<Rc<Self>>().cloned().unwrap_or_default()
    }

    /// Sets up a new context: runs the prelude, then freezes what the language brings with it.
    ///
    /// # Errors
    /// The engine's, if the prelude does not run.
    pub(super) fn install(self: &Rc<Self>, context: &mut Context) -> JsResult<()> {
        context.insert_data(Rc::clone(self));
        let natives = ObjectInitializer::new(context)
            .function(NativeFunction::from_fn_ptr(fail), js_string!("fail"), 1)
            .function(NativeFunction::from_fn_ptr(host::parse), js_string!("parse"), 1)
            .function(NativeFunction::from_fn_ptr(host::random), js_string!("random"), 0)
            .function(NativeFunction::from_fn_ptr(host::console), js_string!("log"), 1)
            .build();
        let prelude = context.eval(boa_engine::Source::from_bytes(include_str!("prelude.js")))?;
        let prelude = callable(&prelude)?;
        let made = prelude.call(&JsValue::undefined(), &[natives.clone().into()], context)?;
        let made =
            made.as_object().ok_or_else(|| JsNativeError::typ().with_message("the prelude returns an object"))?;
        let mut get = |name| callable(&made.get(js_string!(name), context)?);
        let (call, callback) = (get("call")?, get("callback")?);
        let (stringify, stack_of) = (get("stringify")?, get("stackOf")?);
        let group = globals::install(&natives, context)?;
        frozen::freeze(context)?;
        let bridge = Bridge { call, callback, stringify, stack_of, group };
        if self.bridge.set(bridge).is_err() {
            return Err(JsNativeError::typ().with_message("the context is set up already").into());
        }
        Ok(())
    }

    /// The functions of the prelude.
    ///
    /// # Panics
    /// When the context was not set up: a mistake of this crate.
    pub(super) fn bridge(&self) -> &Bridge {
        self.bridge.get().expect("the prelude has run")
    }

    /// What the entry module gave last.
    pub(super) fn take_exports(&self) -> Vec<JsValue> {
        self.exports.take()
    }

    /// Borrows the remembered shapes for a moment: no script may run in it.
    pub(super) fn shapes<R>(&self, with: impl FnOnce(&mut Shapes) -> R) -> R {
        with(&mut self.shapes.borrow_mut())
    }

    /// The engine's `JSON.stringify(value)`; `None`: undefined.
    ///
    /// # Errors
    /// [`JsonError::Threw`], with what was thrown left in `thrown`, or [`JsonError::Engine`].
    pub(super) fn stringify(&self, value: &JsValue, context: &mut Context) -> Result<Option<JsString>, JsonError> {
        let text = self
            .bridge()
            .stringify
            .call(&JsValue::undefined(), std::slice::from_ref(value), context)
            .map_err(|error| JsonError::Engine(error.to_string().into()))?;
        if self.thrown.borrow().is_some() { Err(JsonError::Threw) } else { Ok(text.as_string()) }
    }

    /// A value as `util.inspect` shows it.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn inspect(&self, value: &JsValue, context: &mut Context) -> JsResult<Option<String>> {
        let undefined = JsValue::undefined();
        let group = self.bridge().group.call(&undefined, &[js_string!("inspect").into()], context)?;
        let Some(group) = group.as_object() else { return Ok(None) };
        let arguments = JsArray::from_iter([value.clone()], context).into();
        let shown = group.get(js_string!("shown"), context)?;
        let shown = self.bridge().callback.call(&undefined, &[shown, undefined.clone(), arguments], context)?;
        Ok(shown.as_string().map(|text| text.to_std_string_lossy()))
    }
}

/// The module whose default export takes a handler's exports ([`super::modules::entry`]).
pub(super) fn exports_module(context: &mut Context) -> Module {
    let give = FunctionObjectBuilder::new(context.realm(), NativeFunction::from_fn_ptr(give_exports)).build();
    Module::from_value_as_default(give.into(), context)
}

pub(super) fn callable(value: &JsValue) -> JsResult<JsFunction> {
    value.as_function().ok_or_else(|| JsNativeError::typ().with_message("the prelude returns functions").into())
}

/// Keeps what a script threw for the host.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn fail(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    *Local::of(context).thrown.borrow_mut() = Some(args.get_or_undefined(0).clone());
    Ok(JsValue::undefined())
}

/// Keeps the exports of a handler for the host.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn give_exports(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    *Local::of(context).exports.borrow_mut() = args.to_vec();
    Ok(JsValue::undefined())
}
