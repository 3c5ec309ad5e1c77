//! Reductions, scans, sorting.

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::{NONE, kind_name, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, MOST_BLOCKS_ACROSS, Strides, arguments};
use crate::view::View;

/// How many values a block reduces at a time, and a thread of its own.
const BLOCK_CHUNK: usize = 16 << 10;
const THREAD_CHUNK: usize = 1 << 10;
/// How many elements a block of the sorting kernels takes.
const RUN: usize = 256;

pub(super) fn family(from: DType, to: DType) -> Unit {
    unit("reduce.cu", [("T", type_name(from)), ("Y", type_name(to)), kind_name(from), NONE, NONE])
}

pub(super) fn sort_family(dtype: DType) -> Unit {
    unit("sort.cu", [("T", type_name(dtype)), NONE, NONE, NONE, NONE])
}

pub(super) fn reduce(cuda: &Cuda, op: &Reduce, x: &View, y: &View) -> Result<()> {
    let (results, axes) = (y.elements(), || x.axes().enumerate());
    let kept = Strides::new(axes().filter(|(axis, _)| !op.axes.contains(axis)).map(|(_, axis)| axis));
    let reduced = Strides::new(axes().filter(|(axis, _)| op.axes.contains(axis)).map(|(_, axis)| axis));
    let count: usize = op.axes.iter().map(|&axis| x.shape()[axis]).product();
    // Where a result's values lie apart and its neighbour's beside them, or are few, a thread of its own reads them.
    let by_threads = count < 32 || (reduced.last() != 1 && kept.last() == 1 && results >= 32);
    let chunk = if by_threads { THREAD_CHUNK } else { BLOCK_CHUNK }.max(count.div_ceil(MOST_BLOCKS_ACROSS));
    let chunks = count.div_ceil(chunk).max(1);
    let accumulator = match x.dtype {
        DType::I64 => DType::I64,
        DType::U32 | DType::U8 => DType::U32,
        float => float.accumulator(),
    };
    if results == 0 {
        return Ok(());
    }
    let partial = cuda.scratch([results, chunks], accumulator)?;
    let kind = match op.kind {
        ReduceKind::Sum => 0i32,
        ReduceKind::Mean => 1,
        ReduceKind::Max => 2,
        ReduceKind::Min => 3,
    };
    let arguments = arguments![
        partial.pointer(),
        x.pointer(),
        kept,
        reduced,
        count as u64,
        results as u64,
        chunk as u64,
        chunks as u32,
        kind
    ];
    let (entry, mut grid) =
        if by_threads { ("reduce_columns", Grid::each(results)) } else { ("reduce_chunk", Grid::blocks(results as u64)) };
    grid.blocks[2] = chunks as u32;
    cuda.launch(&family(x.dtype, y.dtype), entry, grid, &arguments)?;
    let arguments = arguments![y.pointer(), partial.pointer(), chunks as u32, count as u64, results as u64, kind];
    cuda.launch(&family(x.dtype, y.dtype), "reduce_finish", Grid::each(results), &arguments)
}

pub(super) fn arg_reduce(cuda: &Cuda, op: &ArgReduce, x: &View, y: &View) -> Result<()> {
    let results = y.elements();
    let kept = Strides::new(x.axes().enumerate().filter(|(axis, _)| *axis != op.axis).map(|(_, axis)| axis));
    let (count, step) = x.axes().nth(op.axis).expect("inference has found the axis");
    let arguments = arguments![y.pointer(), x.pointer(), kept, step as i64, count as u64, results as u64, i32::from(op.largest)];
    cuda.launch(&family(x.dtype, x.dtype), "arg_reduce", Grid::blocks(results as u64), &arguments)
}

pub(super) fn cum_sum(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    let (rows, columns) = (x.shape().rows() as u64, x.shape().last() as u64);
    let (at, step) = x.rows();
    let blocks = if columns == 0 { 0 } else { rows };
    let arguments = arguments![y.pointer(), x.pointer(), at, step, columns, rows];
    cuda.launch(&family(x.dtype, x.dtype), "cum_sum", Grid::blocks(blocks), &arguments)
}

/// Sorts each row of `x`, of any strides, into `values` and the places where they stood.
pub(super) fn sort_rows(cuda: &Cuda, x: &View, descending: bool, values: &View, places: &View) -> Result<()> {
    if x.elements() == 0 {
        return Ok(());
    }
    let (n, rows, descending) = (x.shape().last(), x.shape().rows(), i32::from(descending));
    let family = sort_family(x.dtype);
    let y = rows.min(MOST_BLOCKS_ACROSS);
    let grid = Grid::of([n.div_ceil(RUN), y, rows.div_ceil(y)]);
    let merges = n.div_ceil(RUN).next_power_of_two().ilog2();
    // From one pair of results to the other and back: begun so that the last merge ends in the right one.
    let other = if merges > 0 { Some((cuda.scratch(*x.shape(), x.dtype)?, cuda.scratch(*x.shape(), DType::U32)?)) } else { None };
    let results = (values.pointer(), places.pointer());
    let pair = |i: u32| match &other {
        Some((values, places)) if i % 2 == 1 => (values.pointer(), places.pointer()),
        _ => results,
    };
    let (at, step) = x.rows();
    let (to_values, to_places) = pair(merges);
    let arguments = arguments![to_values, to_places, x.pointer(), at, step, n as u32, rows as u64, descending];
    cuda.launch(&family, "sort_runs", grid, &arguments)?;
    for merge in 0..merges {
        let (from, to) = (pair(merges - merge), pair(merges - merge - 1));
        let length = (RUN << merge) as u64;
        let arguments = arguments![to.0, to.1, from.0, from.1, n as u32, rows as u64, length, descending];
        cuda.launch(&family, "merge_runs", grid, &arguments)?;
    }
    Ok(())
}
