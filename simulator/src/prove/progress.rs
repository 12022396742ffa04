//! How far the proof has come, on stderr: a bar on a terminal, else (or with NO_COLOR) one line every few seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::ProofReport;

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The bar, or the lines.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    pub(super) fn new(rounds: u32) -> Self {
        let target = ProgressDrawTarget::stderr();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let bar = (!target.is_hidden() && !no_color).then(|| {
            let bar = ProgressBar::with_draw_target(Some(rounds.into()), target);
            let style = ProgressStyle::with_template(
                "{spinner:.cyan} [{elapsed_precise}] {bar:24.cyan/blue} {pos}/{len} {msg}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, told: Instant::now() }
    }

    /// Another round is done.
    pub(super) fn tell(&mut self, report: &ProofReport) {
        let state = format!("{} acked, {} lost, {} problems", report.acked, report.lost, report.problems.len());
        if let Some(bar) = &self.bar {
            bar.set_position(report.rounds.into());
            bar.set_message(state);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            eprintln!("prove-durability: {} of {} rounds, {state}", report.rounds, report.asked);
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
