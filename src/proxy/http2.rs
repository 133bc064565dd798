//! An HTTP/2 connection of a client: each of its streams is served like a connection of its own.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use crate::wire::guard::{Bucket, Guard};
use crate::wire::{Flusher, Gathering, Inbound, Io, Piece, Wire};

use super::alarm::AlarmHandle;
use super::client::Client;
use super::closing::{self, Before};
use super::downstream::Downstream;
use super::serve::one_request;
use super::worker::Worker;

/// What a client may send ahead of its upstream's reading, per request.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// And with all of its requests together: what a connection can make us hold is held a thousand
/// times by a thousand, and one upload alone goes as fast.
const WINDOW_BYTES: u32 = 256 * 1024;
/// Streams that were reset by us and are still remembered, for frames that were on their way.
const RESETS_REMEMBERED: usize = 32;
/// How much waits in the library for the socket; the exchange holds the rest.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Of the resets that a client is allowed, those that come before the request was even looked at: the
/// attack named rapid reset (CVE-2023-44487). A user leaves after a while; only where the gateway or
/// the network stalls do honest ones come so, and then by the wave.
const HASTY_SHARE: f64 = 0.5;
/// How long a client that was told to go may take to close a connection without requests.
const GOODBYE_NS: u64 = 5_000_000_000;
/// How long it may take nothing of the answers that wait for the socket alone: a full send buffer
/// has room again when a third of its 4 MiB is through, 11 s at one Mbit/s.
const STALLED_NS: u64 = 30_000_000_000;

/// What the streams of a connection share with it.
struct Shared {
    worker: Rc<Worker>,
    client: Rc<Client>,
    alarm: AlarmHandle,
    streams: Cell<usize>,
    /// Requests that may be reset before they are looked at.
    hasty: RefCell<Bucket>,
}

/// What comes next on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; a box costs each request"
)]
enum Step {
    Stream(Request<RecvStream>, SendResponse<Piece>),
    Ended(Result<(), h2::Error>),
    /// The client takes nothing any more.
    Stuck,
}

/// How far a farewell is.
#[derive(Default)]
struct Goodbye {
    stage: Stage,
    /// What the socket had taken when that was last looked at.
    sent: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    None,
    /// To send no more requests.
    Told,
    /// Which request was the last.
    Last,
}

/// Serves requests on `io` until either side has enough.
pub(super) async fn serve(worker: &Rc<Worker>, io: Io, client: Rc<Client>) {
    let alarm = worker.alarms.register();
    let policy = worker.state().shared.downstream.clone();
    alarm.set(worker.clock.now_ns().saturating_add(policy.head_timeout_ns));
    if is_trusted(worker, &client) {
        client.account.share();
    }
    let streams = Cell::new(0);
    let hasty = f64::from(policy.http2_resets) * HASTY_SHARE;
    let hasty = RefCell::new(Bucket::new(hasty, hasty));
    let shared = Rc::new(Shared { worker: Rc::clone(worker), client, alarm, streams, hasty });
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_concurrent_streams(policy.http2_streams)
        // The library's own limit would be met by the wave that a stall makes of honest resets.
        .max_pending_accept_reset_streams(policy.http2_resets as usize)
        .max_header_list_size(u32::try_from(policy.limits.head_bytes).unwrap_or(u32::MAX));
    let (io, flusher) = io.guarded(policy.http2_resets).gathers();
    let mut handshake = Box::pin(builder.handshake::<Gathering, Piece>(io));
    let agreed = poll_fn(|context| match handshake.as_mut().poll(context) {
        Poll::Ready(agreed) => Poll::Ready(Some(agreed)),
        Poll::Pending if shared.is_overdue(context) || is_broken(&flusher, context) => {
            Poll::Ready(None)
        }
        Poll::Pending => Poll::Pending,
    });
    let is_taking = match agreed.await {
        Some(Ok(connection)) => shared.follow(connection, &flusher).await,
        Some(Err(error)) => shared.ended_badly(&error),
        None => true,
    };
    drop(handshake);
    if is_taking && let Some(wire) = flusher.into_wire() {
        closing::close(worker, wire, Before::Answer).await;
    }
}

/// Whether the client is a proxy of ours, with many clients behind it.
fn is_trusted(worker: &Worker, client: &Client) -> bool {
    let state = worker.state();
    state.shared.trusted_proxies.iter().any(|net| net.contains(&client.peer.ip()))
}

/// Sends what is ready to be sent; whether nobody will ever get it.
fn is_broken(flusher: &Flusher, context: &mut Context<'_>) -> bool {
    matches!(flusher.poll(context), Poll::Ready(Err(_)))
}

impl Shared {
    fn is_overdue(&self, context: &Context<'_>) -> bool {
        self.alarm.is_overdue(context, self.worker.clock.coarse_ns())
    }

    /// Accepts streams until the connection is over; whether the client may still get what was
    /// written.
    async fn follow(
        self: &Rc<Self>,
        mut connection: Connection<Gathering, Piece>,
        flusher: &Flusher,
    ) -> bool {
        let mut goodbye = Goodbye::default();
        loop {
            let step =
                poll_fn(|context| self.poll_step(context, &mut connection, flusher, &mut goodbye));
            match step.await {
                Step::Stream(request, mut respond) => {
                    let given_up =
                        poll_fn(|context| Poll::Ready(respond.poll_reset(context).is_ready()));
                    if !given_up.await {
                        self.take(request, respond);
                    } else if !self.hasty.borrow_mut().take() && goodbye.stage != Stage::Last {
                        // The library reports no end of its user's own making as an error.
                        self.note_flood();
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        goodbye.stage = Stage::Last;
                        self.rest(GOODBYE_NS);
                    }
                }
                Step::Ended(Ok(())) => return true,
                Step::Ended(Err(error)) => return self.ended_badly(&error),
                Step::Stuck => return false,
            }
        }
    }

