//! What `/api/v1/status` and `splitway status` show.

use serde_json::{Value as Json, json};

use crate::metrics::ReloadStatus;
use crate::record::Reason;
use crate::state::{Service, State, Track};

/// The whole gateway.
#[must_use]
pub fn gateway(state: &State, reload: &ReloadStatus, is_ready: bool) -> Json {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": is_ready,
        "config": {
            "last_reload_successful": reload.is_good(),
            "last_reload_success_s": reload.success_s(),
        },
        "services": state.services.iter().map(|one| service(one)).collect::<Vec<_>>(),
    })
}

/// One service.
#[must_use]
pub fn service(service: &Service) -> Json {
    json!({
        "name": service.live.name(),
        "epoch": service.live.split().load().epoch(),
        "rules": service.rules.len(),
        "sticky": service.sticky.is_some(),
        "tracks": service.tracks.iter().map(|one| track(service, one)).collect::<Vec<_>>(),
    })
}

fn track(service: &Service, track: &Track) -> Json {
    let shards: Vec<_> =
        service.live.shards().iter().map(|shard| shard.track(track.index)).collect();
    let assigned = |reason| shards.iter().map(|shard| shard.assigned(reason)).sum::<u64>();
    let statuses = |class: u16| -> u64 {
        let codes = class * 100..(class + 1) * 100;
        codes.map(|code| shards.iter().map(|shard| shard.status(code)).sum::<u64>()).sum()
    };
    json!({
        "name": track.name,
        "version": track.version,
        "weight": service.live.split().load().weight(track.index).ratio() * 100.0,
        "assigned": Reason::ALL.map(|reason| (reason.as_str(), assigned(reason)))
            .into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "statuses": { "1xx": statuses(1), "2xx": statuses(2), "3xx": statuses(3),
            "4xx": statuses(4), "5xx": statuses(5) },
        "endpoints": track.endpoints.iter().map(|endpoint| json!({
            "address": endpoint.address(),
            "connections": endpoint.connections(),
            "connect_failures": endpoint.failures(),
        })).collect::<Vec<_>>(),
    })
}
