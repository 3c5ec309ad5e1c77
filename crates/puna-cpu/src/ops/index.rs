//! Rows and entries by number.

use puna_tensor::{DType, Layout, Result, Tensor};

use super::copy::convert::convert;
use super::matmul::{decode_packed_row, decode_packed_row_f64};
use super::wide::{Source, Wide, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::{read, write};

/// How many bytes a task copies: at some 10 GB/s about 10 us.
const TASK: usize = 128 << 10;

/// The elements of a u32 tensor in row-major order.
pub(super) fn numbers(tensor: &Tensor) -> Vec<u32> {
    let (memory, layout) = (read(tensor), tensor.layout());
    let (all, n) = (memory.typed::<u32>(), tensor.shape().last());
    let stride = layout.strides().last().copied().unwrap_or(1);
    layout.row_offsets().flat_map(|start| (0..n).map(move |i| all[start + i * stride])).collect()
}

/// The entries of a tensor's first axes, each of which lies as the others do.
struct Entries {
    /// Where each run of the last axis begins, from the entry's start.
    runs: Vec<usize>,
    /// How long a run is, and from an element to the next.
    length: usize,
    stride: usize,
    /// Where the entries begin, in row-major order of the first axes.
    starts: Starts,
}

/// Entries in order.
enum Starts {
    /// At equal distances.
    Even {
        first: usize,
        stride: usize,
    },
    Each(Vec<usize>),
}

impl Entries {
    /// The entries of the first `axes` axes of a layout.
    fn new(layout: &Layout, axes: usize) -> Self {
        let (shape, strides) = (layout.shape(), layout.strides());
        let rank = shape.rank();
        let offsets = |range: std::ops::Range<usize>| {
            let mut offsets = vec![0];
            for axis in range {
                offsets = offsets.iter().flat_map(|at| (0..shape[axis]).map(move |i| at + i * strides[axis])).collect();
            }
            offsets
        };
        let (runs, length, stride) = match rank > axes {
            true => (offsets(axes..rank - 1), shape[rank - 1], if shape[rank - 1] == 1 { 1 } else { strides[rank - 1] }),
            false => (vec![0], 1, 1),
        };
        let starts = match axes {
            1 => Starts::Even { first: layout.offset(), stride: strides[0] },
            _ => Starts::Each(offsets(0..axes).into_iter().map(|at| at + layout.offset()).collect()),
        };
        Self { runs, length, stride, starts }
    }

    fn start(&self, entry: usize) -> usize {
        match &self.starts {
            Starts::Even { first, stride } => first + entry * stride,
            Starts::Each(starts) => starts[entry],
        }
    }

    fn elements(&self) -> usize {
        self.runs.len() * self.length
    }

    /// Reads an entry in row-major order.
    fn load<W: Wide>(&self, dtype: DType, memory: &[u8], entry: usize, into: &mut [W]) {
        for (run, into) in self.runs.iter().zip(into.chunks_mut(self.length.max(1))) {
            W::load(dtype, memory, self.start(entry) + run, self.stride, into);
        }
    }

    /// The same without a change of dtype.
    fn copy(&self, dtype: DType, memory: &[u8], entry: usize, into: &mut [u8]) {
        let (unit, size) = (dtype.unit(), dtype.unit_bytes());
        let run_bytes = self.length / unit * size;
        for (run, into) in self.runs.iter().zip(into.chunks_mut(run_bytes.max(1))) {
            let at = (self.start(entry) + run) / unit * size;
            if self.stride == 1 {
                into.copy_from_slice(&memory[at..at + run_bytes]);
            } else {
                for (i, into) in into.chunks_exact_mut(size).enumerate() {
                    into.copy_from_slice(&memory[at + i * self.stride * size..][..size]);
                }
            }
        }
    }

    /// Writes an entry in row-major order.
    fn store(&self, dtype: DType, memory: &mut [u8], entry: usize, from: &[u8]) {
        let size = dtype.unit_bytes();
        for (run, from) in self.runs.iter().zip(from.chunks((self.length * size).max(1))) {
            let at = (self.start(entry) + run) * size;
            for (i, from) in from.chunks_exact(size).enumerate() {
                memory[at + i * self.stride * size..][..size].copy_from_slice(from);
            }
        }
    }
}

pub(super) fn gather_rows(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (table, y) = (inputs[0], &outputs[0]);
    let wide = if [table.dtype(), y.dtype()].contains(&DType::F64) { DType::F64 } else { DType::F32 };
    in_wide!(wide, gather(cpu, table, &numbers(inputs[1]), y))
}

fn gather<W: Wide>(cpu: &Cpu, table: &Tensor, index: &[u32], y: &Tensor) -> Result<()> {
    let (from, to) = (table.dtype(), y.dtype());
    let entries = Entries::new(table.layout(), 1);
    let n = entries.elements();
    if y.elements() == 0 {
        return Ok(());
    }
    let (memory, rows, row_bytes) = (read(table), table.dim(0), n * to.unit_bytes());
    let mut y_memory = write(y)?;
    let per_task = (TASK / row_bytes).max(1);
    cpu.pool.chunks_mut(&mut y_memory.bytes()[..index.len() * row_bytes], per_task * row_bytes, |i, y| {
        for (r, y) in y.chunks_exact_mut(row_bytes).enumerate() {
            let row = index[i * per_task + r] as usize;
            if row >= rows {
                y.fill(0);
            } else if table.is_packed() && from == DType::F64 {
                scratch(n, |values: &mut [f64]| {
                    decode_packed_row_f64(table, memory.bytes(), row, values);
                    round(to, values, y);
                });
            } else if table.is_packed() {
                scratch(n, |values: &mut [f32]| {
                    decode_packed_row(table, memory.bytes(), row, values);
                    round(to, values, y);
                });
            } else if let Some(block) = from.block() {
                scratch(n, |values: &mut [f32]| {
                    let unit = from.unit();
                    for (run, values) in entries.runs.iter().zip(values.chunks_mut(entries.length)) {
                        let at = (entries.start(row) + run) / unit * from.unit_bytes();
                        let bytes = &memory.bytes()[at..][..entries.length / unit * from.unit_bytes()];
                        puna_quant::decode(block, bytes, values).expect("a row is a whole number of blocks");
                    }
                    round(to, values, y);
                });
            } else if from == to {
                entries.copy(from, memory.bytes(), row, y);
            } else {
                scratch(n, |values: &mut [W]| {
                    entries.load(from, memory.bytes(), row, values);
                    round(to, values, y);
                });
            }
        }
    });
    Ok(())
}

/// Rounded once: from f64 to halves too.
fn round<W: Wide>(to: DType, values: &[W], into: &mut [u8]) {
    convert(W::DTYPE, bytemuck::cast_slice(values), 0, 1, to, into);
}

pub(super) fn scatter_rows(_: &Cpu, inputs: &[&Tensor]) -> Result<()> {
    let [destination, index, source] = inputs else { unreachable!("inference has counted them") };
    let wide = if [destination.dtype(), source.dtype()].contains(&DType::F64) { DType::F64 } else { DType::F32 };
    in_wide!(wide, scatter(destination, &numbers(index), source))
}

fn scatter<W: Wide>(destination: &Tensor, index: &[u32], source: &Tensor) -> Result<()> {
    let (from, to) = (source.dtype(), destination.dtype());
    let (source_entries, entries) = (Entries::new(source.layout(), 1), Entries::new(destination.layout(), 1));
    let (n, source) = (entries.elements(), read(source));
    let mut memory = write(destination)?;
    for (i, &row) in index.iter().enumerate().filter(|(_, row)| (**row as usize) < destination.dim(0)) {
        scratch(n * to.unit_bytes(), |bytes: &mut [u8]| {
            if from == to {
                source_entries.copy(from, source.bytes(), i, bytes);
            } else {
                scratch(n, |values: &mut [W]| {
                    source_entries.load(from, source.bytes(), i, values);
                    round(to, values, bytes);
                });
            }
            entries.store(to, memory.bytes(), row as usize, bytes);
        });
    }
    Ok(())
}

pub(super) fn scatter_add_rows(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), scatter_add(cpu, inputs[0], inputs[1], &outputs[0]))
}

