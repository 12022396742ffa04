//! Why a payload is not a reading: what, where and which limit.

use tidegate_actors::ledger::RejectReason;

/// A refused payload. `offset`, `line` and `column` point into the payload as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct IngestError {
    /// The ledger's reason.
    pub(crate) reason: RejectReason,
    /// A sentence for the person who wrote the client.
    pub(crate) detail: String,
    /// The field at fault.
    pub(crate) field: Option<&'static str>,
    /// Byte offset from 0.
    pub(crate) offset: Option<usize>,
    /// The limit's name and value.
    pub(crate) limit: Option<(&'static str, usize)>,
}

impl IngestError {
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), field: None, offset: None, limit: None }
    }

    pub(crate) fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn limit(mut self, name: &'static str, value: usize) -> Self {
        self.limit = Some((name, value));
        self
    }

    /// The same error for a payload that stands `offset` bytes into a larger body.
    pub(crate) fn shifted(mut self, offset: usize) -> Self {
        self.offset = self.offset.map(|own| own + offset);
        self
    }

    /// Line and column of the offset in `body`, both from 1; columns count bytes.
    pub(crate) fn line_and_column(&self, body: &[u8]) -> Option<(usize, usize)> {
        let before = body.get(..self.offset?)?;
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
        Some((line, column))
    }
}
