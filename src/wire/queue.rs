//! What of a stream waits in the HTTP/2 library for its socket, charged to whoever does not read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::memory::Account;

/// One stream's part of the library's send buffers.
#[derive(Debug, Default)]
pub(super) struct Queue {
    account: RefCell<Option<Rc<Account>>>,
    queued: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Queue {
    /// Charges what waits to `account` from now on; to be called while nothing does.
    pub(super) fn charge_to(&self, account: &Rc<Account>) {
        debug_assert_eq!(self.queued.get(), 0, "what was charged to nobody stays so");
        self.account.replace(Some(Rc::clone(account)));
    }

    /// Whether its client holds so much that only small pieces are to be read for it.
    pub(super) fn is_tight(&self) -> bool {
        self.account.borrow().as_ref().is_some_and(|account| account.is_tight())
    }

    /// Waits until nothing is in the library any more.
    pub(super) fn poll_empty(&self, context: &Context<'_>) -> Poll<()> {
        if self.queued.get() == 0 {
            return Poll::Ready(());
        }
        self.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }

    fn charge(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
        if let Some(account) = &*self.account.borrow() {
            account.add(bytes);
        }
    }

    fn release(&self, bytes: usize) {
        self.queued.set(self.queued.get() - bytes);
        if let Some(account) = &*self.account.borrow() {
            account.remove(bytes);
        }
        if self.queued.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// Data that a stream has given to the library; charged until the library has sent or dropped it.
#[derive(Debug)]
pub struct Piece {
    data: Bytes,
    length: usize,
    queue: Rc<Queue>,
}

impl Piece {
    pub(super) fn new(data: Bytes, queue: &Rc<Queue>) -> Self {
        let length = data.len();
        queue.charge(length);
        Self { data, length, queue: Rc::clone(queue) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.queue.release(self.length);
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}
