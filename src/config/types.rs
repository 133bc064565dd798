//! The sections of a configuration file, each key with its default and meaning.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::track::Weight;
use crate::upstream::Protocol;

use super::choices::{Bound, HalfClose, ProtocolChoice, StateValue};
use super::fault::Place;
use super::heads::{HeadEdits, Redirect, Respond, Rewrite};
use super::logs::{Log, Tracing};
use super::node::{Kind, Node};
use super::notifications::Notification;
use super::paths::AmbiguousPaths;
use super::resilience::{Balance, Ejection, Mirror, RateLimit, Retries};
use super::rollout::{Health, Rollout};
use super::section::{Reader, Value, section};
use super::sticky::Sticky;
use super::transport::{Listener, TrackTls};
use super::values::{At, EndpointAddress, Named, OneOrMany, OrOff, Size, Span, TextTest, Whole};

section! {
    /// A Splitway configuration.
    pub struct Config {
        /// Threads that serve traffic. Omitted: one per core.
        pub workers: Option<Whole<1, 256>> = or(None),
        /// Where downstream connections are accepted.
        pub listeners: Vec<At<Listener>> = required,
        /// Metrics, health and commands.
        pub admin: Admin = or(all_defaults()),
        /// Networks of proxies in front who are believed what they tell of the client: X-Forwarded-* and
        /// their like. From anybody else these fields are replaced or dropped.
        pub trusted_proxies: Vec<IpNet> = or(Vec::new()),
        /// How long things may take. A service may have its own.
        pub timeouts: Timeouts = or(all_defaults()),
        /// How large things may be.
        pub limits: Limits = or(all_defaults()),
        /// What becomes of a client that closes its side of a connection while the answer to a GET,
        /// HEAD or OPTIONS is awaited: `leave` ends its request, `serve` answers it all the same.
        pub half_close: HalfClose = or(HalfClose::Leave),
        /// Connections to endpoints.
        pub upstream: Upstream = or(all_defaults()),
        /// The pseudonym to add to Via in both directions, or off.
        pub via: OrOff<String> = or(OrOff(None)),
        /// What is logged.
        pub log: Log = or(all_defaults()),
        /// Which requests are traced, and where their spans go; or off.
        pub tracing: OrOff<Tracing> = or(OrOff(None)),
        /// How long requests under way may take to finish after SIGTERM.
        pub drain: Span = or(Span::seconds(30)),
        /// How long after SIGTERM it is not ready and still accepts, so that balancers in front see it
        /// in time; or off.
        pub drain_delay: OrOff<Span> = or(OrOff(None)),
        /// Where the state of rollouts is kept: a directory, or memory. Omitted: /var/lib/splitway, else
        /// the user's XDG state.
        pub state: Option<StateValue> = or(None),
        /// Who is told of what rollouts do.
        pub notifications: Vec<Notification> = or(Vec::new()),
        /// The services; the most specific host, then the longest path wins.
        pub services: Vec<At<Service>> = required,
    }
}

section! {
    /// The admin API.
    pub struct Admin {
        /// IP:PORT to listen on. Any but a loopback address needs tokens.
        pub address: At<SocketAddr> = or(loopback(9900)),
        /// A socket file to listen on beside it: whoever may open it may act, without a token. It
        /// belongs to the gateway's user alone.
        pub socket: Option<At<String>> = or(None),
        /// Bearer tokens that guard the API. /metrics, /healthz and /readyz stay open.
        pub tokens: Tokens = or(all_defaults()),
    }
}

section! {
    /// Bearer tokens by what they allow.
    pub struct Tokens {
        /// May look.
        pub read: Vec<At<String>> = or(Vec::new()),
        /// May look and act.
        pub operate: Vec<At<String>> = or(Vec::new()),
        /// A file with further ones that may look, one a line.
        pub read_file: Option<At<String>> = or(None),
        /// A file with further ones that may look and act, one a line.
        pub operate_file: Option<At<String>> = or(None),
    }
}

section! {
    /// How long things may take.
    pub struct Timeouts {
        /// A request head, from its first byte to its last.
        pub head: Span = or(Span::seconds(10)),
        /// A downstream connection between two requests.
        pub idle: Span = or(Span::seconds(75)),
        /// Connecting to an endpoint.
        pub connect: Span = or(Span::seconds(5)),
        /// The whole request sent, to the response head.
        pub first_byte: Span = or(Span::seconds(60)),
        /// Two pieces of a body, in either direction.
        pub between_bytes: Span = or(Span::seconds(60)),
        /// A whole request with its answer, or off.
        pub request: OrOff<Span> = or(OrOff(None)),
        /// A switched protocol (WebSocket) without a byte.
        pub tunnel_idle: Span = or(Span::seconds(3_600)),
    }
}

