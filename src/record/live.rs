//! `Live`: the one meeting place of data plane and control plane, per service, by name.
//!
//! Split and health go down, outcomes come up. It survives reloads, so that counters go on and a
//! changed file never loses evidence.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;

use crate::track::{TRACKS_MAX, TrackIndex, TrackMap, Weight};

use super::cohort::{Counts, Drawn, Ring, Split, Users};
use super::counter::Counter;
use super::fault::Pardon;
use super::fingerprint::Fingerprints;
use super::histogram::Histogram;
use super::outcome::Outcome;

/// Why a request went to its track; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A fresh draw by weight.
    Weight,
    /// A rule matched.
    Rule,
    /// A draw by the user's own bucket.
    Sticky,
}

impl Reason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Weight, Self::Rule, Self::Sticky];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Rule => "rule",
            Self::Sticky => "sticky",
        }
    }

    /// Whether the draw followed the weights, which makes its outcome evidence.
    #[must_use]
    pub const fn is_evidence(self) -> bool {
        matches!(self, Self::Weight | Self::Sticky)
    }
}

/// The lowest status code that is counted; the highest is 999.
pub const STATUS_MIN: u16 = 100;
const STATUSES: usize = 900;
/// From OK to UNAUTHENTICATED.
const GRPC_STATUSES: usize = 17;
/// How many reasons there are for not passing an answer on.
pub const ANSWER_FAULTS: usize = 8;

/// What one worker counted for one track.
#[derive(Debug)]
pub struct TrackShard {
    assigned: [Counter; Reason::ALL.len()],
    statuses: Box<[Counter]>,
    /// Whole requests, from the head's first byte read to the last byte written.
    pub durations: Histogram,
    /// Requests that are evidence, from sent upstream to the response head.
    pub latencies: Histogram,
    /// Requests that another track answered.
    pub failed_over: Counter,
    /// Retries that were answered by the upstream.
    pub retries_answered: Counter,
    /// Retries that failed too.
    pub retries_failed: Counter,
    /// Retries that the budget had no room for.
    pub retries_over_budget: Counter,
    /// Failed requests that another track was asked to answer.
    pub rescued: Counter,
    /// Requests beyond what the track may have under way.
    pub shed: Counter,
    /// Requests for which no connection was free in time.
    pub exhausted: Counter,
    /// Copies of other tracks' requests that it answered without an error.
    pub mirrored_answered: Counter,
    /// Copies that it answered with an error, or not at all.
    pub mirrored_failed: Counter,
    /// Copies that were not made, by their bounds.
    pub mirrored_dropped: Counter,
    /// Tunnels and event streams that have ended.
    pub streams: Counter,
    /// How long these lasted together, in nanoseconds, from their heads on.
    pub streams_ns: Counter,
    /// Answers that were not passed on, by the reason's position.
    pub answers_refused: [Counter; ANSWER_FAULTS],
    /// Ends that were not the upstream's fault, by why.
    pardoned: [Counter; Pardon::COUNT],
    grpc: [Counter; GRPC_STATUSES],
}

impl Default for TrackShard {
    fn default() -> Self {
        Self {
            assigned: Default::default(),
            statuses: (0..STATUSES).map(|_| Counter::default()).collect(),
            durations: Histogram::default(),
            latencies: Histogram::default(),
            failed_over: Counter::default(),
            retries_answered: Counter::default(),
            retries_failed: Counter::default(),
            retries_over_budget: Counter::default(),
            rescued: Counter::default(),
            shed: Counter::default(),
            exhausted: Counter::default(),
            mirrored_answered: Counter::default(),
            mirrored_failed: Counter::default(),
            mirrored_dropped: Counter::default(),
            streams: Counter::default(),
            streams_ns: Counter::default(),
            answers_refused: Default::default(),
            pardoned: Default::default(),
            grpc: Default::default(),
        }
    }
}

impl TrackShard {
    pub(super) fn count_assigned(&self, reason: Reason) {
        self.assigned[reason as usize].increment();
    }

    pub(super) fn count_status(&self, status: u16) {
        let position = usize::from(status.saturating_sub(STATUS_MIN)).min(STATUSES - 1);
        self.statuses[position].increment();
    }

