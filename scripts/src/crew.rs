//! The workers of one set of handlers. A new set has a crew of its own that stands ready before the old one leaves; an old one takes
//! no more runs, finishes those that it has, and ends.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use flume::{Receiver, Sender};

use crate::{
    process::Process,
    queue::RunReceiver,
    restarts::Restarts,
    set::Set,
    supervisor::{Shared, Supervisor, WorkerGauge},
};

/// The threads of a set's workers.
pub(crate) struct Crew {
    /// Dropped: they begin.
    begin: Option<Sender<()>>,
    /// Dropped: they finish what they have.
    leave: Option<Sender<()>>,
    gauges: Vec<Arc<WorkerGauge>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Makes a crew, the first of which has its worker already. `gauges`: those of the crew whose place it takes. A set of which
    /// nothing runs has one thread and no worker: readings that come for it pass.
    ///
    /// # Errors
    /// There are no threads.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        set: &Arc<Set>,
        runs: &RunReceiver,
        stop: &Receiver<()>,
        mut first: Option<Process>,
        gauges: &[Arc<WorkerGauge>],
    ) -> io::Result<Self> {
        let (begin, begun) = flume::bounded(0);
        let (leave, left) = flume::bounded(0);
        let workers = if set.runs() { shared.workers } else { 1 };
        let mut crew = Self { begin: Some(begin), leave: Some(leave), gauges: Vec::new(), threads: Vec::new() };
        for number in 0..workers {
            let gauge = Arc::new(WorkerGauge::after(gauges.get(number).map(|gauge| &**gauge)));
            if set.runs() {
                crew.gauges.push(Arc::clone(&gauge));
            }
            let process = first.take();
            let supervisor = Supervisor {
                shared: Arc::clone(shared),
                set: Arc::clone(set),
                gauge,
                queue: runs.clone(),
                stop: stop.clone(),
                begin: begun.clone(),
                leave: left.clone(),
                has_started: process.is_some(),
                process,
                restarts: Restarts::default(),
            };
            let work = move || supervisor.run();
            crew.threads.push(thread::Builder::new().name(format!("scripts-{number}")).spawn(work)?);
        }
        Ok(crew)
    }

    /// Lets it take runs.
    pub(crate) fn begin(&mut self) {
        drop(self.begin.take());
    }

    /// Lets it take no more.
    pub(crate) fn leave(&mut self) {
        drop(self.leave.take());
    }

    pub(crate) fn gauges(&self) -> &[Arc<WorkerGauge>] {
        &self.gauges
    }

    /// Waits until its last run is done.
    pub(crate) fn join(mut self) {
        self.begin();
        self.leave();
        for thread in self.threads {
            // A thread that panicked has nothing more to do.
            let _ = thread.join();
        }
    }
}
