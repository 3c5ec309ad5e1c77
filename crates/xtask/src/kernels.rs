//! Compiles every CUDA kernel for every architecture with NVIDIA's own compiler, which needs no card: what it says, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use puna_cuda::{CheckedUnit, Nvrtc};

use crate::{Result, fixtures, root};

/// The architectures, with the least compute capability, times ten, that their code is for.
const ARCHITECTURES: [(&str, u32); 5] = [("sm_75", 75), ("sm_80", 80), ("sm_90a", 90), ("sm_100", 100), ("sm_120", 120)];

/// What the names of sources contain whose registers may not spill.
const FAST: [&str; 1] = ["_sm80"];

/// Where the table stands, between these two lines.
const PAGE: &str = "docs/kernels.md";
const BEGIN: &str = "<!-- kernels: begin -->";
const END: &str = "<!-- kernels: end -->";

/// What to compile.
#[derive(clap::Args)]
pub struct Request {
    /// Only sources whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Writes the table into docs/kernels.md.
    #[arg(long)]
    write: bool,
}

/// What a kernel needs of a card, the most over its definitions.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    registers: u32,
    spills: u32,
    shared: u32,
}

impl Needs {
    fn join(&mut self, other: Needs) {
        self.registers = self.registers.max(other.registers);
        self.spills = self.spills.max(other.spills);
        self.shared = self.shared.max(other.shared);
    }
}

/// By source and entry, for each architecture.
type Table = BTreeMap<(&'static str, String), BTreeMap<&'static str, Needs>>;

/// Compiles everything; false where something does not compile, a fast path spills registers, or the page says otherwise.
pub fn run(request: &Request, say: &mut dyn FnMut(&str)) -> Result<bool> {
    let compiler = compiler()?;
    let (major, minor) = compiler.version();
    let wanted = |unit: &CheckedUnit| request.only.as_ref().is_none_or(|only| unit.source.contains(only));
    let units: Vec<_> = puna_cuda::units().into_iter().filter(wanted).collect();
    let jobs: Vec<_> = units
        .iter()
        .flat_map(|unit| ARCHITECTURES.iter().filter(|(_, least)| *least >= unit.capability).map(move |(name, _)| (unit, *name)))
        .collect();
    say(&format!("NVRTC {major}.{minor}: {} units, {} compilations", units.len(), jobs.len()));
    let results = Mutex::new((Table::new(), Vec::new()));
    each_in_parallel(&jobs, |_, (unit, architecture)| {
        let source = puna_kernels::cuda::kernel(unit.source);
        let compiled = compiler.compile(&source, architecture, &unit.defines, &["--ptxas-options=--verbose"]);
        let mut results = results.lock().expect("no thread panics with it");
        match compiled {
            Ok(compiled) => {
                let place = format!("{} {} {architecture}", unit.source, unit.defines.join(" "));
                for (entry, needs) in entries(&compiled.log) {
                    // The plain kernels hold doubles too, and are not what anything waits for.
                    if needs.spills > 0 && FAST.iter().any(|word| unit.source.contains(word)) {
                        results.1.push(format!("{place} {entry}: {} bytes of registers spill", needs.spills));
                    }
                    results.0.entry((unit.source, entry)).or_default().entry(architecture).or_default().join(needs);
                }
                let warnings = compiled.log.lines().filter(|line| line.contains("warning"));
                results.1.extend(warnings.map(|line| format!("{place}: {line}")).collect::<Vec<_>>());
            }
            Err(error) => results.1.push(error.to_string()),
        }
    });
    let (table, mut complaints) = results.into_inner().expect("no thread panics with it");
    let text = markdown(&table);
    say(&text);
    if request.only.is_none() {
        let path = root().join(PAGE);
        let page = std::fs::read_to_string(&path)?;
        let begin = page.find(BEGIN).ok_or_else(|| format!("{PAGE}: no line {BEGIN}"))? + BEGIN.len();
        let end = page.find(END).ok_or_else(|| format!("{PAGE}: no line {END}"))?;
        let new = format!("{}\n{text}{}", &page[..begin], &page[end..]);
        if request.write {
            std::fs::write(&path, new)?;
        } else if names(&page[begin..end]) != names(&text) {
            complaints.push(format!("{PAGE} lists other kernels: cargo xtask kernels --write mends it"));
        }
    }
    complaints.iter().for_each(|line| say(line));
    Ok(complaints.is_empty())
}

/// NVIDIA's compiler: the one that `PUNA_NVRTC` names, else the fixtures'.
pub(crate) fn compiler() -> Result<Nvrtc> {
    let path = match std::env::var_os("PUNA_NVRTC") {
        Some(path) => PathBuf::from(path),
        None => {
            fixtures::fetch(&[fixtures::Fixture::Nvrtc])?;
            fixtures::nvrtc()
        }
    };
    Ok(Nvrtc::open(&path)?)
}

/// Does each job, with its number, on all processors.
pub(crate) fn each_in_parallel<J: Sync>(jobs: &[J], work: impl Fn(usize, &J) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((i, job)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, jobs.get(i)?))) {
                    work(i, job);
                }
            });
        }
    });
}

/// The kernels that a table lists: its numbers change with the compiler's version.
fn names(table: &str) -> BTreeSet<String> {
    table.lines().filter_map(|line| line.split('|').nth(2)).map(|name| name.trim().to_owned()).collect()
}

/// What the assembler says of each entry.
fn entries(log: &str) -> Vec<(String, Needs)> {
    let mut found: Vec<(String, Needs)> = Vec::new();
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1).and_then(|rest| rest.split('\'').next()) {
            found.push((name.to_owned(), Needs::default()));
        }
        let Some((_, needs)) = found.last_mut() else { continue };
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        for three in words.windows(3) {
            match three {
                [n, "registers", ..] => needs.registers = n.parse().unwrap_or(0),
                [n, "bytes", "smem"] => needs.shared = n.parse().unwrap_or(0),
                [n, "bytes", "spill"] => needs.spills = needs.spills.max(n.parse().unwrap_or(0)),
                _ => {}
            }
        }
        if let ["Used", n, "registers", ..] = words[..] {
            needs.registers = n.parse().unwrap_or(0);
        }
    }
    found
}

fn markdown(table: &Table) -> String {
    let mut text = String::from("| source | kernel |");
    for (name, _) in ARCHITECTURES {
        let _ = write!(text, " {name} |");
    }
    text += " shared |\n| --- | --- |";
    text += &" --- |".repeat(ARCHITECTURES.len() + 1);
    text.push('\n');
    for ((source, entry), architectures) in table {
        let _ = write!(text, "| {source} | `{entry}` |");
        for (name, _) in ARCHITECTURES {
            let _ = match architectures.get(name) {
                Some(needs) if needs.spills > 0 => write!(text, " {} (spills {}) |", needs.registers, needs.spills),
                Some(needs) => write!(text, " {} |", needs.registers),
                None => write!(text, " |"),
            };
        }
        let shared = architectures.values().map(|needs| needs.shared).max().unwrap_or(0);
        let _ = writeln!(text, " {shared} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembler_is_understood() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'rope' for 'sm_80'\n\
                   ptxas info    : Function properties for rope\n    0 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n\
                   ptxas info    : Used 32 registers, used 1 barriers, 64 bytes smem, 500 bytes cmem[0]";
        let found = entries(log);
        let [(name, needs)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((name.as_str(), needs.registers, needs.spills, needs.shared), ("rope", 32, 8, 64));
    }
}
