//! Messages of a broker on their way through the flow, without a socket and without a node.

use tidegate_actors::reading::Reading;

use super::*;
use crate::bridge::{Pattern, Template};

fn subscription(filter: &str, device: Option<&str>, field: Option<&str>) -> Subscription {
    let template = |text: &str| Template::parse(text).unwrap();
    Subscription {
        filter: Some(Pattern::parse(filter).unwrap()),
        device: device.map(template),
        field: field.map(template),
        ..Subscription::default()
    }
}

fn flow_of(subscriptions: Vec<Subscription>) -> Flow {
    let bridge = Bridge { name: "b".to_owned(), in_flight: 4, subscriptions, ..Bridge::default() };
    let status = Arc::new(Status::new(&bridge, 0));
    let mut flow = Flow::new(Arc::new(bridge), status);
    flow.connected(false);
    flow
}

fn plant() -> Flow {
    flow_of(vec![subscription("plant/{site}/{device}/t", Some("{site}-{device}"), Some("{last}"))])
}

fn message(topic: &str, payload: &str, qos: u8, packet_id: u16) -> Publish {
    let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
    Publish { topic: topic.to_owned(), payload, qos, packet_id, dup: false, retain: false }
}

/// The readings and refusals that a message makes: `device fields` or `!reason device`.
fn made(flow: &mut Flow, publish: &Publish) -> Vec<String> {
    flow.on_publish(publish, 7);
    flow.take_arrivals()
        .iter()
        .map(|arrival| match &arrival.what {
            What::Reading(Reading { device, payload, device_time, .. }) => {
                let time = device_time.map_or_else(String::new, |time| format!(" @{time}"));
                format!("{device} {}{time}", String::from_utf8_lossy(payload))
            }
            What::Refused(reason, device) => {
                format!("!{} {}", reason.name(), device.as_ref().map_or("-", |device| device.as_str()))
            }
        })
        .collect()
}

