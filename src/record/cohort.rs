//! Splits and the cohorts drawn under them: the hot path's only duty to a judge.
//!
//! A worker counts a request into the slot of the split it was drawn under, so a worker that
//! sees a new split late still draws and counts correctly. Events are what is missing: errors are
//! assigned less good, slow ones assigned less fast, so what is unfinished counts by itself.

use std::collections::HashSet;
use std::sync::Arc;

use crate::track::{BUCKETS, TRACKS_MAX, TrackIndex, TrackMap, Weight};

use super::counter::Counter;

/// How many epochs a worker keeps apart. The control side must not publish epoch `e + RING` while
/// it still reads epoch `e`.
pub const RING: u64 = 64;

/// Latency limits of one track in nanoseconds, upper edges included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// The cut at the 99th percentile.
    pub p99_ns: u64,
    /// The cut at the 90th percentile.
    pub p90_ns: u64,
}

impl Default for Cuts {
    /// No limit: everything that answers is fast.
    fn default() -> Self {
        Self { p99_ns: u64::MAX, p90_ns: u64::MAX }
    }
}

/// One published split: weights and latency cuts under an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    epoch: u64,
    weights: TrackMap<Weight>,
    /// Upper ends (exclusive) of the tracks' bucket ranges, in order from bucket 0.
    ranges: Vec<(u16, TrackIndex)>,
    cuts: TrackMap<Cuts>,
    /// Sticky users whose failure has been counted in this stage.
    known: Option<Arc<HashSet<u64>>>,
    /// How long a cohort is waited for: what is unanswered for longer is a failure; 0: nobody waits.
    settle_ns: u64,
    /// Rules that name the first track lead to the second: after a rollback.
    diverted: Option<(TrackIndex, TrackIndex)>,
}

/// Whose requests a slot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Everybody but those below.
    Fresh,
    /// Sticky users whose failure has been counted: their further requests are no independent
    /// evidence.
    Known,
}

impl Split {
    /// A split of `shares`, which sum to all traffic.
    ///
    /// The range of the first share starts at bucket 0 and grows up, the last ends at 9,999; the
    /// caller's order decides who keeps which users when weights change.
    ///
    /// # Panics
    /// When the shares do not sum to 10,000 basis points; configurations are checked before.
    #[must_use]
    pub fn new(epoch: u64, shares: &[(TrackIndex, Weight)]) -> Self {
        let mut split = Self { epoch, ..Self::default() };
        let mut end = 0;
        for &(track, weight) in shares {
            end += weight.basis_points();
            split.weights[track] = weight;
            split.ranges.push((end, track));
        }
        assert_eq!(end, BUCKETS, "the weights of a split sum to 100 percent");
        split
    }

    /// The same split with latency cuts.
    #[must_use]
    pub fn with_cuts(mut self, cuts: TrackMap<Cuts>) -> Self {
        self.cuts = cuts;
        self
    }

    /// The same split with sticky users whose failures are known.
    #[must_use]
    pub fn with_known(mut self, known: Option<Arc<HashSet<u64>>>) -> Self {
        self.known = known;
        self
    }

    /// The same split, whose cohort is waited for so long.
    #[must_use]
    pub fn with_settle(mut self, settle_ns: u64) -> Self {
        self.settle_ns = settle_ns;
        self
    }

    /// The same split, with rules that name `from` leading to `to`.
    #[must_use]
    pub fn with_diverted(mut self, from: TrackIndex, to: TrackIndex) -> Self {
        self.diverted = Some((from, to));
        self
    }

    /// Whether a user's failure is known already.
    #[must_use]
    pub fn users(&self, fingerprint: u64) -> Users {
        let is_known = self.known.as_ref().is_some_and(|known| known.contains(&fingerprint));
        if is_known { Users::Known } else { Users::Fresh }
    }

    /// Where a rule that names `track` leads.
    #[must_use]
    pub fn divert(&self, track: TrackIndex) -> TrackIndex {
        match self.diverted {
            Some((from, to)) if from == track => to,
            _ => track,
        }
    }

    /// The number of this split; each published one is greater than the last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The weight of a track.
    #[must_use]
    pub fn weight(&self, track: TrackIndex) -> Weight {
        self.weights[track]
    }

    /// The latency cuts of a track.
    #[must_use]
    pub fn cuts(&self, track: TrackIndex) -> Cuts {
        self.cuts[track]
    }

    /// How long its cohort is waited for, in nanoseconds; `None` where none is.
    #[must_use]
    pub fn settle_ns(&self) -> Option<u64> {
        (self.settle_ns > 0).then_some(self.settle_ns)
    }

    /// The tracks that it names.
    pub fn tracks(&self) -> impl Iterator<Item = TrackIndex> {
        self.ranges.iter().map(|(_, track)| *track)
    }

