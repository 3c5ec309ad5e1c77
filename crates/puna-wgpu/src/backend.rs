use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use puna_tensor::{Arrival, Backend, Buffer, DType, Error, Execution, Kind, Op, Result, Shape, Tensor};

use crate::adapter::{AdapterInfo, Choice, choose};
use crate::encoder::{Encoder, Work};
use crate::faults::{Faults, at_once, one_line};
use crate::launch::{Grid, Parameters};
use crate::memory::{First, Memory, MemoryUse, Pool};
use crate::ops;
use crate::pipeline::Pipelines;
use crate::read::{Reading, Staged};
use crate::source::{Access, MOST_BINDINGS, Number, OFFSET_WORDS, Unit};
use crate::view::View;

/// An adapter as a back end: memory, compiled kernels, and what is recorded for it.
pub(crate) struct Wgpu {
    encoder: Arc<Encoder>,
    pool: Arc<Pool>,
    pipelines: Pipelines,
    faults: Faults,
    /// The most bytes of a buffer that a kernel sees at once.
    window: usize,
    /// Where such a part may begin.
    alignment: usize,
    /// What stands where a kernel is given nothing, to read or to write.
    nothing: [wgpu::Buffer; 2],
    lanes: Option<u32>,
}

/// The bytes that a binding of nothing shows.
const NOTHING: usize = 256;

/// How a device is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The most memory that is taken from the adapter, in bytes; by default all there is.
    pub memory_limit: Option<usize>,
    /// Which limits of the adapter are used.
    pub limits: Limits,
    /// The most bytes of a buffer that a kernel sees at once, where that is less than the limits allow, 4096 at least: to try what an adapter would
    /// do that shows no more. What is larger is worked on in parts.
    pub binding_limit: Option<usize>,
}

/// How large buffers and workgroups may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limits {
    /// As large as the adapter allows.
    #[default]
    Adapter,
    /// As large as every WebGPU device allows, for tests: 128 MiB a binding, 8 buffers a kernel, 16 KiB shared by a workgroup.
    WebGpu,
}

/// The adapter that is asked for, as a device. Each call makes one of its own.
///
/// Errors: no adapter, none like it, one that refuses; in a browser, where nothing waits: use [`request`].
pub fn device(choice: &Choice, options: Options) -> Result<puna_tensor::Device> {
    at_once(request(choice, options)).unwrap_or_else(|| {
        Err(Error::new(Kind::Device, "wgpu", "an adapter is not there at once; puna_wgpu::request waits for it"))
    })
}

/// As [`device`], without blocking.
///
/// Errors: no adapter, none like it, one that refuses.
pub async fn request(choice: &Choice, options: Options) -> Result<puna_tensor::Device> {
    let (index, adapter) = choose(choice).await?;
    Ok(puna_tensor::Device::new(Wgpu::new(index, &adapter, options).await?))
}

/// How much memory a wgpu device holds; `None` of another.
pub fn memory_use(device: &puna_tensor::Device) -> Option<MemoryUse> {
    of_pool(device, Pool::used)
}

/// The adapter of a wgpu device, and through what it is driven: `llvmpipe (vulkan)`; `None` of another.
pub fn adapter(device: &puna_tensor::Device) -> Option<String> {
    of_pool(device, |pool| pool.encoder().faults().adapter().to_owned())
}

/// What the pool of a wgpu device says; `None` of another.
fn of_pool<T>(device: &puna_tensor::Device, say: impl FnOnce(&Pool) -> T) -> Option<T> {
    let buffer = device.backend().alloc(0).ok()?;
    Some(say(buffer.memory::<Memory>()?.pool()))
}

/// What a wgpu device was given to do; `None` of another.
pub fn work(device: &puna_tensor::Device) -> Option<Work> {
    of_pool(device, |pool| pool.encoder().work())
}

/// On a processor shared memory is no faster than any, and a barrier much slower than on a GPU, while lanes of a subgroup are elements of a
/// register: there, where all subgroups are of one size, kernels without either are chosen.
fn lanes(adapter: &wgpu::Adapter) -> Option<u32> {
    let info = adapter.get_info();
    let known = adapter.features().contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size == info.subgroup_max_size;
    let lanes = info.subgroup_min_size;
    (info.device_type == wgpu::DeviceType::Cpu && known && lanes.is_power_of_two() && (4..=64).contains(&lanes)).then_some(lanes)
}

