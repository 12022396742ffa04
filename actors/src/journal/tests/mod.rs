//! What the journal promises, tried.

mod codec;
mod crash;
mod damage;
pub(crate) mod doubles;
mod faults;
mod full_disk;
mod memory;
mod power;
mod roundtrip;
mod torn;
