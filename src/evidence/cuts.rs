//! How fast stable is: a decayed histogram of its latencies alone, and the cuts made of it.
//!
//! Only stable's: a slow canary must not raise the bar that it is held to.

use std::collections::VecDeque;

use crate::record::Cuts;
use crate::record::histogram::{Summary, edge_ns, round_up_ns};

/// After this long a sample counts half.
const HALF_LIFE_S: f64 = 300.0;
/// Decay stops here: at low traffic a half-life of five minutes would never hold a thousand.
const SAMPLES_KEPT: f64 = 2_000.0;
/// Samples without which a 99th percentile says nothing.
const P99_SAMPLES_MIN: f64 = 1_000.0;
/// The same for a 90th: a tenth, because ten times as many samples lie above it.
const P90_SAMPLES_MIN: f64 = 100.0;
/// Least time and greatest time that a cohort is waited for.
pub const SETTLE_MAX_NS: u64 = 60_000_000_000;
/// A cohort waits this many times stable's 99.9th percentile.
const SETTLE_P999: u64 = 4;

/// Stable's latencies.
#[derive(Clone, Debug, Default)]
pub struct StableLatency {
    weights: Vec<f64>,
    /// What the workers had counted when last looked.
    last: Summary,
}

impl StableLatency {
    /// Takes in what the workers have counted by now, `dt_s` after the last time.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn update(&mut self, counted: Summary, dt_s: f64) {
        self.weights.resize(counted.counts().len(), 0.0);
        let total = self.samples();
        let decay = 0.5_f64.powf(dt_s / HALF_LIFE_S).max(SAMPLES_KEPT / total.max(SAMPLES_KEPT));
        let fresh = counted.since(&self.last);
        for (weight, count) in self.weights.iter_mut().zip(fresh.counts()) {
            *weight = *weight * decay + *count as f64;
        }
        self.last = counted;
    }

    /// Forgets everything: stable runs another version now.
    pub fn reset(&mut self) {
        self.weights.clear();
    }

    /// Effective samples.
    #[must_use]
    pub fn samples(&self) -> f64 {
        self.weights.iter().sum()
    }

    /// The upper edge of the bucket in which `quantile` lies, in nanoseconds; `None` with fewer
    /// than `samples_min` effective samples.
    fn quantile_ns(&self, quantile: f64, samples_min: f64) -> Option<u64> {
        let total = self.samples();
        if total < samples_min {
            return None;
        }
        let mut seen = 0.0;
        let bucket = self.weights.iter().position(|weight| {
            seen += weight;
            seen >= total * quantile
        });
        bucket.map(edge_ns).filter(|edge| *edge < u64::MAX)
    }

    /// The cuts of stable and of the canary, whose cut is `ratio` times stable's, but at least
    /// `floor_ns` above it.
    #[must_use]
    pub fn cuts(&self, ratio: f64, floor_ns: u64) -> (Cuts, Cuts) {
        let p99 = self.quantile_ns(0.99, P99_SAMPLES_MIN);
        let p90 = self.quantile_ns(0.90, P90_SAMPLES_MIN);
        let canary =
            |cut: Option<u64>| cut.map_or(u64::MAX, |cut| canary_cut_ns(cut, ratio, floor_ns));
        let stable = |cut: Option<u64>| cut.unwrap_or(u64::MAX);
        (
            Cuts { p99_ns: stable(p99), p90_ns: stable(p90) },
            Cuts { p99_ns: canary(p99), p90_ns: canary(p90) },
        )
    }

    /// How long a cohort is waited for: `least_ns`, or four times stable's 99.9th percentile.
    #[must_use]
    pub fn settle_ns(&self, least_ns: u64) -> u64 {
        let p999 = self.quantile_ns(0.999, P99_SAMPLES_MIN).unwrap_or(0);
        least_ns.max(p999.saturating_mul(SETTLE_P999)).min(SETTLE_MAX_NS.max(least_ns))
    }
}

/// The latencies of both tracks over the last seconds, for threshold mode.
#[derive(Clone, Debug, Default)]
pub struct LatencyWindow {
    /// Seconds since the one before, and what canary and stable had counted by then.
    counted: VecDeque<(f64, [Summary; 2])>,
}

impl LatencyWindow {
    /// Takes in what the workers have counted by now, `dt_s` after the last time.
    pub fn add(&mut self, dt_s: f64, counted: [Summary; 2], window_s: f64) {
        self.counted.push_back((dt_s, counted));
        let length_s = |counted: &VecDeque<(f64, [Summary; 2])>| -> f64 {
            counted.iter().skip(1).map(|(dt_s, _)| dt_s).sum()
        };
        while self.counted.len() > 2 && length_s(&self.counted) - self.counted[1].0 >= window_s {
            self.counted.pop_front();
        }
    }

    /// p99 of canary and stable in nanoseconds, where both were seen.
    #[must_use]
    pub fn p99_ns(&self) -> Option<(u64, u64)> {
        let ((_, first), (_, last)) = (self.counted.front()?, self.counted.back()?);
        let p99 = |track: usize| last[track].since(&first[track]).quantile_ns(0.99);
        Some((p99(0)?, p99(1)?))
    }
}

/// The canary's cut for stable's cut `stable_ns`: rounded up to a bucket's edge, as it is counted.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "durations of minutes"
)]
pub fn canary_cut_ns(stable_ns: u64, ratio: f64, floor_ns: u64) -> u64 {
    let scaled = (stable_ns as f64 * ratio) as u64;
    round_up_ns(scaled.max(stable_ns.saturating_add(floor_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Histogram;

    const MS: u64 = 1_000_000;

    fn summary(histogram: &Histogram) -> Summary {
        let mut summary = Summary::default();
        summary.add(histogram);
        summary
    }

    #[test]
    fn cuts_need_samples_and_lie_above_stable() {
        let (histogram, mut stable) = (Histogram::default(), StableLatency::default());
        for count in 0..1_000_u64 {
            let (cuts, canary) = stable.cuts(1.5, 5 * MS);
            let has_p90 = count >= 100;
            assert_eq!((cuts.p90_ns < u64::MAX, canary.p90_ns < u64::MAX), (has_p90, has_p90));
            assert_eq!(cuts.p99_ns, u64::MAX);
            histogram.record((count % 100 + 1) * MS);
            stable.update(summary(&histogram), 0.0);
        }
        let (cuts, canary) = stable.cuts(1.5, 5 * MS);
        assert_eq!(cuts, Cuts { p99_ns: 99 * MS, p90_ns: 90 * MS });
        assert_eq!(canary, Cuts { p99_ns: 150 * MS, p90_ns: 135 * MS });
        assert_eq!(canary_cut_ns(MS, 1.5, 5 * MS), 6 * MS, "the floor holds for fast services");
        assert_eq!(stable.settle_ns(50 * MS), 400 * MS);
        assert_eq!(stable.settle_ns(2_000 * MS), 2_000 * MS);
    }

    #[test]
    fn decay_halves_in_five_minutes_and_stops_at_two_thousand() {
        let (histogram, mut stable) = (Histogram::default(), StableLatency::default());
        (0..8_000).for_each(|_| histogram.record(MS));
        stable.update(summary(&histogram), 1.0);
        stable.update(summary(&histogram), 300.0);
        assert!((stable.samples() - 4_000.0).abs() < 1e-6);
        stable.update(summary(&histogram), 3_000.0);
        assert!((stable.samples() - 2_000.0).abs() < 1e-6);
    }
}