    /// Whether both splits send every request to the same track.
    #[must_use]
    pub fn same_weights(&self, other: &Self) -> bool {
        self.ranges == other.ranges && self.diverted == other.diverted
    }

    /// The track that owns `bucket`, 0 to 9,999.
    ///
    /// # Panics
    /// On the empty split that a record has before its first is published.
    #[must_use]
    pub fn pick(&self, bucket: u16) -> TrackIndex {
        let owner = self.ranges.iter().find(|(end, _)| bucket < *end);
        owner.or(self.ranges.last()).expect("a split has a track").1
    }
}

/// What one track did in one cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Weight-assigned requests that are evidence.
    pub assigned: u64,
    /// Of these, ended.
    pub done: u64,
    /// Of these, without an error so far.
    pub good: u64,
    /// Of these, answered within the 99th percentile's cut.
    pub fast99: u64,
    /// Of these, answered within the 90th percentile's cut.
    pub fast90: u64,
    /// Of these, not waiting for the track: answered, ended, or the client still sends.
    pub settled: u64,
    /// Further ones, drawn too, whose end says nothing of the track: they are in no count above.
    pub pardoned: u64,
    /// Of the pardoned, those that we ourselves did not serve.
    pub unserved: u64,
}

impl Counts {
    /// Adds what another worker counted.
    pub fn add(&mut self, other: Self) {
        self.assigned += other.assigned;
        self.done += other.done;
        self.good += other.good;
        self.fast99 += other.fast99;
        self.fast90 += other.fast90;
        self.settled += other.settled;
        self.pardoned += other.pardoned;
        self.unserved += other.unserved;
    }
}

/// One worker's counts of one track and some users in one cohort.
#[derive(Debug, Default)]
struct TrackSlot {
    assigned: Counter,
    done: Counter,
    good: Counter,
    fast99: Counter,
    fast90: Counter,
    settled: Counter,
    /// Of all the above, to be taken out again.
    pardoned: Counter,
    unserved: Counter,
}

/// One worker's ring of cohort slots for one service.
#[derive(Debug)]
pub struct Ring(Box<[Slot]>);

#[derive(Debug, Default)]
struct Slot {
    /// The epoch counted here; 0 is none.
    epoch: Counter,
    tracks: [[TrackSlot; 2]; TRACKS_MAX],
}

impl Default for Ring {
    fn default() -> Self {
        Self((0..RING).map(|_| Slot::default()).collect())
    }
}

impl Ring {
    fn slot(&self, epoch: u64) -> &Slot {
        &self.0[(epoch % RING) as usize]
    }

    /// Worker: counts an assignment, taking the slot over at an epoch's first.
    pub(super) fn assign(&self, drawn: Drawn, track: TrackIndex) {
        let slot = self.slot(drawn.epoch);
        if slot.epoch.get() != drawn.epoch {
            slot.reset(drawn.epoch);
        }
        slot.tracks[track.position()][drawn.users as usize].assigned.increment();
    }

    /// Worker: adds to what the cohort knows of a track; too late for a slot that moved on.
    pub(super) fn note(&self, drawn: Drawn, track: TrackIndex, change: Change) {
        let slot = self.slot(drawn.epoch);
        if slot.epoch.get() != drawn.epoch {
            return;
        }
        let track = &slot.tracks[track.position()][drawn.users as usize];
        for (counter, delta) in [
            (&track.good, change.good),
            (&track.fast99, change.fast99),
            (&track.fast90, change.fast90),
            (&track.settled, change.settled),
            (&track.done, i64::from(change.done)),
            (&track.unserved, i64::from(change.unserved)),
            // The last: whoever sees it sees the request in every count above.
            (&track.pardoned, i64::from(change.pardoned)),
        ] {
            if delta != 0 {
                counter.publish(counter.get().wrapping_add_signed(delta));
            }
        }
    }

    /// Control: what this worker counted for a track under `epoch`.
    ///
    /// Outcomes are read before assignments, so that a request assigned in between is seen as
    /// unfinished rather than as one outcome too many; pardons before both, so that what is taken
    /// out is in.
    #[must_use]
    pub fn read(&self, epoch: u64, track: TrackIndex, users: Users) -> Counts {
        let slot = self.slot(epoch);
        if slot.epoch.acquire() != epoch {
            return Counts::default();
        }
        let counters = &slot.tracks[track.position()][users as usize];
        let pardoned = counters.pardoned.acquire();
        let counted = |counter: &Counter| counter.acquire().saturating_sub(pardoned);
        let mut counts = Counts {
            good: counted(&counters.good),
            fast99: counted(&counters.fast99),
            fast90: counted(&counters.fast90),
            settled: counted(&counters.settled),
            done: counted(&counters.done),
            assigned: 0,
            pardoned,
            unserved: counters.unserved.acquire(),
        };
        counts.assigned = counted(&counters.assigned);
        counts
    }
}

