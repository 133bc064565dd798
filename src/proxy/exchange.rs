//! One request and its answer, both streaming, on one task.
//!
//! The straight path alternates: the request went out when it was taken in, the answer comes. With
//! a body still on its way both directions are polled, because answers may come early. Every
//! direction that blocks keeps what it could not write and is not read until that went.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::http1::Body;
use crate::http1::reply::Terms;
use crate::record::outcome::End;
use crate::state::InFlightPermit;
use crate::track::TrackIndex;
use crate::upstream::pool::InFlight;
use crate::upstream::{Connection, Pool};

use super::downstream::Downstream;
use super::failure::{CLIENT_LEFT, Failure};
use super::fault::HeldUp;
use super::intake::Request;
use super::mirror;
use super::retry::Tries;
use super::tell;
use super::tunnel;
use super::watch::Watch;
use super::worker::Worker;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next request.
    KeepAlive,
    /// A close, of which all that was written arrives.
    Close,
    /// A close at once: nobody takes what was written, or it must not look complete.
    Drop,
    /// Nothing was served yet: it speaks HTTP/2.
    Http2,
}

impl Next {
    /// What follows a reply of our own.
    pub(super) fn after_reply(is_written: bool, keep_alive: bool) -> Self {
        match (is_written, keep_alive) {
            (true, true) => Self::KeepAlive,
            (true, false) => Self::Close,
            (false, _) => Self::Drop,
        }
    }
}

/// Runs one request to its end.
pub async fn run(worker: &Rc<Worker>, downstream: &mut Downstream, request: Box<Request>) -> Next {
    let mut exchange = Exchange::new(worker, downstream, request);
    // Rare ends are boxed, or every connection would carry room for a second exchange.
    match exchange.drive().await {
        Event::Failed(failure) => Box::pin(exchange.fail(failure)).await,
        Event::Switched => Box::pin(exchange.tunnel()).await,
        Event::Complete | Event::Again => exchange.complete(),
    }
}

/// What ends a poll of the exchange.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Complete,
    /// The answer that came is not passed on; the request is tried once more.
    Again,
    Failed(Failure),
    /// Both sides speak another protocol now.
    Switched,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Awaited,
    Body(Body),
    /// All of it is passed on, and the request goes on.
    Whole,
    Switched,
}

/// The upstream at the other end, for the time of one attempt.
pub(super) struct Upstream {
    pub(super) connection: Connection,
    pub(super) pool: Rc<Pool>,
    pub(super) _in_flight: InFlight,
}

pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) downstream: &'a mut Downstream,
    pub(super) request: Box<Request>,
    pub(super) upstream: Option<Upstream>,
    /// The track that serves it: the one assigned, unless that one could not be connected.
    pub(super) track: TrackIndex,
    /// How much of `request.out` is written.
    pub(super) sent: usize,
    /// All of the request is upstream, or the upstream takes no more of it.
    pub(super) is_sent: bool,
    /// `request.out` holds all of the request that came so far: it can be sent again.
    pub(super) is_kept: bool,
    /// Another track gets a copy of it.
    pub(super) is_mirrored: bool,
    pub(super) tries: Tries,
    /// Its part of the track's limit.
    permit: Option<InFlightPermit>,
    /// The answer at hand is not wanted.
    pub(super) is_again: bool,
    /// The upstream stopped reading; its answer may be here all the same.
    pub(super) is_refusing: bool,
    /// Whether the client's next move is being watched.
    pub(super) watch: Watch,
    /// When what it waits for must have come; the alarm may be earlier, to look after the client.
    pub(super) due_ns: Cell<u64>,
    pub(super) keep_alive: bool,
    /// The upstream connection can carry another request.
    pub(super) is_reusable: bool,
    pub(super) interim_count: u8,
    pub(super) answer: Answer,
    /// A head that came in pieces.
    pub(super) partial: Vec<u8>,
    /// Trailers of the answer, and its status of gRPC once known.
    pub(super) trailers: Vec<u8>,
    pub(super) grpc_status: Option<u8>,
    /// How it ended for the track, once that is settled.
    pub(super) verdict: Option<End>,
    /// What the client could not take yet.
    pub(super) back: Vec<u8>,
    pub(super) back_sent: usize,
    pub(super) bytes_back: u64,
    pub(super) deadline_ns: u64,
    pub(super) held_up: HeldUp,
    pub(super) endpoint: Option<SocketAddr>,
}

