use std::fmt::Debug;

use super::Inferred;
use crate::{Execution, Node, Result, Tensor, TensorId};

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

    /// Whether [`vjp`](Self::vjp) reads output `i`; what it does not read, a node does not keep alive. Inputs are all kept.
    fn keeps_output(&self, i: usize) -> bool {
        let _ = i;
        true
    }

    /// The gradients of the inputs from those of the results (`None`: nothing flowed there), or `None` to differentiate the lowering.
    ///
    /// `captured` takes the gradients of tracked leaves that are no inputs: those that a closure of the op holds.
    fn vjp(
        &self,
        node: &Node,
        gradients: &[Option<Tensor>],
        captured: &mut dyn FnMut(TensorId, Tensor) -> Result<()>,
    ) -> Result<Option<Vec<Option<Tensor>>>> {
        let _ = (node, gradients, captured);
        Ok(None)
    }
}