impl Slot {
    fn reset(&self, epoch: u64) {
        for slot in self.tracks.iter().flatten() {
            // Pardons first: they are taken from the others.
            for counter in [
                &slot.pardoned,
                &slot.unserved,
                &slot.good,
                &slot.fast99,
                &slot.fast90,
                &slot.settled,
                &slot.done,
                &slot.assigned,
            ] {
                counter.publish(0);
            }
        }
        self.epoch.publish(epoch);
    }
}

/// Which slot a request is counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) epoch: u64,
    pub(super) users: Users,
}

/// What a request's progress adds to its cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) good: i64,
    pub(super) fast99: i64,
    pub(super) fast90: i64,
    pub(super) settled: i64,
    pub(super) done: bool,
    /// It says nothing of the track and is in every count above.
    pub(super) pardoned: bool,
    /// And we did not serve it.
    pub(super) unserved: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn track(position: usize) -> TrackIndex {
        TrackIndex::new(position).unwrap()
    }

    fn fresh(epoch: u64) -> Drawn {
        Drawn { epoch, users: Users::Fresh }
    }

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).unwrap()
    }

    #[test]
    fn every_bucket_has_the_owner_that_the_weights_say() {
        let split = Split::new(
            1,
            &[(track(1), weight(500)), (track(0), weight(9_300)), (track(2), weight(200))],
        );
        let mut counts = [0; 3];
        for bucket in 0..BUCKETS {
            counts[split.pick(bucket).position()] += 1;
        }
        assert_eq!(counts, [9_300, 500, 200]);
        assert_eq!(split.pick(0), track(1));
        assert_eq!(split.pick(9_999), track(2));
    }

    #[test]
    fn a_track_without_weight_owns_no_bucket() {
        let split = Split::new(1, &[(track(1), Weight::ZERO), (track(0), Weight::FULL)]);
        assert!((0..BUCKETS).all(|bucket| split.pick(bucket) == track(0)));
    }

    #[test]
    fn a_slot_belongs_to_the_last_epoch_that_took_it() {
        let ring = Ring::default();
        ring.assign(fresh(5), track(0));
        ring.note(fresh(5), track(0), Change { good: 1, ..Change::default() });
        assert_eq!(ring.read(5, track(0), Users::Fresh).good, 1);
        ring.assign(fresh(5 + RING), track(0));
        assert_eq!(ring.read(5, track(0), Users::Fresh), Counts::default());
        ring.note(fresh(5), track(0), Change { good: 1, done: true, ..Change::default() });
        let counts = ring.read(5 + RING, track(0), Users::Fresh);
        assert_eq!(counts, Counts { assigned: 1, ..Counts::default() });
    }

    #[test]
    fn what_is_pardoned_is_in_no_other_count() {
        let ring = Ring::default();
        let well = Change {
            good: 1,
            fast99: 1,
            fast90: 1,
            settled: 1,
            done: true,
            pardoned: false,
            unserved: false,
        };
        for pardoned in [false, true, false] {
            ring.assign(fresh(1), track(0));
            ring.note(fresh(1), track(0), Change { pardoned, ..well });
        }
        ring.assign(fresh(1), track(0));
        let two =
            Counts { done: 2, good: 2, fast99: 2, fast90: 2, settled: 2, ..Counts::default() };
        let counts = ring.read(1, track(0), Users::Fresh);
        assert_eq!(counts, Counts { assigned: 3, pardoned: 1, ..two });
    }

    #[test]
    fn outcomes_never_exceed_assignments_while_a_worker_writes() {
        let ring = Ring::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200_000 {
                    ring.assign(fresh(1), track(0));
                    let change = Change {
                        good: 1,
                        fast99: 1,
                        fast90: 1,
                        settled: 1,
                        done: true,
                        pardoned: false,
                        unserved: false,
                    };
                    ring.note(fresh(1), track(0), change);
                }
            });
            loop {
                let counts = ring.read(1, track(0), Users::Fresh);
                assert!(counts.good <= counts.assigned && counts.done <= counts.assigned);
                assert!(counts.fast99 <= counts.assigned && counts.fast90 <= counts.assigned);
                if counts.done == 200_000 {
                    break;
                }
            }
        });
    }

    proptest! {
        #[test]
        fn growing_the_canary_moves_nobody_back(bucket in 0..BUCKETS, a in 0..=BUCKETS, b in 0..=BUCKETS) {
            let (small, large) = (a.min(b), a.max(b));
            let split = |canary| {
                Split::new(1, &[(track(1), weight(canary)), (track(0), weight(BUCKETS - canary))])
            };
            if split(small).pick(bucket) == track(1) {
                prop_assert_eq!(split(large).pick(bucket), track(1));
            }
        }
    }
}
