//! The outcome guard: exactly one outcome per request, even on drop or panic.

use std::rc::Rc;

use crate::track::TrackIndex;

use super::cohort::{Change, Cuts, Drawn, Users};
use super::fingerprint::UserFailure;
use super::live::Recorder;

/// A client that leaves earlier than this has shown no error, however tight the cut: 250 ms.
const PATIENCE_MIN_NS: u64 = 250_000_000;

/// How a request ended, for the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was passed on.
    Complete,
    /// The track failed: refused, reset, truncated, timed out, shed.
    Failed,
    /// The client left before it had its answer.
    ClientLeft,
    /// Not the track's doing: the client's fault, our own panic, a drain.
    Pardoned,
}

/// Counts the outcome of one assigned request.
#[derive(Debug)]
pub struct Outcome {
    recorder: Rc<Recorder>,
    cuts: Cuts,
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
}

impl Held {
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
        cuts: Cuts,
        (started_ns, fingerprint): (u64, Option<u64>),
    ) -> Self {
        Self {
            recorder,
            cuts,
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
        });
        if is_error {
            self.blame();
        }
    }

    /// The whole answer has come, and its track failed or not, while the client still sends: there
    /// is nothing more to wait for.
    pub fn answered(&mut self, end: End) {
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
        let pardoned = Held { good: true, fast99: true, fast90: true, ..self.held };
        let ended = match end {
            End::Complete => self.held,
            _ if self.held.done => self.held,
            End::Failed => {
                self.blame();
                Held { good: false, ..self.held }
            }
            End::ClientLeft if self.held.headed || self.held.good => self.held,
            End::ClientLeft if self.is_overdue(now_ns) => {
                self.blame();
                self.held
            }
            End::Pardoned if self.held.headed => self.held,
            End::ClientLeft | End::Pardoned => pardoned,
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

    /// Whether the client waited so long that its leaving is the track's fault.
    fn is_overdue(&self, now_ns: u64) -> bool {
        let patience_ns = self.cuts.p99_ns.saturating_mul(2).max(PATIENCE_MIN_NS);
        // Without a cut nobody has said what slow is: only the least patience counts.
        let patience_ns = if self.cuts.p99_ns == u64::MAX { PATIENCE_MIN_NS } else { patience_ns };
        self.sent_ns.is_some_and(|sent_ns| now_ns.saturating_sub(sent_ns) > patience_ns)
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
            self.end(self.started_ns, End::Pardoned, status);
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
        let split = Split::new(1, &[(track, Weight::FULL)]).with_cuts(cuts);
        let recorder = Rc::new(Recorder::new(&live, 0, [track].into_iter()));
        let outcome = recorder.assign(&split, track, reason, Some(7), 0);
        life(outcome);
        (live.cohort(1, track, Users::Fresh), live)
    }

    fn counts(good: u64, fast99: u64, fast90: u64) -> Counts {
        Counts { assigned: 1, done: 1, good, fast99, fast90, settled: 1 }
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
            Counts { assigned: 1, good: 1, fast99: 1, fast90: 1, settled: 1, done: 0 }
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
    fn a_client_that_leaves_counts_only_if_it_waited_long() {
        for (waited_ms, expected) in [(249, counts(1, 1, 1)), (251, counts(0, 0, 0))] {
            let (cohort, live) = outcome_of(Reason::Sticky, |mut outcome| {
                outcome.sent(0);
                outcome.finish(waited_ms * MS, End::ClientLeft, Some(499));
            });
            assert_eq!(cohort, expected, "{waited_ms}");
            let track = live.track("canary").unwrap();
            assert_eq!(live.shards()[0].track(track).status(499), 1);
        }
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
        assert_eq!(cohort, counts(1, 1, 1));
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
