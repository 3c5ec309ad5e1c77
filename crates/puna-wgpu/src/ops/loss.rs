//! Cross entropy.

use puna_tensor::op::{Reduce, ReduceKind};
use puna_tensor::{DType, Result};

use super::copy::{as_rows, cast, contiguous, contiguous_as, fill, reshaped};
use super::elementwise::words;
use super::matmul::{add_outer, times, times_transposed};
use super::parts::{in_parts, in_parts_of};
use super::reduce::reduce;
use super::unit_of;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, parameters};
use crate::view::View;

/// The most rows of logits that are held at once, and the most bytes of them, where that is less: what every device shows a kernel, so that sums
/// over chunks are the same on all.
const CHUNK: usize = 2048;
const CHUNK_BYTES: usize = 127 << 20;

/// The losses of rows, and where they go.
struct Losses {
    losses: Scratch,
    counted: Scratch,
    labels: Scratch,
    rows: usize,
}

impl Losses {
    fn new(wgpu: &Wgpu, labels: &View) -> Result<Self> {
        let rows = labels.elements();
        let labels = reshaped(wgpu, labels, rows)?;
        Ok(Self { losses: wgpu.scratch(rows, DType::F32)?, counted: wgpu.scratch(rows, DType::U32)?, labels, rows })
    }

    /// Those of `logits`, contiguous, the rows from `first` on.
    fn add(&self, wgpu: &Wgpu, logits: &View, first: usize, lse: Option<&View>) -> Result<()> {
        let (rows, vocab) = (logits.shape().rows(), logits.shape().last());
        let of = |view: &View| view.part(0, first, rows);
        let (losses, counted, labels, lse) = (of(&self.losses), of(&self.counted), of(&self.labels), lse.map(of));
        let views = [Some(&losses), Some(&counted), lse.as_ref(), Some(logits), Some(&labels)];
        in_parts_of(wgpu, 1, 3, &views, &|views| {
            let labels = views[4].expect("there are labels");
            let (rows, step) = (labels.elements(), labels.layout.strides()[0]);
            let parameters = parameters![step, vocab, rows, lse.is_some()];
            wgpu.launch(&unit_of("loss.wgsl", logits.dtype), "cross_entropy", Grid::groups(rows), views, &parameters)
        })
    }

    fn sum(&self, wgpu: &Wgpu, y: &[View]) -> Result<()> {
        let op = Reduce { kind: ReduceKind::Sum, axes: 0.into(), keep: false };
        reduce(wgpu, &op, &self.losses, &y[0])?;
        reduce(wgpu, &op, &self.counted, &y[1])
    }
}

pub(super) fn cross_entropy(wgpu: &Wgpu, x: &[View], y: &[View]) -> Result<()> {
    let logits = contiguous(wgpu, &x[0])?;
    let losses = Losses::new(wgpu, &x[1])?;
    let lse = y.get(2).map(|lse| lse.in_shape(losses.rows));
    let logits = logits.in_shape([losses.rows, logits.shape().last()]);
    losses.add(wgpu, &logits, 0, lse.as_ref())?;
    losses.sum(wgpu, y)
}

pub(super) fn cross_entropy_backward(wgpu: &Wgpu, x: &[View], y: &View) -> Result<()> {
    let [dsum, logits, labels, lse] = x else { unreachable!("inference has counted them") };
    let logits = contiguous(wgpu, logits)?;
    let labels = reshaped(wgpu, labels, labels.elements())?;
    let lse = contiguous(wgpu, lse)?.seen(|lse| lse.in_shape(lse.elements()));
    let rows = [labels.elements(), logits.shape().last()];
    in_parts(wgpu, 1, [&y.in_shape(rows)], [&logits.in_shape(rows), &labels, &lse], &|[y], [logits, labels, lse]| {
        let parameters = parameters![y.elements(), labels.layout.strides()[0], rows[1]];
        let views = [Some(y), Some(logits), Some(dsum), Some(labels), Some(lse)];
        wgpu.launch(&unit_of("loss.wgsl", logits.dtype), "cross_entropy_backward", words(y), &views, &parameters)
    })
}

