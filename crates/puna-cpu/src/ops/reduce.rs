//! Reductions and scans. Values are taken in logical order, in blocks that depend on their number alone, so that a view and its
//! copy, and any number of threads, give the same bits.

mod columns;
mod sort;

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind};
use puna_tensor::{DType, Layout, MAX_RANK, Result, Tensor};

pub(super) use self::sort::{key, sort};
use super::copy::convert::store_i64;
use super::copy::lane::{Elements, Lane};
use super::copy::walk::Walk;
use super::wide::{Source, Wide, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;
use crate::simd::Isa;
use crate::simd::vector;

/// How many elements a task reads: 0.3 to 1 ns each, so about 10 us.
const TASK: usize = 16 << 10;
/// How many elements are reduced at a time. A sum is the sum, in order, of the sums of blocks; a block fits the first cache.
const BLOCK: usize = 4 << 10;

/// A tensor's elements by group: those that are reduced to one result, in logical order.
struct Groups {
    /// Where each group begins.
    starts: Walk<1>,
    /// A group's elements, from where it begins.
    elements: Walk<1>,
}

impl Groups {
    /// Groups over the axes that `reduced` names, in the order of the others.
    fn new(layout: &Layout, reduced: impl Fn(usize) -> bool) -> Self {
        let walk = |wanted: bool, offset: usize| {
            let (mut rank, mut lengths, mut strides) = (0, [0; MAX_RANK], [0; MAX_RANK]);
            for axis in (0..layout.shape().rank()).filter(|axis| reduced(*axis) == wanted) {
                (lengths[rank], strides[rank]) = (layout.shape()[axis], layout.strides()[axis]);
                rank += 1;
            }
            Walk::new(&lengths[..rank], [&strides[..rank]], [offset])
        };
        Self { starts: walk(false, layout.offset()), elements: walk(true, 0) }
    }

    fn count(&self) -> usize {
        self.starts.elements()
    }

    fn size(&self) -> usize {
        self.elements.elements()
    }

    /// Where groups `first..` begin.
    fn starts(&self, first: usize, count: usize) -> impl Iterator<Item = usize> + '_ {
        let step = self.starts.steps()[0];
        self.starts.runs(first..first + count).flat_map(move |run| (0..run.length).map(move |i| run.offsets[0] + i * step))
    }

    fn blocks(&self) -> usize {
        self.size().div_ceil(BLOCK)
    }

    /// Block `block` of the group that begins at `start`: where it lies, or gathered.
    fn block<'s, E: Lane>(&self, from: &'s Elements<'_>, start: usize, block: usize, gathered: &'s mut [E]) -> &'s [E] {
        let range = block * BLOCK..((block + 1) * BLOCK).min(self.size());
        let gathered = &mut gathered[..range.len()];
        let step = self.elements.steps()[0];
        if let Some(run) = self.elements.runs(range.clone()).next()
            && run.length == gathered.len()
        {
            return from.run(start + run.offsets[0], step, gathered);
        }
        let mut rest = &mut *gathered;
        for run in self.elements.runs(range) {
            let into = rest.split_off_mut(..run.length).expect("the runs are as long as the block");
            from.load(start + run.offsets[0], step, into);
        }
        gathered
    }
}

/// How values become one.
trait Fold<E>: Sync {
    /// Of nothing.
    fn start(&self) -> E;

    /// Of a block.
    fn block(&self, values: &[E]) -> E;

    /// Of what comes before and a block.
    fn join(&self, before: E, block: E) -> E;
}

/// Reductions of floats.
#[derive(Clone, Copy)]
struct Floats(ReduceKind);

impl<W: Wide> Fold<W> for Floats {
    fn start(&self) -> W {
        match self.0 {
            ReduceKind::Sum | ReduceKind::Mean => W::ZERO,
            ReduceKind::Max => W::NEG_INFINITY,
            ReduceKind::Min => -W::NEG_INFINITY,
        }
    }

