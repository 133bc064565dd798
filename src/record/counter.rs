//! A counter with one writer: a plain load and store, no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts events of one worker; any thread may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning worker may call this: two writers would lose counts.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Replaces the count and publishes every store made before it (Release).
    pub(super) fn publish(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// The count, with every store that its writer made before it (Acquire).
    pub(super) fn acquire(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
