//! Products.

use bytemuck::{Pod, Zeroable};
use puna_tensor::op::{Activations, LowRank, Parts, Projection};
use puna_tensor::{BlockType, DType, Layout, Result, Shape, Tensor};

use super::copy::{as_rows, contiguous_as};
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::blocks::Blocks;
use crate::driver::Unit;
use crate::launch::{Grid, MOST_BLOCKS_ACROSS, Pointer, Strides, arguments};
use crate::view::View;

/// How many rows and columns of a result a block computes, of small results and large ones.
const TILES: [usize; 2] = [64, 128];

pub(super) fn family(x: DType, weight: DType, y: DType, large: bool) -> Unit {
    let define = if weight.block().is_some() { "B" } else { "W" };
    let tile = if large { "128" } else { "64" };
    unit("matmul.cu", [("X", type_name(x)), (define, type_name(weight)), ("Y", type_name(y)), ("TILE", tile), NONE])
}

/// Whether a result is large enough for the larger tile: most multiprocessors still have something to do.
fn is_large(cuda: &Cuda, m: usize, n: usize, batches: usize) -> bool {
    let [_, tile] = TILES;
    m > 64 && m.div_ceil(tile) * n.div_ceil(tile) * batches >= cuda.queue.card().multiprocessors / 2
}

/// A product `a b`, or `a b^T`, and what follows it before the one rounding.
#[derive(Clone, Copy)]
struct Product<'a> {
    /// `[.., M, K]`.
    a: View,
    /// `[.., K, N]`, or `[N, K]` where `transposed`; floats or blocks.
    b: View,
    transposed: bool,
    /// Added to the scaled product: `[M, N]`.
    add: Option<View>,
    scale: f64,
    /// `[N]`.
    factor: Option<View>,
    /// `[N]`.
    bias: Option<View>,
    /// `a` in integers, beside blocks.
    int8: Option<&'a Int8Rows>,
}

impl<'a> Product<'a> {
    fn new(a: View, b: View, transposed: bool) -> Self {
        Product { a, b, transposed, add: None, scale: 1.0, factor: None, bias: None, int8: None }
    }

    /// Into `c`, contiguous.
    fn run(&self, cuda: &Cuda, c: &View) -> Result<()> {
        run_all(cuda, &[(*self, *c)])
    }

    fn sizes(&self) -> Sizes {
        let split = |shape: &Shape| {
            let (leading, &[rows, columns]) = shape.split_last_chunk().expect("a matrix has two axes");
            (Shape::new(leading).expect("fewer axes than before"), rows, columns)
        };
        let ((leading_a, m, k), (leading_b, b0, b1)) = (split(self.a.shape()), split(self.b.shape()));
        let batch = leading_a.broadcast(&leading_b).expect("inference has found the shape that both broadcast to");
        Sizes { m, n: if self.transposed { b0 } else { b1 }, k, leading: [leading_a, leading_b], batch }
    }

    /// How `b` lies along n, and along k.
    fn strides_b(&self) -> (i64, i64) {
        let (s0, s1) = strides(&self.b);
        if self.transposed { (s0, s1) } else { (s1, s0) }
    }

    /// How both lie, where the tensor cores of sm_80 take them.
    fn lines(&self, cuda: &Cuda, sizes: &Sizes, c: DType) -> Option<[Lines; 2]> {
        if !fast(cuda, self.a.dtype, self.b.dtype, c) {
            return None;
        }
        let [leading_a, leading_b] = &sizes.leading;
        Some([Lines::of(&self.a, strides(&self.a), leading_a)?, Lines::of(&self.b, self.strides_b(), leading_b)?])
    }

