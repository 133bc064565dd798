//! What a scenario says: traffic, error rates, latency, and what happens to both tracks at once.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A file of scenarios; what else stands in it is for its readers.
#[derive(Clone, Debug, Deserialize)]
pub struct Scenarios {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// One scenario.
#[derive(Clone, Debug, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Whether the canary is outside the limits, and should be rolled back.
    #[serde(default)]
    pub bad_canary: Option<bool>,
    /// What happens.
    pub spec: Spec,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Requests a second, over both tracks; arrivals are Poisson.
    pub rps: f64,
    /// Stable's share of errors, 0 to 1.
    pub ps: f64,
    /// The canary's share of errors from the onset on, 0 to 1.
    pub pc: f64,
    /// How much slower than stable the canary is from the onset on.
    #[serde(default = "one")]
    pub f: f64,
    /// The stage at whose entry the canary turns bad, from 0.
    #[serde(default)]
    pub onset_stage_index: usize,
    /// Outages that hit both tracks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incident_common: Vec<Incident>,
    /// Error rate and latency of both tracks wander together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_ar1: Option<Ar1>,
    /// The canary is slow at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
}

/// An outage of something that both tracks use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// When it begins, in seconds of the rollout.
    pub start_s: f64,
    /// When it ends.
    pub end_s: f64,
    /// The share of requests that it makes fail, 0 to 1.
    #[serde(default)]
    pub error_rate: f64,
    /// How much slower it makes both tracks.
    #[serde(default = "one")]
    pub latency_factor: f64,
}

/// First-order autoregressive logarithms of common factors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ar1 {
    /// Their memory, in seconds.
    pub tau_s: f64,
    /// Standard deviation of the logarithm of the factor on error rates.
    #[serde(default)]
    pub sd_log_error: f64,
    /// Standard deviation of the logarithm of the factor on latencies.
    #[serde(default)]
    pub sd_log_latency: f64,
}

/// The canary's latency factor at first: `1 + extra * exp(-t / tau_s)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColdStart {
    /// How much slower at the very start, beyond 1.
    pub extra: f64,
    /// How fast it warms up, in seconds.
    pub tau_s: f64,
}

fn one() -> f64 {
    1.0
}

impl ColdStart {
    /// Reads `canary latency factor 1+EXTRA*exp(-t/TAU)`.
    fn parse(text: &str) -> Option<Self> {
        let formula = text.rsplit(' ').next()?.strip_prefix("1+")?;
        let (extra, rest) = formula.split_once("*exp(-t/")?;
        let tau_s = rest.strip_suffix(')')?.parse().ok()?;
        let extra = extra.parse().ok()?;
        Some(Self { extra, tau_s }).filter(|one| one.extra >= 0.0 && one.tau_s > 0.0)
    }
}

impl<'de> Deserialize<'de> for ColdStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no cold start; write `canary latency factor 1+4.0*exp(-t/10.0)`"
            ))
        })
    }
}

impl Serialize for ColdStart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { extra, tau_s } = self;
        serializer.collect_str(&format_args!("canary latency factor 1+{extra}*exp(-t/{tau_s})"))
    }
}

impl Spec {
    /// What is no traffic or no rate, in words.
    ///
    /// # Errors
    /// The first value that is out of range.
    pub fn check(&self) -> Result<(), String> {
        let rate = |rate: f64| (0.0..=1.0).contains(&rate);
        if !(self.rps > 0.0 && self.rps <= 10_000_000.0) {
            return Err(format!("rps {} is not above 0 and at most 10,000,000", self.rps));
        }
        if !rate(self.ps) || !rate(self.pc) {
            return Err("ps and pc are shares from 0 to 1".into());
        }
        if !(self.f > 0.0 && self.f.is_finite()) {
            return Err(format!("f {} is no factor on latency", self.f));
        }
        let is_bad = |one: &Incident| {
            !rate(one.error_rate) || one.latency_factor <= 0.0 || one.end_s < one.start_s
        };
        if self.incident_common.iter().any(is_bad) {
            return Err("an incident needs an error_rate from 0 to 1, a latency_factor above 0, \
                and an end after its start"
                .into());
        }
        if self.common_ar1.is_some_and(|ar1| ar1.tau_s <= 0.0) {
            return Err("common_ar1.tau_s is a memory above 0 seconds".into());
        }
        Ok(())
    }

    /// Whether the canary is outside the default limits.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.pc > 2.0 * self.ps + 0.0005 || self.f > 1.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_start_is_a_formula() {
        let text = "canary latency factor 1+4.0*exp(-t/10.0)";
        assert_eq!(ColdStart::parse(text), Some(ColdStart { extra: 4.0, tau_s: 10.0 }));
        assert_eq!(ColdStart::parse("slow at first"), None);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let spec = r#"{"rps": 1, "ps": 0, "pc": 0, "wave": 1}"#;
        let error = serde_json::from_str::<Spec>(spec).unwrap_err().to_string();
        assert!(error.contains("wave"), "{error}");
    }
}
