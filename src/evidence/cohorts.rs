//! Cohorts: the requests drawn under one split, closed strictly in the order of assignment.
//!
//! Counting at completion instead would compare fast failures of one track with the slow ones of
//! the other that have not happened yet.

use std::collections::VecDeque;

use crate::judge::alarm::SplitCount;
use crate::judge::{Arm, Arms};
use crate::record::{Counts, Users};
use crate::track::Weight;

/// Cohorts that may be open at a time: well below the ring, so that no worker's slot is taken over
/// while it is still read, and above the 32 ticks that a settle time holds.
pub const OPEN_MAX: usize = 40;

const _: () = assert!((OPEN_MAX as u64) < crate::record::cohort::RING);

/// One split's cohort while it is open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open {
    /// The split's epoch.
    pub epoch: u64,
    /// The canary's weight.
    pub weight: Weight,
    /// The machine's mark.
    pub mark: u64,
    /// Whether each latency cut was known.
    pub has_cut: [bool; 2],
    /// When it was published, in nanoseconds of the process clock.
    pub opened_ns: u64,
    /// When the next one was.
    pub superseded_ns: Option<u64>,
}

/// What both tracks' workers counted in one cohort, by user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The canary: fresh users, known ones.
    pub canary: [Counts; 2],
    /// Stable: fresh users, known ones.
    pub stable: [Counts; 2],
}

/// A cohort that will not be looked at again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closed {
    /// What it was.
    pub open: Open,
    /// How long requests were assigned to it, in seconds.
    pub dt_s: f64,
    /// What it showed.
    pub seen: Seen,
}

/// The cohorts that are open, oldest first.
#[derive(Debug, Default)]
pub struct Cohorts(VecDeque<Open>);

impl Cohorts {
    /// A split was published.
    pub fn opened(&mut self, open: Open) {
        if let Some(last) = self.0.back_mut() {
            last.superseded_ns = Some(open.opened_ns);
        }
        self.0.push_back(open);
    }

    /// Every open cohort, oldest first; the last one is still being assigned to.
    pub fn all(&self) -> impl Iterator<Item = &Open> {
        self.0.iter()
    }

    /// The epoch of the oldest one; 0 without any.
    #[must_use]
    pub fn oldest_epoch(&self) -> u64 {
        self.0.front().map_or(0, |open| open.epoch)
    }

    /// Whether another split may be published.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.len() < OPEN_MAX
    }

    /// Closes the oldest cohort if it is superseded and everything in it is done, or `settle_ns`
    /// have passed since.
    #[expect(clippy::cast_precision_loss, reason = "seconds of one tick")]
    pub fn close(
        &mut self,
        now_ns: u64,
        settle_ns: u64,
        read: impl FnOnce(&Open) -> Seen,
    ) -> Option<Closed> {
        let open = *self.0.front()?;
        let superseded_ns = open.superseded_ns?;
        let seen = read(&open);
        let is_done = seen.all().all(|counts| counts.done == counts.assigned);
        if !is_done && now_ns < superseded_ns.saturating_add(settle_ns) {
            return None;
        }
        self.0.pop_front();
        let dt_s = superseded_ns.saturating_sub(open.opened_ns) as f64 / 1e9;
        Some(Closed { open, dt_s, seen })
    }

    /// Forgets every cohort but the current one.
    pub fn forget(&mut self) {
        let keep = self.0.len().min(1);
        self.0.drain(..self.0.len() - keep);
    }
}

impl Seen {
    /// The counts of both tracks, read with `read`.
    #[must_use]
    pub fn read(read: impl Fn(bool, Users) -> Counts) -> Self {
        let both = |is_canary| [Users::Fresh, Users::Known].map(|users| read(is_canary, users));
        Self { canary: both(true), stable: both(false) }
    }

    fn all(&self) -> impl Iterator<Item = &Counts> {
        self.canary.iter().chain(&self.stable)
    }

    /// What fresh users showed: the pots' evidence, before repeated failures are taken out.
    #[must_use]
    pub fn fresh(&self) -> Arms {
        Arms { canary: arm(&self.canary[0]), stable: stable_arm(&self.stable[0]) }
    }

    /// What everybody showed.
    #[must_use]
    pub fn everybody(&self) -> Arms {
        let mut arms = self.fresh();
        arms.add(Arms { canary: arm(&self.canary[1]), stable: stable_arm(&self.stable[1]) });
        arms
    }

    /// How many requests were drawn for the canary and for stable, whatever they showed.
    #[must_use]
    pub fn drawn(&self) -> SplitCount {
        let sum = |counts: &[Counts]| counts.iter().map(|one| one.assigned + one.pardoned).sum();
        SplitCount { canary: sum(&self.canary), stable: sum(&self.stable) }
    }

