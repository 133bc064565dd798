//! Accepting connections and handing each to the worker that has the fewest.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;

use crate::memory::{Budget, NoPlace, Place};
use crate::state::State;

/// How long accepting rests when the process or system has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Pauses between two log lines that say so.
const PAUSES_PER_LINE: u64 = 50;

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The connection, not blocking.
    pub stream: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// The number of the listener that it came to.
    pub listener: usize,
    /// Counts towards the worker's load until dropped.
    pub load: LoadPermit,
    /// Its place among its source's.
    pub place: Arc<Place>,
}

/// Connections of one worker, those on their way included.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<AtomicUsize>);

/// One connection's part of a load.
#[derive(Debug)]
pub struct LoadPermit {
    load: Arc<AtomicUsize>,
}

impl Load {
    fn enter(&self) -> LoadPermit {
        self.0.fetch_add(1, Ordering::Relaxed);
        LoadPermit { load: Arc::clone(&self.0) }
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What accepting counts.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    pauses: AtomicU64,
    over_total: AtomicU64,
    over_source: AtomicU64,
    over_memory: AtomicU64,
}

impl AcceptCounters {
    /// How often accepting paused for want of file descriptors.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Connections closed at once by the limit that they were beyond: of all, of one source, of
    /// memory.
    #[must_use]
    pub fn rejected(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("total", count(&self.over_total)),
            ("source", count(&self.over_source)),
            ("memory", count(&self.over_memory)),
        ]
    }
}

/// What accepting goes by.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// Where connections go.
    pub workers: Vec<(Load, Sender<Accepted>)>,
    /// The limits in force.
    pub state: Arc<ArcSwap<State>>,
    /// What clients may have together.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub counters: Arc<AcceptCounters>,
}

impl Acceptor {
    /// Accepts from `listener`, which has a number, for as long as the returned future is polled.
    ///
    /// # Errors
    /// When the listener cannot be watched, or every worker is gone.
    pub async fn accept(self, number: usize, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.hand_over(stream.into_std()?, peer, number).await?,
                Err(error) => recover(&error, &self.counters).await,
            }
        }
    }

    /// Gives a connection to the worker that has the fewest, unless there are too many.
    async fn hand_over(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        listener: usize,
    ) -> io::Result<()> {
        let Some(place) = self.admit(peer.ip().to_canonical(), listener) else { return Ok(()) };
        let least = self.workers.iter().min_by_key(|(load, _)| load.0.load(Ordering::Relaxed));
        let (load, sender) = least.expect("there is a worker");
        let accepted = Accepted { stream, peer, listener, load: load.enter(), place };
        sender.send(accepted).await.map_err(|_| io::Error::other("the worker has ended"))
    }

    /// A place for one more connection, if there may be one.
    fn admit(&self, source: IpAddr, listener: usize) -> Option<Arc<Place>> {
        let state = self.state.load();
        let policy = &state.downstream;
        if let Some(most) = policy.connections_max.most(self.budget.connections()) {
            let open: usize =
                self.workers.iter().map(|(load, _)| load.0.load(Ordering::Relaxed)).sum();
            if open >= most as usize {
                self.counters.over_total.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        // Many clients come through a proxy of ours, or one that says who they are.
        let is_shared = state.trusted_proxies.iter().any(|net| net.contains(&source))
            || state.listeners.get(listener).is_some_and(|listener| listener.balancers.is_some());
        let most = if is_shared {
            None
        } else {
            policy.connections_per_source_max.most(self.budget.connections_per_source())
        };
        let place = self.budget.sources().enter(source, most);
        let counter = match &place {
            Ok(_) => return place.ok(),
            Err(NoPlace::TooMany) => &self.counters.over_source,
            Err(NoPlace::Short) => &self.counters.over_memory,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// A client that is gone already is no reason to wait; a full file table is.
async fn recover(error: &io::Error, counters: &AcceptCounters) {
    if !is_exhausted(error) {
        tracing::debug!(%error, "a connection was gone before it was accepted");
        return;
    }
    if counters.pauses.fetch_add(1, Ordering::Relaxed).is_multiple_of(PAUSES_PER_LINE) {
        tracing::warn!(%error, "accepting pauses; raise the limit of open files");
    }
    tokio::time::sleep(PAUSE).await;
}

/// No file descriptor, buffer or memory is left.
fn is_exhausted(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}
