//! Shadows over HTTP: got, updated, deleted. What is answered is durable.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::Value;
use tidegate_actors::ids::DeviceId;

use super::{
    commands::{at_owner, json},
    path, post,
    problem::Problem,
};
use crate::{
    edge::here,
    shadow::{self, Ask, Rejection, Update},
};

/// `GET /devices/{id}/shadow`.
pub(crate) async fn get(request: HttpRequest) -> HttpResponse {
    asked(&request, Ask::Get(None)).await.unwrap_or_else(|problem| problem.response())
}

/// `PATCH` or `POST /devices/{id}/shadow`.
pub(crate) async fn update(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let updated = async {
        let edge = here();
        post::wait_for_room(&edge).await?;
        post::check_encoding(&request)?;
        let body = post::body_of(&edge, &request, payload).await?;
        let update = Update::parse(&body).map_err(|rejection| {
            edge.shared.shadows.rejected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            problem(&rejection)
        })?;
        asked(&request, Ask::Update(update)).await
    };
    updated.await.unwrap_or_else(|problem| problem.response())
}

/// `DELETE /devices/{id}/shadow`.
pub(crate) async fn delete(request: HttpRequest) -> HttpResponse {
    let deleted = async {
        post::wait_for_room(&here()).await?;
        asked(&request, Ask::Delete(None)).await
    };
    deleted.await.unwrap_or_else(|problem| problem.response())
}

async fn asked(request: &HttpRequest, ask: Ask) -> Result<HttpResponse, Problem> {
    if !request.query_string().is_empty() {
        let detail = format!("unknown parameters {:?}; there are none here", request.query_string());
        return Err(Problem::parameter("query", detail));
    }
    let device: DeviceId = path::device(request)?;
    let of = device.clone();
    let answer = at_owner(&device, move |owner, done| {
        shadow::serve(owner, of, &ask, |_, answer: Result<Value, Rejection>| drop(done.send(answer)));
    });
    match answer.await? {
        Ok(document) => Ok(json(StatusCode::OK, document.to_string())),
        Err(rejection) => Err(problem(&rejection)),
    }
}

fn problem(rejection: &Rejection) -> Problem {
    let status = StatusCode::from_u16(rejection.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (kind, title) = match rejection.code {
        404 => ("no-shadow", "The device has no shadow"),
        409 => ("version-conflict", "The shadow has another version"),
        413 => ("shadow-too-large", "The shadow is too large"),
        400 => ("bad-shadow", "Not an update of a shadow"),
        503 => ("overloaded", "The node takes no more shadows"),
        _ => ("internal", "The node failed"),
    };
    let mut problem = Problem::new(status, kind, title, rejection.message.clone());
    if let Some((name, value)) = rejection.limit {
        problem = problem.limit(name, value);
    }
    if let Some(token) = &rejection.token {
        problem = problem.with("clientToken", &**token);
    }
    problem
}
