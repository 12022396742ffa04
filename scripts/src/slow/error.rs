//! What a piece of slow work failed of, as a script sees it: with the code that Node.js gives, where there is one.

use serde_json::{Map, Value, json};

/// A limit was met.
pub(super) const LIMIT: &str = "ERR_TIDEGATE_LIMIT";
/// Nothing that could be seen outside is done in a shadow or a replay.
pub(super) const REPLAY: &str = "ERR_TIDEGATE_REPLAY";
/// The operator has not allowed this host.
pub(super) const NOT_ALLOWED: &str = "ERR_TIDEGATE_NOT_ALLOWED";
/// The host's breaker is open.
pub(super) const BREAKER: &str = "ERR_TIDEGATE_BREAKER_OPEN";
/// What was asked for makes no sense.
pub(super) const INVALID: &str = "ERR_INVALID_ARG_VALUE";
/// The work itself broke: a defect of the node.
pub(super) const BROKEN: &str = "ERR_TIDEGATE_BROKEN";

/// A failure.
#[derive(Debug, Clone)]
pub(crate) struct SlowError {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Further properties of the error.
    pub(super) more: Map<String, Value>,
}

impl SlowError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), more: Map::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// As the worker reads it.
    pub(super) fn about(&self) -> String {
        let mut about = self.more.clone();
        about.insert("code".to_owned(), json!(self.code));
        about.insert("message".to_owned(), json!(self.message));
        Value::Object(about).to_string()
    }
}

/// What came of a piece of slow work: JSON, and bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(super) about: Value,
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self { about: Value::Null, bytes }
    }

    pub(super) fn about(about: Value) -> Self {
        Self { about, bytes: Vec::new() }
    }
}

pub(crate) type Done = Result<Reply, SlowError>;
