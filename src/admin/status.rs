//! What `/api/v1/status` and `splitway status` show.

use serde_json::{Value as Json, json};

use crate::metrics::ReloadStatus;
use crate::record::Reason;
use crate::rollout::Report;
use crate::rollout::report::ServiceReport;
use crate::state::{Service, State, Track};

/// The whole gateway.
#[must_use]
pub fn gateway(state: &State, report: &Report, reload: &ReloadStatus, is_ready: bool) -> Json {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": is_ready,
        "config": {
            "last_reload_successful": reload.is_good(),
            "last_reload_success_s": reload.success_s(),
        },
        "journal": { "fault": report.journal_fault, "in_memory": report.in_memory },
        "services": state.services.iter().map(|one| service(one, report)).collect::<Vec<_>>(),
    })
}

/// One service.
#[must_use]
pub fn service(service: &Service, report: &Report) -> Json {
    json!({
        "name": service.live.name(),
        "rollout": report.service(service.live.name()),
        "epoch": service.live.split().load().epoch(),
        "rules": service.rules.len(),
        "sticky": service.sticky.is_some(),
        "tracks": service.tracks.iter().map(|one| track(service, one)).collect::<Vec<_>>(),
    })
}

/// Why a rollout stands where it stands.
#[must_use]
pub fn explain(rollout: &ServiceReport) -> Json {
    json!({
        "service": rollout.service,
        "phase": rollout.phase,
        "weight": f64::from(rollout.weight.basis_points()) / 100.0,
        "explain": rollout.explain,
        "pardoned": rollout.pardoned,
        "e": rollout.e,
        "hold": rollout.hold,
        "limit": rollout.limit,
        "pots": { "errors": rollout.pots[0], "p99": rollout.pots[1], "p90": rollout.pots[2] },
        "proofs": { "errors": rollout.proofs[0], "latency": rollout.proofs[1] },
        "proof_limit": rollout.proof_limit,
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
            "state": endpoint.state(),
            "standing": endpoint.standing(),
            "ejections": endpoint.ejections(),
        })).collect::<Vec<_>>(),
    })
}
