//! What the connections of one worker share: buffers, pools, dice, deadlines, the state.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use crate::calendar;
use crate::http1::Field;
use crate::memory::Budget;
use crate::state::State;
use crate::telemetry::Outlets;
use crate::track::BUCKETS;
use crate::upstream::{Endpoint, Pool};

use super::alarm::Alarms;
use super::clock::Clock;
use super::counters::DownstreamCounters;
use super::local::LocalState;

/// The shared read buffer: large bodies move fastest in pieces of this size.
pub const READ_MAX: usize = 256 * 1024;
/// The first reads from or for a client: most messages fit, and until it has shown that it takes
/// more at once no more than this is ever held for it. Against 16 KiB it saves a seventh of the CPU
/// time of a 100 KiB answer.
pub const READ_START: usize = 64 * 1024;
/// How often deadlines, pools and state are looked after.
pub const SWEEP: Duration = Duration::from_millis(100);
/// How often a worker says what requests made an upstream do: enough to be read, too little to fill
/// a disk.
const WARN_EVERY_NS: u64 = 1_000_000_000;
/// Spare buffers that are kept, and the largest that is worth keeping.
const SPARES_MAX: usize = 256;
pub(super) const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Pools by what tells their endpoints apart.
type Pools = HashMap<(SocketAddr, u64), Rc<Pool>>;

/// One worker's belongings. Nothing in here is shared with another worker but atomics.
pub struct Worker {
    /// Its number, which is its shard in every record.
    pub index: usize,
    /// The process clock.
    pub clock: Clock,
    /// The deadlines of its connections.
    pub alarms: Rc<Alarms>,
    /// What it counts of its clients.
    pub counters: Arc<DownstreamCounters>,
    /// Where requests are told of, when wanted.
    pub outlets: Outlets,
    /// What all clients may have together.
    pub budget: Arc<Budget>,
    buffer: RefCell<Box<[u8]>>,
    fields: RefCell<Vec<Field>>,
    scratch: RefCell<Vec<u8>>,
    spares: RefCell<Vec<Vec<u8>>>,
    dice: RefCell<StdRng>,
    pools: RefCell<Pools>,
    published: RefCell<Cache<Arc<ArcSwap<State>>, Arc<State>>>,
    state: RefCell<Rc<LocalState>>,
    connections: Cell<usize>,
    /// How many of them are at their end.
    pub(super) lingering: Cell<usize>,
    draining: Cell<bool>,
    /// Draining, and idle connections are closed too.
    closes_idle: Cell<bool>,
    /// When it last looked after its deadlines.
    swept_ns: Cell<u64>,
    /// The second at hand, and how many requests are traced in it.
    traced: Cell<(u64, u32)>,
    /// Until when its field line of the date holds, and the line.
    date: RefCell<(u64, Rc<str>)>,
    /// When it may warn again of what upstreams did.
    warns_at_ns: Cell<u64>,
    /// When it last warned of a client, in seconds of its clock.
    warned_s: Cell<u64>,
}

impl Worker {
    /// A worker that follows the published state.
    #[must_use]
    pub fn new(
        index: usize,
        clock: Clock,
        published: Arc<ArcSwap<State>>,
        counters: Arc<DownstreamCounters>,
        outlets: Outlets,
        budget: Arc<Budget>,
    ) -> Self {
        let shared = published.load_full();
        let pools = RefCell::default();
        let state = LocalState::new(shared, index, |endpoint| pool_of(&pools, endpoint));
        Self {
            index,
            clock,
            alarms: Rc::default(),
            counters,
            outlets,
            budget,
            buffer: RefCell::new(vec![0; READ_MAX].into_boxed_slice()),
            fields: RefCell::default(),
            scratch: RefCell::default(),
            spares: RefCell::default(),
            dice: RefCell::new(fresh_dice()),
            pools,
            published: RefCell::new(Cache::new(published)),
            state: RefCell::new(Rc::new(state)),
            connections: Cell::new(0),
            lingering: Cell::new(0),
            draining: Cell::new(false),
            closes_idle: Cell::new(false),
            swept_ns: Cell::new(0),
            traced: Cell::default(),
            date: RefCell::new((0, Rc::from(""))),
            warns_at_ns: Cell::default(),
            warned_s: Cell::default(),
        }
    }

    /// The state in force, prepared for this worker.
    pub fn state(&self) -> Rc<LocalState> {
        let mut published = self.published.borrow_mut();
        let shared = published.load();
        let mut state = self.state.borrow_mut();
        if !Arc::ptr_eq(&state.shared, shared) {
            let next = LocalState::new(Arc::clone(shared), self.index, |endpoint| {
                pool_of(&self.pools, endpoint)
            });
            *state = Rc::new(next);
        }
        Rc::clone(&state)
    }

