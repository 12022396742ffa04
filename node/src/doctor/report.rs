//! What the doctor says: one line a check, and below it what to do if it is not well. It judges nothing.

use std::{fmt::Write as _, io::IsTerminal, path::Path};

use serde_json::{Value, json};

use crate::output;

/// How a check came out. In order of gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// It is well.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It is broken, or will be.
    Fail,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
        }
    }
}

/// One check.
#[derive(Debug)]
pub(super) struct Check {
    name: &'static str,
    pub(super) status: Status,
    /// One sentence: what was found.
    pub(super) summary: String,
    /// What to do, if it is not well.
    pub(super) advice: Option<String>,
    /// The figures, for `--json`.
    details: Value,
}

impl Check {
    /// It is well.
    pub(super) fn ok(name: &'static str, summary: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, summary: summary.into(), advice: None, details: Value::Null }
    }

    /// Somebody should look at it.
    pub(super) fn warn(name: &'static str, summary: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warn, advice: Some(advice.into()), ..Self::ok(name, summary) }
    }

    /// It is broken.
    pub(super) fn fail(name: &'static str, summary: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Fail, advice: Some(advice.into()), ..Self::ok(name, summary) }
    }

    /// With figures for `--json`.
    pub(super) fn with(self, details: Value) -> Self {
        Self { details, ..self }
    }

    fn text(&self, colours: bool) -> String {
        let (on, off) = if colours { (self.status.colour(), "\x1b[0m") } else { ("", "") };
        let mut text = format!("{on}{:<5}{off} {:<18} {}\n", self.status.word(), self.name, self.summary);
        if let Some(advice) = &self.advice {
            let _ = writeln!(text, "      {:<18} → {advice}", "");
        }
        text
    }

    fn json(&self) -> Value {
        let mut json = json!({ "name": self.name, "status": self.status.word(), "summary": self.summary });
        if let Some(advice) = &self.advice {
            json["advice"] = json!(advice);
        }
        if !self.details.is_null() {
            json["details"] = self.details.clone();
        }
        json
    }
}

/// The checks so far: as text they are printed as they come, as JSON all at the end.
pub(super) struct Report {
    data_dir: String,
    json: bool,
    colours: bool,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(data_dir: &Path, json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = std::io::stdout().is_terminal() && !plain;
        Self { data_dir: data_dir.display().to_string(), json, colours, checks: Vec::new() }
    }

    /// Takes note of a check.
    ///
    /// # Errors
    /// Stdout failed.
    pub(super) fn add(&mut self, check: Check) -> anyhow::Result<()> {
        if !self.json {
            output::write(&check.text(self.colours))?;
        }
        self.checks.push(check);
        Ok(())
    }

    /// Says how it all came out, and returns the worst.
    ///
    /// # Errors
    /// Stdout failed.
    pub(super) fn finish(self) -> anyhow::Result<Status> {
        let worst = self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        let of = |status| self.checks.iter().filter(|check| check.status == status).count();
        let (ok, warn, fail) = (of(Status::Ok), of(Status::Warn), of(Status::Fail));
        if self.json {
            let checks: Vec<_> = self.checks.iter().map(Check::json).collect();
            let all = json!({
                "ok": worst != Status::Fail,
                "dataDir": self.data_dir,
                "counts": { "ok": ok, "warn": warn, "fail": fail },
                "checks": checks,
            });
            output::write(&format!("{all:#}\n"))?;
        } else {
            output::write(&format!("\n{ok} ok, {warn} to look at, {fail} failed\n"))?;
        }
        Ok(worst)
    }
}

/// A count with its digits grouped: 12,345.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count of things: 1 device, 12,345 devices.
pub(super) fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// Bytes in a binary unit: 1.5 GiB.
#[expect(clippy::cast_precision_loss, reason = "shown to people")]
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([many(1, "device", "devices"), many(2_000, "device", "devices")], ["1 device", "2,000 devices"]);
        assert_eq!(
            [0, 1_023, 1_536, 3 << 30, 500 << 20].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "3.0 GiB", "500 MiB"]
        );
    }

    #[test]
    fn a_check_says_what_to_do() {
        let check = Check::warn("disk space", "2.0 MiB are free", "make room").with(json!({ "free": 2 }));
        assert_eq!(
            check.text(false),
            "warn  disk space         2.0 MiB are free\n                         → make room\n"
        );
        assert_eq!(check.json()["advice"], "make room");
        assert_eq!(check.json()["details"]["free"], 2);
        assert!(Check::ok("a", "b").text(true).starts_with("\x1b[32mok"));
    }
}
