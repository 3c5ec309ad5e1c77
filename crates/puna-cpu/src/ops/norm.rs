//! Root-mean-square norms: one pass over a row, whose sum has an order that depends on its length alone.

use puna_tensor::op::{AddRmsNorm, RmsNorm, RmsNormBackward};
use puna_tensor::{Result, Tensor};

use super::wide::{Source, Wide, in_wide, round_to, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;

/// About how many elements a task takes: some microseconds of work.
const TASK: usize = 16 << 10;

fn rows_per_task(n: usize) -> usize {
    (TASK / n.max(1)).max(1)
}

pub(super) fn rms_norm(cpu: &Cpu, op: &RmsNorm, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), norm(cpu, op.eps, inputs[0], None, inputs.get(1).copied(), None, &outputs[0], outputs.get(1)))
}

pub(super) fn add_rms_norm(cpu: &Cpu, op: &AddRmsNorm, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [stream, x, weight] = inputs else { unreachable!("inference has counted them") };
    in_wide!(x.dtype(), norm(cpu, op.eps, stream, Some(x), Some(weight), Some(&outputs[0]), &outputs[1], outputs.get(2)))
}

/// `y = norm(x + more) * weight`, with the sum in `sum` and the reciprocal norms in `saved`.
#[allow(clippy::too_many_arguments)]
fn norm<W: Wide>(
    cpu: &Cpu,
    eps: f64,
    x: &Tensor,
    more: Option<&Tensor>,
    weight: Option<&Tensor>,
    sum: Option<&Tensor>,
    y: &Tensor,
    saved: Option<&Tensor>,
) -> Result<()> {
    let (dtype, n, rows) = (x.dtype(), x.shape().last(), x.shape().rows());
    let per_task = rows_per_task(n);
    let (x, more, weight) = (Source::new(x), more.map(Source::new), weight.map(Source::new));
    let mut y = write(y)?;
    let mut sum = sum.map(write).transpose()?;
    let mut saved = saved.map(write).transpose()?;
    if n == 0 {
        // The mean of nothing.
        if let Some(saved) = &mut saved {
            saved.typed::<W>()[..rows].fill(W::of(f64::NAN));
        }
        return Ok(());
    }
    let row_bytes = n * dtype.unit_bytes();
    let bytes = rows * row_bytes;
    let task = |first: usize, y: &mut [u8], sum: Option<&mut [u8]>, saved: Option<&mut [W]>| {
        scratch(3 * n, |all: &mut [W]| {
            let (row, rest) = all.split_at_mut(n);
            let (other, wide) = rest.split_at_mut(n);
            let weight = weight.as_ref().map(|weight| weight.row(weight.layout().offset(), wide));
            let mut sums = sum.map(|sum| sum.chunks_exact_mut(row_bytes));
            let mut saved = saved.map(|saved| saved.iter_mut());
            for (i, y) in y.chunks_exact_mut(row_bytes).enumerate() {
                x.load(x.layout().row_offset(first + i), row);
                if let Some(more) = &more {
                    let more = more.row(more.layout().row_offset(first + i), other);
                    W::add_row(more, row);
                    round_to(dtype, row);
                }
                if let Some(sum) = sums.as_mut().and_then(Iterator::next) {
                    W::store(dtype, row, sum);
                }
                let r = W::reciprocal_rms(row, W::of(eps));
                if let Some(saved) = saved.as_mut().and_then(Iterator::next) {
                    *saved = r;
                }
                match weight {
                    // Nothing is rounded between.
                    Some(weight) if dtype == W::DTYPE => W::scale_mul(row, r, weight, bytemuck::cast_slice_mut(y)),
                    weight => {
                        W::scale(row, r);
                        if let Some(weight) = weight {
                            round_to(dtype, row);
                            W::mul_row(weight, row);
                        }
                        W::store(dtype, row, y);
                    }
                }
            }
        });
    };
    let y = (&mut y.bytes()[..bytes], per_task * row_bytes);
    let sum = sum.as_mut().map(|sum| (&mut sum.bytes()[..bytes], per_task * row_bytes));
    let saved = saved.as_mut().map(|saved| (&mut saved.typed::<W>()[..rows], per_task));
    match (sum, saved) {
        (None, None) => cpu.pool.chunks_mut(y.0, y.1, |i, y| task(i * per_task, y, None, None)),
        (Some(sum), None) => cpu.pool.chunks_mut_2(y, sum, |i, y, sum| task(i * per_task, y, Some(sum), None)),
        (None, Some(saved)) => cpu.pool.chunks_mut_2(y, saved, |i, y, saved| task(i * per_task, y, None, Some(saved))),
        (Some(sum), Some(saved)) => {
            cpu.pool.chunks_mut_3(y, sum, saved, |i, y, sum, saved| task(i * per_task, y, Some(sum), Some(saved)));
        }
    }
    Ok(())
}

