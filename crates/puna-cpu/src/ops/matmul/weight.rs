//! A weight in any form, as its product reads it.

use std::ops::Range;

use puna_tensor::{DType, Layout, Result, Tensor};

use super::blocks::{self, Blocks};
use super::kernel::{Panels, with_float};
use super::linear::Rows;
use crate::backend::Cpu;
use crate::memory::{Read, read};
use crate::ops::wide::{Wide, buffer, scratch};
use crate::pool::Pool;
use crate::simd::float::Float;
use crate::simd::gemm::{self, Matrix};
use crate::simd::quant::ActivationBlock;

/// How many rows a task decodes.
const DECODED: usize = 32;

/// A weight `[n, k]`: floats or blocks, packed or not.
pub(super) struct Weight<'a> {
    pub(super) n: usize,
    pub(super) k: usize,
    dtype: DType,
    layout: Layout,
    packed: bool,
    memory: Read<'a>,
}

impl<'a> Weight<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (n, k, layout) = (tensor.dim(0), tensor.dim(1), *tensor.layout());
        Self { n, k, dtype: tensor.dtype(), layout, packed: tensor.is_packed(), memory: read(tensor) }
    }

    /// How many rows are computed together: tiles begin at their edges.
    pub(super) fn group<W: Wide>(&self) -> usize {
        // Both are powers of two, so the larger one's edges are the other's.
        match self.dtype {
            DType::Block(_) => W::PANEL.max(blocks::rows()),
            _ => W::PANEL,
        }
    }

    /// The weight's blocks, if it is of blocks.
    fn blocks(&self) -> Option<Blocks<'_>> {
        let block = self.dtype.block()?;
        let bytes = self.memory.bytes();
        // Packed, or rows of whole blocks at a distance.
        let (offset, stride) = (self.layout.offset(), self.layout.strides()[0]);
        let [offset, stride] = [offset, stride].map(|elements| elements / block.values() * block.bytes());
        Some(Blocks { block, n: self.n, k: self.k, bytes: &bytes[offset..], stride, packed: self.packed })
    }

    /// Row `row`, widened or decoded.
    pub(super) fn row<W: Wide>(&self, row: usize, into: &mut [W]) {
        match self.blocks() {
            Some(blocks) => blocks.row(row, into),
            None if self.packed => packed_row(self.dtype, [self.n, self.k], self.memory.bytes(), row, into),
            None => {
                let [row_stride, stride] = *self.layout.strides() else { unreachable!("a weight has two axes") };
                W::load(self.dtype, self.memory.bytes(), self.layout.offset() + row * row_stride, stride, into);
            }
        }
    }

    /// The panels of some rows of a packed weight, where the float kernel reads them as they are.
    fn panels<W: Wide>(&self, rows: Range<usize>) -> Option<Panels<'_>> {
        let bytes = |rows: usize| rows * self.k * self.dtype.unit_bytes();
        (self.packed && W::reads(self.dtype)).then(|| {
            let (n, end) = (rows.len(), rows.end.next_multiple_of(W::PANEL));
            Panels { dtype: self.dtype, bytes: &self.memory.bytes()[bytes(rows.start)..bytes(end)], n }
        })
    }

    /// The whole product in one, where the kernel reads the weight as it lies: false where it does not.
    pub(super) fn times_all<W: Wide>(
        &self,
        pool: &Pool,
        x: Rows<'_, W>,
        bias: Option<&[W]>,
        result: DType,
        y: &mut [u8],
    ) -> bool {
        let Some(panels) = self.panels::<W>(0..self.n) else { return false };
        W::times(pool, Matrix::rows(x.values, [x.rows, x.k]), panels, bias, result, y);
        true
    }

    /// `tile[r, j] = x[rows.start + r] . weight[columns.start + j]`; `columns` begin at a group's edge.
    /// What is not packed is packed here, as many rows as the tile has columns; other dtypes and blocks are widened before.
    pub(super) fn times<W: Wide>(&self, pool: &Pool, x: Rows<'_, W>, rows: Range<usize>, columns: Range<usize>, tile: &mut [W]) {
        let (k, n) = (self.k, columns.len());
        let x = Matrix::rows(&x.values[rows.start * k..rows.end * k], [rows.len(), k]);
        if let Some(panels) = self.panels::<W>(columns.clone()) {
            return W::times_wide(pool, x, panels, tile);
        }
        if W::reads(self.dtype) {
            let bytes = with_float!(self.dtype, packed_float_bytes::<_>(n, k));
            return scratch(bytes, |bytes: &mut [u8]| {
                with_float!(self.dtype, pack_floats::<_>(pool, self, columns, bytes));
                W::times_wide(pool, x, Panels { dtype: self.dtype, bytes, n }, tile);
            });
        }
        let panels = gemm::packed_len::<W>(n, k);
        scratch(panels + n * k, |memory: &mut [W]| {
            let (panels, laid) = memory.split_at_mut(panels);
            laid.chunks_exact_mut(k.max(1)).enumerate().for_each(|(j, row)| self.row(columns.start + j, row));
            gemm::pack(pool, Matrix::rows(laid, [n, k]), panels);
            W::times_wide(pool, x, Panels { dtype: W::DTYPE, bytes: bytemuck::cast_slice(panels), n }, tile);
        });
    }

    /// Calls `f` with some of the weight's columns as the rows of a packed weight `[columns, n]`.
    pub(super) fn with_columns<W: Wide>(
        &self,
        cpu: &Cpu,
        columns: Range<usize>,
        f: impl FnOnce(Panels<'_>) -> Result<()>,
    ) -> Result<()> {
        let (count, depth) = (columns.len(), self.n);
        if W::reads(self.dtype) && !self.packed {
            let bytes = with_float!(self.dtype, packed_float_bytes::<_>(count, depth));
            return buffer(cpu, bytes, |bytes: &mut [u8]| {
                with_float!(self.dtype, pack_columns::<_>(&cpu.pool, self, columns, bytes));
                f(Panels { dtype: self.dtype, bytes, n: count })
            });
        }
        buffer(cpu, depth * count, |laid: &mut [W]| {
            cpu.pool.chunks_mut(laid, DECODED * count, |i, laid| {
                for (j, into) in laid.chunks_exact_mut(count).enumerate() {
                    let row = i * DECODED + j;
                    if count == self.k {
                        self.row(row, into);
                    } else {
                        scratch(self.k, |whole: &mut [W]| {
                            self.row(row, whole);
                            into.copy_from_slice(&whole[columns.clone()]);
                        });
                    }
                }
            });
            buffer(cpu, gemm::packed_len::<W>(count, depth), |panels: &mut [W]| {
                gemm::pack(&cpu.pool, Matrix::new(laid, [count, depth], [1, count]), panels);
                f(Panels { dtype: W::DTYPE, bytes: bytemuck::cast_slice(panels), n: count })
            })
        })
    }

    pub(super) fn is_of_blocks(&self) -> bool {
        self.dtype.block().is_some()
    }

    /// Whether a kernel multiplies it with activations in 8-bit integers, summing in `W`.
    pub(super) fn takes_integers<W: Wide>(&self) -> bool {
        W::DTYPE == DType::F32 && self.dtype.block().is_some_and(Blocks::has_kernel)
    }

    /// As [`times`](Self::times), of activations in 8-bit integers, where it [takes](Self::takes_integers) them.
    pub(super) fn times_integers<W: Wide>(
        &self,
        x: &[ActivationBlock],
        rows: Range<usize>,
        columns: Range<usize>,
        tile: &mut [W],
    ) {
        let blocks = self.blocks().expect("8-bit activations stand beside blocks");
        blocks.times(x, rows, columns, bytemuck::cast_slice_mut(tile));
    }

    /// Whether there is an order in which kernels read it better than as it is.
    pub(super) fn packs(&self) -> bool {
        self.dtype.block().is_none_or(Blocks::has_kernel)
    }

    /// How many bytes the weight takes, packed.
    pub(super) fn packed_bytes(&self) -> usize {
        match self.blocks() {
            Some(blocks) => blocks.packed_bytes(),
            None => with_float!(self.dtype, packed_float_bytes::<_>(self.n, self.k)),
        }
    }

    pub(super) fn pack(&self, pool: &Pool, into: &mut [u8]) {
        match self.blocks() {
            Some(blocks) => blocks.pack(pool, into),
            None => with_float!(self.dtype, pack_floats::<_>(pool, self, 0..self.n, into)),
        }
    }

    /// A packed weight's rows as they were.
    pub(super) fn unpack(&self, pool: &Pool, into: &mut [u8]) {
        match self.blocks() {
            Some(blocks) => blocks.unpack(pool, into),
            None => with_float!(self.dtype, unpack_floats::<_>(pool, self, into)),
        }
    }
}

