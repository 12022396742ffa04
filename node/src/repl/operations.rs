//! What the console can ask of nodes: a request, a search through all devices, how the nodes are, another node.

use std::{
    collections::HashSet,
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tidegate_actors::limits;

use super::{
    audit,
    nodes::Nodes,
    query::{Path, Query},
};
use crate::client::{Answer, ClientError, NodeClient, encode};

/// Time for a request: a command to a device may wait so long for its reply.
const PATIENCE: Duration = Duration::from_secs(660);
/// Time for a node to say how it is.
const HEALTH: Duration = Duration::from_secs(3);
/// Devices that `find` gives unless it is told otherwise.
const FOUND: usize = 100;
/// Devices that `find` gives at most.
const FOUND_MOST: usize = 100_000;
/// Bytes of the devices that `find` gives at most.
const FOUND_BYTES: usize = 64 * 1024 * 1024;
/// A search that takes longer shows how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// Why an operation came to nothing.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) status: Option<u16>,
    pub(super) kind: Option<String>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, status: None, kind: None }
    }
}

impl From<ClientError> for Wrong {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Refused(refusal) => {
                Self { message, status: Some(refusal.status), kind: Some(refusal.kind).filter(|kind| !kind.is_empty()) }
            }
            _ => message.into(),
        }
    }
}

/// An operation that can begin.
pub(super) struct Operation {
    what: What,
    /// The node that was the current one when it began.
    node: String,
    /// What was typed, for that node's audit log.
    line: Option<Arc<str>>,
}

enum What {
    Request { method: Method, path: String, body: Option<String> },
    Find(Search),
    Count(Search),
    Services,
    Connect(String),
}

struct Search {
    query: Query,
    prefix: String,
    limit: usize,
    fields: Option<Vec<(String, Path)>>,
}

impl Operation {
    /// Reads what the prelude asks for.
    ///
    /// # Errors
    /// What is wrong, for who typed it.
    pub(super) fn read(name: &str, argument: &Value, node: String) -> Result<Self, String> {
        let text = |name: &str| argument[name].as_str().unwrap_or_default().to_owned();
        let what = match name {
            "request" => {
                let (method, path) = (text("method"), text("path"));
                let method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
                if ["/ws", "/stream", "/mqtt"].iter().any(|live| path.split('?').next() == Some(live)) {
                    return Err(format!("{path} has no end: look at it with curl -N, or at the dashboard"));
                }
                What::Request { method, path, body: argument["body"].as_str().map(str::to_owned) }
            }
            "find" => What::Find(Search::read(argument)?),
            "count" => What::Count(Search::read(argument)?),
            "services" => What::Services,
            "connect" => What::Connect(text("node")),
            other => return Err(format!("there is no operation {other}")),
        };
        Ok(Self { what, node, line: None })
    }

    /// The node that it asks.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// With what was typed for it.
    pub(super) fn typed(self, line: Option<Arc<str>>) -> Self {
        Self { line, ..self }
    }

    /// Does it, and gives back JSON. Once `over` is set nobody waits for the answer.
    ///
    /// # Errors
    /// [`Wrong`].
    pub(super) fn run(self, nodes: &Nodes, over: &AtomicBool) -> Result<String, Wrong> {
        let Self { what, node, line } = self;
        match what {
            What::Request { method, path, body } => {
                with_client(nodes, &node, |client| request(client, method, &path, body, line.as_deref()))
            }
            What::Find(search) => with_client(nodes, &node, |client| find(client, &search, over, line.as_deref())),
            What::Count(search) => with_client(nodes, &node, |client| count(client, &search, over, line.as_deref())),
            What::Services => Ok(services(nodes, line.as_deref())),
            What::Connect(words) => {
                let address = nodes.resolve(&words)?;
                let mut client = NodeClient::new(&address)?;
                // Whoever may not read learns it here, and not at the first question.
                get(client.timeout(HEALTH), "/ledger", line.as_deref())?;
                nodes.switch(&address)?;
                Ok(json!({ "node": address }).to_string())
            }
        }
    }
}

