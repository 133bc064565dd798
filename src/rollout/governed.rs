//! One service under a rollout: its machine, its evidence, and its live split.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::evidence::{Cohorts, LatencyWindow, Open, StableLatency, StickyUsers};
use crate::record::{Live, Split};
use crate::state::Service;
use crate::track::{TrackIndex, TrackMap, Weight};

use super::edit::Applied;
use super::journal::Journal;
use super::machine::{Cause, Change, Effect, Machine, Phase, Transition};
use super::pardoned::Pardoned;
use super::record::{Entry, Record, Stored};
use super::report::Tallies;
use super::run::Health;

const S_NS: u64 = 1_000_000_000;
/// A split lives this long from 100 requests a second up …
const TICK_FAST_NS: u64 = S_NS / 5;
/// … and this long below, where fewer looks lose nothing.
const TICK_SLOW_NS: u64 = S_NS;
/// After a journal that could not be written, a raise is tried again this much later.
const RAISE_AGAIN_NS: u64 = 5 * S_NS;
/// Commands that wait to be told at a time; more are told at once.
const TOLD_LATER_MAX: usize = 64;
/// Requests a second from which ticks are fast.
const FAST_RPS: f64 = 100.0;
/// A tick is at least this part of the settle time, so that the cohorts' ring is never full.
const TICKS_PER_SETTLE: u64 = 32;

/// The answer to a command: what the service's rollout is now.
pub type Reply = oneshot::Sender<Result<Json, String>>;

/// What of a service's configuration the control side needs beside its plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Least time that a cohort is waited for.
    pub settle_ns: u64,
    /// Least distance of the canary's latency cut from stable's.
    pub latency_floor_ns: u64,
    /// The canary's latency cut as a multiple of stable's.
    pub latency_ratio: f64,
    /// After a rollback, rules that name the canary lead to stable.
    pub diverts_rules: bool,
    /// How long open canary requests may last after a rollback.
    pub rollback_drain_ns: u64,
}

/// A raise that waits for the journal.
#[derive(Debug)]
struct Pending {
    id: u64,
    change: Change,
    reply: Option<Reply>,
}

/// One service under a rollout.
#[derive(Debug)]
pub struct Governed {
    /// What the journal knows of it.
    pub stored: Stored,
    /// Counts since the process started.
    pub tallies: Tallies,
    /// How fast stable is.
    pub latency: StableLatency,
    /// Its sticky users.
    pub users: StickyUsers,
    pub(super) name: String,
    policy: Policy,
    attached: Option<Attached>,
    /// The canary's weight in the split in force.
    live_weight: Weight,
    pub(super) cohorts: Cohorts,
    pending: Option<Pending>,
    /// Commands that are done, and told so when the journal has confirmed this number.
    told_later: Vec<(u64, Reply)>,
    pub(super) settle_ns: u64,
    /// No raise is tried again before: the journal could not be written.
    raise_after_ns: u64,
    /// A run has begun since somebody last asked.
    has_begun: bool,
    /// The time of what is being done.
    pub(super) now_ns: u64,
    published_ns: u64,
    /// When evidence was journalled last.
    pub(super) recorded_ns: u64,
    passed_ns: u64,
    pub(super) latency_ns: u64,
    pub(super) window: LatencyWindow,
    /// What workers had pardoned when a cohort closed last.
    pub(super) pardoned: Option<Pardoned>,
}

/// Its place in the picture that workers read.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) live: Arc<Live>,
    pub(super) stable: TrackIndex,
    pub(super) canary: Option<TrackIndex>,
    pub(super) is_sticky: bool,
    /// The canary's addresses, names resolved.
    canary_addresses: Vec<SocketAddr>,
}

impl Governed {
    /// A service as the journal knows it.
    #[must_use]
    pub fn new(name: &str, stored: Stored, policy: Policy) -> Self {
        Self {
            live_weight: stored.machine.weight(),
            stored,
            tallies: Tallies::default(),
            latency: StableLatency::default(),
            users: StickyUsers::default(),
            name: name.to_owned(),
            policy,
            attached: None,
            cohorts: Cohorts::default(),
            pending: None,
            told_later: Vec::new(),
            settle_ns: policy.settle_ns,
            raise_after_ns: 0,
            has_begun: false,
            now_ns: 0,
            published_ns: 0,
            recorded_ns: 0,
            passed_ns: 0,
            latency_ns: 0,
            window: LatencyWindow::default(),
            pardoned: None,
        }
    }

