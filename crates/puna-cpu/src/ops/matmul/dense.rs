//! Products of two tensors of any strides.

use half::{bf16, f16};
use puna_tensor::{DType, Layout, Result, Shape, Tensor};

use crate::backend::Cpu;
use crate::memory::{read, write};
use crate::simd::gemm;

pub(crate) fn matmul(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (lhs, rhs, y) = (inputs[0], inputs[1], &outputs[0]);
    let [k, n] = [rhs.dim(rhs.rank() - 2), rhs.dim(rhs.rank() - 1)];
    let mut memory = write(y)?;
    let bytes = &mut memory.bytes()[..y.byte_range().len()];
    if bytes.is_empty() {
        return Ok(());
    }
    if k == 0 {
        bytes.fill(0);
        return Ok(());
    }
    let (left, right) = (batched(lhs, y.shape()), batched(rhs, y.shape()));
    let batch = y.rank() - 2;
    // One right-hand side for all rows of the left-hand side is one product.
    let shared = right.strides()[..batch].iter().all(|stride| *stride == 0);
    let joined = if shared { left.reshape(&[left.shape().rows(), k].into()) } else { None };
    let left = joined.unwrap_or(left);
    let m = left.shape()[left.shape().rank() - 2];
    let [.., row, column] = *left.strides() else { unreachable!("two axes at least") };
    let [.., right_row, right_column] = *right.strides() else { unreachable!("two axes at least") };
    let (lhs, rhs) = (read(lhs), read(rhs));
    let items = y.elements() / (m * n);
    let item = |i: usize| [left.row_offset(i * m), right.row_offset(i * k)];
    macro_rules! multiply {
        ($type:ident) => {{
            let (x, w) = ((lhs.typed(), [row, column]), (rhs.typed(), [right_column, right_row]));
            gemm::matmul_strided::<$type, $type, $type>(&cpu.pool, [m, n, k], items, &item, x, w, bytemuck::cast_slice_mut(bytes))
        }};
    }
    match y.dtype() {
        DType::F64 => multiply!(f64),
        DType::F32 => multiply!(f32),
        DType::F16 => multiply!(f16),
        DType::BF16 => multiply!(bf16),
        other => unreachable!("inference lets floats through, and {other} is none"),
    }
    Ok(())
}

/// An operand's layout, its leading axes broadcast to those of the result.
fn batched(x: &Tensor, y: &Shape) -> Layout {
    let mut axes = [0; puna_tensor::MAX_RANK];
    let axes = &mut axes[..y.rank()];
    axes.copy_from_slice(y);
    axes[y.rank() - 2..].copy_from_slice(&x.shape()[x.rank() - 2..]);
    let shape = Shape::new(axes).expect("as many axes as the result");
    x.layout().broadcast(&shape).expect("inference has found that the leading axes broadcast")
}
