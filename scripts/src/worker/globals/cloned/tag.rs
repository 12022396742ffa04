//! What a value begins with on the wire.

pub(super) const UNDEFINED: u8 = 0;
pub(super) const NULL: u8 = 1;
pub(super) const FALSE: u8 = 2;
pub(super) const TRUE: u8 = 3;
pub(super) const NUMBER: u8 = 4;
/// One byte a character.
pub(super) const TEXT: u8 = 5;
/// Two bytes a unit.
pub(super) const WIDE: u8 = 6;
pub(super) const BIGINT: u8 = 7;
/// What came before, by its number.
pub(super) const SEEN: u8 = 8;
pub(super) const OBJECT: u8 = 9;
pub(super) const ARRAY: u8 = 10;
pub(super) const DATE: u8 = 11;
pub(super) const REGEXP: u8 = 12;
pub(super) const MAP: u8 = 13;
pub(super) const SET: u8 = 14;
pub(super) const BUFFER: u8 = 15;
pub(super) const TYPED: u8 = 16;
pub(super) const VIEW: u8 = 17;
pub(super) const ERROR: u8 = 18;
/// A primitive as an object.
pub(super) const BOXED: u8 = 19;
