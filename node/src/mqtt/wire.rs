//! MQTT's data types (section 1.5): a reader over the body of one packet, and the writers of the same.
//!
//! The reader never copies and never looks past the body. `what` names the field for the error, e.g. `"the client id"`.

use std::num::NonZeroU16;

use super::reason::CodecError;

/// The largest value of a Variable Byte Integer (section 1.5.5).
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// What is left of a packet's body.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over a whole body.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Whether everything was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    #[inline]
    pub(crate) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(cut_short(what)),
        }
    }

    /// A byte.
    #[inline]
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| cut_short(what))?;
        self.rest = rest;
        Ok(byte)
    }

    /// A Two Byte Integer.
    #[inline]
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, CodecError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| cut_short(what))?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// A Four Byte Integer.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| cut_short(what))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer in its shortest form.
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u32, CodecError> {
        let mut value = 0_u32;
        for index in 0..4 {
            let byte = self.u8(what)?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return if index > 0 && byte == 0 {
                    Err(CodecError::malformed(format!("{what} takes more bytes than it needs [MQTT-1.5.5-1]")))
                } else {
                    Ok(value)
                };
            }
        }
        Err(CodecError::malformed(format!("{what} has more than four bytes [MQTT-1.5.5]")))
    }

    /// Binary Data: a length of two bytes, then the bytes.
    #[inline]
    pub(crate) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], CodecError> {
        let length = self.u16(what)?;
        self.take(usize::from(length), what)
    }

    /// A UTF-8 Encoded String: no U+0000, no surrogates. Non-characters such as U+FFFE are allowed, as are control
    /// characters, which clients merely should not send.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, CodecError> {
        let text = utf8(self.binary(what)?, what)?;
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(CodecError::malformed(format!("{what} contains U+0000 [MQTT-1.5.4-2]")));
        }
        Ok(text)
    }

    /// A packet id, which is never 0.
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<NonZeroU16, CodecError> {
        NonZeroU16::new(self.u16("the packet id")?)
            .ok_or_else(|| CodecError::protocol("the packet id is 0; it counts from 1 to 65535 [MQTT-2.2.1-3]"))
    }

    /// The properties' bytes, which their length precedes (section 2.2.2).
    #[inline]
    pub(crate) fn properties(&mut self) -> Result<&'a [u8], CodecError> {
        if let Some((&0, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(&[]);
        }
        let length = self.varint("the property length")?;
        self.take(length as usize, "the properties")
    }

    /// That nothing is left.
    pub(crate) fn end(&self, packet: &'static str) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::malformed(format!("the {packet} goes on for {left} bytes after its last field"))),
        }
    }
}

/// Text, or an error that says where it stops being text.
#[inline]
pub(crate) fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, CodecError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        CodecError::malformed(format!("{what} is not UTF-8 from its byte {at} on [MQTT-1.5.4-1]"))
    })
}

#[cold]
fn cut_short(what: &'static str) -> CodecError {
    CodecError::malformed(format!("{what} is cut short by the packet's end"))
}

/// Bytes that a Variable Byte Integer takes.
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a Variable Byte Integer of at most [`VARINT_MAX`].
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= VARINT_MAX as usize);
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a string or binary data of at most 65,535 bytes with its length.
#[inline]
pub(crate) fn put_binary(out: &mut Vec<u8>, data: &[u8]) {
    debug_assert!(data.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}
