//! The judge against its reference: every vector at a relative error of 1e-9.

use serde_json::Value as Json;
use splitway::judge::bet::Bet;
use splitway::judge::threshold::{self, Finding, Limits, Totals};
use splitway::judge::{Arm, Arms, Judge, Opinion, Parameters, Tick};

const WEIGHTS: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0];

fn vectors() -> Json {
    serde_json::from_str(include_str!("judge/vectors.json")).unwrap()
}

fn number(value: &Json) -> f64 {
    value.as_f64().unwrap()
}

fn near(found: f64, expected: &Json, what: &str) {
    let expected = number(expected);
    let error = (found - expected).abs();
    assert!(error <= 1e-9 * expected.abs().max(1e-300), "{what}: {found} is not {expected}");
}

#[test]
fn every_bet_is_that_of_the_reference() {
    let vectors = vectors();
    let mut count = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let (inputs, expect) = (&vector["inputs"], &vector["expect"]);
        let input = |name: &str| number(&inputs[name]);
        let bet = match vector["kind"].as_str().unwrap() {
            "bet" => Bet::on_harm(input("w"), input("rho"), input("delta"), input("m")),
            "gate_bet" => Bet::on_safety(input("w"), input("rho"), input("m"), input("r")),
            _ => continue,
        };
        let name = vector["name"].as_str().unwrap();
        near(bet.canary_event, &expect["ln_canary_event"], name);
        near(bet.canary_request, &expect["ln_canary_request"], name);
        near(bet.stable_event, &expect["ln_stable_event"], name);
        count += 1;
    }
    assert_eq!(count, 9);
}

/// A tick of the reference's form.
fn tick(tick: &Json, stage: usize) -> Tick {
    let count = |name: &str| tick[name].as_u64().unwrap();
    let pair = |name: &str| [0, 1].map(|index: usize| tick[name][index].as_u64().unwrap());
    let arms = Arms {
        canary: Arm { requests: count("Nc"), errors: count("Xc"), slow: pair("slow_c") },
        stable: Arm { requests: 0, errors: count("Xs"), slow: pair("slow_s") },
    };
    Tick {
        dt_s: number(&tick["dt"]),
        weight: WEIGHTS[stage],
        next_weight: Some(WEIGHTS[stage + 1]),
        is_current: true,
        proofs_paused: false,
        pots: arms,
        proofs: arms,
        has_cut: [true; 2],
    }
}

#[test]
fn every_sequence_ends_as_in_the_reference() {
    let mut count = 0;
    for vector in vectors()["vectors"].as_array().unwrap() {
        if vector["kind"] != "sequence" {
            continue;
        }
        count += 1;
        sequence(vector);
    }
    assert_eq!(count, 12);
}

fn sequence(vector: &Json) {
    let name = vector["name"].as_str().unwrap();
    let (inputs, expect) = (&vector["inputs"], &vector["expect"]);
    let overrides = inputs["config_overrides"].as_object().unwrap();
    let mut parameters = Parameters::default();
    let mut min_stage_s = 60.0;
    for (key, value) in overrides {
        match key.as_str() {
            "warmup" => parameters.warmup_s = number(value),
            "min_stage" => min_stage_s = number(value),
            other => panic!("{name} overrides {other}"),
        }
    }
    let mut judge = Judge::new(parameters);
    let (mut stage, mut ticks, mut last) = (0, 0, "hold");
    let mut others = serde_json::Map::new();
    'all: for phase in inputs["phases"].as_array().unwrap() {
        for _ in 0..phase["repeat"].as_u64().unwrap() {
            let by_stage = &phase["tick_by_stage"];
            let given = if by_stage.is_null() { &phase["tick"] } else { &by_stage[stage] };
            let opinion = judge.tick(&tick(given, stage));
            ticks += 1;
            if let Some(e) = expect["E_after_tick"].get(ticks.to_string()) {
                near(judge.wealth(), e, &format!("{name}, tick {ticks}"));
            }
            last = match opinion {
                Opinion::Harmful => "rollback",
                Opinion::Proven if judge.has_judged(min_stage_s) => {
                    stage += 1;
                    judge.enter_stage();
                    if stage == WEIGHTS.len() - 1 { "promote" } else { "advance" }
                }
                _ => "hold",
            };
            if last != "hold" {
                others.insert(ticks.to_string(), last.into());
            }
            if last == "rollback" || last == "promote" {
                break 'all;
            }
        }
    }
    assert_eq!(last, expect["final_decision"], "{name}");
    assert_eq!(
        (ticks, stage),
        (expect["ticks"].as_u64().unwrap(), expect["stage_index"].as_u64().unwrap() as usize),
        "{name}"
    );
    assert_eq!(&Json::Object(others), &expect["non_hold_decisions"], "{name}");
    near(judge.error_pot().cash(), &expect["err_cash"], name);
    for (index, stake) in judge.error_pot().stakes().iter().enumerate() {
        near(*stake, &expect["err_R"][index], name);
    }
    let [_, p99, p90] = judge.pots();
    near(p99, &expect["lat_wealth"][0], name);
    near(p90, &expect["lat_wealth"][1], name);
    let [errors, latency] = judge.proofs();
    near(errors, &expect["gate_err_wealth"], name);
    near(latency, &expect["gate_lat_wealth"], name);
}

#[test]
fn threshold_mode_is_the_letter_of_the_rules() {
    let vectors = vectors();
    let list = vectors["threshold_mode"].as_array().unwrap();
    assert_eq!(list.len(), 9);
    for vector in list {
        let input = |name: &str| vector["inputs"][name].as_u64().unwrap();
        let arm = |requests, errors| Arm { requests, errors, ..Arm::default() };
        let totals = Totals {
            arms: Arms {
                canary: arm(input("canary_requests"), input("canary_errors")),
                stable: arm(input("stable_requests"), input("stable_errors")),
            },
            p99_ns: Some((input("canary_p99_us") * 1_000, input("stable_p99_us") * 1_000)),
        };
        let limits = Limits {
            requests_min: input("min_requests"),
            errors_min: input("min_errors"),
            ..Limits::default()
        };
        let found = match threshold::decide(&totals, &limits) {
            Finding::TooFew => "hold",
            Finding::Clean => "pass",
            Finding::Errors => "rollback_error_rate",
            Finding::Latency => "rollback_latency",
        };
        assert_eq!(found, vector["expect"], "{}", vector["name"]);
    }
}
