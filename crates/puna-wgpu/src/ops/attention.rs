//! Attention.

use puna_tensor::op::{Attention, AttentionBackward, Mask, PagedAttention};
use puna_tensor::{DType, Result};

use super::copy::{WholeWords, arange, contiguous, copy};
use super::elementwise::words;
use super::index::gather_rows;
use super::lanes_share;
use super::parts::halves;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// The kernels for queries and keys of these dtypes, with results of `y`.
fn unit(q: DType, k: DType, y: DType) -> Unit {
    Unit::new("attention.wgsl", [("X", Number::of(q)), ("W", Number::of(k)), ("Y", Number::of(y))])
}

/// For how long heads a workgroup has room: few kernels serve all lengths.
fn room(dim: usize, v_dim: usize) -> u32 {
    dim.max(v_dim).next_multiple_of(64) as u32
}

/// The fours of rows that share their keys in `attention_lanes` where there are many: fewer reads, for seconds of compiling.
const LANES_FOURS: usize = 4;
const MANY_ROWS: usize = 512;

/// Where keys lie in pages.
struct Pages<'a> {
    table: &'a View,
    /// Whether what is of none of the sequences is left as it is.
    keep: bool,
}

/// What is computed of queries and keys, whether these are packed or in pages.
struct Forward<'a> {
    q: &'a View,
    k: &'a View,
    v: &'a View,
    q_starts: &'a View,
    /// Of packed keys where they begin, of keys in pages how many there are.
    k_starts: &'a View,
    pages: Option<Pages<'a>>,
    mask: Mask,
    scale: f64,
}

impl Forward<'_> {
    fn run(&self, wgpu: &Wgpu, y: &View, lse: Option<&View>) -> Result<()> {
        let [tokens, heads, dim] = [0, 1, 2].map(|axis: usize| self.q.shape()[axis]);
        let (k_rank, v_dim) = (self.k.shape().rank(), self.v.shape().last());
        let kv_heads = self.k.shape()[k_rank - 2];
        let result = WholeWords::new(wgpu, y, v_dim)?;
        let unit = unit(self.q.dtype, self.k.dtype, result.view().dtype).with("FOURS", u32::from(dim % 4 == 0));
        let columns = self.pages.as_ref().map_or(0, |pages| pages.table.shape()[1]);
        let [pages, page_size] = if self.pages.is_some() { [self.k.shape()[0], self.k.shape()[1]] } else { [0, 1] };
        let parameters = parameters![
            heads,
            kv_heads,
            self.q_starts.elements() - 1,
            if self.pages.is_some() { 0 } else { self.k.shape()[0] },
            self.mask == Mask::Causal,
            columns,
            page_size,
            pages,
            self.pages.as_ref().is_some_and(|pages| pages.keep),
            lse.is_some(),
            tokens,
            dim,
            v_dim,
            self.scale as f32
        ];
        let mut views =
            vec![Some(result.view()), lse, Some(self.q), Some(self.k), Some(self.v), Some(self.q_starts), Some(self.k_starts)];
        let unit = match &self.pages {
            Some(pages) => {
                views.push(Some(pages.table));
                unit.with("PAGED", 1)
            }
            None => unit,
        };
        // Heads of nothing have no sums; arrays of nothing there are none.
        if dim == 0 || v_dim == 0 {
            return Ok(());
        }
        let rows = tokens * heads / kv_heads.max(1);
        match wgpu.lanes() {
            Some(lanes) => {
                let fours = if rows < MANY_ROWS { 1 } else { LANES_FOURS };
                let dims = lanes_share(v_dim, lanes, result.view().dtype);
                let unit = unit.with("DIM", dim as u32).with("V_DIM", v_dim as u32);
                let unit = unit.with("LANES", lanes).with("KEYS", 64 / lanes);
                let unit = unit.with("ROWS", fours as u32).with("DIMS", dims);
                let grid = Grid::of([rows.div_ceil(4 * fours), kv_heads, 1]);
                wgpu.launch(&unit, "attention_lanes", grid, &views, &parameters)?;
            }
            None => wgpu.launch(
                &unit.with("ROOM", room(dim, v_dim)),
                "attention",
                Grid::of([rows.div_ceil(4), kv_heads, 1]),
                &views,
                &parameters,
            )?,
        }
        result.finish(wgpu)
    }
}