    /// The product as one of rows that a weight streams past: those of 8-bit integers, and few others, for which the weight is what is waited for.
    fn streamed(&self, cuda: &Cuda, sizes: &Sizes, c: &View) -> Option<Streamed> {
        let Sizes { m, n, k, batch, .. } = sizes;
        let (lengths, c_at, after) = ([*m, *n, *k], c.pointer(), self.after());
        if let (Some(Int8Rows { q, d, sums }), Some(blocks)) = (self.int8, self.b.blocks()) {
            let many = *m > 16;
            let unit = linear_int8_sm80(self.b.dtype, c.dtype, many, self.b.packed);
            let (x, weight) = (Rows::Int8([q, d, sums].map(|view| view.pointer())), Weight::Blocks(blocks));
            return Some(Streamed { unit, lengths, rows: if many { 64 } else { 16 }, x, weight, after, c: c_at });
        }
        let [a, b] = self.lines(cuda, sizes, c.dtype)?;
        // Of f32 beside bf16 this is the product, whatever the number of rows.
        if a.turned || b.turned || batch.elements() != 1 || (*m > 16 && self.a.dtype == self.b.dtype) {
            return None;
        }
        let (x, weight) = (Rows::Plain(self.a.pointer(), a.stride), Weight::Lines(self.b.pointer(), b.stride));
        let unit = linear_sm80(self.a.dtype, self.b.dtype, c.dtype);
        Some(Streamed { unit, lengths, rows: 16, x, weight, after, c: c_at })
    }

    /// Of tiles that both operands are put into.
    fn run_tiled(&self, cuda: &Cuda, sizes: &Sizes, c: &View) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        let Sizes { m, n, k, leading: [leading_a, leading_b], batch } = sizes;
        let ([m, n, k], batches) = ([*m, *n, *k], batch.elements());
        let over = |view: &View, leading: &Shape| batch_strides(view, leading, batch);
        let (batch_a, batch_b) = (over(a, leading_a), over(b, leading_b));
        if a.dtype == b.dtype
            && let Some(lines) = self.lines(cuda, sizes, c.dtype)
        {
            return self.run_fast(cuda, c, [m, n, k], lines, (batch_a, batch_b, batches));
        }
        let ((sa_m, sa_k), (s0, s1)) = (strides(a), strides(b));
        // Rows of b as the kernel counts them: along k, or along n.
        let (sb0, sb1, by_rows) = match b.dtype {
            DType::Block(_) => (0, 0, !self.transposed),
            _ if self.transposed => (s0, s1, false),
            // As it lies in memory: k first, where n's elements are neighbours.
            _ if s1 == 1 => (s0, s1, true),
            _ => (s1, s0, false),
        };
        let mut arguments = arguments![c.pointer(), a.pointer(), batch_a, sa_m, sa_k];
        match b.blocks() {
            Some(blocks) => arguments.push(&blocks),
            None => arguments.push(&b.pointer()),
        }
        arguments![
            + arguments,
            batch_b,
            sb0,
            sb1,
            i32::from(by_rows),
            m as u32,
            n as u32,
            k as u32,
            batches as u32,
            View::pointer_of(self.add.as_ref()),
            self.scale,
            View::pointer_of(self.factor.as_ref()),
            View::pointer_of(self.bias.as_ref())
        ];
        // As many sums of doubles as the larger tile has a thread do not fit its registers.
        let large = a.dtype != DType::F64 && is_large(cuda, m, n, batches);
        let tile = TILES[usize::from(large)];
        let grid = Grid::of([n.div_ceil(tile), m.div_ceil(tile), batches.min(MOST_BLOCKS_ACROSS)]);
        cuda.launch(&family(a.dtype, b.dtype, c.dtype, large), "matmul", grid, &arguments)
    }
}

