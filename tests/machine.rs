//! The machine and the journal under everything that can happen to them.

use proptest::prelude::*;
use splitway::judge::alarm::SplitCount;
use splitway::judge::{Arm, Arms};
use splitway::rollout::machine::{Cause, Effect, Versions};
use splitway::rollout::pardoned::Pardoned;
use splitway::rollout::plan::{OnFailure, OnMax};
use splitway::rollout::progress::Cohort;
use splitway::rollout::record::{Entry, Evidence, Record, Recovered, Stored, recover};
use splitway::rollout::run::Health;
use splitway::rollout::{Change, Command, Machine, Phase, Plan, Transition};
use splitway::track::Weight;

fn weight(basis_points: u16) -> Weight {
    Weight::from_basis_points(basis_points).unwrap()
}

fn plan() -> Plan {
    let mut plan = Plan::through(&[5, 25, 50, 100]);
    plan.stages.iter_mut().for_each(|stage| stage.min_s = 5.0);
    plan.figures.judge.warmup_s = 2.0;
    plan
}

fn begun(plan: Plan) -> Machine {
    let versions = Versions { stable: "v1".into(), canary: "v2".into() };
    let mut machine = Machine::default();
    let begin = Change {
        phase: Phase::Waiting,
        weight: Weight::ZERO,
        cause: Cause::File,
        actor: "file".into(),
        why: "it begins".into(),
        effect: Effect::Begin(Box::new((versions, plan))),
    };
    machine.apply(begin, 0);
    machine
}

fn arm(requests: u64, errors: u64) -> Arm {
    Arm { requests, errors, slow: [requests / 100, requests / 10] }
}

fn cohort(machine: &Machine, canary: Arm, stable: Arm) -> Cohort {
    let all = Arms { canary, stable };
    Cohort {
        dt_s: 1.0,
        weight: machine.weight(),
        mark: machine.mark,
        pots: all,
        all,
        drawn: SplitCount::of(&all),
        pardoned: Pardoned::default(),
        has_cut: [true; 2],
        stable_unfinished: 0,
        p99_ns: None,
        is_sticky: false,
    }
}

/// A second of traffic at the weight of the moment: this many errors per thousand on the canary.
fn second(machine: &mut Machine, rps: u64, errors: u64, health: &Health) -> Vec<Transition> {
    let canary = (rps as f64 * machine.weight().ratio()) as u64;
    let cohort = cohort(machine, arm(canary, canary * errors / 1_000), arm(rps - canary, 0));
    let judged = machine.judge(&cohort);
    let mut moved: Vec<Transition> =
        judged.into_iter().map(|change| machine.apply(change, 0)).collect();
    let passed = machine.pass(1.0, health);
    moved.extend(passed.into_iter().map(|change| machine.apply(change, 0)));
    moved
}

#[derive(Clone, Debug)]
enum Event {
    Traffic { canary: (u64, u64), stable: (u64, u64) },
    Command(Command),
    Health { canary: usize, stable: usize, broken: bool },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let arm = || (0..500_u64).prop_flat_map(|requests| (Just(requests), 0..=requests));
    let quiet = || (0..500_u64).prop_map(|requests| (requests, 0));
    let command = prop_oneof![
        Just(Command::Pause),
        Just(Command::Resume),
        any::<(bool, bool)>().prop_map(|(full, force)| Command::Promote { full, force }),
        Just(Command::Rollback),
        Just(Command::Retry),
        (0..=10_000_u16)
            .prop_map(|weight| { Command::SetWeight(Weight::from_basis_points(weight).unwrap()) }),
    ];
    let event = prop_oneof![
        12 => (quiet(), quiet()).prop_map(|(canary, stable)| Event::Traffic { canary, stable }),
        2 => (arm(), arm()).prop_map(|(canary, stable)| Event::Traffic { canary, stable }),
        2 => command.prop_map(Event::Command),
        1 => (0..=2_usize, 0..=2_usize, prop::bool::weighted(0.1))
            .prop_map(|(canary, stable, broken)| Event::Health { canary, stable, broken }),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Weights never rise except by an advance of the plan or by an operator; anyone may lower.
    #[test]
    fn weights_rise_by_an_advance_or_an_operator_only(events in events(), holds: bool) {
        let mut plan = plan();
        plan.figures.on_failure = if holds { OnFailure::Hold } else { OnFailure::Rollback };
        let mut machine = begun(plan);
        let mut health = Health::GOOD;
        for event in events {
            let before = machine.clone();
            let change = match event {
                Event::Health { canary, stable, broken } => {
                    let broken_rule = broken.then(|| "it crashed".to_owned());
                    health = Health { canary: (canary, 2), stable: (stable, 2), broken_rule, ..Health::GOOD };
                    machine.pass(1.0, &health)
                }
                Event::Command(command) => machine.command(command, "ann", &health).ok(),
                Event::Traffic { canary, stable } => {
                    let cohort = cohort(&machine, arm(canary.0, canary.1), arm(stable.0, stable.1));
                    machine.judge(&cohort).or_else(|| machine.pass(1.0, &health))
                }
            };
            prop_assert_eq!(machine.weight(), before.weight(), "nothing moves before it is applied");
            if let Some(change) = change {
                let plan = before.run.as_ref().unwrap().plan.clone();
                let moved = machine.apply(change, 0);
                prop_assert!(!moved.why.is_empty(), "{:?}", moved);
                if moved.weight > moved.weight_before && moved.cause != Cause::Operator {
                    let next = plan.next(moved.weight_before).unwrap().weight;
                    prop_assert_eq!(moved.weight, next, "one stage at a time: {:?}", moved);
                    prop_assert!(matches!(moved.cause, Cause::Judge | Cause::Plan));
                    prop_assert!(matches!(moved.from, Phase::Waiting | Phase::Progressing));
                }
                if moved.to == Phase::RolledBack {
                    prop_assert_eq!(moved.weight, Weight::ZERO);
                }
            }
            let run = machine.run.as_ref().unwrap();
            prop_assert!(run.judge.wealth().is_finite() && run.judge.wealth() >= 0.0);
            prop_assert!(!splitway::rollout::explain::explain(Some(run), &health).is_empty());
            let text = serde_json::to_string(&machine).unwrap();
            prop_assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine.clone());
        }
    }

