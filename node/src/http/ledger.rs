//! The ledger over HTTP: of the node, or of one device.

use actix_web::{HttpResponse, web};
use tidegate_actors::{ids::DeviceId, ledger::Ledger, lifetime::Lifetime};

use super::problem::Problem;
use crate::edge::here;

/// The node's ledger: since the start, and in the lifetime of its data.
#[derive(serde::Serialize)]
pub(super) struct NodeLedger<'a> {
    /// Since the start.
    #[serde(flatten)]
    pub(super) ledger: &'a Ledger,
    /// Of the data directory.
    pub(super) lifetime: &'a Lifetime,
}

/// `GET /ledger?deviceId=`.
pub(crate) async fn get(query: web::Query<Vec<(String, String)>>) -> HttpResponse {
    find(&query).await.unwrap_or_else(|problem| problem.response())
}

async fn find(query: &[(String, String)]) -> Result<HttpResponse, Problem> {
    let mut device = None;
    for (name, value) in query {
        if name != "deviceId" {
            return Err(Problem::parameter("query", format!("unknown parameter {name:?}; allowed: deviceId")));
        }
        let id = DeviceId::new(value).map_err(|error| Problem::parameter("deviceId", error.to_string()))?;
        if device.replace(id).is_some() {
            return Err(Problem::parameter("deviceId", "deviceId is given more than once".to_owned()));
        }
    }
    let runtime = here().shared.runtime.clone();
    let Some(device) = device else {
        let (ledger, lifetime) = (runtime.ledger().await?, runtime.lifetime().await?);
        return Ok(HttpResponse::Ok().json(NodeLedger { ledger: &ledger, lifetime: &lifetime }));
    };
    // Nothing is known of a device that nothing came from, and zeros say just that.
    let ledger = runtime.device_ledger(device).await?.map_or_else(Ledger::default, |ledger| ledger.to_ledger());
    Ok(HttpResponse::Ok().json(ledger))
}
