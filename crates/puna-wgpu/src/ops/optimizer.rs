//! Steps of optimisers.

use puna_tensor::op::{AdamW, Sgd, StepInputs};
use puna_tensor::{Result, Tensor};

use super::copy::{assign, contiguous};
use super::elementwise::words;
use super::parts::in_parts_of;
use crate::backend::{Scratch, Wgpu};
use crate::launch::{Parameters, parameters};
use crate::source::{Number, Unit};
use crate::view::View;

/// What is changed, as a kernel changes it: in order, in words of its own. What lies otherwise is copied, and copied back.
struct Changed {
    original: View,
    changed: Scratch,
}

impl Changed {
    fn new(wgpu: &Wgpu, tensor: &Tensor) -> Result<Self> {
        let original = View::of(tensor);
        let changed = if original.layout.is_contiguous() && Wgpu::begins_word(&original) {
            original.clone().into()
        } else {
            let copied = wgpu.scratch(*original.shape(), original.dtype)?;
            assign(wgpu, &original, &copied)?;
            copied
        };
        Ok(Self { original, changed })
    }

    fn finish(&self, wgpu: &Wgpu) -> Result<()> {
        if self.changed.is_lent() { Ok(()) } else { assign(wgpu, &self.changed, &self.original) }
    }
}

/// A step over each parameter, `entry` with what it is told of one: a kernel sees so few buffers that each has a launch of its own, all in one
/// submission.
fn launch<const N: usize>(
    wgpu: &Wgpu,
    entry: &'static str,
    parameters: &[StepInputs<'_, N>],
    scalars: &[&Tensor],
    told: impl Fn(&StepInputs<'_, N>, usize) -> Parameters,
) -> Result<()> {
    let scalars: Vec<View> = scalars.iter().map(|scalar| View::of(scalar)).collect();
    for of in parameters {
        let tensors = [of.weight].into_iter().chain(of.states).chain(of.master);
        let changed = tensors.map(|tensor| Changed::new(wgpu, tensor)).collect::<Result<Vec<_>>>()?;
        let gradient = contiguous(wgpu, &View::of(of.gradient))?;
        let all = of.weight.shape().elements();
        let mut flat: Vec<Option<View>> = changed.iter().map(|changed| Some(changed.changed.in_shape(all))).collect();
        // The place of the master, whether there is one or not.
        flat.resize(N + 2, None);
        flat.push(Some(gradient.in_shape(all)));
        let numbers = [of.weight, of.gradient].map(|tensor| Number::of(tensor.dtype()));
        let unit = Unit::new("optimizer.wgsl", [("X", numbers[0]), ("W", numbers[1])]);
        in_parts_of(wgpu, 1, N + 2, &flat.iter().map(Option::as_ref).collect::<Vec<_>>(), &|views| {
            let weight = views[0].expect("a parameter");
            let views: Vec<_> = views.iter().copied().chain(scalars.iter().map(Some)).collect();
            wgpu.launch(&unit, entry, words(weight), &views, &told(of, weight.elements()))
        })?;
        changed.iter().try_for_each(|changed| changed.finish(wgpu))?;
    }
    Ok(())
}

pub(super) fn adamw(wgpu: &Wgpu, op: &AdamW, inputs: &[&Tensor]) -> Result<()> {
    let (parameters, scalars) = op.split(inputs);
    let AdamW { beta1, beta2, eps, .. } = *op;
    let rest = [(1.0 - beta1) as f32, (1.0 - beta2) as f32];
    launch(wgpu, "adamw", &parameters, &scalars, |of, n| {
        parameters![
            n,
            beta1 as f32,
            beta2 as f32,
            rest[0],
            rest[1],
            eps as f32,
            of.decay as f32,
            beta1.ln() as f32,
            beta2.ln() as f32,
            of.master.is_some()
        ]
    })
}

pub(super) fn sgd(wgpu: &Wgpu, op: &Sgd, inputs: &[&Tensor]) -> Result<()> {
    let (parameters, scalars) = op.split(inputs);
    let momentum = op.momentum as f32;
    let told = |of: &StepInputs<'_, 1>, n: usize| parameters![n, momentum, of.decay as f32, of.master.is_some()];
    launch(wgpu, "sgd", &parameters, &scalars, told)
}