    /// Stable's requests that are still waited for.
    #[must_use]
    pub fn stable_unfinished(&self) -> u64 {
        self.stable.iter().map(|counts| counts.assigned.saturating_sub(counts.settled)).sum()
    }

    /// The least that this cohort of fresh users can turn out to speak against the canary when it
    /// closes: only what has ended badly counts on the canary, and everything that may still end
    /// badly counts on stable.
    #[must_use]
    pub fn least(&self) -> Arms {
        let [canary, stable] = [&self.canary[0], &self.stable[0]];
        let ended = |counts: &Counts, well: u64| counts.done.saturating_sub(well);
        // Of those done, at least `done + well - assigned` went well.
        let open = |counts: &Counts, well: u64| {
            counts.unserved + counts.assigned
                - (counts.done + well).saturating_sub(counts.assigned).min(counts.assigned)
        };
        Arms {
            canary: Arm {
                requests: canary.assigned,
                errors: ended(canary, canary.good),
                slow: [ended(canary, canary.fast99), ended(canary, canary.fast90)],
            },
            stable: Arm {
                requests: stable.assigned,
                errors: open(stable, stable.good),
                slow: [open(stable, stable.fast99), open(stable, stable.fast90)],
            },
        }
    }
}

/// What stable did not get to serve by our own limits might all have been events. Without them its
/// events would be fewer than its weight says, and the canary's look many.
fn stable_arm(counts: &Counts) -> Arm {
    let (served, unserved) = (arm(counts), counts.unserved);
    Arm {
        requests: served.requests + unserved,
        errors: served.errors + unserved,
        slow: served.slow.map(|slow| slow + unserved),
    }
}

/// Events are what is missing.
fn arm(counts: &Counts) -> Arm {
    let missing = |count: u64| counts.assigned.saturating_sub(count);
    Arm {
        requests: counts.assigned,
        errors: missing(counts.good),
        slow: [missing(counts.fast99), missing(counts.fast90)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(epoch: u64, opened_ns: u64) -> Open {
        Open {
            epoch,
            weight: Weight::ZERO,
            mark: 1,
            has_cut: [true; 2],
            opened_ns,
            superseded_ns: None,
        }
    }

    fn seen(assigned: u64, done: u64, good: u64) -> Seen {
        let counts = Counts { assigned, done, good, settled: done, ..Counts::default() };
        Seen { stable: [counts, Counts::default()], ..Seen::default() }
    }

    #[test]
    fn cohorts_close_in_order_when_done_or_settled() {
        let mut cohorts = Cohorts::default();
        cohorts.opened(open(1, 0));
        assert_eq!(cohorts.close(99, 10, |_| seen(0, 0, 0)), None, "nothing supersedes it");
        cohorts.opened(open(2, 100));
        cohorts.opened(open(3, 200));
        assert_eq!(cohorts.close(105, 10, |_| seen(5, 4, 4)), None, "one is under way");
        let closed = cohorts.close(110, 10, |_| seen(5, 4, 4)).unwrap();
        assert_eq!((closed.open.epoch, closed.seen.stable_unfinished()), (1, 1));
        assert_eq!(closed.seen.everybody().stable.errors, 1, "what is missing is an error");
        let closed = cohorts.close(201, 10, |open| seen(open.epoch, open.epoch, 0)).unwrap();
        assert_eq!((closed.open.epoch, closed.seen.fresh().stable.errors), (2, 2));
    }

    #[test]
    fn what_stable_could_not_serve_never_speaks_against_the_canary() {
        let counts = Counts {
            assigned: 10,
            done: 10,
            good: 9,
            pardoned: 5,
            unserved: 4,
            ..Counts::default()
        };
        let seen = Seen { canary: [counts; 2], stable: [counts; 2] };
        let arms = seen.fresh();
        assert_eq!((arms.canary.requests, arms.canary.errors), (10, 1));
        assert_eq!((arms.stable.requests, arms.stable.errors), (14, 5));
        assert_eq!((seen.least().canary.errors, seen.least().stable.errors), (1, 5));
        assert_eq!(seen.drawn().stable, 30);
    }

    #[test]
    fn the_least_is_never_more_than_what_it_turns_out_to_be() {
        // Ten requests; any of them may be good and done, good and open, bad and done, or open.
        for (done_good, good_open, bad_done) in (0..=10)
            .flat_map(|a| (0..=10 - a).flat_map(move |b| (0..=10 - a - b).map(move |c| (a, b, c))))
        {
            let counts = Counts {
                assigned: 10,
                done: done_good + bad_done,
                good: done_good + good_open,
                ..Counts::default()
            };
            let one = [counts, Counts::default()];
            let least = Seen { canary: one, stable: one }.least();
            assert!(least.canary.errors <= bad_done);
            assert!(least.stable.errors >= 10 - done_good);
        }
    }
}
