//! The live feed: a sample a second for the history, and an event for everybody who watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::calendar::wall_ms;
use crate::plain;
use crate::rollout::Report;

use super::api::Admin;
use super::series::Series;

/// Watchers at a time; a page is one.
pub const WATCHERS_MAX: usize = 32;
/// Events that a slow watcher may be behind; what comes on top it misses, and the next event has
/// everything.
const BEHIND_MAX: usize = 4;
/// Events in a row that a watcher may miss: half a minute. One that reads no more makes room.
const MISSED_MAX: u32 = 30;
/// How often a transition is looked for: a rollback is on the page that soon.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks from one sample to the next: a second.
const LOOKS_PER_SAMPLE: u32 = 5;

/// The history and who watches it. Only the control thread comes here, so the locks never wait.
#[derive(Debug, Default)]
pub struct Feed {
    series: Mutex<Series>,
    watchers: Mutex<Watchers>,
}

#[derive(Debug, Default)]
struct Watchers {
    /// Each with the events that it has missed in a row.
    senders: Vec<(mpsc::Sender<Bytes>, u32)>,
    /// What a new watcher is shown at once.
    last: Option<Bytes>,
}

impl Feed {
    /// The events from now on, or nothing where too many watch.
    #[must_use]
    pub fn watch(&self) -> Option<mpsc::Receiver<Bytes>> {
        let mut watchers = lock(&self.watchers);
        watchers.senders.retain(|(sender, _)| !sender.is_closed());
        if watchers.senders.len() >= WATCHERS_MAX {
            return None;
        }
        let (sender, events) = mpsc::channel(BEHIND_MAX);
        if let Some(last) = &watchers.last {
            // The channel is empty.
            let _ = sender.try_send(last.clone());
        }
        watchers.senders.push((sender, 0));
        Some(events)
    }

    /// The history of a service over a window; see [`Series::columns`].
    #[must_use]
    pub fn columns(&self, service: &str, window: &str) -> Option<Json> {
        lock(&self.series).columns(service, window)
    }

    fn tell(&self, event: &Json) {
        let event = plain::json(&event.to_string()).into_owned();
        let event = Bytes::from(format!("event: status\ndata: {event}\n\n"));
        let mut watchers = lock(&self.watchers);
        watchers.senders.retain_mut(|(sender, missed)| match sender.try_send(event.clone()) {
            Ok(()) => {
                *missed = 0;
                true
            }
            Err(TrySendError::Full(_)) => {
                *missed += 1;
                *missed < MISSED_MAX
            }
            Err(TrySendError::Closed(_)) => false,
        });
        watchers.last = Some(event);
    }

    fn is_watched(&self) -> bool {
        !lock(&self.watchers).senders.is_empty()
    }
}

/// Ends every stream when the process stops to answer: a successor has the next event.
struct EndStreams<'a>(&'a Feed);

impl Drop for EndStreams<'_> {
    fn drop(&mut self) {
        *lock(&self.0.watchers) = Watchers::default();
    }
}

/// Samples and tells, for as long as it is polled.
pub async fn follow(admin: Arc<Admin>) {
    let _end = EndStreams(&admin.feed);
    let mut looks = interval_at(Instant::now(), LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut transitions) = (0_u32, 0_u64);
    loop {
        looks.tick().await;
        let is_sample = count.is_multiple_of(LOOKS_PER_SAMPLE);
        count = count.wrapping_add(1);
        if is_sample {
            sample(&admin);
        }
        let now = transitions_of(&admin.report.load());
        if (is_sample || now != transitions) && admin.feed.is_watched() {
            admin.feed.tell(&event(&admin));
        }
        transitions = now;
    }
}

fn sample(admin: &Admin) {
    let (state, report) = (admin.state.load(), admin.report.load());
    let services = state.services.iter();
    let services = services.map(|one| (&**one, report.service(one.live.name())));
    lock(&admin.feed.series).sample(wall_ms() / 1_000, services);
}

fn event(admin: &Admin) -> Json {
    let points = lock(&admin.feed.series).last();
    json!({ "at_ms": wall_ms(), "status": admin.status_json(), "points": points })
}

/// Every transition of every service since the process started.
fn transitions_of(report: &Report) -> u64 {
    report.services.iter().flat_map(|service| service.tallies.transitions).sum()
}

/// A task that panicked left nothing half done that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_reads_no_more_makes_room() {
        let feed = Feed::default();
        let mut reads = feed.watch().expect("there is room");
        let silent: Vec<_> =
            (1..WATCHERS_MAX).map(|_| feed.watch().expect("there is room")).collect();
        assert!(feed.watch().is_none(), "all places are taken");
        for _ in 0..BEHIND_MAX + MISSED_MAX as usize {
            feed.tell(&json!({}));
            reads.try_recv().expect("an event for whoever reads");
        }
        assert_eq!(lock(&feed.watchers).senders.len(), 1, "of {} silent ones", silent.len());
        assert!(feed.watch().is_some());
    }
}
