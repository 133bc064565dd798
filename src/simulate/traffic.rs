//! The traffic of a scenario, cohort by cohort.
//!
//! Latencies are lognormal, as response times are; what a cohort shows of them is drawn as counts
//! beyond the cuts, which is all that the judge ever sees.

use rand::Rng;
use rand_distr::{Beta, Binomial, Distribution, Poisson, StandardNormal};

use crate::evidence::cuts::canary_cut_ns;
use crate::judge::{Arm, Arms, QUANTILES};
use crate::record::histogram::round_up_ns;

use super::scenario::{Ar1, Incident, Spec};

/// The median latency of stable, in seconds.
const MEDIAN_S: f64 = 0.05;
/// The standard deviation of the latency's logarithm.
const SIGMA: f64 = 0.5;
/// Stable samples that the cuts are estimated from: ten minutes' worth, within these bounds.
const SAMPLES_S: f64 = 600.0;
const SAMPLES_MIN: f64 = 600.0;
const SAMPLES_MAX: f64 = 100_000.0;

/// One run's traffic.
#[derive(Debug)]
pub struct Traffic<'a, R> {
    spec: &'a Spec,
    dice: &'a mut R,
    /// Cuts of stable and canary in seconds, by quantile.
    cuts: [[f64; 2]; 2],
    /// Logarithms of the common factors on errors and latencies, in standard deviations.
    common: [f64; 2],
}

impl<'a, R: Rng> Traffic<'a, R> {
    /// The traffic of `spec` in one run: its cuts are estimated from stable samples of their own.
    pub fn new(spec: &'a Spec, ratio: f64, floor_ns: u64, dice: &'a mut R) -> Self {
        let samples = (SAMPLES_S * spec.rps).clamp(SAMPLES_MIN, SAMPLES_MAX).round();
        // The quantiles of a sample are order statistics: Beta distributed, the lower given the
        // upper too.
        let [upper, lower] = QUANTILES.map(|quantile| (quantile * samples).ceil());
        let u99 = beta(upper, samples - upper + 1.0, dice);
        let u90 = u99 * beta(lower, upper - lower, dice);
        let cuts = [u99, u90].map(|u| {
            let latency_s = MEDIAN_S * (SIGMA * normal_quantile(u)).exp();
            let stable_ns = round_up_ns(ns(latency_s));
            [seconds(stable_ns), seconds(canary_cut_ns(stable_ns, ratio, floor_ns))]
        });
        let common = [StandardNormal.sample(dice), StandardNormal.sample(dice)];
        Self { spec, dice, cuts, common }
    }

    /// What both tracks show in `dt_s` seconds from `time_s` on, with the canary at `weight`.
    pub fn cohort(&mut self, time_s: f64, dt_s: f64, weight: f64, has_turned: bool) -> Arms {
        let spec = self.spec;
        let (mut error_factor, mut latency_factor) = (1.0, 1.0);
        if let Some(Ar1 { tau_s, sd_log_error, sd_log_latency }) = spec.common_ar1 {
            let keep = (-dt_s / tau_s).exp();
            for common in &mut self.common {
                let fresh: f64 = StandardNormal.sample(self.dice);
                *common = *common * keep + fresh * (1.0 - keep * keep).sqrt();
            }
            error_factor = (sd_log_error * self.common[0]).exp();
            latency_factor = (sd_log_latency * self.common[1]).exp();
        }
        let mut common_errors = 0.0;
        for Incident { start_s, end_s, error_rate, latency_factor: slower } in &spec.incident_common
        {
            if (*start_s..*end_s).contains(&time_s) {
                common_errors = error_rate.max(common_errors);
                latency_factor *= slower;
            }
        }
        let errors = |own: f64| {
            let own = (own * error_factor).min(1.0);
            own + (1.0 - own) * common_errors
        };
        let cold =
            spec.cold_start.map_or(1.0, |cold| 1.0 + cold.extra * (-time_s / cold.tau_s).exp());
        let (pc, slower) = if has_turned { (spec.pc, spec.f) } else { (spec.ps, 1.0) };
        let total = poisson(spec.rps * dt_s, self.dice);
        let canary = binomial(total, weight, self.dice);
        Arms {
            canary: self.arm(canary, errors(pc), latency_factor * slower * cold, 1),
            stable: self.arm(total - canary, errors(spec.ps), latency_factor, 0),
        }
    }

