//! Copies, casts and new values.

pub(super) mod convert;
pub(super) mod lane;
pub(super) mod walk;

use puna_quant::{BlockType, decode, encode};
use puna_tensor::op::{Concat, Fill};
use puna_tensor::{DType, Result, Tensor};

use self::convert::{Place, convert, convert_to, copy_runs, copy_units, store_f64};
use self::lane::Elements;
use self::walk::Walk;
use super::wide::scratch;
use crate::backend::Cpu;
use crate::memory::{read, write};

/// How many elements a task moves: at some 10 GB/s about 30 us, beside which handing it out (below 1 us) is little.
const TASK: usize = 32 << 10;
/// How many values of blocks a task decodes.
const DECODE_TASK: usize = 16 << 10;
/// How many it encodes: the K formats search for their scales, some microseconds a block.
const ENCODE_TASK: usize = 2 << 10;
/// How many values are between f32 and blocks at a time: whole blocks of any format.
const RUN: usize = 1024;

pub(super) fn contiguous(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    copy(cpu, inputs[0], outputs[0].dtype(), &mut write(&outputs[0])?.bytes()[..outputs[0].byte_range().len()])
}

pub(super) fn cast(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    copy(cpu, inputs[0], outputs[0].dtype(), &mut write(&outputs[0])?.bytes()[..outputs[0].byte_range().len()])
}

/// The elements or blocks of `x` in row-major order as `to`.
fn copy(cpu: &Cpu, x: &Tensor, to: DType, into: &mut [u8]) -> Result<()> {
    match (x.dtype(), to) {
        (DType::Block(block), to) if to.is_float() => decode_all(cpu, block, x, to, into),
        (from, DType::Block(block)) if from.is_float() => encode_all(cpu, x, block, into),
        (from, to) => {
            let (walk, unit) = (units(x), to.unit_bytes());
            let (x, step, n) = (Elements::new(x), walk.steps()[0], walk.inner());
            if from == to && step > 1 {
                let task = (TASK / n.max(1)).max(1).next_multiple_of(8) * n;
                cpu.pool.chunks_mut(into, task * unit, |i, into| {
                    let starts = walk.runs(i * task..i * task + into.len() / unit).map(|run| run.offsets[0]);
                    copy_runs(x.bytes(), starts, step, unit, n, into);
                });
                return Ok(());
            }
            cpu.pool.chunks_mut(into, TASK * unit, |i, mut into| {
                for run in walk.runs(i * TASK..i * TASK + into.len() / unit) {
                    let into = into.split_off_mut(..run.length * unit).expect("the runs are as long as the result");
                    convert(from, x.bytes(), run.offsets[0], step, to, into);
                }
            });
        }
    }
    Ok(())
}

/// A walk over the elements, or blocks, of a tensor.
fn units(x: &Tensor) -> Walk<1> {
    let (layout, unit) = (x.layout(), x.dtype().unit());
    if unit == 1 {
        return Walk::new(layout.shape(), [layout.strides()], [layout.offset()]);
    }
    // The last axis of blocks is contiguous and a whole number of them; so all strides are.
    let shape = layout.shape().with_last(layout.shape().last() / unit);
    let mut strides = [0; puna_tensor::MAX_RANK];
    let (last, others) = strides[..layout.strides().len()].split_last_mut().expect("blocks have an axis");
    others.iter_mut().zip(layout.strides()).for_each(|(to, from)| *to = from / unit);
    *last = 1;
    Walk::new(&shape, [&strides], [layout.offset() / unit])
}

fn decode_all(cpu: &Cpu, block: BlockType, x: &Tensor, to: DType, into: &mut [u8]) {
    let (walk, value) = (units(x), to.unit_bytes());
    let (x, step) = (Elements::new(x), walk.steps()[0]);
    let task = DECODE_TASK / block.values();
    cpu.pool.chunks_mut(into, DECODE_TASK * value, |i, mut into| {
        let blocks = into.len() / value / block.values();
        for run in walk.runs(i * task..i * task + blocks) {
            let into = into.split_off_mut(..run.length * block.values() * value).expect("the runs are as long as the result");
            decode_run(block, x.bytes(), run.offsets[0], step, to, into);
        }
    });
}

/// Decodes blocks `at, at + step, ..` to floats of a dtype.
pub(super) fn decode_run(block: BlockType, memory: &[u8], at: usize, step: usize, to: DType, into: &mut [u8]) {
    let value = to.unit_bytes();
    let most = if step == 1 { RUN / block.values() } else { 1 };
    scratch(RUN, |values: &mut [f32]| {
        for (i, into) in into.chunks_mut(most * block.values() * value).enumerate() {
            let values = &mut values[..into.len() / value];
            let bytes = &memory[(at + i * most * step) * block.bytes()..][..values.len() / block.values() * block.bytes()];
            decode(block, bytes, values).expect("as many bytes as the values take");
            convert(DType::F32, bytemuck::cast_slice(values), 0, 1, to, into);
        }
    });
}

