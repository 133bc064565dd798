//! The immutable picture that workers read, swapped whole at every reload.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use crate::http1::{Edits, Limits, Owned};
use crate::memory::Limit;
use crate::record::{Live, Split};
use crate::route::rate::RateTable;
use crate::route::{Found, Match, Rule, RuleEdits, Sticky, Table};
use crate::telemetry::AccessFormat;
use crate::tls::ServerTls;
use crate::track::TrackIndex;
use crate::upstream::{Endpoint, Places};

/// Everything a request needs, from one configuration.
#[derive(Debug, Default)]
pub struct State {
    /// Host and path to a position in `services`, for each listener by its number.
    pub tables: Vec<Arc<Table>>,
    /// The services.
    pub services: Vec<Arc<Service>>,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How clients are treated.
    pub downstream: DownstreamPolicy,
    /// Which requests are traced; `None`: heads pass as they came.
    pub tracing: Option<TracePolicy>,
    /// The listeners' certificates by the file that holds them, and when each ends, in seconds
    /// since 1970.
    pub certificates: Vec<(String, i64)>,
    /// How the clients of each listener are, in the order in which they were bound.
    pub listeners: Vec<Arc<ListenerPolicy>>,
}

impl State {
    /// The one of `services` that answers for a Host value and a path as it is compared, on the
    /// listener of this number.
    #[must_use]
    pub fn find(&self, listener: usize, host: &[u8], path: &[u8]) -> Option<Found> {
        self.tables.get(listener)?.find(host, path)
    }

    /// Whether any service answers for a Host value, on whichever listener.
    #[must_use]
    pub fn has_host(&self, host: &[u8]) -> bool {
        self.tables.iter().any(|table| table.has_host(host))
    }
}

/// How the clients of one listener are treated.
#[derive(Debug, Default)]
pub struct ListenerPolicy {
    /// Its number, in the order in which they were bound: a service may be reachable through some
    /// of them only.
    pub number: usize,
    /// TLS, if any.
    pub tls: Option<Arc<ServerTls>>,
    /// HTTP/2 is spoken.
    pub http2: bool,
    /// Every request is sent to this port under HTTPS.
    pub redirect_https: Option<u16>,
    /// A field line for every answer: Strict-Transport-Security.
    pub hsts: Option<Box<[u8]>>,
    /// A PROXY protocol header comes first, from peers in these networks and nobody else.
    pub balancers: Option<Box<[IpNet]>>,
}

/// How clients are treated, before any service is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownstreamPolicy {
    /// Bounds of request and response heads.
    pub limits: Limits,
    /// Largest request body.
    pub body_bytes_max: Option<u64>,
    /// From a head's first byte to its last.
    pub head_timeout_ns: u64,
    /// From one request to the next.
    pub idle_timeout_ns: u64,
    /// A client that has closed its side is served although it asked for nothing to happen.
    pub serves_half_closed: bool,
    /// Bounds of answers' heads: never less than servers may be used to.
    pub answer_limits: Limits,
    /// The pseudonym for Via.
    pub via: Option<Box<str>>,
    /// How a line per request is logged, if it is.
    pub access_log: Option<Arc<AccessFormat>>,
    /// Most requests that an HTTP/2 connection may have under way at once.
    pub http2_streams: u32,
    /// Most streams that an HTTP/2 client may reset in a second.
    pub http2_resets: u32,
    /// Most connections at once.
    pub connections_max: CountLimit,
    /// Most connections of one source.
    pub connections_per_source_max: CountLimit,
    /// What clients may make us hold.
    pub memory: Limit,
}

/// How many of something there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountLimit {
    /// As many as the process may have.
    #[default]
    Auto,
    /// Any number.
    Off,
    /// So many.
    Most(u32),
}

