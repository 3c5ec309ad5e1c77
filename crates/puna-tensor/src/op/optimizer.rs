use super::{Args, Inferred, Op};
use crate::{DType, Kind, Result, Shape, Tensor};

/// One step of Adam with decoupled weight decay over any number of parameters, in place.
///
/// Of each parameter, with `g = scale * gradient`, `t = step`:
/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `w = w - lr * decay * w`, `w = w - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)`.
///
/// Inputs for each parameter `weight` (float, changed), `m`, `v` (f32, f64 beside f64; changed), `gradient` (float), and, where it has one,
/// the `master` weight (as `m`; changed: `weight` becomes its rounding), all of one shape; behind them `lr`, `step`, `scale` (f32 `[]`).
///
/// Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// The decay of the mean.
    pub beta1: f64,
    /// The decay of the mean square.
    pub beta2: f64,
    /// What is added to the root.
    pub eps: f64,
    /// The parameters, in the order of their inputs.
    pub parameters: Vec<Stepped>,
}

/// One step of stochastic gradient descent with momentum over any number of parameters, in place.
///
/// Of each parameter: `b = momentum b + scale * gradient + decay w`, `w = w - lr b`.
///
/// Inputs for each parameter `weight`, `b`, `gradient` and perhaps `master`, as of [`AdamW`]; behind them `lr`, `scale` (f32 `[]`).
#[derive(Debug, Clone, PartialEq)]
pub struct Sgd {
    /// The decay of the sum of gradients.
    pub momentum: f64,
    /// The parameters, in the order of their inputs.
    pub parameters: Vec<Stepped>,
}

/// What an optimiser's step is told of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stepped {
    /// The weight decay: of [`AdamW`] a share of the weight per unit of `lr`, of [`Sgd`] what is added to the gradient.
    pub decay: f64,
    /// Whether it has a master weight.
    pub master: bool,
}

/// What an optimiser's step takes of one parameter; `N` states: `m` and `v`, or `b`.
#[derive(Debug, Clone, Copy)]
pub struct StepInputs<'a, const N: usize> {
    /// The parameter, changed.
    pub weight: &'a Tensor,
    /// What is remembered of its gradients, changed.
    pub states: [&'a Tensor; N],
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Its master weight, changed.
    pub master: Option<&'a Tensor>,
    /// Its weight decay.
    pub decay: f64,
}

impl<'a, const N: usize> StepInputs<'a, N> {
    fn stepped(&self) -> Stepped {
        Stepped { decay: self.decay, master: self.master.is_some() }
    }

    fn inputs(&self) -> impl Iterator<Item = &'a Tensor> {
        let Self { weight, states, gradient, master, .. } = *self;
        std::iter::once(weight).chain(states).chain([gradient]).chain(master)
    }

    /// What the composition computes with, in the accumulating dtype: the weight, and the gradient.
    fn wide(&self) -> Result<[Tensor; 2]> {
        let wide = self.weight.dtype().accumulator();
        Ok([self.master.unwrap_or(self.weight).cast(wide)?, self.gradient.cast(wide)?])
    }

    /// Puts a new weight where it belongs.
    fn assign(&self, w: &Tensor) -> Result<()> {
        if let Some(master) = self.master {
            master.assign(w)?;
        }
        self.weight.assign(&w.cast(self.weight.dtype())?)
    }
}

impl Stepped {
    fn inputs(&self, states: usize) -> usize {
        2 + states + usize::from(self.master)
    }
}

/// What belongs to each parameter, and the scalars; `None` where there are more arguments or fewer.
fn split<'a, const N: usize, const S: usize>(
    parameters: &[Stepped],
    inputs: &[&'a Tensor],
) -> Option<(Vec<StepInputs<'a, N>>, [&'a Tensor; S])> {
    let (mut rest, scalars) = inputs.split_last_chunk::<S>()?;
    let mut all = Vec::with_capacity(parameters.len());
    for stepped in parameters {
        let (these, others) = rest.split_at_checked(stepped.inputs(N))?;
        let (weight, these) = these.split_first()?;
        let (states, these) = these.split_first_chunk::<N>()?;
        let (gradient, master) = these.split_first()?;
        all.push(StepInputs { weight, states: *states, gradient, master: master.first().copied(), decay: stepped.decay });
        rest = others;
    }
    rest.is_empty().then_some((all, *scalars))
}

