//! `tidegate parked`: an operator's work on readings that no handler could work on, over the HTTP interface of a running node.
//!
//! It decides nothing about a reading: the node does. Here are the pages, the order (oldest first, so that a device's readings
//! stay in order) and the words.

use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    cli::{ParkedChoice, ParkedCommand},
    client::{ClientError, NodeClient, encode},
    exit::Exit,
    output,
};

/// Parked readings that are asked for at a time: each may be large.
const PAGE: usize = 100;
/// The node waits 30 s for the journal before it gives up on a retry.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(45);

/// Runs one of the commands.
///
/// # Errors
/// The node cannot be reached or refused, or stdout failed. That a reading could not be retried or dropped is an exit code.
pub(crate) fn run(command: ParkedCommand) -> anyhow::Result<Exit> {
    let node = match &command {
        ParkedCommand::List { node, .. }
        | ParkedCommand::Show { node, .. }
        | ParkedCommand::Retry { node, .. }
        | ParkedCommand::Drop { node, .. } => node,
    };
    let mut client = NodeClient::new(node)?;
    client.timeout(PATIENCE);
    match command {
        ParkedCommand::List { device, limit, json, .. } => list(&mut client, device.as_deref(), limit, json),
        ParkedCommand::Show { position, json, .. } => show(&mut client, position, json),
        ParkedCommand::Retry { choice, json, .. } => each(&mut client, &choice, json, retry),
        ParkedCommand::Drop { choice, json, .. } => each(&mut client, &choice, json, drop_one),
    }
}

fn list(client: &mut NodeClient, device: Option<&str>, limit: usize, json: bool) -> anyhow::Result<Exit> {
    // One more tells whether there are more.
    let mut rows = rows(client, device, limit.saturating_add(1))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    if json {
        output::write(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
    } else if rows.is_empty() {
        output::write("nothing is parked\n")?;
    } else {
        output::write(&table(&rows))?;
    }
    if more {
        tell(&format!("the newest {limit}; there are more: --limit shows them"));
    }
    Ok(Exit::Ok)
}

fn table(rows: &[Value]) -> String {
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| ["position", "deviceId", "reason", "script", "message"].map(|name| cell(&row[name])))
        .collect();
    let head = ["POSITION", "DEVICE", "REASON", "SCRIPT", "MESSAGE"].map(str::to_owned);
    let mut widths = [0; 4];
    for row in std::iter::once(&head).chain(&cells) {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&head).chain(&cells) {
        for (text, width) in row.iter().zip(widths) {
            let _ = write!(out, "{text:width$}  ");
        }
        let _ = writeln!(out, "{}", row[4]);
    }
    out
}

/// A value for a terminal: what a handler threw may have anything in it.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn show(client: &mut NodeClient, position: u64, json: bool) -> anyhow::Result<Exit> {
    let row: Value = client.get(&format!("/parked/{position}"))?.json()?;
    if json {
        output::write(&format!("{}\n", serde_json::to_string_pretty(&row)?))?;
        return Ok(Exit::Ok);
    }
    let mut out = String::new();
    for (name, words) in [
        ("position", "position"),
        ("deviceId", "device"),
        ("reason", "reason"),
        ("script", "script"),
        ("message", "message"),
        ("deviceTime", "device time (ms)"),
        ("receivedTime", "received (ms)"),
    ] {
        let _ = writeln!(out, "{words:16}  {}", cell(&row[name]));
    }
    let _ = writeln!(out, "\n{}", serde_json::to_string_pretty(&row["payload"])?);
    output::write(&out)?;
    Ok(Exit::Ok)
}

/// What became of one parked reading: one word, and the reason or the refusal.
struct Done {
    result: &'static str,
    why: Option<String>,
}

