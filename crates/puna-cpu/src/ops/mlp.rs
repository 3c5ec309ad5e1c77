//! Feed-forward blocks.

use puna_tensor::op::GatedMlp;
use puna_tensor::{DType, Result, Tensor};

use super::matmul::linear::{Product, Rows, project, with_rows};
use super::wide::{Source, Wide, buffer, in_wide, round_to, scratch, with_row};
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

fn gated<W: Wide>(cpu: &Cpu, op: &GatedMlp, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (x, dtype) = (inputs[0], inputs[0].dtype());
    let [gate, up, down] = op.projections(inputs);
    let (rows, inner) = (x.shape().rows(), gate.weight.dim(0));
    let bytes = rows * inner * dtype.unit_bytes();
    let mut y = write(&outputs[0])?;
    let y = &mut y.bytes()[..outputs[0].byte_range().len()];
    let mut block = |gate_y: &mut [u8], up_y: &mut [u8]| {
        let mut products = [Product { projection: gate, into: gate_y }, Product { projection: up, into: up_y }];
        with_rows::<W, _>(cpu, x, |x| project(cpu, x, op.activations, dtype, &mut products))?;
        buffer(cpu, rows * inner, |h: &mut [W]| {
            let per_task = (TASK / inner.max(1)).max(1) * inner;
            let (gate_y, up_y) = (&*gate_y, &*up_y);
            cpu.pool.chunks_mut(h, per_task, |i, h| gate_rows(dtype, gate_y, up_y, i * per_task, h));
            let h = Rows { values: h, rows, k: inner };
            project(cpu, h, op.activations, dtype, &mut [Product { projection: down, into: y }])
        })
    };
    match outputs {
        [_, gate_y, up_y] => block(&mut write(gate_y)?.bytes()[..bytes], &mut write(up_y)?.bytes()[..bytes]),
        _ => buffer(cpu, 2 * bytes.next_multiple_of(64), |both: &mut [u8]| {
            let (gate_y, up_y) = both.split_at_mut(bytes.next_multiple_of(64));
            block(&mut gate_y[..bytes], &mut up_y[..bytes])
        }),
    }
}

/// `h = silu(gate) * up`, rounded, from element `at` of both on.
fn gate_rows<W: Wide>(dtype: DType, gate: &[u8], up: &[u8], at: usize, h: &mut [W]) {
    scratch(2 * h.len(), |both: &mut [W]| {
        let (gate_row, up_row) = both.split_at_mut(h.len());
        W::load(dtype, gate, at, 1, gate_row);
        W::load(dtype, up, at, 1, up_row);
        W::swiglu(gate_row, up_row, h);
        round_to(dtype, h);
    });
}
