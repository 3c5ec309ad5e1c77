//! Results cut into tiles, one a task.

use std::ops::Range;

use puna_tensor::DType;

use crate::backend::Cpu;

/// How many rows a tile has at most: as many share what it costs to decode the weight.
const ROWS: usize = 512;
/// Fewer multiplications than this are not worth another thread.
const SERIAL: usize = 64 << 10;
/// How many tiles a thread gets, so that one that was held up is helped out.
const TILES: usize = 4;

/// A tile of one of several results `[rows, n]`.
pub(super) struct Tile<'a> {
    /// Which result.
    pub(super) product: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Of each row: its part of the result.
    pub(super) into: Runs<'a>,
}

/// A run of bytes of each row of a tile.
pub(super) enum Runs<'a> {
    One(&'a mut [u8]),
    Many(Vec<&'a mut [u8]>),
}

impl<'a> Runs<'a> {
    pub(super) fn get(&mut self) -> &mut [&'a mut [u8]] {
        match self {
            Self::One(run) => std::slice::from_mut(run),
            Self::Many(runs) => runs,
        }
    }
}

/// The tiles of some results that have equally many rows.
pub(super) struct Tiles<'a> {
    tiles: Vec<Tile<'a>>,
    parallel: bool,
}

impl<'a> Tiles<'a> {
    /// Cuts results, given as their number, their columns, how many of those go together, and their bytes in `dtype`. `k`: how many
    /// multiplications an element takes. Where tiles begin changes no bit.
    pub(super) fn cut(
        cpu: &Cpu,
        results: impl Iterator<Item = (usize, usize, usize, &'a mut [u8])>,
        rows: usize,
        k: usize,
        dtype: DType,
    ) -> Self {
        let results: Vec<_> = results.filter(|(_, n, ..)| rows * n > 0).collect();
        let columns: usize = results.iter().map(|(_, n, ..)| n).sum();
        let parallel = rows.saturating_mul(columns).saturating_mul(k) > SERIAL && cpu.pool.threads() > 1;
        let wanted = if parallel { cpu.pool.threads() * TILES } else { 1 };
        let step = columns.div_ceil(wanted.div_ceil(rows.div_ceil(ROWS).max(1)));
        let mut tiles = Vec::with_capacity(results.len() + wanted);
        for (product, n, group, into) in results {
            cut(&mut tiles, product, into, rows, n, step.next_multiple_of(group), dtype.unit_bytes());
        }
        Self { tiles, parallel }
    }

    /// Computes each tile.
    pub(super) fn run(&mut self, cpu: &Cpu, f: impl Fn(&mut Tile<'a>) + Sync) {
        if self.parallel {
            cpu.pool.chunks_mut(&mut self.tiles, 1, |_, tile| f(&mut tile[0]));
        } else {
            self.tiles.iter_mut().for_each(f);
        }
    }
}

/// Cuts one result into tiles of `step` columns.
fn cut<'a>(tiles: &mut Vec<Tile<'a>>, product: usize, into: &'a mut [u8], rows: usize, n: usize, step: usize, element: usize) {
    if rows == 1 {
        for (i, run) in into.chunks_mut(step * element).enumerate() {
            tiles.push(Tile { product, rows: 0..1, columns: i * step..(i * step + step).min(n), into: Runs::One(run) });
        }
        return;
    }
    for (block, into) in into.chunks_mut(ROWS * n * element).enumerate() {
        let start = tiles.len();
        let rows = block * ROWS..(block * ROWS + ROWS).min(rows);
        let tile = |first: usize| {
            let (rows, columns) = (rows.clone(), first..(first + step).min(n));
            Tile { product, into: Runs::Many(Vec::with_capacity(rows.len())), rows, columns }
        };
        tiles.extend((0..n).step_by(step).map(tile));
        for row in into.chunks_mut(n * element) {
            for (tile, run) in tiles[start..].iter_mut().zip(row.chunks_mut(step * element)) {
                let Runs::Many(runs) = &mut tile.into else { unreachable!("made above") };
                runs.push(run);
            }
        }
    }
}
