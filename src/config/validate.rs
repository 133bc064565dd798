//! What no single value can know: sums, names that refer to each other, doubles.

use std::collections::HashMap;

use crate::http1::fields::is_token;
use crate::route::path;
use crate::track::{BUCKETS, TRACKS_MAX};

use super::choices::{BalanceChoice, ProtocolChoice};
use super::fault::{Fault, Place};
use super::heads;
use super::listeners;
use super::material;
use super::owned;
use super::resilience::{Mirror, Retries};
use super::rollout::Health;
use super::section::Reader;
use super::sticky;
use super::types::{Admin, Config, Match, Rule, Service, Track, Weights, all_defaults};
use super::validate_rollout;
use super::values::{At, TextTest};

/// Longest name of a service or track: a label value that dashboards can still show.
const NAME_BYTES_MAX: usize = 128;

/// Largest request that may be kept for another try.
const REPLAY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Longest service that gRPC's health protocol is asked for: its length takes one byte there.
const GRPC_NAME_BYTES_MAX: usize = 120;

/// Everything that is wrong with `config` as a whole.
#[must_use]
pub fn validate(config: &Config) -> Vec<Fault> {
    let mut reader = Reader::default();
    let check = &mut reader;
    listeners::validate(config, check);
    check.below("admin", |check| admin(&config.admin, check));
    check.below("limits", |check| {
        let head = &config.limits.head;
        if !(1_024..=1024 * 1024).contains(&head.value.0) {
            check.below("head", |check| check.fault(head.place, "must be from 1KiB to 1MiB"));
        }
    });
    let level = &config.log.level;
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&level.value) {
        check.below("log", |check| {
            check.below("level", |check| {
                check.fault(level.place, format!("is no level or filter: {error}"));
            });
        });
    }
    check.below("notifications", |check| super::notifications::validate(config, check));
    check.below("tracing", |check| super::logs::validate(config, check));
    check.below("services", |check| {
        if config.services.is_empty() {
            check.fault(Place { line: 1, column: 1 }, "is empty; name at least one service");
        }
        for (index, one) in config.services.iter().enumerate() {
            check.below_index(index, |check| {
                listeners::check_bound(one, config, check);
                service(one, check);
            });
        }
        doubles(config, check);
    });
    reader.faults
}

/// Protocol and TLS of a track fit each other, and every endpoint has a name to be checked for.
fn transport(track: &Track, check: &mut Reader) {
    if let Some(protocol) = &track.protocol {
        let remedy = match (protocol.value, track.tls.is_some()) {
            (ProtocolChoice::H2, false) => "needs `tls`; in the clear it is h2c",
            (ProtocolChoice::H2c, true) => "is in the clear; under `tls` it is h2",
            (ProtocolChoice::Auto, false) => "needs `tls` to agree on; write http1 or h2c",
            _ => "",
        };
        if !remedy.is_empty() {
            check.below("protocol", |check| check.fault(protocol.place, remedy));
        }
    }
    let Some(tls) = &track.tls else { return };
    for endpoint in track.endpoints.iter() {
        if material::server_name(tls, &endpoint.host).is_none() {
            let message = format!("`{}` is no name for TLS; set tls.server_name", endpoint.host);
            check.below("endpoints", |check| check.fault(endpoint.place, message));
        }
    }
}

/// What is said of a text that is no token.
pub(super) const NO_TOKEN: &str = "a token needs 16 or more visible ASCII characters";

