//! The emulator as a driver: each unit is compiled by the host's C++ compiler and run in this process, its threads as fibers.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use puna_kernels::cuda::{EMULATOR, HEADERS, Source, kernel};
use puna_tensor::{Arrival, Error, Kind, Replay, Result};

use super::{Address, Card, Driver, Kernel, Unit};
use crate::launch::{Arguments, Grid};

/// How kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// For speed. Accesses past the end of an allocation are still found, at its guard page.
    #[default]
    Fast,
    /// Every load and store is seen: races, bounds, uninitialised shared memory, misalignment.
    Check,
    /// Under AddressSanitizer, whose library the process must have been started with (`LD_PRELOAD`). A process has either this mode or
    /// the others.
    Address,
}

/// When asynchronous copies take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Completion {
    /// At once.
    AtOnce,
    /// When they are waited for.
    #[default]
    AsLateAsAllowed,
    /// At a moment that follows from the seed.
    BySeed,
}

/// How the emulator runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How they are compiled.
    pub mode: Mode,
    /// When asynchronous copies take effect.
    pub completion: Completion,
    /// 0 runs threads and blocks in order; any other shuffles them.
    pub seed: u32,
    /// The compute capability that it takes the place of, times ten: 75, 80, 90.
    pub capability: u32,
    /// Whether memory that is let go is kept and used again, as on a card. By default each tensor has memory of its own, which ends at a page that
    /// cannot be touched.
    pub pooled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::Fast, completion: Completion::AsLateAsAllowed, seed: 0, capability: 80, pooled: false }
    }
}

/// The runtime's functions.
struct Runtime {
    alloc: extern "C" fn(usize) -> *mut c_void,
    free: extern "C" fn(*mut c_void) -> c_int,
    load: extern "C" fn(*const c_char) -> *mut c_void,
    function: extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
    launch: extern "C" fn(*mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int,
    parameters: extern "C" fn(*mut c_void) -> c_int,
    parameter: extern "C" fn(*mut c_void, c_int) -> c_uint,
    option: extern "C" fn(*const c_char, i64) -> c_int,
    error: extern "C" fn() -> *const c_char,
    /// Keeps the functions in memory.
    _library: Library,
}

/// The runtime has one current block: what is asked of it in a process takes turns.
static RUNTIME: OnceLock<std::result::Result<Mutex<Runtime>, String>> = OnceLock::new();

fn fail(message: impl Into<String>) -> Error {
    Error::new(Kind::Backend, "emulator", message)
}

/// A change of a kernel's text before it is compiled: how tests plant mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The name of the source, or of a header.
    pub source: &'static str,
    /// What stands there.
    pub from: &'static str,
    /// What is to stand there.
    pub to: &'static str,
}

impl Runtime {
    /// The runtime of this process, which the first device has made.
    fn get() -> Result<MutexGuard<'static, Runtime>> {
        Self::of(Mode::Fast)
    }

    fn of(mode: Mode) -> Result<MutexGuard<'static, Runtime>> {
        let runtime = RUNTIME.get_or_init(|| Self::new(mode == Mode::Address).map(Mutex::new));
        let runtime = runtime.as_ref().map_err(|message| fail(message.clone()))?;
        Ok(runtime.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn new(address: bool) -> std::result::Result<Self, String> {
        let source = EMULATOR.iter().find(|source| source.name == "runtime.cpp").expect("the runtime is one of the sources");
        let path = produce("runtime", &hash(&(EMULATOR, address)), |folder, out| {
            write_all(folder, EMULATOR)?;
            let mut command = compiler();
            if address {
                command.arg("-fsanitize=address");
            }
            run(command.args(["-O2", "-shared", "-o"]).arg(out).arg(folder.join(source.name)).arg("-ldl"))
        })?;
        // SAFETY: the library is our own; its constructors do nothing.
        let library =
            unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| format!("{}: {e}", path.display()))?;
        macro_rules! symbol {
            ($name:literal) => {{
                // SAFETY: `emu.h` declares it with the type of the field that it fills.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|e| e.to_string())?
            }};
        }
        Ok(Self {
            alloc: symbol!("emu_mem_alloc"),
            free: symbol!("emu_mem_free"),
            load: symbol!("emu_module_load"),
            function: symbol!("emu_get_function"),
            launch: symbol!("emu_launch"),
            parameters: symbol!("emu_param_count"),
            parameter: symbol!("emu_param_size"),
            option: symbol!("emu_set_option"),
            error: symbol!("emu_last_error"),
            _library: library,
        })
    }

    fn last_error(&self) -> Error {
        // SAFETY: the runtime returns a string that lives until its next call, and this thread holds the runtime.
        let text = unsafe { CStr::from_ptr((self.error)()) };
        fail(text.to_string_lossy())
    }
}

