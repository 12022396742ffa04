//! The ids of the runtime. Each is validated once, where it enters; from there on the type carries the proof.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::limits;

/// The id of a device: 1 to [`limits::DEVICE_ID_BYTES`] bytes of UTF-8, without control characters and without
/// the characters that mean something in an MQTT topic (`/`, `+`, `#`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// Why a text is not a device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// The text is empty.
    #[error("a device id must not be empty")]
    Empty,
    /// The text is longer than [`limits::DEVICE_ID_BYTES`].
    #[error("a device id has at most {limit} bytes (limit device_id_bytes), this one has {bytes}", limit = limits::DEVICE_ID_BYTES)]
    TooLong {
        /// The length that was offered.
        bytes: usize,
    },
    /// The text holds a character that a device id may not hold.
    #[error(
        "a device id may not contain {found:?} (at byte {offset}): control characters, '/', '+' and '#' are reserved"
    )]
    Reserved {
        /// The offending character.
        found: char,
        /// Its byte offset in the id.
        offset: usize,
    },
}

impl DeviceId {
    /// Checks a text and makes it a device id.
    ///
    /// # Errors
    /// [`DeviceIdError`] says which rule was broken and where.
    pub fn new(text: &str) -> Result<Self, DeviceIdError> {
        Self::check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// The check alone, without an allocation.
    ///
    /// # Errors
    /// As [`DeviceId::new`].
    pub fn check(text: &str) -> Result<(), DeviceIdError> {
        if text.is_empty() {
            return Err(DeviceIdError::Empty);
        }
        if text.len() > limits::DEVICE_ID_BYTES {
            return Err(DeviceIdError::TooLong { bytes: text.len() });
        }
        match text.char_indices().find(|(_, c)| matches!(c, '/' | '+' | '#') || c.is_control()) {
            Some((offset, found)) => Err(DeviceIdError::Reserved { found, offset }),
            None => Ok(()),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The number of a per-core loop, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoopId(pub u16);

impl LoopId {
    /// The loop's place in a table of loops.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The place of a record in the journal: 1 for the first record ever, growing by one a record, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position `records` further on.
    #[must_use]
    pub fn plus(self, records: u64) -> Self {
        Self(self.0 + records)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_checked_once_and_says_what_is_wrong() {
        for good in ["d1", "pump-7", "Gerät 5", "a.b:c@d", &"x".repeat(limits::DEVICE_ID_BYTES)] {
            assert_eq!(DeviceId::new(good).map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        }
        assert_eq!(DeviceId::new(""), Err(DeviceIdError::Empty));
        assert_eq!(DeviceId::new("a/b"), Err(DeviceIdError::Reserved { found: '/', offset: 1 }));
        assert_eq!(DeviceId::new("a\0"), Err(DeviceIdError::Reserved { found: '\0', offset: 1 }));
        let bytes = limits::DEVICE_ID_BYTES + 1;
        assert_eq!(DeviceId::new(&"x".repeat(bytes)), Err(DeviceIdError::TooLong { bytes }));
    }
}
