//! From a checked configuration to the picture that workers read.
//!
//! What outlives a configuration (counts, splits, endpoints) comes from the registry, so that an
//! unchanged endpoint keeps its pools and an edited service its counters.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use regex::bytes::Regex;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::record::Live;
use crate::route::rate::RateTable;
use crate::route::rules::Target;
use crate::route::{Match, Rule, RuleEdits, Text};
use crate::state::{
    self, InFlightLimit, MadeFields, ProbePolicy, RateLimit, State, UpstreamPolicy,
};
use crate::tls::ClientTls;
use crate::track::{TrackIndex, Weight};
use crate::upstream::{Endpoint, Protocol, Transport};

use super::choices::Failover;
use super::downstream;
use super::heads;
use super::listeners::Bound;
use super::material::{self, Material};
use super::owned;
use super::paths;
use super::resilience;
use super::sticky;
use super::types::{self, Config};
use super::values::{EndpointAddress, OrOff, Span, TextTest};

/// Addresses of DNS names, as last resolved.
pub type Names = HashMap<String, Vec<IpAddr>>;

/// The canary's weight of services whose split is not the file's, by name.
pub type Owned<'a> = dyn Fn(&str) -> Option<Weight> + 'a;

/// What outlives a configuration.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    lives: HashMap<String, Arc<Live>>,
    endpoints: HashMap<(SocketAddr, u64), Weak<Endpoint>>,
    /// What goes on over reloads as long as its figures stay.
    rates: HashMap<String, (resilience::RateLimit, Arc<RateTable>)>,
    in_flight: HashMap<(String, String), Arc<InFlightLimit>>,
    listeners: Bound,
    /// Signs the cookies of services that name no secret.
    own_secret: Option<Box<[u8]>>,
}

impl Registry {
    /// A registry for records written by `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            lives: HashMap::new(),
            endpoints: HashMap::new(),
            rates: HashMap::new(),
            in_flight: HashMap::new(),
            listeners: Bound::default(),
            own_secret: None,
        }
    }

    /// What signs where no secret is named; made by `make` when there is none yet.
    pub fn own_secret(&mut self, make: impl FnOnce() -> Box<[u8]>) -> &[u8] {
        self.own_secret.get_or_insert_with(make)
    }

    /// The same, if it was made.
    #[must_use]
    pub fn kept_secret(&self) -> Option<&[u8]> {
        self.own_secret.as_deref()
    }

    /// The record of a service with places for `tracks`.
    ///
    /// A service whose tracks were renamed until no place is left gets a fresh record; its
    /// counters start again, as after a restart.
    fn live(&mut self, name: &str, tracks: &[&str]) -> (Arc<Live>, Vec<TrackIndex>) {
        let known = self.lives.get(name).cloned();
        let places = |live: &Live| tracks.iter().map(|track| live.track(track)).collect();
        if let Some(live) = known
            && let Some(indexes) = places(&live)
        {
            return (live, indexes);
        }
        let live = Arc::new(Live::new(name, self.workers));
        let indexes: Option<Vec<TrackIndex>> = places(&live);
        self.lives.insert(name.to_owned(), Arc::clone(&live));
        (live, indexes.expect("validated to have few enough tracks"))
    }

    fn endpoint(&mut self, address: SocketAddr, transport: Arc<Transport>) -> Arc<Endpoint> {
        let key = (address, transport.key);
        if let Some(endpoint) = self.endpoints.get(&key).and_then(Weak::upgrade) {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint::new(address, transport, self.workers));
        self.endpoints.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    fn rate(&mut self, service: &str, limit: &resilience::RateLimit) -> RateLimit {
        let kept = self.rates.get(service).filter(|(before, _)| before == limit);
        let table = kept.map_or_else(
            || {
                let burst = limit.burst.map_or(limit.per_second.0, |burst| burst.0);
                let table = RateTable::new(limit.per_second.0, burst);
                let keys = limit.keys_per_source.0.map(|most| most.0);
                Arc::new(if limit.header.is_some() { table.by_key(keys) } else { table })
            },
            |(_, table)| Arc::clone(table),
        );
        self.rates.insert(service.to_owned(), (limit.clone(), Arc::clone(&table)));
        let header = limit.header.as_ref().map(|header| header.to_ascii_lowercase().into());
        RateLimit { header, table }
    }

    fn in_flight(&mut self, service: &str, track: &str, most: u32) -> Arc<InFlightLimit> {
        let key = (service.to_owned(), track.to_owned());
        let kept = self.in_flight.get(&key).filter(|limit| limit.most() == most).cloned();
        let limit = kept.unwrap_or_else(|| Arc::new(InFlightLimit::new(most)));
        self.in_flight.insert(key, Arc::clone(&limit));
        limit
    }

    /// Forgets what the configuration and the requests under way no longer use.
    fn forget(&mut self, config: &Config) {
        let named = |name: &String| config.services.iter().any(|one| one.name.value == *name);
        self.lives.retain(|name, _| named(name));
        self.rates.retain(|name, _| named(name));
        self.in_flight.retain(|(service, _), _| named(service));
        self.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
    }
}

