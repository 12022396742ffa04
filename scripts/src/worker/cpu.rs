//! The worker's clocks of CPU time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidegate_actors::limits;

/// The CPU time of calls, without asking the kernel at each: only after one that was long on the wall.
pub(super) struct CpuClock {
    sampled: Instant,
    cpu: Duration,
}

impl CpuClock {
    /// Calls shorter than this, on the wall, cannot be over their CPU limit.
    const SHORT: Duration = limits::SCRIPT_CALL_CPU;

    pub(super) fn new() -> Self {
        Self { sampled: Instant::now(), cpu: thread_cpu() }
    }

    /// A lower bound of a call's CPU time: all since the last sample, less the wall time before the call began.
    pub(super) fn of_call(&mut self, started: Instant, took: Duration) -> Duration {
        if took < Self::SHORT {
            return Duration::ZERO;
        }
        let cpu = thread_cpu();
        let before = started.saturating_duration_since(self.sampled);
        let spent = (cpu - self.cpu).saturating_sub(before).min(took);
        (self.sampled, self.cpu) = (Instant::now(), cpu);
        spent
    }
}

fn thread_cpu() -> Duration {
    since_zero(ClockId::ThreadCPUTime)
}

/// CPU time of this process so far, microseconds.
pub(super) fn process_cpu_us() -> u64 {
    u64::try_from(since_zero(ClockId::ProcessCPUTime).as_micros()).unwrap_or(u64::MAX)
}

fn since_zero(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