section! {
    /// A service's own timeouts; what is omitted is taken from the top.
    pub struct ServiceTimeouts {
        /// Connecting to an endpoint.
        pub connect: Option<Span> = or(None),
        /// The whole request sent, to the response head.
        pub first_byte: Option<Span> = or(None),
        /// Two pieces of a body, in either direction.
        pub between_bytes: Option<Span> = or(None),
        /// A whole request with its answer, or off.
        pub request: Option<OrOff<Span>> = or(None),
        /// A switched protocol (WebSocket) without a byte.
        pub tunnel_idle: Option<Span> = or(None),
    }
}

section! {
    /// How large things may be.
    pub struct Limits {
        /// A request's head. An answer's may have 64 KiB, or as much where this is more.
        pub head: At<Size> = or(At { value: Size(32 * 1024), place: Place::default() }),
        /// The fields of a head.
        pub headers: Whole<1, 1_000> = or(Whole(128)),
        /// A request body, or off.
        pub body: OrOff<Size> = or(OrOff(None)),
        /// Downstream connections at once, or off. `auto`: half of the process's descriptors, because
        /// each may need another to an upstream, after 256 for everything else.
        pub connections: Bound<Whole<1, 10_000_000>> = or(Bound::Auto),
        /// Downstream connections of one IPv4 address or one /64 of IPv6, or off. `auto`: a quarter of
        /// what the descriptors allow. Trusted proxies have no such limit.
        pub connections_per_source: Bound<Whole<1, 1_000_000>> = or(Bound::Auto),
        /// What clients may make the gateway hold together, in connections, streams, heads and bodies;
        /// or off. Beyond it the source that holds the most is refused, and its heaviest connections
        /// end. `auto`: half of the control group's limit, else a quarter of the machine's memory.
        pub memory: Bound<Size> = or(Bound::Auto),
        /// Requests that one HTTP/2 connection may have under way at once.
        pub http2_streams: Whole<1, 10_000> = or(Whole(128)),
        /// Requests that one HTTP/2 connection may give up in a second, half as many before they are
        /// even looked at; more end the connection.
        pub http2_resets: Whole<1, 1_000_000> = or(Whole(2_000)),
    }
}

section! {
    /// Connections to endpoints.
    pub struct Upstream {
        /// How long an unused connection is kept. Node closes its side after 5 s.
        pub idle_age: Span = or(Span::seconds(4)),
        /// Connections to one endpoint for what is drawn, and as many for what rules send, over all
        /// workers.
        pub max_connections: Whole<1, 1_000_000> = or(Whole(4_096)),
        /// Requests of a service that wait for one of these, for as long as connecting may take; or off.
        pub pending: OrOff<Whole<1, 1_000_000>> = or(OrOff(Some(Whole(1_024)))),
        /// How often names of endpoints are resolved again.
        pub resolve_every: Span = or(Span::seconds(10)),
    }
}

section! {
    /// One service: its tracks and how its traffic is split among them.
    pub struct Service {
        /// The name; the `app` label of every metric.
        pub name: At<String> = required,
        /// Host names (`api.example.com`, `*.example.com`). Omitted: any host.
        pub hosts: Vec<At<String>> = or(Vec::new()),
        /// Path prefixes, by whole segments.
        pub paths: Vec<At<String>> = or(vec![At { value: "/".into(), place: Place::default() }]),
        /// What becomes of a path that servers read differently (`%2f`, `\`, `..;`, `%00` and the
        /// like) where a path decides: refuse, with 400, or allow.
        pub ambiguous_paths: AmbiguousPaths = or(AmbiguousPaths::Refuse),
        /// The listeners that lead to it, by name or address; through no other one can it be reached.
        /// Omitted: every listener.
        pub listeners: Option<At<Vec<At<String>>>> = or(None),
        /// The versions of the service, by track name.
        pub tracks: At<Named<Track>> = required,
        /// Each track's share in percent; sums to 100. One track alone has all. A rollout owns the split.
        pub weights: Option<At<Weights>> = or(None),
        /// Matches that override the weights; the first that matches wins.
        pub rules: Vec<At<Rule>> = or(Vec::new()),
        /// What changes in the heads that pass.
        pub headers: HeadEdits = or(all_defaults()),
        /// Add X-Request-Id to requests without one.
        pub request_id: bool = or(false),
        /// Add a W3C traceparent to requests without one; those that have one keep it.
        pub traceparent: bool = or(false),
        /// Tell the track on answers, in X-Splitway-Track.
        pub echo_track: bool = or(false),
        /// Keeps users on their track.
        pub sticky: Option<At<Sticky>> = or(None),
        /// Timeouts that differ from those at the top.
        pub timeouts: ServiceTimeouts = or(all_defaults()),
        /// How the endpoints of a track are chosen.
        pub balance: At<Balance> = or(At { value: all_defaults(), place: Place::default() }),
        /// Endpoints that stand out by their failures get no traffic for a while. Omitted: none are.
        pub ejection: Option<Ejection> = or(None),
        /// How often clients may ask; more are answered with 429.
        pub rate_limit: Option<At<RateLimit>> = or(None),
        /// Request bodies up to this size are collected before the request takes a place or a connection
        /// of an upstream, so that slow uploads hold none; larger ones pass as they come. Or off.
        pub buffer_requests: OrOff<Size> = or(OrOff(None)),
        /// Which failures are tried again. Omitted: only what is certain to harm nobody.
        pub retries: Option<At<Retries>> = or(None),
        /// Copies of a track's requests for another one. Omitted: none.
        pub mirror: Option<At<Mirror>> = or(None),
        /// Probes of the endpoints.
        pub health: Option<At<Health>> = or(None),
        /// Moves the canary's weight by itself. Needs tracks `stable` and `canary` with versions.
        pub rollout: Option<At<Rollout>> = or(None),
    }
}