    pub(super) fn count_pardon(&self, reason: Pardon) {
        self.pardoned[reason as usize].increment();
    }

    pub(super) fn count_grpc(&self, status: u8) {
        self.grpc[usize::from(status).min(GRPC_STATUSES - 1)].increment();
    }

    /// How many requests ended by `reason`, which is not the upstream's fault.
    #[must_use]
    pub fn pardoned(&self, reason: Pardon) -> u64 {
        self.pardoned[reason as usize].get()
    }

    /// How many calls of gRPC ended with each status, from 0 (OK) to 16.
    pub fn grpc(&self) -> impl Iterator<Item = u64> {
        self.grpc.iter().map(Counter::get)
    }

    /// How many requests were assigned for `reason`.
    #[must_use]
    pub fn assigned(&self, reason: Reason) -> u64 {
        self.assigned[reason as usize].get()
    }

    /// How many requests ended with `status`, 100 to 999.
    #[must_use]
    pub fn status(&self, status: u16) -> u64 {
        self.statuses[usize::from(status - STATUS_MIN)].get()
    }
}

/// What one worker counted for one service.
#[derive(Debug, Default)]
pub struct Shard {
    tracks: TrackMap<OnceLock<Arc<TrackShard>>>,
    ring: Ring,
    /// Failures of sticky users.
    pub fingerprints: Fingerprints,
    /// Requests that rules had an answer for.
    pub answered: Counter,
    /// Requests that came too often.
    pub limited: Counter,
}

