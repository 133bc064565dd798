//! The machine: phases, and what moves a rollout from one to the next. Pure.
//!
//! Whatever happens is first a [`Change`], which says what would be, and then applied. The
//! controller applies a lowering at once and a raise only when the journal has it on disk; in the
//! simulation both are immediate. Weights rise by a `Change` of an advance or an operator only.

use serde::{Deserialize, Serialize};

use crate::judge::Judge;
use crate::track::Weight;

use super::command::Command;
use super::plan::{Plan, percent};
use super::progress::{Cohort, Progress};
use super::run::{Health, Run};

/// Versions whose end is remembered.
const DECIDED_MAX: usize = 100;

/// Where a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There is nothing to judge.
    #[default]
    Idle,
    /// Not started: the canary's endpoints are not ready yet.
    Waiting,
    /// Judged, rising by proof.
    Progressing,
    /// Judged; it may fall, not rise.
    Paused,
    /// At its last stage.
    Promoted,
    /// Back on stable.
    RolledBack,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Waiting,
        Self::Progressing,
        Self::Paused,
        Self::Promoted,
        Self::RolledBack,
    ];

    /// The word for it everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Progressing => "progressing",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// Who moved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Evidence.
    Judge,
    /// The plan: its times, its start, its end.
    Plan,
    /// Crashes or readiness of endpoints.
    Health,
    /// A check or a gate of the configuration.
    Check,
    /// A command.
    Operator,
    /// An edit of the configuration.
    File,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::Judge, Self::Plan, Self::Health, Self::Check, Self::Operator, Self::File];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Judge => "judge",
            Self::Plan => "plan",
            Self::Health => "health",
            Self::Check => "check",
            Self::Operator => "operator",
            Self::File => "file",
        }
    }
}

/// The versions that a run compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// What stable runs.
    pub stable: String,
    /// What the canary runs.
    pub canary: String,
}

/// What would be.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The phase then.
    pub phase: Phase,
    /// The canary's weight then.
    pub weight: Weight,
    /// Who asks for it.
    pub cause: Cause,
    /// Who that is by name: `judge`, an operator, the file.
    pub actor: String,
    /// Why, in words.
    pub why: String,
    /// What else it does.
    pub effect: Effect,
}

impl Change {
    /// A change to a phase and weight, and nothing else.
    pub(super) fn to(phase: Phase, weight: Weight, cause: Cause, why: String) -> Self {
        let actor = cause.as_str().to_owned();
        Self { phase, weight, cause, actor, why, effect: Effect::None }
    }
}

/// What a change does beside phase and weight.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The stage starts again although the weight is the same: proofs are reset.
    Restage,
    /// A new run with a fresh account.
    Begin(Box<(Versions, Plan)>),
    /// Stable now runs the canary's version; it takes all traffic.
    HandOver,
}

/// A change that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The canary's version.
    pub version: String,
    /// Which attempt of this version, from 1.
    pub attempt: u32,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// The weight before, in percent.
    #[serde(with = "percent")]
    pub weight_before: Weight,
    /// The weight after, in percent.
    #[serde(with = "percent")]
    pub weight: Weight,
    /// Who moved it.
    pub cause: Cause,
    /// Who that is by name.
    pub actor: String,
    /// Why, in words, with figures.
    pub why: String,
    /// The evidence against the canary at that moment.
    pub e: f64,
}

/// The rollout of one service, across runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The present or last run.
    pub run: Option<Run>,
    /// Versions that were rolled back; only `retry` starts them again.
    pub rolled_back: Vec<String>,
    /// How often each version was attempted.
    pub attempts: Vec<(String, u32)>,
    /// Rises with every stage entered and run begun, so that cohorts know where they belong.
    pub mark: u64,
}

