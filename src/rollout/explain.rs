//! Why a rollout stands where it stands, in the words of a person on call.

use std::fmt::Write;

use crate::judge::threshold::{Finding, Limits, Totals};
use crate::judge::{Arm, Arms, Parameters};
use crate::track::Weight;

use super::external::{self, Moment};
use super::machine::Phase;
use super::plan::{Mode, OnMax};
use super::run::{Health, Run, Standing};

/// A count as a number to calculate with.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

/// A duration as people say it: `8 s`, `3 min`, `2.5 h`.
#[must_use]
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5_700.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// A share as people read it: `0.12 %`.
pub(super) fn percent(count: u64, of: u64) -> String {
    if of == 0 {
        return "no requests".into();
    }
    let share = as_f64(count) / as_f64(of) * 100.0;
    let decimals = if share == 0.0 || share >= 10.0 { 0 } else { usize::from(share < 0.1) + 1 };
    format!("{share:.decimals$} %")
}

fn errors(arms: &Arms, ratio: f64) -> String {
    let of = |arm: &Arm| percent(arm.errors, arm.requests);
    format!("canary {}, stable {}, limit {ratio}×", of(&arms.canary), of(&arms.stable))
}

/// What most of the evidence against the canary is made of, with its figures.
fn source(run: &Run, arms: &Arms) -> String {
    let figures = run.judge.parameters();
    let pots = run.judge.pots();
    // What a pot has gained on what it started with.
    let gain = |pot: usize| pots[pot] / figures.shares[pot].max(1e-9);
    let worst = (0..3).max_by(|a, b| gain(*a).total_cmp(&gain(*b))).unwrap_or(0);
    if worst == 0 {
        return format!("from errors ({})", errors(arms, figures.error_ratio));
    }
    let name = ["p99", "p90"][worst - 1];
    let of = |arm: &Arm| percent(arm.slow[worst - 1], arm.requests);
    let (canary, stable) = (of(&arms.canary), of(&arms.stable));
    format!("from {name} latency (beyond its limit: canary {canary}, stable {stable})")
}

/// Why a canary is outside the limits.
#[must_use]
pub fn harmful(run: &Run) -> String {
    let (e, limit) = (run.judge.wealth(), run.judge.parameters().limit());
    // What happened just now is what a person wants to see first.
    let recent = run.progress.recent.arms();
    let arms = if recent.canary.requests == 0 { run.progress.run } else { recent };
    let cost = run.progress.run.canary.errors;
    format!(
        "evidence {e:.0} of {limit:.0} against the canary, {}; {cost} of its {} requests failed",
        source(run, &arms),
        run.progress.run.canary.requests
    )
}

/// Why the cap on failures is reached.
#[must_use]
pub fn excess(run: &Run, most: u64) -> String {
    let (excess, figures) = (run.progress.excess, run.judge.parameters());
    let errors = errors(&run.progress.run, figures.error_ratio);
    format!("{excess:.0} failures beyond the limits, {most} are allowed ({errors})")
}

/// What the literal rules found, if it is a fault.
#[must_use]
pub fn threshold(finding: Finding, totals: &Totals, limits: &Limits) -> Option<String> {
    match finding {
        Finding::TooFew | Finding::Clean => None,
        Finding::Errors => {
            let window = span(limits.window_s);
            Some(format!("errors over {window}: {}", errors(&totals.arms, limits.error_ratio)))
        }
        Finding::Latency => {
            let ms = |ns: u64| as_f64(ns) / 1e6;
            let (canary, stable) = totals.p99_ns.unwrap_or_default();
            let (window, ratio) = (span(limits.window_s), limits.p99_ratio);
            let (canary, stable) = (ms(canary), ms(stable));
            Some(format!(
                "p99 over {window}: canary {canary:.1} ms, stable {stable:.1} ms, limit {ratio}×"
            ))
        }
    }
}

