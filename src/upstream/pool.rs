//! One worker's connections to one address: idle ones last in, first out.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::endpoint::{Endpoint, Permit};
use super::wire::Wire;

/// Most idle connections that one worker keeps to one address; more would only age.
const IDLE_MAX: usize = 1_024;

/// One worker's view of an endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    idle: RefCell<Vec<Idle>>,
    in_flight: Cell<u32>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since_ns: u64,
}

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub wire: Wire,
    /// It has carried a request before, so its upstream may close it under the next one.
    pub reused: bool,
    _permit: Permit,
}

/// Counts a request towards its endpoint's load until dropped.
#[derive(Debug)]
pub struct InFlight(Rc<Pool>);

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, idle: RefCell::default(), in_flight: Cell::new(0) }
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

    /// Counts one more request.
    #[must_use]
    pub fn enter(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// The connection that was idle for the shortest time and is still open.
    #[must_use]
    pub fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, .. }) = idle.pop() {
            if connection.wire.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn put(&self, mut connection: Connection, now_ns: u64) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            connection.reused = true;
            idle.push(Idle { connection, since_ns: now_ns });
        }
    }

    /// Closes what has been idle since before `before_ns`.
    pub fn age(&self, before_ns: u64) {
        let mut idle = self.idle.borrow_mut();
        let young = idle.partition_point(|idle| idle.since_ns < before_ns);
        idle.drain(..young);
        if idle.is_empty() && idle.capacity() > 16 {
            idle.shrink_to_fit();
        }
    }

    /// Whether nothing is idle or under way, so that the pool may be forgotten.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.in_flight.get() == 0 && self.idle.borrow().is_empty()
    }

    /// Dials a new connection under `permit`.
    ///
    /// # Errors
    /// The connect's; the endpoint is not told, because the caller knows the time.
    pub async fn dial(&self, permit: Permit) -> io::Result<Connection> {
        let stream = TcpStream::connect(self.endpoint.address()).await?;
        Ok(Connection { wire: Wire::new(stream), reused: false, _permit: permit })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
