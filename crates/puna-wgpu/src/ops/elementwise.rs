//! Elementwise functions.

use puna_tensor::op::{Affine, Binary, Compare, Unary};
use puna_tensor::{Result, Shape};

use super::unit_of;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// The grid of an entry that gives elements: an invocation for each word of them.
pub(super) fn words(y: &View) -> Grid {
    Grid::each(y.elements().div_ceil(Number::of(y.dtype).count()))
}

/// Runs `f` on views of one shape, in as many parts as it takes for each to fit a binding: of rows that fill whole words.
pub(super) fn in_parts(wgpu: &Wgpu, views: &[&View], f: &dyn Fn(&[View]) -> Result<()>) -> Result<()> {
    let owned: Vec<View> = views.iter().map(|view| (*view).clone()).collect();
    parts(wgpu, owned, f)
}

fn parts(wgpu: &Wgpu, views: Vec<View>, f: &dyn Fn(&[View]) -> Result<()>) -> Result<()> {
    let fits = |view: &View| view.buffer.size() as usize <= wgpu.window() || view.extent().len() <= wgpu.window();
    let shape: &Shape = views[0].shape();
    let Some(axis) = (0..shape.rank()).find(|&axis| shape[axis] > 1) else { return f(&views) };
    // An axis of fewer cannot be cut at whole words; then the binding says what does not fit.
    if views.iter().all(fits) || shape[axis] < 8 {
        return f(&views);
    }
    let length = shape[axis];
    let half = (length / 2).next_multiple_of(4);
    parts(wgpu, views.iter().map(|view| view.part(axis, 0, half)).collect(), f)?;
    parts(wgpu, views.iter().map(|view| view.part(axis, half, length - half)).collect(), f)
}

pub(super) fn unary(wgpu: &Wgpu, op: Unary, x: &[View], y: &[View]) -> Result<()> {
    in_parts(wgpu, &[&y[0], &x[0]], &|views| {
        let [y, x] = views else { unreachable!("as many as were given") };
        let unit = unit_of("elementwise.wgsl", x.dtype);
        let parameters = parameters![x.strides(), y.elements(), op as u32];
        wgpu.launch(&unit, "unary", words(y), &[Some(y), Some(x)], &parameters)
    })
}

pub(super) fn affine(wgpu: &Wgpu, op: &Affine, x: &[View], y: &[View]) -> Result<()> {
    in_parts(wgpu, &[&y[0], &x[0]], &|views| {
        let [y, x] = views else { unreachable!("as many as were given") };
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
    in_parts(wgpu, &[y, &x[0].to(y.shape()), &x[1].to(y.shape())], &|views| {
        let [y, a, b] = views else { unreachable!("as many as were given") };
        let parameters = parameters![a.strides(), b.strides(), y.elements(), op];
        wgpu.launch(&unit_of("elementwise.wgsl", a.dtype), entry, words(y), &[Some(y), Some(a), Some(b)], &parameters)
    })
}

pub(super) fn select(wgpu: &Wgpu, x: &[View], y: &[View]) -> Result<()> {
    let y = &y[0];
    in_parts(wgpu, &[y, &x[0].to(y.shape()), &x[1].to(y.shape()), &x[2].to(y.shape())], &|views| {
        let [y, c, a, b] = views else { unreachable!("as many as were given") };
        let unit = Unit::new("copy.wgsl", [("T", Number::unit(y.dtype))]);
        let parameters = parameters![c.strides(), a.strides(), b.strides(), y.elements()];
        wgpu.launch(&unit, "select_elements", words(y), &[Some(y), Some(c), Some(a), Some(b)], &parameters)
    })
}
