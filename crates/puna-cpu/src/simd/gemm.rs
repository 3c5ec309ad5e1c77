//! Matrix products over packed panels: `y[m, n] = sum over k of x[m, k] w[n, k]`, and a bias.
//!
//! Each element of `y` is one chain over k, in order: `sum = fma(x[m, k], w[n, k], sum)`, from 0, in the type that both are widened
//! to; then the bias is added and the sum rounded once. The chain is never split, and is stored and loaded again as it is where K is
//! walked in blocks; so one row and many, any tile and any thread give the same bits.
//!
//! Weights lie in panels: [`Accumulator::PANEL`] rows interleaved, `[k][PANEL]`, in the dtype they are stored in. A tile holds a few
//! rows of `x` times a panel in registers; `x` is widened and interleaved by tiles beforehand, `[k][rows of the tile]`.
//! Blocks: of a panel, as many steps of k as lie in the first-level cache; of `x`, as many rows as lie in the second.

mod pack;
mod tile;
mod vector;

use self::tile::Block;
use super::Isa;
use super::float::{Accumulator, Float};
use crate::pool::Pool;
use crate::room::scratch;

pub(crate) use self::pack::{pack, packed_len, unpack, unpack_row};
pub(crate) use self::tile::Kernels;

/// A matrix in a slice: element `[i, j]` is `data[i * strides[0] + j * strides[1]]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix of this shape whose first element is `data`'s.
    pub(crate) fn new(data: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let last = if shape.contains(&0) { None } else { Some((shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1]) };
        assert!(
            last.is_none_or(|last| last < data.len()),
            "{shape:?} with strides {strides:?} is not in {} elements",
            data.len()
        );
        Self { data, shape, strides }
    }

    /// Rows side by side.
    pub(crate) fn rows(data: &'a [T], shape: [usize; 2]) -> Self {
        Self::new(data, shape, [shape[1], 1])
    }

    /// Rows and columns exchanged.
    #[cfg(test)]
    pub(crate) fn transposed(self) -> Self {
        let ([m, n], [row, column]) = (self.shape, self.strides);
        Self { data: self.data, shape: [n, m], strides: [column, row] }
    }
}

/// How many steps of k are walked at a time: a block of a panel, widened, is 24 KiB.
const DEPTH: usize = 192;
/// How many rows of `x` a task takes at most: with [`DEPTH`], 288 KiB of f32.
const ROWS: usize = 384;
/// How many elements of `x` are laid in tiles at a time.
const LAID: usize = 2 << 20;
/// How many panels share a block of `x`, and what is summed of them.
const PANELS: usize = 4;
/// Fewer multiplications than this are not worth another task: some microseconds.
const SERIAL: usize = 64 << 10;

/// `y = x w^T + bias` with packed weights: `x` is `[m, k]`, `packed` is what [`pack`] made of `w [n, k]`, `bias` is `[n]`, `y` is
/// `[m, n]` with rows `y_stride` elements apart.
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_packed<X, W, Y>(
    pool: &Pool,
    x: Matrix<'_, X>,
    packed: &[W],
    n: usize,
    bias: Option<&[W::Wide]>,
    y: &mut [Y],
    y_stride: usize,
) where
    X: Float<Wide = W::Wide>,
    W: Kernels,
    Y: Float<Wide = W::Wide>,
{
    matmul_packed_on(Isa::detect(), pool, x, packed, n, bias, y, y_stride);
}

#[allow(clippy::too_many_arguments)]
fn matmul_packed_on<X, W, Y>(
    isa: Isa,
    pool: &Pool,
    x: Matrix<'_, X>,
    packed: &[W],
    n: usize,
    bias: Option<&[W::Wide]>,
    y: &mut [Y],
    y_stride: usize,
) where
    X: Float<Wide = W::Wide>,
    W: Kernels,
    Y: Float<Wide = W::Wide>,
{
    let [m, k] = x.shape;
    assert_eq!(packed.len(), packed_len::<W>(n, k), "packed weights [{n}, {k}]");
    assert!(bias.is_none_or(|bias| bias.len() == n), "a bias of {n}");
    if m == 0 || n == 0 {
        return;
    }
    assert!(y_stride >= n && y.len() >= (m - 1) * y_stride + n, "[{m}, {n}] with rows {y_stride} apart is not in {}", y.len());
    // Of very many rows some at a time, so that their tiles are memory that the thread keeps, and still in a cache when they are read.
    let most = (LAID / k.max(1)).max(ROWS);
    let blocks = m.div_ceil(most);
    for block in 0..blocks {
        let (first, end) = (m * block / blocks, m * (block + 1) / blocks);
        let (rows, y) = (end - first, &mut y[first * y_stride..]);
        let x = Matrix::new(&x.data[first * x.strides[0]..], [rows, k], x.strides);
        let tiles = Tiles::new(rows, W::most_rows(isa));
        pack::with_tiles(isa, pool, x, &tiles, |x| {
            let product = Product { isa, x, tiles: &tiles, k, packed, n, bias, y: y.as_mut_ptr(), y_stride };
            product.run(pool);
        });
    }
}

