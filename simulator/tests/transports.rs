//! The swarm's transports, its verification and its dashboard probe, against a toy node that behaves or misbehaves as told.

mod toy_node;

use std::time::Duration;

use tidegate_simulator::{Ack, Fault, FaultPlan, FieldCheck, Protocol, Summary, SwarmConfig, SwarmError, run};
use tokio::sync::watch;
use toy_node::{Manners, ToyNode};

const DEVICES: u64 = 30;
const READINGS: u64 = 8;

fn config(node: &ToyNode) -> SwarmConfig {
    SwarmConfig {
        target_mqtt: node.mqtt.to_string(),
        target_http: node.http.to_string(),
        interval: Duration::from_millis(20),
        readings: Some(READINGS),
        verify: true,
        verify_timeout: Duration::from_secs(5),
        ..SwarmConfig::new(DEVICES)
    }
}

/// Runs to the end; a run that does not end within a minute is a bug.
async fn swarm(config: SwarmConfig) -> Summary {
    let (_never, stop) = watch::channel(false);
    let run = tokio::time::timeout(Duration::from_secs(60), run(config, stop));
    run.await.expect("the swarm ends").expect("the swarm starts")
}

fn assert_all_acked(summary: &Summary) {
    assert_eq!((summary.sent, summary.acked, summary.missed), (DEVICES * READINGS, DEVICES * READINGS, 0), "{summary}");
    assert!(summary.failed.is_empty() && summary.passed(), "{summary}");
    let verification = summary.verification.as_ref().expect("it was verified");
    assert_eq!((verification.devices, verification.acked_devices), (DEVICES, DEVICES));
}

#[tokio::test]
async fn a_well_behaved_node_passes_over_mqtt_and_the_dashboard_sees_every_reading() {
    let node = ToyNode::start(Manners::default()).await;
    let summary = swarm(SwarmConfig { watch: true, ..config(&node) }).await;
    assert_all_acked(&summary);
    assert_eq!((summary.connects, summary.reconnects, summary.ack_latency.count), (DEVICES, 0, DEVICES * READINGS));
    let dashboard = summary.dashboard.expect("it was watched");
    assert_eq!((dashboard.updates, dashboard.readings_seen), (DEVICES * READINGS, DEVICES * READINGS));
    assert_eq!((dashboard.latency.count, dashboard.lost), (DEVICES * READINGS, None));
    assert_eq!(node.devices().len() as u64, DEVICES);
}

#[tokio::test]
async fn a_well_behaved_node_passes_over_http() {
    let node = ToyNode::start(Manners::default()).await;
    let summary = swarm(SwarmConfig { protocol: Protocol::Http, connections: 4, ..config(&node) }).await;
    assert_all_acked(&summary);
    assert_eq!(summary.connects, 4);
}

