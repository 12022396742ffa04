//! What a run came to: for people by `Display`, for machines as JSON.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use crate::{
    config::{MqttVersion, Protocol, SwarmConfig},
    stats::{Percentiles, Stats},
    verify::Verification,
};

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Number of devices.
    pub devices: u64,
    /// How they sent.
    pub protocol: Protocol,
    /// The version of MQTT, where it was MQTT.
    pub mqtt_version: Option<MqttVersion>,
    /// The seed that replays it.
    pub seed: u64,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// From the first reading's time to the last answer, in milliseconds.
    pub elapsed_ms: u64,
    /// Readings that were sent; with acks `acked` + all of `failed`.
    pub sent: u64,
    /// Readings that were acknowledged; 0 where no ack exists (MQTT QoS 0).
    pub acked: u64,
    /// Readings that were refused or never answered, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Readings whose time came but that could not be sent before the end.
    pub missed: u64,
    /// Readings that went out more than 100 ms after their time.
    pub behind_schedule: u64,
    /// Readings per second: acknowledged ones, or sent ones where no ack exists.
    pub readings_per_second: f64,
    /// First connections.
    pub connects: u64,
    /// Later connections.
    pub reconnects: u64,
    /// Attempts to connect that failed, by reason.
    pub connect_failures: BTreeMap<String, u64>,
    /// Connections that were lost, by reason; injected cuts are not among them.
    pub lost_connections: BTreeMap<String, u64>,
    /// What was injected.
    pub faults: FaultCounts,
    /// From the send call to the ack.
    pub ack_latency: Percentiles,
    /// From the time a reading was due to its ack: what a slow node would hide by slowing the sender is in here.
    pub due_to_ack_latency: Percentiles,
    /// From the send call to the dashboard's update, if it was watched.
    pub dashboard: Option<Dashboard>,
    /// What the node was found to have, if it was checked.
    pub verification: Option<Verification>,
}

/// What was injected, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultCounts {
    /// Connections that were cut.
    pub cut_connections: u64,
    /// Readings that were sent again after a lost or cut connection.
    pub resent: u64,
    /// Readings that were sent twice.
    pub duplicates: u64,
    /// Readings that were sent after newer ones.
    pub late: u64,
    /// Garbage payloads that were sent.
    pub garbage: u64,
    /// Garbage that was refused with a reason.
    pub garbage_refused: u64,
    /// Garbage that got a plain ack (MQTT 3.1.1 has no other way); with HTTP the run fails.
    pub garbage_acked: u64,
}

/// What a dashboard saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    /// State messages that arrived after the snapshot.
    pub updates: u64,
    /// Readings whose update was seen; the rest was conflated, or is late data that no state shows.
    pub readings_seen: u64,
    /// From the send call to the update's arrival.
    pub latency: Percentiles,
    /// Why the connection ended before the run did, if so.
    pub lost: Option<String>,
}

impl Summary {
    pub(crate) fn new(config: &SwarmConfig, stats: &Stats, elapsed: Duration, interrupted: bool) -> Self {
        let (sent, acked) = (stats.sent.get(), stats.acked.get());
        let done = if acked > 0 { acked } else { sent };
        Self {
            devices: config.devices,
            protocol: config.protocol,
            mqtt_version: (config.protocol == Protocol::Mqtt).then_some(config.mqtt_version),
            seed: config.seed,
            interrupted,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            sent,
            acked,
            failed: stats.failed.get(),
            missed: stats.missed.get(),
            behind_schedule: stats.behind.get(),
            readings_per_second: done as f64 / elapsed.as_secs_f64().max(0.001),
            connects: stats.connects.get(),
            reconnects: stats.reconnects.get(),
            connect_failures: stats.connect_failures.get(),
            lost_connections: stats.lost.get(),
            faults: FaultCounts {
                cut_connections: stats.cut.get(),
                resent: stats.resent.get(),
                duplicates: stats.duplicates.get(),
                late: stats.late.get(),
                garbage: stats.garbage.get(),
                garbage_refused: stats.garbage_refused.get(),
                garbage_acked: stats.garbage_acked.get(),
            },
            ack_latency: stats.ack.percentiles(),
            due_to_ack_latency: stats.due_to_ack.percentiles(),
            dashboard: None,
            verification: None,
        }
    }

