//! Products with weights: one task a range of the weight's rows, for one row of activations and for many.

use puna_tensor::op::{Activations, LowRank, Projection};
use puna_tensor::{DType, Result, Tensor};

use super::blocks::{with_integers, with_rounded};
use super::tile::{Tile, Tiles};
use super::weight::Weight;
use crate::backend::Cpu;
use crate::ops::wide::{Source, Wide, buffer, scratch};
use crate::simd::quant::ActivationBlock;

/// Rows `[rows, k]` of activations, side by side in the accumulating type.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, W> {
    pub(crate) values: &'a [W],
    pub(crate) rows: usize,
    pub(crate) k: usize,
}

/// Calls `f` with the rows of a tensor: all axes but the last.
pub(crate) fn with_rows<W: Wide, R>(cpu: &Cpu, x: &Tensor, f: impl FnOnce(Rows<'_, W>) -> Result<R>) -> Result<R> {
    let (rows, k) = (x.shape().rows(), x.shape().last());
    let source = Source::new(x);
    if source.is_direct::<W>() && x.layout().is_contiguous() {
        let all = bytemuck::cast_slice(&source.memory()[x.byte_range()]);
        return f(Rows { values: all, rows, k });
    }
    buffer(cpu, rows * k, |values: &mut [W]| {
        let per_task = ((16 << 10) / k.max(1)).max(1);
        cpu.pool.chunks_mut(values, per_task * k, |i, values| {
            for (r, row) in values.chunks_exact_mut(k).enumerate() {
                source.load(source.layout().row_offset(i * per_task + r), row);
            }
        });
        f(Rows { values, rows, k })
    })
}

/// A projection and where its result `[rows, n]` of a dtype goes.
pub(crate) struct Product<'a> {
    pub(crate) projection: Projection<'a>,
    pub(crate) into: &'a mut [u8],
}

/// What a product reads of its activations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Exact,
    /// Blocks of 8-bit integers.
    Integers,
    /// What those integers stand for.
    Rounded,
}

/// What is computed of one projection.
struct Plan<'a, W> {
    weight: Weight<'a>,
    reads: Reads,
    /// Added to the sums: the low-rank term `[rows, n]`, not scaled yet, and its scale.
    low_rank: Option<(Vec<W>, W)>,
    /// What every row is multiplied by then.
    factor: Option<Vec<W>>,
    /// Added to every row at last: the bias.
    bias: Option<Vec<W>>,
}

/// Several products of the same rows, each rounded to `dtype` once.
pub(crate) fn project<'p, W: Wide>(
    cpu: &Cpu,
    x: Rows<'_, W>,
    activations: Activations,
    dtype: DType,
    products: &mut [Product<'p>],
) -> Result<()> {
    let plan = |product: &Product<'p>| plan(cpu, x, activations, product.projection);
    if let [product] = products {
        // Most often there is one; the others share what is made of the rows below.
        let plans = [plan(product)?];
        return with_int8(cpu, x, &plans, |read| run(cpu, read, dtype, &plans, std::slice::from_mut(product)));
    }
    let plans = products.iter().map(plan).collect::<Result<Vec<_>>>()?;
    with_int8(cpu, x, &plans, |read| run(cpu, read, dtype, &plans, products))
}

fn plan<'a, W: Wide>(cpu: &Cpu, x: Rows<'_, W>, activations: Activations, projection: Projection<'a>) -> Result<Plan<'a, W>> {
    let Projection { weight, bias, adapter, factor } = projection;
    let load = |row: &Tensor| {
        let source = Source::new(row);
        let mut values = vec![W::ZERO; row.elements()];
        source.load(source.layout().offset(), &mut values);
        values
    };
    let weight = Weight::new(weight);
    let reads = match activations {
        Activations::Int8 if weight.takes_integers::<W>() => Reads::Integers,
        Activations::Int8 if weight.is_of_blocks() => Reads::Rounded,
        _ => Reads::Exact,
    };
    Ok(Plan {
        weight,
        reads,
        low_rank: adapter.map(|adapter| low_rank(cpu, x, adapter)).transpose()?,
        factor: factor.map(load),
        bias: bias.map(load),
    })
}

/// `(x a^T) b^T`, in the accumulating type.
fn low_rank<W: Wide>(cpu: &Cpu, x: Rows<'_, W>, LowRank { a, b, scale, dropout }: LowRank<'_>) -> Result<(Vec<W>, W)> {
    debug_assert!(dropout.is_none(), "what drops is lowered");
    let times = |x: Rows<'_, W>, weight: &Tensor| {
        let mut y = vec![W::ZERO; x.rows * weight.dim(0)];
        let into = bytemuck::cast_slice_mut(&mut y);
        project(cpu, x, Activations::Exact, W::DTYPE, &mut [Product { projection: weight.into(), into }])?;
        Ok::<_, puna_tensor::Error>(y)
    };
    let inner = times(x, a)?;
    Ok((times(Rows { values: &inner, rows: x.rows, k: a.dim(0) }, b)?, W::of(scale)))
}

