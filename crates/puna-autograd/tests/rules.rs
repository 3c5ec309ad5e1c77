//! Every rule against central differences in f64, over shapes, strides and broadcasts; fused rules also against the gradient of
//! what the op is composed of.

mod common;

use common::{Draw, check, check_fused, device, each, leaf, weights};
use puna_autograd::{backward, grad};
use puna_tensor::op::{
    Activations, Affine, Attention, Binary, Concat, CrossEntropyBackward, GatedMlp, Linear, Linears, LowRank, LowRankParts, Mask,
    Parts, Projection, Reduce, ReduceKind, RmsNorm, Rope, RopePairs, Unary, View,
};
use puna_tensor::{Axes, DType, Kind, Op, Result, Shape, Tensor};

/// Ops that have a derivative, each tested below; and those that have none and say so.
const DIFFERENTIABLE: &[&str] = &[
    "unary",
    "affine",
    "binary",
    "select",
    "reduce",
    "cum_sum",
    "sort",
    "view",
    "contiguous",
    "cast",
    "concat",
    "gather_rows",
    "scatter_add_rows",
    "take",
    "take_backward",
    "matmul",
    "int8_blocks",
    "linear",
    "linears",
    "rms_norm",
    "add_rms_norm",
    "rope",
    "attention",
    "swiglu",
    "gated_mlp",
    "softmax",
    "log_softmax",
    "cross_entropy",
    "linear_cross_entropy",
];
const NOT_DIFFERENTIABLE: &[&str] = &[
    "compare",
    "arg_reduce",
    "fill",
    "arange",
    "random",
    "sample",
    "assign",
    "scatter_rows",
    "rope_and_cache",
    "adamw",
    "sgd",
    "paged_attention",
    "unpack",
    "linear_input_grad",
    "rms_norm_backward",
    "attention_backward",
    "swiglu_backward",
    "cross_entropy_backward",
    "linear_cross_entropy_backward",
];

#[test]
fn every_op_has_a_rule_or_none() {
    let mut named: Vec<&str> = DIFFERENTIABLE.iter().chain(NOT_DIFFERENTIABLE).copied().collect();
    let mut all: Vec<&str> = Op::ALL.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all);
}

fn one(op: Op, inputs: &[Tensor]) -> Result<Tensor> {
    op.apply(&inputs.iter().collect::<Vec<_>>())?.one()
}

#[test]
fn unary_functions() {
    for op in Unary::ALL {
        each(12, |draw| {
            let shape = draw.shape(1, 3);
            // Away from where a function has a kink or no value.
            let positive = matches!(op, Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal);
            let x = draw.floats_by(&shape, |v| if positive { 0.4 + v.abs() } else { v + 0.1 * v.signum() });
            check(&format!("{op:?} {shape:?}"), &[x], |x| one(Op::Unary(op), x));
        });
    }
    // Far out nothing overflows or cancels to NaN.
    for op in [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Softplus, Unary::Sigmoid, Unary::Tanh] {
        let x = Tensor::from_slice(&[-40.0f64, -8.0, 0.0, 8.0, 40.0], 5, &device()).unwrap().tracked();
        let y = one(Op::Unary(op), std::slice::from_ref(&x)).unwrap().sum_all().unwrap();
        let slopes = grad(&y, &[&x]).unwrap()[0].to_vec::<f64>().unwrap();
        assert!(slopes.iter().all(|v| v.is_finite()), "{op:?}: {slopes:?}");
    }
}

#[test]
fn an_affine_function() {
    each(8, |draw| {
        let shape = draw.shape(0, 4);
        check("affine", &[draw.floats(&shape)], |x| one(Op::Affine(Affine { mul: -1.7, add: 0.3 }), x));
    });
}

