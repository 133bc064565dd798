//! One run of a rollout: what it judges, and what it asks to be changed. Pure.

use serde::{Deserialize, Serialize};

use crate::judge::{Judge, Opinion, Tick, threshold};
use crate::track::Weight;

use super::command::Command;
use super::explain;
use super::external::{self, Moment, Opinion as External};
use super::machine::{Cause, Change, Effect, Phase, Versions};
use super::plan::{Mode, OnFailure, OnMax, Plan, Ready, percent};
use super::progress::{Cohort, Progress};

/// Canary requests without which even an unproven advance is none.
const UNPROVEN_REQUESTS_MIN: u64 = 100;

/// One rollout of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What is compared.
    pub versions: Versions,
    /// Which attempt of this version, from 1; the bound on wrong rollbacks is per attempt.
    pub attempt: u32,
    /// What the operator allows.
    pub plan: Plan,
    /// Where it is.
    pub phase: Phase,
    /// The canary's weight.
    #[serde(with = "percent")]
    pub weight: Weight,
    /// Why it is there.
    pub why: String,
    /// It has had traffic; before that the account is untouched.
    pub has_started: bool,
    /// It reached its last stage.
    pub is_promoted: bool,
    /// Stable runs the canary's version and takes over as soon as it is ready.
    pub hands_over: bool,
    /// Cohorts with an earlier mark belong to another run.
    pub first_mark: u64,
    /// The judge.
    pub judge: Judge,
    /// What it has seen.
    pub progress: Progress,
    /// A person has said that it may start.
    pub starts_by_hand: bool,
    /// In a dry run: what it would have done last.
    pub would_have: Option<String>,
}

/// What is known of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Ready canary endpoints, and all of them.
    pub canary: (usize, usize),
    /// Ready stable endpoints, and all of them.
    pub stable: (usize, usize),
    /// A plain rule that the canary breaks and stable does not, in words.
    pub broken_rule: Option<String>,
    /// What checks and gates say.
    pub opinions: Vec<External>,
}

impl Health {
    /// Everything is ready; what a simulation assumes.
    pub const GOOD: Self =
        Self { canary: (1, 1), stable: (1, 1), broken_rule: None, opinions: Vec::new() };

    /// The same, with what is said of `mark` alone.
    #[must_use]
    pub fn as_of(&self, mark: u64) -> Self {
        let opinions = self.opinions.iter().map(|one| one.as_of(mark)).collect();
        Self { opinions, ..self.clone() }
    }

    pub(super) fn is_ready(&self, ready: Ready) -> bool {
        let (good, all) = self.canary;
        match ready {
            Ready::All => good == all && all > 0,
            Ready::Any => good > 0,
        }
    }

    /// Whether more traffic can be carried, and taken back: half of the canary's endpoints and
    /// one of stable's.
    #[must_use]
    pub fn has_capacity(&self) -> bool {
        let (good, all) = self.canary;
        good > 0 && good * 2 >= all && self.stable.0 > 0
    }
}

