//! Sticky users: requests of one user are not independent, so that each user's failure counts
//! once per stage.
//!
//! Judged request by request, five broken clients rolled a good canary back in 22.7 % of the runs
//! of a simulation.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::record::fingerprint::UserFailure;
use crate::track::TrackIndex;

/// Most users that are remembered; more failing users than that are no few broken clients.
const USERS_MAX: usize = 4_096;
/// The span over which the set may cover at most half of stable's requests.
const COVERED_S: f64 = 60.0;

/// Users whose failure has been seen in this stage, of both tracks.
#[derive(Debug, Default)]
pub struct StickyUsers {
    /// What workers are told.
    seen: Arc<HashSet<u64>>,
    /// Users whose failure has counted.
    counted: HashSet<u64>,
    /// Failures of cohorts that are still open.
    failures: HashMap<(u64, TrackIndex), Vec<u64>>,
    /// Seconds, requests of known users on stable, and all of stable's.
    covered: VecDeque<(f64, u64, u64)>,
    /// Failures by user, for whoever asks who they are: the present stage's, bounded.
    blamed: HashMap<u64, u64>,
}

impl StickyUsers {
    /// Takes in failures that workers have reported.
    pub fn report(&mut self, failures: impl Iterator<Item = UserFailure>) {
        let mut fresh = Vec::new();
        for UserFailure { fingerprint, epoch, track } in failures {
            if let Some(count) = self.blamed.get_mut(&fingerprint) {
                *count += 1;
            } else if self.blamed.len() < USERS_MAX {
                self.blamed.insert(fingerprint, 1);
            }
            // Requests of a known user are in no pot, so there is nothing to take out of one.
            if epoch > 0 {
                self.failures.entry((epoch, track)).or_default().push(fingerprint);
                if !self.seen.contains(&fingerprint) {
                    fresh.push(fingerprint);
                }
            }
        }
        if !fresh.is_empty() && self.seen.len() < USERS_MAX {
            let room = USERS_MAX - self.seen.len();
            Arc::make_mut(&mut self.seen).extend(fresh.into_iter().take(room));
        }
    }

    /// What workers shall know; `None` while it is empty.
    #[must_use]
    pub fn known(&self) -> Option<Arc<HashSet<u64>>> {
        (!self.seen.is_empty()).then(|| Arc::clone(&self.seen))
    }

    /// How many of a closing cohort's failures are of users that have counted already.
    pub fn repeated(&mut self, epoch: u64, track: TrackIndex) -> u64 {
        let failures = self.failures.remove(&(epoch, track)).unwrap_or_default();
        let mut repeated = 0;
        for fingerprint in failures {
            let is_new = self.counted.len() >= USERS_MAX || self.counted.insert(fingerprint);
            repeated += u64::from(!is_new);
        }
        repeated
    }

    /// Notes how much of stable's traffic came from known users; forgets them all when that is
    /// more than half within a minute, because then they are the traffic.
    pub fn cover(&mut self, dt_s: f64, of_known: u64, of_all: u64) {
        self.covered.push_back((dt_s, of_known, of_all));
        let length_s = |covered: &VecDeque<(f64, u64, u64)>| -> f64 {
            covered.iter().map(|(dt_s, ..)| dt_s).sum()
        };
        while self.covered.len() > 1 && length_s(&self.covered) - self.covered[0].0 >= COVERED_S {
            self.covered.pop_front();
        }
        let of_known: u64 = self.covered.iter().map(|(_, of_known, _)| of_known).sum();
        let of_all: u64 = self.covered.iter().map(|(.., of_all)| of_all).sum();
        if of_known * 2 > of_all {
            self.forget();
        }
    }

    /// A stage begins: everybody counts again.
    pub fn forget(&mut self) {
        self.seen = Arc::default();
        self.counted.clear();
        self.covered.clear();
        self.blamed.clear();
    }

    /// Cohorts that will never close (a run that ended) leave nothing behind.
    pub fn forget_before(&mut self, epoch: u64) {
        self.failures.retain(|(of, _), _| *of >= epoch);
    }

    /// The users with the most failures in this stage, the most first.
    #[must_use]
    pub fn worst(&self, count: usize) -> Vec<(u64, u64)> {
        let mut users: Vec<(u64, u64)> =
            self.blamed.iter().map(|(user, failures)| (*user, *failures)).collect();
        users.sort_unstable_by_key(|(user, failures)| (std::cmp::Reverse(*failures), *user));
        users.truncate(count);
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(user: u64, epoch: u64) -> UserFailure {
        UserFailure { fingerprint: user, epoch, track: TrackIndex::new(1).unwrap() }
    }

    #[test]
    fn a_user_counts_once_per_stage() {
        let (mut users, track) = (StickyUsers::default(), TrackIndex::new(1).unwrap());
        users.report([failure(7, 1), failure(7, 1), failure(8, 1), failure(7, 2)].into_iter());
        assert_eq!(users.repeated(1, track), 1);
        assert_eq!(users.repeated(2, track), 1);
        assert_eq!(users.repeated(3, track), 0);
        assert_eq!(users.worst(1), [(7, 3)]);
        users.forget();
        assert_eq!(users.known(), None);
        users.report(std::iter::once(failure(7, 4)));
        assert_eq!(users.repeated(4, track), 0);
    }

    #[test]
    fn failures_of_known_users_take_nothing_away_from_others() {
        let (mut users, track) = (StickyUsers::default(), TrackIndex::new(1).unwrap());
        users.report([failure(7, 1), failure(7, 0), failure(7, 0)].into_iter());
        assert_eq!(users.repeated(1, track), 0);
        assert_eq!(users.worst(1), [(7, 3)], "they are told of all the same");
    }

    #[test]
    fn users_that_are_most_of_the_traffic_are_forgotten() {
        let mut users = StickyUsers::default();
        users.report(std::iter::once(failure(7, 1)));
        users.cover(30.0, 40, 100);
        assert!(users.known().is_some());
        users.cover(30.0, 70, 100);
        assert!(users.known().is_none());
    }

    #[test]
    fn the_set_is_bounded() {
        let mut users = StickyUsers::default();
        users.report((0..10_000).map(|user| failure(user, 1)));
        assert_eq!(users.known().unwrap().len(), USERS_MAX);
    }
}
