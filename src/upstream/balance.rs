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