    fn block(&self, values: &[W]) -> W {
        match self.0 {
            ReduceKind::Sum | ReduceKind::Mean => vector::sum(Isa::detect(), values),
            ReduceKind::Max => W::largest(values),
            ReduceKind::Min => -negated(values, W::largest),
        }
    }

    fn join(&self, before: W, block: W) -> W {
        match self.0 {
            ReduceKind::Sum | ReduceKind::Mean => before + block,
            ReduceKind::Max => larger(before, block),
            ReduceKind::Min => -larger(-before, -block),
        }
    }
}

/// The larger; NaN where one is; of equal ones the first.
#[allow(clippy::eq_op)]
fn larger<W: Wide>(a: W, b: W) -> W {
    if b > a || b != b { b } else { a }
}

/// Calls `f` with the negative values: the smallest is the largest of those.
fn negated<W: Wide, R>(values: &[W], f: impl FnOnce(&[W]) -> R) -> R {
    scratch(values.len(), |negative: &mut [W]| {
        negative.iter_mut().zip(values).for_each(|(negative, x)| *negative = -*x);
        f(negative)
    })
}

/// Reductions of integers; of nothing the value given.
struct Integers(ReduceKind, i64);

impl Fold<i64> for Integers {
    fn start(&self) -> i64 {
        self.1
    }

    fn block(&self, values: &[i64]) -> i64 {
        values.iter().fold(self.1, |before, x| self.join(before, *x))
    }

    fn join(&self, before: i64, block: i64) -> i64 {
        match self.0 {
            ReduceKind::Max => before.max(block),
            ReduceKind::Min => before.min(block),
            ReduceKind::Sum | ReduceKind::Mean => before.wrapping_add(block),
        }
    }
}

pub(super) fn reduce(cpu: &Cpu, op: &Reduce, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (x, y) = (inputs[0], &outputs[0]);
    let (least, greatest) = match x.dtype() {
        DType::I64 => (i64::MIN, i64::MAX),
        DType::U32 => (0, u32::MAX.into()),
        DType::U8 => (0, u8::MAX.into()),
        dtype => return in_wide!(dtype, reduce_floats(cpu, op, x, y)),
    };
    let of_none = match op.kind {
        ReduceKind::Sum | ReduceKind::Mean => 0,
        ReduceKind::Max => least,
        ReduceKind::Min => greatest,
    };
    let groups = Groups::new(x.layout(), |axis| op.axes.contains(&axis));
    // A sum of u8 or u32 is one of i64 modulo 2^32.
    fold(cpu, &groups, x, y, &Integers(op.kind, of_none), |values, into| store_i64(y.dtype(), values, into))
}

fn reduce_floats<W: Wide + Lane>(cpu: &Cpu, op: &Reduce, x: &Tensor, y: &Tensor) -> Result<()> {
    let groups = Groups::new(x.layout(), |axis| op.axes.contains(&axis));
    let store = |values: &mut [W], into: &mut [u8]| {
        if op.kind == ReduceKind::Mean {
            let n = W::of(groups.size() as f64);
            values.iter_mut().for_each(|sum| *sum = *sum / n);
        }
        W::store(y.dtype(), values, into);
    };
    if columns::fits(&groups) {
        return columns::reduce(cpu, op.kind, &groups, x, y, store);
    }
    fold(cpu, &groups, x, y, &Floats(op.kind), store)
}

