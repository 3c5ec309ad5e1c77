//! Feed-forward blocks.

use puna_tensor::op::GatedMlp;
use puna_tensor::{Result, Tensor};

use super::matmul::linear::{Product, project};
use super::matmul::wide::{Source, Wide, in_wide, round_to, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;

/// About how many elements a task takes: some microseconds of work.
const TASK: usize = 8 << 10;

pub(super) fn swiglu(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), forward(cpu, inputs, &outputs[0]))
}

fn forward<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], y: &Tensor) -> Result<()> {
    let (dtype, n) = (y.dtype(), y.shape().last());
    let [gate, up] = [inputs[0], inputs[1]].map(Source::new);
    let row_bytes = n * dtype.unit_bytes();
    let bytes = y.elements() * dtype.unit_bytes();
    if bytes == 0 {
        return Ok(());
    }
    let per_task = (TASK / n).max(1);
    cpu.pool.chunks_mut(&mut write(y)?.bytes()[..bytes], per_task * row_bytes, |i, y| {
        scratch(2 * n, |both: &mut [W]| {
            let (gate_row, up_row) = both.split_at_mut(n);
            for (row, y) in y.chunks_exact_mut(row_bytes).enumerate() {
                let row = i * per_task + row;
                let gate = gate.row(gate.layout().row_offset(row), gate_row);
                let up = up.row(up.layout().row_offset(row), up_row);
                with_row(dtype, y, |y| W::swiglu(gate, up, y));
            }
        });
    });
    Ok(())
}

pub(super) fn swiglu_backward(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), backward(cpu, inputs, outputs))
}

fn backward<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (dtype, n) = (outputs[0].dtype(), outputs[0].shape().last());
    let [dy, gate, up] = [inputs[0], inputs[1], inputs[2]].map(Source::new);
    let row_bytes = n * dtype.unit_bytes();
    let bytes = outputs[0].elements() * dtype.unit_bytes();
    if bytes == 0 {
        return Ok(());
    }
    let per_task = (TASK / n).max(1);
    let (mut dgate, mut dup) = (write(&outputs[0])?, write(&outputs[1])?);
    let dgate = (&mut dgate.bytes()[..bytes], per_task * row_bytes);
    let dup = (&mut dup.bytes()[..bytes], per_task * row_bytes);
    cpu.pool.chunks_mut_2(dgate, dup, |i, dgate, dup| {
        scratch(4 * n, |all: &mut [W]| {
            let (dy_row, rest) = all.split_at_mut(n);
            let (gate_row, rest) = rest.split_at_mut(n);
            let (up_row, s) = rest.split_at_mut(n);
            for (row, (dgate, dup)) in dgate.chunks_exact_mut(row_bytes).zip(dup.chunks_exact_mut(row_bytes)).enumerate() {
                let row = i * per_task + row;
                let dy = dy.row(dy.layout().row_offset(row), dy_row);
                let gate = gate.row(gate.layout().row_offset(row), gate_row);
                let up = up.row(up.layout().row_offset(row), up_row);
                W::sigmoid(gate, s);
                with_row(dtype, dgate, |dgate| {
                    for (i, d) in dgate.iter_mut().enumerate() {
                        *d = dy[i] * up[i] * (s[i] * (W::ONE + gate[i] * (W::ONE - s[i])));
                    }
                });
                with_row(dtype, dup, |dup| {
                    for (i, d) in dup.iter_mut().enumerate() {
                        *d = dy[i] * gate[i] * s[i];
                    }
                });
            }
        });
    });
    Ok(())
}

pub(super) fn gated_mlp(cpu: &Cpu, op: &GatedMlp, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), gated(cpu, op, inputs, outputs))
}