    fn arm(&mut self, requests: u64, errors: f64, slower: f64, track: usize) -> Arm {
        let beyond = |cuts: [f64; 2]| {
            let deviations = (cuts[track] / (MEDIAN_S * slower)).ln() / SIGMA;
            0.5 * libm::erfc(deviations / std::f64::consts::SQRT_2)
        };
        let [p99, p90] = self.cuts.map(beyond);
        let slow90 = binomial(requests, p90, self.dice);
        let slow99 =
            binomial(slow90, if p90 > 0.0 { (p99 / p90).min(1.0) } else { 0.0 }, self.dice);
        let errors = binomial(requests, errors, self.dice);
        Arm { requests, errors, slow: [slow99, slow90] }
    }

    /// `count` latencies of a track in nanoseconds, for a window that wants them one by one.
    pub fn latencies_ns(&mut self, count: u64, has_turned: bool) -> impl Iterator<Item = u64> {
        let slower = if has_turned { self.spec.f } else { 1.0 };
        (0..count).map(move |_| {
            let normal: f64 = StandardNormal.sample(self.dice);
            ns(MEDIAN_S * slower * (SIGMA * normal).exp())
        })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a request")]
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a request")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn beta(a: f64, b: f64, dice: &mut impl Rng) -> f64 {
    Beta::new(a, b).map_or(0.5, |beta| beta.sample(dice))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a tick")]
fn poisson(mean: f64, dice: &mut impl Rng) -> u64 {
    Poisson::new(mean).map_or(0, |poisson| {
        let count: f64 = poisson.sample(dice);
        count as u64
    })
}

fn binomial(count: u64, share: f64, dice: &mut impl Rng) -> u64 {
    if count == 0 || share <= 0.0 {
        return 0;
    }
    Binomial::new(count, share.min(1.0)).map_or(0, |binomial| binomial.sample(dice))
}

/// The standard normal quantile, by halving: once per run and quantile.
fn normal_quantile(u: f64) -> f64 {
    let (mut low, mut high) = (-40.0_f64, 40.0_f64);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2) < u {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn quantiles_are_those_of_tables() {
        for (u, expected) in [(0.5, 0.0), (0.9, 1.281_551_565_5), (0.99, 2.326_347_874)] {
            assert!((normal_quantile(u) - expected).abs() < 1e-8, "{u}");
        }
    }

    #[test]
    fn cohorts_have_the_rates_of_the_scenario() {
        let spec: Spec =
            serde_json::from_str(r#"{"rps": 1000, "ps": 0.01, "pc": 0.05, "f": 2.0}"#).unwrap();
        let mut dice = SmallRng::seed_from_u64(1);
        let mut traffic = Traffic::new(&spec, 1.5, 5_000_000, &mut dice);
        let mut sum = Arms::default();
        (0..1_000).for_each(|_| sum.add(traffic.cohort(0.0, 1.0, 0.25, true)));
        #[expect(clippy::cast_precision_loss, reason = "counts of a test")]
        let share = |part: u64, of: u64| part as f64 / of as f64;
        let Arms { canary, stable } = sum;
        assert!((share(canary.requests, canary.requests + stable.requests) - 0.25).abs() < 0.003);
        assert!((share(canary.errors, canary.requests) - 0.05).abs() < 0.003);
        assert!((share(stable.errors, stable.requests) - 0.01).abs() < 0.001);
        // Cuts are rounded up to buckets of at most 5 %, so a little less than 1 and 10 % is slow.
        assert!((0.007..0.0105).contains(&share(stable.slow[0], stable.requests)), "{stable:?}");
        assert!((0.08..0.105).contains(&share(stable.slow[1], stable.requests)), "{stable:?}");
        assert!(share(canary.slow[0], canary.requests) > 0.02, "{canary:?}");
    }
}
