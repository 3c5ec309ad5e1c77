//! Matrix products. Each result is one chain of multiply-adds over K, in order, so that one row and many, packed weights and
//! unpacked, and any number of threads give the same bits.

mod blocks;
mod dense;
mod input_grad;
pub(super) mod kernel;
pub(crate) mod linear;
mod tile;
mod weight;

use puna_tensor::op::{Activations, Linear, Linears, Projection};
use puna_tensor::{Backend, Buffer, Result, Tensor};

use self::linear::{Product, project, with_rows};
use self::weight::Weight;
use super::wide::{Wide, in_wide};
use crate::backend::Cpu;
use crate::memory::{Memory, write};

pub(super) use self::dense::matmul;
pub(super) use self::input_grad::linear_input_grad;

pub(super) fn linear(cpu: &Cpu, op: &Linear, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let projections = [op.parts.projection(&inputs[1..])];
    in_wide!(inputs[0].dtype(), products(cpu, inputs[0], op.activations, &projections, outputs))
}

pub(super) fn linears(cpu: &Cpu, op: &Linears, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let mut rest = &inputs[1..];
    let projections: Vec<_> = op
        .parts
        .iter()
        .map(|parts| {
            let (these, others) = rest.split_at(parts.inputs());
            rest = others;
            parts.projection(these)
        })
        .collect();
    in_wide!(inputs[0].dtype(), products(cpu, inputs[0], op.activations, &projections, outputs))
}

fn products<W: Wide>(
    cpu: &Cpu,
    x: &Tensor,
    activations: Activations,
    projections: &[Projection<'_>],
    outputs: &[Tensor],
) -> Result<()> {
    let mut memories = outputs.iter().map(write).collect::<Result<Vec<_>>>()?;
    let into = memories.iter_mut().zip(outputs).map(|(memory, y)| &mut memory.bytes()[..y.byte_range().len()]);
    let mut products: Vec<_> = projections.iter().zip(into).map(|(&projection, into)| Product { projection, into }).collect();
    with_rows::<W, _>(cpu, x, |rows| project(cpu, rows, activations, x.dtype(), &mut products))
}

/// `d * q` of an activation in blocks of 8-bit integers.
pub(super) fn int8_blocks(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    with_rows::<f32, _>(cpu, inputs[0], |x| {
        let mut memory = write(&outputs[0])?;
        let y = &mut memory.typed::<f32>()[..outputs[0].elements()];
        let per_task = ((16 << 10) / x.k.max(1)).max(1);
        cpu.pool.chunks_mut(y, per_task * x.k, |i, y| {
            for (r, y) in y.chunks_exact_mut(x.k).enumerate() {
                blocks::round_to_int8(&x.values[(i * per_task + r) * x.k..][..x.k], y);
            }
        });
        Ok(())
    })
}

/// A weight in the kernels' own order: float panels, or row groups of blocks; none for blocks that no kernel reads.
pub(crate) fn pack(cpu: &Cpu, weight: &Tensor) -> Result<Option<Buffer>> {
    let weight = Weight::new(weight);
    if !weight.packs() {
        return Ok(None);
    }
    let buffer = cpu.alloc(weight.packed_bytes())?;
    let bytes = weight.packed_bytes();
    weight.pack(&cpu.pool, &mut Memory::of(&buffer).write()?.bytes()[..bytes]);
    Ok(Some(buffer))
}

pub(super) fn unpack(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let bytes = outputs[0].byte_range().len();
    Weight::new(inputs[0]).unpack(&cpu.pool, &mut write(&outputs[0])?.bytes()[..bytes]);
    Ok(())
}

/// One row of a packed weight `[N, K]` of which `bytes` is the whole memory, in f32.
pub(crate) fn decode_packed_row(table: &Tensor, bytes: &[u8], row: usize, out: &mut [f32]) {
    weight::packed_row(table.dtype(), [table.dim(0), table.dim(1)], bytes, row, out);
}

/// As [`decode_packed_row`], in f64: exact for f64 weights.
pub(crate) fn decode_packed_row_f64(table: &Tensor, bytes: &[u8], row: usize, out: &mut [f64]) {
    weight::packed_row(table.dtype(), [table.dim(0), table.dim(1)], bytes, row, out);
}
