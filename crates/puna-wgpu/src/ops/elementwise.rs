//! Elementwise functions.

use puna_tensor::Result;
use puna_tensor::op::{Affine, Binary, Compare, Unary};

use super::parts::in_parts;
use super::unit_of;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// The grid of an entry that gives elements: an invocation for each word of them.
pub(super) fn words(y: &View) -> Grid {
    Grid::each(y.elements().div_ceil(Number::of(y.dtype).count()))
}

pub(super) fn unary(wgpu: &Wgpu, op: Unary, x: &[View], y: &[View]) -> Result<()> {
    in_parts(wgpu, y[0].shape().rank(), [&y[0]], [&x[0]], &|[y], [x]| {
        let unit = unit_of("elementwise.wgsl", x.dtype);
        let parameters = parameters![x.strides(), y.elements(), op as u32];
        wgpu.launch(&unit, "unary", words(y), &[Some(y), Some(x)], &parameters)
    })
}

pub(super) fn affine(wgpu: &Wgpu, op: &Affine, x: &[View], y: &[View]) -> Result<()> {
    in_parts(wgpu, y[0].shape().rank(), [&y[0]], [&x[0]], &|[y], [x]| {
        let unit = unit_of("elementwise.wgsl", x.dtype);
        let parameters = parameters![x.strides(), y.elements(), op.mul as f32, op.add as f32];
        wgpu.launch(&unit, "affine", words(y), &[Some(y), Some(x)], &parameters)
    })
}

pub(super) fn binary(wgpu: &Wgpu, op: Binary, x: &[View], y: &[View]) -> Result<()> {
    pair(wgpu, "binary", op as u32, x, &y[0])
}

pub(super) fn compare(wgpu: &Wgpu, op: Compare, x: &[View], y: &[View]) -> Result<()> {
    pair(wgpu, "compare", op as u32, x, &y[0])
}

fn pair(wgpu: &Wgpu, entry: &'static str, op: u32, x: &[View], y: &View) -> Result<()> {
    in_parts(wgpu, y.shape().rank(), [y], [&x[0].to(y.shape()), &x[1].to(y.shape())], &|[y], [a, b]| {
        let parameters = parameters![a.strides(), b.strides(), y.elements(), op];
        wgpu.launch(&unit_of("elementwise.wgsl", a.dtype), entry, words(y), &[Some(y), Some(a), Some(b)], &parameters)
    })
}

pub(super) fn select(wgpu: &Wgpu, x: &[View], y: &[View]) -> Result<()> {
    let y = &y[0];
    let inputs = [&x[0].to(y.shape()), &x[1].to(y.shape()), &x[2].to(y.shape())];
    in_parts(wgpu, y.shape().rank(), [y], inputs, &|[y], [c, a, b]| {
        let unit = Unit::new("copy.wgsl", [("T", Number::unit(y.dtype))]);
        let parameters = parameters![c.strides(), a.strides(), b.strides(), y.elements()];
        wgpu.launch(&unit, "select_elements", words(y), &[Some(y), Some(c), Some(a), Some(b)], &parameters)
    })
}
