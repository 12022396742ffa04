//! Tidegate's runtime: what happens to a reading between the socket and the dashboard.
//!
//! A reading flows through this crate in the order of its files:
//! `reading` (what the edge hands in) → `event_loop` (the per-core loop that owns the device) → `device`
//! (`DeviceActor::on_reading`: admit → journal → handle → fold → publish) → `journal` (durable, group commit) →
//! `script` (the seam to the operators' handlers) → `fold` (pure) → `fanout` (viewers) and `checkpoint` → `store`.
//!
//! This crate opens no socket and names no JavaScript engine: the edge is `node`, the engine is `scripts`.

mod background;
pub mod blocking;
pub mod checkpoint;
#[cfg(test)]
mod child;
pub mod clock;
mod company;
pub mod crash_point;
mod device;
mod dirty;
pub mod event_loop;
pub mod export;
mod failed_loads;
pub mod fanout;
pub mod fold;
pub mod gather;
pub mod handover;
pub mod idempotency;
pub mod ids;
pub mod inbox;
pub mod journal;
pub mod kept;
pub mod ledger;
pub mod lifetime;
pub mod limits;
mod lock;
mod loop_actor;
pub mod loop_handle;
pub mod loop_sink;
mod open_positions;
pub mod placement;
pub mod reading;
pub mod recovery;
pub mod runtime;
pub mod script;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod submission;
pub mod turn;
