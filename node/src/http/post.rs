//! Readings over HTTP: one object, an array, or NDJSON, each item with its own result.

use std::{ops::Range, task::Poll, time::Duration};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Value, json};
use tidegate_actors::{
    idempotency::Idempotency,
    ids::DeviceId,
    ledger::{ConflateReason, RejectReason},
    limits,
    reading::{AckLevel, Channel, Reading},
    submission::{Answer, Disposition, Submission},
    turn::Memory,
};

use super::{path, problem::Problem, wishes::Wishes};
use crate::{
    auth,
    edge::{EdgeLoop, here},
    ingest::{IdempotencyKey, IngestError, Parsed, each_reading, key_reused, outcome, refused_at_limit, split_lines},
};

/// How long a request waits for its commit before it is told that the node cannot write.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a request waits for room when the node is at a limit, before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);

/// `POST /metrics`: every object names its device.
pub(crate) async fn metrics(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    take(request, payload, None).await.unwrap_or_else(|problem| problem.response())
}

/// `POST /devices/{id}/metrics`: all readings are of this device, in ThingsBoard's shapes.
pub(crate) async fn device_metrics(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let device = match path::device(&request) {
        Ok(device) => device,
        Err(problem) => {
            here().handle.reject(RejectReason::BadDeviceId, None);
            return problem.response();
        }
    };
    take(request, payload, Some(device)).await.unwrap_or_else(|problem| problem.response())
}

/// What one item of a body came to.
type Item = Result<Reading, IngestError>;

async fn take(request: HttpRequest, payload: web::Payload, device: Option<DeviceId>) -> Result<HttpResponse, Problem> {
    let edge = here();
    let caller = auth::http::caller(&request);
    if let Some(device) = &device {
        auth::http::check_report(caller.as_deref(), device)?;
    }
    wait_for_room(&edge).await?;
    let wishes = Wishes::of(&request, edge.shared.settings.http_default_ack)?;
    check_encoding(&request)?;
    let body = body_of(&edge, &request, payload).await?;
    // The body took its time: others may have filled the room meanwhile, or the node stops.
    wait_for_room(&edge).await?;
    let is_ndjson = request.content_type().eq_ignore_ascii_case("application/x-ndjson");
    let is_single = !is_ndjson && body.trim_ascii_start().first() != Some(&b'[');
    let mut items = parse(&edge, &body, device.as_ref(), is_ndjson).map_err(|error| {
        edge.handle.reject(error.reason, device.as_ref().map(DeviceId::as_str));
        Problem::of_ingest(&error, &body)
    })?;
    // A body that holds what its sender may not report is refused as a whole: nothing of it is taken.
    for reading in items.iter().filter_map(|item| item.as_ref().ok()) {
        auth::http::check_report(caller.as_deref(), &reading.device)?;
    }
    for error in items.iter().filter_map(|item| item.as_ref().err()) {
        edge.handle.reject(error.reason, device.as_ref().map(DeviceId::as_str));
    }
    if let Some(key) = &wishes.key {
        tag(&edge, &mut items, key, &body, device.as_ref())?;
    }
    let mut response = if is_single {
        let item = items.pop().ok_or_else(|| Problem::parameter("body", "the body is empty"))?;
        let reading = item.map_err(|error| Problem::of_ingest(&error, &body))?;
        let device = reading.device.clone();
        let answers = submit(&edge, vec![(0, reading)], 1, wishes.level).await?;
        single(wishes.level, &device, answers.first().copied().flatten())?
    } else {
        batch(&edge, items, &body, wishes.level).await?
    };
    if wishes.preferred {
        let level = HeaderValue::from_static(match wishes.level {
            AckLevel::Received => "ack=received",
            AckLevel::Committed => "ack=committed",
            AckLevel::Processed => "ack=processed",
        });
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), level);
    }
    Ok(response)
}

