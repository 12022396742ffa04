//! `tidegate script replay`: readings of a journal through the handlers as they are and through changed ones, and what differs.
//! It only reads the data directory: a node may run meanwhile.
//!
//! `journaled` reads the readings with what the node made of them → each `side` works on them → here they are compared.

mod changed;
mod journaled;
mod side;

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_actors::{
    ids::{DeviceId, Position},
    recovery::DataDir,
    script::Verdict,
    state::DeviceState,
};

use self::{
    changed::Changed,
    journaled::Journaled,
    side::{Chunk, Made, Side},
};
use crate::{exit::Exit, output, script, utc};

/// Characters that are shown of a result.
const SHOWN: usize = 400;

/// What is asked for.
pub(crate) struct Replay {
    pub(crate) device: Option<String>,
    pub(crate) since: Since,
    /// A handler file, or a directory of them.
    pub(crate) with: PathBuf,
    /// The file's place below the handlers' directory; `None`: it shows.
    pub(crate) place: Option<PathBuf>,
    pub(crate) handlers: PathBuf,
    pub(crate) data_dir: PathBuf,
    /// Differences that are shown.
    pub(crate) limit: usize,
    pub(crate) json: bool,
}

/// Where a replay begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// At a place in the journal.
    Position(u64),
    /// At readings that were received then, milliseconds since 1970.
    Received(i64),
}

impl Since {
    /// A position, an age or a time.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let allowed = || {
            format!("{text:?} is none of: a position (4711), an age (90s, 15m, 2h, 7d), a time (2026-11-27T10:00:00Z)")
        };
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(position));
        }
        if let Some(time) = utc::parse(text) {
            return Ok(Self::Received(time));
        }
        let (digits, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(allowed()),
        };
        let age = digits.parse::<u32>().map_err(|_| allowed())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        Ok(Self::Received(now - i64::from(age) * seconds * 1_000))
    }

    fn holds(self, position: Position, received: i64) -> bool {
        match self {
            Self::Position(first) => position.0 >= first,
            Self::Received(time) => received >= time,
        }
    }
}

/// Runs it. The exit code is 1 if anything differs.
///
/// # Errors
/// The handlers or the journal cannot be read, or stdout failed.
pub(crate) fn run(replay: &Replay) -> anyhow::Result<Exit> {
    let device = replay.device.as_deref().map(DeviceId::new).transpose().context("--device")?;
    // The workers run in a directory of their own.
    let handlers = std::path::absolute(&replay.handlers)?;
    let changed = Changed::of(&handlers, &replay.with, replay.place.as_deref())?;
    for dir in [&*handlers, changed.dir()] {
        if let Some(broken) = script::broken(dir)? {
            bail!("a handler does not load:\n{broken}");
        }
    }
    let files = std::path::absolute(script::files_dir(&replay.data_dir))?;
    let (mut old, mut new) = (Side::start(&handlers, &files, true)?, Side::start(changed.dir(), &files, false)?);
    let changed_file = changed.place().map(|place| place.display().to_string());
    let mut report = Report { limit: replay.limit, changed_file, ..Report::default() };
    let journal = DataDir::new(&replay.data_dir).journal();
    let journaled = Journaled::read(&journal, device.as_ref(), replay.since, |chunk, so_far| {
        let (made, remade) = std::thread::scope(|scope| {
            let made = scope.spawn(|| old.work(chunk, &so_far.before));
            let remade = new.work(chunk, &so_far.before);
            // A panic there is a defect of this program, told on stderr.
            (made.join().unwrap_or_default(), remade)
        });
        report.compare(chunk, &made, &remade);
    });
    let journaled = journaled.with_context(|| format!("cannot read {}", journal.display()))?;
    old.stop();
    new.stop();
    report.end(&journaled, &old, &new);
    output::write(&if replay.json { report.json() } else { report.text() })?;
    Ok(if report.different > 0 || report.states.different > 0 { Exit::Runtime } else { Exit::Ok })
}

/// What a replay found.
#[derive(Default)]
struct Report {
    limit: usize,
    /// The one file that the changed handlers have otherwise.
    changed_file: Option<String>,
    readings: u64,
    different: u64,
    /// Readings of which the unchanged handlers make something else than the node did.
    not_as_journaled: u64,
    differences: Vec<Value>,
    states: States,
    devices: usize,
    failed: (u64, u64),
    unfinished: u64,
}

/// The states at the end.
#[derive(Default)]
struct States {
    different: usize,
    /// Have the unchanged handlers come to what the node has?
    is_live: bool,
    old: String,
    new: String,
    differences: Vec<Value>,
}

impl Report {
    fn compare(&mut self, chunk: &Chunk, old: &HashMap<Position, Made>, new: &HashMap<Position, Made>) {
        let mut items: Vec<_> = chunk.values().flatten().collect();
        items.sort_unstable_by_key(|item| item.position);
        for item in items {
            self.readings += 1;
            let (Some(made), Some(remade)) = (old.get(&item.position), new.get(&item.position)) else { continue };
            let as_journaled = item.outcome.as_ref().map_or(made.verdict == Verdict::Unchanged, |outcome| {
                outcome.verdict == made.verdict && outcome.script_state[..] == made.script_state[..]
            });
            self.not_as_journaled += u64::from(!as_journaled);
            if made == remade {
                continue;
            }
            self.different += 1;
            if self.differences.len() < self.limit {
                let (old, new) = (lines(made), lines(remade));
                let reading = &item.reading;
                self.differences.push(json!({
                    "deviceId": reading.device.as_str(), "position": item.position, "receivedTime": reading.received,
                    "old": old, "new": new,
                }));
            }
        }
    }

