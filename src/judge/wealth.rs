//! Accounts: cash that is not staked yet, and what the stakes have become.

use serde::{Deserialize, Serialize};

use super::bet::{Bet, Events};

/// Most that one stake can become; far past every limit and far from overflow.
const STAKE_MAX: f64 = 1e200;
/// Most that one stake of a proof can become: a proof is complete long before, and must still be
/// able to fall when the canary turns bad.
const PROOF_STAKE_MAX: f64 = 1e4;
/// Bounds of one tick's logarithm, so that a single huge cohort stays finite.
const LN_MIN: f64 = -700.0;
const LN_MAX: f64 = 400.0;

/// One account: cash and one stake per grid value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wealth {
    cash: f64,
    stakes: Vec<f64>,
    /// The next tick is a stage's first.
    at_entry: bool,
}

impl Wealth {
    /// An account with `cash` and nothing staked on `count` bets.
    #[must_use]
    pub fn new(cash: f64, count: usize) -> Self {
        Self { cash, stakes: vec![0.0; count], at_entry: true }
    }

    /// What it is worth.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.cash + self.stakes.iter().sum::<f64>()
    }

    /// What is not staked.
    #[must_use]
    pub fn cash(&self) -> f64 {
        self.cash
    }

    /// What each stake has become, in the order of the grid.
    #[must_use]
    pub fn stakes(&self) -> &[f64] {
        &self.stakes
    }

    /// The next tick is a stage's first.
    pub fn enter(&mut self) {
        self.at_entry = true;
    }

    /// Stakes `entry` of the cash at a stage's first tick, then `share` of what is left.
    pub fn fund(&mut self, entry: f64, share: f64) {
        let mut staked = 0.0;
        if std::mem::take(&mut self.at_entry) {
            staked += self.stake(entry);
        }
        staked += self.stake(share.min(1.0));
        #[expect(clippy::cast_precision_loss, reason = "a grid has a few values")]
        let each = staked / self.stakes.len() as f64;
        self.stakes.iter_mut().for_each(|stake| *stake += each);
    }

    fn stake(&mut self, share: f64) -> f64 {
        let amount = share * self.cash;
        self.cash -= amount;
        amount
    }

    /// Multiplies each stake by what `events` mean for its bet.
    pub fn settle(&mut self, bets: &[Bet], events: Events) {
        self.multiply(bets, events, STAKE_MAX);
    }

    /// The same for a proof, whose stakes are bounded tightly.
    pub fn settle_proof(&mut self, bets: &[Bet], events: Events) {
        self.multiply(bets, events, PROOF_STAKE_MAX);
    }

    fn multiply(&mut self, bets: &[Bet], events: Events, most: f64) {
        if events == Events::default() {
            return;
        }
        for (stake, bet) in self.stakes.iter_mut().zip(bets) {
            let factor = bet.ln_factor(events).clamp(LN_MIN, LN_MAX).exp();
            *stake = (*stake * factor).min(most);
        }
    }
}