    /// The read buffer. It is given back at the end of the poll that took it: nothing in it
    /// outlives a poll.
    pub fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.buffer.borrow_mut()
    }

    /// Room for the fields of the head at hand.
    pub fn fields(&self) -> RefMut<'_, Vec<Field>> {
        self.fields.borrow_mut()
    }

    /// An empty buffer for what is written within this poll.
    pub fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch
    }

    /// An empty buffer to keep for a while.
    pub fn spare(&self) -> Vec<u8> {
        self.spares.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn put_spare(&self, mut buffer: Vec<u8>) {
        let mut spares = self.spares.borrow_mut();
        let worthwhile = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
        if worthwhile && spares.len() < SPARES_MAX {
            buffer.clear();
            spares.push(buffer);
        }
    }

    /// 64 fresh random bits. Ids that strangers see are made of them, and tell nothing of the draws
    /// to come.
    pub fn dice(&self) -> u64 {
        self.dice.borrow_mut().next_u64()
    }

    /// A fresh random bucket, 0 to 9,999.
    #[expect(clippy::cast_possible_truncation, reason = "a scaled draw is below BUCKETS")]
    pub fn random_bucket(&self) -> u16 {
        // Scaling 64 bits leaves a bias of 10,000 / 2^64: nothing that a test could ever see.
        ((u128::from(self.dice()) * u128::from(BUCKETS)) >> 64) as u16
    }

    /// Whether one more request may be traced in this second, of `most`.
    pub fn admits_trace(&self, most: u32) -> bool {
        let second = self.clock.coarse_ns() / 1_000_000_000;
        let (at, count) = self.traced.get();
        let count = if at == second { count } else { 0 };
        self.traced.set((second, count.saturating_add(1)));
        count < most
    }

    /// Whether a line may be written of what any client can cause: one a second. All are counted.
    pub fn may_warn_of_client(&self) -> bool {
        // From 1 on, so that the first may come in the first second.
        let second = 1 + self.clock.coarse_ns() / 1_000_000_000;
        self.warned_s.replace(second) != second
    }

    /// A connection has come to this worker; the count is given back on drop.
    #[must_use]
    pub fn opened(self: &Rc<Self>) -> Open {
        self.connections.set(self.connections.get() + 1);
        self.counters.opened.increment();
        Open(Rc::clone(self))
    }

    /// Connections open at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Closes connections after the request they are in, or their next.
    pub fn drain(&self) {
        self.draining.set(true);
        self.alarms.sweep(self.clock.now_ns(), true);
    }

    /// Closes idle connections too: nobody can be told of it, and a request on its way is lost.
    pub fn close_idle(&self) {
        self.closes_idle.set(true);
        self.alarms.sweep(self.clock.now_ns(), true);
    }

    /// The field line that says what time it is, for replies of our own: made once per second.
    pub fn date(&self) -> Rc<str> {
        let now_ns = self.clock.coarse_ns();
        let mut date = self.date.borrow_mut();
        if now_ns >= date.0 {
            let wall_ms = calendar::wall_ms();
            let left_ns = (1_000 - wall_ms % 1_000) * 1_000_000;
            let line = format!("date: {}\r\n", calendar::http_date(wall_ms));
            *date = (now_ns.saturating_add(left_ns), line.into());
        }
        Rc::clone(&date.1)
    }

    /// Whether a warning that requests cause may be logged: one per second.
    pub fn may_warn(&self) -> bool {
        let now_ns = self.clock.coarse_ns();
        let may = now_ns >= self.warns_at_ns.get();
        if may {
            self.warns_at_ns.set(now_ns.saturating_add(WARN_EVERY_NS));
        }
        may
    }

    /// Whether idle connections are being closed.
    #[must_use]
    pub fn closes_idle(&self) -> bool {
        self.closes_idle.get()
    }

    /// Whether connections are being closed.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Looks after deadlines, pools and state; to be called every [`SWEEP`].
    pub fn sweep(&self) {
        let (before_ns, now_ns) = (self.swept_ns.get(), self.clock.now_ns());
        self.swept_ns.set(now_ns);
        let state = self.state();
        let evicts = |service: &Rc<super::local::LocalService>| {
            service.shared.live.has_eviction(before_ns, now_ns)
        };
        let is_short = self.budget.look(state.shared.downstream.memory, now_ns);
        // Who must end is not known here; everybody who waits looks for himself.
        self.alarms.sweep(now_ns, is_short || state.services.iter().any(evicts));
        let age_ns = |service: &Rc<super::local::LocalService>| service.shared.upstream.idle_age_ns;
        let oldest_ns = state.services.iter().map(age_ns).min().unwrap_or(0);
        // Where requests wait for a connection, idle ones of this worker may be in their way.
        let is_wanted = |service: &Rc<super::local::LocalService>| {
            service.shared.pending.as_ref().is_some_and(|pending| pending.count() > 0)
        };
        let oldest_ns = if state.services.iter().any(is_wanted) { 0 } else { oldest_ns };
        // The shared picture holds each endpoint once per track; the pools here hold one each.
        let in_use = |pool: &Rc<Pool>| Rc::strong_count(pool) > 1;
        self.pools.borrow_mut().retain(|_, pool| {
            let keep_ns = if in_use(pool) { oldest_ns } else { 0 };
            pool.age(now_ns, keep_ns);
            in_use(pool) || !pool.is_unused()
        });
    }
}

/// Dice seeded by the system, so that no worker, replica or restart repeats another's draws. They
/// are cryptographic (`ChaCha12`, 4 ns a draw): who gets the canary cannot be told from what was seen.
fn fresh_dice() -> StdRng {
    StdRng::try_from_rng(&mut SysRng).expect("the system gives randomness")
}

/// A connection that counts as open.
pub struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.counters.closed.increment();
    }
}

/// The pool of an endpoint, kept as long as the endpoint itself is the same.
fn pool_of(pools: &RefCell<Pools>, endpoint: &Arc<Endpoint>) -> Rc<Pool> {
    let mut pools = pools.borrow_mut();
    let pool = pools.entry(endpoint.key());
    let pool = pool.or_insert_with(|| Rc::new(Pool::new(Arc::clone(endpoint))));
    if !Arc::ptr_eq(pool.endpoint(), endpoint) {
        *pool = Rc::new(Pool::new(Arc::clone(endpoint)));
    }
    Rc::clone(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_are_cryptographic() {
        fn is_cryptographic(_: &impl rand::CryptoRng) {}
        let (mut one, mut other) = (fresh_dice(), fresh_dice());
        is_cryptographic(&one);
        assert_ne!(one.next_u64(), other.next_u64());
    }
}
