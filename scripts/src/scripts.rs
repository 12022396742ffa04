//! The scripts of one set as the node knows them: names, routes, breakers, switches and counts. Which scripts there are is fixed
//! for the life of the set.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tidegate_actors::{
    ids::DeviceId,
    limits,
    reading::Channel,
    script::{OpenPolicy, Route, ScriptError, ScriptHealth, ScriptStatus, ScriptTimer},
};

use crate::{
    breaker::Breaker,
    config::ScriptLimits,
    load::LoadedScript,
    stats::{Counts, ScriptStats},
    wants::Wants,
};

/// One script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: Box<str>,
    /// What it wants, or why it did not load.
    pub(crate) loaded: Result<Wants, ScriptError>,
    pub(crate) breaker: Breaker,
    pub(crate) stats: ScriptStats,
    enabled: AtomicBool,
}

impl Script {
    /// Has no operator switched it off?
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }
}

/// All scripts, in name order; a script's number is its bit in a route.
#[derive(Debug)]
pub(crate) struct Scripts {
    list: Vec<Script>,
    /// What becomes of the readings of one whose breaker is open.
    pub(crate) policy: OpenPolicy,
    /// The bits of those with a high priority.
    urgent: u64,
}

impl Scripts {
    /// `counts`: what was counted of a script of that name so far.
    pub(crate) fn new(
        loaded: Vec<LoadedScript>,
        limits: &ScriptLimits,
        counts: impl Fn(&str) -> Option<Arc<Counts>>,
    ) -> Self {
        let script = |(name, loaded): LoadedScript| Script {
            stats: ScriptStats::of(counts(&name).unwrap_or_default()),
            name,
            loaded,
            breaker: Breaker::new(limits.breaker_failures, limits.breaker_open, limits.max_restarts),
            enabled: AtomicBool::new(true),
        };
        let list: Vec<_> = loaded.into_iter().map(script).collect();
        let is_urgent = |script: &Script| script.loaded.as_ref().is_ok_and(|wants| wants.is_urgent);
        let urgent = bits(&list, is_urgent);
        Self { list, policy: limits.breaker_policy, urgent }
    }

    /// The same scripts with breakers and counts of their own.
    pub(crate) fn twin(&self, limits: &ScriptLimits) -> Self {
        let loaded = self.list.iter().map(|script| (script.name.clone(), script.loaded.clone())).collect();
        let twin = Self::new(loaded, limits, |_| None);
        for (twin, script) in twin.list.iter().zip(&self.list) {
            twin.enable(script.is_enabled());
        }
        twin
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Script> {
        self.list.get(number)
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|script| *script.name == *name)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Script> {
        self.list.iter().find(|script| *script.name == *name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Script> {
        self.list.iter()
    }

    /// The scripts of a set of bits, with their numbers.
    pub(crate) fn of(&self, bits: u64) -> impl Iterator<Item = (usize, &Script)> {
        self.list.iter().take(limits::SCRIPTS).enumerate().filter(move |(number, _)| bits >> number & 1 == 1)
    }

    /// The scripts that want a device's readings. Broken ones want none: what they would match is not known.
    pub(crate) fn route(&self, device: &DeviceId, channel: Channel) -> Route {
        Route(bits(&self.list, |script| script.loaded.as_ref().is_ok_and(|wants| wants.wants(device, channel))))
    }

    /// The timers of those that run.
    pub(crate) fn timers(&self) -> Vec<ScriptTimer> {
        let running = self.list.iter().filter_map(|script| script.loaded.as_ref().ok());
        running.flat_map(Wants::timers).cloned().collect()
    }

    /// Does one of these scripts want its readings before those of others?
    pub(crate) fn is_urgent(&self, route: u64) -> bool {
        self.urgent & route != 0
    }

    /// Is a reading with this route to be refused at the door?
    pub(crate) fn refuses(&self, route: Route, now: Instant) -> bool {
        self.of(route.0).any(|(_, script)| script.is_enabled() && script.breaker.refuses(now))
    }

    /// How every script fares.
    pub(crate) fn health(&self, generation: u64, now: Instant) -> Vec<ScriptHealth> {
        let of = |script: &Script| {
            let counts = &script.stats.counts;
            let (last_error, last_input) = script.stats.last_failure().unzip();
            ScriptHealth {
                name: script.name.clone(),
                status: if script.loaded.is_ok() { script.breaker.status(now) } else { ScriptStatus::Broken },
                calls: counts.calls.load(Ordering::Relaxed),
                errors: counts.errors.load(Ordering::Relaxed),
                parked: counts.parked.load(Ordering::Relaxed),
                p50_us: script.stats.percentile_us(0.5),
                p99_us: script.stats.percentile_us(0.99),
                busy_seconds: script.stats.busy_seconds(),
                last_error: script.loaded.as_ref().err().cloned().or(last_error),
                last_input,
                generation,
                enabled: script.is_enabled(),
                policy: self.policy,
                cpu_share: script.stats.cpu_share(now),
            }
        };
        self.list.iter().map(of).collect()
    }
}

/// The bits of the scripts of which something holds.
fn bits(list: &[Script], holds: impl Fn(&Script) -> bool) -> u64 {
    let numbers = list.iter().take(limits::SCRIPTS).enumerate().filter(|(_, script)| holds(script));
    numbers.fold(0, |bits, (number, _)| bits | 1 << number)
}
