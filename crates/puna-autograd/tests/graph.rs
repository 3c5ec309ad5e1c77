//! What holds of the walk itself.

mod common;

use std::sync::Arc;

use common::{Draw, close, device, leaf};
use puna_autograd::{Gradients, backward, checkpoint, grad};
use puna_tensor::op::{CustomOp, Inferred};
use puna_tensor::{DType, Kind, Node, Op, Result, Tensor, TensorId, no_grad};

fn values(t: &Tensor) -> Vec<f64> {
    t.to_vec().unwrap()
}

#[test]
fn what_several_ops_read_gets_the_sum() {
    let x = leaf(&[3.0], &[1]);
    let y = x.mul(&x).unwrap().add(&x).unwrap().mul(&x).unwrap();
    // y = x^3 + x^2
    assert_eq!(values(&grad(&y, &[&x]).unwrap()[0]), [33.0]);
}

#[test]
fn a_graph_with_as_many_paths_as_two_to_the_depth_is_walked_once() {
    let x = leaf(&[1.0], &[1]);
    let mut y = x.clone();
    for _ in 0..60 {
        y = y.add(&y).unwrap();
    }
    assert_eq!(values(&backward(&y).unwrap().remove(&x).unwrap()), [2f64.powi(60)]);
}

#[test]
fn a_long_chain_does_not_exhaust_the_stack() {
    let x = leaf(&[1.0], &[1]);
    let mut y = x.clone();
    for _ in 0..50_000 {
        y = y.affine(1.0, 1.0).unwrap();
    }
    assert_eq!(values(&backward(&y).unwrap().remove(&x).unwrap()), [1.0]);
}

#[test]
fn gradients_by_results_on_the_way() {
    let x = leaf(&[2.0, 3.0], &[2]);
    let y = x.square().unwrap();
    let loss = y.mul(&x).unwrap().sum_all().unwrap();
    let slopes = grad(&loss, &[&y, &x, &y]).unwrap();
    assert_eq!((values(&slopes[0]), values(&slopes[1])), (vec![2.0, 3.0], vec![12.0, 27.0]));
    assert_eq!(values(&slopes[2]), values(&slopes[0]), "asked for twice");
    let loss = x.sum_all().unwrap();
    assert_eq!(values(&grad(&loss, &[&loss]).unwrap()[0]), [1.0]);
}

#[test]
fn what_was_not_reached_is_named() {
    let (x, y, plain) = (leaf(&[1.0], &[1]), leaf(&[1.0], &[1]), leaf(&[1.0], &[1]).detach());
    let gradients = backward(&x.square().unwrap()).unwrap();
    let error = gradients.check([("x", &x), ("layers.0.y", &y), ("plain", &plain)]).unwrap_err().to_string();
    assert_eq!(error, "backward: no gradient flowed to layers.0.y ([1]), plain ([1], not tracked)");
    let error = grad(&x.square().unwrap(), &[&x, &y]).unwrap_err().to_string();
    assert!(error.contains("argument 1 ([1])"), "{error}");
}

#[test]
fn a_loss_that_is_none_is_refused() {
    let x = leaf(&[1.0, 2.0], &[2]);
    assert_eq!(backward(&x.square().unwrap()).unwrap_err().kind(), Kind::Shape);
    assert!(backward(&x.detach().sum_all().unwrap()).unwrap_err().to_string().contains("no tracked tensor"));
    assert_eq!(backward(&x.argmax(0).unwrap()).unwrap_err().kind(), Kind::DType);
    let unrecorded = no_grad(|| x.sum_all()).unwrap();
    assert!(backward(&unrecorded).is_err());
}

#[test]
fn what_was_changed_since_is_refused() {
    let (x, w) = (leaf(&[1.0], &[1]), leaf(&[2.0], &[1]));
    let y = x.mul(&w).unwrap();
    no_grad(|| w.assign(&leaf(&[5.0], &[1]).detach())).unwrap();
    assert_eq!(backward(&y).unwrap_err().kind(), Kind::Version);
}

#[test]
fn what_was_saved_is_let_go_and_a_second_walk_says_so() {
    let x = leaf(&[2.0], &[1]);
    let inner = x.exp().unwrap();
    let y = inner.mul(&inner).unwrap();
    let before = y.source().unwrap().0.input(0).unwrap();
    let uses = |t: &Tensor| t.buffer().uses();
    let held = uses(&before);
    backward(&y).unwrap();
    assert!(uses(&before) < held, "the node has let its inputs go: {held} to {}", uses(&before));
    let error = backward(&y).unwrap_err().to_string();
    assert!(error.contains("let go by a backward pass"), "{error}");
}

