//! Row kernels over f32 and f64: sums, functions, rotations, and the inner loops of attention.
//!
//! Sums have 16 lanes: lane `l` takes the elements `l`, `l + 16`, .., and lanes are joined in one tree, `l` with `l + 8`, then with
//! `l + 4`, `l + 2`, `l + 1`. A body is written once and compiled for each [`Isa`], so all of them give the same bits.

mod attention;
mod real;

use super::{Isa, dispatch};

pub(crate) use self::attention::accumulate;
pub(crate) use self::real::Real;

pub(crate) const LANES: usize = 16;

/// Joins the lanes of a sum.
#[inline(always)]
fn join<T: Real>(mut lanes: [T; LANES]) -> T {
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            lanes[l] = lanes[l] + lanes[l + width];
        }
    }
    lanes[0]
}

/// `sum x`.
pub(crate) fn sum<T: Real>(isa: Isa, x: &[T]) -> T {
    dispatch!(isa, sum_body::<T: Real>(x: &[T]) -> T)
}

#[inline(always)]
fn sum_body<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for x in chunks {
        for l in 0..LANES {
            lanes[l] = lanes[l] + x[l];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = *lane + *x;
    }
    join(lanes)
}

/// `sum x^2`, squares fused with the additions.
pub(crate) fn sum_of_squares<T: Real>(isa: Isa, x: &[T]) -> T {
    dot(isa, x, x)
}

/// `sum a b`, products fused with the additions, of as many as both slices have.
pub(crate) fn dot<T: Real>(isa: Isa, a: &[T], b: &[T]) -> T {
    dispatch!(isa, dot_body::<T: Real>(a: &[T], b: &[T]) -> T)
}

#[inline(always)]
fn dot_body<T: Real>(a: &[T], b: &[T]) -> T {
    let n = a.len().min(b.len());
    let mut lanes = [T::ZERO; LANES];
    let ((a, a_tail), (b, b_tail)) = (a[..n].as_chunks::<LANES>(), b[..n].as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            lanes[l] = a[l].fma(b[l], lanes[l]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane = a.fma(*b, *lane);
    }
    join(lanes)
}

/// The largest element; NaN where there is one, -inf where there is none.
pub(crate) fn max<T: Real>(isa: Isa, x: &[T]) -> T {
    dispatch!(isa, max_body::<T: Real>(x: &[T]) -> T)
}

/// The larger of two; a NaN if there is one. Of zeros the first.
#[inline(always)]
fn larger<T: Real>(a: T, b: T) -> T {
    if b > a || b.is_nan() { b } else { a }
}

#[inline(always)]
fn max_body<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for x in chunks {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], x[l]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = larger(*lane, *x);
    }
    lanes.into_iter().fold(T::NEG_INFINITY, larger)
}

/// `x = exp(x - shift)`; the sum.
pub(crate) fn exp_sub_sum<T: Real>(isa: Isa, x: &mut [T], shift: T) -> T {
    dispatch!(isa, exp_sub_sum_body::<T: Real>(x: &mut [T], shift: T) -> T)
}

#[inline(always)]
fn exp_sub_sum_body<T: Real>(x: &mut [T], shift: T) -> T {
    for x in x.iter_mut() {
        *x = (*x - shift).exp();
    }
    sum_body(x)
}

/// `x = exp(x - max x) / sum exp(x - max x)`. NaN where all are -inf or one is NaN or inf.
pub(crate) fn softmax<T: Real>(isa: Isa, x: &mut [T]) {
    dispatch!(isa, softmax_body::<T: Real>(x: &mut [T]))
}

#[inline(always)]
fn softmax_body<T: Real>(x: &mut [T]) {
    let shift = max_body(x);
    let sum = exp_sub_sum_body(x, shift);
    for x in x {
        *x = *x / sum;
    }
}

/// `1 / sqrt(sum x^2 / n + eps)`, each operation rounded.
pub(crate) fn reciprocal_rms<T: Real>(isa: Isa, x: &[T], eps: T) -> T {
    T::ONE / (sum_of_squares(isa, x) / T::of(x.len() as f64) + eps).sqrt()
}

/// `y = (x * scale) * weight`: what a root-mean-square norm does once it has its [`reciprocal_rms`].
pub(crate) fn scale_mul<T: Real>(isa: Isa, x: &[T], scale: T, weight: &[T], y: &mut [T]) {
    dispatch!(isa, scale_mul_body::<T: Real>(x: &[T], scale: T, weight: &[T], y: &mut [T]))
}

#[inline(always)]
fn scale_mul_body<T: Real>(x: &[T], scale: T, weight: &[T], y: &mut [T]) {
    for (y, (x, weight)) in y.iter_mut().zip(x.iter().zip(weight)) {
        *y = *x * scale * *weight;
    }
}

/// `x = x * by`.
pub(crate) fn scale<T: Real>(isa: Isa, x: &mut [T], by: T) {
    dispatch!(isa, scale_body::<T: Real>(x: &mut [T], by: T))
}

#[inline(always)]
fn scale_body<T: Real>(x: &mut [T], by: T) {
    for x in x {
        *x = *x * by;
    }
}

/// `y = y + x`.
pub(crate) fn add<T: Real>(isa: Isa, x: &[T], y: &mut [T]) {
    dispatch!(isa, add_body::<T: Real>(x: &[T], y: &mut [T]))
}