/// Makes the picture of `config`, with files as `material` and names as `names` has them.
///
/// Splits are part of the picture and not published yet: first the state, then its splits, so
/// that no worker draws a track it does not know.
#[must_use]
pub fn compile(
    config: &Config,
    material: &Material,
    registry: &mut Registry,
    names: &Names,
    owned: &Owned<'_>,
) -> State {
    let one =
        |service| Arc::new(compile_service(config, (service, material), registry, names, owned));
    let services = config.services.iter().map(|service| &service.value).map(one).collect();
    registry.forget(config);
    registry.listeners.follow(config, material);
    State {
        listeners: registry.listeners.policies(),
        certificates: material.certificates.clone(),
        tables: registry.listeners.tables(config),
        services,
        trusted_proxies: config.trusted_proxies.clone(),
        tracing: super::logs::policy(config, registry.workers),
        downstream: downstream::policy(config),
    }
}

fn compile_service(
    config: &Config,
    (service, material): (&types::Service, &Material),
    registry: &mut Registry,
    names: &Names,
    owned: &Owned<'_>,
) -> state::Service {
    let track_names: Vec<&str> =
        service.tracks.0.iter().map(|(name, _)| name.value.as_str()).collect();
    let (live, indexes) = registry.live(&service.name, &track_names);
    let index_of = |name: &str| {
        let position = track_names.iter().position(|track| *track == name);
        indexes[position.expect("validated to be a track")]
    };
    let tracks = service.tracks.0.iter().map(|(name, track)| state::Track {
        index: index_of(name),
        name: name.as_str().into(),
        echo: format!("x-splitway-track: {}\r\n", name.value).into_bytes().into(),
        version: track.version.as_deref().map(Into::into),
        in_flight: track
            .max_in_flight
            .0
            .map(|most| registry.in_flight(&service.name, &name.value, most.0)),
        endpoints: resolved(&track.endpoints, names)
            .map(|(host, address)| {
                let tls = material.tracks.get(&(service.name.value.clone(), name.value.clone()));
                registry.endpoint(address, transport(track, host, tls))
            })
            .collect(),
    });
    let tracks = tracks.collect();
    let shares = shares(service, &track_names, owned(&service.name), &index_of);
    let rules = service.rules.iter().map(|rule| compile_rule(rule, &index_of)).collect();
    state::Service {
        split: live.next_split(&shares),
        live,
        paths: paths::policy(service),
        rules,
        rate_limit: service.rate_limit.as_ref().map(|limit| registry.rate(&service.name, limit)),
        edits: service_edits(service),
        guarded: owned::guarded(service),
        owned: owned::names(service),
        made: MadeFields {
            request_id: service.request_id,
            traceparent: service.traceparent,
            track: service.echo_track,
        },
        sticky: sticky::of(service, config, (material, registry)),
        tracks,
        upstream: upstream_policy(config, service),
        pending: config
            .upstream
            .pending
            .0
            .map(|most| registry.in_flight(&service.name, "(pending)", most.0)),
        balance: resilience::balance(&service.balance),
        ejection: service.ejection.as_ref().map(resilience::ejection),
        failover: failover(service, &index_of),
        excluded: service.rollout.as_ref().map_or_else(Vec::new, |rollout| {
            rollout.evidence.exclude.iter().map(|one| compile_match(one)).collect()
        }),
        retry: service
            .retries
            .as_ref()
            .map(|retries| resilience::retry(service, retries, &index_of)),
        mirror: service.mirror.as_deref().and_then(|mirror| {
            let has = |name: &str| track_names.contains(&name);
            let is_whole = has(&mirror.from) && has(&mirror.to);
            // No track can have this name.
            let limit = registry.in_flight(&service.name, "(mirror)", mirror.max_in_flight.0);
            is_whole.then(|| resilience::mirror(mirror, limit, &index_of))
        }),
        error_statuses: error_statuses(service),
        grpc_errors: grpc_errors(service),
        probe: probe(service),
    }
}

