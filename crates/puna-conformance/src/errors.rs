//! Wrong calls: each is an `Err` of the right kind, whose message names the shapes; none panics.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use puna_tensor::op::*;
use puna_tensor::{Axes, Backend, BlockType, Buffer, DType, Device, Error, Execution, Kind, Op, Result, Shape, Tensor, no_grad};

use crate::case::{Case, cases};
use crate::draw::{Draw, indices_tensor, shape_of, tensor};

pub(crate) const CASES: &[Case] = cases! {
    "(errors)" => wrong_shapes_are_refused, wrong_dtypes_are_refused, wrong_counts_and_attributes_are_refused, shapes_beyond_memory_are_refused,
        arguments_on_two_devices_are_refused, packed_weights_are_refused_elsewhere, in_place_ops_refuse_what_they_must_not_change, primitives_have_no_lowering;
};

/// Runs a wrong call: it must be refused, with this kind, and a message with these words.
#[track_caller]
fn refused<T>(what: &str, kind: Kind, words: &[&str], call: impl FnOnce() -> Result<T>) {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| panic!("{what}: panics, where it should be refused"));
    let Err(error) = result else { panic!("{what}: is accepted") };
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{what}: the message {message:?} does not say {word:?}");
    }
    assert!(!message.contains('\n') && !message.ends_with('.'), "{what}: {message:?} is one line without a full stop");
}

fn f32(device: &Device, shape: &[usize]) -> Tensor {
    tensor(device, &Draw::new(1).floats(shape, DType::F32), DType::F32)
}

fn f16(device: &Device, shape: &[usize]) -> Tensor {
    tensor(device, &Draw::new(1).floats(shape, DType::F16), DType::F16)
}

fn u32(device: &Device, shape: &[usize]) -> Tensor {
    indices_tensor(device, &vec![0; shape.iter().product()], shape)
}

fn blocks(device: &Device, shape: &[usize]) -> Tensor {
    let dtype = DType::Block(BlockType::Q8_0);
    let (bytes, _) = crate::blocks::random_blocks(BlockType::Q8_0, shape, 1);
    Tensor::from_bytes(&bytes, dtype, shape_of(shape), device).expect("blocks")
}

fn run(op: Op, inputs: &[&Tensor]) -> Result<Outputs> {
    op.apply(inputs)
}

const EXACT: Activations = Activations::Exact;
const ATTENTION: Attention = Attention { scale: 1.0, mask: Mask::Causal };
const PAGED: PagedAttention = PagedAttention { scale: 1.0, mask: Mask::Causal };

/// A step of one parameter.
fn adamw() -> Op {
    Op::AdamW(AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, parameters: vec![Stepped::default()] })
}

fn sgd() -> Op {
    Op::Sgd(Sgd { momentum: 0.0, parameters: vec![Stepped::default()] })
}

