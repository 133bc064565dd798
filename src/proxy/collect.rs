//! A request's body, collected ahead of its upstream where the service wishes that, so that a slow
//! upload holds no place there.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::exchange::Exchange;
use super::failure::Failure;
use super::pieces::TURN_BYTES_MAX;

/// The least that is asked for: a wire frames what it brings.
const PIECE_BYTES_MIN: usize = 1024;

impl Exchange<'_> {
    /// How much of the body is collected, if any is: all of it or nothing where its length is known,
    /// and nothing where its client waits to be asked for it.
    pub(super) fn collects(&self) -> Option<usize> {
        let request = &self.request;
        let most = request.service.shared.upstream.buffer_bytes?;
        let fits = request.body.counted().is_none_or(|left| left <= most as u64);
        let waits = request.expects || request.upgrade;
        (fits && !waits && !request.body.is_done()).then_some(most)
    }

    /// Collects the body up to `most` bytes, or as far as memory goes; what is larger streams on.
    pub(super) async fn collect(&mut self, most: usize) -> Result<(), Failure> {
        self.request.outcome.sending();
        self.extend_between_bytes();
        poll_fn(|context| self.poll_collect(context, most)).await
    }

    fn poll_collect(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<(), Failure>> {
        let mut turn = 0;
        loop {
            let left = (self.request.head_bytes + most).saturating_sub(self.request.out.len());
            let is_full = left == 0 || self.downstream.client.account.is_full();
            if is_full || self.request.body.is_done() {
                return Poll::Ready(Ok(()));
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let worker = self.worker;
            let mut buffer = worker.buffer();
            let size = self.downstream.body_read_size().min(left.max(PIECE_BYTES_MIN));
            let read = match self.downstream.wire.poll_read(context, &mut buffer[..size]) {
                Poll::Ready(Ok(count)) if count > 0 => &buffer[..count],
                Poll::Ready(_) => return Poll::Ready(Err(Failure::ClientLeftSending)),
                Poll::Pending => return self.poll_body_patience(context),
            };
            turn += read.len();
            let taken = self.request.take(read)?;
            self.downstream.hold(&read[taken.used..]);
            self.request.out.extend_from_slice(&read[..taken.passed]);
            self.request.forward_trailers()?;
            self.extend_between_bytes();
        }
    }

    /// Ready when the body comes too slowly, or memory is short.
    fn poll_body_patience(&mut self, context: &Context<'_>) -> Poll<Result<(), Failure>> {
        self.weigh();
        if self.must_end() {
            return Poll::Ready(Err(Failure::Memory));
        }
        if self.is_due(context) { Poll::Ready(Err(Failure::BodyTimeout)) } else { Poll::Pending }
    }
}
