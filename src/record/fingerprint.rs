//! A bounded queue of sticky users' failures, one writer to one reader.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::track::{TRACKS_MAX, TrackIndex};

use super::counter::Counter;

/// Most fingerprints that wait for the control thread: 4,096 failures per worker and tick are far
/// past every verdict.
pub const QUEUE_MAX: usize = 4_096;

/// One failure of a sticky user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserFailure {
    /// Tells the user apart.
    pub fingerprint: u64,
    /// The cohort that the request was drawn in; 0 where the user was known to fail already.
    pub epoch: u64,
    /// Its track.
    pub track: TrackIndex,
}

/// Failures of sticky users that the control thread has not read yet.
#[derive(Debug)]
pub struct Fingerprints {
    /// The fingerprint; the epoch times [`TRACKS_MAX`] plus the track.
    slots: Box<[[AtomicU64; 2]]>,
    /// Written by the worker: how many were pushed.
    pushed: AtomicU64,
    /// Written by the reader: how many were taken.
    taken: AtomicU64,
    dropped: Counter,
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self {
            slots: (0..QUEUE_MAX).map(|_| Default::default()).collect(),
            pushed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            dropped: Counter::default(),
        }
    }
}

impl Fingerprints {
    #[expect(clippy::cast_possible_truncation, reason = "below QUEUE_MAX")]
    fn slot(&self, position: u64) -> &[AtomicU64; 2] {
        &self.slots[(position % QUEUE_MAX as u64) as usize]
    }

    /// Worker: adds a failure, or counts it as dropped when the queue is full.
    pub fn push(&self, failure: UserFailure) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        if pushed - self.taken.load(Ordering::Acquire) >= QUEUE_MAX as u64 {
            self.dropped.increment();
            return;
        }
        let [fingerprint, place] = self.slot(pushed);
        fingerprint.store(failure.fingerprint, Ordering::Relaxed);
        let drawn = failure.epoch * TRACKS_MAX as u64 + failure.track.position() as u64;
        place.store(drawn, Ordering::Relaxed);
        self.pushed.store(pushed + 1, Ordering::Release);
    }

    /// Reader: takes the oldest failure.
    #[expect(clippy::cast_possible_truncation, reason = "below TRACKS_MAX")]
    pub fn pop(&self) -> Option<UserFailure> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.pushed.load(Ordering::Acquire) {
            return None;
        }
        let [fingerprint, drawn] =
            self.slot(taken).each_ref().map(|word| word.load(Ordering::Relaxed));
        self.taken.store(taken + 1, Ordering::Release);
        let track = TrackIndex::new((drawn % TRACKS_MAX as u64) as usize)?;
        Some(UserFailure { fingerprint, epoch: drawn / TRACKS_MAX as u64, track })
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

    fn failure(value: u64) -> UserFailure {
        let track = TrackIndex::new((value % 8) as usize).unwrap();
        UserFailure { fingerprint: value, epoch: value + 1, track }
    }

    #[test]
    fn order_is_kept_and_the_bound_holds() {
        let queue = Fingerprints::default();
        for round in 0..3 {
            for value in 0..QUEUE_MAX as u64 + 5 {
                queue.push(failure(value));
            }
            for value in 0..QUEUE_MAX as u64 {
                assert_eq!(queue.pop(), Some(failure(value)));
            }
            assert_eq!(queue.pop(), None);
            assert_eq!(queue.dropped(), 5 * (round + 1));
        }
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let queue = Fingerprints::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=100_000).for_each(|value| queue.push(failure(value))));
            let (mut last, mut count) = (0, 0);
            while count + queue.dropped() < 100_000 {
                if let Some(found) = queue.pop() {
                    assert_eq!(found, failure(found.fingerprint));
                    assert!(found.fingerprint > last);
                    (last, count) = (found.fingerprint, count + 1);
                }
            }
        });
    }
}
