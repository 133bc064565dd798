//! What a check's measurements come to. Pure.

use crate::rollout::external::Standing;

use super::expression::{Condition, Undecided};

/// What a check asks and tolerates.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Holds when the measurement is good.
    pub success: Option<Condition>,
    /// Holds when it is bad.
    pub failure: Option<Condition>,
    /// Measurements with a yes or no that a stage needs.
    pub count: u32,
    /// Bad ones that a stage bears.
    pub failure_limit: u32,
    /// Ones without a yes or no that a stage bears.
    pub inconclusive_limit: u32,
    /// Unanswered ones in a row that it bears.
    pub error_limit: u32,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Measurement {
    /// The values of the query.
    Values(Vec<f64>),
    /// Nobody answered, or not as expected.
    Error(String),
}

/// What a measurement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    Inconclusive,
}

/// What a stage's measurements came to so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    good: u32,
    bad: u32,
    inconclusive: u32,
    errors_in_row: u32,
    /// The last one, in words.
    last: String,
}

impl Terms {
    /// Both conditions together, as Argo Rollouts reads them: without any, a value is good; with
    /// one, the other follows; with both, what is neither is inconclusive.
    fn verdict(&self, values: &[f64]) -> (Verdict, String) {
        let shown = match values {
            [one] => format!("{one}"),
            several => format!("{several:?}"),
        };
        match self.decide(values) {
            Ok(verdict) => (verdict, shown),
            Err(undecided) => (Verdict::Inconclusive, undecided.to_string()),
        }
    }

    fn decide(&self, values: &[f64]) -> Result<Verdict, Undecided> {
        let holds = |condition: &Option<Condition>| {
            condition.as_ref().map(|condition| condition.holds(values)).transpose()
        };
        Ok(match (holds(&self.success)?, holds(&self.failure)?) {
            (None, None) if values.is_empty() => return Err(Undecided::NoData),
            (_, Some(true)) | (Some(false), None) => Verdict::Bad,
            (Some(true) | None, _) => Verdict::Good,
            (Some(false), Some(false)) => Verdict::Inconclusive,
        })
    }
}

impl Tally {
    /// Takes a measurement in.
    pub fn note(&mut self, measurement: &Measurement, terms: &Terms) {
        match measurement {
            Measurement::Error(why) => {
                self.errors_in_row = self.errors_in_row.saturating_add(1);
                self.last.clone_from(why);
            }
            Measurement::Values(values) => {
                let (verdict, shown) = terms.verdict(values);
                self.errors_in_row = 0;
                let count = match verdict {
                    Verdict::Good => &mut self.good,
                    Verdict::Bad => &mut self.bad,
                    Verdict::Inconclusive => &mut self.inconclusive,
                };
                *count = count.saturating_add(1);
                self.last = shown;
            }
        }
    }