impl<'a> Exchange<'a> {
    fn new(worker: &'a Rc<Worker>, downstream: &'a mut Downstream, request: Box<Request>) -> Self {
        request.service.budget.deposit();
        let limit_ns = request.service.shared.upstream.request_timeout_ns;
        let limit_ns = limit_ns.into_iter().chain(request.timeout_ns).min();
        let started_ns = request.outcome.started_ns();
        Self {
            worker,
            downstream,
            upstream: None,
            track: request.outcome.track(),
            sent: 0,
            is_sent: false,
            is_kept: true,
            is_mirrored: mirror::is_chosen(worker, &request),
            tries: Tries::default(),
            permit: None,
            is_again: false,
            is_refusing: false,
            watch: Watch::Later,
            due_ns: Cell::new(u64::MAX),
            keep_alive: request.keep_alive,
            is_reusable: false,
            interim_count: 0,
            answer: Answer::Awaited,
            partial: Vec::new(),
            trailers: Vec::new(),
            grpc_status: None,
            verdict: None,
            back: Vec::new(),
            back_sent: 0,
            bytes_back: 0,
            deadline_ns: limit_ns.map_or(u64::MAX, |limit_ns| started_ns.saturating_add(limit_ns)),
            held_up: HeldUp::default(),
            endpoint: None,
            request,
        }
    }

    /// Moves the request and its answer until one of them ends it; never [`Event::Again`].
    async fn drive(&mut self) -> Event {
        if let Some(most) = self.collects()
            && let Err(failure) = Box::pin(self.collect(most)).await
        {
            return Event::Failed(failure);
        }
        if !self.enters_track() {
            return Event::Failed(Failure::Shed);
        }
        loop {
            match self.connect().await {
                Ok(()) => {}
                Err(failure) if self.fail_over(failure) => continue,
                Err(failure) => return Event::Failed(failure),
            }
            match poll_fn(|context| self.poll(context)).await {
                Event::Again => {}
                Event::Failed(failure) => {
                    let failure = self.named(failure);
                    if !self.tries_again(failure) {
                        return Event::Failed(failure);
                    }
                }
                event => return event,
            }
        }
    }

    /// Asks for a place among the track's requests, where these are limited.
    fn enters_track(&mut self) -> bool {
        let mut tracks = self.request.service.shared.tracks.iter();
        let limit =
            tracks.find(|one| one.index == self.track).and_then(|one| one.in_flight.as_ref());
        let Some(limit) = limit else { return true };
        self.permit = limit.enter(self.request.places);
        if self.permit.is_none() {
            self.request.service.recorder.track(self.track).shed.increment();
        }
        self.permit.is_some()
    }