#[test]
fn binary_functions_broadcast() {
    for op in Binary::ALL {
        each(16, |draw| {
            let shape = draw.shape(1, 4);
            let [a, b] = [draw.narrowed(&shape), draw.narrowed(&shape)];
            let away = |v: f64| if op == Binary::Pow { 0.5 + v.abs() } else { v + v.signum() * 0.3 };
            let inputs = [draw.floats_by(&a, away), draw.floats_by(&b, away)];
            check(&format!("{op:?} {a:?} {b:?}"), &inputs, |x| one(Op::Binary(op), x));
        });
    }
    let equal = [leaf(&[2.0, 3.0], &[2]), leaf(&[2.0, 1.0], &[2])];
    let y = equal[0].maximum(&equal[1]).unwrap().sum_all().unwrap();
    let slopes = grad(&y, &[&equal[0], &equal[1]]).unwrap();
    assert_eq!(slopes[0].to_vec::<f64>().unwrap(), [0.5, 1.0], "equal arguments share");
    assert_eq!(slopes[1].to_vec::<f64>().unwrap(), [0.5, 0.0]);
    let base = [leaf(&[0.0, 0.0, 2.0], &[3]), leaf(&[2.0, 1.0, 0.0], &[3])];
    let y = base[0].pow(&base[1]).unwrap().sum_all().unwrap();
    let slopes = grad(&y, &[&base[0], &base[1]]).unwrap();
    assert_eq!(slopes[0].to_vec::<f64>().unwrap(), [0.0, 1.0, 0.0], "powers of zero");
    assert_eq!(slopes[1].to_vec::<f64>().unwrap(), [0.0, 0.0, std::f64::consts::LN_2]);
}

#[test]
fn select_passes_to_what_was_chosen() {
    each(16, |draw| {
        let shape = draw.shape(1, 3);
        let chosen: Vec<u8> = (0..shape.iter().product::<usize>()).map(|_| u8::from(draw.below(2) == 0)).collect();
        let condition = Tensor::from_slice(&chosen, Shape::new(&shape).unwrap(), &device()).unwrap();
        let (a, b) = (draw.narrowed(&shape), draw.narrowed(&shape));
        check("select", &[draw.floats(&a), draw.floats(&b)], |x| condition.select(&x[0], &x[1]));
    });
}

#[test]
fn reductions() {
    for kind in ReduceKind::ALL {
        each(16, |draw| {
            let shape = draw.shape(1, 4);
            let axes: Vec<usize> = (0..shape.len()).filter(|_| draw.below(2) == 0).collect();
            let op = Reduce { kind, axes: Axes::new(&axes).unwrap(), keep: draw.below(2) == 0 };
            check(&format!("{op:?} {shape:?}"), &[draw.distinct(&shape)], |x| one(Op::Reduce(op), x));
        });
    }
    each(8, |draw| {
        let shape = draw.shape(1, 3);
        check("cum_sum", &[draw.floats(&shape)], |x| x[0].cum_sum());
        check("sort", &[draw.distinct(&shape)], |x| Ok(x[0].sort_descending()?.0));
    });
    let x = leaf(&[1.0, 4.0, 4.0], &[3]);
    let slopes = grad(&x.max(0).unwrap(), &[&x]).unwrap();
    assert_eq!(slopes[0].to_vec::<f64>().unwrap(), [0.0, 0.5, 0.5], "equal extremes share");
}

#[test]
fn views_and_copies() {
    each(24, |draw| {
        let shape = draw.shape(1, 4);
        let n: usize = shape.iter().product();
        check("reshape", &[draw.floats(&shape)], |x| x[0].reshape([1, n]));
        let order = draw.order(shape.len());
        check("permute", &[draw.floats(&shape)], |x| one(Op::View(View::Permute(Axes::new(&order).unwrap())), x));
        let axis = draw.below(shape.len());
        let start = draw.below(shape[axis]);
        let length = 1 + draw.below(shape[axis] - start);
        check("slice", &[draw.floats(&shape)], |x| x[0].slice(axis, start, length));
        let narrow = draw.narrowed(&shape);
        check("broadcast", &[draw.floats(&narrow)], |x| x[0].broadcast(Shape::new(&shape).unwrap()));
        check("contiguous", &[draw.floats(&shape)], |x| one(Op::Contiguous, &[x[0].permute(Axes::new(&order).unwrap())?]));
        let parts: Vec<Tensor> = (0..1 + draw.below(3))
            .map(|_| {
                let mut part = shape.clone();
                part[axis] = 1 + draw.below(4);
                draw.floats(&part)
            })
            .collect();
        check("concat", &parts, |x| one(Op::Concat(Concat { axis }), x));
    });
    // A cast gives the gradient back in the dtype that it came from.
    let x = Tensor::from_slice(&[1.0f32, 2.0], 2, &device()).unwrap().tracked();
    let y = x.cast(DType::F64).unwrap().square().unwrap().sum_all().unwrap();
    let slopes = grad(&y, &[&x]).unwrap();
    assert_eq!(slopes[0].to_vec::<f32>().unwrap(), [2.0, 4.0]);
}

