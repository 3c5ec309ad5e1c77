//! Optimizer steps in one pass over all parameters.

use puna_tensor::op::{AdamW, Sgd, StepInputs};
use puna_tensor::{Execution, Result, Tensor};

use super::wide::{Source, Wide, scratch};
use crate::backend::Cpu;
use crate::memory::{Write, read, write_all};
use crate::simd::vector::Real;
use crate::simd::{Isa, dispatch};

/// How many elements a task takes: each moves some 28 bytes, about 160 us.
const TASK: usize = 64 << 10;
/// How many of them are widened at a time.
const RUN: usize = 4 << 10;

fn scalar(tensor: &Tensor) -> f64 {
    f64::from(read(tensor).typed::<f32>()[tensor.layout().offset()])
}

/// A state or parameter as a run of bytes; strided ones are refused by [`in_order`].
fn bytes<'a>(memory: &'a mut Write<'_>, tensor: &Tensor) -> &'a mut [u8] {
    &mut memory.bytes()[tensor.byte_range()]
}

/// What a step changes of a parameter.
fn changed<'a, const N: usize>(parameter: &StepInputs<'a, N>) -> impl Iterator<Item = &'a Tensor> {
    std::iter::once(parameter.weight).chain(parameter.states).chain(parameter.master)
}

