//! Activation checkpointing: memory for time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::op::{CustomOp, Inferred, Spec};
use puna_tensor::{Node, Op, Result, Tensor, TensorId, is_recording, no_grad, with_grad};

use crate::walk::through;

/// What is computed again: a function of tensors that gives the same results every time.
type Block = dyn Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync;

/// Runs `f` without keeping what its derivatives read: the backward pass runs it once more. A block of a network costs the memory
/// of its inputs and results only, and its forward pass twice in time.
///
/// `f` must be a function of its arguments and of tensors that do not change before the backward pass; tracked leaves that it holds
/// (parameters) get their gradients like its arguments. Random numbers are functions of seeds, so the second run draws the same.
///
/// Chen and others 2016, arXiv 1604.06174.
///
/// Errors: what `f` says.
pub fn checkpoint(
    f: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    inputs: &[&Tensor],
) -> Result<Vec<Tensor>> {
    let detached: Vec<Tensor> = inputs.iter().map(|input| input.detach()).collect();
    if !is_recording() {
        return f(&detached);
    }
    let results = no_grad(|| f(&detached))?;
    let Some(first) = results.first() else { return Ok(results) };
    // Parameters that `f` holds are no arguments; an argument that is always tracked records the op where they are all there is.
    let anchor = Tensor::zeros(0, puna_tensor::DType::F32, first.device())?.tracked();
    let specs = results.iter().map(|result| Spec { shape: *result.shape(), dtype: result.dtype() }).collect();
    let op = Checkpoint { f: Box::new(f), specs, results: Mutex::new(results) };
    let arguments: Vec<&Tensor> = inputs.iter().copied().chain([&anchor]).collect();
    Ok(Op::Custom(Arc::new(op)).apply(&arguments)?.all())
}

struct Checkpoint {
    f: Box<Block>,
    specs: Vec<Spec>,
    /// What the first run gave, until the op has been applied.
    results: Mutex<Vec<Tensor>>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("results", &self.specs).finish_non_exhaustive()
    }
}

impl CustomOp for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn infer(&self, _: &[&Tensor], _: bool) -> Result<Inferred> {
        Ok(Inferred::results(self.specs.iter().copied()))
    }

    fn lower(&self, _: &[&Tensor], _: bool) -> Result<Vec<Tensor>> {
        Ok(std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn keeps_output(&self, _: usize) -> bool {
        false
    }

    fn vjp(
        &self,
        node: &Node,
        gradients: &[Option<Tensor>],
        captured: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
    ) -> Result<Option<Vec<Option<Tensor>>>> {
        let anchor = node.inputs().len() - 1;
        let input = |i| {
            let value = node.input(i)?;
            Ok(if node.inputs()[i].is_tracked() && value.dtype().is_float() { value.tracked() } else { value })
        };
        let inputs = (0..anchor).map(input).collect::<Result<Vec<Tensor>>>()?;
        let results = with_grad(|| (self.f)(&inputs))?;
        let from: Vec<(&Tensor, Tensor)> =
            results.iter().zip(gradients).filter_map(|(result, gradient)| Some((result, gradient.clone()?))).collect();
        let mut flowed = through(&inputs, &from, captured)?;
        flowed.push(None);
        Ok(Some(flowed))
    }
}
