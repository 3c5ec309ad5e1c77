//! Steps of optimisers.

use bytemuck::{NoUninit, Pod, Zeroable};
use puna_tensor::op::{AdamW, Sgd, StepInputs};
use puna_tensor::{DType, Execution, Result, Tensor};

use super::copy::contiguous;
use super::{NONE, type_name, unit};
use crate::backend::{Cuda, Scratch};
use crate::driver::Unit;
use crate::launch::{Arguments, Grid, Pointer, arguments};
use crate::view::View;

/// How many elements a block changes; the kernels are told.
const RUN: (usize, &str) = (2048, "2048");

/// `Parameter` of `optimizer.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Parameter {
    weight: Pointer,
    states: [Pointer; 2],
    master: Pointer,
    gradient: Pointer,
    n: u64,
    first: u64,
    decay: f64,
}

/// `AdamW` of `optimizer.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Settings {
    beta1: f64,
    beta2: f64,
    eps: f64,
    log_beta1: f64,
    log_beta2: f64,
}

pub(super) fn family(weight: DType, gradient: DType) -> Unit {
    unit("optimizer.cu", [("T", type_name(weight)), ("G", type_name(gradient)), ("RUN", RUN.1), NONE, NONE])
}

/// Whether what is changed lies in order; what does not is changed by the composition.
fn in_order<const N: usize>(parameters: &[StepInputs<'_, N>]) -> bool {
    let changed = |of: &StepInputs<'_, N>| {
        [of.weight].into_iter().chain(of.states).chain(of.master).all(|tensor| tensor.layout().is_contiguous())
    };
    parameters.iter().all(changed)
}

/// A launch for each pair of dtypes that there is, of weight and gradient: `behind` is given to the kernel behind the table.
fn launch<const N: usize>(
    cuda: &Cuda,
    entry: &'static str,
    parameters: &[StepInputs<'_, N>],
    scalars: &[Pointer],
    settings: &impl NoUninit,
) -> Result<()> {
    for (weight, gradient) in DType::FLOATS.into_iter().flat_map(|w| DType::FLOATS.map(|g| (w, g))) {
        let mine = |of: &&StepInputs<'_, N>| (of.weight.dtype(), of.gradient.dtype()) == (weight, gradient);
        // Copies of gradients that do not lie in order, kept until the kernel has been enqueued.
        let mut copies: Vec<Scratch> = Vec::new();
        let (mut table, mut blocks) = (Vec::new(), 0);
        for of in parameters.iter().filter(mine).filter(|of| of.weight.elements() > 0) {
            let pointer = |tensor: &Tensor| View::of(tensor).pointer();
            let mut states = [Pointer::NONE; 2];
            states.iter_mut().zip(of.states).for_each(|(to, state)| *to = pointer(state));
            let gradient = contiguous(cuda, &View::of(of.gradient))?;
            table.push(Parameter {
                weight: pointer(of.weight),
                states,
                master: of.master.map_or(Pointer::NONE, pointer),
                gradient: gradient.pointer(),
                n: of.weight.elements() as u64,
                first: blocks,
                decay: of.decay,
            });
            copies.push(gradient);
            blocks += of.weight.elements().div_ceil(RUN.0) as u64;
        }
        if table.is_empty() {
            continue;
        }
        let bytes: &[u8] = bytemuck::cast_slice(&table);
        let place = cuda.scratch(bytes.len(), DType::U8)?;
        cuda.bring(place.pointer().0, bytes)?;
        let mut arguments: Arguments = arguments![place.pointer(), table.len() as u32];
        scalars.iter().for_each(|scalar| arguments.push(scalar));
        arguments.push(settings);
        cuda.launch(&family(weight, gradient), entry, Grid::blocks(blocks), &arguments)?;
    }
    Ok(())
}

pub(super) fn adamw(cuda: &Cuda, op: &AdamW, inputs: &[&Tensor]) -> Result<Execution> {
    let (parameters, scalars) = op.split(inputs);
    if !in_order(&parameters) {
        return Ok(Execution::Unsupported);
    }
    let AdamW { beta1, beta2, eps, .. } = *op;
    let settings = Settings { beta1, beta2, eps, log_beta1: beta1.ln(), log_beta2: beta2.ln() };
    launch(cuda, "adamw", &parameters, &scalars.map(|scalar| View::of(scalar).pointer()), &settings)?;
    Ok(Execution::Done)
}

pub(super) fn sgd(cuda: &Cuda, op: &Sgd, inputs: &[&Tensor]) -> Result<Execution> {
    let (parameters, scalars) = op.split(inputs);
    if !in_order(&parameters) {
        return Ok(Execution::Unsupported);
    }
    launch(cuda, "sgd", &parameters, &scalars.map(|scalar| View::of(scalar).pointer()), &op.momentum)?;
    Ok(Execution::Done)
}
