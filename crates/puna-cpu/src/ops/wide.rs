//! Floats of any dtype, widened to the type that sums are formed in and rounded from it: f32, and f64 for f64.

use std::ops::{AddAssign, MulAssign};

use bytemuck::Pod;
use half::{bf16, f16};
use puna_tensor::{Backend, DType, Layout, Result, Tensor};

use super::matmul::kernel::Kernel;
use super::row::Row;
use crate::backend::Cpu;
use crate::memory::{Memory, Read, read};
pub(crate) use crate::room::scratch;
use crate::simd::Isa;
use crate::simd::float::Float;

/// What sums are formed in.
pub(crate) trait Wide: Row + Kernel + AddAssign + MulAssign {
    /// The dtype.
    const DTYPE: DType;

    /// Reads elements `at, at + stride, ..` of a memory of `dtype`.
    fn load(dtype: DType, memory: &[u8], at: usize, stride: usize, into: &mut [Self]);

    /// Rounds values to `dtype`, side by side.
    fn store(dtype: DType, values: &[Self], into: &mut [u8]);
}

/// An element type as it lies in memory, beside a wide one.
trait Stored<W>: Pod {
    fn widen(self) -> W;
    fn round(wide: W) -> Self;

    fn widen_all(from: &[Self], into: &mut [W]) {
        from.iter().zip(into).for_each(|(x, y)| *y = x.widen());
    }

    fn round_all(from: &[W], into: &mut [Self])
    where
        W: Copy,
    {
        from.iter().zip(into).for_each(|(x, y)| *y = Self::round(*x));
    }
}

macro_rules! stored {
    ($($wide:ident: $($type:ident)*);*) => {$($(
        impl Stored<$wide> for $type {
            fn widen(self) -> $wide {
                self as $wide
            }

            fn round(wide: $wide) -> Self {
                wide as $type
            }
        }
    )*)*};
}
stored!(f32: f32 f64; f64: f32 f64);

macro_rules! stored_half {
    ($($type:ident)*) => {$(
        impl Stored<f32> for $type {
            fn widen(self) -> f32 {
                self.to_f32()
            }

            fn round(wide: f32) -> Self {
                $type::from_f32(wide)
            }

            fn widen_all(from: &[Self], into: &mut [f32]) {
                Float::widen_all(Isa::detect(), from, into);
            }

            fn round_all(from: &[f32], into: &mut [Self]) {
                Float::round_all(Isa::detect(), from, into);
            }
        }

        impl Stored<f64> for $type {
            fn widen(self) -> f64 {
                self.to_f64()
            }

            fn round(wide: f64) -> Self {
                $type::from_f32(to_odd(wide))
            }
        }
    )*};
}
stored_half!(f16 bf16);

/// The f32 nearest to zero of those beside `x`, with its last bit set where it is not `x`. Rounded to a narrower type that gives what
/// rounding `x` at once does; rounding to nearest twice does not (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded
/// sums: proved algorithms using rounding to odd"). `half`'s own `from_f64` rounds twice, or cuts bits off first.
pub(crate) fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || x.is_nan() {
        return near;
    }
    let beyond = u32::from(back.abs() > x.abs());
    f32::from_bits((near.to_bits() - beyond) | 1)
}

fn load_as<T: Stored<W>, W>(memory: &[u8], at: usize, stride: usize, into: &mut [W]) {
    if into.is_empty() {
        return;
    }
    let span = (into.len() - 1) * stride + 1;
    let from: &[T] = bytemuck::cast_slice(&memory[at * size_of::<T>()..][..span * size_of::<T>()]);
    if stride == 1 {
        T::widen_all(from, into);
    } else {
        // A broadcast axis has stride 0.
        into.iter_mut().enumerate().for_each(|(i, y)| *y = from[i * stride].widen());
    }
}

fn store_as<T: Stored<W>, W: Copy>(values: &[W], into: &mut [u8]) {
    T::round_all(values, bytemuck::cast_slice_mut(into));
}

