//! The inner loops of attention, over rows of keys and values as a cache holds them.

use super::{LANES, Real, dot_body};
use crate::simd::float::{Accumulator, Float};
use crate::simd::scratch::scratch;
use crate::simd::{Isa, dispatch};

/// Scores of some queries with some keys: `out[i, j] = q[i] . keys[j]`, each a [`dot`](super::dot) of its own.
///
/// `q` is `[rows, dim]`; key `j < n` begins at `keys[j * stride]`; `out[i, j]` is `out[i * out_stride + j]`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn scores<K: Float<Wide: Real>>(
    isa: Isa,
    q: &[K::Wide],
    dim: usize,
    keys: &[K],
    stride: usize,
    n: usize,
    out: &mut [K::Wide],
    out_stride: usize,
) {
    if dim == 0 {
        return out.chunks_mut(out_stride.max(1)).for_each(|out| out[..n].fill(K::Wide::ZERO));
    }
    if size_of::<K>() == size_of::<K::Wide>() {
        return scores_wide(isa, q, dim, bytemuck::cast_slice(keys), stride, n, out, out_stride);
    }
    // So many keys at a time as stay in the first-level cache while the queries pass by.
    const RUN: usize = 16;
    scratch(RUN * dim, |wide: &mut [K::Wide]| {
        for first in (0..n).step_by(RUN) {
            let count = RUN.min(n - first);
            for (j, wide) in wide.chunks_exact_mut(dim).take(count).enumerate() {
                K::widen_all(isa, &keys[(first + j) * stride..][..dim], wide);
            }
            scores_wide(isa, q, dim, wide, dim, count, &mut out[first..], out_stride);
        }
    });
}

#[allow(clippy::too_many_arguments)]
fn scores_wide<T: Real>(isa: Isa, q: &[T], dim: usize, keys: &[T], stride: usize, n: usize, out: &mut [T], out_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable && std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>() && dim % LANES == 0 {
        let (q, keys, out) = (bytemuck::cast_slice(q), bytemuck::cast_slice(keys), bytemuck::cast_slice_mut(out));
        // SAFETY: any `Isa` but the portable one says that the processor has AVX2 and FMA.
        return unsafe { avx2::scores(q, dim, keys, stride, n, out, out_stride) };
    }
    dispatch!(
        isa,
        scores_body::<T: Real>(q: &[T], dim: usize, keys: &[T], stride: usize, n: usize, out: &mut [T], out_stride: usize)
    )
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn scores_body<T: Real>(q: &[T], dim: usize, keys: &[T], stride: usize, n: usize, out: &mut [T], out_stride: usize) {
    for (i, q) in q.chunks_exact(dim).enumerate() {
        for (j, out) in out[i * out_stride..][..n].iter_mut().enumerate() {
            *out = dot_body(q, &keys[j * stride..][..dim]);
        }
    }
}

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

/// Four keys at a time: the compiler would join the lanes of each alone, which takes longer than the products.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, dot_body};

    const KEYS: usize = 4;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn scores(q: &[f32], dim: usize, keys: &[f32], stride: usize, n: usize, out: &mut [f32], out_stride: usize) {
        for (i, q) in q.chunks_exact(dim).enumerate() {
            let (fours, rest) = out[i * out_stride..][..n].as_chunks_mut::<KEYS>();
            for (j, out) in fours.iter_mut().enumerate() {
                let keys: [&[f32]; KEYS] = std::array::from_fn(|k| &keys[(j * KEYS + k) * stride..][..dim]);
                *out = dots(q, keys);
            }
            for (j, out) in rest.iter_mut().enumerate() {
                *out = dot_body(q, &keys[(n / KEYS * KEYS + j) * stride..][..dim]);
            }
        }
    }

    /// Products of slices that have one length, a multiple of [`LANES`].
    #[target_feature(enable = "avx2,fma")]
    fn dots(q: &[f32], keys: [&[f32]; KEYS]) -> [f32; KEYS] {
        assert!(q.len() % LANES == 0 && keys.iter().all(|key| key.len() == q.len()), "keys of {}", q.len());
        let mut low = [_mm256_setzero_ps(); KEYS];
        let mut high = low;
        for at in (0..q.len()).step_by(LANES) {
            // SAFETY: all slices have 16 elements from `at` on, as was checked.
            unsafe {
                let (q_low, q_high) = (_mm256_loadu_ps(q.as_ptr().add(at)), _mm256_loadu_ps(q.as_ptr().add(at + 8)));
                for k in 0..KEYS {
                    low[k] = _mm256_fmadd_ps(q_low, _mm256_loadu_ps(keys[k].as_ptr().add(at)), low[k]);
                    high[k] = _mm256_fmadd_ps(q_high, _mm256_loadu_ps(keys[k].as_ptr().add(at + 8)), high[k]);
                }
            }
        }
        // The tree of `join` for all at once: 8 lanes of each key, then 4 of two, then 2 of four.
        let eights: [__m256; KEYS] = std::array::from_fn(|k| _mm256_add_ps(low[k], high[k]));
        let fours = |a, b| _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
        let (keys_01, keys_23) = (fours(eights[0], eights[1]), fours(eights[2], eights[3]));
        let twos = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(keys_01, keys_23), _mm256_shuffle_ps::<0xee>(keys_01, keys_23));
        // Keys 0 and 2 lie in the lower half, 1 and 3 in the upper.
        let ones = _mm256_hadd_ps(twos, twos);
        let joined = _mm_unpacklo_ps(_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones));
        let mut out = [0.0; KEYS];
        // SAFETY: 16 bytes are written to an array of 16.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), joined) };
        out
    }
}
