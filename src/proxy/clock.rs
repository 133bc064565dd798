//! The process clock in nanoseconds, and one worker's coarse copy of it.

use std::cell::Cell;
use std::time::Instant;

/// Nanoseconds since the process started; the same on every worker, so that endpoints can share
/// times. Starts at one second: 0 means "never" in shared atomics.
#[derive(Clone, Debug)]
pub struct Clock {
    base: Instant,
    coarse_ns: Cell<u64>,
}

/// Where the clock starts.
const START_NS: u64 = 1_000_000_000;

impl Clock {
    /// A clock that starts now; workers get clones of one.
    #[must_use]
    pub fn new() -> Self {
        Self { base: Instant::now(), coarse_ns: Cell::new(START_NS) }
    }

    /// Reads the clock.
    pub fn now_ns(&self) -> u64 {
        // 584 years fit.
        let elapsed_ns = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        self.coarse_ns.set(START_NS + elapsed_ns);
        START_NS + elapsed_ns
    }

    /// The last reading, at most one sweep old: good enough for deadlines.
    #[must_use]
    pub fn coarse_ns(&self) -> u64 {
        self.coarse_ns.get()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
