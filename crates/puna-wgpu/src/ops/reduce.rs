//! Reductions, scans, sorting.

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::copy::WholeWords;
use super::elementwise::words;
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
    let (results, axes) = (y.elements(), || x.axes().enumerate());
    let kept = Strides::new(axes().filter(|(axis, _)| !op.axes.contains(axis)).map(|(_, axis)| axis));
    let reduced = Strides::new(axes().filter(|(axis, _)| op.axes.contains(axis)).map(|(_, axis)| axis));
    let count: usize = op.axes.iter().map(|&axis| x.shape()[axis]).product();
    // Where a result's values lie apart and its neighbour's beside them, or are few, an invocation of its own reads them.
    let by_columns = count < 32 || (reduced.last() != 1 && kept.last() == 1 && results >= 32);
    let chunk = if by_columns { INVOCATION_CHUNK } else { GROUP_CHUNK }.max(count.div_ceil(MOST_GROUPS));
    let chunks = count.div_ceil(chunk).max(1);
    if results == 0 {
        return Ok(());
    }
    let partial = wgpu.scratch([results, chunks], accumulator(x.dtype))?;
    let kind = match op.kind {
        ReduceKind::Sum => 0u32,
        ReduceKind::Mean => 1,
        ReduceKind::Max => 2,
        ReduceKind::Min => 3,
    };
    let (entry, mut grid) =
        if by_columns { ("reduce_columns", Grid::each(results)) } else { ("reduce_chunk", Grid::groups(results)) };
    grid.0[2] = chunks as u32;
    let unit = unit(x.dtype, y.dtype);
    let parameters = parameters![kept, reduced, count, results, chunk, chunks, kind];
    wgpu.launch(&unit, entry, grid, &[Some(&partial), Some(x)], &parameters)?;
    wgpu.launch(&unit, "reduce_finish", words(y), &[Some(y), Some(&partial)], &parameters![results, chunks, count as f32, kind])
}

pub(super) fn arg_reduce(wgpu: &Wgpu, op: &ArgReduce, x: &View, y: &View) -> Result<()> {
    let results = y.elements();
    let axes: Vec<_> = x.axes().collect();
    let kept = Strides::new(axes.iter().enumerate().filter(|(axis, _)| *axis != op.axis).map(|(_, axis)| *axis));
    let (count, step) = axes[op.axis];
    let parameters = parameters![kept, step, count, results, op.largest];
    wgpu.launch(&unit(x.dtype, x.dtype), "arg_reduce", Grid::groups(results), &[Some(y), Some(x)], &parameters)
}

pub(super) fn cum_sum(wgpu: &Wgpu, x: &View, y: &View) -> Result<()> {
    let (rows, columns) = (x.shape().rows(), x.shape().last());
    let (at, step) = x.rows();
    // Written one by one, so in words.
    let result = WholeWords::new(wgpu, y, 1)?;
    let groups = if columns == 0 { 0 } else { rows };
    let parameters = parameters![at, step, columns, rows];
    let unit = unit(x.dtype, x.dtype);
    wgpu.launch(&unit, "cum_sum", Grid::groups(groups), &[Some(result.view()), Some(x)], &parameters)?;
    result.finish(wgpu)
}

/// Sorts each row of `x`, of any strides, into `values` and the places where they stood.
pub(super) fn sort_rows(wgpu: &Wgpu, x: &View, descending: bool, values: &View, places: &View) -> Result<()> {
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