/// `y[i] = x[i] w[i]^T` for each of `items` products: `x[i]` is `[m, k]`, `w[i]` is `[n, k]` and `y[i]` is `[m, n]`, the `y[i]` side by
/// side. `shape` is `[m, n, k]`; `item(i)` says which elements of `x` and `w` are the first of `x[i]` and `w[i]`; `x_strides` are
/// those of m and k, `w_strides` those of n and k.
#[allow(clippy::too_many_arguments)]
pub(crate) fn matmul_strided<X, W, Y>(
    pool: &Pool,
    shape: [usize; 3],
    items: usize,
    item: &(dyn Fn(usize) -> [usize; 2] + Sync),
    (x, x_strides): (&[X], [usize; 2]),
    (w, w_strides): (&[W], [usize; 2]),
    y: &mut [Y],
) where
    X: Float<Wide = W::Wide>,
    W: Kernels,
    Y: Float<Wide = W::Wide>,
{
    let [m, n, k] = shape;
    assert_eq!(y.len(), items * m * n, "{items} products [{m}, {n}]");
    if m == 0 || n == 0 {
        return;
    }
    let start = Shared(y.as_mut_ptr());
    let one = |i: usize| {
        let [x_first, w_first] = item(i);
        let x = Matrix::new(&x[x_first..], [m, k], x_strides);
        let w = Matrix::new(&w[w_first..], [n, k], w_strides);
        // SAFETY: `i < items`, each `i` is asked for once, and `y[i]` lies in the slice that is lent mutably to this function.
        let y = unsafe { std::slice::from_raw_parts_mut(start.get().add(i * m * n), m * n) };
        scratch(packed_len::<W>(n, k), |packed: &mut [W]| {
            pack(pool, w, packed);
            matmul_packed(pool, x, packed, n, None, y, n);
        });
    };
    // With few products all threads share each; with many each thread takes some.
    if items < 2 * pool.threads() || items == 1 || m * n * k * items <= SERIAL {
        (0..items).for_each(one);
    } else {
        pool.run(items, &one);
    }
}

/// A pointer into a slice that tasks write disjoint parts of.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: whoever uses the pointer in a task says why no other task touches the same elements; `T: Send` may be written by any thread.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// Rows, cut into tiles of nearly equal height.
struct Tiles {
    rows: usize,
    count: usize,
}

impl Tiles {
    fn new(rows: usize, most: usize) -> Self {
        Self { rows, count: rows.div_ceil(most) }
    }

    /// The first row of tile `i`; of `count`, the number of rows.
    fn start(&self, i: usize) -> usize {
        let (height, higher) = (self.rows / self.count, self.rows % self.count);
        i * height + i.min(higher)
    }

    /// The first row of tile `i`, and how many it has.
    fn get(&self, i: usize) -> (usize, usize) {
        (self.start(i), self.start(i + 1) - self.start(i))
    }
}

/// A product, ready to be cut into tasks.
struct Product<'a, W: Float, Y> {
    isa: Isa,
    /// `[tile][k][rows of the tile]`.
    x: &'a [W::Wide],
    tiles: &'a Tiles,
    k: usize,
    packed: &'a [W],
    n: usize,
    bias: Option<&'a [W::Wide]>,
    /// Rows of `n`, `y_stride` apart, all inside the slice that the caller lends; a task writes its own rows and columns.
    y: *mut Y,
    y_stride: usize,
}

// SAFETY: the pointer is used in `finish` alone, which says why no two tasks write the same elements.
unsafe impl<W: Float, Y: Send> Sync for Product<'_, W, Y> {}

