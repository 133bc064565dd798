//! Whether the client of an exchange is still there while others are waited for.
//!
//! Most answers come sooner than a look is worth. After a while the client is looked after: one that
//! has closed its side and asked for nothing that matters twice is gone, and with it its place, its
//! connections and its request.

use std::task::{Context, Poll};

use crate::wire::Peeked;

use super::exchange::Exchange;

/// After this long without a sign of anything it is worth looking whether the client is still there;
/// with the sweep's step a client that left is seen within a second.
pub(super) const WATCH_AFTER_NS: u64 = 500_000_000;

/// Whether a waiting client is being watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// When nothing has come for a while.
    Later,
    Now,
    /// It has said that it sends no more, and is served all the same.
    Over,
}

impl Exchange<'_> {
    /// Gives the exchange another while from now on.
    pub(super) fn extend(&self, wait_ns: u64) {
        let due_ns = self.worker.clock.coarse_ns().saturating_add(wait_ns);
        self.wait_until(due_ns.min(self.deadline_ns));
    }

    /// Gives the exchange until `due_ns`, with a look after the client in between.
    pub(super) fn wait_until(&self, due_ns: u64) {
        self.due_ns.set(due_ns);
        let look_ns = self.worker.clock.coarse_ns().saturating_add(WATCH_AFTER_NS);
        let is_watched = self.watch != Watch::Later;
        self.downstream.alarm.set(if is_watched { due_ns } else { due_ns.min(look_ns) });
    }

    /// Whether what it waits for should have come. On the way there the client is looked after.
    pub(super) fn is_due(&mut self, context: &Context<'_>) -> bool {
        if self.is_overdue(context) && self.watch == Watch::Later {
            self.look();
        }
        self.is_overdue(context)
    }

    /// The time to look has come.
    #[cold]
    fn look(&mut self) {
        // Until its whole request is here the client is read, which tells more.
        if self.request.body.is_done() {
            self.watch = Watch::Now;
            self.downstream.alarm.set(self.due_ns.get());
        } else {
            self.wait_until(self.due_ns.get());
        }
    }

    /// Ready when the client is gone; looked after again later where it has sent more.
    pub(super) fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.downstream.poll_sign(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Peeked::Broken) => Poll::Ready(()),
            Poll::Ready(Peeked::Closed) if self.leaves_by_closing() => Poll::Ready(()),
            Poll::Ready(Peeked::Closed) => {
                self.watch = Watch::Over;
                Poll::Pending
            }
            Poll::Ready(Peeked::Bytes) if self.has_left() => Poll::Ready(()),
            Poll::Ready(Peeked::Bytes) => {
                self.watch = Watch::Later;
                self.wait_until(self.due_ns.get());
                // The alarm must know whom to wake.
                let _ = self.is_overdue(context);
                Poll::Pending
            }
        }
    }

    /// Whether the client is gone, by what is known without reading.
    pub(super) fn has_left(&mut self) -> bool {
        let counts = self.downstream.wire.is_stream() || self.leaves_by_closing();
        counts && self.downstream.wire.has_left()
    }

    /// Whether a client that has closed its side wants no answer any more: one that asked for
    /// something to happen may have said all that it had to say.
    fn leaves_by_closing(&self) -> bool {
        self.request.is_safe && !self.request.state.shared.downstream.serves_half_closed
    }
}
