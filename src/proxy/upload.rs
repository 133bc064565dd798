//! The request's direction of an exchange: its head, and its body while that comes.

use std::task::{Context, Poll};

use super::exchange::{Answer, Exchange};
use super::failure::Failure;
use super::pieces::{TURN_BYTES_MAX, empty, grow};
use super::watch::Watch;

impl Exchange<'_> {
    /// Moves the request upstream; ready when it is there, or will never be.
    pub(super) fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let worker = self.worker;
        let mut turn = 0;
        loop {
            let upstream = self.upstream.as_mut().expect("connected before it is polled");
            let wire = &mut upstream.connection.wire;
            let before = self.sent;
            match wire.poll_flush(context, &self.request.out, &mut self.sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // It may have answered before it stopped reading: the answer decides.
                    self.is_refusing = true;
                    self.sending_ended();
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    // Only what moves buys time.
                    if self.sent > before {
                        self.extend_between_bytes();
                    }
                    self.request.outcome.sent(worker.clock.coarse_ns());
                    return Poll::Pending;
                }
            }
            if self.request.body.is_done() {
                self.sending_ended();
                return Poll::Ready(Ok(()));
            }
            self.request.outcome.sending();
            if !self.keeps_body() {
                empty(&mut self.request.out);
                self.sent = 0;
                self.is_kept = false;
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = worker.buffer();
            let size = self.downstream.body_read_size();
            let read = match self.downstream.wire.poll_read(context, &mut buffer[..size]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(_) => return Poll::Ready(Err(Failure::ClientLeftSending)),
                Poll::Pending => return Poll::Pending,
            };
            turn += read.len();
            let taken = self.request.take(read)?;
            self.downstream.hold(&read[taken.used..]);
            let passed = &read[..taken.passed];
            // A write that fails here fails again in the flush above, which knows what to do.
            let upstream = self.upstream.as_mut().expect("connected before it is polled");
            let written = upstream.connection.wire.try_write(passed).unwrap_or(0);
            if self.is_kept {
                self.request.out.extend_from_slice(passed);
                self.sent += written;
            } else {
                self.request.out.extend_from_slice(&passed[written..]);
            }
            grow(&mut self.downstream.read_size, read.len(), written == passed.len());
            self.request.forward_trailers()?;
            self.extend_between_bytes();
        }
    }

    fn sending_ended(&mut self) {
        self.is_sent = true;
        // The first poll follows the intake's clock reading at once, or the dial's.
        self.request.outcome.sent(self.worker.clock.coarse_ns());
        if self.answer == Answer::Awaited {
            let now_ns = self.worker.clock.coarse_ns();
            let shared = &self.request.service.shared;
            let per_try_ns = shared.retry.as_ref().and_then(|retry| retry.per_try_timeout_ns);
            let wait_ns = shared.upstream.first_byte_timeout_ns;
            let wait_ns = per_try_ns.map_or(wait_ns, |per_try_ns| per_try_ns.min(wait_ns));
            if self.downstream.wire.is_stream() {
                // A stream that is given up says so, and looking costs nothing.
                self.watch = Watch::Now;
            }
            self.wait_until(now_ns.saturating_add(wait_ns).min(self.deadline_ns));
        }
    }
}
