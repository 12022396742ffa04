//! The content of one file on a disk that forgets: what readers see now, and what is durable. Page by page.
//!
//! A write changes only what is seen. A sync makes content and length durable. In between the disk may write back any page when
//! it likes, and when the power goes any subset of the changed pages may have made it, one of them perhaps in part.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::dice::Dice;

/// Bytes of a page, the unit in which an operating system writes back.
pub(crate) const PAGE: usize = 4096;
/// Bytes that a disk writes together or not at all.
const SECTOR: usize = 512;
/// How often a page that the power caught is there only in part.
const TORN: f64 = 0.25;

type Page = [u8; PAGE];

/// How much of what was not synced survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    /// Nothing.
    None,
    /// Some of it, drawn one by one.
    Some,
    /// All of it.
    All,
}

impl Luck {
    /// Draws how much survives.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0..=3 => Self::None,
            4..=8 => Self::Some,
            _ => Self::All,
        }
    }

    /// Does this one thing survive?
    pub(crate) fn keeps(self, dice: &mut Dice) -> bool {
        match self {
            Self::None => false,
            Self::Some => dice.chance(0.5),
            Self::All => true,
        }
    }
}

/// Pages and a length. A page that is not there is zeros.
#[derive(Debug, Clone, Default)]
struct Image {
    len: u64,
    pages: HashMap<u64, Arc<Page>>,
}

impl Image {
    fn page(&self, index: u64) -> Arc<Page> {
        self.pages.get(&index).cloned().unwrap_or_else(|| Arc::new([0; PAGE]))
    }

