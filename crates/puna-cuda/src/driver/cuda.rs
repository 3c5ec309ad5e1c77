//! The card's own driver, found when a program starts.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUresult};
use puna_kernels::cuda::{HEADERS, kernel};
use puna_tensor::{Arrival, Error, Kind, Replay, Result};

use super::cache::{Cache, Key};
use super::nvrtc::Nvrtc;
use super::{Address, Card, Driver, Kernel, Unit, embedded};
use crate::launch::{Arguments, Grid};

/// The oldest driver: what NVRTC 12 compiles needs one of CUDA 12. The functions called here are older.
const OLDEST_DRIVER: i32 = 12000;

pub(crate) struct Cuda {
    card: Card,
    stream: Arc<Stream>,
    /// The most shared memory that a block may have, in bytes.
    shared: c_int,
    cache: Cache,
    /// Found when something must be compiled.
    compiler: OnceLock<std::result::Result<Nvrtc, String>>,
    modules: Mutex<HashMap<Unit, Arc<Slot>>>,
}

/// A stream in the card's context: all that is asked for goes through it. Graphs and copies under way keep it.
struct Stream {
    place: String,
    device: sys::CUdevice,
    context: Handle<sys::CUcontext>,
    handle: Handle<sys::CUstream>,
    /// Places on the host for bytes to arrive at that nothing uses at this moment.
    places: Mutex<Vec<Place>>,
}

/// Memory of the host that the card writes to, and the event that says when it has.
struct Place {
    memory: Handle<*mut c_void>,
    bytes: usize,
    event: Handle<sys::CUevent>,
}

/// A module, loaded by the first who asks for it, while others load others.
type Slot = OnceLock<std::result::Result<Handle<sys::CUmodule>, String>>;

/// What the driver calls a thing: a pointer that is nobody's memory.
struct Handle<T>(T);

// SAFETY: the driver's handles are not bound to a thread; its functions may be called from any, with the context made current first, which
// `Cuda::current` does.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; the driver locks what it must.
unsafe impl<T> Sync for Handle<T> {}

fn fail(place: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Backend, place, message)
}

/// A status in the driver's words.
fn words(status: CUresult) -> String {
    let text = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: `text` is a place for a pointer to a string that the driver keeps.
        unsafe {
            match get(status, &mut text) {
                CUresult::CUDA_SUCCESS if !text.is_null() => CStr::from_ptr(text).to_string_lossy().into_owned(),
                _ => format!("{status:?}"),
            }
        }
    };
    format!("{} ({})", text(sys::cuGetErrorString), text(sys::cuGetErrorName))
}

/// Calls a function of the driver; what failed and why, where it did.
macro_rules! call {
    ($place:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: the arguments are what the driver's manual asks for; see the caller's note where they are more than numbers and places.
        match unsafe { sys::$function($($argument),*) } {
            CUresult::CUDA_SUCCESS => Ok(()),
            status => Err(fail($place, format!("{}: {}", stringify!($function), words(status)))),
        }
    }};
}

