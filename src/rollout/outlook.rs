//! What a person on call asks first, in words: which version is better, how sure that is, what it
//! has cost, and what the next stage waits for. Pure.

use serde::Serialize;

use crate::judge::{Arm, Arms};

use super::explain::{as_f64, percent, span};
use super::external::{self, Moment};
use super::machine::Phase;
use super::plan::Mode;
use super::run::{Health, Run, Standing};

/// Fewest judged canary requests of which anything is said.
const REQUESTS_MIN: u64 = 100;

/// The answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outlook {
    /// Which version is better, in one sentence.
    pub headline: String,
    /// How sure the judge is that the canary is outside its limits, in one sentence.
    pub certainty: String,
    /// What the rollout has cost its users so far, in one sentence.
    pub cost: String,
    /// What happens next, in one sentence.
    pub next: String,
    /// How bad it is.
    pub mood: Mood,
    /// What must hold before the canary gets more; empty where nothing is to come.
    pub conditions: Vec<Condition>,
}

/// How bad it is: decides the colour, never alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mood {
    /// Nothing is judged, or too little was seen.
    #[default]
    Unknown,
    /// Nothing speaks against the canary.
    Good,
    /// Something does.
    Doubtful,
    /// It is or was found outside the limits.
    Bad,
}

/// One thing that must hold before the canary gets more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// Its name: `endpoints`, `split`, `evidence`, `time`, `errors`, `latency`, `window`,
    /// `approval`, or that of a check or gate.
    pub name: String,
    /// It holds.
    pub holds: bool,
    /// How far it is, from 0 to 1.
    pub progress: f64,
    /// The same in words.
    pub says: String,
}

/// The outlook of a run.
#[must_use]
pub fn outlook(run: Option<&Run>, health: &Health) -> Outlook {
    let Some(run) = run else {
        return Outlook { headline: "There is no canary to judge.".into(), ..Outlook::default() };
    };
    let mood = mood(run);
    let conditions = match run.phase {
        Phase::Waiting => before_the_start(run, health),
        Phase::Progressing | Phase::Paused if run.plan.next(run.weight).is_some() => {
            conditions(run, health)
        }
        _ => Vec::new(),
    };
    Outlook {
        headline: headline(run, mood),
        certainty: certainty(run),
        cost: cost(run),
        next: next(run, health, &conditions),
        mood,
        conditions,
    }
}

fn mood(run: &Run) -> Mood {
    let (wealth, parameters) = (run.judge.wealth(), run.judge.parameters());
    let seen = run.progress.run.canary.requests;
    match run.phase {
        Phase::RolledBack => Mood::Bad,
        _ if run.has_split_alarm() => Mood::Doubtful,
        _ if run.plan.figures.mode != Mode::Sequential => Mood::Unknown,
        _ if wealth >= parameters.limit() => Mood::Bad,
        _ if wealth >= parameters.hold => Mood::Doubtful,
        _ if seen < REQUESTS_MIN => Mood::Unknown,
        _ => Mood::Good,
    }
}

fn headline(run: &Run, mood: Mood) -> String {
    let (canary, stable) = (&run.versions.canary, &run.versions.stable);
    let compared = compared(&run.progress.run);
    if run.phase == Phase::RolledBack {
        return format!("{canary} was rolled back; {stable} serves everybody.");
    }
    if run.has_split_alarm() {
        return "The split is not that of the weights, so nothing can be concluded.".into();
    }
    if run.is_promoted {
        return format!("{canary} was promoted: {compared}.");
    }
    if run.progress.run.canary.requests < REQUESTS_MIN {
        return format!("Too early to compare {canary} with {stable}.");
    }
    match mood {
        Mood::Bad => format!("{canary} is worse than {stable}: {compared}."),
        Mood::Doubtful => format!("{canary} looks worse than {stable}: {compared}."),
        Mood::Good if is_better(&run.progress.run) => {
            format!("{canary} looks better than {stable}: {compared}.")
        }
        Mood::Good => format!("{canary} shows no harm beside {stable}: {compared}."),
        Mood::Unknown => format!("{canary} beside {stable}: {compared}."),
    }
}

/// Fewer failures than stable has, by more than chance moves them: three standard deviations.
fn is_better(arms: &Arms) -> bool {
    let Arms { canary, stable } = arms;
    let expected = rate(*stable) * as_f64(canary.requests);
    stable.requests >= REQUESTS_MIN && as_f64(canary.errors) + 3.0 * expected.sqrt() < expected
}

fn rate(arm: Arm) -> f64 {
    as_f64(arm.errors) / as_f64(arm.requests.max(1))
}

fn compared(arms: &Arms) -> String {
    // A share of a handful says more than is known.
    let of = |arm: Arm| match arm.errors {
        1..10 => format!("{} in {}", arm.errors, arm.requests),
        errors => percent(errors, arm.requests),
    };
    format!("errors {} against {}", of(arms.canary), of(arms.stable))
}

