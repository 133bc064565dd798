//! The outcome guard: exactly one outcome per request, even on drop or panic.

use std::rc::Rc;

use crate::track::TrackIndex;

use super::cohort::{Change, Cuts, Drawn, Users};
use super::fault::{Fault, Pardon};
use super::fingerprint::UserFailure;
use super::live::Recorder;

/// How a request ended, for the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was passed on.
    Complete,
    /// The upstream failed: refused, reset, truncated, timed out.
    Failed,
    /// Not the upstream's doing.
    Pardoned(Pardon),
}

/// Counts the outcome of one assigned request.
#[derive(Debug)]
pub struct Outcome {
    recorder: Rc<Recorder>,
    cuts: Cuts,
    /// How long an answer is waited for before its lack is a failure.
    settle_ns: Option<u64>,
    /// The cohort, for requests that are evidence.
    drawn: Option<Drawn>,
    started_ns: u64,
    /// When the whole request was upstream; the judge's clock starts here.
    sent_ns: Option<u64>,
    /// What the cohort holds of this request so far.
    held: Held,
    fingerprint: Option<u64>,
    track: TrackIndex,
    status: u16,
    /// The status of the attempt that failed before another track took the request over.
    moved: Option<u16>,
    /// When the head came of an answer that lasts: a tunnel, an event stream. The request ends
    /// there; how long such a thing is kept open says nothing of it.
    lasting_ns: Option<u64>,
    finished: bool,
    /// Why it was pardoned ahead of its end.
    reason: Option<Pardon>,
}

/// What a request contributes to its cohort at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    good: bool,
    fast99: bool,
    fast90: bool,
    done: bool,
    /// The response head has come: latency is settled.
    headed: bool,
    /// It says nothing of the track.
    pardoned: bool,
    /// We did not serve it.
    unserved: bool,
}

impl Held {
    /// What is taken out of every count is in each of them first.
    fn pardoned(reason: Pardon) -> Self {
        let unserved = reason.fault() == Fault::Ours && reason != Pardon::Ended;
        let well = Self { good: true, fast99: true, fast90: true, ..Self::default() };
        Self { done: true, headed: true, pardoned: true, unserved, ..well }
    }

    /// Nothing is waited for: the head is here, it has ended, or the client still sends.
    fn is_settled(self) -> bool {
        self.headed || self.done || self.good
    }
}

impl Outcome {
    pub(super) fn new(
        recorder: Rc<Recorder>,
        track: TrackIndex,
        drawn: Option<Drawn>,
        (cuts, settle_ns): (Cuts, Option<u64>),
        (started_ns, fingerprint): (u64, Option<u64>),
    ) -> Self {
        Self {
            recorder,
            cuts,
            settle_ns,
            drawn,
            started_ns,
            sent_ns: None,
            held: Held::default(),
            fingerprint,
            track,
            status: 0,
            moved: None,
            lasting_ns: None,
            finished: false,
            reason: None,
        }
    }

    /// The client still sends its body: provisionally good and fast, for the wait is its own.
    pub fn sending(&mut self) {
        if !self.held.headed && !self.held.good && self.moved.is_none() {
            self.sent_ns = None;
            self.hold(Held { good: true, fast99: true, fast90: true, ..self.held });
        }
    }

    /// The whole request is upstream; from now on the track is waited for.
    pub fn sent(&mut self, now_ns: u64) {
        if self.sent_ns.is_none() && !self.held.headed && self.moved.is_none() {
            self.sent_ns = Some(now_ns);
            self.hold(Held { good: false, fast99: false, fast90: false, ..self.held });
        }
    }

    /// The response head has come. `lasting` responses (101, event streams) are done with it.
    pub fn head(&mut self, now_ns: u64, status: u16, is_error: bool, lasting: bool) {
        self.status = status;
        self.lasting_ns = lasting.then_some(now_ns);
        if self.moved.is_some() {
            return;
        }
        if self.held.pardoned {
            return;
        }
        // A head that came before the request was sent whole answers without delay.
        let latency_ns = self.sent_ns.map_or(0, |sent_ns| now_ns.saturating_sub(sent_ns));
        if self.drawn.is_some() {
            self.recorder.track(self.track).latencies.record(latency_ns);
        }
        self.hold(Held {
            good: !is_error,
            fast99: latency_ns <= self.cuts.p99_ns,
            fast90: latency_ns <= self.cuts.p90_ns,
            done: lasting,
            headed: true,
            pardoned: false,
            unserved: false,
        });
        if is_error {
            self.blame();
        }
    }

    /// The whole answer has come, and its track failed or not, while the client still sends: there
    /// is nothing more to wait for.
    pub fn answered(&mut self, end: End) {
        if let End::Pardoned(reason) = end {
            return self.pardon(reason);
        }
        if end == End::Failed {
            self.blame();
        }
        let good = self.held.good && end != End::Failed;
        self.hold(Held { good, done: true, ..self.held });
    }

