//! Rows and entries by number.

use puna_tensor::{DType, Result};

use super::copy::contiguous;
use super::elementwise::words;
use super::reduce::sort_rows;
use super::{unit_from_to, with_blocks};
use crate::backend::Wgpu;
use crate::launch::{Grid, Strides, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// The elements behind each entry of the first `leading` axes.
fn behind(view: &View, leading: usize) -> usize {
    view.shape()[leading..].iter().product()
}

pub(super) fn gather_rows(wgpu: &Wgpu, table: &View, index: &View, y: &View) -> Result<()> {
    let rows = table.shape()[0];
    let fits = table.buffer.size() as usize <= wgpu.window() || table.extent().len() <= wgpu.window();
    // A table that no binding shows at once is read by its rows.
    let step = if fits { rows.max(1) } else { (rows / table.extent().len().div_ceil(wgpu.window() / 2)).max(1) };
    (0..rows.max(1)).step_by(step).try_for_each(|first| {
        let part = if fits { table.clone() } else { table.part(0, first, step.min(rows - first)) };
        gather_part(wgpu, &part, first, index, y)
    })
}

fn gather_part(wgpu: &Wgpu, table: &View, first: usize, index: &View, y: &View) -> Result<()> {
    let (n, row_values) = (y.elements(), behind(table, 1));
    let (rows, at) = (table.shape()[0], index.strides());
    if let DType::Block(block) = table.dtype {
        let unit = with_blocks(Unit::new("decode.wgsl", [("Y", Number::of(y.dtype))]), block);
        let axes: Vec<_> = table.byte_axes().collect();
        let inner = Strides::new(axes[1..axes.len() - 1].iter().copied());
        let parameters = parameters![inner, at, n, axes[0].1, rows, row_values, table.shape().last(), first, first > 0];
        return wgpu.launch(&unit, "gather_blocks", words(y), &[Some(y), Some(table), Some(index)], &parameters);
    }
    let inner = Strides::new(table.axes().skip(1));
    let parameters = parameters![inner, at, n, table.layout.strides()[0], rows, row_values, first, first > 0];
    let unit = unit_from_to("index.wgsl", table.dtype, y.dtype);
    wgpu.launch(&unit, "gather_rows", words(y), &[Some(y), Some(table), Some(index)], &parameters)
}

pub(super) fn scatter_rows(wgpu: &Wgpu, y: &View, index: &View, x: &View) -> Result<()> {
    let (n, row_values) = (index.elements(), behind(y, 1));
    let inner = Strides::new(y.axes().skip(1));
    let parameters =
        parameters![inner, x.strides(), y.layout.strides()[0], y.shape()[0], index.layout.strides()[0], n, row_values];
    let groups = if row_values == 0 { 0 } else { n };
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    wgpu.launch(&unit, "scatter_rows", Grid::groups(groups), &[Some(y), Some(index), Some(x)], &parameters)
}

pub(super) fn take(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    let (rows, step) = x.rows();
    let parameters = parameters![rows, index.strides(), y.elements(), step, x.shape().last(), y.shape().last()];
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    wgpu.launch(&unit, "take", words(y), &[Some(y), Some(x), Some(index)], &parameters)
}

pub(super) fn scatter_add_rows(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    let (count, row_values) = (index.elements(), behind(y, 1));
    let index = contiguous(wgpu, index)?;
    let sorted = wgpu.scratch(count, DType::U32)?;
    let order = wgpu.scratch(count, DType::U32)?;
    sort_rows(wgpu, &index.in_shape(count), false, &sorted, &order)?;
    let parameters = parameters![x.strides(), y.elements(), count, row_values];
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    wgpu.launch(&unit, "scatter_add_rows", words(y), &[Some(y), Some(x), Some(&sorted), Some(&order)], &parameters)
}

pub(super) fn take_backward(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    let (m, length, n) = (index.shape().last(), y.shape().last(), y.elements());
    let sorted = wgpu.scratch(*index.shape(), DType::U32)?;
    let order = wgpu.scratch(*index.shape(), DType::U32)?;
    sort_rows(wgpu, index, false, &sorted, &order)?;
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    let parameters = parameters![x.strides(), n, m, length];
    wgpu.launch(&unit, "take_backward", words(y), &[Some(y), Some(x), Some(&sorted), Some(&order)], &parameters)
}
