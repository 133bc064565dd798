//! What an edit of the file means for a rollout under way: the decision table. Pure.
//!
//! The file is compared with the last one that was applied, never with the live weight: a file
//! that says 5 % again does not undo what the judge has proven since.

use serde::{Deserialize, Serialize};

use crate::track::Weight;

use super::machine::{Cause, Change, Effect, Machine, Phase, Versions};
use super::plan::{Plan, percent};
use super::run::Run;

/// What one applied file says of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The plan; without one the file owns the weights.
    pub plan: Option<Plan>,
    /// What stable runs.
    pub stable: String,
    /// What the canary runs, where there is one.
    pub canary: Option<String>,
    /// The canary's endpoints, as written.
    pub canary_endpoints: Vec<String>,
    /// The canary's weight, where the file has weights.
    pub weight: Option<Percent>,
}

/// A weight that is journalled in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(#[serde(with = "percent")] pub Weight);

/// What follows from an edit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// What to tell the operator.
    pub notes: Vec<String>,
    /// Stable is another version: its latencies and the proofs start again.
    pub resets_stable: bool,
    /// New canary endpoints are cold.
    pub restarts_warmup: bool,
    /// Stable runs the canary's version and takes over when it is ready.
    pub hands_over: bool,
    /// Stages that replace those of the run.
    pub plan: Option<Plan>,
}

/// What `next` means after `last` for a service whose canary carries `live` at the moment.
///
/// # Errors
/// An edit that would send users back to a version that was left behind, and what to do instead.
pub fn review(
    last: Option<&Applied>,
    next: &Applied,
    machine: &Machine,
    live: Weight,
) -> Result<Edit, String> {
    let mut edit = Edit::default();
    let run = machine.run.as_ref();
    if let Some(run) = run.filter(|run| run.is_promoted) {
        let keeps = next.canary.as_ref() == Some(&run.versions.canary);
        if next.stable != run.versions.canary && !keeps {
            let (version, stable) = (&run.versions.canary, &next.stable);
            return Err(format!(
                "{version} is promoted and carries the traffic, but stable is {stable}; make \
                 {version} stable first, or users would fall back"
            ));
        }
    }
    let Some(plan) = &next.plan else {
        without_plan(&mut edit, next, machine);
        return Ok(edit);
    };
    let Some(canary) = &next.canary else {
        if let Some(run) = run.filter(|run| run.weight > Weight::ZERO || !run.is_over()) {
            edit.changes.push(by_file(run, Phase::Idle, "the canary was removed"));
        }
        return Ok(edit);
    };
    if version_rows(&mut edit, last, next, (canary, plan), machine, live) {
        return Ok(edit);
    }
    let run = run.expect("a canary without a run begins one above");
    if last.is_some_and(|last| last.stable != next.stable) {
        edit.resets_stable = true;
        edit.notes
            .push("stable has another version; its latencies and the proofs start again".into());
    }
    let known = last.map_or(&[][..], |last| &last.canary_endpoints[..]);
    edit.restarts_warmup = next.canary_endpoints.iter().any(|endpoint| !known.contains(endpoint));
    weights(&mut edit, last, next, run);
    stages(&mut edit, plan, run);
    Ok(edit)
}

