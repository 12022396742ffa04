//! The one source of chance: a small generator whose stream is fixed for ever by its seed. It owns 8 bytes of state
//! and must never read anything of the outside. (SplitMix64 by Steele, Lea and Flood; not `rand`'s small generators,
//! whose streams may change with a version and differ between 32 and 64 bits, while a swarm must replay from its seed.)

/// What a stream of dice is for: each use has its own stream, so that drawing faults does not alter the readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The device's physics.
    Model = 1,
    /// The device's place in the interval.
    Phase = 2,
    /// Which faults strike when.
    Faults = 3,
    /// Waits between two attempts to connect.
    Backoff = 4,
}

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The stream of one use of one device of the swarm with this seed.
    pub(crate) fn of(seed: u64, device: u64, stream: Stream) -> Self {
        let mut dice = Self(seed);
        // Each part is mixed in by a full round, so that neighbouring seeds, devices and uses share nothing.
        for part in [device, stream as u64] {
            dice.0 = dice.next().wrapping_add(part.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        }
        Self(dice.next())
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits are all that an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in `low..high`.
    pub(crate) fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number in `0..bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Bell-shaped noise around 0, never beyond ±`spread` (three uniform draws; no libm, so the same on every machine).
    pub(crate) fn noise(&mut self, spread: f64) -> f64 {
        (self.unit() + self.unit() + self.unit() - 1.5) / 1.5 * spread
    }
}

/// Rounds to `digits` decimals, and never to `-0.0`.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_fixed_by_seed_device_and_use() {
        let draw = |seed, device, stream| {
            let mut dice = Dice::of(seed, device, stream);
            [dice.next(), dice.next(), dice.next()]
        };
        assert_eq!(draw(1, 2, Stream::Model), draw(1, 2, Stream::Model));
        assert_ne!(draw(1, 2, Stream::Model), draw(1, 2, Stream::Faults));
        assert_ne!(draw(1, 2, Stream::Model), draw(1, 3, Stream::Model));
        assert_ne!(draw(1, 2, Stream::Model), draw(2, 2, Stream::Model));
        assert_ne!(draw(0, 1, Stream::Model), draw(1, 0, Stream::Model));
    }

    #[test]
    fn draws_stay_in_their_bounds_and_look_even() {
        let mut dice = Dice::of(7, 0, Stream::Model);
        let mut sum = 0.0;
        for _ in 0..10_000 {
            let unit = dice.unit();
            assert!((0.0..1.0).contains(&unit));
            sum += unit;
            assert!(dice.noise(2.0).abs() <= 2.0);
            assert!(dice.below(7) < 7);
            assert!((3.0..4.0).contains(&dice.range(3.0, 4.0)));
        }
        assert!((sum / 10_000.0 - 0.5).abs() < 0.02, "mean {}", sum / 10_000.0);
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    fn rounding_keeps_the_wanted_digits() {
        for (value, digits, expected) in
            [(21.526, 2, "21.53"), (-0.001, 2, "0.0"), (229.96, 1, "230.0"), (49.9949, 3, "49.995")]
        {
            assert_eq!(format!("{:?}", round(value, digits)), expected);
        }
    }
}
