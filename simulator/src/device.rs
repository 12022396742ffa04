//! One simulated device: its id, its model and its sequence. A pure state machine: the same seed and the same times give
//! the same bytes. It must not read a clock, nor know how its readings travel.

use bytes::Bytes;
use serde::Serialize;
use tidegate_actors::clock::Millis;

use crate::{
    dice::{Dice, Stream},
    meter::{Meter, MeterReading},
    pump::{Pump, PumpReading},
    thermostat::{Thermostat, ThermostatReading},
};

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A room thermostat.
    Thermostat,
    /// An electricity meter.
    Meter,
    /// A pump with a bearing that wears.
    Pump,
}

impl Kind {
    /// Every kind, in the order in which a swarm deals them out.
    pub const ALL: [Self; 3] = [Self::Thermostat, Self::Meter, Self::Pump];

    /// The kind's name, as device ids begin with it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Thermostat => "thermostat",
            Self::Meter => "meter",
            Self::Pump => "pump",
        }
    }

    /// The kind of a swarm's device by its index.
    #[must_use]
    pub fn of_index(index: u64) -> Self {
        Self::ALL[(index % 3) as usize]
    }
}

/// The fields of one reading, by kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fields {
    /// Of a thermostat.
    Thermostat(ThermostatReading),
    /// Of a meter.
    Meter(MeterReading),
    /// Of a pump.
    Pump(PumpReading),
}

/// One reading as it goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// 1 for the device's first reading, growing by one.
    pub seq: u64,
    /// The device's time.
    pub ts: Millis,
    /// What was measured.
    pub fields: Fields,
    /// One flat JSON object: `deviceId` (HTTP only), `ts`, `seq` and the fields.
    pub payload: Bytes,
}

/// A simulated device.
#[derive(Debug, Clone)]
pub struct Device {
    id: String,
    dice: Dice,
    model: Model,
    names_itself: bool,
    seq: u64,
    before: Option<Millis>,
}

#[derive(Debug, Clone)]
enum Model {
    Thermostat(Thermostat),
    Meter(Meter),
    Pump(Pump),
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "deviceId", skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    ts: Millis,
    seq: u64,
    #[serde(flatten)]
    fields: &'a Fields,
}

impl Device {
    /// The device with this index of the swarm with this seed. `names_itself` puts `deviceId` into the payload.
    #[must_use]
    pub fn new(seed: u64, index: u64, prefix: &str, names_itself: bool) -> Self {
        let mut dice = Dice::of(seed, index, Stream::Model);
        let model = match Kind::of_index(index) {
            Kind::Thermostat => Model::Thermostat(Thermostat::new(&mut dice)),
            Kind::Meter => Model::Meter(Meter::new(&mut dice)),
            Kind::Pump => Model::Pump(Pump::new(&mut dice)),
        };
        Self { id: device_id(prefix, index), dice, model, names_itself, seq: 0, before: None }
    }

    /// The device's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The device's next reading, taken at `t`. Times must not run backwards.
    pub fn next(&mut self, t: Millis) -> Reading {
        let (before, dice) = (self.before, &mut self.dice);
        let fields = match &mut self.model {
            Model::Thermostat(model) => Fields::Thermostat(model.next(before, t, dice)),
            Model::Meter(model) => Fields::Meter(model.next(before, t, dice)),
            Model::Pump(model) => Fields::Pump(model.next(before, t, dice)),
        };
        self.before = Some(t);
        self.seq += 1;
        let device_id = self.names_itself.then_some(self.id.as_str());
        let payload = serde_json::to_vec(&Payload { device_id, ts: t, seq: self.seq, fields: &fields })
            .expect("plain structs of numbers and texts always serialize");
        Reading { seq: self.seq, ts: t, fields, payload: payload.into() }
    }
}

/// The id of the swarm's device with this index, such as `thermostat-00017`: numbered from 1 within its kind.
#[must_use]
pub fn device_id(prefix: &str, index: u64) -> String {
    format!("{prefix}{}-{:05}", Kind::of_index(index).name(), index / 3 + 1)
}

/// The hour of the day (UTC) with its fraction, `0.0..24.0`.
pub(crate) fn hour_of_day(t: Millis) -> f64 {
    t.rem_euclid(86_400_000) as f64 / 3_600_000.0
}