/// The whole body, within its limits of size and time.
pub(super) async fn body_of(edge: &EdgeLoop, request: &HttpRequest, payload: web::Payload) -> Result<Bytes, Problem> {
    let limit = edge.shared.settings.http_body_bytes;
    // What is announced as too large is not waited for.
    if announced_bytes(request).is_some_and(|bytes| bytes > limit as u64) {
        return Err(body_too_large(edge, limit));
    }
    let body = tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, payload.to_bytes_limited(limit)).await;
    let body = body.map_err(|_| {
        let seconds = limits::HTTP_BODY_TIMEOUT.as_secs();
        let detail = format!("the body did not arrive whole within {seconds} s");
        let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The body is too slow", detail);
        problem.limit("http_body_timeout", seconds)
    })?;
    match body {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => {
            let detail = format!("the body did not arrive whole: {error}");
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be read", detail))
        }
        Err(_) => Err(body_too_large(edge, limit)),
    }
}

/// Marks the readings as those of one request, so that their devices tell a retry.
///
/// # Errors
/// The key came with another body before.
fn tag(
    edge: &EdgeLoop,
    items: &mut [Item],
    key: &IdempotencyKey,
    body: &Bytes,
    device: Option<&DeviceId>,
) -> Result<(), Problem> {
    let mut readings = items.iter_mut().filter_map(|item| item.as_mut().ok()).peekable();
    if readings.peek().is_none() {
        // Nothing of it is taken: the key may come again with a better body.
        return Ok(());
    }
    let request = key.request(body);
    if edge.shared.keys.remember(device.map_or("", DeviceId::as_str), key, request).is_err() {
        let reused = RejectReason::IdempotencyKeyReused;
        readings.for_each(|reading| edge.handle.reject(reused, Some(reading.device.as_str())));
        return Err(Problem::of_ingest(&key_reused("Idempotency-Key"), b""));
    }
    // Each device has its readings of the request numbered from 0: the same body numbers them the same again.
    let mut next: HashMap<DeviceId, u32> = HashMap::new();
    for reading in readings {
        let next = next.entry(reading.device.clone()).or_default();
        reading.idempotency = Some(Idempotency { request, index: *next });
        *next += 1;
    }
    Ok(())
}

/// Takes a body of many items: each has a result of its own.
async fn batch(edge: &EdgeLoop, items: Vec<Item>, body: &Bytes, level: AckLevel) -> Result<HttpResponse, Problem> {
    let count = items.len();
    let devices: Vec<Option<DeviceId>> =
        items.iter().map(|item| item.as_ref().ok().map(|reading| reading.device.clone())).collect();
    let mut results: Vec<Result<(), Problem>> = Vec::with_capacity(count);
    let mut readings = Vec::with_capacity(count);
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(reading) => {
                readings.push((index, reading));
                results.push(Ok(()));
            }
            Err(error) => results.push(Err(Problem::of_ingest(&error, body))),
        }
    }
    let answers = submit(edge, readings, count, level).await?;
    Ok(many(level, &devices, &results, &answers))
}

/// Back-pressure over HTTP: at a limit the request waits for room, and only then is it refused by the limit's name.
pub(super) async fn wait_for_room(edge: &EdgeLoop) -> Result<(), Problem> {
    if !edge.handle.is_pressed() {
        return Ok(());
    }
    let room = std::future::poll_fn(|task| {
        if edge.handle.is_pressed() {
            edge.handle.pause(task.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    });
    if tokio::time::timeout(ROOM_PATIENCE, room).await.is_ok() {
        return Ok(());
    }
    Err(match edge.handle.services().journal.status().reason {
        Some(reason) => Problem::overloaded(reason, "journal"),
        None if edge.handle.memory() != Memory::Enough => {
            let detail =
                format!("memory is short ({} bytes); try again in a second", edge.shared.settings.memory_limit);
            Problem::overloaded(detail, "memory_limit_bytes")
        }
        None => Problem::overloaded("too many readings are under way; try again in a second", "loop_in_flight"),
    })
}

fn announced_bytes(request: &HttpRequest) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn body_too_large(edge: &EdgeLoop, limit: usize) -> Problem {
    edge.handle.reject(RejectReason::TooLarge, None);
    let detail = format!("the body has more than {limit} bytes; send fewer readings at a time");
    let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail);
    problem.limit("http_body_bytes", limit)
}

/// A body is taken as it is: compressed bytes would only be told not to be JSON.
pub(super) fn check_encoding(request: &HttpRequest) -> Result<(), Problem> {
    match request.headers().get(header::CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes())) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            let detail = format!("content-encoding {coding:?} is not taken; send the body uncompressed");
            let kind = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", "The body is encoded");
            Err(Problem::new(kind.0, kind.1, kind.2, detail).with("field", "content-encoding"))
        }
        _ => Ok(()),
    }
}

