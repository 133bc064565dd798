//! What is left of a request whose whole answer has come already.
//!
//! A server may answer first and read on, and both directions of a call may stream at once. So the
//! rest of the body goes on for as long as the server takes it, and the connection serves the next
//! request when it has come to its end. Where that is not to be relied on the answer says
//! `connection: close` (RFC 9110 §10.1.1, RFC 9112 §9.6).

use std::task::{Context, Poll};

use crate::http1::ResponseHead;

use super::exchange::{Answer, Event, Exchange};
use super::worker::READ_START;

/// How long nothing may come of a client that was told that its connection closes.
const TOLD_QUIET_NS: u64 = 5_000_000_000;
/// Most bytes of a body that are read for nobody, so that the next request can be told from it.
const DROPPED_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Exchange<'_> {
    /// Whether the rest of the body may never be read, or never be sent, so that the client has to
    /// be told with `head` not to send another request behind it.
    pub(super) fn may_leave_body(&self, head: &ResponseHead<'_>) -> bool {
        let is_unsure = self.request.expects || self.is_refusing || head.status >= 400;
        !self.request.body.is_done() && (is_unsure || !head.facts.persists(head.version))
    }

    /// Whether the request goes on though all of its answer is passed on; if so, the track has done
    /// its part.
    pub(super) fn outlasts_answer(&mut self) -> bool {
        let Answer::Body(answer) = self.answer else { return false };
        let is_over = self.request.body.is_done() || !answer.is_done();
        // A stream is reset without an error, and a connection closed in order: either tells the
        // client to send no more.
        let is_unwanted = self.request.outcome.status() >= 400 || self.drops_remainder();
        if is_over || is_unwanted {
            return false;
        }
        let end = self.verdict_of_trailers();
        self.request.outcome.answered(end);
        self.verdict = Some(end);
        self.answer = Answer::Whole;
        self.extend_between_bytes();
        true
    }

    /// Whether what the upstream does not take is of no use any more.
    fn drops_remainder(&self) -> bool {
        self.is_refusing && (!self.keep_alive || self.downstream.wire.is_stream())
    }

    /// How long nothing may come of the rest.
    pub(super) fn patience_ns(&self) -> u64 {
        let usual_ns = self.request.service.shared.upstream.between_bytes_timeout_ns;
        let is_told = self.answer == Answer::Whole && !self.keep_alive;
        if is_told { usual_ns.min(TOLD_QUIET_NS) } else { usual_ns }
    }

    /// Waits for the end of the request. However it ends, the answer was whole.
    pub(super) fn poll_remainder(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if self.is_sent {
            let is_over = self.request.body.is_done() || self.drops_remainder();
            if is_over || self.poll_dropped(context).is_ready() {
                return Poll::Ready(Event::Complete);
            }
        }
        let is_over = self.is_due(context) || self.is_evicted();
        if is_over { Poll::Ready(Event::Complete) } else { Poll::Pending }
    }

    /// Reads what the upstream does not take; ready when nothing follows, or nothing to rely on.
    fn poll_dropped(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let left = &mut self.request.body_bytes_left;
        *left = (*left).min(DROPPED_BYTES_MAX);
        while !self.request.body.is_done() {
            let mut buffer = self.worker.buffer();
            let wire = &mut self.downstream.wire;
            let read = match wire.poll_read(context, &mut buffer[..READ_START]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            };
            let Ok(used) = self.request.body.read(read, None) else { return Poll::Ready(()) };
            self.downstream.hold(&read[used..]);
            match self.request.body_bytes_left.checked_sub(used as u64) {
                Some(left) => self.request.body_bytes_left = left,
                None => return Poll::Ready(()),
            }
            self.extend_between_bytes();
        }
        Poll::Ready(())
    }
}