    /// Every run ends: promoted, rolled back, or held with a reason.
    #[test]
    fn every_run_ends_or_says_why_not(errors in 0..200_u64, twenties in 0..100_u64) {
        // Whole requests at every weight, so that the split is exact.
        let rps = twenties * 20;
        let mut machine = begun(plan());
        for _ in 0..2_000 {
            second(&mut machine, rps, errors, &Health::GOOD);
        }
        let run = machine.run.as_ref().unwrap();
        match run.phase {
            Phase::Promoted | Phase::RolledBack | Phase::Idle => {}
            _ => {
                let said = splitway::rollout::explain::explain(Some(run), &Health::GOOD);
                prop_assert!(said.contains("will advance when"), "{}", said);
            }
        }
    }
}

#[test]
fn a_plan_that_is_over_time_does_what_it_says() {
    for (on_max, rps, phase, says) in [
        (OnMax::Hold, 20, Phase::Progressing, "past the stage's greatest time"),
        (OnMax::Rollback, 20, Phase::RolledBack, "on_max is rollback"),
        (OnMax::Advance, 400, Phase::Progressing, ""),
        (OnMax::Advance, 2, Phase::Progressing, "will advance when"),
    ] {
        let mut plan = plan();
        plan.figures.on_max = on_max;
        plan.stages.iter_mut().for_each(|stage| stage.max_s = Some(12.0));
        // No proof is complete that early.
        plan.figures.judge.error_budget = 0.0001;
        let mut machine = begun(plan);
        let moved: Vec<Transition> =
            (0..20).flat_map(|_| second(&mut machine, rps, 0, &Health::GOOD)).collect();
        assert_eq!(machine.phase(), phase, "{on_max:?} {rps}");
        let run = machine.run.as_ref().unwrap();
        let said = splitway::rollout::explain::explain(Some(run), &Health::GOOD);
        assert!(said.contains(says), "{on_max:?} {rps}: {said}");
        let unproven = moved.iter().any(|one| one.why.contains("unproven"));
        assert_eq!(unproven, (on_max, rps) == (OnMax::Advance, 400));
    }
}

#[test]
fn too_few_endpoints_hold_an_advance_back() {
    let mut machine = begun(plan());
    for _ in 0..30 {
        second(&mut machine, 4_000, 0, &Health::GOOD);
        if machine.weight() == weight(2_500) {
            break;
        }
    }
    assert_eq!(machine.weight(), weight(2_500));
    let poor = Health { canary: (1, 3), stable: (2, 2), ..Health::GOOD };
    (0..60).for_each(|_| drop(second(&mut machine, 4_000, 0, &poor)));
    assert_eq!(machine.weight(), weight(2_500));
    let run = machine.run.as_ref().unwrap();
    let said = splitway::rollout::explain::explain(Some(run), &poor);
    assert!(
        said.contains("1 of 3 canary and 2 of 2 stable endpoints are ready, too few"),
        "{said}"
    );
    second(&mut machine, 4_000, 0, &Health::GOOD);
    assert_eq!(machine.weight(), weight(5_000));
}