fn wrong_shapes_are_refused(device: &Device) {
    let f = |shape: &[usize]| f32(device, shape);
    let u = |shape: &[usize]| u32(device, shape);
    let shape = |what: &str, words: &[&str], op: Op, inputs: &[&Tensor]| refused(what, Kind::Shape, words, || run(op, inputs));
    shape("add", &["[2, 3]", "[2, 4]"], Op::Binary(Binary::Add), &[&f(&[2, 3]), &f(&[2, 4])]);
    shape("compare", &["[3]", "[0]"], Op::Compare(Compare::Lt), &[&f(&[3]), &f(&[0])]);
    let condition = f(&[2]).gt(&f(&[2])).expect("gt");
    shape("select", &["[2]", "[3]"], Op::Select, &[&condition, &f(&[3]), &f(&[3])]);
    shape("reduce", &["[2, 3]", "2"], Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: 2.into(), keep: false }), &[&f(&[2, 3])]);
    shape(
        "reduce twice",
        &["[2, 3]"],
        Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: [1, 1].into(), keep: false }),
        &[&f(&[2, 3])],
    );
    shape("argmax of nothing", &["[2, 0]"], Op::ArgReduce(ArgReduce { largest: true, axis: 1, keep: false }), &[&f(&[2, 0])]);
    shape("argmax", &["[2]", "1"], Op::ArgReduce(ArgReduce { largest: true, axis: 1, keep: false }), &[&f(&[2])]);
    for op in [Op::CumSum, Op::Sort(Sort { descending: true }), Op::Softmax, Op::LogSoftmax, Op::Int8Blocks] {
        shape("a scalar", &["scalar"], op, &[&f(&[])]);
    }
    shape("reshape", &["[2, 3]", "[4]"], Op::View(View::Reshape(4.into())), &[&f(&[2, 3])]);
    shape("permute", &["[2, 3]", "[0, 0]"], Op::View(View::Permute([0, 0].into())), &[&f(&[2, 3])]);
    shape("permute too few", &["[2, 3]"], Op::View(View::Permute(0.into())), &[&f(&[2, 3])]);
    shape("slice", &["[2, 3]", "4"], Op::View(View::Slice { axis: 1, start: 0, length: 4 }), &[&f(&[2, 3])]);
    shape("slice far", &["[2, 3]"], Op::View(View::Slice { axis: 1, start: usize::MAX, length: 2 }), &[&f(&[2, 3])]);
    shape("slice axis", &["[2, 3]"], Op::View(View::Slice { axis: 2, start: 0, length: 0 }), &[&f(&[2, 3])]);
    shape("broadcast", &["[2, 3]", "[2, 4]"], Op::View(View::Broadcast([2, 4].into())), &[&f(&[2, 3])]);
    shape("broadcast to fewer axes", &["[2, 3]", "[3]"], Op::View(View::Broadcast(3.into())), &[&f(&[2, 3])]);
    shape(
        "a cut block",
        &["[2, 64]", "32"],
        Op::View(View::Slice { axis: 1, start: 16, length: 32 }),
        &[&blocks(device, &[2, 64])],
    );
    shape("blocks turned", &["[2, 64]"], Op::View(View::Permute([1, 0].into())), &[&blocks(device, &[2, 64])]);
    shape("blocks reshaped", &["[2, 64]", "[8, 16]"], Op::View(View::Reshape([8, 16].into())), &[&blocks(device, &[2, 64])]);
    refused("unsqueeze beyond", Kind::Shape, &["[2]"], || f(&[2]).unsqueeze(2));
    refused("a seventh axis", Kind::Shape, &["[1, 1, 1, 1, 1, 1]"], || f(&[1, 1, 1, 1, 1, 1]).unsqueeze(0));
    refused("transpose", Kind::Shape, &["[2]"], || f(&[2]).transpose(0, 1));
    shape("encode", &["[2, 33]", "32"], Op::Cast(Cast { dtype: DType::Block(BlockType::Q4_0) }), &[&f(&[2, 33])]);
    shape("encode a scalar", &["[]"], Op::Cast(Cast { dtype: DType::Block(BlockType::Q4_0) }), &[&f(&[])]);
    shape("concat", &["[2, 3]", "[2, 4]"], Op::Concat(Concat { axis: 0 }), &[&f(&[2, 3]), &f(&[2, 4])]);
    shape("concat ranks", &["[2, 3]", "[2]"], Op::Concat(Concat { axis: 0 }), &[&f(&[2, 3]), &f(&[2])]);
    shape("concat axis", &["[2, 3]"], Op::Concat(Concat { axis: 2 }), &[&f(&[2, 3])]);
    shape("assign", &["[2]", "[3]"], Op::Assign, &[&f(&[2]), &f(&[3])]);
    shape("assign wider", &["[1]", "[3]"], Op::Assign, &[&f(&[1]), &f(&[3])]);
    let gather = Op::GatherRows(GatherRows { dtype: DType::F32 });
    shape("gather a scalar", &["scalar"], gather.clone(), &[&f(&[]), &u(&[1])]);
    shape("gather blocks", &["[32]"], gather.clone(), &[&blocks(device, &[32]), &u(&[1])]);
    shape("gather too many axes", &["[1, 1, 1, 1]", "[1, 1, 1, 1]"], gather, &[&f(&[1, 1, 1, 1]), &u(&[1, 1, 1, 1])]);
    shape("scatter", &["[3, 2]", "[2, 3]"], Op::ScatterRows, &[&f(&[4, 3]), &u(&[2]), &f(&[3, 2])]);
    shape("scatter index", &["[2, 1]"], Op::ScatterRows, &[&f(&[4, 3]), &u(&[2, 1]), &f(&[2, 3])]);
    shape("scatter into a scalar", &["scalar"], Op::ScatterRows, &[&f(&[]), &u(&[1]), &f(&[1])]);
    shape("scatter_add", &["[2, 3]", "[3]"], Op::ScatterAddRows(ScatterAddRows { rows: 2 }), &[&f(&[2, 3]), &u(&[3])]);
    shape("scatter_add rank", &["[2]", "[2, 1]"], Op::ScatterAddRows(ScatterAddRows { rows: 2 }), &[&f(&[2]), &u(&[2, 1])]);
    shape("take", &["[2, 3]", "[3, 3]"], Op::Take(Take), &[&f(&[2, 3]), &u(&[3, 3])]);
    shape("take rank", &["[2, 3]", "[3]"], Op::Take(Take), &[&f(&[2, 3]), &u(&[3])]);
    shape("take of a scalar", &["scalar"], Op::Take(Take), &[&f(&[]), &u(&[1])]);
    shape("take_backward", &["[2, 3]", "[2, 4]"], Op::TakeBackward(TakeBackward { length: 3 }), &[&f(&[2, 3]), &u(&[2, 4])]);
    shape("matmul", &["[2, 3]", "[2, 3]", "transpose"], Op::MatMul, &[&f(&[2, 3]), &f(&[2, 3])]);
    shape("matmul of a vector", &["[3]", "[3, 2]"], Op::MatMul, &[&f(&[3]), &f(&[3, 2])]);
    shape("matmul batches", &["[2, 1, 3]", "[3, 3, 1]"], Op::MatMul, &[&f(&[2, 1, 3]), &f(&[3, 3, 1])]);
    let linear = |bias, scale: Option<f64>| {
        let adapter = scale.map(|scale| LowRankParts { scale, dropout: None });
        Op::Linear(Linear { parts: Parts { bias, adapter, factor: false }, activations: EXACT })
    };
    shape("linear", &["[2, 3]", "[4, 5]"], linear(false, None), &[&f(&[2, 3]), &f(&[4, 5])]);
    shape("linear turned", &["[2, 3]", "[3, 5]", "transpose"], linear(false, None), &[&f(&[2, 3]), &f(&[3, 5])]);
    shape("linear weight", &["[3]", "[N, K]"], linear(false, None), &[&f(&[2, 3]), &f(&[3])]);
    shape("linear of a scalar", &["scalar"], linear(false, None), &[&f(&[]), &f(&[3, 1])]);
    shape("linear bias", &["[3]", "[5]", "[5, 3]"], linear(true, None), &[&f(&[2, 3]), &f(&[5, 3]), &f(&[3])]);
    shape("linear a", &["[2, 4]", "[2, 3]"], linear(false, Some(1.0)), &[&f(&[2, 3]), &f(&[5, 3]), &f(&[2, 4]), &f(&[5, 2])]);
    shape("linear b", &["[5, 3]", "[5, 2]"], linear(false, Some(1.0)), &[&f(&[2, 3]), &f(&[5, 3]), &f(&[2, 3]), &f(&[5, 3])]);
    let dropout = |p| {
        let adapter = Some(LowRankParts { scale: 1.0, dropout: Some(p) });
        Op::Linear(Linear { parts: Parts { bias: false, adapter, factor: false }, activations: EXACT })
    };
    let with_seed = [&f(&[2, 3]), &f(&[5, 3]), &f(&[2, 3]), &f(&[5, 2]), &u(&[1])];
    shape("linear seed", &["seed", "[1]", "[2]"], dropout(0.1), &with_seed);
    let factor = Op::Linear(Linear { parts: Parts { factor: true, ..Parts::default() }, activations: EXACT });
    shape("linear factor", &["factor", "[3]", "[5, 3]", "[5]"], factor, &[&f(&[2, 3]), &f(&[5, 3]), &f(&[3])]);
    let linears = Op::Linears(Linears { parts: vec![Parts::default(); 2], activations: EXACT });
    shape("linears", &["[2, 3]", "[4, 5]"], linears, &[&f(&[2, 3]), &f(&[4, 3]), &f(&[4, 5])]);
    shape("linear_input_grad", &["[2, 3]", "[4, 3]"], Op::LinearInputGrad(LinearInputGrad), &[&f(&[2, 3]), &f(&[4, 3])]);
    let mlp = Op::GatedMlp(GatedMlp { parts: [Parts::default(); 3], activations: EXACT });
    shape("gated_mlp", &["[3, 4]", "5", "4"], mlp.clone(), &[&f(&[2, 3]), &f(&[5, 3]), &f(&[5, 3]), &f(&[3, 4])]);
    let down_bias = [Parts::default(), Parts::default(), Parts { bias: true, ..Parts::default() }];
    let down_bias = Op::GatedMlp(GatedMlp { parts: down_bias, activations: EXACT });
    let with_bias = [&f(&[2, 3]), &f(&[5, 3]), &f(&[5, 3]), &f(&[3, 5]), &f(&[5])];
    shape("gated_mlp down bias", &["bias", "[5]", "[3, 5]"], down_bias, &with_bias);
    shape("gated_mlp up", &["5", "6"], mlp, &[&f(&[2, 3]), &f(&[5, 3]), &f(&[6, 3]), &f(&[3, 5])]);
    shape("swiglu", &["[2]", "[3]"], Op::SwiGlu, &[&f(&[2]), &f(&[3])]);
    shape("swiglu does not broadcast", &["[1]", "[3]"], Op::SwiGlu, &[&f(&[3]), &f(&[1])]);
    shape("swiglu_backward", &["[2]", "[3]"], Op::SwiGluBackward, &[&f(&[2]), &f(&[3]), &f(&[3])]);
    shape("rms_norm", &["[4]", "[2, 3]"], Op::RmsNorm(RmsNorm { eps: 0.0, weight: true }), &[&f(&[2, 3]), &f(&[4])]);
    shape("rms_norm of a scalar", &["scalar"], Op::RmsNorm(RmsNorm { eps: 0.0, weight: false }), &[&f(&[])]);
    shape("add_rms_norm", &["[2, 3]", "[3]"], Op::AddRmsNorm(AddRmsNorm { eps: 0.0 }), &[&f(&[2, 3]), &f(&[3]), &f(&[3])]);
    shape(
        "rms_norm_backward",
        &["[3]", "[2, 3]"],
        Op::RmsNormBackward(RmsNormBackward { weight: false }),
        &[&f(&[2, 3]), &f(&[2, 3]), &f(&[3])],
    );
    let rope = Op::Rope(Rope { pairs: RopePairs::Halves, inverse: false });
    shape("rope odd", &["[2, 1, 3]", "even"], rope.clone(), &[&f(&[2, 1, 3]), &f(&[4, 1]), &f(&[4, 1]), &u(&[2])]);
    shape("rope table", &["[4, 3]", "[2, 1, 4]"], rope.clone(), &[&f(&[2, 1, 4]), &f(&[4, 3]), &f(&[4, 3]), &u(&[2])]);
    shape("rope positions", &["[3]", "[2, 1, 4]"], rope.clone(), &[&f(&[2, 1, 4]), &f(&[4, 2]), &f(&[4, 2]), &u(&[3])]);
    shape("rope rank", &["[2, 4]"], rope, &[&f(&[2, 4]), &f(&[4, 2]), &f(&[4, 2]), &u(&[2])]);
    let pages = f(&[3, 2, 1, 4]);
    let cache = Op::RopeAndCache(RopeAndCache { pairs: RopePairs::Halves });
    let (q, k, table, positions) = (f(&[2, 2, 4]), f(&[2, 1, 4]), f(&[4, 2]), u(&[2]));
    let other = f(&[3, 2, 1, 4]);
    shape("slots", &["[3]", "[2, 2, 4]"], cache.clone(), &[&q, &k, &k, &table, &table, &positions, &pages, &other, &u(&[3])]);
    shape(
        "cache heads",
        &["[2, 2, 4]", "[3, 2, 1, 4]"],
        cache,
        &[&q, &q, &q, &table, &table, &positions, &pages, &other, &u(&[2])],
    );
    let starts = u(&[2]);
    let attention = || Op::Attention(ATTENTION);
    shape("attention dims", &["[2, 1, 3]"], attention(), &[&f(&[2, 2, 4]), &f(&[2, 1, 3]), &f(&[2, 1, 4]), &starts, &starts]);
    shape("attention groups", &["3", "2"], attention(), &[&f(&[2, 3, 4]), &f(&[2, 2, 4]), &f(&[2, 2, 4]), &starts, &starts]);
    shape("attention without heads", &["0"], attention(), &[&f(&[2, 2, 4]), &f(&[2, 0, 4]), &f(&[2, 0, 4]), &starts, &starts]);
    shape("attention starts", &["[3]", "[2]"], attention(), &[&f(&[2, 2, 4]), &f(&[2, 1, 4]), &f(&[2, 1, 4]), &starts, &u(&[3])]);
    shape(
        "attention without starts",
        &["q_starts"],
        attention(),
        &[&f(&[2, 2, 4]), &f(&[2, 1, 4]), &f(&[2, 1, 4]), &u(&[0]), &u(&[0])],
    );
    let paged = || Op::PagedAttention(PAGED);
    shape("pages", &["[3, 2, 1, 4]", "[2, 2, 6]"], paged(), &[&f(&[2, 2, 6]), &pages, &pages, &u(&[1, 2]), &starts, &u(&[1])]);
    shape("page table", &["[2, 2]"], paged(), &[&f(&[2, 2, 4]), &pages, &pages, &u(&[2, 2]), &starts, &u(&[1])]);
    shape("lengths", &["[2]"], paged(), &[&f(&[2, 2, 4]), &pages, &pages, &u(&[1, 2]), &starts, &u(&[2])]);
    shape(
        "empty pages",
        &["[3, 0, 1, 4]"],
        paged(),
        &[&f(&[2, 2, 4]), &f(&[3, 0, 1, 4]), &f(&[3, 0, 1, 4]), &u(&[1, 2]), &starts, &u(&[1])],
    );
    let back = Op::AttentionBackward(AttentionBackward { scale: 1.0, mask: Mask::Full });
    let (qd, kd) = (f(&[2, 2, 4]), f(&[2, 1, 4]));
    shape("attention_backward", &["[2, 1, 4]"], back, &[&kd, &qd, &kd, &kd, &qd, &f(&[2, 2]), &starts, &starts]);
    shape("cross_entropy", &["[3]", "[2, 5]"], Op::CrossEntropy, &[&f(&[2, 5]), &u(&[3])]);
    shape("cross_entropy of a scalar", &["scalar"], Op::CrossEntropy, &[&f(&[]), &u(&[])]);
    let ce = Op::CrossEntropyBackward(CrossEntropyBackward);
    shape("cross_entropy_backward", &["[1]"], ce, &[&f(&[1]), &f(&[2, 5]), &u(&[2]), &f(&[2])]);
    shape(
        "linear_cross_entropy",
        &["[7, 4]", "[2, 5]"],
        Op::LinearCrossEntropy(LinearCrossEntropy),
        &[&f(&[2, 5]), &f(&[7, 4]), &u(&[2])],
    );
    let lce = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad: true });
    shape("linear_cross_entropy_backward", &["[3]"], lce, &[&f(&[]), &f(&[2, 5]), &f(&[7, 5]), &u(&[2]), &f(&[3])]);
    let (w, m, v, g, s) = (f(&[3]), f(&[3]), f(&[3]), f(&[3]), f(&[]));
    shape("adamw gradient", &["[2]", "[3]"], adamw(), &[&w, &m, &v, &f(&[2]), &s, &s, &s]);
    shape("adamw scalar", &["[1]"], adamw(), &[&w, &m, &v, &g, &f(&[1]), &s, &s]);
    shape("sgd", &["[2]", "[3]"], sgd(), &[&w, &f(&[2]), &g, &s, &s]);
    shape(
        "random",
        &["[2]", "[3, 2]"],
        Op::Random(Random { distribution: Distribution::Uniform, columns: 1 }),
        &[&u(&[3, 2]), &u(&[2])],
    );
    let sample = || Op::Sample(Sample { filtered: false });
    let rest = [u(&[2, 0]), u(&[2]), u(&[2, 0]), f(&[2, 0]), u(&[2, 2]), u(&[2])];
    let with = |logits: &Tensor, parameters: &Tensor| {
        let inputs: Vec<&Tensor> = [logits, parameters].into_iter().chain(&rest).collect();
        run(sample(), &inputs)
    };
    refused("sample parameters", Kind::Shape, &["[2, 6]", "[2, 5]"], || with(&f(&[2, 5]), &f(&[2, 6])));
    refused("sample rank", Kind::Shape, &["[5]"], || with(&f(&[5]), &f(&[2, 7])));
    refused("sample of no vocabulary", Kind::Shape, &["[2, 0]"], || with(&f(&[2, 0]), &f(&[2, 7])));
    refused("item of many", Kind::Shape, &["[2]"], || f(&[2]).item::<f32>());
    refused("from_slice", Kind::Shape, &["[3]", "12", "8"], || Tensor::from_slice(&[1.0f32, 2.0], 3, device));
    refused("blocks of a part", Kind::Shape, &["[2, 33]", "32"], || {
        Tensor::zeros([2, 33], DType::Block(BlockType::Q8_0), device)
    });
    refused("pack a vector", Kind::Shape, &["[3]"], || f(&[3]).pack());
}

