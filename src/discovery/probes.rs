//! Active probes: one task per endpoint asks, its history says how the endpoint is.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::judge::rules::{CRASHES_MAX, EndpointHistory, Probe};
use crate::rollout::run::Health;
use crate::state::{ProbePolicy, State, Track};
use crate::upstream::{Endpoint, dial};

use super::ask;

/// A rule on what probes have seen of an endpoint.
type Rule = fn(&EndpointHistory) -> bool;

/// Probes of every endpoint that a rollout or a service's `health` asks for.
#[derive(Debug, Default)]
pub struct Prober {
    services: HashMap<String, Probed>,
}

/// The entries of a service by track.
#[derive(Debug, Default)]
struct Probed(HashMap<Box<str>, Vec<Entry>>);

impl Probed {
    fn of(&self, track: &str) -> &[Entry] {
        self.0.get(track).map_or(&[], |entries| entries)
    }
}

/// Probes of one endpoint in a row, good or failed, and what they come to.
#[derive(Clone, Copy, Debug)]
struct Row {
    is_good: bool,
    count: u32,
    is_up: bool,
}

impl Row {
    /// It has traffic until probes say otherwise.
    const NEW: Self = Self { is_good: true, count: 0, is_up: true };

    fn note(&mut self, is_good: bool, (fall, rise): (u32, u32)) {
        self.count = if self.is_good == is_good { self.count.saturating_add(1) } else { 1 };
        self.is_good = is_good;
        if self.count >= if is_good { rise } else { fall } {
            self.is_up = is_good;
        }
    }
}

/// One endpoint's probes; they end when it is dropped.
#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    policy: ProbePolicy,
    history: Arc<Mutex<EndpointHistory>>,
    row: Arc<Mutex<Row>>,
    /// Connects of the traffic itself that had been refused when last looked.
    refusals: AtomicU64,
    task: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Probes what `state` asks for; what is probed already goes on.
    pub fn follow(&mut self, state: &State) {
        let mut before = std::mem::take(&mut self.services);
        for service in &state.services {
            let Some(policy) = &service.probe else { continue };
            let name = service.live.name().to_owned();
            let mut known = before.remove(&name).unwrap_or_default();
            let follow = |track: &Track| {
                let known = known.0.remove(&track.name).unwrap_or_default();
                (track.name.clone(), follow_track(known, track, policy))
            };
            let probed = Probed(service.tracks.iter().map(follow).collect());
            self.services.insert(name, probed);
        }
    }

    /// What is known of a service's endpoints.
    #[must_use]
    pub fn health(&self, service: &str) -> Health {
        let Some(probed) = self.services.get(service) else {
            return Health {
                canary: (0, 0),
                stable: (0, 0),
                broken_rule: None,
                opinions: Vec::new(),
            };
        };
        let (stable, canary) = (probed.of("stable"), probed.of("canary"));
        stable.iter().chain(canary).for_each(Entry::note_refusals);
        let ready = |entries: &[Entry]| {
            (
                entries.iter().filter(|entry| entry.with(EndpointHistory::is_ready)).count(),
                entries.len(),
            )
        };
        let is_broken =
            |entries: &[Entry], rule: Rule| entries.iter().any(|entry| entry.with(rule));
        // A rule that stable breaks too says nothing of the canary.
        let rules: [[Rule; 2]; 2] = [
            [EndpointHistory::is_crashing, EndpointHistory::is_crashing],
            [EndpointHistory::is_unready, EndpointHistory::excuses_unready],
        ];
        let broken = rules
            .into_iter()
            .find(|[rule, excuse]| is_broken(canary, *rule) && !is_broken(stable, *excuse));
        let broken_rule = broken.and_then(|[rule, _]| {
            let entry = canary.iter().find(|entry| entry.with(rule))?;
            Some(entry.accuse())
        });
        Health { canary: ready(canary), stable: ready(stable), broken_rule, opinions: Vec::new() }
    }

    /// A new run begins: what the canary's endpoints did before is forgiven.
    ///
    /// # Panics
    /// When a probe's task panicked.
    pub fn forgive(&mut self, service: &str) {
        for entry in self.services.get(service).iter().flat_map(|probed| probed.of("canary")) {
            entry.history.lock().expect("no panic while held").forgive();
        }
    }

    /// Whether probes let an endpoint have traffic; `None` where nobody probes it.
    ///
    /// # Panics
    /// When a probe's task panicked.
    #[must_use]
    pub fn is_up(&self, service: &str, track: &str, address: SocketAddr) -> Option<bool> {
        let mut entries = self.services.get(service)?.of(track).iter();
        let entry = entries.find(|entry| entry.endpoint.address() == address)?;
        Some(entry.row.lock().expect("no panic while held").is_up)
    }
}

