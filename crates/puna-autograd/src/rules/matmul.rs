//! Derivatives of products.

use puna_tensor::op::{Linear, Linears, LowRankParts, Parts};
use puna_tensor::{Result, Tensor};

use super::{Context, Flowed, rows, sum_to};

pub(super) fn matmul(c: &Context) -> Flowed {
    let dy = c.dy()?;
    let swap = |x: Tensor| x.transpose(x.rank() - 2, x.rank() - 1);
    let left = c.wanted(0, || sum_to(dy.matmul(&swap(c.input(1)?)?)?, c.shape(0)))?;
    let right = c.wanted(1, || {
        let (lhs, shape) = (c.input(0)?, c.shape(1));
        // A matrix that every batch shares is one product over all rows.
        if shape.rank() == 2 && lhs.rank() > 2 {
            return rows(&lhs)?.transpose(0, 1)?.matmul(&rows(dy)?);
        }
        sum_to(swap(lhs)?.matmul(dy)?, shape)
    })?;
    Ok(vec![left, right])
}

/// With neither dropout nor factor, which go through what the op is composed of.
pub(super) fn linear(c: &Context, op: &Linear) -> Flowed {
    let mut flowed = vec![None; c.node.inputs().len()];
    let x = Read::of(c, 1, &op.parts)?;
    flowed[0] = projection(c, &x, &op.parts, 1, c.dy()?, &mut flowed)?;
    Ok(flowed)
}

pub(super) fn linears(c: &Context, op: &Linears) -> Flowed {
    let mut flowed = vec![None; c.node.inputs().len()];
    let mut at = 1;
    let mut dx: Option<Tensor> = None;
    for (parts, dy) in op.parts.iter().zip(c.dy) {
        if let Some(dy) = dy {
            let x = Read::of(c, at, parts)?;
            dx = add(dx, projection(c, &x, parts, at, dy, &mut flowed)?)?;
        }
        at += parts.inputs();
    }
    flowed[0] = dx;
    Ok(flowed)
}

/// The sum of what flowed.
pub(super) fn add(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(a.add(&b)?),
        (a, b) => a.or(b),
    })
}

/// What a product multiplied with: its input, if a weight's gradient reads it, and whether the input's own is wanted.
pub(super) struct Read {
    /// The input.
    pub(super) x: Option<Tensor>,
    /// Whether its gradient is wanted.
    pub(super) wanted: bool,
}

impl Read {
    /// The op's first input, read by a projection whose arguments begin at `at`.
    fn of(c: &Context, at: usize, parts: &Parts) -> Result<Self> {
        let reads = (at..at + parts.inputs()).any(|i| !parts.is_bias(i - at) && c.needs(i));
        Ok(Self { x: if reads { Some(c.input(0)?) } else { None }, wanted: c.needs(0) })
    }
}

/// The gradients of one projection, whose arguments begin at `at`: those go into `flowed`, the input's is the result.
///
/// With `y = x W^T + bias + s (x a^T) b^T`: `dx = dy W + s (dy b) a`, `dW = dy^T x`, `dbias = sum dy`, `da = s (dy b)^T x`, `db = s dy^T (x a^T)`.
pub(super) fn projection(
    c: &Context,
    read: &Read,
    parts: &Parts,
    at: usize,
    dy: &Tensor,
    flowed: &mut [Option<Tensor>],
) -> Result<Option<Tensor>> {
    let mut dx = if read.wanted { Some(dy.linear_input_grad(&c.input(at)?)?) } else { None };
    let x = || read.x.as_ref().expect("kept where a gradient reads it");
    let dtype = |i: usize| c.node.inputs()[i].dtype();
    if c.needs(at) {
        flowed[at] = Some(outer(dy, x())?);
    }
    if parts.bias && c.needs(at + 1) {
        let wide = rows(dy)?.cast(dy.dtype().accumulator())?;
        flowed[at + 1] = Some(wide.sum(0)?.cast(dtype(at + 1))?);
    }
    if let Some(LowRankParts { scale, .. }) = parts.adapter {
        let at = at + 1 + usize::from(parts.bias);
        let (a, b) = (c.input(at)?, c.input(at + 1)?);
        // The narrow middle is held wide: rounding it would cost the adapter digits and save nothing.
        let wide = dy.dtype().accumulator();
        let scaled = dy.cast(wide)?.linear_input_grad(&b)?.affine(scale, 0.0)?;
        if read.wanted {
            dx = add(dx, Some(scaled.linear_input_grad(&a)?.cast(dy.dtype())?))?;
        }
        if c.needs(at) {
            flowed[at] = Some(outer(&scaled, &x().cast(wide)?)?.cast(dtype(at))?);
        }
        if c.needs(at + 1) {
            let inner = x().cast(wide)?.linear(&a, puna_tensor::op::Activations::Exact)?.affine(scale, 0.0)?;
            flowed[at + 1] = Some(outer(&dy.cast(wide)?, &inner)?.cast(dtype(at + 1))?);
        }
    }
    Ok(dx)
}

/// `dy^T x`, `[N, K]`, over all rows.
fn outer(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    rows(dy)?.transpose(0, 1)?.matmul(&rows(x)?)
}
