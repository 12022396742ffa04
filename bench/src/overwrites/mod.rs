//! `tidegate-bench overwrites`: do memory and disk stay bounded while a fleet overwrites its states for ever?
//!
//! The runtime runs in a child process, so that its memory is its own; this process reads its figures and makes the table.

pub(crate) mod child;

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::peers::say;
use crate::server;
use crate::table::{judged, number};

/// What the end may take up, over what the first million took up.
const GOAL: f64 = 1.5;

/// The peaks of one million of overwrites.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Million {
    number: u64,
    /// Since the first overwrite.
    seconds: f64,
    /// Checkpoints into sled so far.
    checkpoints: u64,
    rss_bytes: u64,
    sled_bytes: u64,
    journal_bytes: u64,
    snapshot_bytes: u64,
    data_bytes: u64,
}

/// Overwrites the states of `devices` devices `millions` million times and gives the table in Markdown.
///
/// # Errors
/// A child that fails.
pub(crate) fn run(dir: &Path, devices: usize, rate: Option<u32>, millions: u64) -> Result<String> {
    let folder = server::folder(dir)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("overwrites-child").arg("--dir").arg(folder.path());
    command.args(["--devices", &devices.to_string(), "--millions", &millions.to_string()]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the child")?;
    let stdout = child.stdout.take().context("stdout is not piped")?;
    let mut marks = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let million: Million = serde_json::from_str(&line?).context("reading the child's figures")?;
        say(&format!("{million:?}"));
        marks.push(million);
    }
    let status = child.wait()?;
    ensure!(status.success(), "the child ended with {status}");
    ensure!(marks.len() as u64 == millions, "{} marks of {millions}", marks.len());
    Ok(markdown(&marks, devices))
}

fn markdown(marks: &[Million], devices: usize) -> String {
    let mut out = String::new();
    let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return out };
    let rate = last.number as f64 * 1e6 / last.seconds;
    let _ = writeln!(
        out,
        "{} million overwrites of {devices} devices in {:.0} s, {} a second, {} checkpoints (at most {:.1} million \
         writes into sled); journal retention {} MiB. The peaks of each million.\n",
        last.number,
        last.seconds,
        number(rate),
        last.checkpoints,
        (last.checkpoints * devices as u64) as f64 / 1e6,
        child::RETENTION_BYTES >> 20,
    );
    let _ =
        writeln!(out, "| million | s | RSS, MiB | sled, MiB | journal, MiB | snapshots, MiB | data directory, MiB |");
    let _ = writeln!(out, "|---:|---:|---:|---:|---:|---:|---:|");
    let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
    for mark in marks {
        let figures = figures(mark).map(mib).join(" | ");
        let _ = writeln!(out, "| {} | {:.0} | {figures} |", mark.number, mark.seconds);
    }
    let ratios = figures(last).into_iter().zip(figures(first)).map(|(last, first)| last as f64 / first as f64);
    let ratios: Vec<_> = ratios.collect();
    let cells: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let _ = writeln!(out, "| {} ÷ {} | | {} |", last.number, first.number, cells.join(" | "));
    // RSS, sled and the data directory are promised; the parts may shift between them.
    let judge = |index: usize| judged(ratios[index] <= GOAL, &format!("≤ {GOAL}"));
    let _ = writeln!(out, "| goal | | {} | {} | | | {} |", judge(0), judge(1), judge(4));
    out
}

/// In the order of the table.
fn figures(mark: &Million) -> [u64; 5] {
    [mark.rss_bytes, mark.sled_bytes, mark.journal_bytes, mark.snapshot_bytes, mark.data_bytes]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_million_is_judged_by_the_first() {
        let first = Million {
            number: 1,
            seconds: 10.0,
            rss_bytes: 100 << 20,
            sled_bytes: 40 << 20,
            journal_bytes: 64 << 20,
            snapshot_bytes: 16 << 20,
            data_bytes: 120 << 20,
            checkpoints: 10,
        };
        let last = Million { number: 10, seconds: 100.0, rss_bytes: 160 << 20, checkpoints: 100, ..first };
        let text = markdown(&[first, last], 50_000);
        assert!(text.contains("| 10 ÷ 1 | | 1.60 | 1.00 | 1.00 | 1.00 | 1.00 |"), "{text}");
        assert!(text.contains("| goal | | ≤ 1.5 MISSED | ≤ 1.5 met | | | ≤ 1.5 met |"), "{text}");
    }
}
