//! Root-mean-square norms.

use puna_tensor::op::{Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::copy::{cast, contiguous, fill};
use super::reduce::reduce;
use super::{NONE, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

/// How many rows a thread sums for the weight's derivative, at least; and the most that are summed apart.
const CHUNK: usize = 64;
const CHUNKS: usize = 1024;

pub(super) fn family(x: DType, weight: DType) -> Unit {
    unit("norm.cu", [("T", type_name(x)), ("W", type_name(weight)), NONE, NONE, NONE])
}

/// The norm of `x`, or of its sum with `stream`; `r` gets the reciprocal norms where they are wanted.
#[allow(clippy::too_many_arguments)] // Two ops of three results each, all but one of them optional: a struct would only rename them.
pub(super) fn rms_norm(
    cuda: &Cuda,
    stream: Option<&View>,
    x: &View,
    weight: Option<&View>,
    eps: f64,
    sum: Option<&View>,
    y: &View,
    r: Option<&View>,
) -> Result<()> {
    let (n, rows) = (x.shape().last(), x.shape().rows());
    if n == 0 {
        // Of rows of nothing the mean is NaN.
        return r.map_or(Ok(()), |r| fill(cuda, f64::NAN, r));
    }
    let x = contiguous(cuda, x)?;
    let stream = stream.map(|stream| contiguous(cuda, stream)).transpose()?;
    let weight = weight.map(|weight| contiguous(cuda, weight)).transpose()?;
    let family = family(x.dtype, weight.as_ref().map_or(x.dtype, |weight| weight.dtype));
    let arguments = arguments![
        y.pointer(),
        View::pointer_of(sum),
        View::pointer_of(r),
        View::pointer_of(stream.as_deref()),
        x.pointer(),
        View::pointer_of(weight.as_deref()),
        n as u32,
        rows as u64,
        eps
    ];
    cuda.launch(&family, "rms_norm", Grid::blocks(rows as u64), &arguments)
}

pub(super) fn rms_norm_backward(cuda: &Cuda, inputs: &[View], y: &[View]) -> Result<()> {
    let dy = contiguous(cuda, &inputs[0])?;
    let x = contiguous(cuda, &inputs[1])?;
    let r = contiguous(cuda, &inputs[2])?;
    let weight = inputs.get(3).map(|weight| contiguous(cuda, weight)).transpose()?;
    let (n, rows) = (x.shape().last(), x.shape().rows());
    let family = family(x.dtype, weight.as_ref().map_or(x.dtype, |weight| weight.dtype));
    let blocks = if n == 0 { 0 } else { rows as u64 };
    let arguments = arguments![
        y[0].pointer(),
        dy.pointer(),
        x.pointer(),
        r.pointer(),
        View::pointer_of(weight.as_deref()),
        n as u32,
        rows as u64
    ];
    cuda.launch(&family, "rms_norm_backward", Grid::blocks(blocks), &arguments)?;
    let Some(dweight) = y.get(1) else { return Ok(()) };
    let chunk = CHUNK.max(rows.div_ceil(CHUNKS));
    let chunks = rows.div_ceil(chunk);
    let partial = cuda.scratch([chunks, n], x.dtype.accumulator())?;
    let arguments = arguments![partial.pointer(), dy.pointer(), x.pointer(), r.pointer(), n as u32, rows as u64, chunk as u32];
    cuda.launch(&family, "rms_norm_dweight", Grid::of([n.div_ceil(256), chunks, 1]), &arguments)?;
    let sum = cuda.scratch(n, x.dtype.accumulator())?;
    reduce(cuda, &Reduce { kind: ReduceKind::Sum, axes: 0.into(), keep: false }, &partial, &sum)?;
    cast(cuda, &sum, dweight)
}
