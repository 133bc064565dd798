//! What others say of a rollout: questions to a Prometheus, webhooks that must agree. Pure.
//!
//! They can keep a canary from rising and send it back; they never raise it.

use serde::{Deserialize, Serialize};

/// What is kept from happening while an opinion is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The start of the rollout.
    Start,
    /// Leaving a stage.
    Advance,
    /// Entering the last stage.
    Promotion,
}

/// How an opinion stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It agrees.
    Agrees,
    /// It has not said yet.
    Waits,
    /// It cannot say: no data, nobody answers, neither yes nor no.
    Inconclusive,
    /// It is against it.
    Disagrees,
}

/// One opinion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// Whose it is, as the configuration names it.
    pub name: String,
    /// What it keeps from happening.
    pub moment: Moment,
    /// It is asked only when nothing else is in the way.
    pub is_last: bool,
    /// How it stands.
    pub standing: Standing,
    /// When it disagrees the canary goes back; otherwise it only does not rise.
    pub rolls_back: bool,
    /// The machine's mark that it is about; of an earlier one it says nothing.
    pub mark: u64,
    /// The same in words.
    pub says: String,
}

impl Opinion {
    /// Whether what comes at `moment` waits for it: whoever confirms every advance confirms the last.
    #[must_use]
    pub fn is_about(&self, moment: Moment) -> bool {
        self.moment == moment || (self.moment, moment) == (Moment::Advance, Moment::Promotion)
    }

    /// The same, as far as it is about `mark`.
    #[must_use]
    pub fn as_of(&self, mark: u64) -> Self {
        if self.mark == mark {
            return self.clone();
        }
        let says = "has not said yet".into();
        Self { standing: Standing::Waits, mark, says, ..self.clone() }
    }
}

/// Who keeps the canary from what comes at `moment`; those that are asked last only where `last`.
#[must_use]
pub fn against(opinions: &[Opinion], moment: Moment, last: bool) -> Option<&Opinion> {
    opinions
        .iter()
        .find(|one| one.is_about(moment) && one.is_last == last && one.standing != Standing::Agrees)
}

/// Who sends the canary back, and why.
#[must_use]
pub fn fault(opinions: &[Opinion]) -> Option<String> {
    let found = opinions.iter().find(|one| one.rolls_back && one.standing == Standing::Disagrees);
    found.map(|one| format!("`{}` {}", one.name, one.says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opinion(moment: Moment, standing: Standing) -> Opinion {
        let (name, says) = ("success-rate".into(), "failed".into());
        Opinion { name, moment, is_last: false, standing, rolls_back: true, mark: 3, says }
    }

    #[test]
    fn an_advance_waits_for_its_own_and_the_last_for_both() {
        let waits = [opinion(Moment::Advance, Standing::Waits)];
        assert!(against(&waits, Moment::Advance, false).is_some());
        assert!(against(&waits, Moment::Promotion, false).is_some());
        assert!(against(&waits, Moment::Start, false).is_none());
        assert!(against(&waits, Moment::Advance, true).is_none());
        let agrees = [opinion(Moment::Advance, Standing::Agrees)];
        assert!(against(&agrees, Moment::Advance, false).is_none());
        let promotion = [opinion(Moment::Promotion, Standing::Inconclusive)];
        assert!(against(&promotion, Moment::Advance, false).is_none());
        assert!(against(&promotion, Moment::Promotion, false).is_some());
    }

    #[test]
    fn only_those_that_may_send_it_back_do() {
        let mut one = opinion(Moment::Advance, Standing::Disagrees);
        assert_eq!(fault(&[one.clone()]), Some("`success-rate` failed".into()));
        one.rolls_back = false;
        assert_eq!(fault(&[one]), None);
        assert_eq!(fault(&[opinion(Moment::Advance, Standing::Inconclusive)]), None);
    }

    #[test]
    fn what_was_said_of_an_earlier_stage_is_forgotten() {
        let one = opinion(Moment::Advance, Standing::Disagrees);
        assert_eq!(one.as_of(3), one);
        assert_eq!(one.as_of(4).standing, Standing::Waits);
    }
}
