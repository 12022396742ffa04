//! Several loops, driven turn by turn on one thread: whatever the interleaving, order, ledger, answers and the position hold.

mod kept;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    task::Wake,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    blocking::BlockingPool,
    checkpoint::{CheckpointConfig, Checkpointer},
    clock::{Clock as _, ManualClock},
    fold::{Imported, fold, fold_import},
    handover::Handover,
    idempotency::Idempotency,
    inbox::{self, Inbox},
    journal::{CommitMode, MemoryJournal, Record},
    ledger::{ConflateReason, Ledger},
    lifetime::Lifetime,
    lock::lock,
    loop_sink::LoopSink,
    reading::{AckLevel, Channel, Reading},
    script::{OutcomeSink as _, ParkReason, Route, ScriptEngine, ScriptHealth, ScriptRun, Verdict, WorkerHealth},
    store::MemoryStore,
    submission::Disposition,
    turn::Memory,
};

/// Handlers whose outcomes are the test's. Devices whose id begins with `s` are theirs.
#[derive(Default)]
struct TestScripts {
    runs: Mutex<VecDeque<ScriptRun>>,
    full: AtomicBool,
}

impl ScriptEngine for TestScripts {
    fn route(&self, device: &DeviceId, _: Channel) -> Route {
        Route(u64::from(device.as_str().starts_with('s')))
    }
    fn generation(&self) -> u64 {
        1
    }
    fn try_submit(&self, runs: Vec<ScriptRun>) -> Result<(), Vec<ScriptRun>> {
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(runs);
        }
        lock(&self.runs).extend(runs);
        Ok(())
    }
    fn scripts(&self) -> Vec<ScriptHealth> {
        Vec::new()
    }
    fn workers(&self) -> Vec<WorkerHealth> {
        Vec::new()
    }
    fn stop(&self) {}
}

struct World {
    loops: Vec<EventLoop>,
    inboxes: Vec<Inbox<LoopMessage>>,
    services: Arc<Services>,
    journal: Arc<MemoryJournal>,
    scripts: Arc<TestScripts>,
    sink: LoopSink,
    clock: Arc<ManualClock>,
    failing: bool,
    /// By number of the submission: its answer.
    answers: HashMap<u32, Answer>,
    submitted: Vec<Submission>,
    imports: Vec<tokio::sync::oneshot::Receiver<Imported>>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(loops: u16, inbox_limit: usize) -> Self {
        let (outlets, inboxes): (Vec<_>, Vec<_>) = (0..loops).map(|_| inbox::inbox(inbox_limit)).unzip();
        let sink = LoopSink::new(outlets.clone());
        let journal = MemoryJournal::new(Position(1), CommitMode::Manual, Arc::new(sink.clone()));
        let scripts = Arc::new(TestScripts::default());
        let clock = Arc::new(ManualClock::at(1_000));
        let store = Arc::new(MemoryStore::new());
        let dir = tempfile::tempdir().unwrap();
        let config = CheckpointConfig::new(dir.path().to_owned(), loops.into());
        let checkpointer = Checkpointer::start(store.clone(), journal.clone(), config).unwrap();
        let services = Arc::new(Services {
            clock: clock.clone(),
            journal: journal.clone(),
            scripts: scripts.clone(),
            store,
            checkpointer,
            pool: Arc::new(BlockingPool::new(1, 1_024).unwrap()),
            outlets,
            handovers: (0..loops).map(|_| Handover::default()).collect(),
            commit_max_delay: Duration::from_millis(10),
            gather: Duration::ZERO,
            checkpoint_interval: Duration::from_secs(1),
            panics: AtomicU64::new(0),
            heartbeats: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            started: Instant::now(),
        });
        Self {
            loops: (0..loops).map(|id| EventLoop::new(LoopId(id), Arc::clone(&services))).collect(),
            inboxes,
            services,
            journal,
            scripts,
            sink,
            clock,
            failing: false,
            answers: HashMap::new(),
            submitted: Vec::new(),
            imports: Vec::new(),
            _dir: dir,
        }
    }

    fn submit(&mut self, home: usize, device: &str, level: AckLevel) {
        self.submit_as(home, device, level, None);
    }

