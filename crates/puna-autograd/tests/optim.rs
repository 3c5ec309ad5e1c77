//! Optimisers against naive ones in f64, clipping, schedules, and states that survive.

mod common;

use common::{Draw, close, device};
use puna_autograd::optim::{AdamW, AdamWOptions, Muon, MuonOptions, Optimizer, Schedule, Sgd, SgdOptions, clip};
use puna_autograd::{Gradients, backward};
use puna_tensor::{DType, Result, Tensor};

/// Two matrices and a norm, in a dtype.
fn parameters(dtype: DType) -> Vec<(String, Tensor)> {
    let mut draw = Draw::new(17);
    [("layers.0.q_proj.weight", vec![6, 4]), ("model.embed_tokens.weight", vec![5, 3]), ("norm.weight", vec![4])]
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), draw.floats(&shape).contiguous().unwrap().cast(dtype).unwrap().tracked()))
        .collect()
}

/// Gradients of step `step`, about normal.
fn gradients(parameters: &[(String, Tensor)], step: u64) -> Gradients {
    let mut draw = Draw::new(100 + step);
    let mut all = Gradients::new();
    for (_, parameter) in parameters {
        let gradient = draw.floats(parameter.shape()).cast(parameter.dtype()).unwrap();
        all.insert(parameter, gradient);
    }
    all
}

fn read(t: &Tensor) -> Vec<f64> {
    t.detach().cast(DType::F64).unwrap().to_vec().unwrap()
}

const LR: f64 = 0.03;
const SCALE: f64 = 0.5;

