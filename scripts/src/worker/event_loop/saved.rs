//! A call that waits, as the host remembers it: everything that the natives of `host` know of the call under way.

use boa_engine::JsString;

use super::super::host::{Host, Lazy};
use crate::frame::Command;

/// The host's part of a call.
#[derive(Default)]
pub(in super::super) struct Saved {
    now: i64,
    received: i64,
    random: u64,
    script: u8,
    run: u32,
    may_ask: bool,
    device: JsString,
    topic: JsString,
    previous: Lazy,
    state: Lazy,
    emits: Vec<(String, Vec<u8>)>,
    commands: Vec<Command>,
    position: u64,
    emitted_bytes: usize,
    logged: usize,
    broken_limit: Option<String>,
}

impl Saved {
    /// Takes the call under way out of the host.
    pub(in super::super) fn take(host: &Host) -> Self {
        Self {
            now: host.now.get(),
            received: host.received.get(),
            random: host.random.get(),
            script: host.script.get(),
            run: host.run.get(),
            may_ask: host.may_ask.get(),
            device: host.device.borrow().clone(),
            topic: host.topic.borrow().clone(),
            previous: host.previous.take(),
            state: host.state.take(),
            emits: host.emits.take(),
            commands: host.commands.take(),
            position: host.position.get(),
            emitted_bytes: host.emitted_bytes.get(),
            logged: host.logged.get(),
            broken_limit: host.broken_limit.take(),
        }
    }

    /// Makes it the call under way again.
    pub(in super::super) fn put(self, host: &Host) {
        host.now.set(self.now);
        host.received.set(self.received);
        host.random.set(self.random);
        host.script.set(self.script);
        host.run.set(self.run);
        host.may_ask.set(self.may_ask);
        host.device.replace(self.device);
        host.topic.replace(self.topic);
        host.previous.replace(self.previous);
        host.state.replace(self.state);
        host.emits.replace(self.emits);
        host.commands.replace(self.commands);
        host.position.set(self.position);
        host.emitted_bytes.set(self.emitted_bytes);
        host.logged.set(self.logged);
        host.broken_limit.replace(self.broken_limit);
    }
}
