//! How often a source may ask: a leaky bucket per key, without a lock and in bounded memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that are told apart. Two that share a cell share its rate: with 10,000 active sources
/// one in seven does, and never gets more than its due.
const CELLS: usize = 65_536;
const NANOS: u64 = 1_000_000_000;

/// A rate with its burst, per key (GCRA, ITU-T I.371: each cell holds when its bucket is empty).
#[derive(Debug)]
pub struct RateTable {
    cells: Box<[AtomicU64]>,
    /// What one request costs.
    interval_ns: u64,
    /// How far ahead of the clock a cell may be.
    burst_ns: u64,
}

impl RateTable {
    /// `per_s` requests a second for each key, and `burst` at once.
    #[must_use]
    pub fn new(per_s: u32, burst: u32) -> Self {
        let interval_ns = NANOS / u64::from(per_s.max(1));
        let cells = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
        Self { cells, interval_ns, burst_ns: interval_ns * u64::from(burst.max(1)) }
    }

    /// Whether `key` may ask at `now_ns`.
    #[must_use]
    pub fn admits(&self, key: u64, now_ns: u64) -> bool {
        #[expect(clippy::cast_possible_truncation, reason = "taken modulo the number of cells")]
        let cell = &self.cells[key as usize % CELLS];
        let next = |empty_ns: u64| {
            let empty_ns = empty_ns.max(now_ns) + self.interval_ns;
            (empty_ns - now_ns <= self.burst_ns).then_some(empty_ns)
        };
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_rate_and_burst() {
        let table = RateTable::new(10, 5);
        let admitted = |key, now| (0..100).filter(|_| table.admits(key, now)).count();
        assert_eq!(admitted(1, NANOS), 5);
        assert_eq!(admitted(2, NANOS), 5);
        assert_eq!(admitted(1, NANOS), 0);
        assert_eq!(admitted(1, NANOS + NANOS / 5), 2);
        assert_eq!(admitted(1, 100 * NANOS), 5, "no more than the burst is saved up");
    }

    #[test]
    fn a_steady_asker_gets_the_rate() {
        let table = RateTable::new(100, 1);
        let admitted = (0..10_000).filter(|ms| table.admits(7, NANOS + ms * 1_000_000)).count();
        assert_eq!(admitted, 1_000);
    }
}
