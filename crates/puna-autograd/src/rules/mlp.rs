//! Derivatives of feed-forward blocks.

use puna_tensor::Op;
use puna_tensor::op::GatedMlp;

use super::matmul::{Read, add, projection};
use super::{Context, Flowed};

pub(super) fn swiglu(c: &Context) -> Flowed {
    let flowed = Op::SwiGluBackward.apply(&[c.dy()?, &c.input(0)?, &c.input(1)?])?;
    Ok(flowed.all().into_iter().map(Some).collect())
}

/// From the saved `gate(x)` and `up(x)`; what lies between them and `down` is formed again where `down` is trained.
pub(super) fn gated_mlp(c: &Context, op: &GatedMlp) -> Flowed {
    let mut flowed = vec![None; c.node.inputs().len()];
    let (gate, up) = (c.output(1)?, c.output(2)?);
    let [gate_at, up_at, down_at] = {
        let up_at = 1 + op.parts[0].inputs();
        [1, up_at, up_at + op.parts[1].inputs()]
    };
    let trains = |at: usize, i: usize| {
        let parts = &op.parts[i];
        (at..at + parts.inputs()).any(|input| !parts.is_bias(input - at) && c.needs(input))
    };
    let inner = if trains(down_at, 2) { Some(gate.swiglu(&up)?) } else { None };
    let read = Read { x: inner, wanted: true };
    let dinner = projection(c, &read, &op.parts[2], down_at, c.dy()?, &mut flowed)?.expect("it was wanted");
    drop(read);
    let [dgate, dup] = Op::SwiGluBackward.apply(&[&dinner, &gate, &up])?.array();
    drop((dinner, gate, up));
    let x = if trains(gate_at, 0) || trains(up_at, 1) { Some(c.input(0)?) } else { None };
    let read = Read { x, wanted: c.needs(0) };
    let through_gate = projection(c, &read, &op.parts[0], gate_at, &dgate, &mut flowed)?;
    let through_up = projection(c, &read, &op.parts[1], up_at, &dup, &mut flowed)?;
    flowed[0] = add(through_gate, through_up)?;
    Ok(flowed)
}
