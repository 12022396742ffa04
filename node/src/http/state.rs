//! All states out of the node and into it: `GET /state/export` and `POST /state/import`.
//!
//! An export has a thread of its own, one at a time: it may last for minutes, and a reader that is slow must hold up nothing
//! but itself. Its loop only passes the pieces on.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_actors::{
    export::{Base, Export, ExportError},
    fold::Imported,
    limits,
    recovery::DataDir,
    runtime::{RuntimeHandle, Services},
    snapshot::{self, Entry},
    state::DeviceState,
};
use tokio::sync::{mpsc, oneshot};

use super::{post, problem::Problem};
use crate::{
    edge::here,
    ingest::split_lines,
    state::{
        Format,
        line::{self, Head, Line},
        pace::Pace,
    },
};

/// Bytes of a piece of an export.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the reader.
const PIECES: usize = 8;
/// How often an export begins anew when the journal was freed under it.
const ATTEMPTS: u32 = 3;
/// How long an export waits for a journal that does not write.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(20);
/// How long an import waits for its commit.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);
/// Largest body of an import: two records of the largest size.
const IMPORT_BYTES: usize = 2 * limits::RECORD_BYTES;

/// The headers that say what is coming.
const POSITION: &str = "tidegate-position";
const DEVICES: &str = "tidegate-devices";
const UNFINISHED: &str = "tidegate-unfinished";

/// Is an export under way? There is one of this for the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exporting(Arc<AtomicBool>);

/// The right to export, until it is dropped.
struct Turn(Arc<AtomicBool>);

impl Exporting {
    fn begin(&self) -> Option<Turn> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Turn(Arc::clone(&self.0)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// `GET /state/export?format=ndjson|binary&rate=`.
pub(crate) async fn export(query: web::Query<Vec<(String, String)>>) -> HttpResponse {
    begin_export(&query).await.unwrap_or_else(|problem| problem.response())
}

async fn begin_export(query: &[(String, String)]) -> Result<HttpResponse, Problem> {
    let (mut format, mut rate) = (Format::Ndjson, limits::EXPORT_RATE);
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("format", "ndjson") => format = Format::Ndjson,
            ("format", "binary") => format = Format::Binary,
            ("format", other) => {
                return Err(Problem::parameter("format", format!("format = {other:?}; allowed: ndjson, binary")));
            }
            ("rate", text) => {
                let parsed = text.parse().ok().filter(|rate| *rate > 0);
                let bad =
                    || Problem::parameter("rate", format!("rate = {text:?}; allowed: 1 or more records a second"));
                rate = parsed.ok_or_else(bad)?;
            }
            (other, _) => {
                let detail = format!("unknown parameter {other:?}; allowed: format, rate");
                return Err(Problem::parameter("query", detail));
            }
        }
    }
    let edge = here();
    let shared = &edge.shared;
    let turn = shared.exporting.begin().ok_or_else(|| {
        let detail = "another export is under way, and there is one at a time; try again when it is through";
        Problem::new(StatusCode::CONFLICT, "export-running", "An export is under way", detail)
    })?;
    let (begun, beginning) = oneshot::channel();
    let (pieces, mut waiting) = mpsc::channel(PIECES);
    let job = Job { runtime: shared.runtime.clone(), data: shared.settings.data_dir.clone(), format, rate, pieces };
    let failed = |detail: String| {
        tracing::error!(%detail, "no export");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "export-failed", "No export", detail).retry_after(5)
    };
    let work = move || {
        // The body ends when its last sender goes: not before the next export may begin.
        let last = job.pieces.clone();
        job.run(begun);
        drop(turn);
        drop(last);
    };
    let started = std::thread::Builder::new().name("export".to_owned()).spawn(work);
    started.map_err(|error| failed(format!("there is no thread for it: {error}")))?;
    let head = match beginning.await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(failed("it failed inside the node (a panic, see its log)".to_owned())),
    };
    let kind = match format {
        Format::Ndjson => "application/x-ndjson",
        Format::Binary => "application/octet-stream",
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((POSITION, head.position.to_string()))
        .insert_header((DEVICES, head.devices.to_string()))
        .insert_header((UNFINISHED, head.unfinished.to_string()))
        .streaming(futures_util::stream::poll_fn(move |task| waiting.poll_recv(task))))
}

