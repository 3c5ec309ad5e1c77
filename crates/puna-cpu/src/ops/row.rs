//! Functions of rows in the types that sums are formed in, for kernels written once for f32 and f64.

use crate::simd::Isa;
use crate::simd::vector::{self, Function, Real};

/// What the vector units do to rows: see [`vector`].
pub(crate) trait Row: Real {
    /// `1 / sqrt(mean(x^2) + eps)`.
    fn reciprocal_rms(x: &[Self], eps: Self) -> Self {
        vector::reciprocal_rms(Isa::detect(), x, eps)
    }

    /// `sum a * b`.
    fn dot(a: &[Self], b: &[Self]) -> Self {
        vector::dot(Isa::detect(), a, b)
    }

    /// The largest value; `-inf` of none, NaN where there is one.
    fn largest(x: &[Self]) -> Self {
        vector::max(Isa::detect(), x)
    }

    /// `x *= by`.
    fn scale(x: &mut [Self], by: Self) {
        vector::scale(Isa::detect(), x, by);
    }

    /// `y = (x * scale) * weight`.
    fn scale_mul(x: &[Self], scale: Self, weight: &[Self], y: &mut [Self]) {
        vector::scale_mul(Isa::detect(), x, scale, weight, y);
    }

    /// `y += x`.
    fn add_row(x: &[Self], y: &mut [Self]) {
        vector::add(Isa::detect(), x, y);
    }

    /// `y *= x`.
    fn mul_row(x: &[Self], y: &mut [Self]) {
        vector::mul(Isa::detect(), x, y);
    }

    /// `x = exp(x)`.
    fn exp_all(x: &mut [Self]) {
        vector::map(Isa::detect(), Function::Exp, x);
    }

    /// `x = exp(x - shift)`; the sum.
    fn exp_minus(x: &mut [Self], shift: Self) -> Self {
        vector::exp_sub_sum(Isa::detect(), x, shift)
    }

    /// `y = silu(gate) * up`.
    fn swiglu(gate: &[Self], up: &[Self], y: &mut [Self]) {
        vector::swiglu(Isa::detect(), gate, up, y);
    }

    /// `y = 1 / (1 + exp(-x))`.
    fn sigmoid(x: &[Self], y: &mut [Self]) {
        y.copy_from_slice(x);
        vector::map(Isa::detect(), Function::Sigmoid, y);
    }

    /// Turns a head whose pairs are `(i, i + n / 2)`.
    fn rope_halves(head: &mut [Self], cos: &[Self], sin: &[Self]) {
        vector::rope_halves(Isa::detect(), head, cos, sin);
    }

    /// Turns a head whose pairs are `(2 i, 2 i + 1)`.
    fn rope_interleaved(head: &mut [Self], cos: &[Self], sin: &[Self]) {
        vector::rope_interleaved(Isa::detect(), head, cos, sin);
    }

    /// `sums[i] += sum_j p[i, j] * values[j]` for the rows `sums [rows, dim]`: one chain in order of `j < n`, the `j`-th value at
    /// `values[j * stride ..]`, the weights of row `i` at `p[i * p_stride ..]`.
    fn accumulate_rows(p: &[Self], p_stride: usize, n: usize, values: &[Self], stride: usize, dim: usize, sums: &mut [Self]) {
        vector::accumulate::<Self>(Isa::detect(), p, p_stride, n, values, stride, dim, sums);
    }
}

impl Row for f32 {}
impl Row for f64 {}
