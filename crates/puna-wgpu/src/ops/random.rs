//! Philox: random numbers as a function of where they stand.

use puna_tensor::Result;
use puna_tensor::op::{Distribution, Random};

use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::source::Unit;
use crate::view::View;

pub(super) fn random(wgpu: &Wgpu, op: &Random, x: &[View], y: &View) -> Result<()> {
    let (seeds, positions) = (&x[0], &x[1]);
    let blocks = op.columns.div_ceil(4);
    let n = positions.elements() * blocks;
    let distribution = match op.distribution {
        Distribution::Uniform => 0u32,
        Distribution::Normal => 1,
        Distribution::Gumbel => 2,
    };
    let parameters = parameters![seeds.strides(), positions.strides(), op.columns, blocks, n, distribution];
    let unit = Unit::new("random.wgsl", []);
    wgpu.launch(&unit, "random_numbers", Grid::each(n), &[Some(y), Some(seeds), Some(positions)], &parameters)
}
