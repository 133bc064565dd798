//! One worker's copy of the state: the same picture with this worker's pools and counters.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use crate::record::{Live, Recorder, Split};
use crate::state::{Service, State};
use crate::track::TrackMap;
use crate::upstream::{Endpoint, Pool};

use super::budget::Budget;

/// The state as one worker uses it; requests clone its `Rc`s.
#[derive(Debug)]
pub struct LocalState {
    /// The shared picture.
    pub shared: Arc<State>,
    /// The services in the order of `shared.services`.
    pub services: Vec<Rc<LocalService>>,
}

/// A service as one worker uses it.
#[derive(Debug)]
pub struct LocalService {
    /// The shared picture.
    pub shared: Arc<Service>,
    /// This worker's counters.
    pub recorder: Rc<Recorder>,
    /// This worker's pools for each track of the configuration.
    pub pools: TrackMap<Option<Vec<Rc<Pool>>>>,
    /// Whose turn it is, where endpoints take turns.
    pub turn: Cell<usize>,
    /// This worker's part of the budget for tries.
    pub budget: Budget,
    split: RefCell<Cache<SplitOf, Arc<Split>>>,
}

/// Lets a cache watch the split inside a live record.
#[derive(Debug)]
struct SplitOf(Arc<Live>);

impl Deref for SplitOf {
    type Target = ArcSwap<Split>;

    fn deref(&self) -> &Self::Target {
        self.0.split()
    }
}

impl LocalState {
    /// Prepares `shared` for worker `worker`, whose pools `pool_of` gives out.
    #[must_use]
    pub fn new(
        shared: Arc<State>,
        worker: usize,
        mut pool_of: impl FnMut(&Arc<Endpoint>) -> Rc<Pool>,
    ) -> Self {
        let services = shared
            .services
            .iter()
            .map(|service| Rc::new(LocalService::new(service, worker, &mut pool_of)))
            .collect();
        Self { shared, services }
    }
}

impl LocalService {
    fn new(
        shared: &Arc<Service>,
        worker: usize,
        pool_of: &mut impl FnMut(&Arc<Endpoint>) -> Rc<Pool>,
    ) -> Self {
        let mut pools = TrackMap::default();
        for track in &shared.tracks {
            pools[track.index] = Some(track.endpoints.iter().map(&mut *pool_of).collect());
        }
        let tracks = shared.tracks.iter().map(|track| track.index);
        let budget = shared
            .retry
            .as_ref()
            .map_or((0.0, 0.0), |retry| (retry.budget_share, retry.budget_floor_per_s));
        Self {
            recorder: Rc::new(Recorder::new(&shared.live, worker, tracks)),
            pools,
            turn: Cell::new(worker),
            budget: Budget::new(budget.0, budget.1, shared.live.shards().len()),
            split: RefCell::new(Cache::new(SplitOf(Arc::clone(&shared.live)))),
            shared: Arc::clone(shared),
        }
    }

    /// Runs `draw` under the split in force, which may be this state's own or a later one.
    ///
    /// A split published after this state may name a track that came later; until the worker sees
    /// the new state, a moment later, its requests are drawn by the state's own split.
    pub fn with_split<T>(&self, draw: impl FnOnce(&Split) -> T) -> T {
        let mut cache = self.split.borrow_mut();
        let published = cache.load();
        let own = &self.shared.split;
        let is_later = published.epoch() > own.epoch()
            && published.tracks().all(|track| self.pools[track].is_some());
        draw(if is_later { published } else { own })
    }
}
