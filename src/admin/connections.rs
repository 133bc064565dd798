//! The connections of the admin API, and which of them goes when there are too many: never one that
//! is being answered, so that nobody who merely holds connections keeps health and commands away.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Connections at a time; people and scrapers need a few.
pub(super) const CONNECTIONS_MAX: usize = 128;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A request is awaited, or its answer is taken.
    Waiting,
    /// A request is being answered, or watches.
    Busy,
}

#[derive(Debug)]
struct Entry {
    source: Option<IpAddr>,
    stage: Stage,
    /// The turn at which it came to that.
    since: u64,
    /// Set once its task runs.
    task: Option<AbortHandle>,
}

/// The open connections of one listener.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Counts whatever happens.
    turn: u64,
    open: BTreeMap<u64, Entry>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
}

/// While it lives its connection stays.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Place);

impl Connections {
    /// A place for a connection from `source`, `None` being the socket file. Where all are taken,
    /// the connection that waits longest goes, of the source that has the most; where every one is
    /// busy there is none.
    pub(super) fn enter(self: &Arc<Self>, source: Option<IpAddr>) -> Option<Place> {
        let mut table = self.lock();
        if table.open.len() >= CONNECTIONS_MAX {
            let number = table.idlest()?;
            if let Some(task) = table.open.remove(&number).and_then(|entry| entry.task) {
                task.abort();
            }
        }
        let number = table.turn();
        let entry = Entry { source, stage: Stage::Waiting, since: number, task: None };
        table.open.insert(number, entry);
        Some(Place { connections: Arc::clone(self), number })
    }

    /// Says which task serves the connection numbered `number`.
    pub(super) fn is_served_by(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.lock().open.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// The connection that goes first.
    fn idlest(&self) -> Option<u64> {
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for entry in self.open.values() {
            *counts.entry(entry.source).or_default() += 1;
        }
        let waiting = self.open.iter().filter(|(_, entry)| entry.stage == Stage::Waiting);
        let order = |entry: &Entry| (std::cmp::Reverse(counts[&entry.source]), entry.since);
        waiting.min_by_key(|(_, entry)| order(entry)).map(|(number, _)| *number)
    }
}

impl Place {
    /// The number of its connection.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Keeps the connection while a request is answered.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.enter_stage(Stage::Busy);
        Busy(self)
    }

    fn enter_stage(&self, stage: Stage) {
        let mut table = self.connections.lock();
        let since = table.turn();
        if let Some(entry) = table.open.get_mut(&self.number) {
            (entry.stage, entry.since) = (stage, since);
        }
    }
}

impl Busy<'_> {
    /// Keeps the connection for good: it watches.
    pub(super) fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.enter_stage(Stage::Waiting);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_goes_of_the_source_with_the_most_and_who_is_busy_stays() {
        let connections = Arc::<Connections>::default();
        let source = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let first = connections.enter(source(1)).unwrap();
        let busy = connections.enter(source(2)).unwrap();
        let kept = busy.busy();
        let mut others: Vec<Place> =
            (2..CONNECTIONS_MAX).map(|_| connections.enter(source(2)).unwrap()).collect();
        let is_open = |place: &Place| connections.lock().open.contains_key(&place.number);
        let next = connections.enter(source(3)).unwrap();
        // Not the oldest of all, which is alone, nor the busy one.
        assert!(is_open(&first) && is_open(&busy) && is_open(&next) && !is_open(&others[0]));
        drop(kept);
        // It has only just been answered.
        let last = connections.enter(None).unwrap();
        assert!(is_open(&busy) && is_open(&last) && !is_open(&others[1]));
        others.truncate(10);
        assert_eq!(connections.lock().open.len(), 1 + 9 + 2);
    }

    #[test]
    fn where_everybody_is_busy_nobody_enters() {
        let connections = Arc::<Connections>::default();
        let places: Vec<Place> =
            (0..CONNECTIONS_MAX).map(|_| connections.enter(None).unwrap()).collect();
        for place in &places {
            place.busy().stay();
        }
        assert!(connections.enter(None).is_none());
    }
}
