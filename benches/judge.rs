//! One tick of a service: the judge on a closed cohort, and the machine around it.
#![allow(missing_docs, reason = "criterion makes public functions of its own")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use splitway::judge::{Arm, Arms, Judge, Parameters, Tick};
use splitway::rollout::Plan;
use splitway::rollout::progress::Cohort;
use splitway::rollout::run::Health;
use splitway::simulate::rollout::begun;

/// A fifth of a second at 1,000 requests a second and 5 %.
const ARMS: Arms = Arms {
    canary: Arm { requests: 10, errors: 0, slow: [0, 1] },
    stable: Arm { requests: 190, errors: 0, slow: [2, 19] },
};

fn judge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    let tick = |weight| Tick {
        dt_s: 0.2,
        weight,
        next_weight: Some(0.1),
        is_current: true,
        proofs_paused: false,
        pots: ARMS,
        proofs: ARMS,
        has_cut: [true; 2],
    };
    let mut judge = Judge::new(Parameters::default());
    group.bench_function("tick", |bencher| bencher.iter(|| judge.tick(black_box(&tick(0.05)))));
    // Every other tick at another weight: what a stage's change costs.
    let (mut judge, mut is_other) = (Judge::new(Parameters::default()), false);
    group.bench_function("tick_at_another_weight", |bencher| {
        bencher.iter(|| {
            is_other = !is_other;
            judge.tick(black_box(&tick(if is_other { 0.05 } else { 0.1 })))
        });
    });
    let mut plan = Plan::through(&[5, 100]);
    plan.stages[0].min_s = 1e9;
    let mut machine = begun(&plan);
    let cohort = Cohort {
        dt_s: 0.2,
        weight: machine.weight(),
        mark: machine.mark,
        pots: ARMS,
        all: ARMS,
        drawn: splitway::judge::alarm::SplitCount::of(&ARMS),
        pardoned: splitway::rollout::pardoned::Pardoned::default(),
        has_cut: [true; 2],
        stable_unfinished: 0,
        p99_ns: None,
        is_sticky: false,
    };
    group.bench_function("service", |bencher| {
        bencher.iter(|| {
            let judged = machine.judge(black_box(&cohort));
            let passed = machine.pass(0.2, &Health::GOOD);
            (judged.is_none(), passed.is_none())
        });
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
