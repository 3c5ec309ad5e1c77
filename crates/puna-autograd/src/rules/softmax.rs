//! Derivatives of softmax and its logarithm, from the result.

use super::{Context, Flowed};

/// `dx = y (dy - sum(dy y))`.
pub(super) fn softmax(c: &Context) -> Flowed {
    let dy = c.dy()?;
    let (narrow, wide) = (dy.dtype(), dy.dtype().accumulator());
    let (dy, y) = (dy.cast(wide)?, c.output(0)?.cast(wide)?);
    let along = dy.mul(&y)?.sum_keep(y.rank() - 1)?;
    Ok(vec![Some(y.mul(&dy.sub(&along)?)?.cast(narrow)?)])
}

/// `dx = dy - exp(y) sum(dy)`.
pub(super) fn log_softmax(c: &Context) -> Flowed {
    let dy = c.dy()?;
    let (narrow, wide) = (dy.dtype(), dy.dtype().accumulator());
    let (dy, y) = (dy.cast(wide)?, c.output(0)?.cast(wide)?);
    let along = dy.sum_keep(y.rank() - 1)?;
    Ok(vec![Some(dy.sub(&y.exp()?.mul(&along)?)?.cast(narrow)?)])
}
