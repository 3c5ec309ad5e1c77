//! One file per op family; this one says which op is computed where.

mod attention;
pub(crate) mod copy;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod mlp;
mod norm;
mod optimizer;
mod parts;
mod random;
mod reduce;
mod rope;
mod sampling;
mod softmax;

use puna_tensor::op::Parts;
use puna_tensor::{BlockType, DType, Error, Execution, Kind, Op, Result, Tensor};

use crate::backend::Wgpu;
use crate::source::{Number, Unit};
use crate::view::View;

/// Computes an op, or says that it has no kernel of its own.
pub(crate) fn execute(wgpu: &Wgpu, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
    if !moves(op, inputs) && inputs.iter().copied().chain(outputs).any(|tensor| tensor.dtype() == DType::F64) {
        let message =
            format!("{} computes in f32, and does no more with f64 than hold and cast it; cast(f32) fits", wgpu.name_of());
        return Err(Error::new(Kind::DType, op.name(), message).with_arguments(inputs));
    }
    let x: Vec<View> = inputs.iter().map(|tensor| View::of(tensor)).collect();
    let y: Vec<View> = outputs.iter().map(View::of).collect();
    match op {
        Op::Unary(op) => elementwise::unary(wgpu, *op, &x, &y)?,
        Op::Affine(op) => elementwise::affine(wgpu, op, &x, &y)?,
        Op::Binary(op) => elementwise::binary(wgpu, *op, &x, &y)?,
        Op::Compare(op) => elementwise::compare(wgpu, *op, &x, &y)?,
        Op::Select => elementwise::select(wgpu, &x, &y)?,
        Op::Reduce(op) => reduce::reduce(wgpu, op, &x[0], &y[0])?,
        Op::ArgReduce(op) => reduce::arg_reduce(wgpu, op, &x[0], &y[0])?,
        Op::CumSum => reduce::cum_sum(wgpu, &x[0], &y[0])?,
        Op::Sort(op) => reduce::sort_rows(wgpu, &x[0], op.descending, &y[0], &y[1])?,
        Op::View(_) => unreachable!("a view is made without a back end"),
        Op::Contiguous => copy::copy(wgpu, &x[0], &y[0], true)?,
        Op::Cast(_) => copy::cast(wgpu, &x[0], &y[0])?,
        Op::Concat(op) => copy::concat(wgpu, op.axis, &x, &y[0])?,
        Op::Fill(op) => copy::fill(wgpu, op.value, &y[0])?,
        Op::Arange(_) => copy::arange(wgpu, &y[0])?,
        Op::Assign => copy::assign(wgpu, &x[1], &x[0])?,
        Op::Unpack => copy::copy(wgpu, &x[0], &y[0], true)?,
        Op::GatherRows(_) => index::gather_rows(wgpu, &x[0], &x[1], &y[0])?,
        Op::ScatterRows => index::scatter_rows(wgpu, &x[0], &x[1], &x[2])?,
        Op::ScatterAddRows(_) => index::scatter_add_rows(wgpu, &x[0], &x[1], &y[0])?,
        Op::Take(_) => index::take(wgpu, &x[0], &x[1], &y[0])?,
        Op::TakeBackward(_) => index::take_backward(wgpu, &x[0], &x[1], &y[0])?,
        Op::MatMul => matmul::matmul(wgpu, &x[0], &x[1], &y[0])?,
        Op::Int8Blocks => matmul::int8_blocks(wgpu, &x[0], &y[0])?,
        // Elements are dropped in training alone; there is no kernel that does.
        Op::Linear(op) if op.parts.drops() => return Ok(Execution::Unsupported),
        Op::Linears(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::GatedMlp(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::Linear(op) => matmul::linears(wgpu, &[op.parts], op.activations, inputs, &y)?,
        Op::Linears(op) => matmul::linears(wgpu, &op.parts, op.activations, inputs, &y)?,
        Op::LinearInputGrad(_) => matmul::linear_input_grad(wgpu, &x[0], &x[1], &y[0])?,
        Op::RmsNorm(op) => norm::rms_norm(wgpu, None, &x[0], x.get(1), op.eps, None, &y[0], y.get(1))?,
        Op::AddRmsNorm(op) => norm::rms_norm(wgpu, Some(&x[0]), &x[1], Some(&x[2]), op.eps, Some(&y[0]), &y[1], y.get(2))?,
        Op::RmsNormBackward(_) => norm::rms_norm_backward(wgpu, &x, &y)?,
        Op::Rope(op) => rope::rope(wgpu, op, &x, &y[0])?,
        Op::RopeAndCache(op) => return rope::rope_and_cache(wgpu, op, &x, &y[0]),
        Op::Attention(op) => attention::attention(wgpu, op, &x, &y)?,
        Op::PagedAttention(op) => attention::paged_attention(wgpu, op, &x, &y[0])?,
        Op::AttentionBackward(op) => attention::attention_backward(wgpu, op, &x, &y)?,
        Op::SwiGlu => mlp::swiglu(wgpu, &x[0], &x[1], &y[0])?,
        Op::SwiGluBackward => mlp::swiglu_backward(wgpu, &x, &y)?,
        Op::GatedMlp(op) => mlp::gated_mlp(wgpu, op, inputs, &y)?,
        Op::Softmax => softmax::softmax(wgpu, &x[0], &y[0], false)?,
        Op::LogSoftmax => softmax::softmax(wgpu, &x[0], &y[0], true)?,
        Op::CrossEntropy => loss::cross_entropy(wgpu, &x, &y)?,
        Op::CrossEntropyBackward(_) => loss::cross_entropy_backward(wgpu, &x, &y[0])?,
        Op::LinearCrossEntropy(_) => loss::linear_cross_entropy(wgpu, &x, &y)?,
        Op::LinearCrossEntropyBackward(op) => loss::linear_cross_entropy_backward(wgpu, op.weight_grad, &x, &y)?,
        Op::AdamW(op) => optimizer::adamw(wgpu, op, inputs)?,
        Op::Sgd(op) => optimizer::sgd(wgpu, op, inputs)?,
        Op::Random(op) => random::random(wgpu, op, &x, &y[0])?,
        Op::Sample(op) => return sampling::sample(wgpu, op, &x, &y),
        Op::Custom(op) => return op.execute(inputs, outputs),
    }
    Ok(Execution::Done)
}

/// Whether an op only moves elements, of whatever dtype, or converts doubles to the other floats or from them.
fn moves(op: &Op, inputs: &[&Tensor]) -> bool {
    match op {
        Op::Cast(to) => to.dtype.is_float() && inputs[0].dtype().is_float(),
        _ => matches!(op, Op::Contiguous | Op::Concat(_) | Op::Fill(_) | Op::Assign | Op::Select | Op::Custom(_)),
    }
}

/// A source with one dtype or two, by the names that most sources have for them.
fn unit_of(source: &'static str, x: DType) -> Unit {
    Unit::new(source, [("X", Number::of(x))])
}

fn unit_from_to(source: &'static str, x: DType, y: DType) -> Unit {
    Unit::new(source, [("X", Number::of(x)), ("Y", Number::of(y))])
}

/// How many of `n` elements a lane of a subgroup has, in whole words of a dtype.
fn lanes_share(n: usize, lanes: u32, dtype: DType) -> u32 {
    let count = Number::of(dtype).count();
    (n.div_ceil(lanes as usize * count) * count) as u32
}

/// With what `blocks.wgsl` asks of a format.
pub(crate) fn with_blocks(unit: Unit, block: BlockType) -> Unit {
    let name = match block {
        BlockType::Nf4 => "NF4",
        other => other.name(),
    };
    unit.with(name, 1).with("VALUES", block.values() as u32).with("BYTES", block.bytes() as u32)
}
