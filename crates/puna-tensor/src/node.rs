//! What is recorded for autograd. The rules that walk it back live in `puna-autograd`.

use std::cell::Cell;
use std::sync::Arc;

use crate::{DType, Device, Error, Kind, Op, Result, Shape, Tensor, TensorId};

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

/// Whether ops on tracked tensors are recorded on this thread.
pub fn is_recording() -> bool {
    RECORDING.get()
}

/// Runs `f` without recording: results are not tracked, and parameters may be changed in place.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(false));
    f()
}

/// The record of one op: the op that was asked for (never what ran in its place), its inputs, and what it saved.
///
/// A tensor knows the node whose result it is. A node keeps the values of those inputs and outputs only that the op's
/// derivative reads: see [`Op::keeps_input`] and [`Op::keeps_output`].
#[derive(Debug)]
pub struct Node {
    op: Op,
    inputs: Vec<Input>,
    outputs: Vec<Value>,
}

/// An input of a recorded op.
#[derive(Debug)]
pub struct Input {
    id: TensorId,
    tracked: bool,
    source: Option<(Arc<Node>, usize)>,
    value: Value,
}

/// A shape and dtype always, the tensor only where the derivative reads it.
#[derive(Debug)]
struct Value {
    shape: Shape,
    dtype: DType,
    device: Device,
    kept: Option<(Tensor, u64)>,
}

impl Value {
    fn new(tensor: &Tensor, keep: bool) -> Self {
        let kept = keep.then(|| (tensor.detach(), tensor.buffer().version()));
        Self { shape: *tensor.shape(), dtype: tensor.dtype(), device: tensor.device().clone(), kept }
    }

    fn get(&self, op: &Op, what: &str, i: usize) -> Result<&Tensor> {
        let (tensor, version) = self.kept.as_ref().ok_or_else(|| {
            Error::new(Kind::Argument, op.name(), format!("{what} {i} was not kept for the derivative; the op does not name it"))
        })?;
        if tensor.buffer().version() != *version {
            let message = format!("{what} {i} {} was changed in place after it was saved for the derivative", self.shape);
            return Err(Error::new(Kind::Version, op.name(), message));
        }
        Ok(tensor)
    }
}

impl Node {
    pub(crate) fn new(op: Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Arc<Self> {
        let kept_inputs = inputs.iter().enumerate().map(|(i, t)| Input {
            id: t.id(),
            tracked: t.is_tracked(),
            source: t.source().map(|(node, output)| (node.clone(), output)),
            value: Value::new(t, op.keeps_input(i, inputs)),
        });
        let kept_inputs = kept_inputs.collect();
        let outputs = outputs.iter().enumerate().map(|(i, t)| Value::new(t, op.keeps_output(i))).collect();
        Arc::new(Self { op, inputs: kept_inputs, outputs })
    }

    /// The op that was asked for.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Its inputs.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The value of input `i`, detached. Errors: not kept, or changed since.
    pub fn input(&self, i: usize) -> Result<&Tensor> {
        self.inputs[i].value.get(&self.op, "input", i)
    }

    /// The value of output `i`, detached: results and, behind them, what was saved. Errors: not kept, or changed since.
    pub fn output(&self, i: usize) -> Result<&Tensor> {
        self.outputs[i].get(&self.op, "output", i)
    }

    /// How many outputs there are, saved ones included.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The shape and dtype of output `i`.
    pub fn output_spec(&self, i: usize) -> (Shape, DType) {
        (self.outputs[i].shape, self.outputs[i].dtype)
    }
}

impl Input {
    /// The tensor's identity: what gradients are found by.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Whether a gradient flows to it.
    pub fn is_tracked(&self) -> bool {
        self.tracked
    }

    /// The node whose result it is, and which result.
    pub fn source(&self) -> Option<(&Arc<Node>, usize)> {
        self.source.as_ref().map(|(node, output)| (node, *output))
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.value.shape
    }

    /// Its dtype.
    pub fn dtype(&self) -> DType {
        self.value.dtype
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.value.device
    }
}

impl Drop for Node {
    /// A graph is a chain of a length that the stack does not bound, so it is taken apart by a loop.
    fn drop(&mut self) {
        let mut sources: Vec<_> = self.inputs.iter_mut().filter_map(|input| input.source.take()).collect();
        while let Some((source, _)) = sources.pop() {
            if let Some(mut node) = Arc::into_inner(source) {
                sources.extend(node.inputs.iter_mut().filter_map(|input| input.source.take()));
            }
        }
    }
}