impl Wgpu {
    async fn new(index: usize, adapter: &wgpu::Adapter, options: Options) -> Result<Self> {
        let name = format!("wgpu:{index}");
        let AdapterInfo { name: adapter_name, through, .. } = AdapterInfo::of(adapter);
        let adapter_name = format!("{adapter_name} ({through})");
        let required_limits = match options.limits {
            Limits::Adapter => adapter.limits(),
            Limits::WebGpu => wgpu::Limits::default(),
        };
        let lanes = match options.limits {
            Limits::Adapter => lanes(adapter),
            Limits::WebGpu => None,
        };
        let required_features = if lanes.is_some() { wgpu::Features::SUBGROUP } else { wgpu::Features::empty() };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("puna"),
            required_features,
            required_limits,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| {
            let message = format!("{adapter_name} gives no device: {}", one_line(&error.to_string()));
            Error::new(Kind::Device, &*name, message)
        })?;
        let faults = Faults::new(name, adapter_name);
        faults.listen(&device);
        let encoder = Arc::new(Encoder::new(&device, &queue, &faults));
        let pool = Pool::new(&device, &encoder, &faults, options.memory_limit);
        let pipelines = Pipelines::new(&device, &faults);
        let limits = device.limits();
        // A part of its own for each binding: no two that are written may overlap.
        let nothing = [(); 2].map(|()| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("nothing"),
                size: (MOST_BINDINGS * NOTHING) as u64,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        });
        faults.check()?;
        Ok(Self {
            encoder,
            pool,
            pipelines,
            faults,
            window: (limits.max_storage_buffer_binding_size as usize)
                .min(options.binding_limit.map_or(usize::MAX, |n| n.max(4096)))
                & !3,
            // A multiple of every element's bytes too.
            alignment: (limits.min_storage_buffer_offset_alignment as usize).max(256),
            nothing,
            lanes,
        })
    }

    /// Of how many lanes each subgroup is, where kernels are to work by handing around what their lanes have read.
    pub(crate) fn lanes(&self) -> Option<u32> {
        self.lanes
    }

    pub(crate) fn name_of(&self) -> &str {
        self.faults.name()
    }

    /// The most bytes of a tensor that a kernel sees at once: what is larger is worked on in parts.
    pub(crate) fn window(&self) -> usize {
        self.window.saturating_sub(self.alignment)
    }

    /// Whether a kernel sees all of a tensor at once.
    pub(crate) fn shows(&self, view: &View) -> bool {
        view.buffer.size() as usize <= self.window || view.extent().len() <= self.window()
    }

    /// Enqueues a kernel; nothing where the grid is empty. `views`: its bindings, in its order; what it does without is `None`.
    ///
    /// Errors: a view larger than a binding may be; the driver refuses the kernel.
    pub(crate) fn launch(
        &self,
        unit: &Unit,
        entry: &'static str,
        grid: Grid,
        views: &[Option<&View>],
        parameters: &Parameters,
    ) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        let pipeline = self.pipelines.get(unit, entry)?;
        assert_eq!(parameters.words().len(), pipeline.words, "{entry} of {} is given what it takes", unit.source);
        assert_eq!(views.len(), pipeline.accesses.len(), "{entry} of {} is given the buffers it takes", unit.source);
        let mut words = vec![0; OFFSET_WORDS];
        words.extend_from_slice(parameters.words());
        let mut buffers = Vec::with_capacity(views.len());
        for (place, ((view, access), offset)) in views.iter().zip(&pipeline.accesses).zip(&mut words).enumerate() {
            buffers.push(match view {
                Some(view) => self.binding(view, entry, offset)?,
                None => wgpu::BufferBinding {
                    buffer: &self.nothing[usize::from(*access == Access::Write)],
                    offset: (place * NOTHING) as u64,
                    size: wgpu::BufferSize::new(NOTHING as u64),
                },
            });
        }
        self.encoder.launch(&pipeline, &buffers, &words, grid)
    }

    /// The part of a view's buffer that a kernel sees, and where the view begins in it: in elements, of blocks in bytes.
    fn binding<'a>(&self, view: &'a View, entry: &str, offset: &mut u32) -> Result<wgpu::BufferBinding<'a>> {
        let unit_bytes = if view.dtype.block().is_some() { 1 } else { view.dtype.unit_bytes() };
        let extent = view.extent();
        let size = view.buffer.size() as usize;
        if size <= self.window {
            *offset = (extent.start / unit_bytes) as u32;
            return Ok(wgpu::BufferBinding { buffer: &view.buffer, offset: 0, size: None });
        }
        let begin = extent.start.min(size - 4) / self.alignment * self.alignment;
        let end = extent.end.max(begin + 4).next_multiple_of(4).min(size);
        if end - begin > self.window {
            let message = format!(
                "{} {} lies in {} bytes, and a kernel sees {} at once; {entry} has no way to work on it in parts",
                view.shape(),
                view.dtype,
                end - begin,
                self.window
            );
            return Err(self.faults.error(Kind::Memory, message));
        }
        *offset = ((extent.start - begin) / unit_bytes) as u32;
        let size = wgpu::BufferSize::new((end - begin) as u64);
        Ok(wgpu::BufferBinding { buffer: &view.buffer, offset: begin as u64, size })
    }

    /// Whether a kernel may write words of a result here: whether it begins at a whole one.
    pub(crate) fn begins_word(view: &View) -> bool {
        view.layout.offset() % Number::of(view.dtype).count() == 0
    }

    /// Enqueues a copy of bytes, a whole number of words at places of whole words.
    pub(crate) fn copy(&self, (from, from_at): (&View, usize), (to, to_at): (&View, usize), bytes: usize) {
        self.encoder.copy((&from.buffer, from_at as u64), (&to.buffer, to_at as u64), bytes as u64);
    }

    /// Memory for what an op needs on the way.
    pub(crate) fn scratch(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Scratch> {
        let shape = shape.into();
        let bytes = shape.checked_elements().and_then(|n| dtype.bytes_for(n));
        let bytes =
            bytes.ok_or_else(|| self.faults.error(Kind::Memory, format!("{shape} {dtype} does not fit the address space")))?;
        let memory = self.pool.alloc(bytes, First::Enqueued)?;
        let view = View::contiguous(&memory, shape, dtype);
        Ok(Scratch { view, _memory: Some(memory) })
    }

    /// The bytes of a view in row-major order.
    pub(crate) fn download_view(&self, view: &View, into: &mut [u8]) -> Result<()> {
        let begin = view.extent().start;
        self.read(&view.buffer, begin..begin + into.len(), into)
    }

    /// Bytes into a view in row-major order that begins at a whole word and ends its buffer, or at one too.
    pub(crate) fn upload_view(&self, view: &View, bytes: &[u8]) -> Result<()> {
        // What is recorded may still read what lay there.
        self.encoder.flush()?;
        self.encoder.write(&view.buffer, view.extent().start as u64, bytes)
    }

    fn read(&self, buffer: &wgpu::Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        arrive(&self.encoder, self.encoder.read(buffer, range)?, into)
    }
}