macro_rules! wide {
    ($($type:ident => $dtype:ident),*) => {$(
        impl Wide for $type {
            const DTYPE: DType = DType::$dtype;

            fn load(dtype: DType, memory: &[u8], at: usize, stride: usize, into: &mut [Self]) {
                match dtype {
                    DType::F64 => load_as::<f64, Self>(memory, at, stride, into),
                    DType::F32 => load_as::<f32, Self>(memory, at, stride, into),
                    DType::F16 => load_as::<f16, Self>(memory, at, stride, into),
                    DType::BF16 => load_as::<bf16, Self>(memory, at, stride, into),
                    other => unreachable!("inference lets floats through, and {other} is none"),
                }
            }

            fn store(dtype: DType, values: &[Self], into: &mut [u8]) {
                match dtype {
                    DType::F64 => store_as::<f64, Self>(values, into),
                    DType::F32 => store_as::<f32, Self>(values, into),
                    DType::F16 => store_as::<f16, Self>(values, into),
                    DType::BF16 => store_as::<bf16, Self>(values, into),
                    other => unreachable!("inference lets floats through, and {other} is none"),
                }
            }
        }
    )*};
}
wide!(f32 => F32, f64 => F64);

/// Rounds values to a dtype and back: what a result of that dtype holds.
pub(crate) fn round_to<W: Wide>(dtype: DType, values: &mut [W]) {
    if dtype == W::DTYPE {
        return;
    }
    const RUN: usize = 128;
    let mut rounded = [0u64; RUN];
    for run in values.chunks_mut(RUN) {
        let bytes = &mut bytemuck::cast_slice_mut(&mut rounded)[..run.len() * dtype.unit_bytes()];
        W::store(dtype, run, bytes);
        W::load(dtype, bytes, 0, 1, run);
    }
}

/// A tensor of floats, held for reading, whose rows are asked for in a wide type.
pub(crate) struct Source<'a> {
    memory: Read<'a>,
    dtype: DType,
    layout: Layout,
    /// From an element of the last axis to the next.
    stride: usize,
}

impl<'a> Source<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let layout = *tensor.layout();
        let stride = if layout.shape().last() <= 1 { 1 } else { layout.strides().last().copied().unwrap_or(1) };
        Self { memory: read(tensor), dtype: tensor.dtype(), layout, stride }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The `into.len()` elements of the last axis from the one at `offset` (in elements of the memory) on.
    pub(crate) fn load<W: Wide>(&self, offset: usize, into: &mut [W]) {
        W::load(self.dtype, self.memory.bytes(), offset, self.stride, into);
    }

    /// As [`load`](Self::load); without a copy where the elements lie as they are asked for. As many as `scratch` has.
    pub(crate) fn row<'s, W: Wide>(&'s self, offset: usize, scratch: &'s mut [W]) -> &'s [W] {
        if self.is_direct::<W>() {
            return bytemuck::cast_slice(&self.memory.bytes()[offset * size_of::<W>()..][..size_of_val(scratch)]);
        }
        self.load(offset, scratch);
        scratch
    }

    /// Whether rows lie as `W` side by side.
    pub(crate) fn is_direct<W: Wide>(&self) -> bool {
        self.dtype == W::DTYPE && self.stride == 1
    }

    /// The whole memory.
    pub(crate) fn memory(&self) -> &[u8] {
        self.memory.bytes()
    }
}

/// Indices: a u32 tensor of one axis or two, held for reading.
pub(crate) struct Indices<'a> {
    memory: Read<'a>,
    offset: usize,
    strides: [usize; 2],
}

impl<'a> Indices<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let layout = tensor.layout();
        let strides = match *layout.strides() {
            [column] => [0, column],
            [row, column] => [row, column],
            _ => unreachable!("inference lets one axis or two through"),
        };
        Self { memory: read(tensor), offset: layout.offset(), strides }
    }

    pub(crate) fn at(&self, i: usize) -> usize {
        self.at_2(0, i)
    }

    pub(crate) fn at_2(&self, row: usize, column: usize) -> usize {
        let at = self.offset + row * self.strides[0] + column * self.strides[1];
        self.memory.typed::<u32>()[at] as usize
    }
}

/// As [`scratch`], for lengths that grow with the number of rows: large memory comes from, and goes back to, the device's free list.
pub(crate) fn buffer<T: Pod, R>(cpu: &Cpu, length: usize, f: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
    const LARGE: usize = 256 << 10;
    let bytes = length * size_of::<T>();
    if bytes <= LARGE {
        return scratch(length, f);
    }
    let buffer = cpu.alloc(bytes)?;
    let mut memory = Memory::of(&buffer).write()?;
    f(&mut bytemuck::cast_slice_mut(memory.bytes())[..length])
}