impl<W: Kernels, Y: Float<Wide = W::Wide>> Product<'_, W, Y> {
    const PANEL: usize = <W::Wide as Accumulator>::PANEL;

    fn run(&self, pool: &Pool) {
        let panels = self.n.div_ceil(Self::PANEL);
        let row_blocks = self.tiles.rows.div_ceil(ROWS);
        // About four tasks a thread, so that threads end together; but whole groups of panels, and enough work in each.
        let work = self.tiles.rows.div_ceil(row_blocks) * self.k * Self::PANEL;
        let wanted = (4 * pool.threads()).div_ceil(row_blocks);
        let per_task = panels.div_ceil(wanted).max(SERIAL.div_ceil(work.max(1))).next_multiple_of(PANELS).min(panels);
        let per_task = if pool.threads() == 1 { panels } else { per_task };
        let column_blocks = panels.div_ceil(per_task);
        pool.run(row_blocks * column_blocks, &|task| {
            // Tasks that follow each other share the weights.
            let (block, first) = (task % row_blocks, task / row_blocks * per_task);
            let tiles = block * self.tiles.count / row_blocks..(block + 1) * self.tiles.count / row_blocks;
            self.task(tiles, first..(first + per_task).min(panels));
        });
    }

    /// Some tiles times some panels.
    fn task(&self, tiles: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let first_row = self.tiles.start(tiles.start);
        let rows = self.tiles.start(tiles.end) - first_row;
        // One tile reads each weight once, so there is no block to keep.
        let depth = if tiles.len() == 1 { self.k.max(1) } else { DEPTH };
        // Widening a block costs a store and a load; beyond two tiles that is less than widening for each.
        let widens = size_of::<W>() < size_of::<W::Wide>() && tiles.len() > 2;
        let height = self.tiles.get(tiles.start).1;
        let at_once = W::panels_at_once(self.isa, height);
        // Few rows stay in the second-level cache whole: then a panel is read from end to end, as processors fetch ahead.
        let most = if tiles.len() > 1 && rows * self.k <= ROWS * DEPTH { 1 } else { PANELS };
        let (sums, wide) = (rows * Self::PANEL, if widens { DEPTH * Self::PANEL } else { 0 });
        scratch(most * sums + wide, |memory: &mut [W::Wide]| {
            let (memory, wide) = memory.split_at_mut(most * sums);
            for group in panels.clone().step_by(most) {
                let count = most.min(panels.end - group);
                for first_k in (0..self.k.max(1)).step_by(depth) {
                    let steps = depth.min(self.k - first_k);
                    let mut panel = 0;
                    while panel < count {
                        // The block's kernels are made for as many panels as fit the registers, and for one.
                        let now = if at_once <= count - panel && !widens { at_once } else { 1 };
                        let at = (group + panel) * self.k * Self::PANEL + first_k * Self::PANEL;
                        let weights = &self.packed[at..][..((now - 1) * self.k + steps) * Self::PANEL];
                        if widens {
                            W::widen_panels(self.isa, weights, wide);
                        }
                        for (row, rows) in tiles.clone().map(|tile| self.tiles.get(tile)) {
                            let own = (row - first_row) * Self::PANEL;
                            let block = Block {
                                steps,
                                rows,
                                x: &self.x[row * self.k + first_k * rows..][..steps * rows],
                                panels: now,
                                panel_stride: self.k * Self::PANEL,
                                sums: &mut memory[panel * sums..][..now * sums][own..],
                                sums_stride: sums,
                                fresh: first_k == 0,
                            };
                            if widens {
                                W::multiply_wide(self.isa, block, &wide[..steps * Self::PANEL]);
                            } else {
                                W::multiply(self.isa, block, weights);
                            }
                        }
                        panel += now;
                    }
                }
                for panel in 0..count {
                    self.finish(first_row, rows, group + panel, &mut memory[panel * sums..][..sums]);
                }
            }
        });
    }

    /// Adds the bias to what was summed of a panel, `[rows][PANEL]`, rounds it and writes it where it belongs.
    fn finish(&self, first_row: usize, rows: usize, panel: usize, sums: &mut [W::Wide]) {
        let first = panel * Self::PANEL;
        let columns = Self::PANEL.min(self.n - first);
        for (row, sums) in sums.chunks_exact_mut(Self::PANEL).enumerate() {
            let sums = &mut sums[..columns];
            if let Some(bias) = self.bias {
                sums.iter_mut().zip(&bias[first..]).for_each(|(sum, bias)| *sum = *sum + *bias);
            }
            debug_assert!(row < rows);
            // SAFETY: `matmul_packed_on` has checked that row `first_row + row < m` and columns below n lie in the slice that it
            // borrows mutably; tasks differ in their rows or in their panels, so nobody else touches these elements.
            let y = unsafe { std::slice::from_raw_parts_mut(self.y.add((first_row + row) * self.y_stride + first), columns) };
            Y::round_all(self.isa, sums, y);
        }
    }
}

#[cfg(test)]
mod tests;
