//! One client's connection: its wire, what it sent ahead, and its deadline.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::memory::{Charge, SCARCE_BYTES};
use crate::wire::{Peeked, Wire};

use super::alarm::AlarmHandle;
use super::client::Client;
use super::intake::{self, Intake, Parsed};
use super::worker::{READ_START, Worker};

/// How much is read when a head is due: several heads fit, and what is pipelined behind one is
/// moved to the front for each.
const HEAD_READ: usize = 16 * 1024;
/// What every connection may hold uncharged: the buffers of an ordinary request.
const ORDINARY_BYTES: usize = 2 * 1024;

/// A client's connection.
#[derive(Debug)]
pub struct Downstream {
    /// The socket.
    pub wire: Wire,
    /// The deadline of whatever is being waited for.
    pub alarm: AlarmHandle,
    /// Who is at the other end.
    pub client: Rc<Client>,
    /// Bytes that were read and not used yet: a head in pieces, or pipelined requests.
    pub held: Vec<u8>,
    /// How much the next read of a body may bring: it grows while this client takes everything at
    /// once, over its requests too, and falls back when it does not.
    pub read_size: usize,
    /// What it holds beyond the ordinary.
    charge: Charge,
    /// `held` has bytes that no parser has seen.
    is_fresh: bool,
    /// No request has come yet: the first head is due sooner than later ones.
    is_new: bool,
}

impl Downstream {
    /// A connection from `client`.
    #[must_use]
    pub fn new(worker: &Worker, wire: Wire, client: Rc<Client>) -> Self {
        let charge = Charge::new(&client.account);
        Self {
            wire,
            charge,
            alarm: worker.alarms.register(),
            client,
            held: Vec::new(),
            read_size: READ_START,
            is_fresh: false,
            is_new: true,
        }
    }

    /// Keeps what was read beyond the message at hand.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.is_fresh = !self.held.is_empty();
    }

    /// How much of a body may be read at once: a stream whose connection holds much gets little.
    #[must_use]
    pub fn body_read_size(&self) -> usize {
        if self.wire.is_stream() && self.client.account.is_tight() {
            return SCARCE_BYTES;
        }
        self.read_size
    }

    /// What is left behind the last request: the wire, what was read ahead of it, and the client.
    ///
    /// Nothing is charged any more. A connection at its end holds nothing, and one that counted as
    /// if it did would stand before whoever holds memory now.
    #[must_use]
    pub fn into_parts(self) -> (Wire, Vec<u8>, Rc<Client>) {
        let Self { wire, held, client, .. } = self;
        (wire, held, client)
    }

    /// Charges what a request holds, `more` and what was read ahead, to its connection. A few KiB
    /// are what every connection has.
    pub fn weigh(&mut self, more: usize) {
        let held = more + self.held.capacity() + self.wire.waiting();
        if held > ORDINARY_BYTES || self.charge.bytes() > 0 {
            self.charge.set(if held > ORDINARY_BYTES { held } else { 0 });
        }
    }

    /// Starts the deadline for the next head.
    pub fn await_request(&mut self, worker: &Worker) {
        let policy = &worker.state().shared.downstream;
        let at_rest = self.held.is_empty() && !self.is_new;
        let wait_ns = if at_rest { policy.idle_timeout_ns } else { policy.head_timeout_ns };
        self.alarm.set(worker.clock.coarse_ns().saturating_add(wait_ns));
    }

    /// Waits for a whole head and takes the request in.
    pub fn poll_request(&mut self, context: &mut Context<'_>, worker: &Worker) -> Poll<Intake> {
        if self.is_fresh
            && let Some(intake) = self.parse_held(worker)
        {
            return Poll::Ready(intake);
        }
        loop {
            let mut buffer = worker.buffer();
            let read = match self.wire.poll_read(context, &mut buffer[..HEAD_READ]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(_) => return Poll::Ready(Intake::Closed),
                Poll::Pending => {
                    self.weigh(0);
                    return self.poll_patience(context, worker);
                }
            };
            if self.held.is_empty() {
                if let Parsed::Whole { intake, used } = intake::parse(worker, self, read) {
                    if self.is_http2(&intake, read) {
                        self.held.extend_from_slice(read);
                        return Poll::Ready(Intake::Http2);
                    }
                    self.is_new = false;
                    self.hold(&read[used..]);
                    return Poll::Ready(intake);
                }
                self.held.extend_from_slice(read);
                let wait_ns = worker.state().shared.downstream.head_timeout_ns;
                self.alarm.set(worker.clock.now_ns().saturating_add(wait_ns));
                continue;
            }
            // A head that comes in drops is only parsed again when it may be whole, or too long:
            // otherwise a byte per packet would cost a parse per byte.
            let seen = self.held.len();
            self.held.extend_from_slice(read);
            drop(buffer);
            let limit = worker.state().shared.downstream.limits.head_bytes;
            let may_be_whole = may_end_head(&self.held[seen.saturating_sub(3)..]);
            if (may_be_whole || self.held.len() >= limit)
                && let Some(intake) = self.parse_held(worker)
            {
                return Poll::Ready(intake);
            }
        }
    }

    /// Takes a request from what is held, if it holds a whole head; what follows stays held.
    fn parse_held(&mut self, worker: &Worker) -> Option<Intake> {
        let mut held = std::mem::take(&mut self.held);
        self.is_fresh = false;
        let Parsed::Whole { intake, used } = intake::parse(worker, self, &held) else {
            self.held = held;
            return None;
        };
        if self.is_http2(&intake, &held) {
            self.held = held;
            return Some(Intake::Http2);
        }
        self.is_new = false;
        if used < held.len() {
            held.drain(..used);
            self.is_fresh = true;
            self.held = held;
        }
        Some(intake)
    }

    /// Whether what was refused as HTTP/1 is the preface of HTTP/2 (RFC 9113 §3.4).
    fn is_http2(&self, intake: &Intake, read: &[u8]) -> bool {
        self.is_new
            && matches!(intake, Intake::Refused(_))
            && self.client.listener.http2
            && !self.wire.is_stream()
            && read.starts_with(b"PRI * HTTP/2.0\r\n\r\n")
    }

    fn poll_patience(&self, context: &Context<'_>, worker: &Worker) -> Poll<Intake> {
        if self.alarm.is_overdue(context, worker.clock.coarse_ns()) {
            let silent = self.held.is_empty();
            return Poll::Ready(if silent { Intake::Closed } else { intake::head_timeout() });
        }
        if !self.wire.is_stream() && self.client.account.must_end() {
            return Poll::Ready(Intake::Closed);
        }
        if worker.closes_idle() && self.held.is_empty() {
            return Poll::Ready(Intake::Closed);
        }
        Poll::Pending
    }

    /// Waits until a client that has sent its request shows a sign of life, or of death.
    pub fn poll_sign(&mut self, context: &mut Context<'_>) -> Poll<Peeked> {
        self.wire.poll_peek(context)
    }

    /// Writes `bytes[*written..]` by the deadline at hand; false when the client does not take it.
    pub async fn flush(&mut self, worker: &Worker, bytes: &[u8], written: &mut usize) -> bool {
        poll_fn(|context| match self.wire.poll_flush(context, bytes, written) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending
                if self.alarm.is_overdue(context, worker.clock.coarse_ns())
                    || self.client.account.is_ending() =>
            {
                Poll::Ready(false)
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// Whether a head may end within `tail`: an empty line, or a line ending that is refused.
fn may_end_head(tail: &[u8]) -> bool {
    memchr::memmem::find(tail, b"\n\r\n").is_some() || memchr::memmem::find(tail, b"\n\n").is_some()
}
