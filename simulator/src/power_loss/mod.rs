//! A disk that forgets what was not synced when its power goes, as real disks do.
//!
//! `content` is one file: what a reader sees, and what is durable. `disk` is a tree of them, with names that are durable or
//! not. `fuse` mounts it, so that a process which knows nothing of it works on it. Chance comes from a seed; the first
//! two do no I/O.

mod content;
mod disk;
#[cfg(target_os = "linux")]
mod fuse;

pub(crate) use disk::Disk;
#[cfg(target_os = "linux")]
pub(crate) use fuse::Mount;
