use super::{Args, Inferred, Op};
use crate::{DType, Result, Tensor};

/// Which two elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// `2 i` and `2 i + 1`: Meta's checkpoints, and GGUF's.
    Interleaved,
    /// `i` and `i + head_dim / 2`: Hugging Face's checkpoints.
    Halves,
}

/// Rotary position embedding: each pair of a head turns by the angle of its position.
///
/// `y0 = x0 * cos - x1 * sin`, `y1 = x1 * cos + x0 * sin`, for pair `i` of token `t` with `cos[positions[t], i]` and `sin` alike.
///
/// `x: [tokens, heads, head_dim]` float; `cos`, `sin: [rows, head_dim / 2]` f32 (or f64), made on the host in f64;
/// `positions: [tokens]` u32, rows of the table, one out of range reads zeros. Result in the dtype and shape of `x`; computed in f32 (f64 for f64), rounded once.
/// `inverse` turns back: the derivative.
///
/// Su and others 2021, arXiv 2104.09864.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rope {
    /// Which elements pair.
    pub pairs: RopePairs,
    /// Whether to turn the other way.
    pub inverse: bool,
}

impl Rope {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [x, cos, sin, positions] = args.named(["x", "cos", "sin", "positions"])?;
        infer_rotary(args, "x", x, cos, sin, positions)?;
        Ok(Inferred::one(*x.shape(), x.dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (x, cos, sin, positions) = (inputs[0], inputs[1], inputs[2], inputs[3]);
        let wide = x.dtype().accumulator();
        let [tokens, heads, dim] = [x.dim(0), x.dim(1), x.dim(2)];
        let half = dim / 2;
        let turn = |table: &Tensor| table.gather_rows(positions)?.cast(wide)?.reshape([tokens, 1, half]);
        let (cos, sin) = (turn(cos)?, turn(sin)?);
        let sin = if self.inverse { sin.neg()? } else { sin };
        // The pair is an axis of its own: before the index in halves, behind it interleaved.
        let (shape, axis) = match self.pairs {
            RopePairs::Halves => ([tokens, heads, 2, half], 2),
            RopePairs::Interleaved => ([tokens, heads, half, 2], 3),
        };
        let pairs = x.cast(wide)?.reshape(shape)?;
        let element = |i| pairs.slice(axis, i, 1)?.reshape([tokens, heads, half]);
        let (x0, x1) = (element(0)?, element(1)?);
        let y0 = x0.mul(&cos)?.sub(&x1.mul(&sin)?)?.unsqueeze(axis)?;
        let y1 = x1.mul(&cos)?.add(&x0.mul(&sin)?)?.unsqueeze(axis)?;
        Ok(vec![Tensor::concat(&[&y0, &y1], axis)?.reshape(*x.shape())?.cast(x.dtype())?])
    }
}

/// Turns q and k and writes k and v into a cache's pages, in one.
///
/// `q: [tokens, heads, head_dim]`, `k`, `v: [tokens, kv_heads, head_dim]` of one float dtype; `cos`, `sin`, `positions` as [`Rope`];
/// `k_pages`, `v_pages: [pages, page_size, kv_heads, head_dim]` of any float dtype, changed in place; `slots: [tokens]` u32: token
/// `t`'s row in the pages is `slots[t] = page * page_size + place`; one out of range is not written. Result: q, turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RopeAndCache {
    /// Which elements pair.
    pub pairs: RopePairs,
}