fn parse(edge: &EdgeLoop, body: &Bytes, device: Option<&DeviceId>, ndjson: bool) -> Result<Vec<Item>, IngestError> {
    let received = edge.handle.services().clock.now();
    let telemetry = device.is_some();
    let mut items = Vec::new();
    let mut add = |parsed: Result<Parsed, IngestError>| {
        items.push(parsed.and_then(|parsed| {
            let device = match device {
                Some(device) => named_in_path(device, parsed.device_id.as_deref())?,
                None => named_in_body(parsed.device_id.as_deref())?,
            };
            Ok(Reading::new(device, Channel::Metrics, parsed.ts, received, parsed.fields))
        }));
    };
    if ndjson {
        let lines: Vec<Range<usize>> = split_lines(body).take(limits::READINGS_PER_REQUEST + 1).collect();
        if lines.len() > limits::READINGS_PER_REQUEST {
            let detail = format!("more than {} lines", limits::READINGS_PER_REQUEST);
            let error = IngestError::new(RejectReason::TooLarge, detail);
            return Err(error.limit("readings_per_request", limits::READINGS_PER_REQUEST));
        }
        if lines.is_empty() {
            return Err(IngestError::new(RejectReason::BadShape, "the body is empty; send one JSON object a line"));
        }
        for line in lines {
            let text = body.slice(line.clone());
            let whole =
                each_reading(&text, Some(&text), telemetry, |parsed| add(parsed.map_err(|e| e.shifted(line.start))));
            if let Err(error) = whole {
                add(Err(error.shifted(line.start)));
            }
        }
    } else {
        each_reading(body, Some(body), telemetry, &mut add)?;
        if items.is_empty() {
            return Err(IngestError::new(RejectReason::BadShape, "the array is empty; send at least one reading"));
        }
    }
    Ok(items)
}

fn named_in_path(device: &DeviceId, in_body: Option<&str>) -> Result<DeviceId, IngestError> {
    match in_body {
        Some(id) if id != device.as_str() => {
            let detail = format!("deviceId {id:?} in the body, but the path names {device}");
            Err(IngestError::new(RejectReason::BadDeviceId, detail).field("deviceId"))
        }
        _ => Ok(device.clone()),
    }
}

fn named_in_body(id: Option<&str>) -> Result<DeviceId, IngestError> {
    let bad = |detail: String| IngestError::new(RejectReason::BadDeviceId, detail).field("deviceId");
    let id = id.ok_or_else(|| {
        bad("no deviceId: add \"deviceId\": \"…\" to the object, or post to /devices/{id}/metrics".to_owned())
    })?;
    DeviceId::new(id).map_err(|error| bad(error.to_string()))
}