    // === both directions ===

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if !self.is_sent
            && let Poll::Ready(Err(failure)) = self.poll_request(context)
        {
            let is_whole = self.answer == Answer::Whole;
            return Poll::Ready(if is_whole { Event::Complete } else { Event::Failed(failure) });
        }
        if self.answer != Answer::Whole
            && let Poll::Ready(result) = self.poll_answer(context)
            && !(matches!(result, Ok(Event::Complete)) && self.outlasts_answer())
        {
            return Poll::Ready(result.unwrap_or_else(Event::Failed));
        }
        if self.answer == Answer::Whole {
            return self.poll_remainder(context);
        }
        self.note_who_is_waited_for();
        let is_overdue = self.is_due(context);
        if self.watch == Watch::Now && self.poll_left(context).is_ready() {
            return Poll::Ready(Event::Failed(Failure::ClientLeft));
        }
        if is_overdue {
            return Poll::Ready(Event::Failed(self.overdue()));
        }
        if self.is_evicted() {
            return Poll::Ready(Event::Failed(Failure::Evicted));
        }
        self.weigh();
        if self.must_end() {
            return Poll::Ready(Event::Failed(Failure::Memory));
        }
        Poll::Pending
    }

    /// Whether its track was rolled back so long ago that nothing may be left on it.
    pub(super) fn is_evicted(&self) -> bool {
        let outcome = &self.request.outcome;
        let live = &self.request.service.shared.live;
        let due_ns = live.evicted_at(outcome.track(), outcome.started_ns());
        due_ns.is_some_and(|due_ns| due_ns <= self.worker.clock.coarse_ns())
    }

    /// Whether its connection ends because memory is short.
    pub(super) fn must_end(&self) -> bool {
        let account = &self.downstream.client.account;
        // Which of the connections that carry streams end they decide themselves.
        if self.downstream.wire.is_stream() { account.is_ending() } else { account.must_end() }
    }

    /// Charges what it holds while it waits.
    pub(super) fn weigh(&mut self) {
        let upstream = self.upstream.as_mut().map_or(0, |one| one.connection.wire.waiting());
        let (out, back) = (self.request.out.capacity(), self.back.capacity());
        self.downstream.weigh(out + back + self.partial.capacity() + upstream);
    }

    pub(super) fn is_overdue(&self, context: &Context<'_>) -> bool {
        self.downstream.alarm.is_overdue(context, self.worker.clock.coarse_ns())
    }

    pub(super) fn extend_between_bytes(&self) {
        self.extend(self.patience_ns());
    }

    // === the end ===

    fn complete(mut self) -> Next {
        let now_ns = self.worker.clock.coarse_ns();
        let end = self.verdict.unwrap_or_else(|| self.verdict_of_trailers());
        if !matches!(end, End::Pardoned(_)) {
            self.tally(self.request.outcome.status() < 500 && end == End::Complete);
        }
        let upstream = self.upstream.take().expect("complete means answered");
        // An answer over a pooled connection ends a back-off as a connect does.
        upstream.pool.endpoint().connected();
        if self.is_reusable && self.is_sent && !self.is_refusing && !self.is_wanted(&upstream.pool)
        {
            upstream.pool.put(upstream.connection, now_ns);
        }
        let is_read = self.request.body.is_done();
        // What is left of a body cannot be told from the next request.
        let next = if self.keep_alive && is_read { Next::KeepAlive } else { Next::Close };
        self.finish(now_ns, end, None);
        next
    }

    async fn fail(mut self, mut failure: Failure) -> Next {
        // What is told of it may take its time.
        self.watch = Watch::Over;
        // A connection that we end breaks its streams.
        if self.downstream.client.account.is_ending() {
            failure = Failure::Memory;
        }
        if failure.is_upstreams() {
            self.tally(false);
        }
        self.attempt_fails(failure, true);
        self.upstream = None;
        let now_ns = self.worker.clock.now_ns();
        let is_headed = self.answer != Answer::Awaited;
        let status = (!is_headed).then(|| failure.status());
        let left = failure.status() == CLIENT_LEFT || failure == Failure::Memory;
        if is_headed && !left && self.end_call(failure).await {
            self.finish(now_ns, failure.end(), None);
            return Next::Close;
        }
        if is_headed || left {
            // A chunked or counted body that stops is seen to be cut short; one that ends with
            // the connection is only seen to be if the connection ends badly.
            let must_reset = matches!(self.answer, Answer::Body(body) if body.is_until_close());
            if must_reset {
                self.downstream.wire.reset_on_close();
            }
            self.finish(now_ns, failure.end(), status);
            let is_gone = must_reset || failure == Failure::ClientLeft;
            return if is_gone { Next::Drop } else { Next::Close };
        }
        let is_read = self.request.body.is_done() && failure != Failure::BadChunk;
        let keep_alive = self.request.keep_alive && is_read && !self.worker.is_draining();
        let (to_head, is_grpc) = (self.request.to_head, self.request.is_grpc);
        let terms = Terms { date: &self.worker.date(), keep_alive, to_head };
        failure.write(&mut self.back, &terms, is_grpc);
        if is_grpc {
            self.request.outcome.grpc(failure.grpc_status());
        }
        self.extend_between_bytes();
        let is_written = self.downstream.flush(self.worker, &self.back, &mut self.back_sent).await;
        self.bytes_back += self.back_sent as u64;
        self.finish(now_ns, failure.end(), status);
        Next::after_reply(is_written, keep_alive)
    }

    async fn tunnel(mut self) -> Next {
        let upstream = self.upstream.take().expect("switched means answered");
        let idle_ns = self.request.service.shared.upstream.tunnel_idle_timeout_ns;
        // Boxed because tunnels are rare and long: others should not carry their size.
        let live = Arc::clone(&self.request.service.shared.live);
        let (track, started_ns) = (self.request.outcome.track(), self.request.outcome.started_ns());
        let evicted_at = move || live.evicted_at(track, started_ns);
        let tunnel =
            tunnel::run(self.worker, self.downstream, upstream.connection, idle_ns, evicted_at);
        let ended = Box::pin(tunnel).await;
        self.bytes_back += ended.carried;
        let now_ns = self.worker.clock.now_ns();
        self.finish(now_ns, End::Complete, None);
        if ended.is_delivered { Next::Close } else { Next::Drop }
    }

    /// Counts the outcome, logs it, and gives the buffers back.
    fn finish(self, now_ns: u64, end: End, status: Option<u16>) {
        let Self { worker, request, back, bytes_back, endpoint, tries, .. } = self;
        let is_whole = self.is_kept && request.body.is_done();
        let Request { out, outcome, told, service, to_head, .. } = *request;
        tries.count(service.recorder.track(outcome.track()), end);
        if let Some(told) = told {
            let ended = tell::Ended {
                now_ns,
                started_ns: outcome.started_ns(),
                endpoint,
                status: status.unwrap_or(outcome.status()),
                bytes: bytes_back,
                grpc_status: self.grpc_status,
            };
            tell::end(worker, *told, &ended);
        }
        outcome.finish(now_ns, end, status);
        if self.is_mirrored {
            mirror::send(worker, service, is_whole.then_some(out), to_head);
        } else {
            worker.put_spare(out);
        }
        worker.put_spare(back);
    }
}