fn certainty(run: &Run) -> String {
    let (wealth, limit) = (run.judge.wealth(), run.judge.parameters().limit());
    match run.plan.figures.mode {
        Mode::Sequential if !run.has_started => "Nothing has been judged yet.".into(),
        Mode::Sequential if wealth < 2.0 => {
            format!("Evidence against it: {wealth:.2} of {limit:.0}, which is none.")
        }
        // The wealth of a fair game reaches E at most once in E games (Ville's inequality).
        Mode::Sequential => format!(
            "Evidence against it: {wealth:.0} of {limit:.0}; a canary within its limits shows as \
             much in at most one of {wealth:.0} rollouts."
        ),
        Mode::Threshold => {
            "The literal rules of thresholds judge it; they say nothing of certainty.".into()
        }
        Mode::Off => "Nothing judges it: the clock alone moves it.".into(),
    }
}

fn cost(run: &Run) -> String {
    let Arms { canary, stable } = run.progress.run;
    if canary.requests == 0 {
        return "No user has been on it yet.".into();
    }
    let expected = rate(stable) * as_f64(canary.requests);
    let extra = as_f64(canary.errors) - expected;
    let more = if extra < 0.5 { "no".into() } else { format!("about {extra:.0}") };
    let (failed, all) = (canary.errors, canary.requests);
    format!("{failed} of {all} requests to it failed, {more} more than at stable's rate.")
}

fn next(run: &Run, health: &Health, conditions: &[Condition]) -> String {
    let next = run.plan.next(run.weight);
    let missing = conditions.iter().filter(|condition| !condition.holds);
    let missing: Vec<&str> = missing.map(|condition| condition.name.as_str()).collect();
    match run.phase {
        Phase::Waiting if missing.is_empty() => "It starts now.".into(),
        Phase::Waiting => format!("It has not started; missing: {}.", missing.join(", ")),
        Phase::Progressing => match (next, run.standing(health)) {
            (None, _) => "There is no further stage.".into(),
            (Some(stage), Standing::AwaitsApproval) => {
                format!("{} % waits for a person: `splitway promote`.", stage.weight)
            }
            (Some(stage), _) if missing.is_empty() => format!("{} % is next.", stage.weight),
            (Some(stage), _) => {
                format!("{} % is next; missing: {}.", stage.weight, missing.join(", "))
            }
        },
        Phase::Paused => "It is paused: `splitway resume` goes on, and it may still fall.".into(),
        Phase::Promoted => {
            let left = (run.plan.figures.bake_s - run.progress.baked_s).max(0.0);
            format!("It is watched for {} more and may still fall.", span(left))
        }
        Phase::RolledBack => {
            format!("Nothing, unless `splitway retry` starts {} again.", run.versions.canary)
        }
        Phase::Idle => "Nothing, until the configuration names another canary.".into(),
    }
}

/// How far `now` is on the way to `goal`, both on a scale of ratios, from 1.
fn on_log_scale(now: f64, goal: f64) -> f64 {
    (now.max(1.0).ln() / goal.max(1.0 + 1e-9).ln()).clamp(0.0, 1.0)
}

fn ready(health: &Health) -> Condition {
    let (ready, all) = health.canary;
    Condition {
        name: "endpoints".into(),
        holds: ready == all && all > 0,
        progress: as_f64(ready as u64) / as_f64(all.max(1) as u64),
        says: format!("{ready} of {all} canary endpoints are ready"),
    }
}

fn before_the_start(run: &Run, health: &Health) -> Vec<Condition> {
    let is_ready = health.is_ready(run.plan.figures.ready);
    let mut conditions = vec![Condition { holds: is_ready, ..ready(health) }];
    conditions.extend(opinions(health, Moment::Start));
    conditions
}

/// What checks and gates say of what comes at `moment`.
fn opinions(health: &Health, moment: Moment) -> impl Iterator<Item = Condition> {
    health.opinions.iter().filter(move |one| one.is_about(moment)).map(|one| {
        let holds = one.standing == external::Standing::Agrees;
        let (name, says) = (one.name.clone(), one.says.clone());
        Condition { name, holds, progress: f64::from(u8::from(holds)), says }
    })
}