/// `logits`, f32 and contiguous, become their derivative.
fn derivative_in_place(wgpu: &Wgpu, logits: &View, dsum: &View, labels: &View, lse: &View) -> Result<()> {
    in_parts(wgpu, 1, [logits], [labels, lse], &|[logits], [labels, lse]| {
        let parameters = parameters![logits.elements(), labels.layout.strides()[0], logits.shape().last()];
        let views = [Some(logits), Some(dsum), Some(labels), Some(lse)];
        wgpu.launch(&unit_of("loss.wgsl", DType::F32), "cross_entropy_in_place", words(logits), &views, &parameters)
    })
}

/// The chunks of some rows of logits: where each begins, and how many it has. Even numbers, so that rows of halves fill words.
fn chunks(rows: usize, vocab: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
    let fit = CHUNK_BYTES / 4 / vocab.max(1);
    let chunk = if fit >= CHUNK { CHUNK } else { (fit / 4 * 4).max(4) };
    (0..rows).step_by(chunk).map(move |first| (first, chunk.min(rows - first)))
}

pub(super) fn linear_cross_entropy(wgpu: &Wgpu, x: &[View], y: &[View]) -> Result<()> {
    let [x, weight, labels] = x else { unreachable!("inference has counted them") };
    let x = as_rows(wgpu, x)?;
    let losses = Losses::new(wgpu, labels)?;
    let lse = y.get(2).map(|lse| lse.in_shape(losses.rows));
    let vocab = weight.shape()[0];
    for (first, rows) in chunks(losses.rows, vocab) {
        let logits = wgpu.scratch([rows, vocab], DType::F32)?;
        times_transposed(wgpu, &x.part(0, first, rows), weight, &logits)?;
        losses.add(wgpu, &logits, first, lse.as_ref())?;
    }
    losses.sum(wgpu, y)
}

pub(super) fn linear_cross_entropy_backward(wgpu: &Wgpu, weight_grad: bool, x: &[View], y: &[View]) -> Result<()> {
    let [dsum, x, weight, labels, lse] = x else { unreachable!("inference has counted them") };
    let (x, vocab) = (as_rows(wgpu, x)?, weight.shape()[0]);
    let (all, hidden) = (x.shape()[0], x.shape()[1]);
    let labels = reshaped(wgpu, labels, all)?;
    let lse = contiguous(wgpu, lse)?.seen(|lse| lse.in_shape(all));
    let dx = y[0].in_shape([all, hidden]);
    // Summed over the chunks before it is rounded.
    let sum: Option<Scratch> = match y.get(1) {
        Some(dweight) if weight_grad && dweight.dtype == DType::F32 => Some(dweight.clone().into()),
        Some(dweight) if weight_grad => Some(wgpu.scratch(*dweight.shape(), DType::F32)?),
        _ => None,
    };
    for (first, rows) in chunks(all, vocab) {
        let logits = wgpu.scratch([rows, vocab], DType::F32)?;
        let x = x.part(0, first, rows);
        times_transposed(wgpu, &x, weight, &logits)?;
        derivative_in_place(wgpu, &logits, dsum, &labels.part(0, first, rows), &lse.part(0, first, rows))?;
        times(wgpu, &logits, weight, &dx.part(0, first, rows))?;
        if let Some(sum) = &sum {
            let x = contiguous_as(wgpu, &x, DType::F32)?;
            add_outer(wgpu, &logits, &x, first > 0, sum)?;
        }
    }
    let (Some(sum), Some(dweight)) = (&sum, y.get(1)) else { return Ok(()) };
    if all == 0 {
        return fill(wgpu, 0.0, dweight);
    }
    if dweight.dtype == DType::F32 { Ok(()) } else { cast(wgpu, sum, dweight) }
}
