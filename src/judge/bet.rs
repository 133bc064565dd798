//! One bet: what each event adds to the logarithm of the wealth that is staked on it.
//!
//! For an event (an error, or a slow answer) the null hypothesis is `p_c <= rho * p_s + delta` at
//! every moment, with `p_s` free to vary. The expected factor of one request given the past is at
//! most 1 under the null, whatever the traffic does. Conditioning on the arm of each event: Wald
//! 1947, Kulldorff et al. 2011, Lindon & Malek 2022; betting: Ramdas, Grünwald, Vovk & Shafer 2023.

/// Logarithms of the factors of one bet. Valid for weights strictly between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bet {
    /// Per event on the canary.
    pub canary_event: f64,
    /// Per request on the canary.
    pub canary_request: f64,
    /// Per event on stable.
    pub stable_event: f64,
}

/// What a cohort showed of one kind of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Requests on the canary.
    pub canary_requests: u64,
    /// Events on the canary.
    pub canary_events: u64,
    /// Events on stable.
    pub stable_events: u64,
}

impl Bet {
    /// A bet that the canary is worse than allowed: that its rate is `multiple` (> 1) times what
    /// the null permits. `weight` is the canary's assignment probability.
    #[must_use]
    pub fn on_harm(weight: f64, rho: f64, delta: f64, multiple: f64) -> Self {
        let (w, m) = (weight, multiple);
        let g = (1.0 - w) * (m - 1.0) / (rho * w * m + 1.0 - w);
        Self {
            canary_event: g.ln_1p(),
            canary_request: -(delta * g).ln_1p(),
            stable_event: (-(w / (1.0 - w)) * rho * g / (1.0 + delta * g)).ln_1p(),
        }
    }

    /// A bet that the canary is safe, against the null `p_c >= rho * p_s + margin`: that its rate
    /// is `ratio` (< 1) times `rho * p_s`.
    #[must_use]
    pub fn on_safety(weight: f64, rho: f64, margin: f64, ratio: f64) -> Self {
        let (w, r) = (weight, ratio);
        let h = (1.0 - w) * (1.0 - r) / (rho * w * r + 1.0 - w);
        Self {
            canary_event: (-h).ln_1p(),
            canary_request: -(-margin * h).ln_1p(),
            stable_event: ((w / (1.0 - w)) * rho * h / (1.0 - margin * h)).ln_1p(),
        }
    }

    /// The logarithm of the factor by which `events` multiply what is staked.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a cohort stay far below 2^52")]
    pub fn ln_factor(self, events: Events) -> f64 {
        events.canary_events as f64 * self.canary_event
            + events.canary_requests as f64 * self.canary_request
            + events.stable_events as f64 * self.stable_event
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The expected factor of one request is at most 1 wherever the null holds: the identity
        /// on which the bound on wrong rollbacks stands.
        #[test]
        fn under_the_null_no_request_is_expected_to_win(
            w in 0.001_f64..0.999, rho in 0.5_f64..4.0, delta in 0.0_f64..0.01,
            m in 1.01_f64..200.0, p_s in 0.0_f64..0.2, share in 0.0_f64..=1.0,
        ) {
            let p_c = (share * (rho * p_s + delta)).min(1.0);
            let bet = Bet::on_harm(w, rho, delta, m);
            let canary = bet.canary_request.exp() * (p_c * bet.canary_event.exp() + 1.0 - p_c);
            let stable = p_s * bet.stable_event.exp() + 1.0 - p_s;
            prop_assert!(w * canary + (1.0 - w) * stable <= 1.0 + 1e-12);
        }

        #[test]
        fn an_unsafe_canary_is_not_expected_to_be_proven_safe(
            w in 0.001_f64..0.999, rho in 0.5_f64..4.0, margin in 0.0005_f64..0.05,
            r in 0.01_f64..0.99, p_s in 0.0_f64..0.2, more in 0.0_f64..0.3,
        ) {
            let p_c = (rho * p_s + margin + more).min(1.0);
            prop_assume!(p_c >= rho * p_s + margin);
            let bet = Bet::on_safety(w, rho, margin, r);
            let canary = bet.canary_request.exp() * (p_c * bet.canary_event.exp() + 1.0 - p_c);
            let stable = p_s * bet.stable_event.exp() + 1.0 - p_s;
            prop_assert!(w * canary + (1.0 - w) * stable <= 1.0 + 1e-12);
        }
    }
}
