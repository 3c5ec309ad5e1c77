//! Feed-forward blocks.

use puna_tensor::op::GatedMlp;
use puna_tensor::{DType, Result, Tensor};

use super::copy::{as_rows, contiguous};
use super::matmul::project;
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

pub(super) fn family(dtype: DType) -> Unit {
    unit("mlp.cu", [("T", type_name(dtype)), NONE, NONE, NONE, NONE])
}

pub(super) fn swiglu(cuda: &Cuda, gate: &View, up: &View, y: &View) -> Result<()> {
    let (gate, up, n) = (contiguous(cuda, gate)?, contiguous(cuda, up)?, y.elements());
    let per_thread = 16 / y.dtype.unit_bytes();
    let arguments = arguments![y.pointer(), gate.pointer(), up.pointer(), n as u64];
    cuda.launch(&family(y.dtype), "swiglu", Grid::each(n.div_ceil(per_thread)), &arguments)
}

pub(super) fn swiglu_backward(cuda: &Cuda, inputs: &[View], y: &[View]) -> Result<()> {
    let [dy, gate, up] = [0, 1, 2].map(|i: usize| contiguous(cuda, &inputs[i]));
    let (dy, gate, up, n) = (dy?, gate?, up?, y[0].elements());
    let arguments = arguments![y[0].pointer(), y[1].pointer(), dy.pointer(), gate.pointer(), up.pointer(), n as u64];
    cuda.launch(&family(y[0].dtype), "swiglu_backward", Grid::each(n), &arguments)
}

pub(super) fn gated_mlp(cuda: &Cuda, op: &GatedMlp, inputs: &[&Tensor], y: &[View]) -> Result<()> {
    let [gate_part, up_part, down_part] = op.projections(inputs);
    let x = as_rows(cuda, &View::of(inputs[0]))?;
    let inner = [x.shape()[0], gate_part.weight.dim(0)];
    // What the derivative reads is a result; without one, memory on the way.
    let (gate, up): (Scratch, Scratch) = match y {
        [_, gate, up] => (gate.in_shape(inner).into(), up.in_shape(inner).into()),
        _ => (cuda.scratch(inner, x.dtype)?, cuda.scratch(inner, x.dtype)?),
    };
    project(cuda, &x, op.activations, &[gate_part, up_part], &[*gate, *up])?;
    let hidden = cuda.scratch(inner, x.dtype)?;
    swiglu(cuda, &gate, &up, &hidden)?;
    project(cuda, &hidden, op.activations, &[down_part], &[y[0].in_shape([inner[0], down_part.weight.dim(0)])])
}
