//! A bounded queue of sticky users' failures, one writer to one reader.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::Counter;

/// Most fingerprints that wait for the control thread: 4,096 failures per worker and tick are far
/// past every verdict.
pub const QUEUE_MAX: usize = 4_096;

/// Failures of sticky users that the control thread has not read yet.
#[derive(Debug)]
pub struct Fingerprints {
    slots: Box<[AtomicU64]>,
    /// Written by the worker: how many were pushed.
    pushed: AtomicU64,
    /// Written by the reader: how many were taken.
    taken: AtomicU64,
    dropped: Counter,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self {
            slots: (0..QUEUE_MAX).map(|_| AtomicU64::new(0)).collect(),
            pushed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            dropped: Counter::default(),
        }
    }
}

impl Fingerprints {
    #[expect(clippy::cast_possible_truncation, reason = "below QUEUE_MAX")]
    fn slot(&self, position: u64) -> &AtomicU64 {
        &self.slots[(position % QUEUE_MAX as u64) as usize]
    }

    /// Worker: adds a fingerprint, or counts it as dropped when the queue is full.
    pub fn push(&self, fingerprint: u64) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        if pushed - self.taken.load(Ordering::Acquire) >= QUEUE_MAX as u64 {
            self.dropped.increment();
            return;
        }
        self.slot(pushed).store(fingerprint, Ordering::Relaxed);
        self.pushed.store(pushed + 1, Ordering::Release);
    }

    /// Reader: takes the oldest fingerprint.
    pub fn pop(&self) -> Option<u64> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.pushed.load(Ordering::Acquire) {
            return None;
        }
        let fingerprint = self.slot(taken).load(Ordering::Relaxed);
        self.taken.store(taken + 1, Ordering::Release);
        Some(fingerprint)
    }

    /// How many found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_the_bound_holds() {
        let queue = Fingerprints::default();
        for round in 0..3 {
            for value in 0..QUEUE_MAX as u64 + 5 {
                queue.push(value);
            }
            for value in 0..QUEUE_MAX as u64 {
                assert_eq!(queue.pop(), Some(value));
            }
            assert_eq!(queue.pop(), None);
            assert_eq!(queue.dropped(), 5 * (round + 1));
        }
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let queue = Fingerprints::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=100_000).for_each(|value| queue.push(value)));
            let (mut last, mut count) = (0, 0);
            while count + queue.dropped() < 100_000 {
                if let Some(value) = queue.pop() {
                    assert!(value > last);
                    (last, count) = (value, count + 1);
                }
            }
        });
    }
}
