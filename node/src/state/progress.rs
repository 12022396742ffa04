//! How far a command has come, on stderr: a bar on a terminal, else (or with NO_COLOR) a line every few seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Records between two looks at the clock.
const LOOK_EVERY: u64 = 256;

/// The progress of one command.
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    looked: u64,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total`: records that there are, if that is known.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(4);
        let plain = target.is_hidden() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let bar = (!plain).then(|| {
            let bar = ProgressBar::with_draw_target(total, target).with_message(what);
            let template = if total.is_some() {
                "{msg} {bar:24.cyan/blue} {human_pos}/{human_len} {per_sec} eta {eta}"
            } else {
                "{msg} {spinner:.cyan} {human_pos} {per_sec}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        let now = Instant::now();
        Self { what, total, done: 0, looked: 0, started: now, said: now, bar }
    }

    /// So many records more are done.
    pub(super) fn add(&mut self, records: u64) {
        self.done += records;
        if self.done < self.looked + LOOK_EVERY {
            return;
        }
        self.looked = self.done;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if self.said.elapsed() >= LINE_EVERY => {
                self.said = Instant::now();
                eprintln!("{}", self.line());
            }
            None => {}
        }
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        match self.total {
            Some(total) => {
                let eta = total.saturating_sub(self.done) as f64 / rate.max(0.001);
                format!("{}: {} of {total}, {rate:.0}/s, {eta:.0} s left", self.what, self.done)
            }
            None => format!("{}: {}, {rate:.0}/s", self.what, self.done),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
