//! What is recorded for autograd.

use puna_tensor::op::{Activations, Attention, Linear, Mask, Parts, Reduce, ReduceKind, RmsNorm, Unary};
use puna_tensor::{DType, Device, Kind, Op, Tensor, no_grad};

use crate::case::{Case, cases};
use crate::draw::{Draw, indices_tensor, tensor};

pub(crate) const CASES: &[Case] = cases! {
    "(recording)" => the_op_that_was_asked_for_is_recorded, views_are_recorded, nothing_is_recorded_without_need, derivatives_find_what_they_read,
        what_was_changed_since_is_refused, integer_results_have_no_history, a_long_chain_drops, a_branching_graph_drops;
};

fn leaf(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    tensor(device, &Draw::new(seed).floats(shape, DType::F32), DType::F32).tracked()
}

fn the_op_that_was_asked_for_is_recorded(device: &Device) {
    let (x, w) = (leaf(device, &[3, 5], 200), leaf(device, &[5], 201));
    let y = x.rms_norm(&w, 1e-5).expect("rms_norm");
    let (node, output) = y.source().expect("a tracked result has a node");
    assert!(
        matches!(node.op(), Op::RmsNorm(RmsNorm { weight: true, .. })) && output == 0,
        "a fused op is recorded as itself, lowered or not"
    );
    assert!(y.is_tracked());
    let ids: Vec<_> = node.inputs().iter().map(|i| (i.id(), i.is_tracked(), i.shape().to_vec(), i.dtype())).collect();
    assert_eq!(ids, [(x.id(), true, vec![3, 5], DType::F32), (w.id(), true, vec![5], DType::F32)]);
    assert!(node.inputs().iter().all(|i| i.source().is_none()), "leaves have no source");
    let z = y.add(&y).expect("add");
    let (add, _) = z.source().expect("a node");
    assert!(add.inputs().iter().all(|i| i.source().is_some_and(|(n, o)| std::sync::Arc::ptr_eq(n, node) && o == 0)));
    // One input tracked is enough; the other is known as untracked.
    let plain = w.detach();
    let product = y.mul(&plain).expect("mul");
    let tracked: Vec<bool> = product.source().expect("a node").0.inputs().iter().map(|i| i.is_tracked()).collect();
    assert_eq!(tracked, [true, false]);
    // Of several results each knows which it is.
    let (sum, y) = x.add_rms_norm(&leaf(device, &[3, 5], 202), &w, 1e-5).expect("add_rms_norm");
    assert_eq!((sum.source().expect("a node").1, y.source().expect("a node").1), (0, 1));
}

fn views_are_recorded(device: &Device) {
    let x = leaf(device, &[2, 1, 6], 203);
    for (name, y) in [
        ("reshape", x.reshape([3, 4])),
        ("permute", x.permute([2, 0, 1])),
        ("transpose", x.transpose(0, 2)),
        ("slice", x.slice(2, 1, 3)),
        ("broadcast", x.broadcast([2, 5, 6])),
        ("unsqueeze", x.unsqueeze(0)),
        ("a reshape that copies", x.detach().tracked().transpose(0, 2).and_then(|t| t.reshape([12]))),
    ] {
        let y = y.expect(name);
        let (node, _) = y.source().unwrap_or_else(|| panic!("{name} is recorded"));
        assert!(matches!(node.op(), Op::View(_)), "{name} is recorded as a view");
    }
}

fn nothing_is_recorded_without_need(device: &Device) {
    let x = leaf(device, &[4], 204);
    assert!(x.detach().exp().expect("exp").source().is_none(), "an untracked input");
    let y = no_grad(|| x.exp()).expect("exp");
    assert!(y.source().is_none() && !y.is_tracked(), "no_grad");
    assert!(x.exp().expect("exp").is_tracked(), "no_grad ends");
    let panicked = std::panic::catch_unwind(|| no_grad(|| -> () { panic!("inside") }));
    assert!(panicked.is_err() && puna_tensor::is_recording(), "no_grad ends with a panic too");
    assert!(!x.exp().expect("exp").detach().is_tracked(), "detached");
}

