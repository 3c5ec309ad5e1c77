//! Softmax.

use puna_tensor::Result;

use super::copy::WholeWords;
use super::parts::in_parts;
use super::unit_from_to;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::view::View;

pub(super) fn softmax(wgpu: &Wgpu, x: &View, y: &View, logarithm: bool) -> Result<()> {
    let n = x.shape().last();
    let result = WholeWords::new(wgpu, y, n)?;
    let unit = unit_from_to("softmax.wgsl", x.dtype, result.view().dtype);
    in_parts(wgpu, y.shape().rank() - 1, [result.view()], [x], &|[y], [x]| {
        let rows = if n == 0 { 0 } else { x.shape().rows() };
        let (at, step) = x.rows();
        let parameters = parameters![at, step, n, rows, logarithm];
        wgpu.launch(&unit, "softmax", Grid::groups(rows), &[Some(y), Some(x)], &parameters)
    })?;
    result.finish(wgpu)
}
