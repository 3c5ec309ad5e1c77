use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use puna_tensor::{Backend, Buffer, DType, Error, Execution, Kind, Op, Result, Shape, Tensor};

use crate::driver::{Driver, Kernel, Unit};
use crate::launch::{Arguments, Grid};
use crate::memory::{Memory, MemoryUse, Pool};
use crate::ops;
use crate::view::View;

/// A card as a back end: a driver, memory, and the kernels that were asked for.
pub(crate) struct Cuda {
    pub(crate) driver: Arc<dyn Driver>,
    name: String,
    pool: Arc<Pool>,
    kernels: RwLock<HashMap<(Unit, &'static str), Arc<Kernel>>>,
}

/// How a card is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The most memory that is taken from the card, in bytes; by default all there is.
    pub memory_limit: Option<usize>,
}

/// Card number `index`. Each call makes a device of its own.
///
/// Errors: no driver, one too old, no card of this number. Kernels are compiled when they are first needed: without the run-time compiler
/// (NVRTC) an op's error says where it was looked for.
pub fn device(index: usize, options: Options) -> Result<puna_tensor::Device> {
    let name = format!("cuda:{index}");
    let driver = Arc::new(crate::driver::cuda::Cuda::new(index, &name)?);
    Ok(puna_tensor::Device::new(Cuda::new(driver, name, true, options.memory_limit)))
}

/// How much memory a CUDA device holds; `None` of another.
pub fn memory_use(device: &puna_tensor::Device) -> Option<MemoryUse> {
    let buffer = device.backend().alloc(0).ok()?;
    Some(buffer.memory::<Memory>()?.pool().used())
}

/// The kernels on the processor: a device for tests on machines without a card. Slow, and meant to find mistakes.
///
/// Errors: there is no C++ compiler.
#[cfg(feature = "emulator")]
pub fn emulated(options: crate::EmulatorOptions) -> Result<puna_tensor::Device> {
    emulated_with(options, Vec::new())
}

/// As [`emulated`], with changes of the kernels: what a test of the tests needs.
///
/// Errors: there is no C++ compiler. An op whose kernel no longer compiles fails with what the compiler says.
#[cfg(feature = "emulator")]
pub fn emulated_with(options: crate::EmulatorOptions, edits: Vec<crate::Edit>) -> Result<puna_tensor::Device> {
    let driver = Arc::new(crate::driver::emulator::Emulator::new(options, edits)?);
    Ok(puna_tensor::Device::new(Cuda::new(driver, "cuda-emulator".into(), false, None)))
}

impl Cuda {
    pub(crate) fn new(driver: Arc<dyn Driver>, name: String, pooled: bool, limit: Option<usize>) -> Self {
        let pool = Pool::new(driver.clone(), &name, pooled, limit);
        Self { driver, name, pool, kernels: RwLock::default() }
    }

    /// Enqueues a kernel; nothing where the grid is empty.
    pub(crate) fn launch(&self, unit: &Unit, entry: &'static str, grid: Grid, arguments: &Arguments) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        let kernel = self.kernel(unit, entry)?;
        if let Some(parameters) = &kernel.parameters {
            let sizes = arguments.iter().map(<[u8]>::len);
            assert!(sizes.eq(parameters.iter().copied()), "{} of {unit:?} is given what it takes", kernel.entry);
        }
        self.driver.launch(&kernel, &grid, arguments)
    }

    fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Arc<Kernel>> {
        let key = (*unit, entry);
        if let Some(kernel) = self.kernels.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(kernel.clone());
        }
        // Two threads may both find it missing: what the second loads is the same.
        let kernel = Arc::new(self.driver.kernel(unit, entry)?);
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Memory for what an op needs on the way.
    pub(crate) fn scratch(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Scratch> {
        let shape = shape.into();
        let bytes = shape.checked_elements().and_then(|n| dtype.bytes_for(n));
        let bytes = bytes
            .ok_or_else(|| Error::new(Kind::Memory, &*self.name, format!("{shape} {dtype} does not fit the address space")))?;
        let memory = self.pool.alloc(bytes)?;
        let view = View::contiguous(memory.address(), shape, dtype);
        Ok(Scratch { view, _memory: Some(memory) })
    }
}

/// A view, and the memory behind it where it is an op's own.
pub(crate) struct Scratch {
    view: View,
    _memory: Option<Memory>,
}

impl From<View> for Scratch {
    fn from(view: View) -> Self {
        Self { view, _memory: None }
    }
}

impl std::ops::Deref for Scratch {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Scratch {
    /// The same memory, seen otherwise.
    pub(crate) fn seen(mut self, see: impl FnOnce(&View) -> View) -> Self {
        self.view = see(&self.view);
        self
    }
}

impl Backend for Cuda {
    fn name(&self) -> &str {
        &self.name
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(bytes, self.pool.alloc(bytes)?))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let memory = self.pool.alloc(bytes.len())?;
        self.driver.upload(memory.address(), bytes)?;
        Ok(Buffer::new(bytes.len(), memory))
    }

    fn pack(&self, weight: &Tensor) -> Result<Option<Buffer>> {
        ops::copy::pack(self, weight)
    }

    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        self.driver.download(Memory::of(from).address() + range.start as u64, into)
    }

    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        ops::execute(self, op, inputs, outputs)
    }

    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }
}
