//! Weights in panels, activations in tiles.

use super::{Matrix, SERIAL, Shared, Tiles};
use crate::pool::Pool;
use crate::simd::Isa;
use crate::simd::float::{Accumulator, Float};
use crate::simd::scratch::scratch;

/// How many elements packed weights `[n, k]` have: the last panel is filled up with zeros.
pub(crate) fn packed_len<W: Float>(n: usize, k: usize) -> usize {
    n.next_multiple_of(W::Wide::PANEL) * k
}

/// Packs weights `[n, k]` into panels of [`Accumulator::PANEL`] rows, `[panel][k][row]`.
pub(crate) fn pack<W: Float>(pool: &Pool, weights: Matrix<'_, W>, packed: &mut [W]) {
    let [n, k] = weights.shape;
    assert_eq!(packed.len(), packed_len::<W>(n, k), "packed weights [{n}, {k}]");
    let panel = W::Wide::PANEL * k;
    let start = Shared(packed.as_mut_ptr());
    each(pool, n.div_ceil(W::Wide::PANEL), panel, &|i| {
        // SAFETY: panel `i` lies in `packed`, whose length was checked, and each is asked for once.
        let packed = unsafe { std::slice::from_raw_parts_mut(start.get().add(i * panel), panel) };
        let first = i * W::Wide::PANEL;
        let rows = W::Wide::PANEL.min(n - first);
        if rows < W::Wide::PANEL {
            packed.fill(W::zeroed());
        }
        interleave(weights, first, rows, W::Wide::PANEL, packed);
    });
}

/// The weights `[n, k]` that [`pack`] was given, rows side by side.
pub(crate) fn unpack<W: Float>(pool: &Pool, packed: &[W], [n, k]: [usize; 2], weights: &mut [W]) {
    assert_eq!(packed.len(), packed_len::<W>(n, k), "packed weights [{n}, {k}]");
    assert_eq!(weights.len(), n * k, "weights [{n}, {k}]");
    let panel = W::Wide::PANEL * k;
    let start = Shared(weights.as_mut_ptr());
    each(pool, n.div_ceil(W::Wide::PANEL), panel, &|i| {
        let first = i * W::Wide::PANEL;
        let rows = W::Wide::PANEL.min(n - first);
        // SAFETY: these rows lie in `weights`, whose length was checked, and each panel is asked for once.
        let weights = unsafe { std::slice::from_raw_parts_mut(start.get().add(first * k), rows * k) };
        for (row, weights) in weights.chunks_exact_mut(k.max(1)).enumerate() {
            let packed = packed[i * panel..][..panel].iter().skip(row).step_by(W::Wide::PANEL);
            weights.iter_mut().zip(packed).for_each(|(weight, packed)| *weight = *packed);
        }
    });
}

/// One row of the weights `[n, k]` that [`pack`] was given.
pub(crate) fn unpack_row<W: Float>(packed: &[W], [n, k]: [usize; 2], row: usize, into: &mut [W]) {
    assert!(row < n && into.len() == k && packed.len() == packed_len::<W>(n, k), "row {row} of packed weights [{n}, {k}]");
    let panel = W::Wide::PANEL;
    let packed = packed[row / panel * panel * k..][..panel * k].iter().skip(row % panel).step_by(panel);
    into.iter_mut().zip(packed).for_each(|(x, packed)| *x = *packed);
}

/// Widens `x` and interleaves the rows of each tile, `[tile][k][row]`; without a copy where it lies so.
pub(super) fn with_tiles<X: Float>(isa: Isa, pool: &Pool, x: Matrix<'_, X>, tiles: &Tiles, f: impl FnOnce(&[X::Wide])) {
    let [m, k] = x.shape;
    let is_wide = size_of::<X>() == size_of::<X::Wide>();
    if m == 1 && (x.strides[1] == 1 || k <= 1) {
        let row = &x.data[..k];
        if is_wide {
            return f(bytemuck::cast_slice(row));
        }
        return scratch(k, |wide: &mut [X::Wide]| {
            X::widen_all(isa, row, wide);
            f(wide);
        });
    }
    scratch(m * k, |wide: &mut [X::Wide]| {
        let start = Shared(wide.as_mut_ptr());
        each(pool, tiles.count, m * k / tiles.count, &|i| {
            let (first, rows) = tiles.get(i);
            // SAFETY: the tiles' rows follow each other and end at m, so these elements are in `wide`, and each tile is asked for once.
            let wide = unsafe { std::slice::from_raw_parts_mut(start.get().add(first * k), rows * k) };
            if is_wide {
                interleave(x, first, rows, rows, bytemuck::cast_slice_mut(wide));
            } else {
                // Interleaved as they are, then widened in one go.
                scratch(rows * k, |narrow: &mut [X]| {
                    interleave(x, first, rows, rows, narrow);
                    X::widen_all(isa, narrow, wide);
                });
            }
        });
        f(wide);
    });
}

/// Calls `f` for each part of `elements` elements, on as many threads as that is worth.
fn each(pool: &Pool, parts: usize, elements: usize, f: &(dyn Fn(usize) + Sync)) {
    let per_task = (SERIAL / 4).div_ceil(elements.max(1));
    pool.run(parts.div_ceil(per_task), &|task| {
        (task * per_task..((task + 1) * per_task).min(parts)).for_each(f);
    });
}

/// Copies `rows` rows of a matrix from the row `first` on: column `j` of row `first + i` to `into[j * width + i]`.
fn interleave<T: Float>(from: Matrix<'_, T>, first: usize, rows: usize, width: usize, into: &mut [T]) {
    let ([_, columns], [row_stride, column_stride]) = (from.shape, from.strides);
    if rows == 0 || columns == 0 {
        return;
    }
    let from = &from.data[first * row_stride..];
    if row_stride == 1 {
        // A column lies as it is wanted.
        for (j, into) in into.chunks_exact_mut(width).enumerate() {
            into[..rows].copy_from_slice(&from[j * column_stride..][..rows]);
        }
    } else if column_stride == 1 {
        // So much of each row at a time that what is written stays in the first-level cache.
        const RUN: usize = 16;
        for (run, into) in into.chunks_mut(RUN * width).enumerate() {
            let columns = into.len() / width;
            for i in 0..rows {
                let from = &from[i * row_stride + run * RUN..][..columns];
                for (x, into) in from.iter().zip(into[i..].iter_mut().step_by(width)) {
                    *into = *x;
                }
            }
        }
    } else {
        for (j, into) in into.chunks_exact_mut(width).enumerate() {
            for (i, into) in into[..rows].iter_mut().enumerate() {
                *into = from[i * row_stride + j * column_stride];
            }
        }
    }
}