fn scatter_add<W: Wide>(cpu: &Cpu, source: &Tensor, index: &Tensor, y: &Tensor) -> Result<()> {
    let (dtype, rows) = (source.dtype(), y.dim(0));
    let (entries, index) = (Entries::new(source.layout(), index.rank()), numbers(index));
    let n = entries.elements();
    if rows * n == 0 {
        return Ok(());
    }
    let (order, ends) = by_row(&index, rows);
    let (memory, row_bytes) = (read(source), n * dtype.unit_bytes());
    let per_task = (TASK / row_bytes).max(1);
    let mut y_memory = write(y)?;
    cpu.pool.chunks_mut(&mut y_memory.bytes()[..rows * row_bytes], per_task * row_bytes, |i, y| {
        for (row, y) in (i * per_task..).zip(y.chunks_exact_mut(row_bytes)) {
            let first = row.checked_sub(1).map_or(0, |before| ends[before]);
            let own = &order[first as usize..ends[row] as usize];
            if own.is_empty() {
                y.fill(0);
                continue;
            }
            with_row(dtype, y, |sums: &mut [W]| {
                sums.fill(W::ZERO);
                scratch(n, |values: &mut [W]| {
                    for &entry in own {
                        entries.load(dtype, memory.bytes(), entry as usize, values);
                        W::add_row(values, sums);
                    }
                });
            });
        }
    });
    Ok(())
}

