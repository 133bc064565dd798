//! From traced requests to OTLP's spans, named by OpenTelemetry's conventions for HTTP (1.2x).

use crate::telemetry::{Attempt, Facts, Trace, Traced};

use super::message::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans,
    ScopeSpans, Span, SpanKind, Status, StatusCode, Value,
};

/// Longest value of an attribute; what is longer is cut.
const VALUE_BYTES_MAX: usize = 1_024;
/// Methods that the conventions know; any other is `_OTHER`.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
/// The span's context was sampled (W3C), and it is known whether its parent is remote …
const FLAGS: u32 = 0x01 | 0x100;
/// … which it is.
const IS_REMOTE: u32 = 0x200;
/// Statuses of gRPC that are a server's faults: UNKNOWN, `DEADLINE_EXCEEDED`, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, `DATA_LOSS`.
const GRPC_FAULTS: [u8; 6] = [2, 4, 12, 13, 14, 15];

/// What a collector is sent of `requests`. `epoch_ns` is when the process clock stood at 0, in
/// nanoseconds since 1970.
pub(super) fn request(
    service_name: &str,
    requests: &[Box<Traced>],
    epoch_ns: u64,
) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
    };
    let scope = InstrumentationScope {
        name: "splitway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let spans = requests.iter().flat_map(|traced| spans(traced, epoch_ns)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }],
    }
}

fn spans(traced: &Traced, epoch_ns: u64) -> Vec<Span> {
    let Traced { facts, trace } = traced;
    let mut spans = vec![exchange(facts, trace, epoch_ns)];
    for (number, one) in trace.attempts.iter().enumerate() {
        spans.push(attempt(facts, trace, (number, one), epoch_ns));
    }
    spans
}

/// The span of the whole exchange, as the server that the client talks to.
fn exchange(facts: &Facts, trace: &Trace, epoch_ns: u64) -> Span {
    let path = facts.path.split('?').next().unwrap_or_default();
    let mut attributes = method(facts);
    attributes.extend([
        // Without the query: that is where secrets stand.
        text("url.path", path),
        text("url.scheme", trace.scheme),
        text("client.address", &facts.client.to_string()),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version(facts.protocol)),
        number("http.response.status_code", facts.status.into()),
        number("http.response.size", i64::try_from(facts.bytes).unwrap_or(i64::MAX)),
        text("splitway.app", &facts.service),
        text("splitway.track", &facts.track),
        text("splitway.reason", facts.reason),
    ]);
    let (host, port) = authority(&facts.host);
    attributes.extend((!host.is_empty()).then(|| text("server.address", host)));
    attributes.extend(port.map(|port| number("server.port", port.into())));
    let agent = &trace.user_agent;
    attributes.extend((!agent.is_empty()).then(|| text("user_agent.original", agent)));
    let version = &trace.version;
    attributes.extend((!version.is_empty()).then(|| text("splitway.version", version)));
    if let Some(status) = trace.grpc_status {
        attributes.push(text("rpc.system", "grpc"));
        attributes.push(number("rpc.grpc.status_code", status.into()));
    }
    let is_fault = facts.status >= 500
        || trace.grpc_status.is_some_and(|status| GRPC_FAULTS.contains(&status));
    let failure = trace.failure.clone().or_else(|| is_fault.then(|| facts.status.to_string()));
    attributes.extend(failure.as_ref().map(|failure| text("error.type", failure)));
    Span {
        parent_span_id: trace.parent.map_or_else(Vec::new, |parent| parent.to_be_bytes().into()),
        name: format!("{} {}", short(&facts.method).unwrap_or("HTTP"), facts.service),
        flags: FLAGS | trace.parent.map_or(0, |_| IS_REMOTE),
        status: status(failure),
        ..span(trace, trace.span, SpanKind::Server, attributes)
    }
    .between(trace.started_ns, trace.ended_ns, epoch_ns)
}

/// The span of one attempt, as the client that the upstream sees.
fn attempt(facts: &Facts, trace: &Trace, (index, one): (usize, &Attempt), epoch_ns: u64) -> Span {
    let address = one.endpoint.ip().to_string();
    let mut attributes = method(facts);
    attributes.extend([
        text("server.address", &address),
        number("server.port", one.endpoint.port().into()),
        text("network.peer.address", &address),
        number("network.peer.port", one.endpoint.port().into()),
        text("splitway.app", &facts.service),
        text("splitway.track", &one.track),
    ]);
    if index > 0 {
        let count = i64::try_from(index).unwrap_or(i64::MAX);
        attributes.push(number("http.request.resend_count", count));
    }
    let failure = match &one.result {
        Ok(status) => {
            attributes.push(number("http.response.status_code", (*status).into()));
            (*status >= 400).then(|| status.to_string())
        }
        Err(failure) => Some(failure.clone()),
    };
    attributes.extend(failure.as_ref().map(|failure| text("error.type", failure)));
    Span {
        parent_span_id: trace.span.to_be_bytes().into(),
        name: short(&facts.method).unwrap_or("HTTP").to_owned(),
        flags: FLAGS,
        status: status(failure),
        ..span(trace, one.span, SpanKind::Client, attributes)
    }
    .between(one.started_ns, one.ended_ns.max(one.started_ns), epoch_ns)
}

fn span(trace: &Trace, id: u64, kind: SpanKind, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: trace.id.0.to_be_bytes().into(),
        span_id: id.to_be_bytes().into(),
        kind: kind.into(),
        attributes,
        ..Span::default()
    }
}

