//! Which loop owns a device: a stable hash of its id, so that a device lives on exactly one loop.

use crate::ids::LoopId;

/// The loop, of `loops` (at least one), that owns the device of this id.
///
/// The hash is CRC-32C, which the journal uses anyway: it never changes between versions or machines.
#[must_use]
pub fn owner(device: &str, loops: u16) -> LoopId {
    // Multiplying instead of taking the remainder uses the hash's high bits and costs no division.
    let hash = u64::from(crc32c::crc32c(device.as_bytes()).wrapping_mul(0x9E37_79B1));
    let index = (hash * u64::from(loops.max(1))) >> 32;
    LoopId(u16::try_from(index).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_gets_its_share() {
        let loops = 4;
        let mut share = [0u32; 4];
        for n in 0..40_000 {
            share[owner(&format!("thermostat-{n:05}"), loops).index()] += 1;
        }
        assert!(share.iter().all(|&n| (9_000..11_000).contains(&n)), "{share:?}");
    }

    #[test]
    fn placement_is_stable() {
        assert_eq!(owner("d1", 1), LoopId(0));
        assert_eq!(owner("d1", 2), owner("d1", 2));
    }
}