/// A module, compiled by the first who asks for it, while others compile others.
type Slot = OnceLock<std::result::Result<usize, String>>;

pub(crate) struct Emulator {
    card: Card,
    options: Options,
    edits: Vec<Edit>,
    modules: Mutex<HashMap<Unit, Arc<Slot>>>,
    /// What was asked for since a graph was begun.
    noted: Mutex<Option<Vec<Work>>>,
}

/// What a device does on its own.
enum Work {
    Launch { kernel: usize, grid: Grid, arguments: Box<Arguments> },
    Copy { to: Address, from: Address, bytes: usize },
}

impl Work {
    fn run(&self, options: &Options) -> Result<()> {
        let runtime = Runtime::get()?;
        match self {
            Self::Launch { kernel, grid, arguments } => {
                let mut pointers: Vec<*mut c_void> = arguments.iter().map(|bytes| bytes.as_ptr() as *mut c_void).collect();
                let Options { mode, completion, seed, .. } = *options;
                (runtime.option)(c"check".as_ptr(), i64::from(mode == Mode::Check));
                (runtime.option)(c"async".as_ptr(), completion as i64);
                (runtime.option)(c"seed".as_ptr(), seed.into());
                let [x, y, z] = grid.blocks;
                let rc =
                    (runtime.launch)(*kernel as *mut c_void, x, y, z, grid.threads, 1, 1, grid.shared, pointers.as_mut_ptr());
                if rc == 0 { Ok(()) } else { Err(runtime.last_error()) }
            }
            &Self::Copy { to, from, bytes } => {
                // SAFETY: both lie in allocations with room for `bytes` bytes, and may be the same; nothing runs while this thread holds the
                // runtime.
                unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
                Ok(())
            }
        }
    }
}

/// Work that was noted.
struct Graph {
    work: Vec<Work>,
    options: Options,
}

impl Replay for Graph {
    fn replay(&self) -> Result<()> {
        self.work.iter().try_for_each(|work| work.run(&self.options))
    }
}