fn wrong_dtypes_are_refused(device: &Device) {
    let f = |shape: &[usize]| f32(device, shape);
    let h = |shape: &[usize]| f16(device, shape);
    let u = |shape: &[usize]| u32(device, shape);
    let q = |shape: &[usize]| blocks(device, shape);
    let dtype = |what: &str, words: &[&str], op: Op, inputs: &[&Tensor]| refused(what, Kind::DType, words, || run(op, inputs));
    for op in Unary::ALL {
        dtype("unary of u32", &["u32", "[3]"], Op::Unary(op), &[&u(&[3])]);
        dtype("unary of blocks", &["Q8_0", "[2, 32]"], Op::Unary(op), &[&q(&[2, 32])]);
    }
    dtype("affine", &["u32"], Op::Affine(Affine { mul: 1.0, add: 0.0 }), &[&u(&[3])]);
    dtype("add", &["f32", "f16"], Op::Binary(Binary::Add), &[&f(&[3]), &h(&[3])]);
    dtype("add blocks", &["Q8_0"], Op::Binary(Binary::Add), &[&q(&[32]), &q(&[32])]);
    dtype("pow of integers", &["u32"], Op::Binary(Binary::Pow), &[&u(&[3]), &u(&[3])]);
    dtype("compare", &["f32", "u32"], Op::Compare(Compare::Eq), &[&f(&[3]), &u(&[3])]);
    dtype("select by u32", &["u32", "u8"], Op::Select, &[&u(&[3]), &f(&[3]), &f(&[3])]);
    let mean = Op::Reduce(Reduce { kind: ReduceKind::Mean, axes: 0.into(), keep: false });
    dtype("mean of integers", &["u32"], mean, &[&u(&[3])]);
    dtype("sum of blocks", &["Q8_0"], Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: 0.into(), keep: false }), &[&q(&[32])]);
    dtype("cum_sum", &["u32"], Op::CumSum, &[&u(&[3])]);
    for op in [Op::Softmax, Op::LogSoftmax, Op::Int8Blocks] {
        dtype("of u32", &["u32"], op, &[&u(&[3])]);
    }
    dtype("int8_blocks of f16", &["f16", "f32"], Op::Int8Blocks, &[&h(&[3])]);
    dtype("sort blocks", &["Q8_0"], Op::Sort(Sort { descending: true }), &[&q(&[32])]);
    dtype("blocks to u32", &["Q8_0", "u32"], Op::Cast(Cast { dtype: DType::U32 }), &[&q(&[32])]);
    dtype("u32 to blocks", &["u32", "Q8_0"], Op::Cast(Cast { dtype: DType::Block(BlockType::Q8_0) }), &[&u(&[32])]);
    dtype("blocks to blocks", &["Q8_0", "Q4_0"], Op::Cast(Cast { dtype: DType::Block(BlockType::Q4_0) }), &[&q(&[32])]);
    dtype("concat", &["f32", "f16"], Op::Concat(Concat { axis: 0 }), &[&f(&[3]), &h(&[3])]);
    refused("fill blocks", Kind::DType, &["Q8_0"], || {
        Op::Fill(Fill { shape: 32.into(), dtype: DType::Block(BlockType::Q8_0), value: 0.0 }).apply_on(device, &[])
    });
    dtype("assign", &["f32", "f16"], Op::Assign, &[&f(&[3]), &h(&[3])]);
    dtype("assign to blocks", &["Q8_0"], Op::Assign, &[&q(&[32]), &q(&[32])]);
    dtype("gather by floats", &["f32", "u32"], Op::GatherRows(GatherRows { dtype: DType::F32 }), &[&f(&[3]), &f(&[3])]);
    dtype("gather floats as u32", &["f32", "u32"], Op::GatherRows(GatherRows { dtype: DType::U32 }), &[&f(&[3]), &u(&[3])]);
    dtype("gather u32 as floats", &["u32", "f32"], Op::GatherRows(GatherRows { dtype: DType::F32 }), &[&u(&[3]), &u(&[3])]);
    dtype("scatter into blocks", &["Q8_0"], Op::ScatterRows, &[&q(&[2, 32]), &u(&[1]), &f(&[1, 32])]);
    dtype("scatter floats into u32", &["u32", "f32"], Op::ScatterRows, &[&u(&[2]), &u(&[1]), &f(&[1])]);
    dtype("scatter_add of u32", &["u32"], Op::ScatterAddRows(ScatterAddRows { rows: 1 }), &[&u(&[2]), &u(&[2])]);
    dtype("take of blocks", &["Q8_0"], Op::Take(Take), &[&q(&[32]), &u(&[3])]);
    dtype("take by floats", &["f32"], Op::Take(Take), &[&f(&[3]), &f(&[3])]);
    dtype("matmul", &["f32", "f16"], Op::MatMul, &[&f(&[2, 2]), &h(&[2, 2])]);
    dtype("matmul of integers", &["u32"], Op::MatMul, &[&u(&[2, 2]), &u(&[2, 2])]);
    dtype("matmul of blocks", &["Q8_0"], Op::MatMul, &[&q(&[2, 32]), &q(&[32, 32])]);
    let linear = |bias| Op::Linear(Linear { parts: Parts { bias, ..Parts::default() }, activations: EXACT });
    dtype("linear of blocks", &["Q8_0"], linear(false), &[&q(&[2, 32]), &f(&[3, 32])]);
    dtype("linear by integers", &["u32"], linear(false), &[&f(&[2, 3]), &u(&[4, 3])]);
    dtype("linear with a bias of integers", &["bias", "u32"], linear(true), &[&f(&[2, 3]), &f(&[4, 3]), &u(&[4])]);
    dtype("linear_input_grad", &["u32"], Op::LinearInputGrad(LinearInputGrad), &[&u(&[2, 3]), &f(&[3, 4])]);
    dtype("rms_norm weight", &["u32"], Op::RmsNorm(RmsNorm { eps: 0.0, weight: true }), &[&f(&[3]), &u(&[3])]);
    dtype("rms_norm of blocks", &["Q8_0"], Op::RmsNorm(RmsNorm { eps: 0.0, weight: false }), &[&q(&[32])]);
    dtype("add_rms_norm", &["f32", "f16"], Op::AddRmsNorm(AddRmsNorm { eps: 0.0 }), &[&f(&[3]), &h(&[3]), &f(&[3])]);
    dtype(
        "rms_norm_backward",
        &["f16", "f32"],
        Op::RmsNormBackward(RmsNormBackward { weight: false }),
        &[&h(&[2, 3]), &h(&[2, 3]), &h(&[2])],
    );
    let rope = || Op::Rope(Rope { pairs: RopePairs::Halves, inverse: false });
    dtype("rope positions", &["f32", "u32"], rope(), &[&f(&[2, 1, 4]), &f(&[4, 2]), &f(&[4, 2]), &f(&[2])]);
    dtype("rope tables", &["f32", "f16"], rope(), &[&f(&[2, 1, 4]), &f(&[4, 2]), &h(&[4, 2]), &u(&[2])]);
    let starts = u(&[2]);
    dtype(
        "attention",
        &["f32", "f16"],
        Op::Attention(ATTENTION),
        &[&f(&[2, 2, 4]), &h(&[2, 1, 4]), &h(&[2, 1, 4]), &starts, &starts],
    );
    dtype(
        "attention starts",
        &["f32", "u32"],
        Op::Attention(ATTENTION),
        &[&f(&[2, 2, 4]), &f(&[2, 1, 4]), &f(&[2, 1, 4]), &f(&[2]), &starts],
    );
    let pages = f(&[3, 2, 1, 4]);
    dtype(
        "pages",
        &["f32", "f16"],
        Op::PagedAttention(PAGED),
        &[&f(&[2, 2, 4]), &pages, &h(&[3, 2, 1, 4]), &u(&[1, 2]), &starts, &u(&[1])],
    );
    dtype(
        "page table",
        &["f32", "u32"],
        Op::PagedAttention(PAGED),
        &[&f(&[2, 2, 4]), &pages, &pages, &f(&[1, 2]), &starts, &u(&[1])],
    );
    dtype("swiglu", &["f32", "f16"], Op::SwiGlu, &[&f(&[3]), &h(&[3])]);
    dtype("labels", &["f32", "u32"], Op::CrossEntropy, &[&f(&[2, 3]), &f(&[2])]);
    dtype("logits", &["u32"], Op::CrossEntropy, &[&u(&[2, 3]), &u(&[2])]);
    let lce = Op::LinearCrossEntropyBackward(LinearCrossEntropyBackward { weight_grad: true });
    dtype("the gradient of blocks", &["Q8_0"], lce, &[&f(&[]), &f(&[2, 32]), &q(&[7, 32]), &u(&[2]), &f(&[2])]);
    let (w, m, v, g, s) = (h(&[3]), f(&[3]), f(&[3]), h(&[3]), f(&[]));
    dtype("adamw state", &["f16", "f32"], adamw(), &[&w, &h(&[3]), &v, &g, &s, &s, &s]);
    dtype("adamw rate", &["f16", "f32"], adamw(), &[&w, &m, &v, &g, &h(&[]), &s, &s]);
    dtype("adamw of blocks", &["Q8_0"], adamw(), &[&q(&[32]), &f(&[32]), &f(&[32]), &f(&[32]), &s, &s, &s]);
    dtype(
        "random",
        &["f32", "u32"],
        Op::Random(Random { distribution: Distribution::Uniform, columns: 1 }),
        &[&f(&[3, 2]), &u(&[3])],
    );
    let inputs = [f(&[2, 5]), h(&[2, 7]), u(&[2, 0]), u(&[2]), u(&[2, 0]), f(&[2, 0]), u(&[2, 2]), u(&[2])];
    dtype("sample", &["f16", "f32"], Op::Sample(Sample { filtered: false }), &inputs.iter().collect::<Vec<_>>());
    refused("to_vec", Kind::DType, &["f32", "f64"], || f(&[3]).to_vec::<f64>());
}

