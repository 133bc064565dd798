//! From the section of a rollout to its plan, and to what the controller compares.

use std::path::PathBuf;

use crate::judge::{Parameters, threshold};
use crate::rollout::controller::Wanted;
use crate::rollout::edit::{Applied, Percent};
use crate::rollout::governed::Policy;
use crate::rollout::journal::Place;
use crate::rollout::plan::percent::from_percent;
use crate::rollout::{Figures, Plan, Stage};
use crate::track::Weight;

use super::choices::{AfterRollback, Decimal, StateValue};
use super::rollout::Rollout;
use super::types::{Config, Service};
use super::values::Span;

/// Where the state is kept when the file does not say: the system's place for it …
const SYSTEM_STATE: &str = "/var/lib/splitway";

/// Where the configuration keeps the state of its rollouts.
#[must_use]
pub fn state_place(config: &Config) -> Place {
    match &config.state {
        Some(StateValue::Memory) => Place::Memory,
        Some(StateValue::Directory(directory)) => Place::Directory(directory.clone()),
        None => Place::Directory(default_directory()),
    }
}

/// … or, where that cannot be made or written, the user's.
fn default_directory() -> PathBuf {
    let system = PathBuf::from(SYSTEM_STATE);
    let is_writable = std::fs::create_dir_all(&system).is_ok()
        && !std::fs::metadata(&system).is_ok_and(|data| data.permissions().readonly())
        && rustix::fs::access(&system, rustix::fs::Access::WRITE_OK).is_ok();
    if is_writable {
        return system;
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".local/state"));
    let user = variable("XDG_STATE_HOME").filter(|path| path.is_absolute()).or_else(home);
    user.map_or(system, |state| state.join("splitway"))
}

/// What the configuration says of every service that has stable and perhaps a canary.
#[must_use]
pub fn wanted(config: &Config) -> Vec<Wanted> {
    let starts_by_hand = config.state == Some(StateValue::Memory);
    config.services.iter().filter_map(|service| one_wanted(service, starts_by_hand)).collect()
}

fn one_wanted(service: &Service, starts_by_hand: bool) -> Option<Wanted> {
    let stable = service.tracks.get("stable")?;
    let canary = service.tracks.get("canary");
    if service.tracks.0.len() > 2 || (canary.is_none() && service.rollout.is_none()) {
        return None;
    }
    let rollout = service.rollout.as_ref().map(|rollout| &rollout.value);
    let plan = rollout.map(|rollout| plan(rollout, starts_by_hand));
    let endpoints = canary.map_or(&[][..], |track| &track.endpoints[..]);
    let weight = service
        .weights
        .as_ref()
        .map(|weights| Percent(weights.get("canary").map_or(Weight::ZERO, |weight| weight.value)));
    Some(Wanted {
        service: service.name.value.clone(),
        applied: Applied {
            plan,
            stable: stable.version.clone().unwrap_or_default(),
            canary: canary.map(|canary| canary.version.clone().unwrap_or_default()),
            canary_endpoints: endpoints
                .iter()
                .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port))
                .collect(),
            weight,
        },
        policy: policy(rollout),
    })
}

fn policy(rollout: Option<&Rollout>) -> Policy {
    let default = super::types::all_defaults();
    let evidence = rollout.map_or(&default, |rollout| &rollout.evidence);
    Policy {
        settle_ns: evidence.settle.ns(),
        latency_floor_ns: evidence.latency_floor.ns(),
        latency_ratio: rollout.map_or(1.5, |rollout| rollout.limits.p99_ratio.0),
        diverts_rules: rollout.is_some_and(|one| one.after_rollback == AfterRollback::Stable),
        rollback_drain_ns: rollout.map_or(0, |rollout| rollout.rollback_drain.ns()),
    }
}

fn seconds(span: Span) -> f64 {
    span.0.as_secs_f64()
}

/// The plan of a rollout's section.
#[must_use]
pub fn plan(rollout: &Rollout, starts_by_hand: bool) -> Plan {
    let last = from_percent(100.0 - rollout.hold_back.0).unwrap_or(Weight::FULL);
    let max_s = rollout.max.0.map(seconds);
    let mut stages: Vec<Stage> = rollout
        .stages
        .iter()
        .map(|stage| Stage {
            weight: stage.0.weight.value.min(last),
            min_s: seconds(stage.0.min.unwrap_or(rollout.min)),
            max_s: stage.0.max.map(seconds).or(max_s),
            approve: stage.0.approve,
        })
        .collect();
    if stages.last().is_none_or(|stage| stage.weight < last) {
        stages.push(Stage { weight: last, min_s: seconds(rollout.min), max_s, approve: false });
    }
    Plan { stages, figures: figures(rollout, starts_by_hand) }
}

fn figures(rollout: &Rollout, starts_by_hand: bool) -> Figures {
    let (limits, judge) = (&rollout.limits, &rollout.judge);
    let percent = |value: Decimal| value.0 / 100.0;
    let list = |values: &[Decimal]| values.iter().map(|value| value.0).collect::<Vec<f64>>();
    let shares = list(&judge.shares);
    Figures {
        mode: rollout.mode,
        judge: Parameters {
            alpha: judge.alpha.0,
            beta: judge.beta.0,
            hold: judge.hold.0,
            error_ratio: limits.error_ratio.0,
            error_slack: percent(limits.error_slack.value),
            slow_ratio: 1.0,
            slow_slack: percent(limits.slow_slack.value),
            shares: [shares[0], shares[1], shares[2]],
            grid: list(&judge.grid),
            entry_first: judge.entry_first.0,
            entry_next: judge.entry_next.0,
            trickle_s: seconds(judge.trickle),
            proof_grid: list(&judge.proof_grid),
            proof_entry: judge.proof_entry.0,
            proof_trickle_s: seconds(judge.proof_trickle),
            error_budget: percent(judge.error_budget.value),
            slow_budget: percent(judge.slow_budget.value),
            warmup_s: seconds(judge.warmup),
            stable_errors_max: percent(judge.stable_errors_max.value),
        },
        threshold: threshold::Limits {
            window_s: seconds(rollout.threshold.window),
            requests_min: u64::from(rollout.threshold.min_requests.0),
            errors_min: u64::from(rollout.threshold.min_errors.0),
            error_ratio: limits.error_ratio.0,
            p99_ratio: limits.p99_ratio.0,
        },
        excess_failures_max: limits.excess_failures.0.map(|most| u64::from(most.0)),
        on_max: rollout.on_max,
        on_failure: rollout.on_failure,
        ready: rollout.start.ready,
        start_timeout_s: seconds(rollout.start.timeout),
        bake_s: seconds(rollout.bake),
        dry_run: rollout.dry_run,
        starts_by_hand,
    }
}
