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
mod random;
mod reduce;
mod rope;
mod sampling;
mod softmax;

use puna_tensor::op::Parts;
use puna_tensor::{BlockType, DType, Execution, Op, Result, Tensor};

use crate::backend::Cuda;
use crate::driver::Unit;
use crate::view::View;

/// Computes an op, or says that it has no kernel of its own.
pub(crate) fn execute(cuda: &Cuda, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
    let x: Vec<View> = inputs.iter().map(|tensor| View::of(tensor)).collect();
    let y: Vec<View> = outputs.iter().map(View::of).collect();
    match op {
        Op::Unary(op) => elementwise::unary(cuda, *op, &x, &y)?,
        Op::Affine(op) => elementwise::affine(cuda, op, &x, &y)?,
        Op::Binary(op) => elementwise::binary(cuda, *op, &x, &y)?,
        Op::Compare(op) => elementwise::compare(cuda, *op, &x, &y)?,
        Op::Select => elementwise::select(cuda, &x, &y)?,
        Op::Reduce(op) => reduce::reduce(cuda, op, &x[0], &y[0])?,
        Op::ArgReduce(op) => reduce::arg_reduce(cuda, op, &x[0], &y[0])?,
        Op::CumSum => reduce::cum_sum(cuda, &x[0], &y[0])?,
        Op::Sort(op) => reduce::sort_rows(cuda, &x[0], op.descending, &y[0], &y[1])?,
        Op::View(_) => unreachable!("a view is made without a back end"),
        Op::Contiguous => copy::copy(cuda, &x[0], &y[0])?,
        Op::Cast(_) => copy::cast(cuda, &x[0], &y[0])?,
        Op::Concat(op) => copy::concat(cuda, op.axis, &x, &y[0])?,
        Op::Fill(op) => copy::fill(cuda, op.value, &y[0])?,
        Op::Arange(_) => copy::arange(cuda, &y[0])?,
        Op::Assign => copy::assign(cuda, &x[1], &x[0])?,
        Op::Unpack => copy::unpack(cuda, &x[0], &y[0])?,
        Op::GatherRows(_) => index::gather_rows(cuda, &x[0], &x[1], &y[0])?,
        Op::ScatterRows => index::scatter_rows(cuda, &x[0], &x[1], &x[2])?,
        Op::ScatterAddRows(_) => index::scatter_add_rows(cuda, &x[0], &x[1], &y[0])?,
        Op::Take(_) => index::take(cuda, &x[0], &x[1], &y[0])?,
        Op::TakeBackward(_) => index::take_backward(cuda, &x[0], &x[1], &y[0])?,
        Op::MatMul => matmul::matmul(cuda, &x[0], &x[1], &y[0])?,
        Op::Int8Blocks => matmul::int8_blocks(cuda, &x[0], &y[0])?,
        // Elements are dropped in training alone; there is no kernel that does.
        Op::Linear(op) if op.parts.drops() => return Ok(Execution::Unsupported),
        Op::Linears(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::GatedMlp(op) if op.parts.iter().any(Parts::drops) => return Ok(Execution::Unsupported),
        Op::Linear(op) => matmul::linears(cuda, &[op.parts], op.activations, inputs, &y)?,
        Op::Linears(op) => matmul::linears(cuda, &op.parts, op.activations, inputs, &y)?,
        Op::LinearInputGrad(_) => matmul::linear_input_grad(cuda, &x[0], &x[1], &y[0])?,
        Op::RmsNorm(op) => norm::rms_norm(cuda, None, &x[0], x.get(1), op.eps, None, &y[0], y.get(1))?,
        Op::AddRmsNorm(op) => norm::rms_norm(cuda, Some(&x[0]), &x[1], Some(&x[2]), op.eps, Some(&y[0]), &y[1], y.get(2))?,
        Op::RmsNormBackward(_) => norm::rms_norm_backward(cuda, &x, &y)?,
        Op::Rope(op) => rope::rope(cuda, op, &x, &y[0])?,
        Op::RopeAndCache(op) => return rope::rope_and_cache(cuda, op, &x, &y[0]),
        Op::Attention(op) => attention::attention(cuda, op, &x, &y)?,
        Op::PagedAttention(op) => attention::paged_attention(cuda, op, &x, &y[0])?,
        Op::AttentionBackward(op) => attention::attention_backward(cuda, op, &x, &y)?,
        Op::SwiGlu => mlp::swiglu(cuda, &x[0], &x[1], &y[0])?,
        Op::SwiGluBackward => mlp::swiglu_backward(cuda, &x, &y)?,
        Op::GatedMlp(op) => mlp::gated_mlp(cuda, op, inputs, &y)?,
        Op::Softmax => softmax::softmax(cuda, &x[0], &y[0], false)?,
        Op::LogSoftmax => softmax::softmax(cuda, &x[0], &y[0], true)?,
        Op::CrossEntropy => loss::cross_entropy(cuda, &x, &y)?,
        Op::CrossEntropyBackward(_) => loss::cross_entropy_backward(cuda, &x, &y[0])?,
        Op::LinearCrossEntropy(_) => loss::linear_cross_entropy(cuda, &x, &y)?,
        Op::LinearCrossEntropyBackward(op) => loss::linear_cross_entropy_backward(cuda, op.weight_grad, &x, &y)?,
        Op::AdamW(op) => return optimizer::adamw(cuda, op, inputs),
        Op::Sgd(op) => return optimizer::sgd(cuda, op, inputs),
        Op::Random(op) => random::random(cuda, op, &x, &y[0])?,
        Op::Sample(op) => sampling::sample(cuda, op, &x, &y)?,
        Op::Custom(op) => return op.execute(inputs, outputs),
    }
    Ok(Execution::Done)
}

/// No definition.
const NONE: (&str, &str) = ("", "");

/// A source with what is defined before it.
const fn unit(source: &'static str, defines: [(&'static str, &'static str); 5]) -> Unit {
    Unit { source, defines }
}

/// The name of a dtype in a kernel: its type, or the number of its block format.
fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::Block(BlockType::Nf4) => "NF4",
        other => other.name(),
    }
}