pub(super) fn attention(wgpu: &Wgpu, op: &Attention, inputs: &[View], y: &[View]) -> Result<()> {
    let [q, k, v, q_starts, k_starts] = [0, 1, 2, 3, 4].map(|i: usize| contiguous(wgpu, &inputs[i]));
    let (q, k, v, q_starts, k_starts) = (q?, k?, v?, q_starts?, k_starts?);
    let (mask, scale) = (op.mask, op.scale);
    by_heads(wgpu, &[&q, &k, &v], y, v.shape()[1], &|inputs, y| {
        let [q, k, v] = inputs else { unreachable!("as many as were given") };
        Forward { q, k, v, q_starts: &q_starts, k_starts: &k_starts, pages: None, mask, scale }.run(wgpu, &y[0], y.get(1))
    })
}

/// Heads that share no keys are apart: what no binding shows is worked on by some of them at a time. `kv_heads` of keys and values; all have
/// their heads on axis 1.
fn by_heads(
    wgpu: &Wgpu,
    inputs: &[&View],
    results: &[View],
    kv_heads: usize,
    f: &impl Fn(&[&View], &[View]) -> Result<()>,
) -> Result<()> {
    let Some(halves) = halves(kv_heads, 1).filter(|_| !inputs.iter().copied().chain(results).all(|view| wgpu.shows(view))) else {
        return f(inputs, results);
    };
    halves.into_iter().try_for_each(|(first, count)| {
        let of = |view: &View| {
            let group = view.shape()[1] / kv_heads;
            view.part(1, first * group, count * group)
        };
        let own = inputs.iter().map(|view| contiguous(wgpu, &of(view))).collect::<Result<Vec<_>>>()?;
        let parts = results.iter().map(|view| wgpu.scratch(*of(view).shape(), view.dtype)).collect::<Result<Vec<_>>>()?;
        let views: Vec<View> = parts.iter().map(|part| (**part).clone()).collect();
        by_heads(wgpu, &own.iter().map(|view| &**view).collect::<Vec<_>>(), &views, count, f)?;
        views.iter().zip(results).try_for_each(|(part, whole)| copy(wgpu, part, &of(whole), false))
    })
}

pub(super) fn paged_attention(wgpu: &Wgpu, op: &PagedAttention, inputs: &[View], y: &View) -> Result<()> {
    let [q, k, v, table, q_starts, lengths] = [0, 1, 2, 3, 4, 5].map(|i: usize| contiguous(wgpu, &inputs[i]));
    let (q, k, v, table, q_starts, lengths) = (q?, k?, v?, table?, q_starts?, lengths?);
    let (mask, scale) = (op.mask, op.scale);
    if wgpu.shows(&k) && wgpu.shows(&v) {
        let pages = Some(Pages { table: &table, keep: false });
        return Forward { q: &q, k: &k, v: &v, q_starts: &q_starts, k_starts: &lengths, pages, mask, scale }.run(wgpu, y, None);
    }
    // Of a cache that no binding shows the pages of some sequences are brought together, of as many as a binding shows.
    let [sequences, columns] = [0, 1].map(|axis: usize| table.shape()[axis]);
    let bytes_of_page = [&k, &v].map(|pages| pages.bytes() / pages.shape()[0].max(1)).into_iter().max().unwrap_or(0);
    let together = (wgpu.window() / (columns * bytes_of_page).max(1)).clamp(1, sequences.max(1));
    let places = wgpu.scratch(together * columns, DType::U32)?;
    arange(wgpu, &places)?;
    (0..sequences.max(1)).step_by(together).try_for_each(|first| {
        let count = together.min(sequences - first);
        let (n, numbers) = (count * columns, table.part(0, first, count));
        let gather = |pages: &View| {
            let [_, page_size, heads, dim] = [0, 1, 2, 3].map(|axis: usize| pages.shape()[axis]);
            let gathered = wgpu.scratch([n, page_size, heads, dim], pages.dtype)?;
            gather_rows(wgpu, pages, &numbers.in_shape(n), &gathered)?;
            Ok::<_, puna_tensor::Error>(gathered)
        };
        let (k, v) = (gather(&k)?, gather(&v)?);
        let table = &places.part(0, 0, n).in_shape([count, columns]);
        let (q_starts, k_starts) = (&q_starts.part(0, first, count + 1), &lengths.part(0, first, count));
        let pages = Some(Pages { table, keep: first > 0 });
        Forward { q: &q, k: &k, v: &v, q_starts, k_starts, pages, mask, scale }.run(wgpu, y, None)
    })
}

