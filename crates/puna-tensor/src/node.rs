//! What is recorded for autograd. The rules that walk it back live in `puna-autograd`.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    recording(false, f)
}

/// Runs `f` recording, inside a [`no_grad`]: what computes a part of a graph again does.
pub fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    recording(true, f)
}

fn recording<T>(whether: bool, f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(whether));
    f()
}

/// The record of one op: the op that was asked for (never what ran in its place), its inputs, and what it saved.
///
/// A tensor knows the node whose result it is. A node keeps the values of those inputs and outputs only that the op's
/// derivative reads: see [`Op::keeps_input`] and [`Op::keeps_output`].
#[derive(Debug)]
pub struct Node {
    number: u64,
    op: Op,
    inputs: Vec<Input>,
    outputs: Vec<(Shape, DType)>,
    /// `None` once they have been [released](Self::release).
    saved: Mutex<Option<Saved>>,
}

/// An input of a recorded op.
#[derive(Debug)]
pub struct Input {
    id: TensorId,
    tracked: bool,
    source: Option<(Arc<Node>, usize)>,
    shape: Shape,
    dtype: DType,
    device: Device,
}

/// The values that the derivative reads, each with the version of its buffer.
#[derive(Debug)]
struct Saved {
    inputs: Vec<Option<(Tensor, u64)>>,
    outputs: Vec<Option<(Tensor, u64)>>,
}

impl Node {
    pub(crate) fn new(op: Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let keep = |keep: bool, tensor: &Tensor| keep.then(|| (tensor.detach(), tensor.buffer().version()));
        let saved = Saved {
            inputs: inputs.iter().enumerate().map(|(i, t)| keep(op.keeps_input(i, inputs), t)).collect(),
            outputs: outputs.iter().enumerate().map(|(i, t)| keep(op.keeps_output(i), t)).collect(),
        };
        let inputs = inputs.iter().map(|t| Input {
            id: t.id(),
            tracked: t.is_tracked(),
            source: t.source().map(|(node, output)| (node.clone(), output)),
            shape: *t.shape(),
            dtype: t.dtype(),
            device: t.device().clone(),
        });
        let inputs = inputs.collect();
        let outputs = outputs.iter().map(|t| (*t.shape(), t.dtype())).collect();
        Arc::new(Self { number: NEXT.fetch_add(1, Ordering::Relaxed), op, inputs, outputs, saved: Mutex::new(Some(saved)) })
    }

    /// A number that grows with every record: a node's is larger than those of the nodes that its inputs came from.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The op that was asked for.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Its inputs.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The value of input `i`, detached. Errors: not kept, changed since, or released.
    pub fn input(&self, i: usize) -> Result<Tensor> {
        self.saved(|saved| &saved.inputs, "input", i)
    }

    /// The value of input `i` where the derivative reads it, `None` where it was not kept because it does not. Errors: changed since, or released.
    pub fn kept_input(&self, i: usize) -> Result<Option<Tensor>> {
        let unread = self.saved.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|s| s.inputs[i].is_none());
        if unread { Ok(None) } else { self.input(i).map(Some) }
    }

    /// The value of output `i`, detached: results and, behind them, what was saved. Errors: not kept, changed since, or released.
    pub fn output(&self, i: usize) -> Result<Tensor> {
        self.saved(|saved| &saved.outputs, "output", i)
    }

    fn saved(&self, of: impl Fn(&Saved) -> &Vec<Option<(Tensor, u64)>>, what: &str, i: usize) -> Result<Tensor> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = saved.as_ref() else {
            let message = "what was saved for the derivative has been let go by a backward pass; run the forward pass again";
            return Err(Error::new(Kind::Argument, self.op.name(), message));
        };
        let Some((tensor, version)) = &of(saved)[i] else {
            let message = format!("{what} {i} was not kept for the derivative; the op does not name it");
            return Err(Error::new(Kind::Argument, self.op.name(), message));
        };
        if tensor.buffer().version() != *version {
            let message = format!("{what} {i} {} was changed in place after it was saved for the derivative", tensor.shape());
            return Err(Error::new(Kind::Version, self.op.name(), message));
        }
        Ok(tensor.clone())
    }

    /// Lets go of the values that were saved: what a backward pass does with a node that it has passed.
    pub fn release(&self) {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(saved);
    }

    /// How many outputs there are, saved ones included.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The shape and dtype of output `i`.
    pub fn output_spec(&self, i: usize) -> (Shape, DType) {
        self.outputs[i]
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
        &self.shape
    }

    /// Its dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
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
