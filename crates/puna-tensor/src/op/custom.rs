use std::fmt::Debug;

use super::Inferred;
use crate::{Execution, Node, Result, Tensor};

/// An operation from outside this library: one trait over slices of tensors.
///
/// It enters as [`Op::Custom`](super::Op::Custom) and passes through the same door as every other: inference, execution or
/// lowering, recording, differentiation.
pub trait CustomOp: Debug + Send + Sync {
    /// Its name, for errors and counts.
    fn name(&self) -> &'static str;

    /// Checks the arguments and gives the outputs' shapes and dtypes. `tracked`: with what [`vjp`](Self::vjp) reads.
    fn infer(&self, inputs: &[&Tensor], tracked: bool) -> Result<Inferred>;

    /// The outputs, composed of other ops.
    fn lower(&self, inputs: &[&Tensor], tracked: bool) -> Result<Vec<Tensor>>;

    /// A kernel for a device that it knows; by default there is none, and the op is lowered.
    fn execute(&self, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        let _ = (inputs, outputs);
        Ok(Execution::Unsupported)
    }

    /// The gradients of the inputs from those of the results (`None`: nothing flowed there), or `None` to differentiate the lowering.
    fn vjp(&self, node: &Node, gradients: &[Option<Tensor>]) -> Result<Option<Vec<Option<Tensor>>>> {
        let _ = (node, gradients);
        Ok(None)
    }
}
