//! `tidegate script list|enable|disable|rearm|reload|rollback`: an operator's work on the handlers of a running node, over its HTTP
//! interface. It decides nothing: the node does. Here are the words.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use crate::{
    client::{NodeClient, encode},
    exit::Exit,
    output,
};

/// A reload takes as long as its canary, which may be set to ten minutes, and as what its last readings wait for.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is to be done.
pub(crate) enum Action {
    List,
    Enable(String),
    Disable(String),
    Rearm(String),
    Reload { canary: bool },
    Rollback,
}

/// Does it.
///
/// # Errors
/// The node cannot be reached, or stdout failed. A refusal is told, and is an exit code.
pub(crate) fn run(node: &str, action: &Action, json: bool) -> anyhow::Result<Exit> {
    let mut client = NodeClient::new(node)?;
    client.timeout(PATIENCE);
    let of = |name: &str, what: &str| (Method::POST, format!("/scripts/{}/{what}", encode(name)));
    let (method, path) = match action {
        Action::List => (Method::GET, "/scripts".to_owned()),
        Action::Enable(name) => of(name, "enable"),
        Action::Disable(name) => of(name, "disable"),
        Action::Rearm(name) => of(name, "rearm"),
        Action::Reload { canary: true } => (Method::POST, "/scripts/reload".to_owned()),
        Action::Reload { canary: false } => (Method::POST, "/scripts/reload?canary=false".to_owned()),
        Action::Rollback => (Method::POST, "/scripts/rollback".to_owned()),
    };
    let answer = client.request(method, &path, &[], Bytes::new())?;
    // What speaks against a new set is an answer, not a failure of this command.
    let is_told = matches!(answer.status, 409 | 422);
    let answer = if is_told { answer } else { answer.success()? };
    let body: Value = answer.json()?;
    let text = match action {
        _ if json => format!("{}\n", serde_json::to_string_pretty(&body)?),
        _ if is_told => refusal(&body),
        Action::List => table(&body),
        Action::Enable(_) | Action::Disable(_) | Action::Rearm(_) => one(&body),
        Action::Reload { .. } | Action::Rollback => result(&body),
    };
    output::write(&text)?;
    Ok(if is_told { Exit::Runtime } else { Exit::Ok })
}

fn result(body: &Value) -> String {
    let generation = &body["generation"];
    match body["result"].as_str() {
        Some("unchanged") => format!("unchanged: generation {generation} runs these files already\n"),
        Some("rolled-back") => format!("rolled back: generation {generation} runs the former handlers\n"),
        _ => format!("switched: generation {generation} runs\n{}", canary(&body["canary"])),
    }
}

/// Why the old set goes on.
fn refusal(body: &Value) -> String {
    let mut text = format!("{}\n", cell(&body["detail"]));
    for script in body["scripts"].as_array().into_iter().flatten() {
        let error = &script["error"];
        let _ = writeln!(text, "{}: {}", place(error), cell(&error["message"]));
        if let Some(excerpt) = script["excerpt"].as_str() {
            let _ = writeln!(text, "{}", excerpt.trim_end());
        }
    }
    text + &canary(&body["canary"]) + "the handlers that ran go on\n"
}

fn canary(report: &Value) -> String {
    if report.is_null() {
        return String::new();
    }
    let (readings, different) = (&report["readings"], &report["different"]);
    let mut text = format!("canary: {readings} readings through both, {different} with another result\n");
    for (words, lane) in [("old", &report["old"]), ("new", &report["new"])] {
        let cpu = lane["cpuUs"].as_f64().filter(|cpu| *cpu > 0.0).map(|cpu| format!(", {cpu:.1} us of CPU time each"));
        let _ = writeln!(text, "  {words}: {} failed{}", lane["failed"], cpu.unwrap_or_default());
    }
    if let Some(difference) = report["firstDifference"].as_str() {
        let _ = writeln!(text, "  the first that differs: {}", clean(difference));
    }
    text
}

