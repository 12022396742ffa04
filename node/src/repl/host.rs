//! The console's way to the nodes: operations on threads of their own, so that one that hangs holds up nothing but itself, and an
//! interrupt is heard meanwhile.

use std::{
    collections::{HashSet, VecDeque},
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};
use tidegate_scripts::{ConsoleHost, Waited};

use super::{
    nodes::Nodes,
    operations::{Operation, Wrong},
};

/// Operations that run at a time; more wait.
const AT_A_TIME: usize = 8;
/// Answers that wait for the console; more: their threads wait.
pub(super) const EVENTS: usize = 64;

/// What a console hears of.
pub(super) enum Event {
    /// An operation of this input is through.
    Answer { input: u64, number: u64, json: String },
    /// The person has enough of the input.
    Interrupt,
}

/// The person's wish to end the input under way.
#[derive(Clone)]
pub(super) struct Interrupt {
    flag: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
    events: flume::Sender<Event>,
}

impl Interrupt {
    pub(super) fn new(events: flume::Sender<Event>) -> Self {
        Self { flag: Arc::default(), busy: Arc::default(), events }
    }

    /// An input begins.
    pub(super) fn begin(&self) {
        self.flag.store(false, Ordering::SeqCst);
        self.busy.store(true, Ordering::SeqCst);
    }

    /// The input is over.
    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::SeqCst);
    }

    /// Ends the input under way. `false`: there is none, or it was asked to before.
    pub(super) fn raise(&self) -> bool {
        if !self.busy.load(Ordering::SeqCst) || self.flag.swap(true, Ordering::SeqCst) {
            return false;
        }
        // If there is no room, something else wakes it, and the flag says the rest.
        let _ = self.events.try_send(Event::Interrupt);
        true
    }

    /// Is an input still under way that was asked to end?
    pub(super) fn is_ignored(&self) -> bool {
        self.busy.load(Ordering::SeqCst) && self.is_raised()
    }

    fn is_raised(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

/// The host.
pub(super) struct Host {
    nodes: Nodes,
    interrupt: Interrupt,
    events: flume::Receiver<Event>,
    send: flume::Sender<Event>,
    /// What was typed, for the audit logs of the nodes that it reaches.
    typed: flume::Receiver<String>,
    line: Option<(Arc<str>, HashSet<String>)>,
    input: u64,
    /// Set once nobody waits for the input's operations any more.
    over: Arc<AtomicBool>,
    under_way: usize,
    queue: VecDeque<(u64, Operation)>,
}

impl Host {
    pub(super) fn new(
        nodes: Nodes,
        interrupt: Interrupt,
        (send, events): (flume::Sender<Event>, flume::Receiver<Event>),
        typed: flume::Receiver<String>,
    ) -> Self {
        let over = Arc::default();
        Self { nodes, interrupt, events, send, typed, line: None, input: 0, over, under_way: 0, queue: VecDeque::new() }
    }

    fn start(&mut self, number: u64, operation: Operation) {
        self.under_way += 1;
        let (nodes, over, input, send) = (self.nodes.clone(), Arc::clone(&self.over), self.input, self.send.clone());
        let run = move || {
            let json = match operation.run(&nodes, &over) {
                Ok(value) => format!("{{\"ok\":true,\"value\":{value}}}"),
                Err(Wrong { message, status, kind }) => {
                    json!({ "ok": false, "error": { "message": message, "status": status, "kind": kind } }).to_string()
                }
            };
            // A console that is gone needs no answer.
            let _ = send.send(Event::Answer { input, number, json });
        };
        if let Err(error) = std::thread::Builder::new().name("operation".to_owned()).spawn(run) {
            let json =
                json!({ "ok": false, "error": { "message": format!("cannot start a thread: {error}") } }).to_string();
            let _ = self.send.try_send(Event::Answer { input: self.input, number, json });
        }
    }
}

impl ConsoleHost for Host {
    fn begin(&mut self, number: u64, operation: &str, argument: &Value) -> Result<(), String> {
        let operation = Operation::read(operation, argument, self.nodes.current())?;
        if let Ok(line) = self.typed.try_recv() {
            self.line = Some((line.into(), HashSet::new()));
        }
        // Once for each node that the line reaches.
        let line = self
            .line
            .as_mut()
            .and_then(|(line, told)| told.insert(operation.node().to_owned()).then(|| Arc::clone(line)));
        let operation = operation.typed(line);
        // The console bounds how many there are.
        if self.under_way < AT_A_TIME {
            self.start(number, operation);
        } else {
            self.queue.push_back((number, operation));
        }
        Ok(())
    }

    fn wait(&mut self, until: Option<Instant>) -> Waited {
        loop {
            if self.interrupt.is_raised() {
                return Waited::Interrupted;
            }
            let event = match until {
                Some(until) => match self.events.recv_deadline(until) {
                    Ok(event) => event,
                    Err(_) => return Waited::Time,
                },
                None => match self.events.recv() {
                    Ok(event) => event,
                    Err(_) => return Waited::Interrupted,
                },
            };
            match event {
                Event::Answer { input, number, json } if input == self.input => {
                    self.under_way -= 1;
                    if let Some((number, operation)) = self.queue.pop_front() {
                        self.start(number, operation);
                    }
                    return Waited::Answer(number, json);
                }
                // Of an input that is over, or an interrupt that came too late for one.
                Event::Answer { .. } | Event::Interrupt => {}
            }
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    fn forget(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.over = Arc::default();
        self.input += 1;
        self.under_way = 0;
        self.queue.clear();
        self.line = None;
        self.typed.drain().for_each(drop);
        self.events.drain().for_each(drop);
    }

    fn print(&mut self, text: &str, is_error: bool) {
        // A reader that went away is no reason to end: `tidegate repl -e … | head`.
        let _ = if is_error {
            writeln!(std::io::stderr().lock(), "{text}")
        } else {
            writeln!(std::io::stdout().lock(), "{text}")
        };
    }
}