impl RopeAndCache {
    pub(super) const CHANGES: &'static [usize] = &[6, 7];

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [q, k, v, cos, sin, positions, k_pages, v_pages, slots] =
            args.named(["q", "k", "v", "cos", "sin", "positions", "k_pages", "v_pages", "slots"])?;
        infer_rotary(args, "q", q, cos, sin, positions)?;
        infer_rotary(args, "k", k, cos, sin, positions)?;
        args.same_dtype(["q", "k"], q, k)?;
        args.same_dtype(["k", "v"], k, v)?;
        args.shape("v", v, *k.shape(), "k")?;
        args.float("k_pages", k_pages)?;
        args.same_dtype(["k_pages", "v_pages"], k_pages, v_pages)?;
        let [pages, page_size, kv_heads, dim] = args.axes("k_pages", k_pages, "[pages, page_size, kv_heads, head_dim]")?;
        args.shape("k", k, [q.dim(0), kv_heads, dim], &format!("q {} and k_pages {}", q.shape(), k_pages.shape()))?;
        args.shape("v_pages", v_pages, [pages, page_size, kv_heads, dim], "k_pages")?;
        args.dtype("slots", slots, DType::U32)?;
        args.shape("slots", slots, q.dim(0), &format!("q {}", q.shape()))?;
        Ok(Inferred::one(*q.shape(), q.dtype()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [q, k, v, cos, sin, positions, k_pages, v_pages, slots] = inputs else { unreachable!("inference has counted them") };
        for (pages, rows) in [(k_pages, k.rope(cos, sin, positions, self.pairs)?), (v_pages, (*v).clone())] {
            let shape = pages.shape();
            let flat = pages.reshape([shape[0] * shape[1], shape[2], shape[3]])?;
            flat.scatter_rows(slots, &rows)?;
            // Strides that do not allow the reshape made it a copy.
            if !flat.buffer().is_same(pages.buffer()) {
                pages.assign(&flat.reshape(*shape)?)?;
            }
        }
        Ok(vec![q.rope(cos, sin, positions, self.pairs)?])
    }
}

fn infer_rotary(args: &Args, name: &str, x: &Tensor, cos: &Tensor, sin: &Tensor, positions: &Tensor) -> Result<()> {
    args.float(name, x)?;
    args.float("cos", cos)?;
    args.same_dtype(["cos", "sin"], cos, sin)?;
    let [tokens, _, dim] = args.axes(name, x, "[tokens, heads, head_dim]")?;
    if dim % 2 != 0 {
        return Err(args.shape_error(format!("{name} {}: head_dim must be even", x.shape())));
    }
    let [rows, _] = args.axes("cos", cos, "[rows, head_dim / 2]")?;
    args.shape("cos", cos, [rows, dim / 2], &format!("{name} {}", x.shape()))?;
    args.shape("sin", sin, *cos.shape(), "cos")?;
    args.dtype("positions", positions, DType::U32)?;
    args.shape("positions", positions, tokens, &format!("{name} {}", x.shape()))
}

/// What [`RopeAndCache`] takes beside q.
#[derive(Debug, Clone, Copy)]
pub struct RopeAndCacheInputs<'a> {
    /// `[tokens, kv_heads, head_dim]`.
    pub k: &'a Tensor,
    /// As `k`.
    pub v: &'a Tensor,
    /// `[rows, head_dim / 2]`.
    pub cos: &'a Tensor,
    /// As `cos`.
    pub sin: &'a Tensor,
    /// `[tokens]` u32.
    pub positions: &'a Tensor,
    /// `[pages, page_size, kv_heads, head_dim]`, changed.
    pub k_pages: &'a Tensor,
    /// As `k_pages`, changed.
    pub v_pages: &'a Tensor,
    /// `[tokens]` u32.
    pub slots: &'a Tensor,
}

/// # Rotary positions
impl Tensor {
    /// Turned by position: see [`Rope`].
    pub fn rope(&self, cos: &Tensor, sin: &Tensor, positions: &Tensor, pairs: RopePairs) -> Result<Tensor> {
        Op::Rope(Rope { pairs, inverse: false }).apply(&[self, cos, sin, positions])?.one()
    }

    /// This q turned; k turned and v written into a cache's pages: see [`RopeAndCache`].
    pub fn rope_and_cache(&self, with: RopeAndCacheInputs<'_>, pairs: RopePairs) -> Result<Tensor> {
        let RopeAndCacheInputs { k, v, cos, sin, positions, k_pages, v_pages, slots } = with;
        Op::RopeAndCache(RopeAndCache { pairs }).apply(&[self, k, v, cos, sin, positions, k_pages, v_pages, slots])?.one()
    }
}