/// Long enough not to be guessed, and fit for a header field.
pub(super) fn is_bearer(text: &str) -> bool {
    text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn admin(admin: &Admin, check: &mut Reader) {
    let tokens = &admin.tokens;
    let has_files = tokens.read_file.is_some() || tokens.operate_file.is_some();
    let has_tokens = has_files || !(tokens.read.is_empty() && tokens.operate.is_empty());
    if !admin.address.ip().is_loopback() && !has_tokens {
        let message = "is not a loopback address, so everybody could act; set admin.tokens, or \
            listen on 127.0.0.1";
        check.below("address", |check| check.fault(admin.address.place, message));
    }
    for token in tokens.read.iter().chain(&tokens.operate) {
        if !is_bearer(token) {
            check.below("tokens", |check| check.fault(token.place, NO_TOKEN));
        }
    }
}

fn service(service: &Service, check: &mut Reader) {
    check.below("name", |check| name(&service.name, check));
    for (index, host) in service.hosts.iter().enumerate() {
        if !is_host(host) {
            let message = format!(
                "`{}` is no host; write a name without port, like api.example.com or \
                 *.example.com, or omit hosts for any",
                host.value
            );
            let fault = |check: &mut Reader| check.fault(host.place, message);
            check.below("hosts", |check| check.below_index(index, fault));
        }
    }
    for (index, path) in service.paths.iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            let message = format!("`{}` is no path prefix; write it like /api", path.value);
            let fault = |check: &mut Reader| check.fault(path.place, message);
            check.below("paths", |check| check.below_index(index, fault));
        }
    }
    check.below("tracks", |check| tracks(service, check));
    match &service.weights {
        Some(given) => check.below("weights", |check| weights(service, given, check)),
        None if service.tracks.0.len() > 1 && service.rollout.is_none() => {
            let names: Vec<&str> =
                service.tracks.0.iter().map(|(name, _)| name.value.as_str()).collect();
            let message = format!(
                "`weights` is missing; give {} their shares, summing to 100",
                names.join(" and ")
            );
            check.fault(service.name.place, message);
        }
        None => {}
    }
    check.below("rules", |check| {
        for (index, one) in service.rules.iter().enumerate() {
            check.below_index(index, |check| rule(service, one, check));
        }
    });
    check.below("headers", |check| heads::check_edits(&service.headers, check));
    if let Some(given) = &service.sticky {
        check.below("sticky", |check| sticky::validate(given, check));
    }
    asker(service, check);
    if let Some(given) = &service.retries {
        check.below("retries", |check| retries(service, given, check));
    }
    if let Some(given) = &service.mirror {
        check.below("mirror", |check| mirror(service, given, check));
    }
    if let Some(given) = &service.health {
        check.below("health", |check| health(given, check));
    }
    if let Some(given) = &service.rollout {
        check.below("rollout", |check| {
            validate_rollout::rollout(service, given, check);
            check.below("evidence", |check| {
                check.below("exclude", |check| {
                    for (index, one) in given.evidence.exclude.iter().enumerate() {
                        check.below_index(index, |check| one_match(one, check));
                    }
                });
            });
        });
    }
}

/// Fields that tell who asks.
fn asker(service: &Service, check: &mut Reader) {
    if let Some(header) = &service.balance.header {
        check.below("balance", |check| {
            check.below("header", |check| token(header, check));
            if service.balance.by != BalanceChoice::Key {
                check.fault(header.place, "`header` is for `by: key`; set that too, or remove it");
            }
        });
    }
    if let Some(header) = service.rate_limit.as_ref().and_then(|limit| limit.header.as_ref()) {
        check.below("rate_limit", |check| check.below("header", |check| token(header, check)));
    }
}

fn retries(service: &Service, retries: &At<Retries>, check: &mut Reader) {
    if !(0.0..=100.0).contains(&retries.budget.value.0) {
        let message = "is no share of the requests; write a percentage from 0 to 100";
        check.below("budget", |check| check.fault(retries.budget.place, message));
    }
    if retries.body.0 > REPLAY_BYTES_MAX {
        check.fault(retries.place, "`body` is more than 16MiB, which many requests would add up");
    }
    let has_tracks = service.tracks.get("stable").is_some();
    if retries.rescue && !has_tracks {
        check.fault(retries.place, "`rescue` needs a track `stable` that takes over");
    }
}

