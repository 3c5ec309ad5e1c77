use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::{Buffer, DType, HostBytes, Op, Result, Tensor};

/// What a device must be able to do. Object-safe: anyone can write one without touching this crate.
///
/// Arguments of [`execute`](Backend::execute) have passed [`Op::infer`]: a back end checks nothing again.
pub trait Backend: Send + Sync + 'static {
    /// The device's name: `cpu`, `cuda:0`, `wgpu:0`.
    fn name(&self) -> &str;

    /// Memory of `bytes` bytes, with any content, at least 64-byte aligned.
    ///
    /// Errors: [`Kind::Memory`](crate::Kind::Memory), with the bytes asked for and free.
    fn alloc(&self, bytes: usize) -> Result<Buffer>;

    /// Memory that holds a copy of `bytes`.
    fn upload(&self, bytes: &[u8]) -> Result<Buffer>;

    /// Memory that holds `bytes`, in place where the device can (a mapped file on the CPU), else a copy.
    fn adopt(&self, bytes: Arc<dyn HostBytes>) -> Result<Buffer> {
        self.upload(bytes.bytes())
    }

    /// `weight` in the order in which the device's `linear` reads it, or `None` where that is the order it has.
    ///
    /// A packed weight is opaque: only `linear`, `linears`, `gated_mlp`, `linear_cross_entropy`, `gather_rows` and `unpack` take it.
    fn pack(&self, weight: &Tensor) -> Result<Option<Buffer>> {
        let _ = weight;
        Ok(None)
    }

    /// Runs `f`, which enqueues the ops of one step: the CPU keeps its threads awake for its length, wgpu submits once.
    fn step(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        f()
    }

    /// Runs `f` as if its ops were computed, and compiles what they need, all of it at once. A device that compiles nothing does not run it.
    fn prepare(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _ = f;
        Ok(())
    }

    /// What notes steps down and runs them again, where the device can.
    fn recorder(&self) -> Option<&dyn Recorder> {
        None
    }

    /// Overwrites the bytes from `at` on, after all that was enqueued before. `bytes` may be changed as soon as this returns.
    fn write(&self, to: &Buffer, at: usize, bytes: &[u8]) -> Result<()>;

    /// Copies a range of bytes to the host, after all that was enqueued before.
    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()>;

    /// Begins to copy a range of bytes to the host, after all that was enqueued before; what is enqueued later may change them.
    fn fetch(&self, from: &Buffer, range: Range<usize>) -> Result<Box<dyn Arrival>> {
        let mut bytes = vec![0; range.len()];
        self.download(from, range, &mut bytes)?;
        Ok(Box::new(bytes))
    }

    /// Computes `op`, reading `inputs`, into `outputs`, which are new and contiguous (in-place ops change the inputs that
    /// [`Op::changes`] names). `Unsupported` follows from the op, dtypes and layouts alone, never from values.
    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution>;

    /// Whether it computes with elements of this dtype; every device holds, moves and gives back those of all.
    fn computes_in(&self, dtype: DType) -> bool {
        let _ = dtype;
        true
    }

    /// Waits for all that was enqueued.
    fn synchronize(&self) -> Result<()>;
}

/// How a back end answered an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Execution {
    /// Computed, or enqueued.
    Done,
    /// No kernel for this op with these dtypes and layouts: its lowering runs in its place.
    Unsupported,
}

/// Bytes on their way to the host.
pub trait Arrival: Send {
    /// Waits for them, and for nothing that was enqueued later. Where a thread cannot wait (in a browser), what has not arrived is an error.
    fn wait(self: Box<Self>) -> Result<Vec<u8>>;

    /// Whether [`wait`](Self::wait) would give them at once, as a future says it: the waker is woken when it does.
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let _ = context;
        Poll::Ready(Ok(()))
    }
}

impl Arrival for Vec<u8> {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(*self)
    }
}

/// A device that notes a step down, to run it again at little cost: as a CUDA graph.
pub trait Recorder {
    /// Runs `f`, whose ops are noted and not computed. Memory that they allocate belongs to the recording; what they read or change otherwise is
    /// kept as long as the recording is. Ops of other threads wait meanwhile.
    ///
    /// Errors: what `f` says; bytes that go to or come from the host. Nothing is computed then, and the device works on.
    fn record(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Replay>>;
}

/// A step that was noted down.
pub trait Replay: Send + Sync {
    /// Enqueues its ops, on what its tensors hold by then.
    fn replay(&self) -> Result<()>;
}
