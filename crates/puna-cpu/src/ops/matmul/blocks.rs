//! Weights of blocks, and activations in blocks of 8-bit integers beside them.

use std::cell::RefCell;
use std::ops::Range;

use puna_quant::{ACTIVATION_BLOCK, BlockType, decode, quantize_activations};
use puna_tensor::{DType, Result};

use super::linear::Rows;
use crate::backend::Cpu;
use crate::ops::wide::{Wide, buffer, scratch};
use crate::pool::Pool;
use crate::simd::quant::{self, ActivationBlock, Columns, Kernels};

/// How many rows of a packed weight are interleaved.
pub(super) fn rows() -> usize {
    Kernels::best().rows()
}

/// A weight `[n, k]` of blocks.
pub(super) struct Blocks<'a> {
    pub(super) block: BlockType,
    pub(super) n: usize,
    pub(super) k: usize,
    /// From the first row on.
    pub(super) bytes: &'a [u8],
    /// From a row to the next, in bytes, where they are not packed.
    pub(super) stride: usize,
    pub(super) packed: bool,
}

impl Blocks<'_> {
    /// Whether the kernels multiply them with integers, and read them in an order of their own. NF4's levels are no integers: they are
    /// decoded for every product.
    pub(super) fn has_kernel(block: BlockType) -> bool {
        block != BlockType::Nf4
    }

    fn row_bytes(&self) -> usize {
        self.k / self.block.values() * self.block.bytes()
    }

    /// The groups that hold `rows`, which begin at a group's edge, of a packed weight.
    fn groups(&self, rows: Range<usize>) -> &[u8] {
        let (group, bytes) = (self::rows(), Kernels::best().group_bytes(self.block, self.k));
        &self.bytes[rows.start / group * bytes..rows.end.div_ceil(group) * bytes]
    }

    /// Row `row`, decoded.
    pub(super) fn row<W: Wide>(&self, row: usize, into: &mut [W]) {
        let decoded = |into: &mut [f32]| {
            if self.packed {
                quant::decode_packed_row(Kernels::best(), self.block, self.groups(0..self.n), row, into);
            } else {
                let bytes = &self.bytes[row * self.stride..][..self.row_bytes()];
                decode(self.block, bytes, into).expect("a row is a whole number of blocks");
            }
        };
        match bytemuck::checked::try_cast_slice_mut(into) {
            Ok(into) if W::DTYPE == DType::F32 => decoded(into),
            _ => scratch(into.len(), |row: &mut [f32]| {
                decoded(row);
                into.iter_mut().zip(row).for_each(|(x, value)| *x = W::of(f64::from(*value)));
            }),
        }
    }

    /// `tile[r, j] = x[rows.start + r] . weight[columns.start + j]`; `columns` begin at a group's edge.
    pub(super) fn times(&self, x: &[ActivationBlock], rows: Range<usize>, columns: Range<usize>, tile: &mut [f32]) {
        let (kernels, per_row) = (Kernels::best(), self.k / ACTIVATION_BLOCK);
        let x = &x[rows.start * per_row..rows.end * per_row];
        let mut tile = Columns::new(tile, rows.len(), columns.len());
        if self.packed {
            return quant::matmul(kernels, self.block, self.groups(columns), self.k, x, &mut tile);
        }
        let row_bytes = self.row_bytes();
        let unpacked = |bytes: &[u8]| {
            lent(&FREE_BYTES, |memory| quant::matmul_unpacked(kernels, self.block, bytes, self.k, x, tile, memory));
        };
        if self.stride == row_bytes || columns.len() == 1 {
            return unpacked(&self.bytes[columns.start * self.stride..][..columns.len() * row_bytes]);
        }
        // Columns of a wider weight: side by side first.
        scratch(columns.len() * row_bytes, |bytes: &mut [u8]| {
            for (row, into) in columns.zip(bytes.chunks_exact_mut(row_bytes)) {
                into.copy_from_slice(&self.bytes[row * self.stride..][..row_bytes]);
            }
            unpacked(bytes);
        });
    }

    /// How many bytes the weight takes, packed.
    pub(super) fn packed_bytes(&self) -> usize {
        Kernels::best().packed_len(self.block, self.n, self.k)
    }

    pub(super) fn pack(&self, pool: &Pool, into: &mut [u8]) {
        let (kernels, row_bytes) = (Kernels::best(), self.row_bytes());
        let group = kernels.group_bytes(self.block, self.k);
        pool.chunks_mut(into, group, |i, into| {
            let first = i * kernels.rows();
            let rows = kernels.rows().min(self.n - first);
            if self.stride == row_bytes {
                return quant::pack(kernels, self.block, &self.bytes[first * row_bytes..][..rows * row_bytes], self.k, into);
            }
            scratch(rows * row_bytes, |bytes: &mut [u8]| {
                for (row, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    bytes.copy_from_slice(&self.bytes[(first + row) * self.stride..][..row_bytes]);
                }
                quant::pack(kernels, self.block, bytes, self.k, into);
            });
        });
    }

    /// The rows as they were before they were packed.
    pub(super) fn unpack(&self, pool: &Pool, into: &mut [u8]) {
        let kernels = Kernels::best();
        pool.chunks_mut(into, kernels.rows() * self.row_bytes(), |i, into| {
            let first = i * kernels.rows();
            let groups = self.groups(first..(first + kernels.rows()).min(self.n));
            quant::unpack(kernels, self.block, groups, self.k, into);
        });
    }
}

