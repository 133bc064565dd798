//! One request and its answer, both streaming, on one task.
//!
//! The straight path alternates: the request went out when it was taken in, the answer comes. With
//! a body still on its way both directions are polled, because answers may come early. Every
//! direction that blocks keeps what it could not write and is not read until that went.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::http1::rewrite::{self, Returning};
use crate::http1::{Body, ResponseHead, Version, reply};
use crate::record::outcome::End;
use crate::upstream::pool::InFlight;
use crate::upstream::wire::Peeked;
use crate::upstream::{Connection, Pool, balance};

use super::downstream::Downstream;
use super::failure::Failure;
use super::intake::Request;
use super::tunnel;
use super::worker::{READ_MAX, READ_START, Worker};

/// Endpoints that one request tries to connect to.
const CONNECTS_MAX: usize = 3;
/// Interim answers that one request may bring; a server sends one or two.
const INTERIM_MAX: u8 = 16;
/// Bytes after which a pump lets the worker's other connections have a turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// Bodies up to this size are copied behind their head: one write of one piece is cheaper than a
/// gathered write until the copy costs more.
const COPY_MAX: usize = 4 * 1024;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next request.
    KeepAlive,
    /// A close.
    Close,
    /// A close that keeps what was just written from being lost.
    Linger,
}

/// Runs one request to its end.
pub async fn run(worker: &Rc<Worker>, downstream: &mut Downstream, request: Box<Request>) -> Next {
    let mut exchange = Exchange::new(worker, downstream, request);
    loop {
        if let Err(failure) = exchange.connect().await {
            return exchange.fail(failure).await;
        }
        match poll_fn(|context| exchange.poll(context)).await {
            Event::Complete => return exchange.complete(),
            Event::Retry => exchange.has_retried = true,
            Event::Failed(failure) => return exchange.fail(failure).await,
            Event::Switched => return exchange.tunnel().await,
        }
    }
}

/// What ends a poll of the exchange.
#[derive(Clone, Copy, Debug)]
enum Event {
    Complete,
    /// A pooled connection was closed under a request that may be sent again.
    Retry,
    Failed(Failure),
    /// Both sides speak another protocol now.
    Switched,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Body(Body),
    Switched,
}

/// The upstream at the other end, for the time of one attempt.
struct Upstream {
    connection: Connection,
    pool: Rc<Pool>,
    _in_flight: InFlight,
}

struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    downstream: &'a mut Downstream,
    request: Box<Request>,
    upstream: Option<Upstream>,
    /// How much of `request.out` is written.
    sent: usize,
    /// All of the request is upstream, or the upstream takes no more of it.
    is_sent: bool,
    /// `request.out` holds the whole request: it can be sent again.
    is_whole: bool,
    /// The upstream stopped reading; its answer may be here all the same.
    is_refusing: bool,
    /// The client's next move is being watched.
    is_watching: bool,
    has_retried: bool,
    keep_alive: bool,
    /// The upstream connection can carry another request.
    is_reusable: bool,
    interim_count: u8,
    answer: Answer,
    /// A head that came in pieces.
    partial: Vec<u8>,
    /// What the client could not take yet.
    back: Vec<u8>,
    back_sent: usize,
    read_size: usize,
    bytes_back: u64,
    deadline_ns: u64,
    endpoint: Option<SocketAddr>,
}

impl<'a> Exchange<'a> {
    fn new(worker: &'a Rc<Worker>, downstream: &'a mut Downstream, request: Box<Request>) -> Self {
        let limit_ns = request.service.shared.upstream.request_timeout_ns;
        let started_ns = request.outcome.started_ns();
        Self {
            worker,
            downstream,
            upstream: None,
            sent: 0,
            is_sent: false,
            is_whole: request.body.is_done(),
            is_refusing: false,
            is_watching: true,
            has_retried: false,
            keep_alive: request.keep_alive,
            is_reusable: false,
            interim_count: 0,
            answer: Answer::Awaited,
            partial: Vec::new(),
            back: Vec::new(),
            back_sent: 0,
            read_size: READ_START,
            bytes_back: 0,
            deadline_ns: limit_ns.map_or(u64::MAX, |limit_ns| started_ns.saturating_add(limit_ns)),
            endpoint: None,
            request,
        }
    }

