//! Central differences, and where values come from.
#![allow(dead_code)]

use puna_autograd::{backward, grad};
use puna_tensor::{Axes, DType, Device, Op, Result, Shape, Tensor, no_grad};

pub(crate) fn device() -> Device {
    thread_local! {
        static DEVICE: Device = puna_cpu::device(puna_cpu::Options { threads: std::num::NonZeroUsize::new(2) }).expect("a CPU");
    }
    DEVICE.with(Clone::clone)
}

/// Runs a body on generators of several seeds, the same ones each time.
pub(crate) fn each(cases: u64, body: impl Fn(&mut Draw)) {
    (0..cases).for_each(|seed| body(&mut Draw::new(seed)));
}

/// A generator (SplitMix64: Steele, Lea and Flood 2014).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    fn normal(&mut self) -> f64 {
        let uniform: f64 = (0..4).map(|_| (self.bits() >> 11) as f64 * 2f64.powi(-53)).sum();
        (uniform - 2.0) * 3f64.sqrt()
    }

    /// Axes of 1 to 4 entries.
    pub(crate) fn shape(&mut self, least: usize, most: usize) -> Vec<usize> {
        let rank = least + self.below(most - least + 1);
        (0..rank).map(|_| 1 + self.below(4)).collect()
    }

    /// A shape that broadcasts to `shape`: some axes of length 1, leading ones perhaps missing.
    pub(crate) fn narrowed(&mut self, shape: &[usize]) -> Vec<usize> {
        let mut narrow: Vec<usize> = shape.iter().map(|&length| if self.below(4) == 0 { 1 } else { length }).collect();
        if self.below(4) == 0 && !narrow.is_empty() {
            narrow.remove(0);
        }
        narrow
    }

    pub(crate) fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, self.below(i + 1)));
        order
    }

    /// About normal f64 values in a leaf of any layout.
    pub(crate) fn floats(&mut self, shape: &[usize]) -> Tensor {
        self.floats_by(shape, |v| v)
    }

    pub(crate) fn floats_by(&mut self, shape: &[usize], f: impl Fn(f64) -> f64) -> Tensor {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| f(self.normal())).collect();
        self.place(&values, shape)
    }

    /// Values at least 0.1 apart: the order of no two changes with a small step.
    pub(crate) fn distinct(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let values: Vec<f64> = self.order(n).into_iter().map(|i| i as f64 * 0.1 - 1.0).collect();
        self.place(&values, shape)
    }

    /// Contiguous, or with its axes in another order, or cut out of something larger.
    fn place(&mut self, values: &[f64], shape: &[usize]) -> Tensor {
        let plain = Tensor::from_slice(values, Shape::new(shape).unwrap(), &device()).unwrap();
        let strided = match self.below(3) {
            0 => plain,
            1 => {
                let order = self.order(shape.len());
                let mut back = order.clone();
                order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
                let turned = plain.permute(Axes::new(&order).unwrap()).unwrap().contiguous().unwrap();
                turned.permute(Axes::new(&back).unwrap()).unwrap()
            }
            _ if shape.is_empty() => plain,
            _ => {
                let axis = self.below(shape.len());
                let beside = Tensor::full(f64::NAN, *plain.shape(), DType::F64, &device()).unwrap();
                Tensor::concat(&[&beside, &plain], axis).unwrap().slice(axis, shape[axis], shape[axis]).unwrap()
            }
        };
        strided.detach()
    }

    /// Indices below `n`; one in eight is out of range.
    pub(crate) fn indices(&mut self, shape: &[usize], n: usize) -> Tensor {
        let values: Vec<u32> = (0..shape.iter().product())
            .map(|_| if self.below(8) == 0 { u32::MAX - self.below(3) as u32 } else { self.below(n) as u32 })
            .collect();
        Tensor::from_slice(&values, Shape::new(shape).unwrap(), &device()).unwrap()
    }
}

pub(crate) fn leaf(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, Shape::new(shape).unwrap(), &device()).unwrap().tracked()
}

/// What results are weighted by, so that each of their elements matters differently.
pub(crate) fn weights(shape: &Shape, dtype: DType) -> Tensor {
    let values: Vec<f64> = (0..shape.elements()).map(|i| ((i * 7 + 3) % 11) as f64 * 0.17 - 0.8).collect();
    Tensor::from_slice(&values, *shape, &device()).unwrap().cast(dtype).unwrap()
}

/// The sum of float results, each element weighted.
fn loss_of(results: &[Tensor]) -> Result<Tensor> {
    let mut loss: Option<Tensor> = None;
    for (i, y) in results.iter().enumerate().filter(|(_, y)| y.dtype().is_float()) {
        let term = y.mul(&weights(y.shape(), y.dtype()))?.sum_all()?.affine(1.0 + i as f64 * 0.3, 0.0)?;
        loss = Some(match loss {
            Some(before) => before.add(&term)?,
            None => term,
        });
    }
    Ok(loss.expect("a result of floats"))
}