impl Emulator {
    /// Does it, or notes it where a graph was begun.
    fn ask(&self, work: Work) -> Result<()> {
        match &mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(noted) => noted.push(work),
            None => return work.run(&self.options),
        }
        Ok(())
    }

    pub(crate) fn new(options: Options, edits: Vec<Edit>) -> Result<Self> {
        drop(Runtime::of(options.mode)?);
        let card =
            Card { name: format!("emulator of sm_{}", options.capability), capability: options.capability, multiprocessors: 1 };
        Ok(Self { card, options, edits, modules: Mutex::default(), noted: Mutex::default() })
    }

    /// The module of a unit, compiled by the first who asks, while others compile other units.
    fn module(&self, unit: &Unit) -> Result<usize> {
        let cell = self.modules.lock().unwrap_or_else(PoisonError::into_inner).entry(*unit).or_default().clone();
        let module = cell.get_or_init(|| {
            let path = self.build(unit)?;
            let path = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
            let runtime = Runtime::get().map_err(|e| e.to_string())?;
            let module = (runtime.load)(path.as_ptr());
            if module.is_null() { Err(runtime.last_error().to_string()) } else { Ok(module as usize) }
        });
        module.clone().map_err(fail)
    }

    /// A file's text with what tests have changed in it.
    fn edited(&self, file: &Source) -> String {
        let mut text = file.text.to_owned();
        for edit in self.edits.iter().filter(|edit| edit.source == file.name) {
            assert!(text.contains(edit.from), "{} holds what is to be changed: {:?}", edit.source, edit.from);
            text = text.replacen(edit.from, edit.to, 1);
        }
        text
    }

    fn build(&self, unit: &Unit) -> std::result::Result<PathBuf, String> {
        let source = kernel(unit.source);
        let text = self.edited(&source);
        let headers: Vec<(&str, String)> = HEADERS.iter().map(|header| (header.name, self.edited(header))).collect();
        let Options { mode, capability, .. } = self.options;
        let defines: Vec<_> = unit.defines().map(|(name, value)| format!("-D{name}={value}")).collect();
        let name: String = unit.defines().map(|(_, value)| format!("-{value}")).collect();
        let name = format!("{}{name}", source.name.trim_end_matches(".cu"));
        produce(&name, &hash(&(&text, &headers, EMULATOR, &defines, mode, capability)), |folder, out| {
            let write = |name: &str, text: &str| {
                let file = folder.join(name);
                std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display())).map(|()| file)
            };
            for (name, text) in &headers {
                write(name, text)?;
            }
            // Behind those of the card: one has the name and the interface of another.
            write_all(folder, EMULATOR)?;
            write(source.name, &text)?;
            let mut unit = format!("#include \"cuda_host.hpp\"\n#include \"{}\"\n", source.name);
            for (entry, bound) in entries(&text) {
                unit += &format!("EMU_ENTRY({entry}, {bound})\n");
            }
            let file = write("unit.cpp", &unit)?;
            let mut command = compiler();
            command.args(&defines).arg(format!("-D__CUDA_ARCH__={}", capability * 10)).arg("-I").arg(folder);
            match mode {
                Mode::Fast => command.arg("-O2"),
                Mode::Address => command.args(["-O1", "-fsanitize=address"]),
                Mode::Check => command.args([
                    "-O1",
                    "-fsanitize=thread",
                    "--param",
                    "tsan-instrument-func-entry-exit=0",
                    "-fsanitize=bounds,shift,alignment",
                    "-fno-sanitize-recover=bounds,shift,alignment",
                    "-fno-tree-vectorize",
                    "-ftrivial-auto-var-init=pattern",
                ]),
            };
            let object = folder.join("unit.o");
            run(command.arg("-c").arg(&file).arg("-o").arg(&object))?;
            // Linked without a sanitizer's library: the runtime has its hooks.
            let mut link = compiler();
            if mode == Mode::Address {
                link.arg("-fsanitize=address");
            }
            run(link.arg("-shared").arg("-o").arg(out).arg(&object))
        })
    }
}

/// The entries of a source and their launch bounds. No entry stands behind an `#if`, so that all are there whatever is defined.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in text.split("extern \"C\" __global__ void").skip(1) {
        let mut rest = part.trim_start();
        let mut bound = "0".to_owned();
        if let Some(after) = rest.strip_prefix("__launch_bounds__(") {
            let (inner, after) = after.split_once(')').unwrap_or((after, ""));
            bound = inner.split(',').next().unwrap_or("0").to_owned();
            rest = after.trim_start();
        }
        let name = rest.split('(').next().unwrap_or("").trim();
        found.push((name.to_owned(), bound));
    }
    found
}

