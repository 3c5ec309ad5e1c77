//! Steps of optimisers.

use bytemuck::{Pod, Zeroable};
use puna_tensor::op::{AdamW, Sgd};
use puna_tensor::{DType, Execution, Result};

use super::copy::contiguous;
use super::{NONE, type_name, unit};
use crate::backend::Cuda;
use crate::driver::Unit;
use crate::launch::{Grid, arguments};
use crate::view::View;

/// `AdamW` of `optimizer.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Settings {
    beta1: f64,
    beta2: f64,
    eps: f64,
    decay: f64,
    log_beta1: f64,
    log_beta2: f64,
}

pub(super) fn family(weight: DType, gradient: DType) -> Unit {
    unit("optimizer.cu", [("T", type_name(weight)), ("G", type_name(gradient)), NONE, NONE, NONE])
}

/// Whether what is changed lies in order; what does not is changed by the composition.
fn in_order<'a>(changed: impl IntoIterator<Item = &'a View>) -> bool {
    changed.into_iter().all(|view| view.layout.is_contiguous())
}

pub(super) fn adamw(cuda: &Cuda, op: &AdamW, x: &[View]) -> Result<Execution> {
    let [weight, m, v, gradient, lr, step, scale, ..] = x else { unreachable!("inference has counted them") };
    let master = x.get(7);
    if !in_order([weight, m, v].into_iter().chain(master)) {
        return Ok(Execution::Unsupported);
    }
    let gradient = contiguous(cuda, gradient)?;
    let settings = Settings {
        beta1: op.beta1,
        beta2: op.beta2,
        eps: op.eps,
        decay: op.decay,
        log_beta1: op.beta1.ln(),
        log_beta2: op.beta2.ln(),
    };
    let n = weight.elements();
    let arguments = arguments![
        weight.pointer(),
        m.pointer(),
        v.pointer(),
        View::pointer_of(master),
        gradient.pointer(),
        lr.pointer(),
        step.pointer(),
        scale.pointer(),
        settings,
        n as u64
    ];
    cuda.launch(&family(weight.dtype, gradient.dtype), "adamw", Grid::each(n), &arguments)?;
    Ok(Execution::Done)
}

pub(super) fn sgd(cuda: &Cuda, op: &Sgd, x: &[View]) -> Result<Execution> {
    let [weight, b, gradient, lr, scale] = x else { unreachable!("inference has counted them") };
    if !in_order([weight, b]) {
        return Ok(Execution::Unsupported);
    }
    let gradient = contiguous(cuda, gradient)?;
    let n = weight.elements();
    let arguments = arguments![
        weight.pointer(),
        b.pointer(),
        gradient.pointer(),
        lr.pointer(),
        scale.pointer(),
        op.momentum,
        op.decay,
        n as u64
    ];
    cuda.launch(&family(weight.dtype, gradient.dtype), "sgd", Grid::each(n), &arguments)?;
    Ok(Execution::Done)
}