fn with_client<T>(
    nodes: &Nodes,
    node: &str,
    work: impl FnOnce(&mut NodeClient) -> Result<T, Wrong>,
) -> Result<T, Wrong> {
    let mut client = nodes.client(node)?;
    client.timeout(PATIENCE);
    let done = work(&mut client)?;
    nodes.give_back(client);
    Ok(done)
}

fn request(
    client: &mut NodeClient,
    method: Method,
    path: &str,
    body: Option<String>,
    line: Option<&str>,
) -> Result<String, Wrong> {
    let mut headers = vec![("content-type", "application/json")];
    headers.truncate(usize::from(body.is_some()));
    let header = audit::header(line);
    headers.extend(header.as_ref().map(|value| (audit::HEADER, value.as_str())));
    let answer = client.request(method, path, &headers, body.map(Bytes::from).unwrap_or_default())?.success()?;
    Ok(as_json(&answer))
}

/// The body if it is JSON, else its text.
fn as_json(answer: &Answer) -> String {
    if answer.body.is_empty() {
        return "null".to_owned();
    }
    match serde_json::from_slice::<&RawValue>(&answer.body) {
        Ok(json) => json.get().to_owned(),
        Err(_) => Value::from(String::from_utf8_lossy(&answer.body)).to_string(),
    }
}

impl Search {
    fn read(argument: &Value) -> Result<Self, String> {
        let limit = match &argument["limit"] {
            Value::Null => FOUND,
            limit => limit
                .as_f64()
                .filter(|limit| limit.fract() == 0.0 && (1.0..=FOUND_MOST as f64).contains(limit))
                .map(|limit| limit as usize)
                .ok_or_else(|| format!("limit: {limit}; allowed: 1 to {FOUND_MOST} (limit repl_found)"))?,
        };
        let fields = match &argument["fields"] {
            Value::Null => None,
            fields => {
                let names = fields.as_array().into_iter().flatten();
                let names = names.map(|name| {
                    let name = name.as_str().ok_or_else(|| format!("fields: {name} is no name"))?;
                    Ok((name.to_owned(), Path::parse(name)?))
                });
                Some(names.collect::<Result<Vec<_>, String>>()?)
            }
        };
        let prefix = argument["prefix"].as_str().unwrap_or_default().to_owned();
        Ok(Self { query: Query::parse(&argument["query"])?, prefix, limit, fields })
    }

    /// What is shown of a device.
    fn shown(&self, document: &Value, raw: &RawValue) -> String {
        let Some(fields) = &self.fields else { return raw.get().to_owned() };
        let mut seen = HashSet::new();
        let mut text = format!("{{\"deviceId\":{}", document["deviceId"]);
        for (name, path) in fields.iter().filter(|(name, _)| name != "deviceId" && seen.insert(name.clone())) {
            let found = path.of(document);
            let value = match found[..] {
                [] => continue,
                [one] => one.to_string(),
                _ => json!(found).to_string(),
            };
            text.push_str(&format!(",{}:{value}", json!(name)));
        }
        text.push('}');
        text
    }
}

/// A page of `GET /devices`.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    devices: Vec<&'a RawValue>,
    next: Option<String>,
    total: u64,
}

fn find(client: &mut NodeClient, search: &Search, over: &AtomicBool, line: Option<&str>) -> Result<String, Wrong> {
    let (mut devices, mut found, mut more) = (String::new(), 0, false);
    let mut too_much = false;
    let mut take = |document: &Value, raw: &RawValue| {
        if found == search.limit {
            more = true;
            return false;
        }
        if found > 0 {
            devices.push(',');
        }
        devices.push_str(&search.shown(document, raw));
        found += 1;
        too_much = devices.len() > FOUND_BYTES;
        !too_much
    };
    let pages = if search.query.is_all() { search.limit.saturating_add(1) } else { limits::PAGE_DEVICES };
    each(client, search, pages, over, line, &mut take)?;
    if too_much {
        let message = format!(
            "the devices that were found have more than {FOUND_BYTES} bytes (limit repl_found_bytes): ask for fewer, or for some fields"
        );
        return Err(message.into());
    }
    Ok(format!("{{\"devices\":[{devices}],\"more\":{more}}}"))
}