impl Shard {
    /// The counters of a track; made at first use.
    pub fn track(&self, track: TrackIndex) -> &Arc<TrackShard> {
        self.tracks[track].get_or_init(Arc::default)
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// One service's split and counts.
#[derive(Debug)]
pub struct Live {
    name: Box<str>,
    /// Control side only: names in the order of their index.
    tracks: Mutex<Vec<Box<str>>>,
    split: ArcSwap<Split>,
    shards: Box<[Arc<Shard>]>,
    evictions: TrackMap<Eviction>,
}

/// The last time that a track's open requests were told to end.
#[derive(Debug, Default)]
struct Eviction {
    /// Requests that started up to now are meant, in nanoseconds of the process clock; 0: none.
    before_ns: AtomicU64,
    /// When they must have ended.
    due_ns: AtomicU64,
}

impl Live {
    /// A record for the service `name`, written by `workers` workers.
    #[must_use]
    pub fn new(name: &str, workers: usize) -> Self {
        Self {
            name: name.into(),
            tracks: Mutex::default(),
            split: ArcSwap::default(),
            shards: (0..workers).map(|_| Arc::default()).collect(),
            evictions: TrackMap::default(),
        }
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The index of a track, given out at its first mention; `None` when all are taken.
    ///
    /// # Panics
    /// When another thread panicked in here.
    #[must_use]
    pub fn track(&self, name: &str) -> Option<TrackIndex> {
        let mut tracks = self.tracks.lock().expect("no panic while held");
        let position = tracks.iter().position(|known| &**known == name).unwrap_or(tracks.len());
        let index = TrackIndex::new(position)?;
        if position == tracks.len() {
            tracks.push(name.into());
        }
        Some(index)
    }

    /// The split in force.
    #[must_use]
    pub fn split(&self) -> &ArcSwap<Split> {
        &self.split
    }

    /// Makes the split of `shares` that follows the one in force, or returns the one in force
    /// when nobody's track would change.
    #[must_use]
    pub fn next_split(&self, shares: &[(TrackIndex, Weight)]) -> Arc<Split> {
        let current = self.split.load_full();
        let next = Split::new(current.epoch() + 1, shares);
        if next.same_weights(&current) { current } else { Arc::new(next) }
    }

    /// Puts a split in force.
    pub fn publish(&self, split: Arc<Split>) {
        self.split.store(split);
    }

    /// Tells requests of a track that started up to `now_ns` to end within `drain_ns`.
    pub fn evict(&self, track: TrackIndex, now_ns: u64, drain_ns: u64) {
        let eviction = &self.evictions[track];
        eviction.due_ns.store(now_ns.saturating_add(drain_ns), Ordering::Relaxed);
        eviction.before_ns.store(now_ns, Ordering::Release);
    }

    /// When a request of a track that started at `started_ns` was told to have ended.
    #[must_use]
    pub fn evicted_at(&self, track: TrackIndex, started_ns: u64) -> Option<u64> {
        let eviction = &self.evictions[track];
        let is_meant = eviction.before_ns.load(Ordering::Acquire) >= started_ns;
        is_meant.then(|| eviction.due_ns.load(Ordering::Relaxed))
    }

    /// Whether a track's open requests had to end after `before_ns` and up to `now_ns`.
    #[must_use]
    pub fn has_eviction(&self, before_ns: u64, now_ns: u64) -> bool {
        let due = |track| self.evictions[track].due_ns.load(Ordering::Relaxed);
        let mut tracks = (0..TRACKS_MAX).filter_map(TrackIndex::new);
        tracks.any(|track| (before_ns + 1..=now_ns).contains(&due(track)))
    }

    /// What each worker counted.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// What all workers counted for a track and some users under `epoch`.
    #[must_use]
    pub fn cohort(&self, epoch: u64, track: TrackIndex, users: Users) -> Counts {
        let mut counts = Counts::default();
        for shard in &self.shards {
            counts.add(shard.ring().read(epoch, track, users));
        }
        counts
    }
}

/// One worker's hand on a service's record.
#[derive(Debug)]
pub struct Recorder {
    shard: Arc<Shard>,
    tracks: TrackMap<Option<Arc<TrackShard>>>,
}

impl Recorder {
    /// The record of `worker` for the tracks given.
    #[must_use]
    pub fn new(live: &Live, worker: usize, tracks: impl Iterator<Item = TrackIndex>) -> Self {
        let shard = Arc::clone(&live.shards()[worker]);
        let mut resolved = TrackMap::default();
        for track in tracks {
            resolved[track] = Some(Arc::clone(shard.track(track)));
        }
        Self { shard, tracks: resolved }
    }

    /// Counts an assignment under `split` and returns the guard that will count its outcome.
    /// `fingerprint` is a sticky user's.
    #[must_use]
    pub fn assign(
        self: &Rc<Self>,
        split: &Split,
        track: TrackIndex,
        reason: Reason,
        fingerprint: Option<u64>,
        started_ns: u64,
    ) -> Outcome {
        let drawn = reason.is_evidence().then(|| {
            let users = fingerprint.map_or(Users::Fresh, |user| split.users(user));
            let drawn = Drawn { epoch: split.epoch(), users };
            self.shard.ring().assign(drawn, track);
            drawn
        });
        self.guard(split, track, reason, (drawn, fingerprint), started_ns)
    }

    /// The same for a request that the judge shall not see.
    #[must_use]
    pub fn assign_unseen(
        self: &Rc<Self>,
        split: &Split,
        track: TrackIndex,
        reason: Reason,
        started_ns: u64,
    ) -> Outcome {
        self.guard(split, track, reason, (None, None), started_ns)
    }

    fn guard(
        self: &Rc<Self>,
        split: &Split,
        track: TrackIndex,
        reason: Reason,
        (drawn, fingerprint): (Option<Drawn>, Option<u64>),
        started_ns: u64,
    ) -> Outcome {
        self.track(track).count_assigned(reason);
        let limits = (split.cuts(track), split.settle_ns());
        Outcome::new(Rc::clone(self), track, drawn, limits, (started_ns, fingerprint))
    }

    /// The counters of one of the tracks this recorder was made for.
    ///
    /// # Panics
    /// For any other track.
    #[must_use]
    pub fn track(&self, track: TrackIndex) -> &TrackShard {
        self.tracks[track].as_deref().expect("the recorder was made for this track")
    }

    /// Counts a request that a rule had an answer for.
    pub fn count_answered(&self) {
        self.shard.answered.increment();
    }

    /// Counts a request that came too often.
    pub fn count_limited(&self) {
        self.shard.limited.increment();
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }
}