fn derivatives_find_what_they_read(device: &Device) {
    let (x, w) = (leaf(device, &[3, 5], 205), leaf(device, &[4, 5], 206));
    let bias = leaf(device, &[4], 207);
    let projection = puna_tensor::op::Projection { bias: Some(&bias), ..(&w).into() };
    let y = x.linear(projection, Activations::Exact).expect("linear");
    let (node, _) = y.source().expect("a node");
    assert!(matches!(node.op(), Op::Linear(Linear { parts: Parts { bias: true, adapter: None, factor: false }, .. })));
    crate::check::same_bits("the kept input", &node.input(0).expect("x is kept"), &x);
    crate::check::same_bits("the kept weight", &node.input(1).expect("the weight is kept"), &w);
    let error = node.input(2).expect_err("a bias is not read");
    assert_eq!(error.kind(), Kind::Argument, "{error}");
    assert!(node.output(0).is_err(), "a linear's result is not read");
    // Functions whose derivative is one of the result keep that.
    for op in Unary::ALL {
        let t = x.abs().expect("abs").detach().tracked();
        let y = Op::Unary(op).apply(&[&t]).and_then(|o| o.one()).expect("unary");
        let (node, _) = y.source().expect("a node");
        let kept = (node.input(0).is_ok(), node.output(0).is_ok());
        let by_result = matches!(
            op,
            Unary::Exp | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal | Unary::Tanh | Unary::Sigmoid | Unary::Relu
        );
        assert_eq!(kept, (!by_result && op != Unary::Neg, by_result), "{op:?} keeps its input, its result");
    }
    let y = x.softmax().expect("softmax");
    assert!(
        y.source().expect("a node").0.output(0).is_ok() && y.source().expect("a node").0.input(0).is_err(),
        "softmax keeps its result"
    );
    let y = Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: 1.into(), keep: false })
        .apply(&[&x])
        .and_then(|o| o.one())
        .expect("sum");
    assert!(y.source().expect("a node").0.input(0).is_err(), "a sum keeps nothing");
    // Attention keeps all, and saves the log-sum-exp.
    let [q, k, v] = [208, 209, 210].map(|seed| leaf(device, &[3, 2, 4], seed));
    let starts = indices_tensor(device, &[0, 3], &[2]);
    let y = q.attention(&k, &v, &starts, &starts, Attention { scale: 0.5, mask: Mask::Causal }).expect("attention");
    let (node, _) = y.source().expect("a node");
    assert_eq!(node.outputs(), 2);
    assert_eq!((node.output_spec(1).0.to_vec(), node.output_spec(1).1), (vec![3, 2], DType::F32));
    assert!((0..5).all(|i| node.input(i).is_ok()) && (0..2).all(|i| node.output(i).is_ok()));
}

fn what_was_changed_since_is_refused(device: &Device) {
    let (x, w) = (leaf(device, &[3], 211), leaf(device, &[3], 212));
    let y = x.mul(&w).expect("mul");
    let (node, _) = y.source().expect("a node");
    assert!(node.input(1).is_ok());
    let other = tensor(device, &Draw::new(213).floats(&[3], DType::F32), DType::F32);
    no_grad(|| w.assign(&other)).expect("a leaf is changed under no_grad");
    let error = node.input(1).expect_err("it has changed");
    assert_eq!(error.kind(), Kind::Version, "{error}");
    assert!(
        error.to_string().contains("[3]") && error.to_string().contains("mul") || error.to_string().contains("binary"),
        "{error}"
    );
    assert!(node.input(0).is_ok(), "the other has not");
    // A view shares its version.
    let whole = leaf(device, &[4, 3], 214);
    let y = whole.square().expect("square");
    no_grad(|| whole.slice(0, 1, 1).and_then(|row| row.reshape(3)?.assign(&other))).expect("a row is changed");
    assert_eq!(y.source().expect("a node").0.input(0).expect_err("changed through a view").kind(), Kind::Version);
}

fn integer_results_have_no_history(device: &Device) {
    let x = leaf(device, &[3, 5], 215);
    assert!(!x.argmax(1).expect("argmax").is_tracked());
    assert!(!x.gt(&x).expect("gt").is_tracked());
    let (values, places) = x.sort_descending().expect("sort");
    assert!(values.is_tracked() && !places.is_tracked());
    let (sum, count) = x.cross_entropy(&indices_tensor(device, &[1, 2, 3], &[3])).expect("cross_entropy");
    assert!(sum.is_tracked() && !count.is_tracked());
}

fn a_long_chain_drops(device: &Device) {
    let mut x = leaf(device, &[1], 216);
    for _ in 0..200_000 {
        x = x.affine(1.0, 0.0).expect("affine");
    }
    drop(x);
}

fn a_branching_graph_drops(device: &Device) {
    // Each step uses the last one twice: as many paths as 2 to the steps, but no more nodes than steps.
    let mut x = leaf(device, &[1], 217);
    for _ in 0..20_000 {
        x = x.sub(&x).expect("sub");
    }
    let kept = x.source().expect("a node").0.clone();
    drop(x);
    drop(kept);
}
