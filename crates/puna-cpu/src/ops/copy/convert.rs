//! Runs of elements, copied and converted: each to the nearest of its new dtype, rounded once.

use bytemuck::Pod;
use half::{bf16, f16};
use puna_tensor::DType;

use super::lane::Lane;
use crate::ops::wide::{Wide, scratch, to_odd};

/// How many elements are converted at a time: they stay in the first cache.
const RUN: usize = 1024;

/// Converts elements `at, at + step, ..` of a memory of `from` to elements of `to` side by side, as many as `into` has room for.
pub(crate) fn convert(from: DType, memory: &[u8], at: usize, step: usize, to: DType, into: &mut [u8]) {
    use DType::{F32, F64};
    if from == to {
        return copy_units(memory, at, step, to.unit_bytes(), into);
    }
    match (from, to) {
        // Widening, and rounding of what lies side by side, need no copy between.
        (_, F32) if from.is_float() && from != F64 => <f32 as Wide>::load(from, memory, at, step, bytemuck::cast_slice_mut(into)),
        (_, F64) if from.is_float() => <f64 as Wide>::load(from, memory, at, step, bytemuck::cast_slice_mut(into)),
        (F32, _) if to.is_float() && step == 1 => {
            let values = &memory[at * 4..][..into.len() / to.unit_bytes() * 4];
            <f32 as Wide>::store(to, bytemuck::cast_slice(values), into);
        }
        _ if from.is_float() && to.is_float() && from != F64 => {
            by::<f32>(from, memory, at, step, to, into, |values, into| <f32 as Wide>::store(to, values, into));
        }
        _ if from.is_float() => by::<f64>(from, memory, at, step, to, into, |values, into| store_f64(to, values, into)),
        _ => by::<i64>(from, memory, at, step, to, into, |values, into| store_i64(to, values, into)),
    }
}

/// Converts by way of `W`, which holds every value of `from`.
fn by<W: Lane>(from: DType, memory: &[u8], at: usize, step: usize, to: DType, into: &mut [u8], store: impl Fn(&[W], &mut [u8])) {
    let unit = to.unit_bytes();
    scratch((into.len() / unit).min(RUN), |values: &mut [W]| {
        for (i, into) in into.chunks_mut(RUN * unit).enumerate() {
            let values = &mut values[..into.len() / unit];
            W::load(from, memory, at + i * RUN * step, step, values);
            store(values, into);
        }
    });
}

fn put<W: Copy, T: Pod>(values: &[W], into: &mut [u8], f: impl Fn(W) -> T) {
    bytemuck::cast_slice_mut(into).iter_mut().zip(values).for_each(|(into, value)| *into = f(*value));
}

/// Rounds to a float dtype; or truncates to an integer one, saturating, NaN to 0, as Rust's `as` does.
pub(crate) fn store_f64(to: DType, values: &[f64], into: &mut [u8]) {
    match to {
        DType::I64 => put(values, into, |x| x as i64),
        DType::U32 => put(values, into, |x| x as u32),
        DType::U8 => put(values, into, |x| x as u8),
        DType::Block(block) => unreachable!("{block} blocks are encoded"),
        float => <f64 as Wide>::store(float, values, into),
    }
}

/// Rounds to a float dtype; or wraps to an integer one.
pub(crate) fn store_i64(to: DType, values: &[i64], into: &mut [u8]) {
    match to {
        DType::F64 => put(values, into, |x| x as f64),
        DType::F32 => put(values, into, |x| x as f32),
        DType::F16 => put(values, into, |x| f16::from_f32(to_odd(integer_to_odd(x)))),
        DType::BF16 => put(values, into, |x| bf16::from_f32(to_odd(integer_to_odd(x)))),
        DType::I64 => put(values, into, |x| x),
        DType::U32 => put(values, into, |x| x as u32),
        DType::U8 => put(values, into, |x| x as u8),
        DType::Block(block) => unreachable!("{block} blocks are encoded"),
    }
}

/// An integer's [`to_odd`], to f64.
fn integer_to_odd(x: i64) -> f64 {
    let magnitude = x.unsigned_abs();
    // What 53 bits do not hold of 64.
    const LOST: u64 = (1 << 11) - 1;
    let odd = if magnitude >> 53 == 0 { magnitude } else { (magnitude & !LOST) | u64::from(magnitude & LOST != 0) << 11 };
    if x < 0 { -(odd as f64) } else { odd as f64 }
}

/// Copies units (elements, or blocks) of `unit` bytes, `at, at + step, ..`, side by side.
pub(crate) fn copy_units(memory: &[u8], at: usize, step: usize, unit: usize, into: &mut [u8]) {
    match unit {
        _ if step == 1 => into.copy_from_slice(&memory[at * unit..][..into.len()]),
        1 => u8::load(DType::U8, memory, at, step, into),
        2 => u16::load(DType::F16, memory, at, step, bytemuck::cast_slice_mut(into)),
        4 => u32::load(DType::F32, memory, at, step, bytemuck::cast_slice_mut(into)),
        8 => u64::load(DType::F64, memory, at, step, bytemuck::cast_slice_mut(into)),
        _ => {
            for (i, into) in into.chunks_exact_mut(unit).enumerate() {
                into.copy_from_slice(&memory[(at + i * step) * unit..][..unit]);
            }
        }
    }
}

