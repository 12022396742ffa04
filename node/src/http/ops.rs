//! Health, ledger and metrics, for probes, Prometheus and the dashboard.

use std::sync::atomic::Ordering;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use super::{ledger::NodeLedger, metrics as prometheus, problem::Problem};
use crate::{
    bridge::Status,
    edge::{EdgeLoop, here},
};

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
    } else if edge.shared.vitals.is_shedding() {
        let limit = edge.shared.settings.memory_limit;
        Some(format!("memory is nearly used up: readings are refused (limit runtime.memory_limit_bytes: {limit})"))
    } else {
        None
    };
    match reason {
        None => HttpResponse::Ok().content_type("text/plain").body("ok"),
        Some(reason) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", reason).response(),
    }
}

/// `GET /metrics`, in Prometheus' text format.
pub(crate) async fn metrics() -> HttpResponse {
    let edge = here();
    let runtime = &edge.shared.runtime;
    let (ledger, lifetime) = match (runtime.ledger().await, runtime.lifetime().await) {
        (Ok(ledger), Ok(lifetime)) => (ledger, lifetime),
        (Err(error), _) | (_, Err(error)) => return Problem::from(error).response(),
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(prometheus::render(&edge, &ledger, &lifetime))
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
            "time": services.clock.now(),
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
        "pool": {
            "threads": services.pool.threads(),
            "running": services.pool.running(),
            "queued": services.pool.queued(),
            "limit": services.pool.limit(),
            "refused": services.pool.refused(),
        },
        "slowWork": shared.scripts.slow_work(),
        "scriptSets": shared.scripts.set_status(),
        "scripts": services.scripts.scripts(),
        "workers": services.scripts.workers(),
        "bridges": shared.bridges.status().map(Status::json).collect::<Vec<_>>(),
        "ledger": NodeLedger { ledger: &sample.ledger, lifetime: &sample.lifetime },
    })
}
