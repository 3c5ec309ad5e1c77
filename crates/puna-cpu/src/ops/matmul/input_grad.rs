//! The gradient of a product's input: the product with the weight's other side, a range of its columns at a time.

use puna_tensor::{Execution, Result, Tensor};

use super::linear::with_rows;
use super::weight::Weight;
use crate::backend::Cpu;
use crate::memory::write;
use crate::ops::wide::{Wide, buffer, in_wide};
use crate::simd::gemm::Matrix;

/// How many elements of the weight are laid out for the kernel at a time: 128 MiB of f32. With fewer, `dy` would be read more often
/// than the products take.
const LAID: usize = 32 << 20;
/// How many rows of `dx` a task rounds and writes.
const ROWS: usize = 16;

pub(crate) fn linear_input_grad(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
    in_wide!(inputs[0].dtype(), input_grad(cpu, inputs[0], inputs[1], &outputs[0]))?;
    Ok(Execution::Done)
}

fn input_grad<W: Wide>(cpu: &Cpu, dy: &Tensor, weight: &Tensor, dx: &Tensor) -> Result<()> {
    let (dtype, weight) = (dx.dtype(), Weight::new(weight));
    let (n, k) = (weight.n, weight.k);
    let mut memory = write(dx)?;
    let bytes = &mut memory.bytes()[..dx.byte_range().len()];
    if bytes.is_empty() {
        return Ok(());
    }
    if n == 0 {
        bytes.fill(0);
        return Ok(());
    }
    let width = (LAID / n / W::PANEL * W::PANEL).clamp(W::PANEL, k.next_multiple_of(W::PANEL));
    with_rows::<W, _>(cpu, dy, |dy| {
        let (rows, x) = (dy.rows, Matrix::rows(dy.values, [dy.rows, n]));
        for first in (0..k).step_by(width) {
            let columns = first..k.min(first + width);
            let (count, element) = (columns.len(), dtype.unit_bytes());
            weight.with_columns::<W>(cpu, columns, |panels| {
                if count == k {
                    W::times(&cpu.pool, x, panels, None, dtype, bytes);
                    return Ok(());
                }
                buffer(cpu, rows * count, |sums: &mut [W]| {
                    W::times_wide(&cpu.pool, x, panels, sums);
                    let row_bytes = k * element;
                    cpu.pool.chunks_mut(bytes, ROWS * row_bytes, |i, into| {
                        let sums = sums[i * ROWS * count..].chunks_exact(count);
                        for (into, sums) in into.chunks_exact_mut(row_bytes).zip(sums) {
                            W::store(dtype, sums, &mut into[first * element..][..count * element]);
                        }
                    });
                    Ok(())
                })
            })?;
        }
        Ok(())
    })
}
