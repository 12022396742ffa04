//! What happens to devices and is no report of theirs: connections, answers to commands, timers of handlers. Handlers that want to know
//! get it as a reading on a channel of its own, with everything that a reading has: the journal, the device's order, the ledger.
//! What no handler wants is not made at all.

use std::time::Duration;

use bytes::Bytes;

use super::EventLoop;
use crate::{
    clock::Uptime,
    ids::DeviceId,
    placement,
    reading::{AckLevel, Channel, Reading},
    script::ScriptTimer,
    submission::Submission,
};

/// The timers of handlers whose devices are this loop's.
#[derive(Default)]
pub(super) struct Timers {
    /// The generation of the engine that they are of; 0, which none has: they were never asked for.
    generation: u64,
    running: Vec<Running>,
}

struct Running {
    timer: ScriptTimer,
    due: Uptime,
}

impl Timers {
    /// Takes over what a new generation wants. A timer that is as it was goes on.
    fn refresh(&mut self, generation: u64, wanted: impl Iterator<Item = ScriptTimer>, now: Uptime) {
        self.generation = generation;
        let mut former = std::mem::take(&mut self.running);
        self.running = wanted
            .map(|timer| match former.iter().position(|known| known.timer == timer) {
                Some(at) => former.swap_remove(at),
                None => Running { due: now.plus(timer.every), timer },
            })
            .collect();
    }

    /// Those that are due. One that is late by more than its time comes once, not once for each time that it missed.
    fn due(&mut self, now: Uptime) -> Vec<ScriptTimer> {
        let mut due = Vec::new();
        for Running { timer, due: at } in &mut self.running {
            if *at <= now {
                let next = at.plus(timer.every);
                *at = if next > now { next } else { now.plus(timer.every) };
                due.push(timer.clone());
            }
        }
        due
    }
}

impl EventLoop {
    /// Something happened to a device of this loop: tells the handlers that want to know. `content`: a JSON object.
    pub(crate) fn happened(&mut self, device: &DeviceId, channel: Channel, content: impl FnOnce() -> Bytes) {
        // A node that stops makes nothing new: that its connections go is not the devices' doing.
        if self.turn.gate_closed || self.turn.scripts.route(device, channel).is_empty() {
            return;
        }
        let reading = Reading::new(device.clone(), channel, None, self.services.clock.now(), content());
        self.take_handed_over();
        self.arrive(Submission { reading, level: AckLevel::Received, ack: None });
        // It may happen outside of a turn.
        self.turn.wake();
    }

    /// Rings the timers that are due.
    pub(super) fn ring_timers(&mut self, now: Uptime) {
        let generation = self.turn.scripts.generation();
        if generation != self.timers.generation {
            let (me, loops) = (self.turn.id, self.services.loops());
            let wanted = self.turn.scripts.timers().into_iter();
            let own = wanted.filter(|timer| placement::owner(timer.device.as_str(), loops) == me);
            self.timers.refresh(generation, own, now);
        }
        for timer in self.timers.due(now) {
            let content = serde_json::json!({
                "script": timer.script, "timer": timer.name, "everyMs": millis(timer.every),
            });
            self.happened(&timer.device, Channel::Timer, || content.to_string().into());
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(name: &str, seconds: u64) -> ScriptTimer {
        ScriptTimer {
            script: "10-a.js".into(),
            name: name.into(),
            device: DeviceId::new("d").expect("an id"),
            every: Duration::from_secs(seconds),
        }
    }

    fn names(due: &[ScriptTimer]) -> Vec<&str> {
        due.iter().map(|timer| &*timer.name).collect()
    }

    #[test]
    fn timers_come_each_in_its_time_and_a_late_one_once() {
        let at = |seconds: u64| Uptime::default().plus(Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.refresh(1, [timer("fast", 2), timer("slow", 5)].into_iter(), at(0));
        assert!(timers.due(at(1)).is_empty());
        assert_eq!(names(&timers.due(at(2))), ["fast"]);
        assert_eq!(names(&timers.due(at(5))), ["fast", "slow"]);
        assert_eq!(names(&timers.due(at(60))), ["fast", "slow"]);
        assert!(timers.due(at(61)).is_empty());
        assert_eq!(names(&timers.due(at(62))), ["fast"]);
    }

    #[test]
    fn a_reload_keeps_the_time_of_a_timer_that_did_not_change() {
        let at = |seconds: u64| Uptime::default().plus(Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.refresh(1, [timer("same", 5), timer("gone", 5), timer("changed", 5)].into_iter(), at(0));
        timers.refresh(2, [timer("same", 5), timer("changed", 6), timer("new", 5)].into_iter(), at(3));
        assert_eq!(names(&timers.due(at(5))), ["same"]);
        assert_eq!(names(&timers.due(at(8))), ["new"]);
        assert_eq!(names(&timers.due(at(9))), ["changed"]);
    }
}
