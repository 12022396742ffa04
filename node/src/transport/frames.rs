//! WebSocket framing on the server's side (RFC 6455, section 5): a client's bytes become the bytes of the stream that its data
//! frames carry, and what is sent becomes frames. It does no I/O, and buffers nothing but the head of a frame and the payload of
//! a control frame: a data frame of any length passes through.

/// Longest payload of a control frame (section 5.5).
const CONTROL_BYTES: usize = 125;
/// Longest head of a client's frame: two bytes, a length of eight, a mask of four.
const HEAD_BYTES: usize = 14;

/// Codes of a Close frame (section 7.4.1).
pub(super) mod code {
    pub(crate) const NORMAL: u16 = 1_000;
    pub(super) const PROTOCOL: u16 = 1_002;
    pub(super) const UNSUPPORTED: u16 = 1_003;
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// A frame that a client may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Violation {
    /// The code of the Close frame that answers it.
    pub(crate) code: u16,
    /// What was wrong.
    pub(crate) detail: &'static str,
}

impl Violation {
    const fn protocol(detail: &'static str) -> Self {
        Self { code: code::PROTOCOL, detail }
    }
}

/// Reads a client's frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    state: State,
    /// A message has begun whose last frame has not come.
    fragmented: bool,
    /// The payload of the control frame that is being read.
    control: Vec<u8>,
    pong: Option<Vec<u8>>,
    closed: Option<u16>,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; HEAD_BYTES], have: usize },
    Payload { opcode: u8, left: u64, mask: [u8; 4] },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { bytes: [0; HEAD_BYTES], have: 0 }
    }
}

impl Frames {
    /// Takes what came, and leaves the payload of data frames at the start of `bytes`; returns how much that is, and what was
    /// wrong with the frame behind it. Nothing may be read after that.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> (usize, Option<Violation>) {
        let mut payload = 0;
        let violation = self.take(bytes, &mut payload).err();
        (payload, violation)
    }

    fn take(&mut self, bytes: &mut [u8], to: &mut usize) -> Result<(), Violation> {
        let mut from = 0;
        // What comes behind a Close frame is not data (section 5.5.1).
        while from < bytes.len() && self.closed.is_none() {
            match &mut self.state {
                State::Head { bytes: head, have } => {
                    head[*have] = bytes[from];
                    (*have, from) = (*have + 1, from + 1);
                    if let Some(state) = payload_of(&head[..*have], &mut self.fragmented)? {
                        self.state = state;
                    }
                }
                State::Payload { opcode, left, mask } => {
                    let take = usize::try_from(*left).map_or(bytes.len() - from, |left| left.min(bytes.len() - from));
                    let part = &mut bytes[from..from + take];
                    unmask(part, *mask);
                    mask.rotate_left(take % 4);
                    *left -= take as u64;
                    if *opcode >= opcode::CLOSE {
                        self.control.extend_from_slice(part);
                    } else {
                        bytes.copy_within(from..from + take, *to);
                        *to += take;
                    }
                    from += take;
                }
            }
            if let State::Payload { opcode, left: 0, .. } = self.state {
                self.state = State::default();
                self.end_of(opcode)?;
            }
        }
        Ok(())
    }

    fn end_of(&mut self, opcode: u8) -> Result<(), Violation> {
        if opcode < opcode::CLOSE {
            return Ok(());
        }
        let payload = std::mem::take(&mut self.control);
        match opcode {
            // Only the most recent ping has to be answered (section 5.5.3), so one is kept.
            opcode::PING => self.pong = Some(payload),
            opcode::CLOSE => self.closed = Some(close_code(&payload)?),
            _ => {}
        }
        Ok(())
    }

    /// The client's Close frame has come: the code to answer it with.
    pub(super) fn closed(&self) -> Option<u16> {
        self.closed
    }

    /// The payload of the ping that is to be answered.
    pub(super) fn take_pong(&mut self) -> Option<Vec<u8>> {
        self.pong.take()
    }
}

