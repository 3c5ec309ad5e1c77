//! Rotary positions, and the write of rotated keys into a cache's pages.

use std::sync::{Mutex, PoisonError};

use puna_tensor::op::{Rope, RopeAndCache, RopePairs};
use puna_tensor::{Layout, Result, Tensor};

use super::wide::{Indices, Source, Wide, in_wide, round_to, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::write;

/// About how many elements a task takes: some microseconds of work.
const TASK: usize = 16 << 10;

/// The tables of cosines and sines, and each token's row in them.
struct Angles<'a> {
    cos: Source<'a>,
    sin: Source<'a>,
    positions: Indices<'a>,
    rows: usize,
    half: usize,
    pairs: RopePairs,
    inverse: bool,
}

impl<'a> Angles<'a> {
    fn new(op: Rope, cos: &'a Tensor, sin: &'a Tensor, positions: &'a Tensor) -> Self {
        let Rope { pairs, inverse } = op;
        let (rows, half) = (cos.dim(0), cos.dim(1));
        Self { cos: Source::new(cos), sin: Source::new(sin), positions: Indices::new(positions), rows, half, pairs, inverse }
    }

    /// The cosines of a token's position, then the sines: `into [2 * half]`. A position beyond the table reads zeros.
    fn load<W: Wide>(&self, token: usize, into: &mut [W]) {
        let position = self.positions.at(token);
        let (cos, sin) = into.split_at_mut(self.half);
        for (table, into) in [(&self.cos, cos), (&self.sin, sin)] {
            match position < self.rows {
                true => table.load(table.layout().row_offset(position), into),
                false => into.fill(W::ZERO),
            }
        }
        if self.inverse {
            into[self.half..].iter_mut().for_each(|sin| *sin = -*sin);
        }
    }

    /// Turns one head by what [`load`](Self::load) gave.
    fn turn<W: Wide>(&self, angles: &[W], head: &mut [W]) {
        let (cos, sin) = angles.split_at(self.half);
        match self.pairs {
            RopePairs::Halves => W::rope_halves(head, cos, sin),
            RopePairs::Interleaved => W::rope_interleaved(head, cos, sin),
        }
    }
}

pub(super) fn rope(cpu: &Cpu, op: &Rope, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let [x, cos, sin, positions] = inputs else { unreachable!("inference has counted them") };
    in_wide!(x.dtype(), turn_all(cpu, &Angles::new(*op, cos, sin, positions), x, &outputs[0]))
}

/// `x [tokens, heads, head_dim]`, turned, into `y`.
fn turn_all<W: Wide>(cpu: &Cpu, angles: &Angles<'_>, x: &Tensor, y: &Tensor) -> Result<()> {
    let [heads, dim] = [x.dim(1), x.dim(2)];
    let (dtype, x) = (x.dtype(), Source::new(x));
    let head_bytes = dim * dtype.unit_bytes();
    let token_bytes = heads * head_bytes;
    let per_task = (TASK / (heads * dim).max(1)).max(1);
    let bytes = y.elements() * dtype.unit_bytes();
    if bytes == 0 {
        return Ok(());
    }
    cpu.pool.chunks_mut(&mut write(y)?.bytes()[..bytes], per_task * token_bytes, |i, y| {
        scratch(2 * angles.half, |turned: &mut [W]| {
            for (t, y) in y.chunks_exact_mut(token_bytes).enumerate() {
                let token = i * per_task + t;
                angles.load(token, turned);
                for (h, y) in y.chunks_exact_mut(head_bytes).enumerate() {
                    with_row(dtype, y, |y| {
                        x.load(x.layout().row_offset(token * heads + h), y);
                        angles.turn(turned, y);
                    });
                }
            }
        });
    });
    Ok(())
}

pub(super) fn rope_and_cache(cpu: &Cpu, op: &RopeAndCache, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), turn_and_write(cpu, op, inputs, &outputs[0]))
}

fn turn_and_write<W: Wide>(cpu: &Cpu, op: &RopeAndCache, inputs: &[&Tensor], y: &Tensor) -> Result<()> {
    let [q, k, v, cos, sin, positions, k_pages, v_pages, slots] = inputs else { unreachable!("inference has counted them") };
    let angles = Angles::new(Rope { pairs: op.pairs, inverse: false }, cos, sin, positions);
    let slots = Indices::new(slots);
    let mut memories = [write(k_pages)?, write(v_pages)?];
    let [k_memory, v_memory] = &mut memories;
    // One task for the keys and one for the values: each writes its tokens in order, so that of equal slots the last wins.
    let keys = Mutex::new(Rows { x: k, angles: Some(&angles), pages: k_pages, memory: k_memory.bytes() });
    let values = Mutex::new(Rows { x: v, angles: None, pages: v_pages, memory: v_memory.bytes() });
    let task = |i: usize| {
        let rows = if i == 0 { &keys } else { &values };
        rows.lock().unwrap_or_else(PoisonError::into_inner).write::<W>(&slots);
    };
    if k.elements() <= TASK {
        (0..2).for_each(task);
    } else {
        cpu.pool.run(2, &task);
    }
    turn_all::<W>(cpu, &angles, q, y)
}

/// Rows on their way into a cache's pages.
struct Rows<'a> {
    /// `[tokens, kv_heads, head_dim]`.
    x: &'a Tensor,
    angles: Option<&'a Angles<'a>>,
    pages: &'a Tensor,
    memory: &'a mut [u8],
}

impl Rows<'_> {
    fn write<W: Wide>(&mut self, slots: &Indices<'_>) {
        let [tokens, heads, dim] = [self.x.dim(0), self.x.dim(1), self.x.dim(2)];
        let places = self.pages.dim(0) * self.pages.dim(1);
        let (x, layout) = (Source::new(self.x), *self.pages.layout());
        scratch(2 * dim, |both: &mut [W]| {
            let (turned, row) = both.split_at_mut(dim);
            for token in 0..tokens {
                let slot = slots.at(token);
                if slot >= places {
                    continue;
                }
                if let Some(angles) = self.angles {
                    angles.load(token, turned);
                }
                for head in 0..heads {
                    x.load(x.layout().row_offset(token * heads + head), row);
                    if let Some(angles) = self.angles {
                        angles.turn(turned, row);
                        // What rope would have given, before it is rounded to the cache's dtype.
                        round_to(x.dtype(), row);
                    }
                    self.store(&layout, slot * heads + head, row);
                }
            }
        });
    }

    /// Row `row` of the pages, counted over pages, places and heads.
    fn store<W: Wide>(&mut self, layout: &Layout, row: usize, values: &[W]) {
        let (dtype, at) = (self.pages.dtype(), layout.row_offset(row));
        let bytes = dtype.unit_bytes();
        let stride = layout.strides()[3];
        if stride == 1 || values.len() == 1 {
            return W::store(dtype, values, &mut self.memory[at * bytes..][..values.len() * bytes]);
        }
        for (i, value) in values.iter().enumerate() {
            W::store(dtype, std::slice::from_ref(value), &mut self.memory[(at + i * stride) * bytes..][..bytes]);
        }
    }
}
