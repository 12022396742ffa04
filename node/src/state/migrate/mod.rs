//! Other systems' latest values as states. `json` and `csv` know the forms, `value` and `time` what stands in them. Pure but for
//! reading the files.
//!
//! A state that was made elsewhere has version 1, and the time of its values as both its device time and its received time; without
//! one the file's own time. So the same file makes the same states every time.

mod csv;
mod json;
mod time;
mod value;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use anyhow::Context;
use bytes::Bytes;
use tidegate_actors::{clock::Millis, ids::DeviceId, state::DeviceState};

use super::{
    args::From,
    source::{Item, Lines, Place, Source},
};
use crate::ingest::each_reading;

/// The records of the files.
pub(super) fn source(from: From, files: &[PathBuf]) -> anyhow::Result<Source> {
    if from == From::Ndjson {
        let mut all: Vec<Box<dyn Iterator<Item = anyhow::Result<Item>>>> = Vec::new();
        for file in files {
            all.push(Box::new(readings(file)?));
        }
        return Ok(Source { total: None, items: Box::new(all.into_iter().flatten()) });
    }
    let mut items = Vec::new();
    for path in files {
        let what = || format!("cannot read {}", path.display());
        let bytes = fs::read(path).with_context(what)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            anyhow::anyhow!("{}: it is not UTF-8 at byte {at}", path.display())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let of = FileOf { path: path.as_path().into(), time: time_of(path).with_context(what)? };
        items.extend(match from {
            From::NodeJson => json::node(&of, text),
            From::ThingsboardJson => json::thingsboard(&of, text),
            From::ThingsboardCsv | From::Ndjson => csv::thingsboard(&of, text),
        });
    }
    Ok(Source { total: Some(items.len() as u64), items: Box::new(items.into_iter().map(Ok)) })
}

/// A file, for the places and the time of what has none.
struct FileOf {
    path: Arc<Path>,
    time: Millis,
}

impl FileOf {
    /// An item of this file: a device's fields and their time.
    fn item(
        &self,
        (line, column): (u64, usize),
        text: &str,
        made: Result<(DeviceId, Option<Millis>, Bytes), String>,
    ) -> Item {
        const SHOWN: usize = 4_096;
        let text: String = text.trim_end().chars().take(SHOWN).collect();
        let state = made.map(|(device, ts, fields)| Box::new(self.state(device, ts, fields)));
        Item { place: Place { file: Arc::clone(&self.path), line, column }, text, state }
    }

    fn state(&self, device: DeviceId, ts: Option<Millis>, state: Bytes) -> DeviceState {
        let received = ts.unwrap_or(self.time);
        DeviceState {
            state,
            device_time: ts,
            newest_device_time: ts,
            version: 1,
            ..DeviceState::empty(device, received)
        }
    }
}

fn time_of(path: &Path) -> std::io::Result<Millis> {
    let modified = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Millis::try_from(modified.as_millis()).unwrap_or(0))
}

/// Plain readings, one a line, as `POST /metrics` takes them.
fn readings(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Item>> + use<>> {
    let time = time_of(path).with_context(|| format!("cannot read {}", path.display()))?;
    let of = FileOf { path: path.into(), time };
    let lines = Lines::open(path)?;
    Ok(lines.map(move |line| {
        let (number, text) = line?;
        let text = text.trim_ascii_end();
        let mut column = 1;
        let mut made = Err("it is no reading".to_owned());
        let read = each_reading(text, None, false, |parsed| {
            made = parsed
                .map_err(|error| {
                    column = error.offset.map_or(1, |offset| offset + 1);
                    error.detail
                })
                .and_then(|parsed| {
                    let id = parsed.device_id.ok_or("deviceId: it is missing")?;
                    let device = DeviceId::new(&id).map_err(|error| format!("deviceId: {error}"))?;
                    Ok((device, parsed.ts, parsed.fields))
                });
        });
        if let Err(error) = read {
            made = Err(error.detail);
        } else if text.trim_ascii_start().first() == Some(&b'[') {
            made = Err("an array: one reading a line".to_owned());
        }
        Ok(of.item((number, column), &String::from_utf8_lossy(text), made))
    }))
}

#[cfg(test)]
mod tests;
