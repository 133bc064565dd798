//! Exposition: what workers counted, as Prometheus reads it. The only user of `prometheus`.
//!
//! Families are built at scrape time from the sharded counters, on the control thread; nothing of
//! `prometheus` is ever touched by a request.

pub mod collect;
pub mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use prometheus::{Encoder, Registry, TextEncoder};

use crate::calendar::wall_ms;
use crate::memory::Budget;
use crate::notify;
use crate::otlp;
use crate::proxy::DownstreamCounters;
use crate::rollout::Report;
use crate::server::AcceptCounters;
use crate::state::State;

/// The media type of [`Exposition::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// How the last reload went.
#[derive(Debug, Default)]
pub struct ReloadStatus {
    is_bad: AtomicBool,
    success_s: AtomicU64,
}

impl ReloadStatus {
    /// Notes a reload, or the load at start.
    pub fn note(&self, is_good: bool) {
        self.is_bad.store(!is_good, Ordering::Relaxed);
        if is_good {
            self.success_s.store(wall_ms() / 1_000, Ordering::Relaxed);
        }
    }

    /// Whether the last one succeeded.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.is_bad.load(Ordering::Relaxed)
    }

    /// When one last did, in seconds since 1970.
    #[must_use]
    pub fn success_s(&self) -> u64 {
        self.success_s.load(Ordering::Relaxed)
    }
}

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The state in force.
    pub state: Arc<ArcSwap<State>>,
    /// Each worker's counts of its clients.
    pub downstream: Vec<Arc<DownstreamCounters>>,
    /// What accepting counted.
    pub accept: Arc<AcceptCounters>,
    /// What clients hold, and may.
    pub budget: Arc<Budget>,
    /// How reloads went.
    pub reload: Arc<ReloadStatus>,
    /// What every rollout does.
    pub report: Arc<ArcSwap<Report>>,
    /// What became of notifications.
    pub notified: Arc<notify::Counts>,
    /// What became of traced requests.
    pub traced: Arc<otlp::Counts>,
}

/// Renders the metrics.
pub struct Exposition(Registry);

impl Exposition {
    /// An exposition of `sources`.
    ///
    /// # Panics
    /// Never: the families have distinct, valid names, which a test checks.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let registry = Registry::new();
        let collector = Box::new(collect::Collector::new(sources));
        registry.register(collector).expect("the names of the table are valid and distinct");
        Self(registry)
    }

    /// The metrics in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // A Vec takes every write, and families are valid by construction.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut text);
        text
    }
}
