//! An HTTP/2 connection to an endpoint, shared by one worker's requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::wire::{Flusher, Gathering, Io, Outbound, Piece, Place, Wire};

use super::endpoint::Permit;

/// Most streams at once, fewer if the upstream says so: then another connection is dialled.
const STREAMS_MAX: usize = 100;
/// What a stream may send ahead of its client's reading, gRPC's own measure; more would only fill
/// our memory.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// And all streams of a connection together: clients that do not read must not block the others.
const WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * 101;
/// How much waits in the library for the socket; the exchange holds the rest.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Largest list of header fields that is read.
const HEADER_LIST_BYTES: u32 = 256 * 1024;
/// A connection on which something was asked and nothing at all came for this long is asked whether
/// it lives. Once: servers of gRPC close connections that are asked more often than they send
/// anything (<https://github.com/grpc/grpc/blob/master/doc/keepalive.md>), and a call may be silent
/// for hours. Connections without a question are looked after by TCP's keepalive.
const QUIET: Duration = Duration::from_secs(3);
/// And has this long to say so.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    send: SendRequest<Piece>,
    state: Rc<State>,
    /// When it was first seen without a stream; 0: it has some.
    idle_since_ns: Cell<u64>,
}

#[derive(Debug, Default)]
struct State {
    streams: Cell<usize>,
    is_closed: Cell<bool>,
    /// A stream was given away since something was heard.
    is_asking: Cell<bool>,
    /// How often something was heard.
    heard: Cell<u64>,
}

/// Counts a stream until dropped.
struct Slot(Rc<State>);

impl Place for Slot {
    fn heard(&self) {
        self.0.is_asking.set(false);
        self.0.heard.set(self.0.heard.get().wrapping_add(1));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Link {
    /// Agrees on HTTP/2 over `io`. The connection lives on a task of its own and gives `permit`
    /// back at its end.
    pub(super) async fn open(io: Io, permit: Permit) -> Result<Self> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_LIST_BYTES)
            .enable_push(false);
        let (io, flusher) = io.gathers();
        let handshake = builder.handshake(io).await;
        let (send, connection) =
            handshake.map_err(|error| Error::new(ErrorKind::ConnectionReset, error))?;
        let state = Rc::<State>::default();
        let driven = Rc::clone(&state);
        tokio::task::spawn_local(async move {
            let _permit = permit;
            drive(connection, &flusher, &driven).await;
            driven.is_closed.set(true);
        });
        Ok(Self { send, state, idle_since_ns: Cell::new(0) })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.is_closed.get()
    }

    /// A stream for one request, if there is room for one more.
    pub(super) fn stream(&self, scheme: &'static str, authority: &str) -> Option<Wire> {
        let mut send = self.send.clone();
        let ready = send.poll_ready(&mut Context::from_waker(Waker::noop()));
        let most = send.current_max_send_streams().min(STREAMS_MAX);
        let streams = self.state.streams.get();
        if self.is_closed() || streams >= most || !matches!(ready, Poll::Ready(Ok(()))) {
            return None;
        }
        self.state.streams.set(streams + 1);
        self.state.is_asking.set(true);
        let slot = Slot(Rc::clone(&self.state));
        Some(Wire::outbound(Outbound::new(send, scheme, authority, slot)))
    }

    /// Whether it is over, or had nothing to do for `keep_ns`.
    pub(super) fn is_past(&self, now_ns: u64, keep_ns: u64) -> bool {
        if self.state.streams.get() > 0 {
            self.idle_since_ns.set(0);
        } else if self.idle_since_ns.get() == 0 {
            self.idle_since_ns.set(now_ns);
        }
        let since_ns = self.idle_since_ns.get();
        self.is_closed() || (since_ns > 0 && since_ns + keep_ns <= now_ns)
    }
}

/// Drives a connection to its end, or until it answers no ping.
async fn drive(mut connection: Connection<Gathering, Piece>, flusher: &Flusher, state: &State) {
    let pings = connection.ping_pong();
    let alive = async {
        match pings {
            Some(pings) => watch(pings, state).await,
            None => std::future::pending().await,
        }
    };
    let ended = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
        // What was written leaves once there is no more of it.
        Poll::Pending => {
            let flushed = flusher.poll(context);
            if state.streams.get() == 0 {
                flusher.rest();
            }
            match flushed {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            }
        }
        Poll::Ready(ended) => {
            Poll::Ready(ended.map_err(|error| Error::new(ErrorKind::ConnectionReset, error)))
        }
    });
    tokio::select! {
        ended = ended => if let Err(error) = ended {
            tracing::debug!(%error, "an upstream's http2 connection ended badly");
        },
        () = alive => tracing::debug!("an upstream's http2 connection answers no ping"),
    }
}

/// Resolves when a ping is not answered in time.
async fn watch(mut pings: PingPong, state: &State) {
    let mut pace = interval(QUIET);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut asked) = (None, None);
    loop {
        pace.tick().await;
        let heard = Some(state.heard.get());
        let is_quiet = std::mem::replace(&mut last, heard) == heard;
        if is_quiet && state.is_asking.get() && state.streams.get() > 0 && asked != heard {
            asked = heard;
            match timeout(PONG_TIMEOUT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                // The connection itself says what is wrong with it.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => return,
            }
        }
    }
}