/// An export on its thread.
struct Job {
    runtime: RuntimeHandle,
    data: DataDir,
    format: Format,
    rate: u32,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Job {
    fn run(self, begun: oneshot::Sender<Result<Head, String>>) {
        let export = match self.prepare() {
            Ok(export) => export,
            // Whoever asked may have gone.
            Err(error) => return drop(begun.send(Err(error))),
        };
        let head = head(&export, self.runtime.services());
        if begun.send(Ok(head)).is_err() {
            return;
        }
        let mut out = Pieces { to: &self.pieces, piece: Vec::with_capacity(PIECE) };
        match write(&export, &head, self.format, Pace::new(Some(self.rate)), &mut out) {
            Ok(()) => tracing::info!(position = %head.position, devices = head.devices, "exported the states"),
            Err(ExportError::NotTaken(_)) => tracing::info!("an export was not read to its end"),
            Err(error) => {
                tracing::error!(%error, "an export broke off");
                // The body ends without its end: the reader sees that it is not whole.
                let _ = self.pieces.blocking_send(Err(io::Error::other(error)));
            }
        }
    }

    fn prepare(&self) -> Result<Export, String> {
        // The loops are asked from a thread that is none of theirs.
        let waiter = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let waiter = waiter.map_err(|error| error.to_string())?;
        let mut attempt = 1;
        loop {
            let services = self.runtime.services();
            // Not slower than by default: the longer a copy takes, the more of the journal must be kept for it.
            let mut pace = Pace::new(Some(self.rate.max(limits::EXPORT_RATE)));
            let mut pause = |states| pace.wait(u32::try_from(states).unwrap_or(u32::MAX));
            let base = Base::take(&*services.store, &self.data.export(), &mut pause);
            let base = base.map_err(|error| error.to_string())?;
            let journaled =
                waiter.block_on(async { tokio::time::timeout(JOURNAL_PATIENCE, self.runtime.journaled()).await });
            let at = match journaled {
                Ok(at) => at.map_err(|error| error.to_string())?,
                Err(_) => {
                    let reason = services.journal.status().reason;
                    return Err(
                        reason.unwrap_or_else(|| format!("the journal did not write within {JOURNAL_PATIENCE:?}"))
                    );
                }
            };
            match base.fold(&self.data.journal(), at) {
                Err(ExportError::Missing { .. }) if attempt < ATTEMPTS => attempt += 1,
                folded => return folded.map_err(|error| error.to_string()),
            }
        }
    }
}

fn head(export: &Export, services: &Services) -> Head {
    Head {
        position: export.position(),
        devices: export.devices(),
        unfinished: export.unfinished(),
        time: services.clock.now(),
    }
}

/// Writes an export in one of its formats.
fn write(
    export: &Export,
    head: &Head,
    format: Format,
    mut pace: Pace,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    match format {
        Format::Ndjson => {
            let mut text = Vec::new();
            line::put_head(&mut text, head);
            export.for_each(&mut |entry| {
                if let Entry::State(state) = entry {
                    pace.wait(1);
                    line::put_state(&mut text, &state);
                    out.write_all(&text)?;
                    text.clear();
                }
                Ok(())
            })?;
            line::put_end(&mut text, head.devices);
            out.write_all(&text).and_then(|()| out.flush()).map_err(ExportError::NotTaken)
        }
        Format::Binary => {
            let mut writer = snapshot::Writer::begin(out, head.position).map_err(ExportError::NotTaken)?;
            export.for_each(&mut |entry| {
                pace.wait(1);
                match entry {
                    Entry::State(state) => writer.state(&state),
                    Entry::Parked(parked) => writer.parked(&parked),
                    Entry::Kept(key, value) => writer.kept(&key, &value),
                }
            })?;
            writer.end().and_then(|out| out.flush()).map_err(ExportError::NotTaken)
        }
    }
}

/// Hands a body to the loop in pieces, and waits while the reader has enough of them.
struct Pieces<'a> {
    to: &'a mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// `POST /state/import?overwrite=`: lines of an export.
pub(crate) async fn import(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    bring_in(request, payload).await.unwrap_or_else(|problem| problem.response())
}

async fn bring_in(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let edge = here();
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| Problem::parameter("query", format!("the query cannot be read: {error}")))?;
    let mut overwrite = false;
    for (name, value) in query.iter() {
        overwrite = match (name.as_str(), value.as_str()) {
            ("overwrite", "true") => true,
            ("overwrite", "false") => false,
            ("overwrite", other) => {
                let detail = format!("overwrite = {other:?}; allowed: true, false");
                return Err(Problem::parameter("overwrite", detail));
            }
            (other, _) => {
                let detail = format!("unknown parameter {other:?}; allowed: overwrite");
                return Err(Problem::parameter("query", detail));
            }
        };
    }
    post::check_encoding(&request)?;
    post::wait_for_room(&edge).await?;
    let body = read(payload).await?;
    let (states, mut results) = parse(&body)?;
    let runtime = edge.shared.runtime.clone();
    let brought = tokio::time::timeout(COMMIT_PATIENCE, runtime.import(states, overwrite)).await;
    let brought = brought.map_err(|_| {
        let reason = edge.handle.services().journal.status().reason;
        let detail = reason.unwrap_or_else(|| format!("not durable within {COMMIT_PATIENCE:?}"));
        Problem::overloaded(format!("{detail}; the states may or may not be brought in: send them again"), "journal")
    })??;
    let waiting = results.iter_mut().filter(|result| result["result"].is_null());
    for (result, brought) in waiting.zip(&brought) {
        result["result"] = json!(brought);
    }
    let count = |name: &str| results.iter().filter(|result| result["result"] == name).count();
    Ok(HttpResponse::Ok().json(json!({
        "imported": count("imported"),
        "unchanged": count("unchanged"),
        "older": count("older"),
        "invalid": count("invalid"),
        "overloaded": brought.iter().filter(|brought| **brought == Imported::Overloaded).count(),
        "results": results,
    })))
}

