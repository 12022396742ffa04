//! What the engine asks of its host: no `eval`, small buffers, callbacks through the prelude's `try` and for the call that they
//! belong to.

use std::rc::Rc;

use boa_engine::{
    Context, JsError, JsNativeError, JsObject, JsResult, JsString, JsValue,
    builtins::promise::{OperationType, Promise, PromiseState},
    context::HostHooks,
    job::JobCallback,
    object::builtins::{JsArray, JsFunction, JsPromise},
    realm::Realm,
};

use super::{
    event_loop::{CallId, EventLoop},
    local::Local,
    memory::Memory,
};

/// The engine's questions.
pub(super) struct Hooks {
    pub(super) memory: Rc<Memory>,
    pub(super) local: Rc<Local>,
    pub(super) events: Rc<EventLoop>,
    /// Largest `ArrayBuffer`, in bytes.
    pub(super) buffer_bytes: u64,
}

impl HostHooks for Hooks {
    /// A callback belongs to the call that hands it over.
    fn make_job_callback(&self, callback: JsFunction, _: &mut Context) -> JobCallback {
        JobCallback::new(callback, self.events.current())
    }

    /// Through the prelude's `try`: an exception that crosses from a JavaScript frame to the host leaks the engine's stack slots.
    fn call_job_callback(
        &self,
        job: &JobCallback,
        this: &JsValue,
        args: &[JsValue],
        context: &mut Context,
    ) -> JsResult<JsValue> {
        let owner = job.host_defined().as_any().downcast_ref::<CallId>().copied().unwrap_or(0);
        if !self.events.enter(owner) {
            return Ok(JsValue::undefined());
        }
        let values = JsArray::from_iter(args.iter().cloned(), context);
        let callback: JsValue = job.callback().clone().into();
        let arguments = [callback, this.clone(), values.into()];
        let result = self.local.bridge().callback.call(&JsValue::undefined(), &arguments, context)?;
        let thrown = self.local.thrown.borrow_mut().take();
        thrown.map_or(Ok(result), |thrown| Err(JsError::from_opaque(thrown)))
    }

    fn promise_rejection_tracker(&self, promise: &JsObject<Promise>, operation: OperationType, _: &mut Context) {
        let promise = promise.clone().upcast();
        if let OperationType::Handle = operation {
            self.events.handled(&promise);
        } else if let Ok(of) = JsPromise::from_object(promise.clone())
            && let PromiseState::Rejected(reason) = of.state()
        {
            self.events.rejected(promise, reason);
        }
    }

    fn ensure_can_compile_strings(
        &self,
        _: Realm,
        _: &[JsString],
        _: &JsString,
        _: bool,
        _: &mut Context,
    ) -> JsResult<()> {
        Err(JsNativeError::eval().with_message("handlers cannot compile strings").into())
    }

    /// Scripts live in UTC: the same on every machine.
    fn local_timezone_offset_seconds(&self, _: i64) -> i32 {
        0
    }

    /// Called before each buffer: the collector does not count their bytes, so it is the place to look after them.
    fn max_buffer_size(&self, _: &mut Context) -> u64 {
        self.memory.on_buffer();
        self.buffer_bytes
    }
}