/// How many activations a task rounds.
const TASK: usize = 16 << 10;

/// Calls `f` with rows of f32 in blocks of 8-bit integers, `[rows, k / 32]`, as the kernels read them; `k` is a multiple of 32, as block weights
/// have it.
pub(super) fn with_integers<R>(cpu: &Cpu, x: &[f32], f: impl FnOnce(&[ActivationBlock]) -> Result<R>) -> Result<R> {
    let count = x.len() / ACTIVATION_BLOCK;
    lent(&FREE_BLOCKS, |blocks| {
        if blocks.len() < count {
            blocks.resize(count, ActivationBlock::ZERO);
        }
        let per_task = TASK / ACTIVATION_BLOCK;
        cpu.pool.chunks_mut(&mut blocks[..count], per_task, |i, blocks| {
            let from = &x[i * TASK..][..blocks.len() * ACTIVATION_BLOCK];
            quant::quantize(Kernels::best(), from, blocks);
        });
        f(&blocks[..count])
    })
}

/// Calls `f` with what those integers stand for, beside weights that no kernel multiplies with integers, and for sums in f64.
pub(super) fn with_rounded<W: Wide, R>(cpu: &Cpu, x: Rows<'_, W>, f: impl FnOnce(Rows<'_, W>) -> Result<R>) -> Result<R> {
    buffer(cpu, x.rows * x.k, |values: &mut [W]| {
        let per_task = (TASK / x.k.max(1)).max(1) * x.k;
        cpu.pool.chunks_mut(values, per_task, |i, values| {
            let from = &x.values[i * per_task..][..values.len()];
            scratch(2 * values.len(), |both: &mut [f32]| {
                let (narrow, rounded) = both.split_at_mut(values.len());
                W::store(DType::F32, from, bytemuck::cast_slice_mut(narrow));
                round_to_int8(narrow, rounded);
                values.iter_mut().zip(rounded).for_each(|(x, value)| *x = W::of(f64::from(*value)));
            });
        });
        f(Rows { values, ..x })
    })
}

/// One row of any length: what its blocks of 8-bit integers stand for.
pub(super) fn round_to_int8(x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks(ACTIVATION_BLOCK).zip(y.chunks_mut(ACTIVATION_BLOCK)) {
        let (mut q, mut d, mut sums) = ([0; ACTIVATION_BLOCK], [0.0], [[0; 2]]);
        quantize_activations(x, &mut q, &mut d, &mut sums).expect("one block");
        y.iter_mut().zip(q).for_each(|(y, q)| *y = d[0] * f32::from(q));
    }
}

thread_local! {
    static FREE_BLOCKS: RefCell<Vec<ActivationBlock>> = const { RefCell::new(Vec::new()) };
    static FREE_BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a vector that the thread keeps, of any content; a large one is let go afterwards.
fn lent<T, R>(free: &'static std::thread::LocalKey<RefCell<Vec<T>>>, f: impl FnOnce(&mut Vec<T>) -> R) -> R {
    const KEPT: usize = 4 << 20;
    let mut memory = free.take();
    let result = f(&mut memory);
    if memory.capacity() * size_of::<T>() <= KEPT {
        free.set(memory);
    }
    result
}