fn wrong_counts_and_attributes_are_refused(device: &Device) {
    let x = f32(device, &[2, 3]);
    let argument = |what: &str, op: Op, inputs: &[&Tensor]| refused(what, Kind::Argument, &[], || run(op, inputs));
    for op in [
        Op::Unary(Unary::Exp),
        Op::CumSum,
        Op::Softmax,
        Op::Contiguous,
        Op::SwiGluBackward,
        Op::Select,
        Op::Attention(ATTENTION),
        adamw(),
    ] {
        argument("two arguments", op.clone(), &[&x, &x]);
        argument("no arguments", op, &[]);
    }
    argument("one argument", Op::MatMul, &[&x]);
    argument(
        "a bias that is not there",
        Op::Linear(Linear { parts: Parts { bias: true, ..Parts::default() }, activations: EXACT }),
        &[&x, &x],
    );
    for p in [1.0, -0.1, f64::NAN] {
        let adapter = Some(LowRankParts { scale: 1.0, dropout: Some(p) });
        let op = Op::Linear(Linear { parts: Parts { adapter, ..Parts::default() }, activations: EXACT });
        let seed = indices_tensor(device, &[1, 2], &[2]);
        argument("a dropout that is no probability", op, &[&x, &x, &x, &f32(device, &[2, 2]), &seed]);
    }
    argument("one too many", Op::Linears(Linears { parts: vec![Parts::default()], activations: EXACT }), &[&x, &x, &x]);
    argument("one too few", Op::GatedMlp(GatedMlp { parts: [Parts::default(); 3], activations: EXACT }), &[&x, &x, &x]);
    argument("nothing to join", Op::Concat(Concat { axis: 0 }), &[]);
    refused("a range beyond u32", Kind::Argument, &["4294967296"], || Tensor::arange(1 << 32, device));
    refused("unpack of what is not packed", Kind::Argument, &["[2, 3]"], || run(Op::Unpack, &[&x]));
    assert!(Axes::new(&[0; 7]).is_none() && Shape::new(&[1; 7]).is_none());
}

