//! Derivatives of norms, from the saved reciprocal norms.

use puna_tensor::op::{RmsNorm, RmsNormBackward};
use puna_tensor::{Op, Tensor};

use super::matmul::add;
use super::{Context, Flowed};

pub(super) fn rms_norm(c: &Context, op: &RmsNorm) -> Flowed {
    let (dy, x, r) = (c.dy()?, c.input(0)?, c.output(1)?);
    let backward = Op::RmsNormBackward(RmsNormBackward { weight: op.weight });
    let flowed = if op.weight { backward.apply(&[dy, &x, &r, &c.input(1)?])? } else { backward.apply(&[dy, &x, &r])? };
    Ok(flowed.all().into_iter().map(Some).collect())
}

/// The sum flows on to both of its terms, along with what comes back through the norm.
pub(super) fn add_rms_norm(c: &Context) -> Flowed {
    let through_sum = c.dy[0].clone();
    let (through_norm, dweight): (Option<Tensor>, Option<Tensor>) = match &c.dy[1] {
        Some(dy) => {
            let (sum, r, weight) = (c.output(0)?, c.output(2)?, c.input(2)?);
            let backward = Op::RmsNormBackward(RmsNormBackward { weight: true });
            let [dx, dweight] = backward.apply(&[dy, &sum, &r, &weight])?.array();
            (Some(dx), Some(dweight))
        }
        None => (None, None),
    };
    let d = add(through_sum, through_norm)?;
    Ok(vec![d.clone(), d, dweight])
}
