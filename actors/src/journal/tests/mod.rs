//! What the journal promises, tried.

mod codec;
mod damage;
mod doubles;
mod roundtrip;