/// Statuses below 500 that are errors all the same.
fn error_statuses(service: &types::Service) -> Vec<u16> {
    let statuses = service.rollout.iter().flat_map(|rollout| &rollout.evidence.error_statuses);
    statuses.filter_map(|status| u16::try_from(status.0).ok()).collect()
}

/// A bit for each status of gRPC that is an error.
fn grpc_errors(service: &types::Service) -> u32 {
    let default = types::all_defaults();
    let evidence = service.rollout.as_ref().map_or(&default, |rollout| &rollout.evidence);
    evidence.grpc_errors.iter().fold(0, |bits, status| bits | 1 << status.0)
}

fn service_edits(service: &types::Service) -> RuleEdits {
    let mut edits = heads::compile_edits(&service.headers);
    if service.mirror.is_some() {
        // Nobody but us tells a copy.
        edits.request.removed.push(resilience::MIRROR_FIELD.into());
    }
    edits.request.removed.extend(owned::names(service).request.plain().map(Into::into));
    edits
}

/// Each track's weight, in the order of their buckets: canary from 0 up, further tracks from the
/// top down, stable (or the first of the others) in between.
fn shares(
    service: &types::Service,
    tracks: &[&str],
    canary: Option<Weight>,
    index_of: &impl Fn(&str) -> TrackIndex,
) -> Vec<(TrackIndex, Weight)> {
    let weight = |track: &str| match (&service.weights, canary) {
        (_, Some(canary)) if track == "canary" => canary,
        (_, Some(canary)) => canary.rest(),
        (Some(weights), None) => weights.get(track).map_or(Weight::ZERO, |weight| weight.value),
        (None, None) => Weight::FULL,
    };
    let others: Vec<&str> = tracks.iter().copied().filter(|track| *track != "canary").collect();
    let rest = others.iter().copied().find(|track| *track == "stable").or(others.first().copied());
    let canary = tracks.iter().copied().filter(|track| *track == "canary");
    let top = others.iter().rev().copied().filter(|track| Some(*track) != rest);
    canary.chain(rest).chain(top).map(|track| (index_of(track), weight(track))).collect()
}