/// Reduces each group to a result: `store` is given some, in order, and their bytes.
fn fold<E: Lane + Copy>(
    cpu: &Cpu,
    groups: &Groups,
    x: &Tensor,
    y: &Tensor,
    kind: &impl Fold<E>,
    store: impl Fn(&mut [E], &mut [u8]) + Sync,
) -> Result<()> {
    let (x, blocks, unit) = (Elements::new(x), groups.blocks(), y.dtype().unit_bytes());
    let mut memory = write(y)?;
    let y = &mut memory.bytes()[..groups.count() * unit];
    if blocks >= 2 * TASK / BLOCK && groups.count() < cpu.pool.threads() {
        // Few, and long: their blocks are shared out.
        for (start, y) in groups.starts(0, groups.count()).zip(y.chunks_exact_mut(unit)) {
            let mut parts = vec![kind.start(); blocks];
            cpu.pool.chunks_mut(&mut parts, TASK / BLOCK, |i, parts| {
                scratch(BLOCK, |gathered: &mut [E]| {
                    for (block, part) in (i * TASK / BLOCK..).zip(parts) {
                        *part = kind.block(groups.block(&x, start, block, gathered));
                    }
                });
            });
            store(&mut [parts.into_iter().fold(kind.start(), |before, block| kind.join(before, block))], y);
        }
        return Ok(());
    }
    let task = (TASK / groups.size().max(1)).max(1);
    cpu.pool.chunks_mut(y, task * unit, |i, y| {
        let count = y.len() / unit;
        scratch(count + BLOCK, |memory: &mut [E]| {
            let (results, gathered) = memory.split_at_mut(count);
            for (result, start) in results.iter_mut().zip(groups.starts(i * task, count)) {
                *result = (0..blocks).fold(kind.start(), |before, block| {
                    let block = kind.block(groups.block(&x, start, block, gathered));
                    kind.join(before, block)
                });
            }
            store(results, y);
        });
    });
    Ok(())
}

pub(super) fn arg_reduce(cpu: &Cpu, op: &ArgReduce, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    match inputs[0].dtype() {
        dtype if dtype.is_integer() => places(cpu, op, inputs[0], &outputs[0], |values: &[i64]| {
            let best = if op.largest { values.iter().max() } else { values.iter().min() };
            best.copied().expect("a block is not empty")
        }),
        dtype => in_wide!(dtype, places_of_floats(cpu, op, inputs[0], &outputs[0])),
    }
}

fn places_of_floats<W: Wide + Lane>(cpu: &Cpu, op: &ArgReduce, x: &Tensor, y: &Tensor) -> Result<()> {
    places(cpu, op, x, y, |values: &[W]| if op.largest { W::largest(values) } else { -negated(values, W::largest) })
}

/// The place of each group's best value, which `best` finds in a block: a NaN where there is one.
fn places<E: Lane>(cpu: &Cpu, op: &ArgReduce, x: &Tensor, y: &Tensor, best: impl Fn(&[E]) -> E + Sync) -> Result<()> {
    let groups = Groups::new(x.layout(), |axis| axis == op.axis);
    let (x, task) = (Elements::new(x), (TASK / groups.size()).max(1));
    let beats = |a: &E, b: &E| if op.largest { a > b } else { a < b };
    #[allow(clippy::eq_op)]
    let nan = |x: &E| x != x;
    let mut memory = write(y)?;
    let y = &mut memory.typed::<u32>()[..groups.count()];
    cpu.pool.chunks_mut(y, task, |i, y| {
        let count = y.len();
        scratch(BLOCK, |gathered: &mut [E]| {
            for (y, start) in y.iter_mut().zip(groups.starts(i * task, count)) {
                let mut found: Option<(E, usize)> = None;
                for block in 0..groups.blocks() {
                    let values = groups.block(&x, start, block, gathered);
                    let value = best(values);
                    if found.is_none_or(|(before, _)| nan(&value) || beats(&value, &before)) {
                        let place = values.iter().position(|x| *x == value || nan(x)).expect("the best is one of them");
                        found = Some((value, block * BLOCK + place));
                    }
                    if nan(&value) {
                        break;
                    }
                }
                *y = found.map_or(0, |(_, place)| place as u32);
            }
        });
    });
    Ok(())
}

pub(super) fn cum_sum(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), running_sums(cpu, inputs[0], &outputs[0]))
}

