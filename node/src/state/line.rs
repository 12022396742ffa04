//! The lines of an NDJSON export: what they look like, written and read. Pure; every line that is read is checked as a reading is.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{json, value::RawValue};
use tidegate_actors::{
    clock::Millis,
    idempotency::Requests,
    ids::{DeviceId, Position},
    lifetime::DeviceCounts,
    limits,
    state::DeviceState,
};

use crate::ingest::check_depth;

/// The version of the format, in the first line.
const FORMAT: u64 = 1;
/// What a stored state has besides its texts, generously.
const STORED_OVERHEAD: usize = 64 * 1024;

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The position of the journal at which the states are.
    pub(crate) position: Position,
    /// How many there are.
    pub(crate) devices: u64,
    /// Readings up to there whose handlers had not answered.
    pub(crate) unfinished: u64,
    /// When it was made.
    pub(crate) time: Millis,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// The first.
    Head(Head),
    /// A device.
    State(Box<DeviceState>),
    /// The last: so many devices were written.
    End(u64),
}

/// Why a line is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineError {
    /// Where in it, from 1.
    pub(crate) column: usize,
    /// The member that is wrong.
    pub(crate) field: Option<&'static str>,
    /// What is wrong.
    pub(crate) reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// Appends the first line.
pub(crate) fn put_head(out: &mut Vec<u8>, head: &Head) {
    let Head { position, devices, unfinished, time } = head;
    let line = json!({
        "tidegateExport": FORMAT, "position": position, "devices": devices, "unfinished": unfinished, "time": time,
    });
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

/// Appends a device's line.
pub(crate) fn put_state(out: &mut Vec<u8>, state: &DeviceState) {
    out.extend_from_slice(b"{\"deviceId\":");
    put_text(out, state.device.as_str());
    out.extend_from_slice(b",\"state\":");
    put_json(out, &state.state);
    let times = json!([state.device_time, state.newest_device_time]);
    let rest = format!(
        ",\"deviceTime\":{},\"receivedTime\":{},\"newestDeviceTime\":{},\"version\":{},\"position\":{},\"scripts\":{{",
        times[0], state.received, times[1], state.version, state.position
    );
    out.extend_from_slice(rest.as_bytes());
    for (index, (name, value)) in state.script_state.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_text(out, name);
        out.push(b':');
        put_json(out, value);
    }
    out.extend_from_slice(b"},\"ledger\":");
    // Counts by name always serialize.
    let _ = serde_json::to_writer(&mut *out, &state.counts.reasons());
    out.extend_from_slice(b"}\n");
}

/// Appends the last line.
pub(crate) fn put_end(out: &mut Vec<u8>, devices: u64) {
    out.extend_from_slice(json!({ "tidegateExportEnd": FORMAT, "devices": devices }).to_string().as_bytes());
    out.push(b'\n');
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // A str always serializes.
    let _ = serde_json::to_writer(out, text);
}

/// JSON as it was sent, but on one line: a line break in it stands between values, because a string holds none.
fn put_json(out: &mut Vec<u8>, json: &[u8]) {
    out.extend(json.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
}

/// Reads a line.
///
/// # Errors
/// [`LineError`].
pub(crate) fn parse(line: &[u8]) -> Result<Line, LineError> {
    let bad = |column, reason: String| LineError { column, field: None, reason };
    let text = std::str::from_utf8(line)
        .map_err(|error| bad(error.valid_up_to() + 1, "it is not UTF-8".to_owned()))?
        .trim_end();
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        bad(error.column().max(1), format!("not a line of an export: {what}"))
    })?;
    let fields = Fields { text, members };
    if let Some(format) = fields.optional::<u64>("tidegateExport")? {
        if format != FORMAT {
            return Err(bad(1, format!("the export has format {format}, this tidegate reads {FORMAT}")));
        }
        return Ok(Line::Head(Head {
            position: Position(fields.optional("position")?.unwrap_or_default()),
            devices: fields.required("devices")?,
            unfinished: fields.optional("unfinished")?.unwrap_or_default(),
            time: fields.optional("time")?.unwrap_or_default(),
        }));
    }
    if fields.optional::<u64>("tidegateExportEnd")?.is_some() {
        return Ok(Line::End(fields.required("devices")?));
    }
    fields.state().map(|state| Line::State(Box::new(state)))
}