fn conditions(run: &Run, health: &Health) -> Vec<Condition> {
    let (judge, progress) = (&run.judge, &run.progress);
    let parameters = judge.parameters();
    let mut conditions =
        vec![Condition { holds: health.has_capacity(), ..ready(health) }, split(run)];
    let (min_s, _) = run.plan.times(run.weight);
    let spent = if min_s > 0.0 { (progress.stage_s / min_s).min(1.0) } else { 1.0 };
    let mut add = |name: &str, holds, progress, says| {
        conditions.push(Condition { name: name.to_owned(), holds, progress, says });
    };
    let says = format!("{} of {}", span(progress.stage_s.min(min_s)), span(min_s));
    add("time", progress.stage_s >= min_s - 1e-9, spent, says);
    match run.plan.figures.mode {
        Mode::Sequential => {
            let (wealth, hold) = (judge.wealth(), parameters.hold);
            let far = 1.0 - on_log_scale(wealth, hold);
            add("evidence", wealth < hold, far, format!("{wealth:.2}, must stay below {hold}"));
            let limit = parameters.proof_limit();
            for (name, proof) in ["errors", "latency"].into_iter().zip(judge.proofs()) {
                let far = on_log_scale(proof, limit);
                let says = format!("proof {:.1} of {limit:.0}", proof.min(limit));
                add(name, proof >= limit, far, says);
            }
        }
        Mode::Threshold => {
            let window_s = run.plan.figures.threshold.window_s;
            let clean_s = progress.window.clean_s.min(window_s);
            let says = format!("clean for {} of {}", span(clean_s), span(window_s));
            add("window", clean_s >= window_s - 1e-9, clean_s / window_s.max(1e-9), says);
        }
        Mode::Off => {}
    }
    if run.plan.needs_approval(run.weight) {
        add("approval", false, 0.0, "a person must say `splitway promote`".into());
    }
    conditions.extend(opinions(health, run.moment()));
    conditions
}

fn split(run: &Run) -> Condition {
    let split = run.progress.split;
    let holds = !run.has_split_alarm();
    let all = split.canary + split.stable;
    let says = format!("{} of {all} drawn requests at {} %", split.canary, run.weight);
    Condition { name: "split".into(), holds, progress: f64::from(u8::from(holds)), says }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Judge;
    use crate::rollout::machine::{Machine, Versions};
    use crate::rollout::plan::Plan;
    use crate::track::Weight;

    fn run(errors: u64, phase: Phase) -> Run {
        let plan = Plan::through(&[5, 50, 100]);
        let versions = Versions { stable: "v1".into(), canary: "v2".into() };
        let mut machine = Machine::default();
        machine.begin((versions, plan.clone()), true);
        let mut run = machine.run.expect("a run has begun");
        run.phase = phase;
        run.weight = Weight::from_basis_points(500).expect("five percent");
        run.has_started = true;
        run.judge = Judge::new(plan.figures.judge.clone());
        let arm = |requests, errors| Arm { requests, errors, ..Arm::default() };
        run.progress.run = Arms { canary: arm(1_000, errors), stable: arm(19_000, 190) };
        run
    }

    #[test]
    fn the_headline_says_which_version_is_better_and_by_how_much() {
        let says = |errors, phase| outlook(Some(&run(errors, phase)), &Health::GOOD).headline;
        let alike = says(12, Phase::Progressing);
        assert_eq!(alike, "v2 shows no harm beside v1: errors 1.2 % against 1.0 %.");
        assert!(says(0, Phase::Progressing).starts_with("v2 looks better than v1: errors 0 %"));
        assert_eq!(says(12, Phase::RolledBack), "v2 was rolled back; v1 serves everybody.");
        assert_eq!(outlook(None, &Health::GOOD).headline, "There is no canary to judge.");
    }

    #[test]
    fn the_cost_is_what_stable_would_not_have_failed() {
        let outlook = outlook(Some(&run(25, Phase::Progressing)), &Health::GOOD);
        assert_eq!(
            outlook.cost,
            "25 of 1000 requests to it failed, about 15 more than at stable's rate."
        );
    }

    #[test]
    fn what_is_missing_for_the_next_stage_is_named() {
        let health = Health { canary: (1, 4), ..Health::GOOD };
        let outlook = outlook(Some(&run(10, Phase::Progressing)), &health);
        let missing: Vec<&str> = outlook
            .conditions
            .iter()
            .filter(|condition| !condition.holds)
            .map(|condition| condition.name.as_str())
            .collect();
        assert_eq!(missing, ["endpoints", "time", "errors", "latency"]);
        assert_eq!(outlook.next, "50 % is next; missing: endpoints, time, errors, latency.");
        for condition in &outlook.conditions {
            assert!((0.0..=1.0).contains(&condition.progress), "{condition:?}");
        }
    }

    #[test]
    fn a_rollout_that_waits_says_for_whom() {
        let gate = external::Opinion {
            name: "smoke-test".into(),
            moment: Moment::Start,
            is_last: true,
            standing: external::Standing::Waits,
            rolls_back: false,
            mark: 1,
            says: "has not agreed yet".into(),
        };
        let next = |canary, opinions: &[external::Opinion]| {
            let health = Health { canary, opinions: opinions.to_vec(), ..Health::GOOD };
            outlook(Some(&run(0, Phase::Waiting)), &health).next
        };
        let gates = [gate];
        assert_eq!(next((1, 2), &[]), "It has not started; missing: endpoints.");
        assert_eq!(next((2, 2), &gates), "It has not started; missing: smoke-test.");
        assert_eq!(next((2, 2), &[]), "It starts now.");
    }

    #[test]
    fn what_is_over_waits_for_nothing() {
        for phase in [Phase::RolledBack, Phase::Promoted, Phase::Idle] {
            assert!(outlook(Some(&run(10, phase)), &Health::GOOD).conditions.is_empty());
        }
    }
}
