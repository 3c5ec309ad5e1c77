//! Byte-pair merging: of all neighbors that may merge, those of the lowest rank first, the leftmost of equal ones.
//!
//! Sennrich, Haddow and Birch 2015, arXiv 1508.07909.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// A map that is hashed fast. Its keys come from the tokenizer file; a file that makes them collide slows only itself, and texts
/// cannot add any.
pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// Multiplies and folds, eight bytes at a time.
#[derive(Default)]
pub(crate) struct FastHasher(u64);

impl FastHasher {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x2545_f491_4f6c_dd1d) * u128::from(0x9e37_79b9_7f4a_7c15u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for FastHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.add(u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
        }
        let rest = chunks.remainder();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
    }

    fn write_u32(&mut self, n: u32) {
        self.add(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.add(n.into());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A stretch of the text that is one token for now; `id` is [`UNKNOWN`] where no token is written so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) id: u32,
}

/// The id of a stretch that is no token.
pub(crate) const UNKNOWN: u32 = u32::MAX;

/// Which neighbors merge.
#[derive(Debug, Clone)]
pub(crate) enum Merges {
    /// Those that a list names, by its order: `(left, right)` to `(rank, merged)`.
    Pairs(FastMap<(u32, u32), (u32, u32)>),
    /// Those that together are written as a token, by the token's rank: its bytes to `(rank, token)`.
    Written(FastMap<Box<[u8]>, (u32, u32)>),
}

impl Merges {
    fn find(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        match self {
            Self::Pairs(pairs) => pairs.get(&(left.id, right.id)).copied(),
            Self::Written(tokens) => tokens.get(&text[left.start..right.end]).copied(),
        }
    }

    /// Merges `symbols`, which together cover a stretch of `text`, until no neighbors merge.
    pub(crate) fn apply(&self, text: &[u8], symbols: &mut Vec<Symbol>) {
        // Finding the best pair anew is quadratic, and for a word's length still the fastest.
        if symbols.len() <= 32 { self.apply_short(text, symbols) } else { self.apply_long(text, symbols) }
    }

    fn apply_short(&self, text: &[u8], symbols: &mut Vec<Symbol>) {
        const NONE: (u32, u32) = (u32::MAX, UNKNOWN);
        let mut found = [NONE; 32];
        for (i, pair) in symbols.windows(2).enumerate() {
            found[i] = self.find(text, &pair[0], &pair[1]).unwrap_or(NONE);
        }
        while symbols.len() > 1 {
            let pairs = &found[..symbols.len() - 1];
            let mut best = 0;
            for (i, pair) in pairs.iter().enumerate() {
                if pair.0 < pairs[best].0 {
                    best = i;
                }
            }
            let (rank, id) = pairs[best];
            if rank == NONE.0 && id == NONE.1 {
                break;
            }
            symbols[best] = Symbol { start: symbols[best].start, end: symbols[best + 1].end, id };
            symbols.remove(best + 1);
            found.copy_within(best + 1..symbols.len(), best);
            let again = |i: usize| self.find(text, &symbols[i], &symbols[i + 1]).unwrap_or(NONE);
            if best + 1 < symbols.len() {
                found[best] = again(best);
            }
            if best > 0 {
                found[best - 1] = again(best - 1);
            }
        }
    }

    fn apply_long(&self, text: &[u8], symbols: &mut Vec<Symbol>) {
        // A symbol that was merged into its left neighbor has an empty stretch; links lead over it.
        let n = symbols.len();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut previous: Vec<usize> = (0..n).map(|i| i.wrapping_sub(1)).collect();
        let mut heap = BinaryHeap::with_capacity(n);
        let push = |heap: &mut BinaryHeap<_>, symbols: &[Symbol], left: usize, right: usize| {
            if let Some((rank, id)) = self.find(text, &symbols[left], &symbols[right]) {
                // The ends of both tell later whether the pair is still what it was.
                heap.push(Reverse((rank, left, right, symbols[left].end, symbols[right].end, id)));
            }
        };
        for left in 0..n - 1 {
            push(&mut heap, symbols, left, left + 1);
        }
        while let Some(Reverse((_, left, right, left_end, right_end, id))) = heap.pop() {
            let gone = symbols[left].start == symbols[left].end || next[left] != right;
            if gone || symbols[left].end != left_end || symbols[right].end != right_end {
                continue;
            }
            symbols[left] = Symbol { end: right_end, id, ..symbols[left] };
            symbols[right].start = symbols[right].end;
            let behind = next[right];
            next[left] = behind;
            if behind < n {
                previous[behind] = left;
                push(&mut heap, symbols, left, behind);
            }
            if left > 0 {
                push(&mut heap, symbols, previous[left], left);
            }
        }
        symbols.retain(|symbol| symbol.start < symbol.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over `a` and `b`: what short and long merging make of a text.
    fn both(merges: &Merges, text: &[u8]) -> (Vec<u32>, Vec<u32>) {
        let symbols = || -> Vec<Symbol> {
            text.iter().enumerate().map(|(i, &b)| Symbol { start: i, end: i + 1, id: (b - b'a').into() }).collect()
        };
        let ids = |symbols: Vec<Symbol>| symbols.iter().map(|symbol| symbol.id).collect();
        let (mut short, mut long) = (symbols(), symbols());
        merges.apply_short(text, &mut short);
        merges.apply_long(text, &mut long);
        (ids(short), ids(long))
    }

    #[test]
    fn short_and_long_merging_agree() {
        let tokens = [("ab", 0, 2), ("aa", 1, 3), ("aba", 2, 4), ("bb", 3, 5), ("aaaa", 4, 6), ("abab", 4, 7)];
        let written = Merges::Written(tokens.iter().map(|(token, rank, id)| (token.as_bytes().into(), (*rank, *id))).collect());
        let pairs = Merges::Pairs(
            [((0, 1), (0, 2)), ((0, 0), (1, 3)), ((2, 0), (2, 4)), ((1, 1), (3, 5)), ((3, 3), (4, 6))].into_iter().collect(),
        );
        let mut state = 1u32;
        for length in 1..=32 {
            for _ in 0..200 {
                let text: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                        b'a' + (state >> 31) as u8
                    })
                    .collect();
                for merges in [&written, &pairs] {
                    let (short, long) = both(merges, &text);
                    assert_eq!(short, long, "{:?}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}
