//! One worker's connections to one endpoint: idle ones last in, first out, and shared ones.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::wire::Wire;

use super::dial;
use super::endpoint::{Endpoint, Permit, Places};
use super::link::Link;
use super::transport::Protocol;

/// Most idle connections that one worker keeps to one address; more would only age.
const IDLE_MAX: usize = 1_024;

/// One worker's view of an endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    /// Its connections are shared: a dial under way is waited for instead of dialling once more.
    is_shared: Cell<bool>,
    in_flight: Cell<u32>,
    /// By whose places its connections are.
    parts: [Part; Places::COUNT],
}

/// The connections of one kind of places.
#[derive(Debug, Default)]
struct Part {
    idle: RefCell<Vec<Idle>>,
    /// HTTP/2 connections.
    links: RefCell<Vec<Link>>,
    is_dialling: Cell<bool>,
    dialled: Notify,
    /// How the last shared dial ended, if it failed.
    last_error: Cell<Option<Fault>>,
    /// A request has ended, and those who wait for its connection are told.
    ended: Notify,
    waiting: Cell<u32>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// As many as may be are open already.
    Exhausted,
    /// We ourselves had no room for it: no file descriptor, port or buffer.
    NoRoom(io::Error),
    /// It could not be made.
    Io(io::Error),
}

/// What is left of an error for those who waited for the same dial.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: ErrorKind,
    is_ours: bool,
}

impl From<io::Error> for DialError {
    /// Whose fault the error is: what this host ran out of says nothing of the endpoint.
    fn from(error: io::Error) -> Self {
        if dial::is_ours(&error) { Self::NoRoom(error) } else { Self::Io(error) }
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since_ns: u64,
}

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// Its socket, or its stream.
    pub wire: Wire,
    /// It has carried a request before, so its upstream may close it under the next one.
    pub reused: bool,
    places: Places,
    /// A shared connection keeps its own.
    _permit: Option<Permit>,
}

/// Counts a request towards its endpoint's load until dropped.
#[derive(Debug)]
pub struct InFlight(Rc<Pool>, Places);

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        let is_shared = endpoint.transport().protocol == Protocol::Http2;
        Self {
            endpoint,
            is_shared: Cell::new(is_shared),
            in_flight: Cell::new(0),
            parts: Default::default(),
        }
    }

    fn part(&self, places: Places) -> &Part {
        &self.parts[places as usize]
    }

    /// The endpoint behind it.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// This worker's requests under way to it.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Requests of this worker that wait for a connection to it.
    #[must_use]
    pub fn waiting(&self, places: Places) -> u32 {
        self.part(places).waiting.get()
    }

    /// Waits until a request of this worker to the endpoint has ended; who waits longest is told first.
    pub async fn ended(&self, places: Places) {
        let part = self.part(places);
        let _waiting = Waiting::start(&part.waiting);
        part.ended.notified().await;
    }

    /// Counts one more request.
    #[must_use]
    pub fn enter(self: &Rc<Self>, places: Places) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self), places)
    }

    /// The connection that was idle for the shortest time and is still open, or a stream of one
    /// that is shared.
    #[must_use]
    pub fn take(&self, places: Places) -> Option<Connection> {
        let mut idle = self.part(places).idle.borrow_mut();
        while let Some(Idle { mut connection, .. }) = idle.pop() {
            if connection.wire.is_quiet() {
                return Some(connection);
            }
        }
        self.stream(true, places)
    }

    fn stream(&self, reused: bool, places: Places) -> Option<Connection> {
        let mut links = self.part(places).links.borrow_mut();
        if links.is_empty() {
            return None;
        }
        links.retain(|link| !link.is_closed());
        let scheme = self.endpoint.transport().scheme();
        let authority = self.endpoint.authority();
        let wire = links.iter().find_map(|link| link.stream(scheme, authority))?;
        Some(Connection { wire, reused, places, _permit: None })
    }

    /// Keeps a connection for the next request; a stream has had its one.
    pub fn put(&self, mut connection: Connection, now_ns: u64) {
        let mut idle = self.part(connection.places).idle.borrow_mut();
        if idle.len() < IDLE_MAX && !connection.wire.is_stream() {
            connection.reused = true;
            idle.push(Idle { connection, since_ns: now_ns });
        }
    }

    /// Closes what has been idle for `keep_ns`.
    pub fn age(&self, now_ns: u64, keep_ns: u64) {
        let before_ns = now_ns.saturating_sub(keep_ns);
        for part in &self.parts {
            let mut idle = part.idle.borrow_mut();
            let young = idle.partition_point(|idle| idle.since_ns < before_ns);
            idle.drain(..young);
            if idle.is_empty() && idle.capacity() > 16 {
                idle.shrink_to_fit();
            }
            part.links.borrow_mut().retain(|link| !link.is_past(now_ns, keep_ns));
        }
    }

    /// Whether nothing is idle or under way, so that the pool may be forgotten.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        let is_empty =
            |part: &Part| part.idle.borrow().is_empty() && part.links.borrow().is_empty();
        self.in_flight.get() == 0 && self.parts.iter().all(is_empty)
    }

    /// Dials a new connection, of at most `most` of these places over all workers; waits for one that is being
    /// dialled where connections are shared.
    ///
    /// # Errors
    /// The connect's or TLS's; the endpoint is not told, because the caller knows the time.
    pub async fn dial(&self, most: u32, places: Places) -> Result<Connection, DialError> {
        let part = self.part(places);
        while self.is_shared.get() && part.is_dialling.get() {
            part.dialled.notified().await;
            if let Some(stream) = self.stream(false, places) {
                return Ok(stream);
            }
            if let Some(Fault { kind, is_ours }) = part.last_error.get() {
                let error = kind.into();
                return Err(if is_ours { DialError::NoRoom(error) } else { DialError::Io(error) });
            }
        }
        let permit = self.endpoint.permit(most, places).ok_or(DialError::Exhausted)?;
        let _dialling = Dialling::start(part);
        let connected = self.connect(permit, places).await.map_err(DialError::from);
        part.last_error.set(match &connected {
            Err(DialError::Io(error)) => Some(Fault { kind: error.kind(), is_ours: false }),
            Err(DialError::NoRoom(error)) => Some(Fault { kind: error.kind(), is_ours: true }),
            _ => None,
        });
        connected
    }

    async fn connect(&self, permit: Permit, places: Places) -> io::Result<Connection> {
        let (wire, is_http2) = dial::connect(&self.endpoint).await?;
        if !is_http2 {
            self.is_shared.set(false);
            return Ok(Connection { wire, reused: false, places, _permit: Some(permit) });
        }
        self.is_shared.set(true);
        let io = wire.into_io(Vec::new()).expect("a socket was just connected");
        let link = Link::open(io, permit).await?;
        self.part(places).links.borrow_mut().push(link);
        self.stream(false, places).ok_or_else(|| ErrorKind::ConnectionReset.into())
    }
}

/// Counts who waits until dropped.
struct Waiting<'a>(&'a Cell<u32>);

impl<'a> Waiting<'a> {
    fn start(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A dial under way, for those who would dial too.
struct Dialling<'a>(&'a Part);

impl<'a> Dialling<'a> {
    fn start(part: &'a Part) -> Self {
        part.is_dialling.set(true);
        part.last_error.set(None);
        Self(part)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.is_dialling.set(false);
        self.0.dialled.notify_waiters();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        let part = self.0.part(self.1);
        if part.waiting.get() > 0 {
            part.ended.notify_one();
        }
    }
}
