//! Elements as kernels compute with them.

use bytemuck::Pod;
use puna_tensor::{DType, Tensor};

use crate::memory::{Read, read};
use crate::ops::wide::Wide;

/// What a kernel computes in: the float types that sums are formed in, read from any float dtype; i64, read from any integer dtype;
/// `u8`, `u16`, `u32` and `u64` as bits that lie in memory so.
pub(crate) trait Lane: Pod + Send + Sync + PartialOrd {
    /// Whether elements of a dtype lie in memory as this.
    fn lies_as(dtype: DType) -> bool;

    /// Reads elements `at, at + step, ..` of a memory of `dtype`.
    fn load(dtype: DType, memory: &[u8], at: usize, step: usize, into: &mut [Self]);
}

/// Calls `f` with each element `at, at + step, ..` and its place.
fn each<T: Pod>(memory: &[u8], at: usize, step: usize, length: usize, mut f: impl FnMut(usize, T)) {
    if length == 0 {
        return;
    }
    let span = (length - 1) * step + 1;
    let from: &[T] = bytemuck::cast_slice(&memory[at * size_of::<T>()..][..span * size_of::<T>()]);
    if step == 1 {
        from.iter().enumerate().for_each(|(i, &x)| f(i, x));
    } else {
        // A broadcast axis has step 0.
        (0..length).for_each(|i| f(i, from[i * step]));
    }
}

macro_rules! wide_lane {
    ($($type:ident),*) => {$(
        impl Lane for $type {
            fn lies_as(dtype: DType) -> bool {
                dtype == <$type as Wide>::DTYPE
            }

            fn load(dtype: DType, memory: &[u8], at: usize, step: usize, into: &mut [Self]) {
                <$type as Wide>::load(dtype, memory, at, step, into);
            }
        }
    )*};
}
wide_lane!(f32, f64);

macro_rules! bits_lane {
    ($($type:ident),*) => {$(
        impl Lane for $type {
            fn lies_as(_: DType) -> bool {
                true
            }

            fn load(_: DType, memory: &[u8], at: usize, step: usize, into: &mut [Self]) {
                each(memory, at, step, into.len(), |i, x| into[i] = x);
            }
        }
    )*};
}
bits_lane!(u8, u16, u32, u64);

impl Lane for i64 {
    fn lies_as(dtype: DType) -> bool {
        dtype == DType::I64
    }

    fn load(dtype: DType, memory: &[u8], at: usize, step: usize, into: &mut [Self]) {
        let length = into.len();
        match dtype {
            DType::I64 => each(memory, at, step, length, |i, x| into[i] = x),
            DType::U32 => each(memory, at, step, length, |i, x: u32| into[i] = x.into()),
            DType::U8 => each(memory, at, step, length, |i, x: u8| into[i] = x.into()),
            other => unreachable!("inference lets integers through, and {other} is none"),
        }
    }
}

/// A tensor's memory, held for reading.
pub(crate) struct Elements<'a> {
    memory: Read<'a>,
    dtype: DType,
}

impl<'a> Elements<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        Self { memory: read(tensor), dtype: tensor.dtype() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// Elements `at, at + step, ..`, as many as `scratch` has.
    pub(crate) fn load<E: Lane>(&self, at: usize, step: usize, into: &mut [E]) {
        E::load(self.dtype, self.memory.bytes(), at, step, into);
    }

    /// As [`load`](Self::load); without a copy where the elements lie as they are asked for.
    pub(crate) fn run<'s, E: Lane>(&'s self, at: usize, step: usize, scratch: &'s mut [E]) -> &'s [E] {
        if step == 1 && E::lies_as(self.dtype) {
            return bytemuck::cast_slice(&self.memory.bytes()[at * size_of::<E>()..][..size_of_val(scratch)]);
        }
        self.load(at, step, scratch);
        scratch
    }
}