fn count(client: &mut NodeClient, search: &Search, over: &AtomicBool, line: Option<&str>) -> Result<String, Wrong> {
    if search.query.is_all() && search.prefix.is_empty() {
        let answer = get(client, "/devices?limit=1", line)?;
        let page: Page<'_> = read(&answer)?;
        return Ok(page.total.to_string());
    }
    let mut count = 0_u64;
    each(client, search, limits::PAGE_DEVICES, over, line, &mut |_, _| {
        count += 1;
        true
    })?;
    Ok(count.to_string())
}

/// Hands over each device that matches, page by page, until there is no more, or `take` or the person has enough.
fn each(
    client: &mut NodeClient,
    search: &Search,
    page: usize,
    over: &AtomicBool,
    mut line: Option<&str>,
    take: &mut dyn FnMut(&Value, &RawValue) -> bool,
) -> Result<(), Wrong> {
    let page = page.min(limits::PAGE_DEVICES);
    let mut progress = Progress::new();
    let (mut after, mut seen, mut matched) = (String::new(), 0_u64, 0_u64);
    loop {
        let path = format!("/devices?limit={page}&prefix={}&after={}", encode(&search.prefix), encode(&after));
        let answer = get(client, &path, line.take())?;
        let page: Page<'_> = read(&answer)?;
        for raw in &page.devices {
            let document: Value = serde_json::from_str(raw.get()).map_err(|error| unreadable(&error))?;
            seen += 1;
            if !search.query.matches(&document) {
                continue;
            }
            matched += 1;
            if !take(&document, raw) {
                return Ok(());
            }
        }
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        match page.next {
            Some(next) => after = next,
            None => return Ok(()),
        }
        progress.show(seen, page.total, matched);
    }
}

fn get(client: &mut NodeClient, path: &str, line: Option<&str>) -> Result<Answer, ClientError> {
    let header = audit::header(line);
    let headers: Vec<_> = header.iter().map(|value| (audit::HEADER, value.as_str())).collect();
    client.request(Method::GET, path, &headers, Bytes::new())?.success()
}

fn read(answer: &Answer) -> Result<Page<'_>, Wrong> {
    serde_json::from_slice(&answer.body).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Wrong {
    ClientError::Answer(error.to_string()).into()
}

/// How far a search is, on a terminal's stderr. One line for all searches of a prompt.
struct Progress {
    begun: Instant,
    shown: bool,
}

static ONE_LINE: Mutex<()> = Mutex::new(());

impl Progress {
    fn new() -> Self {
        Self { begun: Instant::now(), shown: false }
    }

    fn show(&mut self, seen: u64, total: u64, matched: u64) {
        if self.begun.elapsed() < PROGRESS || !std::io::stderr().is_terminal() {
            return;
        }
        let _one = ONE_LINE.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("\r\x1b[Ksearched {seen} of {total} devices, {matched} match (Ctrl-C ends it)");
        self.shown = std::io::stderr().lock().write_all(text.as_bytes()).is_ok();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}

/// Every node that is known, and how it is.
fn services(nodes: &Nodes, line: Option<&str>) -> String {
    let (addresses, current) = nodes.all();
    let health = |address: &str| -> Result<(String, Value), ClientError> {
        let mut client = NodeClient::new(address)?;
        client.timeout(HEALTH);
        let ready = match client.get("/readyz") {
            Ok(_) => "ready".to_owned(),
            Err(ClientError::Refused(refusal)) => format!("not ready: {}", refusal.detail),
            Err(error) => return Err(error),
        };
        let overview = get(&mut client, "/api/overview", line).and_then(|answer| answer.json());
        Ok((ready, overview.unwrap_or_default()))
    };
    let rows = addresses.iter().enumerate().map(|(at, address)| {
        let (health, overview) = health(address).unwrap_or_else(|error| (error.to_string(), Value::Null));
        json!({
            "node": address, "current": at == current, "health": health, "version": overview["node"]["version"],
            "devices": overview["devices"]["known"], "uptimeSeconds": overview["node"]["uptimeSeconds"],
        })
    });
    Value::from_iter(rows).to_string()
}
