//! Philox: random numbers as a function of where they stand.

use puna_tensor::Result;
use puna_tensor::op::{Distribution, Random};

use super::parts::in_parts;
use crate::backend::Wgpu;
use crate::launch::{Grid, parameters};
use crate::source::Unit;
use crate::view::View;

pub(super) fn random(wgpu: &Wgpu, op: &Random, x: &[View], y: &View) -> Result<()> {
    let (seeds, positions) = (&x[0], &x[1]);
    let distribution = match op.distribution {
        Distribution::Uniform => 0u32,
        Distribution::Normal => 1,
        Distribution::Gumbel => 2,
    };
    let unit = Unit::new("random.wgsl", []);
    in_parts(wgpu, 1, [y], [seeds, positions], &|[y], [seeds, positions]| {
        let rows = positions.elements();
        // Of a row that no binding shows some columns at a time, whole blocks of Philox.
        let columns = if wgpu.shows(y) || rows > 1 { op.columns } else { wgpu.window() / 2 / 4 / 4 * 4 };
        (0..op.columns).step_by(columns.max(4)).try_for_each(|first| {
            let columns = columns.min(op.columns - first);
            let blocks = columns.div_ceil(4);
            let n = rows * blocks;
            let (from, of_seeds) = (first / 4, seeds.strides());
            let parameters = parameters![of_seeds, positions.strides(), columns, blocks, n, distribution, from];
            let views = [Some(&y.part(1, first, columns)), Some(seeds), Some(positions)];
            wgpu.launch(&unit, "random_numbers", Grid::each(n), &views, &parameters)
        })
    })
}