/// The rows about versions. Returns whether one of them settles the edit.
fn version_rows(
    edit: &mut Edit,
    last: Option<&Applied>,
    next: &Applied,
    (canary, plan): (&String, &Plan),
    machine: &Machine,
    live: Weight,
) -> bool {
    let begin = |phase, weight, why: &str| {
        let versions = Versions { stable: next.stable.clone(), canary: canary.clone() };
        Change {
            phase,
            weight,
            cause: Cause::File,
            actor: "file".into(),
            why: why.to_owned(),
            effect: Effect::Begin(Box::new((versions, plan.clone()))),
        }
    };
    let had_plan = last.is_some_and(|last| last.plan.is_some());
    let file_weight = next.weight.map_or(Weight::ZERO, |weight| weight.0);
    let rolled_back = "this version was rolled back; only `retry` starts it";
    let run = machine.run.as_ref();
    let is_hand_over = run.is_some_and(|run| {
        run.versions.canary == *canary && next.stable == *canary && run.phase != Phase::RolledBack
    });
    if is_hand_over {
        let is_new = run.is_some_and(|run| !run.is_over() || run.is_promoted);
        edit.hands_over = is_new && run.is_some_and(|run| run.weight > Weight::ZERO);
        if is_new && !edit.hands_over {
            edit.changes.extend(run.map(|run| {
                by_file(run, Phase::Idle, "reverted: both tracks run the same version")
            }));
        }
        return true;
    }
    if next.stable == *canary {
        let why = "reverted: both tracks run the same version";
        match run {
            Some(run) if run.phase != Phase::Idle || run.weight > Weight::ZERO => {
                edit.changes.push(by_file(run, Phase::Idle, why));
            }
            Some(_) => {}
            None => edit.changes.push(begin(Phase::Idle, Weight::ZERO, why)),
        }
        return true;
    }
    let is_same = run.is_some_and(|run| run.versions.canary == *canary);
    let is_back = last.is_some_and(|last| last.canary.as_ref() != Some(canary)) || !had_plan;
    if is_same && (!is_back || run.is_some_and(|run| run.is_promoted)) {
        return false;
    }
    if machine.is_rolled_back(canary) {
        edit.changes.push(begin(Phase::RolledBack, Weight::ZERO, rolled_back));
        return true;
    }
    let weight = if plan.figures.dry_run {
        file_weight
    } else if had_plan || last.is_none() {
        Weight::ZERO
    } else {
        live
    };
    let why = match run.filter(|run| !run.is_over()) {
        Some(run) => format!("{} supersedes {}", canary, run.versions.canary),
        None => format!("a rollout of {canary} begins"),
    };
    edit.changes.push(begin(Phase::Waiting, weight, &why));
    true
}

/// The file owns the weights; only a version that was rolled back stays at 0.
fn without_plan(edit: &mut Edit, next: &Applied, machine: &Machine) {
    let is_rolled_back = next.canary.as_ref().is_some_and(|canary| machine.is_rolled_back(canary));
    let weight = next.weight.map_or(Weight::ZERO, |weight| weight.0);
    if is_rolled_back && weight > Weight::ZERO {
        let version = next.canary.as_deref().unwrap_or_default();
        edit.notes.push(format!("{version} was rolled back and stays at 0 %"));
    }
    let weight = if is_rolled_back { Weight::ZERO } else { weight };
    if let Some(run) = machine.run.as_ref().filter(|run| run.phase != Phase::Idle) {
        let why = "the rollout was removed; the file owns the weights";
        edit.changes.push(Change { weight, ..by_file(run, Phase::Idle, why) });
    }
}

fn weights(edit: &mut Edit, last: Option<&Applied>, next: &Applied, run: &Run) {
    let Some(Percent(weight)) = next.weight else { return };
    if last.and_then(|last| last.weight) == Some(Percent(weight)) {
        return;
    }
    if run.plan.figures.dry_run {
        let why = "the file's weights move a dry run";
        edit.changes.push(Change { weight, ..by_file(run, run.phase, why) });
        return;
    }
    match run.phase {
        Phase::Waiting | Phase::Progressing | Phase::Paused => {
            let why = format!("the file sets {weight} %; `resume` goes on from there");
            let mut change = Change { weight, ..by_file(run, Phase::Paused, &why) };
            if weight == run.weight {
                change.effect = Effect::Restage;
            }
            edit.changes.push(change);
        }
        phase => edit.notes.push(format!(
            "`weights` is ignored: {} is {}",
            run.versions.canary,
            phase.as_str()
        )),
    }
}

fn stages(edit: &mut Edit, plan: &Plan, run: &Run) {
    if plan.figures != run.plan.figures {
        edit.notes
            .push("the judge's figures have changed; they apply from the next rollout".into());
    }
    if plan.stages == run.plan.stages {
        return;
    }
    edit.plan = Some(Plan { stages: plan.stages.clone(), figures: run.plan.figures.clone() });
    if !matches!(run.phase, Phase::Progressing | Phase::Paused) {
        return;
    }
    // A weight that the same edit sets has paused it already.
    if !edit.changes.is_empty() {
        return;
    }
    let all_above = plan.position(run.weight).is_none();
    let (phase, why) = if all_above {
        (Phase::Paused, "every stage of the new plan is above the present weight")
    } else {
        (run.phase, "the stages have changed; the proofs start again")
    };
    let mut change = Change { weight: run.weight, ..by_file(run, phase, why) };
    change.effect = Effect::Restage;
    edit.changes.push(change);
}

fn by_file(run: &Run, phase: Phase, why: &str) -> Change {
    Change { actor: "file".into(), ..run.change(phase, Weight::ZERO, Cause::File, why.to_owned()) }
}
