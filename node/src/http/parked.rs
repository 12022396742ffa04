//! Readings that no handler could work on: listed, run again, dropped.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::{Value, json};
use tidegate_actors::{
    ids::{DeviceId, Position},
    limits,
    reading::{AckLevel, Reading},
    state::ParkedReading,
    submission::{Answer, Disposition, Submission},
};

use super::{post, problem::Problem};
use crate::edge::{EdgeLoop, Taken, here};

/// Parked readings of a page unless the query asks otherwise.
const DEFAULT_PAGE: usize = 100;

/// `GET /parked?limit=&before=&deviceId=`.
pub(crate) async fn list(query: web::Query<Vec<(String, String)>>) -> HttpResponse {
    page(&query).await.unwrap_or_else(|problem| problem.response())
}

async fn page(query: &[(String, String)]) -> Result<HttpResponse, Problem> {
    let (mut limit, mut before, mut device) = (DEFAULT_PAGE, None, None);
    for (name, value) in query {
        match name.as_str() {
            "limit" => {
                let asked = value.parse().ok().filter(|limit| (1..=limits::PAGE_DEVICES).contains(limit));
                limit = asked.ok_or_else(|| {
                    let detail = format!("limit = {value:?}; allowed: 1 to {}", limits::PAGE_DEVICES);
                    Problem::parameter("limit", detail).limit("page_devices", limits::PAGE_DEVICES)
                })?;
            }
            "before" => before = Some(position_of("before", value)?),
            "deviceId" => {
                let id = DeviceId::new(value).map_err(|error| Problem::parameter("deviceId", error.to_string()))?;
                device = Some(id);
            }
            other => {
                let detail = format!("unknown parameter {other:?}; allowed: before, deviceId, limit");
                return Err(Problem::parameter("query", detail));
            }
        }
    }
    let runtime = here().shared.runtime.clone();
    let parked = runtime.parked(device, before, limit).await?;
    let next = parked.last().filter(|_| parked.len() == limit).map(|last| last.position);
    let rows: Vec<Value> = parked.iter().map(row).collect();
    Ok(HttpResponse::Ok().json(json!({ "parked": rows, "next": next })))
}

