//! Reductions, scans, sorting.

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind};
use puna_tensor::{Axes, DType, Result, Shape};

use super::copy::{WholeWords, contiguous};
use super::elementwise::words;
use super::parts::in_parts;
use crate::backend::Wgpu;
use crate::launch::{Grid, MOST_GROUPS, Strides, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// How many values a workgroup reduces at a time, and an invocation of its own.
const GROUP_CHUNK: usize = 16 << 10;
const INVOCATION_CHUNK: usize = 1 << 10;
/// How many elements a workgroup of the sorting kernels takes.
const RUN: usize = 256;

/// The dtype that partial sums are held in.
fn accumulator(dtype: DType) -> DType {
    match dtype {
        DType::I64 => DType::I64,
        DType::U32 | DType::U8 => DType::U32,
        float => float.accumulator(),
    }
}

fn unit(from: DType, to: DType) -> Unit {
    Unit::new("reduce.wgsl", [("X", Number::of(from)), ("Y", Number::of(to)), ("W", Number::of(accumulator(from)))])
}

pub(super) fn reduce(wgpu: &Wgpu, op: &Reduce, x: &View, y: &View) -> Result<()> {
    let results = y.elements();
    let (first, others): (Vec<usize>, Vec<usize>) = (0..x.shape().rank()).partition(|axis| !op.axes.contains(axis));
    // The axes of results before those of a result's values.
    let order = Axes::new(&[&first[..], &others].concat()).expect("as many axes as there are");
    let x = x.with(x.layout.permute(&order).expect("floats and integers take any order"));
    let leading = first.len();
    let strides = |x: &View| (Strides::new(x.axes().take(leading)), Strides::new(x.axes().skip(leading)));
    let (kept, reduced) = strides(&x);
    let count: usize = x.shape()[leading..].iter().product();
    // Where a result's values lie apart and its neighbour's beside them, or are few, an invocation of its own reads them.
    let by_columns = count < 32 || (reduced.last() != 1 && kept.last() == 1 && results >= 32);
    let chunk = if by_columns { INVOCATION_CHUNK } else { GROUP_CHUNK }.max(count.div_ceil(MOST_GROUPS));
    let chunks = count.div_ceil(chunk).max(1);
    if results == 0 {
        return Ok(());
    }
    let partial = wgpu.scratch([results, chunks], accumulator(x.dtype))?;
    // Where nothing is summed, there may be no room for an axis of chunks.
    let of_chunk = if others.is_empty() { &[][..] } else { &[chunks] };
    let shape = Shape::new(&[&x.shape()[..leading], of_chunk].concat()).expect("no more axes than before");
    let kind = match op.kind {
        ReduceKind::Sum => 0u32,
        ReduceKind::Mean => 1,
        ReduceKind::Max => 2,
        ReduceKind::Min => 3,
    };
    let unit = unit(x.dtype, y.dtype);
    let results_of = |x: &View| x.shape()[..leading].iter().product::<usize>();
    let some_chunks = |partial: &View, x: &View| {
        let (results, count) = (results_of(x), x.shape()[leading..].iter().product::<usize>());
        let chunks = partial.elements() / results;
        let (entry, mut grid) =
            if by_columns { ("reduce_columns", Grid::each(results)) } else { ("reduce_chunk", Grid::groups(results)) };
        grid.0[2] = chunks as u32;
        let (kept, reduced) = strides(x);
        let parameters = parameters![kept, reduced, count, results, chunk, chunks, kind];
        wgpu.launch(&unit, entry, grid, &[Some(partial), Some(x)], &parameters)
    };
    in_parts(wgpu, leading, [&partial.in_shape(shape)], [&x], &|[partial], [x]| {
        if wgpu.shows(x) || results_of(x) > 1 {
            return some_chunks(partial, x);
        }
        // One result's values, some chunks at a time.
        let (x, partial) = (contiguous(wgpu, x)?, partial.in_shape(chunks));
        let x = x.in_shape(Shape::new(&[vec![1; leading], vec![count]].concat()).expect("no more axes than before"));
        let together = (wgpu.window() / 2 / x.dtype.unit_bytes() / chunk).max(1);
        (0..chunks).step_by(together).try_for_each(|first| {
            let n = together.min(chunks - first);
            let (begin, end) = (first * chunk, ((first + n) * chunk).min(count));
            some_chunks(&partial.part(0, first, n), &x.part(leading, begin, end - begin))
        })
    })?;
    in_parts(wgpu, 1, [&y.in_shape(results)], [&partial], &|[y], [partial]| {
        let parameters = parameters![y.elements(), chunks, count as f32, kind];
        wgpu.launch(&unit, "reduce_finish", words(y), &[Some(y), Some(partial)], &parameters)
    })
}

pub(super) fn arg_reduce(wgpu: &Wgpu, op: &ArgReduce, x: &View, y: &View) -> Result<()> {
    let rank = x.shape().rank();
    let order = Axes::new(&(0..rank).filter(|axis| *axis != op.axis).chain([op.axis]).collect::<Vec<_>>()).expect("as many axes");
    let x = x.with(x.layout.permute(&order).expect("floats and integers take any order"));
    let y = y.in_shape(x.shape().with_last(1));
    in_parts(wgpu, rank - 1, [&y], [&x], &|[y], [x]| {
        let (kept, step) = x.rows();
        let parameters = parameters![kept, step, x.shape().last(), y.elements(), op.largest];
        wgpu.launch(&unit(x.dtype, x.dtype), "arg_reduce", Grid::groups(y.elements()), &[Some(y), Some(x)], &parameters)
    })
}

pub(super) fn cum_sum(wgpu: &Wgpu, x: &View, y: &View) -> Result<()> {
    let columns = x.shape().last();
    // Written one by one, so in words.
    let result = WholeWords::new(wgpu, y, 1)?;
    in_parts(wgpu, x.shape().rank() - 1, [result.view()], [x], &|[y], [x]| {
        let rows = if columns == 0 { 0 } else { x.shape().rows() };
        let (at, step) = x.rows();
        let parameters = parameters![at, step, columns, rows];
        wgpu.launch(&unit(x.dtype, x.dtype), "cum_sum", Grid::groups(rows), &[Some(y), Some(x)], &parameters)
    })?;
    result.finish(wgpu)
}

/// Sorts each row of `x`, of any strides, into `values` and the places where they stood.
pub(super) fn sort_rows(wgpu: &Wgpu, x: &View, descending: bool, values: &View, places: &View) -> Result<()> {
    in_parts(wgpu, x.shape().rank() - 1, [values, places], [x], &|[values, places], [x]| {
        sort_shown(wgpu, x, descending, values, places)
    })
}

fn sort_shown(wgpu: &Wgpu, x: &View, descending: bool, values: &View, places: &View) -> Result<()> {
    if x.elements() == 0 {
        return Ok(());
    }
    let (n, rows) = (x.shape().last(), x.shape().rows());
    // Written one by one, so in words.
    let result = WholeWords::new(wgpu, values, 1)?;
    let wide = result.view().dtype;
    let unit = Unit::new("sort.wgsl", [("X", Number::of(x.dtype)), ("W", Number::of(wide))]);
    let across = rows.min(MOST_GROUPS);
    let grid = Grid::of([n.div_ceil(RUN), across, rows.div_ceil(across)]);
    let merges = n.div_ceil(RUN).next_power_of_two().ilog2();
    // From one pair of results to the other and back: begun so that the last merge ends in the right one.
    let other = if merges > 0 { Some((wgpu.scratch(*x.shape(), wide)?, wgpu.scratch(*x.shape(), DType::U32)?)) } else { None };
    let pair = |i: u32| match &other {
        Some((values, places)) if i % 2 == 1 => (&**values, &**places),
        _ => (result.view(), places),
    };
    let (at, step) = x.rows();
    let (to_values, to_places) = pair(merges);
    let parameters = parameters![at, step, n, rows, descending];
    wgpu.launch(&unit, "sort_runs", grid, &[Some(to_values), Some(to_places), Some(x)], &parameters)?;
    for merge in 0..merges {
        let (from, to) = (pair(merges - merge), pair(merges - merge - 1));
        let parameters = parameters![n, rows, RUN << merge, descending];
        wgpu.launch(&unit, "merge_runs", grid, &[Some(to.0), Some(to.1), Some(from.0), Some(from.1)], &parameters)?;
    }
    result.finish(wgpu)
}
