//! The queue's life by hand, and at random against its invariants.

use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;

const HERE: Connection = (LoopId(0), 7);
const AGAIN: Connection = (LoopId(0), 8);
const NATIVE: Listening = Listening { native: Some(QoS::AtLeastOnce), rpc: None };

fn at(uptime: u64) -> Now {
    Now { wall: 1_795_530_500_000 + i64::try_from(uptime).unwrap(), uptime }
}

fn device() -> DeviceId {
    DeviceId::new("d1").unwrap()
}

fn order(expiry_ms: u64) -> Order {
    Order { name: "open".into(), params: "{}".into(), timeout_ms: 1_000, expiry_ms, oneway: false }
}

fn sent(commands: &mut Commands) -> Vec<(String, Style, u32)> {
    let effects = commands.take_effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Send(sending) => Some((sending.id.to_string(), sending.style, sending.number)),
            _ => None,
        })
        .collect()
}

fn status(commands: &Commands, id: &str) -> String {
    let json: Value = serde_json::from_str(&commands.get(&device(), id).expect("it is there")).unwrap();
    json["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_goes_out_is_acknowledged_and_answered() {
    let mut commands = Commands::default();
    commands.listens(&device(), HERE, NATIVE, at(0));
    let (waiter, mut end) = oneshot::channel();
    let created = commands.create(&device(), order(0), None, Some(waiter), at(1)).unwrap();
    assert_eq!(created.status, Status::Sent);
    assert_eq!(sent(&mut commands), [(created.id.to_string(), Style::Native, 0)]);
    commands.delivered(&device(), &created.id, at(2));
    assert_eq!(status(&commands, &created.id), "delivered");
    assert!(end.try_recv().is_err());
    let taken = commands.reply(&device(), Which::Id(&created.id), Ok("[1]".into()), at(3));
    assert_eq!(taken, Taken::Taken(false));
    let ended = end.try_recv().unwrap();
    assert_eq!((ended.status, ended.json.contains("\"reply\":[1]")), (Status::Replied, true));
    assert_eq!(commands.reply(&device(), Which::Id(&created.id), Ok("2".into()), at(4)), Taken::Unknown, "once");
    assert!(
        commands.take_effects().iter().all(|effect| matches!(effect, Effect::Count(_) | Effect::Ended(..))),
        "nothing of it is kept"
    );
}

#[test]
fn who_may_not_wait_must_find_the_device() {
    let mut commands = Commands::default();
    assert_eq!(commands.create(&device(), order(0), None, None, at(0)), Err(Refusal::Offline));
    commands.listens(&device(), HERE, Listening::default(), at(0));
    assert_eq!(commands.create(&device(), order(0), None, None, at(0)), Err(Refusal::Offline));
    assert_eq!(commands.create(&device(), order(1), None, None, at(0)).unwrap().status, Status::Queued);
}

#[test]
fn what_waits_goes_out_in_order_once_the_device_listens_and_again_if_it_was_not_acknowledged() {
    let mut commands = Commands::default();
    let ids: Vec<String> =
        (0..3).map(|n| commands.create(&device(), order(60_000), None, None, at(n)).unwrap().id.to_string()).collect();
    assert!(ids.is_sorted());
    assert!(sent(&mut commands).is_empty());
    let both = Listening { native: None, rpc: Some(QoS::AtLeastOnce) };
    commands.listens(&device(), HERE, both, at(10));
    let out = sent(&mut commands);
    assert_eq!(out.iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>(), ids);
    assert!(out.iter().all(|(_, style, number)| *style == Style::ThingsBoard && *number > 0));
    commands.delivered(&device(), &ids[0], at(11));
    commands.left(&device(), AGAIN, at(12));
    assert_eq!(status(&commands, &ids[1]), "sent", "another connection's end is not this one's");
    commands.left(&device(), HERE, at(12));
    assert_eq!([&ids[0], &ids[1]].map(|id| status(&commands, id)), ["delivered", "queued"]);
    commands.listens(&device(), AGAIN, NATIVE, at(13));
    assert_eq!(sent(&mut commands).iter().map(|(id, ..)| id.clone()).collect::<Vec<_>>(), ids[1..]);
    // It was answered by the number of the first time.
    assert_eq!(commands.reply(&device(), Which::Number(out[1].2), Ok("1".into()), at(14)), Taken::Taken(true));
    assert_eq!(status(&commands, &ids[1]), "replied");
}

#[test]
fn a_takeover_sends_again_what_the_old_connection_has_not_acknowledged() {
    let mut commands = Commands::default();
    commands.listens(&device(), HERE, NATIVE, at(0));
    let id = commands.create(&device(), order(60_000), None, None, at(1)).unwrap().id;
    let lost = commands.create(&device(), order(0), None, None, at(1)).unwrap().id;
    commands.take_effects();
    commands.listens(&device(), AGAIN, NATIVE, at(2));
    commands.left(&device(), HERE, at(3));
    assert_eq!(sent(&mut commands).len(), 1, "what may not wait is not sent again");
    assert_eq!([&id, &lost].map(|id| status(&commands, id)), ["sent", "sent"]);
}

#[test]
fn time_ends_what_nobody_answers() {
    let mut commands = Commands::default();
    let waits = commands.create(&device(), order(5_000), None, None, at(0)).unwrap().id;
    assert_eq!(commands.next_due(), Some(5_000));
    commands.on_time(at(4_999));
    assert_eq!(status(&commands, &waits), "queued");
    commands.on_time(at(5_000));
    assert_eq!(status(&commands, &waits), "expired");
    commands.listens(&device(), HERE, NATIVE, at(5_000));
    assert!(sent(&mut commands).is_empty(), "what has expired is not sent");
    let (waiter, mut end) = oneshot::channel();
    let silent = commands.create(&device(), order(0), None, Some(waiter), at(6_000)).unwrap().id;
    commands.on_time(at(7_000));
    let ended = end.try_recv().unwrap();
    assert_eq!((ended.status, ended.failure), (Status::Failed, Some(Failure::Timeout)));
    assert!(ended.reason.contains("timeoutMs of 1000"), "{}", ended.reason);
    assert_eq!(commands.reply(&device(), Which::Id(&silent), Ok("1".into()), at(7_001)), Taken::Unknown);
    let hour = 3_600_000;
    commands.on_time(at(7_000 + hour));
    assert_eq!((commands.list(&device()).len(), commands.next_due(), commands.bytes), (0, None, 0));
}

#[test]
fn a_command_that_wants_no_reply_ends_with_its_acknowledgement() {
    for (qos, end) in [(QoS::AtLeastOnce, "delivered"), (QoS::AtMostOnce, "sent")] {
        let mut commands = Commands::default();
        commands.listens(&device(), HERE, Listening { native: Some(qos), rpc: None }, at(0));
        let (waiter, mut ended) = oneshot::channel();
        let order = Order { oneway: true, ..order(0) };
        let id = commands.create(&device(), order, None, Some(waiter), at(1)).unwrap().id;
        commands.delivered(&device(), &id, at(2));
        assert_eq!(ended.try_recv().unwrap().status.name(), end);
        assert_eq!((status(&commands, &id).as_str(), commands.under_way()), (end, 0));
    }
}

#[test]
fn a_device_has_so_many_commands_and_no_more() {
    let mut commands = Commands::default();
    for _ in 0..limits::COMMAND_QUEUE {
        commands.create(&device(), order(1_000), None, None, at(0)).unwrap();
    }
    assert_eq!(commands.create(&device(), order(1_000), None, None, at(0)), Err(Refusal::QueueFull));
    let other = DeviceId::new("d2").unwrap();
    assert!(commands.create(&other, order(1_000), None, None, at(0)).is_ok());
    commands.on_time(at(1_000));
    assert!(commands.create(&device(), order(1_000), None, None, at(1_001)).is_ok());
    assert_eq!(commands.list(&device()).len(), limits::COMMANDS_ENDED + 1);
}

#[test]
fn a_loops_commands_have_so_many_bytes_and_those_that_are_over_give_way() {
    let mut commands = Commands::default();
    let large =
        || Order { params: format!("\"{}\"", "x".repeat(limits::COMMAND_PARAMS_BYTES - 2)).into(), ..order(1_000) };
    let fill = |commands: &mut Commands, now: Now| {
        let mut taken = 0;
        loop {
            let device = DeviceId::new(&format!("d{}", taken / limits::COMMAND_QUEUE)).unwrap();
            match commands.create(&device, large(), None, None, now) {
                Ok(_) => taken += 1,
                Err(refusal) => return (taken, refusal),
            }
        }
    };
    let (taken, refusal) = fill(&mut commands, at(0));
    assert_eq!(refusal, Refusal::Full);
    assert!((900..=limits::COMMAND_BYTES / limits::COMMAND_PARAMS_BYTES).contains(&taken), "{taken}");
    commands.on_time(at(1_000));
    assert_eq!(fill(&mut commands, at(1_001)), (taken, Refusal::Full));
    assert!(commands.bytes <= limits::COMMAND_BYTES);
}

#[test]
fn a_handlers_command_is_taken_once() {
    let mut commands = Commands::default();
    commands.listens(&device(), HERE, NATIVE, at(0));
    let id: RequestId = "h7-0".into();
    for now in [1, 2] {
        let created = commands.create(&device(), order(9_000), Some(RequestId::clone(&id)), None, at(now)).unwrap();
        assert_eq!(created.id, id);
    }
    assert_eq!(sent(&mut commands).len(), 1);
    commands.reply(&device(), Which::Id("h7-0"), Ok("1".into()), at(3));
    commands.create(&device(), order(9_000), Some(id), None, at(4)).unwrap();
    assert_eq!((sent(&mut commands).len(), commands.list(&device()).len()), (0, 1));
}

#[test]
fn only_what_has_not_gone_out_is_taken_back() {
    let mut commands = Commands::default();
    let id = commands.create(&device(), order(9_000), None, None, at(0)).unwrap().id;
    assert!(commands.cancel(&device(), &id, at(1)).unwrap().contains("\"cancelled\""));
    assert_eq!(commands.cancel(&device(), &id, at(2)), Err(NotCancelled::Over(Status::Cancelled)));
    assert_eq!(commands.cancel(&device(), "no", at(2)), Err(NotCancelled::Unknown));
    commands.listens(&device(), HERE, NATIVE, at(3));
    assert!(sent(&mut commands).is_empty());
    let id = commands.create(&device(), order(9_000), None, None, at(4)).unwrap().id;
    assert_eq!(commands.cancel(&device(), &id, at(5)), Err(NotCancelled::Sent));
}

/// The pairs that a run of the node leaves, and the commands that the next one makes of them.
#[test]
fn what_is_kept_comes_back() {
    let mut commands = Commands::default();
    let mut pairs: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let mut keep = |effects: Vec<Effect>| {
        for effect in effects {
            match effect {
                Effect::Keep(key, Some(value)) => drop(pairs.insert(key, value)),
                Effect::Keep(key, None) => drop(pairs.remove(&key)),
                _ => {}
            }
        }
        pairs.clone()
    };
    let ids: Vec<RequestId> = [60_000, 60_000, 60_000, 2_000]
        .into_iter()
        .map(|expiry| commands.create(&device(), order(expiry), None, None, at(0)).unwrap().id)
        .collect();
    commands.listens(&device(), HERE, NATIVE, at(1));
    commands.create(&device(), order(0), None, None, at(1)).unwrap();
    commands.delivered(&device(), &ids[0], at(2));
    commands.reply(&device(), Which::Id(&ids[1]), Ok("\"yes\"".into()), at(3));
    let left = keep(commands.take_effects());
    assert_eq!(left.len(), 4, "the one that may not wait is not kept");

    // The next run begins 3 s later, with an uptime of its own.
    let later = Now { wall: at(3_000).wall, uptime: 5 };
    let mut next = Commands::default();
    for (key, value) in &left {
        let (device, id) = stored::names_of(key).unwrap();
        next.recovered(&device, id, value, later).unwrap();
    }
    next.on_time(later);
    let now: Vec<String> = ids.iter().map(|id| status(&next, id)).collect();
    assert_eq!(now, ["delivered", "replied", "queued", "expired"]);
    assert!(next.get(&device(), &ids[1]).unwrap().contains("\"reply\":\"yes\""));
    next.take_effects();
    next.listens(&device(), HERE, NATIVE, later);
    assert_eq!(sent(&mut next).iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), [&*ids[2]]);
    assert_eq!(next.reply(&device(), Which::Id(&ids[0]), Ok("1".into()), later), Taken::Taken(true));
    next.on_time(Now { wall: later.wall + 3_700_000, uptime: 3_700_000 });
    let gone: Vec<Effect> = next.take_effects();
    assert_eq!(gone.iter().filter(|effect| matches!(effect, Effect::Keep(_, None))).count(), 3);
    assert_eq!(next.list(&device()).len(), 1, "the one that was sent last has just failed");
}

