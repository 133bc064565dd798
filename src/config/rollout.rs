//! The section of a rollout: what the operator allows, and every figure of the judge.

use crate::rollout::plan::{Mode, OnFailure, OnMax, Ready};

use super::choices::{AfterRollback, Decimal, Failover, GrpcStatus, StageValue, StatusRange};
use super::fault::Place;
use super::questions::{CheckSection, GateSection};
use super::section::section;
use super::types::{Match, all_defaults};
use super::values::{At, OneOrMany, OrOff, Span, Whole};

section! {
    /// A rollout: it owns the split, advances the canary on proof, and rolls it back on evidence.
    pub struct Rollout {
        /// What must be ready before the canary gets traffic.
        pub start: Start = or(all_defaults()),
        /// The canary's weights in percent, ascending.
        pub stages: At<Vec<At<StageValue>>> = required,
        /// Least time per stage.
        pub min: Span = or(Span::seconds(60)),
        /// Time per stage after which `on_max` decides, or off.
        pub max: OrOff<Span> = or(OrOff(None)),
        /// sequential (by proof), threshold (literal rules over a window), or off (by the clock).
        pub mode: Mode = or(Mode::Sequential),
        /// Where the canary is outside the limits.
        pub limits: RolloutLimits = or(all_defaults()),
        /// What counts as evidence.
        pub evidence: Evidence = or(all_defaults()),
        /// The figures of mode sequential.
        pub judge: Judge = or(all_defaults()),
        /// The figures of mode threshold.
        pub threshold: Threshold = or(all_defaults()),
        /// Questions to a Prometheus beside the judge: they hold or roll back, and never raise.
        pub checks: Vec<CheckSection> = or(Vec::new()),
        /// Webhooks that must agree before it starts, advances or is promoted.
        pub gates: Vec<GateSection> = or(Vec::new()),
        /// When a stage's time is over without proof: hold, advance (called unproven), or rollback.
        pub on_max: OnMax = or(OnMax::Hold),
        /// When the canary is outside the limits: rollback, or hold (paused, for a person).
        pub on_failure: OnFailure = or(OnFailure::Rollback),
        /// After a rollback, rules that name the canary lead to stable, or keep.
        pub after_rollback: AfterRollback = or(AfterRollback::Stable),
        /// When no endpoint can be connected: the canary's requests go to stable, both ways, or off.
        pub failover: Failover = or(Failover::Stable),
        /// Percent that stay on stable at the last stage: 0, or 5 to 50.
        pub hold_back: At<Decimal> = or(At { value: Decimal(0.0), place: Place::default() }),
        /// How long it is watched after promotion; `splitway rollback` undoes it at once.
        pub bake: Span = or(Span::seconds(1_800)),
        /// How long open canary requests, tunnels and streams may last after a rollback.
        pub rollback_drain: Span = or(Span::seconds(30)),
        /// Judge and say, but move nothing; the weights are the file's.
        pub dry_run: bool = or(false),
    }
}

section! {
    /// What must be ready before the canary gets traffic.
    pub struct Start {
        /// all or any of the canary's endpoints.
        pub ready: Ready = or(Ready::All),
        /// How long that is waited for; then it pauses.
        pub timeout: Span = or(Span::seconds(600)),
    }
}

section! {
    /// Where the canary is outside the limits.
    pub struct RolloutLimits {
        /// How often more errors than stable are still within the limits.
        pub error_ratio: At<Decimal> = or(unplaced(2.0)),
        /// Errors that are tolerated on top, in percent of requests.
        pub error_slack: At<Decimal> = or(unplaced(0.05)),
        /// How much slower than stable is still fast, at p99 and p90.
        pub p99_ratio: At<Decimal> = or(unplaced(1.5)),
        /// Slow answers that are tolerated beyond stable's share, in percent of requests.
        pub slow_slack: At<Decimal> = or(unplaced(0.1)),
        /// Most failures beyond the limits over the whole rollout, or off. A cap, outside alpha.
        pub excess_failures: OrOff<Whole<1, 1_000_000_000>> = or(OrOff(None)),
    }
}

section! {
    /// What counts as evidence.
    pub struct Evidence {
        /// Least time that unfinished requests are waited for.
        pub settle: Span = or(Span::seconds(2)),
        /// Least distance of the canary's latency limit from stable's.
        pub latency_floor: Span = or(Span(std::time::Duration::from_millis(5))),
        /// Requests that are not compared, told by what is known before the draw.
        pub exclude: Vec<At<Match>> = or(Vec::new()),
        /// Statuses below 500 that are errors all the same.
        pub error_statuses: Vec<At<Whole<400, 499>>> = or(Vec::new()),
        /// Statuses of gRPC that are errors.
        pub grpc_errors: Vec<GrpcStatus> = or(grpc_errors()),
    }
}

