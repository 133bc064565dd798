//! The plan: what the operator allows. Pure.

use serde::{Deserialize, Serialize};

use crate::judge::{Parameters, threshold};
use crate::track::Weight;

/// One weight of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The canary's share.
    #[serde(with = "percent")]
    pub weight: Weight,
    /// Least time at it, in seconds.
    pub min_s: f64,
    /// Time after which `on_max` decides, in seconds.
    pub max_s: Option<f64>,
    /// A person must say so before it is left (before it is entered, if it is the last).
    pub approve: bool,
}

/// How verdicts are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By proof.
    #[default]
    Sequential,
    /// By the literal rules of dashboards.
    Threshold,
    /// By the clock alone.
    Off,
}

/// What happens when a stage's time is over without proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMax {
    /// Stay, and say how long the present traffic will need.
    Hold,
    /// Go on, unproven.
    Advance,
    /// Go back.
    Rollback,
}

/// What happens when the canary is found to be outside the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// All traffic back to stable.
    Rollback,
    /// Pause, and leave it to a person.
    Hold,
}

/// How many canary endpoints must be ready before a rollout starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// Every one.
    All,
    /// One of them.
    Any,
}

/// A plan, with the figures that its rollout is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The weights, ascending; the last one is where the rollout ends.
    pub stages: Vec<Stage>,
    /// Everything else.
    pub figures: Figures,
}

/// What a plan says beside its stages; a change applies from the next rollout on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How verdicts are made.
    pub mode: Mode,
    /// The judge's figures.
    pub judge: Parameters,
    /// The figures of threshold mode.
    pub threshold: threshold::Limits,
    /// Most failures beyond what the limits allow, over the whole rollout.
    pub excess_failures_max: Option<u64>,
    /// When a stage's time is over.
    pub on_max: OnMax,
    /// When the canary is outside the limits.
    pub on_failure: OnFailure,
    /// What must be ready at the start.
    pub ready: Ready,
    /// How long that is waited for, in seconds.
    pub start_timeout_s: f64,
    /// How long it is watched after promotion, in seconds.
    pub bake_s: f64,
    /// Judge and say, but move nothing.
    pub dry_run: bool,
    /// Nothing starts by itself: the state is in memory and would be forgotten.
    pub starts_by_hand: bool,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            mode: Mode::Sequential,
            judge: Parameters::default(),
            threshold: threshold::Limits::default(),
            excess_failures_max: None,
            on_max: OnMax::Hold,
            on_failure: OnFailure::Rollback,
            ready: Ready::All,
            start_timeout_s: 600.0,
            bake_s: 1_800.0,
            dry_run: false,
            starts_by_hand: false,
        }
    }
}

/// Least time per stage: a minute, which holds at least one scrape of every dashboard.
pub const STAGE_MIN_S: f64 = 60.0;

impl Plan {
    /// A plan through `percents` with every other figure at its default.
    ///
    /// # Panics
    /// When a percentage is above 100.
    #[must_use]
    pub fn through(percents: &[u16]) -> Self {
        let stage = |percent: &u16| Stage {
            weight: Weight::from_basis_points(percent * 100).expect("at most 100 percent"),
            min_s: STAGE_MIN_S,
            max_s: None,
            approve: false,
        };
        Self { stages: percents.iter().map(stage).collect(), figures: Figures::default() }
    }

    /// The position of the last stage that is not above `weight`.
    #[must_use]
    pub fn position(&self, weight: Weight) -> Option<usize> {
        self.stages.iter().rposition(|stage| stage.weight <= weight)
    }

    /// The first stage above `weight`.
    #[must_use]
    pub fn next(&self, weight: Weight) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.weight > weight)
    }

    /// Where the rollout ends.
    #[must_use]
    pub fn last(&self) -> Weight {
        self.stages.last().map_or(Weight::FULL, |stage| stage.weight)
    }

    /// Least and greatest time at `weight`; below the first stage, those of the first.
    #[must_use]
    pub fn times(&self, weight: Weight) -> (f64, Option<f64>) {
        let stage = self.stages.get(self.position(weight).unwrap_or(0));
        stage.map_or((STAGE_MIN_S, None), |stage| (stage.min_s, stage.max_s))
    }

    /// Whether a person must agree before `weight` is left.
    #[must_use]
    pub fn needs_approval(&self, weight: Weight) -> bool {
        let here = self.position(weight).is_some_and(|position| self.stages[position].approve);
        let last = self.stages.last();
        let is_next_last = self.next(weight) == last;
        here || (is_next_last && last.is_some_and(|last| last.approve))
    }
}

/// Weights as people write them: in percent.
pub mod percent {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::track::Weight;

    /// Writes a weight in percent.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(weight: &Weight, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(weight.basis_points()) / 100.0)
    }

    /// Reads a weight in percent, rounded to the nearest basis point.
    ///
    /// # Errors
    /// A number outside 0 to 100.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        from_percent(percent).ok_or_else(|| D::Error::custom("a percentage is from 0 to 100"))
    }

    /// The weight of `percent`, rounded to the nearest basis point.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
    pub fn from_percent(percent: f64) -> Option<Weight> {
        (0.0..=100.0)
            .contains(&percent)
            .then(|| Weight::from_basis_points((percent * 100.0).round() as u16))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(percent: u16) -> Weight {
        Weight::from_basis_points(percent * 100).unwrap()
    }

    #[test]
    fn stages_are_found_by_weight() {
        let plan = Plan::through(&[5, 10, 25, 100]);
        assert_eq!(plan.position(weight(4)), None);
        assert_eq!(plan.position(weight(17)), Some(1));
        assert_eq!(plan.next(weight(17)).unwrap().weight, weight(25));
        assert_eq!(plan.next(weight(100)), None);
        assert_eq!(plan.next(weight(0)).unwrap().weight, weight(5));
    }

    #[test]
    fn approval_is_for_leaving_a_stage_or_entering_the_last() {
        let mut plan = Plan::through(&[5, 25, 100]);
        plan.stages[1].approve = true;
        assert!(!plan.needs_approval(weight(5)) && plan.needs_approval(weight(25)));
        let mut plan = Plan::through(&[5, 100]);
        plan.stages[1].approve = true;
        assert!(plan.needs_approval(weight(5)));
        let mut plan = Plan::through(&[100]);
        plan.stages[0].approve = true;
        assert!(plan.needs_approval(weight(0)));
    }
}
