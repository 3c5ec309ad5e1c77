//! Rows and entries by number.

use puna_tensor::{DType, Result};

use super::copy::{contiguous, decode_family};
use super::reduce::sort_rows;
use super::{NONE, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, Strides, arguments};
use crate::view::View;

pub(super) fn family(from: DType, to: DType) -> Unit {
    unit("index.cu", [("X", type_name(from)), ("Y", type_name(to)), NONE, NONE, NONE])
}

/// The elements behind each entry of the first `leading` axes.
fn behind(view: &View, leading: usize) -> usize {
    view.shape()[leading..].iter().product()
}

pub(super) fn gather_rows(cuda: &Cuda, table: &View, index: &View, y: &View) -> Result<()> {
    let (n, row_values) = (y.elements(), behind(table, 1));
    let (rows, at) = (table.shape()[0] as u64, index.strides());
    if let Some(blocks) = table.blocks() {
        let inner = Strides::new(table.block_rows().skip(1));
        let columns = table.shape().last() as u64;
        let arguments = arguments![y.pointer(), blocks, inner, rows, index.pointer(), at, row_values as u64, columns, n as u64];
        return cuda.launch(&decode_family(table.dtype, y.dtype), "gather_blocks", Grid::each(n), &arguments);
    }
    let inner = Strides::new(table.axes().skip(1));
    let row_stride = table.layout.strides()[0] as i64;
    let arguments =
        arguments![y.pointer(), table.pointer(), inner, row_stride, rows, index.pointer(), at, row_values as u64, n as u64];
    cuda.launch(&family(table.dtype, y.dtype), "gather_rows", Grid::each(n), &arguments)
}

pub(super) fn scatter_rows(cuda: &Cuda, y: &View, index: &View, x: &View) -> Result<()> {
    let (n, row_values) = (index.elements(), behind(y, 1));
    let arguments = arguments![
        y.pointer(),
        Strides::new(y.axes().skip(1)),
        y.layout.strides()[0] as i64,
        y.shape()[0] as u64,
        index.pointer(),
        index.layout.strides()[0] as i64,
        n as u64,
        x.pointer(),
        x.strides(),
        row_values as u64
    ];
    let blocks = if row_values == 0 { 0 } else { n as u64 };
    cuda.launch(&family(x.dtype, y.dtype), "scatter_rows", Grid::blocks(blocks), &arguments)
}

pub(super) fn take(cuda: &Cuda, x: &View, index: &View, y: &View) -> Result<()> {
    let (rows, step) = x.rows();
    let arguments = arguments![
        y.pointer(),
        x.pointer(),
        rows,
        step,
        x.shape().last() as u64,
        index.pointer(),
        index.strides(),
        y.shape().last() as u64,
        y.elements() as u64
    ];
    cuda.launch(&family(x.dtype, y.dtype), "take", Grid::each(y.elements()), &arguments)
}

pub(super) fn scatter_add_rows(cuda: &Cuda, x: &View, index: &View, y: &View) -> Result<()> {
    let (count, rows) = (index.elements(), y.shape()[0]);
    let row_values = behind(y, 1);
    let index = contiguous(cuda, index)?;
    let sorted = cuda.scratch(count, DType::U32)?;
    let order = cuda.scratch(count, DType::U32)?;
    sort_rows(cuda, &index.in_shape(count), false, &sorted, &order)?;
    let arguments = arguments![
        y.pointer(),
        x.pointer(),
        x.strides(),
        sorted.pointer(),
        order.pointer(),
        count as u64,
        rows as u64,
        row_values as u64
    ];
    let blocks = if row_values == 0 { 0 } else { rows as u64 };
    cuda.launch(&family(x.dtype, y.dtype), "scatter_add_rows", Grid::blocks(blocks), &arguments)
}

pub(super) fn take_backward(cuda: &Cuda, x: &View, index: &View, y: &View) -> Result<()> {
    let (m, length, n) = (index.shape().last(), y.shape().last(), y.elements());
    let sorted = cuda.scratch(*index.shape(), DType::U32)?;
    let order = cuda.scratch(*index.shape(), DType::U32)?;
    sort_rows(cuda, index, false, &sorted, &order)?;
    let arguments =
        arguments![y.pointer(), x.pointer(), x.strides(), sorted.pointer(), order.pointer(), m as u64, length as u64, n as u64];
    cuda.launch(&family(x.dtype, y.dtype), "take_backward", Grid::each(n), &arguments)
}