#[derive(Debug, Clone)]
enum Step {
    Create { device: u8, expiry: u64, oneway: bool },
    Listens { device: u8, key: u8, native: Option<bool>, rpc: bool },
    Left { device: u8, key: u8 },
    Delivered { device: u8, nth: usize },
    Reply { device: u8, nth: usize, good: bool },
    Cancel { device: u8, nth: usize },
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0_u8..2;
    prop_oneof![
        4 => (device.clone(), prop_oneof![Just(0), 1_u64..5_000], any::<bool>())
            .prop_map(|(device, expiry, oneway)| Step::Create { device, expiry, oneway }),
        2 => (device.clone(), 0_u8..2, any::<Option<bool>>(), any::<bool>())
            .prop_map(|(device, key, native, rpc)| Step::Listens { device, key, native, rpc }),
        1 => (device.clone(), 0_u8..2).prop_map(|(device, key)| Step::Left { device, key }),
        2 => (device.clone(), 0_usize..8).prop_map(|(device, nth)| Step::Delivered { device, nth }),
        2 => (device.clone(), 0_usize..8, any::<bool>()).prop_map(|(device, nth, good)| Step::Reply { device, nth, good }),
        1 => (device, 0_usize..8).prop_map(|(device, nth)| Step::Cancel { device, nth }),
        2 => prop_oneof![0_u64..3_000, Just(3_600_000)].prop_map(Step::Time),
    ]
}

