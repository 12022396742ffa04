//! `tidegate demo`: the node with a swarm of devices beside it, and an example handler to edit.

use std::{
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use tidegate_simulator::{Stop, SwarmConfig, run_blocking};
use tokio::sync::watch;

use crate::{
    boot::{self, Addresses},
    cli::DemoArgs,
    config::Config,
    exit::Failure,
    listeners::Door,
    output,
};

/// Where the demo keeps its data and its handler, unless flags or the configuration say otherwise.
const DIR: &str = "./tidegate-demo";
const EXAMPLE_NAME: &str = "10-enrich.js";
const EXAMPLE: &str = include_str!("../demo/handlers/10-enrich.js");

/// Serves with a swarm until the process is told to stop.
///
/// # Errors
/// The node could not start, or stopped.
pub(crate) fn run(mut config: Config, args: &DemoArgs) -> Result<(), Failure> {
    let defaults = Config::default();
    if config.data.dir == defaults.data.dir {
        // A later `tidegate serve` here should not find simulated devices.
        config.data.dir = Path::new(DIR).join("data");
    }
    if config.scripts.dir == defaults.scripts.dir && !config.scripts.dir.exists() {
        config.scripts.dir = write_example().context("cannot write the example handler")?;
    }
    let (stop, stopped) = watch::channel(false);
    let mut swarm = None;
    boot::run(&config, |addresses| swarm = start_swarm(addresses, args, &config, stopped))?;
    // The node has stopped: so do the devices. A receiver that is gone has stopped by itself.
    let _ = stop.send(true);
    if let Some(swarm) = swarm {
        let _ = swarm.join();
    }
    Ok(())
}

/// Puts the example handler in place, unless an earlier demo left one: it may have been edited.
fn write_example() -> std::io::Result<PathBuf> {
    let dir = Path::new(DIR).join("handlers");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(EXAMPLE_NAME);
    if !file.exists() {
        std::fs::write(&file, EXAMPLE)?;
    }
    Ok(dir)
}

fn start_swarm(addresses: &Addresses, args: &DemoArgs, config: &Config, stop: Stop) -> Option<JoinHandle<()>> {
    let (Some(mqtt), Some(http)) = (addresses.of(Door::Mqtt), addresses.of(Door::Http)) else {
        tracing::warn!("no simulated devices: they speak plain MQTT and HTTP, and mqtt.bind or http.bind is []");
        return None;
    };
    let swarm = SwarmConfig {
        target_mqtt: mqtt.to_string(),
        target_http: http.to_string(),
        interval: Duration::from_millis(args.interval_ms),
        progress: false,
        ..SwarmConfig::new(u64::from(args.devices))
    };
    let text = format!(
        "\n  dashboard   http://{}/\n  devices     {} simulated, a reading each every {} ms, over MQTT\n  handlers    {}\n  data        {}\n\n  try         mosquitto_pub -p {} -t devices/d1/metrics -q 1 -m '{{\"temperature\":21.5}}'\n  stop        Ctrl-C\n\n",
        http,
        args.devices,
        args.interval_ms,
        config.scripts.dir.display(),
        config.data.dir.display(),
        mqtt.port(),
    );
    if let Err(error) = output::write(&text) {
        tracing::warn!(%error, "cannot say where the dashboard is");
    }
    Some(std::thread::spawn(move || {
        if let Err(error) = run_blocking(swarm, stop) {
            tracing::error!(%error, "the simulated devices stopped");
        }
    }))
}