fn hash(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Where compiled units are kept.
fn cache() -> PathBuf {
    std::env::var_os("PUNA_EMULATOR_CACHE").map_or_else(|| std::env::temp_dir().join("puna-emulator"), PathBuf::from)
}

/// The library of this name and hash, made by `build` (in a folder of its own, to a path) where the cache lacks it. It appears whole, so
/// that processes side by side do not meet half a file.
fn produce(
    name: &str,
    hash: &str,
    build: impl FnOnce(&Path, &Path) -> std::result::Result<(), String>,
) -> std::result::Result<PathBuf, String> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let path = cache().join(format!("{name}-{hash}.so"));
    if path.exists() {
        return Ok(path);
    }
    let unique = format!("{name}-{hash}.{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = cache().join(unique);
    let place = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(place)?;
    let out = folder.join("unit.so");
    build(&folder, &out)?;
    std::fs::rename(&out, &path).map_err(place)?;
    std::fs::remove_dir_all(&folder).map_err(place)?;
    Ok(path)
}

fn write_all<'a>(folder: &Path, sources: impl IntoIterator<Item = &'a Source>) -> std::result::Result<(), String> {
    for source in sources {
        let path = folder.join(source.name);
        std::fs::write(&path, source.text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn compiler() -> Command {
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
    command.args(["-std=c++17", "-fPIC", "-g1", "-gdwarf-4", "-w", "-fno-strict-aliasing", "-fsigned-char"]);
    command
}

fn run(command: &mut Command) -> std::result::Result<(), String> {
    // What this process was started with is not the compiler's.
    command.env_remove("LD_PRELOAD");
    let output =
        command.output().map_err(|e| format!("{}: {e}; the emulator needs a C++ compiler", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr)))
}

impl Driver for Emulator {
    fn card(&self) -> &Card {
        &self.card
    }

    fn alloc(&self, bytes: usize) -> Result<Option<Address>> {
        // More than a process can ask for is refused as a card refuses what it does not hold.
        if bytes > 1 << 40 {
            return Ok(None);
        }
        let address = (Runtime::get()?.alloc)(bytes.max(1)) as Address;
        Ok((address != 0).then_some(address))
    }

    fn free(&self, address: Address) -> Result<()> {
        let runtime = Runtime::get()?;
        match (runtime.free)(address as *mut c_void) {
            0 => Ok(()),
            _ => Err(runtime.last_error()),
        }
    }

    fn room(&self) -> Result<(usize, usize)> {
        Ok((1 << 40, 1 << 40))
    }

    fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let _turn = Runtime::get()?;
        // SAFETY: `to` is the beginning of an allocation (or a place in one) with room for `bytes`; nothing runs while this thread holds the
        // runtime.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, into: &mut [u8]) -> Result<()> {
        let _turn = Runtime::get()?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Box<dyn Arrival>> {
        let mut into = vec![0; bytes];
        self.download(from, &mut into)?;
        Ok(Box::new(into))
    }

    fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.ask(Work::Copy { to, from, bytes })
    }

    fn kernel(&self, unit: &Unit, entry: &'static str) -> Result<Kernel> {
        let module = self.module(unit)?;
        let runtime = Runtime::get()?;
        let name = CString::new(entry).expect("entries are names");
        let function = (runtime.function)(module as *mut c_void, name.as_ptr());
        if function.is_null() {
            return Err(runtime.last_error());
        }
        let count = (runtime.parameters)(function);
        let parameters = (0..count).map(|i| (runtime.parameter)(function, i) as usize).collect();
        Ok(Kernel { handle: function as usize, entry, parameters: Some(parameters) })
    }

    fn launch(&self, kernel: &Kernel, grid: &Grid, arguments: &Arguments) -> Result<()> {
        self.ask(Work::Launch { kernel: kernel.handle, grid: *grid, arguments: Box::new(arguments.clone()) })
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn begin_graph(&self) -> Result<()> {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        Ok(())
    }

    fn end_graph(&self) -> Result<Box<dyn Replay>> {
        let work = self.noted.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        Ok(Box::new(Graph { work, options: self.options }))
    }
}
