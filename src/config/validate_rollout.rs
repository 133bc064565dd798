//! What a rollout's section must be as a whole.

use super::choices::Decimal;
use super::rollout::{Judge, Rollout, RolloutLimits};
use super::section::Reader;
use super::types::Service;
use super::values::{At, Span};

/// Most stages of a plan, and most values of a grid: more say nothing more.
const STAGES_MAX: usize = 50;
const GRID_MAX: usize = 16;
/// The window of mode threshold holds one-second slots of every latency bucket.
const WINDOW_MAX: Span = Span::seconds(600);
/// A cohort is never waited for longer.
const SETTLE_MAX: Span = Span::seconds(60);

/// Notes everything that is wrong with the rollout of `service`.
pub(super) fn rollout(service: &Service, rollout: &At<Rollout>, check: &mut Reader) {
    tracks(service, rollout, check);
    check.below("stages", |check| stages(rollout, check));
    check.below("limits", |check| limits(&rollout.limits, check));
    check.below("judge", |check| judge(&rollout.judge, check));
    super::questions::validate(&rollout.checks, &rollout.gates, check);
    let hold_back = &rollout.hold_back;
    if hold_back.0 != 0.0 && !(5.0..=50.0).contains(&hold_back.0) {
        let message = "must be 0, or from 5 to 50: with less than 5 % on stable a dead canary \
            costs hundreds of failures before the judge is sure";
        check.below("hold_back", |check| check.fault(hold_back.place, message));
    }
    if rollout.evidence.settle > SETTLE_MAX {
        check.fault(
            rollout.place,
            "evidence.settle is longer than a minute; no cohort waits so long",
        );
    }
    if rollout.threshold.window > WINDOW_MAX {
        check.fault(rollout.place, "threshold.window is longer than 10m");
    }
    if rollout.dry_run && service.weights.is_none() {
        check.fault(rollout.place, "a dry run moves nothing, so `weights` must say the split");
    }
}

fn tracks(service: &Service, rollout: &At<Rollout>, check: &mut Reader) {
    let names: Vec<&str> = service.tracks.0.iter().map(|(name, _)| name.value.as_str()).collect();
    let is_known = names.iter().all(|name| ["stable", "canary"].contains(name));
    if !is_known || !names.contains(&"stable") {
        let message = format!(
            "a rollout needs the tracks stable and canary and no other; here are {}",
            names.join(", ")
        );
        check.fault(rollout.place, message);
    }
    for (name, track) in &service.tracks.0 {
        if track.version.as_ref().is_none_or(String::is_empty) {
            let message = format!(
                "a rollout needs the `version` of track {}, to know what it compares",
                name.value
            );
            check.fault(name.place, message);
        }
    }
}

fn stages(rollout: &Rollout, check: &mut Reader) {
    let stages = &rollout.stages;
    let last = (100.0 - rollout.hold_back.0) / 100.0;
    if stages.is_empty() || stages.len() > STAGES_MAX {
        check.fault(stages.place, format!("needs 1 to {STAGES_MAX} stages, like [5, 25, 50, 100]"));
        return;
    }
    for (index, stage) in stages.iter().enumerate() {
        let weight = &stage.0.weight;
        let mut fault = |message: String| {
            check.below_index(index, |check| check.fault(weight.place, message));
        };
        if index > 0 && weight.value <= stages[index - 1].0.weight.value {
            fault(format!("{} % is not above the stage before; stages ascend", weight.value));
        }
        if weight.ratio() > last && weight.ratio() < 1.0 {
            fault(format!("{} % is above 100 less hold_back", weight.value));
        }
        let (min, max) = (stage.0.min.unwrap_or(rollout.min), stage.0.max.or(rollout.max.0));
        if max.is_some_and(|max| max < min) {
            fault("its greatest time is shorter than its least".into());
        }
    }
    let first = &stages[0].0;
    if !first.approve && (first.weight.ratio() == 0.0 || first.weight.ratio() >= last) {
        let message = format!(
            "a first stage of {} % is not judged; write {{ weight: {0}, approve: true }} so that \
             a person decides",
            first.weight.value
        );
        check.below_index(0, |check| check.fault(first.weight.place, message));
    }
}

type Range = std::ops::RangeInclusive<f64>;

fn within(name: &str, value: &At<Decimal>, range: &Range, check: &mut Reader) {
    if !range.contains(&value.0) {
        let message = format!("must be from {} to {}", range.start(), range.end());
        check.below(name, |check| check.fault(value.place, message));
    }
}

