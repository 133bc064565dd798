//! Log-linear histograms of durations, with decimal edges.
//!
//! Edges are decimal rather than powers of two so that every bound Prometheus users write
//! (0.005, 0.25, 2.5 s) is an edge, and cumulative counts at it are exact.

use super::counter::Counter;

/// Buckets of one microsecond each below 100 µs.
const FINE_BUCKETS: usize = 100;
/// Linear buckets per decade above: steps of half a percent to five percent.
const DECADE_BUCKETS: usize = 180;
/// Decades above 100 µs: up to 100 s.
const DECADES: usize = 6;
/// All buckets, the last one for what is longer than 100 s.
const BUCKETS: usize = FINE_BUCKETS + DECADE_BUCKETS * DECADES + 1;

/// The upper edges shown to Prometheus, in microseconds.
pub const EXPOSED_US: [u32; 17] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Durations of one worker by bucket, and their sum.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter]>,
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Counter::default()).collect();
        Self { buckets, sum_ns: Counter::default() }
    }
}

impl Histogram {
    /// Counts a duration of `ns` nanoseconds. Only the owning worker may call this.
    pub fn record(&self, ns: u64) {
        self.buckets[bucket(ns)].increment();
        self.sum_ns.add(ns);
    }
}

/// Histograms of several workers added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    counts: Vec<u64>,
    sum_ns: u64,
}

impl Default for Summary {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], sum_ns: 0 }
    }
}

impl Summary {
    /// Adds what one worker counted.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.counts.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum_ns = self.sum_ns.wrapping_add(histogram.sum_ns.get());
    }

    /// The counts by bucket; [`edge_ns`] has the edges.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.counts.iter().zip(&before.counts);
        Self {
            counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum_ns: self.sum_ns.wrapping_sub(before.sum_ns),
        }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum for display")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// For each of [`EXPOSED_US`], how many durations were no longer: exact.
    #[must_use]
    pub fn cumulative(&self) -> [u64; EXPOSED_US.len()] {
        EXPOSED_US.map(|us| self.counts[..=bucket(u64::from(us) * 1_000)].iter().sum())
    }

    /// The upper edge in nanoseconds of the bucket in which the `quantile` (0 to 1) lies; `None`
    /// without any durations, `u64::MAX` above 100 s.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts stay far below 2^52"
    )]
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * quantile).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        (count > 0).then(|| {
            let found = self.counts.iter().position(|bucket| {
                seen += bucket;
                seen >= rank
            });
            found.map_or(u64::MAX, edge_ns)
        })
    }
}

/// The bucket of a duration: upper edges belong to their bucket, as `le` means it.
fn bucket(ns: u64) -> usize {
    let below = ns.saturating_sub(1) / 1_000;
    let (decade, step) = match below {
        0..100 => return below as usize,
        100..1_000 => (0, 5),
        1_000..10_000 => (1, 50),
        10_000..100_000 => (2, 500),
        100_000..1_000_000 => (3, 5_000),
        1_000_000..10_000_000 => (4, 50_000),
        10_000_000..100_000_000 => (5, 500_000),
        _ => return BUCKETS - 1,
    };
    // A decade starts at 20 steps: 100 µs is 20 steps of 5 µs.
    FINE_BUCKETS + decade * DECADE_BUCKETS + (below / step) as usize - 20
}

/// The largest duration in nanoseconds that falls into `bucket`.
#[must_use]
pub fn edge_ns(bucket: usize) -> u64 {
    if bucket < FINE_BUCKETS {
        return (bucket as u64 + 1) * 1_000;
    }
    let (decade, within) =
        ((bucket - FINE_BUCKETS) / DECADE_BUCKETS, (bucket - FINE_BUCKETS) % DECADE_BUCKETS);
    if decade >= DECADES {
        return u64::MAX;
    }
    let step_us = 5 * 10_u64.pow(u32::try_from(decade).unwrap_or(0));
    (within as u64 + 21) * step_us * 1_000
}

/// Rounds a duration up to the edge of its bucket.
#[must_use]
pub fn round_up_ns(ns: u64) -> u64 {
    edge_ns(bucket(ns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_and_buckets_agree_everywhere() {
        for index in 0..BUCKETS - 1 {
            let edge = edge_ns(index);
            assert_eq!(bucket(edge), index, "the edge belongs to its bucket");
            assert_eq!(bucket(edge + 1), index + 1, "the next nanosecond does not");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn exposed_bounds_are_edges() {
        assert!(EXPOSED_US.is_sorted());
        for us in EXPOSED_US {
            let ns = u64::from(us) * 1_000;
            assert_eq!(round_up_ns(ns), ns, "{us}");
        }
    }

    #[test]
    fn sums_and_quantiles() {
        let histogram = Histogram::default();
        assert_eq!(Summary::default().quantile_ns(0.5), None);
        for ms in 1..=100 {
            histogram.record(ms * 1_000_000);
        }
        let mut summary = Summary::default();
        summary.add(&histogram);
        summary.add(&histogram);
        assert_eq!(summary.count(), 200);
        assert!((summary.sum_seconds() - 10.1).abs() < 1e-9);
        assert_eq!(summary.quantile_ns(0.99), Some(99_000_000));
        assert_eq!(summary.quantile_ns(0.0), Some(1_000_000));
        assert_eq!(summary.quantile_ns(1.0), Some(100_000_000));
        let at = |us: u32| EXPOSED_US.iter().position(|edge| *edge == us).unwrap();
        assert_eq!(summary.cumulative()[at(50_000)], 100);
        assert_eq!(summary.cumulative()[at(30_000_000)], 200);
    }

    proptest! {
        #[test]
        fn rounding_is_up_by_no_more_than_five_percent(ns in 100_000_u64..100_000_000_000) {
            let rounded = round_up_ns(ns);
            prop_assert!(rounded >= ns);
            prop_assert!(rounded - ns <= ns / 20);
        }
    }
}
