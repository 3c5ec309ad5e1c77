//! Rows and entries by number.

use puna_tensor::{DType, Result};

use super::copy::{contiguous, copy, reshaped};
use super::elementwise::words;
use super::parts::{halves, in_parts, shown_parts};
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
    in_parts(wgpu, index.shape().rank(), [y], [index], &|[y], [index]| {
        if table.shape()[0] == 0 {
            return gather_part(wgpu, table, 0, index, y);
        }
        shown_parts(wgpu, table).try_for_each(|(first, rows)| {
            let part = table.part(0, first, rows);
            let part = if wgpu.shows(&part) { part.into() } else { contiguous(wgpu, &part)? };
            gather_part(wgpu, &part, first, index, y)
        })
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
    // One part after the other, so that of equal numbers the last still wins.
    in_parts(wgpu, 1, [], [index, x], &|[], [index, x]| {
        shown_parts(wgpu, y).try_for_each(|(first, rows)| scatter_part(wgpu, &y.part(0, first, rows), first, index, x))
    })
}

fn scatter_part(wgpu: &Wgpu, y: &View, first: usize, index: &View, x: &View) -> Result<()> {
    let (n, row_values) = (index.elements(), behind(y, 1));
    let inner = Strides::new(y.axes().skip(1));
    let parameters =
        parameters![inner, x.strides(), y.layout.strides()[0], y.shape()[0], index.layout.strides()[0], n, row_values, first];
    let groups = if row_values == 0 { 0 } else { n };
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    wgpu.launch(&unit, "scatter_rows", Grid::groups(groups), &[Some(y), Some(index), Some(x)], &parameters)
}

pub(super) fn take(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    in_parts(wgpu, y.shape().rank() - 1, [y], [x, index], &|[y], [x, index]| {
        let (rows, step) = x.rows();
        let parameters = parameters![rows, index.strides(), y.elements(), step, x.shape().last(), y.shape().last()];
        let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
        wgpu.launch(&unit, "take", words(y), &[Some(y), Some(x), Some(index)], &parameters)
    })
}

pub(super) fn scatter_add_rows(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    let (count, row_values) = (index.elements(), behind(y, 1));
    let index = contiguous(wgpu, index)?;
    let sorted = wgpu.scratch(count, DType::U32)?;
    let order = wgpu.scratch(count, DType::U32)?;
    sort_rows(wgpu, &index.in_shape(count), false, &sorted, &order)?;
    if wgpu.shows(x) {
        return add_columns(wgpu, x, [&sorted, &order], y);
    }
    let x = reshaped(wgpu, x, [count, row_values])?;
    add_columns(wgpu, &x, [&sorted, &order], &y.in_shape([y.shape()[0], row_values]))
}

/// Rows of `x` added up where `order` says, which is sorted by the numbers of their places. `x`, and `y` in row-major order.
fn add_columns(wgpu: &Wgpu, x: &View, [sorted, order]: [&View; 2], y: &View) -> Result<()> {
    let (count, row_values) = (sorted.elements(), behind(y, 1));
    if !wgpu.shows(x) && x.bytes() > wgpu.window() {
        // Any row may be added to any: what is cut are the rows themselves.
        if let Some(halves) = halves(row_values, 1) {
            return halves.into_iter().try_for_each(|(first, length)| {
                let part = wgpu.scratch([y.shape()[0], length], y.dtype)?;
                add_columns(wgpu, &x.part(1, first, length), [sorted, order], &part)?;
                copy(wgpu, &part, &y.part(1, first, length), false)
            });
        }
    }
    let x = if wgpu.shows(x) { x.clone().into() } else { contiguous(wgpu, x)? };
    let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
    in_parts(wgpu, 1, [y], [], &|[part], []| {
        let first = (part.layout.offset() - y.layout.offset()) / row_values.max(1);
        let parameters = parameters![x.strides(), part.elements(), count, row_values, first];
        let views = [Some(part), Some(&*x), Some(sorted), Some(order)];
        wgpu.launch(&unit, "scatter_add_rows", words(part), &views, &parameters)
    })
}

pub(super) fn take_backward(wgpu: &Wgpu, x: &View, index: &View, y: &View) -> Result<()> {
    let sorted = wgpu.scratch(*index.shape(), DType::U32)?;
    let order = wgpu.scratch(*index.shape(), DType::U32)?;
    sort_rows(wgpu, index, false, &sorted, &order)?;
    in_parts(wgpu, y.shape().rank() - 1, [y], [x, &sorted, &order], &|[y], [x, sorted, order]| {
        let parameters = parameters![x.strides(), y.elements(), index.shape().last(), y.shape().last()];
        let unit = unit_from_to("index.wgsl", x.dtype, y.dtype);
        wgpu.launch(&unit, "take_backward", words(y), &[Some(y), Some(x), Some(sorted), Some(order)], &parameters)
    })
}
