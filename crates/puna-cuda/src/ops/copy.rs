//! Copies, casts, filling.

use puna_tensor::{Backend, BlockType, Buffer, DType, Error, Kind, Result, Shape, Tensor};

use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::blocks::{Plane, planes};
use crate::driver::Unit;
use crate::launch::{Grid, Pointer, Strides, arguments};
use crate::memory::Memory;
use crate::view::View;

/// The type of a unit of as many bytes as an element has.
pub(super) fn unit_type(dtype: DType) -> &'static str {
    match dtype.unit_bytes() {
        8 => "u64",
        4 => "u32",
        2 => "u16",
        _ => "u8",
    }
}

pub(super) fn family(unit_type: &'static str) -> Unit {
    unit("copy.cu", [("T", unit_type), NONE, NONE, NONE, NONE])
}

pub(super) fn cast_family(from: DType, to: DType) -> Unit {
    unit("cast.cu", [("X", type_name(from)), ("Y", type_name(to)), NONE, NONE, NONE])
}

pub(super) fn parts_family(from: DType) -> Unit {
    unit("parts.cu", [("X", type_name(from)), NONE, NONE, NONE, NONE])
}

pub(super) fn decode_family(from: DType, to: DType) -> Unit {
    unit("decode.cu", [("B", type_name(from)), ("Y", type_name(to)), NONE, NONE, NONE])
}

/// The elements of `x` to the places of `y`, which has its shape.
pub(super) fn copy(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    if y.elements() == 0 {
        return Ok(());
    }
    let (from, to, n, family) = match x.dtype {
        // Of blocks bytes are copied: no unit is of a size that a load has.
        DType::Block(_) => (Strides::new(x.byte_axes()), Strides::new(y.byte_axes()), x.bytes(), family("u8")),
        _ => (x.strides(), y.strides(), x.elements(), family(unit_type(x.dtype))),
    };
    if from.is_one_run() && to.is_one_run() {
        return cuda.copy(y.pointer().0, x.pointer().0, x.bytes());
    }
    cuda.launch(&family, "copy", Grid::each(n), &arguments![y.pointer(), to, x.pointer(), from, n as u64])
}

/// The view itself where it is in row-major order, else a copy that is.
pub(super) fn contiguous(cuda: &Cuda, x: &View) -> Result<Scratch> {
    if x.layout.is_contiguous() {
        return Ok((*x).into());
    }
    let y = cuda.scratch(*x.shape(), x.dtype)?;
    copy(cuda, x, &y)?;
    Ok(y)
}

/// In row-major order and of this dtype: the view itself, or a copy.
pub(super) fn contiguous_as(cuda: &Cuda, x: &View, dtype: DType) -> Result<Scratch> {
    if x.dtype == dtype {
        return contiguous(cuda, x);
    }
    let y = cuda.scratch(*x.shape(), dtype)?;
    cast(cuda, x, &y)?;
    Ok(y)
}

/// With these axes, in place where the strides allow it.
pub(super) fn reshaped(cuda: &Cuda, x: &View, shape: impl Into<Shape>) -> Result<Scratch> {
    let shape = shape.into();
    match x.reshape(&shape) {
        Some(view) => Ok(view.into()),
        None => Ok(contiguous(cuda, x)?.seen(|copy| copy.in_shape(shape))),
    }
}

/// `[.., K]` as `[rows, K]`.
pub(super) fn as_rows(cuda: &Cuda, x: &View) -> Result<Scratch> {
    reshaped(cuda, x, [x.shape().rows(), x.shape().last()])
}

pub(super) fn cast(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    match (x.dtype, y.dtype) {
        (a, b) if a == b => copy(cuda, x, y),
        (DType::Block(_), _) => decode(cuda, x, y),
        (_, DType::Block(block)) => encode(cuda, x, block, y),
        (from, to) => {
            let n = x.elements();
            cuda.launch(
                &cast_family(from, to),
                "cast",
                Grid::each(n),
                &arguments![y.pointer(), x.pointer(), x.strides(), n as u64],
            )
        }
    }
}