/// Why it advances.
#[must_use]
pub fn proven(run: &Run) -> String {
    let (stage, figures) = (&run.progress.stage, run.judge.parameters());
    let time = span(run.progress.stage_s);
    match run.plan.figures.mode {
        Mode::Off => format!("{time} at {} %", run.weight),
        Mode::Threshold => {
            format!("one clean window after {time} ({})", errors(stage, figures.error_ratio))
        }
        Mode::Sequential => {
            let ([error, slow], limit) = (run.judge.proofs(), figures.proof_limit());
            format!(
                "proven after {time}: errors {} of {limit:.0}, latency {} of {limit:.0}; evidence \
                 against it {:.2} ({})",
                capped(error),
                capped(slow),
                run.judge.wealth(),
                errors(stage, figures.error_ratio)
            )
        }
    }
}

/// Proofs past their end say nothing more.
fn capped(proof: f64) -> String {
    if proof > 999.0 { "> 999".into() } else { format!("{proof:.1}") }
}

/// Why it advances although nothing is proven.
#[must_use]
pub fn unproven(run: &Run) -> String {
    let time = span(run.progress.stage_s);
    format!("unproven: the stage's greatest time is over after {time}, and on_max is advance")
}

/// Why a stage without proof is left downwards.
#[must_use]
pub fn overdue(run: &Run) -> String {
    let time = span(run.progress.stage_s);
    format!("not proven within {time}, and on_max is rollback")
}

/// The whole explanation, in one sentence or two.
#[must_use]
pub fn explain(run: Option<&Run>, health: &Health) -> String {
    let Some(run) = run else { return "idle: there is no canary to judge".into() };
    let weight = run.weight;
    let mut text = match run.phase {
        Phase::Idle if run.is_promoted => {
            format!("idle at {weight} %: {} was promoted; {}", run.versions.canary, next_step(run))
        }
        Phase::Idle => format!("idle: {}", run.why),
        Phase::Waiting => waiting(run, health),
        Phase::Progressing => {
            format!("hold at {weight} %: {}", standing(run, run.standing(health), health))
        }
        Phase::Paused => format!("paused at {weight} %: {}{}", run.why, against(run)),
        Phase::Promoted => {
            let (baked, bake) = (run.progress.baked_s, run.plan.figures.bake_s);
            let left = span((bake - baked).max(0.0));
            format!("promoted at {weight} %: watched for {left} more; {}", next_step(run))
        }
        Phase::RolledBack => {
            format!("rolled back: {}; `retry` starts {} again", run.why, run.versions.canary)
        }
    };
    if let Some(would_have) = &run.would_have {
        let _ = write!(text, ". Dry run; it would {would_have}");
    }
    let pardoned = &run.progress.pardoned;
    if !pardoned.is_empty() {
        let _ = write!(text, ". {}", pardoned.text());
    }
    text
}

fn next_step(run: &Run) -> String {
    if run.hands_over {
        return format!("stable takes over when all its endpoints run {}", run.versions.canary);
    }
    format!("make {} stable in the configuration to finish", run.versions.canary)
}

fn waiting(run: &Run, health: &Health) -> String {
    let ((ready, all), figures) = (health.canary, &run.plan.figures);
    if figures.starts_by_hand && !run.starts_by_hand {
        return "waiting for `resume`: the state is kept in memory".into();
    }
    if ready == all
        && let Some(one) = external::against(&health.opinions, Moment::Start, true)
    {
        return format!("waiting for `{}`, which {}", one.name, one.says);
    }
    let left = span((figures.start_timeout_s - run.progress.waited_s).max(0.0));
    format!("waiting: {ready} of {all} canary endpoints are ready; gives up in {left}")
}

fn against(run: &Run) -> String {
    if !run.has_started || run.plan.figures.mode != Mode::Sequential {
        return String::new();
    }
    let (e, limit) = (run.judge.wealth(), run.judge.parameters().limit());
    format!("; evidence {e:.1} of {limit:.0} against the canary")
}

