//! Traffic policies and retries of Istio.

use crate::import::draft::{Yaml, duration, map, plain, text};
use crate::import::manifest::{Field, Fields};

/// A traffic policy as keys of a service, or of its tracks (`tls`, `max_in_flight`).
pub(in crate::import) fn policy(policy: &Fields<'_>) -> Vec<(String, Yaml)> {
    let mut found = Vec::new();
    if let Some(field) = policy.get("loadBalancer") {
        found.extend(balance(&field));
    }
    if let Some(field) = policy.get("outlierDetection") {
        found.push(("ejection".to_owned(), ejection(&field)));
    }
    if let Some(field) = policy.get("connectionPool") {
        found.extend(pool(&field));
    }
    if let Some(field) = policy.get("tls") {
        found.extend(tls(&field));
    }
    policy.refuse(&[
        ("portLevelSettings", "is one port's own; policies are one for a service"),
        ("tunnel", "tunnels by CONNECT"),
        ("proxyProtocol", "is spoken to upstreams; here it is only read from downstreams"),
    ]);
    policy.differ(&[("retryBudget", "is `retries.budget`: 20 % and 10 per second unless written")]);
    policy.finish();
    found
}

fn balance(field: &Field<'_>) -> Option<(String, Yaml)> {
    let fields = field.map();
    let warmup = fields
        .get("warmup")
        .and_then(|warmup| warmup.map().get("duration")?.duration_ms())
        .or_else(|| fields.get("warmupDurationSecs")?.duration_ms());
    let mut entries = Vec::new();
    match fields.text("simple") {
        Some("ROUND_ROBIN") => entries.push(("by".to_owned(), plain("round_robin"))),
        Some("LEAST_REQUEST" | "LEAST_CONN" | "UNSPECIFIED") => {
            entries.push(("by".to_owned(), plain("least_requests")));
        }
        Some(other) => {
            field
                .differs(format!("`{other}` has no counterpart; the fewest requests of two drawn"));
            entries.push(("by".to_owned(), plain("least_requests")));
        }
        None => {}
    }
    if let Some(hash) = fields.get("consistentHash") {
        let by = hash.map();
        let header = by.text("httpHeaderName");
        by.skip(&["ringHash", "maglev", "minimumRingSize"]);
        let source = by.text("useSourceIp").is_some_and(|text| text == "true");
        by.refuse(&[
            ("httpCookie", "is no key here"),
            ("httpQueryParameterName", "is no key here"),
        ]);
        by.finish();
        if header.is_some() || source {
            entries.push(("by".to_owned(), plain("key")));
            entries.extend(header.map(|name| ("header".to_owned(), text(name))));
            hash.differs("keeps an endpoint within a track, by rendezvous hashing; for one track per user add `sticky`");
        }
    }
    entries.extend(warmup.map(|ms| ("slow_start".to_owned(), duration(ms))));
    fields.refuse(&[("localityLbSetting", "prefers zones; name the endpoints that are near")]);
    fields.finish();
    (!entries.is_empty()).then(|| ("balance".to_owned(), Yaml::Map(entries)))
}

fn ejection(field: &Field<'_>) -> Yaml {
    let fields = field.map();
    let mut entries = Vec::new();
    let consecutive = ["consecutive5xxErrors", "consecutiveGatewayErrors", "consecutiveErrors"];
    let consecutive = consecutive.iter().filter_map(|key| fields.get(key)?.number()).min();
    match consecutive {
        Some(0) => entries.push(("consecutive".to_owned(), plain("off"))),
        Some(count) => entries.push(("consecutive".to_owned(), plain(count.min(1_000)))),
        None => entries.push(("consecutive".to_owned(), plain(5))),
    }
    // Istio has no such share unless it is asked for.
    entries.push(("failures".to_owned(), plain("off")));
    if let Some(ms) = fields.get("interval").and_then(|field| field.duration_ms()) {
        entries.push(("window".to_owned(), duration(ms)));
    }
    let base = fields.get("baseEjectionTime").and_then(|field| field.duration_ms());
    entries.push(("base".to_owned(), duration(base.unwrap_or(30_000))));
    let share = fields.get("maxEjectionPercent").and_then(|field| field.number()).unwrap_or(10);
    entries.push(("share".to_owned(), plain(share.clamp(1, 100))));
    fields.differ(&[("minHealthPercent", "is `balance.panic`, 50 unless written")]);
    fields.refuse(&[
        ("splitExternalLocalOriginErrors", "has no counterpart"),
        ("consecutiveLocalOriginFailures", "has no counterpart"),
    ]);
    fields.finish();
    field.differs("ejects at once by failures in a row, not at the end of an interval");
    Yaml::Map(entries)
}

