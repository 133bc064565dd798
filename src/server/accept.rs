//! Accepting connections and handing each to the worker that has the fewest.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;

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

/// One connection's part of a load.
#[derive(Debug)]
pub struct LoadPermit(Arc<AtomicUsize>);

impl Load {
    fn enter(&self) -> LoadPermit {
        self.0.fetch_add(1, Ordering::Relaxed);
        LoadPermit(Arc::clone(&self.0))
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What accepting counts.
#[derive(Debug, Default)]
pub struct AcceptCounters {
    pauses: AtomicU64,
}

impl AcceptCounters {
    /// How often accepting paused for want of file descriptors.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }
}

/// Accepts from `listener`, which has a number, for as long as the returned future is polled.
///
/// # Errors
/// When the listener cannot be watched, or every worker is gone.
pub async fn accept(
    (number, listener): (usize, std::net::TcpListener),
    workers: Vec<(Load, Sender<Accepted>)>,
    counters: Arc<AcceptCounters>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let stream = stream.into_std()?;
                hand_over(&workers, |load| Accepted { stream, peer, listener: number, load })
                    .await?;
            }
            Err(error) => recover(&error, &counters).await,
        }
    }
}

async fn hand_over(
    workers: &[(Load, Sender<Accepted>)],
    accepted: impl FnOnce(LoadPermit) -> Accepted,
) -> io::Result<()> {
    let least = workers.iter().min_by_key(|(load, _)| load.0.load(Ordering::Relaxed));
    let (load, sender) = least.expect("there is a worker");
    sender.send(accepted(load.enter())).await.map_err(|_| io::Error::other("the worker has ended"))
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
