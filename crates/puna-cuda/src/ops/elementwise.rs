//! Elementwise functions.

use puna_tensor::op::{Affine, Binary, Compare, Unary};
use puna_tensor::{DType, Result};

use super::copy::unit_type;
use super::{NONE, kind_name, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

pub(super) fn family(dtype: DType) -> Unit {
    unit("elementwise.cu", [("T", type_name(dtype)), kind_name(dtype), NONE, NONE, NONE])
}

/// How many vectors of 16 bytes the elements of all of these make, where they lie side by side in whole ones.
fn vectors(views: &[&View]) -> Option<usize> {
    let fits = |view: &&View| view.strides().is_one_run() && view.pointer().0 % 16 == 0 && view.bytes() % 16 == 0;
    let first = views[0];
    (views.iter().all(fits) && views.iter().all(|view| view.elements() == first.elements()) && first.dtype.is_float())
        .then_some(first.bytes() / 16)
}

pub(super) fn unary(cuda: &Cuda, op: Unary, x: &[View], y: &[View]) -> Result<()> {
    let (x, y, n, op) = (&x[0], &y[0], y[0].elements(), op as i32);
    if let Some(vectors) = vectors(&[y, x]) {
        let arguments = arguments![y.pointer(), x.pointer(), vectors as u64, op];
        return cuda.launch(&family(x.dtype), "unary_contiguous", Grid::each(vectors), &arguments);
    }
    let arguments = arguments![y.pointer(), x.pointer(), x.strides(), n as u64, op];
    cuda.launch(&family(x.dtype), "unary", Grid::each(n), &arguments)
}

pub(super) fn affine(cuda: &Cuda, op: &Affine, x: &[View], y: &[View]) -> Result<()> {
    let n = y[0].elements();
    let arguments = arguments![y[0].pointer(), x[0].pointer(), x[0].strides(), n as u64, op.mul, op.add];
    cuda.launch(&family(x[0].dtype), "affine", Grid::each(n), &arguments)
}

/// A view broadcast to a result's shape.
fn to(view: &View, result: &View) -> View {
    view.with(view.layout.broadcast(result.shape()).expect("inference has found the shape that both broadcast to"))
}

pub(super) fn binary(cuda: &Cuda, op: Binary, x: &[View], y: &[View]) -> Result<()> {
    let (a, b, y) = (to(&x[0], &y[0]), to(&x[1], &y[0]), &y[0]);
    if op != Binary::Pow
        && let Some(vectors) = vectors(&[y, &a, &b])
    {
        let arguments = arguments![y.pointer(), a.pointer(), b.pointer(), vectors as u64, op as i32];
        return cuda.launch(&family(y.dtype), "binary_contiguous", Grid::each(vectors), &arguments);
    }
    pair(cuda, "binary", op as i32, &a, &b, y)
}

pub(super) fn compare(cuda: &Cuda, op: Compare, x: &[View], y: &[View]) -> Result<()> {
    pair(cuda, "compare", op as i32, &to(&x[0], &y[0]), &to(&x[1], &y[0]), &y[0])
}

fn pair(cuda: &Cuda, entry: &'static str, op: i32, a: &View, b: &View, y: &View) -> Result<()> {
    let n = y.elements();
    let arguments = arguments![y.pointer(), a.pointer(), a.strides(), b.pointer(), b.strides(), n as u64, op];
    cuda.launch(&family(a.dtype), entry, Grid::each(n), &arguments)
}

pub(super) fn select(cuda: &Cuda, x: &[View], y: &[View]) -> Result<()> {
    let (c, a, b, y, n) = (to(&x[0], &y[0]), to(&x[1], &y[0]), to(&x[2], &y[0]), &y[0], y[0].elements());
    let arguments =
        arguments![y.pointer(), c.pointer(), c.strides(), a.pointer(), a.strides(), b.pointer(), b.strides(), n as u64];
    let family = unit("copy.cu", [("T", unit_type(y.dtype)), NONE, NONE, NONE, NONE]);
    cuda.launch(&family, "select_elements", Grid::each(n), &arguments)
}
