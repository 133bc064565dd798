//! What one connection of a client holds for its requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::source::Place;

/// From here on the requests of a connection read in small pieces. Two streams that fill their send
/// buffer and their exchange's are below it, so that ordinary downloads on a slow line never meet it.
const TIGHT_BYTES: usize = 192 * 1024;
/// From here on a connection gets no further requests. A hundred streams whose heads are as large
/// as cookies make them, 3 KiB, are below it.
const FULL_BYTES: usize = 2 * TIGHT_BYTES;
/// A trusted proxy brings the requests of many clients on one connection.
const SHARED_FACTOR: usize = 16;
/// The small piece: with 128 streams that are all blocked both ways no more than the full measure
/// again.
pub const SCARCE_BYTES: usize = 2 * 1024;
/// What is told to the source at once. Ordinary requests stay below it and touch nothing that
/// workers share.
const TOLD_BYTES: usize = 16 * 1024;
/// What a connection takes that holds nothing: its task, its buffers at rest, what TLS keeps.
const BASE_BYTES: usize = 8 * 1024;
/// What a stream takes that holds nothing, with its part of a connection to an upstream.
const STREAM_BYTES: usize = 4 * 1024;

/// One connection's account.
#[derive(Debug, Default)]
pub struct Account {
    held: Cell<usize>,
    /// What its streams take besides.
    streams: Cell<usize>,
    /// What of both the source knows.
    told: Cell<usize>,
    source: RefCell<Option<Arc<Place>>>,
    /// Many clients share the connection.
    is_shared: Cell<bool>,
    is_ending: Cell<bool>,
}

impl Account {
    /// Counts what is held to the source at `place` too, from now on.
    pub fn join(&self, place: Arc<Place>) {
        place.hold(BASE_BYTES);
        self.source.replace(Some(place));
    }

    /// Says that the connection is one of a trusted proxy, which brings many clients.
    pub fn share(&self) {
        self.is_shared.set(true);
    }

    /// What its requests hold at the moment, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Whether its requests shall read in pieces of [`SCARCE_BYTES`].
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.held.get() >= TIGHT_BYTES * self.factor()
    }

    /// Whether it gets no further requests.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.get() >= FULL_BYTES * self.factor()
            || self.source.borrow().as_ref().is_some_and(|place| place.is_refused())
    }

    /// Whether the connection is one of those that go because memory is short: it holds no less
    /// than its source's connections do on average, and the source the most of all.
    #[must_use]
    pub fn must_end(&self) -> bool {
        if !self.is_ending.get() {
            let held = self.held.get() + self.streams.get() + BASE_BYTES;
            let goes = self.source.borrow().as_ref().is_some_and(|place| place.takes_off(held));
            self.is_ending.set(goes);
        }
        self.is_ending.get()
    }

    /// Whether [`Self::must_end`] has said so.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_ending.get()
    }

    fn factor(&self) -> usize {
        if self.is_shared.get() { SHARED_FACTOR } else { 1 }
    }

    /// Counts one more stream.
    pub fn open_stream(&self) {
        self.streams.set(self.streams.get() + STREAM_BYTES);
        self.tell();
    }

    /// Counts one stream less.
    pub fn close_stream(&self) {
        self.streams.set(self.streams.get() - STREAM_BYTES);
        self.tell();
    }

    /// Adds `bytes`, which whoever adds them takes off again.
    pub fn add(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes);
        self.tell();
    }

    /// Takes off what was added.
    pub fn remove(&self, bytes: usize) {
        self.held.set(self.held.get() - bytes);
        self.tell();
    }

    fn tell(&self) {
        let (held, told) = (self.held.get() + self.streams.get(), self.told.get());
        if held.abs_diff(told) < TOLD_BYTES {
            return;
        }
        if let Some(place) = &*self.source.borrow() {
            if held > told {
                place.hold(held - told);
            } else {
                place.let_go(told - held);
            }
            self.told.set(held);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(place) = self.source.get_mut() {
            place.let_go(self.told.get() + BASE_BYTES);
        }
    }
}

/// One part of what an account holds; taken off it when dropped.
#[derive(Debug)]
pub struct Charge {
    account: Rc<Account>,
    bytes: usize,
}

impl Charge {
    /// A part of nothing yet.
    #[must_use]
    pub fn new(account: &Rc<Account>) -> Self {
        Self { account: Rc::clone(account), bytes: 0 }
    }

    /// How large it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it as large as `bytes`.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            let held = self.account.held.get() - self.bytes + bytes;
            self.account.held.set(held);
            self.account.tell();
            self.bytes = bytes;
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_taken_off_when_they_end() {
        let account = Rc::<Account>::default();
        let mut one = Charge::new(&account);
        one.set(TIGHT_BYTES - 1);
        assert!(!account.is_tight());
        let mut two = Charge::new(&account);
        two.set(1);
        assert!(account.is_tight() && !account.is_full());
        two.set(TIGHT_BYTES + 1);
        assert!(account.is_full());
        account.share();
        assert!(!account.is_tight());
        drop(two);
        one.set(5);
        assert_eq!((account.held(), one.bytes()), (5, 5));
        drop(one);
        assert_eq!(account.held(), 0);
    }
}
