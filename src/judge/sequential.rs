//! Sequential mode: bets against the canary, proofs for it, one account for the whole rollout.

use serde::{Deserialize, Serialize};

use super::bet::{Bet, Events};
use super::parameters::Parameters;
use super::wealth::Wealth;

/// Sums of ticks are compared with whole seconds; this is the error that such sums make.
const TIME_ERROR_S: f64 = 1e-9;

/// What one track showed in one cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Requests assigned.
    pub requests: u64,
    /// Of these, errors.
    pub errors: u64,
    /// Of these, slower than the cut of each of [`super::QUANTILES`].
    pub slow: [u64; 2],
}

/// What both tracks showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// The canary.
    pub canary: Arm,
    /// Stable.
    pub stable: Arm,
}

impl Arm {
    /// Adds what another cohort showed.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (slow, more) in self.slow.iter_mut().zip(other.slow) {
            *slow += more;
        }
    }
}

impl Arms {
    /// Adds what another cohort showed.
    pub fn add(&mut self, other: Self) {
        self.canary.add(other.canary);
        self.stable.add(other.stable);
    }

    fn errors(&self) -> Events {
        Events {
            canary_requests: self.canary.requests,
            canary_events: self.canary.errors,
            stable_events: self.stable.errors,
        }
    }

    fn slow(&self, quantile: usize) -> Events {
        Events {
            canary_requests: self.canary.requests,
            canary_events: self.canary.slow[quantile],
            stable_events: self.stable.slow[quantile],
        }
    }
}

/// One closed cohort.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tick {
    /// How long requests were assigned to it, in seconds.
    pub dt_s: f64,
    /// The canary's assignment probability then, 0 to 1.
    pub weight: f64,
    /// The weight that proofs speak of: the next stage's; `None` when there is no next.
    pub next_weight: Option<f64>,
    /// Drawn at the present stage. An earlier stage's feeds the pots, no proof.
    pub is_current: bool,
    /// Proofs must not learn from it: stable itself is failing.
    pub proofs_paused: bool,
    /// What the pots see: of a sticky user, one error per stage.
    pub pots: Arms,
    /// What the proofs see: everything.
    pub proofs: Arms,
    /// Whether a latency cut was known for each quantile when it opened.
    pub has_cut: [bool; 2],
}

/// What the judge thinks after a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opinion {
    /// The wealth has reached `1 / alpha`: the canary is outside the limits.
    Harmful,
    /// Both proofs are complete and nothing is suspicious: the next stage can do little harm.
    Proven,
    /// Neither.
    Undecided,
}

/// The pots of a rollout and the proofs of its stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    parameters: Parameters,
    account: Account,
    #[serde(skip)]
    bets: Bets,
}

/// Everything that the judge has learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Seconds judged in this rollout.
    time_s: f64,
    /// Seconds judged in this stage.
    stage_s: f64,
    /// Seconds of this stage from which the proofs have learned; pauses do not slow their stakes.
    proof_s: f64,
    /// When the warm-up began, in seconds judged.
    warm_from_s: f64,
    /// Stages entered, the first included.
    entries: u32,
    errors: Wealth,
    slow: [Wealth; 2],
    error_proof: Wealth,
    slow_proof: Wealth,
}

/// The factors for one weight; they change with a stage, not with a tick.
#[derive(Clone, Debug, Default)]
struct Bets {
    /// The weight and next weight they are for.
    key: Option<(f64, Option<f64>)>,
    errors: Vec<Bet>,
    slow: Vec<Bet>,
    error_proof: Vec<Bet>,
    slow_proof: Vec<Bet>,
}

impl PartialEq for Judge {
    /// Factors are derived; only what was learned counts.
    fn eq(&self, other: &Self) -> bool {
        self.parameters == other.parameters && self.account == other.account
    }
}

