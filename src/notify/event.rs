//! What is worth telling people: the difference between two reports. Pure.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use crate::calendar::rfc3339;
use crate::plain;
use crate::rollout::report::ServiceReport;
use crate::rollout::{Report, Transition};

/// The same hold or alarm is told again after this long at the earliest.
const AGAIN_MS: u64 = 300_000;

/// What kind of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A rollout moved.
    Transition,
    /// It does not advance, for a reason that a person may want to know.
    Hold,
    /// Something is wrong that is not the canary's doing.
    Alarm,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Hold => "hold",
            Self::Alarm => "alarm",
        }
    }
}

/// How good or bad the news is: decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As hoped.
    Good,
    /// Neither.
    Neutral,
    /// Look at it.
    Doubtful,
    /// It went wrong.
    Bad,
}

/// A piece of news.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Tells it from every other; the same when it is sent again.
    pub id: String,
    /// What kind.
    pub kind: Kind,
    /// The service; empty where it is about the gateway.
    pub service: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// It in one line.
    pub title: String,
    /// Why, with figures.
    pub text: String,
    /// How good or bad it is.
    pub tone: Tone,
    /// Names and values for a table.
    pub facts: Vec<(&'static str, String)>,
}

impl Event {
    /// Everything, for machines.
    #[must_use]
    pub fn data(&self) -> Json {
        let facts: serde_json::Map<String, Json> =
            self.facts.iter().map(|(name, value)| ((*name).into(), value.clone().into())).collect();
        json!({
            "id": self.id,
            "event": self.kind.as_str(),
            "service": self.service,
            "time": rfc3339(self.at_ms),
            "title": self.title,
            "text": self.text,
            "facts": facts,
        })
    }
}

/// What has been told already.
#[derive(Debug, Default)]
pub struct Told {
    transitions: HashMap<String, u64>,
    /// The condition that a service, or the gateway, is in.
    standing: HashMap<String, &'static str>,
    /// When each condition was last told.
    last_ms: HashMap<(String, &'static str), u64>,
    count: u64,
}

impl Told {
    /// What is new in `report`.
    pub fn news(&mut self, report: &Report, now_ms: u64) -> Vec<Event> {
        let mut news = Vec::new();
        for rollout in &report.services {
            self.transitions(rollout, &mut news);
            let (kind, word) = match rollout.standing {
                Some(word @ ("split_alarm" | "stable_failing" | "unsettled")) => {
                    (Kind::Alarm, Some(word))
                }
                other => (Kind::Hold, other),
            };
            if self.is_new(&rollout.service, word, now_ms) {
                let title = format!("{}: the rollout is held", rollout.service);
                let event = self.event((kind, now_ms), &rollout.service, title, &rollout.explain);
                news.push(Event { facts: facts(rollout), ..event });
            }
        }
        let fault = report.journal_fault.as_deref();
        if self.is_new("", fault.map(|_| "journal"), now_ms) {
            let title = "Nothing rises: the journal cannot be written".to_owned();
            news.push(self.event((Kind::Alarm, now_ms), "", title, fault.unwrap_or_default()));
        }
        news
    }

    fn transitions(&mut self, rollout: &ServiceReport, news: &mut Vec<Event>) {
        let count: u64 = rollout.tallies.transitions.iter().sum();
        let before = self.transitions.insert(rollout.service.clone(), count).unwrap_or(0);
        // A service that was taken out and put back counts anew.
        let fresh = if count < before { count } else { count - before };
        // More than the history remembers come at no human pace.
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        let history = &rollout.history;
        for transition in &history[history.len().saturating_sub(fresh)..] {
            let (title, tone) = title(&rollout.service, transition);
            let kind = (Kind::Transition, transition.at_ms);
            let event = self.event(kind, &rollout.service, title, &transition.why);
            let facts = vec![
                ("version", transition.version.clone()),
                ("from", transition.from.as_str().to_owned()),
                ("to", transition.to.as_str().to_owned()),
                ("weight_before", format!("{} %", transition.weight_before)),
                ("weight", format!("{} %", transition.weight)),
                ("cause", transition.cause.as_str().to_owned()),
                ("actor", transition.actor.clone()),
                ("attempt", transition.attempt.to_string()),
            ];
            news.push(Event { tone, facts, ..event });
        }
    }

    /// Whether a condition has begun that was not told a moment ago.
    fn is_new(&mut self, service: &str, word: Option<&'static str>, now_ms: u64) -> bool {
        let before = match word {
            Some(word) => self.standing.insert(service.to_owned(), word),
            None => self.standing.remove(service),
        };
        let Some(word) = word.filter(|word| before != Some(word)) else { return false };
        let last = self.last_ms.get(&(service.to_owned(), word));
        let is_new = last.is_none_or(|last| now_ms >= last + AGAIN_MS);
        if is_new {
            self.last_ms.insert((service.to_owned(), word), now_ms);
        }
        is_new
    }

