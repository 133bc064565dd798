//! The choice of an endpoint: power of two choices on requests in flight, pure.

/// Picks one of `count` endpoints, or `None` when every one is ruled out.
///
/// `load` is an endpoint's requests in flight, `None` to rule it out. Two are drawn with `dice`
/// and the less loaded one wins (Mitzenmacher 2001: exponentially better than one draw, and unlike
/// the global minimum it does not herd).
pub fn pick(count: usize, dice: u64, load: impl Fn(usize) -> Option<u32>) -> Option<usize> {
    match count {
        0 => return None,
        1 => return load(0).map(|_| 0),
        _ => {}
    }
    let (first, second) = two(count, dice);
    match (load(first), load(second)) {
        (Some(a), Some(b)) => Some(if b < a { second } else { first }),
        (Some(_), None) => Some(first),
        (None, Some(_)) => Some(second),
        // Walking on from a random place keeps the rest's shares about even.
        (None, None) => {
            (0..count).map(|step| (first + step) % count).find(|index| load(*index).is_some())
        }
    }
}

/// Picks the next of `count` endpoints behind `turn` that is not ruled out.
pub fn next(count: usize, turn: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..count).map(|step| (turn + step) % count).find(|index| usable(*index))
}

/// Picks the endpoint that `key` belongs to: rendezvous hashing (Thaler and Ravishankar 1998), by
/// which an endpoint that comes or goes moves only its own keys, and keys whose endpoint is ruled
/// out are spread over all others.
pub fn of_key(
    count: usize,
    key: u64,
    hash_of: impl Fn(usize) -> u64,
    usable: impl Fn(usize) -> bool,
) -> Option<usize> {
    (0..count).filter(|index| usable(*index)).max_by_key(|index| mixed(key ^ hash_of(*index)))
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014): every bit depends on every other.
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Two different indexes below `count`, evenly drawn.
fn two(count: usize, dice: u64) -> (usize, usize) {
    let scale = |bits: u64, below: usize| ((bits * below as u64) >> 32) as usize;
    let first = scale(dice >> 32, count);
    let second = scale(dice & 0xffff_ffff, count - 1);
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn draws_are_even_without_load() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = [0_u32; 5];
        for _ in 0..50_000 {
            counts[pick(5, rng.random(), |_| Some(0)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_less_loaded_of_two_wins() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..1_000 {
            assert_eq!(pick(2, rng.random(), |index| Some([3, 2][index])), Some(1));
        }
    }

    #[test]
    fn turns_go_round_and_past_what_is_ruled_out() {
        let picked: Vec<_> = (0..6).map(|turn| next(3, turn, |index| index != 1)).collect();
        assert_eq!(picked, [0, 2, 2, 0, 2, 2].map(Some));
        assert_eq!(next(0, 5, |_| true), None);
        assert_eq!(next(2, 5, |_| false), None);
    }

    #[test]
    fn keys_are_spread_and_stay_where_they_are() {
        let hash = |index: usize| mixed(index as u64 + 1);
        let of = |key: u64, out: usize| of_key(5, mixed(key), hash, |index| index != out).unwrap();
        let mut counts = [0_u32; 5];
        for key in 0..50_000 {
            let home = of(key, 9);
            counts[home] += 1;
            // Only the keys of what is out move.
            for out in 0..5 {
                assert_eq!(of(key, out) == home, out != home, "{key}");
            }
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn what_is_ruled_out_is_never_picked(count in 0_usize..9, dice: u64, allowed: u16) {
            let load = |index: usize| (allowed >> index & 1 == 1).then_some(0);
            let picked = pick(count, dice, load);
            let possible = (0..count).any(|index| load(index).is_some());
            prop_assert_eq!(picked.is_some(), possible);
            prop_assert!(picked.is_none_or(|index| index < count && load(index).is_some()));
        }
    }
}
