//! Accepting connections and handing each to the worker that has the fewest.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;

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
}

/// Connections of one worker, those on their way included.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<AtomicUsize>);

/// One connection's part of a load, and of its source's connections.
#[derive(Debug)]
pub struct LoadPermit {
    load: Arc<AtomicUsize>,
    _source: Option<SourcePermit>,
}

/// Connections by source, over all listeners and workers.
///
/// Locked when a connection comes and goes, never for a request.
#[derive(Debug, Default)]
pub struct Sources(Mutex<HashMap<IpAddr, u32>>);

#[derive(Debug)]
struct SourcePermit(Arc<Sources>, IpAddr);

impl Sources {
    /// Asks for one more connection of `source`.
    fn enter(self: &Arc<Self>, source: IpAddr, most: u32) -> Option<SourcePermit> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(SourcePermit(Arc::clone(self), source))
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let mut sources = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.1);
            }
        }
    }
}

impl Load {
    fn enter(&self, source: Option<SourcePermit>) -> LoadPermit {
        self.0.fetch_add(1, Ordering::Relaxed);
        LoadPermit { load: Arc::clone(&self.0), _source: source }
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
}

impl AcceptCounters {
    /// How often accepting paused for want of file descriptors.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Connections closed at once by the limit that they were beyond: of all, of one source.
    #[must_use]
    pub fn rejected(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("total", count(&self.over_total)), ("source", count(&self.over_source))]
    }
}

/// What accepting goes by.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// Where connections go.
    pub workers: Vec<(Load, Sender<Accepted>)>,
    /// The limits in force.
    pub state: Arc<ArcSwap<State>>,
    /// Connections by source.
    pub sources: Arc<Sources>,
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
        let Some(source) = self.admit(peer.ip().to_canonical()) else { return Ok(()) };
        let least = self.workers.iter().min_by_key(|(load, _)| load.0.load(Ordering::Relaxed));
        let (load, sender) = least.expect("there is a worker");
        let accepted = Accepted { stream, peer, listener, load: load.enter(source) };
        sender.send(accepted).await.map_err(|_| io::Error::other("the worker has ended"))
    }

    /// Whether one more connection may be held; with its source's permit where these are limited.
    #[expect(clippy::option_option, reason = "admitted or not, limited or not")]
    fn admit(&self, source: IpAddr) -> Option<Option<SourcePermit>> {
        let state = self.state.load();
        let policy = &state.downstream;
        if let Some(most) = policy.connections_max {
            let open: usize =
                self.workers.iter().map(|(load, _)| load.0.load(Ordering::Relaxed)).sum();
            if open >= most as usize {
                self.counters.over_total.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        let Some(most) = policy.connections_per_source_max else { return Some(None) };
        let permit = self.sources.enter(source, most);
        if permit.is_none() {
            self.counters.over_source.fetch_add(1, Ordering::Relaxed);
        }
        permit.map(Some)
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