/// The rows as the products read them, in each way that one of them does.
struct Read<'a, W> {
    exact: Rows<'a, W>,
    integers: Option<&'a [ActivationBlock]>,
    rounded: Option<Rows<'a, W>>,
}

fn with_int8<W: Wide>(
    cpu: &Cpu,
    x: Rows<'_, W>,
    plans: &[Plan<'_, W>],
    f: impl FnOnce(&Read<'_, W>) -> Result<()>,
) -> Result<()> {
    let some = |reads| plans.iter().any(|plan| plan.reads == reads);
    let integers = some(Reads::Integers);
    if some(Reads::Rounded) {
        return with_rounded(cpu, x, |rounded| read(cpu, Read { exact: x, integers: None, rounded: Some(rounded) }, integers, f));
    }
    read(cpu, Read { exact: x, integers: None, rounded: None }, integers, f)
}

fn read<W: Wide>(cpu: &Cpu, x: Read<'_, W>, integers: bool, f: impl FnOnce(&Read<'_, W>) -> Result<()>) -> Result<()> {
    if integers {
        return with_integers(cpu, bytemuck::cast_slice(x.exact.values), |q| f(&Read { integers: Some(q), ..x }));
    }
    f(&x)
}

fn run<W: Wide>(cpu: &Cpu, x: &Read<'_, W>, dtype: DType, plans: &[Plan<'_, W>], products: &mut [Product<'_>]) -> Result<()> {
    let Rows { rows, k, .. } = x.exact;
    let rest = plans.iter().zip(products).enumerate().filter_map(|(i, (plan, Product { into, .. }))| {
        let (weight, bias) = (&plan.weight, plan.bias.as_deref());
        let bare = plan.low_rank.is_none() && plan.factor.is_none();
        let whole = plan.reads == Reads::Exact && bare && weight.times_all(&cpu.pool, x.exact, bias, dtype, into);
        (!whole).then(|| (i, weight.n, weight.group::<W>(), &mut **into))
    });
    let mut tiles = Tiles::cut(cpu, rest, rows, k, dtype);
    tiles.run(cpu, |tile| compute(cpu, x, dtype, &plans[tile.product], tile));
    Ok(())
}

/// How many elements of the weight are widened or decoded at a time: they stay in the second-level cache.
const LAID: usize = 128 << 10;
/// How many columns of a tile of many rows are computed before they are rounded and written.
const COLUMNS: usize = 512;

/// One tile: some columns at a time into scratch, then what is added, then the one rounding.
fn compute<W: Wide>(cpu: &Cpu, x: &Read<'_, W>, dtype: DType, plan: &Plan<'_, W>, tile: &mut Tile<'_>) {
    let Tile { rows, columns, into, .. } = tile;
    let (element, n, group) = (dtype.unit_bytes(), plan.weight.n, plan.weight.group::<W>());
    let most = if plan.reads == Reads::Integers { COLUMNS } else { COLUMNS.min(LAID / plan.weight.k.max(1)) };
    let width = columns.len().min(most.next_multiple_of(group).max(group));
    scratch(rows.len() * width, |sums: &mut [W]| {
        for first in columns.clone().step_by(width) {
            let some = first..(first + width).min(columns.end);
            // Side by side, so that a whole tile is one matrix.
            let stride = some.len();
            let sums = &mut sums[..rows.len() * stride];
            match (plan.reads, x.integers, x.rounded) {
                (Reads::Integers, Some(q), _) => plan.weight.times_integers(q, rows.clone(), some.clone(), sums),
                (Reads::Rounded, _, Some(x)) => plan.weight.times(&cpu.pool, x, rows.clone(), some.clone(), sums),
                _ => plan.weight.times(&cpu.pool, x.exact, rows.clone(), some.clone(), sums),
            }
            for ((row, sums), run) in rows.clone().zip(sums.chunks_exact_mut(stride)).zip(into.get()) {
                if let Some((low_rank, scale)) = &plan.low_rank {
                    let low_rank = &low_rank[row * n..][some.clone()];
                    sums.iter_mut().zip(low_rank).for_each(|(y, low)| *y += *low * *scale);
                }
                if let Some(factor) = &plan.factor {
                    sums.iter_mut().zip(&factor[some.clone()]).for_each(|(y, factor)| *y *= *factor);
                }
                if let Some(bias) = &plan.bias {
                    sums.iter_mut().zip(&bias[some.clone()]).for_each(|(y, bias)| *y += *bias);
                }
                W::store(dtype, sums, &mut run[(first - columns.start) * element..][..stride * element]);
            }
        }
    });
}
