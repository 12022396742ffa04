//! An electricity meter: a household's load by the hour of the day, a mains that wanders a little, and a counter
//! that only ever grows. Pure: time and dice are handed in.

use serde::Serialize;
use tidegate_actors::clock::Millis;

use crate::{
    device::{hour_of_day, minutes_between},
    dice::{Dice, round},
};

/// What a meter reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeterReading {
    /// Active power, W.
    pub power: f64,
    /// Energy since the meter was installed, kWh; never falls.
    pub energy: f64,
    /// Mains voltage, V.
    pub voltage: f64,
    /// Current, A: power over voltage.
    pub current: f64,
    /// Mains frequency, Hz.
    pub frequency: f64,
}

/// Share of a household's peak load at each full hour: quiet at night, a peak in the morning, a higher one at supper.
const LOAD_BY_HOUR: [f64; 24] = [
    0.18, 0.15, 0.14, 0.13, 0.14, 0.18, 0.35, 0.60, 0.65, 0.50, 0.42, 0.45, 0.58, 0.52, 0.42, 0.40, 0.48, 0.68, 0.92,
    1.00, 0.90, 0.70, 0.45, 0.27,
];

/// The meter and the household behind it.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    peak_watts: f64,
    energy_kwh: f64,
    voltage: f64,
    frequency: f64,
    /// A big appliance that is on now, in W, and for how many more minutes.
    appliance: (f64, f64),
}

impl Meter {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        Self {
            peak_watts: dice.range(900.0, 4_000.0),
            energy_kwh: dice.range(800.0, 42_000.0),
            voltage: dice.range(227.0, 233.0),
            frequency: 50.0,
            appliance: (0.0, 0.0),
        }
    }

    pub(crate) fn next(&mut self, before: Option<Millis>, now: Millis, dice: &mut Dice) -> MeterReading {
        let minutes = minutes_between(before, now);
        self.appliance.1 -= minutes;
        if self.appliance.1 <= 0.0 {
            self.appliance =
                if dice.chance(0.02) { (dice.range(800.0, 2_200.0), dice.range(2.0, 40.0)) } else { (0.0, 0.0) };
        }
        let household = self.peak_watts * load_at(hour_of_day(now)) * (1.0 + dice.noise(0.08));
        let power = (household + self.appliance.0).max(0.0);
        self.energy_kwh += power * minutes.min(60.0) / 60_000.0;
        self.voltage = (self.voltage + (230.0 - self.voltage) * 0.05 + dice.noise(0.6)).clamp(216.0, 244.0);
        self.frequency = (self.frequency + (50.0 - self.frequency) * 0.1 + dice.noise(0.008)).clamp(49.8, 50.2);

        let (power, voltage) = (round(power, 1), round(self.voltage, 1));
        MeterReading {
            power,
            energy: round(self.energy_kwh, 3),
            voltage,
            current: round(power / voltage, 3),
            frequency: round(self.frequency, 3),
        }
    }
}

/// The load's share of its peak, drawn straight between two full hours.
fn load_at(hour: f64) -> f64 {
    let from = (hour as usize) % 24;
    let to = (from + 1) % 24;
    LOAD_BY_HOUR[from] + (LOAD_BY_HOUR[to] - LOAD_BY_HOUR[from]) * hour.fract()
}