/// Hands the readings over, and waits for their answers if the level asks for it. The answers are by index.
async fn submit(
    edge: &EdgeLoop,
    readings: Vec<(usize, Reading)>,
    items: usize,
    level: AckLevel,
) -> Result<Vec<Option<Answer>>, Problem> {
    if level == AckLevel::Received {
        for (_, reading) in readings {
            edge.handle.submit(Submission { reading, level, ack: None });
        }
        return Ok(vec![None; items]);
    }
    if readings.is_empty() {
        return Ok(vec![None; items]);
    }
    let indices: Vec<usize> = readings.iter().map(|(index, _)| *index).collect();
    let wait = edge.waits.borrow_mut().open(u32::try_from(readings.len()).unwrap_or(u32::MAX));
    for (item, (_, reading)) in (0..).zip(readings) {
        edge.handle.submit(Submission { reading, level, ack: Some(edge.ack_to_request(wait.key, item)) });
    }
    match tokio::time::timeout(COMMIT_PATIENCE, wait.answers).await {
        Ok(Ok(answers)) => {
            let mut by_index = vec![None; items];
            for (index, answer) in indices.into_iter().zip(answers) {
                by_index[index] = answer;
            }
            Ok(by_index)
        }
        _ => {
            edge.waits.borrow_mut().forget(wait.key);
            let reason = edge.handle.services().journal.status().reason;
            let detail = reason.unwrap_or_else(|| format!("not durable within {COMMIT_PATIENCE:?}"));
            Err(Problem::overloaded(
                format!("{detail}; the readings may or may not be kept: send them again"),
                "journal",
            ))
        }
    }
}

/// The problem of a refused item.
pub(super) fn refused(answer: Option<Answer>) -> Option<Problem> {
    let Some(Answer::Refused(reason)) = answer else { return None };
    let memory_limit = here().shared.settings.memory_limit;
    Some(Problem::of_ingest(&refused_at_limit(reason, memory_limit), b"").retry_after(1))
}

/// What was made of a reading, for `ack=processed`; and whether it is a retry of one that was here before.
fn outcome_of(answer: Option<Answer>) -> Option<(Value, bool)> {
    let Some(Answer::Processed(disposition)) = answer else { return None };
    let is_retry = disposition == Disposition::Conflated(ConflateReason::IdempotentRetry);
    Some((json!(outcome(disposition)), is_retry))
}

fn accepted_status(level: AckLevel) -> StatusCode {
    if level == AckLevel::Received { StatusCode::ACCEPTED } else { StatusCode::OK }
}

fn single(level: AckLevel, device: &DeviceId, answer: Option<Answer>) -> Result<HttpResponse, Problem> {
    if let Some(problem) = refused(answer) {
        return Err(problem);
    }
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(b"{\"deviceId\":");
    // A str always serializes.
    let _ = serde_json::to_writer(&mut body, device.as_str());
    body.extend_from_slice(b",\"accepted\":1");
    if let Some((outcome, is_retry)) = outcome_of(answer) {
        body.extend_from_slice(format!(",\"outcome\":{outcome}").as_bytes());
        if is_retry {
            body.extend_from_slice(b",\"duplicate\":true");
        }
    }
    body.push(b'}');
    Ok(HttpResponse::build(accepted_status(level)).insert_header((header::CONTENT_TYPE, "application/json")).body(body))
}

fn many(
    level: AckLevel,
    devices: &[Option<DeviceId>],
    results: &[Result<(), Problem>],
    answers: &[Option<Answer>],
) -> HttpResponse {
    let mut items = Vec::with_capacity(results.len());
    let mut accepted = 0;
    let mut worst: Option<StatusCode> = None;
    for (index, ((result, answer), device)) in results.iter().zip(answers).zip(devices).enumerate() {
        let problem = result.as_ref().err().cloned().or_else(|| refused(*answer));
        let mut item = json!({ "index": index });
        if let Some(device) = device {
            item["deviceId"] = json!(device.as_str());
        }
        if let Some(problem) = problem {
            worst.get_or_insert(problem.status());
            item["status"] = json!("rejected");
            item["problem"] = problem.json();
        } else {
            accepted += 1;
            item["status"] = json!("accepted");
            if let Some((outcome, is_retry)) = outcome_of(*answer) {
                item["outcome"] = outcome;
                if is_retry {
                    item["duplicate"] = json!(true);
                }
            }
        }
        items.push(item);
    }
    let body = json!({ "accepted": accepted, "rejected": items.len() - accepted, "items": items });
    let status = worst.filter(|_| accepted == 0).unwrap_or(accepted_status(level));
    HttpResponse::build(status).json(body)
}
