//! Reductions and scans. Values are brought into logical order first, so that a view and its copy give the same bits.

use std::cmp::Ordering;

use puna_tensor::op::{ArgReduce, Reduce, ReduceKind, Sort};
use puna_tensor::{Axes, DType, Layout, Result, Tensor};

use super::matmul::wide::{Source, Wide, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::{Read, read, write};
use crate::simd::Isa;
use crate::simd::vector;

/// How many elements a task reads: about 1 ns each, so about 16 us.
const TASK: usize = 16 << 10;

/// A tensor's elements by group: those that are reduced to one result lie in each, in logical order.
struct Groups {
    /// Where each group begins.
    starts: Vec<usize>,
    /// Where each run of a group begins, from the group's start.
    runs: Vec<usize>,
    length: usize,
    stride: usize,
}

impl Groups {
    /// Groups over the axes that `reduced` names, in the order of the others.
    fn new(layout: &Layout, reduced: impl Fn(usize) -> bool) -> Self {
        let (shape, strides) = (layout.shape(), layout.strides());
        let offsets = |wanted: &dyn Fn(usize) -> bool, first: usize| {
            let mut offsets = vec![first];
            for axis in (0..shape.rank()).filter(|axis| wanted(*axis)) {
                offsets = offsets.iter().flat_map(|at| (0..shape[axis]).map(move |i| at + i * strides[axis])).collect();
            }
            offsets
        };
        let starts = offsets(&|axis| !reduced(axis), layout.offset());
        // The last of the reduced axes is a run.
        let last = (0..shape.rank()).rev().find(|axis| reduced(*axis));
        let runs = offsets(&|axis| reduced(axis) && Some(axis) != last, 0);
        let (length, stride) = last.map_or((1, 1), |axis| (shape[axis], if shape[axis] == 1 { 1 } else { strides[axis] }));
        Self { starts, runs, length, stride }
    }

    fn size(&self) -> usize {
        self.runs.len() * self.length
    }

    fn load<W: Wide>(&self, dtype: DType, memory: &[u8], group: usize, into: &mut [W]) {
        if into.is_empty() {
            return;
        }
        for (run, into) in self.runs.iter().zip(into.chunks_exact_mut(self.length)) {
            W::load(dtype, memory, self.starts[group] + run, self.stride, into);
        }
    }

    fn integers<'a>(&'a self, dtype: DType, memory: &'a Read<'_>, group: usize) -> impl Iterator<Item = i64> + 'a {
        let start = self.starts[group];
        self.runs.iter().flat_map(move |run| (0..self.length).map(move |i| integer(dtype, memory, start + run + i * self.stride)))
    }
}

/// An element of an integer tensor.
fn integer(dtype: DType, memory: &Read<'_>, at: usize) -> i64 {
    match dtype {
        DType::I64 => memory.typed::<i64>()[at],
        DType::U32 => memory.typed::<u32>()[at].into(),
        _ => memory.bytes()[at].into(),
    }
}

pub(super) fn reduce(cpu: &Cpu, op: &Reduce, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let x = inputs[0];
    if x.dtype().is_integer() {
        reduce_integers(op, x, &outputs[0])
    } else {
        in_wide!(x.dtype(), reduce_floats(cpu, op, x, &outputs[0]))
    }
}

fn reduce_floats<W: Wide>(cpu: &Cpu, op: &Reduce, x: &Tensor, y: &Tensor) -> Result<()> {
    let (groups, dtype, memory) = (Groups::new(x.layout(), |axis| op.axes.contains(&axis)), x.dtype(), read(x));
    let (count, n, size, isa) = (groups.starts.len(), groups.size(), dtype.unit_bytes(), Isa::detect());
    let value = |group: usize, values: &mut [W]| {
        groups.load(dtype, memory.bytes(), group, values);
        match op.kind {
            ReduceKind::Sum => vector::sum(isa, values),
            ReduceKind::Mean => vector::sum(isa, values) / W::of(n as f64),
            ReduceKind::Max => vector::max(isa, values),
            ReduceKind::Min => {
                values.iter_mut().for_each(|x| *x = -*x);
                -vector::max(isa, values)
            }
        }
    };
    let per_task = (TASK / n.max(1)).max(1);
    let mut y = write(y)?;
    cpu.pool.chunks_mut(&mut y.bytes()[..count * size], per_task * size, |i, y| {
        scratch(n, |values: &mut [W]| {
            with_row(dtype, y, |y: &mut [W]| {
                for (r, y) in y.iter_mut().enumerate() {
                    *y = value(i * per_task + r, values);
                }
            });
        });
    });
    Ok(())
}