impl CountLimit {
    /// The limit, `auto` being what the process may have.
    #[must_use]
    pub fn most(self, auto: Option<u32>) -> Option<u32> {
        match self {
            Self::Auto => auto,
            Self::Off => None,
            Self::Most(most) => Some(most),
        }
    }
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracePolicy {
    /// A draw of 64 bits below it traces a request that came without a caller's wish.
    pub threshold: u64,
    /// Most requests that a worker traces in a second, whoever wishes for more.
    pub per_second: u32,
}

/// One service.
#[derive(Debug)]
pub struct Service {
    /// Its counts and split, which outlive this state.
    pub live: Arc<Live>,
    /// The split that this configuration asks for; a later epoch in `live` wins.
    pub split: Arc<Split>,
    /// The rules in order.
    pub rules: Vec<Rule>,
    /// What its requests' paths are for.
    pub paths: PathPolicy,
    /// How often its clients may ask.
    pub rate_limit: Option<RateLimit>,
    /// What changes in the heads of every request and answer.
    pub edits: RuleEdits,
    /// Fields that only clients of some networks may send: others' are taken away.
    pub guarded: Vec<(Vec<IpNet>, Edits)>,
    /// Fields that the other side has no say in.
    pub owned: OwnedNames,
    /// Further fields that the gateway makes.
    pub made: MadeFields,
    /// How users keep their track.
    pub sticky: Option<Sticky>,
    /// The tracks in the order of the file.
    pub tracks: Vec<Track>,
    /// How its upstreams are treated.
    pub upstream: UpstreamPolicy,
    /// Requests that wait for a connection, where any may.
    pub pending: Option<Arc<InFlightLimit>>,
    /// Weighted requests that a judge shall not see.
    pub excluded: Vec<Match>,
    /// How its endpoints are chosen.
    pub balance: BalancePolicy,
    /// Which endpoints are ejected, and the largest share of them, in percent.
    pub ejection: Option<(EjectionPolicy, u8)>,
    /// From which track to which a request goes when no endpoint can be connected.
    pub failover: Vec<(TrackIndex, TrackIndex)>,
    /// Which failures are tried again, if any.
    pub retry: Option<RetryPolicy>,
    /// Which requests are copied to another track, if any.
    pub mirror: Option<MirrorPolicy>,
    /// Statuses below 500 that are errors all the same.
    pub error_statuses: Vec<u16>,
    /// Statuses of gRPC that are errors, a bit each.
    pub grpc_errors: u32,
    /// How its endpoints are probed, if they are.
    pub probe: Option<ProbePolicy>,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct BalancePolicy {
    /// By what.
    pub by: BalanceBy,
    /// How long an endpoint that comes takes to get its full due.
    pub slow_start_s: Option<f64>,
    /// When fewer than this share is healthy, in percent, all are used.
    pub panic_share: u8,
}

/// By what endpoints are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalanceBy {
    /// The fewest requests under way, of two drawn.
    LeastRequests,
    /// In turn.
    RoundRobin,
    /// Whoever asks: the value of a field (lower case), else the source.
    Key(Option<Box<str>>),
}

/// Which endpoints are ejected, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct EjectionPolicy {
    /// Failures in a row that eject; `None`: these do not.
    pub consecutive: Option<u32>,
    /// Share of failures in the window that ejects, 0 to 1; `None`: that does not.
    pub failure_share: Option<f64>,
    /// Requests that the window needs for that.
    pub requests_min: u64,
    /// Seconds that the window looks back.
    pub window_s: f64,
    /// Seconds of the first ejection; every further one lasts as much longer.
    pub base_s: f64,
    /// The longest.
    pub max_s: f64,
}

/// Which failures are tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Further tries within the track.
    pub attempts: u8,
    /// After a reset, a close or a malformed answer.
    pub on_reset: bool,
    /// After a try that took too long.
    pub on_timeout: bool,
    /// After these statuses.
    pub statuses: Vec<u16>,
    /// For one try to bring its response head.
    pub per_try_timeout_ns: Option<u64>,
    /// Largest request, head included, that is kept for another try.
    pub body_bytes_max: usize,
    /// Share of the requests that may be tried again, 0 to 1.
    pub budget_share: f64,
    /// And at least so many per second.
    pub budget_floor_per_s: f64,
    /// From which track to which a failed request goes for one last try.
    pub rescue: Option<(TrackIndex, TrackIndex)>,
}