async fn read(payload: web::Payload) -> Result<Bytes, Problem> {
    match tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, payload.to_bytes_limited(IMPORT_BYTES)).await {
        Ok(Ok(Ok(body))) => Ok(body),
        Ok(Ok(Err(error))) => {
            let detail = format!("the body did not arrive whole: {error}");
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be read", detail))
        }
        Ok(Err(_)) => {
            let detail = format!("the body has more than {IMPORT_BYTES} bytes; send fewer states at a time");
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail);
            Err(problem.limit("import_bytes", IMPORT_BYTES))
        }
        Err(_) => {
            let seconds = limits::HTTP_BODY_TIMEOUT.as_secs();
            let detail = format!("the body did not arrive whole within {seconds} s");
            let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body is too slow", detail);
            Err(problem.limit("http_body_timeout", seconds))
        }
    }
}

/// The states of a body, and a result for every line; that of a state is still open. An export's first and last line are passed
/// over.
fn parse(body: &Bytes) -> Result<(Vec<DeviceState>, Vec<Value>), Problem> {
    let (mut states, mut results) = (Vec::new(), Vec::new());
    for (number, place) in split_lines(body).enumerate() {
        if number >= limits::READINGS_PER_REQUEST {
            let detail = format!("more than {} lines; send fewer at a time", limits::READINGS_PER_REQUEST);
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too many lines", detail);
            return Err(problem.limit("readings_per_request", limits::READINGS_PER_REQUEST));
        }
        match line::parse(&body[place]) {
            Ok(Line::State(state)) => {
                results.push(json!({ "line": number + 1, "deviceId": state.device.as_str(), "result": null }));
                states.push(*state);
            }
            Ok(Line::Head(_) | Line::End(_)) => {}
            Err(error) => results.push(json!({
                "line": number + 1, "result": "invalid", "column": error.column, "detail": error.to_string(),
            })),
        }
    }
    Ok((states, results))
}
