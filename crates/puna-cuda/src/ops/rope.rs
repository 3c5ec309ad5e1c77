//! Rotary positions.

use bytemuck::{Pod, Zeroable};
use puna_tensor::op::{Rope, RopeAndCache, RopePairs};
use puna_tensor::{DType, Execution, Result};

use super::copy::{contiguous, contiguous_as};
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Grid, Pointer, arguments};
use crate::view::View;

/// `Table` of `rope.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Table {
    cos: Pointer,
    sin: Pointer,
    positions: Pointer,
    rows: u32,
    halves: u32,
    inverse: u32,
    unused: u32,
}

/// The table as a kernel reads it, and what keeps it in memory.
struct Angles {
    table: Table,
    _memory: [Scratch; 3],
}

impl Angles {
    fn new(cuda: &Cuda, [cos, sin, positions]: [&View; 3], wide: DType, pairs: RopePairs, inverse: bool) -> Result<Self> {
        let memory = [contiguous_as(cuda, cos, wide)?, contiguous_as(cuda, sin, wide)?, contiguous(cuda, positions)?];
        let [cos_at, sin_at, positions_at] = [0, 1, 2].map(|i: usize| memory[i].pointer());
        let table = Table {
            cos: cos_at,
            sin: sin_at,
            positions: positions_at,
            rows: cos.shape()[0] as u32,
            halves: u32::from(pairs == RopePairs::Halves),
            inverse: u32::from(inverse),
            unused: 0,
        };
        Ok(Self { table, _memory: memory })
    }
}

pub(super) fn family(x: DType, pages: DType) -> Unit {
    unit("rope.cu", [("T", type_name(x)), ("P", type_name(pages)), NONE, NONE, NONE])
}

pub(super) fn rope(cuda: &Cuda, op: &Rope, inputs: &[View], y: &View) -> Result<()> {
    let x = contiguous(cuda, &inputs[0])?;
    let angles = Angles::new(cuda, [&inputs[1], &inputs[2], &inputs[3]], x.dtype.accumulator(), op.pairs, op.inverse)?;
    let (heads, half, n) = (x.shape()[1], x.shape()[2] / 2, x.elements() / 2);
    let arguments = arguments![y.pointer(), x.pointer(), angles.table, heads as u32, half as u32, n as u64];
    cuda.launch(&family(x.dtype, x.dtype), "rope", Grid::each(n), &arguments)
}

pub(super) fn rope_and_cache(cuda: &Cuda, op: &RopeAndCache, inputs: &[View], y: &View) -> Result<Execution> {
    let [q, k, v, cos, sin, positions, k_pages, v_pages, slots] = inputs else { unreachable!("inference has counted them") };
    // Pages that are no contiguous memory are written by the composition.
    if !(k_pages.layout.is_contiguous() && v_pages.layout.is_contiguous()) {
        return Ok(Execution::Unsupported);
    }
    // Of equal slots the last wins, which tokens side by side do not promise; a cache gives every token a slot of its own, and what else
    // has equal ones is not told apart from here.
    let (q, k, v, slots) = (contiguous(cuda, q)?, contiguous(cuda, k)?, contiguous(cuda, v)?, contiguous(cuda, slots)?);
    let angles = Angles::new(cuda, [cos, sin, positions], q.dtype.accumulator(), op.pairs, false)?;
    let (tokens, heads, kv_heads, half) = (q.shape()[0], q.shape()[1], k.shape()[1], q.shape()[2] / 2);
    let n = tokens * (heads + 2 * kv_heads) * half;
    let slot_count = k_pages.shape()[0] * k_pages.shape()[1];
    let arguments = arguments![
        y.pointer(),
        k_pages.pointer(),
        v_pages.pointer(),
        q.pointer(),
        k.pointer(),
        v.pointer(),
        angles.table,
        slots.pointer(),
        slot_count as u64,
        heads as u32,
        kv_heads as u32,
        half as u32,
        n as u64
    ];
    cuda.launch(&family(q.dtype, k_pages.dtype), "rope_and_cache", Grid::each(n), &arguments)?;
    Ok(Execution::Done)
}
