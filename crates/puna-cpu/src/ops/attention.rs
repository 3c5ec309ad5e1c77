//! Attention: queries of a block walk the keys of their sequence in tiles, with a running softmax; scores are never held.
//!
//! What a query gets depends on its own keys alone. Its keys are cut at fixed places, counted from its sequence's first: into
//! splits of [`SPLIT`], and those into tiles of [`TILE`]. A tile adds the keys that the query sees, in order; splits are merged in
//! order. So chunks of a prefill, neighbours in a batch and threads change no bit, and a lone query with a long past still has
//! work for every thread: its splits.

mod backward;
mod keys;

use puna_tensor::op::{Attention, AttentionBackward, Mask, PagedAttention};
use puna_tensor::{Result, Tensor};

use self::keys::{Place, Rows, Sequence, sequences};
use super::wide::{Indices, Source, Wide, buffer, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;

/// How many keys are scored at a time.
const TILE: usize = 64;
/// How many keys a running softmax walks before it is merged into the whole.
const SPLIT: usize = 512;
/// About how many query rows (queries times heads of a group) share what is read of the keys.
const ROWS: usize = 64;
/// Fewer multiplications than this are not worth another thread.
const SERIAL: usize = 64 << 10;

pub(super) fn attention(cpu: &Cpu, op: &Attention, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [q, k, v, q_starts, k_starts] = inputs else { unreachable!("inference has counted them") };
    let sequences = sequences(q_starts, q.dim(0), Some(k_starts), |i| k_end(k_starts, k.dim(0), i));
    in_wide!(q.dtype(), attend(cpu, op.scale, op.mask, q, [k, v], Place::Rows, &sequences, &outputs[0], outputs.get(1)))
}

/// Where the keys of sequence `i` end.
fn k_end(k_starts: &Tensor, keys: usize, i: usize) -> usize {
    Indices::new(k_starts).at(i + 1).min(keys)
}

pub(super) fn paged_attention(cpu: &Cpu, op: &PagedAttention, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [q, k_pages, v_pages, page_table, q_starts, lengths] = inputs else { unreachable!("inference has counted them") };
    let page_size = k_pages.dim(1);
    let room = page_table.dim(1) * page_size;
    let lengths = Indices::new(lengths);
    let sequences = sequences(q_starts, q.dim(0), None, |i| lengths.at(i).min(room));
    let place = Place::Pages { table: Indices::new(page_table), page_size, pages: k_pages.dim(0) };
    in_wide!(q.dtype(), attend(cpu, op.scale, op.mask, q, [k_pages, v_pages], place, &sequences, &outputs[0], None))
}

pub(super) fn attention_backward(cpu: &Cpu, op: &AttentionBackward, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[1].dtype(), backward(cpu, op, inputs, outputs))
}

use backward::backward;

/// Some consecutive queries of a sequence, with the heads of one group: what a task computes.
struct Block<'a, W> {
    sequence: &'a Sequence,
    /// The first query's place in the sequence.
    first: usize,
    kv_head: usize,
    /// Of each query: where the results of the group's heads go.
    y: Vec<&'a mut [u8]>,
    /// Of each query: where the log-sum-exps go, if they are saved.
    lse: Vec<&'a mut [W]>,
}

/// Cuts the first `length` elements off a slice.
fn cut<'a, T>(slice: &mut &'a mut [T], length: usize) -> &'a mut [T] {
    let (head, rest) = std::mem::take(slice).split_at_mut(length);
    *slice = rest;
    head
}

/// The sizes that everything below shares, and what is read.
struct Shared<'a, W> {
    q: Source<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    heads: usize,
    group: usize,
    dim: usize,
    v_dim: usize,
    scale: W,
    mask: Mask,
}

/// Running softmaxes of a block's rows: per row the largest score, the sum of exponentials, and the weighted sum of values.
struct State<'s, W> {
    largest: &'s mut [W],
    sum: &'s mut [W],
    values: &'s mut [W],
}

impl<'s, W: Wide> State<'s, W> {
    /// A state of `rows` rows in `memory`, as long as [`length`](Self::length) says.
    fn of(memory: &'s mut [W], rows: usize) -> Self {
        let (largest, rest) = memory.split_at_mut(rows);
        let (sum, values) = rest.split_at_mut(rows);
        Self { largest, sum, values }
    }

    fn length(rows: usize, v_dim: usize) -> usize {
        rows * (2 + v_dim)
    }

    fn clear(&mut self) {
        self.largest.fill(W::NEG_INFINITY);
        self.sum.fill(W::ZERO);
        self.values.fill(W::ZERO);
    }