fn mirror(service: &Service, mirror: &At<Mirror>, check: &mut Reader) {
    // A canary that is not there gets no copies, or it could not be taken out of the file.
    for (key, track) in [("from", &mirror.from), ("to", &mirror.to)] {
        if service.tracks.get(track).is_none() && track.value != "canary" {
            let message = format!("`{}` is no track of this service", track.value);
            check.below(key, |check| check.fault(track.place, message));
        }
    }
    if mirror.from.value == mirror.to.value {
        let message = "is the track that the copies are of; name another one";
        check.below("to", |check| check.fault(mirror.to.place, message));
    }
    if !(mirror.share.value.0 > 0.0 && mirror.share.value.0 <= 100.0) {
        let message = "is no share of the requests; write a percentage above 0, up to 100";
        check.below("share", |check| check.fault(mirror.share.place, message));
    }
    if mirror.body.0 > REPLAY_BYTES_MAX {
        check.fault(mirror.place, "`body` is more than 16MiB, which many requests would add up");
    }
}

fn health(health: &At<Health>, check: &mut Reader) {
    if let Some(path) = &health.path
        && !(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        let message = format!("`{}` is no path; write it like /healthz", path.value);
        check.below("path", |check| check.fault(path.place, message));
    }
    if let Some(host) = &health.host
        && (host.starts_with('*') || !is_host(host))
    {
        let message = format!("`{}` is no host; write it like api.example.com", host.value);
        check.below("host", |check| check.fault(host.place, message));
    }
    if health.path.is_some() && health.grpc.is_some() {
        check.fault(health.place, "asks for `path` and for `grpc`; remove one of them");
    }
    if health.grpc.as_ref().is_some_and(|name| name.len() > GRPC_NAME_BYTES_MAX) {
        check.fault(
            health.place,
            "`grpc` is longer than 120 bytes; name the service as its proto does",
        );
    }
}

pub(super) fn name(name: &At<String>, check: &mut Reader) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let message = format!(
            "`{}` is no name; write letters, digits, `-`, `_` and `.`, at most {NAME_BYTES_MAX}",
            name.value
        );
        check.fault(name.place, message);
    }
}

/// A host as it is compared: in lower case, without the dot that ends a name of DNS.
pub(super) fn host_name(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_lowercase()
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address =
        is_literal.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    is_address || (!name.is_empty() && name.len() <= 253 && name.bytes().all(plain))
}

fn tracks(service: &Service, check: &mut Reader) {
    let tracks = &service.tracks;
    if tracks.0.is_empty() || tracks.0.len() > TRACKS_MAX {
        let message = format!("needs 1 to {TRACKS_MAX} tracks, like stable and canary");
        check.fault(tracks.place, message);
    }
    for (track_name, track) in &tracks.0 {
        check.below(&track_name.value, |check| {
            name(track_name, check);
            if track.endpoints.is_empty() {
                let message = "is empty; name at least one HOST:PORT";
                check.below("endpoints", |check| check.fault(track.endpoints.place, message));
            }
            transport(track, check);
        });
    }
}

/// Weights name known tracks and sum to 100; a track that is not named has none.
fn weights(service: &Service, weights: &At<Weights>, check: &mut Reader) {
    for (track, _) in &weights.0 {
        known_track(service, track, check);
    }
    let sum: u32 = weights.0.iter().map(|(_, weight)| u32::from(weight.value.basis_points())).sum();
    if sum != u32::from(BUCKETS) {
        let percent = f64::from(sum) / 100.0;
        check.fault(weights.place, format!("sums to {percent}; weights must sum to 100"));
    }
}

fn known_track(service: &Service, track: &At<String>, check: &mut Reader) {
    if service.tracks.get(track).is_none() {
        let known: Vec<&str> =
            service.tracks.0.iter().map(|(name, _)| name.value.as_str()).collect();
        let message =
            format!("`{}` is no track of this service; known: {}", track.value, known.join(", "));
        check.fault(track.place, message);
    }
}

