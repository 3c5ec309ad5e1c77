//! Feed-forward blocks.

use puna_tensor::op::GatedMlp;
use puna_tensor::{Result, Tensor};

use super::copy::as_rows;
use super::elementwise::words;
use super::matmul::project;
use super::parts::in_parts;
use super::unit_of;
use crate::backend::{Scratch, Wgpu};
use crate::launch::parameters;
use crate::view::View;

pub(super) fn swiglu(wgpu: &Wgpu, gate: &View, up: &View, y: &View) -> Result<()> {
    in_parts(wgpu, y.shape().rank(), [y], [gate, up], &|[y], [gate, up]| {
        let parameters = parameters![gate.strides(), up.strides(), y.elements()];
        wgpu.launch(&unit_of("mlp.wgsl", y.dtype), "swiglu", words(y), &[Some(y), Some(gate), Some(up)], &parameters)
    })
}

pub(super) fn swiglu_backward(wgpu: &Wgpu, inputs: &[View], y: &[View]) -> Result<()> {
    let [dgate, dup] = y else { unreachable!("inference has counted them") };
    let [dy, gate, up] = inputs else { unreachable!("inference has counted them") };
    in_parts(wgpu, dy.shape().rank(), [dgate, dup], [dy, gate, up], &|[dgate, dup], [dy, gate, up]| {
        let unit = unit_of("mlp.wgsl", dgate.dtype);
        let parameters = parameters![dy.strides(), gate.strides(), up.strides(), dgate.elements()];
        wgpu.launch(&unit, "swiglu_dgate", words(dgate), &[Some(dgate), Some(dy), Some(gate), Some(up)], &parameters)?;
        let parameters = parameters![dy.strides(), gate.strides(), dup.elements()];
        wgpu.launch(&unit, "swiglu_dup", words(dup), &[Some(dup), Some(dy), Some(gate)], &parameters)
    })
}

pub(super) fn gated_mlp(wgpu: &Wgpu, op: &GatedMlp, inputs: &[&Tensor], y: &[View]) -> Result<()> {
    let [gate_part, up_part, down_part] = op.projections(inputs);
    let x = as_rows(wgpu, &View::of(inputs[0]))?;
    let inner = [x.shape()[0], gate_part.weight.dim(0)];
    // What the derivative reads is a result; without one, memory on the way.
    let (gate, up): (Scratch, Scratch) = match y {
        [_, gate, up] => (gate.in_shape(inner).into(), up.in_shape(inner).into()),
        _ => (wgpu.scratch(inner, x.dtype)?, wgpu.scratch(inner, x.dtype)?),
    };
    project(wgpu, &x, op.activations, &[gate_part, up_part], &[(*gate).clone(), (*up).clone()])?;
    let hidden = wgpu.scratch(inner, x.dtype)?;
    swiglu(wgpu, &gate, &up, &hidden)?;
    project(wgpu, &hidden, op.activations, &[down_part], &[y[0].in_shape([inner[0], down_part.weight.dim(0)])])
}
