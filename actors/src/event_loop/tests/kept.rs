//! Kept pairs on the loops: whatever the interleaving, the store and the journal after its position come to the durable pairs,
//! the store never has what the journal lacks, and what waits for a commit runs once it has come, in order.

use std::{cell::RefCell, ops::ControlFlow, rc::Rc};

use super::*;
use crate::{kept::KeptChange, loop_handle::LoopHandle, store::StateStore};

const LOOPS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    /// A key belongs to the loop of its parity.
    Keep {
        key: u8,
        forget: bool,
    },
    WhenDurable(u8),
    Submit(u8),
    Turn(u8),
    Commit,
    Failing(bool),
    Tick(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12_u8, prop::bool::weighted(0.3)).prop_map(|(key, forget)| Op::Keep { key, forget }),
        3 => any::<u8>().prop_map(Op::WhenDurable),
        2 => any::<u8>().prop_map(Op::Submit),
        6 => any::<u8>().prop_map(Op::Turn),
        3 => Just(Op::Commit),
        1 => any::<bool>().prop_map(Op::Failing),
        3 => any::<u8>().prop_map(Op::Tick),
    ]
}

type Pairs = BTreeMap<Bytes, Bytes>;

fn apply<'a>(pairs: &mut Pairs, records: impl IntoIterator<Item = &'a Record>) {
    for record in records {
        match record {
            Record::Kept(KeptChange { key, value: Some(value) }) => _ = pairs.insert(key.clone(), value.clone()),
            Record::Kept(KeptChange { key, value: None }) => _ = pairs.remove(key),
            _ => {}
        }
    }
}

fn stored(store: &dyn StateStore) -> Pairs {
    let mut pairs = Pairs::new();
    let all = store.kept(b"", &mut |key, value| {
        pairs.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    });
    all.unwrap();
    pairs
}

/// The power goes, or the node ends in order: what is durable is in the store, or behind its position.
fn check_crash(world: &World) {
    world.journal.lose_unsynced();
    world.services.checkpointer.stop().unwrap();
    let durable = world.journal.durable();
    let store = &world.services.store;
    let mut expected = Pairs::new();
    apply(&mut expected, durable.iter().map(|(_, record)| record));
    let mut found = stored(&**store);
    for (key, value) in &found {
        let known = durable.iter().any(|(_, record)| {
            matches!(record, Record::Kept(change) if change.key == key && change.value.as_ref() == Some(value))
        });
        assert!(known, "the store has {key:?} = {value:?}, which the journal lacks");
    }
    let after = durable.iter().filter(|(position, _)| *position > store.folded());
    apply(&mut found, after.map(|(_, record)| record));
    assert_eq!(found, expected, "folded up to {}", store.folded());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn pairs_are_durable_before_they_are_told_and_none_is_lost(
        ops in prop::collection::vec(op(), 1..200), orderly in any::<bool>(),
    ) {
        let mut world = World::new(LOOPS as u16, 8);
        let told: [Rc<RefCell<Vec<usize>>>; LOOPS] = Default::default();
        let (mut asked, mut kept) = ([0; LOOPS], [0_usize; LOOPS]);
        for (number, op) in ops.into_iter().enumerate() {
            match op {
                Op::Keep { key, forget } => {
                    let home = usize::from(key) % LOOPS;
                    // Each value is another one.
                    let value = (!forget).then(|| Bytes::from(format!("{number}")));
                    kept[home] += 1;
                    world.loops[home].turn.keep(KeptChange { key: vec![key + 1].into(), value }).unwrap();
                }
                Op::WhenDurable(home) => {
                    let home = usize::from(home) % LOOPS;
                    let (told, journal, needed) = (Rc::clone(&told[home]), Arc::clone(&world.journal), kept[home]);
                    let ask = asked[home];
                    asked[home] += 1;
                    world.loops[home].when_durable(Box::new(move || {
                        let of_home = |record: &Record| {
                            matches!(record, Record::Kept(change) if usize::from(change.key[0] - 1) % LOOPS == home)
                        };
                        let durable = journal.durable().iter().filter(|(_, record)| of_home(record)).count();
                        assert!(durable >= needed, "told at {durable} of {needed}");
                        told.borrow_mut().push(ask);
                    }));
                }
                Op::Submit(home) => world.submit(usize::from(home) % LOOPS, "d1", AckLevel::Committed),
                Op::Turn(id) => world.turn(usize::from(id) % LOOPS),
                Op::Commit => world.commit(),
                Op::Failing(failing) => world.set_failing(failing),
                Op::Tick(id) => world.tick(usize::from(id) % LOOPS),
            }
            world.check();
        }
        if orderly {
            world.settle();
            for id in 0..LOOPS {
                (0..8).for_each(|_| world.tick(id));
                prop_assert!(world.loops[id].is_checkpointed());
                prop_assert!(told[id].borrow().iter().copied().eq(0..asked[id]), "all of them, in order");
            }
        }
        for (told, asked) in told.iter().zip(asked) {
            prop_assert!(told.borrow().iter().copied().eq(0..told.borrow().len()) && told.borrow().len() <= asked);
        }
        check_crash(&world);
        if orderly {
            let committed = crate::journal::Journal::status(&*world.journal).committed;
            prop_assert_eq!(world.services.store.folded(), committed, "nothing is left to be replayed");
        }
    }
}