section! {
    /// One version of a service.
    pub struct Track {
        /// The version that runs there.
        pub version: Option<String> = or(None),
        /// HOST:PORT of every instance; names are resolved and refreshed.
        pub endpoints: At<Vec<At<EndpointAddress>>> = required,
        /// Drawn requests under way at once, and as many that rules sent; more are answered with 503,
        /// which is held against neither track. Or off.
        pub max_in_flight: OrOff<Whole<1, 1_000_000>> = or(OrOff(None)),
        /// http1, h2 (under TLS), h2c (in the clear), or auto: what TLS agrees on. Omitted: auto under
        /// TLS, else http1.
        pub protocol: Option<At<ProtocolChoice>> = or(None),
        /// TLS to the endpoints. Omitted: in the clear.
        pub tls: Option<At<TrackTls>> = or(None),
    }
}

impl Track {
    /// The protocol that its endpoints are spoken to in.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match (self.protocol.as_ref().map(|given| given.value), self.tls.is_some()) {
            (Some(ProtocolChoice::Http1), _) | (None | Some(ProtocolChoice::Auto), false) => {
                Protocol::Http1
            }
            (Some(ProtocolChoice::H2 | ProtocolChoice::H2c), _) => Protocol::Http2,
            (None | Some(ProtocolChoice::Auto), true) => Protocol::Auto,
        }
    }
}

/// Percentages by track.
pub type Weights = Named<At<Weight>>;

section! {
    /// One rule.
    pub struct Rule {
        /// One match, or a list of which any suffices.
        pub r#match: OneOrMany<At<Match>> = required,
        /// The track that gets these requests.
        pub track: Option<At<String>> = or(None),
        /// Or percentages by track; each request is drawn afresh.
        pub weights: Option<At<Weights>> = or(None),
        /// Or another place.
        pub redirect: Option<At<Redirect>> = or(None),
        /// Or an answer at once.
        pub respond: Option<At<Respond>> = or(None),
        /// Networks of the clients that it is for. Fields that it tests are taken from everybody
        /// else's requests. Empty: everybody.
        pub from: Vec<IpNet> = or(Vec::new()),
        /// What replaces the path on its way to the upstream.
        pub rewrite: Option<At<Rewrite>> = or(None),
        /// What changes in the heads.
        pub headers: HeadEdits = or(all_defaults()),
    }
}

section! {
    /// One match; everything in it must hold.
    pub struct Match {
        /// Tests on header fields, by name.
        pub headers: Named<TextTest> = or(Named(Vec::new())),
        /// Tests on cookies, by name.
        pub cookies: Named<TextTest> = or(Named(Vec::new())),
        /// Tests on query parameters, by name.
        pub query: Named<TextTest> = or(Named(Vec::new())),
        /// One method, or a list of which any suffices.
        pub method: OneOrMany<At<String>> = or(OneOrMany(Vec::new())),
        /// A path prefix by whole segments, or a test on the path.
        pub path: Option<TextTest> = or(None),
        /// One client network, or a list of which any suffices.
        pub source: OneOrMany<IpNet> = or(OneOrMany(Vec::new())),
        /// One network where the client must not be, or a list of which it must be in none.
        pub not_source: OneOrMany<IpNet> = or(OneOrMany(Vec::new())),
    }
}

/// A section whose keys all have defaults, with these.
///
/// # Panics
/// When a key of the section has none, which every start would show.
#[must_use]
pub fn all_defaults<T: Value>() -> T {
    let empty = Node { place: Place::default(), kind: Kind::Map(Vec::new()) };
    T::read(&empty, &mut Reader::default()).expect("every key of the section has a default")
}

fn loopback(port: u16) -> At<SocketAddr> {
    At { value: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), place: Place::default() }
}