    /// How the check stands, with a reason.
    #[must_use]
    pub fn standing(&self, terms: &Terms) -> (Standing, String) {
        let (made, wanted, last) = (self.good + self.bad, terms.count, &self.last);
        if self.bad > terms.failure_limit {
            let condition = match (&terms.success, &terms.failure) {
                (Some(success), _) => format!(", where {success} is wanted"),
                (None, Some(failure)) => format!(", where {failure} is not wanted"),
                (None, None) => String::new(),
            };
            let (bad, limit) = (self.bad, terms.failure_limit);
            let says = format!(
                "failed: {bad} bad measurements, {limit} are borne; the last is {last}{condition}"
            );
            return (Standing::Disagrees, says);
        }
        if self.inconclusive > terms.inconclusive_limit {
            let count = self.inconclusive;
            let says = format!(
                "is inconclusive: {count} measurements say neither yes nor no; the last: {last}"
            );
            return (Standing::Inconclusive, says);
        }
        if self.errors_in_row > terms.error_limit {
            let row = self.errors_in_row;
            return (
                Standing::Inconclusive,
                format!("is not answered, {row} times in a row: {last}"),
            );
        }
        if made >= wanted {
            return (
                Standing::Agrees,
                format!(
                    "is satisfied: {} of {made} measurements are good, the last is {last}",
                    self.good
                ),
            );
        }
        let last = if last.is_empty() { String::new() } else { format!("; the last: {last}") };
        (Standing::Waits, format!("has {made} of {wanted} measurements{last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(success: Option<&str>, failure: Option<&str>) -> Terms {
        let condition = |text: &str| Condition::parse(text).expect("it is one");
        Terms {
            success: success.map(condition),
            failure: failure.map(condition),
            count: 2,
            failure_limit: 1,
            inconclusive_limit: 1,
            error_limit: 2,
        }
    }

    fn after(terms: &Terms, measurements: &[Option<f64>]) -> Standing {
        let mut tally = Tally::default();
        for measurement in measurements {
            let measurement = match measurement {
                Some(value) if value.is_finite() => Measurement::Values(vec![*value]),
                Some(_) => Measurement::Values(Vec::new()),
                None => Measurement::Error("refused".into()),
            };
            tally.note(&measurement, terms);
        }
        tally.standing(terms).0
    }

    #[test]
    fn measurements_come_to_a_standing() {
        use Standing::{Agrees, Disagrees, Inconclusive, Waits};
        const GOOD: Option<f64> = Some(0.99);
        const BAD: Option<f64> = Some(0.5);
        const NONE: Option<f64> = Some(f64::NAN);
        const ERROR: Option<f64> = None;
        let terms = terms(Some("result >= 0.95"), None);
        for (measurements, standing) in [
            (&[][..], Waits),
            (&[GOOD], Waits),
            (&[GOOD, GOOD], Agrees),
            (&[GOOD, BAD], Agrees),
            (&[BAD, BAD], Disagrees),
            (&[GOOD, GOOD, BAD, BAD], Disagrees),
            (&[NONE], Waits),
            (&[NONE, NONE], Inconclusive),
            (&[GOOD, GOOD, NONE], Agrees),
            (&[ERROR, ERROR], Waits),
            (&[ERROR, ERROR, ERROR], Inconclusive),
            (&[ERROR, ERROR, ERROR, GOOD, GOOD], Agrees),
            // Nobody who does not answer is ever against it.
            (&[ERROR; 100], Inconclusive),
            (&[NONE; 100], Inconclusive),
        ] {
            assert_eq!(after(&terms, measurements), standing, "{measurements:?}");
        }
    }

    #[test]
    fn two_conditions_leave_a_middle_and_one_does_not() {
        let decide = |success, failure, value: f64| terms(success, failure).decide(&[value]);
        let (good, bad) = (Some("result >= 0.95"), Some("result < 0.9"));
        assert_eq!(decide(good, bad, 0.99), Ok(Verdict::Good));
        assert_eq!(decide(good, bad, 0.92), Ok(Verdict::Inconclusive));
        assert_eq!(decide(good, bad, 0.5), Ok(Verdict::Bad));
        assert_eq!(decide(good, None, 0.92), Ok(Verdict::Bad));
        assert_eq!(decide(None, bad, 0.92), Ok(Verdict::Good));
        assert_eq!(decide(None, None, 0.92), Ok(Verdict::Good));
        assert_eq!(terms(None, None).decide(&[]), Err(Undecided::NoData));
    }

    #[test]
    fn the_words_have_the_figures() {
        let terms = terms(Some("result >= 0.95"), None);
        let mut tally = Tally::default();
        for value in [0.5, 0.25] {
            tally.note(&Measurement::Values(vec![value]), &terms);
        }
        assert_eq!(
            tally.standing(&terms).1,
            "failed: 2 bad measurements, 1 are borne; the last is 0.25, where result >= 0.95 is wanted"
        );
    }
}
