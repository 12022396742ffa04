//! Asks the node what it has and holds it against the oracles: pages through `GET /devices` until every device is as it
//! must be, or the time is up.

use std::{collections::HashMap, fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use tidegate_actors::limits::PAGE_DEVICES;
use tokio::time::{self, Instant};

use crate::{
    config::SwarmConfig,
    http_client::{HttpClient, encode},
    oracle::{Fault, Observed, Oracle},
};

/// Findings that are listed; the rest is only counted.
const LISTED: usize = 50;
/// First and longest wait between two looks.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What the node was found to have.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Devices that were checked.
    pub devices: u64,
    /// Devices with at least one acknowledged reading.
    pub acked_devices: u64,
    /// Devices whose state is not as it must be.
    pub faulty: u64,
    /// The first of them, by id.
    pub findings: Vec<Finding>,
    /// How long it took until all was settled or given up, in milliseconds.
    pub took_ms: u64,
    /// Why the node could not be asked, if so; then nothing is proven.
    pub error: Option<String>,
}

/// A device whose state is not as it must be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The device.
    pub device_id: String,
    /// What is wrong.
    #[serde(flatten)]
    pub fault: Fault,
}

#[derive(Deserialize)]
struct Page {
    devices: Vec<Observed>,
    next: Option<String>,
}

impl Verification {
    /// Whether the node was asked and every device is as it must be.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.faulty == 0 && self.error.is_none()
    }
}

/// Checks all oracles against the node. A reading that is acknowledged may still be on its way to the state, so what is not
/// there yet is looked for again until `verify_timeout`.
pub(crate) async fn verify(config: &SwarmConfig, target: SocketAddr, oracles: &[Oracle]) -> Verification {
    let began = Instant::now();
    let mut client = HttpClient::new(target, config.credentials.as_ref());
    let mut wait = LOOK_AGAIN.0;
    loop {
        let looked = look(&mut client, config).await;
        let late = began.elapsed() >= config.verify_timeout;
        let verdict = match looked {
            Ok(found) => judge(config, oracles, &found),
            Err(error) => Verification { error: Some(error), ..judge(config, &[], &HashMap::new()) },
        };
        if verdict.passed() || late {
            return Verification { took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), ..verdict };
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_AGAIN.1);
    }
}

/// All devices of the swarm that the node knows.
async fn look(client: &mut HttpClient, config: &SwarmConfig) -> Result<HashMap<String, Observed>, String> {
    let mut found = HashMap::new();
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_deref().map(|after| format!("&after={}", encode(after))).unwrap_or_default();
        let path = format!("/devices?prefix={}&limit={PAGE_DEVICES}{cursor}", encode(&config.prefix));
        let answer = client.get(&path).await.map_err(|error| format!("GET /devices: {error}"))?;
        if !answer.status.is_success() {
            let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
            return Err(format!("GET /devices: http {} {body}", answer.status.as_u16()));
        }
        let page: Page = serde_json::from_slice(&answer.body).map_err(|error| format!("GET /devices: {error}"))?;
        found.extend(page.devices.into_iter().map(|device| (device.device_id.clone(), device)));
        match page.next {
            // A cursor that stands still would page for ever.
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(next) => return Err(format!("GET /devices: the cursor did not move past {next:?}")),
            None => return Ok(found),
        }
    }
}

fn judge(config: &SwarmConfig, oracles: &[Oracle], found: &HashMap<String, Observed>) -> Verification {
    let mut findings: Vec<Finding> = oracles
        .iter()
        .filter_map(|oracle| {
            let fault = oracle.check(found.get(oracle.id()), config.verify_fields)?;
            Some(Finding { device_id: oracle.id().to_owned(), fault })
        })
        .collect();
    findings.sort_unstable_by(|a, b| a.device_id.cmp(&b.device_id));
    let faulty = findings.len() as u64;
    findings.truncate(LISTED);
    Verification {
        devices: oracles.len() as u64,
        acked_devices: oracles.iter().filter(|oracle| oracle.acked_seq().is_some()).count() as u64,
        faulty,
        findings,
        took_ms: 0,
        error: None,
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return writeln!(f, "verify     FAILED: the node could not be asked: {error}");
        }
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        writeln!(
            f,
            "verify     {verdict}: {} devices, {} with acknowledged readings, {} not as they must be; {} ms",
            self.devices, self.acked_devices, self.faulty, self.took_ms
        )?;
        let width = self.findings.iter().map(|finding| finding.device_id.chars().count()).max().unwrap_or(0);
        for finding in &self.findings {
            writeln!(f, "           {:<width$}  {}", finding.device_id, finding.fault)?;
        }
        match self.faulty - self.findings.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "           … and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_listed_in_order_and_capped() {
        let oracles: Vec<Oracle> = (0..LISTED + 5)
            .rev()
            .map(|n| {
                let mut oracle = Oracle::new(format!("d-{n:03}"));
                oracle.sent(1, 100, "{\"seq\":1}".into());
                oracle.acked(1, 100);
                oracle
            })
            .collect();
        let verdict = judge(&SwarmConfig::new(1), &oracles, &HashMap::new());
        assert!(!verdict.passed());
        assert_eq!((verdict.faulty, verdict.findings.len()), (LISTED as u64 + 5, LISTED));
        assert_eq!(verdict.findings[0], Finding { device_id: "d-000".to_owned(), fault: Fault::Missing { acked: 1 } });
        let text = verdict.to_string();
        assert!(text.contains("FAILED: 55 devices") && text.contains("… and 5 more"), "{text}");
        let json = serde_json::to_value(&verdict).expect("plain data");
        assert_eq!(json["findings"][0], serde_json::json!({"deviceId": "d-000", "problem": "missing", "acked": 1}));
    }
}