fn follow_track(mut before: Vec<Entry>, track: &Track, policy: &ProbePolicy) -> Vec<Entry> {
    let wanted = &track.endpoints[..];
    let is_wanted =
        |entry: &Entry| wanted.iter().any(|endpoint| Arc::ptr_eq(endpoint, &entry.endpoint));
    let (mut kept, gone): (Vec<Entry>, Vec<Entry>) =
        before.drain(..).partition(|entry| is_wanted(entry) && entry.policy == *policy);
    // An endpoint that was refusing and went was replaced by one that comes: its history goes on.
    let refusing =
        gone.iter().filter(|entry| !is_wanted(entry) && !entry.with(EndpointHistory::is_ready));
    let mut inherited: Vec<EndpointHistory> =
        refusing.map(|entry| entry.with(EndpointHistory::clone)).collect();
    inherited.iter_mut().for_each(EndpointHistory::replaced);
    for endpoint in wanted {
        if kept.iter().any(|entry| Arc::ptr_eq(&entry.endpoint, endpoint)) {
            continue;
        }
        let same = gone.iter().find(|entry| Arc::ptr_eq(&entry.endpoint, endpoint));
        let history = same.map(|entry| entry.with(EndpointHistory::clone));
        let history = history.or_else(|| inherited.pop()).unwrap_or_default();
        kept.push(Entry::start(endpoint, policy, history));
    }
    kept
}

impl Entry {
    fn start(endpoint: &Arc<Endpoint>, policy: &ProbePolicy, history: EndpointHistory) -> Self {
        let history = Arc::new(Mutex::new(history));
        let row = Arc::new(Mutex::new(Row::NEW));
        let noted_row = Arc::clone(&row);
        let (noted, policy) = (Arc::clone(&history), policy.clone());
        let (asked, target) = (policy.clone(), Arc::clone(endpoint));
        let task = tokio::spawn(async move {
            let mut pace = interval(asked.interval);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let Some(probe) = probe(&target, &asked).await else { continue };
                noted.lock().expect("no panic while held").probed(probe);
                let mut row = noted_row.lock().expect("no panic while held");
                row.note(probe == Probe::Ready, (asked.fall, asked.rise));
            }
        });
        let refusals = AtomicU64::new(endpoint.refusals());
        Self { endpoint: Arc::clone(endpoint), policy, history, row, refusals, task }
    }

    fn with<T>(&self, read: impl Fn(&EndpointHistory) -> T) -> T {
        read(&self.history.lock().expect("no panic while held"))
    }

    /// What the traffic found out sooner than the next probe.
    fn note_refusals(&self) {
        let refusals = self.endpoint.refusals();
        if refusals > self.refusals.swap(refusals, Ordering::Relaxed) {
            self.history.lock().expect("no panic while held").refused();
        }
    }

    fn accuse(&self) -> String {
        let address = self.endpoint.address();
        if self.with(EndpointHistory::is_crashing) {
            let crashes = self.with(EndpointHistory::crashes);
            return format!(
                "canary endpoint {address} crashed {crashes} times, {CRASHES_MAX} are let pass"
            );
        }
        let (failures, count) = self.with(EndpointHistory::failures);
        format!("canary endpoint {address} failed {failures} of its last {count} readiness probes")
    }
}

/// What a probe found; `None` when we ourselves had nothing left to ask with.
async fn probe(endpoint: &Endpoint, policy: &ProbePolicy) -> Option<Probe> {
    let asked = timeout(policy.timeout, ask::ask(endpoint, policy)).await;
    Some(match asked {
        Ok(Ok(true)) => Probe::Ready,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Probe::Refused,
        Ok(Err(error)) if dial::is_ours(&error) => return None,
        _ => Probe::NotReady,
    })
}
