//! The float kernel, chosen by dtypes at run time.

use half::{bf16, f16};
use puna_tensor::DType;

use crate::pool::Pool;
use crate::simd::float::Accumulator;
use crate::simd::gemm::{self, Matrix};

/// Calls a function with the float type that a dtype is.
macro_rules! with_float {
    ($dtype:expr, $function:ident::<_ $(, $more:ty)*>($($argument:expr),* $(,)?)) => {
        match $dtype {
            puna_tensor::DType::F64 => $function::<f64 $(, $more)*>($($argument),*),
            puna_tensor::DType::F32 => $function::<f32 $(, $more)*>($($argument),*),
            puna_tensor::DType::F16 => $function::<half::f16 $(, $more)*>($($argument),*),
            puna_tensor::DType::BF16 => $function::<half::bf16 $(, $more)*>($($argument),*),
            other => unreachable!("inference lets floats through, and {other} is none"),
        }
    };
}
pub(super) use with_float;

/// A packed weight of floats, as the kernel reads it.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) dtype: DType,
    pub(crate) bytes: &'a [u8],
    /// How many rows it has, those that fill up the last panel not counted.
    pub(crate) n: usize,
}

/// What the float kernel is asked for by kernels that are written once for f32 and f64.
pub(crate) trait Kernel: Accumulator {
    /// Whether there is a kernel for weights of `dtype` that sums in this type.
    fn reads(dtype: DType) -> bool;

    /// `y = x w^T + bias`, rounded to `result`: `x [m, k]`, `y [m, n]`.
    fn times(pool: &Pool, x: Matrix<'_, Self>, weight: Panels<'_>, bias: Option<&[Self]>, result: DType, y: &mut [u8]);

    /// The same in this type, without a bias.
    fn times_wide(pool: &Pool, x: Matrix<'_, Self>, weight: Panels<'_>, y: &mut [Self]);
}

macro_rules! times {
    ($weight:ident, $result:ident, $pool:ident, $x:ident, $w:ident, $bias:ident, $y:ident) => {{
        let (panels, y) = (bytemuck::cast_slice($w.bytes), bytemuck::cast_slice_mut($y));
        gemm::matmul_packed::<_, $weight, $result>($pool, $x, panels, $w.n, $bias, y, $w.n)
    }};
}

impl Kernel for f32 {
    fn reads(dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
    }

    fn times(pool: &Pool, x: Matrix<'_, Self>, w: Panels<'_>, bias: Option<&[Self]>, result: DType, y: &mut [u8]) {
        match (w.dtype, result) {
            (DType::F32, DType::F32) => times!(f32, f32, pool, x, w, bias, y),
            (DType::F32, DType::F16) => times!(f32, f16, pool, x, w, bias, y),
            (DType::F32, DType::BF16) => times!(f32, bf16, pool, x, w, bias, y),
            (DType::F16, DType::F32) => times!(f16, f32, pool, x, w, bias, y),
            (DType::F16, DType::F16) => times!(f16, f16, pool, x, w, bias, y),
            (DType::F16, DType::BF16) => times!(f16, bf16, pool, x, w, bias, y),
            (DType::BF16, DType::F32) => times!(bf16, f32, pool, x, w, bias, y),
            (DType::BF16, DType::F16) => times!(bf16, f16, pool, x, w, bias, y),
            (DType::BF16, DType::BF16) => times!(bf16, bf16, pool, x, w, bias, y),
            (weight, result) => unreachable!("{weight} and {result} are not summed in f32"),
        }
    }

    fn times_wide(pool: &Pool, x: Matrix<'_, Self>, weight: Panels<'_>, y: &mut [Self]) {
        Self::times(pool, x, weight, None, DType::F32, bytemuck::cast_slice_mut(y));
    }
}

impl Kernel for f64 {
    fn reads(dtype: DType) -> bool {
        dtype == DType::F64
    }

    fn times(pool: &Pool, x: Matrix<'_, Self>, w: Panels<'_>, bias: Option<&[Self]>, _: DType, y: &mut [u8]) {
        times!(f64, f64, pool, x, w, bias, y);
    }

    fn times_wide(pool: &Pool, x: Matrix<'_, Self>, weight: Panels<'_>, y: &mut [Self]) {
        Self::times(pool, x, weight, None, DType::F64, bytemuck::cast_slice_mut(y));
    }
}
