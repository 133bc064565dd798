//! The sections of logs and traces.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::otlp::Target;
use crate::state::TracePolicy;
use crate::telemetry::{AccessFormat, LogFormat};

use super::choices::{Decimal, choice};
use super::fault::Place;
use super::node::Node;
use super::questions::{UrlValue, contact, fields};
use super::section::{Reader, Value, section};
use super::types::Config;
use super::values::{At, Named, OrOff, Span, Whole};

/// Where OTLP over HTTP takes spans, below a collector's address.
const TRACES_PATH: &str = "/v1/traces";

section! {
    /// What is logged.
    pub struct Log {
        /// Least severity: error, warn, info, debug, or a tracing filter.
        pub level: At<String> = or(At { value: "info".into(), place: Place::default() }),
        /// text or json, on standard error.
        pub format: LogFormat = or(LogFormat::Text),
        /// One line per request on standard output: json, combined (Apache's), a template such as
        /// '{client} {method} {path} {status}', or off. Lines are dropped rather than waited for.
        pub access: OrOff<AccessValue> = or(OrOff(None)),
    }
}

section! {
    /// Spans of requests, sent to an OpenTelemetry collector by OTLP over HTTP.
    pub struct Tracing {
        /// The collector, like `http://collector:4318`; /v1/traces is added where it is missing.
        pub endpoint: At<UrlValue> = required,
        /// How many of the requests that bring no `traceparent`, in percent; callers that bring one
        /// have decided.
        pub sample: At<Decimal> = or(At { value: Decimal(1.0), place: Place::default() }),
        /// Most requests traced in a second, whoever wishes for more.
        pub per_second: Whole<1, 100_000> = or(Whole(100)),
        /// What this gateway is called in traces.
        pub service_name: At<String> = or(At { value: "splitway".into(), place: Place::default() }),
        /// Further fields of the request to the collector.
        pub headers: Named<At<String>> = or(Named(Vec::new())),
        /// A file whose content is sent as a bearer token.
        pub token_file: Option<At<String>> = or(None),
        /// For an answer.
        pub timeout: Span = or(Span::seconds(10)),
    }
}

choice!(LogFormat, "text" => LogFormat::Text, "json" => LogFormat::Json);

/// The form of the access log's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessValue(pub Arc<AccessFormat>);

impl Value for AccessValue {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let format = match reader.scalar(node, "json, combined, a template, or off")? {
            // As in a file that says only that it is wanted.
            "json" | "true" => Ok(AccessFormat::default()),
            "combined" => Ok(AccessFormat::combined()),
            template => AccessFormat::parse(template),
        };
        let format = format.map_err(|why| reader.fault(node.place, why)).ok()?;
        Some(Self(Arc::new(format)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            { "enum": ["json", "combined", true] },
            { "type": "string", "pattern": "\\{" },
        ]})
    }
}

/// Notes everything that is wrong with the section of traces.
pub(super) fn validate(config: &Config, check: &mut Reader) {
    let Some(tracing) = &config.tracing.0 else { return };
    let (sample, name) = (&tracing.sample, &tracing.service_name);
    if sample.value.0 > 100.0 {
        let message = "is no share of the requests; write a percentage from 0 to 100";
        check.below("sample", |check| check.fault(sample.place, message));
    }
    if name.value.is_empty() || name.value.len() > 255 || name.value.contains(char::is_control) {
        let message = "needs 1 to 255 printable characters";
        check.below("service_name", |check| check.fault(name.place, message));
    }
    fields(&tracing.headers, check);
}

/// Which requests each of the workers traces.
pub(super) fn policy(config: &Config, workers: usize) -> Option<TracePolicy> {
    let tracing = config.tracing.0.as_ref()?;
    let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of all draws; the cast saturates at all of them"
    )]
    let threshold = (tracing.sample.value.0 / 100.0 * u64::MAX as f64) as u64;
    Some(TracePolicy { threshold, per_second: tracing.per_second.0.div_ceil(workers) })
}

/// Where spans go. Files are found from `folder`.
#[must_use]
pub fn target(config: &Config, folder: &Path) -> Option<Target> {
    let tracing = config.tracing.0.as_ref()?;
    let url = &tracing.endpoint.value.0;
    let url = if url.path().ends_with(TRACES_PATH) { url.clone() } else { url.below(TRACES_PATH) };
    let credentials = (&tracing.headers, tracing.token_file.as_ref());
    Some(Target {
        contact: contact(url, credentials, tracing.timeout, folder),
        service_name: tracing.service_name.value.clone(),
    })
}
