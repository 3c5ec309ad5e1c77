use super::{Args, Inferred, Op};
use crate::{DType, Result, Shape, Tensor};

/// One step of Adam with decoupled weight decay, in place.
///
/// With `g = scale * gradient`, `t = step`:
/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `w = w - lr * decay * w`, `w = w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)`.
///
/// Inputs `weight` (float, changed), `m`, `v` (f32, f64 beside f64; changed), `gradient` (float), `lr`, `step`, `scale` (f32 `[]`), and, where
/// `master` is set, the f32 `master` weights (changed; `weight` becomes their rounding). All but the scalars have one shape.
///
/// Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// The decay of the mean.
    pub beta1: f64,
    /// The decay of the mean square.
    pub beta2: f64,
    /// What is added to the root.
    pub eps: f64,
    /// The weight decay, a share of the weight per unit of `lr`.
    pub decay: f64,
    /// Whether there are master weights.
    pub master: bool,
}

/// What [`AdamW`] takes.
#[derive(Debug, Clone, Copy)]
pub struct AdamWInputs<'a> {
    /// The parameter, changed.
    pub weight: &'a Tensor,
    /// The mean of gradients, changed.
    pub m: &'a Tensor,
    /// The mean of squared gradients, changed.
    pub v: &'a Tensor,
    /// The gradient.
    pub gradient: &'a Tensor,
    /// The learning rate.
    pub lr: &'a Tensor,
    /// The number of this step, from 1.
    pub step: &'a Tensor,
    /// The factor on the gradient: clipping, averaging.
    pub scale: &'a Tensor,
    /// The master weights, changed.
    pub master: Option<&'a Tensor>,
}

/// One step of stochastic gradient descent with momentum, in place: `b = momentum b + scale * gradient + decay w`, `w = w - lr b`.
///
/// Inputs `weight` (float, changed), `b` (f32, f64 beside f64; changed), `gradient` (float), `lr`, `scale` (f32 `[]`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The decay of the sum of gradients.
    pub momentum: f64,
    /// The weight decay.
    pub decay: f64,
}

fn infer_state(
    args: &Args,
    weight: &Tensor,
    states: &[(&str, &Tensor)],
    gradient: &Tensor,
    scalars: &[(&str, &Tensor)],
) -> Result<()> {
    let dtype = args.float("weight", weight)?;
    args.float("gradient", gradient)?;
    args.shape("gradient", gradient, *weight.shape(), "weight")?;
    for (name, state) in states {
        args.dtype(name, state, dtype.accumulator())?;
        args.shape(name, state, *weight.shape(), "weight")?;
    }
    for (name, scalar) in scalars {
        args.dtype(name, scalar, DType::F32)?;
        args.shape(name, scalar, Shape::SCALAR, "a scalar")?;
    }
    Ok(())
}

impl AdamW {
    pub(super) fn changes(&self) -> &'static [usize] {
        if self.master { &[0, 1, 2, 7] } else { &[0, 1, 2] }
    }

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let names = ["weight", "m", "v", "gradient", "lr", "step", "scale"];
        let (inputs, master) = if self.master {
            let [weight, m, v, gradient, lr, step, scale, master] =
                args.named(["weight", "m", "v", "gradient", "lr", "step", "scale", "master"])?;
            ([weight, m, v, gradient, lr, step, scale], Some(master))
        } else {
            (args.named(names)?, None)
        };
        let [weight, m, v, gradient, lr, step, scale] = inputs;
        let states = [("m", m), ("v", v)].into_iter().chain(master.map(|master| ("master", master)));
        infer_state(args, weight, &states.collect::<Vec<_>>(), gradient, &[("lr", lr), ("step", step), ("scale", scale)])?;
        Ok(Inferred::results([]))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [weight, m, v, gradient, lr, step, scale, ..] = inputs else { unreachable!("inference has counted them") };
        let wide = m.dtype();
        let [lr, step, scale] = [lr.cast(wide)?, step.cast(wide)?, scale.cast(wide)?];
        let g = gradient.cast(wide)?.mul(&scale)?;
        m.assign(&m.affine(self.beta1, 0.0)?.add(&g.affine(1.0 - self.beta1, 0.0)?)?)?;
        v.assign(&v.affine(self.beta2, 0.0)?.add(&g.square()?.affine(1.0 - self.beta2, 0.0)?)?)?;
        // 1 - beta^t is the difference of near numbers: of beta2 = 0.999 an f32 keeps four digits of it. With y = t ln(beta) it is
        // -expm1(y) = -2 tanh(y / 2) / (1 - tanh(y / 2)), where nothing cancels.
        let correction = |beta: f64| {
            let half = step.affine(beta.ln() / 2.0, 0.0)?.tanh()?;
            half.affine(-2.0, 0.0)?.div(&half.affine(-1.0, 1.0)?)
        };
        let root = v.div(&correction(self.beta2)?)?.sqrt()?.affine(1.0, self.eps)?;
        let update = m.div(&correction(self.beta1)?)?.div(&root)?;
        let w = inputs.get(7).copied().unwrap_or(weight).cast(wide)?;
        let w = w.sub(&w.affine(self.decay, 0.0)?.mul(&lr)?)?.sub(&update.mul(&lr)?)?;
        if let Some(master) = inputs.get(7) {
            master.assign(&w)?;
        }
        weight.assign(&w.cast(weight.dtype())?)?;
        Ok(Vec::new())
    }

    /// Takes the step: see [`AdamW`].
    pub fn step(&self, inputs: AdamWInputs<'_>) -> Result<()> {
        let AdamWInputs { weight, m, v, gradient, lr, step, scale, master } = inputs;
        let mut arguments = vec![weight, m, v, gradient, lr, step, scale];
        arguments.extend(master);
        Op::AdamW(Self { master: master.is_some(), ..*self }).apply(&arguments).map(drop)
    }
}

impl Sgd {
    pub(super) fn changes(&self) -> &'static [usize] {
        &[0, 1]
    }

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        let [weight, b, gradient, lr, scale] = args.named(["weight", "b", "gradient", "lr", "scale"])?;
        infer_state(args, weight, &[("b", b)], gradient, &[("lr", lr), ("scale", scale)])?;
        Ok(Inferred::results([]))
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let [weight, b, gradient, lr, scale] = inputs else { unreachable!("inference has counted them") };
        let wide = b.dtype();
        let w = weight.cast(wide)?;
        let g = gradient.cast(wide)?.mul(&scale.cast(wide)?)?.add(&w.affine(self.decay, 0.0)?)?;
        b.assign(&b.affine(self.momentum, 0.0)?.add(&g)?)?;
        weight.assign(&w.sub(&b.mul(&lr.cast(wide)?)?)?.cast(weight.dtype())?)?;
        Ok(Vec::new())
    }
}