#[inline(always)]
fn add_body<T: Real>(x: &[T], y: &mut [T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = *y + *x;
    }
}

/// `y = y * x`.
pub(crate) fn mul<T: Real>(isa: Isa, x: &[T], y: &mut [T]) {
    dispatch!(isa, mul_body::<T: Real>(x: &[T], y: &mut [T]))
}

#[inline(always)]
fn mul_body<T: Real>(x: &[T], y: &mut [T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = *y * *x;
    }
}

/// A function of one number, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Exp,
    Ln,
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x / (1 + exp(-x))`; NaN at -inf, as the formula has it.
    Silu,
    /// `max(x, 0) + ln(1 + exp(-|x|))`.
    Softplus,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    Sqrt,
    /// `1 / sqrt(x)`, both rounded.
    Rsqrt,
    /// `1 / x`.
    Reciprocal,
}

/// `x = f(x)`.
pub(crate) fn map<T: Real>(isa: Isa, f: Function, x: &mut [T]) {
    dispatch!(isa, map_body::<T: Real>(f: Function, x: &mut [T]))
}

#[inline(always)]
fn map_body<T: Real>(f: Function, x: &mut [T]) {
    match f {
        Function::Exp => each(x, T::exp),
        Function::Ln => each(x, T::ln),
        Function::Tanh => each(x, T::tanh),
        Function::Sigmoid => each(x, sigmoid),
        Function::Silu => each(x, silu),
        Function::Softplus => each(x, softplus),
        Function::Gelu => each(x, gelu),
        Function::GeluTanh => each(x, gelu_tanh),
        Function::Sqrt => each(x, T::sqrt),
        Function::Rsqrt => each(x, rsqrt),
        Function::Reciprocal => each(x, reciprocal),
    }
}

#[inline(always)]
fn each<T: Real>(x: &mut [T], f: impl Fn(T) -> T) {
    for x in x {
        *x = f(*x);
    }
}

// Functions and no closures: those are not sure to be compiled for the vector unit.

#[inline(always)]
fn softplus<T: Real>(x: T) -> T {
    let positive = if x > T::ZERO { x } else { T::ZERO };
    positive + (-x.abs()).exp().ln_1p()
}

#[inline(always)]
fn gelu<T: Real>(x: T) -> T {
    x * T::of(0.5) * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

#[inline(always)]
fn gelu_tanh<T: Real>(x: T) -> T {
    let inner = T::of(0.797_884_560_802_865_4) * (x + T::of(0.044_715) * (x * x * x));
    x * T::of(0.5) * (T::ONE + inner.tanh())
}

#[inline(always)]
fn rsqrt<T: Real>(x: T) -> T {
    T::ONE / x.sqrt()
}

#[inline(always)]
fn reciprocal<T: Real>(x: T) -> T {
    T::ONE / x
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

#[inline(always)]
fn silu<T: Real>(x: T) -> T {
    x / (T::ONE + (-x).exp())
}

/// `y = silu(gate) * up`.
pub(crate) fn swiglu<T: Real>(isa: Isa, gate: &[T], up: &[T], y: &mut [T]) {
    dispatch!(isa, swiglu_body::<T: Real>(gate: &[T], up: &[T], y: &mut [T]))
}

#[inline(always)]
fn swiglu_body<T: Real>(gate: &[T], up: &[T], y: &mut [T]) {
    for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
        *y = silu(*gate) * *up;
    }
}

/// Rotates a head whose pairs are `(i, i + n / 2)`, by the cosines and sines of its `n / 2` angles:
/// `x0, x1 = x0 c - x1 s, x1 c + x0 s`, each operation rounded.
pub(crate) fn rope_halves<T: Real>(isa: Isa, head: &mut [T], cos: &[T], sin: &[T]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "a head of {}, {} angles", head.len(), cos.len());
    dispatch!(isa, rope_halves_body::<T: Real>(head: &mut [T], cos: &[T], sin: &[T]))
}

#[inline(always)]
fn rope_halves_body<T: Real>(head: &mut [T], cos: &[T], sin: &[T]) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((x0, x1), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*x0, *x1) = rotate(*x0, *x1, *cos, *sin);
    }
}

/// As [`rope_halves`] with pairs `(2 i, 2 i + 1)`.
pub(crate) fn rope_interleaved<T: Real>(isa: Isa, head: &mut [T], cos: &[T], sin: &[T]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "a head of {}, {} angles", head.len(), cos.len());
    dispatch!(isa, rope_interleaved_body::<T: Real>(head: &mut [T], cos: &[T], sin: &[T]))
}

#[inline(always)]
fn rope_interleaved_body<T: Real>(head: &mut [T], cos: &[T], sin: &[T]) {
    let (pairs, _) = head.as_chunks_mut::<2>();
    for ([x0, x1], (cos, sin)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
        (*x0, *x1) = rotate(*x0, *x1, *cos, *sin);
    }
}

#[inline(always)]
fn rotate<T: Real>(x0: T, x1: T, cos: T, sin: T) -> (T, T) {
    (x0 * cos - x1 * sin, x1 * cos + x0 * sin)
}

#[cfg(test)]
mod tests;