/// A matrix of f16 or f32 as two of bf16 that sum to it (an f32 but for 2^-17 of it), one below the other: `[2 rows, columns]`, in lines
/// that the tensor cores take.
pub(super) fn bf16_parts(cuda: &Cuda, x: &View) -> Result<Scratch> {
    let x = contiguous(cuda, x)?;
    let (rows, columns) = (x.shape()[0], x.shape()[1]);
    let stride = columns.next_multiple_of(8);
    let y = cuda.scratch([2 * rows, stride], DType::BF16)?;
    let arguments = arguments![y.pointer(), x.pointer(), rows as u64, columns as u64, stride as u64];
    let grid = if columns == 0 { Grid::blocks(0) } else { Grid::blocks(rows as u64) };
    cuda.launch(&parts_family(x.dtype), "bf16_parts", grid, &arguments)?;
    Ok(y.seen(|view| view.with(view.layout.slice(1, 0, columns).expect("the stride is no less"))))
}

fn decode(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    let (n, blocks) = (x.elements(), x.blocks().expect("the dtype is of blocks"));
    let rows = Strides::new(x.block_rows());
    let arguments = arguments![y.pointer(), blocks, rows, x.shape().last() as u64, n as u64];
    cuda.launch(&decode_family(x.dtype, y.dtype), "decode", Grid::each(n), &arguments)
}

/// A matrix of blocks with each part of a block in a plane of its own, where loads are aligned.
pub(crate) fn pack(cuda: &Cuda, weight: &Tensor) -> Result<Option<Buffer>> {
    let (DType::Block(block), 2) = (weight.dtype(), weight.rank()) else { return Ok(None) };
    let x = View::of(weight);
    let count = x.elements() / block.values();
    let (planes, bytes) = planes(block, count);
    let buffer = cuda.alloc(bytes)?;
    let address = Memory::of(&buffer).address();
    for plane in planes {
        let to = Pointer(address + plane.begin as u64);
        copy_part(cuda, &x, block, plane, (x.pointer(), true), to)?;
    }
    Ok(Some(buffer))
}

pub(super) fn unpack(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    let DType::Block(block) = x.dtype else { unreachable!("blocks alone are packed") };
    let (planes, _) = planes(block, x.elements() / block.values());
    for plane in planes {
        let from = Pointer(x.pointer().0 + plane.begin as u64);
        copy_part(cuda, y, block, plane, (y.pointer(), false), from)?;
    }
    Ok(())
}

/// One part of all blocks between a matrix as files have it (at a pointer; `out` of it, or into it) and a plane.
fn copy_part(
    cuda: &Cuda,
    matrix: &View,
    block: BlockType,
    part: Plane,
    (at, out): (Pointer, bool),
    plane: Pointer,
) -> Result<()> {
    let (rows, row_blocks) = (matrix.shape()[0], matrix.shape()[1] / block.values());
    let row_bytes = matrix.layout.strides()[0] / block.values() * block.bytes();
    let within = Strides::new([(rows, row_bytes), (row_blocks, block.bytes()), (part.length, 1)]);
    let n = rows * row_blocks * part.length;
    let one = Strides::new([(n, 1)]);
    let at = Pointer(at.0 + part.at as u64);
    let arguments = if out { arguments![plane, one, at, within, n as u64] } else { arguments![at, within, plane, one, n as u64] };
    cuda.launch(&family("u8"), "copy", Grid::each(n), &arguments)
}