/// Works on the chosen readings, one after the other, and sums up.
fn each(
    client: &mut NodeClient,
    choice: &ParkedChoice,
    json: bool,
    work: impl Fn(&mut NodeClient, u64) -> Result<Done, ClientError>,
) -> anyhow::Result<Exit> {
    let positions = chosen(client, choice)?;
    let mut results = Vec::new();
    let mut summary = serde_json::Map::new();
    for position in positions {
        // A node that is gone ends it: what was done is told first.
        let done = match work(client, position) {
            Ok(done) => done,
            Err(error) => {
                report(&results, &summary, json)?;
                return Err(error).context(format!("stopped at position {position}"));
            }
        };
        let count = summary.get(done.result).and_then(Value::as_u64).unwrap_or(0);
        summary.insert(done.result.to_owned(), json!(count + 1));
        if !json {
            let why = done.why.as_ref().map(|why| format!(": {}", cell(&json!(why)))).unwrap_or_default();
            output::write(&format!("{position}  {}{why}\n", done.result))?;
        }
        let mut result = json!({ "position": position, "result": done.result });
        if let Some(why) = done.why {
            result["reason"] = json!(why);
        }
        results.push(result);
    }
    report(&results, &summary, json)?;
    // What was chosen by name should have been there.
    let by_name = !choice.positions.is_empty();
    let failed = |name: &&String| matches!(name.as_str(), "parked" | "refused") || (by_name && name.as_str() == "gone");
    Ok(if summary.keys().any(|name| failed(&name)) { Exit::Runtime } else { Exit::Ok })
}

fn report(results: &[Value], summary: &serde_json::Map<String, Value>, json: bool) -> anyhow::Result<()> {
    if json {
        let document = json!({ "results": results, "summary": summary });
        return output::write(&format!("{}\n", serde_json::to_string_pretty(&document)?));
    }
    let counts: Vec<String> = summary.iter().map(|(result, count)| format!("{count} {result}")).collect();
    let counts = if counts.is_empty() { "nothing is parked".to_owned() } else { counts.join(", ") };
    output::write(&format!("{counts}\n"))
}

/// The positions to work on, oldest first: what is parked anew meanwhile is not among them.
fn chosen(client: &mut NodeClient, choice: &ParkedChoice) -> Result<Vec<u64>, ClientError> {
    if !choice.positions.is_empty() {
        return Ok(choice.positions.clone());
    }
    let rows = rows(client, choice.device.as_deref(), usize::MAX)?;
    Ok(rows.iter().rev().filter_map(|row| row["position"].as_u64()).collect())
}

/// The newest `limit` parked readings, page by page.
fn rows(client: &mut NodeClient, device: Option<&str>, limit: usize) -> Result<Vec<Value>, ClientError> {
    let device = device.map(|id| format!("&deviceId={}", encode(id))).unwrap_or_default();
    let mut rows: Vec<Value> = Vec::new();
    let mut before = String::new();
    while rows.len() < limit {
        let size = PAGE.min(limit - rows.len());
        let mut page: Value = client.get(&format!("/parked?limit={size}{device}{before}"))?.json()?;
        let Value::Array(found) = page["parked"].take() else {
            return Err(ClientError::Answer("it has no list of parked readings".to_owned()));
        };
        rows.extend(found);
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    Ok(rows)
}

fn retry(client: &mut NodeClient, position: u64) -> Result<Done, ClientError> {
    let answer = client.post(&format!("/parked/{position}/retry"), "application/json", Bytes::new());
    let answer: Value = match answer {
        Ok(answer) => answer.json()?,
        Err(error) => return gone_or(error),
    };
    let result = match answer["result"].as_str() {
        Some("kept") => "kept",
        Some("conflated") => "conflated",
        Some("dropped") => "dropped",
        Some("parked") => "parked",
        other => return Err(ClientError::Answer(format!("the result is {other:?}"))),
    };
    Ok(Done { result, why: answer["reason"].as_str().map(str::to_owned) })
}

fn drop_one(client: &mut NodeClient, position: u64) -> Result<Done, ClientError> {
    let dropped = client.request(Method::DELETE, &format!("/parked/{position}"), &[], Bytes::new());
    match dropped.and_then(crate::client::Answer::success) {
        Ok(_) => Ok(Done { result: "dropped", why: None }),
        Err(error) => gone_or(error),
    }
}

/// A refusal is told and the work goes on; anything else ends it.
fn gone_or(error: ClientError) -> Result<Done, ClientError> {
    match error {
        ClientError::Refused(refusal) if refusal.status == 404 => {
            Ok(Done { result: "gone", why: Some(refusal.detail) })
        }
        ClientError::Refused(refusal) => Ok(Done { result: "refused", why: Some(refusal.detail) }),
        other => Err(other),
    }
}

fn tell(text: &str) {
    use std::io::Write as _;
    // Nothing is left to be done where even stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
