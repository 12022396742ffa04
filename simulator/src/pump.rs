//! A pump whose bearing wears: vibration and bearing temperature drift from good to a fault, the pump trips, is
//! repaired and starts again. Pure: time and dice are handed in.

use serde::Serialize;
use tidegate_actors::clock::Millis;

use crate::{
    device::minutes_between,
    dice::{Dice, round},
};

/// Vibration at which a pump of this class should be looked at, mm/s RMS (ISO 10816-3, zone C).
const WARN_MM_S: f64 = 4.5;
/// Vibration at which it is switched off, mm/s RMS (ISO 10816-3, zone D).
const TRIP_MM_S: f64 = 7.1;
/// Time from the trip to the restart, minutes.
const REPAIR_MINUTES: f64 = 2.0;

/// How a pump does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PumpStatus {
    /// It runs well.
    Running,
    /// It runs, but vibrates more than it should.
    Warning,
    /// It was switched off by its own vibration.
    Fault,
}

/// What a pump reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PumpReading {
    /// Shaft speed, 1/min; 0 in a fault.
    pub rpm: f64,
    /// Flow, m³/h.
    pub flow: f64,
    /// Pressure at the outlet, bar.
    pub pressure: f64,
    /// Vibration, mm/s RMS.
    pub vibration: f64,
    /// Temperature of the bearing, °C.
    pub bearing_temperature: f64,
    /// How it does.
    pub status: PumpStatus,
}

/// The pump and its bearing.
#[derive(Debug, Clone)]
pub(crate) struct Pump {
    nominal_rpm: f64,
    nominal_flow: f64,
    nominal_pressure: f64,
    smooth_mm_s: f64,
    /// 0 is new, 1 trips.
    wear: f64,
    /// Running minutes from new to the trip.
    life_minutes: f64,
    bearing: f64,
    repair_left: f64,
}

impl Pump {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        Self {
            nominal_rpm: if dice.chance(0.5) { 1_450.0 } else { 2_900.0 },
            nominal_flow: dice.range(12.0, 60.0),
            nominal_pressure: dice.range(2.5, 8.0),
            smooth_mm_s: dice.range(0.8, 1.8),
            wear: dice.range(0.0, 0.8),
            life_minutes: dice.range(20.0, 600.0),
            bearing: dice.range(38.0, 48.0),
            repair_left: 0.0,
        }
    }

    pub(crate) fn next(&mut self, before: Option<Millis>, now: Millis, dice: &mut Dice) -> PumpReading {
        let minutes = minutes_between(before, now);
        self.repair_left -= minutes;
        let stopped = self.repair_left > 0.0;
        let vibration = if stopped {
            0.05 + dice.noise(0.03)
        } else {
            self.wear = (self.wear + minutes.min(10.0) / self.life_minutes).min(1.05);
            // Slow at first and steep at the end, as bearings go.
            self.smooth_mm_s + (TRIP_MM_S - self.smooth_mm_s) * self.wear.powi(3) + dice.noise(0.12)
        };
        let status = match vibration {
            _ if stopped => PumpStatus::Fault,
            v if v >= TRIP_MM_S => {
                self.repair_left = REPAIR_MINUTES;
                self.wear = 0.0;
                PumpStatus::Fault
            }
            v if v >= WARN_MM_S => PumpStatus::Warning,
            _ => PumpStatus::Running,
        };
        let speed = if status == PumpStatus::Fault { 0.0 } else { 1.0 + dice.noise(0.006) };
        let target = if speed > 0.0 { 38.0 + 4.5 * vibration } else { 24.0 };
        self.bearing += (target - self.bearing) * (minutes * 0.08).min(1.0) + dice.noise(0.1);
        self.bearing = self.bearing.clamp(15.0, 95.0);

        PumpReading {
            rpm: round(self.nominal_rpm * speed, 0),
            flow: round(self.nominal_flow * speed, 2),
            pressure: round(self.nominal_pressure * speed * speed, 2),
            vibration: round(vibration, 2),
            bearing_temperature: round(self.bearing, 1),
            status,
        }
    }
}