#[test]
fn messages_become_readings() {
    let check = |mut flow: Flow, topic: &str, payload: &str, expected: &[&str]| {
        assert_eq!(made(&mut flow, &message(topic, payload, 1, 1)), expected, "{topic} {payload}");
    };
    check(plant(), "plant/a/p1/t", r#"{"t":1}"#, &[r#"a-p1 {"t":1}"#]);
    check(plant(), "plant/a/p1/t", r#"{"ts":5,"values":{"t":1}}"#, &[r#"a-p1 {"t":1} @5"#]);
    check(plant(), "plant/a/p1/t", r#"[{"t":1},{"t":2}]"#, &[r#"a-p1 {"t":1}"#, r#"a-p1 {"t":2}"#]);
    check(plant(), "plant/a/p1/t", "21.5", &[r#"a-p1 {"t":21.5}"#]);
    check(plant(), "plant/a/p1/t", "[1,2]", &[r#"a-p1 {"t":[1,2]}"#]);
    // The topic's device counts, whatever the payload calls it.
    check(plant(), "plant/a/p1/t", r#"{"deviceId":"x","t":1}"#, &[r#"a-p1 {"t":1}"#]);
    check(plant(), "plant/a/p1/t", r#"[{"t":1},5]"#, &[r#"a-p1 {"t":1}"#, "!bad-shape a-p1"]);
    check(plant(), "plant/a/p1/t", r#"{"t":"#, &["!bad-json a-p1"]);
    check(plant(), "plant/a/p1/t", "", &["!bad-shape a-p1"]);
    check(plant(), "plant/a/p1/x", "1", &["!bad-device-id -"]);
    let long = format!("plant/{}/x/t", "a".repeat(300));
    check(plant(), &long, "1", &["!bad-device-id -"]);
    let named = || flow_of(vec![subscription("all", None, None)]);
    check(
        named(),
        "all",
        r#"[{"deviceId":"a","t":1},{"deviceId":"b","t":2},{"t":3}]"#,
        &[r#"a {"t":1}"#, r#"b {"t":2}"#, "!bad-device-id -"],
    );
    check(named(), "all", "21.5", &["!bad-shape -"]);
    check(named(), "all", "[]", &["!bad-shape -"]);
    let both = flow_of(vec![subscription("a/{d}/x", Some("first"), None), subscription("a/#", Some("{2}"), None)]);
    check(both, "a/b/x", "{}", &["first {}"]);
    let deep = flow_of(vec![subscription("a/#", Some("{3}"), None)]);
    check(deep, "a/b", "{}", &["!bad-device-id -"]);
}

/// Answers the arrivals that are out, by their place.
fn answer(flow: &mut Flow, tokens: &[u32]) -> Vec<Outgoing> {
    tokens.iter().for_each(|token| flow.on_answer(*token, Answer::Committed));
    flow.take_packets()
}

fn publish(flow: &mut Flow, payload: &str, qos: u8, packet_id: u16) -> Vec<u32> {
    publish_again(flow, payload, qos, packet_id, false)
}

fn publish_again(flow: &mut Flow, payload: &str, qos: u8, packet_id: u16, dup: bool) -> Vec<u32> {
    flow.on_publish(&Publish { dup, ..message("plant/a/p/t", payload, qos, packet_id) }, 0);
    flow.take_arrivals().iter().map(|arrival| arrival.token).collect()
}

#[test]
fn acknowledgements_wait_for_the_journal_and_keep_their_order() {
    let mut flow = plant();
    let first = publish(&mut flow, "1", 1, 11);
    let second = publish(&mut flow, r#"[{"t":1},{"t":2}]"#, 1, 12);
    let third = publish(&mut flow, "nonsense\u{0}", 0, 0);
    assert_eq!(flow.take_packets(), []);
    assert_eq!(answer(&mut flow, &second), [], "the first one is not answered");
    assert_eq!(answer(&mut flow, &third), []);
    assert_eq!(answer(&mut flow, &first), [Outgoing::PubAck(11), Outgoing::PubAck(12)]);
    assert!(flow.is_idle());
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut flow = plant();
    let tokens: Vec<_> = (1..=4).flat_map(|id| publish(&mut flow, "1", 1, id)).collect();
    assert!(!flow.has_room());
    answer(&mut flow, &tokens[..1]);
    assert!(flow.has_room());
    publish(&mut flow, r#"[{"t":1},{"t":2},{"t":3},{"t":4},{"t":5}]"#, 1, 9);
    answer(&mut flow, &tokens[1..]);
    assert!(!flow.has_room(), "readings count as well as messages");
}

#[test]
fn a_message_of_another_connection_is_not_acknowledged_on_this_one() {
    let mut flow = plant();
    let old = publish(&mut flow, "1", 1, 7);
    flow.connected(true);
    // The same id, and perhaps another message: only its own answer counts.
    let new = publish_again(&mut flow, "2", 1, 7, true);
    assert_eq!(answer(&mut flow, &old), []);
    assert_eq!(answer(&mut flow, &new), [Outgoing::PubAck(7)]);
}

#[test]
fn a_reading_that_is_refused_at_a_limit_is_tried_again_and_not_acknowledged() {
    let mut flow = plant();
    let tokens = publish(&mut flow, "1", 1, 7);
    flow.on_answer(tokens[0], Answer::Refused(RejectReason::Overloaded));
    assert_eq!(flow.take_packets(), []);
    assert!(flow.has_refused() && !flow.is_idle());
    flow.try_again();
    let again: Vec<_> = flow.take_arrivals().iter().map(|arrival| arrival.token).collect();
    assert_eq!((again, flow.has_refused()), (tokens.clone(), false));
    assert_eq!(answer(&mut flow, &tokens), [Outgoing::PubAck(7)]);
}

#[test]
fn what_can_never_be_taken_is_acknowledged() {
    let mut flow = plant();
    flow.on_publish(&message("elsewhere", "1", 1, 3), 0);
    let token = flow.take_arrivals()[0].token;
    assert_eq!(flow.take_packets(), [], "first it is counted");
    assert_eq!(answer(&mut flow, &[token]), [Outgoing::PubAck(3)]);
    flow.on_oversized(&message("plant/a/p/t", "", 1, 4), 5_000_000);
    let token = flow.take_arrivals()[0].token;
    assert_eq!(answer(&mut flow, &[token]), [Outgoing::PubAck(4)]);
    assert_eq!(flow.status.refused().collect::<Vec<_>>(), [("bad-device-id", 1), ("too-large", 1)]);
}

#[test]
fn retained_messages_may_be_left_out() {
    let mut one = subscription("plant/#", Some("{2}"), None);
    one.retained = false;
    let mut flow = flow_of(vec![one]);
    flow.on_publish(&Publish { retain: true, ..message("plant/a", "{}", 1, 3) }, 0);
    assert!(flow.take_arrivals().is_empty());
    assert_eq!(flow.take_packets(), [Outgoing::PubAck(3)]);
}

#[test]
fn quality_2_is_taken_once_in_a_session() {
    let mut flow = plant();
    let tokens = publish(&mut flow, "1", 2, 5);
    assert!(publish_again(&mut flow, "1", 2, 5, true).is_empty(), "it is on its way");
    assert_eq!(answer(&mut flow, &tokens), [Outgoing::PubRec(5)]);
    flow.connected(true);
    assert!(publish_again(&mut flow, "1", 2, 5, true).is_empty(), "the journal has it");
    assert_eq!(flow.take_packets(), [Outgoing::PubRec(5)]);
    flow.on_release(5);
    assert_eq!(flow.take_packets(), [Outgoing::PubComp(5)]);
    // The broker may use the id again now.
    assert_eq!(publish(&mut flow, "1", 2, 5).len(), 1);
    // A node that has died since does not know the id, and says yes all the same.
    flow.on_release(99);
    assert_eq!(flow.take_packets(), [Outgoing::PubComp(99)]);
}

#[test]
fn quality_2_does_not_take_another_message_for_the_same() {
    let mut flow = plant();
    let tokens = publish(&mut flow, "1", 2, 5);
    answer(&mut flow, &tokens);
    // A broker that restarted with an older memory uses the id for another message.
    let other = publish_again(&mut flow, "2", 2, 5, true);
    assert_eq!(other.len(), 1);
    assert_eq!(answer(&mut flow, &other), [Outgoing::PubRec(5)]);
    // One that has forgotten the session begins anew, with the same words perhaps.
    flow.connected(false);
    assert_eq!(publish_again(&mut flow, "2", 2, 5, true).len(), 1);
}

#[test]
fn quality_2_that_was_under_way_when_the_connection_ended_is_acknowledged_when_it_comes_again() {
    let mut flow = plant();
    let tokens = publish(&mut flow, "1", 2, 5);
    flow.connected(true);
    assert_eq!(answer(&mut flow, &tokens), [], "the broker has not sent it on this connection");
    assert!(publish_again(&mut flow, "1", 2, 5, true).is_empty());
    assert_eq!(flow.take_packets(), [Outgoing::PubRec(5)]);
}