#[test]
fn indexing() {
    each(16, |draw| {
        let (rows, n) = (1 + draw.below(6), 1 + draw.below(5));
        let index_shape = draw.shape(1, 2);
        // One row twice, one out of range.
        let index = draw.indices(&index_shape, rows);
        check("gather_rows", &[draw.floats(&[rows, n])], |x| x[0].gather_rows(&index));
        let source: Vec<usize> = index_shape.iter().copied().chain([n]).collect();
        check("scatter_add_rows", &[draw.floats(&source)], |x| x[0].scatter_add_rows(&index, rows));
        let x_shape: Vec<usize> = index_shape[..index_shape.len() - 1].iter().copied().chain([rows]).collect();
        check("take", &[draw.floats(&x_shape)], |x| x[0].take(&index));
        check("take_backward", &[draw.floats(&index_shape)], |x| x[0].take_backward(&index, rows));
    });
}

#[test]
fn matrix_products_broadcast() {
    each(32, |draw| {
        let batch = draw.shape(0, 2);
        let [m, k, n] = [1 + draw.below(4), 1 + draw.below(5), 1 + draw.below(4)];
        let [left, right] = [draw.narrowed(&batch), draw.narrowed(&batch)];
        let left: Vec<usize> = left.into_iter().chain([m, k]).collect();
        let right: Vec<usize> = right.into_iter().chain([k, n]).collect();
        check(&format!("matmul {left:?} {right:?}"), &[draw.floats(&left), draw.floats(&right)], |x| x[0].matmul(&x[1]));
    });
}

#[test]
fn rounding_to_eight_bits_passes_the_gradient_through() {
    let x = Tensor::from_slice(&[0.3f32, -1.0, 0.7], 3, &device()).unwrap().tracked();
    let w = Tensor::from_slice(&[1.0f32, 2.0, 3.0], 3, &device()).unwrap();
    let y = x.int8_blocks().unwrap().mul(&w).unwrap().sum_all().unwrap();
    assert_eq!(grad(&y, &[&x]).unwrap()[0].to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
}

/// The shapes of a projection's parts.
fn projection(draw: &mut Draw, n: usize, k: usize) -> (Parts, Vec<Tensor>) {
    let dropout = (draw.below(3) == 0).then_some(0.4);
    let adapter = (draw.below(2) == 0).then_some(LowRankParts { scale: 0.7, dropout });
    let parts = Parts { bias: draw.below(2) == 0, adapter, factor: draw.below(3) == 0 };
    let rank = 1 + draw.below(3);
    let mut tensors = vec![draw.floats(&[n, k])];
    if parts.bias {
        tensors.push(draw.floats(&[n]));
    }
    if parts.adapter.is_some() {
        tensors.extend([draw.floats(&[rank, k]), draw.floats(&[n, rank])]);
    }
    if parts.drops() {
        tensors.push(Tensor::from_slice(&[draw.below(100) as u32, 7], 2, &device()).unwrap());
    }
    if parts.factor {
        tensors.push(draw.floats(&[n]));
    }
    (parts, tensors)
}

#[test]
fn linear_layers() {
    each(32, |draw| {
        let [n, k] = [1 + draw.below(5), 1 + draw.below(6)];
        let shape: Vec<usize> = draw.shape(0, 2).into_iter().chain([k]).collect();
        let (parts, tensors) = projection(draw, n, k);
        let inputs: Vec<Tensor> = [draw.floats(&shape)].into_iter().chain(tensors).collect();
        let op = Op::Linear(Linear { parts, activations: Activations::Exact });
        check_fused(&format!("{parts:?}"), &op, &inputs);
    });
}

#[test]
fn several_linear_layers_of_one_input() {
    each(24, |draw| {
        let k = 1 + draw.below(6);
        let tokens = 1 + draw.below(4);
        let mut inputs = vec![draw.floats(&[tokens, k])];
        let mut all = Vec::new();
        for _ in 0..3 {
            let n = 1 + draw.below(4);
            let (parts, tensors) = projection(draw, n, k);
            all.push(parts);
            inputs.extend(tensors);
        }
        check_fused(&format!("{all:?}"), &Op::Linears(Linears { parts: all.clone(), activations: Activations::Exact }), &inputs);
    });
}

#[test]
fn quantised_weights_pass_the_gradient_of_their_input() {
    let mut draw = Draw::new(5);
    let device = device();
    let exact = draw.floats(&[6, 64]).cast(DType::F32).unwrap();
    let blocks = exact.cast(DType::Block(puna_tensor::BlockType::Q8_0)).unwrap();
    let decoded = blocks.cast(DType::F32).unwrap();
    let labels = Tensor::from_slice(&[1u32, 5, u32::MAX], 3, &device).unwrap();
    for blocks in [blocks.clone(), blocks.pack().unwrap()] {
        let x = draw.floats(&[3, 64]).cast(DType::F32).unwrap().tracked();
        let by = |weight: &Tensor| -> Result<[Tensor; 2]> {
            let y = x.linear(weight, Activations::Exact)?;
            let y = y.mul(&weights(y.shape(), DType::F32))?.sum_all()?;
            let loss = x.linear_cross_entropy(weight, &labels)?.0;
            Ok([grad(&y, &[&x])?.remove(0), grad(&loss, &[&x])?.remove(0)])
        };
        let (own, plain) = (by(&blocks).unwrap(), by(&decoded).unwrap());
        for (own, plain) in own.iter().zip(&plain) {
            common::close("dx through blocks", own, plain, 1e-6);
        }
    }
}

#[test]
fn norms() {
    each(24, |draw| {
        let shape = draw.shape(1, 3);
        let n = shape[shape.len() - 1];
        let [x, stream, w] = [draw.floats(&shape), draw.floats(&shape), draw.floats(&[n])];
        let weighted = Op::RmsNorm(RmsNorm { eps: 1e-3, weight: true });
        check_fused("rms_norm", &weighted, &[x.clone(), w.clone()]);
        check_fused("rms_norm, no weight", &Op::RmsNorm(RmsNorm { eps: 1e-3, weight: false }), std::slice::from_ref(&x));
        check_fused("add_rms_norm", &Op::AddRmsNorm(puna_tensor::op::AddRmsNorm { eps: 1e-3 }), &[stream, x, w]);
    });
    // Only one of the results goes on.
    let [x, stream, w] = [leaf(&[1.0, -2.0], &[2]), leaf(&[0.5, 0.25], &[2]), leaf(&[1.5, 0.5], &[2])];
    check("the sum alone", &[stream.clone(), x.clone()], |t| Ok(t[0].add_rms_norm(&t[1], &w.detach(), 1e-3)?.0));
    check("the norm alone", &[stream, x, w], |t| Ok(t[0].add_rms_norm(&t[1], &t[2], 1e-3)?.1));
}

#[test]
fn rotations() {
    each(16, |draw| {
        let [tokens, heads, half] = [1 + draw.below(4), 1 + draw.below(3), 1 + draw.below(3)];
        let angles = draw.floats(&[5, half]);
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let positions = draw.indices(&[tokens], 5);
        for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
            let x = draw.floats(&[tokens, heads, 2 * half]);
            check("rope", std::slice::from_ref(&x), |x| x[0].rope(&cos, &sin, &positions, pairs));
            let inverse = Op::Rope(Rope { pairs, inverse: true });
            check("inverse rope", &[x], |x| inverse.clone().apply(&[&x[0], &cos, &sin, &positions])?.one());
        }
    });
}