impl Run {
    /// Whether all of it is over, as far as it goes by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Promoted | Phase::RolledBack)
    }

    pub(super) fn judge_cohort(&mut self, cohort: &Cohort, is_current: bool) -> Option<Change> {
        let figures = &self.plan.figures;
        let (rho, delta) = (figures.judge.error_ratio, figures.judge.error_slack);
        self.progress.add(cohort, is_current, rho, delta);
        let stable_errors_max = figures.judge.stable_errors_max;
        let opinion = self.judge.tick(&Tick {
            dt_s: cohort.dt_s,
            weight: cohort.weight.ratio(),
            next_weight: self.plan.next(self.weight).map(|stage| stage.weight.ratio()),
            is_current,
            proofs_paused: self.progress.recent.is_stable_failing(stable_errors_max),
            pots: cohort.pots,
            proofs: cohort.all,
            has_cut: cohort.has_cut,
        });
        if let Some(why) = self.fault(cohort, opinion) {
            return self.fall(Cause::Judge, why);
        }
        None
    }

    /// What is wrong with the canary, in words.
    fn fault(&mut self, cohort: &Cohort, opinion: Opinion) -> Option<String> {
        let figures = &self.plan.figures;
        if let Some(most) = figures.excess_failures_max
            && self.progress.excess >= explain::as_f64(most)
        {
            return Some(explain::excess(self, most));
        }
        match figures.mode {
            Mode::Sequential if opinion == Opinion::Harmful => {
                (!self.has_split_alarm()).then(|| explain::harmful(self))
            }
            Mode::Threshold => {
                let limits = &figures.threshold;
                let window = &mut self.progress.window;
                window.add(cohort.dt_s, cohort.all, limits);
                let totals = threshold::Totals { arms: window.totals(), p99_ns: cohort.p99_ns };
                let finding = threshold::decide(&totals, limits);
                window.note(cohort.dt_s, finding);
                explain::threshold(finding, &totals, limits)
            }
            _ => None,
        }
    }

    /// Whether the realised split is not that of the weights. The bets stand on the weights, so
    /// that nothing they say holds then, neither for the canary nor against it.
    #[must_use]
    pub fn has_split_alarm(&self) -> bool {
        self.progress.split.is_alarming(self.weight.ratio())
    }

    /// Back to stable, or to a person, as the plan says. Said once.
    pub(super) fn fall(&mut self, cause: Cause, why: String) -> Option<Change> {
        let figures = &self.plan.figures;
        if figures.dry_run {
            self.would_have.get_or_insert(format!("roll back: {why}"));
            return None;
        }
        if figures.on_failure == OnFailure::Hold && cause != Cause::Operator {
            let is_new = self.phase != Phase::Paused;
            return is_new.then(|| Change::to(Phase::Paused, self.weight, cause, why));
        }
        Some(Change::to(Phase::RolledBack, Weight::ZERO, cause, why))
    }

    pub(super) fn pass(&mut self, dt_s: f64, health: &Health) -> Option<Change> {
        if self.hands_over && health.stable.0 == health.stable.1 && health.stable.1 > 0 {
            let why = format!("stable runs {} and is ready", self.versions.canary);
            let phase = if self.is_promoted { Phase::Idle } else { Phase::Promoted };
            let mut change = Change::to(phase, Weight::ZERO, Cause::File, why);
            change.effect = Effect::HandOver;
            return Some(change);
        }
        match self.phase {
            Phase::Waiting => self.start(dt_s, health),
            Phase::Progressing | Phase::Paused => {
                self.break_rule(health).or_else(|| self.proceed(health))
            }
            Phase::Promoted => self.break_rule(health).or_else(|| self.bake(dt_s)),
            Phase::Idle | Phase::RolledBack => None,
        }
    }

    fn start(&mut self, dt_s: f64, health: &Health) -> Option<Change> {
        let figures = &self.plan.figures;
        if figures.starts_by_hand && !self.starts_by_hand {
            let why = "the state is kept in memory, so a rollout starts only by `resume`".into();
            return Some(Change::to(Phase::Paused, self.weight, Cause::Plan, why));
        }
        if health.is_ready(figures.ready) {
            if let Some(why) = external::fault(&health.opinions) {
                return self.fall(Cause::Check, why);
            }
            if external::against(&health.opinions, Moment::Start, true).is_some() {
                return None;
            }
            return Some(self.started(Cause::Plan, "the canary's endpoints are ready"));
        }
        self.progress.waited_s += dt_s;
        let (ready, all) = health.canary;
        (self.progress.waited_s >= figures.start_timeout_s).then(|| {
            let why = format!(
                "only {ready} of {all} canary endpoints were ready within {}; `resume` waits again",
                explain::span(figures.start_timeout_s)
            );
            Change::to(Phase::Paused, self.weight, Cause::Plan, why)
        })
    }

    /// The change that starts it: to its first stage, or where a person let it be.
    pub(super) fn started(&self, cause: Cause, why: &str) -> Change {
        let first = self.plan.stages.first().map_or(Weight::FULL, |stage| stage.weight);
        let waits = self.plan.figures.dry_run || first >= self.plan.last();
        let weight = if waits { self.weight } else { self.weight.max(first) };
        let mut change = Change::to(Phase::Progressing, weight, cause, why.to_owned());
        change.effect = Effect::Restage;
        change
    }

    fn break_rule(&mut self, health: &Health) -> Option<Change> {
        if let Some(why) = external::fault(&health.opinions) {
            return self.fall(Cause::Check, why);
        }
        let why = health.broken_rule.clone()?;
        self.fall(Cause::Health, why)
    }

    fn bake(&mut self, dt_s: f64) -> Option<Change> {
        self.progress.baked_s += dt_s;
        (self.progress.baked_s >= self.plan.figures.bake_s).then(|| {
            let bake = explain::span(self.plan.figures.bake_s);
            let why = format!("watched for {bake} after promotion, without a fault");
            Change::to(Phase::Idle, self.weight, Cause::Plan, why)
        })
    }

    fn proceed(&mut self, health: &Health) -> Option<Change> {
        if self.phase != Phase::Progressing {
            return None;
        }
        match self.standing(health) {
            Standing::Proven => self.advance(Cause::Judge, explain::proven(self)),
            Standing::Overdue(OnMax::Advance) => self.advance(Cause::Plan, explain::unproven(self)),
            Standing::Overdue(OnMax::Rollback) => self.fall(Cause::Plan, explain::overdue(self)),
            _ => None,
        }
    }

    fn advance(&mut self, cause: Cause, why: String) -> Option<Change> {
        if self.plan.figures.dry_run {
            self.would_have = Some(format!("advance: {why}"));
            return None;
        }
        let weight = self.plan.next(self.weight)?.weight;
        Some(self.raise(weight, cause, why))
    }

    /// The change to a greater `weight`, which may be the last.
    pub(super) fn raise(&self, weight: Weight, cause: Cause, why: String) -> Change {
        let phase = if weight >= self.plan.last() { Phase::Promoted } else { Phase::Progressing };
        Change::to(phase, weight, cause, why)
    }

    /// Why a progressing run stands where it stands, the strongest reason first.
    #[must_use]
    pub fn standing(&self, health: &Health) -> Standing {
        let figures = &self.plan.figures;
        let (min_s, max_s) = self.plan.times(self.weight);
        let progress = &self.progress;
        if self.plan.next(self.weight).is_none() {
            return Standing::AtLast;
        }
        if self.has_split_alarm() {
            return Standing::SplitAlarm;
        }
        if figures.mode == Mode::Sequential && self.judge.wealth() >= figures.judge.hold {
            return Standing::Suspicious;
        }
        if progress.recent.is_unsettled() {
            return Standing::Unsettled;
        }
        if self.weight > Weight::ZERO && progress.stage_s < min_s - 1e-9 {
            return Standing::TooEarly;
        }
        if !health.has_capacity() {
            return Standing::NoCapacity;
        }
        let moment = self.moment();
        if self.weight > Weight::ZERO
            && external::against(&health.opinions, moment, false).is_some()
        {
            return Standing::Checked;
        }
        if self.weight > Weight::ZERO && !self.is_proven() {
            let is_over = max_s.is_some_and(|max_s| progress.stage_s >= max_s);
            let is_seen = progress.stage.canary.requests >= UNPROVEN_REQUESTS_MIN;
            return match figures.on_max {
                OnMax::Advance if is_over && is_seen && !self.plan.needs_approval(self.weight) => {
                    Standing::Overdue(OnMax::Advance)
                }
                OnMax::Rollback if is_over => Standing::Overdue(OnMax::Rollback),
                OnMax::Hold if is_over => Standing::Overdue(OnMax::Hold),
                _ if progress.recent.is_stable_failing(figures.judge.stable_errors_max) => {
                    Standing::StableFailing
                }
                _ => Standing::Unproven,
            };
        }
        if self.plan.needs_approval(self.weight) {
            return Standing::AwaitsApproval;
        }
        if external::against(&health.opinions, moment, true).is_some() {
            return Standing::Gated;
        }
        Standing::Proven
    }

    /// What the next advance is.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let next = self.plan.next(self.weight);
        let is_last = next.is_none_or(|next| next.weight >= self.plan.last());
        if is_last { Moment::Promotion } else { Moment::Advance }
    }

    /// What only those who are asked last keep from happening.
    #[must_use]
    pub fn awaits(&self, health: &Health) -> Option<Moment> {
        let figures = &self.plan.figures;
        match self.phase {
            Phase::Waiting => {
                let may_start = !figures.starts_by_hand || self.starts_by_hand;
                (may_start && health.is_ready(figures.ready)).then_some(Moment::Start)
            }
            Phase::Progressing => (self.standing(health) == Standing::Gated).then(|| self.moment()),
            _ => None,
        }
    }

    /// What keeps it from advancing, where a person may want to know.
    #[must_use]
    pub fn trouble(&self, health: &Health) -> Option<&'static str> {
        let speaks_up = |is_last| {
            let found = external::against(&health.opinions, self.moment(), is_last);
            found.is_some_and(|one| one.standing != external::Standing::Waits)
        };
        if self.phase != Phase::Progressing {
            return None;
        }
        match self.standing(health) {
            Standing::Suspicious => Some("suspicious"),
            Standing::SplitAlarm => Some("split_alarm"),
            Standing::StableFailing => Some("stable_failing"),
            Standing::Unsettled => Some("unsettled"),
            Standing::NoCapacity => Some("no_capacity"),
            Standing::Overdue(_) => Some("overdue"),
            Standing::AwaitsApproval => Some("awaits_approval"),
            Standing::Checked if speaks_up(false) => Some("checked"),
            Standing::Gated if speaks_up(true) => Some("gated"),
            _ => None,
        }
    }

    fn is_proven(&self) -> bool {
        match self.plan.figures.mode {
            Mode::Sequential => self.judge.opinion() == Opinion::Proven,
            Mode::Threshold => {
                self.progress.window.clean_s >= self.plan.figures.threshold.window_s - 1e-9
            }
            Mode::Off => true,
        }
    }

    pub(super) fn command(
        &self,
        command: Command,
        actor: &str,
        health: &Health,
    ) -> Result<Change, String> {
        let by = |phase, weight, effect| Change {
            phase,
            weight,
            cause: Cause::Operator,
            actor: actor.to_owned(),
            why: format!("{} by {actor}", command.as_str()),
            effect,
        };
        let is_active = matches!(self.phase, Phase::Waiting | Phase::Progressing | Phase::Paused);
        let phase = self.phase.as_str();
        match command {
            Command::Pause if matches!(self.phase, Phase::Waiting | Phase::Progressing) => {
                Ok(by(Phase::Paused, self.weight, Effect::None))
            }
            Command::Resume if self.phase == Phase::Paused => Ok(self.resumed(by, health)),
            Command::Promote { full, force } if is_active => {
                self.may_promote(force, health)?;
                let next = if full { None } else { self.plan.next(self.weight) };
                let weight = next.map_or(self.plan.last(), |stage| stage.weight);
                let raise = self.raise(weight, Cause::Operator, String::new());
                Ok(by(raise.phase, weight, Effect::None))
            }
            Command::Rollback if self.phase != Phase::RolledBack => {
                if self.phase == Phase::Idle && self.weight == Weight::ZERO {
                    return Err("the canary carries no traffic".into());
                }
                Ok(by(Phase::RolledBack, Weight::ZERO, Effect::None))
            }
            Command::Retry if self.phase == Phase::RolledBack => {
                let begin = (self.versions.clone(), self.plan.clone());
                Ok(by(Phase::Waiting, Weight::ZERO, Effect::Begin(Box::new(begin))))
            }
            Command::SetWeight(weight) if is_active => {
                if weight > self.weight {
                    self.may_promote(true, health)?;
                }
                let effect = if weight == self.weight { Effect::Restage } else { Effect::None };
                Ok(by(Phase::Paused, weight, effect))
            }
            Command::Pause => Err(format!("it is {phase}; only a rollout under way pauses")),
            Command::Resume => Err(format!("it is {phase}; only a paused rollout resumes")),
            Command::Retry => Err(format!("it is {phase}; only a rolled-back version retries")),
            Command::Rollback => Err("it is rolled back already".into()),
            Command::Promote { .. } | Command::SetWeight(_) if self.phase == Phase::RolledBack => {
                Err(format!("{} was rolled back; `retry` starts it again", self.versions.canary))
            }
            Command::Promote { .. } | Command::SetWeight(_) => {
                Err(format!("it is {phase}; there is no rollout under way"))
            }
        }
    }

    fn resumed(&self, by: impl Fn(Phase, Weight, Effect) -> Change, health: &Health) -> Change {
        if self.has_started || self.weight > Weight::ZERO {
            return by(Phase::Progressing, self.weight, Effect::Restage);
        }
        if health.is_ready(self.plan.figures.ready) {
            let started = self.started(Cause::Operator, "");
            return by(started.phase, started.weight, started.effect);
        }
        by(Phase::Waiting, Weight::ZERO, Effect::None)
    }

    fn may_promote(&self, force: bool, health: &Health) -> Result<(), String> {
        let figures = &self.plan.figures;
        if figures.dry_run {
            return Err("it is a dry run; the file's weights move it".into());
        }
        if !health.has_capacity() {
            let ((canary, canaries), (stable, stables)) = (health.canary, health.stable);
            return Err(format!(
                "{canary} of {canaries} canary and {stable} of {stables} stable endpoints are \
                 ready, which is too few for more traffic"
            ));
        }
        let e = self.judge.wealth();
        if e >= figures.judge.hold && !force {
            return Err(format!(
                "the evidence against the canary is {e:.1}, above {}; use force to promote all \
                 the same",
                figures.judge.hold
            ));
        }
        Ok(())
    }
}

/// Why a progressing run stands where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no next stage.
    AtLast,
    /// The evidence against the canary is too strong to advance.
    Suspicious,
    /// The realised split is not that of the weights.
    SplitAlarm,
    /// Stable's requests take longer than `settle`.
    Unsettled,
    /// The stage's least time is not over.
    TooEarly,
    /// Too few endpoints are ready.
    NoCapacity,
    /// A check has not agreed.
    Checked,
    /// A gate has not agreed.
    Gated,
    /// Stable itself is failing, so nothing can be proven.
    StableFailing,
    /// The proofs are not complete.
    Unproven,
    /// The stage's greatest time is over without proof.
    Overdue(OnMax),
    /// A person has to agree.
    AwaitsApproval,
    /// Nothing is in the way.
    Proven,
}