fn resolved<'a>(
    endpoints: &'a [super::values::At<EndpointAddress>],
    names: &'a Names,
) -> impl Iterator<Item = (&'a str, SocketAddr)> + 'a {
    endpoints.iter().flat_map(|endpoint| {
        let addresses = match endpoint.address() {
            Some(address) => vec![address],
            None => names.get(&endpoint.host).cloned().unwrap_or_default(),
        };
        let address = |address| (&*endpoint.host, SocketAddr::new(address, endpoint.port));
        addresses.into_iter().map(address)
    })
}

/// How the endpoints of a track at `host` are spoken to.
fn transport(
    track: &types::Track,
    host: &str,
    tls: Option<&(Arc<ClientTls>, u64)>,
) -> Arc<Transport> {
    let protocol = track.protocol();
    let tls = track.tls.as_ref().zip(tls).and_then(|(given, (made, key))| {
        Some((Arc::clone(made), material::server_name(given, host)?, *key))
    });
    let key = match (&tls, protocol) {
        (None, Protocol::Http1) => 0,
        (None, _) => 1,
        (Some((_, name, key)), _) => xxh3_64_with_seed(name.to_str().as_bytes(), *key),
    };
    let tls = tls.map(|(made, name, _)| (made, name));
    Arc::new(Transport { protocol, tls, key })
}

fn compile_rule(rule: &types::Rule, index_of: &impl Fn(&str) -> TrackIndex) -> Rule {
    let weights = |weights: &types::Weights| {
        weights.0.iter().map(|(track, weight)| (index_of(track), weight.value)).collect()
    };
    let target = match (&rule.track, &rule.weights) {
        (Some(track), _) => Target::Track(index_of(track)),
        (None, Some(given)) => Target::Weights(weights(given)),
        (None, None) => match (&rule.redirect, &rule.respond) {
            (Some(redirect), _) => heads::compile_redirect(redirect),
            (None, Some(respond)) => heads::compile_respond(respond),
            (None, None) => Target::Service,
        },
    };
    Rule {
        any: rule.r#match.0.iter().map(|one| compile_match(one)).collect(),
        from: rule.from.clone(),
        target,
        rewrite: rule.rewrite.as_ref().map(|rewrite| heads::compile_rewrite(rewrite)),
        edits: heads::compile_edits(&rule.headers),
    }
}

fn compile_match(one: &types::Match) -> Match {
    let named = |tests: &super::values::Named<TextTest>| {
        tests.0.iter().map(|(name, test)| (name.as_str().into(), compile_text(test))).collect()
    };
    let headers = one
        .headers
        .0
        .iter()
        .map(|(name, test)| (name.to_ascii_lowercase().into(), compile_text(test)));
    Match {
        headers: headers.collect(),
        cookies: named(&one.cookies),
        query: named(&one.query),
        methods: one.method.0.iter().map(|method| method.as_bytes().into()).collect(),
        path: one.path.as_ref().map(paths::compile),
        sources: one.source.0.clone(),
        not_sources: one.not_source.0.clone(),
    }
}

pub(super) fn compile_text(test: &TextTest) -> Text {
    match test {
        TextTest::Plain(text) | TextTest::Exact(text) => Text::Exact(text.as_bytes().into()),
        TextTest::Prefix(text) => Text::Prefix(text.as_bytes().into()),
        TextTest::Regex(regex) => Text::Regex(Regex::clone(regex)),
        TextTest::Present => Text::Present,
        TextTest::Not(inner) => Text::Not(Box::new(compile_text(inner))),
    }
}

/// From which track to which requests go when no endpoint can be connected.
fn failover(
    service: &types::Service,
    index_of: &impl Fn(&str) -> TrackIndex,
) -> Vec<(TrackIndex, TrackIndex)> {
    let Some(rollout) = &service.rollout else { return Vec::new() };
    if service.tracks.get("canary").is_none() {
        return Vec::new();
    }
    let (stable, canary) = (index_of("stable"), index_of("canary"));
    match rollout.failover {
        Failover::Stable => vec![(canary, stable)],
        Failover::Both => vec![(canary, stable), (stable, canary)],
        Failover::Off => Vec::new(),
    }
}

/// How the endpoints are probed; a rollout needs to know them, so it probes without being told.
fn probe(service: &types::Service) -> Option<ProbePolicy> {
    let given = service.health.as_ref().map(|health| health.value.clone());
    let health = given.or_else(|| service.rollout.as_ref().map(|_| types::all_defaults()))?;
    let statuses = health.status.0.iter().map(|range| range.0..=range.1);
    Some(ProbePolicy {
        host: health.host.map(|host| host.value).or_else(|| probed_host(service)).map(Into::into),
        path: health.path.map(|path| path.value.into()),
        grpc: health.grpc.map(Into::into),
        interval: health.interval.0,
        timeout: health.timeout.0,
        fall: health.fall.0,
        rise: health.rise.0,
        statuses: statuses.collect(),
    })
}

/// A host that the service is called by; no server knows itself by a pattern.
fn probed_host(service: &types::Service) -> Option<String> {
    let plain = service.hosts.iter().find(|host| !host.starts_with('*'));
    let pattern = || service.hosts.first()?.strip_prefix('*').map(|rest| format!("probe{rest}"));
    plain.map(|host| host.value.clone()).or_else(pattern)
}

fn upstream_policy(config: &Config, service: &types::Service) -> UpstreamPolicy {
    let (own, top) = (&service.timeouts, &config.timeouts);
    let ns = |own: Option<Span>, top: Span| own.unwrap_or(top).ns();
    let OrOff(request) = own.request.unwrap_or(top.request);
    UpstreamPolicy {
        connect_timeout_ns: ns(own.connect, top.connect),
        first_byte_timeout_ns: ns(own.first_byte, top.first_byte),
        between_bytes_timeout_ns: ns(own.between_bytes, top.between_bytes),
        request_timeout_ns: request.map(Span::ns),
        tunnel_idle_timeout_ns: ns(own.tunnel_idle, top.tunnel_idle),
        idle_age_ns: config.upstream.idle_age.ns(),
        buffer_bytes: service
            .buffer_requests
            .0
            .map(|size| usize::try_from(size.0).unwrap_or(usize::MAX)),
        connections_max: config.upstream.max_connections.0,
    }
}
