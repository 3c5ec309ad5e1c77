//! Products.

use puna_tensor::op::{Activations, LowRank, Parts, Projection};
use puna_tensor::{DType, Layout, Result, Shape, Tensor};

use super::copy::{WholeWords, as_rows, contiguous, contiguous_as};
use super::parts::{halves, in_parts};
use super::with_blocks;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Grid, MOST_GROUPS, Strides, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// How many rows and columns of a result a workgroup computes.
const TILE: usize = 64;

/// The most rows whose products wait for the weight, rather than for arithmetic.
const FEW: usize = 16;

/// A product `a b`, or `a b^T`, and what follows it before the one rounding.
#[derive(Clone)]
struct Product {
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
}

impl Product {
    fn new(a: View, b: View, transposed: bool) -> Self {
        Product { a, b, transposed, add: None, scale: 1.0, factor: None, bias: None }
    }

    /// Into `c`, contiguous.
    fn run(self, wgpu: &Wgpu, c: &View) -> Result<()> {
        let columns = c.shape().last();
        let result = WholeWords::new(wgpu, c, columns)?;
        if self.b.dtype.block().is_some() {
            // Beside blocks activations are few: widened and in order they need no kernels of their own for each format.
            let wide = contiguous_as(wgpu, &self.a, DType::F32)?;
            Product { a: (*wide).clone(), ..self }.run_parts(wgpu, result.view())?;
        } else {
            self.run_parts(wgpu, result.view())?;
        }
        result.finish(wgpu)
    }

