//! The sections of a rollout that ask others: checks of a Prometheus, gates by webhook.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::{Value as Json, json};

use crate::opinion::expression::Condition;
use crate::opinion::tally::Terms;
use crate::opinion::{Check, Gate, Questions, gate};
use crate::outbound::{Contact, Url};
use crate::rollout::plan::OnFailure;

use super::fault::Place;
use super::node::Node;
use super::section::{Reader, Value, section};
use super::types::Config;
use super::values::{At, Named, OrOff, Span, Whole};

/// Most checks and most gates of a rollout: each has a task of its own.
const QUESTIONS_MAX: usize = 20;
/// Longest query.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// Least time between two questions: nobody is asked without a pause.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

section! {
    /// A check: a question to a Prometheus, asked at every stage.
    pub struct CheckSection {
        /// What it is called.
        pub name: At<String> = required,
        /// Where the Prometheus is, like `http://prometheus:9090`.
        pub address: At<UrlValue> = required,
        /// What is asked, in `PromQL`; {{service}}, {{canary}}, {{stable}} and {{weight}} stand for
        /// the service, the versions and the canary's percent.
        pub query: At<String> = required,
        /// Good where this holds, like result >= 0.95.
        pub success: Option<ConditionValue> = or(None),
        /// Bad where this holds; with both, what is neither is inconclusive.
        pub failure: Option<ConditionValue> = or(None),
        /// Time between two measurements.
        pub interval: At<Span> = or(unplaced(Span::seconds(60))),
        /// Time from a stage's start to its first measurement, or off.
        pub initial_delay: OrOff<Span> = or(OrOff(None)),
        /// Measurements with a yes or no that every stage needs.
        pub count: Whole<1, 10_000> = or(Whole(1)),
        /// Bad ones that a stage bears.
        pub failure_limit: Whole<0, 10_000> = or(Whole(0)),
        /// Inconclusive ones that a stage bears; no data is one.
        pub inconclusive_limit: Whole<0, 10_000> = or(Whole(0)),
        /// Unanswered ones in a row that a stage bears.
        pub error_limit: Whole<0, 10_000> = or(Whole(4)),
        /// When it fails: rollback, or hold.
        pub on_failure: OnFailure = or(OnFailure::Rollback),
        /// For an answer.
        pub timeout: Span = or(Span::seconds(10)),
        /// Further fields of the request.
        pub headers: Named<At<String>> = or(Named(Vec::new())),
        /// A file whose content is sent as a bearer token.
        pub token_file: Option<At<String>> = or(None),
    }
}

section! {
    /// A gate: a webhook that must agree by a status of 2xx. Its payload is Flagger's.
    pub struct GateSection {
        /// What it is called.
        pub name: At<String> = required,
        /// `pre_rollout`, `confirm_advance`, `confirm_promotion`, or `post_rollout`, which is told.
        pub on: gate::Kind = required,
        /// Who is asked.
        pub url: At<UrlValue> = required,
        /// Time between two questions.
        pub interval: At<Span> = or(unplaced(Span::seconds(10))),
        /// For an answer.
        pub timeout: Span = or(Span::seconds(10)),
        /// Refusals and missing answers that are borne.
        pub failure_limit: Whole<0, 10_000> = or(Whole(0)),
        /// Beyond them: hold, and ask on; or rollback.
        pub on_failure: OnFailure = or(OnFailure::Hold),
        /// What is sent along.
        pub metadata: Named<At<String>> = or(Named(Vec::new())),
        /// The namespace in the payload.
        pub namespace: String = or("default".into()),
        /// Further fields of the request.
        pub headers: Named<At<String>> = or(Named(Vec::new())),
        /// A file whose content is sent as a bearer token.
        pub token_file: Option<At<String>> = or(None),
    }
}

fn unplaced(value: Span) -> At<Span> {
    At { value, place: Place::default() }
}

/// An address to call.
#[derive(Clone, Debug, PartialEq)]
pub struct UrlValue(pub Url);

impl Value for UrlValue {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "an address like http://prometheus:9090")?;
        let url = Url::parse(text);
        url.map_err(|why| reader.fault(node.place, format!("`{text}` {why}"))).ok().map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

/// A condition on a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionValue(pub Condition);