/// Waits for bytes that are read.
fn arrive(encoder: &Encoder, reading: Reading, into: &mut [u8]) -> Result<()> {
    if !reading.has_arrived() {
        encoder.wait()?;
    }
    match reading.told() {
        Some(Ok(())) => {
            reading.take(into);
            Ok(())
        }
        Some(Err(message)) => Err(why(encoder, message)),
        None => Err(encoder.faults().error(Kind::Backend, "the driver has waited, and nothing can be read")),
    }
}

/// Why bytes do not arrive: what is wrong with the device where something is, else what was said of them.
fn why(encoder: &Encoder, message: String) -> Error {
    encoder.listen();
    encoder.faults().check().err().unwrap_or_else(|| encoder.faults().error(Kind::Backend, message))
}

/// Bytes that are copied with the next batch, which is submitted when somebody waits for them.
struct Fetched {
    encoder: Arc<Encoder>,
    staged: Staged,
    /// Once somebody has asked for them.
    reading: Option<Reading>,
    bytes: usize,
}

impl Fetched {
    /// Taken out, begun where it was not.
    fn take_reading(&mut self) -> Result<Reading> {
        if let Some(reading) = self.reading.take() {
            return Ok(reading);
        }
        self.encoder.flush_number(self.staged.number)?;
        Ok(self.staged.read())
    }
}

impl Arrival for Fetched {
    fn wait(mut self: Box<Self>) -> Result<Vec<u8>> {
        let reading = self.take_reading()?;
        let mut bytes = vec![0; self.bytes];
        arrive(&self.encoder, reading, &mut bytes)?;
        Ok(bytes)
    }

    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let reading = self.take_reading()?;
        self.encoder.listen();
        let told = self.reading.insert(reading).poll_arrived(context);
        if told.is_pending() {
            self.encoder.faults().check()?;
            if !cfg!(target_arch = "wasm32") {
                // Nobody tells before somebody listens again.
                context.waker().wake_by_ref();
            }
        }
        told.map_err(|message| why(&self.encoder, message))
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
    /// Whether the memory is another's.
    pub(crate) fn is_lent(&self) -> bool {
        self._memory.is_none()
    }