section! {
    /// The figures of mode sequential.
    pub struct Judge {
        /// The chance that a canary within the limits is ever rolled back, over the whole rollout.
        pub alpha: At<Decimal> = or(unplaced(0.01)),
        /// The chance, per stage, that an advance exposes more than its budget.
        pub beta: At<Decimal> = or(unplaced(0.05)),
        /// Evidence from which nothing advances; 1 at the start, rolled back at 1/alpha.
        pub hold: At<Decimal> = or(unplaced(10.0)),
        /// What of the error budget is staked on errors, p99 and p90; sums to 1.
        pub shares: At<Vec<Decimal>> = or(list(&[0.65, 0.20, 0.15])),
        /// The multiples of the limit that are bet on.
        pub grid: At<Vec<Decimal>> = or(list(&[1.6, 3.5, 12.0, 100.0])),
        /// Share of the cash that the first stage's start stakes.
        pub entry_first: At<Decimal> = or(unplaced(0.6)),
        /// Share of the cash that every later stage's start stakes.
        pub entry_next: At<Decimal> = or(unplaced(0.3)),
        /// How slowly the rest of the cash is staked.
        pub trickle: Span = or(Span::seconds(600)),
        /// The ratios to the limit that a proof bets on.
        pub proof_grid: At<Vec<Decimal>> = or(list(&[0.7, 0.4, 0.15, 0.02])),
        /// Share of a proof's cash that a stage's start stakes.
        pub proof_entry: At<Decimal> = or(unplaced(0.7)),
        /// How slowly the rest of a proof's cash is staked.
        pub proof_trickle: Span = or(Span::seconds(60)),
        /// Excess failures that an advance may expose, in percent of all requests.
        pub error_budget: At<Decimal> = or(unplaced(0.25)),
        /// Excess slow answers that an advance may expose, in percent of all requests.
        pub slow_budget: At<Decimal> = or(unplaced(0.5)),
        /// No bet on latency and no proof for this long; new canary endpoints restart it.
        pub warmup: Span = or(Span::seconds(30)),
        /// Proofs pause while stable's own errors of the last 30 s are above this percentage.
        pub stable_errors_max: At<Decimal> = or(unplaced(5.0)),
    }
}

section! {
    /// The figures of mode threshold; its ratios are those of limits.
    pub struct Threshold {
        /// The window.
        pub window: Span = or(Span::seconds(60)),
        /// Requests that each track needs in the window.
        pub min_requests: Whole<1, 1_000_000> = or(Whole(100)),
        /// Errors that the canary needs in the window; 1 is the letter of the rule.
        pub min_errors: Whole<1, 1_000_000> = or(Whole(5)),
    }
}

/// What is never the caller's doing.
fn grpc_errors() -> Vec<GrpcStatus> {
    [2, 4, 12, 13, 14, 15].map(GrpcStatus).into()
}

section! {
    /// Probes of every endpoint of a service.
    pub struct Health {
        /// What is asked for. Omitted: that it accepts a connection is enough.
        pub path: Option<At<String>> = or(None),
        /// The Host that is asked for. Omitted: the first of the service's `hosts` that is no pattern;
        /// of patterns alone, `probe` in place of the first's star; of none, the endpoint's address.
        pub host: Option<At<String>> = or(None),
        /// Or the service whose health is asked for by gRPC's health protocol; "" is the server.
        pub grpc: Option<String> = or(None),
        /// Time between two probes of an endpoint.
        pub interval: Span = or(Span::seconds(1)),
        /// For an answer.
        pub timeout: Span = or(Span::seconds(1)),
        /// Failed probes in a row after which an endpoint gets no traffic.
        pub fall: Whole<1, 100> = or(Whole(3)),
        /// Good ones in a row after which it gets some again.
        pub rise: Whole<1, 100> = or(Whole(2)),
        /// Accepted statuses: one, a range like 200-399, or a list.
        pub status: OneOrMany<StatusRange> = or(OneOrMany(vec![StatusRange(200, 399)])),
    }
}

fn unplaced(value: f64) -> At<Decimal> {
    At { value: Decimal(value), place: Place::default() }
}

fn list(values: &[f64]) -> At<Vec<Decimal>> {
    At { value: values.iter().copied().map(Decimal).collect(), place: Place::default() }
}
