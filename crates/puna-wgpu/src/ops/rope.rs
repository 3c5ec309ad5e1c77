//! Rotary positions.

use puna_tensor::op::{Rope, RopeAndCache, RopePairs};
use puna_tensor::{DType, Execution, Result};

use super::copy::{arange, contiguous, contiguous_as};
use super::elementwise::words;
use super::index::gather_rows;
use super::parts::{in_parts, shown_parts};
use super::unit_from_to;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, parameters};
use crate::source::Number;
use crate::view::View;

/// The table of angles, and where tokens stand, as kernels read them.
struct Angles {
    cosines: Scratch,
    sines: Scratch,
    positions: Scratch,
    rows: usize,
    halves: bool,
}

impl Angles {
    fn new(wgpu: &Wgpu, [cos, sin, positions]: [&View; 3], pairs: RopePairs) -> Result<Self> {
        let (cosines, sines) = (contiguous_as(wgpu, cos, DType::F32)?, contiguous_as(wgpu, sin, DType::F32)?);
        let (positions, halves) = (contiguous(wgpu, positions)?, pairs == RopePairs::Halves);
        if wgpu.shows(&cosines) && wgpu.shows(&sines) {
            return Ok(Self { cosines, sines, positions, rows: cos.shape()[0], halves });
        }
        // Of tables that no binding shows the rows of these tokens.
        let rows = positions.elements();
        let gather = |table: &View| {
            let gathered = wgpu.scratch([rows, table.shape().last()], DType::F32)?;
            gather_rows(wgpu, table, &positions, &gathered)?;
            Ok::<_, puna_tensor::Error>(gathered)
        };
        let (cosines, sines, in_order) = (gather(&cosines)?, gather(&sines)?, wgpu.scratch(rows, DType::U32)?);
        arange(wgpu, &in_order)?;
        Ok(Self { cosines, sines, positions: in_order, rows, halves })
    }

    /// `x [tokens, heads, dim]`, contiguous, turned into `y`.
    fn turn(&self, wgpu: &Wgpu, x: &View, inverse: bool, y: &View) -> Result<()> {
        let [_, heads, dim] = [0, 1, 2].map(|axis: usize| x.shape()[axis]);
        in_parts(wgpu, 1, [y], [x, &self.positions], &|[y], [x, positions]| {
            let parameters = parameters![y.elements(), heads, dim / 2, self.rows, self.halves, inverse];
            let views = [Some(y), Some(x), Some(&*self.cosines), Some(&*self.sines), Some(positions)];
            wgpu.launch(&unit_from_to("rope.wgsl", x.dtype, y.dtype), "rope", words(y), &views, &parameters)
        })
    }

    /// The same into pages; values are not turned.
    fn turn_into(&self, wgpu: &Wgpu, x: &View, turns: bool, pages: &View, slots: &View) -> Result<()> {
        let [_, heads, dim] = [0, 1, 2].map(|axis: usize| x.shape()[axis]);
        let page_size = pages.shape()[1];
        in_parts(wgpu, 1, [], [x, &self.positions, slots], &|[], [x, positions, slots]| {
            shown_parts(wgpu, pages).try_for_each(|(first, count)| {
                let (pages, n) = (pages.part(0, first, count), x.elements());
                let parameters =
                    parameters![n, heads, dim / 2, self.rows, self.halves, false, turns, first * page_size, count * page_size];
                let views = [Some(&pages), Some(x), Some(&*self.cosines), Some(&*self.sines), Some(positions), Some(slots)];
                let grid = Grid::each(n.div_ceil(Number::of(pages.dtype).count()));
                wgpu.launch(&unit_from_to("rope.wgsl", x.dtype, pages.dtype), "rope_to_pages", grid, &views, &parameters)
            })
        })
    }
}

pub(super) fn rope(wgpu: &Wgpu, op: &Rope, inputs: &[View], y: &View) -> Result<()> {
    let x = contiguous(wgpu, &inputs[0])?;
    Angles::new(wgpu, [&inputs[1], &inputs[2], &inputs[3]], op.pairs)?.turn(wgpu, &x, op.inverse, y)
}

pub(super) fn rope_and_cache(wgpu: &Wgpu, op: &RopeAndCache, inputs: &[View], y: &View) -> Result<Execution> {
    let [q, k, v, cos, sin, positions, k_pages, v_pages, slots] = inputs else { unreachable!("inference has counted them") };
    // Pages that are no contiguous memory, or begin inside a word, are written by the composition. Of equal slots the last wins, which
    // invocations side by side do not promise; a cache gives every token a slot of its own, and what else has equal ones is not told apart
    // from here.
    let in_order = |pages: &View| pages.layout.is_contiguous() && Wgpu::begins_word(pages);
    if !(in_order(k_pages) && in_order(v_pages)) {
        return Ok(Execution::Unsupported);
    }
    let (q, k, v, slots) = (contiguous(wgpu, q)?, contiguous(wgpu, k)?, contiguous(wgpu, v)?, contiguous(wgpu, slots)?);
    let angles = Angles::new(wgpu, [cos, sin, positions], op.pairs)?;
    angles.turn(wgpu, &q, false, y)?;
    angles.turn_into(wgpu, &k, true, k_pages, &slots)?;
    angles.turn_into(wgpu, &v, false, v_pages, &slots)?;
    Ok(Execution::Done)
}