    /// The same memory, seen otherwise.
    pub(crate) fn seen(mut self, see: impl FnOnce(&View) -> View) -> Self {
        self.view = see(&self.view);
        self
    }
}

impl Backend for Wgpu {
    fn name(&self) -> &str {
        self.faults.name()
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::new(bytes, self.pool.alloc(bytes, First::Enqueued)?))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Buffer> {
        let memory = self.pool.alloc(bytes.len(), First::Host)?;
        self.encoder.write(memory.buffer(), 0, bytes)?;
        Ok(Buffer::new(bytes.len(), memory))
    }

    fn write(&self, to: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // By way of memory of its own, since what is recorded may still read what lies there.
        let memory = self.pool.alloc(bytes.len(), First::Host)?;
        self.encoder.write(memory.buffer(), 0, bytes)?;
        if at % 4 == 0 && bytes.len() % 4 == 0 {
            self.encoder.copy((memory.buffer(), 0), (Memory::of(to).buffer(), at as u64), bytes.len() as u64);
            return Ok(());
        }
        let from = View::contiguous(&memory, bytes.len(), DType::U8);
        let to = View::contiguous(Memory::of(to), to.bytes(), DType::U8).part(0, at, bytes.len());
        ops::copy::assign(self, &from, &to)
    }

    fn fetch(&self, from: &Buffer, range: Range<usize>) -> Result<Box<dyn Arrival>> {
        let bytes = range.len();
        let staged = self.encoder.stage(Memory::of(from).buffer(), range)?;
        Ok(Box::new(Fetched { encoder: self.encoder.clone(), staged, reading: None, bytes }))
    }

    fn download(&self, from: &Buffer, range: Range<usize>, into: &mut [u8]) -> Result<()> {
        self.read(Memory::of(from).buffer(), range, into)
    }

    fn execute(&self, op: &Op, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<Execution> {
        ops::execute(self, op, inputs, outputs)
    }

    fn computes_in(&self, dtype: DType) -> bool {
        dtype != DType::F64
    }

    fn synchronize(&self) -> Result<()> {
        self.encoder.flush()?;
        self.encoder.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of its own; `None`, said aloud, where there is no adapter and `PUNA_REQUIRE_WGPU` does not ask for one.
    fn backend() -> Option<Wgpu> {
        match at_once(choose(&Choice::Any)).expect("adapters are there at once") {
            Ok((index, adapter)) => Some(at_once(Wgpu::new(index, &adapter, Options::default())).expect("at once").unwrap()),
            Err(error) if std::env::var_os("PUNA_REQUIRE_WGPU").is_none() => {
                eprintln!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_kernel_that_is_refused_is_named_with_the_adapter_and_others_work() {
        let Some(wgpu) = backend() else { return };
        let adapter = wgpu.faults.adapter().to_owned();
        // What every adapter refuses: more invocations than it has, and what is no WGSL.
        for text in ["@compute @workgroup_size(65535) fn broken() {}", "fn broken( {"] {
            let error = wgpu.pipelines.build_text(text, "broken.wgsl", "broken").map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Backend, "{error}");
            for word in [&*adapter, "refuses the kernel broken of broken.wgsl: "] {
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        let device = puna_tensor::Device::new(wgpu);
        let x = Tensor::full(3.0, 4, DType::F32, &device).unwrap();
        assert_eq!(x.mul(&x).unwrap().to_vec::<f32>().unwrap(), [9.0; 4]);
    }

    #[test]
    fn a_lost_device_is_an_error_for_all_that_comes_after() {
        let Some(wgpu) = backend() else { return };
        let (lost, adapter) = (wgpu.encoder.device().clone(), wgpu.faults.adapter().to_owned());
        let device = puna_tensor::Device::new(wgpu);
        let x = Tensor::full(3.0, 4, DType::F32, &device).unwrap();
        let fetched = x.fetch::<f32>().unwrap();
        lost.destroy();
        let upload = || Tensor::from_slice(&[1.0f32; 64], 64, &device);
        let results = [
            fetched.wait().map(drop),
            x.to_vec::<f32>().map(drop),
            device.synchronize(),
            upload().map(drop),
            x.exp().and_then(|y| y.to_vec::<f32>()).map(drop),
            Tensor::zeros([1000, 1000], DType::F32, &device).and_then(|x| x.to_vec::<f32>()).map(drop),
        ];
        for (i, result) in results.into_iter().enumerate() {
            let error = result.expect_err(&i.to_string());
            assert_eq!(error.kind(), Kind::Backend, "{i}: {error}");
            for word in [&*adapter, "lost"] {
                assert!(error.to_string().contains(word), "{i}: {error}");
            }
        }
    }
}
