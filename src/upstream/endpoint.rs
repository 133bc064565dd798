//! One address of a track, shared by all workers: its connections and its back-off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::transport::Transport;

/// First back-off after a failed connect.
pub const BACKOFF_MIN_NS: u64 = 1_000_000_000;
/// Longest back-off; doubling from one second reaches it after the sixth failure.
pub const BACKOFF_MAX_NS: u64 = 30_000_000_000;

/// What all workers know of one address.
///
/// Its atomics are touched at dial, close and failure only, never by a request that finds a
/// pooled connection.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// The address as text, for requests that name no host.
    authority: Box<str>,
    transport: Arc<Transport>,
    connections: AtomicU32,
    dials: AtomicU64,
    failures: AtomicU64,
    /// Of these, refused: nobody listens.
    refusals: AtomicU64,
    /// Failed connects in a row.
    failures_in_row: AtomicU32,
    /// Nanoseconds of the process clock until which it is left alone; 0: it is not backed off.
    backoff_until_ns: AtomicU64,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Endpoint>);

impl Endpoint {
    /// An endpoint that nobody has tried yet.
    #[must_use]
    pub fn new(address: SocketAddr, transport: Arc<Transport>) -> Self {
        Self {
            address,
            authority: address.to_string().into(),
            transport,
            connections: AtomicU32::new(0),
            dials: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            failures_in_row: AtomicU32::new(0),
            backoff_until_ns: AtomicU64::new(0),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as text.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// How it is spoken to.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What tells it from every other: connections are kept by it.
    #[must_use]
    pub fn key(&self) -> (SocketAddr, u64) {
        (self.address, self.transport.key)
    }

    /// Open connections of all workers, idle ones included.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often a connection was dialled.
    #[must_use]
    pub fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    /// How often that failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// How often a connection was refused, which only an address does where nobody listens.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// A connection was refused; the caller tells [`Self::refused`] too.
    pub fn note_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is left alone at `now_ns`.
    #[must_use]
    pub fn is_backed_off(&self, now_ns: u64) -> bool {
        self.backoff_until_ns.load(Ordering::Relaxed) > now_ns
    }

    /// Asks to try an endpoint whose back-off has passed: one asker per back-off gets it, so that
    /// a dead endpoint costs one dial and not one per waiting request.
    #[must_use]
    pub fn claim(&self, now_ns: u64) -> bool {
        let until = self.backoff_until_ns.load(Ordering::Relaxed);
        until == 0
            || (until <= now_ns
                && self
                    .backoff_until_ns
                    .compare_exchange(
                        until,
                        now_ns + self.backoff_ns(),
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    )
                    .is_ok())
    }

    /// Asks for one more connection, of at most `most` over all workers.
    #[must_use]
    pub fn permit(self: &Arc<Self>, most: u32) -> Option<Permit> {
        let more = |open| (open < most).then_some(open + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.dials.fetch_add(1, Ordering::Relaxed);
        Some(Permit(Arc::clone(self)))
    }

    /// A connect succeeded, or an answer came: the endpoint is as good as any.
    pub fn connected(&self) {
        if self.backoff_until_ns.load(Ordering::Relaxed) != 0 {
            self.failures_in_row.store(0, Ordering::Relaxed);
            self.backoff_until_ns.store(0, Ordering::Relaxed);
        }
    }

    /// A connect failed: the endpoint is left alone, twice as long each time. Returns whether it
    /// was in use until now, which is worth a line in the log.
    pub fn refused(&self, now_ns: u64) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let was_in_use = self.failures_in_row.load(Ordering::Relaxed) == 0;
        // Connects that were under way together are one failure, not several doublings.
        if was_in_use || !self.is_backed_off(now_ns) {
            self.failures_in_row.fetch_add(1, Ordering::Relaxed);
        }
        self.backoff_until_ns.store(now_ns + self.backoff_ns(), Ordering::Relaxed);
        was_in_use
    }

    fn backoff_ns(&self) -> u64 {
        let doublings = self.failures_in_row.load(Ordering::Relaxed).saturating_sub(1).min(5);
        (BACKOFF_MIN_NS << doublings).min(BACKOFF_MAX_NS)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new("127.0.0.1:1".parse().unwrap(), Arc::default()))
    }

    #[test]
    fn backoff_doubles_from_one_to_thirty_seconds_and_ends_with_a_connect() {
        let endpoint = endpoint();
        let mut now = S;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(endpoint.refused(now), seconds == 1);
            assert!(endpoint.is_backed_off(now + seconds * S - 1), "{seconds}");
            assert!(!endpoint.is_backed_off(now + seconds * S), "{seconds}");
            now += 40 * S;
        }
        endpoint.connected();
        endpoint.refused(now);
        assert!(!endpoint.is_backed_off(now + S), "the count starts again");
        assert_eq!(endpoint.failures(), 8);
    }

    #[test]
    fn one_asker_tries_an_endpoint_whose_backoff_has_passed() {
        let endpoint = endpoint();
        assert!(endpoint.claim(0) && endpoint.claim(0), "a good one is open to all");
        endpoint.refused(S);
        assert!(!endpoint.claim(S));
        assert!(endpoint.claim(3 * S));
        assert!(!endpoint.claim(3 * S));
    }

    #[test]
    fn permits_are_bounded_and_given_back() {
        let endpoint = endpoint();
        let first = endpoint.permit(2).unwrap();
        let _second = endpoint.permit(2).unwrap();
        assert!(endpoint.permit(2).is_none());
        drop(first);
        assert_eq!(endpoint.connections(), 1);
        assert!(endpoint.permit(2).is_some());
        assert_eq!(endpoint.dials(), 3);
    }
}