    /// Sets the time of what is done next, in nanoseconds of the process clock.
    pub fn at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.stored.machine
    }

    /// The plan that the last applied file has for it.
    #[must_use]
    pub fn plan(&self) -> Option<&super::plan::Plan> {
        self.stored.applied.as_ref()?.plan.as_ref()
    }

    /// Changes how its evidence is gathered.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether a run has begun since this was last asked.
    pub fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.has_begun)
    }

    /// The file owns the split: its weight is the one in force.
    pub fn follow_file(&mut self, weight: Weight) {
        self.live_weight = weight;
    }

    /// The canary's weight in force.
    #[must_use]
    pub fn live_weight(&self) -> Weight {
        self.live_weight
    }

    /// The greater weight that waits for the journal.
    #[must_use]
    pub fn raising_to(&self) -> Option<Weight> {
        self.pending.as_ref().map(|pending| pending.change.weight)
    }

    /// How long a cohort is waited for.
    #[must_use]
    pub fn settle_ns(&self) -> u64 {
        self.settle_ns
    }

    /// The cuts of stable and the canary for the next cohort.
    #[must_use]
    pub fn cuts(&self) -> (crate::record::Cuts, crate::record::Cuts) {
        self.latency.cuts(self.policy.latency_ratio, self.policy.latency_floor_ns)
    }

    /// Takes its place in a new picture.
    pub fn attach(&mut self, service: &Service) {
        let index = |name: &str| {
            service.tracks.iter().find(|track| &*track.name == name).map(|track| track.index)
        };
        let Some(stable) = index("stable") else { return };
        let is_new = self.attached.as_ref().is_none_or(|at| !Arc::ptr_eq(&at.live, &service.live));
        if is_new {
            self.cohorts = Cohorts::default();
        }
        let canary = service.tracks.iter().find(|track| &*track.name == "canary");
        let canary_addresses: Vec<SocketAddr> = canary.map_or_else(Vec::new, |track| {
            track.endpoints.iter().map(|endpoint| endpoint.address()).collect()
        });
        let known = self.attached.as_ref().map_or(&[][..], |before| &before.canary_addresses);
        let is_cold = canary_addresses.iter().any(|address| !known.contains(address));
        if let Some(run) = &mut self.stored.machine.run
            && !is_new
            && is_cold
        {
            run.judge.restart_warmup();
        }
        self.attached = Some(Attached {
            canary_addresses,
            live: Arc::clone(&service.live),
            stable,
            canary: index("canary"),
            is_sticky: service.sticky.is_some(),
        });
        // The picture's own split knows nothing of a rollback's rules.
        self.set_live_weight(self.live_weight, self.machine().phase());
    }

    /// Whether looking at it often is worth anything.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        match self.machine().phase() {
            Phase::Progressing | Phase::Paused => true,
            Phase::Promoted => self.live_weight < Weight::FULL,
            _ => false,
        }
    }

    /// Lets time pass up to now: closes cohorts, judges, moves, publishes the next split.
    /// Returns whether there is anything new to show.
    pub fn look(&mut self, at_ms: u64, health: &Health, journal: &mut Journal) -> bool {
        let Some(attached) = self.attached.clone() else { return false };
        let now_ns = self.now_ns;
        self.learn_latency(now_ns, &attached);
        let before = self.stored.machine.mark;
        let is_judged = attached.canary.is_some() && self.is_judged();
        self.take_failures(&attached, is_judged);
        if is_judged {
            self.close_cohorts(now_ns, at_ms, &attached, journal);
            self.look_ahead(at_ms, &attached, journal);
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds between two looks")]
        let dt_s = now_ns.saturating_sub(self.passed_ns) as f64 / 1e9;
        let dt_s = if self.passed_ns == 0 { 0.0 } else { dt_s };
        self.passed_ns = now_ns;
        // A raise that waits for the journal keeps further raises back, and no rollback.
        let may_raise = self.pending.is_none() && now_ns >= self.raise_after_ns;
        if let Some(change) = self.stored.machine.pass(dt_s, health)
            && (may_raise || change.weight <= self.live_weight)
        {
            self.propose(change, at_ms, journal, None);
        }
        let has_moved = self.stored.machine.mark != before;
        let is_due = now_ns >= self.published_ns + self.tick_ns();
        if self.is_judged() && (has_moved || is_due) && self.cohorts.has_room() {
            self.publish();
            return true;
        }
        if is_due {
            self.published_ns = now_ns;
        }
        has_moved || is_due
    }

    fn tick_ns(&self) -> u64 {
        let rps = self.machine().run.as_ref().map_or(0.0, |run| run.progress.recent.rps());
        let tick_ns = if rps >= FAST_RPS { TICK_FAST_NS } else { TICK_SLOW_NS };
        tick_ns.max(self.settle_ns / TICKS_PER_SETTLE)
    }

    // === moving ===

    /// Makes a change happen: a raise once the journal has it, everything else at once.
    pub fn propose(
        &mut self,
        change: Change,
        at_ms: u64,
        journal: &mut Journal,
        reply: Option<Reply>,
    ) {
        if change.weight <= self.live_weight {
            self.pending = None;
            let transition = self.apply(change, at_ms);
            let synced = self.record_transition(&transition, journal);
            // In force it is already; whoever asked is told when no crash can undo it any more.
            match (reply, synced) {
                (Some(reply), Some(id)) if self.told_later.len() < TOLD_LATER_MAX => {
                    self.told_later.push((id, reply));
                }
                (reply, _) => answer(reply, || Ok(self.outcome())),
            }
            return;
        }
        let mut after = Stored { machine: self.stored.machine.clone(), ..Stored::default() };
        let transition = after.machine.apply(change.clone(), at_ms);
        let entry = Entry::Transition {
            transition: Box::new(transition),
            machine: Box::new(after.machine),
        };
        journal.append(&Record { service: self.name.clone(), entry });
        if let Some(id) = journal.sync() {
            self.pending = Some(Pending { id, change, reply });
        } else {
            self.raise_after_ns = self.now_ns + RAISE_AGAIN_NS;
            let fault = journal.fault().unwrap_or_default();
            answer(reply, || Err(format!("the journal cannot be written ({fault})")));
        }
    }

    /// Ends the run because the file owns the weights from now on; the file's split is put in
    /// force by whoever applies the file.
    pub fn yield_to_file(&mut self, change: Change, at_ms: u64, journal: &mut Journal) {
        self.pending = None;
        self.live_weight = change.weight;
        let transition = self.apply(change, at_ms);
        self.record_transition(&transition, journal);
    }

    /// The journal has confirmed, or could not.
    pub fn confirm(&mut self, id: u64, is_durable: bool, at_ms: u64) -> bool {
        let (told, later) = self.told_later.drain(..).partition(|(until, _)| *until <= id);
        self.told_later = later;
        let told: Vec<(u64, Reply)> = told;
        for (_, reply) in told {
            answer(Some(reply), || Ok(self.outcome()));
        }
        let Some(pending) = self.pending.take_if(|pending| pending.id == id) else { return false };
        if !is_durable {
            self.raise_after_ns = self.now_ns + RAISE_AGAIN_NS;
            answer(pending.reply, || Err("the journal could not be written".to_owned()));
            return false;
        }
        self.apply(pending.change, at_ms);
        answer(pending.reply, || Ok(self.outcome()));
        true
    }

    /// What a command's client is told.
    fn outcome(&self) -> Json {
        let machine = self.machine();
        serde_json::json!({
            "service": self.name,
            "phase": machine.phase(),
            "weight": f64::from(self.live_weight.basis_points()) / 100.0,
            "version": machine.run.as_ref().map(|run| &run.versions.canary),
        })
    }

    /// Applies a change and puts its weight in force.
    fn apply(&mut self, change: Change, at_ms: u64) -> Transition {
        let begins = matches!(change.effect, Effect::Begin(_));
        let mark = self.stored.machine.mark;
        let raised = change.weight > self.live_weight;
        let transition = self.stored.machine.apply(change, at_ms);
        self.stored.remember(transition.clone());
        self.tallies.transitions[transition.cause as usize] += 1;
        if raised && transition.cause == Cause::Judge {
            self.tallies.verdicts[0] += 1;
        }
        tracing::info!(
            service = %self.name, version = %transition.version, from = transition.from.as_str(),
            to = transition.to.as_str(), weight = %transition.weight,
            cause = transition.cause.as_str(), actor = %transition.actor, "{}", transition.why
        );
        if self.stored.machine.mark != mark {
            self.users.forget();
            self.settle_ns = self.latency.settle_ns(self.policy.settle_ns);
        }
        if begins {
            self.has_begun = true;
            self.cohorts.forget();
            self.pardoned = None;
        }
        self.set_live_weight(transition.weight, transition.to);
        transition
    }

    /// Puts the canary's weight in force, and what a rollback does to rules with it.
    fn set_live_weight(&mut self, weight: Weight, phase: Phase) {
        self.live_weight = weight;
        let Some(Attached { live, canary: Some(canary), .. }) = &self.attached else { return };
        let (live, canary) = (Arc::clone(live), *canary);
        let current = live.split().load_full();
        let is_same = current.weight(canary) == weight;
        if is_same && (current.divert(canary) != canary) == self.diverts() {
            return;
        }
        if phase == Phase::RolledBack && !is_same {
            live.evict(canary, self.now_ns, self.policy.rollback_drain_ns);
        }
        self.publish();
    }

    fn diverts(&self) -> bool {
        self.policy.diverts_rules && self.machine().phase() == Phase::RolledBack
    }

    /// Publishes the next split, and opens its cohort.
    fn publish(&mut self) {
        let Some(Attached { live, stable, canary: Some(canary), .. }) = self.attached.clone()
        else {
            return;
        };
        let now_ns = self.now_ns;
        let weight = self.live_weight;
        let (stable_cuts, canary_cuts) = self.cuts();
        let mut cuts = TrackMap::default();
        cuts[stable] = stable_cuts;
        cuts[canary] = canary_cuts;
        let epoch = live.split().load().epoch() + 1;
        let mut split = Split::new(epoch, &[(canary, weight), (stable, weight.rest())])
            .with_cuts(cuts)
            .with_settle(self.settle_ns)
            .with_known(self.users.known());
        if self.diverts() {
            split = split.with_diverted(canary, stable);
        }
        live.publish(Arc::new(split));
        self.published_ns = now_ns;
        self.cohorts.opened(Open {
            epoch,
            weight,
            mark: self.stored.machine.mark,
            has_cut: [stable_cuts.p99_ns, stable_cuts.p90_ns].map(|cut| cut < u64::MAX),
            opened_ns: now_ns,
            superseded_ns: None,
        });
        if !self.is_judged() {
            self.cohorts.forget();
        }
        let oldest = self.cohorts.oldest_epoch();
        self.users.forget_before(oldest);
    }

    // === journalling ===

    fn record_transition(&self, transition: &Transition, journal: &mut Journal) -> Option<u64> {
        let entry = Entry::Transition {
            transition: Box::new(transition.clone()),
            machine: Box::new(self.stored.machine.clone()),
        };
        journal.append(&Record { service: self.name.clone(), entry });
        // What it does does not wait for the disk, but the disk shall have it soon.
        journal.sync()
    }

    /// Remembers the file that is applied now.
    pub fn record_applied(&mut self, applied: Applied, at_ms: u64, journal: &mut Journal) {
        if self.stored.applied.as_ref() == Some(&applied) {
            return;
        }
        self.stored.applied = Some(applied.clone());
        let entry = Entry::Applied { at_ms, applied: Box::new(applied) };
        journal.append(&Record { service: self.name.clone(), entry });
    }

    /// Changes the run in place, as an edit asks for beside its changes.
    pub fn adjust(&mut self, edit: &super::edit::Edit, next: &Applied) {
        if edit.resets_stable {
            self.latency.reset();
        }
        let Some(run) = &mut self.stored.machine.run else { return };
        if edit.resets_stable {
            run.judge.reset_proofs();
            run.versions.stable.clone_from(&next.stable);
        }
        if edit.restarts_warmup {
            run.judge.restart_warmup();
        }
        run.hands_over = edit.hands_over;
        if edit.hands_over {
            run.versions.stable.clone_from(&next.stable);
        }
        if let Some(plan) = &edit.plan {
            run.plan = plan.clone();
        }
    }
}

fn answer(reply: Option<Reply>, result: impl FnOnce() -> Result<Json, String>) {
    if let Some(reply) = reply {
        // A client that no longer waits needs no answer.
        let _ = reply.send(result());
    }
}
