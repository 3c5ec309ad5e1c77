//! Softmax and its logarithm, a row at a time.

use puna_tensor::{Result, Tensor};

use super::wide::{Source, Wide, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;
use crate::simd::Isa;
use crate::simd::vector;

/// How many elements a task takes: an exponential costs about 0.4 ns, so about 5 us.
const TASK: usize = 12 << 10;

pub(super) fn softmax(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), each_row(cpu, inputs[0], &outputs[0], Kind::Softmax))
}

pub(super) fn log_softmax(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), each_row(cpu, inputs[0], &outputs[0], Kind::Log))
}

#[derive(Clone, Copy)]
enum Kind {
    Softmax,
    Log,
}

fn each_row<W: Wide>(cpu: &Cpu, x: &Tensor, y: &Tensor, kind: Kind) -> Result<()> {
    let n = x.shape().last();
    if y.elements() == 0 {
        return Ok(());
    }
    let (source, dtype, row_bytes) = (Source::new(x), x.dtype(), n * x.dtype().unit_bytes());
    let per_task = (TASK / n).max(1);
    let mut y = write(y)?;
    let y = &mut y.bytes()[..x.shape().rows() * row_bytes];
    cpu.pool.chunks_mut(y, per_task * row_bytes, |i, rows| {
        for (r, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
            with_row(dtype, row, |row: &mut [W]| {
                source.load(source.layout().row_offset(i * per_task + r), row);
                match kind {
                    Kind::Softmax if row.iter().all(|x| *x == W::NEG_INFINITY) => row.fill(W::ZERO),
                    Kind::Softmax => vector::softmax(Isa::detect(), row),
                    Kind::Log => subtract_log_sum(row),
                }
            });
        }
    });
    Ok(())
}

/// `x = (x - max) - ln(sum exp(x - max))`.
fn subtract_log_sum<W: Wide>(x: &mut [W]) {
    let largest = W::largest(x);
    let sum = log_sum(x, largest);
    x.iter_mut().for_each(|x| *x = *x - largest - sum);
}

/// `ln(sum exp(x - shift))`.
pub(super) fn log_sum<W: Wide>(x: &[W], shift: W) -> W {
    scratch(x.len(), |copy: &mut [W]| {
        copy.copy_from_slice(x);
        W::exp_minus(copy, shift).ln()
    })
}