/// Gradients by central differences of `f`, element by element.
fn differences(inputs: &[Tensor], which: usize, f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let values = inputs[which].to_vec::<f64>().unwrap();
    let at = |i: usize, by: f64| {
        let mut moved = values.clone();
        moved[i] += by;
        let mut inputs = inputs.to_vec();
        inputs[which] = Tensor::from_slice(&moved, *inputs[which].shape(), &device()).unwrap();
        no_grad(|| f(&inputs)).unwrap().item::<f64>().unwrap()
    };
    (0..values.len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP)).collect()
}

/// Compares the gradients of a function of f64 tensors with central differences, all inputs at once and each alone.
#[track_caller]
pub(crate) fn check(what: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    check_all(what, inputs, &|inputs| Ok(vec![f(inputs)?]));
}

/// The same of an op, its rule also against the gradient of its lowering.
#[track_caller]
pub(crate) fn check_fused(what: &str, op: &Op, inputs: &[Tensor]) {
    let name = op.name();
    let apply = |inputs: &[Tensor]| Ok(op.clone().apply(&inputs.iter().collect::<Vec<_>>())?.all());
    check_all(&format!("{name} {what}"), inputs, &apply);
    let lower = |inputs: &[Tensor]| op.lower(&inputs.iter().collect::<Vec<_>>(), false);
    check_all(&format!("{name} {what}, lowered"), inputs, &lower);
    // In f32 the rule is as good as the composition.
    let narrow: Vec<Tensor> =
        inputs.iter().map(|t| if t.dtype() == DType::F64 { t.cast(DType::F32).unwrap() } else { t.clone() }).collect();
    let slopes = |f: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>| {
        let leaves = leaves(&narrow, &|_| true);
        let loss = loss_of(&f(&leaves).unwrap()).unwrap();
        let gradients = backward(&loss).unwrap();
        leaves.iter().filter(|t| t.is_tracked()).map(|t| gradients.get(t).unwrap().clone()).collect::<Vec<_>>()
    };
    for (rule, composed) in slopes(&apply).iter().zip(&slopes(&lower)) {
        close(&format!("{name} {what}, in f32"), rule, composed, 4e-6);
    }
}

fn leaves(inputs: &[Tensor], track: &dyn Fn(usize) -> bool) -> Vec<Tensor> {
    let leaf = |(i, t): (usize, &Tensor)| if t.dtype().is_float() && track(i) { t.tracked() } else { t.detach() };
    inputs.iter().enumerate().map(leaf).collect()
}

#[track_caller]
fn check_all(what: &str, inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>) {
    let loss = |inputs: &[Tensor]| loss_of(&f(inputs)?);
    let expected: Vec<Option<Vec<f64>>> =
        (0..inputs.len()).map(|i| (inputs[i].dtype() == DType::F64).then(|| differences(inputs, i, &loss))).collect();
    let compare = |i: usize, gradient: &Tensor| {
        assert_eq!(gradient.shape(), inputs[i].shape(), "{what}: the gradient of input {i}");
        let expected = expected[i].as_ref().expect("a float input");
        let size = expected.iter().fold(1.0f64, |most, v| most.max(v.abs()));
        for (at, (own, other)) in gradient.to_vec::<f64>().unwrap().iter().zip(expected).enumerate() {
            assert!(
                (own - other).abs() <= 2e-8 * size,
                "{what}: element {at} of the gradient of input {i} {} is {own}, by differences {other}",
                inputs[i].shape()
            );
        }
    };
    let all = leaves(inputs, &|_| true);
    let gradients = backward(&loss(&all).unwrap()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    for (i, input) in all.iter().enumerate().filter(|(_, input)| input.is_tracked()) {
        compare(i, gradients.get(input).unwrap_or_else(|| panic!("{what}: nothing flowed to input {i}")));
    }
    for i in (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F64) {
        let alone = leaves(inputs, &|j| j == i);
        let gradients = backward(&loss(&alone).unwrap()).unwrap();
        assert_eq!(gradients.len(), 1, "{what}: input {i} alone is tracked");
        compare(i, gradients.get(&alone[i]).unwrap());
        // Of all that is tracked one alone is asked for.
        let all = leaves(inputs, &|_| true);
        compare(i, &grad(&loss(&all).unwrap(), &[&all[i]]).unwrap()[0]);
    }
}

/// Compares by Frobenius error, relative to the larger of the norm and 1: what inputs of that size may cancel to.
#[track_caller]
pub(crate) fn close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()), "{what}");
    let read = |t: &Tensor| t.detach().cast(DType::F64).unwrap().to_vec::<f64>().unwrap();
    let (a, b) = (read(a), read(b));
    let off: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    let size: f64 = b.iter().map(|b| b * b).sum::<f64>().sqrt();
    assert!(off <= tolerance * size.max(1.0), "{what}: off by {:e} of {size:e}: {a:?} {b:?}", off / size);
}
