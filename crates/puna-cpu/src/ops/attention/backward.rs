//! The derivative of attention: scores are formed again from the saved log-sum-exps, a tile at a time.
//!
//! Two passes, so that every sum is formed by one task in one order: blocks of queries walk the keys for `dq`, tiles of keys walk
//! the queries for `dk` and `dv`.

use puna_tensor::op::AttentionBackward;
use puna_tensor::{DType, Result, Tensor};

use super::keys::{Place, Rows, Sequence, scores, sequences};
use super::{TILE, cut, k_end};
use crate::backend::Cpu;
use crate::memory::{Write, write};
use crate::ops::wide::{Source, Wide, scratch};

/// How many query rows (queries times heads of a group) are taken at a time.
const ROWS: usize = 64;

/// Some consecutive queries or keys of a sequence and a kv head: what a task computes.
struct Part<'a> {
    sequence: &'a Sequence,
    /// The first one's place in the sequence.
    first: usize,
    kv_head: usize,
    /// Of each: where its gradients go, for one tensor or two.
    into: Vec<[&'a mut [u8]; 2]>,
}

/// The rows of some queries: the heads of one group of each, from query `first` of the sequence on.
#[derive(Clone, Copy)]
struct At<'a> {
    sequence: &'a Sequence,
    first: usize,
    kv_head: usize,
}

struct Shared<'a, W> {
    op: AttentionBackward,
    dtype: DType,
    dy: Source<'a>,
    q: Source<'a>,
    y: Source<'a>,
    lse: Source<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    heads: usize,
    group: usize,
    dim: usize,
    v_dim: usize,
    scale: W,
}

pub(super) fn backward<W: Wide>(cpu: &Cpu, op: &AttentionBackward, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [dy, q, k, v, y, lse, q_starts, k_starts] = inputs else { unreachable!("inference has counted them") };
    let (dtype, heads, dim) = (q.dtype(), q.dim(1), q.dim(2));
    let [keys, kv_heads, v_dim] = [v.dim(0), v.dim(1), v.dim(2)];
    let group = heads / kv_heads;
    let sequences = sequences(q_starts, q.dim(0), Some(k_starts), |i| k_end(k_starts, keys, i));
    let place = Place::Rows;
    let [dy, q, y, lse] = [dy, q, y, lse].map(|x| Source::new(x));
    let (k, v) = (Rows::new(k, &place), Rows::new(v, &place));
    let shared = Shared::<W> { op: *op, dtype, dy, q, y, lse, k, v, heads, group, dim, v_dim, scale: W::of(op.scale) };

    let element = dtype.unit_bytes();
    let mut dq = write(&outputs[0])?;
    let tokens = sequences.iter().map(|s| (s, s.first, s.queries));
    let per_block = (ROWS / group.max(1)).max(1);
    let mut parts = cut_all(tokens, kv_heads, per_block, [all(&mut dq, &outputs[0]), &mut []], [group * dim * element, 0]);
    cpu.pool.chunks_mut(&mut parts, 1, |_, part| shared.queries(&mut part[0]));
    drop(parts);

    let (mut dk, mut dv) = (write(&outputs[1])?, write(&outputs[2])?);
    let into = [all(&mut dk, &outputs[1]), all(&mut dv, &outputs[2])];
    let spans = sequences.iter().map(|s| (s, s.first_key, s.keys));
    let mut parts = cut_all(spans, kv_heads, TILE, into, [dim * element, v_dim * element]);
    cpu.pool.chunks_mut(&mut parts, 1, |_, part| shared.keys(&mut part[0]));
    Ok(())
}

/// The bytes of a result, zeroed: what no sequence reaches has no gradient.
fn all<'w>(memory: &'w mut Write<'_>, tensor: &Tensor) -> &'w mut [u8] {
    let bytes = &mut memory.bytes()[..tensor.byte_range().len()];
    bytes.fill(0);
    bytes
}

