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

/// One direction: what was read and could not be written yet.
#[derive(Default)]
struct Direction {
    held: Vec<u8>,
    sent: usize,
    is_read: bool,
    is_closed: bool,
    carried: u64,
}

/// Carries bytes until both sides have ended, one breaks, nothing moves for `idle_ns`, or the time
/// that `evicted_at` tells has come.
/// Returns how many went to the client.
pub async fn run(
    worker: &Rc<Worker>,
    downstream: &mut Downstream,
    upstream: Connection,
    idle_ns: u64,
    evicted_at: impl Fn() -> Option<u64>,
) -> u64 {
    let mut server = upstream.wire;
    let mut up = Direction { held: std::mem::take(&mut downstream.held), ..Direction::default() };
    let mut down = Direction::default();
    let Downstream { wire: client, alarm, .. } = downstream;
    alarm.set(worker.clock.now_ns().saturating_add(idle_ns));
    poll_fn(|context| {
        let before = up.carried + down.carried;
        let upward = up.poll(context, worker, client, &mut server);
        let downward = down.poll(context, worker, &mut server, client);
        let is_broken = |poll: Poll<io::Result<()>>| matches!(poll, Poll::Ready(Err(_)));
        let is_over = is_broken(upward) || is_broken(downward) || (up.is_closed && down.is_closed);
        if up.carried + down.carried > before {
            alarm.set(worker.clock.coarse_ns().saturating_add(idle_ns));
        }
        let now_ns = worker.clock.coarse_ns();
        let is_overdue = alarm.is_overdue(context, now_ns)
            || evicted_at().is_some_and(|due_ns| due_ns <= now_ns);
        if is_over || is_overdue { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    down.carried
}

impl Direction {
    /// Moves what can be moved; ready when this direction has ended.
    fn poll(
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
                Poll::Ready(result) => &buffer[..result?],
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
