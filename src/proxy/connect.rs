//! The exchange's way to an upstream: pick an endpoint, take a pooled connection or dial.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::record::outcome::End;
use crate::state::BalanceBy;
use crate::upstream::endpoint::FULL;
use crate::upstream::{Connection, DialError, Pool, balance};

use super::exchange::{Exchange, Upstream};
use super::failure::Failure;
use super::watch::Watch;

/// Endpoints that one request tries to connect to.
const CONNECTS_MAX: usize = 3;
/// How often a request that waits for a connection looks for those of other workers.
const RECHECK_NS: u64 = 50_000_000;

impl Exchange<'_> {
    /// Finds a connection, and waits for one where there are as many as may be.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        match self.connect_now().await {
            // Boxed because waiting is rare.
            Err(failure @ (Failure::Exhausted | Failure::Descriptors)) => {
                Box::pin(self.connect_later(failure)).await
            }
            result => result,
        }
    }

    /// Waits for a connection of another request, for as long as connecting may take: there was none
    /// by `failure`.
    async fn connect_later(&mut self, mut failure: Failure) -> Result<(), Failure> {
        let (service, places) = (Rc::clone(&self.request.service), self.request.places);
        let place = service.shared.pending.as_ref().and_then(|pending| pending.enter(places));
        let wait_ns = service.shared.upstream.connect_timeout_ns;
        let until_ns = self.worker.clock.now_ns().saturating_add(wait_ns).min(self.deadline_ns);
        while place.is_some() && self.worker.clock.now_ns() < until_ns {
            let pool = self.pick(&[]).ok_or(Failure::NoEndpoint)?;
            let alarm = &self.downstream.alarm;
            // Another worker's connections end unseen: worth a look at every sweep.
            alarm.set(until_ns.min(self.worker.clock.coarse_ns() + RECHECK_NS));
            let mut ended = Box::pin(pool.ended(places));
            poll_fn(|context| {
                let is_overdue = alarm.is_overdue(context, self.worker.clock.coarse_ns());
                if is_overdue { Poll::Ready(()) } else { ended.as_mut().poll(context) }
            })
            .await;
            drop(ended);
            if self.has_left() {
                return Err(Failure::ClientLeft);
            }
            match self.connect_now().await {
                Err(again @ (Failure::Exhausted | Failure::Descriptors)) => failure = again,
                result => return result,
            }
        }
        if failure == Failure::Exhausted {
            service.recorder.track(self.track).exhausted.increment();
        }
        Err(failure)
    }

    /// Finds a connection: a pooled one, else a new one, at up to [`CONNECTS_MAX`] endpoints.
    async fn connect_now(&mut self) -> Result<(), Failure> {
        self.upstream = None;
        self.sent = 0;
        self.is_sent = false;
        self.is_refusing = false;
        self.is_again = false;
        self.watch = Watch::Later;
        self.is_reusable = false;
        self.partial.clear();
        self.trailers.clear();
        self.grpc_status = None;
        let failed = self.endpoint;
        let mut tried = [None; CONNECTS_MAX];
        let mut failure = Failure::NoEndpoint;
        for attempt in 0..CONNECTS_MAX {
            // Another try goes to another endpoint, if there is one.
            let other = attempt == 0 && self.tries.any() && !self.tries.avoid_pooled();
            let pool = if other { self.pick(&[failed]) } else { None };
            let Some(pool) = pool.or_else(|| self.pick(&tried[..attempt])) else { break };
            tried[attempt] = Some(pool.endpoint().address());
            self.attempt_begins(pool.endpoint().address());
            // After a pooled connection was found closed, its idle siblings are no better.
            let pooled =
                if self.tries.avoid_pooled() { None } else { pool.take(self.request.places) };
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
                Err(error) => {
                    self.attempt_fails(error, false);
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    /// Whether another worker waits for a connection, which it can only have when one is closed.
    pub(super) fn is_wanted(&self, pool: &Pool) -> bool {
        let pending = self.request.service.shared.pending.as_ref();
        let places = self.request.places;
        pending.is_some_and(|pending| pending.count_of(places) > pool.waiting(places))
    }

    /// Turns to another track when this one cannot be connected and the service allows it. The
    /// failure stays this track's.
    pub(super) fn fail_over(&mut self, failure: Failure) -> bool {
        let service = &self.request.service;
        let next = service.shared.failover.iter().find(|(from, _)| *from == self.track);
        let has_moved = self.track != self.request.outcome.track();
        let Some((_, next)) = next.filter(|_| failure.is_connect() && !has_moved) else {
            return false;
        };
        service.recorder.track(self.track).failed_over.increment();
        self.track = *next;
        match failure.end() {
            End::Pardoned(reason) => self.request.outcome.pardon(reason),
            _ => self.request.outcome.moved(failure.status()),
        }
        true
    }

    fn begin(&mut self, mut connection: Connection, pool: Rc<Pool>) {
        connection.wire.charge_to(&self.downstream.client.account);
        self.endpoint = Some(pool.endpoint().address());
        // The deadline at hand was the head's, or the dial's.
        self.extend_between_bytes();
        let in_flight = pool.enter(self.request.places);
        self.upstream = Some(Upstream { connection, pool, _in_flight: in_flight });
    }

    /// The endpoint to try next: the service's choice among those that are neither out nor backed
    /// off; when there is none, one that is backed off, because trying is better than failing
    /// untried. What is out is out.
    fn pick(&self, tried: &[Option<SocketAddr>]) -> Option<Rc<Pool>> {
        let pools = self.request.service.pools[self.track].as_deref()?;
        let now_ns = self.worker.clock.coarse_ns();
        let untried = |pool: &Rc<Pool>| !tried.contains(&Some(pool.endpoint().address()));
        let is_in = |pool: &Rc<Pool>| pool.endpoint().standing() > 0 && untried(pool);
        let healthy = |index: usize| {
            let pool = &pools[index];
            is_in(pool) && !pool.endpoint().is_backed_off(now_ns)
        };
        // One that is warming up gets its share of the draws.
        let warm = |index: usize| {
            let standing = pools[index].endpoint().standing();
            healthy(index)
                && (standing >= FULL || self.worker.dice() % u64::from(FULL) < standing.into())
        };
        let picked = self.choose(pools, warm).or_else(|| self.choose(pools, healthy));
        if let Some(index) = picked {
            if pools[index].endpoint().claim(now_ns) {
                return Some(Rc::clone(&pools[index]));
            }
            if let Some(index) = self.choose(pools, |other| healthy(other) && other != index) {
                return Some(Rc::clone(&pools[index]));
            }
        }
        let index = self.choose(pools, |index| is_in(&pools[index]))?;
        Some(Rc::clone(&pools[index]))
    }

    /// The service's choice among the usable of `pools`.
    fn choose(&self, pools: &[Rc<Pool>], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let service = &self.request.service;
        match service.shared.balance.by {
            BalanceBy::LeastRequests => {
                let load = |index: usize| usable(index).then(|| pools[index].in_flight());
                balance::pick(pools.len(), self.worker.dice(), load)
            }
            BalanceBy::RoundRobin => {
                let turn = service.turn.get();
                service.turn.set(turn.wrapping_add(1));
                balance::next(pools.len(), turn, usable)
            }
            BalanceBy::Key(_) => {
                let hash = |index: usize| pools[index].endpoint().hash();
                balance::of_key(pools.len(), self.request.balance_key, hash, usable)
            }
        }
    }

    /// Counts how an attempt at the endpoint at hand went.
    pub(super) fn tally(&self, is_good: bool) {
        if let Some(upstream) = &self.upstream {
            upstream.pool.endpoint().tally(self.worker.index, is_good);
        }
    }

    /// Ready when connecting takes too long, or nobody waits for it any more.
    fn poll_patience<T>(&mut self, context: &Context<'_>) -> Poll<Result<T, Failure>> {
        if !self.is_overdue(context) {
            return Poll::Pending;
        }
        if self.has_left() {
            return Poll::Ready(Err(Failure::ClientLeft));
        }
        if self.due_ns.get() <= self.worker.clock.coarse_ns() {
            return Poll::Ready(Err(Failure::ConnectTimeout));
        }
        self.wait_until(self.due_ns.get());
        Poll::Pending
    }

    async fn dial(&mut self, pool: &Rc<Pool>) -> Result<Connection, Failure> {
        let policy = &self.request.service.shared.upstream;
        let endpoint = Arc::clone(pool.endpoint());
        let worker = self.worker;
        let started_ns = worker.clock.now_ns();
        let due_ns = started_ns.saturating_add(policy.connect_timeout_ns);
        self.wait_until(due_ns.min(self.deadline_ns));
        // Boxed because dialling is rare and its future would make every connection larger.
        let mut dialling = Box::pin(pool.dial(policy.connections_max, self.request.places));
        let mut why = None;
        let dialled = poll_fn(|context| match dialling.as_mut().poll(context) {
            Poll::Ready(Ok(connection)) => Poll::Ready(Ok(connection)),
            Poll::Ready(Err(DialError::Exhausted)) => Poll::Ready(Err(Failure::Exhausted)),
            Poll::Ready(Err(DialError::NoRoom(error))) => {
                tracing::debug!(endpoint = %endpoint.address(), %error, "no room to connect");
                Poll::Ready(Err(Failure::Descriptors))
            }
            Poll::Ready(Err(DialError::Io(error))) => {
                if error.kind() == std::io::ErrorKind::ConnectionRefused {
                    endpoint.note_refusal();
                }
                tracing::debug!(endpoint = %endpoint.address(), %error, "connect failed");
                why = Some(error);
                Poll::Ready(Err(Failure::Connecting))
            }
            Poll::Pending => self.poll_patience(context),
        });
        let mut dialled = dialled.await;
        let now_ns = worker.clock.now_ns();
        if let Err(failure @ Failure::ConnectTimeout) = &mut dialled {
            *failure = self.connect_overdue(now_ns - started_ns);
        }
        if let Err(failure) = &dialled
            && failure.is_upstreams()
        {
            endpoint.tally(worker.index, false);
            if endpoint.refused(now_ns) {
                let endpoint = endpoint.address();
                // What TLS or the system said, so that a bad certificate is seen for what it is.
                let error = why.map_or_else(|| failure.to_string(), |error| error.to_string());
                tracing::warn!(%endpoint, %error, "endpoint is left alone for a while");
            }
        }
        dialled
    }
}
