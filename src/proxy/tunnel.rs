//! Bytes both ways after a switch of protocols: WebSocket and whatever else was agreed.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::upstream::Connection;
use crate::wire::Wire;

use super::downstream::Downstream;
use super::worker::{READ_START, Worker};

/// Bytes after which one direction lets the worker's other connections have a turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// How long nothing may move of what came before one side broke.
const BROKEN_IDLE_NS: u64 = 5_000_000_000;

/// One direction: what was read and could not be written yet.
#[derive(Default)]
struct Direction {
    held: Vec<u8>,
    sent: usize,
    /// Nothing more is to be read.
    is_read: bool,
    /// And that is because the connection broke.
    is_broken: bool,
    /// All is written that ever will be.
    is_closed: bool,
    /// Whoever should get it is gone.
    is_lost: bool,
    carried: u64,
}

/// How a tunnel ended.
pub(super) struct Ended {
    /// Bytes that went to the client.
    pub(super) carried: u64,
    /// Whether the client has, or can get, all of them.
    pub(super) is_delivered: bool,
}

/// Carries bytes until both sides have ended, one broke and the other has what came of it, nothing
/// moves for `idle_ns`, or the time that `evicted_at` tells has come.
pub(super) async fn run(
    worker: &Rc<Worker>,
    downstream: &mut Downstream,
    upstream: Connection,
    idle_ns: u64,
    evicted_at: impl Fn() -> Option<u64>,
) -> Ended {
    let mut server = upstream.wire;
    let mut up = Direction { held: std::mem::take(&mut downstream.held), ..Direction::default() };
    let mut down = Direction::default();
    let Downstream { wire: client, alarm, .. } = downstream;
    alarm.set(worker.clock.now_ns().saturating_add(idle_ns));
    let mut is_breaking = false;
    poll_fn(|context| {
        let before = up.carried + down.carried;
        up.poll(context, worker, client, &mut server);
        down.poll(context, worker, &mut server, client);
        let is_over =
            (up.is_closed && down.is_closed) || up.is_all_of_broken() || down.is_all_of_broken();
        let breaks = !is_breaking && (up.is_breaking() || down.is_breaking());
        is_breaking |= breaks;
        if up.carried + down.carried > before || breaks {
            let idle_ns = if is_breaking { idle_ns.min(BROKEN_IDLE_NS) } else { idle_ns };
            alarm.set(worker.clock.coarse_ns().saturating_add(idle_ns));
        }
        let now_ns = worker.clock.coarse_ns();
        let is_overdue = alarm.is_overdue(context, now_ns)
            || evicted_at().is_some_and(|due_ns| due_ns <= now_ns);
        if is_over || is_overdue { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let is_delivered = !down.is_lost && down.sent == down.held.len();
    Ended { carried: down.carried, is_delivered }
}

impl Direction {
    /// Whether something is wrong with either of its sides.
    fn is_breaking(&self) -> bool {
        self.is_broken || self.is_lost
    }

    /// Whether all that came of a side that broke is written.
    fn is_all_of_broken(&self) -> bool {
        self.is_broken && self.is_closed
    }

    /// Moves what can be moved.
    fn poll(&mut self, context: &mut Context<'_>, worker: &Worker, from: &mut Wire, to: &mut Wire) {
        if let Poll::Ready(Err(_)) = self.poll_move(context, worker, from, to) {
            self.is_lost = true;
            self.is_closed = true;
        }
    }

    /// The same; an error when there is nobody to write to.
    fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        worker: &Worker,
        from: &mut Wire,
        to: &mut Wire,
    ) -> Poll<io::Result<()>> {
        let mut turn = 0;
        while !self.is_closed {
            match to.poll_flush(context, &self.held, &mut self.sent) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            }
            self.held.clear();
            self.sent = 0;
            if self.is_read {
                match to.poll_close(context) {
                    Poll::Ready(result) => result?,
                    Poll::Pending => return Poll::Pending,
                }
                self.is_closed = true;
                break;
            }
            if turn > TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let mut buffer = worker.buffer();
            let read = match from.poll_read(context, &mut buffer[..READ_START]) {
                Poll::Ready(Ok(count)) => &buffer[..count],
                Poll::Ready(Err(_)) => {
                    self.is_broken = true;
                    &[]
                }
                Poll::Pending => return Poll::Pending,
            };
            self.is_read = read.is_empty();
            let written = if read.is_empty() { 0 } else { to.try_write(read)? };
            self.held.extend_from_slice(&read[written..]);
            turn += read.len();
            self.carried += read.len() as u64;
        }
        Poll::Ready(Ok(()))
    }
}
