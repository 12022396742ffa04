//! Health, ledger and metrics, for probes, Prometheus and the dashboard.

use std::sync::atomic::Ordering;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde_json::{Value, json};
use tidegate_actors::limits;

use super::{metrics as prometheus, problem::Problem};
use crate::edge::{EdgeLoop, here};

/// `GET /livez`: this loop turns.
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok")
}

/// `GET /readyz`: the node takes readings and makes them durable.
pub(crate) async fn readyz() -> HttpResponse {
    let edge = here();
    let services = edge.handle.services();
    let journal = services.journal.status();
    let checkpoint = services.checkpointer.status();
    let reason = if edge.shared.stopping.load(Ordering::Relaxed) {
        Some("the node is stopping".to_owned())
    } else if !journal.healthy {
        Some(journal.reason.unwrap_or_else(|| "the journal cannot write".to_owned()))
    } else if !checkpoint.healthy {
        Some(checkpoint.reason.unwrap_or_else(|| "checkpoints fail".to_owned()))
    } else {
        None
    };
    match reason {
        None => HttpResponse::Ok().content_type("text/plain").body("ok"),
        Some(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", reason).response(),
    }
}

/// `GET /ledger`.
pub(crate) async fn ledger() -> HttpResponse {
    match here().shared.runtime.ledger().await {
        Ok(ledger) => HttpResponse::Ok().json(ledger),
        Err(error) => Problem::from(error).response(),
    }
}

/// `GET /metrics`, in Prometheus' text format.
pub(crate) async fn metrics() -> HttpResponse {
    let edge = here();
    match edge.shared.runtime.ledger().await {
        Ok(ledger) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
            .body(prometheus::render(&edge, &ledger)),
        Err(error) => Problem::from(error).response(),
    }
}

/// `GET /parked?limit=`.
pub(crate) async fn parked(query: web::Query<Vec<(String, String)>>) -> HttpResponse {
    let mut limit = 100;
    for (name, value) in query.iter() {
        if name != "limit" {
            return Problem::parameter("query", format!("unknown parameter {name:?}; allowed: limit")).response();
        }
        match value.parse() {
            Ok(asked) if (1..=limits::PAGE_DEVICES).contains(&asked) => limit = asked,
            _ => {
                let detail = format!("limit = {value:?}; allowed: 1 to {}", limits::PAGE_DEVICES);
                return Problem::parameter("limit", detail).limit("page_devices", limits::PAGE_DEVICES).response();
            }
        }
    }
    let parked = match here().shared.runtime.parked(None, limit).await {
        Ok(parked) => parked,
        Err(error) => return Problem::from(error).response(),
    };
    let rows: Vec<Value> = parked
        .iter()
        .map(|parked| {
            json!({
                "position": parked.position,
                "deviceId": parked.reading.device.as_str(),
                "script": parked.script,
                "reason": parked.reason.name(),
                "message": parked.message,
                "receivedTime": parked.reading.received,
                "payload": serde_json::from_slice::<Value>(&parked.reading.payload).unwrap_or(Value::Null),
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "parked": rows }))
}

/// `GET /api/overview`: everything the dashboard shows besides devices, from the last sample.
pub(crate) async fn overview() -> HttpResponse {
    HttpResponse::Ok().json(overview_json(&here()))
}

fn overview_json(edge: &EdgeLoop) -> Value {
    let services = edge.handle.services();
    let shared = &edge.shared;
    let sample = shared.vitals.last();
    let journal = services.journal.status();
    let connected: usize = sample.loops.iter().map(|health| health.connected).sum();
    json!({
        "node": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": services.uptime_ms() / 1_000,
            "rssBytes": sample.rss_bytes,
            "memoryLimitBytes": shared.settings.memory_limit,
            "pid": std::process::id(),
        },
        "devices": { "known": sample.devices_known, "connected": connected },
        "rates": { "readingsPerSecond": sample.readings_per_second },
        "connections": {
            "mqtt": shared.counters.mqtt_connections.load(Ordering::Relaxed),
            "viewers": shared.counters.viewers.load(Ordering::Relaxed),
        },
        "loops": sample.loops.iter().map(|health| json!({
            "id": health.id, "lagMs": health.lag_ms, "devices": health.devices, "connections": health.connected,
        })).collect::<Vec<_>>(),
        "journal": journal,
        "checkpoint": services.checkpointer.status(),
        "pool": { "threads": services.pool.threads(), "queued": services.pool.queued(), "limit": services.pool.limit() },
        "scripts": services.scripts.scripts(),
        "workers": services.scripts.workers(),
        "ledger": sample.ledger,
    })
}
