//! An operator's work on the handlers: how they fare, switched off and on, re-armed, reloaded, rolled back.
//!
//! What blocks (loading, trying, the disk) runs on a thread of its own: a reload takes as long as its canary.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde_json::json;
use tidegate_actors::script::ScriptEngine as _;
use tidegate_scripts::{LoadError, ReloadError, Reloaded, WorkerPool};
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::edge::here;

/// `GET /scripts`: how every handler fares, and the workers.
pub(crate) async fn list() -> HttpResponse {
    let pool = Arc::clone(&here().shared.scripts);
    HttpResponse::Ok().json(json!({
        "generation": pool.set_generation(),
        "sets": pool.set_status(),
        "scripts": pool.scripts(),
        "workers": pool.workers(),
    }))
}

/// `POST /scripts/reload?canary=`: the directory is read again.
pub(crate) async fn reload(request: HttpRequest) -> HttpResponse {
    let reloaded = async {
        let try_first = wants_canary(&request)?;
        let reloaded = on_thread(move |pool| pool.reload(try_first)).await?;
        let body = match reloaded.map_err(|error| problem(&error))? {
            Reloaded::Unchanged { generation } => json!({ "result": "unchanged", "generation": generation }),
            Reloaded::Switched { generation, canary } => {
                json!({ "result": "switched", "generation": generation, "canary": canary })
            }
        };
        Ok(HttpResponse::Ok().json(body))
    };
    reloaded.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `POST /scripts/rollback`: the set before the one that runs.
pub(crate) async fn rollback(request: HttpRequest) -> HttpResponse {
    let back = async {
        no_parameters(&request)?;
        let generation = on_thread(WorkerPool::rollback).await?.map_err(|error| problem(&error))?;
        Ok(HttpResponse::Ok().json(json!({ "result": "rolled-back", "generation": generation })))
    };
    back.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `GET /state/scripts`: the sets that are kept, with their sources, for a backup.
pub(crate) async fn kept(request: HttpRequest) -> HttpResponse {
    let kept = async {
        no_parameters(&request)?;
        let kept = on_thread(WorkerPool::kept_sets).await?;
        let failed = |error: std::io::Error| {
            let detail = format!("the kept handlers: {error}");
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "kept-unreadable",
                "The kept handlers cannot be read",
                detail,
            )
        };
        Ok(HttpResponse::Ok().json(kept.map_err(failed)?))
    };
    kept.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// `POST /scripts/{name}/enable`.
pub(crate) async fn enable(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    change(name.into_inner(), request, |pool, name| pool.enable(name, true)).await
}

/// `POST /scripts/{name}/disable`.
pub(crate) async fn disable(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    change(name.into_inner(), request, |pool, name| pool.enable(name, false)).await
}

/// `POST /scripts/{name}/rearm`: its breaker closes.
pub(crate) async fn rearm(name: web::Path<String>, request: HttpRequest) -> HttpResponse {
    change(name.into_inner(), request, |pool, name| Ok(pool.rearm(name))).await
}

/// Changes one script and tells how it fares then.
async fn change(
    name: String,
    request: HttpRequest,
    change: impl FnOnce(&WorkerPool, &str) -> std::io::Result<bool> + Send + 'static,
) -> HttpResponse {
    let changed = async {
        no_parameters(&request)?;
        let of = name.clone();
        let is_there = on_thread(move |pool| change(pool, &of)).await?;
        let is_there = is_there.map_err(|error| {
            let detail = format!("it cannot be written down, so nothing has changed: {error}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-kept", "The disk does not take it", detail)
        })?;
        let scripts = here().shared.scripts.scripts();
        let script = scripts.iter().find(|script| is_there && *script.name == *name).ok_or_else(|| {
            let names: Vec<_> = scripts.iter().map(|script| &*script.name).collect();
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            let detail = format!("there is no handler {name:?}; those that there are: {known}");
            Problem::new(StatusCode::NOT_FOUND, "unknown-script", "No such handler", detail)
        })?;
        Ok(HttpResponse::Ok().json(script))
    };
    changed.await.unwrap_or_else(|problem: Problem| problem.response())
}

/// Lets the pool work on a thread of its own. It goes on if whoever asked goes away.
async fn on_thread<T: Send + 'static>(work: impl FnOnce(&WorkerPool) -> T + Send + 'static) -> Result<T, Problem> {
    let pool = Arc::clone(&here().shared.scripts);
    let (done, waiting) = oneshot::channel();
    let failed =
        |detail: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed", detail);
    std::thread::Builder::new()
        .name("script-admin".to_owned())
        .spawn(move || drop(done.send(work(&pool))))
        .map_err(|error| failed(format!("there is no thread for it: {error}")))?;
    waiting.await.map_err(|_| failed("it failed inside the node (a panic, see its log)".to_owned()))
}

fn problem(error: &ReloadError) -> Problem {
    let detail = error.to_string();
    let conflict = |kind, title| Problem::new(StatusCode::CONFLICT, kind, title, detail.clone());
    match error {
        ReloadError::Busy => conflict("reload-busy", "Another reload is under way"),
        ReloadError::NothingKept => conflict("nothing-kept", "There is nothing to go back to"),
        ReloadError::RolledBack(report) => {
            conflict("canary-failed", "The new handlers were rolled back").with("canary", json!(report))
        }
        ReloadError::Broken(reports) => {
            let rows = reports.iter().map(|r| json!({ "name": r.name, "error": r.error, "excerpt": r.excerpt }));
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let problem = Problem::new(status, "scripts-broken", "The new handlers do not load", detail);
            problem.with("scripts", rows.collect::<Vec<_>>())
        }
        ReloadError::Load(LoadError::Read(_)) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "scripts-unreadable", "The handlers cannot be read", detail)
        }
        ReloadError::Stopped | ReloadError::Load(_) | ReloadError::Kept(_) | ReloadError::Start(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-reload", "The handlers cannot be replaced", detail)
        }
    }
}

fn wants_canary(request: &HttpRequest) -> Result<bool, Problem> {
    match request.query_string() {
        "" | "canary=true" => Ok(true),
        "canary=false" => Ok(false),
        query => {
            let detail = format!("{query:?} cannot be read; allowed: canary=true, canary=false");
            Err(Problem::parameter("canary", detail))
        }
    }
}

fn no_parameters(request: &HttpRequest) -> Result<(), Problem> {
    match request.query_string() {
        "" => Ok(()),
        query => Err(Problem::parameter("query", format!("unknown parameters {query:?}; there are none here"))),
    }
}