/// What says of what kind a dtype is, where a kernel asks.
fn kind_name(dtype: DType) -> (&'static str, &'static str) {
    match dtype {
        DType::I64 => ("IS_SIGNED", "1"),
        DType::U8 => ("IS_BYTE", "1"),
        DType::U32 => NONE,
        _ => ("IS_FLOAT", "1"),
    }
}

/// The units of all families: see [`crate::units`].
pub(crate) fn units() -> Vec<Unit> {
    let plain = || DType::FLOATS.into_iter().chain([DType::I64, DType::U32, DType::U8]);
    let floats = || DType::FLOATS.into_iter();
    let mut all = Vec::new();
    all.extend(plain().map(elementwise::family));
    all.extend(["u8", "u16", "u32", "u64"].map(copy::family));
    all.extend(floats().flat_map(|x| plain().filter(move |y| *y != x).map(move |y| copy::cast_family(x, y))));
    all.extend([DType::I64, DType::U32, DType::U8].map(|x| copy::cast_family(x, DType::F32)));
    all.extend(crate::units::blocks().map(|x| copy::decode_family(x, DType::F32)));
    all.extend([DType::F32, DType::F16].map(copy::parts_family));
    all.extend(plain().map(|x| index::family(x, x)));
    all.extend([DType::BF16, DType::F16].map(|x| index::family(x, DType::F32)));
    all.extend(plain().map(|x| reduce::family(x, if x == DType::U8 { DType::U32 } else { x })));
    all.extend(plain().map(reduce::sort_family));
    all.extend([random::FAMILY, matmul::INT8]);
    all.extend(floats().map(sampling::family));
    all.push(matmul::family(DType::F64, DType::F64, DType::F64, false));
    for large in [false, true] {
        all.extend(floats().filter(|x| *x != DType::F64).map(|x| matmul::family(x, x, x, large)));
        all.extend([DType::F16, DType::BF16].map(|x| matmul::family(x, x, DType::F32, large)));
        // Formats differ in how a value is decoded, which the smaller tile shows of each.
        let seen = |w: &DType| !large || [BlockType::Q4K, BlockType::Nf4].map(DType::Block).contains(w);
        all.extend(crate::units::blocks().filter(seen).map(|w| matmul::family(DType::F32, w, DType::F32, large)));
    }
    for (x, y) in [(DType::BF16, DType::BF16), (DType::BF16, DType::F32), (DType::F16, DType::F16)] {
        all.push(matmul::linear_sm80(x, x, y));
        // Those of a layer forward, and of its derivatives by input and weight.
        for turned in [[false, false], [false, true], [true, true]] {
            all.extend([false, true].map(|large| matmul::matmul_sm80(x, y, turned, large)));
        }
    }
    all.extend(floats().map(|x| norm::family(x, x)));
    all.extend(floats().map(|x| rope::family(x, x)));
    all.extend(floats().map(|x| attention::family(x, x)));
    all.push(matmul::linear_sm80(DType::F32, DType::BF16, DType::F32));
    let integer = crate::units::blocks().filter(|block| *block != DType::Block(BlockType::Nf4));
    all.extend(integer.flat_map(|w| [false, true].map(|many| matmul::linear_int8_sm80(w, DType::BF16, many, true))));
    for (x, dim) in [(DType::BF16, 64), (DType::BF16, 128), (DType::F16, 64), (DType::F16, 128), (DType::BF16, 32)] {
        all.extend([false, true].map(|partial| attention::family_sm80(x, dim, partial)));
        all.extend(["DQ", "DK", "DV"].map(|of| attention::family_backward_sm80(x, dim, of)));
    }
    all.extend(floats().map(mlp::family));
    all.extend(floats().map(softmax::family));
    all.extend(floats().map(loss::family));
    all.extend(floats().map(|x| optimizer::family(x, x)));
    all.push(optimizer::family(DType::BF16, DType::F32));
    all
}