fn standing(run: &Run, standing: Standing, health: &Health) -> String {
    let figures = &run.plan.figures;
    let Parameters { hold, .. } = *run.judge.parameters();
    let (min_s, _) = run.plan.times(run.weight);
    match standing {
        Standing::AtLast => "there is no further stage".into(),
        Standing::Suspicious => {
            let (e, limit) = (run.judge.wealth(), run.judge.parameters().limit());
            let source = source(run, &run.progress.stage);
            format!(
                "evidence {e:.0} of {limit:.0} against the canary, {source}; will advance when \
                 below {hold} and {}",
                proof(run)
            )
        }
        Standing::SplitAlarm => {
            let split = run.progress.split;
            format!(
                "ALARM: the canary got {} of {} requests, which is not {} %; something in front \
                 splits too, so nothing is concluded",
                split.canary,
                split.canary + split.stable,
                run.weight
            )
        }
        Standing::Unsettled => {
            "more than 1 % of stable's requests take longer than `settle`; raise \
            rollout.evidence.settle"
                .into()
        }
        Standing::TooEarly => {
            let left = span(min_s - run.progress.stage_s);
            let against = against(run);
            if figures.mode == Mode::Sequential {
                format!(
                    "{left} of the stage's least time left; will advance when {}{against}",
                    proof(run)
                )
            } else {
                format!("{left} of the stage's least time left{against}")
            }
        }
        Standing::NoCapacity => {
            let ((canary, canaries), (stable, stables)) = (health.canary, health.stable);
            format!(
                "{canary} of {canaries} canary and {stable} of {stables} stable endpoints are \
                 ready, too few for more traffic"
            )
        }
        Standing::Checked => waits_for(run, health, false),
        Standing::Gated => waits_for(run, health, true),
        Standing::StableFailing => format!(
            "stable itself is failing ({}), so nothing can be proven",
            errors(&run.progress.recent.arms(), figures.judge.error_ratio)
        ),
        Standing::Unproven if figures.mode == Mode::Threshold => {
            "waits for one full clean window".into()
        }
        Standing::Unproven => format!("will advance when {}{}", proof(run), against(run)),
        Standing::Overdue(OnMax::Hold) => {
            format!("past the stage's greatest time; will advance when {}", proof(run))
        }
        Standing::Overdue(_) => "past the stage's greatest time".into(),
        Standing::AwaitsApproval => {
            format!("waits for approval: `splitway promote` goes on{}", against(run))
        }
        Standing::Proven => {
            let next = run.plan.next(run.weight).map_or(Weight::FULL, |stage| stage.weight);
            format!("advancing to {next} %")
        }
    }
}

/// Whose word is missing.
fn waits_for(run: &Run, health: &Health, is_last: bool) -> String {
    let found = external::against(&health.opinions, run.moment(), is_last);
    let (name, says) = found.map_or(("", ""), |one| (&one.name, &one.says));
    format!("waits for `{name}`, which {says}{}", against(run))
}

/// Which proofs are missing, and how long they will take.
fn proof(run: &Run) -> String {
    let judge = &run.judge;
    let ([error, slow], limit) = (judge.proofs(), judge.parameters().proof_limit());
    let mut missing = Vec::new();
    if error < limit {
        missing.push(format!("the error proof ({} of {limit:.0})", capped(error)));
    }
    if slow < limit {
        missing.push(format!("the latency proof ({} of {limit:.0})", capped(slow)));
    }
    if missing.is_empty() {
        return "the proofs stay complete".into();
    }
    let recent = &run.progress.recent;
    let rps = recent.rps();
    let wait = match judge.proof_wait_s(&recent.arms(), recent.length_s()) {
        _ if rps < 1e-3 => "there is no traffic now".to_owned(),
        Some(wait_s) => format!("about {} at {rps:.0} requests/s", span(wait_s)),
        None => format!("which never happens at the present rates and {rps:.1} requests/s"),
    };
    let verb = if missing.len() == 1 { "is" } else { "are" };
    format!("{} {verb} complete, {wait}", missing.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_shares_read_well() {
        for (seconds, text) in [
            (0.2, "200 ms"),
            (8.0, "8 s"),
            (180.0, "3 min"),
            (9_000.0, "2.5 h"),
            (864_000.0, "10 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(percent(9, 1_000), "0.9 %");
        assert_eq!(percent(1, 10_000), "0.01 %");
        assert_eq!(percent(1, 3), "33 %");
        assert_eq!(percent(0, 0), "no requests");
    }
}