    /// Whether the node kept its promises as far as they were checked: nothing acknowledged is missing, and (HTTP) no
    /// garbage was taken for a reading. A CLI maps `false` to exit code 1.
    #[must_use]
    pub fn passed(&self) -> bool {
        let garbage_taken = self.protocol == Protocol::Http && self.faults.garbage_acked > 0;
        !garbage_taken && self.verification.as_ref().is_none_or(Verification::passed)
    }

    /// As a CLI prints it: one line of JSON, or the text for people.
    #[must_use]
    pub fn render(&self, json: bool) -> String {
        if json {
            return serde_json::to_string(self).expect("a summary holds only numbers and texts");
        }
        self.to_string()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (self.protocol, self.mqtt_version) {
            (Protocol::Mqtt, Some(MqttVersion::V5)) => "MQTT 5",
            (Protocol::Mqtt, _) => "MQTT 3.1.1",
            (Protocol::Http, _) => "HTTP",
        };
        let stopped = if self.interrupted { ", interrupted" } else { "" };
        let seconds = self.elapsed_ms as f64 / 1_000.0;
        writeln!(f, "swarm      {} devices over {how}, seed {}, {seconds:.1} s{stopped}", self.devices, self.seed)?;
        let failed: u64 = self.failed.values().sum();
        writeln!(
            f,
            "readings   {} sent, {} acked, {failed} failed, {} missed, {} behind schedule; {:.0}/s",
            self.sent, self.acked, self.missed, self.behind_schedule, self.readings_per_second
        )?;
        reasons(f, "failed", &self.failed)?;
        writeln!(f, "connects   {} first, {} again", self.connects, self.reconnects)?;
        reasons(f, "no connect", &self.connect_failures)?;
        reasons(f, "lost", &self.lost_connections)?;
        latency(f, "ack", &self.ack_latency)?;
        latency(f, "due→ack", &self.due_to_ack_latency)?;
        if self.faults != FaultCounts::default() {
            let faults = &self.faults;
            writeln!(
                f,
                "faults     {} cut, {} resent, {} duplicates, {} late, {} garbage ({} refused, {} acked)",
                faults.cut_connections,
                faults.resent,
                faults.duplicates,
                faults.late,
                faults.garbage,
                faults.garbage_refused,
                faults.garbage_acked
            )?;
        }
        if let Some(dashboard) = &self.dashboard {
            writeln!(f, "dashboard  {} updates, {} readings seen", dashboard.updates, dashboard.readings_seen)?;
            latency(f, "dashboard", &dashboard.latency)?;
            if let Some(why) = &dashboard.lost {
                writeln!(f, "dashboard  connection lost: {why}")?;
            }
        }
        if let Some(verification) = &self.verification {
            write!(f, "{verification}")?;
        }
        Ok(())
    }
}

fn reasons(f: &mut fmt::Formatter<'_>, name: &str, counts: &BTreeMap<String, u64>) -> fmt::Result {
    counts.iter().try_for_each(|(reason, n)| writeln!(f, "{name:<10} {n} × {reason}"))
}

fn latency(f: &mut fmt::Formatter<'_>, name: &str, p: &Percentiles) -> fmt::Result {
    if p.count == 0 {
        return Ok(());
    }
    let ms = |us: u64| us as f64 / 1_000.0;
    writeln!(
        f,
        "{name:<10} p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
        ms(p.p50_us),
        ms(p.p90_us),
        ms(p.p99_us),
        ms(p.p999_us),
        ms(p.max_us)
    )
}
