//! One rollout from its start to its end, in simulated time.

use rand::Rng;

use crate::evidence::LatencyWindow;
use crate::judge::alarm::SplitCount;
use crate::record::Histogram;
use crate::record::histogram::Summary;
use crate::rollout::machine::{Cause, Effect, Versions};
use crate::rollout::pardoned::Pardoned;
use crate::rollout::plan::Mode;
use crate::rollout::progress::Cohort;
use crate::rollout::run::Health;
use crate::rollout::{Change, Machine, Phase, Plan};
use crate::track::Weight;

use super::scenario::Spec;
use super::traffic::Traffic;

/// From this many requests a second on ticks are fast; the same as in production.
const FAST_RPS: f64 = 100.0;
/// A rollout that has not ended after two days stays undecided.
pub const TIME_MAX_S: f64 = 48.0 * 3_600.0;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// At its last stage.
    Promoted,
    /// Back on stable.
    RolledBack,
    /// Not within [`TIME_MAX_S`], or paused for a person.
    Undecided,
}

/// What a rollout came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// When, in seconds.
    pub time_s: f64,
    /// When the canary turned bad; `None` when it ended before.
    pub onset_s: Option<f64>,
    /// Requests to the canary since then.
    pub canary_requests: u64,
    /// Of these, failed.
    pub failed_requests: u64,
    /// The greatest weight that the canary had, in percent.
    pub weight_max: f64,
}

/// Runs `plan` once against the traffic of `spec`. `floor_ns` is the least distance of the
/// canary's latency cut from stable's, `ratio` its multiple.
pub fn simulate(
    spec: &Spec,
    plan: &Plan,
    (ratio, floor_ns): (f64, u64),
    dice: &mut impl Rng,
) -> Outcome {
    let dt_s = if spec.rps >= FAST_RPS { 0.2 } else { 1.0 };
    let mut traffic = Traffic::new(spec, ratio, floor_ns, dice);
    let mut machine = begun(plan);
    let mut latency = Latency::new(plan);
    let mut outcome = Outcome {
        ended: Ended::Undecided,
        time_s: 0.0,
        onset_s: None,
        canary_requests: 0,
        failed_requests: 0,
        weight_max: 0.0,
    };
    let mut ticks = 0_u32;
    loop {
        let time_s = f64::from(ticks) * dt_s;
        let (weight, mark) = (machine.weight(), machine.mark);
        let has_turned = plan.position(weight) >= Some(spec.onset_stage_index);
        if has_turned && outcome.onset_s.is_none() {
            outcome.onset_s = Some(time_s);
        }
        let has_turned = outcome.onset_s.is_some();
        let arms = traffic.cohort(time_s, dt_s, weight.ratio(), has_turned);
        if has_turned {
            outcome.canary_requests += arms.canary.requests;
            outcome.failed_requests += arms.canary.errors;
        }
        outcome.weight_max = outcome.weight_max.max(weight.ratio() * 100.0);
        ticks += 1;
        outcome.time_s = f64::from(ticks) * dt_s;
        let cohort = Cohort {
            dt_s,
            weight,
            mark,
            pots: arms,
            all: arms,
            drawn: SplitCount::of(&arms),
            pardoned: Pardoned::default(),
            has_cut: [true; 2],
            stable_unfinished: 0,
            p99_ns: latency.p99_ns(&mut traffic, &arms, dt_s, has_turned),
            is_sticky: false,
        };
        let change = machine.judge(&cohort);
        apply(&mut machine, change);
        let change = machine.pass(dt_s, &Health::GOOD);
        apply(&mut machine, change);
        outcome.ended = match machine.phase() {
            Phase::Promoted => Ended::Promoted,
            Phase::RolledBack => Ended::RolledBack,
            Phase::Paused => Ended::Undecided,
            _ if outcome.time_s >= TIME_MAX_S => Ended::Undecided,
            _ => continue,
        };
        return outcome;
    }
}

/// A machine at the first stage of `plan`.
#[must_use]
pub fn begun(plan: &Plan) -> Machine {
    let mut plan = plan.clone();
    // A person's decisions are taken to be made at once, or nothing would ever end.
    plan.stages.iter_mut().for_each(|stage| stage.approve = false);
    plan.figures.starts_by_hand = false;
    plan.figures.dry_run = false;
    let versions = Versions { stable: "stable".into(), canary: "canary".into() };
    let begin = Change {
        phase: Phase::Waiting,
        weight: Weight::ZERO,
        cause: Cause::File,
        actor: "simulation".into(),
        why: String::new(),
        effect: Effect::Begin(Box::new((versions, plan))),
    };
    let mut machine = Machine::default();
    apply(&mut machine, Some(begin));
    let start = machine.pass(0.0, &Health::GOOD);
    apply(&mut machine, start);
    machine
}

fn apply(machine: &mut Machine, change: Option<Change>) {
    if let Some(change) = change {
        machine.apply(change, 0);
    }
}

/// Latencies one by one, which only threshold mode looks at.
struct Latency {
    window: Option<(LatencyWindow, [Histogram; 2], f64)>,
    since_s: f64,
}

impl Latency {
    fn new(plan: &Plan) -> Self {
        let is_wanted = plan.figures.mode == Mode::Threshold;
        let window_s = plan.figures.threshold.window_s;
        let window = || (LatencyWindow::default(), Default::default(), window_s);
        Self { window: is_wanted.then(window), since_s: 0.0 }
    }

    fn p99_ns<R: Rng>(
        &mut self,
        traffic: &mut Traffic<'_, R>,
        arms: &crate::judge::Arms,
        dt_s: f64,
        has_turned: bool,
    ) -> Option<(u64, u64)> {
        let (window, histograms, window_s) = self.window.as_mut()?;
        let [canary, stable] = &*histograms;
        traffic.latencies_ns(arms.canary.requests, has_turned).for_each(|ns| canary.record(ns));
        traffic.latencies_ns(arms.stable.requests, false).for_each(|ns| stable.record(ns));
        self.since_s += dt_s;
        if self.since_s >= 1.0 - 1e-9 {
            let counted = [canary, stable].map(|histogram| {
                let mut summary = Summary::default();
                summary.add(histogram);
                summary
            });
            window.add(self.since_s, counted, *window_s);
            self.since_s = 0.0;
        }
        window.p99_ns()
    }
}