#[test]
fn a_wrong_split_and_unfinished_requests_hold_and_never_roll_back() {
    let mut machine = begun(plan());
    second(&mut machine, 0, 0, &Health::GOOD);
    for _ in 0..60 {
        let cohort = cohort(&machine, arm(300, 0), arm(700, 0));
        assert_eq!(machine.judge(&cohort), None);
        assert_eq!(machine.pass(1.0, &Health::GOOD), None);
    }
    let explain = |machine: &Machine| {
        splitway::rollout::explain::explain(machine.run.as_ref(), &Health::GOOD)
    };
    assert!(explain(&machine).contains("ALARM"), "{}", explain(&machine));
    let mut machine = begun(plan());
    second(&mut machine, 0, 0, &Health::GOOD);
    for _ in 0..60 {
        let cohort = Cohort { stable_unfinished: 20, ..cohort(&machine, arm(50, 0), arm(950, 0)) };
        assert_eq!(machine.judge(&cohort), None);
        assert_eq!(machine.pass(1.0, &Health::GOOD), None);
    }
    assert!(explain(&machine).contains("raise rollout.evidence.settle"), "{}", explain(&machine));
}

#[test]
fn cohorts_of_an_earlier_stage_feed_the_pots_and_no_proof() {
    let mut machine = begun(plan());
    second(&mut machine, 0, 0, &Health::GOOD);
    let old = cohort(&machine, arm(50, 50), arm(950, 0));
    let promote = Command::Promote { full: false, force: false };
    let promote = machine.command(promote, "ann", &Health::GOOD).unwrap();
    machine.apply(promote, 0);
    let proofs = machine.run.as_ref().unwrap().judge.proofs();
    let change = machine.judge(&old).unwrap();
    assert_eq!(change.phase, Phase::RolledBack, "fifty failures are fifty failures");
    assert_eq!(machine.run.as_ref().unwrap().judge.proofs(), proofs);
}

// === the journal ===

/// The records of a rollout that advances and is then rolled back, as the controller writes them.
fn recorded() -> Vec<Record> {
    let mut machine = begun(plan());
    let mut records = Vec::new();
    let mut write = |entry: Entry| records.push(Record { service: "api".into(), entry });
    for number in 0..14 {
        let canary = (4_000.0 * machine.weight().ratio()) as u64;
        let errors = if number > 11 { canary / 2 } else { 0 };
        let cohort = cohort(&machine, arm(canary, errors), arm(4_000 - canary, 1));
        let judged = machine.judge(&cohort);
        let run = machine.run.as_ref().unwrap();
        write(Entry::Evidence(Box::new(Evidence {
            dt_s: 1.0,
            stage: run.plan.position(cohort.weight).map(|position| position + 1),
            weight: cohort.weight.ratio() * 100.0,
            canary: cohort.all.canary,
            stable: cohort.all.stable,
            pots: None,
            has_cut: [true; 2],
            e: run.judge.wealth(),
            account: run.judge.account().clone(),
            progress: run.progress.clone(),
        })));
        let passed = machine.pass(1.0, &Health::GOOD);
        for change in judged.into_iter().chain(passed) {
            let transition = Box::new(machine.apply(change, number));
            write(Entry::Transition { transition, machine: Box::new(machine.clone()) });
        }
    }
    assert_eq!(machine.phase(), Phase::RolledBack);
    records
}

/// A crash may tear the file at any byte; what comes back is the state after the last whole record.
#[test]
fn a_journal_cut_at_any_byte_resumes_at_its_last_whole_record() {
    let records = recorded();
    let mut bytes = Vec::new();
    let mut states = vec![(0, None)];
    let mut stored = Stored::default();
    for record in &records {
        bytes.extend_from_slice(&record.line());
        stored.take(record.entry.clone());
        states.push((bytes.len(), Some(stored.clone())));
    }
    assert!(records.len() > 15 && bytes.len() > 10_000, "{} {}", records.len(), bytes.len());
    for cut in 0..=bytes.len() {
        let (whole, expected) = states.iter().rev().find(|(end, _)| *end <= cut).unwrap();
        // Reading the same whole records again and again would say nothing new.
        let from = states.iter().rev().find(|(end, _)| end < whole).map_or(0, |(end, _)| *end);
        let Recovered { services, whole_bytes, skipped } = recover(&bytes[..cut]);
        assert_eq!((whole_bytes, skipped), (*whole, 0), "cut at {cut}, last record from {from}");
        assert_eq!(services.get("api"), expected.as_ref(), "cut at {cut}");
    }
}