    fn submit_as(&mut self, home: usize, device: &str, level: AckLevel, request: Option<u8>) {
        let number = u32::try_from(self.submitted.len()).unwrap();
        let reading = Reading {
            device: DeviceId::new(device).unwrap(),
            channel: Channel::Metrics,
            device_time: None,
            received: self.clock.now(),
            payload: Bytes::from(format!("{{\"n\":{number}}}")),
            idempotency: request.map(|request| Idempotency { request: [request; 16], index: 0 }),
            retry_of: None,
        };
        let ack = (level != AckLevel::Received).then(|| AckTo { home: self.loops[home].turn.id, key: 7, item: number });
        let submission = Submission { reading, level, ack };
        self.submitted.push(submission.clone());
        self.loops[home].submit(submission);
    }

    fn import(&mut self, device: &str, time: i64, overwrite: bool) {
        let owner = placement::owner(device, self.services.loops()).index();
        let state = DeviceState {
            state: Bytes::from(format!("{{\"imported\":{time}}}")),
            device_time: Some(time),
            newest_device_time: Some(time),
            version: 5,
            ..DeviceState::empty(DeviceId::new(device).unwrap(), time)
        };
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.loops[owner].import(state, overwrite, reply);
        self.imports.push(answer);
    }

    /// One turn, as the loop's actor runs it.
    fn turn(&mut self, id: usize) {
        for _ in 0..limits::YIELD_AFTER {
            let message = self.inboxes[id].take();
            self.loops[id].take_handed_over();
            let Some(message) = message else { break };
            self.loops[id].on_message(message);
        }
        let event_loop = &mut self.loops[id];
        while let Some(then) = event_loop.next_durable() {
            then();
        }
        // Every turn is at a commit tick.
        event_loop.send_batch();
        event_loop.wake_owners();
        for ack in event_loop.flush().acks {
            assert_eq!(ack.to.home.index(), id, "an answer on the wrong loop");
            if !matches!(ack.answer, Answer::Refused(_)) {
                self.assert_durable(ack.to.item, matches!(ack.answer, Answer::Processed(_)));
            }
            assert!(self.answers.insert(ack.to.item, ack.answer).is_none(), "answered twice");
        }
        // The pool has one thread and keeps the order: what it was asked is done when this is.
        let barrier = self.services.pool.try_run(|| ()).unwrap();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(barrier).unwrap();
    }

    /// What is acknowledged is durable: the reading, and what the handlers made of it.
    fn assert_durable(&self, number: u32, processed: bool) {
        let payload = &self.submitted[number as usize].reading.payload;
        let durable = self.journal.durable();
        let found = durable.iter().find_map(|(position, record)| match record {
            Record::Reading { reading, routed } if reading.payload == payload => Some((*position, *routed)),
            _ => None,
        });
        let Some((position, routed)) = found else { panic!("reading {number} was acknowledged before it was durable") };
        let has_outcome =
            durable.iter().any(|(_, record)| matches!(record, Record::Outcome(outcome) if outcome.reading == position));
        assert!(
            has_outcome || !routed || !processed,
            "reading {number} was acknowledged before its outcome was durable"
        );
    }

    fn commit(&mut self) {
        // The sink waits for room in an inbox, and here nobody makes room meanwhile.
        if self.inboxes.iter().all(|inbox| inbox.waiting() + 2 < 8) {
            self.journal.commit();
        }
    }

    /// The handlers answer for the first reading of one run.
    fn handle(&mut self, which: usize, verdict: u8) {
        let mut runs = lock(&self.scripts.runs);
        if runs.is_empty() || self.inboxes.iter().any(|inbox| inbox.waiting() + 2 >= 8) {
            return;
        }
        let index = which % runs.len();
        let run = &mut runs[index];
        let (owner, device) = (run.owner, run.device.clone());
        let call = run.calls.remove(0);
        if run.calls.is_empty() {
            runs.remove(index);
        }
        drop(runs);
        let verdict = match verdict % 4 {
            0 => Verdict::Unchanged,
            1 => Verdict::Keep(Bytes::from(format!("{{\"kept\":{}}}", call.position))),
            2 => Verdict::Dropped { script: "s.js".into() },
            _ => Verdict::Parked { script: "s.js".into(), reason: ParkReason::Threw, message: "it threw".into() },
        };
        let script_state = smallvec::smallvec![("s.js".into(), Bytes::from(call.position.to_string()))];
        let outcome = ScriptOutcome {
            device,
            position: call.position,
            verdict,
            script_state,
            emits: Vec::new(),
            commands: Vec::new(),
        };
        self.sink.deliver(owner, vec![outcome]);
    }

