use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use puna_tensor::{Arrival, Backend, Buffer, DType, Error, Execution, Kind, Op, Recorder, Replay, Result, Shape, Tensor};

use crate::driver::{Address, Driver, Kernel, Unit};
use crate::launch::{Arguments, Grid};
use crate::memory::{Arena, Memory, MemoryUse, Pool};
use crate::ops;
use crate::queue::Queue;
use crate::view::View;

/// A card as a back end: a driver, memory, and the kernels that were asked for.
pub(crate) struct Cuda {
    pub(crate) queue: Arc<Queue>,
    pool: Arc<Pool>,
    /// What is being recorded.
    noting: Mutex<Option<Noting>>,
    kernels: RwLock<HashMap<(Unit, &'static str), Arc<Kernel>>>,
}

/// What a step that is being recorded needs for as long as its recording lives.
struct Noting {
    arena: Arc<Arena>,
    /// What its ops read or change that is not the arena's.
    buffers: Vec<Buffer>,
    /// The kernels it asks for, where that is all that is wanted of it.
    kernels: Option<HashSet<(Unit, &'static str)>>,
}

/// A step that was recorded. It is let go from the top: what runs before what it runs on.
struct Recorded {
    graph: Box<dyn Replay>,
    queue: Arc<Queue>,
    _needs: Noting,
}

impl Replay for Recorded {
    fn replay(&self) -> Result<()> {
        self.queue.replay(&*self.graph)
    }
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
    let driver = Box::new(crate::driver::cuda::Cuda::new(index, &name)?);
    Ok(puna_tensor::Device::new(Cuda::new(driver, &name, true, options.memory_limit)))
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
    let driver = Box::new(crate::driver::emulator::Emulator::new(options, edits)?);
    Ok(puna_tensor::Device::new(Cuda::new(driver, "cuda-emulator", options.pooled, None)))
}

impl Cuda {
    pub(crate) fn new(driver: Box<dyn Driver>, name: &str, pooled: bool, limit: Option<usize>) -> Self {
        let queue = Queue::new(driver, name);
        let pool = Pool::new(queue.clone(), pooled, limit);
        Self { queue, pool, noting: Mutex::default(), kernels: RwLock::default() }
    }

    fn noting(&self) -> std::sync::MutexGuard<'_, Option<Noting>> {
        self.noting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of the pool, or of the arena of the step that this thread records.
    fn memory(&self, bytes: usize) -> Result<Memory> {
        if self.queue.is_recording()
            && let Some(Noting { arena, .. }) = &*self.noting()
        {
            return arena.alloc(bytes);
        }
        self.pool.alloc(bytes)
    }

    /// Enqueues a kernel; nothing where the grid is empty.
    pub(crate) fn launch(&self, unit: &Unit, entry: &'static str, grid: Grid, arguments: &Arguments) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        if self.only_noted(|kernels| {
            kernels.insert((*unit, entry));
        }) {
            return Ok(());
        }
        let kernel = self.kernel(unit, entry)?;
        if let Some(parameters) = &kernel.parameters {
            let sizes = arguments.iter().map(<[u8]>::len);
            assert!(sizes.eq(parameters.iter().copied()), "{} of {unit:?} is given what it takes", kernel.entry);
        }
        self.queue.launch(&kernel, &grid, arguments)
    }

    /// Enqueues a copy within the device.
    pub(crate) fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        if self.only_noted(|_| ()) { Ok(()) } else { self.queue.copy(to, from, bytes) }
    }

    /// Enqueues a copy from the host.
    pub(crate) fn bring(&self, to: Address, bytes: &[u8]) -> Result<()> {
        if self.only_noted(|_| ()) { Ok(()) } else { self.queue.upload(to, bytes) }
    }

    /// Whether this thread is going through a step only to see what it asks for; `note` is told where.
    fn only_noted(&self, note: impl FnOnce(&mut HashSet<(Unit, &'static str)>)) -> bool {
        self.queue.is_recording()
            && match &mut *self.noting() {
                Some(Noting { kernels: Some(kernels), .. }) => {
                    note(kernels);
                    true
                }
                _ => false,
            }
    }

    /// Goes through a step with memory of its own.
    fn note(&self, kernels: Option<HashSet<(Unit, &'static str)>>, f: &mut dyn FnMut() -> Result<()>) -> Result<Noting> {
        // What a step that failed has left goes here.
        *self.noting() = Some(Noting { arena: Arena::new(&self.pool), buffers: Vec::new(), kernels });
        let ran = f();
        let noted = self.noting().take().expect("put there above");
        ran.map(|()| noted)
    }

    fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Arc<Kernel>> {
        let key = (*unit, entry);
        if let Some(kernel) = self.kernels.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(kernel.clone());
        }
        // Two threads may both find it missing: what the second loads is the same.
        let kernel = Arc::new(self.queue.kernel(unit, entry)?);
        self.kernels.write().unwrap_or_else(PoisonError::into_inner).insert(key, kernel.clone());
        Ok(kernel)
    }

    /// Memory for what an op needs on the way.
    pub(crate) fn scratch(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Scratch> {
        let shape = shape.into();
        let bytes = shape.checked_elements().and_then(|n| dtype.bytes_for(n));
        let bytes = bytes.ok_or_else(|| {
            Error::new(Kind::Memory, self.queue.name(), format!("{shape} {dtype} does not fit the address space"))
        })?;
        let memory = self.memory(bytes)?;
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
        self.queue.name()
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(bytes, self.memory(bytes)?))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let memory = self.memory(bytes.len())?;
        self.bring(memory.address(), bytes)?;
        Ok(Buffer::new(bytes.len(), memory))
    }

    fn pack(&self, weight: &Tensor) -> Result<Option<Buffer>> {
        ops::copy::pack(self, weight)
    }

    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        self.queue.download(Memory::of(from).address() + range.start as u64, into)
    }

    fn fetch(&self, from: &Buffer, range: Range<usize>) -> Result<Box<dyn Arrival>> {
        self.queue.fetch(Memory::of(from).address() + range.start as u64, range.len())
    }

    fn write(&self, to: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        self.bring(Memory::of(to).address() + at as u64, bytes)
    }

    fn prepare(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let turn = self.queue.take_turn()?;
        let noted = self.note(Some(HashSet::new()), f)?;
        drop(turn);
        let kernels = Mutex::new(Vec::from_iter(noted.kernels.into_iter().flatten()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = || kernels.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || std::iter::from_fn(next).try_for_each(|(unit, entry)| self.kernel(&unit, entry).map(drop));
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            others.into_iter().fold(work(), |all, other| all.and(other.join().expect("loading a kernel does not panic")))
        })
    }

    fn recorder(&self) -> Option<&dyn Recorder> {
        Some(self)
    }

    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        if self.queue.is_recording()
            && let Some(Noting { arena, buffers, .. }) = &mut *self.noting()
        {
            let others = inputs.iter().map(|input| input.buffer()).filter(|buffer| !Memory::of(buffer).is_of(arena));
            buffers.extend(others.cloned());
        }
        ops::execute(self, op, inputs, outputs)
    }

    fn synchronize(&self) -> Result<()> {
        self.queue.synchronize()
    }
}

impl Recorder for Cuda {
    fn record(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Box<dyn Replay>> {
        let mut turn = self.queue.take_turn()?;
        turn.begin_graph()?;
        let needs = self.note(None, f)?;
        Ok(Box::new(Recorded { graph: turn.end_graph()?, queue: self.queue.clone(), _needs: needs }))
    }
}
