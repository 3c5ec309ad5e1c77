//! Compiles every CUDA kernel for every card, into one file that a program may have built in (`puna-cuda`'s feature `prebuilt`).

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use puna_cuda::{CheckedUnit, Cubin, Cubins, pack};
use puna_kernels::cuda::kernel;

use crate::kernels::{compiler, each_in_parallel};
use crate::{Result, root};

/// The architectures of the release set, with the least compute capability, times ten, that their code is for. Code of sm_80 runs on 8.6
/// and 8.9 too, a little slower; code of sm_100 on 10.3, of sm_120 on 12.1; of sm_90a on 9.0 alone.
pub const ARCHITECTURES: [(&str, u32); 7] =
    [("sm_75", 75), ("sm_80", 80), ("sm_86", 86), ("sm_89", 89), ("sm_90a", 90), ("sm_100", 100), ("sm_120", 120)];

/// The name of the file.
pub const FILE: &str = "puna.cubins";

/// What to compile.
#[derive(clap::Args)]
pub struct Request {
    /// The folder that the file is put into.
    folder: PathBuf,
    /// Only sources whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only these architectures: sm_80,sm_90a.
    #[arg(long, value_delimiter = ',')]
    architectures: Vec<String>,
}

/// Makes the file.
pub fn run(request: &Request, say: &mut dyn FnMut(&str)) -> Result<bool> {
    for name in &request.architectures {
        if !ARCHITECTURES.iter().any(|(known, _)| known == name) {
            return Err(format!("{name}: there are {}", ARCHITECTURES.map(|(name, _)| name).join(", ")).into());
        }
    }
    let unit = |unit: &CheckedUnit| request.only.as_ref().is_none_or(|only| unit.source.contains(only));
    let architecture = |name: &str| request.architectures.is_empty() || request.architectures.iter().any(|wanted| wanted == name);
    let path = make(&root().join(&request.folder), &unit, &architecture, say)?;
    say(&format!("PUNA_CUBINS={}", path.display()));
    Ok(true)
}

/// Makes the file in a folder, of the units and architectures that are wanted; what it holds already of this program's sources and by this
/// version of the compiler is kept.
///
/// Errors: what the compiler says, if something does not compile.
pub fn make(
    folder: &Path,
    unit: &dyn Fn(&CheckedUnit) -> bool,
    architecture: &dyn Fn(&str) -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let compiler = compiler()?;
    let (major, minor) = compiler.version();
    let version = (major as u32, minor as u32);
    std::fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    let before = std::fs::read(&path).unwrap_or_default();
    let before = Cubins::read(&before).ok().filter(|before| before.compiler() == version);
    let units: Vec<_> = puna_cuda::release_units().into_iter().filter(unit).collect();
    let architectures = || ARCHITECTURES.into_iter().filter(|(name, _)| architecture(name));
    let jobs: Vec<_> = units
        .iter()
        .flat_map(|unit| architectures().filter(|(_, least)| *least >= unit.capability).map(move |(name, _)| (unit, name)))
        .collect();
    let kept = |unit: &CheckedUnit, architecture: &str| {
        before.as_ref()?.find_exactly(&kernel(unit.source), &unit.defines, architecture).ok()
    };
    let (made, complaints) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    each_in_parallel(&jobs, |i, (unit, architecture)| {
        let old = kept(unit, architecture);
        let new = old.is_none();
        let compiled = match old {
            Some(code) => Ok(code),
            None => compiler.compile(&kernel(unit.source), architecture, &unit.defines, &[]).map(|compiled| compiled.cubin),
        };
        match compiled {
            Ok(code) => {
                let cubin =
                    Cubin { source: unit.source, defines: unit.defines.clone(), architecture: (*architecture).to_owned(), code };
                made.lock().expect("no thread panics with it").push((i, new, cubin));
            }
            Err(error) => complaints.lock().expect("no thread panics with it").push(error.to_string()),
        }
    });
    let complaints = complaints.into_inner().expect("no thread panics with it");
    if !complaints.is_empty() {
        return Err(complaints.join("\n").into());
    }
    // In the order of the units, so that the same sources give the same file.
    let mut made = made.into_inner().expect("no thread panics with it");
    made.sort_by_key(|(i, ..)| *i);
    let compiled = made.iter().filter(|(_, new, _)| *new).count();
    let cubins: Vec<Cubin> = made.into_iter().map(|(.., cubin)| cubin).collect();
    let plain: usize = cubins.iter().map(|cubin| cubin.code.len()).sum();
    let file = pack(version, &cubins);
    let part = path.with_extension("part");
    std::fs::write(&part, &file)?;
    std::fs::rename(&part, &path)?;
    say(&format!(
        "NVRTC {major}.{minor}: {} kernels for {} architectures, {compiled} of them compiled; {:.1} MB, packed {:.1} MB",
        cubins.len(),
        architectures().count(),
        plain as f64 / 1e6,
        file.len() as f64 / 1e6
    ));
    Ok(path)
}
