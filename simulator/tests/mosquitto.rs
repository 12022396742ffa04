//! The MQTT transport against a real broker that is not ours: mosquitto, where it is installed.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tidegate_simulator::{Ack, FaultPlan, MqttVersion, Summary, SwarmConfig, run};
use tokio::sync::watch;

const DEVICES: u64 = 50;
const READINGS: u64 = 10;

struct Mosquitto {
    child: Child,
    target: String,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    /// None where mosquitto is not installed.
    fn start() -> Option<Self> {
        let binary =
            ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"]
                .into_iter()
                .find(|path| Path::new(path).exists())?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = dir.path().join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
            .expect("a writable folder");
        let log = File::create(dir.path().join("log")).expect("a writable folder");
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto starts");
        let target = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&target).is_err() {
            assert!(child.try_wait().expect("our own child").is_none(), "mosquitto ended at once");
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self { child, target, _dir: dir })
    }

    fn swarm(&self, change: impl FnOnce(&mut SwarmConfig)) -> Summary {
        let mut config = SwarmConfig {
            target_mqtt: self.target.clone(),
            interval: Duration::from_millis(50),
            readings: Some(READINGS),
            ..SwarmConfig::new(DEVICES)
        };
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (_never, stop) = watch::channel(false);
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), run(config, stop)).await })
            .expect("the swarm ends")
            .expect("the swarm starts")
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_reading_is_acked_by_mosquitto() {
    let Some(mosquitto) = Mosquitto::start() else {
        eprintln!("mosquitto is not installed: nothing was checked");
        return;
    };
    for version in [MqttVersion::V311, MqttVersion::V5] {
        let summary = mosquitto.swarm(|config| config.mqtt_version = version);
        assert_eq!((summary.sent, summary.acked), (DEVICES * READINGS, DEVICES * READINGS), "{summary}");
        assert_eq!((summary.connects, summary.reconnects), (DEVICES, 0), "{summary}");
        assert!(summary.failed.is_empty() && summary.connect_failures.is_empty(), "{summary}");
        assert!(summary.lost_connections.is_empty(), "{summary}");

        let faults = FaultPlan { disconnect: 0.1, duplicate: 0.1, late: 0.1, garbage: 0.1 };
        let summary = mosquitto.swarm(|config| (config.mqtt_version, config.faults) = (version, faults));
        assert_eq!((summary.sent, summary.acked), (DEVICES * READINGS, DEVICES * READINGS), "{summary}");
        assert_eq!(summary.reconnects, summary.faults.cut_connections, "{summary}");
        assert!(summary.faults.cut_connections > 0 && summary.failed.is_empty(), "{summary}");

        let summary = mosquitto.swarm(|config| (config.mqtt_version, config.ack) = (version, Ack::Received));
        assert_eq!((summary.sent, summary.acked), (DEVICES * READINGS, 0), "{summary}");
    }
}
