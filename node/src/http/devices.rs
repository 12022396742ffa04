//! States over HTTP: one device, and pages of them.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use tidegate_actors::{limits, runtime::PageQuery};

use super::{path, problem::Problem};
use crate::edge::here;

/// Devices of a page unless the query asks otherwise.
const DEFAULT_PAGE: usize = 100;

/// `GET /devices/{id}`.
pub(crate) async fn one(request: HttpRequest) -> HttpResponse {
    find(&request).await.unwrap_or_else(|problem| problem.response())
}

async fn find(request: &HttpRequest) -> Result<HttpResponse, Problem> {
    let id = path::device(request)?;
    let runtime = here().shared.runtime.clone();
    match runtime.device(id.clone()).await? {
        Some(json) => Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(json)),
        None => {
            let detail = format!("no reading of device {id:?} has been kept yet");
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-device", "Unknown device", detail))
        }
    }
}

/// `GET /devices?after=&limit=&prefix=`.
pub(crate) async fn list(query: web::Query<Vec<(String, String)>>) -> HttpResponse {
    page(&query).await.unwrap_or_else(|problem| problem.response())
}

async fn page(query: &[(String, String)]) -> Result<HttpResponse, Problem> {
    let mut asked = PageQuery { limit: DEFAULT_PAGE, ..PageQuery::default() };
    for (name, value) in query {
        match name.as_str() {
            "after" => asked.after = Some(value.clone()).filter(|after| !after.is_empty()),
            "prefix" => asked.prefix.clone_from(value),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=limits::PAGE_DEVICES).contains(limit));
                asked.limit = limit.ok_or_else(|| {
                    let detail = format!("limit = {value:?}; allowed: 1 to {}", limits::PAGE_DEVICES);
                    Problem::parameter("limit", detail).limit("page_devices", limits::PAGE_DEVICES)
                })?;
            }
            other => {
                let detail = format!("unknown parameter {other:?}; allowed: after, limit, prefix");
                return Err(Problem::parameter("query", detail));
            }
        }
    }
    let limit = asked.limit;
    let runtime = here().shared.runtime.clone();
    let (_, total) = runtime.health().await?;
    let devices = runtime.page(asked).await?;
    let next = if devices.len() == limit { devices.last().map(|(id, _)| id.as_str()) } else { None };
    let mut body = Vec::with_capacity(64 + devices.iter().map(|(_, json)| json.len() + 1).sum::<usize>());
    body.extend_from_slice(b"{\"devices\":[");
    for (index, (_, json)) in devices.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(json);
    }
    body.extend_from_slice(format!("],\"next\":{},\"total\":{total}}}", serde_json::json!(next)).as_bytes());
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(body))
}