    /// Drives the connection, and says goodbye when it is time to.
    fn poll_step(
        &self,
        context: &mut Context<'_>,
        connection: &mut Connection<Gathering, Piece>,
        flusher: &Flusher,
        goodbye: &mut Goodbye,
    ) -> Poll<Step> {
        let mut polled = connection.poll_accept(context);
        if polled.is_pending() {
            // Looked at whenever nothing comes, so that a drain and a deadline wake it.
            let is_overdue = self.is_overdue(context);
            // The streams look up once more, and see that it was not their upstreams.
            if self.client.account.must_end() || (is_overdue && goodbye.stage == Stage::Last) {
                return Poll::Ready(Step::Stuck);
            }
            if is_overdue || (goodbye.stage == Stage::None && self.worker.is_draining()) {
                if !self.says_goodbye(connection, flusher, goodbye) {
                    return Poll::Ready(Step::Stuck);
                }
                polled = connection.poll_accept(context);
            }
            if polled.is_pending() && is_broken(flusher, context) {
                return Poll::Ready(Step::Stuck);
            }
            if self.streams.get() == 0 {
                flusher.rest();
            }
        }
        polled.map(|accepted| match accepted {
            Some(Ok((request, respond))) => Step::Stream(request, respond),
            Some(Err(error)) => Step::Ended(Err(error)),
            None => Step::Ended(Ok(())),
        })
    }

    /// Goes one stage further: first the client is told not to ask any more (RFC 9113 §6.8), and
    /// when it does not confirm that, what came last. False when it takes nothing of it.
    fn says_goodbye(
        &self,
        connection: &mut Connection<Gathering, Piece>,
        flusher: &Flusher,
        goodbye: &mut Goodbye,
    ) -> bool {
        match goodbye.stage {
            Stage::None => {
                connection.graceful_shutdown();
                goodbye.stage = Stage::Told;
                self.rest(GOODBYE_NS);
                true
            }
            // The ends of answers are still on their way out.
            Stage::Told if connection.has_streams() => {
                let before = std::mem::replace(&mut goodbye.sent, flusher.sent());
                self.rest(STALLED_NS);
                goodbye.sent != before
            }
            Stage::Told | Stage::Last => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
                goodbye.stage = Stage::Last;
                self.rest(GOODBYE_NS);
                true
            }
        }
    }

    /// Without a request under way the connection may rest for `wait_ns`.
    fn rest(&self, wait_ns: u64) {
        let due_ns = match self.streams.get() {
            0 => self.worker.clock.coarse_ns().saturating_add(wait_ns),
            _ => u64::MAX,
        };
        self.alarm.set(due_ns);
    }

    fn take(self: &Rc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Piece>) {
        if self.client.account.is_full() {
            // Refused means untouched: the client may ask again, whatever it asks (RFC 9113 §8.7).
            self.worker.counters.refused[super::Failure::MEMORY].increment();
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let open = OpenStream::new(self);
        let Shared { worker, client, .. } = &**self;
        let wire = Wire::inbound(Inbound::new(request, respond, &client.account));
        let mut downstream = Downstream::new(worker, wire, Rc::clone(client));
        // Counted before the next stream is looked at.
        downstream.weigh(0);
        // A panic ends this request's task and nothing else.
        tokio::task::spawn_local(async move {
            one_request(&open.0.worker, &mut downstream).await;
        });
    }

    fn note_flood(&self) {
        self.worker.counters.refused[super::Failure::FLOOD].increment();
        if self.worker.may_warn_of_client() {
            let peer = self.client.peer;
            tracing::warn!(%peer, "http2 connection closed: flood of control frames");
        }
    }

    /// Tells of a connection that did not end in order; whether the client may still learn why.
    fn ended_badly(&self, error: &h2::Error) -> bool {
        let (peer, reason) = (self.client.peer, error.reason());
        // What a client writes into its own farewell is no business of the log.
        let io = error.get_io().map(ToString::to_string).unwrap_or_default();
        // Some floods the library notices first, by what they make it hold.
        let is_ours = !error.is_remote();
        let is_flood = io == Guard::MESSAGE || is_ours && reason == Some(Reason::ENHANCE_YOUR_CALM);
        if is_flood {
            self.note_flood();
        } else {
            tracing::debug!(%peer, ?reason, is_ours, io, "http2 connection ended badly");
        }
        !is_flood && !error.is_io()
    }
}

/// A stream that counts as open.
struct OpenStream(Rc<Shared>);

impl OpenStream {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        shared.client.account.open_stream();
        shared.alarm.set(u64::MAX);
        Self(Rc::clone(shared))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.client.account.close_stream();
        let is_draining = self.0.worker.is_draining();
        let idle_ns = self.0.worker.state().shared.downstream.idle_timeout_ns;
        self.0.rest(if is_draining { GOODBYE_NS } else { idle_ns });
    }
}
