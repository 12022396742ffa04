//! Values on their way from a source to the typed configuration: raw as typed, checked, typed. Opens nothing.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::json;
use tidegate_actors::{reading::AckLevel, script::OpenPolicy};

use super::keys::LogFormat;
use crate::{auth::Role, transport::identity::DeviceIdFrom};

/// A value as its source spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A word of a flag or a variable, which has no type of its own.
    Word(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file; wide enough for whatever does not fit its key.
    Integer(i128),
    /// A boolean of the file.
    Boolean(bool),
    /// An array of the file.
    List(Vec<Raw>),
    /// A type that no key takes, by its name.
    Other(&'static str),
}

/// A value that its key's rule has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A count, a size in bytes or a time in milliseconds: the rule knows which.
    Number(u64),
    /// A switch.
    Boolean(bool),
    /// A path, a choice or a log filter.
    Text(String),
    /// Addresses to listen on.
    Binds(Vec<SocketAddr>),
    /// A key of a row that has no value.
    Absent,
}

impl Value {
    /// Is there none? (A path that is not given is an empty one.)
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent) || matches!(self, Self::Text(text) if text.is_empty())
    }

    /// The value for machines; sizes are bytes.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Number(number) => json!(number),
            Self::Boolean(on) => json!(on),
            Self::Text(text) => json!(text),
            Self::Binds(binds) => json!(binds),
            Self::Absent => serde_json::Value::Null,
        }
    }
}

/// A text that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// What is shown in its place.
    const MASK: &str = "***";

    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever has to send it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Self::MASK)
    }
}

impl Field for Secret {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::Text(Self::MASK.to_owned())
    }
}

/// Keys of rows that may have no value.
macro_rules! optional_fields {
    ($($type:ty),+) => {$(
        impl $crate::config::value::Field for Option<$type> {
            fn from_value(value: $crate::config::value::Value) -> Option<Self> {
                <$type as $crate::config::value::Field>::from_value(value).map(Some)
            }
            fn to_value(&self) -> $crate::config::value::Value {
                self.as_ref().map_or($crate::config::value::Value::Absent, $crate::config::value::Field::to_value)
            }
        }
    )+};
}
pub(crate) use optional_fields;

optional_fields!(String, Secret);

/// A field's type, to and from [`Value`]. `None`: the value does not fit the type.
pub(crate) trait Field: Sized {
    /// The field of a checked value.
    fn from_value(value: Value) -> Option<Self>;
    /// The value of a field.
    fn to_value(&self) -> Value;
}

macro_rules! number_fields {
    ($($number:ty),+) => {$(
        impl Field for $number {
            fn from_value(value: Value) -> Option<Self> {
                let Value::Number(number) = value else { return None };
                number.try_into().ok()
            }
            fn to_value(&self) -> Value {
                Value::Number(u64::try_from(*self).unwrap_or(u64::MAX))
            }
        }
    )+};
}

number_fields!(u8, u16, u32, u64, usize);

impl Field for Duration {
    fn from_value(value: Value) -> Option<Self> {
        u64::from_value(value).map(Self::from_millis)
    }

    fn to_value(&self) -> Value {
        Value::Number(u64::try_from(self.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Field for bool {
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Boolean(on) = value { Some(on) } else { None }
    }

    fn to_value(&self) -> Value {
        Value::Boolean(*self)
    }
}

impl Field for String {
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Field for PathBuf {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).map(Self::from)
    }

    fn to_value(&self) -> Value {
        Value::Text(self.to_string_lossy().into_owned())
    }
}

impl Field for Option<PathBuf> {
    fn from_value(value: Value) -> Option<Self> {
        String::from_value(value).map(|text| (!text.is_empty()).then(|| text.into()))
    }

    fn to_value(&self) -> Value {
        Value::Text(self.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
    }
}

impl Field for DeviceIdFrom {
    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "none" => Some(Self::None),
            "cn" => Some(Self::Cn),
            "san-dns" => Some(Self::SanDns),
            "san-uri" => Some(Self::SanUri),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        let name = match self {
            Self::None => "none",
            Self::Cn => "cn",
            Self::SanDns => "san-dns",
            Self::SanUri => "san-uri",
        };
        Value::Text(name.to_owned())
    }
}

impl Field for Role {
    fn from_value(value: Value) -> Option<Self> {
        Self::parse(&String::from_value(value)?)
    }

    fn to_value(&self) -> Value {
        Value::Text(self.name().to_owned())
    }
}

impl Field for Vec<SocketAddr> {
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Binds(binds) = value { Some(binds) } else { None }
    }

    fn to_value(&self) -> Value {
        Value::Binds(self.clone())
    }
}

impl Field for AckLevel {
    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "received" => Some(Self::Received),
            "committed" => Some(Self::Committed),
            "processed" => Some(Self::Processed),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        let name = match self {
            Self::Received => "received",
            Self::Committed => "committed",
            Self::Processed => "processed",
        };
        Value::Text(name.to_owned())
    }
}

impl Field for OpenPolicy {
    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "pass" => Some(Self::Pass),
            "park" => Some(Self::Park),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        let name = match self {
            Self::Pass => "pass",
            Self::Park => "park",
            Self::Reject => "reject",
        };
        Value::Text(name.to_owned())
    }
}

impl Field for LogFormat {
    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "json" => Some(Self::Json),
            "pretty" => Some(Self::Pretty),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        Value::Text(if *self == Self::Json { "json" } else { "pretty" }.to_owned())
    }
}