/// Blocks are formed on the host, by the one encoder that there is and all the threads that there are: a model is quantised once, and then has the bytes that every device gives.
fn encode(cuda: &Cuda, x: &View, block: BlockType, y: &View) -> Result<()> {
    let wide = contiguous_as(cuda, x, DType::F32)?;
    let mut values = vec![0f32; x.elements()];
    cuda.queue.download(wide.pointer().0, bytemuck::cast_slice_mut(&mut values))?;
    let mut bytes = vec![0; y.bytes()];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (values.len() / block.values()).div_ceil(threads).max(1);
    let parts = values.chunks(share * block.values()).zip(bytes.chunks_mut(share * block.bytes()));
    std::thread::scope(|scope| {
        let parts = parts.map(|(values, bytes)| scope.spawn(move || puna_quant::encode(block, values, bytes)));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().try_for_each(|part| part.join().expect("encoding does not panic"))
    })
    .map_err(|e| Error::new(Kind::Argument, "cast", e.to_string()))?;
    cuda.queue.upload(y.pointer().0, &bytes)
}

pub(super) fn concat(cuda: &Cuda, axis: usize, x: &[View], y: &View) -> Result<()> {
    let mut start = 0;
    for x in x {
        let length = x.shape()[axis];
        let part = y.layout.slice(axis, start, length).expect("inference has summed the lengths");
        copy(cuda, x, &y.with(part))?;
        start += length;
    }
    Ok(())
}

pub(super) fn assign(cuda: &Cuda, source: &View, destination: &View) -> Result<()> {
    let layout = source.layout.broadcast(destination.shape()).expect("inference has found that it broadcasts");
    copy(cuda, &source.with(layout), destination)
}

pub(super) fn fill(cuda: &Cuda, value: f64, y: &View) -> Result<()> {
    let n = y.elements();
    let bits = match y.dtype {
        DType::F64 => value.to_bits(),
        DType::F32 => u64::from((value as f32).to_bits()),
        DType::F16 | DType::BF16 => u64::from(half_bits(value, y.dtype)),
        DType::I64 => value as i64 as u64,
        DType::U32 => u64::from(value as u32),
        DType::U8 => u64::from(value as u8),
        DType::Block(_) => unreachable!("inference refuses to fill blocks"),
    };
    cuda.launch(&family(unit_type(y.dtype)), "fill", Grid::each(n), &arguments![y.pointer(), n as u64, bits])
}

/// A double as a half, rounded once: first to f32 toward odd, which keeps what the second rounding needs to know.
fn half_bits(value: f64, dtype: DType) -> u16 {
    let nearest = value as f32;
    let mut odd = nearest;
    if !value.is_nan() && f64::from(nearest) != value {
        let away = f64::from(nearest).abs() > value.abs();
        odd = f32::from_bits((nearest.to_bits() - u32::from(away)) | 1);
    }
    if dtype == DType::F16 { half::f16::from_f32(odd).to_bits() } else { half::bf16::from_f32(odd).to_bits() }
}

pub(super) fn arange(cuda: &Cuda, y: &View) -> Result<()> {
    let n = y.elements();
    cuda.launch(&family("u32"), "arange", Grid::each(n), &arguments![y.pointer(), n as u64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_rounded_to_a_half_once() {
        // Halfway between 1 and the next bf16, and a little more than f32 holds.
        let half = 1.0 + 2f64.powi(-8);
        assert_eq!(half_bits(half, DType::BF16), 0x3f80);
        assert_eq!(half_bits(half + 2f64.powi(-50), DType::BF16), 0x3f81);
        assert_eq!(half_bits(-half - 2f64.powi(-50), DType::BF16), 0xbf81);
        assert_eq!(half_bits(1.0 + 2f64.powi(-11) + 2f64.powi(-50), DType::F16), 0x3c01);
        assert_eq!(half_bits(65520.0 - 1e-9, DType::F16), 0x7bff);
        assert_eq!(half_bits(f64::INFINITY, DType::F16), 0x7c00);
        assert_eq!(half_bits(1e300, DType::BF16), 0x7f80);
        assert!(half::f16::from_bits(half_bits(f64::NAN, DType::F16)).is_nan());
    }
}