fn shapes_beyond_memory_are_refused(device: &Device) {
    let x = f32(device, &[1]);
    let far = 1usize << 40;
    refused("a view beyond the address space", Kind::Memory, &["1099511627776"], || x.broadcast([far, far]));
    refused("more elements than there are", Kind::Shape, &["1099511627776"], || {
        Tensor::full(0.0, [far, far], DType::F32, device)
    });
    let (a, b) = (x.reshape([1, 1]).and_then(|x| x.broadcast([far, 1])), x.reshape([1, 1]).and_then(|x| x.broadcast([1, far])));
    let (a, b) = (a.expect("a view"), b.expect("a view"));
    refused("a product beyond the address space", Kind::Memory, &["1099511627776"], || a.matmul(&b));
    refused("a sum beyond the address space", Kind::Memory, &["1099511627776"], || a.add(&b));
    let large = x.broadcast([1usize << 61]).expect("a view");
    // Bytes that do not fit the address space, or that no device has.
    for result in [large.exp(), large.contiguous(), large.cast(DType::F64), Tensor::concat(&[&large, &large], 0)] {
        let error = result.expect_err("more than there is");
        assert!(matches!(error.kind(), Kind::Memory | Kind::Shape), "{error:?}");
    }
}

/// A device that holds bytes and computes nothing.
struct Elsewhere;

