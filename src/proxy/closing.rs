//! The end of a client's connection, whatever was spoken on it.
//!
//! A close while bytes of the client are unread, or still come, makes the kernel reset the
//! connection and throw away what it has not sent yet: the end of an answer, most likely
//! (RFC 9112 §9.6). So every connection ends here: what is left is sent, the client is told that
//! nothing follows, and what it sends is read and dropped until it has closed its side, too.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::wire::Wire;

use super::worker::{READ_START, Worker};

/// How long all of it may take, as nginx's `lingering_time` and as much again: a full send buffer
/// of 4 MiB takes half a minute to a client with one Mbit/s.
const LINGER_NS: u64 = 60_000_000_000;
/// How long nothing may come of a client before it is given up: nginx's `lingering_timeout`. What
/// is not sent by then is still sent by the kernel, unless something comes after all.
const QUIET_NS: u64 = 5_000_000_000;
/// The same in a drain for a client that has had its last answer for a while: nothing is lost any
/// more, and most of those that do not close at once keep their side for good.
const IDLE_QUIET_NS: u64 = 1_000_000_000;
/// Most bytes that are read and dropped: an upload of this size that is refused gets its answer
/// even if the client reads it last. Reading costs as much as any upload does.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Connections of one worker that may be at their end; others are closed at once. A client needs a
/// round trip: at 100 ms these are 40,000 closes a second.
const LINGERING_MAX: usize = 4_096;

/// What was going on when the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// An answer, or whatever else the client should get.
    Answer,
    /// Nothing, for a while.
    Rest,
}

/// One of the connections at their end.
struct Lingering(Rc<Worker>);

impl Lingering {
    fn enter(worker: &Rc<Worker>) -> Option<Self> {
        let count = worker.lingering.get();
        (count < LINGERING_MAX).then(|| {
            worker.lingering.set(count + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.set(self.0.lingering.get() - 1);
    }
}

/// Ends `wire` so that all that was written on it arrives.
pub(super) async fn close(worker: &Rc<Worker>, mut wire: Wire, before: Before) {
    let lingering = Lingering::enter(worker);
    let alarm = worker.alarms.register();
    let until_ns = worker.clock.now_ns().saturating_add(LINGER_NS);
    alarm.set(until_ns);
    let is_overdue = |context: &Context<'_>| alarm.is_overdue(context, worker.clock.coarse_ns());
    let told = poll_fn(|context| match wire.poll_close(context) {
        Poll::Ready(told) => Poll::Ready(told.is_ok()),
        Poll::Pending if lingering.is_none() || is_overdue(context) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    if !told.await || lingering.is_none() {
        return;
    }
    // What comes now is for nobody: it need not be decrypted.
    let mut wire = wire.into_bare();
    let quiet_ns = match before {
        Before::Rest if worker.is_draining() => IDLE_QUIET_NS,
        Before::Rest | Before::Answer => QUIET_NS,
    };
    alarm.set(worker.clock.now_ns().saturating_add(quiet_ns).min(until_ns));
    let mut left = LINGER_BYTES_MAX;
    poll_fn(|context| {
        loop {
            let mut buffer = worker.buffer();
            match wire.poll_read(context, &mut buffer[..READ_START]) {
                Poll::Ready(Ok(count)) if count > 0 && count < left => {
                    left -= count;
                    alarm.set(worker.clock.coarse_ns().saturating_add(quiet_ns).min(until_ns));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if is_overdue(context) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
