//! Random and mutated packets: whatever the bytes, the codec neither panics nor reads beyond the frame, and what it says
//! is the same when asked again.

use super::{
    MAX, Version, conformance, frame,
    invariants::{Fate, check_bytes},
    read,
};
use crate::mqtt::{frame::Framing, wire::put_varint};

/// A small random generator (splitmix64): a test needs a seed that it can print, not quality.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// A byte that is likely to mean something to a parser.
    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 16] = [0, 1, 2, 3, 4, 5, b'/', b'#', b'+', b'$', 0x26, 0x23, 0x7F, 0x80, 0xC3, 0xFF];
        if self.chance(2) { TELLING[self.below(TELLING.len())] } else { self.next() as u8 }
    }
}

/// Endless packets, most of them nearly right: one of the conformance table's with a few bytes changed, dropped, put in
/// or repeated, and, most times, its length put right again, so that the change gets past the framer.
pub(super) struct Mutations {
    random: Random,
    good: Vec<Vec<u8>>,
    bad: Vec<Vec<u8>>,
}

impl Mutations {
    pub(super) fn new(seed: u64, version: Version) -> Self {
        let ours = |case: &conformance::Case| case.version.is_none_or(|of| of == version);
        let (good, bad): (Vec<_>, Vec<_>) = conformance::cases()
            .into_iter()
            .filter(ours)
            .partition(|case| matches!(case.expected, conformance::Expected::Packet(_) | conformance::Expected::Taken));
        Self {
            random: Random(seed),
            good: good.into_iter().map(|case| case.bytes).collect(),
            bad: bad.into_iter().map(|case| case.bytes).collect(),
        }
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        if self.random.chance(8) {
            return (0..self.random.below(64)).map(|_| self.random.byte()).collect();
        }
        let seeds = if self.random.chance(4) { &self.bad } else { &self.good };
        let mut bytes = seeds[self.random.below(seeds.len())].clone();
        for _ in 0..=self.random.below(3) {
            self.mutate(&mut bytes);
        }
        if !self.random.chance(4) && bytes.len() > 2 {
            // The table's packets are short: their header has two bytes.
            let mut repaired = vec![bytes[0]];
            put_varint(&mut repaired, bytes.len() - 2);
            repaired.extend_from_slice(&bytes[2..]);
            bytes = repaired;
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.byte()),
            0 => bytes[at] = random.byte(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, random.byte()),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let end = at + random.below(bytes.len() - at + 1);
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

fn run(version: Version, seed: u64) {
    println!("seed {seed:#x}");
    let mut mutations = Mutations::new(seed, version);
    let (mut taken, mut refused, mut incomplete) = (0_u32, 0_u32, 0_u32);
    for _ in 0..200_000 {
        let bytes = mutations.next();
        match check_bytes(version, &bytes) {
            Fate::Taken => taken += 1,
            Fate::Refused => refused += 1,
            Fate::Incomplete => incomplete += 1,
        }
    }
    println!("taken {taken}, refused {refused}, incomplete {incomplete}");
    assert!(taken > 10_000 && refused > 50_000 && incomplete > 1_000, "the mutations miss what they are for");
}

#[test]
fn random_packets_of_3_1_1_never_break_the_codec() {
    run(Version::V3, 0x7469_6465_0003);
}

#[test]
fn random_packets_of_5_never_break_the_codec() {
    run(Version::V5, 0x7469_6465_0005);
}

/// Bytes that come one by one lead to the same packets as bytes that come at once.
#[test]
fn a_stream_is_cut_into_the_same_packets_however_it_arrives() {
    let stream: Vec<u8> = [&b"\x30\x07\0\x03a/bhi"[..], b"\xC0\x00", b"\x40\x02\0\x01", b"\x30\x80\x01\0\x01a"]
        .concat()
        .into_iter()
        .chain([b'x'; 125])
        .collect();
    let mut lengths = Vec::new();
    let (mut start, mut needed) = (0, 0);
    for end in 0..=stream.len() {
        let at_hand = &stream[start..end];
        match frame(at_hand, MAX).unwrap() {
            Framing::Incomplete { needed: more } => {
                assert!(more > at_hand.len());
                needed = more;
            }
            Framing::Complete(frame) => {
                assert!(needed <= frame.total && frame.total == at_hand.len(), "it was complete before");
                assert!(read(Some(Version::V3), at_hand).unwrap().is_some());
                lengths.push(frame.total);
                start = end;
            }
        }
    }
    assert_eq!(lengths, [9, 2, 4, 131]);
}