/// Checks the arguments of a step whose states and scalars have these names.
fn infer<const N: usize, const S: usize>(
    args: &Args,
    parameters: &[Stepped],
    states: [&str; N],
    scalars: [&str; S],
) -> Result<Inferred> {
    let Some((all, values)) = split::<N, S>(parameters, args.inputs()) else {
        let (wanted, n) = (S + parameters.iter().map(|stepped| stepped.inputs(N)).sum::<usize>(), parameters.len());
        let message = format!("takes {wanted} arguments for {n} parameters, {} given", args.inputs().len());
        return Err(args.fail(Kind::Argument, message));
    };
    for (name, scalar) in scalars.iter().zip(values) {
        args.dtype(name, scalar, DType::F32)?;
        args.shape(name, scalar, Shape::SCALAR, "a scalar")?;
    }
    for StepInputs { weight, states: these, gradient, master, .. } in all {
        let dtype = args.float("weight", weight)?;
        args.float("gradient", gradient)?;
        args.shape("gradient", gradient, *weight.shape(), "weight")?;
        for (name, state) in states.into_iter().zip(these).chain(master.map(|master| ("master", master))) {
            args.dtype(name, state, dtype.accumulator())?;
            args.shape(name, state, *weight.shape(), "weight")?;
        }
    }
    Ok(Inferred::results([]))
}

/// The places of what is changed: all but scalars and gradients.
fn changes(parameters: &[Stepped], states: usize) -> Vec<usize> {
    let (mut changed, mut at) = (Vec::new(), 0);
    for stepped in parameters {
        let next = at + stepped.inputs(states);
        changed.extend((at..next).filter(|i| *i != at + 1 + states));
        at = next;
    }
    changed
}

impl AdamW {
    pub(super) fn changes(&self) -> Vec<usize> {
        changes(&self.parameters, 2)
    }

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        infer(args, &self.parameters, ["m", "v"], ["lr", "step", "scale"])
    }

    /// An op's arguments: what belongs to each parameter, and `lr`, `step`, `scale`.
    ///
    /// # Panics
    /// Where they are not as many as inference lets through.
    pub fn split<'a>(&self, inputs: &[&'a Tensor]) -> (Vec<StepInputs<'a, 2>>, [&'a Tensor; 3]) {
        split(&self.parameters, inputs).expect("inference has counted them")
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (parameters, [lr, step, scale]) = self.split(inputs);
        for parameter in parameters {
            let StepInputs { states: [m, v], decay, .. } = parameter;
            let wide = m.dtype();
            let [lr, step, scale] = [lr.cast(wide)?, step.cast(wide)?, scale.cast(wide)?];
            let [w, g] = parameter.wide()?;
            let g = g.mul(&scale)?;
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
            parameter.assign(&w.sub(&w.affine(decay, 0.0)?.mul(&lr)?)?.sub(&update.mul(&lr)?)?)?;
        }
        Ok(Vec::new())
    }

    /// Takes the step over these parameters, whatever [`parameters`](Self::parameters) says; `scalars`: `lr`, `step` (from 1), `scale`
    /// (the factor on gradients: clipping, averaging). See [`AdamW`].
    pub fn step(self, parameters: &[StepInputs<'_, 2>], scalars: [&Tensor; 3]) -> Result<()> {
        let inputs: Vec<&Tensor> = parameters.iter().flat_map(StepInputs::inputs).chain(scalars).collect();
        let parameters = parameters.iter().map(StepInputs::stepped).collect();
        Op::AdamW(Self { parameters, ..self }).apply(&inputs).map(drop)
    }
}

impl Sgd {
    pub(super) fn changes(&self) -> Vec<usize> {
        changes(&self.parameters, 1)
    }

    pub(super) fn infer(&self, args: &Args) -> Result<Inferred> {
        infer(args, &self.parameters, ["b"], ["lr", "scale"])
    }

    /// An op's arguments: what belongs to each parameter, and `lr`, `scale`.
    ///
    /// # Panics
    /// Where they are not as many as inference lets through.
    pub fn split<'a>(&self, inputs: &[&'a Tensor]) -> (Vec<StepInputs<'a, 1>>, [&'a Tensor; 2]) {
        split(&self.parameters, inputs).expect("inference has counted them")
    }

    pub(super) fn lower(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let (parameters, [lr, scale]) = self.split(inputs);
        for parameter in parameters {
            let StepInputs { states: [b], decay, .. } = parameter;
            let [w, g] = parameter.wide()?;
            let g = g.mul(&scale.cast(b.dtype())?)?.add(&w.affine(decay, 0.0)?)?;
            b.assign(&b.affine(self.momentum, 0.0)?.add(&g)?)?;
            parameter.assign(&w.sub(&b.mul(&lr.cast(b.dtype())?)?)?)?;
        }
        Ok(Vec::new())
    }

    /// Takes the step over these parameters, whatever [`parameters`](Self::parameters) says; `scalars`: `lr`, `scale`. See [`Sgd`].
    pub fn step(self, parameters: &[StepInputs<'_, 1>], scalars: [&Tensor; 2]) -> Result<()> {
        let inputs: Vec<&Tensor> = parameters.iter().flat_map(StepInputs::inputs).chain(scalars).collect();
        let parameters = parameters.iter().map(StepInputs::stepped).collect();
        Op::Sgd(Self { parameters, ..self }).apply(&inputs).map(drop)
    }
}
