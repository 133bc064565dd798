//! What many runs of a scenario come to.

use serde::Serialize;

use super::rollout::{Ended, Outcome};

/// The figures of one scenario. Percentages are of the runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Rolled back.
    pub rollback_pct: f64,
    /// Promoted.
    pub promoted_pct: f64,
    /// Neither within two days.
    pub undecided_pct: f64,
    /// Seconds to promotion, where there was one: median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_sec_p50: Option<f64>,
    /// The same, 95th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote_sec_p95: Option<f64>,
    /// What a bad canary came to.
    #[serde(flatten)]
    pub detection: Option<Detection>,
    /// How many runs.
    pub nrep: usize,
}

/// What a bad canary came to, counted from when it turned bad.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Detection {
    /// Rolled back before it turned bad.
    pub pre_onset_rollback_pct: f64,
    /// Rolled back after.
    pub detected_pct: f64,
    /// Seconds to the rollback: median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sec_p50: Option<f64>,
    /// The same, 95th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sec_p95: Option<f64>,
    /// Requests that the canary had by then: median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_req_p50: Option<f64>,
    /// The same, 95th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_req_p95: Option<f64>,
    /// Requests that had failed by then: median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_req_p50: Option<f64>,
    /// The same, 95th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_req_p95: Option<f64>,
}

impl Figures {
    /// The figures of `outcomes`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a simulation")]
    pub fn of(outcomes: &[Outcome], is_bad: bool) -> Self {
        let share = |test: &dyn Fn(&Outcome) -> bool| {
            let count = outcomes.iter().filter(|outcome| test(outcome)).count();
            count as f64 * 100.0 / outcomes.len().max(1) as f64
        };
        let promoted = sorted(outcomes, |one| (one.ended == Ended::Promoted).then_some(one.time_s));
        let is_detected = |one: &Outcome| one.ended == Ended::RolledBack && one.onset_s.is_some();
        let detected = |value: &dyn Fn(&Outcome) -> f64| {
            sorted(outcomes, |one| is_detected(one).then(|| value(one)))
        };
        let detection = is_bad.then(|| {
            let seconds = detected(&|one| one.time_s - one.onset_s.unwrap_or(0.0));
            let requests = detected(&|one| one.canary_requests as f64);
            let failed = detected(&|one| one.failed_requests as f64);
            Detection {
                pre_onset_rollback_pct: share(&|one| {
                    one.ended == Ended::RolledBack && one.onset_s.is_none()
                }),
                detected_pct: share(&is_detected),
                sec_p50: percentile(&seconds, 0.5),
                sec_p95: percentile(&seconds, 0.95),
                canary_req_p50: percentile(&requests, 0.5),
                canary_req_p95: percentile(&requests, 0.95),
                failed_req_p50: percentile(&failed, 0.5),
                failed_req_p95: percentile(&failed, 0.95),
            }
        });
        Self {
            rollback_pct: share(&|one| one.ended == Ended::RolledBack),
            promoted_pct: share(&|one| one.ended == Ended::Promoted),
            undecided_pct: share(&|one| one.ended == Ended::Undecided),
            promote_sec_p50: percentile(&promoted, 0.5),
            promote_sec_p95: percentile(&promoted, 0.95),
            detection,
            nrep: outcomes.len(),
        }
    }
}

fn sorted(outcomes: &[Outcome], value: impl Fn(&Outcome) -> Option<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = outcomes.iter().filter_map(value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The percentile by linear interpolation between the nearest ranks.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank within the list"
)]
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = share * sorted.len().checked_sub(1)? as f64;
    let (low, part) = (rank.floor() as usize, rank.fract());
    let high = (low + 1).min(sorted.len() - 1);
    Some(sorted[low] + (sorted[high] - sorted[low]) * part)
}