/// `GET /parked/{position}`.
pub(crate) async fn one(position: web::Path<String>) -> HttpResponse {
    let found = async { Ok(HttpResponse::Ok().json(row(&find(position_of("position", &position)?).await?))) };
    found.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `POST /parked/{position}/retry`: through the handlers once more, as they are now.
pub(crate) async fn retry(position: web::Path<String>, request: HttpRequest) -> HttpResponse {
    run_again(&position, &request).await.unwrap_or_else(|problem| problem.response())
}

async fn run_again(position: &str, request: &HttpRequest) -> Result<HttpResponse, Problem> {
    no_parameters(request)?;
    let edge = here();
    let position = position_of("position", position)?;
    let (taken, parked) = take(&edge, position).await?;
    post::wait_for_room(&edge).await?;
    let device = parked.reading.device.clone();
    // It goes on and the position stays taken if whoever asked goes away or loses his patience.
    let under_way = actix_rt::spawn(attempt(taken, parked));
    let answer = match tokio::time::timeout(post::COMMIT_PATIENCE, under_way).await {
        Ok(Ok(Some(answer))) => answer,
        _ => {
            let reason = edge.handle.services().journal.status().reason;
            let detail = reason.unwrap_or_else(|| format!("not through within {:?}", post::COMMIT_PATIENCE));
            let detail = format!("{detail}; the reading goes on when it can: look at GET /parked/{position} later");
            return Err(Problem::overloaded(detail, "journal"));
        }
    };
    let (result, reason) = match answer {
        Answer::Processed(Disposition::Kept) | Answer::Committed => ("kept", None),
        Answer::Processed(Disposition::Conflated(reason)) => ("conflated", Some(reason.name())),
        Answer::Processed(Disposition::Dropped) => ("dropped", None),
        Answer::Processed(Disposition::Parked(reason)) => ("parked", Some(reason.name())),
        Answer::Refused(_) => {
            return Err(post::refused(Some(answer)).unwrap_or_else(|| Problem::overloaded("refused", "loop_in_flight")));
        }
    };
    let mut body = json!({ "position": position, "deviceId": device.as_str(), "result": result });
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    Ok(HttpResponse::Ok().json(body))
}

/// Submits the reading once more and waits for what becomes of it.
async fn attempt(taken: Taken, parked: ParkedReading) -> Option<Answer> {
    let edge = here();
    // It came at the time at which it came; and it is no retry of its sender's.
    let reading = Reading { idempotency: None, retry_of: Some(parked.position), ..parked.reading };
    let wait = edge.waits.borrow_mut().open(1);
    let ack = Some(edge.ack_to_request(wait.key, 0));
    edge.handle.submit(Submission { reading, level: AckLevel::Processed, ack });
    let answers = wait.answers.await;
    drop(taken);
    answers.ok()?.into_iter().next().flatten()
}

/// `DELETE /parked/{position}`: for good.
pub(crate) async fn drop_one(position: web::Path<String>, request: HttpRequest) -> HttpResponse {
    remove(&position, &request).await.unwrap_or_else(|problem| problem.response())
}

async fn remove(position: &str, request: &HttpRequest) -> Result<HttpResponse, Problem> {
    no_parameters(request)?;
    let edge = here();
    let position = position_of("position", position)?;
    let (taken, parked) = take(&edge, position).await?;
    let device = parked.reading.device;
    let runtime = edge.shared.runtime.clone();
    let unparked = actix_rt::spawn(async move {
        let unparked = runtime.unpark(device, position).await;
        drop(taken);
        unparked
    });
    match tokio::time::timeout(post::COMMIT_PATIENCE, unparked).await {
        Ok(Ok(done)) => done.map(|()| HttpResponse::NoContent().finish()).map_err(Problem::from),
        _ => {
            let detail =
                format!("not durable within {:?}; look at GET /parked/{position} later", post::COMMIT_PATIENCE);
            Err(Problem::overloaded(detail, "journal"))
        }
    }
}

/// Takes a parked reading for this operator.
async fn take(edge: &EdgeLoop, position: Position) -> Result<(Taken, ParkedReading), Problem> {
    let taken = edge.shared.retries.take(position);
    let parked = find(position).await?;
    taken.map(|taken| (taken, parked)).ok_or_else(|| {
        let detail = format!("the reading at position {position} is being retried or dropped just now");
        let kind = (StatusCode::CONFLICT, "parked-busy", "The parked reading is being worked on");
        Problem::new(kind.0, kind.1, kind.2, detail).with("position", position.0)
    })
}

async fn find(position: Position) -> Result<ParkedReading, Problem> {
    let runtime = here().shared.runtime.clone();
    runtime.parked_at(position).await?.ok_or_else(|| {
        let detail = format!(
            "no reading is parked at position {position}: it was retried or dropped, it gave way to {} newer ones, or it \
             never was; GET /parked lists those that are",
            limits::PARKED_READINGS
        );
        let kind = (StatusCode::NOT_FOUND, "unknown-parked", "No such parked reading");
        Problem::new(kind.0, kind.1, kind.2, detail).with("position", position.0)
    })
}

fn position_of(name: &str, text: &str) -> Result<Position, Problem> {
    let position = text.parse().map(Position);
    position.map_err(|_| {
        Problem::parameter(name, format!("{name} = {text:?}; a position is a whole number, as GET /parked tells it"))
    })
}

fn no_parameters(request: &HttpRequest) -> Result<(), Problem> {
    match request.query_string() {
        "" => Ok(()),
        query => Err(Problem::parameter("query", format!("unknown parameters {query:?}; there are none here"))),
    }
}

fn row(parked: &ParkedReading) -> Value {
    let reading = &parked.reading;
    json!({
        "position": parked.position,
        "deviceId": reading.device.as_str(),
        "script": parked.script,
        "reason": parked.reason.name(),
        "message": parked.message,
        "deviceTime": reading.device_time,
        "receivedTime": reading.received,
        "payload": serde_json::from_slice::<Value>(&reading.payload).unwrap_or(Value::Null),
    })
}