    /// Matrices that no binding shows at once are worked on in parts of the result: of batches, then of rows, then of columns.
    fn run_parts(&self, wgpu: &Wgpu, c: &View) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        let hidden = |view: &View| !wgpu.shows(view);
        if ![Some(a), Some(b), self.add.as_ref(), Some(c)].into_iter().flatten().any(hidden) {
            return self.launch(wgpu, c);
        }
        let leading = c.shape().rank() - 2;
        if leading > 0 {
            let over = |view: &View| {
                let matrix = &view.shape()[view.shape().rank() - 2..];
                view.to(&Shape::new(&[&c.shape()[..leading], matrix].concat()).expect("as many axes as the result has"))
            };
            return in_parts(wgpu, leading, [c], [&over(a), &over(b)], &|[c], [a, b]| {
                let of = |a: &View, b: &View| Product { a: a.clone(), b: b.clone(), ..self.clone() };
                if batch_of(c) > 1 || ![c, a, b].into_iter().any(hidden) {
                    return of(a, b).launch(wgpu, c);
                }
                let matrix = |view: &View| {
                    let [.., rows, columns] = view.shape()[..] else { unreachable!("a matrix has two axes") };
                    view.reshape(&[rows, columns].into()).expect("axes of one entry may go")
                };
                of(&matrix(a), &matrix(b)).run_parts(wgpu, &matrix(c))
            });
        }
        // A part that lies among others is brought together, so that a binding shows it.
        if hidden(a) && a.bytes() <= wgpu.window() {
            let a = contiguous(wgpu, a)?;
            return Product { a: (*a).clone(), ..self.clone() }.run_parts(wgpu, c);
        }
        if hidden(b) && b.bytes() <= wgpu.window() {
            let b = contiguous(wgpu, b)?;
            return Product { b: (*b).clone(), ..self.clone() }.run_parts(wgpu, c);
        }
        let (axis, length) = if hidden(b) { (1, c.shape()[1]) } else { (0, c.shape()[0]) };
        // As many as fill tiles, as long as there are some; blocks are cut behind whole ones.
        let tiles = if length > TILE { TILE } else { 4 };
        let step = if axis == 1 && !self.transposed { tiles.max(b.dtype.unit()) } else { tiles };
        let Some(halves) = halves(length, step) else { return self.launch(wgpu, c) };
        halves.into_iter().try_for_each(|(first, length)| {
            let cut = |view: &View, axis: usize| view.part(axis, first, length);
            let mut part = self.clone();
            part.add = self.add.as_ref().map(|add| cut(add, axis));
            if axis == 0 {
                part.a = cut(a, 0);
            } else {
                part.b = cut(b, usize::from(!self.transposed));
                part.factor = self.factor.as_ref().map(|factor| cut(factor, 0));
                part.bias = self.bias.as_ref().map(|bias| cut(bias, 0));
            }
            part.run_parts(wgpu, &cut(c, axis))
        })
    }

    fn launch(&self, wgpu: &Wgpu, c: &View) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        let split = |shape: &Shape| {
            let (leading, &[rows, columns]) = shape.split_last_chunk().expect("a matrix has two axes");
            (Shape::new(leading).expect("fewer axes than before"), rows, columns)
        };
        let ((leading_a, m, k), (leading_b, ..)) = (split(a.shape()), split(b.shape()));
        let n = c.shape().last();
        let batch = leading_a.broadcast(&leading_b).expect("inference has found the shape that both broadcast to");
        let batches = batch.elements();
        if m * n * batches == 0 {
            return Ok(());
        }
        let strides = |view: &View| {
            let strides = view.layout.strides();
            (strides[strides.len() - 2], strides[strides.len() - 1])
        };
        let over = |view: &View, leading: &Shape| batch_strides(view, leading, &batch);
        let (sa_m, sa_k) = strides(a);
        let (s0, s1) = strides(b);
        // Rows of b as the kernel counts them: along k, or along n.
        let (sb0, sb1, by_rows) = match b.dtype {
            DType::Block(block) => (s0 / block.values() * block.bytes(), 1, !self.transposed),
            _ if self.transposed => (s0, s1, false),
            // As it lies in memory: k first, where n's elements are neighbours.
            _ if s1 == 1 => (s0, s1, true),
            _ => (s1, s0, false),
        };
        let unit = Unit::new("matmul.wgsl", [("X", Number::of(a.dtype)), ("W", Number::of(b.dtype)), ("Y", Number::of(c.dtype))]);
        let unit = match b.dtype {
            DType::Block(block) => with_blocks(unit, block).with("BLOCKS", 1),
            _ => unit,
        };
        let tail = [&self.add, &self.factor, &self.bias].map(Option::as_ref);
        let has = tail.iter().enumerate().map(|(i, part)| u32::from(part.is_some()) << i).sum::<u32>();
        let (batch_a, batch_b, pitch) = (over(a, &leading_a), over(b, &leading_b), strides(c).0);
        let parameters = parameters![batch_a, batch_b, sa_m, sa_k, sb0, sb1, m, n, k, batches, pitch, has, self.scale as f32];
        let views = [Some(c), Some(a), Some(b), tail[0], tail[1], tail[2]];
        if let Some(lanes) = wgpu.lanes() {
            let (rows, columns) = (lanes_rows(m), LANES_COLUMNS);
            // What is read there is compiled for each of the invocation's results, so only where there is any.
            let unit = unit.with("TAIL", u32::from(has != 0));
            let unit = unit.with("LANES", lanes).with("ROWS", rows as u32).with("COLUMNS", columns as u32);
            let unit = unit.with("ONE", u32::from(m == 1)).with("B_ROWS", u32::from(by_rows));
            let unit = unit.with("ALONG_K", u32::from(!by_rows && sb1 == 1));
            let grid = [n.div_ceil(lanes as usize * columns), m.div_ceil(4 * rows), batches.min(MOST_GROUPS)];
            return wgpu.launch(&unit, "matmul_lanes", Grid::of(grid), &views, &parameters);
        }
        let unit = unit.with("TAIL", 1);
        if m <= FEW && batches == 1 && sa_k == 1 && !by_rows && sb1 == 1 {
            let columns = 64 * Number::of(c.dtype).count();
            let unit = unit.with("ONE", u32::from(m == 1));
            return wgpu.launch(&unit, "matmul_few", Grid::of([n.div_ceil(columns), m.div_ceil(4), 1]), &views, &parameters);
        }
        let grid = Grid::of([n.div_ceil(TILE), m.div_ceil(TILE), batches.min(MOST_GROUPS)]);
        let unit =
            unit.with("A_FOURS", u32::from(sa_k == 1)).with("B_ROWS", u32::from(by_rows)).with("B_FOURS", u32::from(sb1 == 1));
        wgpu.launch(&unit, "matmul", grid, &views, &parameters)
    }
}

/// How many matrices a view has.
fn batch_of(view: &View) -> usize {
    view.shape()[..view.shape().rank() - 2].iter().product()
}

/// The columns that an invocation of `matmul_lanes` computes.
const LANES_COLUMNS: usize = 4;