/// Which requests are copied to another track.
#[derive(Clone, Debug)]
pub struct MirrorPolicy {
    /// Whose requests.
    pub from: TrackIndex,
    /// Who gets the copies.
    pub to: TrackIndex,
    /// How many of them, 0 to 1.
    pub share: f64,
    /// Also those that may change something.
    pub any_method: bool,
    /// Copies under way.
    pub in_flight: Arc<InFlightLimit>,
    /// Largest request, head included, that is copied.
    pub body_bytes_max: usize,
    /// For a copy to be answered.
    pub timeout: Duration,
    /// The field line that tells a copy.
    pub line: Box<[u8]>,
}

/// What the paths of a service's requests are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathPolicy {
    /// Rules test or rewrite them, so that the server must see what was compared.
    pub by_rule: bool,
    /// What servers read differently goes on all the same, doubled slashes too.
    pub allows_ambiguous: bool,
}

/// How often clients may ask.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// The field that tells who asks (lower case); without it, or in its absence, the source.
    pub header: Option<Box<str>>,
    /// Shared by all workers.
    pub table: Arc<RateTable>,
}

/// Most requests of a track under way at once, over all workers: so many that were drawn, and so many
/// that rules sent.
#[derive(Debug)]
pub struct InFlightLimit {
    most: u32,
    counts: [AtomicU32; Places::COUNT],
}

impl InFlightLimit {
    /// At most `most`.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, counts: Default::default() }
    }

    /// How many there may be of each kind of places.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.most
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How many there are of these places.
    #[must_use]
    pub fn count_of(&self, places: Places) -> u32 {
        self.counts[places as usize].load(Ordering::Relaxed)
    }

    /// Asks for one more; given back when dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, places: Places) -> Option<InFlightPermit> {
        let more = |count| (count < self.most).then_some(count + 1);
        let count = &self.counts[places as usize];
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(InFlightPermit(Arc::clone(self), places))
    }
}

/// One request's part of a limit.
#[derive(Debug)]
pub struct InFlightPermit(Arc<InFlightLimit>, Places);

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.0.counts[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Names of fields that the other side has no say in, beside those that it never has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedNames {
    /// Clients.
    pub request: Owned,
    /// Upstreams.
    pub response: Owned,
}

/// Fields that the gateway makes where the client sent none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeFields {
    /// X-Request-Id.
    pub request_id: bool,
    /// W3C's traceparent.
    pub traceparent: bool,
    /// X-Splitway-Track on answers.
    pub track: bool,
}

/// How endpoints are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePolicy {
    /// The host that is asked for; the endpoint's address otherwise.
    pub host: Option<Box<str>>,
    /// The path that is asked for; without one a connection is enough.
    pub path: Option<Box<str>>,
    /// Or the service whose health gRPC's health protocol is asked for.
    pub grpc: Option<Box<str>>,
    /// Time between two probes of an endpoint.
    pub interval: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Failed probes in a row after which it gets no traffic.
    pub fall: u32,
    /// Good ones in a row after which it gets some again.
    pub rise: u32,
    /// Accepted statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// One track of a service.
#[derive(Debug)]
pub struct Track {
    /// Its place in the live record.
    pub index: TrackIndex,
    /// Its name.
    pub name: Box<str>,
    /// The field line that names it on answers.
    pub echo: Box<[u8]>,
    /// The version it runs.
    pub version: Option<Box<str>>,
    /// Most requests under way.
    pub in_flight: Option<Arc<InFlightLimit>>,
    /// Its addresses, names resolved.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// How the upstreams of a service are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// For a connection to be made.
    pub connect_timeout_ns: u64,
    /// From the whole request to the response head.
    pub first_byte_timeout_ns: u64,
    /// Between two pieces of a body, in either direction.
    pub between_bytes_timeout_ns: u64,
    /// For the whole exchange.
    pub request_timeout_ns: Option<u64>,
    /// Without a byte on a switched protocol.
    pub tunnel_idle_timeout_ns: u64,
    /// Bodies up to this size are collected ahead of the upstream.
    pub buffer_bytes: Option<usize>,
    /// How long an unused connection is kept.
    pub idle_age_ns: u64,
    /// Connections to one endpoint over all workers, for each kind of places.
    pub connections_max: u32,
}