fn reduce_integers(op: &Reduce, x: &Tensor, y: &Tensor) -> Result<()> {
    let (groups, dtype, memory) = (Groups::new(x.layout(), |axis| op.axes.contains(&axis)), x.dtype(), read(x));
    let (least, greatest) = match dtype {
        DType::I64 => (i64::MIN, i64::MAX),
        DType::U32 => (0, u32::MAX.into()),
        _ => (0, u8::MAX.into()),
    };
    let mut y_memory = write(y)?;
    for group in 0..groups.starts.len() {
        let values = groups.integers(dtype, &memory, group);
        let value = match op.kind {
            ReduceKind::Sum => values.fold(0i64, i64::wrapping_add),
            ReduceKind::Max => values.fold(least, i64::max),
            ReduceKind::Min => values.fold(greatest, i64::min),
            ReduceKind::Mean => unreachable!("inference lets no integers through to a mean"),
        };
        match y.dtype() {
            DType::I64 => y_memory.typed::<i64>()[group] = value,
            // The sum modulo 2^32.
            DType::U32 => y_memory.typed::<u32>()[group] = value as u32,
            _ => y_memory.bytes()[group] = value as u8,
        }
    }
    Ok(())
}

/// Every float is exact in f64, so comparisons there are those of its own dtype.
fn doubles(groups: &Groups, dtype: DType, memory: &Read<'_>, group: usize) -> Vec<f64> {
    let mut values = vec![0.0; groups.size()];
    groups.load::<f64>(dtype, memory.bytes(), group, &mut values);
    values
}

/// By value; NaN is larger than every number, -0 equal to 0.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

pub(super) fn arg_reduce(cpu: &Cpu, op: &ArgReduce, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let x = inputs[0];
    let (groups, dtype, memory) = (Groups::new(x.layout(), |axis| axis == op.axis), x.dtype(), read(x));
    let better = |ordering| if op.largest { ordering == Ordering::Greater } else { ordering == Ordering::Less };
    let place = |group: usize| {
        let first_best = |n: usize, compare: &dyn Fn(usize, usize) -> Ordering| {
            (1..n).fold(0, |best, i| if better(compare(i, best)) { i } else { best })
        };
        if dtype.is_integer() {
            let values: Vec<i64> = groups.integers(dtype, &memory, group).collect();
            return first_best(values.len(), &|a, b| values[a].cmp(&values[b]));
        }
        let values = doubles(&groups, dtype, &memory, group);
        let nan = values.iter().position(|value| value.is_nan());
        nan.unwrap_or_else(|| first_best(values.len(), &|a, b| order(values[a], values[b])))
    };
    let per_task = (TASK / groups.size().max(1)).max(1);
    let mut y = write(&outputs[0])?;
    cpu.pool.chunks_mut(&mut y.typed::<u32>()[..groups.starts.len()], per_task, |i, y| {
        for (r, y) in y.iter_mut().enumerate() {
            *y = place(i * per_task + r) as u32;
        }
    });
    Ok(())
}

pub(super) fn cum_sum(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), cum_sum_wide(cpu, inputs[0], &outputs[0]))
}

fn cum_sum_wide<W: Wide>(cpu: &Cpu, x: &Tensor, y: &Tensor) -> Result<()> {
    let (source, dtype, n) = (Source::new(x), x.dtype(), x.shape().last());
    if y.elements() == 0 {
        return Ok(());
    }
    let row_bytes = n * dtype.unit_bytes();
    let mut memory = write(y)?;
    cpu.pool.chunks_mut(&mut memory.bytes()[y.byte_range()], row_bytes, |row, y| {
        with_row(dtype, y, |y: &mut [W]| {
            source.load(source.layout().row_offset(row), y);
            let mut sum = W::ZERO;
            for y in y {
                sum += *y;
                *y = sum;
            }
        });
    });
    Ok(())
}

pub(super) fn sort(cpu: &Cpu, op: &Sort, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let x = inputs[0];
    let last = Axes::from(x.rank() - 1);
    let (groups, dtype, memory) = (Groups::new(x.layout(), |axis| last.contains(&axis)), x.dtype(), read(x));
    let (n, size) = (groups.size(), dtype.unit_bytes());
    if outputs[0].elements() == 0 {
        return Ok(());
    }
    let (mut values, mut places) = (write(&outputs[0])?, write(&outputs[1])?);
    let values = (&mut values.bytes()[..groups.starts.len() * n * size], n * size);
    let places = (&mut places.typed::<u32>()[..groups.starts.len() * n], n);
    let directed = |ordering: Ordering| if op.descending { ordering.reverse() } else { ordering };
    cpu.pool.chunks_mut_2(values, places, |group, values, places| {
        places.iter_mut().zip(0..).for_each(|(place, i)| *place = i);
        if dtype.is_integer() {
            let keys: Vec<i64> = groups.integers(dtype, &memory, group).collect();
            places.sort_by(|a, b| directed(keys[*a as usize].cmp(&keys[*b as usize])));
        } else {
            let keys = doubles(&groups, dtype, &memory, group);
            places.sort_by(|a, b| directed(order(keys[*a as usize], keys[*b as usize])));
        }
        for (value, place) in values.chunks_exact_mut(size).zip(places) {
            let at = (groups.starts[group] + *place as usize * groups.stride) * size;
            value.copy_from_slice(&memory.bytes()[at..at + size]);
        }
    });
    Ok(())
}
