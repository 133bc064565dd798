//! The figures of the sequential judge; every one can be configured.

use serde::{Deserialize, Serialize};

/// The figures. Rates are ratios (0.0005 is 0.05 %), times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// The chance that a canary within the limits is ever rolled back, over a whole rollout.
    pub alpha: f64,
    /// The chance, per stage, that an advance exposes more than its budget.
    pub beta: f64,
    /// Wealth from which nothing advances any more.
    pub hold: f64,
    /// Errors: how often more than stable's is still within the limits.
    pub error_ratio: f64,
    /// Errors: what is tolerated on top.
    pub error_slack: f64,
    /// Slow answers: how often more than stable's is still within the limits.
    pub slow_ratio: f64,
    /// Slow answers: what is tolerated on top.
    pub slow_slack: f64,
    /// What of the error budget is staked on errors, p99 and p90; together 1.
    pub shares: [f64; 3],
    /// The multiples of the limit that are bet on.
    pub grid: Vec<f64>,
    /// Share of the cash that the first stage's start stakes.
    pub entry_first: f64,
    /// Share of the cash that every later stage's start stakes.
    pub entry_next: f64,
    /// How slowly the rest is staked: `dt / (t + trickle_s)` a tick.
    pub trickle_s: f64,
    /// The ratios to the limit that a proof of safety bets on.
    pub proof_grid: Vec<f64>,
    /// Share of a proof's cash that a stage's start stakes.
    pub proof_entry: f64,
    /// How slowly the rest of a proof's cash is staked.
    pub proof_trickle_s: f64,
    /// Excess failures over all users that an advance may expose.
    pub error_budget: f64,
    /// Excess slow answers over all users that an advance may expose.
    pub slow_budget: f64,
    /// No bet on latency and no proof before this time of the rollout.
    pub warmup_s: f64,
    /// Proofs pause while stable's own share of errors of the last 30 s is above this.
    pub stable_errors_max: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            beta: 0.05,
            hold: 10.0,
            error_ratio: 2.0,
            error_slack: 0.0005,
            slow_ratio: 1.0,
            slow_slack: 0.001,
            shares: [0.65, 0.20, 0.15],
            grid: vec![1.6, 3.5, 12.0, 100.0],
            entry_first: 0.6,
            entry_next: 0.3,
            trickle_s: 600.0,
            proof_grid: vec![0.7, 0.4, 0.15, 0.02],
            proof_entry: 0.7,
            proof_trickle_s: 60.0,
            error_budget: 0.0025,
            slow_budget: 0.005,
            warmup_s: 30.0,
            stable_errors_max: 0.05,
        }
    }
}

impl Parameters {
    /// The wealth at which a canary is rolled back: `1 / alpha`.
    #[must_use]
    pub fn limit(&self) -> f64 {
        1.0 / self.alpha
    }

    /// The wealth at which a proof is complete: `1 / beta`.
    #[must_use]
    pub fn proof_limit(&self) -> f64 {
        1.0 / self.beta
    }
}