/// The payload's state, once the head is whole.
fn payload_of(head: &[u8], fragmented: &mut bool) -> Result<Option<State>, Violation> {
    let &[first, second, ref rest @ ..] = head else { return Ok(None) };
    if rest.is_empty() {
        check_head(first, second, *fragmented)?;
    }
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if rest.len() < extended + 4 {
        return Ok(None);
    }
    let (length, mask) = rest.split_at(extended);
    let left = match extended {
        0 => u64::from(second & 0x7F),
        _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if left > i64::MAX as u64 {
        return Err(Violation::protocol("a WebSocket frame's length has its highest bit set"));
    }
    let opcode = first & 0x0F;
    if opcode < opcode::CLOSE {
        *fragmented = first & 0x80 == 0;
    }
    Ok(Some(State::Payload { opcode, left, mask: [mask[0], mask[1], mask[2], mask[3]] }))
}

/// Checks what the first two bytes of a frame say.
fn check_head(first: u8, second: u8, fragmented: bool) -> Result<(), Violation> {
    let (last, opcode) = (first & 0x80 != 0, first & 0x0F);
    if first & 0x70 != 0 {
        return Err(Violation::protocol("a WebSocket frame uses an extension, and none was agreed on"));
    }
    if second & 0x80 == 0 {
        return Err(Violation::protocol("a client's WebSocket frame is not masked"));
    }
    match opcode {
        opcode::CONTINUATION if !fragmented => {
            Err(Violation::protocol("a continuation frame of a WebSocket message that has not begun"))
        }
        opcode::TEXT => {
            let detail = "a text frame; MQTT over WebSocket goes in binary frames [MQTT-6.0.0-1]";
            Err(Violation { code: code::UNSUPPORTED, detail })
        }
        opcode::BINARY if fragmented => {
            Err(Violation::protocol("a WebSocket message begins before the former has ended"))
        }
        opcode::CONTINUATION | opcode::BINARY => Ok(()),
        opcode::CLOSE | opcode::PING | opcode::PONG if !last => {
            Err(Violation::protocol("a WebSocket control frame is fragmented"))
        }
        opcode::CLOSE | opcode::PING | opcode::PONG if usize::from(second & 0x7F) > CONTROL_BYTES => {
            Err(Violation::protocol("a WebSocket control frame has more than 125 bytes"))
        }
        opcode::CLOSE | opcode::PING | opcode::PONG => Ok(()),
        _ => Err(Violation::protocol("a WebSocket frame with an opcode that is not defined")),
    }
}

/// The code with which a Close frame is answered: the client's own.
fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    match *payload {
        [] => Ok(code::NORMAL),
        [high, low, ..] => match u16::from_be_bytes([high, low]) {
            code @ (1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999) => Ok(code),
            _ => Err(Violation::protocol("a WebSocket Close frame with a code that may not be sent")),
        },
        [_] => Err(Violation::protocol("a WebSocket Close frame with half a code")),
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut chunks = bytes.chunks_exact_mut(4);
    for chunk in &mut chunks {
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    chunks.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Writes a data frame around `payload`.
pub(super) fn write_data(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, opcode::BINARY, payload);
}

/// Writes the answer to a ping.
pub(super) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, opcode::PONG, payload);
}

/// Writes a Close frame.
pub(super) fn write_close(out: &mut Vec<u8>, code: u16) {
    write(out, opcode::CLOSE, &code.to_be_bytes());
}

fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + HEAD_BYTES);
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(u8::try_from(length).unwrap_or_default()),
        length => match u16::try_from(length) {
            Ok(length) => {
                out.push(126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [0xA1, 0x00, 0xFF, 0x7C];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, first & 0x0F, payload);
        bytes[0] = first;
        let head = bytes.len() - payload.len();
        bytes[1] |= 0x80;
        let mut masked = payload.to_vec();
        unmask(&mut masked, MASK);
        [&bytes[..head], &MASK, &masked].concat()
    }

    /// Reads `bytes` cut into parts of `at_once`.
    fn read(bytes: &[u8], at_once: usize) -> Result<(Vec<u8>, Frames), Violation> {
        let (mut frames, mut data) = (Frames::default(), Vec::new());
        for part in bytes.chunks(at_once.max(1)) {
            let mut part = part.to_vec();
            let (length, violation) = frames.read(&mut part);
            data.extend_from_slice(&part[..length]);
            if let Some(violation) = violation {
                return Err(violation);
            }
        }
        Ok((data, frames))
    }

    #[track_caller]
    fn refused(bytes: &[u8], code: u16) {
        for at_once in [1, 3, bytes.len()] {
            assert_eq!(read(bytes, at_once).map(|_| ()).map_err(|violation| violation.code), Err(code), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_in_any_frames_and_parts_is_what_is_read(
            parts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), 0_u8..3), 0..12),
            at_once in 1_usize..64,
        ) {
            let (mut bytes, mut expected, mut open) = (Vec::new(), Vec::new(), false);
            for (payload, kind) in &parts {
                let first = if open { 0x00 } else { 0x02 };
                match kind {
                    0 => bytes.extend(frame(0x89, &payload[..payload.len().min(125)])),
                    1 => {
                        bytes.extend(frame(first, payload));
                        expected.extend_from_slice(payload);
                        open = true;
                    }
                    _ => {
                        bytes.extend(frame(0x80 | first, payload));
                        expected.extend_from_slice(payload);
                        open = false;
                    }
                }
            }
            let (data, mut frames) = read(&bytes, at_once).expect("a sound stream");
            prop_assert_eq!(data, expected);
            let ping = parts.iter().rev().find(|(_, kind)| *kind == 0).map(|(payload, _)| payload[..payload.len().min(125)].to_vec());
            prop_assert_eq!(frames.take_pong(), ping);
        }

        #[test]
        fn no_bytes_whatever_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), at_once in 1_usize..50) {
            let _ = read(&bytes, at_once);
        }
    }

    #[test]
    fn lengths_of_every_size_are_written_and_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let payload = vec![7; length];
            let bytes = frame(0x82, &payload);
            assert_eq!(
                bytes.len(),
                length
                    + 6
                    + if length > 65_535 {
                        8
                    } else if length > 125 {
                        2
                    } else {
                        0
                    }
            );
            assert_eq!(read(&bytes, 4_096).expect("sound").0, payload);
        }
    }

    #[test]
    fn frames_that_a_client_may_not_send() {
        refused(&frame(0x81, b"text"), 1_003);
        refused(&frame(0x01, b"text"), 1_003);
        refused(&frame(0x80, b"continued"), 1_002);
        refused(&[frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1_002);
        refused(&[frame(0x02, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(), 1_002);
        refused(&frame(0xC2, b"compressed"), 1_002);
        refused(&frame(0x83, b"reserved"), 1_002);
        refused(&frame(0x09, b"fragmented ping"), 1_002);
        refused(&frame(0x89, &[0; 126]), 1_002);
        refused(&frame(0x88, &[3]), 1_002);
        refused(&frame(0x88, &1_005_u16.to_be_bytes()), 1_002);
        refused(&[0x82, 0x05, 1, 2, 3, 4, 5], 1_002);
        refused(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1_002);
    }

    #[test]
    fn what_comes_behind_a_close_is_not_data() {
        let bytes = [frame(0x82, b"data"), frame(0x88, &1_001_u16.to_be_bytes()), frame(0x82, b"more")].concat();
        for at_once in [1, 7, bytes.len()] {
            let (data, frames) = read(&bytes, at_once).expect("sound");
            assert_eq!((data.as_slice(), frames.closed()), (&b"data"[..], Some(1_001)));
        }
    }
}
