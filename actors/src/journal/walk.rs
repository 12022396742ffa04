//! One segment from its head to its end, place by place: whole frames, damage between them, and what is no frame at the end.
//!
//! This is the one place that decides what damage is. `reader` repairs by it and `inspect` shows it; nothing is changed here.

use std::{io, ops::Range};

use super::{
    frame::{self, Frame},
    segment::{self, Head, Segment},
    window::Window,
};
use crate::ids::Position;

/// A place in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A whole frame with a right CRC: see [`Walk::frame`].
    Frame { at: Range<u64> },
    /// No frame, and either one follows or the segment is not the last.
    Damage { at: Range<u64>, why: String },
    /// The end of the last segment, from where it is not whole: a write that was cut short, or damage there. Frames may follow
    /// that are of the same commit, which was not durable: see [`Walk::is_torn`].
    Tail { at: Range<u64> },
    /// The head is whole and of a format that this build does not know: nothing more can be said.
    Newer { format: u32 },
}

/// A walk through a segment.
pub(super) struct Walk {
    pub(super) window: Window,
    /// Where the last whole frame ends so far; 0: not even the head is whole.
    pub(super) whole: u64,
    first: u64,
    last: bool,
    /// A first record of a commit was seen: this journal marks them.
    marked: bool,
    /// `None`: the head is still to be read.
    offset: Option<u64>,
    data_end: u64,
}

impl Walk {
    /// `last`: it is the journal's last segment.
    pub(super) fn open(segment: &Segment, last: bool) -> io::Result<Self> {
        let window = Window::open(&segment.path)?;
        let data_end = window.data_end()?;
        Ok(Self { window, whole: 0, first: segment.first, last, marked: false, offset: None, data_end })
    }

    /// The next place; `None` at the end, behind which is only what was set aside. A frame after damage has a position at or
    /// after `floor`, or it is not believed.
    pub(super) fn next(&mut self, floor: u64) -> io::Result<Option<Place>> {
        let Some(offset) = self.offset else {
            if let Some(place) = self.head()? {
                return Ok(Some(place));
            }
            return self.next(floor);
        };
        if let Some((size, first)) = self.window.frame(offset)?.map(|frame| (frame.size(), frame.first_of_commit)) {
            let at = offset..offset + size as u64;
            self.marked |= first;
            (self.offset, self.whole) = (Some(at.end), at.end);
            return Ok(Some(Place::Frame { at }));
        }
        if offset >= self.data_end {
            return Ok(None);
        }
        let next = match self.window.next_frame(offset + 1, self.data_end, floor)? {
            Some(next) if self.is_torn(offset..next, floor)? => None,
            next => next,
        };
        let at = offset..next.unwrap_or(self.data_end);
        self.offset = Some(at.end);
        Ok(Some(match next {
            Some(_) => Place::Damage { at, why: "no whole record here".to_owned() },
            None if self.last => Place::Tail { at },
            None => Place::Damage { at, why: "no whole record from here to its end".to_owned() },
        }))
    }

    /// The frame of a [`Place::Frame`] that was just given.
    pub(super) fn frame(&mut self, at: &Range<u64>) -> io::Result<Frame<'_>> {
        let size = usize::try_from(at.end - at.start).map_err(io::Error::other)?;
        frame::trusted(self.window.at(at.start, size)?).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Is this hole between frames what a power cut leaves of a commit that was being written? The disk writes sectors in any
    /// order, so later ones may be there while earlier ones are zeros still. Then nothing from here on was acknowledged, and no
    /// frame behind it may count: it may be an outcome whose reading's turn has not come. Damage that came later is told
    /// from that by a commit behind it, which proves that all before it was durable, or by bytes that are wrong and not missing.
    fn is_torn(&mut self, hole: Range<u64>, floor: u64) -> io::Result<bool> {
        let known = self.marked || hole.start == segment::HEAD as u64;
        if !self.last || !known || !self.window.lacks_a_sector(&hole)? {
            return Ok(false);
        }
        let mut offset = hole.end;
        while offset < self.data_end {
            match self.window.frame(offset)?.map(|frame| (frame.size(), frame.first_of_commit)) {
                Some((_, true)) => return Ok(false),
                Some((size, false)) => offset += size as u64,
                None => match self.window.next_frame(offset + 1, self.data_end, floor)? {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        Ok(true)
    }

    /// Reads the head; `None`: there is nothing to be said about it.
    fn head(&mut self) -> io::Result<Option<Place>> {
        let head_end = segment::HEAD as u64;
        let parsed = segment::parse_head(self.window.at(0, segment::HEAD)?);
        let end = head_end.min(self.window.len);
        self.offset = Some(end);
        Ok(match parsed {
            Head::Valid { first } if first == self.first => {
                self.whole = head_end;
                None
            }
            Head::Valid { first } => {
                let why = format!("its head says that it begins at {}", Position(first));
                Some(Place::Damage { at: 0..end, why })
            }
            Head::Newer { format } => {
                self.offset = Some(self.data_end.max(end));
                Some(Place::Newer { format })
            }
            // It was being created, and held nothing yet.
            Head::Damaged if self.last && self.data_end <= head_end => {
                self.offset = Some(0);
                None
            }
            Head::Damaged => Some(Place::Damage { at: 0..end, why: "its head is damaged".to_owned() }),
        })
    }
}

/// The last position in a segment, by its frames alone.
pub(super) fn last_position(segment: &Segment) -> io::Result<Option<Position>> {
    let mut bytes = Window::open(&segment.path)?;
    let mut offset = segment::HEAD as u64;
    let mut last = None;
    while let Some((position, size)) = bytes.frame(offset)?.map(|frame| (frame.position, frame.size())) {
        last = Some(Position(position));
        offset += size as u64;
    }
    Ok(last)
}
