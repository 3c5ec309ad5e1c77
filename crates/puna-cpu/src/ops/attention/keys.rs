//! Where the keys and values of a sequence lie: side by side, or in the pages of a cache.

use puna_tensor::Tensor;
use puna_tensor::op::Mask;

use super::TILE;
use crate::ops::wide::{Indices, Source, Wide};

/// A sequence's queries and keys.
pub(super) struct Sequence {
    /// Its number.
    pub(super) index: usize,
    /// Its first token.
    pub(super) first: usize,
    /// How many tokens it has.
    pub(super) queries: usize,
    /// Its first key, where keys are packed.
    pub(super) first_key: usize,
    /// How many keys it has.
    pub(super) keys: usize,
}

impl Sequence {
    /// How many keys query `i` sees: the first so many.
    pub(super) fn seen(&self, mask: Mask, i: usize) -> usize {
        match mask {
            Mask::Full => self.keys,
            Mask::Causal => (self.keys + i + 1).saturating_sub(self.queries).min(self.keys),
        }
    }
}

/// The sequences, in order. Starts that do not ascend, or lead beyond what there is, make them shorter. `k_end`: where a
/// sequence's keys end, or how many there are where `k_starts` is none.
pub(super) fn sequences(
    q_starts: &Tensor,
    tokens: usize,
    k_starts: Option<&Tensor>,
    k_end: impl Fn(usize) -> usize,
) -> Vec<Sequence> {
    let starts = Indices::new(q_starts);
    let k_starts = k_starts.map(Indices::new);
    let mut end = 0;
    (0..q_starts.dim(0) - 1)
        .map(|index| {
            let first = starts.at(index).min(tokens).max(end);
            end = starts.at(index + 1).min(tokens).max(first);
            let first_key = k_starts.as_ref().map_or(0, |starts| starts.at(index));
            Sequence { index, first, queries: end - first, first_key, keys: k_end(index).saturating_sub(first_key) }
        })
        .collect()
}

/// How keys are found.
pub(super) enum Place<'a> {
    /// `[keys, kv_heads, dim]`, each sequence's behind the one before.
    Rows,
    /// `[pages, page_size, kv_heads, dim]`, by a table.
    Pages { table: Indices<'a>, page_size: usize, pages: usize },
}

/// Keys, or values.
pub(super) struct Rows<'a> {
    source: Source<'a>,
    place: &'a Place<'a>,
    dim: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(tensor: &'a Tensor, place: &'a Place<'a>) -> Self {
        Self { source: Source::new(tensor), place, dim: tensor.shape().last() }
    }

    /// Where key `key` lies, and how many from it on lie at equal distances; `None`: a page that does not exist, which reads zeros.
    fn find(&self, sequence: &Sequence, head: usize, key: usize, count: usize) -> (Option<usize>, usize) {
        let (offset, strides) = (self.source.layout().offset(), self.source.layout().strides());
        match self.place {
            Place::Rows => (Some(offset + (sequence.first_key + key) * strides[0] + head * strides[1]), count),
            Place::Pages { table, page_size, pages } => {
                let (page, place) = (table.at_2(sequence.index, key / page_size), key % page_size);
                let at = offset + page.min(*pages) * strides[0] + place * strides[1] + head * strides[2];
                ((page < *pages).then_some(at), count.min(page_size - place))
            }
        }
    }

    /// From a key to the next.
    fn stride(&self) -> usize {
        match self.place {
            Place::Rows => self.source.layout().strides()[0],
            Place::Pages { .. } => self.source.layout().strides()[1],
        }
    }

    /// Calls `f(at, rows, stride, n)` for each run of the `count` keys from `start` on: `n` keys, the first `at` behind `start`, the
    /// `i`-th at `rows[i * stride ..]`. In place where they are of the wide type, else widened into `wide [count * dim]`.
    pub(super) fn runs<W: Wide>(
        &self,
        sequence: &Sequence,
        head: usize,
        start: usize,
        count: usize,
        wide: &mut [W],
        mut f: impl FnMut(usize, &[W], usize, usize),
    ) {
        let (dim, stride) = (self.dim, self.stride());
        let mut at = 0;
        while at < count {
            let (place, run) = self.find(sequence, head, start + at, count - at);
            match place {
                Some(place) if self.source.is_direct::<W>() && dim > 0 => {
                    let bytes = ((run - 1) * stride + dim) * size_of::<W>();
                    let rows = bytemuck::cast_slice(&self.source.memory()[place * size_of::<W>()..][..bytes]);
                    f(at, rows, stride, run);
                }
                _ => {
                    let rows = &mut wide[..run * dim];
                    match place {
                        Some(place) => {
                            for (i, row) in rows.chunks_exact_mut(dim.max(1)).enumerate() {
                                self.source.load(place + i * stride, row);
                            }
                        }
                        None => rows.fill(W::ZERO),
                    }
                    f(at, rows, dim, run);
                }
            }
            at += run;
        }
    }

    /// The `count` keys from `start` on as columns `[dim, TILE]`, so that scores are chains over `dim` with a key in each lane.
    /// Columns beyond `count` hold anything.
    pub(super) fn columns<W: Wide>(
        &self,
        sequence: &Sequence,
        head: usize,
        start: usize,
        count: usize,
        wide: &mut [W],
        columns: &mut [W],
    ) {
        self.runs(sequence, head, start, count, wide, |at, rows, stride, run| {
            for i in 0..run {
                let column = columns.iter_mut().skip(at + i).step_by(TILE);
                column.zip(&rows[i * stride..][..self.dim]).for_each(|(y, x)| *y = *x);
            }
        });
    }
}

/// `scores[r, j] = q[r] . columns[j]` for the rows `q [rows, dim]`; `scores` is `[rows, TILE]`.
pub(super) fn scores<W: Wide>(q: &[W], dim: usize, columns: &[W], scores: &mut [W]) {
    scores.fill(W::ZERO);
    W::accumulate_rows(q, dim, dim, columns, TILE, TILE, scores);
}