impl Backend for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(bytes, ()))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        self.alloc(bytes.len())
    }

    fn write(&self, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _: &Buffer, _: Range<usize>, _: &mut [u8]) -> Result<()> {
        Err(Error::new(Kind::Backend, "elsewhere", "holds nothing to read"))
    }

    fn execute(&self, _: &Op, _: &[&Tensor], _: &[Tensor]) -> Result<Execution> {
        Ok(Execution::Unsupported)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

fn arguments_on_two_devices_are_refused(device: &Device) {
    let elsewhere = Device::new(Elsewhere);
    let (here, there) = (f32(device, &[3, 3]), f32(&elsewhere, &[3, 3]));
    let words = [device.name(), "elsewhere"];
    refused("add", Kind::Device, &words, || here.add(&there));
    refused("add", Kind::Device, &words, || there.add(&here));
    refused("matmul", Kind::Device, &words, || here.matmul(&there));
    refused("linear", Kind::Device, &words, || here.linear(&there, EXACT));
    refused("gather", Kind::Device, &words, || here.gather_rows(&u32(&elsewhere, &[2])));
    refused("assign", Kind::Device, &words, || here.assign(&there));
    // A primitive without a kernel is an error that names the device; a fused op is lowered, and ends there too.
    refused("a device without the op", Kind::Unsupported, &["elsewhere"], || there.exp());
    refused("a device without the primitives", Kind::Unsupported, &["elsewhere"], || there.softmax());
    assert!(elsewhere.lowered().iter().any(|l| l.op == "softmax" && l.times == 1), "the attempt is counted");
}

fn packed_weights_are_refused_elsewhere(device: &Device) {
    let w = blocks(device, &[8, 64]).pack().expect("pack");
    if !w.is_packed() {
        // A device whose kernels read weights as they lie: nothing to refuse.
        return;
    }
    let packed = |what: &str, call: &dyn Fn() -> Result<Tensor>| refused(what, Kind::Argument, &["[8, 64]", "unpack"], call);
    packed("cast", &|| w.cast(DType::F32));
    packed("slice", &|| w.slice(0, 0, 4));
    packed("reshape", &|| w.reshape([4, 128]));
    packed("contiguous", &|| run(Op::Contiguous, &[&w])?.one());
    packed("concat", &|| Tensor::concat(&[&w, &w], 0));
    let x = f32(device, &[2, 64]);
    refused("as x", Kind::Argument, &["[8, 64]"], || w.linear(&x, EXACT));
    let same = w.pack().expect("pack");
    assert!(same.is_packed() && same.buffer().is_same(w.buffer()), "packing again is nothing");
    let floats = f32(device, &[8, 64]).pack().expect("pack");
    if floats.is_packed() {
        refused("matmul", Kind::Argument, &["[8, 64]"], || x.matmul(&floats));
        refused("as a bias", Kind::Argument, &["[8, 64]"], || {
            x.linear(Projection { bias: Some(&floats), ..(&floats).into() }, EXACT)
        });
    }
}

fn in_place_ops_refuse_what_they_must_not_change(device: &Device) {
    let in_place = |what: &str, call: &dyn Fn() -> Result<()>| refused(what, Kind::InPlace, &[], call);
    let x = f32(device, &[4, 3]);
    let row = f32(device, &[1, 3]);
    let index = u32(device, &[1]);
    in_place("a broadcast destination", &|| row.broadcast([4, 3])?.assign(&x));
    in_place("a broadcast destination of rows", &|| row.broadcast([4, 3])?.scatter_rows(&index, &row));
    in_place("its own source", &|| x.assign(&x));
    in_place("a view of it", &|| x.assign(&x.slice(0, 0, 1)?));
    in_place("rows of itself", &|| x.scatter_rows(&index, &x.slice(0, 2, 1)?));
    let leaf = x.tracked();
    in_place("a leaf while recording", &|| leaf.assign(&f32(device, &[3])));
    in_place("a tracked source while recording", &|| x.assign(&f32(device, &[3]).tracked()));
    let result = leaf.exp().expect("exp");
    in_place("the result of a recorded op", &|| no_grad(|| result.assign(&f32(device, &[3]))));
    assert!(no_grad(|| leaf.assign(&f32(device, &[3]))).is_ok(), "a leaf under no_grad");
    assert!(x.assign(&f32(device, &[3])).is_ok(), "a plain tensor");
    // Not written where it was refused.
    let (w, m, g, s) = (f32(device, &[3]), f32(device, &[3]), f32(device, &[3]), f32(device, &[]));
    in_place("adamw's states in one buffer", &|| adamw().apply(&[&w, &m, &m, &g, &s, &s, &s]).map(drop));
    in_place("adamw's gradient is its weight", &|| adamw().apply(&[&w, &m, &f32(device, &[3]), &w, &s, &s, &s]).map(drop));
    in_place("two of sgd's parameters in one buffer", &|| {
        let op = Op::Sgd(Sgd { momentum: 0.0, parameters: vec![Stepped::default(); 2] });
        let [b, c, g] = [(); 3].map(|()| f32(device, &[2, 3]));
        op.apply(&[&x.slice(0, 0, 2)?, &b, &g, &x.slice(0, 2, 2)?, &c, &g, &s, &s]).map(drop)
    });
    in_place("sgd of a broadcast weight", &|| {
        let wide = f32(device, &[1]).broadcast(3)?;
        sgd().apply(&[&wide, &m, &g, &s, &s]).map(drop)
    });
    let pages = f32(device, &[3, 2, 1, 4]);
    let (q, k, table) = (f32(device, &[1, 2, 4]), f32(device, &[1, 1, 4]), f32(device, &[4, 2]));
    let cache = |k_pages: &Tensor, v_pages: &Tensor| {
        let with =
            RopeAndCacheInputs { k: &k, v: &k, cos: &table, sin: &table, positions: &index, k_pages, v_pages, slots: &index };
        q.rope_and_cache(with, RopePairs::Halves).map(drop)
    };
    in_place("keys and values in one buffer", &|| cache(&pages, &pages));
    assert!(cache(&pages, &f32(device, &[3, 2, 1, 4])).is_ok());
}

fn primitives_have_no_lowering(device: &Device) {
    let x = f32(device, &[3]);
    refused("lower a primitive", Kind::Argument, &[], || Op::Unary(Unary::Exp).lower(&[&x], false));
}
