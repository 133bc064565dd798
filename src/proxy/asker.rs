//! Who asks: for rate limits, and for balance by key.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::route::View;
use crate::route::rate::Asker;
use crate::state::BalanceBy;

use super::client::Client;
use super::failure::Failure;
use super::local::LocalService;
use super::worker::Worker;

/// Refuses, and counts, what whoever sent it may not send now.
pub(super) fn hold_to_rate(
    worker: &Worker,
    service: &LocalService,
    view: &View<'_>,
    client: &Client,
) -> Result<(), Failure> {
    let Some(limit) = &service.shared.rate_limit else { return Ok(()) };
    let (octets, count) = match view.source.counted_by() {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 4),
        // Whoever has one address of IPv6 has the whole /64.
        IpAddr::V6(address) => (address.to_bits(), 8),
    };
    let octets = octets.to_be_bytes();
    let (address, connection) = (&octets[..count], client.peer.port());
    let now_ns = worker.clock.now_ns();
    let admits =
        |key: Option<&[u8]>| limit.table.admits(Asker { address, connection, key }, now_ns);
    let mut by_key = None;
    if let Some(header) = limit.header.as_deref() {
        view.headers.any(header, &mut |value| {
            // An empty key is none.
            by_key = (!value.is_empty()).then(|| admits(Some(value)));
            by_key.is_some()
        });
    }
    if by_key.unwrap_or_else(|| admits(None)) {
        return Ok(());
    }
    service.recorder.count_limited();
    Err(Failure::RateLimited)
}

/// What its endpoint is chosen by, where that is whoever asks.
pub(super) fn balance_key(service: &LocalService, view: &View<'_>) -> u64 {
    match &service.shared.balance.by {
        BalanceBy::Key(header) => key_of(header.as_deref(), view),
        BalanceBy::LeastRequests | BalanceBy::RoundRobin => 0,
    }
}

/// What tells who asks: the value of a field, else the source.
fn key_of(header: Option<&str>, view: &View<'_>) -> u64 {
    let mut key = None;
    if let Some(header) = header {
        view.headers.any(header, &mut |value| {
            key = (!value.is_empty()).then(|| xxh3_64(value));
            key.is_some()
        });
    }
    key.unwrap_or_else(|| match view.source.counted_by() {
        IpAddr::V4(address) => xxh3_64(&address.octets()),
        // Whoever has one address of IPv6 has the whole /64.
        IpAddr::V6(address) => xxh3_64(&address.octets()[..8]),
    })
}
