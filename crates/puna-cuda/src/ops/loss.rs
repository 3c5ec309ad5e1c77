//! Cross entropy.

use puna_tensor::op::{Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::copy::{as_rows, bf16_parts, cast, concat, contiguous, contiguous_as, fill, reshaped};
use super::matmul::{add_outer, add_times, fast, times, times_transposed};
use super::reduce::reduce;
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Grid, Pointer, arguments};
use crate::view::View;

/// How many rows of logits are held at once: of a vocabulary of 128 k in f32, a GiB.
const CHUNK: usize = 2048;

pub(super) fn family(dtype: DType) -> Unit {
    unit("loss.cu", [("T", type_name(dtype)), NONE, NONE, NONE, NONE])
}

/// The losses of rows, and where they go.
struct Losses {
    losses: Scratch,
    counted: Scratch,
    labels: Scratch,
    rows: usize,
}

impl Losses {
    fn new(cuda: &Cuda, labels: &View, wide: DType) -> Result<Self> {
        let rows = labels.elements();
        let labels = reshaped(cuda, labels, rows)?;
        Ok(Self { losses: cuda.scratch(rows, wide)?, counted: cuda.scratch(rows, DType::U32)?, labels, rows })
    }

    /// Those of `logits`, contiguous, the rows from `first` on.
    fn add(&self, cuda: &Cuda, logits: &View, first: usize, lse: Option<&View>) -> Result<()> {
        let (rows, vocab) = (logits.shape().rows(), logits.shape().last());
        let from = |view: &View| part(view, first, rows).pointer();
        let arguments = arguments![
            from(&self.losses),
            from(&self.counted),
            lse.map_or(Pointer::NONE, from),
            logits.pointer(),
            from(&self.labels),
            self.labels.layout.strides()[0] as i64,
            vocab as u64,
            rows as u64
        ];
        cuda.launch(&family(logits.dtype), "cross_entropy", Grid::blocks(rows as u64), &arguments)
    }

    fn sum(&self, cuda: &Cuda, y: &[View]) -> Result<()> {
        let op = Reduce { kind: ReduceKind::Sum, axes: 0.into(), keep: false };
        reduce(cuda, &op, &self.losses, &y[0])?;
        reduce(cuda, &op, &self.counted, &y[1])
    }
}

pub(super) fn cross_entropy(cuda: &Cuda, x: &[View], y: &[View]) -> Result<()> {
    let logits = contiguous(cuda, &x[0])?;
    let losses = Losses::new(cuda, &x[1], logits.dtype.accumulator())?;
    let lse = y.get(2).map(|lse| lse.in_shape(losses.rows));
    let logits = logits.in_shape([losses.rows, logits.shape().last()]);
    losses.add(cuda, &logits, 0, lse.as_ref())?;
    losses.sum(cuda, y)
}

fn backward(cuda: &Cuda, dlogits: &View, logits: &View, dsum: &View, labels: &View, lse: &View) -> Result<()> {
    let (n, vocab) = (logits.elements(), logits.shape().last());
    let arguments = arguments![
        dlogits.pointer(),
        logits.pointer(),
        dsum.pointer(),
        labels.pointer(),
        labels.layout.strides()[0] as i64,
        lse.pointer(),
        vocab as u64,
        n as u64
    ];
    cuda.launch(&family(logits.dtype), "cross_entropy_backward", Grid::each(n), &arguments)
}

pub(super) fn cross_entropy_backward(cuda: &Cuda, x: &[View], y: &View) -> Result<()> {
    let [dsum, logits, labels, lse] = x else { unreachable!("inference has counted them") };
    let logits = contiguous(cuda, logits)?;
    let labels = reshaped(cuda, labels, labels.elements())?;
    let lse = contiguous(cuda, lse)?;
    backward(cuda, y, &logits, dsum, &labels, &lse)
}

/// The chunks of some rows: where each begins, and how many it has.
fn chunks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(CHUNK).map(move |first| (first, CHUNK.min(rows - first)))
}

fn part(view: &View, first: usize, rows: usize) -> View {
    view.with(view.layout.slice(0, first, rows).expect("a part of the rows"))
}

