//! The inner loops of attention, over rows of keys and values as a cache holds them.

use super::{LANES, Real};
use crate::simd::float::Float;
use crate::simd::scratch::scratch;
use crate::simd::{Isa, dispatch};

/// Adds values by weight: `sums[i] = sums[i] + sum over j of p[i, j] values[j]`, each element one chain of fused operations in the
/// order of `j`.
///
/// `p[i, j]` is `p[i * p_stride + j]`, `j < n`; value `j` begins at `values[j * stride]`; `sums` is `[rows, dim]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn accumulate<V: Float<Wide: Real>>(
    isa: Isa,
    p: &[V::Wide],
    p_stride: usize,
    n: usize,
    values: &[V],
    stride: usize,
    dim: usize,
    sums: &mut [V::Wide],
) {
    if dim == 0 || n == 0 {
        return;
    }
    if size_of::<V>() == size_of::<V::Wide>() {
        return accumulate_wide(isa, p, p_stride, n, bytemuck::cast_slice(values), stride, dim, sums);
    }
    const RUN: usize = 16;
    scratch(RUN * dim, |wide: &mut [V::Wide]| {
        for first in (0..n).step_by(RUN) {
            let count = RUN.min(n - first);
            for (j, wide) in wide.chunks_exact_mut(dim).take(count).enumerate() {
                V::widen_all(isa, &values[(first + j) * stride..][..dim], wide);
            }
            accumulate_wide(isa, &p[first..], p_stride, count, wide, dim, dim, sums);
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn accumulate_wide<T: Real>(
    isa: Isa,
    p: &[T],
    p_stride: usize,
    n: usize,
    values: &[T],
    stride: usize,
    dim: usize,
    sums: &mut [T],
) {
    dispatch!(
        isa,
        accumulate_body::<T: Real>(p: &[T], p_stride: usize, n: usize, values: &[T], stride: usize, dim: usize, sums: &mut [T])
    )
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn accumulate_body<T: Real>(p: &[T], p_stride: usize, n: usize, values: &[T], stride: usize, dim: usize, sums: &mut [T]) {
    for (i, sums) in sums.chunks_exact_mut(dim).enumerate() {
        let p = &p[i * p_stride..][..n];
        let (chunks, tail) = sums.as_chunks_mut::<{ 2 * LANES }>();
        let done = chunks.len() * 2 * LANES;
        for (c, sums) in chunks.iter_mut().enumerate() {
            // In registers as long as the chains are walked.
            let mut chains = *sums;
            for (j, p) in p.iter().enumerate() {
                let values: &[T; 2 * LANES] = values[j * stride + c * 2 * LANES..].first_chunk().expect("a whole chunk");
                for l in 0..2 * LANES {
                    chains[l] = p.fma(values[l], chains[l]);
                }
            }
            *sums = chains;
        }
        for (j, p) in p.iter().enumerate() {
            let values = &values[j * stride + done..][..tail.len()];
            for (sum, value) in tail.iter_mut().zip(values) {
                *sum = p.fma(*value, *sum);
            }
        }
    }
}