    fn event(
        &mut self,
        (kind, at_ms): (Kind, u64),
        service: &str,
        title: String,
        text: &str,
    ) -> Event {
        self.count += 1;
        Event {
            id: format!("{service}-{at_ms}-{}", self.count),
            kind,
            service: service.to_owned(),
            at_ms,
            title,
            text: plain::line(text).into_owned(),
            tone: Tone::Doubtful,
            facts: Vec::new(),
        }
    }
}

fn facts(rollout: &ServiceReport) -> Vec<(&'static str, String)> {
    vec![
        ("version", rollout.version.clone().unwrap_or_default()),
        ("phase", rollout.phase.as_str().to_owned()),
        ("weight", format!("{} %", rollout.weight)),
        ("evidence", format!("{:.2} of {:.0}", rollout.e, rollout.limit)),
    ]
}

fn title(service: &str, transition: &Transition) -> (String, Tone) {
    use crate::rollout::Phase::{Idle, Paused, Progressing, Promoted, RolledBack, Waiting};
    let Transition { version, from, to, weight, weight_before, .. } = transition;
    match to {
        RolledBack => (format!("{service}: {version} was rolled back"), Tone::Bad),
        Promoted => (format!("{service}: {version} was promoted"), Tone::Good),
        Paused => (format!("{service}: {version} is paused at {weight} %"), Tone::Doubtful),
        Waiting => (format!("{service}: a rollout of {version} begins"), Tone::Neutral),
        Idle => (format!("{service}: the rollout of {version} has ended"), Tone::Neutral),
        Progressing if weight > weight_before => {
            (format!("{service}: {version} is now at {weight} %"), Tone::Good)
        }
        Progressing => (
            format!("{service}: {version} goes on at {weight} % (was {})", from.as_str()),
            Tone::Neutral,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rollout::{Cause, Phase};
    use crate::track::Weight;

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).expect("a weight")
    }

    fn transition(at_ms: u64, to: Phase, percent: u16) -> Transition {
        Transition {
            at_ms,
            version: "v2".into(),
            attempt: 1,
            from: Phase::Progressing,
            to,
            weight_before: weight(500),
            weight: weight(percent * 100),
            cause: Cause::Judge,
            actor: "judge".into(),
            why: "evidence".into(),
            e: 1.0,
        }
    }

    fn report(history: Vec<Transition>, standing: Option<&'static str>) -> Report {
        let mut service = ServiceReport { service: "api".into(), standing, ..Default::default() };
        service.tallies.transitions[0] = history.len() as u64;
        service.history = Arc::new(history);
        Report { services: vec![service], ..Report::default() }
    }

    #[test]
    fn every_transition_is_told_once() {
        let mut told = Told::default();
        let first = transition(1_000, Phase::Progressing, 10);
        let news = told.news(&report(vec![first.clone()], None), 1_000);
        assert_eq!(news.len(), 1);
        assert_eq!(news[0].title, "api: v2 is now at 10 %");
        assert_eq!(told.news(&report(vec![first.clone()], None), 2_000), []);
        let history = vec![first, transition(3_000, Phase::RolledBack, 0)];
        let news = told.news(&report(history, None), 3_000);
        let titles: Vec<_> = news.iter().map(|event| (event.title.as_str(), event.tone)).collect();
        assert_eq!(titles, [("api: v2 was rolled back", Tone::Bad)]);
        assert_eq!(news[0].data()["facts"]["cause"], "judge");
    }

    #[test]
    fn holds_and_alarms_are_told_when_they_begin_and_not_when_they_flicker() {
        let mut told = Told::default();
        let mut kinds = |standing, now_ms| -> Vec<Kind> {
            let news = told.news(&report(Vec::new(), standing), now_ms);
            news.iter().map(|event| event.kind).collect()
        };
        assert_eq!(kinds(None, 0), []);
        assert_eq!(kinds(Some("suspicious"), 1_000), [Kind::Hold]);
        assert_eq!(kinds(Some("suspicious"), 2_000), []);
        assert_eq!(kinds(None, 3_000), []);
        assert_eq!(kinds(Some("suspicious"), 4_000), [], "it was told a moment ago");
        assert_eq!(kinds(Some("split_alarm"), 5_000), [Kind::Alarm]);
        assert_eq!(kinds(None, 6_000), []);
        assert_eq!(kinds(Some("suspicious"), 400_000), [Kind::Hold]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_is_an_alarm_of_the_gateway() {
        let mut told = Told::default();
        let fault = Report { journal_fault: Some("disk full".into()), ..Report::default() };
        let news = told.news(&fault, 1_000);
        assert_eq!((news[0].kind, news[0].service.as_str()), (Kind::Alarm, ""));
        assert_eq!(told.news(&fault, 2_000), []);
    }
}
