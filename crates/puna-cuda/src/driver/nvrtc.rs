//! NVIDIA's run-time compiler, found when it is first needed: beside the toolkit, in the system, among Python's packages, or where
//! `PUNA_NVRTC` says.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;
use puna_kernels::cuda::{HEADERS, Source};
use puna_tensor::{Error, Kind, Result};

type Program = *mut c_void;
type Status = c_int;

/// The compiler.
pub struct Nvrtc {
    version: (i32, i32),
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    /// Keeps the functions in memory.
    _library: Library,
}

/// What a compilation gives.
pub struct Compiled {
    /// The machine code, as the driver loads it.
    pub cubin: Vec<u8>,
    /// What the compiler said beside.
    pub log: String,
}

fn fail(message: impl Into<String>) -> Error {
    Error::new(Kind::Backend, "nvrtc", message)
}

/// The names that the library has, the newest first.
const NAMES: &[&str] = if cfg!(windows) {
    &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
} else {
    &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
};

/// The folders that may hold it, beside those that the system searches.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = std::env::var_os(variable) {
            found.extend(["lib64", "lib", "bin"].map(|folder| Path::new(&home).join(folder)));
        }
    }
    found.push("/usr/local/cuda/lib64".into());
    for site in site_packages() {
        found.extend(["cu13/lib", "cuda_nvrtc/lib"].map(|folder| site.join("nvidia").join(folder)));
    }
    found
}

/// Where Python's packages lie: those of an active environment, the user's, the system's.
fn site_packages() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(std::env::var_os(variable).map(|root| Path::new(&root).join("lib")));
    }
    roots.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/lib")));
    roots.extend(["/usr/local/lib", "/usr/lib"].map(PathBuf::from));
    let mut found = Vec::new();
    for root in roots {
        let mut versions: Vec<PathBuf> =
            std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        versions.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")));
        versions.sort();
        found.extend(versions.iter().rev().flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name))));
    }
    found
}

fn load(path: &Path) -> std::result::Result<Library, libloading::Error> {
    // SAFETY: NVRTC's constructors set up its own state; whoever may put another library there may replace this program too.
    unsafe { Library::new(path) }
}

/// Opens the library; where it was looked for, if it is nowhere.
fn find() -> Result<(Library, PathBuf)> {
    if let Some(path) = std::env::var_os("PUNA_NVRTC").map(PathBuf::from) {
        let library = load(&path);
        return library.map(|library| (library, path.clone())).map_err(|e| fail(format!("PUNA_NVRTC {}: {e}", path.display())));
    }
    let folders = folders();
    for name in NAMES {
        let beside = folders.iter().map(|folder| folder.join(name)).filter(|path| path.exists());
        for path in beside.chain([PathBuf::from(name)]) {
            if let Ok(library) = load(&path) {
                return Ok((library, path));
            }
        }
    }
    let places: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(fail(format!(
        "the run-time compiler was not found: {} are neither in the system's library path nor in {}; `pip install nvidia-cuda-nvrtc` \
         or the CUDA toolkit brings it, and PUNA_NVRTC may name the file",
        NAMES.join(", "),
        places.join(", ")
    )))
}

impl Nvrtc {
    /// Finds the compiler.
    ///
    /// Errors: it is nowhere, with the places that were looked at; it lacks a function that is needed.
    pub fn new() -> Result<Self> {
        let (library, path) = find()?;
        Self::of(library, &path)
    }

    /// The compiler in this file.
    ///
    /// Errors: it is none.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(load(path).map_err(|e| fail(format!("{}: {e}", path.display())))?, path)
    }

    fn of(library: Library, path: &Path) -> Result<Self> {
        macro_rules! symbol {
            ($name:literal) => {{
                let missing = |e: libloading::Error| fail(format!("{}: {e}; CUDA 12 or later is needed", path.display()));
                // SAFETY: the symbol has the type that NVRTC's header gives it, that of the field it fills.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(missing)?
            }};
        }
        let get_version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = symbol!("nvrtcVersion");
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are places for an int.
        let status = unsafe { get_version(&mut major, &mut minor) };
        if status != 0 || major < 12 {
            return Err(fail(format!("{} is version {major}.{minor}; 12 or later is needed", path.display())));
        }
        Ok(Self {
            version: (major, minor),
            create: symbol!("nvrtcCreateProgram"),
            compile: symbol!("nvrtcCompileProgram"),
            log_size: symbol!("nvrtcGetProgramLogSize"),
            log: symbol!("nvrtcGetProgramLog"),
            cubin_size: symbol!("nvrtcGetCUBINSize"),
            cubin: symbol!("nvrtcGetCUBIN"),
            destroy: symbol!("nvrtcDestroyProgram"),
            _library: library,
        })
    }

    /// The version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles a source for an architecture (`sm_90a`), with definitions (`T=bf16`) and more options.
    ///
    /// Errors: what the compiler says, whole.
    pub fn compile(&self, source: &Source, architecture: &str, defines: &[String], more: &[&str]) -> Result<Compiled> {
        let text = |text: &str| CString::new(text).map_err(|_| fail("a source holds a zero byte"));
        let (name, body) = (text(source.name)?, text(source.text)?);
        let headers = HEADERS.iter().map(|header| Ok((text(header.name)?, text(header.text)?))).collect::<Result<Vec<_>>>()?;
        let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let mut options = vec![text(&format!("--gpu-architecture={architecture}"))?, text("--std=c++17")?];
        for define in defines {
            options.push(text(&format!("-D{define}"))?);
        }
        for option in more {
            options.push(text(option)?);
        }
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: strings end in zero and outlive the call, the arrays have as many entries as is said, and `program` is a place for it.
        let status = unsafe {
            (self.create)(&mut program, body.as_ptr(), name.as_ptr(), names.len() as c_int, texts.as_ptr(), names.as_ptr())
        };
        if status != 0 {
            return Err(fail(format!("{}: no program could be made of it (status {status})", source.name)));
        }
        // SAFETY: the program was made above; the options outlive the call.
        let status = unsafe { (self.compile)(program, options.len() as c_int, options.as_ptr()) };
        let log = self.text_of(program);
        let compiled = if status == 0 { self.cubin_of(program) } else { Err(fail(format!("status {status}"))) };
        // SAFETY: the program is not used again.
        unsafe { (self.destroy)(&mut program) };
        let place = || format!("{} ({}) for {architecture}", source.name, defines.join(" "));
        match compiled {
            Ok(cubin) => Ok(Compiled { cubin, log }),
            Err(error) => Err(fail(format!("{} does not compile: {error}\n{log}", place()))),
        }
    }

    fn text_of(&self, program: Program) -> String {
        let mut size = 0;
        // SAFETY: `size` is a place for the length, and `bytes` has that many.
        let bytes = unsafe {
            if (self.log_size)(program, &mut size) != 0 {
                return String::new();
            }
            let mut bytes = vec![0u8; size + 1];
            (self.log)(program, bytes.as_mut_ptr().cast());
            bytes
        };
        CStr::from_bytes_until_nul(&bytes).map_or_else(|_| String::new(), |text| text.to_string_lossy().trim().to_owned())
    }

    fn cubin_of(&self, program: Program) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: `size` is a place for the length, and `bytes` has that many.
        unsafe {
            if (self.cubin_size)(program, &mut size) != 0 || size == 0 {
                return Err(fail("no machine code"));
            }
            let mut bytes = vec![0u8; size];
            match (self.cubin)(program, bytes.as_mut_ptr().cast()) {
                0 => Ok(bytes),
                status => Err(fail(format!("status {status}"))),
            }
        }
    }
}
