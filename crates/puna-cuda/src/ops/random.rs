//! Philox: random numbers as a function of where they stand.

use puna_tensor::Result;
use puna_tensor::op::{Distribution, Random};

use super::{NONE, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

pub(super) const FAMILY: Unit = unit("random.cu", [NONE; 5]);

pub(super) fn random(cuda: &Cuda, op: &Random, x: &[View], y: &View) -> Result<()> {
    let (seeds, positions) = (&x[0], &x[1]);
    let blocks = op.columns.div_ceil(4);
    let n = positions.elements() * blocks;
    let distribution = match op.distribution {
        Distribution::Uniform => 0i32,
        Distribution::Normal => 1,
        Distribution::Gumbel => 2,
    };
    let arguments = arguments![
        y.pointer(),
        seeds.pointer(),
        seeds.strides(),
        positions.pointer(),
        positions.strides(),
        op.columns as u64,
        blocks as u64,
        n as u64,
        distribution
    ];
    cuda.launch(&FAMILY, "random_numbers", Grid::each(n), &arguments)
}
