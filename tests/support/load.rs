//! Versions under test, which can be made bad while they serve, and a steady load on the gateway.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Client, Upstream};

/// A version whose behaviour can be changed while it serves.
pub struct Tested {
    pub upstream: Upstream,
    behaviour: Arc<Behaviour>,
}

#[derive(Default)]
struct Behaviour {
    /// Errors per thousand requests.
    errors: AtomicU64,
    /// What an answer takes, in microseconds: the median.
    pause_us: AtomicU64,
    /// Requests of this user fail, and of no other by this.
    broken_user: Mutex<Vec<String>>,
    /// Answers are event streams that stay open.
    streams: AtomicBool,
    /// A connection is closed after each answer, without saying so before.
    closes: AtomicBool,
    /// Probes of /ready are answered with 503.
    unready: AtomicBool,
    count: AtomicU64,
}

impl Tested {
    /// A good version.
    pub fn new(track: &'static str) -> Self {
        Self::on(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), track)
    }

    /// The same on a socket that is already there.
    pub fn on(listener: std::net::TcpListener, track: &'static str) -> Self {
        let behaviour = Arc::<Behaviour>::default();
        behaviour.pause_us.store(2_000, Ordering::SeqCst);
        let acting = Arc::clone(&behaviour);
        let upstream = Upstream::scripted_on(listener, move |session| {
            while let Some(request) = session.request() {
                if acting.answer(session, track, &request) {
                    return;
                }
            }
        });
        Self { upstream, behaviour }
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// This many of a thousand requests fail.
    pub fn set_errors(&self, per_mille: u64) -> &Self {
        self.behaviour.errors.store(per_mille, Ordering::SeqCst);
        self
    }

    /// Answers take this long at the median.
    pub fn set_pause(&self, pause: Duration) -> &Self {
        self.behaviour.pause_us.store(pause.as_micros() as u64, Ordering::SeqCst);
        self
    }

    /// Every request of these users fails.
    pub fn set_broken_users(&self, users: &[&str]) -> &Self {
        *self.behaviour.broken_user.lock().unwrap() =
            users.iter().map(|user| format!("x-user-id: {user}\r\n")).collect();
        self
    }

    /// Answers are event streams that stay open.
    pub fn set_streams(&self) -> &Self {
        self.behaviour.streams.store(true, Ordering::SeqCst);
        self
    }

    /// Connections are closed behind the gateway's back.
    pub fn set_closes(&self) -> &Self {
        self.behaviour.closes.store(true, Ordering::SeqCst);
        self
    }

    /// Probes of /ready fail, or not any more.
    pub fn set_unready(&self, unready: bool) -> &Self {
        self.behaviour.unready.store(unready, Ordering::SeqCst);
        self
    }
}

impl Behaviour {
    /// Answers one request; true ends the connection.
    fn answer(&self, session: &mut super::upstream::Session, track: &str, request: &str) -> bool {
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        // A fixed scramble: evenly spread, the same in every run.
        let dice = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let pause_us = self.pause_us.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_micros(pause_us / 2 + dice * 7 % pause_us.max(1)));
        if request.starts_with("GET /ready") && self.unready.load(Ordering::SeqCst) {
            session.send("HTTP/1.1 503 Unready\r\ncontent-length: 0\r\n\r\n");
            return false;
        }
        let is_broken = self.broken_user.lock().unwrap().iter().any(|user| request.contains(user));
        let errors = self.errors.load(Ordering::SeqCst);
        if is_broken || (request.starts_with("GET / ") && dice % 1_000 < errors) {
            session
                .send(format!("HTTP/1.1 500 Bad\r\nx-track: {track}\r\ncontent-length: 0\r\n\r\n"));
            return false;
        }
        if self.streams.load(Ordering::SeqCst) {
            session.send(format!(
                "HTTP/1.1 200 OK\r\nx-track: {track}\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
            ));
            // Open until the other side has enough.
            session.rest();
            return true;
        }
        let length = track.len();
        session.send(format!(
            "HTTP/1.1 200 OK\r\nx-track: {track}\r\ncontent-length: {length}\r\n\r\n{track}"
        ));
        self.closes.load(Ordering::SeqCst)
    }
}

/// A steady load; it ends when dropped.
pub struct Load {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
    _turn: Turn,
}

/// A turn on this machine: one test at a time puts load on it, so that none starves another of
/// the time it is told to keep.
pub struct Turn {
    /// `None` where the same test has its turn already.
    guard: Option<MutexGuard<'static, ()>>,
}

static TURNS: Mutex<()> = Mutex::new(());

thread_local! {
    static HAS_TURN: Cell<bool> = const { Cell::new(false) };
}

impl Turn {
    /// Waits until nobody else has one.
    pub fn take() -> Self {
        if HAS_TURN.replace(true) {
            return Self { guard: None };
        }
        // A test that failed in its turn says nothing of the next.
        Self { guard: Some(TURNS.lock().unwrap_or_else(PoisonError::into_inner)) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.guard.is_some() {
            HAS_TURN.set(false);
        }
    }
}

#[derive(Default)]
struct Seen {
    stops: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
}

/// Connections of a load; each carries an even share.
const CONNECTIONS: u32 = 20;

impl Load {
    /// `rps` requests a second for `/`; the headers of the nth request are `headers(n)`.
    pub fn start(
        gateway: SocketAddr,
        rps: u32,
        headers: impl Fn(u64) -> String + Send + Sync + 'static,
    ) -> Self {
        let turn = Turn::take();
        let (seen, headers) = (Arc::<Seen>::default(), Arc::new(headers));
        let pace = Duration::from_secs(1) * CONNECTIONS / rps;
        let one = |number: u32| {
            let (seen, headers) = (Arc::clone(&seen), Arc::clone(&headers));
            std::thread::spawn(move || {
                let mut client = Client::connect(gateway);
                let mut due = Instant::now() + pace * number / CONNECTIONS;
                while !seen.stops.load(Ordering::SeqCst) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    // A load that fell behind does not catch up in a burst.
                    due = (due + pace).max(Instant::now() - pace);
                    let number = seen.requests.fetch_add(1, Ordering::SeqCst);
                    let answer = client.try_get("/", &headers(number));
                    let is_good = answer.as_ref().is_some_and(|answer| answer.status < 500);
                    seen.failed.fetch_add(u64::from(!is_good), Ordering::SeqCst);
                    let goes_on = answer.is_some_and(|answer| {
                        answer.header("content-length").is_some()
                            && answer.header("connection") != Some("close")
                    });
                    if !goes_on && !seen.stops.load(Ordering::SeqCst) {
                        client = Client::connect(gateway);
                    }
                }
            })
        };
        let threads = (0..CONNECTIONS).map(one).collect();
        Self { seen, threads, _turn: turn }
    }

    /// Requests that failed so far.
    pub fn failed(&self) -> u64 {
        self.seen.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.seen.stops.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread that panicked has failed the test by its figures.
            let _ = thread.join();
        }
    }
}

/// Ends the clients of a test, a failed one too.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