fn running_sums<W: Wide>(cpu: &Cpu, x: &Tensor, y: &Tensor) -> Result<()> {
    let (source, dtype, n) = (Source::new(x), x.dtype(), x.shape().last());
    if y.elements() == 0 {
        return Ok(());
    }
    let (task, row_bytes) = ((TASK / n).max(1), n * dtype.unit_bytes());
    let mut memory = write(y)?;
    cpu.pool.chunks_mut(&mut memory.bytes()[y.byte_range()], task * row_bytes, |i, rows| {
        for (row, y) in rows.chunks_exact_mut(row_bytes).enumerate() {
            with_row(dtype, y, |y: &mut [W]| {
                source.load(source.layout().row_offset(i * task + row), y);
                let mut sum = W::ZERO;
                for y in y {
                    sum += *y;
                    *y = sum;
                }
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    /// Numbers of either sign, none of whose sums is exact.
    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i as f32) * 0.7).sin() / 3.0).collect()
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        x.to_vec::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn long_columns_have_the_bits_of_rows() {
        let [rows, columns] = [2 * BLOCK + 77, 45];
        for threads in [1, 3] {
            let cpu = crate::device(crate::Options { threads: NonZeroUsize::new(threads) }).unwrap();
            let x = Tensor::from_slice(&numbers(rows * columns), [rows, columns], &cpu).unwrap();
            let laid = x.transpose(0, 1).unwrap().contiguous().unwrap();
            assert_eq!(bits(&x.sum(0).unwrap()), bits(&laid.sum(1).unwrap()));
            assert_eq!(bits(&x.mean(0).unwrap()), bits(&laid.mean(1).unwrap()));
            assert_eq!(bits(&x.max(0).unwrap()), bits(&laid.max(1).unwrap()));
            assert_eq!(bits(&x.min(0).unwrap()), bits(&laid.min(1).unwrap()));
            // Against sums in f64.
            let wide: Vec<f64> = x.cast(DType::F64).unwrap().sum(0).unwrap().to_vec().unwrap();
            for (sum, wide) in x.sum(0).unwrap().to_vec::<f32>().unwrap().into_iter().zip(wide) {
                assert!((f64::from(sum) - wide).abs() < 1e-4, "{sum} {wide}");
            }
        }
    }

    #[test]
    fn one_long_sum_is_the_same_on_any_number_of_threads() {
        let sums = [1, 2, 4].map(|threads| {
            let cpu = crate::device(crate::Options { threads: NonZeroUsize::new(threads) }).unwrap();
            let x = Tensor::from_slice(&numbers(20 * BLOCK + 3), 20 * BLOCK + 3, &cpu).unwrap();
            let integers = Tensor::arange(20 * BLOCK + 3, &cpu).unwrap().sum_all().unwrap().item::<u32>().unwrap();
            (bits(&x.sum_all().unwrap()), bits(&x.max(0).unwrap()), integers)
        });
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        let n = 20 * BLOCK as u64 + 3;
        assert_eq!(sums[0].2, (n * (n - 1) / 2) as u32);
    }

    #[test]
    fn the_first_of_equal_ones_is_found_across_blocks() {
        let cpu = crate::device(crate::Options::default()).unwrap();
        let mut x = numbers(3 * BLOCK);
        let place = |x: &[f32]| {
            let x = Tensor::from_slice(x, x.len(), &cpu).unwrap();
            [x.argmax(0).unwrap(), x.neg().unwrap().argmin(0).unwrap()].map(|place| place.item::<u32>().unwrap() as usize)
        };
        (x[BLOCK + 5], x[2 * BLOCK + 1]) = (2.0, 2.0);
        assert_eq!(place(&x), [BLOCK + 5; 2]);
        (x[2 * BLOCK + 7], x[2 * BLOCK + 9]) = (f32::NAN, f32::NAN);
        assert_eq!(place(&x), [2 * BLOCK + 7; 2]);
    }
}