impl Stream {
    /// Makes its context that of the calling thread.
    fn current(&self) -> Result<()> {
        call!(&self.place, cuCtxSetCurrent(self.context.0))
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `bytes` bytes: one that is free, or a new one.
    fn place_for(&self, bytes: usize) -> Result<Place> {
        let mut places = self.places();
        if let Some(at) = places.iter().position(|place| place.bytes >= bytes) {
            return Ok(places.swap_remove(at));
        }
        drop(places);
        let bytes = bytes.next_power_of_two().max(4096);
        let (mut memory, mut event) = (std::ptr::null_mut(), std::ptr::null_mut());
        call!(&self.place, cuMemHostAlloc(&mut memory, bytes, 0))?;
        let memory = Handle(memory);
        if let Err(error) = call!(&self.place, cuEventCreate(&mut event, sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32))
        {
            let _ = call!(&self.place, cuMemFreeHost(memory.0));
            return Err(error);
        }
        Ok(Place { memory, bytes, event: Handle(event) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // What the driver says here can be told to nobody.
        let _ = self.current();
        let _ = call!(&self.place, cuStreamSynchronize(self.handle.0));
        for place in std::mem::take(&mut *self.places()) {
            let _ = call!(&self.place, cuEventDestroy_v2(place.event.0));
            let _ = call!(&self.place, cuMemFreeHost(place.memory.0));
        }
        let _ = call!(&self.place, cuStreamDestroy_v2(self.handle.0));
        let _ = call!(&self.place, cuDevicePrimaryCtxRelease_v2(self.device));
    }
}

/// Bytes that the card copies to the host.
struct Arriving {
    stream: Arc<Stream>,
    /// Taken when it is waited for.
    place: Option<Place>,
    bytes: usize,
}

impl Arrival for Arriving {
    fn wait(mut self: Box<Self>) -> Result<Vec<u8>> {
        let Some(place) = &self.place else { return Ok(Vec::new()) };
        self.stream.current()?;
        if let Err(error) = call!(&self.stream.place, cuEventSynchronize(place.event.0)) {
            // The card may still write there: nobody gets it again.
            self.place = None;
            return Err(error);
        }
        let mut bytes = vec![0; self.bytes];
        // SAFETY: the place holds as many bytes at least, the copy into it is done, and nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(place.memory.0.cast::<u8>(), bytes.as_mut_ptr(), self.bytes) };
        Ok(bytes)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // What still arrives there does before what the next user has the card write.
        self.stream.places().extend(self.place.take());
    }
}

/// A graph that is ready to run.
struct Graph {
    stream: Arc<Stream>,
    handle: Handle<sys::CUgraphExec>,
}

impl Replay for Graph {
    fn replay(&self) -> Result<()> {
        self.stream.current()?;
        call!(&self.stream.place, cuGraphLaunch(self.handle.0, self.stream.handle.0))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // Not under its last run.
        let _ = self.stream.current();
        let _ = call!(&self.stream.place, cuStreamSynchronize(self.stream.handle.0));
        let _ = call!(&self.stream.place, cuGraphExecDestroy(self.handle.0));
    }
}

impl Cuda {
    /// Card number `index`.
    ///
    /// Errors: no driver, an old one, no card, no such card.
    pub(crate) fn new(index: usize, place: &str) -> Result<Self> {
        // SAFETY: opens the driver's library, whose constructors set up its own state.
        if !unsafe { sys::is_culib_present() } {
            let name = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
            return Err(fail(
                place,
                format!("no NVIDIA driver: {name} is not in the system's library path; installing the card's driver brings it"),
            ));
        }
        call!(place, cuInit(0))?;
        let mut version = 0;
        call!(place, cuDriverGetVersion(&mut version))?;
        if version < OLDEST_DRIVER {
            let named = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
            let message = format!(
                "the NVIDIA driver is for CUDA {}; {} or later is needed, a newer driver brings it",
                named(version),
                named(OLDEST_DRIVER)
            );
            return Err(fail(place, message));
        }
        let mut count = 0;
        call!(place, cuDeviceGetCount(&mut count))?;
        let device = c_int::try_from(index).ok().filter(|index| *index < count);
        let Some(device) = device else {
            let have = match count {
                0 => "there is no card that the driver shows".to_owned(),
                1 => "there is one card, cuda:0".to_owned(),
                n => format!("there are {n} cards, cuda:0 to cuda:{}", n - 1),
            };
            return Err(fail(place, format!("no card of this number: {have} (CUDA_VISIBLE_DEVICES may hide some)")));
        };
        let mut handle = 0;
        call!(place, cuDeviceGet(&mut handle, device))?;
        let mut name = [0 as c_char; 128];
        call!(place, cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, handle))?;
        // SAFETY: the last byte is left zero.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let attribute = |which| {
            let mut value = 0;
            call!(place, cuDeviceGetAttribute(&mut value, which, handle)).map(|()| value)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major * 10 + minor) as u32;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        if capability < 75 {
            return Err(fail(place, format!("{name} has compute capability {major}.{minor}; 7.5 or later is needed")));
        }
        let mut context = std::ptr::null_mut();
        call!(place, cuDevicePrimaryCtxRetain(&mut context, handle))?;
        let context = Handle(context);
        call!(place, cuCtxSetCurrent(context.0))?;
        let mut stream = std::ptr::null_mut();
        call!(place, cuStreamCreate(&mut stream, sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32))?;
        let (place, places) = (place.to_owned(), Mutex::default());
        Ok(Self {
            card: Card { name, capability, multiprocessors },
            stream: Arc::new(Stream { place, device: handle, context, handle: Handle(stream), places }),
            shared,
            cache: Cache::of_user(),
            compiler: OnceLock::new(),
            modules: Mutex::default(),
        })
    }

    /// The architecture that is compiled for: with the card's own instructions from Hopper on.
    fn architecture(&self) -> String {
        let suffix = if self.card.capability >= 90 { "a" } else { "" };
        format!("sm_{}{suffix}", self.card.capability)
    }

    fn module(&self, unit: &Unit) -> Result<Arc<Slot>> {
        let slot = self.modules.lock().unwrap_or_else(PoisonError::into_inner).entry(*unit).or_default().clone();
        let loaded = slot.get_or_init(|| self.load(unit).map_err(|e| e.to_string()));
        match loaded {
            Ok(_) => Ok(slot),
            Err(message) => Err(fail(&self.stream.place, message.clone())),
        }
    }

    fn load(&self, unit: &Unit) -> Result<Handle<sys::CUmodule>> {
        let (source, architecture) = (kernel(unit.source), self.architecture());
        let defines: Vec<String> = unit.defines().map(|(name, value)| format!("{name}={value}")).collect();
        let built_in = embedded::find(&source, &defines, self.card.capability);
        let built_in = built_in.and_then(|cubin| cubin.map(|cubin| self.load_module(&cubin)).transpose());
        // Where what was built in does not serve, a compiler does; where there is none, both are named.
        let reason = match built_in {
            Ok(Some(module)) => return Ok(module),
            Ok(None) => String::new(),
            Err(error) => format!("; {error}"),
        };
        let compiler = self.compiler.get_or_init(|| Nvrtc::new().map_err(|e| e.to_string()));
        // Of what another version of the compiler has made nothing is taken.
        let version = compiler.as_ref().map(Nvrtc::version).unwrap_or_default();
        let name = source.name.trim_end_matches(".cu");
        let key = Key::new(&(source, HEADERS, &defines, version, &architecture));
        if let Some(cubin) = self.cache.get(name, key)
            && let Ok(module) = self.load_module(&cubin)
        {
            return Ok(module);
        }
        let compiler = compiler.as_ref().map_err(|message| fail(&self.stream.place, format!("{message}{reason}")))?;
        let compiled = compiler.compile(&source, &architecture, &defines, &[])?;
        let module = self.load_module(&compiled.cubin)?;
        self.cache.put(name, key, &compiled.cubin);
        Ok(module)
    }

    fn load_module(&self, cubin: &[u8]) -> Result<Handle<sys::CUmodule>> {
        self.stream.current()?;
        let mut module = std::ptr::null_mut();
        // The image says itself how long it is; it was compiled a moment ago, or its checksum was right.
        call!(&self.stream.place, cuModuleLoadData(&mut module, cubin.as_ptr().cast()))?;
        Ok(Handle(module))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // What the driver says here can be told to nobody. Graphs are gone by now: a recording keeps its device.
        let _ = self.stream.current();
        let _ = call!(&self.stream.place, cuStreamSynchronize(self.stream.handle.0));
        for slot in self.modules.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if let Some(Ok(module)) = slot.get() {
                let _ = call!(&self.stream.place, cuModuleUnload(module.0));
            }
        }
    }
}

