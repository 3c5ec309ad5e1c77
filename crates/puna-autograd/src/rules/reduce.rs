//! Derivatives of reductions and scans.

use puna_tensor::op::{Reduce, ReduceKind};
use puna_tensor::{Result, Shape, Tensor};

use super::{Context, Flowed};

pub(super) fn reduce(c: &Context, op: &Reduce) -> Flowed {
    let dy = c.dy()?;
    let shape = c.shape(0);
    let kept: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &length)| if op.axes.contains(&axis) { 1 } else { length }).collect();
    let kept = Shape::new(&kept).expect("as many axes as the input has");
    let spread = |x: &Tensor| x.reshape(kept)?.broadcast(*shape);
    let count: usize = op.axes.iter().map(|&axis| shape[axis]).product();
    let dx = match op.kind {
        ReduceKind::Sum => spread(dy)?,
        ReduceKind::Mean => spread(&dy.affine(1.0 / count as f64, 0.0)?)?,
        // Equal extremes share the gradient.
        ReduceKind::Max | ReduceKind::Min => {
            let wide = dy.dtype().accumulator();
            let (x, y) = (c.input(0)?, c.output(0)?);
            let chosen = x.eq(&spread(&y)?)?;
            let chosen = chosen.select(&Tensor::full(1.0, 1, wide, x.device())?, &Tensor::zeros(1, wide, x.device())?)?;
            let share = dy.cast(wide)?.reshape(kept)?.div(&chosen.sum_keep(op.axes)?)?;
            chosen.mul(&share)?.cast(dy.dtype())?
        }
    };
    Ok(vec![Some(dx)])
}

/// `dx[i] = dy[i] + .. + dy[n - 1]`: a running sum from the other end.
pub(super) fn cum_sum(c: &Context) -> Flowed {
    let dy = c.dy()?;
    let backwards = |x: &Tensor| {
        let n = x.shape().last();
        let order: Vec<u32> = (0..n as u32).rev().collect();
        x.take(&Tensor::from_slice(&order, n, x.device())?.broadcast(*x.shape())?)
    };
    Ok(vec![Some(backwards(&backwards(dy)?.cum_sum()?)?)])
}

/// Each value goes back to its former place, which the op's second result names.
pub(super) fn sort(c: &Context) -> Flowed {
    let dy = c.dy()?;
    let dx: Result<Tensor> = dy.take_backward(&c.output(1)?, dy.shape().last());
    Ok(vec![Some(dx?)])
}
