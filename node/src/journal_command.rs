//! `tidegate journal inspect`: what the journal holds, a line a record, for people or as NDJSON. Reads only, so it may be
//! pointed at the directory of a running node, and at a damaged one.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, ErrorKind, Write},
    ops::ControlFlow,
    path::Path,
};

use anyhow::Context;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidegate_actors::{
    ids::{DeviceId, Position},
    journal::{Found, Inspection, Record, SegmentReport, Span, inspect},
    script::Verdict,
};

use crate::{cli::JournalCommand, exit::Exit, utc::utc};

/// Characters of a payload or a message that a line for people shows.
const SHOWN: usize = 160;

/// Runs a command of `tidegate journal`.
///
/// # Errors
/// The path cannot be read, or stdout failed. Damage is no error: it is shown.
pub(crate) fn run(command: &JournalCommand) -> anyhow::Result<Exit> {
    let JournalCommand::Inspect { path, from, to, device, summary, json } = command;
    let span = Span { from: Position(*from), to: Position(*to) };
    let mut out = Out { to: BufWriter::new(io::stdout().lock()), json: *json, failed: None };
    let all = inspect(path, span, &mut |found| {
        out.tell(&found, device.as_deref(), *summary);
        if out.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    out.end(&all);
    match out.failed {
        // A reader that went away (`… | head`) is not an error.
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(Exit::Ok),
    }
}

/// Lines on their way out.
struct Out<W> {
    to: W,
    json: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Out<W> {
    fn tell(&mut self, found: &Found<'_>, only: Option<&str>, summary: bool) {
        match found {
            Found::Record { record, .. } => {
                let of_another = only.is_some_and(|only| device(record).is_none_or(|device| device.as_str() != only));
                if !summary && !of_another {
                    let line = if self.json { record_json(found) } else { record_text(found) };
                    self.line(&line);
                }
            }
            Found::Damage { segment, damage } => {
                let (offset, bytes, why) = (damage.offset, damage.bytes, &damage.why);
                let line = if self.json {
                    json!({ "kind": "damage", "segment": name(segment), "offset": offset, "bytes": bytes, "why": why })
                        .to_string()
                } else {
                    format!("DAMAGE  {} at {offset}, {bytes} bytes: {why}", name(segment))
                };
                if !summary {
                    self.line(&line);
                }
            }
            Found::Segment(report) => {
                let line = if self.json { tagged("segment", report) } else { segment_text(report) };
                self.line(&line);
            }
        }
    }

    fn end(&mut self, all: &Inspection) {
        let line = if self.json { tagged("journal", all) } else { all_text(all) };
        self.line(&line);
        if self.failed.is_none() {
            self.failed = self.to.flush().err();
        }
    }

    fn line(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(self.to, "{line}").err();
        }
    }
}

/// The device that a record is about; a kept pair is about none.
fn device(record: &Record) -> Option<&DeviceId> {
    match record {
        Record::Reading { reading, .. } => Some(&reading.device),
        Record::Outcome(outcome) => Some(&outcome.device),
        Record::Unparked { device, .. } => Some(device),
        Record::Imported { state, .. } => Some(&state.device),
        Record::Kept(_) => None,
    }
}

/// A key of a kept pair: text as it is, everything else escaped.
fn key_text(key: &[u8]) -> String {
    let mut text = String::new();
    for chunk in key.utf8_chunks() {
        let valid = chunk.valid().chars().flat_map(|char| {
            let plain = !char.is_control() && char != '\\';
            if plain { vec![char] } else { char.escape_default().collect() }
        });
        text.extend(valid);
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A report with its kind in front.
fn tagged(kind: &str, report: &impl serde::Serialize) -> String {
    let mut line = json!({ "kind": kind });
    if let (Value::Object(line), Ok(Value::Object(report))) = (&mut line, serde_json::to_value(report)) {
        line.extend(report);
    }
    line.to_string()
}

fn record_json(found: &Found<'_>) -> String {
    let Found::Record { segment, bytes, position, kind, record, repeated } = found else { return String::new() };
    let mut line = json!({
        "position": position, "kind": kind,
        "segment": name(segment), "offset": bytes.start, "bytes": bytes.end - bytes.start,
    });
    if let Some(device) = device(record) {
        line["deviceId"] = device.as_str().into();
    }
    if *repeated {
        line["repeated"] = true.into();
    }
    match record {
        Record::Reading { reading, routed } => {
            line["deviceTime"] = reading.device_time.into();
            line["receivedTime"] = reading.received.into();
            line["topic"] = reading.channel.topic(&reading.device).into();
            line["routed"] = (*routed).into();
            if let Some(idempotency) = reading.idempotency {
                let request: String = idempotency.request.iter().map(|byte| format!("{byte:02x}")).collect();
                line["request"] = json!({ "hash": request, "index": idempotency.index });
            }
            if let Some(parked) = reading.retry_of {
                line["retryOf"] = json!(parked);
            }
            with_raw(line, "payload", &reading.payload)
        }
        Record::Unparked { position, .. } => {
            line["parked"] = json!(position);
            line.to_string()
        }
        Record::Imported { state, overwrite } => {
            line["version"] = state.version.into();
            line["deviceTime"] = state.device_time.into();
            line["receivedTime"] = state.received.into();
            line["overwrite"] = (*overwrite).into();
            with_raw(line, "state", &state.state)
        }
        Record::Kept(change) => {
            line["key"] = key_text(&change.key).into();
            line["valueBytes"] = change.value.as_ref().map(bytes::Bytes::len).into();
            line.to_string()
        }
        Record::Outcome(outcome) => {
            line["reading"] = json!(outcome.reading);
            let scripts = outcome.script_state.iter().map(|(name, _)| &**name);
            line["scriptState"] = scripts.collect::<Vec<_>>().into();
            match &outcome.verdict {
                Verdict::Unchanged => line["verdict"] = "unchanged".into(),
                Verdict::Keep(state) => {
                    line["verdict"] = "keep".into();
                    return with_raw(line, "state", state);
                }
                Verdict::Dropped { script } => {
                    line["verdict"] = "dropped".into();
                    line["script"] = (**script).into();
                }
                Verdict::Parked { script, reason, message } => {
                    line["verdict"] = "parked".into();
                    line["script"] = (**script).into();
                    line["reason"] = reason.name().into();
                    line["message"] = (**message).into();
                }
            }
            line.to_string()
        }
    }
}

/// The object with one more member, whose JSON stays as it is stored: a parse would round its numbers.
fn with_raw(mut line: Value, name: &str, stored: &[u8]) -> String {
    let text = String::from_utf8_lossy(stored);
    if serde_json::from_str::<IgnoredAny>(&text).is_err() {
        line[name] = text.into();
        return line.to_string();
    }
    let mut line = line.to_string();
    line.pop();
    // One line a record, also for a payload that was sent over several.
    let text = text.replace(['\n', '\r'], " ");
    let _ = write!(line, ",\"{name}\":{text}}}");
    line
}

fn record_text(found: &Found<'_>) -> String {
    let Found::Record { position, kind, record, repeated, .. } = found else { return String::new() };
    let mut line = format!("{position}  {kind}");
    if let Some(device) = device(record) {
        let _ = write!(line, "  {}", shown(device.as_str()));
    }
    let _ = match record {
        Record::Reading { reading, routed } => {
            let sent = reading.device_time.map(|time| format!("  device-time={}", utc(time))).unwrap_or_default();
            let routed = if *routed { "  routed" } else { "" };
            let retry = reading.retry_of.map(|parked| format!("  retry-of={parked}")).unwrap_or_default();
            let payload = shown(&String::from_utf8_lossy(&reading.payload));
            write!(line, "  received={}{sent}{routed}{retry}  {payload}", utc(reading.received))
        }
        Record::Unparked { position, .. } => write!(line, "  of {position}"),
        Record::Imported { state, overwrite } => {
            let over = if *overwrite { "  overwrite" } else { "" };
            let json = shown(&String::from_utf8_lossy(&state.state));
            write!(line, "  version={}  received={}{over}  {json}", state.version, utc(state.received))
        }
        Record::Kept(change) => {
            let key = key_text(&change.key);
            match &change.value {
                Some(value) => write!(line, "  {}  {} bytes", shown(&key), value.len()),
                None => write!(line, "  {}  forgotten", shown(&key)),
            }
        }
        Record::Outcome(outcome) => {
            let verdict = match &outcome.verdict {
                Verdict::Unchanged => "unchanged".to_owned(),
                Verdict::Keep(state) => format!("keep {}", shown(&String::from_utf8_lossy(state))),
                Verdict::Dropped { script } => format!("dropped by {}", shown(script)),
                Verdict::Parked { script, reason, message } => {
                    format!("parked ({}) by {}: {}", reason.name(), shown(script), shown(message))
                }
            };
            write!(line, "  of {}  {verdict}", outcome.reading)
        }
    };
    if *repeated {
        line.push_str("  (repeated)");
    }
    line
}

fn segment_text(report: &SegmentReport) -> String {
    let mut line = format!("SEGMENT {}  {}", name(&report.path), records_text(report.records, &report.kinds));
    if let (Some(first), Some(last)) = (report.first, report.last) {
        let _ = write!(line, ", positions {first} to {last}");
    }
    if let Some((least, greatest)) = report.received {
        let _ = write!(line, ", received {} to {}", utc(least), utc(greatest));
    }
    let _ = write!(line, ", {} of {} bytes used", report.used_bytes, report.bytes);
    if let Some(modified) = report.modified {
        let _ = write!(line, ", written {}", utc(modified));
    }
    if report.repeated > 0 {
        let _ = write!(line, ", {} repeated", report.repeated);
    }
    for damage in &report.damage {
        let _ = write!(line, "\n  damage at {}, {} bytes: {}", damage.offset, damage.bytes, damage.why);
    }
    let unlisted = report.damaged_places - report.damage.len() as u64;
    if unlisted > 0 {
        let _ = write!(line, "\n  and {unlisted} more damaged places");
    }
    if let Some(tail) = &report.tail {
        let _ = write!(line, "\n  at {}, {} bytes: {}", tail.offset, tail.bytes, tail.why);
    }
    line
}

fn all_text(all: &Inspection) -> String {
    let mut line = format!("JOURNAL {} segments, {}", all.segments, records_text(all.records, &all.kinds));
    if let (Some(first), Some(last)) = (all.first, all.last) {
        let _ = write!(line, ", positions {first} to {last}");
    }
    let _ = write!(line, ", {} bytes, damaged places: {}", all.bytes, all.damaged_places);
    for gap in &all.missing {
        let _ = write!(line, "\n  missing: {} to {}", gap.first, gap.last);
    }
    line
}

fn records_text<'a>(records: u64, kinds: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) -> String {
    let kinds: Vec<_> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if kinds.is_empty() { format!("{records} records") } else { format!("{records} records ({})", kinds.join(", ")) }
}

/// The file's name.
fn name(segment: &Path) -> String {
    segment.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Stored text on one line of a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = if escaped.is_some() { None } else { Some(c) };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_text_as_far_as_it_is_text() {
        for (key, shown) in [
            (b"s/pump-1".as_slice(), "s/pump-1"),
            ("rGerät/1".as_bytes(), "rGerät/1"),
            (b"q\x00\x02ab\xff\xfe", "q\\u{0}\\u{2}ab\\xff\\xfe"),
            (b"a\\b\n", "a\\\\b\\n"),
        ] {
            assert_eq!(key_text(key), shown);
        }
    }
}
