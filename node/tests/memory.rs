//! A node that runs out of memory: it refuses by name, counts what it refuses, and loses nothing that it has acknowledged.

mod support;

use serde_json::json;
use support::{
    House, eventually,
    mqtt::{Raw, Version, publish},
};

/// The least that may be configured.
const LIMIT: &str = "67108864";
/// Devices with a state of 200 KB each of which the limit holds far fewer.
const DEVICES: usize = 2_000;

#[test]
fn at_ninety_per_cent_of_its_memory_the_node_refuses_by_name_and_the_ledger_balances() {
    let house = House::new().variable("TIDEGATE_RUNTIME__MEMORY_LIMIT_BYTES", LIMIT);
    let mut node = house.start();
    let mut kept = Vec::new();
    let refused = (0..DEVICES).find_map(|number| {
        let reading = json!({"deviceId": format!("d-{number}"), "text": "x".repeat(200_000)}).to_string();
        let answer = node.post("/metrics?ack=committed", &reading);
        match answer.status {
            200 => kept.push(number),
            // Back-pressure, which ends when nothing is under way.
            503 if answer.json()["type"].as_str().is_some_and(|kind| kind.ends_with("/overloaded")) => {
                assert_eq!(answer.json()["limit"], "memory_limit_bytes", "{}", answer.json());
            }
            503 => return Some(answer),
            other => panic!("{other}: {}", answer.json()),
        }
        None
    });
    let refused = refused.expect("the memory is used up").json();
    assert_eq!(
        (&refused["limit"], refused["limitValue"].as_u64()),
        (&json!("memory_limit_bytes"), LIMIT.parse().ok()),
        "{refused}"
    );
    assert!(kept.len() > 20, "{} were kept", kept.len());

    let mut client = Raw::connect(node.mqtt, Version::V5, "sender");
    client.send(&publish(Version::V5, "devices/late-1/metrics", 1, 7, &[], b"{\"n\":1}"));
    let answer = client.expect(0x40);
    assert_eq!(answer.puback(), (7, 0x97), "quota exceeded");
    assert!(answer.reason_string().contains("memory_limit_bytes"), "{}", answer.reason_string());
    client.send(&publish(Version::V5, "devices/late-1/metrics", 0, 0, &[], b"{\"n\":2}"));

    let ready = node.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.json()["detail"].as_str().is_some_and(|why| why.contains("memory_limit_bytes")), "{}", ready.json());
    eventually("the refusals in the ledger, which balances", || {
        let ledger = node.get("/ledger").json();
        assert_eq!(ledger["balanced"], true, "{ledger}");
        (ledger["rejected"]["memory"].as_u64() >= Some(3)).then_some(())
    });
    assert_eq!(node.get("/livez").status, 200);

    node.kill9();
    house.ledger_balances();
    let house = house.without_variable("TIDEGATE_RUNTIME__MEMORY_LIMIT_BYTES");
    let node = house.start();
    for number in kept {
        assert_eq!(node.get(&format!("/devices/d-{number}")).status, 200, "d-{number} was acknowledged");
    }
    assert_eq!(node.get("/devices/late-1").status, 404, "it was refused");
}
