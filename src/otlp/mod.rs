//! Spans of traced requests, exported to an OpenTelemetry collector: OTLP over HTTP, binary.
//!
//! A thread of its own takes what the workers left, twice a second, and sends it. A collector that
//! hangs or fails costs spans, never a request.

mod encode;
mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::outbound::Contact;
use crate::telemetry::{Traced, Waiting};

use message::ExportTraceServiceResponse;

/// How often what waits is sent.
const EVERY: Duration = Duration::from_millis(500);
/// Requests that are sent at once; with retries and long values that is a few hundred KiB.
const BATCH_MAX: usize = 256;
/// How often a batch is sent before it is given up …
const TRIES_MAX: u32 = 4;
/// … with this pause, doubled each time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last spans.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Who takes them.
    pub contact: Contact,
    /// What this gateway is called there.
    pub service_name: String,
}

/// What became of traced requests.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Requests whose spans a collector took.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Requests whose spans no collector took.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The exporter.
#[derive(Debug)]
pub struct Exporter {
    target: Arc<ArcSwapOption<Target>>,
    counts: Arc<Counts>,
    closing: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Exporter {
    /// An exporter of what is `waiting`; `clock` tells the process clock in nanoseconds.
    ///
    /// # Errors
    /// When its thread cannot be made.
    pub fn start(
        waiting: Waiting,
        clock: impl Fn() -> u64 + Send + 'static,
    ) -> std::io::Result<Self> {
        let (target, counts) = (Arc::<ArcSwapOption<Target>>::default(), Arc::<Counts>::default());
        let (closing, is_closing) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = Work {
            waiting,
            clock: Box::new(clock),
            target: Arc::clone(&target),
            counts: Arc::clone(&counts),
            is_failing: false,
        };
        std::thread::Builder::new().name("otlp".into()).spawn(move || {
            runtime.block_on(work.run(is_closing));
            // Nobody may be waiting for the end.
            let _ = end.send(());
        })?;
        Ok(Self { target, counts, closing, ended })
    }

    /// Sends spans there from now on; nowhere: they are thrown away.
    pub fn follow(&self, target: Option<Target>) {
        self.target.store(target.map(Arc::new));
    }

    /// What became of traced requests.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Sends what still waits, for a moment at most.
    pub async fn close(self) {
        if self.closing.send(()).is_ok()
            && tokio::time::timeout(CLOSE_TIMEOUT, self.ended).await.is_err()
        {
            tracing::warn!("the collector is behind; the last spans are lost");
        }
    }
}

/// The thread's belongings.
struct Work {
    waiting: Waiting,
    clock: Box<dyn Fn() -> u64 + Send>,
    target: Arc<ArcSwapOption<Target>>,
    counts: Arc<Counts>,
    /// The last batch was not taken: that has been said.
    is_failing: bool,
}

impl Work {
    async fn run(mut self, mut closing: oneshot::Receiver<()>) {
        loop {
            // Whoever wants the end may also have gone without a word.
            let is_last = tokio::time::timeout(EVERY, &mut closing).await.is_ok();
            loop {
                let Some(batch) = self.waiting.take(BATCH_MAX) else { return };
                if batch.is_empty() {
                    break;
                }
                self.deliver(&batch, is_last).await;
            }
            if is_last {
                return;
            }
        }
    }

    /// Sends a batch until it is taken or given up. The last ones are sent once.
    async fn deliver(&mut self, batch: &[Box<Traced>], is_last: bool) {
        let Some(target) = self.target.load_full() else { return };
        let body = encode::request(&target.service_name, batch, self.epoch_ns()).encode_to_vec();
        let mut pause = RETRY_PAUSE;
        let mut tries = 0;
        let why = loop {
            tries += 1;
            match send(&target, body.clone()).await {
                Ok(()) => {
                    self.counts.exported.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!(
                            collector = target.contact.url.origin(),
                            "spans are taken again"
                        );
                    }
                    return;
                }
                Err(refused) if refused.is_final || tries == TRIES_MAX || is_last => {
                    break refused.why;
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        };
        self.counts.failed.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            let collector = target.contact.url.origin();
            tracing::warn!(collector, why, "spans are lost until it takes them again");
        }
    }

    /// When the process clock stood at 0, by the wall clock as it is now.
    fn epoch_ns(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub((self.clock)())
    }
}

/// Why a batch was not taken.
struct Refused {
    why: String,
    /// Sending it again would change nothing.
    is_final: bool,
}

async fn send(target: &Target, body: Vec<u8>) -> Result<(), Refused> {
    let answer = target.contact.post("application/x-protobuf", HeaderMap::new(), body).await;
    let answer = answer.map_err(|error| Refused { why: error.to_string(), is_final: false })?;
    if answer.status != 200 {
        // OTLP names these four as worth another try.
        let is_final = !matches!(answer.status, 429 | 502 | 503 | 504);
        return Err(Refused { why: format!("it answers {}", answer.status), is_final });
    }
    // A collector that takes a part says so; what else it answers is of no interest.
    let taken = ExportTraceServiceResponse::decode(answer.body).unwrap_or_default();
    match taken.partial_success {
        Some(part) if part.rejected_spans > 0 => {
            let why = format!("it refused {} spans: {}", part.rejected_spans, part.error_message);
            Err(Refused { why, is_final: true })
        }
        _ => Ok(()),
    }
}