pub(super) fn attention_backward(wgpu: &Wgpu, op: &AttentionBackward, inputs: &[View], results: &[View]) -> Result<()> {
    let [dy, q, k, v, y, lse, q_starts, k_starts] = [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| contiguous(wgpu, &inputs[i]));
    let (dy, q, k, v, y, lse, q_starts, k_starts) = (dy?, q?, k?, v?, y?, lse?, q_starts?, k_starts?);
    by_heads(wgpu, &[&dy, &q, &k, &v, &y, &lse], results, v.shape()[1], &|inputs, results| {
        let [dy, q, k, v, y, lse] = inputs else { unreachable!("as many as were given") };
        backward_of_heads(wgpu, op, [dy, q, k, v, y, lse], [&q_starts, &k_starts], results)
    })
}

fn backward_of_heads(
    wgpu: &Wgpu,
    op: &AttentionBackward,
    [dy, q, k, v, y, lse]: [&View; 6],
    [q_starts, k_starts]: [&View; 2],
    results: &[View],
) -> Result<()> {
    let [tokens, heads, dim] = [0, 1, 2].map(|axis: usize| q.shape()[axis]);
    let [keys, kv_heads, v_dim] = [0, 1, 2].map(|axis: usize| v.shape()[axis]);
    if dim == 0 || v_dim == 0 {
        return Ok(());
    }
    let delta = wgpu.scratch([tokens, heads], DType::F32)?;
    let of = |y: DType| unit(q.dtype, k.dtype, y).with("ROOM", room(dim, v_dim));
    wgpu.launch(
        &of(q.dtype),
        "attention_delta",
        words(&delta),
        &[Some(&delta), Some(dy), Some(y)],
        &parameters![tokens * heads, v_dim],
    )?;
    let starts = joined(wgpu, q_starts, k_starts)?;
    let parameters =
        parameters![heads, kv_heads, q_starts.elements() - 1, keys, op.mask == Mask::Causal, tokens, dim, v_dim, op.scale as f32];
    let entries = [
        ("attention_dq", dim, [tokens, heads]),
        ("attention_dk", dim, [keys, kv_heads]),
        ("attention_dv", v_dim, [keys, kv_heads]),
    ];
    for ((entry, width, [rows, heads_of]), result) in entries.into_iter().zip(results) {
        let result = WholeWords::new(wgpu, result, width)?;
        let views = [result.view(), dy, q, k, v, lse, &delta, &starts].map(Some);
        wgpu.launch(&of(result.view().dtype), entry, Grid::of([rows, heads_of, 1]), &views, &parameters)?;
        result.finish(wgpu)?;
    }
    Ok(())
}

/// Both in one buffer: a kernel has no room for another.
fn joined(wgpu: &Wgpu, q_starts: &View, k_starts: &View) -> Result<Scratch> {
    let n = q_starts.elements();
    let both = wgpu.scratch(2 * n, DType::U32)?;
    copy(wgpu, q_starts, &both.part(0, 0, n), false)?;
    copy(wgpu, k_starts, &both.part(0, n, n), false)?;
    Ok(both)
}