    /// Sets the length; what lies beyond is zeros from now on. Returns the pages that this changed.
    fn set_len(&mut self, len: u64) -> Vec<u64> {
        self.len = len;
        let (whole, rest) = (len / PAGE as u64, (len % PAGE as u64) as usize);
        let cut = whole + u64::from(rest > 0);
        let mut changed: Vec<u64> = self.pages.keys().copied().filter(|index| *index >= cut).collect();
        for index in &changed {
            self.pages.remove(index);
        }
        if let Some(last) =
            self.pages.get_mut(&whole).filter(|last| rest > 0 && last[rest..].iter().any(|byte| *byte != 0))
        {
            Arc::make_mut(last)[rest..].fill(0);
            changed.push(whole);
        }
        changed
    }
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    now: Image,
    durable: Image,
    /// Pages in which the two may differ.
    dirty: BTreeSet<u64>,
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.now.len
    }

    pub(crate) fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = self.now.len.min(offset.saturating_add(size as u64));
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let (index, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let to = PAGE.min(from + (end - at) as usize);
            match self.now.pages.get(&index) {
                Some(page) => bytes.extend_from_slice(&page[from..to]),
                None => bytes.resize(bytes.len() + to - from, 0),
            }
            at += (to - from) as u64;
        }
        bytes
    }

    pub(crate) fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let (index, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = bytes.len().min(PAGE - from);
            let page = self.now.pages.entry(index).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[from..from + count].copy_from_slice(&bytes[..count]);
            self.dirty.insert(index);
            at += count as u64;
            bytes = &bytes[count..];
        }
        self.now.len = self.now.len.max(at);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.dirty.extend(self.now.set_len(len));
    }

    /// `fsync` and `fdatasync`: both make the length durable, because the content could not be read without it.
    pub(crate) fn sync(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            self.make_durable(index);
        }
        self.durable.set_len(self.now.len);
    }

    /// The operating system writes a page back because it likes to.
    pub(crate) fn write_one_back(&mut self, dice: &mut Dice) {
        let nth = dice.below(self.dirty.len() as u64) as usize;
        if let Some(index) = self.dirty.iter().copied().nth(nth) {
            self.keep(index);
            self.dirty.remove(&index);
        }
    }

    /// The power goes: what readers see from now on is what the disk has.
    pub(crate) fn cut_power(&mut self, luck: Luck, dice: &mut Dice) {
        for index in std::mem::take(&mut self.dirty) {
            if luck.keeps(dice) {
                let before = self.durable.page(index);
                self.keep(index);
                if luck == Luck::Some && dice.chance(TORN) {
                    self.tear(index, &before, dice);
                }
            }
        }
        if luck.keeps(dice) {
            self.durable.set_len(self.now.len);
        } else {
            self.durable.set_len(self.durable.len);
        }
        self.now = self.durable.clone();
    }

    /// A page reaches the disk, and the length with it that makes it readable.
    fn keep(&mut self, index: u64) {
        self.make_durable(index);
        let reaches = self.now.len.min((index + 1) * PAGE as u64);
        self.durable.len = self.durable.len.max(reaches);
    }

    fn make_durable(&mut self, index: u64) {
        match self.now.pages.get(&index) {
            Some(page) => self.durable.pages.insert(index, Arc::clone(page)),
            None => self.durable.pages.remove(&index),
        };
    }

    /// Some sectors of a page are those from before.
    fn tear(&mut self, index: u64, before: &Page, dice: &mut Dice) {
        let mut torn = self.durable.page(index);
        for (new, old) in Arc::make_mut(&mut torn).chunks_mut(SECTOR).zip(before.chunks(SECTOR)) {
            if dice.chance(0.5) {
                new.copy_from_slice(old);
            }
        }
        self.durable.pages.insert(index, torn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Stream;

    fn dice(seed: u64) -> Dice {
        Dice::of(seed, 0, Stream::Faults)
    }

    #[test]
    fn what_is_read_is_what_was_written_as_in_a_vec() {
        let mut dice = dice(1);
        let (mut content, mut model) = (Content::default(), Vec::<u8>::new());
        for step in 0..2_000_u32 {
            let at = dice.below(5 * PAGE as u64) as usize;
            match dice.below(6) {
                0 => {
                    content.set_len(at as u64);
                    model.resize(at, 0);
                }
                1 => content.sync(),
                2 => content.write_one_back(&mut dice),
                _ => {
                    let bytes = vec![step as u8; 1 + dice.below(2 * PAGE as u64) as usize];
                    content.write(at as u64, &bytes);
                    model.resize(model.len().max(at + bytes.len()), 0);
                    model[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            assert_eq!(content.len(), model.len() as u64);
            assert!(content.read(0, usize::MAX / 2) == model, "step {step}");
            let (from, size) = (dice.below(9_000) as usize, dice.below(9_000) as usize);
            let expected = model.get(from..model.len().min(from + size)).unwrap_or_default();
            assert!(content.read(from as u64, size) == expected, "step {step}");
        }
    }

    #[test]
    fn what_was_synced_survives_any_luck_and_the_rest_is_old_or_new_sector_by_sector() {
        for seed in 0..300 {
            let mut dice = dice(seed);
            let mut content = Content::default();
            content.write(0, &[1; 3 * PAGE]);
            content.sync();
            content.write(PAGE as u64, &[2; 2 * PAGE + 700]);
            content.cut_power(Luck::draw(&mut dice), &mut dice);
            let found = content.read(0, 10 * PAGE);
            assert!(found.len() >= 3 * PAGE && found.len() <= 3 * PAGE + 700);
            assert!(found[..PAGE].iter().all(|byte| *byte == 1));
            for sector in found[PAGE..3 * PAGE].chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == 1) || sector.iter().all(|byte| *byte == 2));
            }
            assert!(found[3 * PAGE..].iter().all(|byte| *byte == 0 || *byte == 2));
        }
    }

    #[test]
    fn without_luck_nothing_survives_that_was_not_synced_and_with_all_of_it_everything() {
        for (luck, expected) in [(Luck::None, b"old".to_vec()), (Luck::All, b"new and longer".to_vec())] {
            let mut content = Content::default();
            content.write(0, b"old");
            content.sync();
            content.write(0, b"new and longer");
            content.cut_power(luck, &mut dice(7));
            assert_eq!(content.read(0, 100), expected);
        }
    }

    #[test]
    fn a_cut_that_was_not_synced_may_come_back_but_never_as_something_else() {
        for (luck, expected) in [(Luck::None, "abcdef"), (Luck::All, "ab\0\0x")] {
            let mut content = Content::default();
            content.write(0, b"abcdef");
            content.sync();
            content.set_len(2);
            content.write(4, b"x");
            content.cut_power(luck, &mut dice(7));
            assert_eq!(content.read(0, 100), expected.as_bytes());
        }
    }
}
