//! What a swarm shall do: as typed on a command line ([`SwarmArgs`]) and as checked ([`SwarmConfig`]).

use std::{num::NonZeroU64, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tidegate_actors::{ids::DeviceId, limits};

use crate::{device::device_id, error::SwarmError, faults::FaultPlan};

/// How the devices send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One MQTT connection a device, topic `devices/{id}/metrics`.
    Mqtt,
    /// `POST /metrics` over a few keep-alive connections that all devices share.
    Http,
}

/// The version of MQTT that the devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1", alias = "311", alias = "4")]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.
    #[value(name = "5", alias = "5.0")]
    #[serde(rename = "5")]
    V5,
}

/// What the devices ask of the node for each reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Ack {
    /// QoS 0, HTTP `ack=received`: nothing is promised.
    Received,
    /// QoS 1, HTTP `ack=committed`: acked means durable.
    Committed,
}

/// How strictly `--verify` compares the fields of a state with the reading that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldCheck {
    /// Every sent field that the state still has must be equal; a handler may add and drop fields.
    Exact,
    /// Only the sequence and the device's time count: for handlers that change fields.
    Any,
}

/// The swarm's command-line flags, for a CLI to flatten into its own.
#[derive(Debug, Clone, Args)]
pub struct SwarmArgs {
    /// Number of devices: a third each of thermostats, meters and pumps
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub devices: u64,
    /// Time between two readings of one device
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub interval: Duration,
    /// How the devices send
    #[arg(long, value_enum, default_value = "mqtt")]
    pub protocol: Protocol,
    /// The MQTT listener of the node, or any broker
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    pub mqtt: String,
    /// The HTTP listener of the node: for --protocol http, --verify and --watch
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub http: String,
    /// 1: QoS 1, HTTP ack=committed. 0: QoS 0, HTTP ack=received
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub qos: u8,
    /// The seed of all chance: the same seed makes the same devices, readings and faults
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// Stop after this time; without it and --readings, run until ctrl-c
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Readings of each device, then stop
    #[arg(long, value_name = "N")]
    pub readings: Option<NonZeroU64>,
    /// New connections a second while the swarm starts
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub ramp: u32,
    /// The version of MQTT
    #[arg(long, value_enum, default_value = "3.1.1")]
    pub mqtt_version: MqttVersion,
    /// What the device ids begin with, to keep swarms apart
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub prefix: String,
    /// Most unacknowledged readings of one MQTT device
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000), value_name = "N")]
    pub inflight: u16,
    /// How long the devices wait for their last acks at the end
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub drain: Duration,
    /// Most keep-alive connections for --protocol http
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub connections: u16,
    /// At the end, check that the node has every acknowledged reading; exit 1 if it has not
    #[arg(long)]
    pub verify: bool,
    /// How long --verify waits for readings that are still on their way
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub verify_timeout: Duration,
    /// How strictly --verify compares fields
    #[arg(long, value_enum, default_value = "exact", value_name = "HOW")]
    pub verify_fields: FieldCheck,
    /// Watch the node's WebSocket and measure the time from a publish to the dashboard
    #[arg(long)]
    pub watch: bool,
    /// The faults to inject
    #[command(flatten)]
    pub faults: FaultPlan,
    /// User name of every device
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password of every device
    #[arg(long, env = "TIDEGATE_SWARM_PASSWORD", hide_env_values = true, requires = "username", value_name = "SECRET")]
    pub password: Option<String>,
    /// Draw no progress bar
    #[arg(long)]
    pub no_progress: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a swarm shall do, checked.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// `host:port` of the MQTT listener.
    pub target_mqtt: String,
    /// `host:port` of the HTTP listener; only used with [`Protocol::Http`], `verify` or `watch`.
    pub target_http: String,
    /// Number of devices, at least 1.
    pub devices: u64,
    /// Time between two readings of one device, at least 1 ms.
    pub interval: Duration,
    /// How the devices send.
    pub protocol: Protocol,
    /// What they ask for.
    pub ack: Ack,
    /// The seed of all chance.
    pub seed: u64,
    /// How long readings are made, counted from when the devices are connected.
    pub duration: Option<Duration>,
    /// Readings of each device.
    pub readings: Option<u64>,
    /// New connections a second while the swarm starts, at least 1.
    pub ramp: u32,
    /// The version of MQTT.
    pub mqtt_version: MqttVersion,
    /// What the device ids begin with.
    pub prefix: String,
    /// Most unacknowledged readings of one MQTT device, at least 1.
    pub inflight: u16,
    /// How long the devices wait for their last acks at the end.
    pub drain: Duration,
    /// Most HTTP connections, at least 1.
    pub connections: u16,
    /// Whether to check at the end what the node has.
    pub verify: bool,
    /// How long the check waits for readings that are still on their way.
    pub verify_timeout: Duration,
    /// How strictly the check compares fields.
    pub verify_fields: FieldCheck,
    /// Whether to measure publish→dashboard over the node's WebSocket.
    pub watch: bool,
    /// The faults to inject.
    pub faults: FaultPlan,
    /// User name and password of every device.
    pub credentials: Option<(String, String)>,
    /// Whether to show progress on stderr.
    pub progress: bool,
    /// Whether the caller shall print the summary as JSON; [`crate::Summary::render`] takes it.
    pub json: bool,
}

