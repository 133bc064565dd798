//! Looks after endpoints: what probes and failures say becomes one word per endpoint, which the
//! balancing reads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::state::{EjectionPolicy, Service, State, Track};
use crate::upstream::Endpoint;
use crate::upstream::endpoint::FULL;

use super::outliers::{Counts, Outlier, blamed};
use super::probes::Prober;

/// Standings of every endpoint, by service and track.
#[derive(Debug, Default)]
pub struct Tender {
    watched: HashMap<Key, Watched>,
    /// What is there at the first look needs no warming; what comes later does.
    has_looked: bool,
}

/// Service, track, and what tells the endpoint apart.
type Key = (Box<str>, Box<str>, (SocketAddr, u64));

#[derive(Debug)]
struct Watched {
    outlier: Outlier,
    /// Since when it takes part again; slow start begins here.
    since_s: f64,
    is_in: bool,
}

impl Tender {
    /// Looks at everything and tells the balancing. Times are in seconds of the process clock.
    pub fn tend(&mut self, state: &State, prober: &Prober, now_s: f64) {
        let mut words = HashMap::new();
        let mut seen = HashMap::new();
        for service in &state.services {
            for track in &service.tracks {
                self.tend_track(service, track, prober, now_s, &mut words, &mut seen);
            }
        }
        self.watched = seen;
        self.has_looked = true;
        for (endpoint, word) in words.into_values() {
            let endpoint: Arc<Endpoint> = endpoint;
            endpoint.set_standing(word);
        }
    }

    fn tend_track(
        &mut self,
        service: &Service,
        track: &Track,
        prober: &Prober,
        now_s: f64,
        words: &mut HashMap<(SocketAddr, u64), (Arc<Endpoint>, u8)>,
        seen: &mut HashMap<Key, Watched>,
    ) {
        let name = service.live.name();
        let mut watched: Vec<Watched> = Vec::new();
        for endpoint in &track.endpoints {
            let key = (name.into(), track.name.clone(), endpoint.key());
            let known = self.watched.remove(&key);
            let since_s = if self.has_looked { now_s } else { f64::MIN };
            watched.push(known.unwrap_or_else(|| Watched {
                outlier: Outlier::default(),
                since_s,
                is_in: true,
            }));
        }
        let ins = standings(service, track, prober, now_s, &mut watched);
        for (endpoint, (one, is_in)) in track.endpoints.iter().zip(watched.iter_mut().zip(ins)) {
            if is_in && !one.is_in {
                one.since_s = now_s;
            }
            one.is_in = is_in;
            let word =
                if is_in { warmth(service.balance.slow_start_s, now_s - one.since_s) } else { 0 };
            let entry = words.entry(endpoint.key());
            let entry = entry.or_insert_with(|| (Arc::clone(endpoint), FULL));
            entry.1 = entry.1.min(word);
        }
        for (endpoint, one) in track.endpoints.iter().zip(watched) {
            seen.insert((name.into(), track.name.clone(), endpoint.key()), one);
        }
    }

    /// The endpoint that most of the canary's failures are of, in words.
    #[must_use]
    pub fn blames(&self, state: &State, service: &str) -> Option<String> {
        let found = state.services.iter().find(|one| one.live.name() == service)?;
        let track = found.tracks.iter().find(|track| &*track.name == "canary")?;
        let window = |endpoint: &Arc<Endpoint>| {
            let key = (service.into(), track.name.clone(), endpoint.key());
            self.watched.get(&key).map_or((0, 0), |one| one.outlier.window())
        };
        let windows: Vec<(u64, u64)> = track.endpoints.iter().map(window).collect();
        let (position, failures, all) = blamed(&windows)?;
        let address = track.endpoints[position].address();
        Some(format!("{failures} of the canary's last {all} failures are of {address}"))
    }
}

/// Which endpoints take part.
fn standings(
    service: &Service,
    track: &Track,
    prober: &Prober,
    now_s: f64,
    watched: &mut [Watched],
) -> Vec<bool> {
    let name = service.live.name();
    let probed: Vec<bool> = track
        .endpoints
        .iter()
        .map(|endpoint| prober.is_up(name, &track.name, endpoint.address()).unwrap_or(true))
        .collect();
    if let Some((policy, share)) = &service.ejection {
        let mut ejected = watched.iter().filter(|one| one.outlier.is_ejected()).count();
        for (endpoint, one) in track.endpoints.iter().zip(watched.iter_mut()) {
            let before = one.outlier.is_ejected();
            let fault = one.outlier.look(policy, now_s, counts(endpoint));
            if before && !one.outlier.is_ejected() {
                ejected -= 1;
                tracing::info!(endpoint = %endpoint.address(), service = name, "endpoint is back");
            }
            let Some(fault) = fault else { continue };
            // Never more than the share, or what is left would break down next.
            if (ejected + 1) * 100 > track.endpoints.len() * usize::from(*share) {
                continue;
            }
            ejected += 1;
            one.outlier.eject(policy, now_s);
            endpoint.note_ejection();
            let endpoint = endpoint.address();
            tracing::warn!(%endpoint, service = name, track = &*track.name, %fault, "endpoint is ejected");
        }
    } else {
        // Looked at all the same: `explain` blames by name.
        for (endpoint, one) in track.endpoints.iter().zip(watched.iter_mut()) {
            one.outlier.look(&BLAME, now_s, counts(endpoint));
        }
    }
    let mut ins: Vec<bool> =
        probed.iter().zip(watched).map(|(up, one)| *up && !one.outlier.is_ejected()).collect();
    let healthy = ins.iter().filter(|is_in| **is_in).count();
    let is_panic = healthy * 100 < ins.len() * usize::from(service.balance.panic_share);
    let can_move = service.failover.iter().any(|(from, _)| *from == track.index);
    // Few that are good would be crushed by the traffic of all; none at all is a reason to go
    // elsewhere, if there is a place to go to.
    if is_panic && !(healthy == 0 && can_move) {
        ins.fill(true);
    }
    ins
}

/// How long failures are looked at where nothing is ejected.
const BLAME: EjectionPolicy = EjectionPolicy {
    consecutive: None,
    failure_share: None,
    requests_min: 0,
    window_s: 30.0,
    base_s: 0.0,
    max_s: 0.0,
};

fn counts(endpoint: &Endpoint) -> Counts {
    let (requests, failures, row) = endpoint.tallied();
    Counts { requests, failures, row }
}

/// The share of its due that an endpoint gets so long after it came, in percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to 1 to 100")]
fn warmth(slow_start_s: Option<f64>, since_s: f64) -> u8 {
    let Some(slow_start_s) = slow_start_s else { return FULL };
    (since_s / slow_start_s * 100.0).clamp(1.0, f64::from(FULL)) as u8
}
