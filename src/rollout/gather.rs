//! Gathering the evidence of one service: cohorts closed in order, judged, journalled.

use crate::evidence::cohorts::Seen;
use crate::evidence::{Closed, Open};
use crate::judge::Arms;
use crate::judge::alarm::SplitCount;
use crate::record::fingerprint::QUEUE_MAX;
use crate::record::histogram::Summary;
use crate::track::TrackIndex;

use super::governed::{Attached, Governed};
use super::journal::Journal;
use super::pardoned::{Pardoned, counted};
use super::plan::Mode;
use super::progress::Cohort;
use super::record::{Entry, Evidence, Record};

/// How often stable's latencies are taken in.
const LATENCY_EVERY_NS: u64 = 1_000_000_000;

/// Cohorts without a request say nothing but that time passes; this often is enough to write that.
const RECORD_EMPTY_EVERY_NS: u64 = 10_000_000_000;

impl Governed {
    pub(super) fn learn_latency(&mut self, now_ns: u64, attached: &Attached) {
        // What was pardoned before the first look is no run's.
        self.pardoned.get_or_insert_with(|| attached.pardoned());
        let dt_ns = now_ns.saturating_sub(self.latency_ns);
        if dt_ns < LATENCY_EVERY_NS {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a second or so")]
        let dt_s = if self.latency_ns == 0 { 0.0 } else { dt_ns as f64 / 1e9 };
        self.latency_ns = now_ns;
        let counted = |track: TrackIndex| {
            let mut summary = Summary::default();
            for shard in attached.live.shards() {
                summary.add(&shard.track(track).latencies);
            }
            summary
        };
        let stable = counted(attached.stable);
        let run = self.stored.machine.run.as_ref();
        if let (Some(canary), Some(run)) = (attached.canary, run)
            && run.plan.figures.mode == Mode::Threshold
        {
            let window_s = run.plan.figures.threshold.window_s;
            self.window.add(dt_s, [counted(canary), stable.clone()], window_s);
        }
        self.latency.update(stable, dt_s);
    }

    /// Takes in the failures of sticky users; outside a judged phase nobody needs them.
    pub(super) fn take_failures(&mut self, attached: &Attached, is_judged: bool) {
        let failures = attached.live.shards().iter().flat_map(|shard| {
            // As many as fit; a worker that goes on failing meanwhile is heard at the next look.
            std::iter::from_fn(|| shard.fingerprints.pop()).take(QUEUE_MAX)
        });
        if is_judged {
            self.users.report(failures);
        } else {
            failures.for_each(drop);
        }
    }

    pub(super) fn close_cohorts(
        &mut self,
        now_ns: u64,
        at_ms: u64,
        attached: &Attached,
        journal: &mut Journal,
    ) {
        while let Some(closed) =
            self.cohorts.close(now_ns, self.settle_ns, |open| attached.seen(open))
        {
            let cohort = self.cohort(&closed, attached);
            self.tallies.evidence.add(cohort.all);
            let mark = self.stored.machine.mark;
            let change = self.stored.machine.judge(&cohort);
            self.record_evidence(&cohort, journal);
            let verdict = change.as_ref().map_or(1, |_| 2);
            self.tallies.verdicts[verdict] += 1;
            if let Some(change) = change {
                self.propose(change, at_ms, journal, None);
            }
            if self.stored.machine.mark != mark {
                return;
            }
        }
    }

    /// What the judge is told of a closed cohort.
    fn cohort(&mut self, closed: &Closed, attached: &Attached) -> Cohort {
        let Closed { open, dt_s, seen } = closed;
        let (mut pots, all) = (seen.fresh(), seen.everybody());
        if attached.is_sticky {
            let canary = attached.canary.unwrap_or(attached.stable);
            let repeated = self.users.repeated(open.epoch, canary);
            pots.canary.errors = pots.canary.errors.saturating_sub(repeated);
            let repeated = self.users.repeated(open.epoch, attached.stable);
            pots.stable.errors = pots.stable.errors.saturating_sub(repeated);
            let of_known = all.stable.requests - pots.stable.requests;
            self.users.cover(*dt_s, of_known, all.stable.requests);
        }
        Cohort {
            dt_s: *dt_s,
            weight: open.weight,
            mark: open.mark,
            pots,
            all,
            drawn: seen.drawn(),
            pardoned: self.pardoned(attached),
            has_cut: open.has_cut,
            stable_unfinished: seen.stable_unfinished(),
            p99_ns: self.window.p99_ns(),
            is_sticky: attached.is_sticky,
        }
    }

    /// What was pardoned since this was last asked.
    fn pardoned(&mut self, attached: &Attached) -> Pardoned {
        let now = attached.pardoned();
        let before = self.pardoned.replace(now);
        before.map_or_else(Pardoned::default, |before| now.since(&before))
    }

    fn record_evidence(&mut self, cohort: &Cohort, journal: &mut Journal) {
        let Some(run) = &self.stored.machine.run else { return };
        let is_empty = cohort.all.canary.requests + cohort.all.stable.requests == 0;
        if is_empty && self.now_ns < self.recorded_ns + RECORD_EMPTY_EVERY_NS {
            return;
        }
        self.recorded_ns = self.now_ns;
        let evidence = Evidence {
            dt_s: cohort.dt_s,
            stage: run.plan.position(cohort.weight).map(|position| position + 1),
            weight: f64::from(cohort.weight.basis_points()) / 100.0,
            canary: cohort.all.canary,
            stable: cohort.all.stable,
            pots: (cohort.pots != cohort.all).then_some(cohort.pots),
            has_cut: cohort.has_cut,
            e: run.judge.wealth(),
            account: run.judge.account().clone(),
            progress: run.progress.clone(),
        };
        let entry = Entry::Evidence(Box::new(evidence));
        journal.append(&Record { service: self.name.clone(), entry });
    }

    /// Rolls back before the cohorts close, if they would whatever becomes of what is still under
    /// way: the least that they can turn out to be is already enough. The requests assigned so far
    /// are a prefix of the evidence, and stopping at any prefix is within the bound.
    pub(super) fn look_ahead(&mut self, at_ms: u64, attached: &Attached, journal: &mut Journal) {
        let Some(run) = &self.stored.machine.run else { return };
        let first_mark = run.first_mark;
        if attached.is_sticky || run.plan.figures.mode != Mode::Sequential || !self.is_judged() {
            return;
        }
        let open = self.cohorts.all().filter(|open| open.mark >= first_mark);
        let least: Vec<(Open, Arms)> =
            open.map(|open| (*open, attached.seen(open).least())).collect();
        if least.iter().all(|(_, arms)| arms.canary.errors == 0) {
            return;
        }
        let mut machine = self.stored.machine.clone();
        let mut judged = Vec::new();
        for (open, arms) in least {
            let cohort = self.ahead(&open, arms, first_mark);
            let change = machine.judge(&cohort);
            judged.push((cohort, machine.clone()));
            if let Some(change) = change {
                for (cohort, machine) in judged {
                    self.tallies.evidence.add(cohort.all);
                    self.stored.machine = machine;
                    self.record_evidence(&cohort, journal);
                }
                self.tallies.verdicts[2] += 1;
                self.propose(change, at_ms, journal, None);
                return;
            }
        }
    }

    /// An open cohort as if it closed now with the least it can turn out to be. By its mark no
    /// proof learns from it.
    #[expect(clippy::cast_precision_loss, reason = "seconds of one tick")]
    fn ahead(&self, open: &Open, least: Arms, mark: u64) -> Cohort {
        let until_ns = open.superseded_ns.unwrap_or(self.now_ns);
        Cohort {
            dt_s: until_ns.saturating_sub(open.opened_ns) as f64 / 1e9,
            weight: open.weight,
            mark,
            pots: least,
            all: least,
            // What it shows so far is judged again when it closes, if it does.
            drawn: SplitCount::of(&least),
            pardoned: Pardoned::default(),
            has_cut: open.has_cut,
            stable_unfinished: 0,
            p99_ns: None,
            is_sticky: false,
        }
    }
}

impl Attached {
    /// What workers have pardoned since they started.
    fn pardoned(&self) -> Pardoned {
        let of = |track: TrackIndex| {
            counted(self.live.shards().iter().map(|shard| &**shard.track(track)))
        };
        Pardoned { canary: self.canary.map(of).unwrap_or_default(), stable: of(self.stable) }
    }

    fn seen(&self, open: &Open) -> Seen {
        let canary = self.canary.unwrap_or(self.stable);
        Seen::read(|is_canary, users| {
            let track = if is_canary { canary } else { self.stable };
            self.live.cohort(open.epoch, track, users)
        })
    }
}
