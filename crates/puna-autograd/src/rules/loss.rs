//! Derivatives of losses, from the saved log-sum-exp.

use puna_tensor::Op;
use puna_tensor::op::{CrossEntropyBackward, LinearCrossEntropyBackward};

use super::{Context, Flowed};

pub(super) fn cross_entropy(c: &Context) -> Flowed {
    let backward = Op::CrossEntropyBackward(CrossEntropyBackward);
    let dlogits = backward.apply(&[c.dy()?, &c.input(0)?, &c.input(1)?, &c.output(2)?])?.one()?;
    Ok(vec![Some(dlogits), None])
}

pub(super) fn linear_cross_entropy(c: &Context) -> Flowed {
    let weight_grad = c.needs(1);
    let backward = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad });
    let flowed = backward.apply(&[c.dy()?, &c.input(0)?, &c.input(1)?, &c.input(2)?, &c.output(2)?])?.all();
    let mut flowed = flowed.into_iter().map(Some);
    Ok(vec![flowed.next().flatten(), flowed.next().flatten(), None])
}
