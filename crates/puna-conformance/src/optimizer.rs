//! Optimiser steps, in place.

use puna_tensor::op::{AdamW, Sgd, StepInputs, Stepped};
use puna_tensor::{DType, Device, Op, Tensor, no_grad};

use crate::Array;
use crate::case::{Case, cases};
use crate::check::Expected;
use crate::draw::{Draw, each, shapes_and_seed, tensor};
use crate::reference::{self, AdamWState, round_all};

pub(crate) const CASES: &[Case] = cases! {
    "adamw" => adamw_is_its_formula, adamw_of_late_steps, adamw_over_steps, adamw_of_many_is_that_of_each;
    "sgd" => sgd_is_its_formula, sgd_of_many_is_that_of_each;
};

fn scalar(device: &Device, value: f64) -> Tensor {
    tensor(device, &Array::new(&[], vec![reference::round(DType::F32, value)]), DType::F32)
}

/// A value that was read and written back: a few operations in `wide`, and a rounding to `dtype`. `size`: what errors are relative to.
fn stepped(dtype: DType, wide: DType, value: Array, size: Array) -> Expected {
    Expected::new(dtype, value).sum(size, 4).accumulated_in(wide)
}

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, parameters: Vec::new() };
const SGD: Sgd = Sgd { momentum: 0.9, parameters: Vec::new() };
const DECAY: f64 = 0.1;

struct Step {
    shape: Vec<usize>,
    dtype: DType,
    gradient: DType,
    master: bool,
    step: f64,
    seed: u64,
    lower: bool,
}

fn adamw_step(device: &Device, Step { shape, dtype, gradient, master, step, seed, lower }: Step) {
    let mut draw = Draw::new(seed);
    let wide = dtype.accumulator();
    let op = AdamW { parameters: vec![Stepped { decay: DECAY, master }], ..ADAMW };
    let (lr, scale) = (reference::round(DType::F32, 1e-2), 0.75);
    let master_values = draw.floats(&shape, wide);
    let w = round_all(dtype, &master_values);
    let (m, v) = if step == 1.0 {
        (w.map(|_| 0.0), w.map(|_| 0.0))
    } else {
        (draw.floats(&shape, wide), draw.floats(&shape, wide).map(f64::abs))
    };
    let (g, tg) = draw.input(device, &shape, gradient);
    // States in any layout: they are changed where they lie.
    let (tw, tm, tv) = (draw.place(device, &w, dtype), draw.place(device, &m, wide), draw.place(device, &v, wide));
    let tmaster = master.then(|| tensor(device, &master_values, wide));
    let [tlr, tstep, tscale] = [lr, step, scale].map(|value| scalar(device, value));
    let versions: Vec<u64> = [&tw, &tm, &tv].map(|t| t.buffer().version()).to_vec();
    if lower {
        let mut inputs = vec![&tw, &tm, &tv, &tg];
        inputs.extend(&tmaster);
        inputs.extend([&tlr, &tstep, &tscale]);
        no_grad(|| Op::AdamW(op.clone()).lower(&inputs, false)).expect("lowered");
    } else {
        let inputs = StepInputs { weight: &tw, states: [&tm, &tv], gradient: &tg, master: tmaster.as_ref(), decay: DECAY };
        op.clone().step(&[inputs], [&tlr, &tstep, &tscale]).expect("adamw");
    }
    assert!([&tw, &tm, &tv].iter().zip(versions).all(|(t, version)| t.buffer().version() > version), "adamw: versions move");
    let read = if master { &master_values } else { &w };
    let at = |i: usize| {
        let state = AdamWState { w: read.values[i], m: m.values[i], v: v.values[i] };
        (reference::adamw(&op, DECAY, state, g.values[i], [lr, step, scale]), g.values[i], state)
    };
    let all: Vec<_> = (0..w.values.len()).map(at).collect();
    let array = |f: &dyn Fn(&(AdamWState, f64, AdamWState)) -> f64| Array::new(&shape, all.iter().map(f).collect());
    let what = format!("adamw {dtype} by {gradient}, master {master}, step {step}, lowered {lower}, {shape:?}");
    let m_size = array(&|(_, g, old)| old.m.abs() + g.abs());
    stepped(wide, wide, array(&|(new, _, _)| new.m), m_size).compare(&format!("{what}: m"), &tm);
    stepped(wide, wide, array(&|(new, _, _)| new.v), array(&|(new, _, _)| new.v)).compare(&format!("{what}: v"), &tv);
    // The update's own relative error is a few units too; where m cancels it is relative to m's terms.
    let correction = (1.0 - 0.9f64.powf(step)) / (1.0 - 0.999f64.powf(step)).sqrt();
    let w_size = array(&|(new, g, old)| {
        old.w.abs() + 2.0 * lr * (0.9 * old.m.abs() + 0.1 * scale * g.abs()) / correction / (new.v.sqrt() + 1e-30)
    });
    let expected = array(&|(new, _, _)| new.w);
    if let Some(tmaster) = &tmaster {
        stepped(wide, wide, expected.clone(), w_size.clone()).compare(&format!("{what}: master"), tmaster);
        let rounded = round_all(dtype, &crate::floats(tmaster));
        Expected::new(dtype, rounded).rounded_once().compare(&format!("{what}: weight is the master's rounding"), &tw);
    }
    stepped(dtype, wide, expected, w_size).compare(&format!("{what}: weight"), &tw);
}