    /// Its track failed with `status`, and it is tried again, perhaps on another track. That erases
    /// nothing: the failure is this track's, whatever comes of the next try.
    pub fn moved(&mut self, status: u16) {
        if self.moved.is_some() {
            return;
        }
        self.moved = Some(status);
        self.blame();
        self.hold(Held { headed: true, done: true, ..Held::default() });
    }

    /// Whatever comes of it says nothing of its upstream.
    pub fn pardon(&mut self, reason: Pardon) {
        if self.reason.is_none() && !self.held.done {
            self.reason = Some(reason);
            self.recorder.track(self.track).count_pardon(reason);
            self.hold(Held::pardoned(reason));
        }
    }

    /// Why it says nothing of its upstream, if that is known ahead of its end.
    #[must_use]
    pub fn pardoned(&self) -> Option<Pardon> {
        self.reason
    }

    /// The call's status of gRPC is known.
    pub fn grpc(&mut self, status: u8) {
        self.recorder.track(self.track).count_grpc(status);
    }

    /// The status that the metrics will show: the upstream's, or the one of our own reply.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// When the request started, in the worker's nanoseconds.
    #[must_use]
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// Whether it was drawn by weight and is compared.
    #[must_use]
    pub fn is_evidence(&self) -> bool {
        self.drawn.is_some()
    }

    /// The track that the request was first assigned to.
    #[must_use]
    pub fn track(&self) -> TrackIndex {
        self.track
    }

    /// Counts how the request ended. `status` replaces the upstream's when we answered ourselves.
    pub fn finish(mut self, now_ns: u64, end: End, status: Option<u16>) {
        self.end(now_ns, end, status);
    }

    fn end(&mut self, now_ns: u64, end: End, status: Option<u16>) {
        self.finished = true;
        self.status = status.unwrap_or(self.status);
        let ended = match end {
            _ if self.held.done => self.held,
            End::Complete => self.held,
            End::Failed => {
                self.blame();
                Held { good: false, ..self.held }
            }
            End::Pardoned(reason) => {
                self.recorder.track(self.track).count_pardon(reason);
                self.shown(now_ns, reason)
            }
        };
        self.hold(Held { done: true, ..ended });
        let track = self.recorder.track(self.track);
        track.count_status(self.moved.unwrap_or(self.status));
        if let Some(since_ns) = self.lasting_ns {
            track.streams.increment();
            track.streams_ns.add(now_ns.saturating_sub(since_ns));
        }
        let ended_ns = self.lasting_ns.unwrap_or(now_ns);
        track.durations.record(ended_ns.saturating_sub(self.started_ns));
    }

    /// What a request shows that somebody else than its upstream has ended: what the upstream had
    /// done by then. An answer stands as it came. What had been waited for beyond a cut was slow,
    /// whoever ended the wait, and what had been for as long as a cohort waits was a failure. The
    /// rest shows nothing.
    fn shown(&mut self, now_ns: u64, reason: Pardon) -> Held {
        if self.held.headed && reason.fault() != Fault::Shared {
            return self.held;
        }
        let by_client = reason.fault() == Fault::Client;
        let Some(sent_ns) = self.sent_ns.filter(|_| by_client && !self.held.headed) else {
            return Held::pardoned(reason);
        };
        let waited_ns = now_ns.saturating_sub(sent_ns);
        if self.settle_ns.is_some_and(|settle_ns| waited_ns >= settle_ns) {
            self.blame();
            return self.held;
        }
        if waited_ns > self.cuts.p90_ns {
            let fast99 = waited_ns <= self.cuts.p99_ns;
            return Held { good: true, fast99, fast90: false, ..self.held };
        }
        Held::pardoned(reason)
    }

    fn blame(&mut self) {
        if let (Some(fingerprint), Some(drawn)) = (self.fingerprint.take(), self.drawn) {
            // Whoever is known already has counted; this failure is told for the record only.
            let epoch = if drawn.users == Users::Fresh { drawn.epoch } else { 0 };
            let failure = UserFailure { fingerprint, epoch, track: self.track };
            self.recorder.shard().fingerprints.push(failure);
        }
    }

    /// Tells the cohort what changed.
    fn hold(&mut self, next: Held) {
        let delta = |before: bool, after: bool| i64::from(after) - i64::from(before);
        if let Some(drawn) = self.drawn {
            let change = Change {
                good: delta(self.held.good, next.good),
                fast99: delta(self.held.fast99, next.fast99),
                fast90: delta(self.held.fast90, next.fast90),
                settled: delta(self.held.is_settled(), next.is_settled()),
                done: next.done && !self.held.done,
                pardoned: next.pardoned && !self.held.pardoned,
                unserved: next.unserved && !self.held.unserved,
            };
            self.recorder.shard().ring().note(drawn, self.track, change);
        }
        self.held = next;
    }
}

