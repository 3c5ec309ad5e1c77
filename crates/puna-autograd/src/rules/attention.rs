//! The derivative of attention, from the saved log-sum-exp.

use puna_tensor::Op;
use puna_tensor::op::{Attention, AttentionBackward};

use super::{Context, Flowed};

pub(super) fn attention(c: &Context, op: &Attention) -> Flowed {
    let [q, k, v, q_starts, k_starts] = [0, 1, 2, 3, 4].map(|i| c.input(i));
    let backward = Op::AttentionBackward(AttentionBackward { scale: op.scale, mask: op.mask });
    let inputs = [c.dy()?, &q?, &k?, &v?, &c.output(0)?, &c.output(1)?, &q_starts?, &k_starts?];
    let [dq, dk, dv] = backward.apply(&inputs)?.array();
    Ok(vec![Some(dq), Some(dk), Some(dv), None, None])
}