fn one(script: &Value) -> String {
    let off = if script["enabled"] == false { ", switched off" } else { "" };
    format!("{}: {}{off}\n", cell(&script["name"]), state(script))
}

fn table(body: &Value) -> String {
    let scripts = body["scripts"].as_array().cloned().unwrap_or_default();
    if scripts.is_empty() {
        return format!("generation {}: no handlers\n", body["generation"]);
    }
    let head = ["SCRIPT", "GENERATION", "BREAKER", "CALLS", "P50", "P99", "CPU", "FAILED", "PARKED", "ENABLED"]
        .map(str::to_owned);
    let micros = |value: &Value| format!("{:.1} us", value.as_f64().unwrap_or(0.0));
    let row = |script: &Value| {
        [
            cell(&script["name"]),
            cell(&script["generation"]),
            state(script),
            cell(&script["calls"]),
            micros(&script["p50Us"]),
            micros(&script["p99Us"]),
            format!("{:.1} %", script["cpuShare"].as_f64().unwrap_or(0.0) * 100.0),
            cell(&script["errors"]),
            cell(&script["parked"]),
            if script["enabled"] == false { "no" } else { "yes" }.to_owned(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(scripts.iter().map(row)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, text)| {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            format!("{text:width$}")
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    scripts.iter().for_each(|script| text.push_str(&trouble(script)));
    text
}

/// What was wrong with a script last, on what, and what to do.
fn trouble(script: &Value) -> String {
    let (name, error, input) = (cell(&script["name"]), &script["lastError"], &script["lastInput"]);
    if error.is_null() {
        return String::new();
    }
    let mut text = format!("\n{name}: {} ({})\n", cell(&error["message"]), place(error));
    if !input.is_null() {
        let (device, position) = (cell(&input["deviceId"]), &input["position"]);
        let _ = writeln!(text, "  device {device}, position {position}: {}", cell(&input["payload"]));
    }
    match script["status"].as_str() {
        Some("open" | "half-open") => {
            let _ = writeln!(text, "  its readings: {}; re-arm it: tidegate script rearm {name}", policy(script));
        }
        Some("broken") => text.push_str("  mend the file, then: tidegate script reload\n"),
        _ => {}
    }
    text
}

fn policy(script: &Value) -> &'static str {
    match script["policy"].as_str() {
        Some("pass") => "go on without it",
        Some("reject") => "are refused",
        _ => "are parked",
    }
}

/// CLOSED, OPEN, HALF_OPEN or BROKEN.
fn state(script: &Value) -> String {
    cell(&script["status"]).to_uppercase().replace('-', "_")
}

fn place(error: &Value) -> String {
    let file = cell(&error["file"]);
    match (error["line"].as_u64(), error["column"].as_u64()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(line), None) => format!("{file}:{line}"),
        _ => file,
    }
}

/// A value for a terminal: what a handler threw may have anything in it.
fn cell(value: &Value) -> String {
    clean(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_shows_the_state_the_last_failing_input_and_the_one_command() {
        let script = json!({
            "name": "10-a.js", "status": "half-open", "calls": 12, "errors": 3, "parked": 4, "p50Us": 5.25, "p99Us": 9.0,
            "lastError": { "message": "no\u{1b}[31m", "file": "10-a.js", "line": 4, "column": 11 },
            "lastInput": { "deviceId": "d1", "position": 17, "payload": "{\"t\":1}" },
            "generation": 2, "enabled": true, "policy": "park", "cpuShare": 0.125,
        });
        let text = table(&json!({ "generation": 2, "scripts": [script], "workers": [] }));
        for part in [
            "HALF_OPEN",
            "5.2 us",
            "12.5 %",
            "(10-a.js:4:11)",
            "device d1, position 17: {\"t\":1}",
            "are parked; re-arm it: tidegate script rearm 10-a.js",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "nothing of a script reaches the terminal as it is");
        assert_eq!(table(&json!({ "generation": 1, "scripts": [] })), "generation 1: no handlers\n");
    }
}