/// Minutes since the reading before; 0 for the first one.
pub(crate) fn minutes_between(before: Option<Millis>, now: Millis) -> f64 {
    before.map_or(0.0, |before| now.saturating_sub(before).max(0) as f64 / 60_000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pump::PumpStatus;

    const NOON: Millis = 1_767_268_800_000;

    #[test]
    fn the_same_seed_and_times_give_the_same_bytes() {
        let run = |seed| -> Vec<Bytes> {
            (0..9)
                .flat_map(|index| {
                    let mut device = Device::new(seed, index, "", true);
                    (0..50).map(move |n| device.next(NOON + n * 10_000).payload).collect::<Vec<_>>()
                })
                .collect()
        };
        assert_eq!(run(42), run(42));
        assert_ne!(run(42), run(43));
    }

    #[test]
    fn a_known_seed_gives_known_bytes_for_ever() {
        let payloads: Vec<String> = (0..3)
            .map(|index| {
                let payload = Device::new(1, index, "", false).next(NOON).payload;
                String::from_utf8(payload.to_vec()).expect("JSON is UTF-8")
            })
            .collect();
        assert_eq!(payloads, include_str!("../tests/fixtures/seed-1.ndjson").lines().collect::<Vec<_>>());
    }

    #[test]
    fn ids_name_kind_and_number() {
        let check = |index, expected: &str| assert_eq!(device_id("", index), expected);
        check(0, "thermostat-00001");
        check(1, "meter-00001");
        check(2, "pump-00001");
        check(48, "thermostat-00017");
        assert_eq!(device_id("site a.", 3_000_000), "site a.thermostat-1000001");
    }

    #[test]
    fn a_worn_pump_warns_trips_and_runs_again() {
        let mut pump = Device::new(5, 2, "", false);
        let mut seen = Vec::new();
        for minute in 0..3_000 {
            let Fields::Pump(reading) = pump.next(NOON + minute * 60_000).fields else { panic!("index 2 is a pump") };
            if seen.last() != Some(&reading.status) {
                seen.push(reading.status);
            }
        }
        let first_fault = seen.iter().position(|status| *status == PumpStatus::Fault).expect("a fault within two days");
        assert!(seen[..first_fault].contains(&PumpStatus::Warning), "{seen:?}");
        assert!(seen[first_fault..].contains(&PumpStatus::Running), "{seen:?}");
    }

    proptest! {
        #[test]
        fn readings_are_plausible(seed: u64, index in 0_u64..3_000, start in 0_i64..4_000_000_000_000, step in 1_i64..7_200_000) {
            let mut device = Device::new(seed, index, "p-", true);
            let mut energy = 0.0;
            for n in 0..200_u64 {
                let ts = start + n as i64 * step;
                let reading = device.next(ts);
                let json: serde_json::Value = serde_json::from_slice(&reading.payload).expect("valid JSON");
                prop_assert_eq!(&json["seq"], n + 1);
                prop_assert_eq!(&json["ts"], ts);
                prop_assert_eq!(&json["deviceId"], device.id());
                match reading.fields {
                    Fields::Thermostat(t) => {
                        prop_assert!((9.9..28.1).contains(&t.temperature), "{:?}", t);
                        prop_assert!((15.0..=23.0).contains(&t.setpoint));
                        prop_assert!((20.0..=80.0).contains(&t.humidity));
                        prop_assert!((4.9..=100.0).contains(&t.battery));
                    }
                    Fields::Meter(m) => {
                        prop_assert!((0.0..8_000.0).contains(&m.power), "{:?}", m);
                        prop_assert!(m.energy >= energy);
                        energy = m.energy;
                        prop_assert!((216.0..=244.0).contains(&m.voltage));
                        prop_assert!((49.8..=50.2).contains(&m.frequency));
                        prop_assert!((m.current * m.voltage - m.power).abs() < 0.2, "{:?}", m);
                    }
                    Fields::Pump(p) => {
                        prop_assert!((0.0..3_000.0).contains(&p.rpm), "{:?}", p);
                        prop_assert!((0.0..65.0).contains(&p.flow));
                        prop_assert!((0.0..9.0).contains(&p.pressure));
                        prop_assert!((0.0..15.0).contains(&p.vibration), "{:?}", p);
                        prop_assert!((15.0..=95.0).contains(&p.bearing_temperature));
                        prop_assert_eq!(p.rpm == 0.0, p.status == PumpStatus::Fault);
                    }
                }
            }
        }
    }
}
