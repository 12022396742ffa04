//! A file read through a window of bounded size, so that a journal of any length takes no more memory than its largest frame.

use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

use super::frame::{self, Frame};

/// How far a position may be beyond the last one for a frame after damage to be believed.
const PLAUSIBLE: u64 = 1 << 40;
/// Bytes that a disk writes together or not at all.
const SECTOR: u64 = 512;
/// Zeros at the start of a place, up to the end of its sector, that no frame begins with: a length is not zero.
const NO_LENGTH: u64 = 4;

/// A file that is read through a window of bounded size.
pub(super) struct Window {
    file: File,
    /// Its length when it was opened.
    pub(super) len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes that are read at a time, unless a frame is larger.
    const CHUNK: usize = 1024 * 1024;

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len, start: 0, bytes: Vec::new() })
    }

    /// The bytes from `offset` on: `want` of them, or as many as there are.
    pub(super) fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let end = self.len.min(offset + want as u64);
        if offset >= end {
            return Ok(&[]);
        }
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let size = (self.len - offset).min(want.max(Self::CHUNK) as u64);
            self.bytes.resize(usize::try_from(size).expect("a chunk or a frame fits"), 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(offset - self.start).expect("inside the window");
        Ok(&self.bytes[from..from + usize::try_from(end - offset).expect("inside the window")])
    }

    /// The whole frame at `offset`, if there is one.
    pub(super) fn frame(&mut self, offset: u64) -> io::Result<Option<Frame<'_>>> {
        match frame::claimed_size(self.at(offset, frame::HEAD)?) {
            Some(size) => Ok(frame::parse(self.at(offset, size)?)),
            None => Ok(None),
        }
    }

    /// The first whole frame at or after `offset` that can follow what was read. A reading cannot feign one: the upper
    /// bytes of a position are zero, and JSON holds no zero byte.
    pub(super) fn next_frame(&mut self, mut offset: u64, data_end: u64, floor: u64) -> io::Result<Option<u64>> {
        let plausible = floor..floor.saturating_add(PLAUSIBLE);
        while offset < data_end {
            let remaining = self.len - offset;
            let chunk = self.at(offset, Self::CHUNK)?;
            let candidate = chunk.windows(frame::HEAD).position(|head| {
                frame::claimed_size(head).is_some_and(|size| size as u64 <= remaining)
                    && frame::claimed_position(head).is_some_and(|position| plausible.contains(&position))
            });
            match candidate {
                Some(at) => {
                    offset += at as u64;
                    if self.frame(offset)?.is_some() {
                        return Ok(Some(offset));
                    }
                    offset += 1;
                }
                None if chunk.len() < frame::HEAD => return Ok(None),
                None => offset += (chunk.len() - frame::HEAD + 1) as u64,
            }
        }
        Ok(None)
    }

    /// Is a sector of this place, or its part from the place's start on, as it was before anything was written to it?
    pub(super) fn lacks_a_sector(&mut self, place: &Range<u64>) -> io::Result<bool> {
        let mut start = place.start;
        while start < place.end {
            let end = (start / SECTOR + 1) * SECTOR;
            let whole = end <= place.end && (end - start == SECTOR || end - start >= NO_LENGTH && start == place.start);
            let size = usize::try_from(end - start).map_err(io::Error::other)?;
            if whole && self.at(start, size)?.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            start = end;
        }
        Ok(false)
    }

    /// The end of the last byte that is not zero: behind it is only what was set aside.
    pub(super) fn data_end(&self) -> io::Result<u64> {
        let mut chunk = vec![0; 64 * 1024];
        let mut end = self.len;
        while end > 0 {
            let start = end.saturating_sub(chunk.len() as u64);
            let part = &mut chunk[..usize::try_from(end - start).expect("at most a chunk")];
            self.file.read_exact_at(part, start)?;
            if let Some(at) = part.iter().rposition(|byte| *byte != 0) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// Copies a place to a new file, durably.
    pub(super) fn copy(&self, place: Range<u64>, to: &Path) -> io::Result<()> {
        let mut copy = File::create(to)?;
        let mut chunk = vec![0; 64 * 1024];
        let mut at = place.start;
        while at < place.end {
            let part = &mut chunk[..usize::try_from((place.end - at).min(64 * 1024)).expect("at most a chunk")];
            self.file.read_exact_at(part, at)?;
            copy.write_all(part)?;
            at += part.len() as u64;
        }
        copy.sync_all()
    }
}
