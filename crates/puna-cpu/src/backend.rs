use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use puna_tensor::{Backend, Buffer, Device, Error, Execution, HostBytes, Kind, Op, Result, Tensor};

use crate::memory::{FreeList, Memory};
use crate::ops;
use crate::pool::Pool;

/// How a CPU device is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many threads compute, the calling one included; by default as many as the system offers this process.
    /// Results do not depend on it.
    pub threads: Option<NonZeroUsize>,
}

/// A CPU device. Each call makes one of its own, with threads of its own.
///
/// Errors: the system gives no threads.
pub fn device(options: Options) -> Result<Device> {
    let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = options.threads.map_or_else(available, NonZeroUsize::get);
    let pool = Pool::new(threads)
        .map_err(|e| Error::new(Kind::Backend, "cpu", format!("{threads} threads could not be started")).with_source(e))?;
    Ok(Device::new(Cpu { pool, free: Arc::default() }))
}

/// The CPU as a back end: threads and memory.
pub(crate) struct Cpu {
    pub(crate) pool: Pool,
    free: Arc<FreeList>,
}

impl Backend for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Memory::alloc(bytes, &self.free)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let buffer = self.alloc(bytes.len())?;
        Memory::of(&buffer).write()?.bytes()[..bytes.len()].copy_from_slice(bytes);
        Ok(buffer)
    }

    fn adopt(&self, bytes: Arc<dyn HostBytes>) -> Result<Buffer> {
        match Memory::lend(bytes.clone()) {
            Some(buffer) => Ok(buffer),
            None => self.upload(bytes.bytes()),
        }
    }

    fn pack(&self, weight: &Tensor) -> Result<Option<Buffer>> {
        ops::matmul::pack(self, weight)
    }

    fn step(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.pool.hold(f)
    }

    fn write(&self, to: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        Memory::of(to).write()?.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        into.copy_from_slice(&Memory::of(from).read().bytes()[range]);
        Ok(())
    }

    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        ops::execute(self, op, inputs, outputs)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}