#[test]
fn attention_of_packed_sequences() {
    each(24, |draw| {
        let (kv_heads, group, dim, v_dim) = (1 + draw.below(2), 1 + draw.below(3), 1 + draw.below(4), 1 + draw.below(4));
        let lengths: Vec<(usize, usize)> = (0..1 + draw.below(3))
            .map(|_| {
                let queries = draw.below(4);
                (queries, queries + draw.below(3))
            })
            .collect();
        let starts = |of: &dyn Fn(&(usize, usize)) -> usize| -> Vec<u32> {
            let ends = lengths.iter().scan(0, |at, l| {
                *at += of(l);
                Some(*at as u32)
            });
            std::iter::once(0).chain(ends).collect()
        };
        let (q_starts, k_starts) = (starts(&|l| l.0), starts(&|l| l.1));
        let (tokens, keys) = (*q_starts.last().unwrap() as usize, *k_starts.last().unwrap() as usize);
        // Tokens behind the last sequence see nothing.
        let tokens = tokens + draw.below(2);
        let index = |v: &[u32]| Tensor::from_slice(v, v.len(), &device()).unwrap();
        let inputs = [
            draw.floats(&[tokens, kv_heads * group, dim]),
            draw.floats(&[keys, kv_heads, dim]),
            draw.floats(&[keys, kv_heads, v_dim]),
            index(&q_starts),
            index(&k_starts),
        ];
        for mask in [Mask::Causal, Mask::Full] {
            check_fused(&format!("{mask:?} {lengths:?}"), &Op::Attention(Attention { scale: 0.6, mask }), &inputs);
        }
    });
}

