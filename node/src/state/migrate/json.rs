//! Latest values as JSON: the Node.js service's map of metrics, and ThingsBoard's latest telemetry.

use serde_json::value::RawValue;
use tidegate_actors::{clock::Millis, ids::DeviceId};

use super::{FileOf, time, value};
use crate::{
    ingest::check_depth,
    state::{line::Members, source::Item},
};

type Made = Result<(DeviceId, Option<Millis>, bytes::Bytes), String>;

/// `{"<device>": {…metric}}` or `[{"deviceId": "<device>", …metric}]`.
pub(super) fn node(of: &FileOf, text: &str) -> Vec<Item> {
    let mut places = Places::new(text);
    if text.trim_start().starts_with('[') {
        return match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(metrics) => {
                let item = |raw: &&RawValue| of.item(places.of(raw.get()), raw.get(), metric(None, raw.get()));
                metrics.iter().map(item).collect()
            }
            Err(error) => vec![not_json(of, text, &error)],
        };
    }
    match serde_json::from_str::<Members<'_>>(text) {
        Ok(devices) => {
            let item = |(name, raw): &(std::borrow::Cow<'_, str>, &RawValue)| {
                of.item(places.of(raw.get()), raw.get(), metric(Some(name), raw.get()))
            };
            devices.0.iter().map(item).collect()
        }
        Err(error) => vec![not_json(of, text, &error)],
    }
}

/// `deviceId` and `ts` are taken out; `timestamp` is a time as well, and stays among the fields.
fn metric(name: Option<&str>, raw: &str) -> Made {
    check_depth(raw.as_bytes()).map_err(|error| error.detail)?;
    let members: Members<'_> =
        serde_json::from_str(raw).map_err(|_| "a device's metric must be a JSON object".to_owned())?;
    let (mut id, mut ts, mut timestamp) = (None, None, None);
    let mut fields = value::Object::default();
    for (member, raw) in &members.0 {
        let raw = raw.get();
        match &**member {
            "deviceId" => {
                let text = serde_json::from_str::<String>(raw);
                id = Some(text.map_err(|_| "deviceId: it must be a text".to_owned())?);
            }
            "ts" => ts = Some(time_of("ts", raw)?),
            "timestamp" => {
                timestamp = Some(time_of("timestamp", raw)?);
                fields.put(member, raw);
            }
            _ => fields.put(member, raw),
        }
    }
    let id = match (name, id) {
        (Some(name), Some(id)) if name != id => {
            return Err(format!("deviceId: it is {id:?}, but the metric stands under {name:?}"));
        }
        (Some(name), _) => name.to_owned(),
        (None, id) => id.ok_or("deviceId: it is missing")?,
    };
    let device = DeviceId::new(&id).map_err(|error| format!("deviceId: {error}"))?;
    Ok((device, ts.or(timestamp), fields.json().into()))
}

fn time_of(field: &str, raw: &str) -> Result<Millis, String> {
    let text = raw.trim_matches('"');
    time::parse(text).ok_or_else(|| {
        format!("{field}: {raw} is no time; milliseconds since 1970-01-01 UTC, or a date as in ISO 8601")
    })
}

/// `{"<key>": [{"ts": …, "value": …}]}` of the device that the file is named after, or `{"<device>": {"<key>": […]}}`.
pub(super) fn thingsboard(of: &FileOf, text: &str) -> Vec<Item> {
    let mut places = Places::new(text);
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(members) => members.0,
        Err(error) => return vec![not_json(of, text, &error)],
    };
    if !members.is_empty() && members.iter().all(|(_, raw)| raw.get().starts_with('[')) {
        let name = of.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return vec![of.item((1, 1), text, telemetry(&name, text))];
    }
    let item = |(name, raw): &(std::borrow::Cow<'_, str>, &RawValue)| {
        of.item(places.of(raw.get()), raw.get(), telemetry(name, raw.get()))
    };
    members.iter().map(item).collect()
}

/// The newest value of each key; the state's time is that of the newest of all.
fn telemetry(name: &str, raw: &str) -> Made {
    #[derive(serde::Deserialize)]
    struct Point<'a> {
        #[serde(borrow)]
        ts: &'a RawValue,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let device = DeviceId::new(name).map_err(|error| error.to_string())?;
    check_depth(raw.as_bytes()).map_err(|error| error.detail)?;
    let keys: Members<'_> = serde_json::from_str(raw)
        .map_err(|_| "a device's telemetry must be an object of keys, each with [{\"ts\", \"value\"}]".to_owned())?;
    let (mut newest, mut fields) = (None, value::Object::default());
    for (key, raw) in &keys.0 {
        let points: Vec<Point<'_>> = serde_json::from_str(raw.get()).map_err(|_| {
            format!("{key}: it must be an array of points such as {{\"ts\": 1700000000000, \"value\": \"21.5\"}}")
        })?;
        let mut latest: Option<(Millis, &str)> = None;
        for point in &points {
            let ts = time_of(key, point.ts.get())?;
            // What a device has never sent is there as null, with the time of the question.
            let is_value = point.value.get() != "null";
            if is_value && latest.is_none_or(|(before, _)| before < ts) {
                latest = Some((ts, point.value.get()));
            }
        }
        if let Some((ts, value)) = latest {
            newest = newest.max(Some(ts));
            match serde_json::from_str::<String>(value) {
                Ok(text) => fields.put(key, &value::of_text(&text)),
                Err(_) => fields.put(key, value),
            }
        }
    }
    Ok((device, newest, fields.json().into()))
}

fn not_json(of: &FileOf, text: &str, error: &serde_json::Error) -> Item {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    of.item((error.line() as u64, error.column().max(1)), line, Err(format!("the file is not JSON: {what}")))
}

/// Lines and columns of parts of a text, asked for in their order.
struct Places<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    line_start: usize,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, line_start: 0 }
    }

    fn of(&mut self, part: &str) -> (u64, usize) {
        let offset = (part.as_ptr() as usize - self.text.as_ptr() as usize).max(self.at);
        for newline in memchr::memchr_iter(b'\n', &self.text.as_bytes()[self.at..offset]) {
            self.line += 1;
            self.line_start = self.at + newline + 1;
        }
        self.at = offset;
        (self.line, offset - self.line_start + 1)
    }
}
