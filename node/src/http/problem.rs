//! Refusals over HTTP: RFC 9457 problem details that say what, where, and which limit.

use actix_web::{HttpResponse, http::StatusCode};
use serde_json::{Map, Value, json};
use tidegate_actors::{ledger::RejectReason, runtime::QueryError};

use crate::ingest::IngestError;

/// A problem document (RFC 9457 section 3).
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    more: Map<String, Value>,
    retry_after: Option<u32>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let more = Map::from_iter([("detail".to_owned(), Value::String(detail.into()))]);
        Self { status, kind, title, more, retry_after: None }
    }

    /// Adds a member.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Names the limit that was met.
    pub(crate) fn limit(self, name: &str, value: impl Into<Value>) -> Self {
        self.with("limit", name).with("limitValue", value)
    }

    /// Tells the client when to try again, in seconds.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A bad request parameter.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter is not valid", detail).with("field", name)
    }

    /// The node is at a limit or cannot write.
    pub(crate) fn overloaded(detail: impl Into<String>, limit: &str) -> Self {
        let problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The node takes no readings now", detail);
        problem.with("limit", limit).retry_after(1)
    }

    /// A payload that is no reading. `body` is what the error's offset points into.
    pub(crate) fn of_ingest(error: &IngestError, body: &[u8]) -> Self {
        let (status, kind, title) = match error.reason {
            RejectReason::BadJson => (StatusCode::BAD_REQUEST, "bad-json", "The body is not JSON"),
            RejectReason::BadDeviceId => (StatusCode::BAD_REQUEST, "bad-device-id", "No valid device id"),
            RejectReason::BadTime => (StatusCode::BAD_REQUEST, "bad-time", "ts is not a time"),
            RejectReason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large"),
            RejectReason::TooDeep => (StatusCode::BAD_REQUEST, "too-deep", "Nested too deep"),
            RejectReason::DeviceInFlight => {
                (StatusCode::TOO_MANY_REQUESTS, "device-in-flight", "Too many readings under way")
            }
            RejectReason::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The node takes no readings now")
            }
            RejectReason::Memory => (StatusCode::SERVICE_UNAVAILABLE, "memory", "The node is short of memory"),
            RejectReason::HandlerOpen => {
                (StatusCode::SERVICE_UNAVAILABLE, "handler-open", "A handler takes no readings now")
            }
            RejectReason::BadShape => (StatusCode::BAD_REQUEST, "bad-shape", "Not a reading"),
            RejectReason::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The Idempotency-Key belongs to another request",
            ),
        };
        let mut problem = Self::new(status, kind, title, error.detail.clone());
        if let Some(field) = error.field {
            problem = problem.with("field", field);
        }
        if let Some(offset) = error.offset {
            problem = problem.with("offset", offset);
        }
        if let Some((line, column)) = error.line_and_column(body) {
            problem = problem.with("line", line).with("column", column);
        }
        if let Some((name, value)) = error.limit {
            problem = problem.limit(name, value);
        }
        problem
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The document.
    pub(crate) fn json(&self) -> Value {
        let mut document = json!({
            "type": format!("https://tidegate.dev/problems/{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
        });
        if let Value::Object(members) = &mut document {
            members.extend(self.more.clone());
        }
        document
    }

    pub(crate) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after {
            response.insert_header(("retry-after", seconds.to_string()));
        }
        response.content_type("application/problem+json").body(self.json().to_string())
    }
}

/// A query that the runtime did not answer.
impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::PoolFull(_) => Self::overloaded(detail, "blocking_jobs"),
            QueryError::LoopBusy(_) => Self::overloaded(detail, "loop_inbox"),
            QueryError::Store(_) | QueryError::Panicked => {
                tracing::error!(%detail, "a query failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed", detail)
            }
        }
    }
}

impl From<Problem> for HttpResponse {
    fn from(problem: Problem) -> Self {
        problem.response()
    }
}
