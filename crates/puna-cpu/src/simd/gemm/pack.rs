//! Weights in panels, activations in tiles.

use super::{Matrix, SERIAL, Shared, Tiles};
use crate::pool::Pool;
use crate::room::scratch;
use crate::simd::float::{Accumulator, Float};
use crate::simd::{Isa, dispatch};

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
    match (row_stride, column_stride) {
        (1, stride) => copy_columns(Isa::detect(), from, stride, rows, width, into),
        (stride, 1) => transpose(Isa::detect(), from, stride, rows, width, into),
        _ => {
            for (j, into) in into.chunks_exact_mut(width).enumerate() {
                for (i, into) in into[..rows].iter_mut().enumerate() {
                    *into = from[i * row_stride + j * column_stride];
                }
            }
        }
    }
}

/// Columns that lie as they are wanted, `stride` apart.
fn copy_columns<T: Float>(isa: Isa, from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]) {
    dispatch!(isa, copy_columns_body::<T: Float>(from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]))
}

#[inline(always)]
fn copy_columns_body<T: Float>(from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]) {
    // Of a length that the compiler knows, a copy is a few moves: those of panels, and of tiles of many rows.
    match rows {
        32 => copy_fixed::<T, 32>(from, stride, width, into),
        16 => copy_fixed::<T, 16>(from, stride, width, into),
        12 => copy_fixed::<T, 12>(from, stride, width, into),
        11 => copy_fixed::<T, 11>(from, stride, width, into),
        3 => copy_fixed::<T, 3>(from, stride, width, into),
        _ => {
            for (j, into) in into.chunks_exact_mut(width).enumerate() {
                into[..rows].copy_from_slice(&from[j * stride..][..rows]);
            }
        }
    }
}

#[inline(always)]
fn copy_fixed<T: Float, const ROWS: usize>(from: &[T], stride: usize, width: usize, into: &mut [T]) {
    for (j, into) in into.chunks_exact_mut(width).enumerate() {
        let column: &[T; ROWS] = from[j * stride..].first_chunk().expect("a whole column");
        *into.first_chunk_mut().expect("a whole column") = *column;
    }
}

/// Rows that lie side by side, `stride` apart.
fn transpose<T: Float>(isa: Isa, from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]) {
    dispatch!(isa, transpose_body::<T: Float>(from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]))
}

#[inline(always)]
fn transpose_body<T: Float>(from: &[T], stride: usize, rows: usize, width: usize, into: &mut [T]) {
    // So much of each row at a time that what is written stays in the first-level cache.
    const RUN: usize = 16;
    for (run, into) in into.chunks_mut(RUN * width).enumerate() {
        let columns = into.len() / width;
        let from = &from[run * RUN..];
        let mut done = 0;
        if columns == RUN {
            for i in (0..rows / 8 * 8).step_by(8) {
                squares::<T, 8, RUN>(&from[i * stride..], stride, width, &mut into[i..]);
            }
            done = rows / 8 * 8;
            if rows - done >= 4 {
                squares::<T, 4, RUN>(&from[done * stride..], stride, width, &mut into[done..]);
                done += 4;
            }
        }
        for i in done..rows {
            for (x, into) in from[i * stride..][..columns].iter().zip(into[i..].iter_mut().step_by(width)) {
                *into = *x;
            }
        }
    }
}

/// `SIDE` rows of `RUN` elements, in squares, which the compiler turns in registers.
#[inline(always)]
fn squares<T: Float, const SIDE: usize, const RUN: usize>(from: &[T], stride: usize, width: usize, into: &mut [T]) {
    for j in (0..RUN).step_by(SIDE) {
        let square: [&[T; SIDE]; SIDE] = std::array::from_fn(|r| from[r * stride + j..].first_chunk().expect("a whole run"));
        for c in 0..SIDE {
            let column: [T; SIDE] = std::array::from_fn(|r| square[r][c]);
            *into[(j + c) * width..].first_chunk_mut().expect("a whole column") = column;
        }
    }
}
