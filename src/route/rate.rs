//! How often whoever asks may ask: a leaky bucket each, without a lock and in bounded memory.
//!
//! Addresses and keys have tables of their own, hashed with a seed that no stranger knows: whatever
//! keys somebody sends, no address and no other key is limited by it. And since keys cost nothing to
//! invent, all keys of an address together have a bound, and those of one connection a smaller one,
//! so that a client with many leaves something to the others behind its address.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Askers that a table tells apart: sets of 8. With 10,000 active ones a set has 1.2 on average, and
/// more than 8 in one of 50,000; those share the least used place of their set, and never get more
/// than their due.
const SETS: usize = 8_192;
const WAYS: usize = 8;
/// What share of its address's bound one connection has.
const CONNECTION_SHARE: u32 = 8;
const NANOS: u64 = 1_000_000_000;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The address, or as much of it as one client has.
    pub address: &'a [u8],
    /// What tells the connections of an address apart.
    pub connection: u16,
    /// The key, where it brings one.
    pub key: Option<&'a [u8]>,
}

/// A rate with its burst, per asker (GCRA, ITU-T I.371: each place holds when its bucket is empty).
#[derive(Debug)]
pub struct RateTable {
    seed: RandomState,
    addresses: Places,
    /// Of keys, and of addresses and connections with keys; `None`: nobody brings any.
    keys: Option<Places>,
    /// What one request costs.
    interval_ns: u64,
    /// How far ahead of the clock a place may be.
    burst_ns: u64,
    /// As many keys' requests an address may make; `None`: any number.
    keys_per_address: Option<u32>,
}

/// What a place is for: the same bytes as a key and as an address are two askers.
#[derive(Clone, Copy, Hash)]
enum Kind {
    Address,
    Key,
    AddressWithKeys,
    Connection,
}

impl RateTable {
    /// `per_s` requests a second for each address, and `burst` at once.
    #[must_use]
    pub fn new(per_s: u32, burst: u32) -> Self {
        let interval_ns = NANOS / u64::from(per_s.max(1));
        Self {
            seed: RandomState::new(),
            addresses: Places::new(),
            keys: None,
            interval_ns,
            burst_ns: interval_ns * u64::from(burst.max(1)),
            keys_per_address: None,
        }
    }

    /// The same for each key, and for all keys of an address as much as `most` of them may ask.
    #[must_use]
    pub fn by_key(self, most: Option<u32>) -> Self {
        Self { keys: Some(Places::new()), keys_per_address: most, ..self }
    }

    /// Whether `asker` may ask at `now_ns`.
    #[must_use]
    pub fn admits(&self, asker: Asker<'_>, now_ns: u64) -> bool {
        let Some((key, keys)) = asker.key.zip(self.keys.as_ref()) else {
            let place = self.addresses.place(self.hash(Kind::Address, asker.address, 0));
            return self.charge(place, self.interval_ns, now_ns);
        };
        let key = || keys.place(self.hash(Kind::Key, key, 0));
        let Some(most) = self.keys_per_address else {
            return self.charge(key(), self.interval_ns, now_ns);
        };
        let share = |most: u32| (self.interval_ns / u64::from(most.max(1))).max(1);
        let bounds = [
            (Kind::AddressWithKeys, 0, share(most)),
            (Kind::Connection, asker.connection, share(most.div_ceil(CONNECTION_SHARE))),
        ];
        let bounds = bounds.map(|(kind, more, cost_ns)| {
            (keys.place(self.hash(kind, asker.address, more)), cost_ns)
        });
        // Looked at first: what is refused here must not use up anybody's key.
        if !bounds.iter().all(|(place, cost_ns)| {
            self.next(place.load(Ordering::Relaxed), *cost_ns, now_ns).is_some()
        }) {
            return false;
        }
        let is_admitted = self.charge(key(), self.interval_ns, now_ns);
        if is_admitted {
            for (place, cost_ns) in bounds {
                // Whoever came between has taken the last; one more does not matter.
                let _ = self.charge(place, cost_ns, now_ns);
            }
        }
        is_admitted
    }

    fn hash(&self, kind: Kind, bytes: &[u8], more: u16) -> u64 {
        self.seed.hash_one((kind, bytes, more))
    }

    /// When a bucket is empty that takes one more; `None`: it does not.
    fn next(&self, empty_ns: u64, cost_ns: u64, now_ns: u64) -> Option<u64> {
        let empty_ns = empty_ns.max(now_ns) + cost_ns;
        (empty_ns - now_ns <= self.burst_ns).then_some(empty_ns)
    }

