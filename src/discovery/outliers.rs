//! Which endpoints of a track stand out by their failures, pure: exact counts in, standing out.

use std::collections::VecDeque;

use crate::state::EjectionPolicy;

/// Counts of one endpoint since it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ended.
    pub requests: u64,
    /// Of these, failed.
    pub failures: u64,
    /// Failures in a row by now, on the worker that has the most.
    pub row: u32,
}

/// What is remembered of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct Outlier {
    /// Samples of the window: when, and the counts then.
    samples: VecDeque<(f64, Counts)>,
    ejected_until_s: Option<f64>,
    /// Ejections that are not forgiven yet.
    times: u32,
    /// When the last one ended.
    ended_s: f64,
}

impl Outlier {
    /// Takes the counts of `now_s` and says why the endpoint is to be ejected, if it is.
    pub fn look(&mut self, policy: &EjectionPolicy, now_s: f64, counts: Counts) -> Option<String> {
        while self.samples.front().is_some_and(|(at, _)| now_s - at > policy.window_s) {
            self.samples.pop_front();
        }
        self.samples.push_back((now_s, counts));
        if let Some(until_s) = self.ejected_until_s {
            if now_s < until_s {
                return None;
            }
            self.ejected_until_s = None;
            self.ended_s = now_s;
            // What it did before says nothing of what it does now.
            self.samples.clear();
            self.samples.push_back((now_s, counts));
            return None;
        }
        // As long without as the longest ejection is a clean slate.
        if self.times > 0 && now_s - self.ended_s > policy.max_s {
            self.times = 0;
        }
        let (requests, failures) = self.window();
        if let Some(most) = policy.consecutive
            && counts.row >= most
            && failures > 0
        {
            return Some(format!("{} failures in a row", counts.row));
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds stay far below 2^52")]
        let share = failures as f64 / requests.max(1) as f64;
        let is_bad = policy.failure_share.is_some_and(|most| share >= most);
        (is_bad && requests >= policy.requests_min)
            .then(|| format!("{failures} of its last {requests} requests failed"))
    }

    /// Requests and failures of the window.
    #[must_use]
    pub fn window(&self) -> (u64, u64) {
        let (Some((_, first)), Some((_, last))) = (self.samples.front(), self.samples.back())
        else {
            return (0, 0);
        };
        (last.requests - first.requests, last.failures - first.failures)
    }

    /// Ejects it from `now_s` on.
    pub fn eject(&mut self, policy: &EjectionPolicy, now_s: f64) {
        self.times += 1;
        let lasts_s = (policy.base_s * f64::from(self.times)).min(policy.max_s);
        self.ejected_until_s = Some(now_s + lasts_s);
    }

    /// Whether it is ejected.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until_s.is_some()
    }
}

/// The endpoint that most of a track's failures are of, if one is: its position, its failures and
/// the track's, of at least [`BLAMED_MIN`].
#[must_use]
pub fn blamed(windows: &[(u64, u64)]) -> Option<(usize, u64, u64)> {
    let all: u64 = windows.iter().map(|(_, failures)| failures).sum();
    let worst = windows.iter().enumerate().max_by_key(|(_, (_, failures))| *failures);
    let (position, (_, failures)) = worst?;
    let stands_out = windows.len() > 1 && *failures >= BLAMED_MIN && failures * 5 >= all * 4;
    stands_out.then_some((position, *failures, all))
}

/// Fewer failures than this are no pattern.
pub const BLAMED_MIN: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> EjectionPolicy {
        EjectionPolicy {
            consecutive: Some(5),
            failure_share: Some(0.5),
            requests_min: 20,
            window_s: 10.0,
            base_s: 30.0,
            max_s: 100.0,
        }
    }

    fn counts(requests: u64, failures: u64, row: u32) -> Counts {
        Counts { requests, failures, row }
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time() {
        let (policy, mut outlier) = (policy(), Outlier::default());
        assert_eq!(outlier.look(&policy, 0.0, counts(0, 0, 0)), None);
        assert_eq!(outlier.look(&policy, 1.0, counts(4, 4, 4)), None);
        let mut now = 2.0;
        for (time, lasts) in [30.0, 60.0, 90.0, 100.0, 100.0].into_iter().enumerate() {
            let bad = counts(10 + time as u64 * 10, 10 + time as u64 * 10, 5);
            assert!(outlier.look(&policy, now, bad).is_some(), "{time}");
            outlier.eject(&policy, now);
            assert_eq!(outlier.look(&policy, now + lasts - 0.1, bad), None);
            assert!(outlier.is_ejected(), "{time}");
            assert_eq!(outlier.look(&policy, now + lasts, bad), None, "a fresh chance");
            assert!(!outlier.is_ejected(), "{time}");
            now += lasts + 1.0;
        }
        // A long time without is forgiven.
        assert_eq!(outlier.look(&policy, now + 200.0, counts(100, 60, 0)), None);
        outlier.eject(&policy, now + 200.0);
        outlier.look(&policy, now + 230.0, counts(100, 60, 0));
        assert!(!outlier.is_ejected());
    }

    #[test]
    fn a_share_of_failures_needs_enough_requests_within_the_window() {
        let (policy, mut outlier) = (policy(), Outlier::default());
        outlier.look(&policy, 0.0, counts(1_000, 0, 0));
        assert_eq!(outlier.look(&policy, 5.0, counts(1_019, 19, 0)), None, "19 are too few");
        assert!(outlier.look(&policy, 6.0, counts(1_030, 20, 0)).is_some());
        assert_eq!(outlier.look(&policy, 6.0, counts(1_100, 20, 0)), None, "20 of 100");
        assert_eq!(outlier.look(&policy, 60.0, counts(1_100, 20, 0)), None, "long ago");
    }

    #[test]
    fn one_endpoint_is_blamed_for_what_is_mostly_its_own() {
        assert_eq!(blamed(&[(100, 1), (100, 40), (100, 0)]), Some((1, 40, 41)));
        assert_eq!(blamed(&[(100, 20), (100, 40)]), None, "it is both");
        assert_eq!(blamed(&[(100, 0), (100, 4)]), None, "too few");
        assert_eq!(blamed(&[(100, 50)]), None, "it is alone");
    }
}
