//! One file per op family; this one says which op is computed where.

pub(crate) mod matmul;

mod attention;
mod copy;
mod elementwise;
mod index;
mod loss;
mod mlp;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod rope;
mod row;
mod sampling;
mod softmax;
pub(crate) mod wide;

use puna_tensor::op::Parts;
use puna_tensor::{Execution, Op, Result, Tensor};

use crate::backend::Cpu;

/// Computes an op, or says that it has no kernel of its own.
pub(crate) fn execute(cpu: &Cpu, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
    match op {
        Op::Unary(op) => elementwise::unary(cpu, *op, inputs, outputs)?,
        Op::Affine(op) => elementwise::affine(cpu, op, inputs, outputs)?,
        Op::Binary(op) => elementwise::binary(cpu, *op, inputs, outputs)?,
        Op::Compare(op) => elementwise::compare(cpu, *op, inputs, outputs)?,
        Op::Select => elementwise::select(cpu, inputs, outputs)?,
        Op::Reduce(op) => reduce::reduce(cpu, op, inputs, outputs)?,
        Op::ArgReduce(op) => reduce::arg_reduce(cpu, op, inputs, outputs)?,
        Op::CumSum => reduce::cum_sum(cpu, inputs, outputs)?,
        Op::Sort(op) => reduce::sort(cpu, op, inputs, outputs)?,
        Op::View(_) => unreachable!("a view is made without a back end"),
        Op::Contiguous => copy::contiguous(cpu, inputs, outputs)?,
        Op::Cast(_) => copy::cast(cpu, inputs, outputs)?,
        Op::Concat(op) => copy::concat(cpu, op, inputs, outputs)?,
        Op::Fill(op) => copy::fill(cpu, op, outputs)?,
        Op::Arange(_) => copy::arange(outputs)?,
        Op::Assign => copy::assign(cpu, inputs)?,
        Op::Unpack => matmul::unpack(cpu, inputs, outputs)?,
        Op::GatherRows(_) => index::gather_rows(cpu, inputs, outputs)?,
        Op::ScatterRows => index::scatter_rows(cpu, inputs)?,
        Op::ScatterAddRows(_) => index::scatter_add_rows(cpu, inputs, outputs)?,
        Op::Take(_) => index::take(cpu, inputs, outputs)?,
        Op::TakeBackward(_) => index::take_backward(cpu, inputs, outputs)?,
        Op::MatMul => matmul::matmul(cpu, inputs, outputs)?,
        Op::Int8Blocks => matmul::int8_blocks(cpu, inputs, outputs)?,
        // Elements are dropped in training alone; there is no kernel that does.
        Op::Linear(op) if op.parts.drops() => return Ok(Execution::Unsupported),
        Op::Linears(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::GatedMlp(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::Linear(op) => matmul::linear(cpu, op, inputs, outputs)?,
        Op::Linears(op) => matmul::linears(cpu, op, inputs, outputs)?,
        Op::LinearInputGrad(_) => return matmul::linear_input_grad(cpu, inputs, outputs),
        Op::RmsNorm(op) => norm::rms_norm(cpu, op, inputs, outputs)?,
        Op::AddRmsNorm(op) => norm::add_rms_norm(cpu, op, inputs, outputs)?,
        Op::RmsNormBackward(op) => norm::rms_norm_backward(cpu, op, inputs, outputs)?,
        Op::Rope(op) => rope::rope(cpu, op, inputs, outputs)?,
        Op::RopeAndCache(op) => rope::rope_and_cache(cpu, op, inputs, outputs)?,
        Op::Attention(op) => attention::attention(cpu, op, inputs, outputs)?,
        Op::PagedAttention(op) => attention::paged_attention(cpu, op, inputs, outputs)?,
        Op::AttentionBackward(op) => attention::attention_backward(cpu, op, inputs, outputs)?,
        Op::SwiGlu => mlp::swiglu(cpu, inputs, outputs)?,
        Op::SwiGluBackward => mlp::swiglu_backward(cpu, inputs, outputs)?,
        Op::GatedMlp(op) => mlp::gated_mlp(cpu, op, inputs, outputs)?,
        Op::Softmax => softmax::softmax(cpu, inputs, outputs)?,
        Op::LogSoftmax => softmax::log_softmax(cpu, inputs, outputs)?,
        Op::CrossEntropy => loss::cross_entropy(cpu, inputs, outputs)?,
        Op::CrossEntropyBackward(_) => loss::cross_entropy_backward(cpu, inputs, outputs)?,
        Op::LinearCrossEntropy(_) => loss::linear_cross_entropy(cpu, inputs, outputs)?,
        Op::LinearCrossEntropyBackward(op) => loss::linear_cross_entropy_backward(cpu, op, inputs, outputs)?,
        Op::AdamW(op) => return optimizer::adamw(cpu, op, inputs),
        Op::Sgd(op) => return optimizer::sgd(cpu, op, inputs),
        Op::Random(op) => random::random(cpu, op, inputs, outputs)?,
        Op::Sample(op) => sampling::sample(cpu, op, inputs, outputs)?,
        Op::Custom(op) => return op.execute(inputs, outputs),
    }
    Ok(Execution::Done)
}