fn adamw_is_its_formula(device: &Device) {
    each(32, shapes_and_seed(0, 4, 500), |(shape, seed)| {
        for (dtype, gradient) in device.floats().flat_map(|d| device.floats().map(move |g| (d, g))) {
            for (master, lower) in [(false, false), (false, true), (true, false), (true, true)] {
                adamw_step(
                    device,
                    Step { shape: shape.clone(), dtype, gradient, master, step: 1.0 + (seed % 3) as f64, seed, lower },
                );
            }
        }
    });
}

fn adamw_of_late_steps(device: &Device) {
    for (dtype, step) in device.floats().flat_map(|d| [1.0, 2.0, 100.0, 100_000.0].map(|s| (d, s))) {
        for lower in [false, true] {
            adamw_step(device, Step { shape: vec![131], dtype, gradient: dtype, master: false, step, seed: 170, lower });
        }
    }
}

fn adamw_over_steps(device: &Device) {
    // Ten steps in f64, where the device has it, against the formula in f64: an error of the state would add up.
    let dtype = device.floats().next().expect("every device has a float");
    let op = AdamW { beta2: 0.95, ..ADAMW };
    let mut draw = Draw::new(171);
    let w = draw.floats(&[33], dtype);
    let tw = tensor(device, &w, dtype);
    let [m, v] = [(); 2].map(|()| Tensor::zeros(33, dtype, device).expect("zeros"));
    let mut states: Vec<AdamWState> = w.values.iter().map(|&w| AdamWState { w, m: 0.0, v: 0.0 }).collect();
    let lr = reference::round(DType::F32, 1e-3);
    for step in 1..=10 {
        let g = draw.floats(&[33], dtype);
        let tg = tensor(device, &g, dtype);
        let [tlr, tstep, tscale] = [lr, f64::from(step), 1.0].map(|value| scalar(device, value));
        let inputs = StepInputs { weight: &tw, states: [&m, &v], gradient: &tg, master: None, decay: DECAY };
        op.clone().step(&[inputs], [&tlr, &tstep, &tscale]).expect("adamw");
        states
            .iter_mut()
            .zip(&g.values)
            .for_each(|(state, &g)| *state = reference::adamw(&op, DECAY, *state, g, [lr, f64::from(step), 1.0]));
    }
    let expected = Array::new(&[33], states.iter().map(|s| s.w).collect());
    let size = expected.map(|v| v.abs() + 0.1);
    Expected::new(dtype, expected).sum(size, 100).compare("ten steps", &tw);
}

/// A parameter with what belongs to it, in tensors of its own.
struct Many {
    weight: Tensor,
    states: [Tensor; 2],
    gradient: Tensor,
    master: Option<Tensor>,
    decay: f64,
}

impl Many {
    fn inputs<const N: usize>(&self) -> StepInputs<'_, N> {
        let Self { weight, gradient, master, decay, .. } = self;
        StepInputs { weight, states: std::array::from_fn(|i| &self.states[i]), gradient, master: master.as_ref(), decay: *decay }
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        let all = [&self.weight].into_iter().chain(&self.states).chain(&self.master);
        all.map(|tensor| tensor.to_bytes().expect("bytes")).collect()
    }
}

/// The same ones each time: of all pairs of dtypes, with a master and without; of one element and none, and about the lengths that devices
/// cut what they step over into.
fn many(device: &Device) -> Vec<Many> {
    let mut draw = Draw::new(172);
    let lengths = [1, 0, 3, 255, 256, 257, 2047, 2048, 2049, 4096, 4097, 0, 6145, 17, 8192, 1];
    let dtypes = device.floats().flat_map(|d| device.floats().map(move |g| (d, g)));
    let each = dtypes.chain([(DType::BF16, DType::BF16); 16]).zip(lengths.into_iter().cycle()).enumerate();
    let made = each.map(|(i, ((dtype, gradient), n))| {
        let (wide, shape) = (dtype.accumulator(), [n]);
        let exact = draw.floats(&shape, wide);
        let (m, v) = (draw.floats(&shape, wide), draw.floats(&shape, wide).map(f64::abs));
        Many {
            weight: draw.place(device, &round_all(dtype, &exact), dtype),
            states: [&m, &v].map(|state| draw.place(device, state, wide)),
            gradient: draw.input(device, &shape, gradient).1,
            master: (i % 3 != 0).then(|| tensor(device, &exact, wide)),
            decay: [0.0, 0.1, 0.25][i % 3],
        }
    });
    made.collect()
}