impl Span {
    fn between(self, started_ns: u64, ended_ns: u64, epoch_ns: u64) -> Self {
        Self {
            start_time_unix_nano: epoch_ns.saturating_add(started_ns),
            end_time_unix_nano: epoch_ns.saturating_add(ended_ns),
            ..self
        }
    }
}

fn status(failure: Option<String>) -> Option<Status> {
    failure.map(|message| Status { message, code: StatusCode::Error.into() })
}

/// The method, if the conventions know it.
fn short(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

fn method(facts: &Facts) -> Vec<KeyValue> {
    match short(&facts.method) {
        Some(method) => vec![text("http.request.method", method)],
        None => vec![
            text("http.request.method", "_OTHER"),
            text("http.request.method_original", &facts.method),
        ],
    }
}

/// `HTTP/1.1` to `1.1`, `HTTP/2.0` to `2`.
fn version(protocol: &str) -> &str {
    let version = protocol.trim_start_matches("HTTP/");
    if version == "2.0" { "2" } else { version }
}

/// Host and port of what a client calls us.
fn authority(host: &str) -> (&str, Option<u16>) {
    let port_of = |(name, port): (&'_ str, &str)| Some((name.len(), port.parse().ok()?));
    match host.rsplit_once(':').and_then(port_of) {
        Some((end, port)) if host.ends_with(|last: char| last.is_ascii_digit()) => {
            (&host[..end], Some(port))
        }
        _ => (host, None),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    pair(key, Value::Text(value[..end].to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    pair(key, Value::Number(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::TraceId;

    fn traced() -> Traced {
        let endpoint = std::net::SocketAddr::from(([127, 0, 0, 1], 8001));
        let attempt = |span, started_ns, ended_ns, result| Attempt {
            span,
            endpoint,
            track: "canary".into(),
            started_ns,
            ended_ns,
            result,
        };
        Traced {
            facts: Facts {
                method: "GET".into(),
                host: "api.example.com:8443".into(),
                path: "/a?token=secret".into(),
                protocol: "HTTP/2.0",
                service: "api".into(),
                track: "canary".into(),
                reason: "weight",
                status: 200,
                ..Facts::default()
            },
            trace: Trace {
                id: TraceId(7),
                parent: Some(8),
                span: 9,
                scheme: "https",
                user_agent: "é".repeat(1_000),
                version: String::new(),
                started_ns: 100,
                ended_ns: 900,
                grpc_status: None,
                failure: None,
                attempts: vec![
                    attempt(10, 150, 300, Err("upstream closed early".into())),
                    attempt(11, 300, 800, Ok(200)),
                ],
            },
        }
    }

    fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        let found = span.attributes.iter().find(|pair| pair.key == key)?;
        found.value.as_ref()?.value.as_ref()
    }

    fn says(span: &Span, key: &str, wanted: &str) -> bool {
        matches!(value(span, key), Some(Value::Text(text)) if text == wanted)
    }

    #[test]
    fn a_request_becomes_a_server_span_and_a_client_span_for_each_attempt() {
        let request = request("edge", &[Box::new(traced())], 1_000_000);
        let spans = &request.resource_spans[0].scope_spans[0].spans;
        let [exchange, first, second] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(exchange.name, "GET api");
        assert_eq!(exchange.trace_id, 7_u128.to_be_bytes());
        assert_eq!(exchange.parent_span_id, 8_u64.to_be_bytes());
        assert_eq!(exchange.flags, 0x301);
        assert_eq!(
            (exchange.start_time_unix_nano, exchange.end_time_unix_nano),
            (1_000_100, 1_000_900)
        );
        assert!(says(exchange, "url.path", "/a"), "no query");
        assert!(says(exchange, "server.address", "api.example.com"));
        assert_eq!(value(exchange, "server.port"), Some(&Value::Number(8443)));
        assert!(says(exchange, "network.protocol.version", "2"));
        assert!(exchange.status.is_none(), "another attempt answered");
        assert!(says(exchange, "user_agent.original", &"é".repeat(512)), "cut at a character");

        assert_eq!(first.parent_span_id, exchange.span_id);
        assert!(says(first, "error.type", "upstream closed early"));
        assert_eq!(first.status.as_ref().unwrap().code, 2);
        assert_eq!(value(first, "http.request.resend_count"), None);
        assert_eq!(value(second, "http.request.resend_count"), Some(&Value::Number(1)));
        assert!(second.status.is_none());
    }

    #[test]
    fn faults_are_the_servers_and_odd_methods_have_one_name() {
        let mut odd = traced();
        odd.facts.method = "BREW".into();
        odd.facts.status = 404;
        let span = exchange(&odd.facts, &odd.trace, 0);
        assert_eq!(span.name, "HTTP api");
        assert!(says(&span, "http.request.method", "_OTHER"));
        assert!(says(&span, "http.request.method_original", "BREW"));
        assert!(span.status.is_none(), "a 404 is the client's");
        odd.facts.status = 503;
        assert!(says(&exchange(&odd.facts, &odd.trace, 0), "error.type", "503"));
        odd.facts.status = 200;
        odd.trace.grpc_status = Some(14);
        assert!(exchange(&odd.facts, &odd.trace, 0).status.is_some());
        odd.trace.grpc_status = Some(5);
        assert!(exchange(&odd.facts, &odd.trace, 0).status.is_none());
    }

    #[test]
    fn hosts_are_told_from_ports() {
        for (host, wanted) in [
            ("a", ("a", None)),
            ("a:80", ("a", Some(80))),
            ("[::1]", ("[::1]", None)),
            ("[::1]:80", ("[::1]", Some(80))),
            ("a:99999", ("a:99999", None)),
        ] {
            assert_eq!(authority(host), wanted);
        }
    }
}
