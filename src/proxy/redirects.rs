//! Where the gateway itself sends clients: to the place that is meant, and to no other.

use crate::http1::reply::{self, Terms};
use crate::http1::{HeadError, RequestHead};

use super::client::Client;
use super::downstream::Downstream;
use super::failure::Failure;
use super::intake::{Parsed, answered, is_https, keeps_alive};
use super::local::LocalState;
use super::tell;
use super::worker::Worker;

/// The port under HTTPS that this request has to take, if it came in the clear and must not.
pub(super) fn https_port(
    state: &LocalState,
    client: &Client,
    head: &RequestHead<'_>,
) -> Option<u16> {
    let port = client.listener.redirect_https?;
    // A trusted proxy in front may have taken the TLS off already.
    (!is_https(state, client, head)).then_some(port)
}

/// Sends a client that came in the clear to the same place under HTTPS, and to no other: not to a
/// host that nobody serves here, nor to one of two that a request names.
#[cold]
pub(super) fn to_https(
    worker: &Worker,
    downstream: &Downstream,
    state: &LocalState,
    head: &RequestHead<'_>,
    port: u16,
) -> Result<Parsed, Failure> {
    if head.method == b"CONNECT" {
        return Err(Failure::Connect);
    }
    if head.host().is_empty() || head.names_two_hosts() {
        return Err(Failure::BadHead(HeadError::Host));
    }
    if !state.shared.has_host(head.host()) {
        return Err(Failure::NoService);
    }
    let mut reply = worker.spare();
    let (date, keep_alive) = (&worker.date(), keeps_alive(head));
    let terms = Terms { date, keep_alive, to_head: false };
    reply::redirect(&mut reply, 308, &https_location(head, port), &terms);
    let told = tell::of_own(downstream, state, head);
    Ok(answered(head, (308, reply), None, told))
}

fn https_location(head: &RequestHead<'_>, port: u16) -> Vec<u8> {
    let host = head.host();
    let name_end = match host.first() {
        Some(b'[') => memchr::memchr(b']', host).map_or(host.len(), |close| close + 1),
        _ => memchr::memchr(b':', host).unwrap_or(host.len()),
    };
    let mut location = [b"https://", &host[..name_end]].concat();
    location.make_ascii_lowercase();
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    // `*` is the server as a whole, which a location says by having no path (RFC 9112 §3.2.4).
    if head.path_and_query != b"*" {
        location.extend_from_slice(head.path_and_query);
    }
    location
}

/// A place with the request's path and query behind it. Where the place is a path itself, what is
/// behind it must not become a host: `//host`, or `/\\host` to browsers.
pub(super) fn location(to: &[u8], path_and_query: &[u8]) -> Vec<u8> {
    let mut more = if path_and_query == b"*" { b"" } else { path_and_query };
    while to.is_empty() && matches!(more.get(1), Some(b'/' | b'\\')) {
        more = &more[1..];
    }
    // A path that began with `\` only, or `*`, leaves the place itself.
    match (to, more.first()) {
        (b"", Some(b'/')) => more.to_vec(),
        (b"", _) => [b"/", more.get(1..).unwrap_or_default()].concat(),
        _ => [to, more].concat(),
    }
}