pub(super) fn linear_cross_entropy(cuda: &Cuda, x: &[View], y: &[View]) -> Result<()> {
    let [x, weight, labels] = x else { unreachable!("inference has counted them") };
    let (x, wide) = (as_rows(cuda, x)?, x.dtype.accumulator());
    let losses = Losses::new(cuda, labels, wide)?;
    let lse = y.get(2).map(|lse| lse.in_shape(losses.rows));
    for (first, rows) in chunks(losses.rows) {
        let logits = cuda.scratch([rows, weight.shape()[0]], wide)?;
        times_transposed(cuda, &part(&x, first, rows), weight, &logits)?;
        losses.add(cuda, &logits, first, lse.as_ref())?;
    }
    losses.sum(cuda, y)
}

/// A matrix of halves as those of bf16 that sum to it, one below the other: itself, or two.
fn in_bf16(cuda: &Cuda, x: &View) -> Result<Scratch> {
    if x.dtype == DType::BF16 { Ok((*x).into()) } else { bf16_parts(cuda, x) }
}

/// The matrices of `rows` rows that lie one below the other.
fn each_of(view: &View, rows: usize) -> impl Iterator<Item = View> {
    (0..view.shape()[0] / rows).map(move |i| part(view, i * rows, rows))
}

pub(super) fn linear_cross_entropy_backward(cuda: &Cuda, weight_grad: bool, x: &[View], y: &[View]) -> Result<()> {
    let [dsum, x, weight, labels, lse] = x else { unreachable!("inference has counted them") };
    let (x, wide, vocab) = (as_rows(cuda, x)?, x.dtype.accumulator(), weight.shape()[0]);
    let (all, hidden) = (x.shape()[0], x.shape()[1]);
    let labels = reshaped(cuda, labels, all)?;
    let lse = reshaped(cuda, lse, all)?;
    let dx = y[0].in_shape([all, hidden]);
    // Summed over the chunks before it is rounded.
    let sum: Option<Scratch> = match y.get(1) {
        Some(dweight) if weight_grad && dweight.dtype == wide => Some((*dweight).into()),
        Some(dweight) if weight_grad => Some(cuda.scratch(*dweight.shape(), wide)?),
        _ => None,
    };
    // Halves meet the gradients of logits, which are f32, on tensor cores.
    let halves = x.dtype == weight.dtype && fast(cuda, x.dtype, x.dtype, x.dtype) && vocab > 0;
    let weights = if halves { in_bf16(cuda, weight)? } else { (*weight).into() };
    for (first, rows) in chunks(all) {
        let logits = cuda.scratch([rows, vocab], wide)?;
        let (x, dx) = (part(&x, first, rows), part(&dx, first, rows));
        times_transposed(cuda, &x, weight, &logits)?;
        backward(cuda, &logits, &logits, dsum, &part(&labels, first, rows), &part(&lse, first, rows))?;
        if halves {
            let dlogits = bf16_parts(cuda, &logits)?;
            drop(logits);
            let dx_sum = cuda.scratch(*dx.shape(), wide)?;
            let pairs = each_of(&weights, vocab).flat_map(|weight| each_of(&dlogits, rows).map(move |d| (d, weight)));
            for (i, (dlogits, weight)) in pairs.enumerate() {
                add_times(cuda, &dlogits, &weight, i > 0, &dx_sum)?;
            }
            cast(cuda, &dx_sum, &dx)?;
            let Some(sum) = &sum else { continue };
            let x = in_bf16(cuda, &x)?;
            for (i, x) in each_of(&x, rows).enumerate() {
                // One below the other as the gradients are, so that one product sums over both.
                let twice = cuda.scratch([2 * rows, hidden], DType::BF16)?;
                concat(cuda, 0, &[x, x], &twice)?;
                add_outer(cuda, &dlogits, &twice, first > 0 || i > 0, sum)?;
            }
        } else {
            times(cuda, &logits, weight, &dx)?;
            if let Some(sum) = &sum {
                let x = contiguous_as(cuda, &x, wide)?;
                add_outer(cuda, &logits, &x, first > 0, sum)?;
            }
        }
    }
    let (Some(sum), Some(dweight)) = (&sum, y.get(1)) else { return Ok(()) };
    if all == 0 {
        return fill(cuda, 0.0, dweight);
    }
    if dweight.dtype == wide { Ok(()) } else { cast(cuda, sum, dweight) }
}
