use super::{Args, Inferred, Op};
use crate::{Result, Tensor};

pub(super) fn infer(args: &Args) -> Result<Inferred> {
    let [x] = args.named(["x"])?;
    args.float("x", x)?;
    args.last_axis("x", x)?;
    Ok(Inferred::one(*x.shape(), x.dtype()))
}

pub(super) fn lower_softmax(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let x = inputs[0];
    let (wide, last) = (x.cast(x.dtype().accumulator())?, x.rank() - 1);
    let largest = wide.max_keep(last)?;
    // Of a row of nothing but -inf the difference would be NaN; shifted by 0 it stays -inf, and the sum 0 is replaced by 1.
    let none = largest.eq(&Tensor::full(f64::NEG_INFINITY, 1, wide.dtype(), x.device())?)?;
    let e = wide.sub(&none.select(&largest.zeros_like()?, &largest)?)?.exp()?;
    let sum = e.sum_keep(last)?;
    let sum = none.select(&sum.affine(0.0, 1.0)?, &sum)?;
    Ok(vec![e.div(&sum)?.cast(x.dtype())?])
}

pub(super) fn lower_log_softmax(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let x = inputs[0];
    let (wide, last) = (x.cast(x.dtype().accumulator())?, x.rank() - 1);
    let shifted = wide.sub(&wide.max_keep(last)?)?;
    let sum = shifted.exp()?.sum_keep(last)?.log()?;
    Ok(vec![shifted.sub(&sum)?.cast(x.dtype())?])
}

/// # Softmax
impl Tensor {
    /// Along the last axis: see [`Op::Softmax`].
    pub fn softmax(&self) -> Result<Tensor> {
        Op::Softmax.apply(&[self])?.one()
    }

    /// Its logarithm along the last axis: see [`Op::LogSoftmax`].
    pub fn log_softmax(&self) -> Result<Tensor> {
        Op::LogSoftmax.apply(&[self])?.one()
    }
}