#[test]
fn feed_forward_blocks() {
    each(16, |draw| {
        let shape = draw.shape(1, 3);
        check_fused("swiglu", &Op::SwiGlu, &[draw.floats(&shape), draw.floats(&shape)]);
        let [tokens, hidden, inner] = [1 + draw.below(3), 1 + draw.below(4), 1 + draw.below(5)];
        let projections = [(inner, hidden), (inner, hidden), (hidden, inner)].map(|(n, k)| projection(draw, n, k));
        let parts = [0, 1, 2].map(|i| projections[i].0);
        let inputs: Vec<Tensor> =
            [draw.floats(&[tokens, hidden])].into_iter().chain(projections.into_iter().flat_map(|(_, t)| t)).collect();
        let op = Op::GatedMlp(GatedMlp { parts, activations: Activations::Exact });
        check_fused(&format!("gated_mlp {parts:?}"), &op, &inputs);
    });
}

#[test]
fn softmax_and_its_logarithm() {
    each(16, |draw| {
        let shape = draw.shape(1, 3);
        check_fused("softmax", &Op::Softmax, &[draw.floats(&shape)]);
        check_fused("log_softmax", &Op::LogSoftmax, &[draw.floats(&shape)]);
    });
}

#[test]
fn losses() {
    each(16, |draw| {
        let rows = draw.shape(0, 2);
        let vocab = 2 + draw.below(6);
        // A label in eight is out of range and does not count.
        let labels = draw.indices(&rows, vocab);
        let with = |last: usize| -> Vec<usize> { rows.iter().copied().chain([last]).collect() };
        check_fused("cross_entropy", &Op::CrossEntropy, &[draw.floats(&with(vocab)), labels.clone()]);
        let k = 1 + draw.below(4);
        let inputs = [draw.floats(&with(k)), draw.floats(&[vocab, k]), labels];
        check_fused("linear_cross_entropy", &Op::LinearCrossEntropy(puna_tensor::op::LinearCrossEntropy), &inputs);
    });
}

#[test]
fn ops_without_a_derivative_say_so() {
    let device = device();
    let x = leaf(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let labels = Tensor::from_slice(&[0u32, 1], 2, &device).unwrap();
    let (dsum, lse) = (leaf(&[1.0], &[]), leaf(&[1.0, 2.0], &[2]));
    let backward_op = Op::CrossEntropyBackward(CrossEntropyBackward);
    let y = backward_op.apply(&[&dsum, &x, &labels, &lse]).unwrap().one().unwrap().sum_all().unwrap();
    let error = backward(&y).unwrap_err();
    assert_eq!(error.kind(), Kind::NotDifferentiable);
    assert!(error.to_string().contains("cross_entropy_backward"), "{error}");
    let table = Tensor::from_slice(&[1.0f64], [1, 1], &device).unwrap();
    let turned = x.reshape([1, 2, 2]).unwrap();
    let y = turned.rope(&table.tracked(), &table, &Tensor::from_slice(&[0u32], 1, &device).unwrap(), RopePairs::Halves).unwrap();
    assert_eq!(backward(&y.sum_all().unwrap()).unwrap_err().kind(), Kind::NotDifferentiable);
}

#[test]
fn a_low_rank_pair_of_another_dtype_keeps_it() {
    let device = device();
    let mut draw = Draw::new(9);
    let half = |t: Tensor| t.cast(DType::BF16).unwrap();
    let x = half(draw.floats(&[3, 8])).tracked();
    let weight = half(draw.floats(&[4, 8]));
    let [a, b] = [draw.floats(&[2, 8]), draw.floats(&[4, 2])].map(|t| t.cast(DType::F32).unwrap().tracked());
    let projection = Projection {
        weight: &weight,
        bias: None,
        factor: None,
        adapter: Some(LowRank { a: &a, b: &b, scale: 0.5, dropout: None }),
    };
    let y = x.linear(projection, Activations::Exact).unwrap();
    let slopes = grad(&y.cast(DType::F32).unwrap().sum_all().unwrap(), &[&x, &a, &b]).unwrap();
    assert_eq!(slopes.iter().map(Tensor::dtype).collect::<Vec<_>>(), [DType::BF16, DType::F32, DType::F32]);
    // db = s (sum of rows of x a^T), the same for every row of b.
    let inner = x.detach().cast(DType::F32).unwrap().linear(&a.detach(), Activations::Exact).unwrap();
    let expected = inner.sum(0).unwrap().affine(0.5, 0.0).unwrap().broadcast([4, 2]).unwrap();
    common::close("db", &slopes[2], &expected, 1e-6);
    let _ = device;
}
