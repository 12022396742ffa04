//! What the journal promises, tried.

mod doubles;
mod roundtrip;
