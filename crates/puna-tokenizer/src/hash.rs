//! Hashing: maps of token pairs, and tokens by their bytes.
//!
//! The seed differs from process to process, so that no file can be written whose keys collide. Nothing iterates over these maps
//! in an order that shows.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map from small integer keys.
pub(crate) type FastMap<K, V> = HashMap<K, V, Seed>;

/// Makes hashers of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        // A hasher of the standard library that was given nothing is a random number.
        Self(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for Seed {
    type Hasher = FastHasher;

    fn build_hasher(&self) -> FastHasher {
        FastHasher(self.0)
    }
}

/// Multiplies to 128 bits and folds the halves, eight bytes at a time.
pub(crate) struct FastHasher(u64);

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// An odd number without pattern: 2^64 divided by the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for FastHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = Seed(self.0).of(bytes);
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = fold(self.0 ^ n, ODD);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Seed {
    /// The hash of some bytes.
    #[inline]
    pub(crate) fn of(&self, bytes: &[u8]) -> u64 {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
        let n = bytes.len();
        let mut hash = self.0.wrapping_add((n as u64).wrapping_mul(ODD));
        // Reads may overlap: with the length mixed in, no two texts look alike for it.
        let last = match n {
            8.. => {
                for at in (0..n - 8).step_by(8) {
                    hash = fold(hash ^ word(at), ODD);
                }
                word(n - 8)
            }
            4..8 => half(0) | half(n - 4) << 32,
            1..4 => u64::from(bytes[0]) | u64::from(bytes[n / 2]) << 8 | u64::from(bytes[n - 1]) << 16,
            0 => 0,
        };
        fold(fold(hash ^ last, ODD), self.0 | 1)
    }
}

/// Token ids by their bytes, which lie elsewhere.
pub(crate) struct ByteIndex {
    seed: Seed,
    /// Open addressing, at most half full: the upper half of the hash, and the id.
    slots: Vec<(u32, u32)>,
    filled: usize,
}

/// A slot without an id.
const EMPTY: u32 = u32::MAX;

impl ByteIndex {
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self { seed: Seed::default(), slots: vec![(0, EMPTY); (tokens * 2).next_power_of_two().max(4)], filled: 0 }
    }

    /// The id of these bytes; `bytes_of` gives those of an id.
    #[inline]
    pub(crate) fn get<'v>(&self, bytes: &[u8], bytes_of: impl Fn(u32) -> &'v [u8]) -> Option<u32> {
        let id = self.slots[self.slot(self.seed.of(bytes), bytes, bytes_of)].1;
        (id != EMPTY).then_some(id)
    }

    /// Enters an id where its bytes have none; gives the id that they have.
    pub(crate) fn insert<'v>(&mut self, id: u32, bytes_of: impl Fn(u32) -> &'v [u8]) -> u32 {
        if (self.filled + 1) * 2 > self.slots.len() {
            let slots = vec![(0, EMPTY); self.slots.len() * 2];
            for (_, id) in std::mem::replace(&mut self.slots, slots).into_iter().filter(|(_, id)| *id != EMPTY) {
                let bytes = bytes_of(id);
                let hash = self.seed.of(bytes);
                let slot = self.slot(hash, bytes, &bytes_of);
                self.slots[slot] = ((hash >> 32) as u32, id);
            }
        }
        let bytes = bytes_of(id);
        let hash = self.seed.of(bytes);
        let slot = self.slot(hash, bytes, &bytes_of);
        if self.slots[slot].1 == EMPTY {
            self.slots[slot] = ((hash >> 32) as u32, id);
            self.filled += 1;
        }
        self.slots[slot].1
    }

    #[inline]
    fn slot<'v>(&self, hash: u64, bytes: &[u8], bytes_of: impl Fn(u32) -> &'v [u8]) -> usize {
        let mask = self.slots.len() - 1;
        let tag = (hash >> 32) as u32;
        let mut slot = hash as usize & mask;
        loop {
            let (other, id) = self.slots[slot];
            if id == EMPTY || (other == tag && bytes_of(id) == bytes) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_what_was_entered_and_nothing_else() {
        let words: Vec<String> = (0..5000u32).map(|i| format!("{:x}", i.wrapping_mul(2_654_435_761))).collect();
        let of = |id: u32| words[id as usize].as_bytes();
        let mut index = ByteIndex::with_capacity(0);
        for id in 0..2500 {
            assert_eq!(index.insert(id, of), id);
        }
        for (id, word) in (0..).zip(&words) {
            assert_eq!(index.get(word.as_bytes(), of), (id < 2500).then_some(id), "{word}");
        }
        let twice = ["a", "b", "a"];
        let of = |id: u32| twice[id as usize].as_bytes();
        let mut index = ByteIndex::with_capacity(3);
        assert_eq!([index.insert(0, of), index.insert(1, of), index.insert(2, of)], [0, 1, 0]);
    }

    #[test]
    fn hashes_differ_by_length_and_by_every_byte() {
        let seed = Seed::default();
        let mut seen = std::collections::HashSet::new();
        for n in 0..40 {
            let zeros = vec![0u8; n];
            assert!(seen.insert(seed.of(&zeros)));
            for at in 0..n {
                let mut one = zeros.clone();
                one[at] = 1;
                assert!(seen.insert(seed.of(&one)), "length {n}, byte {at}");
            }
        }
    }
}