/// The textbook's AdamW, SGD and Muon on plain numbers.
struct Naive {
    w: Vec<f64>,
    shape: Vec<usize>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Naive {
    fn of(parameter: &Tensor) -> Self {
        let w = read(parameter);
        Self { m: vec![0.0; w.len()], v: vec![0.0; w.len()], w, shape: parameter.shape().to_vec() }
    }

    fn adamw(&mut self, g: &[f64], t: i32) {
        let (b1, b2, eps, decay) = (0.9, 0.95, 1e-8, if self.shape.len() >= 2 { 0.1 } else { 0.0 });
        for i in 0..g.len() {
            let g = g[i] * SCALE;
            self.m[i] = b1 * self.m[i] + (1.0 - b1) * g;
            self.v[i] = b2 * self.v[i] + (1.0 - b2) * g * g;
            let (m, v) = (self.m[i] / (1.0 - b1.powi(t)), self.v[i] / (1.0 - b2.powi(t)));
            self.w[i] -= LR * decay * self.w[i] + LR * m / (v.sqrt() + eps);
        }
    }

    fn sgd(&mut self, g: &[f64]) {
        let decay = if self.shape.len() >= 2 { 0.1 } else { 0.0 };
        for ((w, m), g) in self.w.iter_mut().zip(&mut self.m).zip(g) {
            *m = 0.9 * *m + g * SCALE + decay * *w;
            *w -= LR * *m;
        }
    }

    fn muon(&mut self, g: &[f64]) {
        let [rows, columns] = [self.shape[0], self.shape[1]];
        let mut u = vec![0.0; g.len()];
        for i in 0..g.len() {
            self.m[i] = 0.95 * self.m[i] + g[i] * SCALE;
            u[i] = g[i] * SCALE + 0.95 * self.m[i];
        }
        let norm = u.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
        let mut x: Vec<f64> = u.iter().map(|v| v / norm).collect();
        // With X rows by columns and the smaller Gram matrix on the side of the columns or the rows: the same polynomial.
        let at = |x: &[f64], r: usize, c: usize| x[r * columns + c];
        for _ in 0..5 {
            let mut gram = vec![0.0; columns * columns];
            for i in 0..columns {
                for j in 0..columns {
                    gram[i * columns + j] = (0..rows).map(|r| at(&x, r, i) * at(&x, r, j)).sum();
                }
            }
            let mut p = vec![0.0; columns * columns];
            for i in 0..columns {
                for j in 0..columns {
                    let square: f64 = (0..columns).map(|k| gram[i * columns + k] * gram[k * columns + j]).sum();
                    p[i * columns + j] = -4.7750 * gram[i * columns + j] + 2.0315 * square + if i == j { 3.4445 } else { 0.0 };
                }
            }
            x = (0..rows * columns)
                .map(|i| (0..columns).map(|k| at(&x, i / columns, k) * p[k * columns + i % columns]).sum())
                .collect();
        }
        let size = 0.2 * (rows.max(columns) as f64).sqrt();
        for (w, x) in self.w.iter_mut().zip(&x) {
            *w -= LR * 0.1 * *w + LR * size * x;
        }
    }
}

/// A step of a naive optimiser: the parameter's name, its state, its gradient, the number of the step.
type NaiveStep<'a> = &'a mut dyn FnMut(&str, &mut Naive, &[f64], i32);

fn run(optimizer: &mut dyn Optimizer, naive: NaiveStep<'_>, dtype: DType, tolerance: f64) {
    let parameters = parameters(dtype);
    let mut plain: Vec<Naive> = parameters.iter().map(|(_, t)| Naive::of(t)).collect();
    for step in 0..10 {
        let gradients = gradients(&parameters, step);
        optimizer.step(&parameters, &gradients, LR, SCALE).unwrap();
        for ((name, t), plain) in parameters.iter().zip(&mut plain) {
            naive(name, plain, &read(gradients.get(t).unwrap()), step as i32 + 1);
        }
    }
    for ((name, t), plain) in parameters.iter().zip(&plain) {
        let expected = Tensor::from_slice(&plain.w, *t.shape(), &device()).unwrap();
        close(&format!("{name} {dtype}"), &t.detach().cast(DType::F64).unwrap(), &expected, tolerance);
    }
}

/// Masters hold what a half type cannot: the parameter is off by its own rounding alone.
const DTYPES: [(DType, f64); 4] = [(DType::F64, 1e-6), (DType::F32, 1e-6), (DType::BF16, 3e-3), (DType::F16, 4e-4)];

#[test]
fn adamw_is_the_textbooks() {
    for (dtype, tolerance) in DTYPES {
        run(&mut AdamW::new(AdamWOptions::default()), &mut |_, naive, g, t| naive.adamw(g, t), dtype, tolerance);
    }
}

#[test]
fn sgd_is_the_textbooks() {
    for (dtype, tolerance) in DTYPES {
        let options = SgdOptions { momentum: 0.9, decay: 0.1 };
        run(&mut Sgd::new(options), &mut |_, naive, g, _| naive.sgd(g), dtype, tolerance);
    }
}

#[test]
fn muon_moves_matrices_inside_layers_and_adamw_the_others() {
    for (dtype, tolerance) in DTYPES {
        let mut naive = |name: &str, naive: &mut Naive, g: &[f64], t: i32| {
            if name.starts_with("layers") { naive.muon(g) } else { naive.adamw(g, t) }
        };
        run(&mut Muon::new(MuonOptions::default()), &mut naive, dtype, tolerance);
    }
}

#[test]
fn an_optimiser_goes_on_from_its_state_to_the_bit() {
    let make: [fn() -> Box<dyn Optimizer>; 3] = [
        || Box::new(AdamW::new(AdamWOptions::default())),
        || Box::new(Sgd::new(SgdOptions { momentum: 0.9, decay: 0.1 })),
        || Box::new(Muon::new(MuonOptions::default())),
    ];
    for (make, dtype) in make.iter().flat_map(|make| [DType::F32, DType::BF16].map(|dtype| (make, dtype))) {
        let whole = parameters(dtype);
        let mut optimizer = make();
        let step = |optimizer: &mut dyn Optimizer, parameters: &[(String, Tensor)], n: u64| {
            optimizer.step(parameters, &gradients(parameters, n), LR, SCALE).unwrap();
        };
        (0..3).for_each(|n| step(&mut *optimizer, &whole, n));
        // As a file would hold it.
        let copy = |t: &Tensor| Tensor::from_bytes(&t.to_bytes().unwrap(), t.dtype(), *t.shape(), &device()).unwrap();
        let saved: Vec<(String, Tensor)> = optimizer.state().iter().map(|(name, t)| (name.clone(), copy(t))).collect();
        let resumed: Vec<(String, Tensor)> = whole.iter().map(|(name, t)| (name.clone(), copy(t).tracked())).collect();
        (3..6).for_each(|n| step(&mut *optimizer, &whole, n));
        let mut second = make();
        let find = |name: &str| saved.iter().find(|(other, _)| other == name).map(|(_, t)| t.clone());
        second.load_state(&resumed, &find, 3).unwrap();
        (3..6).for_each(|n| step(&mut *second, &resumed, n));
        assert_eq!((optimizer.steps(), second.steps()), (6, 6));
        for ((name, a), (_, b)) in whole.iter().zip(&resumed) {
            assert_eq!(a.to_bytes().unwrap(), b.to_bytes().unwrap(), "{name} {dtype}");
        }
        let lacking = |name: &str| if name.starts_with("norm") { None } else { find(name) };
        let error = make().load_state(&resumed, &lacking, 3).unwrap_err().to_string();
        assert!(error.contains("norm.weight.") && error.contains("missing"), "{error}");
        let misshapen = |name: &str| find(name).map(|t| if name.starts_with("norm") { t.reshape([2, 2]).unwrap() } else { t });
        let error = make().load_state(&resumed, &misshapen, 3).unwrap_err().to_string();
        assert!(error.contains("norm.weight.") && error.contains("[2, 2]"), "{error}");
    }
}

#[test]
fn a_parameter_without_a_gradient_is_named_and_none_has_moved() {
    let parameters = parameters(DType::F32);
    let mut gradients = gradients(&parameters, 0);
    gradients.remove(&parameters[2].1);
    let before: Vec<_> = parameters.iter().map(|(_, t)| read(t)).collect();
    let error = AdamW::new(AdamWOptions::default()).step(&parameters, &gradients, LR, 1.0).unwrap_err().to_string();
    assert!(error.contains("norm.weight [4]"), "{error}");
    assert!(parameters.iter().map(|(_, t)| read(t)).eq(before));
    assert!(clip(&parameters, &gradients, 1.0, 1.0).unwrap_err().to_string().contains("norm.weight"));
}

#[test]
fn clipping_is_by_the_norm_over_all() {
    for dtype in [DType::F64, DType::F32, DType::BF16] {
        let parameters = parameters(dtype);
        let gradients = gradients(&parameters, 1);
        let squares: f64 = parameters.iter().flat_map(|(_, t)| read(gradients.get(t).unwrap())).map(|g| g * g).sum();
        let norm = squares.sqrt() * SCALE;
        let clipped = clip(&parameters, &gradients, SCALE, 1.0).unwrap();
        assert!((clipped.norm / norm - 1.0).abs() < 1e-6, "{dtype}");
        assert!((clipped.factor / (SCALE / (norm + 1e-6)) - 1.0).abs() < 1e-6, "{dtype}");
        assert_eq!(clip(&parameters, &gradients, SCALE, f64::INFINITY).unwrap().factor, SCALE);
    }
    // Two million squares of about one: a chain of f32 sums would be off by more.
    let long = Tensor::full(1.000_123, [2048, 1024], DType::F32, &device()).unwrap().tracked();
    let mut gradients = Gradients::new();
    gradients.insert(&long, long.detach());
    let exact = f64::from(1.000_123f32) * (2048.0f64 * 1024.0).sqrt();
    let norm = clip(&[("long".into(), long)], &gradients, 1.0, 1.0).unwrap().norm;
    assert!((norm / exact - 1.0).abs() < 2e-7, "{norm} {exact}");
}

#[test]
fn a_gradient_that_is_not_finite_is_named() {
    let parameters = parameters(DType::F32);
    let mut gradients = gradients(&parameters, 0);
    let broken = Tensor::from_slice(&[1.0f32, f32::NAN, 0.0, 0.0], 4, &device()).unwrap();
    gradients.insert(&parameters[2].1, broken);
    let error = clip(&parameters, &gradients, 1.0, 1.0).unwrap_err().to_string();
    assert_eq!(error, "clip: the gradient of norm.weight [4] is not finite");
}

#[test]
fn schedules_rise_hold_and_fall() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    let cosine = Schedule::Cosine { warmup: 10, steps: 110, floor: 0.1 };
    near(cosine.factor(0), 0.1);
    near(cosine.factor(9), 1.0);
    near(cosine.factor(10), 1.0);
    near(cosine.factor(60), 0.55);
    near(cosine.factor(110), 0.1);
    near(cosine.factor(500), 0.1);
    let linear = Schedule::Linear { warmup: 0, steps: 4, floor: 0.0 };
    (0..6).zip([1.0, 0.75, 0.5, 0.25, 0.0, 0.0]).for_each(|(step, factor)| near(linear.factor(step), factor));
    let wsd = Schedule::WarmupStableDecay { warmup: 2, steps: 10, decay: 4, floor: 0.2 };
    let expected = [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2];
    (0..12).zip(expected).for_each(|(step, factor)| near(wsd.factor(step), factor));
    near(Schedule::Constant { warmup: 0 }.factor(0), 1.0);
    // Settings that leave no room fall at once.
    near(Schedule::Cosine { warmup: 5, steps: 3, floor: 0.0 }.factor(5), 0.0);
}

#[test]
fn a_line_is_fitted() -> Result<()> {
    // Real gradients, in place, many steps: y = 2 x + 1.
    let x = Tensor::from_slice(&[-1.0f32, 0.0, 1.0, 2.0], [4, 1], &device())?;
    let y = x.affine(2.0, 1.0)?;
    let (w, b) = (Tensor::zeros([1, 1], DType::F32, &device())?.tracked(), Tensor::zeros(1, DType::F32, &device())?.tracked());
    let parameters = [("w".to_owned(), w.clone()), ("b".to_owned(), b.clone())];
    let mut adamw = AdamW::new(AdamWOptions { decay: 0.0, ..AdamWOptions::default() });
    for step in 0..500 {
        let loss = x.matmul(&w)?.add(&b)?.sub(&y)?.square()?.sum_all()?;
        let lr = 0.1 * Schedule::Linear { warmup: 0, steps: 500, floor: 0.0 }.factor(step);
        adamw.step(&parameters, &backward(&loss)?, lr, 0.25)?;
    }
    assert!((read(&w)[0] - 2.0).abs() < 1e-3 && (read(&b)[0] - 1.0).abs() < 1e-3, "{w:?} {b:?}");
    Ok(())
}
