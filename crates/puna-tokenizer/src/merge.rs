//! Byte-pair merging: of all neighbors that merge, the pair of the lowest rank goes first, of equal ones the leftmost.
//!
//! Sennrich, Haddow and Birch 2015, arXiv 1508.07909.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::hash::FastMap;

/// The rank of neighbors that do not merge.
const NONE: u32 = u32::MAX;

/// Up to so many symbols, looking for the best pair anew each time is faster than a queue, quadratic as it is.
const SHORT: usize = 64;

/// Which neighbors merge, in what order, and into what.
#[derive(Default)]
pub(crate) struct Merges {
    /// `left << 32 | right` to rank and merged token.
    pairs: FastMap<u64, (u32, u32)>,
}

impl Merges {
    pub(crate) fn with_capacity(pairs: usize) -> Self {
        Self { pairs: FastMap::with_capacity_and_hasher(pairs, Default::default()) }
    }

    /// Lets two neighbors merge. Of one pair given twice the last counts, as in Hugging Face's library.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, merged: u32) {
        debug_assert_ne!(rank, NONE);
        self.pairs.insert(u64::from(left) << 32 | u64::from(right), (rank, merged));
    }

    /// All pairs as `(rank, left, right, merged)`, in this order.
    pub(crate) fn sorted(&self) -> Vec<(u32, u32, u32, u32)> {
        let mut list: Vec<_> = self.iter().collect();
        list.sort_unstable();
        list
    }

    /// All pairs as `(rank, left, right, merged)`, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, u32, u32)> {
        self.pairs.iter().map(|(pair, &(rank, merged))| (rank, (pair >> 32) as u32, *pair as u32, merged))
    }

    #[inline]
    fn find(&self, left: u32, right: u32) -> (u32, u32) {
        self.pairs.get(&(u64::from(left) << 32 | u64::from(right))).copied().unwrap_or((NONE, 0))
    }

    /// Merges until no neighbors merge. Takes O(n log n) for n symbols.
    pub(crate) fn apply(&self, symbols: &mut Vec<u32>, queue: &mut Queue) {
        match symbols.len() {
            0 | 1 => {}
            2..=SHORT => self.apply_short(symbols),
            _ => self.apply_long(symbols, queue),
        }
    }

    fn apply_short(&self, symbols: &mut Vec<u32>) {
        let (mut ranks, mut merged) = ([NONE; SHORT], [0; SHORT]);
        let mut pairs = symbols.len() - 1;
        for (i, pair) in symbols.windows(2).enumerate() {
            (ranks[i], merged[i]) = self.find(pair[0], pair[1]);
        }
        loop {
            let (mut best, mut lowest) = (0, NONE);
            for (i, &rank) in ranks[..pairs].iter().enumerate() {
                if rank < lowest {
                    (best, lowest) = (i, rank);
                }
            }
            if lowest == NONE {
                return;
            }
            symbols[best] = merged[best];
            symbols.remove(best + 1);
            ranks.copy_within(best + 1..pairs, best);
            merged.copy_within(best + 1..pairs, best);
            pairs -= 1;
            if best < pairs {
                (ranks[best], merged[best]) = self.find(symbols[best], symbols[best + 1]);
            }
            if best > 0 {
                (ranks[best - 1], merged[best - 1]) = self.find(symbols[best - 1], symbols[best]);
            }
        }
    }

    fn apply_long(&self, symbols: &mut Vec<u32>, queue: &mut Queue) {
        let n = symbols.len();
        assert!(n < NONE as usize, "a piece of 2^32 symbols does not fit into memory with its queue");
        queue.links.clear();
        queue.links.extend((0..n).map(|i| {
            let (rank, merged) = if i + 1 < n { self.find(symbols[i], symbols[i + 1]) } else { (NONE, 0) };
            Link { rank, merged, previous: (i as u32).wrapping_sub(1), next: i as u32 + 1 }
        }));
        let links = &mut queue.links;
        let mut entries = std::mem::take(&mut queue.entries).into_vec();
        entries.clear();
        entries.extend(
            links.iter().enumerate().filter(|(_, link)| link.rank != NONE).map(|(i, link)| Reverse((link.rank, i as u32))),
        );
        let mut heap = BinaryHeap::from(entries);
        while let Some(Reverse((rank, left))) = heap.pop() {
            let i = left as usize;
            // An entry whose symbols have changed since: if they merge still, they have an entry of their own.
            if links[i].rank != rank {
                continue;
            }
            let right = links[i].next as usize;
            symbols[i] = links[i].merged;
            links[right].rank = NONE;
            let behind = links[right].next;
            links[i].next = behind;
            let mut renew = |at: u32, right: u32, links: &mut [Link]| {
                let (rank, merged) = self.find(symbols[at as usize], symbols[right as usize]);
                let link = &mut links[at as usize];
                (link.rank, link.merged) = (rank, merged);
                if rank != NONE {
                    heap.push(Reverse((rank, at)));
                }
            };
            if (behind as usize) < n {
                links[behind as usize].previous = left;
                renew(left, behind, links);
            } else {
                links[i].rank = NONE;
            }
            if links[i].previous != NONE {
                renew(links[i].previous, left, links);
            }
        }
        let (mut from, mut to) = (0, 0);
        while from < n {
            symbols[to] = symbols[from];
            to += 1;
            from = links[from].next as usize;
        }
        symbols.truncate(to);
        queue.entries = heap;
    }
}

/// Memory that merging a long piece uses, kept for the next.
#[derive(Default)]
pub(crate) struct Queue {
    links: Vec<Link>,
    entries: BinaryHeap<Reverse<(u32, u32)>>,
}

/// A symbol's place among the others, and what it and its right neighbor merge into.
struct Link {
    rank: u32,
    merged: u32,
    previous: u32,
    next: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the first of the best pairs, until there is none.
    fn by_definition(merges: &Merges, symbols: &mut Vec<u32>) {
        loop {
            let found = symbols.windows(2).map(|pair| merges.find(pair[0], pair[1])).enumerate();
            let Some((at, (_, merged))) = found.filter(|(_, (rank, _))| *rank != NONE).min_by_key(|(_, (rank, _))| *rank) else {
                return;
            };
            symbols.splice(at..at + 2, [merged]);
        }
    }

    #[test]
    fn short_and_long_merging_equal_the_definition() {
        let mut state = 1u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((u64::from(state) * u64::from(below)) >> 32) as u32
        };
        for case in 0..3000 {
            let mut merges = Merges::default();
            let first = 2 + draw(3);
            // Ranks repeat, and do not grow with the tokens they make.
            for token in first..first + draw(30) {
                merges.insert(draw(token), draw(token), draw(8), token);
            }
            let text: Vec<u32> = (0..2 + draw(SHORT as u32 - 2)).map(|_| draw(2)).collect();
            let (mut defined, mut short, mut long) = (text.clone(), text.clone(), text.clone());
            by_definition(&merges, &mut defined);
            merges.apply_short(&mut short);
            merges.apply_long(&mut long, &mut Queue::default());
            assert_eq!(short, defined, "case {case}, {text:?}");
            assert_eq!(long, defined, "case {case}, {text:?}");
        }
    }
}
