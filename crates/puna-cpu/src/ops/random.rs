//! Philox: random numbers as a function of where they stand.

use puna_tensor::op::{Distribution, Random};
use puna_tensor::{Result, Tensor};

use super::wide::Indices;
use crate::backend::Cpu;
use crate::memory::write;

/// How many numbers a task draws: one costs about 10 ns, so about 20 us.
const TASK: usize = 2 << 10;

pub(super) fn random(cpu: &Cpu, op: &Random, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (seeds, positions) = (Indices::new(inputs[0]), Indices::new(inputs[1]));
    let (rows, columns) = (positions_of(inputs), op.columns);
    if rows * columns == 0 {
        return Ok(());
    }
    // Rows are cut at multiples of four, so that no block of words is drawn twice.
    let per_row = columns.div_ceil(TASK);
    let mut y = write(&outputs[0])?;
    let y = &mut y.typed::<f32>()[..rows * columns];
    for (row, y) in y.chunks_exact_mut(columns).enumerate() {
        let key = [seeds.at_2(row, 0) as u32, seeds.at_2(row, 1) as u32];
        let position = positions.at(row) as u32;
        if per_row == 1 {
            fill(op.distribution, key, position, 0, y);
        } else {
            cpu.pool.chunks_mut(y, TASK, |i, y| fill(op.distribution, key, position, i * TASK, y));
        }
    }
    Ok(())
}

fn positions_of(inputs: &[&Tensor]) -> usize {
    inputs[1].elements()
}

/// Numbers `first..`, `first` a multiple of four.
fn fill(distribution: Distribution, key: [u32; 2], position: u32, first: usize, y: &mut [f32]) {
    for (block, y) in y.chunks_mut(4).enumerate() {
        let u = uniforms(key, position, first / 4 + block);
        let values = match distribution {
            Distribution::Uniform => u,
            Distribution::Gumbel => u.map(gumbel),
            Distribution::Normal => {
                let [a, b] = normals(u[0], u[1]);
                let [c, d] = normals(u[2], u[3]);
                [a, b, c, d]
            }
        };
        y.copy_from_slice(&values[..y.len()]);
    }
}

/// `((w >> 9) + 0.5) * 2^-23`, in (0, 1): 23 bits and a half are as many as f32 holds.
fn uniform(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) * (1.0 / (1 << 23) as f32)
}

/// `-ln(-ln u)`, formed in f64, so that the one rounding is to f32.
pub(super) fn gumbel(u: f32) -> f32 {
    -(-f64::from(u).ln()).ln() as f32
}

fn normals(u0: f32, u1: f32) -> [f32; 2] {
    let (radius, angle) = ((-2.0 * f64::from(u0).ln()).sqrt(), std::f64::consts::TAU * f64::from(u1));
    [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
}

/// Four uniform numbers, those from `4 block` on.
pub(super) fn uniforms(key: [u32; 2], position: u32, block: usize) -> [f32; 4] {
    philox([block as u32, position, 0, 0], key).map(uniform)
}

/// Philox4x32-10. Salmon and others 2011.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    for _ in 0..10 {
        let product = |a: u32, b: u32| {
            let wide = u64::from(a) * u64::from(b);
            ((wide >> 32) as u32, wide as u32)
        };
        let (high0, low0) = product(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = product(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(counter, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn noise_is_finite_at_both_ends() {
        for word in [0, 255, 256, u32::MAX - 256, u32::MAX] {
            assert!(gumbel(uniform(word)).is_finite(), "{word:#x}");
        }
    }
}
