//! What scripts print: log lines of the node, with a cap on their rate for each script.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{
    frame::{LogLevel, LogLine},
    scripts::Scripts,
};

/// Lines that a script may print a second, and at once.
const LINES_A_SECOND: f64 = 50.0;
const BURST: f64 = 200.0;

/// The caps of all scripts.
#[derive(Debug)]
pub(crate) struct Logs(Vec<Mutex<Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    left_out: u64,
}

impl Logs {
    pub(crate) fn new(scripts: usize) -> Self {
        let bucket = || Mutex::new(Bucket { tokens: BURST, filled: Instant::now(), left_out: 0 });
        Self(std::iter::repeat_with(bucket).take(scripts).collect())
    }

    /// Logs some lines, as far as their scripts' caps allow.
    pub(crate) fn log(&self, lines: Vec<LogLine>, scripts: &Scripts, now: Instant) {
        for LogLine { level, script, device, text } in lines {
            let (Some(bucket), Some(of)) = (self.0.get(usize::from(script)), scripts.get(script.into())) else {
                continue;
            };
            let script = &*of.name;
            let allowed = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now);
            let Some(left_out) = allowed else { continue };
            if left_out > 0 {
                tracing::warn!(target: "tidegate::script", script, left_out, "the script printed too much");
            }
            match level {
                LogLevel::Debug => tracing::debug!(target: "tidegate::script", script, device, "{text}"),
                LogLevel::Info => tracing::info!(target: "tidegate::script", script, device, "{text}"),
                LogLevel::Warn => tracing::warn!(target: "tidegate::script", script, device, "{text}"),
                LogLevel::Error => tracing::error!(target: "tidegate::script", script, device, "{text}"),
            }
        }
    }
}

impl Bucket {
    /// May one more line be printed? Then: how many were left out since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * LINES_A_SECOND).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_script_that_prints_too_much_is_cut_off_and_told_so() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: BURST, filled: start, left_out: 0 };
        let printed = (0..1_000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(printed, 200);
        assert_eq!(bucket.take(start + Duration::from_secs(1)), Some(800));
    }
}
