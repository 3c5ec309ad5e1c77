use std::ops::Range;
use std::sync::Arc;

use crate::{Buffer, HostBytes, Op, Result, Tensor};

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

    /// Runs `f`, which enqueues the ops of one step. The CPU keeps its threads awake for its length, CUDA captures or replays a
    /// graph, wgpu submits once. Steps with equal keys enqueue the same ops on the same buffers.
    fn step(&self, key: StepKey, f: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _ = key;
        f()
    }

    /// Copies a range of bytes to the host, after all that was enqueued before.
    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()>;

    /// Computes `op`, reading `inputs`, into `outputs`, which are new and contiguous (in-place ops change the inputs that
    /// [`Op::changes`] names). `Unsupported` follows from the op, dtypes and layouts alone, never from values.
    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution>;

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

/// What tells the steps of a program apart that a back end may record and replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepKey {
    /// Which program: one number per model and purpose.
    pub program: u64,
    /// The rows of the step, rounded up to the bucket that it runs in.
    pub tokens: usize,
    /// The sequences of the step.
    pub sequences: usize,
}