impl Product<'_> {
    /// What follows the sums, for kernels that form them in f32.
    fn after(&self) -> After {
        After {
            add: View::pointer_of(self.add.as_ref()),
            factor: View::pointer_of(self.factor.as_ref()),
            bias: View::pointer_of(self.bias.as_ref()),
            scale: self.scale as f32,
            unused: 0,
        }
    }

    /// On the tensor cores.
    fn run_fast(
        &self,
        cuda: &Cuda,
        c: &View,
        [m, n, k]: [usize; 3],
        [a, b]: [Lines; 2],
        (batch_a, batch_b, batches): (Strides, Strides, usize),
    ) -> Result<()> {
        let after = self.after();
        let (pa, pb) = (self.a.pointer(), self.b.pointer());
        let large = is_large(cuda, m, n, batches);
        let (tile, threads) = (TILES[usize::from(large)], if large { 256 } else { 128 });
        let family = matmul_sm80(self.a.dtype, c.dtype, [a.turned, b.turned], large);
        let arguments = arguments![
            c.pointer(),
            pa,
            batch_a,
            a.stride,
            pb,
            batch_b,
            b.stride,
            m as u32,
            n as u32,
            k as u32,
            batches as u32,
            after
        ];
        let grid = Grid::of([n.div_ceil(tile), m.div_ceil(tile), batches.min(MOST_BLOCKS_ACROSS)])
            .threads(threads)
            .shared(4 * 2 * tile * 64);
        cuda.launch(&family, "matmul_sm80", grid, &arguments)
    }
}

/// The lengths of a product `[.., M, K]` by `[.., K, N]`.
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
    /// The other axes of each.
    leading: [Shape; 2],
    /// What those broadcast to.
    batch: Shape,
}

/// The strides of the last two axes.
fn strides(view: &View) -> (i64, i64) {
    let strides = view.layout.strides();
    (strides[strides.len() - 2] as i64, strides[strides.len() - 1] as i64)
}

/// How many products one launch takes at most.
const TARGETS: usize = 3;

/// A product whose rows a weight streams past.
struct Streamed {
    unit: Unit,
    /// m, n, k.
    lengths: [usize; 3],
    /// How many rows of x a block takes.
    rows: usize,
    x: Rows,
    weight: Weight,
    after: After,
    c: Pointer,
}

#[derive(Clone, Copy, PartialEq)]
enum Rows {
    /// The first, and from a row to the next.
    Plain(Pointer, i64),
    /// Integers, scales, sums.
    Int8([Pointer; 3]),
}

#[derive(Clone, Copy)]
enum Weight {
    /// The first row, and from one to the next.
    Lines(Pointer, i64),
    Blocks(Blocks),
}