fn packed_float_bytes<T: Float>(n: usize, k: usize) -> usize {
    gemm::packed_len::<T>(n, k) * size_of::<T>()
}

fn pack_floats<T: Float>(pool: &Pool, weight: &Weight<'_>, rows: Range<usize>, into: &mut [u8]) {
    let strides = [weight.layout.strides()[0], weight.layout.strides()[1]];
    let first = weight.layout.offset() + rows.start * strides[0];
    let elements = &weight.memory.typed::<T>()[first..];
    gemm::pack(pool, Matrix::new(elements, [rows.len(), weight.k], strides), bytemuck::cast_slice_mut(into));
}

fn pack_columns<T: Float>(pool: &Pool, weight: &Weight<'_>, columns: Range<usize>, into: &mut [u8]) {
    let strides = [weight.layout.strides()[1], weight.layout.strides()[0]];
    let elements = &weight.memory.typed::<T>()[weight.layout.offset() + columns.start * strides[0]..];
    gemm::pack(pool, Matrix::new(elements, [columns.len(), weight.n], strides), bytemuck::cast_slice_mut(into));
}

fn unpack_floats<T: Float>(pool: &Pool, weight: &Weight<'_>, into: &mut [u8]) {
    let packed = &weight.memory.typed::<T>()[..gemm::packed_len::<T>(weight.n, weight.k)];
    gemm::unpack(pool, packed, [weight.n, weight.k], bytemuck::cast_slice_mut(into));
}

/// One row of a packed weight `[n, k]`, of which `bytes` is the memory.
pub(super) fn packed_row<W: Wide>(dtype: DType, [n, k]: [usize; 2], bytes: &[u8], row: usize, out: &mut [W]) {
    match dtype {
        DType::Block(block) => Blocks { block, n, k, bytes, stride: 0, packed: true }.row(row, out),
        dtype => with_float!(dtype, packed_float_row::<_, W>(dtype, [n, k], bytes, row, out)),
    }
}

fn packed_float_row<T: Float, W: Wide>(dtype: DType, [n, k]: [usize; 2], bytes: &[u8], row: usize, out: &mut [W]) {
    let packed = &bytemuck::cast_slice::<u8, T>(bytes)[..gemm::packed_len::<T>(n, k)];
    scratch(k, |elements: &mut [T]| {
        gemm::unpack_row(packed, [n, k], row, elements);
        W::load(dtype, bytemuck::cast_slice(elements), 0, 1, out);
    });
}