fn rule(service: &Service, rule: &At<Rule>, check: &mut Reader) {
    if let Some(track) = &rule.track {
        check.below("track", |check| known_track(service, track, check));
    }
    if let Some(given) = &rule.weights {
        check.below("weights", |check| weights(service, given, check));
    }
    let answers = [rule.redirect.is_some(), rule.respond.is_some()];
    let targets = [rule.track.is_some(), rule.weights.is_some(), answers[0], answers[1]];
    let changes = rule.rewrite.is_some() || rule.headers != all_defaults();
    let count = targets.iter().filter(|is_given| **is_given).count();
    if count > 1 || (count == 0 && !changes) {
        let message = "needs exactly one of `track`, `weights`, `redirect` and `respond`, or \
            something to change: `rewrite` or `headers`";
        check.fault(rule.place, message);
    } else if changes && answers.contains(&true) {
        check.fault(rule.place, "answers at once; remove `rewrite` and `headers`");
    }
    check.below("headers", |check| heads::check_edits(&rule.headers, check));
    owned::check_guard(rule, check);
    if let Some(given) = &rule.rewrite {
        check.below("rewrite", |check| heads::check_rewrite(given, check));
    }
    if let Some(given) = &rule.redirect {
        check.below("redirect", |check| heads::check_redirect(given, check));
    }
    if let Some(given) = &rule.respond {
        check.below("respond", |check| heads::check_respond(given, check));
    }
    check.below("match", |check| {
        if rule.r#match.0.is_empty() {
            check.fault(rule.place, "is empty; name at least one condition");
        }
        for (index, one) in rule.r#match.0.iter().enumerate() {
            check.below_index(index, |check| one_match(one, check));
        }
    });
}

fn one_match(one: &At<Match>, check: &mut Reader) {
    let Match { headers, cookies, query, method, path, source, not_source } = &one.value;
    let is_empty = headers.0.is_empty()
        && cookies.0.is_empty()
        && query.0.is_empty()
        && method.0.is_empty()
        && path.is_none()
        && source.0.is_empty()
        && not_source.0.is_empty();
    if is_empty {
        check.fault(one.place, "has no condition, so it would match everything; name one");
    }
    check.below("headers", |check| headers.0.iter().for_each(|(name, _)| token(name, check)));
    check.below("cookies", |check| cookies.0.iter().for_each(|(name, _)| token(name, check)));
    check.below("method", |check| {
        for method in &method.0 {
            token(method, check);
            if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                let message = format!("methods are upper case; write {}", method.to_uppercase());
                check.fault(method.place, message);
            }
        }
    });
    if let Some(TextTest::Plain(start) | TextTest::Exact(start)) = path
        && !start.starts_with('/')
    {
        let message = format!("`{start}` is no path; write it like /api");
        check.below("path", |check| check.fault(one.place, message));
    }
}

pub(super) fn token(name: &At<String>, check: &mut Reader) {
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = format!("`{}` is no name of a header field or cookie", name.value);
        check.fault(name.place, message);
    }
}

/// No two services share a name, nor a host with a path on the same listener.
fn doubles(config: &Config, check: &mut Reader) {
    let services = &config.services;
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut claims: HashMap<(usize, String, Vec<u8>), usize> = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        if let Some(first) = names.insert(&service.name, index) {
            let message = format!(
                "`{}` is also the name of services[{first}]; names are unique",
                service.name.value
            );
            let fault = |check: &mut Reader| check.fault(service.name.place, message);
            check.below_index(index, |check| check.below("name", fault));
        }
        let any = [At { value: "any host".to_owned(), place: service.place }];
        let hosts = if service.hosts.is_empty() { &any[..] } else { &service.hosts[..] };
        let on = listeners::of(service, config);
        for host in hosts {
            for path in &service.paths {
                let prefix = path::configured(path);
                let prefix = prefix.strip_suffix(b"/").unwrap_or(&prefix);
                let claim = |on| claims.insert((on, host_name(host), prefix.to_vec()), index);
                let Some(first) = on.clone().find_map(claim) else { continue };
                let message = format!(
                    "`{}` with path `{}` also leads to services[{first}]; give them different \
                     hosts, paths or listeners",
                    host.value, path.value
                );
                check.below_index(index, |check| check.fault(host.place, message));
            }
        }
    }
}