fn encode_all(cpu: &Cpu, x: &Tensor, block: BlockType, into: &mut [u8]) {
    let walk = units(x);
    let (x, step) = (Elements::new(x), walk.steps()[0]);
    let bytes = |values: usize| values / block.values() * block.bytes();
    cpu.pool.chunks_mut(into, bytes(ENCODE_TASK), |i, into| {
        scratch(RUN, |values: &mut [f32]| {
            for (j, into) in into.chunks_mut(bytes(RUN)).enumerate() {
                let start = i * ENCODE_TASK + j * RUN;
                let values = &mut values[..into.len() / block.bytes() * block.values()];
                let mut rest = &mut *values;
                for run in walk.runs(start..start + rest.len()) {
                    let values = rest.split_off_mut(..run.length).expect("the runs are as long as the values");
                    x.load(run.offsets[0], step, values);
                }
                encode(block, values, into).expect("as many bytes as the values take");
            }
        });
    });
}

pub(super) fn concat(cpu: &Cpu, op: &Concat, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (y, dtype) = (&outputs[0], outputs[0].dtype());
    let unit = dtype.unit_bytes();
    let after: usize = y.shape()[op.axis + 1..].iter().product();
    // In bytes: what is behind one index of the axes before, of the result and of an argument.
    let length = |x: &Tensor| x.dim(op.axis) * after / dtype.unit() * unit;
    let mut memory = write(y)?;
    let bytes = &mut memory.bytes()[..y.byte_range().len()];
    let (whole, mut start) = (length(y), 0);
    if bytes.is_empty() {
        return Ok(());
    }
    let before = bytes.len() / whole;
    for x in inputs {
        let part = length(x);
        if part == 0 {
            continue;
        }
        if part == whole || before == 1 {
            // All there is, or one behind the other: a copy each.
            copy(cpu, x, dtype, &mut bytes[start..start + part * (x.elements() / (x.dim(op.axis) * after))])?;
        } else {
            let (walk, x) = (units(x), Elements::new(x));
            let step = walk.steps()[0];
            let rows = (TASK * unit / whole).max(1);
            cpu.pool.chunks_mut(bytes, rows * whole, |i, bytes| {
                for (row, bytes) in bytes.chunks_exact_mut(whole).enumerate() {
                    let (first, mut into) = ((i * rows + row) * part / unit, &mut bytes[start..start + part]);
                    for run in walk.runs(first..first + part / unit) {
                        let into = into.split_off_mut(..run.length * unit).expect("the runs are as long as the part");
                        copy_units(x.bytes(), run.offsets[0], step, unit, into);
                    }
                }
            });
        }
        start += part;
    }
    Ok(())
}

pub(super) fn fill(cpu: &Cpu, op: &Fill, outputs: &[Tensor]) -> Result<()> {
    let (y, unit) = (&outputs[0], op.dtype.unit_bytes());
    let mut value = [0u64];
    let value = &mut bytemuck::bytes_of_mut(&mut value)[..unit];
    store_f64(op.dtype, &[op.value], value);
    let mut memory = write(y)?;
    let bytes = &mut memory.bytes()[..y.elements() * unit];
    cpu.pool.chunks_mut(bytes, TASK * unit, |_, bytes| match unit {
        1 => bytes.fill(value[0]),
        2 => bytemuck::cast_slice_mut(bytes).fill(*bytemuck::from_bytes::<u16>(value)),
        4 => bytemuck::cast_slice_mut(bytes).fill(*bytemuck::from_bytes::<u32>(value)),
        _ => bytemuck::cast_slice_mut(bytes).fill(*bytemuck::from_bytes::<u64>(value)),
    });
    Ok(())
}

pub(super) fn arange(outputs: &[Tensor]) -> Result<()> {
    let y = &outputs[0];
    (0..).zip(&mut write(y)?.typed::<u32>()[..y.elements()]).for_each(|(i, y)| *y = i);
    Ok(())
}

pub(super) fn assign(cpu: &Cpu, inputs: &[&Tensor]) -> Result<()> {
    let (destination, source) = (inputs[0], inputs[1]);
    let (dtype, layout) = (destination.dtype(), destination.layout());
    let walk = Walk::broadcast(layout.shape(), [layout, source.layout()]);
    let [to_step, step] = walk.steps();
    let source = read(source);
    let mut memory = write(destination)?;
    if layout.is_contiguous() {
        let unit = dtype.unit_bytes();
        let bytes = &mut memory.bytes()[layout.offset() * unit..][..walk.elements() * unit];
        cpu.pool.chunks_mut(bytes, TASK * unit, |i, mut into| {
            for run in walk.runs(i * TASK..i * TASK + into.len() / unit) {
                let into = into.split_off_mut(..run.length * unit).expect("the runs are as long as the destination");
                copy_units(source.bytes(), run.offsets[1], step, unit, into);
            }
        });
        return Ok(());
    }
    for run in walk.runs(0..walk.elements()) {
        let place = Place { at: run.offsets[0], step: to_step, length: run.length };
        convert_to(dtype, source.bytes(), run.offsets[1], step, dtype, memory.bytes(), &place);
    }
    Ok(())
}