#[tokio::test]
async fn every_fault_at_once_loses_nothing() {
    for protocol in [Protocol::Mqtt, Protocol::Http] {
        let node = ToyNode::start(Manners::default()).await;
        let faults = FaultPlan { disconnect: 0.2, duplicate: 0.3, late: 0.3, garbage: 0.3 };
        let summary = swarm(SwarmConfig { protocol, faults, connections: 8, ..config(&node) }).await;
        assert_all_acked(&summary);
        let counted = summary.faults;
        for count in [counted.cut_connections, counted.resent, counted.duplicates, counted.late, counted.garbage] {
            assert!(count > 0, "{summary}");
        }
        match protocol {
            // MQTT 3.1.1 has no refusal.
            Protocol::Mqtt => assert_eq!(counted.garbage_refused, 0),
            Protocol::Http => {
                assert_eq!((counted.garbage_refused, counted.garbage_acked), (counted.garbage, 0), "{summary}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_hangs_up_gets_everything_again() {
    for protocol in [Protocol::Mqtt, Protocol::Http] {
        let node = ToyNode::start(Manners { hangs_up_every: Some(11), ..Manners::default() }).await;
        let summary = swarm(SwarmConfig { protocol, ..config(&node) }).await;
        assert_all_acked(&summary);
        let lost: u64 = summary.lost_connections.values().sum();
        assert!(lost >= DEVICES * READINGS / 11 && summary.faults.resent >= lost, "{summary}");
        assert!(summary.reconnects > 0 && summary.reconnects <= lost, "{summary}");
    }
}

#[tokio::test]
async fn a_node_that_forgets_acked_readings_fails() {
    for protocol in [Protocol::Mqtt, Protocol::Http] {
        let node = ToyNode::start(Manners { forgets_from: Some(READINGS), ..Manners::default() }).await;
        let short = Duration::from_millis(200);
        let summary = swarm(SwarmConfig { protocol, verify_timeout: short, ..config(&node) }).await;
        let verification = summary.verification.as_ref().expect("it was verified");
        assert!(!summary.passed() && verification.faulty == DEVICES, "{summary}");
        assert_eq!(verification.findings[0].device_id, "meter-00001");
        assert_eq!(verification.findings[0].fault, Fault::Stale { acked: READINGS, found: READINGS - 1 });
        assert!(summary.to_string().contains("stale: acknowledged up to 8, the state is at 7"), "{summary}");
    }
}

#[tokio::test]
async fn a_node_that_keeps_nothing_misses_every_device() {
    let node = ToyNode::start(Manners { forgets_from: Some(1), ..Manners::default() }).await;
    let summary = swarm(SwarmConfig { verify_timeout: Duration::from_millis(100), ..config(&node) }).await;
    let verification = summary.verification.expect("it was verified");
    assert_eq!(verification.findings[0].fault, Fault::Missing { acked: READINGS });
    assert_eq!(verification.faulty, DEVICES);
}

#[tokio::test]
async fn changed_fields_fail_unless_they_are_allowed() {
    let node = ToyNode::start(Manners { changes: Some("temperature"), ..Manners::default() }).await;
    let strict = SwarmConfig { verify_timeout: Duration::from_millis(100), ..config(&node) };
    let summary = swarm(strict.clone()).await;
    // A third of the devices are thermostats.
    assert_eq!(summary.verification.map(|verification| verification.faulty), Some(DEVICES / 3));
    let summary = swarm(SwarmConfig { verify_fields: FieldCheck::Any, ..strict }).await;
    assert_all_acked(&summary);
}

#[tokio::test]
async fn garbage_taken_for_a_reading_fails() {
    let node = ToyNode::start(Manners { swallows_garbage: true, ..Manners::default() }).await;
    let faults = FaultPlan { garbage: 0.5, ..FaultPlan::default() };
    let summary = swarm(SwarmConfig { protocol: Protocol::Http, faults, ..config(&node) }).await;
    assert!(summary.faults.garbage_acked > 0 && !summary.passed(), "{summary}");
}

#[tokio::test]
async fn without_an_ack_level_nothing_is_promised() {
    let node = ToyNode::start(Manners::default()).await;
    let summary = swarm(SwarmConfig { ack: Ack::Received, ..config(&node) }).await;
    assert_eq!((summary.sent, summary.acked), (DEVICES * READINGS, 0));
    assert_eq!(summary.verification.as_ref().map(|verification| verification.acked_devices), Some(0));
    assert!(summary.passed(), "{summary}");

    let summary = swarm(SwarmConfig { ack: Ack::Received, protocol: Protocol::Http, ..config(&node) }).await;
    assert_eq!((summary.sent, summary.acked), (DEVICES * READINGS, DEVICES * READINGS));
    assert_eq!(summary.verification.map(|verification| verification.acked_devices), Some(0));
}

#[tokio::test]
async fn a_stop_finishes_what_is_on_its_way_and_sums_up() {
    for protocol in [Protocol::Mqtt, Protocol::Http] {
        let node = ToyNode::start(Manners::default()).await;
        let endless = SwarmConfig { protocol, readings: None, ..config(&node) };
        let (stopper, stop) = watch::channel(false);
        let running = tokio::spawn(run(endless, stop));
        let all_seen = async {
            while (node.devices().len() as u64) < DEVICES {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all_seen).await.expect("every device reports");
        stopper.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(30), running).await.expect("it stops");
        let summary = ended.expect("no panic").expect("it had started");
        assert!(summary.interrupted && summary.sent >= DEVICES && summary.acked == summary.sent, "{summary}");
        assert!(summary.passed(), "{summary}");
    }
}

#[tokio::test]
async fn a_mute_node_is_given_up_in_the_end() {
    let node = ToyNode::start(Manners { mute: true, ..Manners::default() }).await;
    let few = SwarmConfig {
        devices: 3,
        duration: Some(Duration::from_secs(1)),
        drain: Duration::from_millis(300),
        readings: None,
        verify: false,
        ..config(&node)
    };
    let summary = swarm(few).await;
    let unanswered: u64 = summary.failed.values().sum();
    assert_eq!((summary.acked, unanswered), (0, summary.sent), "{summary}");
    // The window bounds what is sent; the rest of the second's readings is missed, not queued.
    assert_eq!((summary.sent, summary.sent + summary.missed), (3 * 16, 3 * 50), "{summary}");
}

#[tokio::test]
async fn a_device_stays_connected_until_the_runs_time_is_over() {
    let node = ToyNode::start(Manners::default()).await;
    let whole_run = Duration::from_millis(700);
    // One reading a device, somewhere in the run, and the next one after its end.
    let once = SwarmConfig { interval: whole_run, duration: Some(whole_run), readings: None, ..config(&node) };
    let summary = swarm(once).await;
    assert_eq!((summary.sent, summary.acked, summary.missed), (DEVICES, DEVICES, 0), "{summary}");
    assert!(summary.elapsed_ms >= 700 && summary.elapsed_ms < 5_000, "{summary}");
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target_mqtt = listener.local_addr().expect("a bound listener").to_string();
    drop(listener);
    let (_never, stop) = watch::channel(false);
    let error = run(SwarmConfig { target_mqtt: target_mqtt.clone(), ..SwarmConfig::new(1) }, stop).await.err();
    assert!(
        matches!(&error, Some(SwarmError::Unreachable { what: "MQTT", target, .. }) if *target == target_mqtt),
        "{error:?}"
    );
}

#[test]
fn the_json_summary_has_the_documented_fields() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let summary = runtime.block_on(async {
        let node = ToyNode::start(Manners::default()).await;
        swarm(config(&node)).await
    });
    let json: serde_json::Value = serde_json::from_str(&summary.render(true)).expect("one line of JSON");
    assert_eq!(json["sent"], DEVICES * READINGS);
    assert_eq!(json["verification"]["faulty"], 0);
    assert_eq!(json["ackLatency"]["count"], DEVICES * READINGS);
    assert!(json["ackLatency"]["p999Us"].is_u64() && json["readingsPerSecond"].is_f64());
    assert_eq!(summary.render(true).lines().count(), 1);
}
