//! The inner loops of attention, over rows of keys and values as a cache holds them.

use super::{LANES, Real};
use crate::room::scratch;
use crate::simd::float::Float;
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
    // Four rows at a time share what is loaded of the values, and have chains enough to keep the units busy.
    let mut fours = sums.chunks_exact_mut(4 * dim);
    let mut first = 0;
    for sums in &mut fours {
        accumulate_some::<T, 4>(&p[first * p_stride..], p_stride, n, values, stride, dim, sums);
        first += 4;
    }
    let (rest, p) = (fours.into_remainder(), &p[(first * p_stride).min(p.len())..]);
    match rest.len() / dim {
        3 => accumulate_some::<T, 3>(p, p_stride, n, values, stride, dim, rest),
        2 => accumulate_some::<T, 2>(p, p_stride, n, values, stride, dim, rest),
        1 => accumulate_some::<T, 1>(p, p_stride, n, values, stride, dim, rest),
        _ => {}
    }
}

/// `R` rows. Each element is one chain, so `R` changes nothing but speed.
#[inline(always)]
fn accumulate_some<T: Real, const R: usize>(
    p: &[T],
    p_stride: usize,
    n: usize,
    values: &[T],
    stride: usize,
    dim: usize,
    sums: &mut [T],
) {
    const WIDTH: usize = 2 * LANES;
    let p: [&[T]; R] = std::array::from_fn(|r| &p[r * p_stride..][..n]);
    let done = dim / WIDTH * WIDTH;
    for at in (0..done).step_by(WIDTH) {
        // In registers as long as the chains are walked.
        let mut chains: [[T; WIDTH]; R] = std::array::from_fn(|r| *sums[r * dim + at..].first_chunk().expect("a whole chunk"));
        for j in 0..n {
            let values: &[T; WIDTH] = values[j * stride + at..].first_chunk().expect("a whole chunk");
            for r in 0..R {
                let p = p[r][j];
                for l in 0..WIDTH {
                    chains[r][l] = p.fma(values[l], chains[r][l]);
                }
            }
        }
        for (r, chains) in chains.iter().enumerate() {
            sums[r * dim + at..][..WIDTH].copy_from_slice(chains);
        }
    }
    if done == dim {
        return;
    }
    for (r, p) in p.iter().enumerate() {
        for (j, p) in p.iter().enumerate() {
            let values = &values[j * stride + done..][..dim - done];
            for (sum, value) in sums[r * dim + done..][..dim - done].iter_mut().zip(values) {
                *sum = p.fma(*value, *sum);
            }
        }
    }
}
