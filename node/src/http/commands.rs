//! Commands over HTTP: sent to a device, looked at, taken back. A request may wait for the device's answer.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use tidegate_actors::{ids::DeviceId, limits};
use tokio::sync::oneshot;

use super::{path, post, problem::Problem};
use crate::{
    commands::{self, BadOrder, Created, Ended, Failure, NotCancelled, Order, Refusal, Request, Status},
    edge::{EdgeLoop, here},
};

/// The longest that a request may wait for the end of its command, in seconds.
const WAIT_MOST: u64 = limits::COMMAND_TIMEOUT_MOST.as_secs();

/// `POST /devices/{id}/commands?wait=`.
pub(crate) async fn send(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    take(request, payload).await.unwrap_or_else(|problem| problem.response())
}

/// `GET /devices/{id}/commands`.
pub(crate) async fn list(request: HttpRequest) -> HttpResponse {
    let listed = async {
        let device = path::device(&request)?;
        let of = device.clone();
        let commands = at_owner(&device, move |owner, done| {
            let _ = done.send(owner.commands.borrow().list(&of));
        });
        Ok(json(StatusCode::OK, format!("{{\"commands\":[{}]}}", commands.await?.join(","))))
    };
    listed.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `GET /devices/{id}/commands/{request}`.
pub(crate) async fn one(request: HttpRequest) -> HttpResponse {
    let found = async {
        let (device, id) = names(&request)?;
        let (of, wanted) = (device.clone(), id.clone());
        let command = at_owner(&device, move |owner, done| {
            let _ = done.send(owner.commands.borrow().get(&of, &wanted));
        });
        command.await?.map(|command| json(StatusCode::OK, command)).ok_or_else(|| unknown(&device, &id))
    };
    found.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `DELETE /devices/{id}/commands/{request}`: takes it back if it has not gone out.
pub(crate) async fn cancel(request: HttpRequest) -> HttpResponse {
    let cancelled = async {
        let (device, id) = names(&request)?;
        let (of, wanted) = (device.clone(), id.clone());
        let cancelled = at_owner(&device, move |owner, done| {
            commands::cancel(owner, &of, &wanted, |cancelled| drop(done.send(cancelled)));
        });
        match cancelled.await? {
            Ok(command) => Ok(json(StatusCode::OK, command)),
            Err(NotCancelled::Unknown) => Err(unknown(&device, &id)),
            Err(NotCancelled::Sent) => {
                let detail = "the command has gone out to the device: nobody can take it back";
                Err(Problem::new(StatusCode::CONFLICT, "command-sent", "The command was sent", detail))
            }
            Err(NotCancelled::Over(status)) => {
                let detail = format!("the command is over: {}", status.name());
                Err(Problem::new(StatusCode::CONFLICT, "command-over", "The command is over", detail))
            }
        }
    };
    cancelled.await.unwrap_or_else(|problem: Problem| problem.response())
}

async fn take(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let edge = here();
    let device = path::device(&request)?;
    let wait = wait_of(&request)?;
    post::wait_for_room(&edge).await?;
    post::check_encoding(&request)?;
    let body = post::body_of(&edge, &request, payload).await?;
    let order = Request::parse(&body).map_err(bad_order)?;
    let patience = Duration::from_millis(order.timeout_ms) + Duration::from_secs(1);
    let may_wait = order.may_wait();
    let (waiter, end) = oneshot::channel::<Ended>();
    let created = create(&device, order, (wait != Some(Duration::ZERO)).then_some(waiter)).await?;
    let created = created.map_err(|refusal| refused(&device, refusal))?;
    // Who says nothing waits for a device that is there, and not for one that is not.
    let patience = match wait {
        Some(wait) => wait,
        None if created.status == Status::Queued && may_wait => Duration::ZERO,
        None => patience,
    };
    if !patience.is_zero()
        && let Ok(Ok(ended)) = tokio::time::timeout(patience, end).await
    {
        return answered(&device, &created, ended);
    }
    let command = at_owner(&device, {
        let (of, id) = (device.clone(), created.id.clone());
        move |owner, done| drop(done.send(owner.commands.borrow().get(&of, &id)))
    });
    let command = command.await?.unwrap_or(created.json);
    let mut response = json(StatusCode::ACCEPTED, command);
    let place = format!("/devices/{}/commands/{}", path::escape(device.as_str()), created.id);
    if let Ok(place) = header::HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

async fn create(
    device: &DeviceId,
    order: Order,
    waiter: Option<oneshot::Sender<Ended>>,
) -> Result<Result<Created, Refusal>, Problem> {
    let of = device.clone();
    at_owner(device, move |owner, done| {
        commands::create(owner, &of, order, waiter, |created| drop(done.send(created)));
    })
    .await
}

/// The end of a command as the answer to the request that sent it.
fn answered(device: &DeviceId, created: &Created, ended: Ended) -> Result<HttpResponse, Problem> {
    let problem = |status, kind, title| {
        let problem = Problem::new(status, kind, title, String::from(ended.reason.clone()));
        let problem = problem.with("deviceId", device.as_str()).with("request", &*created.id);
        problem.with("commandStatus", ended.status.name())
    };
    Err(match (ended.status, ended.failure) {
        (Status::Expired, _) => {
            problem(StatusCode::GATEWAY_TIMEOUT, "command-expired", "The device did not come in time")
        }
        (Status::Failed, Some(Failure::BadReply)) => {
            problem(StatusCode::BAD_GATEWAY, "bad-reply", "The device's reply cannot be taken")
        }
        (Status::Failed, _) => {
            problem(StatusCode::GATEWAY_TIMEOUT, "command-timeout", "The device did not answer in time")
        }
        (Status::Cancelled, _) => problem(StatusCode::CONFLICT, "command-cancelled", "The command was taken back"),
        _ => return Ok(json(StatusCode::OK, ended.json)),
    })
}

/// The value of `?wait=`, in seconds (as RFC 7240's preference `wait`): how long to wait for the command's end.
fn wait_of(request: &HttpRequest) -> Result<Option<Duration>, Problem> {
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| Problem::parameter("query", format!("the query cannot be read: {error}")))?;
    let mut wait = None;
    for (name, value) in query.into_inner() {
        if name != "wait" {
            return Err(Problem::parameter("query", format!("unknown parameter {name:?}; allowed: wait")));
        }
        let seconds = value.parse().ok().filter(|seconds| *seconds <= WAIT_MOST).ok_or_else(|| {
            Problem::parameter("wait", format!("wait = {value:?}; allowed: 0 to {WAIT_MOST} whole seconds"))
        })?;
        wait = Some(Duration::from_secs(seconds));
    }
    Ok(wait)
}

fn bad_order(bad: BadOrder) -> Problem {
    let BadOrder { field, detail, limit } = bad;
    let status = match field {
        Some("params") => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut problem = Problem::new(status, "bad-command", "Not a command", detail);
    if let Some(field) = field {
        problem = problem.with("field", field);
    }
    if let Some((name, value)) = limit {
        problem = problem.limit(name, value);
    }
    problem
}

fn refused(device: &DeviceId, refusal: Refusal) -> Problem {
    let problem = match refusal {
        Refusal::Offline => {
            let detail = format!(
                "{device} is not connected, or has subscribed to neither devices/{device}/commands/+ nor \
                 v1/devices/me/rpc/request/+; with expiryMs the command waits for it"
            );
            Problem::new(StatusCode::CONFLICT, "device-offline", "The device takes no commands now", detail)
        }
        Refusal::QueueFull => {
            let detail = format!("{} commands of {device} are not over", limits::COMMAND_QUEUE);
            let kind = (StatusCode::TOO_MANY_REQUESTS, "command-queue-full", "Too many commands wait");
            let problem = Problem::new(kind.0, kind.1, kind.2, detail).limit("command_queue", limits::COMMAND_QUEUE);
            problem.retry_after(1)
        }
        Refusal::Full => {
            let detail = "the commands of this loop's devices take all the memory that they may; try again later";
            Problem::overloaded(detail, "command_bytes").with("limitValue", limits::COMMAND_BYTES)
        }
    };
    problem.with("deviceId", device.as_str())
}

fn unknown(device: &DeviceId, id: &str) -> Problem {
    let hours = limits::COMMAND_ENDED_KEPT.as_secs() / 3_600;
    let detail = format!("{device} has no command {id:?}; one that is over is remembered for {hours} h");
    Problem::new(StatusCode::NOT_FOUND, "unknown-command", "No such command", detail)
}

fn names(request: &HttpRequest) -> Result<(DeviceId, String), Problem> {
    let device = path::device(request)?;
    Ok((device, request.match_info().get("request").unwrap_or_default().to_owned()))
}

/// Asks the loop that owns a device, and waits for its answer.
pub(super) async fn at_owner<T: Send + 'static>(
    device: &DeviceId,
    ask: impl FnOnce(&std::rc::Rc<EdgeLoop>, oneshot::Sender<T>) + Send + 'static,
) -> Result<T, Problem> {
    let edge = here();
    let (done, answer) = oneshot::channel();
    if !edge.at_loop(edge.handle.owner_of(device.as_str()), move |owner| ask(owner, done)) {
        return Err(Problem::overloaded("the device's loop is busy; try again in a second", "loop_inbox"));
    }
    match tokio::time::timeout(post::COMMIT_PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => {
            let reason = edge.handle.services().journal.status().reason;
            let detail = reason.unwrap_or_else(|| format!("not durable within {:?}", post::COMMIT_PATIENCE));
            Err(Problem::overloaded(format!("{detail}; what was asked for may or may not be done"), "journal"))
        }
    }
}

pub(super) fn json(status: StatusCode, body: String) -> HttpResponse {
    HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(body)
}
