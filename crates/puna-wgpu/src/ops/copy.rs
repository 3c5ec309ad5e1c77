//! Copies, casts, filling.

use puna_tensor::{BlockType, DType, Error, Kind, Result, Shape};

use super::elementwise::words;
use super::parts::{halves, in_parts};
use super::{unit_from_to, with_blocks};
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, Strides, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// The elements of `x` to the places of `y`, which has its shape. `alone`: nothing of another's lies in the words of `y`.
pub(super) fn copy(wgpu: &Wgpu, x: &View, y: &View, alone: bool) -> Result<()> {
    if y.elements() == 0 {
        return Ok(());
    }
    let (from, to) = (bytes_or_elements(x), bytes_or_elements(y));
    if from.is_one_run() && to.is_one_run() {
        let (begin, target, bytes) = (x.extent().start, y.extent().start, x.bytes());
        let whole = if alone { bytes.next_multiple_of(4) } else { bytes };
        if begin % 4 == 0 && target % 4 == 0 && whole % 4 == 0 {
            wgpu.copy((x, begin), (y, target), whole);
            return Ok(());
        }
    }
    copy_parts(wgpu, x, y, alone)
}

/// Cut along whichever axes spread them, since either may lie in any order.
fn copy_parts(wgpu: &Wgpu, x: &View, y: &View, alone: bool) -> Result<()> {
    let spread = [x, y].into_iter().filter(|view| !wgpu.shows(view)).max_by_key(|view| view.extent().len());
    let cut = spread.and_then(|view| {
        let reach = |axis: &usize| (view.shape()[*axis] - 1) * view.layout.strides()[*axis];
        let axis = (0..view.shape().rank()).max_by_key(reach)?;
        let last = axis + 1 == view.shape().rank();
        // Where words are whole, as long as there are some; parts of a word are written one by one.
        let length = view.shape()[axis];
        let step = if last { x.dtype.unit() } else { 1 }.max(if length < 8 { 1 } else { 4 });
        Some((axis, halves(length, step)?, step))
    });
    if let Some((axis, halves, step)) = cut {
        let of = |view: &View, (start, length)| view.part(axis, start, length);
        return halves.into_iter().try_for_each(|half| copy_parts(wgpu, &of(x, half), &of(y, half), alone && step > 1));
    }
    let unit = Unit::new("copy.wgsl", [("T", Number::unit(x.dtype))]);
    let (from, to) = (bytes_or_elements(x), bytes_or_elements(y));
    let (n, count) = (if x.dtype.block().is_some() { x.bytes() } else { x.elements() }, Number::unit(x.dtype).count());
    let begins_word = y.extent().start % 4 == 0;
    if to.is_one_run() && begins_word && (alone || n % count == 0) {
        return wgpu.launch(&unit, "copy", Grid::each(n.div_ceil(count)), &[Some(y), Some(x)], &parameters![from, n]);
    }
    wgpu.launch(&unit, "copy_to", Grid::each(n), &[Some(y), Some(x)], &parameters![to, from, n])
}

/// How a copy counts: of blocks bytes, since no unit is of their size.
fn bytes_or_elements(view: &View) -> Strides {
    match view.dtype {
        DType::Block(_) => Strides::new(view.byte_axes()),
        _ => view.strides(),
    }
}

/// The view itself where it is in row-major order, else a copy that is.
pub(super) fn contiguous(wgpu: &Wgpu, x: &View) -> Result<Scratch> {
    if x.layout.is_contiguous() {
        return Ok(x.clone().into());
    }
    let y = wgpu.scratch(*x.shape(), x.dtype)?;
    copy(wgpu, x, &y, true)?;
    Ok(y)
}

/// In row-major order and of this dtype: the view itself, or a copy.
pub(super) fn contiguous_as(wgpu: &Wgpu, x: &View, dtype: DType) -> Result<Scratch> {
    if x.dtype == dtype {
        return contiguous(wgpu, x);
    }
    let y = wgpu.scratch(*x.shape(), dtype)?;
    cast(wgpu, x, &y)?;
    Ok(y)
}

/// With these axes, in place where the strides allow it.
pub(super) fn reshaped(wgpu: &Wgpu, x: &View, shape: impl Into<Shape>) -> Result<Scratch> {
    let shape = shape.into();
    match x.reshape(&shape) {
        Some(view) => Ok(view.into()),
        None => Ok(contiguous(wgpu, x)?.seen(|copy| copy.in_shape(shape))),
    }
}

/// `[.., K]` as `[rows, K]`.
pub(super) fn as_rows(wgpu: &Wgpu, x: &View) -> Result<Scratch> {
    reshaped(wgpu, x, [x.shape().rows(), x.shape().last()])
}

/// Memory that a kernel may write one element at a time, and what brings it to `y`: kernels write elements of less than a word only in
/// whole words, which the rows of `y` are not always.
pub(super) struct WholeWords {
    scratch: Option<Scratch>,
    y: View,
}

