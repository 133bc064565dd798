//! Copies of answered requests for another track. Whatever comes of a copy is counted and thrown
//! away; its original is over before the copy is sent and never waits for it.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http1::{Body, ResponseHead};
use crate::state::MirrorPolicy;
use crate::upstream::{Connection, DialError, Places, Pool, balance};

use super::intake::Request;
use super::local::LocalService;
use super::pieces::TURN_BYTES_MAX;
use super::worker::{READ_START, Worker};

/// Whether another track gets a copy of this request.
pub(super) fn is_chosen(worker: &Worker, request: &Request) -> bool {
    let Some(policy) = &request.service.shared.mirror else { return false };
    let may_be = policy.any_method || is_safe(&request.out);
    #[expect(clippy::cast_precision_loss, reason = "53 bits of the dice are enough")]
    let drawn = || (worker.dice() as f64) < policy.share * 2f64.powi(64);
    request.outcome.track() == policy.from && may_be && !request.upgrade && drawn()
}

/// Methods that only read (RFC 9110 §9.2.1); TRACE shows what nobody should see twice.
fn is_safe(out: &[u8]) -> bool {
    [&b"GET "[..], b"HEAD ", b"OPTIONS "].iter().any(|method| out.starts_with(method))
}

/// Sends a copy: `out` is the original as it was sent, if all of it is at hand.
pub(super) fn send(
    worker: &Rc<Worker>,
    service: Rc<LocalService>,
    out: Option<Vec<u8>>,
    to_head: bool,
) {
    let Some(policy) = &service.shared.mirror else { return };
    let shard = service.recorder.track(policy.to);
    let out = out.filter(|out| out.len() <= policy.body_bytes_max);
    let (Some(mut out), Some(permit)) = (out, policy.in_flight.enter(Places::Ruled)) else {
        shard.mirrored_dropped.increment();
        return;
    };
    // Behind the request line, which ends the first line of every head that we write.
    let place = memchr::memchr(b'\n', &out).map_or(0, |end| end + 1);
    out.splice(place..place, policy.line.iter().copied());
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let _permit = permit;
        let Some(policy) = &service.shared.mirror else { return };
        let carried = tokio::time::timeout(policy.timeout, carry(&worker, &service, &out, to_head));
        let shard = service.recorder.track(policy.to);
        match carried.await {
            Ok(Ok(status)) if status < 500 => shard.mirrored_answered.increment(),
            Ok(Err(error)) => {
                tracing::debug!(service = service.shared.live.name(), %error, "a copy failed");
                shard.mirrored_failed.increment();
            }
            _ => shard.mirrored_failed.increment(),
        }
        worker.put_spare(out);
    });
}

/// Carries a copy to its end; the status of its answer.
async fn carry(worker: &Worker, service: &LocalService, out: &[u8], to_head: bool) -> Result<u16> {
    let policy = service.shared.mirror.as_ref().expect("it was chosen");
    let pool = pick(worker, service, policy).ok_or(ErrorKind::AddrNotAvailable)?;
    let _in_flight = pool.enter(Places::Ruled);
    let mut exchange = Copy { worker, out, to_head, answer: Answer::default() };
    if let Some(connection) = pool.take(Places::Ruled) {
        match exchange.run(connection, &pool).await {
            // A pooled connection that closes without a byte was most likely closing already.
            Err(_) if exchange.answer.is_unseen() && is_safe(out) => {}
            result => return result,
        }
    }
    let most = service.shared.upstream.connections_max;
    let connection = match pool.dial(most, Places::Ruled).await {
        Ok(connection) => connection,
        Err(DialError::Exhausted) => return Err(Error::other("connections are exhausted")),
        Err(DialError::Io(error) | DialError::NoRoom(error)) => return Err(error),
    };
    exchange.run(connection, &pool).await
}

fn pick(worker: &Worker, service: &LocalService, policy: &MirrorPolicy) -> Option<Rc<Pool>> {
    let pools = service.pools[policy.to].as_deref()?;
    let load = |index: usize| {
        let is_in = pools[index].endpoint().standing() > 0;
        is_in.then(|| pools[index].in_flight())
    };
    balance::pick(pools.len(), worker.dice(), load).map(|index| Rc::clone(&pools[index]))
}

/// One copy on one connection.
struct Copy<'a> {
    worker: &'a Worker,
    out: &'a [u8],
    to_head: bool,
    answer: Answer,
}

/// How far the answer is.
#[derive(Default)]
struct Answer {
    /// A head that came in pieces.
    partial: Vec<u8>,
    /// The final head's status, what is left of its body, and whether another may follow.
    head: Option<(u16, Body, bool)>,
}

impl Answer {
    fn is_unseen(&self) -> bool {
        self.partial.is_empty() && self.head.is_none()
    }
}

impl Copy<'_> {
    async fn run(&mut self, mut connection: Connection, pool: &Pool) -> Result<u16> {
        let mut sent = 0;
        poll_fn(|context| connection.wire.poll_flush(context, self.out, &mut sent)).await?;
        let (status, is_reusable) =
            poll_fn(|context| self.poll_answer(context, &mut connection)).await?;
        if is_reusable {
            pool.put(connection, self.worker.clock.coarse_ns());
        }
        Ok(status)
    }

    /// Reads the answer and forgets it; its status, and whether the connection can carry another.
    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        connection: &mut Connection,
    ) -> Poll<Result<(u16, bool)>> {
        let mut turn = 0;
        loop {
            if let Some((status, body, persists)) = self.answer.head
                && body.is_done()
            {
                return Poll::Ready(Ok((status, persists)));
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = self.worker.buffer();
            let read = match connection.wire.poll_read(context, &mut buffer[..READ_START]) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(match self.answer.head {
                        Some((status, body, _)) if body.is_until_close() => Ok((status, false)),
                        _ => Err(ErrorKind::UnexpectedEof.into()),
                    });
                }
                Poll::Ready(Ok(count)) => &buffer[..count],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            turn += read.len();
            self.take(read)?;
        }
    }

    fn take(&mut self, read: &[u8]) -> Result<()> {
        if let Some((_, body, persists)) = &mut self.answer.head {
            let used = body.read(read, None).map_err(Error::other)?;
            *persists &= used == read.len();
            return Ok(());
        }
        self.answer.partial.extend_from_slice(read);
        let partial = std::mem::take(&mut self.answer.partial);
        let mut bytes = &partial[..];
        let limits = self.worker.state().shared.downstream.limits;
        loop {
            let mut spans = self.worker.fields();
            let Some(head) =
                ResponseHead::parse(bytes, limits, &mut spans).map_err(Error::other)?
            else {
                self.answer.partial = bytes.to_vec();
                return Ok(());
            };
            bytes = &bytes[head.bytes.len()..];
            if head.status >= 200 {
                let mut body = head.body(self.to_head);
                let used = body.read(bytes, None).map_err(Error::other)?;
                let persists = head.facts.persists(head.version) && used == bytes.len();
                self.answer.head = Some((head.status, body, persists));
                return Ok(());
            }
            if head.status == 101 {
                return Err(Error::other("a switch of protocols that nobody asked for"));
            }
        }
    }
}
