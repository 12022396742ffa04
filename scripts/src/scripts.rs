//! The scripts of a pool as the node knows them: names, routes, breakers and counts. Fixed for the life of the pool.

use std::{sync::atomic::Ordering, time::Instant};

use tidegate_actors::{
    ids::DeviceId,
    limits,
    reading::Channel,
    script::{Route, ScriptError, ScriptHealth, ScriptStatus},
};

use crate::{breaker::Breaker, config::ScriptLimits, matching::Match, stats::ScriptStats};

/// One script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: Box<str>,
    /// What it wants, or why it did not load.
    pub(crate) loaded: Result<Match, ScriptError>,
    pub(crate) breaker: Breaker,
    pub(crate) stats: ScriptStats,
}

/// All scripts, in name order; a script's number is its bit in a route.
#[derive(Debug)]
pub(crate) struct Scripts(Vec<Script>);

impl Scripts {
    pub(crate) fn new(loaded: Vec<(Box<str>, Result<Match, ScriptError>)>, limits: &ScriptLimits) -> Self {
        let script = |(name, loaded)| Script {
            name,
            loaded,
            breaker: Breaker::new(limits.breaker_failures, limits.breaker_open),
            stats: ScriptStats::default(),
        };
        Self(loaded.into_iter().map(script).collect())
    }

    pub(crate) fn get(&self, number: usize) -> Option<&Script> {
        self.0.get(number)
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|script| *script.name == *name)
    }

    /// The scripts of a set of bits, with their numbers.
    pub(crate) fn of(&self, bits: u64) -> impl Iterator<Item = (usize, &Script)> {
        self.0.iter().take(limits::SCRIPTS).enumerate().filter(move |(number, _)| bits >> number & 1 == 1)
    }

    /// The scripts that want a device's readings. Broken ones want none: what they would match is not known.
    pub(crate) fn route(&self, device: &DeviceId, channel: Channel) -> Route {
        let wants = |script: &Script| script.loaded.as_ref().is_ok_and(|matching| matching.wants(device, channel));
        let bits = self.0.iter().take(limits::SCRIPTS).enumerate().filter(|(_, script)| wants(script));
        Route(bits.fold(0, |route, (number, _)| route | 1 << number))
    }

    /// How every script fares.
    pub(crate) fn health(&self, now: Instant) -> Vec<ScriptHealth> {
        let of = |script: &Script| ScriptHealth {
            name: script.name.clone(),
            status: if script.loaded.is_ok() { script.breaker.status(now) } else { ScriptStatus::Broken },
            calls: script.stats.calls.load(Ordering::Relaxed),
            errors: script.stats.errors.load(Ordering::Relaxed),
            parked: script.stats.parked.load(Ordering::Relaxed),
            p50_us: script.stats.percentile_us(0.5),
            p99_us: script.stats.percentile_us(0.99),
            last_error: script.loaded.as_ref().err().cloned().or_else(|| script.stats.last_error()),
        };
        self.0.iter().map(of).collect()
    }
}