impl Driver for Cuda {
    fn card(&self) -> &Card {
        &self.card
    }

    fn alloc(&self, bytes: usize) -> Result<Option<Address>> {
        self.stream.current()?;
        let mut address = 0;
        // SAFETY: `address` is a place for the result.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) } {
            CUresult::CUDA_SUCCESS => Ok(Some(address)),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            status => Err(fail(&self.stream.place, format!("cuMemAlloc: {}", words(status)))),
        }
    }

    fn free(&self, address: Address) -> Result<()> {
        self.stream.current()?;
        // The driver waits for what uses it.
        call!(&self.stream.place, cuMemFree_v2(address))
    }

    fn room(&self) -> Result<(usize, usize)> {
        self.stream.current()?;
        let (mut free, mut total) = (0, 0);
        call!(&self.stream.place, cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((free, total))
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.stream.current()?;
        if bytes.is_empty() {
            return Ok(());
        }
        // `to` is a place in an allocation with room for `bytes`; pageable memory has been read when this returns.
        call!(&self.stream.place, cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), self.stream.handle.0))
    }

    fn download(&self, from: Address, into: &mut [u8]) -> Result<()> {
        self.stream.current()?;
        if into.is_empty() {
            return Ok(());
        }
        // `from` is a place in an allocation of at least as many bytes; `into` is written by the time the stream has been waited for.
        call!(&self.stream.place, cuMemcpyDtoHAsync_v2(into.as_mut_ptr().cast(), from, into.len(), self.stream.handle.0))?;
        call!(&self.stream.place, cuStreamSynchronize(self.stream.handle.0))
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Box<dyn Arrival>> {
        self.stream.current()?;
        let place = self.stream.place_for(bytes)?;
        let stream = self.stream.handle.0;
        if bytes > 0 {
            // `from` is a place in an allocation of at least as many bytes; `place` has room for them and is nobody else's.
            call!(&self.stream.place, cuMemcpyDtoHAsync_v2(place.memory.0, from, bytes, stream))?;
        }
        call!(&self.stream.place, cuEventRecord(place.event.0, stream))?;
        Ok(Box::new(Arriving { stream: self.stream.clone(), place: Some(place), bytes }))
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.stream.current()?;
        if bytes == 0 {
            return Ok(());
        }
        call!(&self.stream.place, cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream.handle.0))
    }

    fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Kernel> {
        let slot = self.module(unit)?;
        let Some(Ok(module)) = slot.get() else { unreachable!("module() has loaded it") };
        self.stream.current()?;
        let name = CString::new(entry).expect("entries are names");
        let mut function = std::ptr::null_mut();
        call!(&self.stream.place, cuModuleGetFunction(&mut function, module.0, name.as_ptr()))?;
        // A launch may ask for more dynamic shared memory than 48 KiB where that was allowed before: all that the function leaves.
        use sys::CUfunction_attribute_enum as Attribute;
        let mut own = 0;
        call!(&self.stream.place, cuFuncGetAttribute(&mut own, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function))?;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        call!(&self.stream.place, cuFuncSetAttribute(function, most, self.shared - own))?;
        Ok(Kernel { handle: function as usize, entry, parameters: None })
    }

    fn launch(&self, kernel: &Kernel, grid: &Grid, arguments: &Arguments) -> Result<()> {
        self.stream.current()?;
        let function = kernel.handle as sys::CUfunction;
        let mut pointers = [std::ptr::null_mut::<c_void>(); 32];
        for (pointer, bytes) in pointers.iter_mut().zip(arguments.iter()) {
            *pointer = bytes.as_ptr().cast_mut().cast();
        }
        let [x, y, z] = grid.blocks;
        // The function belongs to a module that lives as long as this device; the driver reads each argument's bytes before it returns, as
        // many as the kernel's parameter has, which the same launch on the emulator has compared; what kernels read and write lies in the
        // device's memory.
        call!(
            &self.stream.place,
            cuLaunchKernel(
                function,
                x,
                y,
                z,
                grid.threads,
                1,
                1,
                grid.shared,
                self.stream.handle.0,
                pointers.as_mut_ptr(),
                std::ptr::null_mut()
            )
        )
        .map_err(|error| fail(&self.stream.place, format!("{}: {error}", kernel.entry)))
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.current()?;
        call!(&self.stream.place, cuStreamSynchronize(self.stream.handle.0))
    }

    fn begin_graph(&self) -> Result<()> {
        self.stream.current()?;
        // Relaxed: memory may be asked for meanwhile.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        call!(&self.stream.place, cuStreamBeginCapture_v2(self.stream.handle.0, mode))
    }

    fn end_graph(&self) -> Result<Box<dyn Replay>> {
        self.stream.current()?;
        let (mut graph, mut handle) = (std::ptr::null_mut(), std::ptr::null_mut());
        call!(&self.stream.place, cuStreamEndCapture(self.stream.handle.0, &mut graph))?;
        let made = call!(&self.stream.place, cuGraphInstantiateWithFlags(&mut handle, graph, 0));
        call!(&self.stream.place, cuGraphDestroy(graph)).and(made)?;
        Ok(Box::new(Graph { stream: self.stream.clone(), handle: Handle(handle) }))
    }
}