#[test]
fn pairs_that_the_checkpoint_thread_does_not_take_stop_the_sockets() {
    let mut world = World::new(1, 8);
    let large = Bytes::from(vec![0; 1024 * 1024]);
    for number in 0..40_u8 {
        world.loops[0].turn.keep(KeptChange { key: vec![number].into(), value: Some(large.clone()) }).unwrap();
        world.turn(0);
        world.commit();
        world.turn(0);
    }
    assert!(world.loops[0].is_pressed());
    while !world.loops[0].is_checkpointed() {
        world.tick(0);
        world.turn(0);
    }
    assert!(!world.loops[0].is_pressed());
    check_crash(&world);
    assert_eq!(world.services.store.kept_count(), 40);
}

#[test]
fn the_position_waits_for_the_last_piece() {
    for ticks in 1..8 {
        let mut world = World::new(1, 8);
        let large = Bytes::from(vec![0; 1024 * 1024]);
        for number in 0..14_u8 {
            world.loops[0].turn.keep(KeptChange { key: vec![number].into(), value: Some(large.clone()) }).unwrap();
            world.turn(0);
            world.commit();
            world.turn(0);
        }
        (0..ticks).for_each(|_| world.tick(0));
        check_crash(&world);
        assert_eq!(world.services.store.kept_count() == 14, ticks >= 4, "{ticks}");
    }
}

/// A loop with its actor, and its journal.
fn real_loop() -> (LoopHandle, Arc<MemoryJournal>) {
    let World { services, inboxes, journal, _dir, .. } = World::new(1, 64);
    let inbox = inboxes.into_iter().next().unwrap();
    // Of the directory only the name is used from here on.
    (LoopHandle::start(LoopId(0), services, inbox), journal)
}

/// Lets the loop turn until `done`; what waits for a commit is committed, if it may.
async fn until(journal: &MemoryJournal, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it does not come to it");
        journal.commit();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_waits_for_a_commit_runs_outside_the_loop_and_may_ask_again() {
    actix_rt::System::new().block_on(async {
        let (handle, journal) = real_loop();
        let told: Rc<RefCell<Vec<&str>>> = Rc::default();
        let tell = |what| {
            let told = Rc::clone(&told);
            move || told.borrow_mut().push(what)
        };
        // Nothing is under way: soon, but not before it returns.
        handle.when_durable(tell("nothing"));
        assert!(told.borrow().is_empty());
        until(&journal, || *told.borrow() == ["nothing"]).await;

        handle.keep(Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))).unwrap();
        let (again, last) = (handle.clone(), tell("second"));
        handle.when_durable(move || {
            // The loop is not borrowed here.
            again.keep(Bytes::from_static(b"a"), None).unwrap();
            again.when_durable(last);
        });
        handle.when_durable(tell("first"));
        until(&journal, || told.borrow().len() == 3).await;
        assert_eq!(*told.borrow(), ["nothing", "first", "second"]);
        let kept = journal.durable().into_iter().filter(|(_, record)| matches!(record, Record::Kept(_))).count();
        assert_eq!(kept, 2);
        assert!(handle.keep(Bytes::new(), None).is_err());
        assert!(handle.keep(Bytes::from_static(b"k"), Some(vec![0; limits::RECORD_BYTES].into())).is_err());
    });
}

#[test]
fn nothing_is_told_while_the_disk_refuses_and_a_panic_costs_one() {
    actix_rt::System::new().block_on(async {
        let (handle, journal) = real_loop();
        let told: Rc<RefCell<Vec<&str>>> = Rc::default();
        let tell = |what| {
            let told = Rc::clone(&told);
            move || told.borrow_mut().push(what)
        };
        journal.fail("no space");
        until(&journal, || handle.is_pressed()).await;
        handle.when_durable(tell("nothing was to be written"));
        handle.keep(Bytes::from_static(b"a"), Some(Bytes::from_static(b"1"))).unwrap();
        handle.when_durable(|| panic!("a panic of the edge, for the test"));
        handle.when_durable(tell("after"));
        for _ in 0..20 {
            handle.wake();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(told.borrow().is_empty());
        journal.heal();
        until(&journal, || told.borrow().len() == 2).await;
        assert_eq!(*told.borrow(), ["nothing was to be written", "after"]);
    });
}