/// Calls `f` with a row of a result: in place where it is of the wide type, else with scratch that is rounded afterwards.
pub(crate) fn with_row<W: Wide>(dtype: DType, into: &mut [u8], f: impl FnOnce(&mut [W])) {
    if dtype == W::DTYPE {
        return f(bytemuck::cast_slice_mut(into));
    }
    scratch(into.len() / dtype.unit_bytes(), |row: &mut [W]| {
        f(row);
        W::store(dtype, row, into);
    });
}

/// Calls a function in the type that sums over elements of a dtype are formed in.
macro_rules! in_wide {
    ($dtype:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $dtype {
            puna_tensor::DType::F64 => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}
pub(crate) use in_wide;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_what_storing_and_loading_gives() {
        let values: Vec<f32> = (0..300).map(|i| (i as f32 * 0.377).sin() * 3.0).collect();
        for dtype in DType::FLOATS {
            let mut rounded = values.clone();
            round_to(dtype, &mut rounded);
            for (x, y) in values.iter().zip(&rounded) {
                let want = match dtype {
                    DType::F16 => f16::from_f32(*x).to_f32(),
                    DType::BF16 => bf16::from_f32(*x).to_f32(),
                    _ => *x,
                };
                assert_eq!(want.to_bits(), y.to_bits());
            }
        }
    }

    /// Rounds to a float of `digits` binary digits, the smallest of which is never below `2^least`, by exact arithmetic: products with
    /// powers of two are exact, and so is rounding to an integer.
    fn nearest(x: f64, digits: i32, least: i32, largest: f64) -> f64 {
        if x == 0.0 || !x.is_finite() {
            return x;
        }
        let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(-1022);
        let last = (exponent - digits + 1).max(least);
        // In two steps: 2^-1074 has no reciprocal.
        let (a, b) = (2f64.powi(-last / 2), 2f64.powi(-last - -last / 2));
        let rounded = (x * a * b).round_ties_even() / a / b;
        if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
    }

    #[test]
    fn doubles_round_once_to_halves() {
        let (mut f16s, mut bf16s) = (Vec::new(), Vec::new());
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 11
        };
        let mut values = vec![0.0, -0.0, f64::MIN_POSITIVE, f64::from_bits(1), f64::MAX, -f64::MAX, f64::INFINITY, 65504.0];
        // The middle between two neighbors, and what lies beside it by less than an f32 shows.
        for bits in 0..0x7c00u16 {
            let (a, b) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let middle = if b.is_finite() { (a + b) / 2.0 } else { 65520.0 };
            values.extend([middle, -middle, middle.next_up(), middle.next_down(), -middle.next_down(), middle * (1.0 + 1e-9)]);
        }
        for bits in (0..0x7f80u16).step_by(7) {
            let (a, b) = (bf16::from_bits(bits).to_f64(), bf16::from_bits(bits + 1).to_f64());
            let middle = if b.is_finite() { (a + b) / 2.0 } else { 255.5 * 2f64.powi(120) };
            values.extend([middle, -middle, middle.next_up(), middle.next_down(), -middle.next_down(), middle * (1.0 - 1e-9)]);
        }
        // Anything, of the exponents of both.
        for _ in 0..100_000 {
            let exponent = 1023 - 140 + random() % 270;
            values.push(f64::from_bits((random() & 1) << 63 | exponent << 52 | random() & ((1 << 52) - 1)));
        }
        f16s.resize(values.len() * 2, 0);
        bf16s.resize(values.len() * 2, 0);
        f64::store(DType::F16, &values, &mut f16s);
        f64::store(DType::BF16, &values, &mut bf16s);
        for (i, x) in values.iter().enumerate() {
            let [f, b] = [&f16s, &bf16s].map(|bytes| [bytes[2 * i], bytes[2 * i + 1]]);
            let want = [nearest(*x, 11, -24, 65504.0), nearest(*x, 8, -133, 255.0 * 2f64.powi(120))];
            let got = [f16::from_ne_bytes(f).to_f64(), bf16::from_ne_bytes(b).to_f64()];
            assert_eq!(got.map(f64::to_bits), want.map(f64::to_bits), "{x:e}: {got:?} for {want:?}");
        }
        f64::store(DType::F16, &[f64::NAN], &mut f16s[..2]);
        assert!(f16::from_ne_bytes([f16s[0], f16s[1]]).is_nan());
    }

    #[test]
    fn scratch_may_be_nested() {
        scratch(100, |a: &mut [f32]| {
            a.fill(1.0);
            scratch(100, |b: &mut [f64]| b.fill(2.0));
            assert!(a.iter().all(|x| *x == 1.0));
        });
    }
}