/// What models meet beside [`units`]: mixtures of dtypes.
#[cfg(feature = "cubins")]
pub(crate) fn mixtures() -> Vec<Unit> {
    let single = DType::F32;
    let blocks = || crate::units::blocks();
    let mut all = Vec::new();
    for half in [DType::F16, DType::BF16] {
        // Norms in f32 beside halves, caches of halves beside f32, and what adapters in another dtype than their layers meet.
        all.extend([norm::family(half, single), norm::family(single, half)]);
        all.extend([rope::family(single, half), attention::family(single, half), index::family(single, half)]);
        for large in [false, true] {
            let products = [
                (half, single, single),
                (single, half, single),
                (single, single, half),
                (half, single, half),
                (single, half, half),
            ];
            all.extend(products.map(|(x, w, y)| matmul::family(x, w, y, large)));
            all.extend(blocks().map(|w| matmul::family(half, w, half, large)));
        }
        all.extend(blocks().map(|w| copy::decode_family(w, half)));
    }
    for y in [DType::F16, single] {
        let integer = blocks().filter(|block| *block != DType::Block(BlockType::Nf4));
        all.extend(integer.flat_map(|w| [false, true].map(|many| matmul::linear_int8_sm80(w, y, many, true))));
    }
    all.push(matmul::linear_sm80(DType::F16, DType::F16, single));
    for turned in [[false, false], [false, true], [true, true]] {
        all.extend([false, true].map(|large| matmul::matmul_sm80(DType::F16, single, turned, large)));
    }
    all.extend([false, true].map(|partial| attention::family_sm80(DType::F16, 32, partial)));
    all.extend(["DQ", "DK", "DV"].map(|of| attention::family_backward_sm80(DType::F16, 32, of)));
    all.push(optimizer::family(DType::F16, single));
    all
}