impl Machine {
    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.run.as_ref().map_or(Phase::Idle, |run| run.phase)
    }

    /// The canary's weight.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.run.as_ref().map_or(Weight::ZERO, |run| run.weight)
    }

    /// Whether `version` was rolled back and not retried.
    #[must_use]
    pub fn is_rolled_back(&self, version: &str) -> bool {
        self.rolled_back.iter().any(|known| known == version)
    }

    /// Applies a change and tells what happened.
    ///
    /// # Panics
    /// When a change other than the begin of a run comes before any run.
    pub fn apply(&mut self, change: Change, at_ms: u64) -> Transition {
        let (from, weight_before) = (self.phase(), self.weight());
        let mut enters = change.effect == Effect::Restage;
        let hands_over = change.effect == Effect::HandOver;
        if let Effect::Begin(begin) = change.effect {
            // A version that comes back after its rollback is not attempted again by that.
            self.begin(*begin, change.phase != Phase::RolledBack);
            enters = false;
        }
        let run = self.run.as_mut().expect("a change is of a run");
        enters |= change.weight != run.weight;
        if enters {
            self.mark += 1;
            run.progress.enter_stage();
            if run.has_started {
                run.judge.enter_stage();
            }
            run.has_started = true;
        }
        run.phase = change.phase;
        run.weight = change.weight;
        run.why.clone_from(&change.why);
        run.starts_by_hand |= change.cause == Cause::Operator;
        run.hands_over &= change.phase != Phase::RolledBack;
        match change.phase {
            Phase::Promoted => {
                run.is_promoted = true;
                run.progress.baked_s = 0.0;
                let version = run.versions.canary.clone();
                self.rolled_back.retain(|known| *known != version);
            }
            Phase::RolledBack => {
                run.is_promoted = false;
                if !self.rolled_back.contains(&run.versions.canary) {
                    self.rolled_back.push(run.versions.canary.clone());
                    let surplus = self.rolled_back.len().saturating_sub(DECIDED_MAX);
                    self.rolled_back.drain(..surplus);
                }
            }
            Phase::Waiting => run.progress.waited_s = 0.0,
            _ => {}
        }
        let run = self.run.as_mut().expect("it was there above");
        if hands_over {
            run.hands_over = false;
            run.is_promoted = false;
        }
        Transition {
            at_ms,
            version: run.versions.canary.clone(),
            attempt: run.attempt,
            from,
            to: change.phase,
            weight_before,
            weight: change.weight,
            cause: change.cause,
            actor: change.actor,
            why: change.why,
            e: run.judge.wealth(),
        }
    }

    pub(super) fn begin(&mut self, (versions, plan): (Versions, Plan), counts: bool) {
        let weight = self.weight();
        self.mark += 1;
        self.rolled_back.retain(|known| *known != versions.canary);
        let known = self.attempts.iter().position(|(version, _)| *version == versions.canary);
        let before = known.map_or(0, |position| self.attempts.remove(position).1);
        let attempt = (before + u32::from(counts)).max(1);
        self.attempts.push((versions.canary.clone(), attempt));
        let surplus = self.attempts.len().saturating_sub(DECIDED_MAX);
        self.attempts.drain(..surplus);
        self.run = Some(Run {
            attempt,
            versions,
            phase: Phase::Waiting,
            weight,
            why: String::new(),
            has_started: false,
            is_promoted: false,
            hands_over: false,
            first_mark: self.mark,
            judge: Judge::new(plan.figures.judge.clone()),
            progress: Progress::default(),
            starts_by_hand: false,
            would_have: None,
            plan,
        });
    }

    /// Judges one closed cohort.
    pub fn judge(&mut self, cohort: &Cohort) -> Option<Change> {
        let mark = self.mark;
        let run = self.run.as_mut()?;
        let is_judged = match run.phase {
            Phase::Progressing | Phase::Paused => true,
            Phase::Promoted => run.weight < Weight::FULL,
            _ => false,
        };
        if !is_judged || cohort.mark < run.first_mark {
            return None;
        }
        run.judge_cohort(cohort, cohort.mark == mark)
    }

    /// Lets `dt_s` seconds pass: starts, timeouts, plain rules, the end of the bake.
    pub fn pass(&mut self, dt_s: f64, health: &Health) -> Option<Change> {
        // What was said of an earlier stage says nothing of this one.
        self.run.as_mut()?.pass(dt_s, &health.as_of(self.mark))
    }

    /// What `command` would change.
    ///
    /// # Errors
    /// Why it cannot be done now, and what can.
    pub fn command(
        &self,
        command: Command,
        actor: &str,
        health: &Health,
    ) -> Result<Change, String> {
        let run = self.run.as_ref().ok_or("there is no rollout to act on")?;
        run.command(command, actor, health)
    }
}