impl WholeWords {
    /// For rows of `columns` elements each, written by workgroups of their own.
    pub(super) fn new(wgpu: &Wgpu, y: &View, columns: usize) -> Result<Self> {
        let count = Number::of(y.dtype).count();
        let direct = count == 1 || (columns % count == 0 && Wgpu::begins_word(y));
        let wide = if y.dtype.is_float() { DType::F32 } else { DType::U32 };
        let scratch = if direct { None } else { Some(wgpu.scratch(*y.shape(), wide)?) };
        Ok(Self { scratch, y: y.clone() })
    }

    /// What the kernel writes.
    pub(super) fn view(&self) -> &View {
        self.scratch.as_deref().unwrap_or(&self.y)
    }

    /// Rounds it into the result.
    pub(super) fn finish(self, wgpu: &Wgpu) -> Result<()> {
        match self.scratch {
            Some(scratch) => cast(wgpu, &scratch, &self.y),
            None => Ok(()),
        }
    }
}

/// `y` contiguous, and alone in its words.
pub(super) fn cast(wgpu: &Wgpu, x: &View, y: &View) -> Result<()> {
    match (x.dtype, y.dtype) {
        (a, b) if a == b => copy(wgpu, x, y, true),
        (DType::Block(block), _) => decode(wgpu, x, block, y),
        (_, DType::Block(block)) => encode(wgpu, x, block, y),
        _ => in_parts(wgpu, y.shape().rank(), [y], [x], &|[y], [x]| {
            let unit = unit_from_to("cast.wgsl", x.dtype, y.dtype).with("ODD", u32::from(y.dtype != DType::F32));
            wgpu.launch(&unit, "cast_elements", words(y), &[Some(y), Some(x)], &parameters![x.strides(), y.elements()])
        }),
    }
}

fn decode(wgpu: &Wgpu, x: &View, block: BlockType, y: &View) -> Result<()> {
    in_parts(wgpu, y.shape().rank() - 1, [y], [x], &|[y], [x]| {
        let unit = with_blocks(Unit::new("decode.wgsl", [("Y", Number::of(y.dtype))]), block);
        let rank = x.shape().rank();
        let rows = Strides::new(x.byte_axes().take(rank - 1));
        wgpu.launch(&unit, "decode", words(y), &[Some(y), Some(x)], &parameters![rows, y.elements(), x.shape().last()])
    })
}

/// Blocks are formed on the host, by the one encoder that there is: a model is quantised once, and then has the bytes that every device gives.
fn encode(wgpu: &Wgpu, x: &View, block: BlockType, y: &View) -> Result<()> {
    let wide = contiguous_as(wgpu, x, DType::F32)?;
    let mut values = vec![0f32; x.elements()];
    wgpu.download_view(&wide, bytemuck::cast_slice_mut(&mut values))?;
    let mut bytes = vec![0; y.bytes()];
    puna_quant::encode(block, &values, &mut bytes).map_err(|e| Error::new(Kind::Argument, "cast", e.to_string()))?;
    wgpu.upload_view(y, &bytes)
}

pub(super) fn concat(wgpu: &Wgpu, axis: usize, x: &[View], y: &View) -> Result<()> {
    let mut start = 0;
    for x in x {
        let length = x.shape()[axis];
        copy(wgpu, x, &y.part(axis, start, length), false)?;
        start += length;
    }
    Ok(())
}

pub(crate) fn assign(wgpu: &Wgpu, source: &View, destination: &View) -> Result<()> {
    copy(wgpu, &source.to(destination.shape()), destination, false)
}

pub(super) fn fill(wgpu: &Wgpu, value: f64, y: &View) -> Result<()> {
    let bits = match y.dtype {
        DType::F64 => value.to_bits(),
        DType::F32 => u64::from((value as f32).to_bits()),
        DType::F16 => u64::from(half::f16::from_f64(value).to_bits()),
        DType::BF16 => u64::from(half::bf16::from_f64(value).to_bits()),
        DType::I64 => value as i64 as u64,
        DType::U32 => u64::from(value as u32),
        DType::U8 => u64::from(value as u8),
        DType::Block(_) => unreachable!("inference refuses to fill blocks"),
    };
    in_parts(wgpu, y.shape().rank(), [y], [], &|[y], []| {
        let unit = Unit::new("copy.wgsl", [("T", Number::unit(y.dtype))]);
        let parameters = parameters![y.elements(), bits as u32, (bits >> 32) as u32];
        wgpu.launch(&unit, "fill", words(y), &[Some(y)], &parameters)
    })
}

pub(super) fn arange(wgpu: &Wgpu, y: &View) -> Result<()> {
    let unit = Unit::new("copy.wgsl", [("T", Number::U32)]);
    in_parts(wgpu, 1, [y], [], &|[part], []| {
        let first = part.layout.offset() - y.layout.offset();
        wgpu.launch(&unit, "arange", words(part), &[Some(part)], &parameters![part.elements(), first])
    })
}