impl SwarmConfig {
    /// A swarm of so many devices with the defaults of [`SwarmArgs`], without progress: for a demo or a test to adjust.
    #[must_use]
    pub fn new(devices: u64) -> Self {
        Self {
            target_mqtt: "127.0.0.1:1883".to_owned(),
            target_http: "127.0.0.1:8080".to_owned(),
            devices,
            interval: Duration::from_secs(1),
            protocol: Protocol::Mqtt,
            ack: Ack::Committed,
            seed: 1,
            duration: None,
            readings: None,
            ramp: 1_000,
            mqtt_version: MqttVersion::V311,
            prefix: String::new(),
            inflight: 16,
            drain: Duration::from_secs(10),
            connections: 64,
            verify: false,
            verify_timeout: Duration::from_secs(10),
            verify_fields: FieldCheck::Exact,
            watch: false,
            faults: FaultPlan::default(),
            credentials: None,
            progress: false,
            json: false,
        }
    }

    /// Checks what a caller or a user put together.
    ///
    /// # Errors
    /// [`SwarmError::Config`] names the first setting that cannot be and why.
    pub fn check(&self) -> Result<(), SwarmError> {
        let refuse = |why: String| Err(SwarmError::Config(why));
        if self.devices == 0 {
            return refuse("devices must be at least 1".to_owned());
        }
        if self.interval < Duration::from_millis(1) {
            return refuse(
                "interval must be at least 1ms: readings of one device are told apart by their millisecond".into(),
            );
        }
        if self.ramp == 0 || self.inflight == 0 || self.connections == 0 {
            return refuse("ramp, inflight and connections must be at least 1".to_owned());
        }
        if let Err(error) = DeviceId::new(&device_id(&self.prefix, self.devices - 1)) {
            return refuse(format!("the prefix makes no good device ids: {error}"));
        }
        if self.inflight > limits::MQTT_INFLIGHT * 32 {
            return refuse(format!("inflight must be at most {}", limits::MQTT_INFLIGHT * 32));
        }
        self.faults.check()
    }
}

impl TryFrom<SwarmArgs> for SwarmConfig {
    type Error = SwarmError;

    fn try_from(args: SwarmArgs) -> Result<Self, SwarmError> {
        let config = Self {
            target_mqtt: host_and_port(&args.mqtt, "mqtt://")?,
            target_http: host_and_port(&args.http, "http://")?,
            devices: args.devices,
            interval: args.interval,
            protocol: args.protocol,
            ack: if args.qos == 0 { Ack::Received } else { Ack::Committed },
            seed: args.seed,
            duration: args.duration,
            readings: args.readings.map(NonZeroU64::get),
            ramp: args.ramp,
            mqtt_version: args.mqtt_version,
            prefix: args.prefix,
            inflight: args.inflight,
            drain: args.drain,
            connections: args.connections,
            verify: args.verify,
            verify_timeout: args.verify_timeout,
            verify_fields: args.verify_fields,
            watch: args.watch,
            faults: args.faults,
            credentials: args.username.map(|name| (name, args.password.unwrap_or_default())),
            progress: !args.no_progress,
            json: args.json,
        };
        config.check()?;
        Ok(config)
    }
}

/// Takes `host:port`, with or without the scheme and a closing slash.
fn host_and_port(text: &str, scheme: &str) -> Result<String, SwarmError> {
    let bare = text.strip_prefix(scheme).unwrap_or(text).trim_end_matches('/');
    match bare.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
            Ok(bare.to_owned())
        }
        _ => Err(SwarmError::Config(format!("{text:?} is not HOST:PORT (or {scheme}HOST:PORT)"))),
    }
}

/// Reads a time such as `500ms`, `10s`, `1.5m` or `2h`.
///
/// # Errors
/// Says what is missing: the unit is not optional.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or("a time needs its unit: ms, s, m or h")?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.trim().parse().map_err(|_| format!("{number:?} is not a number"))?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(format!("{unit:?} is not a unit of time: ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        swarm: SwarmArgs,
    }

    fn parse(flags: &str) -> Result<SwarmConfig, String> {
        let args = std::iter::once("swarm").chain(flags.split_whitespace());
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        SwarmConfig::try_from(cli.swarm).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_a_config() {
        let config = parse(
            "--devices 50 --interval 250ms --protocol http --http http://localhost:9/ --seed 9 --duration 1.5m --qos 0 \
             --verify --fault-late 0.1 --mqtt-version 5 --readings 7",
        )
        .expect("good flags");
        assert_eq!((config.devices, config.interval, config.seed), (50, Duration::from_millis(250), 9));
        assert_eq!(
            (config.protocol, config.ack, config.mqtt_version),
            (Protocol::Http, Ack::Received, MqttVersion::V5)
        );
        assert_eq!(config.target_http, "localhost:9");
        assert_eq!((config.duration, config.readings), (Some(Duration::from_secs(90)), Some(7)));
        assert!(config.verify && config.faults.late == 0.1);
    }

    #[test]
    fn the_defaults_of_flags_and_library_agree() {
        let config = parse("--no-progress").expect("the defaults are good");
        assert_eq!(format!("{config:?}"), format!("{:?}", SwarmConfig::new(100)));
    }

    #[test]
    fn bad_flags_say_what_is_wrong() {
        for (flags, expected) in [
            ("--devices 0", "devices must be"),
            ("--interval 10", "needs its unit"),
            ("--interval 0.5ms", "at least 1ms"),
            ("--duration 3d", "not a unit"),
            ("--mqtt nowhere", "not HOST:PORT"),
            ("--http http://a:b", "not HOST:PORT"),
            ("--prefix a/b", "prefix"),
            ("--fault-garbage 1.5", "probabilit"),
            ("--qos 2", "2 is not in 0..=1"),
            ("--password x", "username"),
        ] {
            let error = parse(flags).expect_err(flags);
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }
}