fn limits(limits: &RolloutLimits, check: &mut Reader) {
    within("error_ratio", &limits.error_ratio, &(1.0..=100.0), check);
    within("error_slack", &limits.error_slack, &(0.0..=50.0), check);
    within("p99_ratio", &limits.p99_ratio, &(1.0..=100.0), check);
    within("slow_slack", &limits.slow_slack, &(0.0..=50.0), check);
}

fn judge(judge: &Judge, check: &mut Reader) {
    within("alpha", &judge.alpha, &(1e-9..=0.5), check);
    within("beta", &judge.beta, &(1e-3..=0.5), check);
    within("hold", &judge.hold, &(1.0..=1e9), check);
    for (name, entry) in [
        ("entry_first", &judge.entry_first),
        ("entry_next", &judge.entry_next),
        ("proof_entry", &judge.proof_entry),
    ] {
        within(name, entry, &(0.0..=1.0), check);
    }
    within("error_budget", &judge.error_budget, &(0.001..=50.0), check);
    within("slow_budget", &judge.slow_budget, &(0.001..=50.0), check);
    within("stable_errors_max", &judge.stable_errors_max, &(0.0..=100.0), check);
    let sum: f64 = judge.shares.iter().map(|share| share.0).sum();
    if judge.shares.len() != 3 || (sum - 1.0).abs() > 1e-9 {
        let message = format!("needs three shares (errors, p99, p90) that sum to 1, not {sum}");
        check.below("shares", |check| check.fault(judge.shares.place, message));
    }
    let mut grid = |name: &str, grid: &At<Vec<Decimal>>, range: Range, what: &str| {
        let is_good = (1..=GRID_MAX).contains(&grid.len())
            && grid.iter().all(|value| range.contains(&value.0));
        if !is_good {
            let message = format!("needs 1 to {GRID_MAX} {what}");
            check.below(name, |check| check.fault(grid.place, message));
        }
    };
    grid("grid", &judge.grid, 1.001..=1e6, "multiples above 1");
    grid("proof_grid", &judge.proof_grid, 1e-6..=0.999, "ratios between 0 and 1");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn faults(tracks: &str, rollout: &str) -> String {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:1 }}]\nservices:\n  - name: api\n    tracks: \
             {{ {tracks} }}\n    rollout: {{ {rollout} }}\n"
        );
        super::super::parse(Path::new("t.yaml"), &text)
            .err()
            .map_or_else(String::new, |f| f.to_string())
    }

    const TRACKS: &str = "stable: { version: v1, endpoints: ['a:1'] }, canary: { version: v2, \
        endpoints: ['b:1'] }";

    #[test]
    fn a_plan_is_checked_as_a_whole() {
        for (rollout, fault) in [
            ("stages: [5, 10, 25, 50, 75, 100]", ""),
            ("stages: [5, 10, { weight: 25, min: 10m, max: 1h, approve: true }]", ""),
            ("stages: [{ weight: 100, approve: true }]", ""),
            ("stages: [5, 95], hold_back: 5", ""),
            ("stages: [100]", "so that a person decides"),
            ("stages: [0, 5]", "so that a person decides"),
            ("stages: [10, 5]", "stages ascend"),
            ("stages: []", "needs 1 to 50 stages"),
            ("stages: [5, 97], hold_back: 5", "above 100 less hold_back"),
            ("stages: [5], hold_back: 1", "hold_back: must be 0, or from 5 to 50"),
            ("stages: [{ weight: 5, min: 2m, max: 1m }]", "shorter than its least"),
            ("stages: [5], mode: guess", "`guess` is none of sequential, threshold, off"),
            ("stages: [5], limits: { error_ratio: 0.5 }", "must be from 1 to 100"),
            ("stages: [5], judge: { shares: [0.5, 0.5, 0.5] }", "sum to 1"),
            ("stages: [5], judge: { grid: [0.5] }", "multiples above 1"),
            ("stages: [5], dry_run: true", "`weights` must say the split"),
            ("stages: [5], evidence: { settle: 2m }", "no cohort waits so long"),
        ] {
            let found = faults(TRACKS, rollout);
            assert!(
                found.contains(fault) && fault.is_empty() == found.is_empty(),
                "{rollout}: {found}"
            );
        }
        let other = TRACKS.replace("canary:", "shadow:");
        assert!(faults(&other, "stages: [5]").contains("stable and canary and no other"));
        let no_version = TRACKS.replace("version: v2, ", "");
        assert!(faults(&no_version, "stages: [5]").contains("needs the `version` of track canary"));
    }
}