/// A line's members by name, each with its place in the text.
struct Fields<'a> {
    text: &'a str,
    members: Members<'a>,
}

impl<'a> Fields<'a> {
    fn raw(&self, name: &str) -> Option<&'a str> {
        let found = self.members.0.iter().rev().find(|(member, _)| member == name);
        found.map(|(_, raw)| raw.get()).filter(|raw| *raw != "null")
    }

    fn wrong(&self, field: &'static str, at: Option<&str>, reason: String) -> LineError {
        let column = at.map_or(1, |raw| raw.as_ptr() as usize - self.text.as_ptr() as usize + 1);
        LineError { column, field: Some(field), reason }
    }

    fn optional<T: Deserialize<'a>>(&self, name: &'static str) -> Result<Option<T>, LineError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw).map(Some).map_err(|error| {
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or(&message).to_owned();
            self.wrong(name, Some(raw), what)
        })
    }

    fn required<T: Deserialize<'a>>(&self, name: &'static str) -> Result<T, LineError> {
        self.optional(name)?.ok_or_else(|| self.wrong(name, None, "it is missing".to_owned()))
    }

    fn state(&self) -> Result<DeviceState, LineError> {
        let id: Cow<'_, str> = self.required::<Text<'_>>("deviceId")?.0;
        let device =
            DeviceId::new(&id).map_err(|error| self.wrong("deviceId", self.raw("deviceId"), error.to_string()))?;
        let state = self.raw("state").ok_or_else(|| self.wrong("state", None, "it is missing".to_owned()))?;
        if !state.starts_with('{') {
            return Err(self.wrong("state", Some(state), "it is no JSON object".to_owned()));
        }
        self.check_json("state", state)?;
        let scripts = self.optional::<Members<'_>>("scripts")?.unwrap_or_default().0;
        if scripts.len() > limits::SCRIPTS {
            let reason = format!("more than {} handlers (limit scripts)", limits::SCRIPTS);
            return Err(self.wrong("scripts", self.raw("scripts"), reason));
        }
        for (_, value) in &scripts {
            self.check_json("scripts", value.get())?;
        }
        if self.text.len() + STORED_OVERHEAD > limits::RECORD_BYTES {
            let reason =
                format!("the line has {} bytes, too many for the journal (limit record_bytes)", self.text.len());
            return Err(self.wrong("state", None, reason));
        }
        let owned = |json: &str| Bytes::copy_from_slice(json.as_bytes());
        Ok(DeviceState {
            state: owned(state),
            device_time: self.time("deviceTime")?,
            received: self
                .time("receivedTime")?
                .ok_or_else(|| self.wrong("receivedTime", None, "it is missing".to_owned()))?,
            newest_device_time: self.time("newestDeviceTime")?,
            version: self.required("version")?,
            position: Position(self.optional("position")?.unwrap_or_default()),
            script_state: scripts.iter().map(|(name, json)| (Box::from(&**name), owned(json.get()))).collect(),
            counts: self.counts()?,
            requests: Requests::default(),
            device,
        })
    }

    /// Bounded as a reading is, before anything recursive sees it.
    fn check_json(&self, field: &'static str, json: &str) -> Result<(), LineError> {
        if json.len() > limits::SCRIPT_VALUE_BYTES {
            let reason = format!("more than {} bytes (limit script_value_bytes)", limits::SCRIPT_VALUE_BYTES);
            return Err(self.wrong(field, Some(json), reason));
        }
        check_depth(json.as_bytes()).map_err(|error| self.wrong(field, Some(json), error.detail))
    }

    fn time(&self, name: &'static str) -> Result<Option<Millis>, LineError> {
        let time = self.optional::<Millis>(name)?;
        match time {
            Some(time) if !(-crate::ingest::LATEST..=crate::ingest::LATEST).contains(&time) => {
                Err(self.wrong(name, self.raw(name), format!("{time} is no time in milliseconds since 1970-01-01 UTC")))
            }
            time => Ok(time),
        }
    }

    fn counts(&self) -> Result<DeviceCounts, LineError> {
        type Counts = std::collections::BTreeMap<String, u64>;
        let kinds = self.optional::<std::collections::BTreeMap<String, Counts>>("ledger")?.unwrap_or_default();
        let named = kinds.iter().flat_map(|(kind, counts)| counts.iter().map(|(r, n)| (kind.as_str(), r.as_str(), *n)));
        DeviceCounts::from_names(named).ok_or_else(|| {
            self.wrong(
                "ledger",
                self.raw("ledger"),
                "it has a kind or reason that this tidegate does not know".to_owned(),
            )
        })
    }
}

