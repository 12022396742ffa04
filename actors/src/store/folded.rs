//! The side file beside sled: the position up to which sled had said that everything is in it.
//!
//! sled may come back from an unclean stop with less than it had, and say nothing. It holds the position as well; when its
//! own is behind this one, it has lost something. Two slots are written in turn, so that a torn write leaves the other.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::ids::Position;

const MAGIC: [u8; 8] = *b"TGFOLD\r\n";
/// Slots are a sector apart: one write never touches both.
const APART: u64 = 4096;
const SLOT: usize = 28;

/// The side file, open.
#[derive(Debug)]
pub(super) struct FoldedFile {
    file: File,
    sequence: u64,
}

/// What the side file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// There is no such file.
    Missing,
    /// Neither slot is whole.
    Damaged,
    /// Everything up to here was in sled.
    Folded(Position),
}

/// The side file of a store's directory: `state` → `state.folded`.
pub(super) fn path(store: &Path) -> PathBuf {
    store.with_extension("folded")
}

impl FoldedFile {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> io::Result<Said> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Missing),
            Err(error) => return Err(error),
        };
        Ok(newest(&file).map_or(Said::Damaged, |(_, position)| Said::Folded(position)))
    }

    /// Opens the file for writing; a missing or damaged one is made anew and says `folded`.
    pub(super) fn open(path: &Path, folded: Position) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some((sequence, _)) = newest(&file) {
            return Ok(Self { file, sequence });
        }
        let mut fresh = Self { file, sequence: 0 };
        fresh.file.set_len(2 * APART)?;
        fresh.write(folded)?;
        fresh.write(folded)?;
        fresh.file.sync_all()?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(fresh)
    }

    /// Says that everything up to `folded` is in sled, durably: only after it is.
    pub(super) fn write(&mut self, folded: Position) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..16].copy_from_slice(&sequence.to_le_bytes());
        slot[16..24].copy_from_slice(&folded.0.to_le_bytes());
        let crc = crc32c::crc32c(&slot[..24]);
        slot[24..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&slot, sequence % 2 * APART)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }
}

/// The sequence number and position of the newest whole slot.
fn newest(file: &File) -> Option<(u64, Position)> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    [0, APART]
        .into_iter()
        .filter_map(|at| {
            let mut slot = [0; SLOT];
            file.read_exact_at(&mut slot, at).ok()?;
            let whole = slot[..8] == MAGIC && slot[24..] == crc32c::crc32c(&slot[..24]).to_le_bytes();
            whole.then(|| (number(&slot[8..16]), Position(number(&slot[16..24]))))
        })
        .max()
}
