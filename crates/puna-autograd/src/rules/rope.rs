//! The derivative of a rotation: the rotation back.

use puna_tensor::Op;
use puna_tensor::op::Rope;

use super::{Context, Flowed};

pub(super) fn rope(c: &Context, op: &Rope) -> Flowed {
    let back = Op::Rope(Rope { inverse: !op.inverse, ..*op });
    let dx = back.apply(&[c.dy()?, &c.input(1)?, &c.input(2)?, &c.input(3)?])?.one()?;
    // The table is made on the host and is no parameter.
    if c.needs(1) || c.needs(2) {
        return c.not_differentiable("cosines and sines have no derivative; detach() them");
    }
    Ok(vec![Some(dx), None, None, None])
}
