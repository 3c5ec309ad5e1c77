//! Softmax.

use puna_tensor::{DType, Result};

use super::{NONE, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

pub(super) fn family(dtype: DType) -> Unit {
    unit("softmax.cu", [("T", type_name(dtype)), NONE, NONE, NONE, NONE])
}

pub(super) fn softmax(cuda: &Cuda, x: &View, y: &View, logarithm: bool) -> Result<()> {
    let (n, rows) = (x.shape().last(), x.shape().rows());
    let (at, step) = x.rows();
    let blocks = if n == 0 { 0 } else { rows as u64 };
    let arguments = arguments![y.pointer(), x.pointer(), at, step, n as u64, rows as u64, i32::from(logarithm)];
    cuda.launch(&family(x.dtype), "softmax", Grid::blocks(blocks), &arguments)
}