    fn set_failing(&mut self, failing: bool) {
        if failing != self.failing && self.inboxes.iter().all(|inbox| inbox.waiting() + 2 < 8) {
            self.failing = failing;
            if failing { self.journal.fail("no space") } else { self.journal.heal() }
        }
    }

    fn tick(&mut self, id: usize) {
        self.clock.advance(Duration::from_millis(50));
        self.loops[id].tick(self.clock.uptime(), true);
    }

    /// What must hold at any time.
    fn check(&self) {
        for event_loop in &self.loops {
            assert!(event_loop.turn.ledger.balanced(), "{:?}", event_loop.turn.ledger);
        }
        for (position, record) in self.journal.durable() {
            let Record::Reading { reading, .. } = record else { continue };
            let event_loop = &self.loops[placement::owner(reading.device.as_str(), self.services.loops()).index()];
            if position <= event_loop.checkpoint.last_folded {
                let state = event_loop.device(reading.device.as_str()).and_then(|d| d.state());
                assert!(state.is_some_and(|state| state.position >= position), "said to be folded: {position}");
            }
        }
    }

    /// Lets everything come to its end.
    fn settle(&mut self) {
        self.scripts.full.store(false, std::sync::atomic::Ordering::Relaxed);
        for round in 0..10_000 {
            self.set_failing(false);
            self.commit();
            self.handle(0, 0);
            for id in 0..self.loops.len() {
                self.turn(id);
            }
            if round % 16 == 0 {
                (0..self.loops.len()).for_each(|id| self.tick(id));
            }
            let quiet = self.inboxes.iter().all(|inbox| inbox.waiting() == 0);
            if quiet && self.loops.iter().all(EventLoop::is_drained) {
                return;
            }
        }
        panic!("it does not come to an end: {:?}", self.loops.iter().map(|l| &l.turn.ledger).collect::<Vec<_>>());
    }

