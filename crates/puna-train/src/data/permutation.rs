//! Orders that need no memory.

use crate::error::{Error, Result};

/// A permutation of `0..len` that a key chooses, computed number by number: shuffling that needs no list.
///
/// Swap-or-not (Hoang, Morris and Rogaway 2012, "An Enciphering Scheme Based on a Card Shuffle"): each round has a number `k` and
/// pairs every `x` with `k - x` modulo `len`; a bit drawn for the pair says whether its two members change places. Each round
/// changes places only, so that the whole is a permutation for every key and every length, with no domain to walk around in.
///
/// The numbers it draws are good enough to shuffle by, not to encipher by.
///
/// ```
/// let shuffle = puna_train::data::Permutation::new(10, 7, 0);
/// let mut order: Vec<u64> = (0..10).map(|i| shuffle.apply(i)).collect();
/// assert_ne!(order, (0..10).collect::<Vec<_>>());
/// order.sort();
/// assert_eq!(order, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    key: u64,
    rounds: u64,
}

impl Permutation {
    /// The permutation of `0..len` that a seed and a number, such as the epoch's, choose.
    pub fn new(len: u64, seed: u64, number: u64) -> Self {
        // The analysis asks for a multiple of log2(len) rounds. Half as many as these pass the tests below, too.
        let rounds = 32.max(4 * u64::from(u64::BITS - len.leading_zeros()));
        Self { len, key: mix(mix(seed) ^ number), rounds }
    }

    /// How many numbers it orders.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it orders nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What stands at place `index`. Panics unless `index` is below the length.
    pub fn apply(&self, index: u64) -> u64 {
        assert!(index < self.len, "place {index} in a permutation of {}", self.len);
        (0..self.rounds).fold(index, |x, round| {
            let key = mix(self.key ^ round.wrapping_mul(0xd1b5_4a32_d192_ed03));
            let k = ((u128::from(key) * u128::from(self.len)) >> 64) as u64;
            let partner = if x <= k { k - x } else { k + (self.len - x) };
            let swaps = mix(key ^ x.max(partner)) >> 63 == 1;
            if swaps { partner } else { x }
        })
    }
}

/// SplitMix64's output function (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Divides `0..len` by a seed into most of it and `fraction` of it, at least one each; both ascend.
pub(super) fn divide(place: &str, what: &str, len: u64, fraction: f64, seed: u64) -> Result<(Vec<u64>, Vec<u64>)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::argument(place, format!("a fraction of {fraction} to hold out; it lies between 0 and 1")));
    }
    if len < 2 {
        return Err(Error::argument(place, format!("{len} {what} cannot be divided in two; 2 at least could")));
    }
    let held = ((len as f64 * fraction).round() as u64).clamp(1, len - 1);
    // Apart from the orders of all epochs.
    let order = Permutation::new(len, seed, u64::MAX);
    Ok((0..len).partition(|&index| order.apply(index) >= held))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_and_length_gives_a_permutation(len in 1u64..3000, seed: u64, number: u64) {
            let order = Permutation::new(len, seed, number);
            let images: HashSet<u64> = (0..len).map(|i| order.apply(i)).collect();
            prop_assert_eq!(images.len() as u64, len);
            prop_assert!(images.iter().all(|image| *image < len));
        }

        #[test]
        fn lengths_near_the_end_of_u64_stay_within(seed: u64, index in 0..u64::MAX) {
            let order = Permutation::new(u64::MAX, seed, 0);
            prop_assert!(order.apply(index) < u64::MAX);
        }
    }

    #[test]
    fn all_orders_of_four_come_about_equally_often() {
        let mut seen = std::collections::HashMap::new();
        for seed in 0..24_000 {
            let order = Permutation::new(4, seed, 3);
            *seen.entry([0, 1, 2, 3].map(|i| order.apply(i))).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 24);
        // 1000 each, with a standard deviation of 31.
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn places_are_uniform_and_neighbours_part() {
        let len = 1 << 10;
        let mut squares = 0.0;
        let mut near = 0;
        let mut cells = vec![0u32; 32 * 32];
        for seed in 0..256 {
            let order = Permutation::new(len, seed, 0);
            for i in 0..len {
                cells[(i / 32 * 32 + order.apply(i) / 32) as usize] += 1;
            }
            near += (1..len).filter(|i| order.apply(*i).abs_diff(order.apply(i - 1)) == 1).count();
        }
        let expected = 256.0 * 1024.0 / 1024.0;
        for cell in &cells {
            squares += (f64::from(*cell) - expected).powi(2) / expected;
        }
        // Chi-squared of about 31^2 = 961 degrees: deviation 44.
        assert!((961.0 - 220.0..961.0 + 220.0).contains(&squares), "{squares}");
        // Two neighbours an order: 2 of 1024 pairs each.
        let near = near as f64 / 256.0;
        assert!((1.5..2.5).contains(&near), "{near}");
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let orders: HashSet<Vec<u64>> = (0..8)
            .flat_map(|seed| (0..8).map(move |epoch| Permutation::new(50, seed, epoch)))
            .map(|order| (0..50).map(|i| order.apply(i)).collect())
            .collect();
        assert_eq!(orders.len(), 64);
    }

    #[test]
    fn a_division_keeps_everything_once() {
        for (len, fraction, held) in [(2, 0.01, 1), (2, 0.99, 1), (100, 0.1, 10), (7, 0.5, 4)] {
            let (most, rest) = divide("x", "rows", len, fraction, 5).unwrap();
            assert_eq!(rest.len(), held);
            let mut all = [most, rest].concat();
            all.sort();
            assert_eq!(all, (0..len).collect::<Vec<_>>());
        }
        assert!(divide("x", "rows", 1, 0.5, 0).is_err());
        for fraction in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(divide("x", "rows", 9, fraction, 0).is_err());
        }
    }
}