/// Copies runs of `n` units that are strided by `step` and begin at `starts`, one behind the other.
pub(crate) fn copy_runs(memory: &[u8], starts: impl Iterator<Item = usize>, step: usize, unit: usize, n: usize, into: &mut [u8]) {
    match unit {
        1 => turn::<u8>(memory, starts, step, n, into),
        2 => turn::<u16>(memory, starts, step, n, into),
        4 => turn::<u32>(memory, starts, step, n, into),
        8 => turn::<u64>(memory, starts, step, n, into),
        _ => into.chunks_exact_mut(n * unit).zip(starts).for_each(|(into, start)| copy_units(memory, start, step, unit, into)),
    }
}

/// Eight runs at a time, of each eight elements: where the starts lie side by side, as those of a transposed matrix do, a cache line
/// that was fetched is read to its end.
fn turn<T: Pod>(memory: &[u8], mut starts: impl Iterator<Item = usize>, step: usize, n: usize, into: &mut [u8]) {
    const TILE: usize = 8;
    let from: &[T] = bytemuck::cast_slice(&memory[..memory.len() / size_of::<T>() * size_of::<T>()]);
    for into in bytemuck::cast_slice_mut(into).chunks_mut(TILE * n) {
        let (count, mut some) = (into.len() / n, [0; TILE]);
        some.iter_mut().zip(&mut starts).take(count).for_each(|(to, start)| *to = start);
        let side_by_side = count == TILE && (0..TILE).all(|r| some[r] == some[0] + r);
        for first in (0..n).step_by(TILE) {
            let length = TILE.min(n - first);
            if side_by_side && length == TILE {
                let lines: [[T; TILE]; TILE] =
                    std::array::from_fn(|k| from[some[0] + (first + k) * step..][..TILE].try_into().expect("a tile's width"));
                for (r, into) in into.chunks_exact_mut(n).enumerate() {
                    into[first..first + TILE].copy_from_slice(&lines.map(|line| line[r]));
                }
            } else {
                for (start, into) in some.iter().zip(into.chunks_exact_mut(n)) {
                    into[first..first + length].iter_mut().enumerate().for_each(|(k, to)| *to = from[start + (first + k) * step]);
                }
            }
        }
    }
}

/// Where a run is written: from unit `at` on, each `step` units from the last.
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) step: usize,
    pub(crate) length: usize,
}

/// As [`convert`], into a memory of `to` that may be strided too.
pub(crate) fn convert_to(from: DType, memory: &[u8], at: usize, step: usize, to: DType, into: &mut [u8], place: &Place) {
    let unit = to.unit_bytes();
    if place.step == 1 {
        return convert(from, memory, at, step, to, &mut into[place.at * unit..][..place.length * unit]);
    }
    scratch(RUN * unit, |run: &mut [u8]| {
        for first in (0..place.length).step_by(RUN) {
            let run = &mut run[..RUN.min(place.length - first) * unit];
            convert(from, memory, at + first * step, step, to, run);
            for (i, run) in run.chunks_exact(unit).enumerate() {
                into[(place.at + (first + i) * place.step) * unit..][..unit].copy_from_slice(run);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_integers_round_once_to_halves() {
        // Beside a tie of f16 by less than an f32 shows: rounding twice would go to even.
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-45);
        let mut y = [0; 2];
        store_f64(DType::F16, &[x], &mut y);
        assert_eq!(f16::from_le_bytes(y).to_f64(), 1.0 + 2f64.powi(-10));
        store_f64(DType::F16, &[-(65520.0 - 1e-9)], &mut y);
        assert_eq!(f16::from_le_bytes(y).to_f64(), -65504.0);
        store_f64(DType::BF16, &[f64::from_bits(1)], &mut y);
        assert_eq!(bf16::from_le_bytes(y).to_bits(), 0);
        // 2^62 + 2^54 lies between two bf16; one more is nearer to the upper.
        for (x, bf) in [((1 << 62) + (1 << 54), 0), ((1 << 62) + (1 << 54) + 1, 1), (-(1 << 62) - (1 << 54) - 1, 1)] {
            store_i64(DType::BF16, &[x], &mut y);
            let expected = bf16::from_f64(2f64.powi(62)).to_bits() + bf;
            assert_eq!(bf16::from_le_bytes(y).to_bits() & 0x7fff, expected, "{x}");
        }
    }

    #[test]
    fn floats_saturate_and_integers_wrap() {
        let mut y = [0u8; 4];
        store_f64(DType::U8, &[-1.5, 255.9, 300.0, f64::NAN], &mut y);
        assert_eq!(y, [0, 255, 255, 0]);
        store_i64(DType::U8, &[-1, 256, 300, 7], &mut y);
        assert_eq!(y, [255, 0, 44, 7]);
    }
}
