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
///
/// # Panics
/// Never: a canary without a run begins one.
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
        if run.is_some_and(|run| run.weight > Weight::ZERO || !run.is_over()) {
            edit.changes.push(by_file(Phase::Idle, "the canary was removed"));
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
    if next.stable == *canary {
        same_version(edit, canary, run, |why| begin(Phase::Idle, Weight::ZERO, why));
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

/// Both tracks run the same version: the canary's became stable, or the canary was reverted.
fn same_version(
    edit: &mut Edit,
    canary: &str,
    run: Option<&Run>,
    begin: impl FnOnce(&str) -> Change,
) {
    let reverted = "reverted: both tracks run the same version";
    let Some(run) = run else { return edit.changes.push(begin(reverted)) };
    let is_under_way = !run.is_over() || run.is_promoted;
    let carries = run.weight > Weight::ZERO;
    if run.versions.canary == canary && is_under_way && carries {
        edit.hands_over = true;
    } else if is_under_way || carries || run.phase == Phase::RolledBack {
        edit.changes.push(by_file(Phase::Idle, reverted));
    }
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
    if machine.run.as_ref().is_some_and(|run| run.phase != Phase::Idle) {
        let why = "the rollout was removed; the file owns the weights";
        edit.changes.push(Change { weight, ..by_file(Phase::Idle, why) });
    }
}

fn weights(edit: &mut Edit, last: Option<&Applied>, next: &Applied, run: &Run) {
    let Some(Percent(weight)) = next.weight else { return };
    if last.and_then(|last| last.weight) == Some(Percent(weight)) {
        return;
    }
    if run.plan.figures.dry_run {
        let why = "the file's weights move a dry run";
        edit.changes.push(Change { weight, ..by_file(run.phase, why) });
        return;
    }
    match run.phase {
        Phase::Waiting | Phase::Progressing | Phase::Paused => {
            let why = format!("the file sets {weight} %; `resume` goes on from there");
            let mut change = Change { weight, ..by_file(Phase::Paused, &why) };
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
    let mut change = Change { weight: run.weight, ..by_file(phase, why) };
    change.effect = Effect::Restage;
    edit.changes.push(change);
}

fn by_file(phase: Phase, why: &str) -> Change {
    Change { actor: "file".into(), ..Change::to(phase, Weight::ZERO, Cause::File, why.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Command;
    use crate::rollout::run::Health;

    fn weight(percent: u16) -> Weight {
        Weight::from_basis_points(percent * 100).unwrap()
    }

    fn applied(stable: &str, canary: Option<&str>) -> Applied {
        Applied {
            plan: Some(Plan::through(&[5, 25, 100])),
            stable: stable.into(),
            canary: canary.map(Into::into),
            canary_endpoints: vec!["a:1".into()],
            weight: None,
        }
    }

    /// A machine that has applied a file with v1 and v2 and was then told to do `commands`.
    fn machine(commands: &[Command]) -> (Applied, Machine) {
        let (file, mut machine) = (applied("v1", Some("v2")), Machine::default());
        let edit = review(None, &file, &machine, Weight::ZERO).unwrap();
        for change in edit.changes {
            machine.apply(change, 0);
        }
        let start = machine.pass(0.0, &Health::GOOD).unwrap();
        machine.apply(start, 0);
        for command in commands {
            let change = machine.command(*command, "test", &Health::GOOD).unwrap();
            machine.apply(change, 0);
        }
        (file, machine)
    }

    const FULL: Command = Command::Promote { full: true, force: false };

    /// What an edit of the running file leads to: phase, weight in percent, version.
    fn after(
        commands: &[Command],
        change: impl FnOnce(&mut Applied),
    ) -> (Phase, u16, String, Edit) {
        let (last, mut machine) = machine(commands);
        let mut next = last.clone();
        change(&mut next);
        let edit = review(Some(&last), &next, &machine, machine.weight()).unwrap();
        for change in edit.changes.clone() {
            machine.apply(change, 0);
        }
        let run = machine.run.unwrap();
        (run.phase, run.weight.basis_points() / 100, run.versions.canary, edit)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one row of the table each")]
    fn every_row_of_the_decision_table() {
        use Command::{Rollback, SetWeight};
        use Phase::{Idle, Paused, Progressing, Promoted, RolledBack, Waiting};
        type Row<'a> = (&'a str, &'a [Command], fn(&mut Applied), (Phase, u16, &'a str));
        let set17 = [SetWeight(weight(17)), Command::Resume];
        let rows: &[Row<'_>] = &[
            ("nothing", &set17, |_| {}, (Progressing, 17, "v2")),
            ("canary removed", &[], |next| next.canary = None, (Idle, 0, "v2")),
            (
                "canary gets stable's version",
                &[],
                |next| next.canary = Some("v1".into()),
                (Idle, 0, "v2"),
            ),
            (
                "canary gets another version",
                &[],
                |next| {
                    next.canary = Some("v3".into());
                    next.weight = Some(Percent(Weight::FULL));
                },
                (Waiting, 0, "v3"),
            ),
            ("stable changes", &set17, |next| next.stable = "v1.1".into(), (Progressing, 17, "v2")),
            (
                "only endpoints",
                &set17,
                |next| next.canary_endpoints.push("b:1".into()),
                (Progressing, 17, "v2"),
            ),
            ("weights", &[], |next| next.weight = Some(Percent(Weight::FULL)), (Paused, 100, "v2")),
            (
                "weights, promoted",
                &[FULL],
                |next| next.weight = Some(Percent(Weight::ZERO)),
                (Promoted, 100, "v2"),
            ),
            (
                "weights, rolled back",
                &[Rollback],
                |next| next.weight = Some(Percent(Weight::FULL)),
                (RolledBack, 0, "v2"),
            ),
            (
                "stages",
                &set17,
                |next| next.plan = Some(Plan::through(&[10, 30, 100])),
                (Progressing, 17, "v2"),
            ),
            (
                "stages, all above",
                &[],
                |next| next.plan = Some(Plan::through(&[10, 100])),
                (Paused, 5, "v2"),
            ),
            (
                "figures",
                &set17,
                |next| next.plan.as_mut().unwrap().figures.bake_s = 1.0,
                (Progressing, 17, "v2"),
            ),
            (
                "rollout removed",
                &set17,
                |next| {
                    next.plan = None;
                    next.weight = Some(Percent(Weight::ZERO));
                },
                (Idle, 0, "v2"),
            ),
            (
                "rollout removed, rolled back",
                &[Rollback],
                |next| {
                    next.plan = None;
                    next.weight = Some(Percent(Weight::FULL));
                },
                (Idle, 0, "v2"),
            ),
            (
                "promoted, stable not yet ready",
                &[FULL],
                |next| next.stable = "v2".into(),
                (Promoted, 100, "v2"),
            ),
            (
                "progressing, stable not yet ready",
                &[],
                |next| next.stable = "v2".into(),
                (Progressing, 5, "v2"),
            ),
        ];
        for (name, commands, change, (phase, percent, version)) in rows {
            let (found, weight, canary, _) = after(commands, change);
            assert_eq!((found, weight, canary.as_str()), (*phase, *percent, *version), "{name}");
        }
    }

    #[test]
    fn what_an_edit_does_beside_phase_and_weight() {
        let (.., edit) = after(&[], |next| next.stable = "v1.1".into());
        assert!(edit.resets_stable && !edit.restarts_warmup);
        let (.., edit) = after(&[], |next| next.canary_endpoints.push("b:1".into()));
        assert!(edit.restarts_warmup && !edit.resets_stable);
        let (.., edit) = after(&[], |next| next.canary_endpoints.clear());
        assert!(!edit.restarts_warmup, "an endpoint that goes warms nothing up");
        let (.., edit) = after(&[], |next| next.plan.as_mut().unwrap().figures.bake_s = 1.0);
        assert!(edit.notes[0].contains("next rollout"), "{edit:?}");
        let (.., edit) = after(&[FULL], |next| next.stable = "v2".into());
        assert!(edit.hands_over);
        let (.., edit) = after(&[], |next| next.plan = Some(Plan::through(&[5, 50, 100])));
        assert_eq!(edit.plan.unwrap().stages.len(), 3);
    }

    #[test]
    fn nobody_falls_back_behind_a_promoted_version() {
        let (last, machine) = machine(&[FULL]);
        for canary in [Some("v3"), Some("v1"), None] {
            let next = applied("v1", canary);
            let refused = review(Some(&last), &next, &machine, Weight::FULL).unwrap_err();
            assert!(refused.contains("make v2 stable first"), "{refused}");
        }
        for next in [applied("v2", Some("v3")), applied("v2", None), applied("v1", Some("v2"))] {
            assert!(review(Some(&last), &next, &machine, Weight::FULL).is_ok(), "{next:?}");
        }
    }

    #[test]
    fn a_rolled_back_version_comes_back_only_by_retry() {
        let (last, mut machine) = machine(&[Command::Rollback]);
        let third = applied("v1", Some("v3"));
        for change in review(Some(&last), &third, &machine, Weight::ZERO).unwrap().changes {
            machine.apply(change, 0);
        }
        assert_eq!(machine.phase(), Phase::Waiting);
        for change in review(Some(&third), &last, &machine, Weight::ZERO).unwrap().changes {
            machine.apply(change, 0);
        }
        assert_eq!((machine.phase(), machine.weight()), (Phase::RolledBack, Weight::ZERO));
        assert_eq!(machine.run.as_ref().unwrap().attempt, 1, "it was not attempted again");
        let retry = machine.command(Command::Retry, "test", &Health::GOOD).unwrap();
        machine.apply(retry, 0);
        let run = machine.run.as_ref().unwrap();
        assert_eq!((run.phase, run.attempt), (Phase::Waiting, 2));
        assert!((run.judge.wealth() - 1.0).abs() < 1e-12, "a fresh account");
    }

    #[test]
    fn a_rollout_that_is_added_takes_the_live_weight_over() {
        let owned = Applied { plan: None, ..applied("v1", Some("v2")) };
        let next = applied("v1", Some("v2"));
        let edit = review(Some(&owned), &next, &Machine::default(), weight(20)).unwrap();
        assert_eq!((edit.changes[0].phase, edit.changes[0].weight), (Phase::Waiting, weight(20)));
        let edit = review(None, &next, &Machine::default(), weight(20)).unwrap();
        assert_eq!(edit.changes[0].weight, Weight::ZERO, "at a first start nothing is live");
    }
}