    // === finding an upstream ===

    /// Finds a connection: a pooled one, else a new one, at up to [`CONNECTS_MAX`] endpoints.
    async fn connect(&mut self) -> Result<(), Failure> {
        self.upstream = None;
        self.sent = 0;
        self.is_sent = false;
        let mut tried = [None; CONNECTS_MAX];
        let mut failure = Failure::NoEndpoint;
        for attempt in 0..CONNECTS_MAX {
            let Some(pool) = self.pick(&tried[..attempt]) else { break };
            tried[attempt] = Some(pool.endpoint().address());
            // After a pooled connection was found closed, its idle siblings are no better.
            let pooled = if self.has_retried { None } else { pool.take() };
            if let Some(connection) = pooled {
                self.begin(connection, pool);
                return Ok(());
            }
            match self.dial(&pool).await {
                Ok(connection) => {
                    pool.endpoint().connected();
                    self.begin(connection, pool);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn begin(&mut self, connection: Connection, pool: Rc<Pool>) {
        self.endpoint = Some(pool.endpoint().address());
        let in_flight = pool.enter();
        self.upstream = Some(Upstream { connection, pool, _in_flight: in_flight });
    }

    /// The endpoint to try next: the less loaded of two that are not backed off; when all are,
    /// one of them all the same, because trying is better than failing untried.
    fn pick(&self, tried: &[Option<SocketAddr>]) -> Option<Rc<Pool>> {
        let pools = self.request.service.pools[self.request.outcome.track()].as_deref()?;
        let now_ns = self.worker.clock.coarse_ns();
        let untried = |pool: &Rc<Pool>| !tried.contains(&Some(pool.endpoint().address()));
        let healthy = |index: usize| {
            let pool = &pools[index];
            let is_usable = !pool.endpoint().is_backed_off(now_ns) && untried(pool);
            is_usable.then(|| pool.in_flight())
        };
        if let Some(index) = balance::pick(pools.len(), self.worker.dice(), healthy) {
            if pools[index].endpoint().claim(now_ns) {
                return Some(Rc::clone(&pools[index]));
            }
            let others = |other: usize| healthy(other).filter(|_| other != index);
            if let Some(index) = balance::pick(pools.len(), self.worker.dice(), others) {
                return Some(Rc::clone(&pools[index]));
            }
        }
        let any = |index: usize| untried(&pools[index]).then(|| pools[index].in_flight());
        let index = balance::pick(pools.len(), self.worker.dice(), any)?;
        Some(Rc::clone(&pools[index]))
    }

    async fn dial(&mut self, pool: &Rc<Pool>) -> Result<Connection, Failure> {
        let policy = &self.request.service.shared.upstream;
        let endpoint = Arc::clone(pool.endpoint());
        let permit = endpoint.permit(policy.connections_max).ok_or(Failure::Exhausted)?;
        let (worker, alarm) = (self.worker, &self.downstream.alarm);
        let due_ns = worker.clock.now_ns().saturating_add(policy.connect_timeout_ns);
        alarm.set(due_ns.min(self.deadline_ns));
        // Boxed because dialling is rare and its future would make every connection larger.
        let mut dialling = Box::pin(pool.dial(permit));
        let dialled = poll_fn(|context| match dialling.as_mut().poll(context) {
            Poll::Ready(Ok(connection)) => Poll::Ready(Ok(connection)),
            Poll::Ready(Err(error)) => {
                tracing::debug!(endpoint = %endpoint.address(), %error, "connect failed");
                Poll::Ready(Err(Failure::Connecting))
            }
            Poll::Pending if alarm.is_overdue(context, worker.clock.coarse_ns()) => {
                Poll::Ready(Err(Failure::ConnectTimeout))
            }
            Poll::Pending => Poll::Pending,
        });
        let dialled = dialled.await;
        let now_ns = worker.clock.now_ns();
        if dialled.is_err() {
            endpoint.refused(now_ns);
        }
        dialled
    }

    // === both directions ===

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if !self.is_sent
            && let Poll::Ready(Err(failure)) = self.poll_request(context)
        {
            return Poll::Ready(Event::Failed(failure));
        }
        if let Poll::Ready(result) = self.poll_answer(context) {
            return Poll::Ready(result.unwrap_or_else(Event::Failed));
        }
        if self.is_sent && self.is_watching && self.answer == Answer::Awaited {
            match self.downstream.poll_sign(context) {
                Poll::Ready(Peeked::Broken) => {
                    return Poll::Ready(Event::Failed(Failure::ClientLeft));
                }
                // A half-closed client still reads; one that sent more is alive.
                Poll::Ready(Peeked::Bytes | Peeked::Closed) => self.is_watching = false,
                Poll::Pending => {}
            }
        }
        if self.downstream.alarm.is_overdue(context, self.worker.clock.coarse_ns()) {
            return Poll::Ready(Event::Failed(self.overdue()));
        }
        Poll::Pending
    }

    /// Gives the exchange another while from now on.
    fn extend(&self, wait_ns: u64) {
        let due_ns = self.worker.clock.coarse_ns().saturating_add(wait_ns);
        self.downstream.alarm.set(due_ns.min(self.deadline_ns));
    }

    fn extend_between_bytes(&self) {
        self.extend(self.request.service.shared.upstream.between_bytes_timeout_ns);
    }

    /// Who let the deadline pass.
    fn overdue(&self) -> Failure {
        if self.back_sent < self.back.len() {
            Failure::ClientLeft
        } else if !self.is_sent && self.sent == self.request.out.len() {
            Failure::BodyTimeout
        } else {
            Failure::UpstreamTimeout
        }
    }

    // === the request's direction ===

    /// Moves the request upstream; ready when it is there, or will never be.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let worker = self.worker;
        let mut turn = 0;
        loop {
            let upstream = self.upstream.as_mut().expect("connected before it is polled");
            let wire = &mut upstream.connection.wire;
            match wire.poll_flush(context, &self.request.out, &mut self.sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // It may have answered before it stopped reading: the answer decides.
                    self.is_refusing = true;
                    self.sending_ended();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    self.extend_between_bytes();
                    self.request.outcome.sent(worker.clock.coarse_ns());
                    return Poll::Pending;
                }
            }
            if self.request.body.is_done() {
                self.sending_ended();
                return Poll::Ready(Ok(()));
            }
            self.request.outcome.sending();
            self.request.out.clear();
            self.sent = 0;
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = worker.buffer();
            let size = self.read_size;
            let read = match self.downstream.wire.poll_read(context, &mut buffer[..size]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(_) => return Poll::Ready(Err(Failure::ClientLeftSending)),
                Poll::Pending => return Poll::Pending,
            };
            turn += read.len();
            let Ok(used) = self.request.body.read(read, None) else {
                return Poll::Ready(Err(Failure::BadChunk));
            };
            self.downstream.hold(&read[used..]);
            // A write that fails here fails again in the flush above, which knows what to do.
            let written = wire.try_write(&read[..used]).unwrap_or(0);
            self.request.out.extend_from_slice(&read[written..used]);
            grow(&mut self.read_size, read.len(), written == used);
            self.extend_between_bytes();
        }
    }

    fn sending_ended(&mut self) {
        self.is_sent = true;
        // The first poll follows the intake's clock reading at once, or the dial's.
        self.request.outcome.sent(self.worker.clock.coarse_ns());
        if self.answer == Answer::Awaited {
            self.extend(self.request.service.shared.upstream.first_byte_timeout_ns);
        }
    }

    // === the answer's direction ===

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        let worker = self.worker;
        let mut turn = 0;
        loop {
            let wire = &mut self.downstream.wire;
            match wire.poll_flush(context, &self.back, &mut self.back_sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientLeft)),
                Poll::Pending => return Poll::Pending,
            }
            self.back.clear();
            self.back_sent = 0;
            match self.answer {
                Answer::Body(body) if body.is_done() => return Poll::Ready(Ok(Event::Complete)),
                Answer::Switched => return Poll::Ready(Ok(Event::Switched)),
                _ => {}
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = worker.buffer();
            let size = self.read_size;
            let upstream = self.upstream.as_mut().expect("connected before it is polled");
            let read = match upstream.connection.wire.poll_read(context, &mut buffer[..size]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(Ok(_)) => return Poll::Ready(self.upstream_closed(true)),
                Poll::Ready(Err(_)) => return Poll::Ready(self.upstream_closed(false)),
                Poll::Pending => return Poll::Pending,
            };
            turn += read.len();
            let result = match &mut self.answer {
                Answer::Body(_) => self.relay(read),
                _ if self.partial.is_empty() => self.take_head(read),
                _ => {
                    let mut partial = std::mem::take(&mut self.partial);
                    partial.extend_from_slice(read);
                    self.take_head(&partial)
                }
            };
            if let Err(failure) = result {
                return Poll::Ready(Err(failure));
            }
        }
    }

    /// The upstream sends no more, in order or not.
    fn upstream_closed(&mut self, in_order: bool) -> Result<Event, Failure> {
        self.is_reusable = false;
        match self.answer {
            Answer::Body(body) if body.is_until_close() && in_order => Ok(Event::Complete),
            Answer::Awaited if self.may_retry() => Ok(Event::Retry),
            _ => Err(Failure::UpstreamClosed),
        }
    }

    /// A pooled connection that closes without a byte was most likely closing already.
    fn may_retry(&self) -> bool {
        let reused = self.upstream.as_ref().is_some_and(|upstream| upstream.connection.reused);
        let unanswered = self.partial.is_empty() && self.interim_count == 0;
        let repeatable = self.request.is_idempotent || self.sent == 0;
        reused && unanswered && !self.has_retried && self.is_whole && repeatable
    }

    /// Reads heads from the start of `bytes` until the final one, and what follows it.
    fn take_head(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let worker = self.worker;
        let limits = self.request.state.shared.downstream.limits;
        while self.answer == Answer::Awaited {
            let mut spans = worker.fields();
            let head = match ResponseHead::parse(bytes, limits, &mut spans) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(endpoint = ?self.endpoint, %error, "malformed answer");
                    return Err(Failure::BadAnswer);
                }
            };
            let rest = &bytes[head.bytes.len()..];
            if head.status >= 200 || head.status == 101 {
                return self.take_final(&head, rest);
            }
            self.take_interim(&head)?;
            bytes = rest;
        }
        Ok(())
    }

    fn take_interim(&mut self, head: &ResponseHead<'_>) -> Result<(), Failure> {
        self.interim_count += 1;
        if self.interim_count > INTERIM_MAX {
            return Err(Failure::BadAnswer);
        }
        if self.request.version == Version::Http11 {
            // An interim head says nothing of the connection, hence no Via, no cookie, no close.
            let returning = Returning {
                version: Version::Http11,
                keep_alive: true,
                upgrade: false,
                unchunk: false,
                cookie: None,
                via: None,
            };
            rewrite::response(&mut self.back, head, &returning);
        }
        Ok(())
    }

    fn take_final(&mut self, head: &ResponseHead<'_>, rest: &[u8]) -> Result<(), Failure> {
        let now_ns = self.worker.clock.now_ns();
        let is_switch = head.status == 101;
        if is_switch && !(self.request.upgrade && self.is_sent) {
            return Err(Failure::BadAnswer);
        }
        let mut body = head.body(self.request.to_head);
        let unchunk = body.is_chunked() && self.request.version == Version::Http10;
        self.keep_alive &= !body.is_until_close() && !unchunk && !self.worker.is_draining();
        self.is_reusable = head.facts.persists(head.version) && !body.is_until_close();
        let is_error = head.status >= 500;
        let is_lasting = is_switch || head.is_event_stream();
        self.request.outcome.head(now_ns, head.status, is_error, is_lasting);

        let worker = self.worker;
        let mut scratch = worker.scratch();
        let returning = Returning {
            version: self.request.version,
            keep_alive: self.keep_alive,
            upgrade: is_switch,
            unchunk,
            cookie: self.request.cookie.as_deref(),
            via: self.request.state.shared.downstream.via.as_deref(),
        };
        rewrite::response(&mut scratch, head, &returning);
        if is_switch {
            scratch.extend_from_slice(rest);
            self.answer = Answer::Switched;
            return self.send_back(&scratch, b"");
        }
        let head_len = scratch.len();
        let data = if unchunk { Some(&mut *scratch) } else { None };
        let used = body.read(rest, data).map_err(|_| Failure::BadAnswer)?;
        // Bytes behind the answer belong to nobody: such a connection is not used again.
        self.is_reusable &= used == rest.len();
        self.answer = Answer::Body(body);
        self.extend_between_bytes();
        if unchunk {
            self.send_back(&scratch, b"")
        } else if used <= COPY_MAX {
            scratch.extend_from_slice(&rest[..used]);
            self.send_back(&scratch, b"")
        } else {
            debug_assert_eq!(scratch.len(), head_len);
            self.send_back(&scratch, &rest[..used])
        }
    }

    /// Passes a piece of the body on.
    fn relay(&mut self, read: &[u8]) -> Result<(), Failure> {
        self.extend_between_bytes();
        let Answer::Body(body) = &mut self.answer else { unreachable!("only bodies are relayed") };
        let worker = self.worker;
        let mut scratch = worker.scratch();
        let unchunk = body.is_chunked() && self.request.version == Version::Http10;
        let data = if unchunk { Some(&mut *scratch) } else { None };
        let used = body.read(read, data).map_err(|_| Failure::UpstreamClosed)?;
        self.is_reusable &= used == read.len();
        if unchunk { self.send_back(&scratch, b"") } else { self.send_back(&read[..used], b"") }
    }

    /// Writes to the client what it takes at once and keeps the rest.
    fn send_back(&mut self, first: &[u8], second: &[u8]) -> Result<(), Failure> {
        let total = first.len() + second.len();
        self.bytes_back += total as u64;
        let wire = &mut self.downstream.wire;
        let written = match (self.back.is_empty(), second.is_empty()) {
            (false, _) => Ok(0),
            (true, true) if first.is_empty() => Ok(0),
            (true, true) => wire.try_write(first),
            (true, false) => wire.try_write_two(first, second),
        };
        let written = written.map_err(|_| Failure::ClientLeft)?;
        if written < total {
            if self.back.capacity() == 0 {
                self.back = self.worker.spare();
            }
            self.back.extend_from_slice(&first[written.min(first.len())..]);
            self.back.extend_from_slice(&second[written.saturating_sub(first.len())..]);
        }
        grow(&mut self.read_size, total, written == total);
        Ok(())
    }

    // === the end ===

    fn complete(mut self) -> Next {
        let now_ns = self.worker.clock.coarse_ns();
        let upstream = self.upstream.take().expect("complete means answered");
        if self.is_reusable && self.is_sent && !self.is_refusing {
            upstream.pool.put(upstream.connection, now_ns);
        }
        let is_read = self.request.body.is_done();
        let next = match (self.keep_alive, is_read) {
            (true, true) => Next::KeepAlive,
            (false, true) => Next::Close,
            // An answer ahead of the whole request: what is left of the body cannot be told from
            // the next request any more cheaply than by closing.
            (_, false) => Next::Linger,
        };
        self.finish(now_ns, End::Complete, None);
        next
    }

    async fn fail(mut self, failure: Failure) -> Next {
        self.upstream = None;
        let now_ns = self.worker.clock.now_ns();
        let is_headed = self.answer != Answer::Awaited;
        let status = (!is_headed).then(|| failure.status());
        let left = matches!(failure, Failure::ClientLeft | Failure::ClientLeftSending);
        if is_headed || left {
            // A chunked or counted body that stops is seen to be cut short; one that ends with
            // the connection is only seen to be if the connection ends badly.
            self.downstream.wire.reset_on_close();
            self.finish(now_ns, failure.end(), status);
            return Next::Close;
        }
        let is_read = self.request.body.is_done() && failure != Failure::BadChunk;
        let keep_alive = self.request.keep_alive && is_read && !self.worker.is_draining();
        let text = failure.to_string();
        reply::write(&mut self.back, failure.status(), &text, keep_alive, self.request.to_head);
        self.extend_between_bytes();
        let written = poll_fn(|context| {
            let wire = &mut self.downstream.wire;
            match wire.poll_flush(context, &self.back, &mut self.back_sent) {
                Poll::Ready(result) => Poll::Ready(result.is_ok()),
                Poll::Pending => {
                    let coarse_ns = self.worker.clock.coarse_ns();
                    let is_overdue = self.downstream.alarm.is_overdue(context, coarse_ns);
                    if is_overdue { Poll::Ready(false) } else { Poll::Pending }
                }
            }
        });
        let written = written.await;
        self.bytes_back += self.back_sent as u64;
        self.finish(now_ns, failure.end(), status);
        match (written, keep_alive) {
            (true, true) => Next::KeepAlive,
            (true, false) => Next::Linger,
            (false, _) => Next::Close,
        }
    }

    async fn tunnel(mut self) -> Next {
        let upstream = self.upstream.take().expect("switched means answered");
        let idle_ns = self.request.service.shared.upstream.tunnel_idle_timeout_ns;
        // Boxed because tunnels are rare and long: others should not carry their size.
        let carried =
            Box::pin(tunnel::run(self.worker, self.downstream, upstream.connection, idle_ns)).await;
        self.bytes_back += carried;
        let now_ns = self.worker.clock.now_ns();
        self.finish(now_ns, End::Complete, None);
        Next::Close
    }

    /// Counts the outcome, logs it, and gives the buffers back.
    fn finish(self, now_ns: u64, end: End, status: Option<u16>) {
        let Self { worker, request, back, bytes_back, endpoint, has_retried, .. } = self;
        let Request { out, outcome, log, service, .. } = *request;
        if has_retried {
            let shard = service.recorder.track(outcome.track());
            let answered = end == End::Complete;
            let result = if answered { &shard.retries_answered } else { &shard.retries_failed };
            result.increment();
        }
        if let Some(mut line) = log {
            line.endpoint = endpoint;
            line.status = status.unwrap_or(outcome.status());
            line.bytes = bytes_back;
            line.duration_us = now_ns.saturating_sub(outcome.started_ns()) / 1_000;
            if !worker.access_log.send(*line) {
                worker.counters.log_dropped.increment();
            }
        }
        outcome.finish(now_ns, end, status);
        worker.put_spare(out);
        worker.put_spare(back);
    }
}

/// Reads grow while what they bring is written at once, and start small again when it is not.
fn grow(size: &mut usize, moved: usize, is_written: bool) {
    if !is_written {
        *size = READ_START;
    } else if moved >= *size {
        *size = (*size * 4).min(READ_MAX);
    }
}