impl Judge {
    /// A fresh account at the start of a first stage.
    #[must_use]
    pub fn new(parameters: Parameters) -> Self {
        let (grid, proof_grid) = (parameters.grid.len(), parameters.proof_grid.len());
        let [errors, p99, p90] = parameters.shares;
        let account = Account {
            time_s: 0.0,
            stage_s: 0.0,
            proof_s: 0.0,
            warm_from_s: 0.0,
            entries: 1,
            errors: Wealth::new(errors, grid),
            slow: [Wealth::new(p99, grid), Wealth::new(p90, grid)],
            error_proof: Wealth::new(1.0, proof_grid),
            slow_proof: Wealth::new(1.0, proof_grid),
        };
        Self { parameters, account, bets: Bets::default() }
    }

    /// The figures it judges by.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What it has learned.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Takes up what a judge with the same figures had learned.
    pub fn restore(&mut self, account: Account) {
        self.account = account;
    }

    /// Judges one cohort. Cohorts come in the order of their assignment.
    pub fn tick(&mut self, tick: &Tick) -> Opinion {
        self.prepare_bets(tick);
        let entry = if self.account.entries <= 1 {
            self.parameters.entry_first
        } else {
            self.parameters.entry_next
        };
        let trickle = tick.dt_s / (self.account.time_s + self.parameters.trickle_s);
        let is_split = 0.0 < tick.weight && tick.weight < 1.0;
        self.account.errors.fund(entry, trickle);
        if is_split {
            self.account.errors.settle(&self.bets.errors, tick.pots.errors());
        }
        if self.is_warm() {
            for (quantile, pot) in self.account.slow.iter_mut().enumerate() {
                pot.fund(entry, trickle);
                if is_split && tick.has_cut[quantile] {
                    pot.settle(&self.bets.slow, tick.pots.slow(quantile));
                }
            }
            self.prove(tick, is_split);
        }
        self.account.time_s += tick.dt_s;
        if tick.is_current {
            self.account.stage_s += tick.dt_s;
            self.account.proof_s += if tick.proofs_paused { 0.0 } else { tick.dt_s };
        }
        self.opinion()
    }

    fn prove(&mut self, tick: &Tick, is_split: bool) {
        if !is_split || !tick.is_current || tick.proofs_paused || tick.next_weight.is_none() {
            return;
        }
        let entry = self.parameters.proof_entry;
        let trickle = tick.dt_s / (self.account.proof_s + self.parameters.proof_trickle_s);
        self.account.error_proof.fund(entry, trickle);
        self.account.error_proof.settle_proof(&self.bets.error_proof, tick.proofs.errors());
        self.account.slow_proof.fund(entry, trickle);
        if tick.has_cut[0] {
            self.account.slow_proof.settle_proof(&self.bets.slow_proof, tick.proofs.slow(0));
        }
    }

    fn prepare_bets(&mut self, tick: &Tick) {
        let key = (tick.weight, tick.next_weight);
        if self.bets.key == Some(key) {
            return;
        }
        let (p, w) = (&self.parameters, tick.weight);
        let harm = |rho: f64, delta: f64| -> Vec<Bet> {
            p.grid.iter().map(|multiple| Bet::on_harm(w, rho, delta, *multiple)).collect()
        };
        let safety = |rho: f64, budget: f64| -> Vec<Bet> {
            let margin = budget / tick.next_weight.unwrap_or(1.0);
            p.proof_grid.iter().map(|ratio| Bet::on_safety(w, rho, margin, *ratio)).collect()
        };
        self.bets = Bets {
            key: Some(key),
            errors: harm(p.error_ratio, p.error_slack),
            slow: harm(p.slow_ratio, p.slow_slack),
            error_proof: safety(p.error_ratio, p.error_budget),
            slow_proof: safety(p.slow_ratio, p.slow_budget),
        };
    }