impl Value for ConditionValue {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a condition like result >= 0.95")?;
        let read = Condition::parse(text);
        let read = read.map_err(|fault| reader.fault(node.place, format!("`{text}` {fault}")));
        read.ok().map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Notes everything that is wrong with the questions of a rollout.
pub(super) fn validate(checks: &[CheckSection], gates: &[GateSection], check: &mut Reader) {
    let mut names: Vec<&str> = Vec::new();
    check.below("checks", |reader| {
        for (index, one) in checks.iter().enumerate() {
            reader.below_index(index, |reader| {
                name(&one.name, &mut names, index, reader);
                interval(&one.interval, reader);
                fields(&one.headers, reader);
                if one.query.trim().is_empty() || one.query.len() > QUERY_BYTES_MAX {
                    let message = "is no query; write PromQL of at most 8 KiB";
                    reader.below("query", |reader| reader.fault(one.query.place, message));
                }
                if one.success.is_none() && one.failure.is_none() {
                    let message = "says nothing of what is good; write `success`, like \
                        result >= 0.95, or `failure`, or both";
                    reader.fault(one.name.place, message);
                }
            });
        }
    });
    check.below("gates", |reader| {
        for (index, one) in gates.iter().enumerate() {
            reader.below_index(index, |reader| {
                name(&one.name, &mut names, index, reader);
                interval(&one.interval, reader);
                fields(&one.headers, reader);
            });
        }
    });
}

fn name<'a>(name: &'a At<String>, names: &mut Vec<&'a str>, index: usize, reader: &mut Reader) {
    if name.is_empty() || name.len() > 60 || name.chars().any(char::is_control) {
        reader.fault(name.place, "`name` needs 1 to 60 printable characters");
    }
    if names.contains(&name.value.as_str()) {
        reader.fault(name.place, format!("`{}` is the name of another check or gate", name.value));
    }
    if index == QUESTIONS_MAX {
        reader.fault(name.place, format!("is one too many; {QUESTIONS_MAX} are allowed"));
    }
    names.push(&name.value);
}

fn interval(span: &At<Span>, reader: &mut Reader) {
    if span.value.0 < INTERVAL_MIN {
        let message = "asks without a pause; write at least 100ms";
        reader.below("interval", |reader| reader.fault(span.place, message));
    }
}

/// Fields that can stand in a head.
pub(super) fn fields(fields: &Named<At<String>>, reader: &mut Reader) {
    reader.below("headers", |reader| {
        for (name, value) in &fields.0 {
            if HeaderName::try_from(&name.value).is_err() {
                reader.fault(name.place, format!("`{}` is no name of a field", name.value));
            }
            if HeaderValue::try_from(&value.value).is_err() {
                reader.fault(value.place, format!("`{}` has a value that is no text", name.value));
            }
        }
    });
}

/// Whom to call, of validated text. Files are found from `folder`.
pub(super) fn contact(
    url: Url,
    (fields, token_file): (&Named<At<String>>, Option<&At<String>>),
    timeout: Span,
    folder: &Path,
) -> Contact {
    let fields = fields.0.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(&name.value).ok()?;
        Some((name, HeaderValue::try_from(&value.value).ok()?))
    });
    Contact {
        url,
        headers: fields.collect(),
        token_file: token_file.map(|file| folder.join(&file.value)),
        timeout: timeout.0,
    }
}

/// What every service asks of others. Files are found from `folder`.
#[must_use]
pub fn questions(config: &Config, folder: &Path) -> Vec<(String, Questions)> {
    let services = config.services.iter().filter_map(|service| {
        let rollout = service.rollout.as_ref()?;
        let questions = Questions {
            checks: rollout.checks.iter().map(|one| check(one, folder)).collect(),
            gates: rollout.gates.iter().map(|one| gate(one, folder)).collect(),
        };
        Some((service.name.value.clone(), questions))
    });
    services.collect()
}

fn check(section: &CheckSection, folder: &Path) -> Check {
    let condition = |value: &Option<ConditionValue>| value.as_ref().map(|value| value.0.clone());
    Check {
        name: section.name.value.clone(),
        prometheus: contact(
            section.address.value.0.clone(),
            (&section.headers, section.token_file.as_ref()),
            section.timeout,
            folder,
        ),
        query: section.query.value.trim().to_owned(),
        interval: section.interval.value.0,
        initial_delay: section.initial_delay.0.map_or(Duration::ZERO, |delay| delay.0),
        terms: Terms {
            success: condition(&section.success),
            failure: condition(&section.failure),
            count: section.count.0,
            failure_limit: section.failure_limit.0,
            inconclusive_limit: section.inconclusive_limit.0,
            error_limit: section.error_limit.0,
        },
        rolls_back: section.on_failure == OnFailure::Rollback,
    }
}

fn gate(section: &GateSection, folder: &Path) -> Gate {
    let metadata = section.metadata.0.iter();
    Gate {
        name: section.name.value.clone(),
        kind: section.on,
        webhook: contact(
            section.url.value.0.clone(),
            (&section.headers, section.token_file.as_ref()),
            section.timeout,
            folder,
        ),
        metadata: metadata.map(|(name, value)| (name.value.clone(), value.value.clone())).collect(),
        namespace: section.namespace.clone(),
        interval: section.interval.value.0,
        failure_limit: section.failure_limit.0,
        rolls_back: section.on_failure == OnFailure::Rollback,
    }
}