/// Whether all that is changed lies in row-major order; else the tensors' own ops take the step.
fn in_order<const N: usize>(parameters: &[StepInputs<'_, N>]) -> bool {
    parameters.iter().flat_map(changed).all(|tensor| tensor.layout().is_contiguous())
}

/// A part of a parameter: what a task changes, and what it reads.
struct Part<'a, W, const N: usize> {
    weight: &'a mut [u8],
    states: [&'a mut [W]; N],
    master: Option<&'a mut [W]>,
    of: &'a StepInputs<'a, N>,
    gradient: &'a Source<'a>,
    /// Where its gradient begins.
    start: usize,
}

/// One pass over those parameters whose sums are formed in `W`: `update` is given their decay, weights, states, gradients.
fn pass<W: Wide, const N: usize>(
    cpu: &Cpu,
    parameters: &[StepInputs<'_, N>],
    update: impl Fn(f64, &mut [W], [&mut [W]; N], &[W]) + Sync,
) -> Result<()> {
    let mine = |parameter: &&StepInputs<'_, N>| parameter.weight.dtype().accumulator() == W::DTYPE;
    let mine: Vec<&StepInputs<'_, N>> = parameters.iter().filter(mine).collect();
    let gradients = mine.iter().map(|parameter| parameter.gradient.contiguous()).collect::<Result<Vec<Tensor>>>()?;
    let gradients: Vec<Source<'_>> = gradients.iter().map(Source::new).collect();
    let all: Vec<&Tensor> = mine.iter().flat_map(|parameter| changed(parameter)).collect();
    let mut memory = write_all(&all)?;
    let mut rest = memory.iter_mut().zip(&all).map(|(memory, tensor)| bytes(memory, tensor));
    let mut parts = Vec::new();
    for (of, gradient) in mine.into_iter().zip(&gradients) {
        let mut next = || rest.next().expect("as many as are changed");
        let weights = next().chunks_mut(TASK * of.weight.dtype().unit_bytes());
        let mut next_wide = || bytemuck::cast_slice_mut::<u8, W>(next()).chunks_mut(TASK);
        let mut states: [_; N] = std::array::from_fn(|_| next_wide());
        let mut master = of.master.map(|_| next_wide());
        for (i, weight) in weights.enumerate() {
            let states = states.each_mut().map(|state| state.next().expect("as long as the weight"));
            let master = master.as_mut().map(|master| master.next().expect("as long as the weight"));
            let start = gradient.layout().offset() + i * TASK;
            parts.push(Part { weight, states, master, of, gradient, start });
        }
    }
    cpu.pool.chunks_mut(&mut parts, 1, |_, part| part.iter_mut().for_each(|part| part.step(&update)));
    Ok(())
}

impl<W: Wide, const N: usize> Part<'_, W, N> {
    fn step(&mut self, update: &impl Fn(f64, &mut [W], [&mut [W]; N], &[W])) {
        let Self { weight, states, master, of: StepInputs { weight: tensor, decay, .. }, gradient, start } = self;
        let (dtype, size) = (tensor.dtype(), tensor.dtype().unit_bytes());
        let n = weight.len() / size;
        scratch(2 * RUN.min(n), |both: &mut [W]| {
            let (values, g) = both.split_at_mut(RUN.min(n));
            for first in (0..n).step_by(RUN) {
                let run = first..n.min(first + RUN);
                let weight = &mut weight[run.start * size..run.end * size];
                let states = states.each_mut().map(|state| &mut state[run.clone()]);
                let (values, g) = (&mut values[..run.len()], gradient.row(*start + first, &mut g[..run.len()]));
                match master {
                    Some(master) => update(*decay, &mut master[run], states, g),
                    None if dtype == W::DTYPE => update(*decay, bytemuck::cast_slice_mut(weight), states, g),
                    None => {
                        W::load(dtype, weight, 0, 1, values);
                        update(*decay, values, states, g);
                        W::store(dtype, values, weight);
                    }
                }
            }
        });
        // Behind the others: fewer places in memory that are read and written at a time.
        if let Some(master) = master {
            W::store(dtype, master, weight);
        }
    }
}

pub(super) fn adamw(cpu: &Cpu, op: &AdamW, inputs: &[&Tensor]) -> Result<Execution> {
    let (parameters, [lr, step, scale]) = op.split(inputs);
    if !in_order(&parameters) {
        return Ok(Execution::Unsupported);
    }
    let scalars = [lr, step, scale].map(scalar);
    adamw_wide::<f32>(cpu, op, scalars, &parameters)?;
    adamw_wide::<f64>(cpu, op, scalars, &parameters)?;
    Ok(Execution::Done)
}

fn adamw_wide<W: Wide>(cpu: &Cpu, op: &AdamW, [lr, step, scale]: [f64; 3], parameters: &[StepInputs<'_, 2>]) -> Result<()> {
    let of = W::of;
    let all = Factors {
        scale: of(scale),
        lr: of(lr),
        beta1: of(op.beta1),
        beta2: of(op.beta2),
        rest1: of(1.0 - op.beta1),
        rest2: of(1.0 - op.beta2),
        // 1 - beta^t: as a difference, 1 - 0.999 in f32 is off in the fifth digit, in f64 in the fourteenth.
        correction1: of(-(step * op.beta1.ln()).exp_m1()),
        correction2: of(-(step * op.beta2.ln()).exp_m1()),
        eps: of(op.eps),
        decay: of(0.0),
    };
    pass(cpu, parameters, |decay, w: &mut [W], [m, v]: [&mut [W]; 2], g: &[W]| {
        let (isa, factors) = (Isa::detect(), &Factors { decay: of(decay), ..all });
        dispatch!(isa, adamw_body::<W: Real>(w: &mut [W], m: &mut [W], v: &mut [W], g: &[W], factors: &Factors<W>));
    })
}

/// What one step of AdamW is the same for of all elements of a parameter.
#[derive(Clone, Copy)]
struct Factors<W> {
    scale: W,
    lr: W,
    beta1: W,
    beta2: W,
    rest1: W,
    rest2: W,
    correction1: W,
    correction2: W,
    eps: W,
    decay: W,
}

#[inline(always)]
fn adamw_body<W: Real>(w: &mut [W], m: &mut [W], v: &mut [W], g: &[W], f: &Factors<W>) {
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        let g = *g * f.scale;
        *m = *m * f.beta1 + g * f.rest1;
        *v = *v * f.beta2 + g * g * f.rest2;
        let root = (*v / f.correction2).sqrt() + f.eps;
        *w = *w - *w * f.decay * f.lr - *m / f.correction1 / root * f.lr;
    }
}

pub(super) fn sgd(cpu: &Cpu, op: &Sgd, inputs: &[&Tensor]) -> Result<Execution> {
    let (parameters, [lr, scale]) = op.split(inputs);
    if !in_order(&parameters) {
        return Ok(Execution::Unsupported);
    }
    let scalars = [lr, scale].map(scalar);
    sgd_wide::<f32>(cpu, op, scalars, &parameters)?;
    sgd_wide::<f64>(cpu, op, scalars, &parameters)?;
    Ok(Execution::Done)
}

fn sgd_wide<W: Wide>(cpu: &Cpu, op: &Sgd, [lr, scale]: [f64; 2], parameters: &[StepInputs<'_, 1>]) -> Result<()> {
    let (lr, scale, momentum) = (W::of(lr), W::of(scale), W::of(op.momentum));
    pass(cpu, parameters, |decay, w: &mut [W], [b]: [&mut [W]; 1], g: &[W]| {
        let decay = W::of(decay);
        for ((w, b), g) in w.iter_mut().zip(b).zip(g) {
            *b = *b * momentum + (*g * scale + *w * decay);
            *w = *w - *b * lr;
        }
    })
}