fn pool(field: &Field<'_>) -> Vec<(String, Yaml)> {
    let mut found = Vec::new();
    let fields = field.map();
    if let Some(http) = fields.get("http") {
        let http_fields = http.map();
        if let Some(most) = http_fields.get("http2MaxRequests")
            && let Some(count) = most.number()
        {
            most.differs("is for each track here, as `max_in_flight`");
            found.push(("max_in_flight".to_owned(), plain(count.clamp(1, 1_000_000))));
        }
        http_fields.differ(&[
            ("http1MaxPendingRequests", "is `upstream.pending`, one for all services"),
            ("maxRequestsPerConnection", "has no counterpart"),
            ("maxRetries", "is `retries.budget`"),
            ("idleTimeout", "is `upstream.idle_age`, one for all services"),
            ("h2UpgradePolicy", "is a track's `protocol`"),
            ("useClientProtocol", "is a track's `protocol`"),
            ("maxConcurrentStreams", "is what the server says"),
        ]);
        http_fields.finish();
    }
    if let Some(tcp) = fields.get("tcp") {
        let tcp_fields = tcp.map();
        let connect = tcp_fields.get("connectTimeout").and_then(|field| field.duration_ms());
        if let Some(ms) = connect {
            found.push(("timeouts".to_owned(), map([("connect", duration(ms))])));
        }
        tcp_fields.differ(&[
            ("maxConnections", "is `upstream.max_connections`, one for all services"),
            ("maxConnectionDuration", "has no counterpart"),
            ("idleTimeout", "is `timeouts.tunnel_idle`"),
        ]);
        tcp_fields.skip(&["tcpKeepalive"]);
        tcp_fields.finish();
    }
    fields.finish();
    found
}

fn tls(field: &Field<'_>) -> Option<(String, Yaml)> {
    let fields = field.map();
    let mode = fields.text("mode").unwrap_or("SIMPLE");
    let mut entries = Vec::new();
    for (key, ours) in [("caCertificates", "ca"), ("sni", "server_name")] {
        entries.extend(fields.text(key).map(|value| (ours.to_owned(), text(value))));
    }
    let pair = (fields.text("clientCertificate"), fields.text("privateKey"));
    if let (Some(certificate), Some(key)) = pair {
        let client = map([("certificate", text(certificate)), ("key", text(key))]);
        entries.push(("client".to_owned(), client));
    }
    if fields.text("insecureSkipVerify").is_some_and(|text| text == "true") {
        entries.push(("verify".to_owned(), plain(false)));
    }
    fields.refuse(&[
        ("credentialName", "names a Secret; mount it and name the files"),
        ("subjectAltNames", "is `server_name`, one name"),
        ("caCrl", "has no counterpart"),
    ]);
    fields.finish();
    match mode {
        "DISABLE" => None,
        "ISTIO_MUTUAL" => {
            field.unsupported("uses the mesh's own certificates; mount some and name them, or let the sidecar speak TLS");
            None
        }
        _ => {
            field.exact("the tracks' `tls`");
            Some(("tls".to_owned(), Yaml::Map(entries)))
        }
    }
}

/// A route's retries.
pub(in crate::import) fn retries(field: &Field<'_>) -> Yaml {
    let fields = field.map();
    let attempts = fields.get("attempts").and_then(|field| field.number()).unwrap_or(2);
    let mut on = Vec::new();
    let conditions = fields.get("retryOn");
    let words = conditions.as_ref().and_then(Field::text);
    for word in words.unwrap_or("reset,503").split(',').map(str::trim) {
        let statuses: &[u64] = match word {
            "5xx" => &[500, 502, 503, 504],
            "gateway-error" => &[502, 503, 504],
            "unavailable" | "retriable-status-codes" => &[503],
            status if status.parse::<u64>().is_ok_and(|status| (400..600).contains(&status)) => {
                on.push(status.to_owned());
                &[]
            }
            // What was not sent is tried again by itself.
            "reset" | "connect-failure" | "refused-stream" | "reset-before-request" | "" => &[],
            other => {
                if let Some(field) = &conditions {
                    field.differs(format!("`{other}` has no counterpart and is left out"));
                }
                &[]
            }
        };
        if matches!(word, "reset" | "5xx" | "gateway-error") {
            on.push("reset".to_owned());
        }
        on.extend(statuses.iter().map(u64::to_string));
    }
    let mut unique: Vec<String> = Vec::new();
    for one in on {
        if !unique.contains(&one) {
            unique.push(one);
        }
    }
    if unique.is_empty() {
        unique.push("reset".to_owned());
    }
    let per_try = fields.get("perTryTimeout").and_then(|field| field.duration_ms());
    fields.refuse(&[
        ("backoff", "has no counterpart: another endpoint is tried at once"),
        ("retryIgnorePreviousHosts", "is so in any case"),
        ("retryRemoteLocalities", "has no counterpart"),
    ]);
    fields.finish();
    let mut entries = vec![
        ("attempts".to_owned(), plain(attempts.min(10))),
        ("on".to_owned(), Yaml::List(unique.into_iter().map(plain).collect())),
    ];
    entries.extend(per_try.map(|ms| ("per_try_timeout".to_owned(), duration(ms))));
    Yaml::Map(entries)
}
