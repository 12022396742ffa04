//! Fan-out: from a folded state to the dashboards that watch it. Encoded once, shared by all, conflated per viewer.
//!
//! A loop's [`Watchers`] knows who watches its devices; an [`Update`] is the encoded state; a [`Viewer`] is the mailbox of one
//! dashboard connection, on whatever loop that connection lives. A viewer that does not read is conflated and slows nobody.

mod update;
mod viewer;
mod watchers;

pub use update::{Update, encode_event, encode_state};
pub use viewer::{Drained, Filter, Viewer, ViewerLimits};
pub use watchers::Watchers;