proptest! {
    /// Whatever happens: the books balance, a waiter hears the end once, and what is kept is what there is.
    #[test]
    fn the_books_balance(steps in prop::collection::vec(step(), 1..120)) {
        let mut commands = Commands::default();
        let mut clock = 0;
        let (mut ids, mut waiters) = (Vec::<RequestId>::new(), Vec::new());
        let mut pairs: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let name = |n: u8| DeviceId::new(&format!("d{n}")).unwrap();
        let nth = |ids: &Vec<RequestId>, n: usize| ids.get(ids.len().saturating_sub(n + 1)).cloned().unwrap_or_else(|| "none".into());
        for step in steps {
            clock += 1;
            let now = at(clock);
            match step {
                Step::Create { device, expiry, oneway } => {
                    let (waiter, end) = oneshot::channel();
                    let order = Order { oneway, ..order(expiry) };
                    match commands.create(&name(device), order, None, Some(waiter), now) {
                        Ok(created) => { ids.push(created.id); waiters.push(end); }
                        Err(refusal) => prop_assert_eq!((refusal, expiry), (Refusal::Offline, 0)),
                    }
                }
                Step::Listens { device, key, native, rpc } => {
                    let qos = |acked: bool| if acked { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                    let listening = Listening { native: native.map(qos), rpc: rpc.then_some(QoS::AtLeastOnce) };
                    commands.listens(&name(device), (LoopId(0), key.into()), listening, now);
                }
                Step::Left { device, key } => commands.left(&name(device), (LoopId(0), key.into()), now),
                Step::Delivered { device, nth: n } => commands.delivered(&name(device), &nth(&ids, n), now),
                Step::Reply { device, nth: n, good } => {
                    let reply = if good { Ok("1".into()) } else { Err("too large".into()) };
                    commands.reply(&name(device), Which::Id(&nth(&ids, n)), reply, now);
                }
                Step::Cancel { device, nth: n } => drop(commands.cancel(&name(device), &nth(&ids, n), now)),
                Step::Time(passed) => { clock += passed; commands.on_time(at(clock)); }
            }
            for effect in commands.take_effects() {
                match effect {
                    Effect::Keep(key, Some(value)) => drop(pairs.insert(key, value)),
                    Effect::Keep(key, None) => prop_assert!(pairs.remove(&key).is_some(), "forgot what was not kept"),
                    Effect::Send(_) | Effect::Count(_) | Effect::Ended(..) => {}
                }
            }
        }
        let all = || commands.lanes.values().flat_map(|lane| lane.live.iter().chain(&lane.ended));
        prop_assert_eq!(commands.bytes, all().map(Command::bytes).sum::<usize>());
        prop_assert_eq!(commands.timers.by_time.len(), all().count());
        prop_assert!(all().all(|command| command.timer.is_some_and(|timer| commands.timers.by_time.contains_key(&timer))));
        let live: usize = commands.lanes.values().map(|lane| lane.live.len()).sum();
        prop_assert_eq!(commands.under_way(), live);
        prop_assert!(all().all(|command| command.ended.is_some() == command.waiter.is_none()));
        prop_assert_eq!(waiters.iter_mut().filter_map(|end| end.try_recv().ok()).count(), ids.len() - live);
        let kept: Vec<&Command> = all().filter(|command| command.order.may_wait()).collect();
        prop_assert_eq!(kept.len(), pairs.len());
        for lane in commands.lanes.values() {
            prop_assert!(!lane.is_empty());
            // In order: nobody overtakes one that waits.
            prop_assert!(lane.live.iter().is_sorted_by_key(|command| command.id.clone()));
        }
    }
}