    /// What it thinks at the moment.
    #[must_use]
    pub fn opinion(&self) -> Opinion {
        let wealth = self.wealth();
        if wealth >= self.parameters.limit() {
            return Opinion::Harmful;
        }
        let limit = self.parameters.proof_limit();
        let [errors, slow] = self.proofs();
        if wealth < self.parameters.hold && errors >= limit && slow >= limit {
            return Opinion::Proven;
        }
        Opinion::Undecided
    }

    /// A new stage begins: fresh stakes from the account that is left, fresh proofs.
    pub fn enter_stage(&mut self) {
        self.account.entries += 1;
        self.account.stage_s = 0.0;
        self.account.proof_s = 0.0;
        self.reset_proofs();
        self.account.errors.enter();
        self.account.slow.iter_mut().for_each(Wealth::enter);
    }

    /// The proofs start again; the pots stay.
    pub fn reset_proofs(&mut self) {
        let count = self.parameters.proof_grid.len();
        self.account.error_proof = Wealth::new(1.0, count);
        self.account.slow_proof = Wealth::new(1.0, count);
    }

    /// The warm-up starts again, for endpoints that are new and cold.
    pub fn restart_warmup(&mut self) {
        self.account.warm_from_s = self.account.time_s;
    }

    /// Whether the warm-up is over.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.account.time_s - self.account.warm_from_s >= self.parameters.warmup_s - TIME_ERROR_S
    }

    /// Seconds judged in this rollout.
    #[must_use]
    pub fn time_s(&self) -> f64 {
        self.account.time_s
    }

    /// Seconds judged in this stage.
    #[must_use]
    pub fn stage_s(&self) -> f64 {
        self.account.stage_s
    }

    /// Whether this stage has been judged for `least_s`.
    #[must_use]
    pub fn has_judged(&self, least_s: f64) -> bool {
        self.account.stage_s >= least_s - TIME_ERROR_S
    }

    /// The evidence against the canary over all pots; starts at exactly 1.
    #[must_use]
    pub fn wealth(&self) -> f64 {
        self.pots().iter().sum()
    }

    /// The pots: errors, p99, p90.
    #[must_use]
    pub fn pots(&self) -> [f64; 3] {
        [self.account.errors.total(), self.account.slow[0].total(), self.account.slow[1].total()]
    }

    /// The proofs: of errors, of p99.
    #[must_use]
    pub fn proofs(&self) -> [f64; 2] {
        [self.account.error_proof.total(), self.account.slow_proof.total()]
    }

    /// The pot of errors in detail.
    #[must_use]
    pub fn error_pot(&self) -> &Wealth {
        &self.account.errors
    }

    /// How long until both proofs are complete if the track's rates stay as in `recent`, which
    /// took `recent_s` seconds; `None` when they never would.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of half a minute")]
    pub fn proof_wait_s(&self, recent: &Arms, recent_s: f64) -> Option<f64> {
        // Past a month "never" is the better word.
        const WAIT_MAX_S: f64 = 30.0 * 86_400.0;
        let wait = |wealth: &Wealth, bets: &[Bet], events: Events| -> Option<f64> {
            let worth = |wait_s: f64| -> f64 {
                let grown = wealth.stakes().iter().zip(bets).map(|(stake, bet)| {
                    // What is not staked yet will be; an even share of it stands for that.
                    let stake = stake.max(wealth.total() / wealth.stakes().len() as f64 / 4.0);
                    stake * (bet.ln_factor(events) / recent_s * wait_s).min(50.0).exp()
                });
                wealth.cash() + grown.sum::<f64>()
            };
            let limit = self.parameters.proof_limit();
            let mut most = 1.0;
            while worth(most) < limit {
                most *= 1.25;
                if most > WAIT_MAX_S {
                    return None;
                }
            }
            Some(if wealth.total() >= limit { 0.0 } else { most })
        };
        let errors = wait(&self.account.error_proof, &self.bets.error_proof, recent.errors())?;
        let slow = wait(&self.account.slow_proof, &self.bets.slow_proof, recent.slow(0))?;
        Some(errors.max(slow))
    }
}
