//! What the controller tells everybody else: metrics, status, explain, history.

use std::sync::Arc;

use serde::Serialize;

use crate::judge::Arms;
use crate::track::Weight;

use super::external::{Moment, Opinion};
use super::machine::{Cause, Phase, Transition};
use super::outlook::Outlook;
use super::pardoned::Named;
use super::plan::{Mode, percent};

/// Every rollout at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The services that have a rollout, by name.
    pub services: Vec<ServiceReport>,
    /// What keeps the journal from being written; while it does, nothing rises.
    pub journal_fault: Option<String>,
    /// The state is forgotten with the process.
    pub in_memory: bool,
}

/// One rollout at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceReport {
    /// The service's name.
    pub service: String,
    /// Where it is.
    pub phase: Phase,
    /// The canary's version.
    pub version: Option<String>,
    /// Stable's version.
    pub stable_version: Option<String>,
    /// Which attempt of this version, from 1.
    pub attempt: u32,
    /// The canary's live weight in percent.
    #[serde(with = "percent")]
    pub weight: Weight,
    /// A greater weight that waits for the journal, in percent.
    pub raising_to: Option<f64>,
    /// The stage, from 1; 0 before the first.
    pub stage: usize,
    /// The plan's weights in percent.
    pub stages: Vec<f64>,
    /// How verdicts are made.
    pub mode: Mode,
    /// It reached its last stage, whether it is still watched or not.
    pub promoted: bool,
    /// It judges and says, and moves nothing.
    pub dry_run: bool,
    /// Why it stands where it stands.
    pub explain: String,
    /// Which version is better, how sure that is, and what comes next.
    pub outlook: Outlook,
    /// What checks and gates say.
    pub opinions: Vec<Opinion>,
    /// The machine's mark: rises with every stage entered and run begun.
    pub mark: u64,
    /// What keeps it from advancing, where a person may want to know: `suspicious`,
    /// `split_alarm`, `stable_failing`, `unsettled`, `no_capacity`, `overdue`,
    /// `awaits_approval`, `checked` or `gated`.
    pub standing: Option<&'static str>,
    /// What only gates keep from happening.
    pub awaits: Option<Moment>,
    /// The limits on the canary's errors: so often stable's share, and so much on top.
    pub error_limit: ErrorLimit,
    /// The evidence against the canary; it is rolled back at `limit`.
    pub e: f64,
    /// The wealth at which it is rolled back.
    pub limit: f64,
    /// The wealth from which it does not advance.
    pub hold: f64,
    /// Wealth by pot: errors, p99, p90.
    pub pots: [f64; 3],
    /// Proofs: errors, latency; complete at `proof_limit`.
    pub proofs: [f64; 2],
    /// The wealth at which a proof is complete.
    pub proof_limit: f64,
    /// What this stage showed.
    pub stage_evidence: Arms,
    /// What the whole run showed.
    pub run_evidence: Arms,
    /// What the run pardoned: ends that were not their upstream's fault, by track and reason.
    pub pardoned: Named,
    /// Failures beyond what the limits allow.
    pub excess_failures: f64,
    /// Endpoints that are ready.
    pub ready_endpoints: ReadyEndpoints,
    /// Weighted requests a second over the last half minute.
    pub rps: f64,
    /// Stable's and the canary's cuts in milliseconds: p99, p90; `null` until enough was seen.
    pub cuts_ms: Cuts,
    /// How long a cohort is waited for, in milliseconds.
    pub settle_ms: u64,
    /// Sticky users with most failures in this stage: fingerprint and failures.
    pub blamed_users: Vec<(String, u64)>,
    /// What was done since the process started.
    pub tallies: Tallies,
    /// The last transitions, oldest first.
    #[serde(skip)]
    pub history: Arc<Vec<Transition>>,
}

/// Endpoints that are ready, by track.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ReadyEndpoints {
    /// The canary's.
    pub canary: usize,
    /// Stable's.
    pub stable: usize,
}

/// The limits on the canary's errors.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ErrorLimit {
    /// How often stable's share.
    pub ratio: f64,
    /// What is tolerated on top, as a share of requests.
    pub slack: f64,
}

/// Latency cuts for display.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cuts {
    /// Stable's.
    pub stable: [Option<f64>; 2],
    /// The canary's.
    pub canary: [Option<f64>; 2],
}

/// Counts since the process started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tallies {
    /// What the judge was told.
    pub evidence: Arms,
    /// Verdicts: advance, hold, rollback.
    pub verdicts: [u64; 3],
    /// Transitions by cause, in the order of [`Cause::ALL`].
    pub transitions: [u64; Cause::ALL.len()],
}

/// The verdicts in the order of their counts.
pub const VERDICTS: [&str; 3] = ["advance", "hold", "rollback"];

impl Report {
    /// The rollout of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceReport> {
        self.services.iter().find(|one| one.service == name)
    }
}