/// Cuts two results `[n, kv_heads, run]` into parts of at most `most` entries. `spans`: of each sequence, its first entry and how many
/// there are.
fn cut_all<'a>(
    spans: impl Iterator<Item = (&'a Sequence, usize, usize)>,
    kv_heads: usize,
    most: usize,
    mut into: [&'a mut [u8]; 2],
    runs: [usize; 2],
) -> Vec<Part<'a>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut next = 0;
    for (sequence, start, count) in spans {
        // Packed sequences that overlap have no place of their own for a gradient; starts ascend.
        let Some(skipped) = start.checked_sub(next) else { continue };
        if count == 0 {
            continue;
        }
        for (into, run) in into.iter_mut().zip(runs) {
            cut(into, skipped * kv_heads * run);
        }
        for first in (0..count).step_by(most) {
            let entries = most.min(count - first);
            let from = parts.len();
            parts.extend((0..kv_heads).map(|kv_head| Part { sequence, first, kv_head, into: Vec::with_capacity(entries) }));
            for _ in 0..entries {
                for part in &mut parts[from..] {
                    let [a, b] = &mut into;
                    part.into.push([cut(a, runs[0]), cut(b, runs[1])]);
                }
            }
        }
        next = start + count;
    }
    parts
}

impl<W: Wide> Shared<'_, W> {
    fn load(&self, from: &Source<'_>, at: At<'_>, dim: usize, into: &mut [W]) {
        for (r, row) in into.chunks_exact_mut(dim.max(1)).enumerate() {
            from.load(from.layout().row_offset(self.row(at, r)), row);
        }
    }

    /// Row `r` among all tokens' heads.
    fn row(&self, at: At<'_>, r: usize) -> usize {
        (at.sequence.first + at.first + r / self.group) * self.heads + at.kv_head * self.group + r % self.group
    }

    /// Of each row: the log-sum-exp, and `sum(dy * y)`.
    fn row_terms(&self, at: At<'_>, dy: &[W], y: &mut [W], lse: &mut [W], delta: &mut [W]) {
        let stride = self.lse.layout().strides();
        for (r, (lse, delta)) in lse.iter_mut().zip(delta).enumerate() {
            let row = self.row(at, r);
            let place = self.lse.layout().offset() + row / self.heads * stride[0] + row % self.heads * stride[1];
            self.lse.load(place, std::slice::from_mut(lse));
            self.y.load(self.y.layout().row_offset(row), y);
            *delta = W::dot(&dy[r * self.v_dim..][..self.v_dim], y);
        }
    }

    /// Scores to probabilities in `p`, and `dy . v` to the scores' gradients in `ds`: one row, of the keys that it sees.
    fn probabilities(&self, p: &mut [W], ds: &mut [W], lse: W, delta: W) {
        if lse == W::NEG_INFINITY {
            p.fill(W::ZERO);
            ds.fill(W::ZERO);
            return;
        }
        W::scale(p, self.scale);
        W::exp_minus(p, lse);
        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = *p * (*ds - delta));
    }

    /// `dq` of a block of queries.
    fn queries(&self, part: &mut Part<'_>) {
        let (sequence, kv_head, first) = (part.sequence, part.kv_head, part.first);
        let (group, dim, v_dim) = (self.group, self.dim, self.v_dim);
        let rows = part.into.len() * group;
        let seen = sequence.seen(self.op.mask, first + part.into.len() - 1);
        scratch(rows * (2 * dim + v_dim + 2 * TILE + 2) + (2 * TILE + 1) * dim.max(v_dim), |memory: &mut [W]| {
            let (q, rest) = memory.split_at_mut(rows * dim);
            let (dq, rest) = rest.split_at_mut(rows * dim);
            let (dy, rest) = rest.split_at_mut(rows * v_dim);
            let (p, rest) = rest.split_at_mut(rows * TILE);
            let (ds, rest) = rest.split_at_mut(rows * TILE);
            let (lse, rest) = rest.split_at_mut(rows);
            let (delta, rest) = rest.split_at_mut(rows);
            let (columns, wide) = rest.split_at_mut(TILE * dim.max(v_dim));
            let at = At { sequence, first, kv_head };
            self.load(&self.q, at, dim, q);
            self.load(&self.dy, at, v_dim, dy);
            self.row_terms(at, dy, &mut wide[..v_dim], lse, delta);
            dq.fill(W::ZERO);
            for start in (0..seen).step_by(TILE) {
                let count = TILE.min(seen - start);
                self.k.columns(sequence, kv_head, start, count, wide, columns);
                scores(q, dim, columns, p);
                self.v.columns(sequence, kv_head, start, count, wide, columns);
                scores(dy, v_dim, columns, ds);
                let sees = |r: usize| sequence.seen(self.op.mask, first + r / group).saturating_sub(start).min(count);
                for (r, (p, ds)) in p.chunks_exact_mut(TILE).zip(ds.chunks_exact_mut(TILE)).enumerate() {
                    self.probabilities(&mut p[..sees(r)], &mut ds[..sees(r)], lse[r], delta[r]);
                }
                self.k.runs(sequence, kv_head, start, count, wide, |at, keys, stride, run| {
                    // Later queries see no fewer keys: where the first sees all of them, rows share what is loaded; else those of a query do.
                    let together = if sees(0) >= at + run { rows } else { group };
                    let parts = ds.chunks(together * TILE).zip(dq.chunks_mut((together * dim).max(1)));
                    for (i, (ds, dq)) in parts.enumerate() {
                        let seen = sees(i * together).saturating_sub(at).min(run);
                        W::accumulate_rows(&ds[at..], TILE, seen, keys, stride, dim, dq);
                    }
                });
            }
            W::scale(dq, self.scale);
            for ([into, _], dq) in part.into.iter_mut().zip(dq.chunks_exact((group * dim).max(1))) {
                W::store(self.dtype, dq, into);
            }
        });
    }

    /// `dk` and `dv` of a tile of keys.
    fn keys(&self, part: &mut Part<'_>) {
        let (sequence, kv_head, start, count) = (part.sequence, part.kv_head, part.first, part.into.len());
        let (group, dim, v_dim) = (self.group, self.dim, self.v_dim);
        let per_block = (ROWS / group.max(1)).max(1);
        let most = per_block * group;
        let length = (count + TILE) * (dim + v_dim) + most * (dim + v_dim + 4 * TILE + 2) + v_dim + TILE * dim.max(v_dim);
        scratch(length, |memory: &mut [W]| {
            let (dk, rest) = memory.split_at_mut(count * dim);
            let (dv, rest) = rest.split_at_mut(count * v_dim);
            let (k, rest) = rest.split_at_mut(TILE * dim);
            let (v, rest) = rest.split_at_mut(TILE * v_dim);
            let (q, rest) = rest.split_at_mut(most * dim);
            let (dy, rest) = rest.split_at_mut(most * v_dim);
            let (p, rest) = rest.split_at_mut(most * TILE);
            let (ds, rest) = rest.split_at_mut(most * TILE);
            // The same a column a row: keys gather over queries.
            let (p_t, rest) = rest.split_at_mut(most * TILE);
            let (ds_t, rest) = rest.split_at_mut(most * TILE);
            let (lse, rest) = rest.split_at_mut(most);
            let (delta, rest) = rest.split_at_mut(most);
            let (y, wide) = rest.split_at_mut(v_dim);
            self.k.columns(sequence, kv_head, start, count, wide, k);
            self.v.columns(sequence, kv_head, start, count, wide, v);
            dk.fill(W::ZERO);
            dv.fill(W::ZERO);
            for first in (0..sequence.queries).step_by(per_block) {
                let queries = per_block.min(sequence.queries - first);
                let rows = queries * group;
                if sequence.seen(self.op.mask, first + queries - 1) <= start {
                    continue;
                }
                let (q, dy) = (&mut q[..rows * dim], &mut dy[..rows * v_dim]);
                let at = At { sequence, first, kv_head };
                self.load(&self.q, at, dim, q);
                self.load(&self.dy, at, v_dim, dy);
                self.row_terms(at, dy, y, &mut lse[..rows], &mut delta[..rows]);
                let (p, ds) = (&mut p[..rows * TILE], &mut ds[..rows * TILE]);
                scores(q, dim, k, p);
                scores(dy, v_dim, v, ds);
                for (r, (p, ds)) in p.chunks_exact_mut(TILE).zip(ds.chunks_exact_mut(TILE)).enumerate() {
                    let seen = sequence.seen(self.op.mask, first + r / group).saturating_sub(start).min(count);
                    self.probabilities(&mut p[..seen], &mut ds[..seen], lse[r], delta[r]);
                    for j in 0..count {
                        let seen = j < seen;
                        p_t[j * rows + r] = if seen { p[j] } else { W::ZERO };
                        ds_t[j * rows + r] = if seen { ds[j] } else { W::ZERO };
                    }
                }
                W::accumulate_rows(p_t, rows, rows, dy, v_dim, v_dim, dv);
                W::accumulate_rows(ds_t, rows, rows, q, dim, dim, dk);
            }
            W::scale(dk, self.scale);
            for (j, [dk_into, dv_into]) in part.into.iter_mut().enumerate() {
                W::store(self.dtype, &dk[j * dim..][..dim], dk_into);
                W::store(self.dtype, &dv[j * v_dim..][..v_dim], dv_into);
            }
        });
    }
}
