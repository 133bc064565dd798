//! Notifications: news of rollouts, sent to webhooks. Each receiver has a queue and a task of its
//! own; one that hangs or fails loses its own news, and delays nothing else.

pub mod event;
pub mod format;
mod signature;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::calendar::wall_ms;
use crate::outbound::Contact;
use crate::rollout::Report;

pub use event::{Event, Kind};
pub use format::Format;
pub use signature::Secret;

use event::Told;

/// News that wait for a receiver; what comes on top is dropped and counted.
const QUEUE_MAX: usize = 256;
/// The first pause before a news is sent again; doubled each time …
const RETRY_MIN: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Who is told what, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// Its name, in logs and metrics.
    pub name: String,
    /// Where it is.
    pub webhook: Contact,
    /// How it wants to be told.
    pub format: Format,
    /// Of what.
    pub events: Vec<Kind>,
    /// Of which services; empty: all.
    pub services: Vec<String>,
    /// What news are signed with.
    pub secret: Option<Secret>,
    /// How often a news is sent again.
    pub retries: u32,
}

/// What became of the news, by receiver: sent, failed, dropped.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<String, [u64; 3]>>);

/// The labels of the counts, in their order.
pub const RESULTS: [&str; 3] = ["sent", "failed", "dropped"];

impl Counts {
    fn add(&self, receiver: &str, result: usize) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(receiver.to_owned()).or_default()[result] += 1;
    }

    /// The counts by receiver.
    #[must_use]
    pub fn all(&self) -> Vec<(String, [u64; 3])> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(name, counts)| (name.clone(), *counts)).collect()
    }
}

/// Every receiver, and what has been told.
#[derive(Debug, Default)]
pub struct Notifier {
    receivers: Vec<Queue>,
    told: Told,
    counts: Arc<Counts>,
}

/// A receiver with its queue.
#[derive(Debug)]
struct Queue {
    receiver: Receiver,
    sender: mpsc::Sender<Event>,
    task: JoinHandle<()>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Notifier {
    /// What became of the news.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Tells the receivers of the configuration from now on; those that did not change keep what
    /// waits for them.
    pub fn follow(&mut self, wanted: Vec<Receiver>) {
        let mut before = std::mem::take(&mut self.receivers);
        for receiver in wanted {
            let known = before.iter().position(|one| one.receiver == receiver);
            let one = known.map(|position| before.swap_remove(position));
            let one = one.unwrap_or_else(|| {
                let (sender, waiting) = mpsc::channel(QUEUE_MAX);
                let task = deliver(receiver.clone(), waiting, Arc::clone(&self.counts));
                Queue { receiver, sender, task: tokio::spawn(task) }
            });
            self.receivers.push(one);
        }
    }

    /// Queues what is new in `report`. Never waits.
    pub fn tell(&mut self, report: &Report, now_ms: u64) {
        for event in self.told.news(report, now_ms) {
            for one in &self.receivers {
                let services = &one.receiver.services;
                let is_meant = services.is_empty()
                    || event.service.is_empty()
                    || services.contains(&event.service);
                if !is_meant || !one.receiver.events.contains(&event.kind) {
                    continue;
                }
                if one.sender.try_send(event.clone()).is_err() {
                    self.counts.add(&one.receiver.name, 2);
                    tracing::warn!(
                        receiver = one.receiver.name,
                        "a notification is dropped: too many wait"
                    );
                }
            }
        }
    }
}

/// Sends one news after the other.
async fn deliver(receiver: Receiver, mut waiting: mpsc::Receiver<Event>, counts: Arc<Counts>) {
    while let Some(event) = waiting.recv().await {
        let mut pause = RETRY_MIN;
        let mut attempt = 0;
        let result = loop {
            let Err(why) = send(&receiver, &event).await else { break 0 };
            attempt += 1;
            if attempt > receiver.retries || why.is_final {
                let (receiver, why) = (&receiver.name, why.text);
                tracing::warn!(
                    receiver,
                    event = event.id,
                    why,
                    attempt,
                    "a notification is given up"
                );
                break 1;
            }
            tracing::debug!(
                receiver = receiver.name,
                why = why.text,
                attempt,
                "a notification is sent again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        };
        counts.add(&receiver.name, result);
    }
}

/// Why a news was not taken.
struct Refused {
    text: String,
    /// Sending it again would change nothing.
    is_final: bool,
}

async fn send(receiver: &Receiver, event: &Event) -> Result<(), Refused> {
    let body = receiver.format.body(event).to_string().into_bytes();
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let now_s = wall_ms() / 1_000;
    add("webhook-id", &event.id);
    add("webhook-timestamp", &now_s.to_string());
    if let Some(secret) = &receiver.secret {
        add("webhook-signature", &secret.sign(&event.id, now_s, &body));
    }
    match receiver.webhook.post(receiver.format.content_type(), headers, body).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        // 408 and 429 ask for another try; other faults of the request stay faults.
        Ok(answer) => Err(Refused {
            text: format!("it answers {}", answer.status),
            is_final: matches!(answer.status, 400..=407 | 409..=428 | 430..=499),
        }),
        Err(error) => Err(Refused { text: error.to_string(), is_final: false }),
    }
}
