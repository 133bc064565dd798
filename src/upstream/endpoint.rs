//! One address of a track, shared by all workers: its connections and its back-off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::transport::Transport;

/// First back-off after a failed connect.
pub const BACKOFF_MIN_NS: u64 = 1_000_000_000;
/// Longest back-off; doubling from one second reaches it after the sixth failure.
pub const BACKOFF_MAX_NS: u64 = 30_000_000_000;

/// The standing of an endpoint that gets its full due, in percent.
pub const FULL: u8 = 100;

/// Whose places a request takes: its track's, its endpoint's connections, those who wait.
///
/// Whoever meets a rule chooses their track, and may fill it; what is drawn has places of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// What was drawn by weight, or by a sticky bucket.
    #[default]
    Drawn,
    /// What a rule sent, and copies.
    Ruled,
}

impl Places {
    /// How many kinds there are.
    pub const COUNT: usize = 2;
}

/// What one worker counted of an endpoint's answers.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    failures: AtomicU64,
    /// Failures in a row.
    row: AtomicU32,
}

/// What all workers know of one address.
///
/// Its atomics are touched at dial, close and failure only, never by a request that finds a
/// pooled connection.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    /// The address as text, for requests that name no host.
    authority: Box<str>,
    hash: u64,
    transport: Arc<Transport>,
    /// By whose places they are.
    connections: [AtomicU32; Places::COUNT],
    dials: AtomicU64,
    failures: AtomicU64,
    /// Of these, refused: nobody listens.
    refusals: AtomicU64,
    /// Failed connects in a row.
    failures_in_row: AtomicU32,
    /// Nanoseconds of the process clock until which it is left alone; 0: it is not backed off.
    backoff_until_ns: AtomicU64,
    /// The share of its due that it gets, in percent; 0: none.
    standing: AtomicU8,
    ejections: AtomicU64,
    /// One per worker, written by it alone.
    tallies: Box<[Tally]>,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Endpoint>, Places);

impl Endpoint {
    /// An endpoint that nobody has tried yet.
    #[must_use]
    pub fn new(address: SocketAddr, transport: Arc<Transport>, workers: usize) -> Self {
        Self {
            address,
            authority: address.to_string().into(),
            hash: xxh3_64(address.to_string().as_bytes()),
            transport,
            connections: Default::default(),
            dials: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            failures_in_row: AtomicU32::new(0),
            backoff_until_ns: AtomicU64::new(0),
            standing: AtomicU8::new(FULL),
            ejections: AtomicU64::new(0),
            tallies: (0..workers).map(|_| Tally::default()).collect(),
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

    /// Its place among the endpoints that keys belong to: the same on every replica.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
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
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
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

    /// The share of its due that it gets, in percent; 0: it is out.
    #[must_use]
    pub fn standing(&self) -> u8 {
        self.standing.load(Ordering::Relaxed)
    }

    /// Sets that share; the control side's to do.
    pub fn set_standing(&self, percent: u8) {
        self.standing.store(percent, Ordering::Relaxed);
    }

    /// Counts an ejection.
    pub fn note_ejection(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Worker `worker` saw a request to it end.
    pub fn tally(&self, worker: usize, is_good: bool) {
        // Only this worker writes here: no read-modify-write is needed.
        let tally = &self.tallies[worker];
        let add = |counter: &AtomicU64| {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        add(&tally.requests);
        if is_good {
            tally.row.store(0, Ordering::Relaxed);
        } else {
            add(&tally.failures);
            let row = tally.row.load(Ordering::Relaxed).saturating_add(1);
            tally.row.store(row, Ordering::Relaxed);
        }
    }

    /// Requests that ended, those that failed, and the failures in a row of the worker that has
    /// the most.
    #[must_use]
    pub fn tallied(&self) -> (u64, u64, u32) {
        let sum = |counter: fn(&Tally) -> &AtomicU64| -> u64 {
            self.tallies.iter().map(|tally| counter(tally).load(Ordering::Relaxed)).sum()
        };
        let row = self.tallies.iter().map(|tally| tally.row.load(Ordering::Relaxed)).max();
        (sum(|tally| &tally.requests), sum(|tally| &tally.failures), row.unwrap_or(0))
    }

    /// Whether it is left alone at `now_ns`.
    #[must_use]
    pub fn is_backed_off(&self, now_ns: u64) -> bool {
        self.backoff_until_ns.load(Ordering::Relaxed) > now_ns
    }

    /// Every word of [`Self::state`].
    pub const STATES: [&'static str; 4] = ["in_use", "warming_up", "backing_off", "out"];

    /// How it stands, in a word: `in_use`, `warming_up`, `backing_off` after a failed connect, or
    /// `out`, because its probe fails or it was ejected.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.standing() {
            0 => "out",
            _ if self.backoff_until_ns.load(Ordering::Relaxed) != 0 => "backing_off",
            FULL => "in_use",
            _ => "warming_up",
        }
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

    /// Asks for one more connection, of at most `most` of these places over all workers.
    #[must_use]
    pub fn permit(self: &Arc<Self>, most: u32, places: Places) -> Option<Permit> {
        let more = |open| (open < most).then_some(open + 1);
        let count = &self.connections[places as usize];
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.dials.fetch_add(1, Ordering::Relaxed);
        Some(Permit(Arc::clone(self), places))
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
        self.0.connections[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new("127.0.0.1:1".parse().unwrap(), Arc::default(), 1))
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
        let first = endpoint.permit(2, Places::Drawn).unwrap();
        let _second = endpoint.permit(2, Places::Drawn).unwrap();
        assert!(endpoint.permit(2, Places::Drawn).is_none());
        let of_a_rule = endpoint.permit(2, Places::Ruled).expect("these have their own");
        drop(first);
        assert_eq!(endpoint.connections(), 2);
        drop(of_a_rule);
        assert_eq!(endpoint.connections(), 1);
        assert!(endpoint.permit(2, Places::Drawn).is_some());
        assert_eq!(endpoint.dials(), 4);
    }
}