pub(super) fn rms_norm_backward(cpu: &Cpu, _: &RmsNormBackward, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[1].dtype(), backward(cpu, inputs, outputs))
}

/// The most row blocks whose shares of a weight's gradient are held apart.
const BLOCKS: usize = 256;

fn backward<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (dtype, n, rows) = (inputs[1].dtype(), inputs[1].shape().last(), inputs[1].shape().rows());
    let [dy, x] = [inputs[0], inputs[1]].map(Source::new);
    let weight = inputs.get(3).map(|weight| Source::new(weight));
    // r has the shape of the rows: any strides. Its rows are x's, so it is read by row offsets of its own with one element a row.
    let r: Vec<W> = all(inputs[2]);
    let row_bytes = n * dtype.unit_bytes();
    // The blocks depend on the number of rows alone, so the weight's gradient has one order of summation.
    let block = rows.div_ceil(BLOCKS).max(64);
    let task = |first: usize, dx: &mut [u8], mut share: Option<&mut [W]>| {
        scratch(4 * n, |all: &mut [W]| {
            let (dy_row, rest) = all.split_at_mut(n);
            let (x_row, rest) = rest.split_at_mut(n);
            let (g, wide) = rest.split_at_mut(n);
            let weight = weight.as_ref().map(|weight| weight.row(weight.layout().offset(), wide));
            for (i, dx) in dx.chunks_exact_mut(row_bytes).enumerate() {
                let r = r[first + i];
                let dy = dy.row(dy.layout().row_offset(first + i), dy_row);
                let x = x.row(x.layout().row_offset(first + i), x_row);
                match weight {
                    Some(weight) => g.iter_mut().zip(dy.iter().zip(weight)).for_each(|(g, (dy, w))| *g = *dy * *w),
                    None => g.copy_from_slice(dy),
                }
                if let Some(share) = &mut share {
                    share.iter_mut().zip(dy.iter().zip(x)).for_each(|(d, (dy, x))| *d += *dy * *x * r);
                }
                let along = W::dot(g, x) / W::of(n as f64) * (r * r);
                with_row(dtype, dx, |dx| dx.iter_mut().zip(g.iter().zip(x)).for_each(|(dx, (g, x))| *dx = (*g - *x * along) * r));
            }
        });
    };
    let mut dx = write(&outputs[0])?;
    let dx = (&mut dx.bytes()[..rows * row_bytes], block * row_bytes);
    let Some(dweight) = outputs.get(1) else {
        cpu.pool.chunks_mut(dx.0, dx.1, |i, dx| task(i * block, dx, None));
        return Ok(());
    };
    let mut shares = vec![W::ZERO; rows.div_ceil(block) * n];
    if n > 0 {
        cpu.pool.chunks_mut_2(dx, (&mut shares[..], n), |i, dx, share| task(i * block, dx, Some(share)));
    }
    let mut total = vec![W::ZERO; n];
    for share in shares.chunks_exact(n.max(1)) {
        total.iter_mut().zip(share).for_each(|(total, share)| *total += *share);
    }
    W::store(dweight.dtype(), &total, &mut write(dweight)?.bytes()[..n * dweight.dtype().unit_bytes()]);
    Ok(())
}

/// All elements of a tensor in row-major order.
fn all<W: Wide>(tensor: &Tensor) -> Vec<W> {
    let source = Source::new(tensor);
    let mut values = vec![W::ZERO; tensor.elements()];
    let n = tensor.shape().last().max(1);
    for (values, offset) in values.chunks_exact_mut(n).zip(source.layout().row_offsets()) {
        source.load(offset, values);
    }
    values
}