    fn check_end(&mut self) {
        for answer in &mut self.imports {
            answer.try_recv().expect("every import is answered");
        }
        let durable = self.journal.durable();
        for (number, submission) in (0..).zip(&self.submitted) {
            let answer = self.answers.get(&number);
            match submission.level {
                AckLevel::Received => assert_eq!(answer, None),
                AckLevel::Committed => assert!(matches!(answer, Some(Answer::Committed | Answer::Refused(_)))),
                AckLevel::Processed => assert!(matches!(answer, Some(Answer::Processed(_) | Answer::Refused(_)))),
            }
        }
        // Nothing lost, nothing doubled; the order of a device's readings is the order in which they came, on whatever loop.
        let mut readings: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut submitted = readings.clone();
        let key = |reading: &Reading| {
            let json: serde_json::Value = serde_json::from_slice(&reading.payload).unwrap();
            (reading.device.to_string(), json["n"].as_u64().unwrap())
        };
        for (_, record) in &durable {
            let Record::Reading { reading, .. } = record else { continue };
            let (key, number) = key(reading);
            readings.entry(key).or_default().push(number);
        }
        for (number, submission) in (0..).zip(&self.submitted) {
            if !matches!(self.answers.get(&number), Some(Answer::Refused(_))) {
                let (key, number) = key(&submission.reading);
                submitted.entry(key).or_default().push(number);
            }
        }
        assert_eq!(readings, submitted);
        // The journal alone comes to the same states.
        let mut states: BTreeMap<DeviceId, DeviceState> = BTreeMap::new();
        let outcomes: HashMap<Position, _> = durable
            .iter()
            .filter_map(|(_, record)| match record {
                Record::Outcome(outcome) => Some((outcome.reading, outcome)),
                _ => None,
            })
            .collect();
        for (position, record) in &durable {
            let (reading, routed) = match record {
                Record::Reading { reading, routed } => (reading, routed),
                Record::Imported { state, overwrite } => {
                    let (_, next) = fold_import(states.get(&state.device), *position, state, *overwrite);
                    states.extend(next.map(|state| (state.device.clone(), state)));
                    continue;
                }
                _ => continue,
            };
            let folded = if *routed {
                let outcome = outcomes[position];
                fold(states.get(&reading.device), *position, reading, &outcome.verdict, &outcome.script_state)
            } else {
                fold(states.get(&reading.device), *position, reading, &Verdict::Unchanged, &[])
            };
            states.extend(folded.into_state().map(|state| (state.device.clone(), state)));
        }
        let mut live = BTreeMap::new();
        for event_loop in &self.loops {
            let devices = event_loop.devices.iter().filter_map(|(_, device)| device.state().cloned());
            live.extend(devices.map(|state| (state.device.clone(), state)));
        }
        assert_eq!(live, states);
        let (mut counted, mut expected) = (Lifetime::default(), Lifetime::default());
        self.loops.iter().for_each(|event_loop| counted.add(&event_loop.turn.lifetime));
        states.values().for_each(|state| expected.change(None, state));
        assert_eq!(counted, expected);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Submit { home: u8, device: u8, level: u8, request: Option<u8> },
    Import { device: u8, time: i64, overwrite: bool },
    Turn(u8),
    Commit,
    Handle(u8, u8),
    ScriptsFull(bool),
    Failing(bool),
    Tick(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>(), any::<u8>(), prop::option::weighted(0.3, 0..3_u8))
            .prop_map(|(home, device, level, request)| Op::Submit { home, device, level, request }),
        1 => (any::<u8>(), 0..2_000_i64, any::<bool>())
            .prop_map(|(device, time, overwrite)| Op::Import { device, time, overwrite }),
        6 => any::<u8>().prop_map(Op::Turn),
        3 => Just(Op::Commit),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(which, verdict)| Op::Handle(which, verdict)),
        1 => any::<bool>().prop_map(Op::ScriptsFull),
        1 => any::<bool>().prop_map(Op::Failing),
        2 => any::<u8>().prop_map(Op::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_order_ledger_and_answers(ops in prop::collection::vec(op(), 1..200)) {
        const LOOPS: u16 = 2;
        let devices = ["s1", "s2", "s3", "d1", "d2", "d3"];
        // Small inboxes are full now and then.
        let mut world = World::new(LOOPS, 8);
        for op in ops {
            match op {
                Op::Submit { home, device, level, request } => {
                    let level = [AckLevel::Received, AckLevel::Committed, AckLevel::Processed][usize::from(level) % 3];
                    let device = devices[usize::from(device) % devices.len()];
                    world.submit_as(usize::from(home) % usize::from(LOOPS), device, level, request);
                }
                Op::Import { device, time, overwrite } => {
                    world.import(devices[usize::from(device) % devices.len()], time, overwrite);
                }
                Op::Turn(id) => world.turn(usize::from(id) % usize::from(LOOPS)),
                Op::Commit => world.commit(),
                Op::Handle(which, verdict) => world.handle(which.into(), verdict),
                Op::ScriptsFull(full) => world.scripts.full.store(full, std::sync::atomic::Ordering::Relaxed),
                Op::Failing(failing) => world.set_failing(failing),
                Op::Tick(id) => world.tick(usize::from(id) % usize::from(LOOPS)),
            }
            world.check();
        }
        world.settle();
        world.check();
        world.check_end();
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// The id of a device of the only loop.
const DEVICE: &str = "d1";

#[test]
fn whoever_waits_does_not_wait_for_the_tick_of_those_for_whom_nobody_does() {
    let mut world = World::new(1, 8);
    let wakes = Arc::new(Wakes::default());
    world.loops[0].turn.set_waker(&Arc::clone(&wakes).into());
    world.submit(0, DEVICE, AckLevel::Received);
    assert_eq!(world.loops[0].batch_due(), Due::Soon);
    let before = wakes.count();
    world.submit(0, DEVICE, AckLevel::Committed);
    assert!(wakes.count() > before, "the loop sleeps until the tick while somebody waits");
    assert_eq!(world.loops[0].batch_due(), Due::Now);
}

/// A device of the second of two loops.
fn device_of_the_other_loop() -> String {
    (0..).map(|n| format!("d{n}")).find(|id| placement::owner(id, 2) == LoopId(1)).unwrap()
}

/// Two loops, with those who count their wake-ups.
fn two_loops() -> (World, Arc<Wakes>, Arc<Wakes>) {
    let mut world = World::new(2, 8);
    let (sender, owner) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    world.loops[0].turn.set_waker(&Arc::clone(&sender).into());
    world.inboxes[1].register(&Arc::clone(&owner).into());
    (world, sender, owner)
}

#[test]
fn a_reading_for_another_loop_wakes_it_at_the_commit_tick_unless_it_turned_before() {
    let device = device_of_the_other_loop();
    let (mut world, sender, owner) = two_loops();
    for _ in 0..10 {
        world.submit(0, &device, AckLevel::Received);
    }
    assert_eq!((sender.count(), owner.count()), (1, 0), "one turn of the sender sets its timer");
    assert_eq!(world.loops[0].handover_due(), Due::Soon);
    world.loops[0].wake_owners();
    assert_eq!((world.loops[0].handover_due(), owner.count()), (Due::Never, 1));

    world.settle();
    world.inboxes[1].register(&Arc::clone(&owner).into());
    world.submit(0, &device, AckLevel::Received);
    let before = owner.count();
    world.turn(1);
    world.loops[0].wake_owners();
    assert_eq!(owner.count(), before, "it has taken them already");
    world.settle();
    world.check_end();
}

#[test]
fn readings_for_another_loop_do_not_wait_when_somebody_else_does_or_when_they_are_many() {
    let device = device_of_the_other_loop();
    let (mut world, sender, _) = two_loops();
    world.submit(0, &device, AckLevel::Received);
    world.submit(0, &device, AckLevel::Committed);
    assert_eq!((world.loops[0].handover_due(), sender.count()), (Due::Now, 2));
    world.turn(0);
    world.turn(1);
    for _ in 1..limits::HANDOVER_SOON {
        world.submit(0, &device, AckLevel::Received);
    }
    assert_eq!(world.loops[0].handover_due(), Due::Soon);
    world.submit(0, &device, AckLevel::Received);
    assert_eq!(world.loops[0].handover_due(), Due::Now);
    world.settle();
    world.check_end();
}

#[test]
fn what_was_handed_over_comes_before_what_the_owner_gets_itself() {
    let device = device_of_the_other_loop();
    let mut world = World::new(2, 8);
    for n in 0..20 {
        // No loop turns meanwhile, and nobody is woken.
        world.submit(n % 2, &device, AckLevel::Received);
    }
    assert_eq!(world.loops[1].turn.ledger.in_flight, 20);
    world.settle();
    world.check_end();
}

#[test]
fn a_loop_that_does_not_turn_stops_those_who_hand_over_to_it_before_they_are_refused() {
    let device = device_of_the_other_loop();
    let mut world = World::new(2, 8);
    let mut count = 0;
    while !world.loops[0].is_pressed() {
        world.submit(0, &device, AckLevel::Received);
        count += 1;
    }
    assert_eq!(count, limits::HANDOVER);
    assert!(!world.loops[0].is_drained() || !world.loops[1].is_drained(), "they are under way");
    world.turn(0);
    assert!(world.loops[0].is_pressed());
    world.turn(1);
    world.turn(0);
    assert!(!world.loops[0].is_pressed());
    world.settle();
    for _ in 0..2 * limits::HANDOVER {
        world.submit(0, &device, AckLevel::Received);
    }
    world.submit(0, &device, AckLevel::Committed);
    assert_eq!(world.loops[0].turn.ledger.rejected[RejectReason::Overloaded as usize], 1);
    world.settle();
    world.check_end();
}

#[test]
fn a_burst_of_one_device_is_stopped_before_it_is_refused() {
    let mut world = World::new(1, 8);
    while !world.loops[0].is_device_pressed(DEVICE) {
        world.submit(0, DEVICE, AckLevel::Received);
    }
    // What was on its way when the sender was stopped: one read, and the largest request.
    for _ in 0..limits::READINGS_PER_REQUEST {
        world.submit(0, DEVICE, AckLevel::Received);
    }
    assert_eq!(world.loops[0].turn.ledger.rejected, Ledger::default().rejected);
    world.settle();
    assert!(!world.loops[0].is_device_pressed(DEVICE));
    assert_eq!(world.loops[0].turn.ledger.committed, world.submitted.len() as u64);
}

#[test]
fn a_refused_record_leaves_the_device_as_it_was() {
    let mut world = World::new(1, 8);
    world.submit(0, DEVICE, AckLevel::Committed);
    world.settle();
    let reading =
        Reading { payload: vec![b' '; limits::RECORD_BYTES + 1].into(), ..world.submitted[0].reading.clone() };
    let ack = Some(AckTo { home: LoopId(0), key: 7, item: 1 });
    world.loops[0].submit(Submission { reading, level: AckLevel::Committed, ack });
    world.turn(0);
    assert_eq!(world.answers[&1], Answer::Refused(RejectReason::TooLarge));
    world.check();
    world.tick(0);
    let mut waited = 0;
    // The checkpoint thread writes once a second.
    while world.loops[0].services.checkpointer.written_through(LoopId(0)) == 0 {
        waited += 1;
        assert!(waited < 1_000, "no checkpoint");
        std::thread::sleep(Duration::from_millis(10));
    }
    let device = world.loops[0].device(DEVICE).unwrap();
    assert!(device.is_idle(Uptime(u64::MAX), 1), "it could never be passivated: {device:?}");
}

#[test]
fn a_result_that_the_journal_cannot_hold_is_parked_and_a_replay_agrees() {
    let mut world = World::new(1, 8);
    world.submit(0, "s1", AckLevel::Processed);
    for _ in 0..4 {
        world.turn(0);
        world.commit();
    }
    let run = lock(&world.scripts.runs).pop_front().unwrap();
    // Each within `script_value_bytes`, together beyond `record_bytes`.
    let value = Bytes::from(vec![b'1'; limits::SCRIPT_VALUE_BYTES]);
    let script_state = (0..5).map(|n| (format!("{n}.js").into(), value.clone())).collect();
    let (device, position) = (run.device.clone(), run.calls[0].position);
    let outcome = ScriptOutcome {
        device,
        position,
        verdict: Verdict::Unchanged,
        script_state,
        emits: Vec::new(),
        commands: Vec::new(),
    };
    world.sink.deliver(LoopId(0), vec![outcome]);
    world.settle();
    assert_eq!(world.answers[&0], Answer::Processed(Disposition::Parked(ParkReason::BadResult)));
    world.check_end();
}

#[test]
fn a_loop_that_panicked_among_readings_claims_no_more_than_before() {
    let mut world = World::new(1, 8);
    world.submit(0, DEVICE, AckLevel::Committed);
    world.settle();
    world.tick(0);
    world.tick(0);
    assert_eq!(world.loops[0].checkpoint.last_folded, Position(1));
    world.submit(0, DEVICE, AckLevel::Committed);
    world.turn(0);
    world.commit();
    let Some(message) = world.inboxes[0].take() else { panic!("no commit") };
    // The commit's readings are off the list when a panic cuts their work short.
    let event_loop = &mut world.loops[0];
    event_loop.handling = true;
    event_loop.committing.pop_front();
    drop(message);
    event_loop.on_panic();
    world.tick(0);
    world.tick(0);
    world.check();
    assert_eq!(world.loops[0].checkpoint.last_folded, Position(1));
}

#[test]
fn those_who_gave_up_waiting_do_not_pile_up() {
    let mut world = World::new(1, 8);
    let waker = Waker::from(Arc::new(Wakes::default()));
    world.loops[0].turn.gate_closed = true;
    for _ in 0..1_000 {
        world.loops[0].pause(&waker);
        world.turn(0);
        world.tick(0);
    }
    assert!(world.loops[0].paused.len() <= 101, "{} wait", world.loops[0].paused.len());
}

#[test]
fn readings_are_refused_by_name_while_memory_is_shed_and_taken_again_after() {
    let mut world = World::new(1, 8);
    world.loops[0].turn.memory = Memory::Short;
    assert!(world.loops[0].is_pressed());
    world.loops[0].turn.memory = Memory::Shedding;
    assert!(!world.loops[0].is_pressed(), "a sender is told, not left waiting");
    world.submit(0, "s1", AckLevel::Committed);
    world.loops[0].turn.memory = Memory::Enough;
    world.submit(0, "s1", AckLevel::Committed);
    world.settle();
    let ledger = &world.loops[0].turn.ledger;
    assert!(ledger.balanced(), "{ledger:?}");
    assert_eq!((ledger.received, ledger.rejected[RejectReason::Memory as usize], ledger.committed), (2, 1, 1));
}

#[test]
fn handlers_do_not_run_for_a_request_that_comes_again() {
    let mut world = World::new(1, 8);
    for request in [None, Some(1), Some(1), None] {
        world.submit_as(0, "s1", AckLevel::Processed, request);
    }
    let calls = |world: &World| lock(&world.scripts.runs).iter().map(|run| run.calls.len()).sum::<usize>();
    world.turn(0);
    world.commit();
    world.turn(0);
    // The first runs alone, for it came first; the others wait for it.
    for reading in ["the first", "the request", "the reading behind the retry"] {
        assert_eq!(calls(&world), 1, "{reading}");
        world.handle(0, 0);
        world.turn(0);
    }
    world.settle();
    let retry = Disposition::Conflated(ConflateReason::IdempotentRetry);
    let answers: Vec<_> = (0..4).map(|number| world.answers[&number]).collect();
    assert_eq!(answers, [Disposition::Kept, Disposition::Kept, retry, Disposition::Kept].map(Answer::Processed));
    world.check_end();
}

/// A year, in milliseconds.
const YEAR: i64 = 366 * 24 * 3_600_000;

/// Ticks until the loop's checkpoint is written.
fn checkpoint(world: &mut World) {
    world.tick(0);
    let batches = world.loops[0].checkpoint.batches;
    let mut waited = 0;
    while world.services.checkpointer.written_through(LoopId(0)) < batches {
        waited += 1;
        assert!(waited < 1_000, "no checkpoint");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_jump_of_the_time_of_day_neither_passivates_a_device_nor_keeps_it_awake() {
    for jump in [YEAR, -YEAR] {
        let mut world = World::new(1, 8);
        world.clock.set(YEAR * 50);
        world.submit(0, DEVICE, AckLevel::Committed);
        world.settle();
        checkpoint(&mut world);
        world.clock.set(world.clock.now() + jump);
        world.tick(0);
        assert!(world.loops[0].device(DEVICE).is_some(), "passivated by a jump of {jump}");
        world.clock.advance(limits::DEVICE_IDLE);
        world.tick(0);
        assert!(world.loops[0].device(DEVICE).is_none(), "kept awake by a jump of {jump}");
    }
}

#[test]
fn after_a_jump_of_the_time_of_day_readings_without_a_time_are_kept_and_shown() {
    for jump in [YEAR, -YEAR] {
        let mut world = World::new(1, 8);
        world.clock.set(YEAR * 50);
        let viewer = Viewer::new(crate::fanout::ViewerLimits::default(), false, 1, world.clock.uptime());
        let filter = Filter { fleet: true, ..Filter::default() };
        world.loops[0].on_message(LoopMessage::Watch(Arc::clone(&viewer), Arc::new(filter)));
        for round in 1..=3 {
            let received = world.clock.now();
            world.submit(0, DEVICE, AckLevel::Processed);
            world.settle();
            let seen = viewer.take(usize::MAX, world.clock.uptime());
            assert_eq!((seen.updates.len(), seen.closed), (1, false), "after {round} readings, a jump of {jump}");
            let state = world.loops[0].device(DEVICE).unwrap().state().unwrap();
            assert_eq!((state.version, state.received), (round, received));
            world.clock.set(world.clock.now() + jump);
            checkpoint(&mut world);
        }
        world.check_end();
    }
}

#[test]
fn the_store_gets_no_outcome_before_the_journal_has_it() {
    let mut world = World::new(1, 8);
    world.submit(0, "s1", AckLevel::Committed);
    world.turn(0);
    world.commit();
    world.turn(0);
    world.handle(0, 0);
    world.turn(0);
    assert_eq!(world.loops[0].device("s1").unwrap().state().unwrap().version, 1, "folded");
    world.tick(0);
    assert!(world.loops[0].checkpoint.ready.is_some(), "the outcome is not committed");
    world.commit();
    world.turn(0);
    world.tick(0);
    assert!(world.loops[0].is_checkpointed());
}