impl Drop for Outcome {
    /// A request that nobody finished was ours to finish (a panic, a drain): no error of its track.
    fn drop(&mut self) {
        if !self.finished {
            let status = if self.status == 0 { Some(500) } else { None };
            self.end(self.started_ns, End::Pardoned(Pardon::Ended), status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::cohort::Counts;
    use crate::record::live::{Live, Reason};
    use crate::record::{Split, histogram};
    use crate::track::{TrackMap, Weight};

    const MS: u64 = 1_000_000;

    /// Draws one request at time 0 under cuts of 100 and 50 ms, runs `life`, reads the cohort.
    fn outcome_of(reason: Reason, life: impl FnOnce(Outcome)) -> (Counts, Live) {
        let live = Live::new("a", 1);
        let track = live.track("canary").unwrap();
        let mut cuts = TrackMap::default();
        cuts[track] = Cuts { p99_ns: 100 * MS, p90_ns: 50 * MS };
        let split = Split::new(1, &[(track, Weight::FULL)]).with_cuts(cuts).with_settle(2_000 * MS);
        let recorder = Rc::new(Recorder::new(&live, 0, [track].into_iter()));
        let outcome = recorder.assign(&split, track, reason, Some(7), 0);
        life(outcome);
        (live.cohort(1, track, Users::Fresh), live)
    }

    fn counts(good: u64, fast99: u64, fast90: u64) -> Counts {
        Counts { assigned: 1, done: 1, good, fast99, fast90, settled: 1, ..Counts::default() }
    }

    #[test]
    fn an_answer_is_good_below_500_and_fast_within_the_cuts() {
        for (latency_ms, is_error, expected) in [
            (50, false, counts(1, 1, 1)),
            (51, false, counts(1, 1, 0)),
            (101, false, counts(1, 0, 0)),
            (10, true, counts(0, 1, 1)),
        ] {
            let (cohort, _) = outcome_of(Reason::Weight, |mut outcome| {
                outcome.sent(0);
                outcome.head(latency_ms * MS, if is_error { 500 } else { 200 }, is_error, false);
                outcome.finish(500 * MS, End::Complete, None);
            });
            assert_eq!(cohort, expected, "{latency_ms} {is_error}");
        }
    }

    #[test]
    fn what_is_unfinished_counts_against_the_track() {
        let mut kept = None;
        let (cohort, _live) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sent(0);
            kept = Some(outcome);
        });
        assert_eq!(cohort, Counts { assigned: 1, ..Counts::default() });
    }

    #[test]
    fn a_body_still_coming_is_provisionally_good() {
        let mut kept = None;
        let (cohort, _live) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sending();
            kept = Some(outcome);
        });
        assert_eq!(
            cohort,
            Counts { assigned: 1, good: 1, fast99: 1, fast90: 1, settled: 1, ..Counts::default() }
        );
        let (cohort, _) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sending();
            outcome.sent(1_000 * MS);
            outcome.head(1_010 * MS, 200, false, false);
            outcome.finish(1_020 * MS, End::Complete, None);
        });
        assert_eq!(cohort, counts(1, 1, 1));
    }

    #[test]
    fn a_truncated_answer_loses_what_its_head_won() {
        let (cohort, live) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sent(0);
            outcome.head(MS, 200, false, false);
            outcome.finish(2 * MS, End::Failed, None);
        });
        assert_eq!(cohort, counts(0, 1, 1));
        assert_eq!(live.shards()[0].fingerprints.pop().map(|failure| failure.fingerprint), Some(7));
    }

    #[test]
    fn a_lasting_answer_is_done_at_its_head() {
        let (cohort, _) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sent(0);
            outcome.head(MS, 101, false, true);
            outcome.finish(9_000 * MS, End::Failed, None);
        });
        assert_eq!(cohort, counts(1, 1, 1));
    }

    #[test]
    fn an_end_that_is_not_the_upstreams_shows_what_the_upstream_had_done_by_then() {
        const NOTHING: Counts = Counts {
            assigned: 0,
            done: 0,
            good: 0,
            fast99: 0,
            fast90: 0,
            settled: 0,
            pardoned: 1,
            unserved: 0,
        };
        let left = Pardon::ClientLeft;
        for (sent, head, ended_ms, reason, expected) in [
            // Unanswered: within both cuts it shows nothing, beyond them that the answer was slow.
            (true, None, 50, left, NOTHING),
            (true, None, 51, left, counts(1, 1, 0)),
            (true, None, 100, Pardon::ClientDeadline, counts(1, 1, 0)),
            (true, None, 101, Pardon::ClientDeadline, counts(1, 0, 0)),
            (true, None, 1_999, left, counts(1, 0, 0)),
            // As long as a cohort waits is as good as for ever.
            (true, None, 2_000, left, counts(0, 0, 0)),
            // The whole request was not there, so nothing was waited for.
            (false, None, 5_000, Pardon::ClientBody, NOTHING),
            // What we ended shows nothing, however long it took.
            (true, None, 5_000, Pardon::Ended, NOTHING),
            (false, None, 0, Pardon::InFlight, Counts { unserved: 1, ..NOTHING }),
            (false, None, 0, Pardon::Descriptors, Counts { unserved: 1, ..NOTHING }),
            // An answer stands as it came, in both directions …
            (true, Some((10, 200)), 900, Pardon::ClientStalled, counts(1, 1, 1)),
            (true, Some((70, 200)), 900, left, counts(1, 1, 0)),
            (true, Some((10, 503)), 900, Pardon::ClientStalled, counts(0, 1, 1)),
            // … unless nobody can tell who cut it short.
            (true, Some((10, 200)), 9_000, Pardon::HeldUp, NOTHING),
        ] {
            let (cohort, live) = outcome_of(Reason::Sticky, |mut outcome| {
                if sent {
                    outcome.sent(0);
                } else {
                    outcome.sending();
                }
                if let Some((at_ms, status)) = head {
                    outcome.head(at_ms * MS, status, status >= 500, false);
                }
                outcome.finish(ended_ms * MS, End::Pardoned(reason), Some(499));
            });
            assert_eq!(cohort, expected, "{sent} {head:?} {ended_ms} {reason:?}");
            let shard = &live.shards()[0];
            let track = shard.track(live.track("canary").unwrap());
            assert_eq!((track.status(499), track.pardoned(reason)), (1, 1));
            let is_blamed = shard.fingerprints.pop().is_some();
            assert_eq!(is_blamed, expected.pardoned == 0 && expected.good == 0, "{reason:?}");
        }
    }

    #[test]
    fn without_cuts_or_a_judge_what_is_unanswered_shows_nothing() {
        let live = Live::new("a", 1);
        let track = live.track("canary").unwrap();
        let split = Split::new(1, &[(track, Weight::FULL)]);
        let recorder = Rc::new(Recorder::new(&live, 0, [track].into_iter()));
        let mut outcome = recorder.assign(&split, track, Reason::Weight, None, 0);
        outcome.sent(0);
        outcome.finish(9_000 * MS, End::Pardoned(Pardon::ClientLeft), Some(499));
        let counts = live.cohort(1, track, Users::Fresh);
        assert_eq!((counts.assigned, counts.pardoned), (0, 1));
    }

    #[test]
    fn what_is_pardoned_at_once_stays_so_whatever_comes() {
        let (cohort, live) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.sent(0);
            outcome.pardon(Pardon::ClientDeadline);
            outcome.head(MS, 200, true, false);
            outcome.finish(2 * MS, End::Pardoned(Pardon::ClientDeadline), None);
        });
        assert_eq!((cohort.assigned, cohort.done, cohort.pardoned), (0, 0, 1));
        let shard = live.shards()[0].track(live.track("canary").unwrap());
        assert_eq!(shard.pardoned(Pardon::ClientDeadline), 1);
        assert_eq!(shard.status(200), 1);
    }

    #[test]
    fn what_another_track_answers_is_still_a_failure_of_this_one() {
        let (cohort, live) = outcome_of(Reason::Weight, |mut outcome| {
            outcome.moved(502);
            outcome.sent(0);
            outcome.head(MS, 200, false, false);
            outcome.finish(2 * MS, End::Complete, None);
        });
        assert_eq!(cohort, counts(0, 0, 0));
        let shard = live.shards()[0].track(live.track("canary").unwrap());
        assert_eq!((shard.status(502), shard.status(200)), (1, 0));
    }

    #[test]
    fn a_dropped_guard_is_one_outcome_and_no_error() {
        let (cohort, live) = outcome_of(Reason::Weight, drop);
        assert_eq!(cohort, Counts { pardoned: 1, ..Counts::default() });
        let track = live.track("canary").unwrap();
        assert_eq!(live.shards()[0].track(track).status(500), 1);
    }

    #[test]
    fn rule_traffic_is_counted_but_no_evidence() {
        let (cohort, live) = outcome_of(Reason::Rule, |mut outcome| {
            outcome.sent(0);
            outcome.finish(3 * MS, End::Failed, Some(502));
        });
        assert_eq!(cohort, Counts::default());
        let track = live.track("canary").unwrap();
        let shard = live.shards()[0].track(track);
        assert_eq!((shard.status(502), shard.assigned(Reason::Rule)), (1, 1));
        assert_eq!(live.shards()[0].fingerprints.pop(), None);
        let mut summary = histogram::Summary::default();
        summary.add(&shard.durations);
        assert_eq!(summary.count(), 1);
    }
}