/// Takes a step over many at once and over each alone: the same bits. What one step gives is compared with its formula elsewhere.
fn of_many_is_that_of_each(device: &Device, what: &str, step: impl Fn(&[&Many])) {
    let (all, alone) = (many(device), many(device));
    step(&all.iter().collect::<Vec<_>>());
    alone.iter().for_each(|one| step(&[one]));
    step(&[]);
    for (i, (a, b)) in all.iter().zip(&alone).enumerate() {
        let about = || format!("{what} of many, number {i}: {} {}", a.weight.shape(), a.weight.dtype());
        assert!(a.bytes() == b.bytes(), "{} is another than alone", about());
        assert!(a.weight.buffer().version() > 0, "{}: its version moves", about());
    }
}

fn adamw_of_many_is_that_of_each(device: &Device) {
    let [lr, step, scale] = [1e-2, 7.0, 0.75].map(|value| scalar(device, value));
    of_many_is_that_of_each(device, "adamw", |these| {
        let inputs: Vec<_> = these.iter().map(|one| one.inputs()).collect();
        ADAMW.step(&inputs, [&lr, &step, &scale]).expect("adamw");
    });
}

fn sgd_of_many_is_that_of_each(device: &Device) {
    let [lr, scale] = [0.1, 0.5].map(|value| scalar(device, value));
    of_many_is_that_of_each(device, "sgd", |these| {
        let inputs: Vec<_> = these.iter().map(|one| one.inputs()).collect();
        SGD.step(&inputs, [&lr, &scale]).expect("sgd");
    });
}

fn sgd_is_its_formula(device: &Device) {
    each(32, shapes_and_seed(0, 4, 500), |(shape, seed)| {
        for (dtype, gradient) in device.floats().flat_map(|d| device.floats().map(move |g| (d, g))) {
            for (master, lower) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut draw = Draw::new(seed);
                let wide = dtype.accumulator();
                let op = Sgd { parameters: vec![Stepped { decay: DECAY, master }], ..SGD };
                let (lr, scale) = (reference::round(DType::F32, 0.1), 0.5);
                let (exact, b) = (draw.floats(&shape, wide), draw.floats(&shape, wide));
                let rounded = round_all(dtype, &exact);
                let w = if master { &exact } else { &rounded };
                let (g, tg) = draw.input(device, &shape, gradient);
                let (tw, tb) = (draw.place(device, &rounded, dtype), draw.place(device, &b, wide));
                let tmaster = master.then(|| tensor(device, &exact, wide));
                let [tlr, tscale] = [lr, scale].map(|value| scalar(device, value));
                let inputs: Vec<&Tensor> = [&tw, &tb, &tg].into_iter().chain(&tmaster).chain([&tlr, &tscale]).collect();
                if lower {
                    no_grad(|| Op::Sgd(op.clone()).lower(&inputs, false)).expect("lowered");
                } else {
                    Op::Sgd(op.clone()).apply(&inputs).expect("sgd");
                }
                let next = |i: usize| reference::sgd(&op, DECAY, (w.values[i], b.values[i]), g.values[i], [lr, scale]);
                let n = w.values.len();
                let what = format!("sgd {dtype} by {gradient}, master {master}, lowered {lower}");
                let b_size =
                    Array::new(&shape, (0..n).map(|i| b.values[i].abs() + g.values[i].abs() + w.values[i].abs()).collect());
                let w_size = Array::new(&shape, (0..n).map(|i| w.values[i].abs() + lr * b_size.values[i]).collect());
                stepped(wide, wide, Array::new(&shape, (0..n).map(|i| next(i).1).collect()), b_size)
                    .compare(&format!("{what}: b"), &tb);
                let expected = Array::new(&shape, (0..n).map(|i| next(i).0).collect());
                if let Some(tmaster) = &tmaster {
                    stepped(wide, wide, expected.clone(), w_size.clone()).compare(&format!("{what}: master"), tmaster);
                    let rounded = round_all(dtype, &crate::floats(tmaster));
                    Expected::new(dtype, rounded)
                        .rounded_once()
                        .compare(&format!("{what}: weight is the master's rounding"), &tw);
                }
                stepped(dtype, wide, expected, w_size).compare(&format!("{what}: weight"), &tw);
            }
        }
    });
}
