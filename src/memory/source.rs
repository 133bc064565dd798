//! Where connections come from: how many each source has, and what they hold together.
//!
//! A source is an IPv4 address or the /64 of an IPv6 one, because whoever has one address of it has
//! them all. Behind a trusted proxy it is the proxy.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The source that an address belongs to.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// All sources that have connections, over all listeners and workers.
///
/// Locked when a connection comes and goes, and while memory is short; never for a request.
#[derive(Debug, Default)]
pub struct Sources {
    sources: Mutex<HashMap<IpAddr, Arc<Source>>>,
    /// What all of them hold, in bytes.
    held: AtomicUsize,
}

/// What one source has.
#[derive(Debug, Default)]
pub(super) struct Source {
    connections: AtomicU32,
    held: AtomicUsize,
    /// It gets nothing more for the time being.
    is_refused: AtomicBool,
    /// So many bytes of it shall go.
    excess: AtomicUsize,
}

/// One connection's place among its source's; given back when dropped.
#[derive(Debug)]
pub struct Place {
    sources: Arc<Sources>,
    source: Arc<Source>,
    address: IpAddr,
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Its source has as many as it may.
    TooMany,
    /// Memory is short, and its source holds the most.
    Short,
}

impl Sources {
    /// A place for one more connection of `source`, which may have `most`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        most: Option<u32>,
    ) -> Result<Arc<Place>, NoPlace> {
        let address = source_of(address);
        let mut sources = self.lock();
        let source = Arc::clone(sources.entry(address).or_default());
        if source.is_refused.load(Ordering::Relaxed) {
            return Err(NoPlace::Short);
        }
        // Changed under the lock only.
        let connections = source.connections.load(Ordering::Relaxed);
        if most.is_some_and(|most| connections >= most) {
            return Err(NoPlace::TooMany);
        }
        source.connections.store(connections + 1, Ordering::Relaxed);
        drop(sources);
        Ok(Arc::new(Place { sources: Arc::clone(self), source, address }))
    }

    /// What all connections hold, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Refuses whoever holds the most from now on, and has `excess` bytes of it go. Returns who that
    /// is and what it holds.
    pub(super) fn refuse_heaviest(&self, excess: usize) -> Option<(IpAddr, usize)> {
        let sources = self.lock();
        let held = |source: &Source| source.held.load(Ordering::Relaxed);
        let (address, heaviest) = sources.iter().max_by_key(|(_, source)| held(source))?;
        heaviest.is_refused.store(true, Ordering::Relaxed);
        heaviest.excess.store(excess, Ordering::Relaxed);
        Some((*address, held(heaviest)))
    }

    /// Refuses nobody any more.
    pub(super) fn admit_all(&self) {
        for source in self.lock().values() {
            source.is_refused.store(false, Ordering::Relaxed);
            source.excess.store(0, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts `bytes` that its connection holds.
    pub(super) fn hold(&self, bytes: usize) {
        self.source.held.fetch_add(bytes, Ordering::Relaxed);
        self.sources.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes off what was counted.
    pub(super) fn let_go(&self, bytes: usize) {
        self.source.held.fetch_sub(bytes, Ordering::Relaxed);
        self.sources.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether its source gets nothing more.
    pub(super) fn is_refused(&self) -> bool {
        self.source.is_refused.load(Ordering::Relaxed)
    }

    /// Whether a connection that holds `held` bytes is among those that go; if so they are off the
    /// source's excess.
    pub(super) fn takes_off(&self, held: usize) -> bool {
        let excess = &self.source.excess;
        if excess.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let connections = self.source.connections.load(Ordering::Relaxed).max(1);
        let mean = self.source.held.load(Ordering::Relaxed) / connections as usize;
        let off = |excess: usize| (excess > 0).then(|| excess.saturating_sub(held));
        held >= mean && excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, off).is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        let connections = self.source.connections.load(Ordering::Relaxed) - 1;
        self.source.connections.store(connections, Ordering::Relaxed);
        // Whoever was refused is remembered as long as that lasts.
        if connections == 0 && !self.is_refused() {
            sources.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_64_bits() {
        assert_eq!(source_of(address("::ffff:192.0.2.7")), address("192.0.2.7"));
        assert_eq!(source_of(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
        let sources = Arc::<Sources>::default();
        let one = sources.enter(address("2001:db8:1:2::1"), Some(1)).unwrap();
        let two = sources.enter(address("2001:db8:1:2::2"), Some(1));
        assert_eq!(two.unwrap_err(), NoPlace::TooMany);
        sources.enter(address("2001:db8:1:3::2"), Some(1)).unwrap();
        drop(one);
        sources.enter(address("2001:db8:1:2::2"), Some(1)).unwrap();
        assert!(sources.lock().is_empty());
    }

    #[test]
    fn the_heaviest_is_refused_and_its_heavier_connections_go_until_enough_has_gone() {
        let sources = Arc::<Sources>::default();
        let light = sources.enter(address("192.0.2.1"), None).unwrap();
        light.hold(90);
        let heavy = [10, 60, 60, 70].map(|bytes| {
            let place = sources.enter(address("192.0.2.2"), None).unwrap();
            place.hold(bytes);
            (place, bytes)
        });
        assert_eq!(sources.held(), 290);
        assert_eq!(sources.refuse_heaviest(100), Some((address("192.0.2.2"), 200)));
        assert_eq!(sources.enter(address("192.0.2.2"), None).unwrap_err(), NoPlace::Short);
        assert!(sources.enter(address("192.0.2.1"), None).is_ok() && !light.takes_off(90));
        let gone = heavy.each_ref().map(|(place, bytes)| place.takes_off(*bytes));
        assert_eq!(gone, [false, true, true, false]);
        sources.admit_all();
        assert!(sources.enter(address("192.0.2.2"), None).is_ok());
    }
}