#[test]
fn micro_batches_accumulate_in_f32() {
    let device = device();
    let w = Tensor::from_slice(&[1.0f32], 1, &device).unwrap().cast(DType::BF16).unwrap().tracked();
    let mut sum = Gradients::new();
    for _ in 0..300 {
        sum.accumulate(backward(&w.sum_all().unwrap()).unwrap()).unwrap();
    }
    // In bf16 256 + 1 is 256.
    assert_eq!(sum.get(&w).unwrap().to_vec::<f32>().unwrap(), [300.0]);
}

fn block(w: &Tensor) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static {
    let w = w.clone();
    move |x: &[Tensor]| {
        let h = x[0].matmul(&w)?.silu()?;
        Ok(vec![h.mul(&x[1])?, h.sum_all()?])
    }
}

#[test]
fn a_checkpointed_block_has_the_same_gradients() {
    let mut draw = Draw::new(3);
    let [x, scale, w] = [draw.floats(&[3, 4]), draw.floats(&[4]), draw.floats(&[4, 4])].map(|t| t.tracked());
    let loss = |results: Vec<Tensor>| results[0].square()?.sum_all()?.add(&results[1]);
    let plain = loss(block(&w)(&[x.clone(), scale.clone()]).unwrap()).unwrap();
    let again = loss(checkpoint(block(&w), &[&x, &scale]).unwrap()).unwrap();
    assert_eq!(plain.item::<f64>().unwrap().to_bits(), again.item::<f64>().unwrap().to_bits());
    let (plain, again) = (backward(&plain).unwrap(), backward(&again).unwrap());
    for t in [&x, &scale, &w] {
        assert_eq!(values(plain.get(t).unwrap()), values(again.get(t).unwrap()));
    }
    assert_eq!(again.len(), 3);
    // Of all alone.
    let loss_again = || loss(checkpoint(block(&w), &[&x, &scale]).unwrap()).unwrap();
    assert_eq!(values(&grad(&loss_again(), &[&w]).unwrap()[0]), values(plain.get(&w).unwrap()));
    assert_eq!(values(&grad(&loss_again(), &[&x]).unwrap()[0]), values(plain.get(&x).unwrap()));
}

#[test]
fn a_checkpointed_block_of_untracked_arguments_trains_what_it_holds() {
    let mut draw = Draw::new(4);
    let (x, scale, w) = (draw.floats(&[3, 4]), draw.floats(&[4]), draw.floats(&[4, 4]).tracked());
    let results = checkpoint(block(&w), &[&x, &scale]).unwrap();
    let slope = grad(&results[1], &[&w]).unwrap().remove(0);
    let plain = grad(&block(&w)(&[x, scale]).unwrap()[1], &[&w]).unwrap().remove(0);
    close("dw", &slope, &plain, 1e-12);
    let row = leaf(&[1.0], &[1]);
    assert!(checkpoint(block(&w), &[&row, &row]).is_err(), "errors of the block are passed on");
}

#[test]
fn a_checkpointed_block_keeps_no_values_on_the_way() {
    let (x, w) = (leaf(&[1.0; 16], &[4, 4]), leaf(&[0.5; 16], &[4, 4]));
    let held = std::sync::Mutex::new(None);
    let shared = Arc::new(held);
    let inside = shared.clone();
    let w2 = w.clone();
    let results = checkpoint(
        move |x| {
            let h = x[0].matmul(&w2)?.exp()?;
            *inside.lock().unwrap() = Some(h.detach());
            Ok(vec![h.square()?])
        },
        &[&x],
    )
    .unwrap();
    let h: Tensor = shared.lock().unwrap().take().unwrap();
    assert_eq!(h.buffer().uses(), 1, "nobody else holds it");
    drop(results);
}

/// `y = 3 x`, with a derivative that says 4, to be told from that of its composition.
#[derive(Debug)]
struct Thrice {
    own: bool,
}

impl CustomOp for Thrice {
    fn name(&self) -> &'static str {
        "thrice"
    }

    fn infer(&self, inputs: &[&Tensor], _: bool) -> Result<Inferred> {
        Ok(Inferred::one(*inputs[0].shape(), inputs[0].dtype()))
    }

    fn lower(&self, inputs: &[&Tensor], _: bool) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].affine(3.0, 0.0)?])
    }

    fn vjp(
        &self,
        _: &Node,
        gradients: &[Option<Tensor>],
        _: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
    ) -> Result<Option<Vec<Option<Tensor>>>> {
        if !self.own {
            return Ok(None);
        }
        Ok(Some(vec![Some(gradients[0].as_ref().expect("one result").affine(4.0, 0.0)?)]))
    }
}

#[test]
fn custom_ops_bring_their_derivative_or_are_differentiated_through_their_composition() {
    let x = leaf(&[1.0, 2.0], &[2]);
    for (own, slope) in [(true, 4.0), (false, 3.0)] {
        let y = Op::Custom(Arc::new(Thrice { own })).apply(&[&x]).unwrap().one().unwrap().sum_all().unwrap();
        assert_eq!(values(&grad(&y, &[&x]).unwrap()[0]), [slope; 2]);
    }
}
