//! How many of a service's requests may be tried again: a share of the traffic and a floor, so
//! that retries mend single failures and never double the load of what is failing as a whole.

use std::cell::Cell;

/// Tries that may be saved up by traffic; enough for a burst, too few for a storm.
const SAVED_MAX: f64 = 100.0;
/// Seconds of the floor that may be saved up beside.
const FLOOR_SAVED_S: f64 = 1.0;

/// One worker's budget for one service.
#[derive(Debug)]
pub struct Budget {
    /// What each request adds.
    share: f64,
    /// What each nanosecond adds, while there is less than the floor's savings.
    floor_per_ns: f64,
    left: Cell<f64>,
    filled_ns: Cell<u64>,
}

impl Budget {
    /// `share` of the requests, 0 to 1, and this worker's part of `floor_per_s` over all
    /// `workers`.
    #[must_use]
    pub fn new(share: f64, floor_per_s: f64, workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).map_or(1.0, f64::from);
        let floor_per_ns = floor_per_s / workers / 1e9;
        let left = Cell::new(floor_per_ns * 1e9 * FLOOR_SAVED_S);
        Self { share, floor_per_ns, left, filled_ns: Cell::new(0) }
    }

    /// A request came.
    pub fn deposit(&self) {
        self.left.set((self.left.get() + self.share).min(SAVED_MAX));
    }

    /// Asks for one try.
    #[must_use]
    pub fn withdraw(&self, now_ns: u64) -> bool {
        let passed_ns = now_ns.saturating_sub(self.filled_ns.replace(now_ns));
        let most = self.floor_per_ns * 1e9 * FLOOR_SAVED_S;
        let mut left = self.left.get();
        if left < most {
            #[expect(clippy::cast_precision_loss, reason = "a budget may be off by a hair")]
            let floor = passed_ns as f64 * self.floor_per_ns;
            left = (left + floor).min(most);
        }
        let is_granted = left >= 1.0;
        self.left.set(if is_granted { left - 1.0 } else { left });
        is_granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_share_of_the_traffic_may_be_tried_again() {
        let budget = Budget::new(0.2, 0.0, 1);
        assert!(!budget.withdraw(S));
        (0..1_000).for_each(|_| budget.deposit());
        let granted = (0..1_000).filter(|_| budget.withdraw(S)).count();
        assert_eq!(granted, 100, "and no more than that is saved up");
        // A failing service with steady traffic: a fifth of it.
        let granted = (0..1_000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw(S)
            })
            .count();
        assert!((199..=200).contains(&granted), "{granted}");
    }

    #[test]
    fn little_traffic_has_the_floor() {
        let budget = Budget::new(0.2, 10.0, 2);
        let granted = |now| (0..100).filter(|_| budget.withdraw(now)).count();
        assert_eq!(granted(S), 5);
        assert_eq!(granted(S), 0);
        assert_eq!(granted(S + S / 2), 2);
        assert_eq!(granted(60 * S), 5);
    }
}
