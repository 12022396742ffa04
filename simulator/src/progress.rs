//! Shows how the swarm does, on stderr: a bar on a terminal, else (or with NO_COLOR) one line every few seconds.

use std::{convert::Infallible, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::shared::Shared;

/// Time between two pictures of the bar, and between two lines.
const BAR_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress until it is dropped; to be raced against the run.
pub(crate) async fn show(shared: Arc<Shared>) -> Infallible {
    if !shared.config.progress {
        return std::future::pending().await;
    }
    let target = ProgressDrawTarget::stderr();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if target.is_hidden() || no_color {
        return lines(&shared).await;
    }
    bar(&shared, target).await
}

async fn lines(shared: &Shared) -> Infallible {
    let mut ticks = time::interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
    let mut rate = Rate::new();
    loop {
        ticks.tick().await;
        eprintln!("swarm: {}", picture(shared, &mut rate));
    }
}

async fn bar(shared: &Shared, target: ProgressDrawTarget) -> Infallible {
    let bar = Finish(ProgressBar::with_draw_target(shared.config.duration.map(|time| time.as_secs().max(1)), target));
    let template = if shared.config.duration.is_some() {
        "{spinner:.cyan} [{elapsed_precise}] {bar:24.cyan/blue} {msg}"
    } else {
        "{spinner:.cyan} [{elapsed_precise}] {msg}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.0.set_style(style);
    }
    let mut ticks = time::interval(BAR_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut rate = Rate::new();
    loop {
        ticks.tick().await;
        if let Some(start) = *shared.start.borrow() {
            bar.0.set_position(start.at.elapsed().as_secs());
        }
        bar.0.set_message(picture(shared, &mut rate));
    }
}

fn picture(shared: &Shared, rate: &mut Rate) -> String {
    let stats = &shared.stats;
    let sent = stats.sent.get();
    let p99_ms = stats.ack.percentiles().p99_us as f64 / 1_000.0;
    format!(
        "{}/{} connected, {sent} sent, {} acked, {:.0}/s, p99 {p99_ms:.1} ms",
        stats.connected.get(),
        match shared.config.protocol {
            crate::config::Protocol::Mqtt => shared.config.devices,
            crate::config::Protocol::Http => shared.config.devices.min(u64::from(shared.config.connections)),
        },
        stats.acked.get(),
        rate.of(sent),
    )
}

/// The rate over the last second or so.
struct Rate {
    since: Instant,
    counted: u64,
    shown: f64,
}

impl Rate {
    fn new() -> Self {
        Self { since: Instant::now(), counted: 0, shown: 0.0 }
    }

    fn of(&mut self, count: u64) -> f64 {
        let passed = self.since.elapsed();
        if passed >= Duration::from_secs(1) {
            self.shown = count.saturating_sub(self.counted) as f64 / passed.as_secs_f64();
            (self.since, self.counted) = (Instant::now(), count);
        }
        self.shown
    }
}

/// Takes the bar off the terminal when the run ends, however it ends.
struct Finish(ProgressBar);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
