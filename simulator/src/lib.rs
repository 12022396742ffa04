//! Tidegate's device swarm: thousands of simulated devices that report to a node (or, over MQTT, to any broker), seeded and
//! with faults, and an oracle that checks afterwards what the node has made of it.
//!
//! The path of a reading: `schedule` says when → a [`Device`] takes it → `faults` may double, hold or spoil it →
//! `mqtt_device` (one connection a device) or `http_fleet` (a few shared connections) sends it and waits for the ack →
//! the [`Oracle`] notes what was promised → `verify` asks the node and compares. Beside it, `watch_probe` plays a dashboard
//! and measures how long a reading takes to get there.
//!
//! All chance comes from the seed, device by device; no module draws from elsewhere. Models, faults, schedule and oracle
//! are pure: they get the time handed in and do no I/O.

mod config;
mod device;
mod dice;
mod error;
mod faults;
mod http_client;
mod http_fleet;
mod meter;
mod mqtt_device;
mod mqtt_link;
mod open_files;
mod oracle;
mod power_loss;
mod progress;
mod prove;
mod pump;
mod schedule;
mod shared;
mod stats;
mod summary;
mod swarm;
mod thermostat;
mod verify;
mod watch_probe;

pub use config::{Ack, FieldCheck, MqttVersion, Protocol, SwarmArgs, SwarmConfig, parse_duration};
pub use device::{Device, Fields, Kind, Reading, device_id};
pub use error::SwarmError;
pub use faults::FaultPlan;
pub use meter::MeterReading;
pub use oracle::{Fault, Observed, Oracle};
pub use prove::{Problem, ProofReport, ProveArgs, ProveError, Spread, prove};
pub use pump::{PumpReading, PumpStatus};
pub use shared::Stop;
pub use stats::Percentiles;
pub use summary::{Dashboard, FaultCounts, Summary};
pub use swarm::{run, run_blocking, run_until_signal};
pub use thermostat::ThermostatReading;
pub use verify::{Finding, Verification};
