use super::{Args, Inferred, Op, Spec};
use crate::{Result, Shape, Tensor};

/// Root-mean-square norm over the last axis.
///
/// `y[i] = round(x[i] * rsqrt(mean(x^2) + eps)) * weight[i]`
///
/// `x: [.., n]`, `weight: [n]` (absent where `weight` is false), result `[.., n]` in the dtype of `x`; any float dtypes (checkpoints
/// keep f32 norms beside half-precision or block weights). Accumulates in f32 (f64 for f64) and rounds to the dtype of `x` before
/// the weight, as Llama's reference does. Saves for the derivative: one reciprocal norm per row, `[..]` f32 (f64 for f64).
/// Errors: rank 0, a dtype that is no float, `weight` not `[n]`. `n = 0` gives an empty tensor.
///
/// Zhang and Sennrich 2019, arXiv 1910.07467.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// What is added to the mean square.
    pub eps: f64,
    /// Whether there is a weight.
    pub weight: bool,
}

/// The residual stream and its norm in one: `sum = stream + x` (rounded), `y = rms_norm(sum, weight)`.
///
/// `stream`, `x: [.., n]` of one float dtype, `weight: [n]` float; results `sum` and `y`. Saves the reciprocal norms, as [`RmsNorm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddRmsNorm {
    /// What is added to the mean square.
    pub eps: f64,
}

/// The derivative of [`RmsNorm`] from its saved reciprocal norms `r`: with `g = dy * weight`,
/// `dx = r * (g - x * r^2 * mean(g * x))`, `dweight[i] = sum over rows of dy * x * r`.
///
/// `dy, x: [.., n]` of one float dtype, `r: [..]`, then `weight: [n]` where there is one; results `dx` in the dtype of `x` and, with a
/// weight, `dweight` in its dtype. The rounding before the weight is passed straight through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNormBackward {
    /// Whether there is a weight.
    pub weight: bool,
}

fn infer_weight(args: &Args, x: &Tensor, weight: &Tensor) -> Result<()> {
    args.float("weight", weight)?;
    args.shape("weight", weight, x.shape().last(), &format!("x {}", x.shape()))
}

/// The axes of x but the last.
fn rows(x: &Tensor) -> Shape {
    x.shape().without(x.rank() - 1)
}

/// `x * rsqrt(mean(x^2) + eps)`, rounded, times the weight; and the reciprocal norms.
fn lower_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<(Tensor, Tensor)> {
    let wide = x.cast(x.dtype().accumulator())?;
    let r = wide.square()?.mean_keep(x.rank() - 1)?.affine(1.0, eps)?.rsqrt()?;
    let mut y = wide.mul(&r)?.cast(x.dtype())?;
    if let Some(weight) = weight {
        y = y.cast(wide.dtype())?.mul(&weight.cast(wide.dtype())?)?.cast(x.dtype())?;
    }
    Ok((y, r.reshape(rows(x))?))
}

impl RmsNorm {
    pub(super) fn infer(&self, args: &Args, tracked: bool) -> Result<Inferred> {
        let x = if self.weight {
            let [x, weight] = args.named(["x", "weight"])?;
            args.last_axis("x", x)?;
            infer_weight(args, x, weight)?;
            x
        } else {
            let [x] = args.named(["x"])?;
            args.last_axis("x", x)?;
            x
        };
        let dtype = args.float("x", x)?;
        Ok(Inferred::one(*x.shape(), dtype).saving(tracked, rows(x), dtype.accumulator()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        let (y, r) = lower_norm(inputs[0], inputs.get(1).copied(), self.eps)?;
        Ok(if tracked { vec![y, r] } else { vec![y] })
    }
}

impl AddRmsNorm {
    pub(super) fn infer(&self, args: &Args, tracked: bool) -> Result<Inferred> {
        let [stream, x, weight] = args.named(["stream", "x", "weight"])?;
        args.float("stream", stream)?;
        let dtype = args.same_dtype(["stream", "x"], stream, x)?;
        args.last_axis("stream", stream)?;
        args.shape("x", x, *stream.shape(), "stream")?;
        infer_weight(args, x, weight)?;
        let spec = Spec { shape: *x.shape(), dtype };
        Ok(Inferred::results([spec, spec]).saving(tracked, rows(x), dtype.accumulator()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>> {
        let sum = inputs[0].add(inputs[1])?;
        let (y, r) = lower_norm(&sum, Some(inputs[2]), self.eps)?;
        Ok(if tracked { vec![sum, y, r] } else { vec![sum, y] })
    }
}

impl RmsNormBackward {
    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let (dy, x, r, weight) = if self.weight {
            let [dy, x, r, weight] = args.named(["dy", "x", "r", "weight"])?;
            (dy, x, r, Some(weight))
        } else {
            let [dy, x, r] = args.named(["dy", "x", "r"])?;
            (dy, x, r, None)
        };
        args.last_axis("x", x)?;
        args.float("x", x)?;
        let dtype = args.same_dtype(["dy", "x"], dy, x)?;
        args.shape("dy", dy, *x.shape(), "x")?;
        args.dtype("r", r, dtype.accumulator())?;
        args.shape("r", r, rows(x), &format!("x {}", x.shape()))?;
        let dx = Spec { shape: *x.shape(), dtype };
        let dweight = match weight {
            Some(weight) => {
                infer_weight(args, x, weight)?;
                Some(Spec { shape: *weight.shape(), dtype: weight.dtype() })
            }
            None => None,
        };
        Ok(Inferred::results([Some(dx), dweight].into_iter().flatten()))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (dy, x, r) = (inputs[0], inputs[1], inputs[2]);
        let (wide, last) = (x.dtype().accumulator(), x.rank() - 1);
        let (dy, xw, r) = (dy.cast(wide)?, x.cast(wide)?, r.unsqueeze(last)?);
        let weight = inputs.get(3).copied();
        let g = match weight {
            Some(weight) => dy.mul(&weight.cast(wide)?)?,
            None => dy.clone(),
        };
        let along = g.mul(&xw)?.mean_keep(last)?.mul(&r.square()?)?;
        let dx = g.sub(&xw.mul(&along)?)?.mul(&r)?.cast(x.dtype())?;
        let Some(weight) = weight else { return Ok(vec![dx]) };
        let n = x.shape().last();
        let dweight = dy.mul(&xw)?.mul(&r)?.reshape([x.shape().rows(), n])?.sum(0)?;
        Ok(vec![dx, dweight.cast(weight.dtype())?])
    }
}

/// # Norms
impl Tensor {
    /// The root-mean-square norm over the last axis, times a weight: see [`RmsNorm`].
    pub fn rms_norm(&self, weight: &Tensor, eps: f64) -> Result<Tensor> {
        Op::RmsNorm(RmsNorm { eps, weight: true }).apply(&[self, weight])?.one()
    }

    /// The root-mean-square norm over the last axis, without a weight: see [`RmsNorm`].
    pub fn rms_norm_unweighted(&self, eps: f64) -> Result<Tensor> {
        Op::RmsNorm(RmsNorm { eps, weight: false }).apply(&[self])?.one()
    }

    /// `(stream + x, its norm)`, this being the stream: see [`AddRmsNorm`].
    pub fn add_rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
        let [sum, y] = Op::AddRmsNorm(AddRmsNorm { eps }).apply(&[self, x, weight])?.array();
        Ok((sum, y))
    }
}
