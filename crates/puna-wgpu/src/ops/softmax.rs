//! Softmax.

use puna_tensor::Result;

use super::copy::WholeWords;
use super::unit_from_to;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::view::View;

pub(super) fn softmax(wgpu: &Wgpu, x: &View, y: &View, logarithm: bool) -> Result<()> {
    let (n, rows) = (x.shape().last(), x.shape().rows());
    let (at, step) = x.rows();
    let groups = if n == 0 { 0 } else { rows };
    let result = WholeWords::new(wgpu, y, n)?;
    let unit = unit_from_to("softmax.wgsl", x.dtype, result.view().dtype);
    let parameters = parameters![at, step, n, rows, logarithm];
    wgpu.launch(&unit, "softmax", Grid::groups(groups), &[Some(result.view()), Some(x)], &parameters)?;
    result.finish(wgpu)
}
