//! Root-mean-square norms.

use puna_tensor::op::{Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::copy::{WholeWords, cast, contiguous, fill};
use super::lanes_share;
use super::parts::{in_parts, in_parts_of, shown_parts};
use super::reduce::reduce;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// How many rows an invocation sums for the weight's derivative, at least; and the most that are summed apart.
const CHUNK: usize = 64;
const CHUNKS: usize = 1024;

/// The longest rows that a subgroup holds, and how many of them it norms with one weight.
const MOST_HELD: usize = 16384;
const TOGETHER: usize = 8;

fn unit(x: DType, weight: Option<&View>, y: DType) -> Unit {
    let weight = weight.map_or(x, |weight| weight.dtype);
    Unit::new("norm.wgsl", [("X", Number::of(x)), ("W", Number::of(weight)), ("Y", Number::of(y))])
}

/// The norm of `x`, or of its sum with `stream`; `r` gets the reciprocal norms where they are wanted.
#[allow(clippy::too_many_arguments)] // Two ops of three results each, all but one of them optional: a struct would only rename them.
pub(super) fn rms_norm(
    wgpu: &Wgpu,
    stream: Option<&View>,
    x: &View,
    weight: Option<&View>,
    eps: f64,
    sum: Option<&View>,
    y: &View,
    r: Option<&View>,
) -> Result<()> {
    let n = x.shape().last();
    if n == 0 {
        // Of rows of nothing the mean is NaN.
        return r.map_or(Ok(()), |r| fill(wgpu, f64::NAN, r));
    }
    let x = contiguous(wgpu, x)?;
    let stream = stream.map(|stream| contiguous(wgpu, stream)).transpose()?;
    let weight = weight.map(|weight| contiguous(wgpu, weight)).transpose()?;
    let has = u32::from(stream.is_some()) | u32::from(weight.is_some()) << 1 | u32::from(r.is_some()) << 2;
    let result = WholeWords::new(wgpu, y, n)?;
    let sum = sum.map(|sum| WholeWords::new(wgpu, sum, n)).transpose()?;
    let unit = unit(x.dtype, weight.as_deref(), result.view().dtype);
    let views = [Some(result.view()), sum.as_ref().map(WholeWords::view), r, stream.as_deref(), Some(&*x)];
    in_parts_of(wgpu, x.shape().rank() - 1, 3, &views, &|views| {
        let rows = views[0].map_or(0, |y| y.shape().rows());
        let views: Vec<_> = views.iter().copied().chain([weight.as_deref()]).collect();
        let parameters = parameters![n, rows, has, eps as f32];
        match wgpu.lanes() {
            Some(lanes) if n <= MOST_HELD => {
                let together = if rows < 8 * TOGETHER { 1 } else { TOGETHER };
                let held = lanes_share(n, lanes, result.view().dtype);
                let unit = unit.with("LANES", lanes).with("ROWS", together as u32).with("HELD", held);
                wgpu.launch(&unit, "rms_norm_lanes", Grid::groups(rows.div_ceil(together)), &views, &parameters)
            }
            _ => wgpu.launch(&unit, "rms_norm", Grid::groups(rows), &views, &parameters),
        }
    })?;
    result.finish(wgpu)?;
    sum.map_or(Ok(()), |sum| sum.finish(wgpu))
}

pub(super) fn rms_norm_backward(wgpu: &Wgpu, inputs: &[View], y: &[View]) -> Result<()> {
    let dy = contiguous(wgpu, &inputs[0])?;
    let x = contiguous(wgpu, &inputs[1])?;
    let r = contiguous(wgpu, &inputs[2])?;
    let weight = inputs.get(3).map(|weight| contiguous(wgpu, weight)).transpose()?;
    let (n, rows) = (x.shape().last(), x.shape().rows());
    let result = WholeWords::new(wgpu, &y[0], n)?;
    let unit = unit(x.dtype, weight.as_deref(), result.view().dtype);
    in_parts(wgpu, x.shape().rank() - 1, [result.view()], [&dy, &x, &r], &|[dx], [dy, x, r]| {
        let rows = if n == 0 { 0 } else { x.shape().rows() };
        let views = [Some(dx), Some(dy), Some(x), Some(r), weight.as_deref()];
        wgpu.launch(&unit, "rms_norm_backward", Grid::groups(rows), &views, &parameters![n, rows, weight.is_some()])
    })?;
    result.finish(wgpu)?;
    let Some(dweight) = y.get(1) else { return Ok(()) };
    let chunk = CHUNK.max(rows.div_ceil(CHUNKS));
    let chunks = rows.div_ceil(chunk);
    let partial = wgpu.scratch([chunks, n], DType::F32)?;
    let (dy, x, r) = (dy.in_shape([rows, n]), x.in_shape([rows, n]), r.in_shape(rows));
    // Whole chunks at a time.
    let shown = [&dy, &x].map(|view| shown_parts(wgpu, view).next().map_or(1, |(_, rows)| rows));
    let together = (shown[0].min(shown[1]) / chunk).max(1);
    for first in (0..chunks).step_by(together) {
        let count = together.min(chunks - first);
        let rows = (first * chunk, (count * chunk).min(rows - first * chunk));
        let of = |view: &View| view.part(0, rows.0, rows.1);
        let views = [partial.part(0, first, count), of(&dy), of(&x), of(&r)];
        let grid = Grid::of([n.div_ceil(256), count, 1]);
        wgpu.launch(&unit, "rms_norm_dweight", grid, &views.each_ref().map(Some), &parameters![n, rows.1, chunk])?;
    }
    let sum = wgpu.scratch(n, DType::F32)?;
    reduce(wgpu, &Reduce { kind: ReduceKind::Sum, axes: 0.into(), keep: false }, &partial, &sum)?;
    cast(wgpu, &sum, dweight)
}
