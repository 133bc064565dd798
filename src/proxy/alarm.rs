//! Deadlines without timers: a task sets a cell, a coarse sweep wakes the overdue.
//!
//! A timer per request would cost more than everything else here together; a sweep every 100 ms
//! over one cell per connection costs nothing, and no timeout needs to be finer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Never.
const NEVER: u64 = u64::MAX;

/// One connection's deadline.
#[derive(Debug)]
pub struct Alarm {
    due_ns: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// All deadlines of one worker.
#[derive(Debug, Default)]
pub struct Alarms {
    slots: RefCell<Vec<Option<Rc<Alarm>>>>,
    free: RefCell<Vec<usize>>,
}

/// A registered deadline; forgotten when dropped.
#[derive(Debug)]
pub struct AlarmHandle {
    alarms: Rc<Alarms>,
    alarm: Rc<Alarm>,
    slot: usize,
}

impl Alarms {
    /// Registers a deadline that is never due until set.
    #[must_use]
    pub fn register(self: &Rc<Self>) -> AlarmHandle {
        let alarm = Rc::new(Alarm { due_ns: Cell::new(NEVER), waker: RefCell::default() });
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        slots[slot] = Some(Rc::clone(&alarm));
        AlarmHandle { alarms: Rc::clone(self), alarm, slot }
    }

    /// Wakes every task whose deadline has passed; all of them when `everybody` shall look up.
    pub fn sweep(&self, now_ns: u64, everybody: bool) {
        for alarm in self.slots.borrow().iter().flatten() {
            let is_meant = everybody || alarm.due_ns.get() <= now_ns;
            if is_meant && let Some(waker) = &*alarm.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl AlarmHandle {
    /// Sets the deadline; `u64::MAX` is never.
    pub fn set(&self, due_ns: u64) {
        self.alarm.due_ns.set(due_ns);
    }

    /// Whether the deadline has passed; else the task of `context` is woken when it does.
    #[must_use]
    pub fn is_overdue(&self, context: &Context<'_>, now_ns: u64) -> bool {
        if self.alarm.due_ns.get() <= now_ns {
            return true;
        }
        let mut waker = self.alarm.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        false
    }
}

impl Drop for AlarmHandle {
    fn drop(&mut self) {
        self.alarms.slots.borrow_mut()[self.slot] = None;
        self.alarms.free.borrow_mut().push(self.slot);
    }
}