    /// Adds the keys behind this state's.
    fn merge(&mut self, behind: &State<'_, W>) {
        let v_dim = self.values.len() / self.largest.len().max(1);
        for r in 0..self.largest.len() {
            if behind.largest[r] == W::NEG_INFINITY {
                continue;
            }
            let largest = W::largest(&[self.largest[r], behind.largest[r]]);
            let mut factors = [self.largest[r] - largest, behind.largest[r] - largest];
            W::exp_all(&mut factors);
            let [a, b] = factors;
            self.largest[r] = largest;
            self.sum[r] = self.sum[r] * a + behind.sum[r] * b;
            let values = self.values[r * v_dim..][..v_dim].iter_mut();
            values.zip(&behind.values[r * v_dim..][..v_dim]).for_each(|(x, y)| *x = *x * a + *y * b);
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn attend<W: Wide>(
    cpu: &Cpu,
    scale: f64,
    mask: Mask,
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    place: Place<'_>,
    sequences: &[Sequence],
    y: &Tensor,
    lse: Option<&Tensor>,
) -> Result<()> {
    let [tokens, heads, dim] = [q.dim(0), q.dim(1), q.dim(2)];
    let [kv_heads, v_dim] = [v.dim(v.rank() - 2), v.dim(v.rank() - 1)];
    let (dtype, group) = (q.dtype(), heads / kv_heads);
    let place = &place;
    let (k, v) = (Rows::new(k, place), Rows::new(v, place));
    let shared = Shared { q: Source::new(q), k, v, heads, group, dim, v_dim, scale: W::of(scale), mask };

    let (mut y, mut lse) = (write(y)?, lse.map(write).transpose()?);
    let run = group * v_dim * dtype.unit_bytes();
    let mut y = &mut y.bytes()[..tokens * kv_heads * run];
    let lse_run = lse.as_ref().map_or(0, |_| group);
    let mut lse = lse.as_mut().map_or(&mut [][..], |lse| &mut lse.typed()[..tokens * kv_heads * lse_run]);
    let mut blocks: Vec<Block<'_, W>> = Vec::with_capacity(kv_heads);
    let mut next = 0;
    let per_block = (ROWS / group.max(1)).max(1);
    for sequence in sequences {
        nothing(
            cut(&mut y, (sequence.first - next) * kv_heads * run),
            cut(&mut lse, (sequence.first - next) * kv_heads * lse_run),
        );
        for first in (0..sequence.queries).step_by(per_block) {
            let queries = per_block.min(sequence.queries - first);
            let start = blocks.len();
            let block =
                |kv_head| Block { sequence, first, kv_head, y: Vec::with_capacity(queries), lse: Vec::with_capacity(queries) };
            blocks.extend((0..kv_heads).map(block));
            for _ in 0..queries {
                for block in &mut blocks[start..] {
                    block.y.push(cut(&mut y, run));
                    block.lse.push(cut(&mut lse, lse_run));
                }
            }
        }
        next = sequence.first + sequence.queries;
    }
    nothing(y, lse);

    let splits = sequences.iter().map(|s| s.keys.div_ceil(SPLIT)).max().unwrap_or(0);
    let work: usize = sequences.iter().map(|s| s.queries * s.keys).sum::<usize>().saturating_mul(heads * (dim + v_dim));
    if work <= SERIAL {
        blocks.iter_mut().for_each(|block| shared.block(block));
    } else if splits > 1 && blocks.len() < 4 * cpu.pool.threads() {
        shared.by_splits(cpu, &mut blocks, splits)?;
    } else {
        // The last blocks see the most keys: they come first, so that no thread starts a long one at the end.
        blocks.reverse();
        cpu.pool.chunks_mut(&mut blocks, 1, |_, block| shared.block(&mut block[0]));
    }
    Ok(())
}

/// The result of queries that see no key.
fn nothing<W: Wide>(y: &mut [u8], lse: &mut [W]) {
    y.fill(0);
    lse.fill(W::NEG_INFINITY);
}

impl<W: Wide> Shared<'_, W> {
    /// A whole block, one split behind the other.
    fn block(&self, block: &mut Block<'_, W>) {
        let rows = block.y.len() * self.group;
        let length = State::<W>::length(rows, self.v_dim);
        scratch(2 * length, |memory: &mut [W]| {
            let (whole, split) = memory.split_at_mut(length);
            let (mut whole, mut state) = (State::of(whole, rows), State::of(split, rows));
            self.split(block, 0, &mut whole);
            for split in 1..self.seen(block).div_ceil(SPLIT) {
                self.split(block, split, &mut state);
                whole.merge(&state);
            }
            self.finish(block, &whole);
        });
    }

    /// Few blocks of many keys: a task a split, then the same merges in the same order.
    fn by_splits(&self, cpu: &Cpu, blocks: &mut [Block<'_, W>], splits: usize) -> Result<()> {
        let most = blocks.iter().map(|block| block.y.len() * self.group).max().unwrap_or(0);
        let length = State::<W>::length(most, self.v_dim);
        buffer(cpu, blocks.len() * splits * length, |memory: &mut [W]| {
            let read: &[Block<'_, W>] = blocks;
            cpu.pool.chunks_mut(memory, length, |i, memory| {
                let (block, split) = (&read[i / splits], i % splits);
                if split == 0 || split * SPLIT < self.seen(block) {
                    let rows = block.y.len() * self.group;
                    self.split(block, split, &mut State::of(&mut memory[..State::<W>::length(rows, self.v_dim)], rows));
                }
            });
            for (block, memory) in blocks.iter_mut().zip(memory.chunks_exact_mut(splits * length)) {
                let rows = block.y.len() * self.group;
                let mut states =
                    memory.chunks_exact_mut(length).map(|m| State::of(&mut m[..State::<W>::length(rows, self.v_dim)], rows));
                let mut whole = states.next().expect("there is one split at least");
                for state in states.take(self.seen(block).div_ceil(SPLIT).saturating_sub(1)) {
                    whole.merge(&state);
                }
                self.finish(block, &whole);
            }
            Ok(())
        })
    }

    /// How many keys a block's last query sees: its queries see no more.
    fn seen(&self, block: &Block<'_, W>) -> usize {
        block.sequence.seen(self.mask, block.first + block.y.len() - 1)
    }

    /// The keys of one split.
    fn split(&self, block: &Block<'_, W>, split: usize, state: &mut State<'_, W>) {
        state.clear();
        let (sequence, group, dim, v_dim) = (block.sequence, self.group, self.dim, self.v_dim);
        let rows = block.y.len() * group;
        let end = self.seen(block).min((split + 1) * SPLIT);
        scratch(rows * (dim + TILE) + TILE * (dim + dim.max(v_dim)), |memory: &mut [W]| {
            let (q, rest) = memory.split_at_mut(rows * dim);
            let (scores, rest) = rest.split_at_mut(rows * TILE);
            let (columns, wide) = rest.split_at_mut(TILE * dim);
            self.queries(&self.q, sequence.first + block.first, block.kv_head, dim, q);
            for start in (split * SPLIT..end).step_by(TILE) {
                let count = TILE.min(end - start);
                self.k.columns(sequence, block.kv_head, start, count, wide, columns);
                keys::scores(q, dim, columns, scores);
                for (r, row) in scores.chunks_exact_mut(TILE).enumerate() {
                    let seen = sequence.seen(self.mask, block.first + r / group).saturating_sub(start).min(count);
                    // What is not seen is not read below either.
                    let row = &mut row[..seen];
                    W::scale(row, self.scale);
                    let largest = W::largest(&[state.largest[r], W::largest(row)]);
                    if seen == 0 || largest == W::NEG_INFINITY {
                        row.fill(W::ZERO);
                        continue;
                    }
                    let mut fading = [state.largest[r] - largest];
                    W::exp_all(&mut fading);
                    let [fading] = fading;
                    state.largest[r] = largest;
                    state.sum[r] = state.sum[r] * fading + W::exp_minus(row, largest);
                    if fading != W::ONE {
                        W::scale(&mut state.values[r * v_dim..][..v_dim], fading);
                    }
                }
                let sees = |r: usize| sequence.seen(self.mask, block.first + r / group).saturating_sub(start);
                self.v.runs(sequence, block.kv_head, start, count, wide, |at, values, stride, run| {
                    // Later queries see no fewer keys: where the first sees all of them, rows share what is loaded; else those of a query do.
                    let together = if sees(0) >= at + run { rows } else { group };
                    let parts = scores.chunks(together * TILE).zip(state.values.chunks_mut((together * v_dim).max(1)));
                    for (i, (scores, sums)) in parts.enumerate() {
                        let seen = sees(i * together).saturating_sub(at).min(run);
                        W::accumulate_rows(&scores[at..], TILE, seen, values, stride, v_dim, sums);
                    }
                });
            }
        });
    }

    /// The rows of a block from a tensor `[tokens, heads, dim]`: the group's heads of each query.
    fn queries(&self, from: &Source<'_>, first: usize, kv_head: usize, dim: usize, into: &mut [W]) {
        for (r, row) in into.chunks_exact_mut(dim.max(1)).enumerate() {
            let (token, head) = (first + r / self.group, kv_head * self.group + r % self.group);
            from.load(from.layout().row_offset(token * self.heads + head), row);
        }
    }

    /// Divides by the sums and rounds.
    fn finish(&self, block: &mut Block<'_, W>, state: &State<'_, W>) {
        let (group, v_dim) = (self.group, self.v_dim);
        for (i, y) in block.y.iter_mut().enumerate() {
            with_row(self.q.dtype(), y, |y| {
                for (h, y) in y.chunks_exact_mut(v_dim.max(1)).enumerate() {
                    let r = i * group + h;
                    let sum = state.sum[r];
                    let by = if state.largest[r] == W::NEG_INFINITY { W::ZERO } else { W::ONE / sum };
                    y.iter_mut().zip(&state.values[r * v_dim..][..v_dim]).for_each(|(y, x)| *y = *x * by);
                }
            });
        }
        for (i, lse) in block.lse.iter_mut().enumerate() {
            for (h, lse) in lse.iter_mut().enumerate() {
                let r = i * group + h;
                *lse = if state.largest[r] == W::NEG_INFINITY { W::NEG_INFINITY } else { state.largest[r] + state.sum[r].ln() };
            }
        }
    }
}
