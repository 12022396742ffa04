//! A room thermostat: a room that loses heat to a day and a night outside, and a heating that switches on and off.
//! Pure: time and dice are handed in.

use serde::Serialize;
use tidegate_actors::clock::Millis;

use crate::{
    device::{hour_of_day, minutes_between},
    dice::{Dice, round},
};

/// What a thermostat reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ThermostatReading {
    /// Room temperature, °C.
    pub temperature: f64,
    /// Wanted temperature, °C: lower by night.
    pub setpoint: f64,
    /// Relative humidity, %.
    pub humidity: f64,
    /// Whether the heating is on.
    pub heating: bool,
    /// Battery, %.
    pub battery: f64,
}

/// The room and its thermostat.
#[derive(Debug, Clone)]
pub(crate) struct Thermostat {
    temperature: f64,
    comfort: f64,
    outside_mean: f64,
    humidity: f64,
    heating: bool,
    battery: f64,
    battery_per_day: f64,
}

impl Thermostat {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        Self {
            temperature: dice.range(18.5, 22.5),
            comfort: round(dice.range(20.0, 22.5) * 2.0, 0) / 2.0,
            outside_mean: dice.range(4.0, 12.0),
            humidity: dice.range(38.0, 55.0),
            heating: false,
            battery: dice.range(35.0, 100.0),
            battery_per_day: dice.range(0.1, 0.4),
        }
    }

    pub(crate) fn next(&mut self, before: Option<Millis>, now: Millis, dice: &mut Dice) -> ThermostatReading {
        let minutes = minutes_between(before, now);
        let hour = hour_of_day(now);
        let setpoint = if (6.0..22.0).contains(&hour) { self.comfort } else { self.comfort - 3.5 };
        // Warmest at three in the afternoon.
        let outside = self.outside_mean + 5.0 * (std::f64::consts::TAU * (hour - 9.0) / 24.0).sin();

        // The switch has a dead band, as a real one: it does not flutter at the setpoint.
        if self.temperature < setpoint - 0.4 {
            self.heating = true;
        } else if self.temperature > setpoint + 0.4 {
            self.heating = false;
        }
        let step = minutes.min(15.0);
        let heat = if self.heating { 0.12 } else { 0.0 };
        self.temperature += step * (heat - 0.004 * (self.temperature - outside)) + dice.noise(0.02);
        self.temperature = self.temperature.clamp(10.0, 28.0);
        self.humidity += (46.0 - 0.8 * (self.temperature - 20.0) - self.humidity) * (step * 0.01) + dice.noise(0.15);
        self.humidity = self.humidity.clamp(20.0, 80.0);
        self.battery -= minutes / 1440.0 * self.battery_per_day;
        if self.battery < 5.0 {
            // Somebody came and changed it.
            self.battery = 100.0;
        }

        ThermostatReading {
            temperature: round(self.temperature + dice.noise(0.05), 2),
            setpoint,
            humidity: round(self.humidity, 1),
            heating: self.heating,
            battery: round(self.battery, 1),
        }
    }
}