/// An object's members in their order, their values unread.
#[derive(Default)]
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Text that is borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_actors::{ledger::ConflateReason, script::ParkReason, submission::Disposition};

    use super::*;

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object(spread: bool) -> impl Strategy<Value = Bytes> {
        prop::collection::btree_map(any::<String>(), json_value(), 0..5).prop_map(move |map| {
            let value = serde_json::Value::Object(map.into_iter().collect());
            Bytes::from(if spread { format!("{value:#}") } else { value.to_string() })
        })
    }

    fn time() -> impl Strategy<Value = Option<i64>> {
        prop::option::of(0..crate::ingest::LATEST)
    }

    prop_compose! {
        fn state(spread: bool)(
            id in "[^/+#\\p{Cc}]{1,60}",
            state in object(spread),
            times in (time(), 0..crate::ingest::LATEST, time()),
            version in any::<u64>(),
            position in any::<u64>(),
            scripts in prop::collection::btree_map("[a-z0-9.é\" -]{1,12}", object(spread), 0..4),
            parked in 0_u8..4,
            late in 0_u8..4,
        ) -> DeviceState {
            let mut counts = DeviceCounts::default();
            (0..parked).for_each(|_| counts.settle(Disposition::Parked(ParkReason::Threw)));
            (0..late).for_each(|_| counts.settle(Disposition::Conflated(ConflateReason::Late)));
            DeviceState {
                device: DeviceId::new(&id).unwrap(), state, device_time: times.0, received: times.1,
                newest_device_time: times.2, version, position: Position(position), counts,
                script_state: scripts.into_iter().map(|(name, json)| (name.into(), json)).collect(),
                requests: Requests::default(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_state_comes_back_as_it_was(state in state(false)) {
            let mut line = Vec::new();
            put_state(&mut line, &state);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(parse(&line), Ok(Line::State(Box::new(state))));
        }

        #[test]
        fn a_state_that_was_sent_on_many_lines_comes_back_with_the_same_meaning(state in state(true)) {
            let mut line = Vec::new();
            put_state(&mut line, &state);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let Ok(Line::State(found)) = parse(&line) else { panic!("{:?}", parse(&line)) };
            let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
            prop_assert_eq!(value(&found.state), value(&state.state));
            prop_assert_eq!(found.state.len(), state.state.len());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }

    #[test]
    fn head_and_end_come_back() {
        let head = Head { position: Position(7), devices: 3, unfinished: 1, time: 1_700_000_000_000 };
        let mut lines = Vec::new();
        put_head(&mut lines, &head);
        put_end(&mut lines, 3);
        let parsed: Vec<_> = lines.split_inclusive(|byte| *byte == b'\n').map(parse).collect();
        assert_eq!(parsed, [Ok(Line::Head(head)), Ok(Line::End(3))]);
    }

    #[test]
    fn an_error_names_the_member_and_its_column() {
        for (line, field, column) in [
            (r#"{"deviceId":"a/b","state":{},"receivedTime":1,"version":1}"#, Some("deviceId"), 13),
            (r#"{"deviceId":"a","state":[],"receivedTime":1,"version":1}"#, Some("state"), 25),
            (r#"{"deviceId":"a","state":{},"receivedTime":1,"version":"x"}"#, Some("version"), 55),
            (r#"{"deviceId":"a","state":{},"version":1}"#, Some("receivedTime"), 1),
            (
                r#"{"deviceId":"a","state":{},"receivedTime":1,"version":1,"ledger":{"parked":{"why":1}}}"#,
                Some("ledger"),
                66,
            ),
            (r#"{"deviceId":"a","sta"#, None, 20),
            (r#"{"tidegateExport":9,"devices":1}"#, None, 1),
        ] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert_eq!((error.field, error.column), (field, column), "{line}: {error}");
        }
        let deep = format!(
            r#"{{"deviceId":"a","state":{{"a":{}1{}}},"receivedTime":1,"version":1}}"#,
            "[".repeat(9_000),
            "]".repeat(9_000)
        );
        assert!(parse(deep.as_bytes()).unwrap_err().to_string().contains("nested deeper"));
    }
}