/// The fours of rows that it computes of `m`: many are read less often, and take longer to compile.
fn lanes_rows(m: usize) -> usize {
    match m {
        1..=4 => 1,
        5..=255 => 4,
        _ => 8,
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

pub(super) fn matmul(wgpu: &Wgpu, a: &View, b: &View, c: &View) -> Result<()> {
    Product::new(a.clone(), b.clone(), false).run(wgpu, c)
}

pub(super) fn int8_blocks(wgpu: &Wgpu, x: &View, y: &View) -> Result<()> {
    let columns = x.shape().last();
    let blocks = columns.div_ceil(32);
    if x.elements() == 0 {
        return Ok(());
    }
    in_parts(wgpu, y.shape().rank() - 1, [y], [x], &|[y], [x]| {
        let n = x.shape().rows() * blocks;
        let parameters = parameters![x.strides(), columns, blocks, n];
        wgpu.launch(&Unit::new("int8.wgsl", []), "int8_blocks", Grid::each(n), &[Some(y), Some(x)], &parameters)
    })
}

/// A result `[.., N]` as `[rows, N]`.
fn result_rows(y: &View) -> View {
    y.in_shape([y.shape().rows(), y.shape().last()])
}

/// What a product with blocks reads in place of `x [rows, K]`.
fn as_int8(wgpu: &Wgpu, x: &View) -> Result<Scratch> {
    let single = contiguous_as(wgpu, x, DType::F32)?;
    let y = wgpu.scratch(*x.shape(), DType::F32)?;
    int8_blocks(wgpu, &single, &y)?;
    Ok(y)
}

pub(super) fn linears(wgpu: &Wgpu, parts: &[Parts], activations: Activations, inputs: &[&Tensor], y: &[View]) -> Result<()> {
    let x = as_rows(wgpu, &View::of(inputs[0]))?;
    let mut rest = &inputs[1..];
    let mut projections = Vec::with_capacity(parts.len());
    for part in parts {
        let (these, others) = rest.split_at(part.inputs());
        projections.push(part.projection(these));
        rest = others;
    }
    let results: Vec<View> = y.iter().map(result_rows).collect();
    project(wgpu, &x, activations, &projections, &results)
}

/// The products of `x [rows, K]` with several weights, into `y [rows, N]` each; blocks' activations are rounded once for all.
pub(super) fn project(wgpu: &Wgpu, x: &View, activations: Activations, projections: &[Projection<'_>], y: &[View]) -> Result<()> {
    let mut rounded = None;
    for (projection, y) in projections.iter().zip(y) {
        let weight = View::of(projection.weight);
        let product = if weight.dtype.block().is_some() && activations == Activations::Int8 {
            let read = match &mut rounded {
                Some(read) => read,
                none => none.insert(as_int8(wgpu, x)?),
            };
            Product::new((**read).clone(), weight, true)
        } else {
            Product::new(x.clone(), weight, true)
        };
        linear(wgpu, x, product, projection, y)?;
    }
    Ok(())
}

/// One product, and the low-rank pair of its projection, which meets `x`.
fn linear(wgpu: &Wgpu, x: &View, main: Product, projection: &Projection<'_>, y: &View) -> Result<()> {
    let vector = |tensor: Option<&Tensor>| tensor.map(|tensor| contiguous_as(wgpu, &View::of(tensor), DType::F32)).transpose();
    let (factor, bias) = (vector(projection.factor)?, vector(projection.bias)?);
    let Some(LowRank { a, b, scale, .. }) = projection.adapter else {
        return Product { factor: factor.as_deref().cloned(), bias: bias.as_deref().cloned(), ..main }.run(wgpu, y);
    };
    let (rows, rank) = (x.shape()[0], a.dim(0));
    let sum = wgpu.scratch(*y.shape(), DType::F32)?;
    main.run(wgpu, &sum)?;
    let inner = wgpu.scratch([rows, rank], DType::F32)?;
    Product::new(x.clone(), View::of(a), true).run(wgpu, &inner)?;
    let outer = Product::new((*inner).clone(), View::of(b), true);
    let (add, factor, bias) = (Some((*sum).clone()), factor.as_deref().cloned(), bias.as_deref().cloned());
    Product { add, scale, factor, bias, ..outer }.run(wgpu, y)
}

/// `x [rows, K]` times `weight [N, K]`, into `y [rows, N]` of any float dtype.
pub(super) fn times_transposed(wgpu: &Wgpu, x: &View, weight: &View, y: &View) -> Result<()> {
    Product::new(x.clone(), weight.clone(), true).run(wgpu, y)
}

/// `dy [rows, N]` times `weight [N, K]`, into `dx [rows, K]`.
pub(super) fn times(wgpu: &Wgpu, dy: &View, weight: &View, dx: &View) -> Result<()> {
    Product::new(dy.clone(), weight.clone(), false).run(wgpu, dx)
}

/// `dy^T x`, added to `sum [N, K]` where there is something in it.
pub(super) fn add_outer(wgpu: &Wgpu, dy: &View, x: &View, add: bool, sum: &View) -> Result<()> {
    let product = Product::new(dy.with(transpose(&dy.layout)), x.clone(), false);
    if !add {
        return product.run(wgpu, sum);
    }
    // A kernel that writes a buffer may not read it too: the sum so far is read from a copy.
    let before = wgpu.scratch(*sum.shape(), sum.dtype)?;
    super::copy::copy(wgpu, sum, &before, true)?;
    Product { add: Some((*before).clone()), ..product }.run(wgpu, sum)
}

fn transpose(layout: &Layout) -> Layout {
    layout.permute(&[1, 0].into()).expect("a matrix of floats")
}

pub(super) fn linear_input_grad(wgpu: &Wgpu, dy: &View, weight: &View, dx: &View) -> Result<()> {
    let dy = as_rows(wgpu, dy)?;
    times(wgpu, &dy, weight, &result_rows(dx))
}
