//! Bridges: subscriptions at other brokers, whose messages become readings here.
//!
//! In the order of the flow: `transport` connects, `packets` speaks MQTT, `life` runs a connection, `flow` knows what is under
//! way, `mapping` makes devices of topics, `landing` is a loop's end, and `status` tells. `url` and `mapping` are read by the
//! configuration. A message is acknowledged to its broker only once the journal has it; who is acknowledged twice sends once.
//!
//! Everything but `landing` lives on one thread of its own: a broker is never waited for on a loop.

mod complaints;
mod flow;
mod landing;
mod life;
mod mapping;
mod packets;
mod status;
mod transport;
mod url;

use std::{
    io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tidegate_actors::{clock::Clock, ids::LoopId, limits, submission::Answer};
use tokio::sync::{mpsc, watch};

use flow::Arrival;
use life::{Life, Phase};
pub(crate) use mapping::{Pattern, Template};
pub(crate) use status::Status;
pub(crate) use url::BrokerUrl;

use crate::{config::Bridge, edge::EdgeLoop};

/// How long a stop waits for the last acknowledgements and the goodbyes.
const GOODBYE: Duration = Duration::from_secs(2);

/// The bridges of the node, as its other parts see them.
pub(crate) struct Bridges {
    bridges: Vec<Ends>,
    phase: watch::Sender<Phase>,
    /// The tasks' parts, until they are started.
    lives: Mutex<Vec<Life>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A bridge's ends outside its task.
struct Ends {
    status: Arc<Status>,
    answers: mpsc::Sender<(u32, Answer)>,
    /// By loop, until the loop has taken its own.
    arrivals: Mutex<Vec<Option<mpsc::Receiver<Arrival>>>>,
}

impl Bridges {
    /// Makes everything ready; nothing connects yet.
    pub(crate) fn new(bridges: &[Bridge], loops: usize, clock: &Arc<dyn Clock>) -> Self {
        let (phase, phases) = watch::channel(Phase::Run);
        let mut ends = Vec::new();
        let mut lives = Vec::new();
        for bridge in bridges {
            // `needed` in the configuration.
            let Some(url) = bridge.url.clone() else { continue };
            // What may be under way, with one message more of as many readings as there may be.
            let most = usize::from(bridge.in_flight) + limits::READINGS_PER_REQUEST;
            let status = Arc::new(Status::new(bridge, clock.now()));
            let (answers, answered) = mpsc::channel(most);
            let (to_loops, arrivals): (Vec<_>, Vec<_>) = (0..loops).map(|_| mpsc::channel(most)).unzip();
            ends.push(Ends {
                status: Arc::clone(&status),
                answers,
                arrivals: Mutex::new(arrivals.into_iter().map(Some).collect()),
            });
            lives.push(Life {
                bridge: Arc::new(bridge.clone()),
                url,
                status,
                clock: Arc::clone(clock),
                loops: to_loops,
                answers: answered,
                phase: phases.clone(),
            });
        }
        Self { bridges: ends, phase, lives: Mutex::new(lives), thread: Mutex::new(None) }
    }

    /// Starts the bridges' thread, if there are any bridges.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub(crate) fn start(&self) -> io::Result<()> {
        let lives = std::mem::take(&mut *lock(&self.lives));
        if lives.is_empty() {
            return Ok(());
        }
        // Looking names up is what blocks.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let run = move || runtime.block_on(run_all(lives));
        let thread = std::thread::Builder::new().name("bridges".to_owned()).spawn(run)?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// Starts this loop's ends.
    pub(crate) fn land_on(&self, edge: &Rc<EdgeLoop>) {
        let id: LoopId = edge.handle.id();
        for (index, ends) in self.bridges.iter().enumerate() {
            let arrivals = lock(&ends.arrivals).get_mut(id.index()).and_then(Option::take);
            if let Some(arrivals) = arrivals {
                actix_rt::spawn(landing::land(Rc::clone(edge), index, arrivals));
            }
        }
    }

    /// The runtime's answer to a reading of a bridge.
    pub(crate) fn answer(&self, bridge: usize, token: u32, answer: Answer) {
        if let Some(ends) = self.bridges.get(bridge) {
            // There is room for all that may be under way; a bridge that has ended wants no answer.
            let _ = ends.answers.try_send((token, answer));
        }
    }

    /// Takes nothing in any more.
    pub(crate) fn close(&self) {
        self.phase.send_replace(Phase::Drain);
    }

    /// Acknowledges what was answered, says goodbye, and ends the thread.
    pub(crate) async fn stop(&self) {
        self.phase.send_replace(Phase::Stop);
        let Some(thread) = lock(&self.thread).take() else { return };
        let deadline = Instant::now() + GOODBYE;
        while !thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !thread.is_finished() {
            tracing::warn!("a broker does not take the bridge's goodbye; it will find that the node is gone");
        }
    }

    /// What the bridges tell of themselves, in the order of the configuration.
    pub(crate) fn status(&self) -> impl Iterator<Item = &Status> {
        self.bridges.iter().map(|ends| &*ends.status)
    }
}

/// Runs every bridge until the node stops. One that panics is told and started no more; the others go on.
async fn run_all(lives: Vec<Life>) {
    let mut tasks = tokio::task::JoinSet::new();
    for life in lives {
        tasks.spawn(life.run());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a bridge has ended by a defect: please report it; the others go on");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
