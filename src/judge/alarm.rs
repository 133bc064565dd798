//! The split alarm: the realised split is far from the weights, so something else draws too.

use serde::{Deserialize, Serialize};

use super::sequential::Arms;

/// Odds this far off either way are an alarm, if they are also no chance.
const ODDS_OFF: f64 = 1.2;
/// Standard deviations that chance does not reach: once in 3.5 million looks.
const DEVIATIONS: f64 = 5.0;

/// Requests of a stage by track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCount {
    /// Assigned to the canary.
    pub canary: u64,
    /// Assigned to stable.
    pub stable: u64,
}

impl SplitCount {
    /// The split of requests that all are evidence.
    #[must_use]
    pub fn of(arms: &Arms) -> Self {
        Self { canary: arms.canary.requests, stable: arms.stable.requests }
    }

    /// Whether the split is wrong for the canary's `weight` (0 to 1) beyond doubt. It never rolls
    /// back: a wrong split says nothing of the canary. Not for sticky services, where a few users
    /// make the odds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a stage stay far below 2^52")]
    pub fn is_alarming(self, weight: f64) -> bool {
        if !(0.0 < weight && weight < 1.0) {
            return false;
        }
        let (canary, stable) = (self.canary as f64, self.stable as f64);
        let count = canary + stable;
        let deviation = (canary - weight * count).abs();
        // Odds as products, so that an empty track is no division by zero.
        let (found, expected) = (canary * (1.0 - weight), stable * weight);
        let is_off = found > ODDS_OFF * expected || expected > ODDS_OFF * found;
        is_off && deviation > DEVIATIONS * (count * weight * (1.0 - weight)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_a_ratio_and_its_certainty_are_needed() {
        for (canary, stable, weight, alarming) in [
            (500, 9_500, 0.05, false),
            // Certain, but off by a tenth only.
            (55_000, 945_000, 0.05, false),
            // Off by half, but twenty requests prove nothing.
            (2, 18, 0.05, false),
            (750, 9_250, 0.05, true),
            (0, 1_000, 0.05, true),
            (1_000, 0, 0.5, true),
            (10, 0, 1.0, false),
        ] {
            let count = SplitCount { canary, stable };
            assert_eq!(count.is_alarming(weight), alarming, "{count:?}");
        }
    }
}