/// The places of the index in the order of the rows that they name, those of one row in their own; and where each row's end in it.
fn by_row(index: &[u32], rows: usize) -> (Vec<u32>, Vec<u32>) {
    let named = || index.iter().zip(0..).filter(|(row, _)| (**row as usize) < rows);
    let mut ends = vec![0; rows];
    named().for_each(|(row, _)| ends[*row as usize] += 1);
    let mut total = 0;
    for end in &mut ends {
        // Where the row begins; it moves to the end as places are put in.
        let count = std::mem::replace(end, total);
        total += count;
    }
    let mut order = vec![0; total as usize];
    for (row, place) in named() {
        let end = &mut ends[*row as usize];
        order[*end as usize] = place;
        *end += 1;
    }
    (order, ends)
}

pub(super) fn take(_: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (x, y) = (inputs[0], &outputs[0]);
    let (index, m, n, size) = (numbers(inputs[1]), inputs[1].shape().last(), x.shape().last(), x.dtype().unit_bytes());
    let (memory, layout) = (read(x), x.layout());
    let stride = layout.strides()[x.rank() - 1];
    let mut y = write(y)?;
    let y = &mut y.bytes()[..index.len() * size];
    for (row, start) in layout.row_offsets().enumerate() {
        for (i, &at) in index[row * m..(row + 1) * m].iter().enumerate() {
            let y = &mut y[(row * m + i) * size..][..size];
            match at as usize {
                at if at < n => y.copy_from_slice(&memory.bytes()[(start + at * stride) * size..][..size]),
                _ => y.fill(0),
            }
        }
    }
    Ok(())
}

pub(super) fn take_backward(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    if inputs[0].dtype() == DType::U32 {
        return take_backward_numbers(inputs, &outputs[0]);
    }
    in_wide!(inputs[0].dtype(), take_backward_floats(cpu, inputs, &outputs[0]))
}

fn take_backward_numbers(inputs: &[&Tensor], y: &Tensor) -> Result<()> {
    let (source, index) = (numbers(inputs[0]), numbers(inputs[1]));
    let (m, length) = (inputs[0].shape().last(), y.shape().last());
    let mut y_memory = write(y)?;
    let y = &mut y_memory.typed::<u32>()[..y.elements()];
    y.fill(0);
    for (i, (value, &at)) in source.iter().zip(&index).enumerate().filter(|(_, (_, at))| (**at as usize) < length) {
        let y = &mut y[i / m * length + at as usize];
        *y = y.wrapping_add(*value);
    }
    Ok(())
}

fn take_backward_floats<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], y: &Tensor) -> Result<()> {
    let (source, index, dtype) = (Source::new(inputs[0]), numbers(inputs[1]), inputs[0].dtype());
    let (m, length) = (inputs[0].shape().last(), y.shape().last());
    if y.elements() == 0 {
        return Ok(());
    }
    let row_bytes = length * dtype.unit_bytes();
    let mut memory = write(y)?;
    cpu.pool.chunks_mut(&mut memory.bytes()[y.byte_range()], row_bytes, |row, y| {
        scratch(length, |sums: &mut [W]| {
            sums.fill(W::ZERO);
            scratch(m, |values: &mut [W]| {
                source.load(source.layout().row_offset(row), values);
                for (value, &at) in values.iter().zip(&index[row * m..]) {
                    if let Some(sum) = sums.get_mut(at as usize) {
                        *sum += *value;
                    }
                }
            });
            W::store(dtype, sums, y);
        });
    });
    Ok(())
}