    fn charge(&self, place: &AtomicU64, cost_ns: u64, now_ns: u64) -> bool {
        let next = |empty_ns| self.next(empty_ns, cost_ns, now_ns);
        place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Places of askers, in sets.
#[derive(Debug)]
struct Places(Box<[Set]>);

#[derive(Debug, Default)]
struct Set {
    /// Who has each place; 0: nobody.
    tags: [AtomicU32; WAYS],
    empty_ns: [AtomicU64; WAYS],
}

impl Places {
    fn new() -> Self {
        Self((0..SETS).map(|_| Set::default()).collect())
    }

    /// The place of the asker with `hash`: its own, else the one that is or will be empty first.
    ///
    /// Two workers may take the same place at once; the two askers share it then.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a hash")]
    fn place(&self, hash: u64) -> &AtomicU64 {
        let set = &self.0[hash as u32 as usize % SETS];
        let tag = (hash >> 32) as u32 | 1;
        let known = set.tags.iter().position(|known| known.load(Ordering::Relaxed) == tag);
        let at = known.unwrap_or_else(|| {
            let empty_ns = |at: &usize| set.empty_ns[*at].load(Ordering::Relaxed);
            let at = (0..WAYS).min_by_key(empty_ns).unwrap_or_default();
            set.tags[at].store(tag, Ordering::Relaxed);
            at
        });
        &set.empty_ns[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &[u8]) -> Asker<'_> {
        Asker { address, connection: 1, key: None }
    }

    #[test]
    fn each_address_has_its_rate_and_burst() {
        let table = RateTable::new(10, 5);
        let admitted =
            |address: &[u8], now| (0..100).filter(|_| table.admits(from(address), now)).count();
        assert_eq!(admitted(b"a", NANOS), 5);
        assert_eq!(admitted(b"b", NANOS), 5);
        assert_eq!(admitted(b"a", NANOS), 0);
        assert_eq!(admitted(b"a", NANOS + NANOS / 5), 2);
        assert_eq!(admitted(b"a", 100 * NANOS), 5, "no more than the burst is saved up");
    }

    #[test]
    fn a_steady_asker_gets_the_rate() {
        let table = RateTable::new(100, 1);
        let admitted = (0..10_000).filter(|ms| table.admits(from(b"a"), NANOS + ms * 1_000_000));
        assert_eq!(admitted.count(), 1_000);
    }

    #[test]
    fn many_askers_are_told_apart() {
        let table = RateTable::new(1, 1);
        let ask = |asker: u32| table.admits(from(&asker.to_be_bytes()), NANOS);
        let first = (0..10_000).filter(|asker| ask(*asker)).count();
        // A set that has nine is a matter of luck, and rare.
        assert!(first >= 9_990, "{first}");
        assert_eq!((0..10_000).filter(|asker| ask(*asker)).count(), 0);
    }

    #[test]
    fn fresh_keys_are_no_way_around_and_in_nobodys_way() {
        let table = RateTable::new(1, 2).by_key(Some(64));
        let ask = |address: &[u8], connection: u16, key: u32| {
            let key = key.to_be_bytes();
            table.admits(Asker { address, connection, key: Some(&key) }, NANOS)
        };
        let port = |key: u32| u16::try_from(key).unwrap();
        // One connection has an eighth of its address's keys, however many it invents.
        assert_eq!((0..40_000).filter(|key| ask(b"bad!", 1, *key)).count(), 16);
        // With fresh connections the whole of it.
        let count = (0..40_000).filter(|key| ask(b"bad!", port(*key), 1_000_000 + key)).count();
        assert_eq!(count, 112);
        // Others, with the same keys even, have their own; and a key is one key wherever it comes from.
        assert!((100..150).all(|key| ask(&[u8::try_from(key).unwrap(); 4], 1, 2_000_000 + key)));
        let shared = (0..100_u8).filter(|from| ask(&[*from; 4], 1, 7_777_777)).count();
        assert_eq!(shared, 2);
        // And no key takes anything from an address without one.
        assert_eq!((0..10).filter(|_| table.admits(from(b"bad!"), NANOS)).count(), 2);
        let collisions = (0..20_000_u32).filter(|key| {
            let address = key.to_be_bytes();
            let asker = Asker { address: &address, connection: 1, key: None };
            !table.admits(asker, NANOS)
        });
        assert!(collisions.count() <= 200);
    }

    #[test]
    fn what_is_refused_for_its_address_uses_no_key_up() {
        let table = RateTable::new(1, 1).by_key(Some(8));
        let ask = |address: &[u8], key: &[u8]| {
            table.admits(Asker { address, connection: 1, key: Some(key) }, NANOS)
        };
        assert!(ask(b"bad!", b"fresh"));
        assert!(!ask(b"bad!", b"honest"));
        assert!(ask(b"good", b"honest"));
    }
}
