//! The load beside an export, on a thread of its own, a second at a time on the same connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;

use crate::scenario::mqtt::{MqttLoad, Swarm};

/// The acknowledgements of one second.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) latency_us: Histogram<u64>,
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Window>>>,
}

impl Load {
    /// Connects to `address` and sends at the load's pace, `per_second`.
    pub(crate) fn start(address: SocketAddr, load: MqttLoad, per_second: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut swarm = Swarm::connect(address, load)?;
            let mut windows = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let from = Instant::now();
                let run = swarm.run(u64::from(per_second))?;
                let latency_us = run.latency_us.context("a load without acknowledgements")?;
                windows.push(Window { from, to: Instant::now(), latency_us });
            }
            Ok(windows)
        });
        Self { over, thread }
    }

    /// Lets the last second end, and gives them all.
    ///
    /// # Errors
    /// Whatever ended the load before.
    pub(crate) fn stop(self) -> Result<Vec<Window>> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load panicked"))?.context("the load beside the export")
    }
}
