//! Every metric family: name, kind, labels, meaning. `docs/metrics.md` is made of it.

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by bucket.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Its labels; every value is bounded by the configuration.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All families, in the order in which they are shown.
        pub const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS: Counter "http_requests_total" ["app", "track", "status"]
        "Requests by the track first assigned and the full status code; 499 is a client that left.";
    DURATION: Histogram "http_request_duration_seconds" ["app", "track"]
        "Whole requests, from head read to last byte written; tunnels and event streams to their head.";
    STREAMS: Counter "splitway_streams_total" ["app", "track"]
        "Tunnels and event streams that have ended.";
    STREAM_SECONDS: Counter "splitway_stream_seconds_total" ["app", "track"]
        "How long tunnels and event streams lasted together, from their heads on; counted at their ends.";
    GRPC: Counter "splitway_grpc_calls_total" ["app", "track", "grpc_status"]
        "Calls of gRPC by their status, from its trailers or our own reply.";
    DIRECT: Counter "splitway_direct_responses_total" ["app"]
        "Requests that a rule redirected or answered; no track saw them.";
    ANSWERS_REFUSED: Counter "splitway_answers_refused_total" ["app", "track", "cause"]
        "Answers of the track's servers that were not passed on, by what is wrong with them; an error of the track.";
    ASSIGNMENTS: Counter "splitway_assignments_total" ["app", "track", "reason"]
        "Requests by why they went to their track: weight, rule or sticky.";
    WEIGHT: Gauge "splitway_weight_ratio" ["app", "track"]
        "Share of the weighted traffic that the track is given, 0 to 1.";
    RETRIES: Counter "splitway_retries_total" ["app", "track", "result"]
        "Requests tried again, by what came of it: answered, failed, or no budget left for any.";
    RESCUED: Counter "splitway_rescued_total" ["app"]
        "Requests that failed on the canary and were tried on stable; an error of the canary.";
    FAILED_OVER: Counter "splitway_failed_over_total" ["app", "track"]
        "Requests of the track that another track answered because no endpoint could be connected; an error of this track, unless we had all the connections that may be.";
    SHED: Counter "splitway_shed_total" ["app", "track"]
        "Requests answered with 503 because the track had as many under way as it may.";
    EXHAUSTED: Counter "splitway_exhausted_total" ["app", "track"]
        "Requests answered with 503 because no connection to an endpoint was free in time.";
    PARDONED: Counter "splitway_pardoned_total" ["app", "track", "reason"]
        "Requests whose end was not the upstream's fault: no evidence for the judge, no failure of an endpoint.";
    PENDING: Gauge "splitway_pending" ["app"]
        "Requests that wait for a connection because there are as many as may be.";
    MIRRORED: Counter "splitway_mirrored_total" ["app", "track", "result"]
        "Copies of requests for the track, by what came of them: answered, failed, or dropped by their bounds.";
    IN_FLIGHT: Gauge "splitway_in_flight" ["app", "track"]
        "Requests of the track under way, where they are limited.";
    RATE_LIMITED: Counter "splitway_rate_limited_total" ["app"]
        "Requests answered with 429 because whoever sent them asks too often.";
    EVIDENCE: Counter "splitway_evidence_total" ["app", "track", "event"]
        "What the judge counted: weighted requests of closed cohorts, and of these errors, and slow ones by quantile.";
    WEALTH: Gauge "splitway_judge_wealth" ["app", "pot"]
        "Evidence against the canary by pot (errors, p99, p90); their sum starts at 1.";
    WEALTH_LIMIT: Gauge "splitway_judge_limit" ["app"]
        "The sum of the pots at which the canary is rolled back.";
    PROOF: Gauge "splitway_judge_proof" ["app", "proof"]
        "Proof that the next stage can do little harm (errors, latency); complete at 20 unless configured otherwise.";
    VERDICTS: Counter "splitway_verdicts_total" ["app", "verdict"]
        "Verdicts: advance, hold, rollback; one per judged cohort.";
    ROLLOUT: Gauge "splitway_rollout_info" ["app", "version", "phase"]
        "1 for the rollout's version and phase.";
    STAGE: Gauge "splitway_rollout_stage" ["app"]
        "The stage of the plan, from 1; 0 before the first.";
    TRANSITIONS: Counter "splitway_transitions_total" ["app", "cause"]
        "Changes of phase or weight by cause: judge, plan, health, check, operator or file.";
    JOURNAL_GOOD: Gauge "splitway_journal_writable" []
        "1 if the journal can be written, 0 while nothing rises because it cannot.";
    TRACK_ENDPOINTS: Gauge "splitway_track_endpoints" ["app", "track", "state"]
        "Endpoints of the track by how they stand: in use, warming up, backing off after a failed connect, or out.";
    NOTIFICATIONS: Counter "splitway_notifications_total" ["receiver", "result"]
        "Notifications by what became of them: sent, failed after every retry, or dropped because too many waited.";
    UPSTREAM_CONNECTIONS: Gauge "splitway_upstream_connections" ["endpoint"]
        "Open connections to the endpoint, idle ones included.";
    UPSTREAM_CONNECTS: Counter "splitway_upstream_connects_total" ["endpoint"]
        "Connections dialled.";
    UPSTREAM_CONNECT_FAILURES: Counter "splitway_upstream_connect_failures_total" ["endpoint"]
        "Connections that were refused or timed out; each backs the endpoint off.";
    UPSTREAM_STANDING: Gauge "splitway_upstream_standing_ratio" ["endpoint"]
        "Share of its due that the endpoint gets: 1, less while it warms up, 0 while it is out.";
    UPSTREAM_EJECTIONS: Counter "splitway_upstream_ejections_total" ["endpoint"]
        "Times that the endpoint was ejected for its failures.";
    DOWNSTREAM_CONNECTIONS: Gauge "splitway_downstream_connections" []
        "Open downstream connections.";
    DOWNSTREAM_OPENED: Counter "splitway_downstream_connections_total" []
        "Downstream connections accepted.";
    DOWNSTREAM_REFUSED: Counter "splitway_downstream_refused_total" ["cause"]
        "Requests refused before they were assigned to a track.";
    REDIRECTS: Counter "splitway_downstream_https_redirects_total" []
        "Requests in the clear that were sent to HTTPS.";
    UNKNOWN_SOURCES: Counter "splitway_downstream_unknown_sources_total" []
        "Requests whose client a trusted proxy told by what is no address.";
    TLS_FAILURES: Counter "splitway_downstream_tls_failures_total" []
        "Connections on which no TLS could be agreed with the client.";
    CERTIFICATE_END: Gauge "splitway_certificate_expiry_timestamp_seconds" ["certificate"]
        "When the certificate of a listener ends, by the file that holds it.";
    REJECTED: Counter "splitway_downstream_connections_rejected_total" ["limit"]
        "Connections closed at once: too many in total, too many of one source, or of the one that holds the most while memory is short.";
    MEMORY_HELD: Gauge "splitway_memory_held_bytes" []
        "What clients make the gateway hold, in connections, streams, heads and bodies.";
    MEMORY_LIMIT: Gauge "splitway_memory_limit_bytes" []
        "How much that may be (`limits.memory`).";
    ACCEPT_PAUSES: Counter "splitway_downstream_accept_pauses_total" []
        "Times that accepting paused because no file descriptor was left.";
    LOG_DROPPED: Counter "splitway_access_log_dropped_total" []
        "Access-log lines dropped because the writer was behind.";
    TRACES: Counter "splitway_traces_total" ["result"]
        "Traced requests by what became of their spans: exported, failed after every retry, or dropped because too many waited.";
    RELOAD_GOOD: Gauge "splitway_config_last_reload_successful" []
        "1 if the last reload succeeded, 0 if the old configuration serves on.";
    RELOAD_TIME: Gauge "splitway_config_last_reload_success_timestamp_seconds" []
        "When a configuration was last put in force.";
    BUILD: Gauge "splitway_build_info" ["version"]
        "1, labelled with the version.";
}
