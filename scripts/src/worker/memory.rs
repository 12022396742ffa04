//! The memory of a worker: when to collect, and when it has grown too large to go on.
//!
//! Boa's collector counts only its own boxes: the elements of arrays, strings and buffers are invisible to it. So the worker looks
//! at the process's resident memory between calls and collects when it has grown.

use std::{cell::Cell, fs::File, os::unix::fs::FileExt};

/// Growth of the resident memory that starts a collection.
const GROWTH_BYTES: u64 = 16 * 1024 * 1024;
/// Calls between two looks at the resident memory.
const CALLS: u32 = 64;
/// Buffers between two looks at the resident memory.
const BUFFERS: u32 = 16;
/// Of the heap's limit: beyond, after a collection, the worker retires.
const RETIRE_PERCENT: u64 = 75;
/// Bytes of a page on the machines that this runs on; a larger page only makes it look earlier.
const PAGE_BYTES: u64 = 4_096;

/// Bytes that the collector lets come together between two collections, at least. A collection traces what all contexts hold: at the
/// 1 MB that it begins with, it would be a fifth of the work of a worker with eight handlers. Much more only makes the worker larger.
const ROOM_BYTES: u64 = 4 * 1024 * 1024;
/// The room is at most this part of the heap.
const ROOM_PART: u64 = 8;
/// Bytes that one piece of ballast has.
const BALLAST: usize = 512 * 1024;

/// Watches over the worker's memory.
#[derive(Debug)]
pub(super) struct Memory {
    statm: Statm,
    heap_bytes: u64,
    /// Resident memory before the scripts ran.
    base: Cell<u64>,
    /// Resident memory after the last collection.
    settled: Cell<u64>,
    calls: Cell<u32>,
    buffers: Cell<u32>,
}

impl Memory {
    pub(super) fn new(heap_bytes: u64) -> Self {
        let statm = Statm::open();
        let now = statm.resident_bytes();
        Self {
            statm,
            heap_bytes,
            base: Cell::new(now),
            settled: Cell::new(now),
            calls: Cell::new(0),
            buffers: Cell::new(0),
        }
    }

    /// After a call; `slow`: it ran long enough to have made much.
    pub(super) fn on_call(&self, slow: bool) {
        self.calls.set(self.calls.get() + 1);
        if slow || self.calls.get() >= CALLS {
            self.calls.set(0);
            self.look();
        }
    }

    /// Before a buffer is made.
    pub(super) fn on_buffer(&self) {
        self.buffers.set(self.buffers.get() + 1);
        if self.buffers.get() >= BUFFERS {
            self.buffers.set(0);
            self.look();
        }
    }

    /// Has the worker grown too large, for all that was collected?
    pub(super) fn is_spent(&self) -> bool {
        self.settled.get().saturating_sub(self.base.get()) > self.heap_bytes / 100 * RETIRE_PERCENT
    }

    /// Gives the collector room. Boa's has no setting for it, but never lowers the threshold that it once came to: so it is given
    /// ballast, which is dropped again.
    pub(super) fn leave_room(&self) {
        let room = ROOM_BYTES.min(self.heap_bytes / ROOM_PART);
        let pieces = usize::try_from(room).unwrap_or(0) / BALLAST;
        let ballast: Vec<_> = (0..pieces).map(|_| boa_gc::Gc::new([0_u8; BALLAST])).collect();
        drop(ballast);
        boa_gc::force_collect();
    }

    fn look(&self) {
        let resident = self.statm.resident_bytes();
        if resident > self.settled.get() + GROWTH_BYTES {
            boa_gc::force_collect();
            self.settled.set(self.statm.resident_bytes());
        } else {
            self.settled.set(self.settled.get().min(resident));
        }
    }
}

/// What the kernel says of this process's size. It is opened once: behind the walls nothing can be opened any more.
#[derive(Debug)]
struct Statm(Option<File>);

impl Statm {
    fn open() -> Self {
        Self(File::open("/proc/self/statm").ok())
    }

    /// The resident memory; 0 if the kernel does not say.
    fn resident_bytes(&self) -> u64 {
        self.bytes(1)
    }

    /// proc(5): sizes in pages, between blanks.
    fn bytes(&self, field: usize) -> u64 {
        let mut text = [0_u8; 128];
        let read = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        text.split(' ').nth(field).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
    }
}

/// The address space of this process; 0 if the kernel does not say.
pub(super) fn virtual_bytes() -> u64 {
    Statm::open().bytes(0)
}

/// The resident memory of this process; 0 if the kernel does not say.
#[cfg(test)]
pub(super) fn resident_bytes() -> u64 {
    Statm::open().resident_bytes()
}