/// Products, each into what stands beside it: those that follow one another, of the same rows and kernel, in one launch.
fn run_all(cuda: &Cuda, products: &[(Product<'_>, View)]) -> Result<()> {
    let mut group: Vec<Streamed> = Vec::new();
    for (product, c) in products {
        let sizes = product.sizes();
        if sizes.m * sizes.n * sizes.batch.elements() == 0 {
            continue;
        }
        let Some(streamed) = product.streamed(cuda, &sizes, c) else {
            product.run_tiled(cuda, &sizes, c)?;
            continue;
        };
        let joins = |last: &Streamed| group.len() < TARGETS && last.unit == streamed.unit && last.x == streamed.x;
        if !group.last().is_some_and(joins) {
            stream(cuda, &group)?;
            group.clear();
        }
        group.push(streamed);
    }
    stream(cuda, &group)
}

/// One launch for all of a group.
fn stream(cuda: &Cuda, group: &[Streamed]) -> Result<()> {
    let Some(Streamed { unit, lengths: [m, _, k], rows, x, .. }) = group.first() else { return Ok(()) };
    let across = m.div_ceil(*rows);
    // A warp reads 16 rows of a weight. Few of them are spread over all multiprocessors; a result does not depend on its neighbours.
    let all: usize = group.iter().map(|product| product.lengths[1].div_ceil(16)).sum();
    let enough = 2 * cuda.queue.card().multiprocessors;
    let warps = [4, 2].into_iter().find(|warps| all * across / warps >= enough).unwrap_or(1);
    let mut begin = [u32::MAX; TARGETS];
    let mut blocks = 0;
    for (begin, product) in begin.iter_mut().zip(group) {
        *begin = blocks as u32;
        blocks += product.lengths[1].div_ceil(16 * warps);
    }
    // Of those that are not there, the first once more.
    let each: [&Streamed; TARGETS] = std::array::from_fn(|i| group.get(i).unwrap_or(&group[0]));
    let mut arguments = arguments![each.map(|product| product.c)];
    match each.map(|product| product.weight) {
        [Weight::Lines(a, sa), Weight::Lines(b, sb), Weight::Lines(c, sc)] => {
            arguments.push(&[a, b, c]);
            arguments.push(&[sa, sb, sc]);
        }
        [Weight::Blocks(a), Weight::Blocks(b), Weight::Blocks(c)] => arguments.push(&[a, b, c]),
        _ => unreachable!("one kernel takes one kind of weight"),
    }
    arguments![+ arguments, each.map(|product| product.after), each.map(|product| product.lengths[1] as u32), begin];
    let (entry, shared) = match x {
        Rows::Plain(first, stride) => {
            arguments![+ arguments, *first, *stride];
            ("linear_sm80", warps * 8 * 2048)
        }
        Rows::Int8(parts) => {
            parts.iter().for_each(|part| arguments.push(part));
            ("linear_int8_sm80", 0)
        }
    };
    arguments![+ arguments, *m as u32, *k as u32];
    let grid = Grid::of([blocks, across, 1]).threads(32 * warps as u32).shared(shared);
    cuda.launch(unit, entry, grid, &arguments)
}

/// Whether the tensor cores of sm_80 take operands of these dtypes.
pub(super) fn fast(cuda: &Cuda, a: DType, b: DType, c: DType) -> bool {
    let halves = matches!(a, DType::F16 | DType::BF16) && a == b && (c == a || c == DType::F32);
    // f16 has not the range that parts of an f32 need.
    let wide = a == DType::F32 && b == DType::BF16 && c == DType::F32;
    cuda.queue.card().capability >= 80 && (halves || wide)
}

pub(super) fn matmul_sm80(x: DType, y: DType, turned: [bool; 2], large: bool) -> Unit {
    let flag = |set: bool| if set { "1" } else { "0" };
    let size = if large { "2" } else { "1" };
    let [a, b] = turned.map(flag);
    unit("matmul_sm80.cu", [("T", type_name(x)), ("Y", type_name(y)), ("A_TURNED", a), ("B_TURNED", b), ("SIZE", size)])
}

pub(super) fn linear_sm80(x: DType, weight: DType, y: DType) -> Unit {
    unit("linear_sm80.cu", [("X", type_name(x)), ("T", type_name(weight)), ("Y", type_name(y)), NONE, NONE])
}

/// `After` of `mma.cuh`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct After {
    add: Pointer,
    factor: Pointer,
    bias: Pointer,
    scale: f32,
    unused: u32,
}

/// How an operand lies in memory, where its lines can be copied 16 bytes at a time.
#[derive(Clone, Copy)]
struct Lines {
    /// From a line to the next, in elements.
    stride: i64,
    /// Whether they run along the operand's rows, and not along k.
    turned: bool,
}

impl Lines {
    /// `strides`: along the rows, and along k.
    fn of(view: &View, (along_rows, along_k): (i64, i64), leading: &Shape) -> Option<Self> {
        // Depends on the lengths alone, not on how many lines there are: so a row has the same bits alone and among many.
        let lines = match (along_rows, along_k) {
            (stride, 1) if stride % 8 == 0 => Self { stride, turned: false },
            (1, stride) if stride % 8 == 0 => Self { stride, turned: true },
            _ => return None,
        };
        let batches = &view.layout.strides()[..leading.rank()];
        let aligned = view.pointer().0 % 16 == 0 && batches.iter().all(|stride| stride % 8 == 0);
        aligned.then_some(lines)
    }
}

/// Where each product's matrix begins.
fn batch_strides(view: &View, leading: &Shape, batch: &Shape) -> Strides {
    let shift = batch.rank() - leading.rank();
    let axis = |i: usize| match i.checked_sub(shift) {
        Some(own) if leading[own] != 1 || batch[i] == 1 => (batch[i], view.layout.strides()[own]),
        _ => (batch[i], 0),
    };
    Strides::new((0..batch.rank()).map(axis))
}

pub(super) fn matmul(cuda: &Cuda, a: &View, b: &View, c: &View) -> Result<()> {
    Product::new(*a, *b, false).run(cuda, c)
}

pub(super) const INT8: Unit = unit("int8.cu", [NONE; 5]);

pub(super) fn int8_blocks(cuda: &Cuda, x: &View, y: &View) -> Result<()> {
    let (columns, rows) = (x.shape().last(), x.shape().rows());
    let blocks = columns.div_ceil(32);
    if x.elements() == 0 {
        return Ok(());
    }
    let n = rows * blocks;
    let arguments = arguments![y.pointer(), x.pointer(), x.strides(), columns as u32, blocks as u32, n as u64];
    cuda.launch(&INT8, "int8_blocks", Grid::each(n * 32), &arguments)
}

/// A result `[.., N]` as `[rows, N]`.
fn result_rows(y: &View) -> View {
    y.in_shape([y.shape().rows(), y.shape().last()])
}

/// What a product with blocks reads in place of `x [rows, K]`.
pub(super) fn as_int8(cuda: &Cuda, x: &View) -> Result<Scratch> {
    let single = contiguous_as(cuda, x, DType::F32)?;
    let y = cuda.scratch(*x.shape(), DType::F32)?;
    int8_blocks(cuda, &single, &y)?;
    let wide = x.dtype.accumulator();
    if y.dtype == wide { Ok(y) } else { contiguous_as(cuda, &y, wide) }
}

pub(super) fn linears(cuda: &Cuda, parts: &[Parts], activations: Activations, inputs: &[&Tensor], y: &[View]) -> Result<()> {
    let x = as_rows(cuda, &View::of(inputs[0]))?;
    let mut rest = &inputs[1..];
    let mut projections = Vec::with_capacity(parts.len());
    for part in parts {
        let (these, others) = rest.split_at(part.inputs());
        projections.push(part.projection(these));
        rest = others;
    }
    let results: Vec<View> = y.iter().map(result_rows).collect();
    project(cuda, &x, activations, &projections, &results)
}

/// The products of `x [rows, K]` with several weights, into `y [rows, N]` each; blocks' activations are rounded once for all.
pub(super) fn project(cuda: &Cuda, x: &View, activations: Activations, projections: &[Projection<'_>], y: &[View]) -> Result<()> {
    let int8 = |weight: DType| weight.block().is_some() && activations == Activations::Int8;
    let as_integers = |weight: DType, y: DType| int8(weight) && fast_int8(cuda, weight, y);
    let each = || projections.iter().map(|projection| projection.weight.dtype()).zip(y.iter().map(|y| y.dtype));
    let integers = if each().any(|(weight, y)| as_integers(weight, y)) { Some(Int8Rows::new(cuda, x)?) } else { None };
    let rounded = each().any(|(weight, y)| int8(weight) && !as_integers(weight, y));
    let rounded = if rounded { Some(as_int8(cuda, x)?) } else { None };
    // Of the projections themselves, and of their low-rank pairs; what they read meanwhile.
    let (mut products, mut lower, mut upper, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (projection, y) in projections.iter().zip(y) {
        let weight = View::of(projection.weight);
        let a = match &rounded {
            Some(rounded) if int8(weight.dtype) => **rounded,
            _ => *x,
        };
        let int8 = integers.as_ref().filter(|_| as_integers(weight.dtype, y.dtype));
        let main = Product { int8, ..Product::new(a, weight, true) };
        let wide = y.dtype.accumulator();
        let mut vector = |tensor: Option<&Tensor>| -> Result<Option<View>> {
            let Some(tensor) = tensor else { return Ok(None) };
            kept.push(contiguous_as(cuda, &View::of(tensor), wide)?);
            Ok(kept.last().map(|vector| **vector))
        };
        let (factor, bias) = (vector(projection.factor)?, vector(projection.bias)?);
        let Some(LowRank { a, b, scale, .. }) = projection.adapter else {
            products.push((Product { factor, bias, ..main }, *y));
            continue;
        };
        let (sum, inner) = (cuda.scratch(*y.shape(), wide)?, cuda.scratch([x.shape()[0], a.dim(0)], wide)?);
        products.push((main, *sum));
        lower.push((Product::new(*x, View::of(a), true), *inner));
        upper.push((Product { add: Some(*sum), scale, factor, bias, ..Product::new(*inner, View::of(b), true) }, *y));
        kept.extend([sum, inner]);
    }
    [products, lower, upper].iter().try_for_each(|products| run_all(cuda, products))
}

/// Rows of 8-bit integers with their scales, and the sums of each 16.
struct Int8Rows {
    q: Scratch,
    d: Scratch,
    sums: Scratch,
}

impl Int8Rows {
    /// Those of `x [rows, K]`, K a multiple of 32.
    fn new(cuda: &Cuda, x: &View) -> Result<Self> {
        let single = contiguous_as(cuda, x, DType::F32)?;
        let (rows, k) = (x.shape()[0], x.shape()[1]);
        let q = cuda.scratch([rows, k], DType::U8)?;
        let (d, sums) = (cuda.scratch([rows, k / 32], DType::F32)?, cuda.scratch([rows, k / 16], DType::F32)?);
        let n = rows * k / 32;
        let arguments = arguments![q.pointer(), d.pointer(), sums.pointer(), single.pointer(), n as u64];
        cuda.launch(&INT8, "int8_rows", Grid::each(n * 32), &arguments)?;
        Ok(Self { q, d, sums })
    }
}

/// Whether the integer tensor cores of sm_80 take blocks of this format; NF4's levels are no multiples of a scale.
fn fast_int8(cuda: &Cuda, weight: DType, y: DType) -> bool {
    cuda.queue.card().capability >= 80 && weight != DType::Block(BlockType::Nf4) && y != DType::F64
}

pub(super) fn linear_int8_sm80(weight: DType, y: DType, many: bool, aligned: bool) -> Unit {
    let tokens = if many { "4" } else { "1" };
    let aligned = if aligned { "1" } else { "0" };
    let defines = [("B", type_name(weight)), ("Y", type_name(y)), ("TOKENS", tokens), ("ALIGNED", aligned), NONE];
    unit("linear_int8_sm80.cu", defines)
}

/// `x [rows, K]` times `weight [N, K]`, into `y [rows, N]` of any float dtype.
pub(super) fn times_transposed(cuda: &Cuda, x: &View, weight: &View, y: &View) -> Result<()> {
    Product::new(*x, *weight, true).run(cuda, y)
}

/// `dy [rows, N]` times `weight [N, K]`, into `dx [rows, K]`.
pub(super) fn times(cuda: &Cuda, dy: &View, weight: &View, dx: &View) -> Result<()> {
    Product::new(*dy, *weight, false).run(cuda, dx)
}

/// The same, added to `sum [rows, K]` where there is something in it.
pub(super) fn add_times(cuda: &Cuda, dy: &View, weight: &View, add: bool, sum: &View) -> Result<()> {
    Product { add: add.then_some(*sum), ..Product::new(*dy, *weight, false) }.run(cuda, sum)
}

/// `dy^T x`, added to `sum [N, K]` where there is something in it.
pub(super) fn add_outer(cuda: &Cuda, dy: &View, x: &View, add: bool, sum: &View) -> Result<()> {
    let turned = dy.with(transpose(&dy.layout));
    let product = Product::new(turned, *x, false);
    Product { add: add.then_some(*sum), ..product }.run(cuda, sum)
}

fn transpose(layout: &Layout) -> Layout {
    layout.permute(&[1, 0].into()).expect("a matrix of floats")
}

pub(super) fn linear_input_grad(cuda: &Cuda, dy: &View, weight: &View, dx: &View) -> Result<()> {
    let dy = as_rows(cuda, dy)?;
    times(cuda, &dy, weight, &result_rows(dx))
}