    fn end(&mut self, journaled: &Journaled, old: &Side, new: &Side) {
        self.devices = journaled.devices.len();
        self.failed = (old.failed, new.failed);
        self.unfinished = journaled.unfinished;
        let mut devices: Vec<_> = journaled.devices.iter().collect();
        devices.sort_unstable();
        for device in &devices {
            let (before, after) = (old.states.get(*device), new.states.get(*device));
            let content = |state: &DeviceState| (state.state.clone(), state.script_state.clone());
            if before.map(content) != after.map(content) {
                self.states.different += 1;
                if self.states.differences.len() < self.limit {
                    let (old, new) = (before.map(state_lines), after.map(state_lines));
                    self.states.differences.push(json!({ "deviceId": device.as_str(), "old": old, "new": new }));
                }
            }
        }
        self.states.is_live = devices.iter().all(|device| old.states.get(*device) == journaled.live.get(*device));
        self.states.old = digest(&devices, &old.states);
        self.states.new = digest(&devices, &new.states);
    }

    fn json(&self) -> String {
        let States { different, is_live, old, new, differences } = &self.states;
        let document = json!({
            "changedFile": self.changed_file,
            "readings": self.readings, "devices": self.devices, "different": self.different,
            "failed": { "old": self.failed.0, "new": self.failed.1 },
            "notAsJournaled": self.not_as_journaled, "unfinished": self.unfinished,
            "differences": self.differences,
            "states": { "different": different, "oldIsLive": is_live, "old": old, "new": new, "differences": differences },
        });
        format!("{document:#}\n")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for difference in &self.differences {
            let (device, position) = (clean(&difference["deviceId"]), &difference["position"]);
            let received = difference["receivedTime"].as_i64().map(utc::utc).unwrap_or_default();
            let _ = writeln!(text, "device {device}, position {position}, received {received}");
            push_diff(&mut text, difference);
        }
        let unshown = self.different - self.differences.len() as u64;
        if unshown > 0 {
            let _ = writeln!(text, "and {unshown} more readings (--limit shows them)");
        }
        for difference in &self.states.differences {
            let _ = writeln!(text, "state of {}", clean(&difference["deviceId"]));
            push_diff(&mut text, difference);
        }
        if let Some(file) = &self.changed_file {
            let _ = writeln!(text, "changed: {file}");
        }
        let _ = writeln!(
            text,
            "{} readings of {} devices: {} with another result; {} failed, {} with the changed handlers",
            self.readings, self.devices, self.different, self.failed.0, self.failed.1
        );
        let live = if self.states.is_live { "the node's" } else { "not the node's" };
        let States { different, old, new, .. } = &self.states;
        let _ = writeln!(text, "states: {different} differ; old {old} ({live}), new {new}");
        if self.not_as_journaled > 0 {
            let _ = writeln!(
                text,
                "{} readings do not come out as they did in the node: other handlers were at work then",
                self.not_as_journaled
            );
        }
        if self.unfinished > 0 {
            let _ = writeln!(text, "{} readings without a result in the journal were left out", self.unfinished);
        }
        text
    }
}

fn push_diff(text: &mut String, difference: &Value) {
    for (sign, lines, others) in
        [("-", &difference["old"], &difference["new"]), ("+", &difference["new"], &difference["old"])]
    {
        let others = others.as_array().cloned().unwrap_or_default();
        for line in lines.as_array().into_iter().flatten().filter(|line| !others.contains(line)) {
            let _ = writeln!(text, "  {sign} {}", clean(line));
        }
    }
}

/// What a set made of a reading, a line each.
fn lines(made: &Made) -> Vec<String> {
    let mut lines = vec![match &made.verdict {
        Verdict::Unchanged => "unchanged".to_owned(),
        Verdict::Keep(state) => format!("state {}", json_text(state)),
        Verdict::Dropped { script } => format!("dropped by {script}"),
        Verdict::Parked { script, reason, message } => format!("parked ({}) by {script}: {message}", reason.name()),
    }];
    lines.extend(made.script_state.iter().map(|(script, state)| format!("ctx.state of {script} {}", json_text(state))));
    lines.extend(made.emits.iter().map(|(name, payload)| format!("emit {name} {}", json_text(payload))));
    let commands = made.commands.iter();
    lines.extend(commands.map(|to| format!("command {} to {} {}", to.name, to.device, json_text(&to.params))));
    lines
}

fn state_lines(state: &DeviceState) -> Vec<String> {
    let mut lines = vec![json_text(&state.state)];
    lines.extend(state.script_state.iter().map(|(script, json)| format!("ctx.state of {script} {}", json_text(json))));
    lines
}

fn json_text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

/// For a terminal: on one line, not too long.
fn clean(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let mut shown: String = text.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Names the states: the same bytes, the same name.
fn digest(devices: &[&DeviceId], states: &HashMap<DeviceId, DeviceState>) -> String {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for device in devices {
        let Some(state) = states.get(*device) else { continue };
        put(device.as_str().as_bytes());
        put(&state.state);
        for (script, json) in &state.script_state {
            put(script.as_bytes());
            put(json);
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_position_an_age_or_a_time() {
        assert_eq!(Since::parse("4711"), Ok(Since::Position(4711)));
        assert_eq!(Since::parse("2023-11-14T22:13:20Z"), Ok(Since::Received(1_700_000_000_000)));
        let age = |text| match Since::parse(text) {
            Ok(Since::Received(time)) => time,
            other => panic!("{other:?}"),
        };
        let minutes = age("1m") - age("2h");
        assert!((7_139_000..7_142_000).contains(&minutes), "{minutes}");
        for wrong in ["", "h", "2w", "-1h", "yesterday", "2h ", "é"] {
            assert!(Since::parse(wrong).is_err_and(|why| why.contains("2h")), "{wrong}");
        }
    }
}
