//! Sorting: values become integers of their order, with their places in the lower bits, so that equal ones keep their order.

use bytemuck::Pod;
use puna_tensor::op::Sort;
use puna_tensor::{DType, Layout, Result, Tensor};

use crate::backend::Cpu;
use crate::memory::write;
use crate::ops::copy::convert::copy_units;
use crate::ops::copy::lane::{Elements, Lane};
use crate::ops::wide::scratch;

/// How many elements a task sorts: some 20 ns each, so about 40 us.
const TASK: usize = 2 << 10;

/// A number that is ordered as the value is; NaN above all others, -0 as 0. Without branches, which signs would mispredict.
#[inline(always)]
pub(in crate::ops) fn key(x: f32) -> u32 {
    // The sum makes -0 a 0. Negative numbers are ordered by all bits inverted, others by the sign's.
    let bits = (x + 0.0).to_bits();
    let ordered = bits ^ ((bits as i32 >> 31) as u32 | 1 << 31);
    if x.is_nan() { u32::MAX } else { ordered }
}

/// The same of a double.
#[inline(always)]
fn wide_key(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    let ordered = bits ^ ((bits as i64 >> 63) as u64 | 1 << 63);
    if x.is_nan() { u64::MAX } else { ordered }
}

pub(in crate::ops) fn sort(cpu: &Cpu, op: &Sort, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let flip = |key: u32| if op.descending { !key } else { key };
    let flip_wide = |key: u64| if op.descending { !key } else { key };
    // Of four bytes at most, the key and the place are one word.
    let narrow = |key: u32, place: u32| u64::from(flip(key)) << 32 | u64::from(place);
    let wide = |key: u64, place: u32| u128::from(flip_wide(key)) << 32 | u128::from(place);
    match inputs[0].dtype() {
        DType::F64 => rows(cpu, inputs[0], outputs, |x: f64, place| wide(wide_key(x), place), |word| word as u32),
        DType::I64 => rows(cpu, inputs[0], outputs, |x: i64, place| wide(x as u64 ^ 1 << 63, place), |word| word as u32),
        DType::U32 | DType::U8 => rows(cpu, inputs[0], outputs, |x: i64, place| narrow(x as u32, place), |word| word as u32),
        _ => rows(cpu, inputs[0], outputs, |x: f32, place| narrow(key(x), place), |word| word as u32),
    }
}

/// Sorts each row by the words that `word` makes of its values and their places.
fn rows<E: Lane, K: Pod + Ord>(
    cpu: &Cpu,
    x: &Tensor,
    outputs: &[Tensor],
    word: impl Fn(E, u32) -> K + Sync,
    place: impl Fn(K) -> u32 + Sync,
) -> Result<()> {
    let (layout, unit, n): (&Layout, _, _) = (x.layout(), x.dtype().unit_bytes(), x.shape().last());
    if x.elements() == 0 {
        return Ok(());
    }
    let (elements, step) = (Elements::new(x), layout.strides()[x.rank() - 1]);
    let task = (TASK / n).max(1);
    let (mut values, mut places) = (write(&outputs[0])?, write(&outputs[1])?);
    let values = (&mut values.bytes()[..x.elements() * unit], task * n * unit);
    let places = (&mut places.typed::<u32>()[..x.elements()], task * n);
    cpu.pool.chunks_mut_2(values, places, |i, values, places| {
        for (row, (values, places)) in values.chunks_exact_mut(n * unit).zip(places.chunks_exact_mut(n)).enumerate() {
            let start = layout.row_offset(i * task + row);
            scratch(n, |words: &mut [K]| {
                scratch(n, |gathered: &mut [E]| {
                    let row = elements.run(start, step, gathered);
                    words.iter_mut().zip(row.iter().zip(0..)).for_each(|(to, (x, place))| *to = word(*x, place));
                });
                words.sort_unstable();
                for ((to, value), from) in places.iter_mut().zip(values.chunks_exact_mut(unit)).zip(words) {
                    *to = place(*from);
                    copy_units(elements.bytes(), start + *to as usize * step, 1, unit, value);
                }
            });
        }
    });
    Ok(())
}
