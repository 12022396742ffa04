//! The frame around a record in a segment file: length, CRC-32C, position, kind, version. Little-endian.
//!
//! A loop writes frames with empty position and CRC; the journal thread, which alone knows the order, seals them.

use super::record::Kind;
use crate::limits;

/// Bytes of a frame before its body: length (4), CRC (4), position (8), kind (1), version of the body (1).
pub(crate) const HEAD: usize = 18;
/// Bytes that the length does not count: itself and the CRC.
const UNCOUNTED: usize = 8;
/// Largest frame.
pub(crate) const MAX: usize = HEAD + limits::RECORD_BYTES;
/// In the byte of the kind: this record is the first of a commit, so whatever stands before it was durable when it was written.
const FIRST_OF_COMMIT: u8 = 0x80;

/// A whole frame with a right CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) position: u64,
    pub(crate) kind: u8,
    /// It is the first of a commit.
    pub(crate) first_of_commit: bool,
    pub(crate) version: u8,
    pub(crate) body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the frame in the file.
    pub(crate) fn size(&self) -> usize {
        HEAD + self.body.len()
    }
}

/// Starts a frame at the end of `into`; the body is to follow.
pub(crate) fn begin(into: &mut Vec<u8>, kind: Kind, version: u8) -> usize {
    let start = into.len();
    let mut head = [0; HEAD];
    head[16] = kind as u8;
    head[17] = version;
    into.extend_from_slice(&head);
    start
}

/// Ends the frame that was begun at `start`: its body reaches to the end of `into`.
pub(crate) fn end(into: &mut [u8], start: usize) {
    let counted = u32::try_from(into.len() - start - UNCOUNTED).expect("a body has at most RECORD_BYTES");
    into[start..start + 4].copy_from_slice(&counted.to_le_bytes());
}

/// Marks the first of `frames`, which are not sealed yet, as the first of a commit.
pub(crate) fn begin_commit(frames: &mut [u8]) {
    if let Some(kind) = frames.get_mut(16) {
        *kind |= FIRST_OF_COMMIT;
    }
}

/// Gives the frames in `frames` the positions from `first` on, and their CRCs. Returns how many there were.
pub(crate) fn seal(mut frames: &mut [u8], first: u64) -> u64 {
    let mut position = first;
    while !frames.is_empty() {
        let size = UNCOUNTED + counted(frames);
        let (frame, rest) = frames.split_at_mut(size);
        frame[8..16].copy_from_slice(&position.to_le_bytes());
        let crc = crc32c::crc32c(&frame[UNCOUNTED..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        position += 1;
        frames = rest;
    }
    position - first
}

/// The size of the frame that begins `bytes`, by its length field alone; `None`: no frame has this length.
pub(crate) fn claimed_size(bytes: &[u8]) -> Option<usize> {
    let size = UNCOUNTED.checked_add(counted(bytes.get(..HEAD)?))?;
    (HEAD..=MAX).contains(&size).then_some(size)
}

/// The position that a frame's head claims.
pub(crate) fn claimed_position(head: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(head.get(8..16)?.try_into().ok()?))
}

/// The frame that begins `bytes`, if it is whole and its CRC is right.
pub(crate) fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let frame = bytes.get(..claimed_size(bytes)?)?;
    let crc = u32::from_le_bytes(frame[4..8].try_into().ok()?);
    if crc32c::crc32c(&frame[UNCOUNTED..]) == crc { trusted(frame) } else { None }
}

/// As [`parse`], for bytes whose CRC was checked before.
pub(crate) fn trusted(bytes: &[u8]) -> Option<Frame<'_>> {
    let frame = bytes.get(..claimed_size(bytes)?)?;
    Some(Frame {
        position: claimed_position(frame)?,
        kind: frame[16] & !FIRST_OF_COMMIT,
        first_of_commit: frame[16] & FIRST_OF_COMMIT != 0,
        version: frame[17],
        body: &frame[HEAD..],
    })
}

fn counted(frame: &[u8]) -> usize {
    u32::from_le_bytes(frame[..4].try_into().expect("four bytes")) as usize
}
