//! Golden outputs of reference implementations, compared one by one.
//!
//! A folder is searched for goldens by what its files hold, not by names that are known. What cannot be run yet is named as skipped.

mod checkpoints;
mod losses;
mod tables;
mod tokenizers;
mod training;

use std::fmt::Display;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use puna::prelude::*;
use safetensors::SafeTensors;

use crate::Result;

/// How a golden came out.
pub enum Outcome {
    /// As it should, with what was measured.
    Right(String),
    /// Off, with what was measured and what would be right.
    Off(String),
    /// Not run, and why.
    Skipped(String),
}

impl Outcome {
    /// Right where `error` is at most `bound`.
    fn within(error: f64, bound: f64, what: &str) -> Self {
        let line = format!("{what} off by {error:.2e}, at most {bound:.1e}");
        // A NaN is not within anything.
        if error <= bound { Self::Right(line) } else { Self::Off(line) }
    }

    /// Right where nothing of `total` is off.
    fn exact(wrong: usize, total: usize, what: &str) -> Self {
        if wrong == 0 { Self::Right(format!("{total} {what}")) } else { Self::Off(format!("{wrong} of {total} {what} off")) }
    }
}

/// What is said of each golden.
struct Report<'a> {
    say: &'a mut dyn FnMut(&str),
    right: usize,
    off: usize,
    skipped: usize,
}

impl Report<'_> {
    fn tell(&mut self, golden: impl Display, outcome: Result<Outcome>) {
        let (word, message, count) = match outcome {
            Ok(Outcome::Right(message)) => ("ok", message, &mut self.right),
            Ok(Outcome::Off(message)) => ("OFF", message, &mut self.off),
            Ok(Outcome::Skipped(message)) => ("skipped", message, &mut self.skipped),
            Err(error) => ("OFF", error.to_string(), &mut self.off),
        };
        *count += 1;
        (self.say)(&format!("{word:7} {golden}: {message}"));
    }
}

/// A device by name; `cuda-emulator` is CUDA's kernels on the processor.
pub(crate) fn device_of(name: &str, threads: Option<NonZeroUsize>) -> Result<Device> {
    match name {
        "cuda-emulator" => Ok(puna_cuda::emulated(puna_cuda::EmulatorOptions::default())?),
        _ => match name.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            // Not by a feature of the facade: what is built from the root would build it for every example.
            Some(index) => Ok(puna_cuda::device(index, puna_cuda::Options::default())?),
            None if name.starts_with("wgpu") => Ok(puna_wgpu::device(&name.parse()?, puna_wgpu::Options::default())?),
            None => Ok(puna::device_with_threads(name, threads)?),
        },
    }
}

/// Runs every golden below `folder` on a device; false where one is off, or none was found.
pub fn run(folder: &Path, device: &str, say: &mut dyn FnMut(&str)) -> Result<bool> {
    if !folder.is_dir() {
        return Err(format!("{}: there is no such folder", folder.display()).into());
    }
    let on = device_of(device, None)?;
    let mut report = Report { say, right: 0, off: 0, skipped: 0 };
    visit(folder, folder, device, &on, &mut report)?;
    let Report { say, right, off, skipped } = report;
    say(&format!("{right} right, {off} off, {skipped} skipped"));
    Ok(off == 0 && right > 0)
}

fn visit(root: &Path, folder: &Path, name: &str, device: &Device, report: &mut Report<'_>) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    let label = folder.strip_prefix(root).unwrap_or(folder).display().to_string();
    if folder.join("expected.safetensors").exists() {
        checkpoints::check(&label, folder, name, device, report);
    }
    for path in &entries {
        let label = path.strip_prefix(root).unwrap_or(path).display().to_string();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => tables::check(&label, path, device, report),
            Some("jsonl") => tokenizers::check(&label, path, report),
            _ => {}
        }
    }
    for path in entries.iter().filter(|path| path.is_dir()) {
        visit(root, path, name, device, report)?;
    }
    Ok(())
}

/// The norm of the difference over the norm of what is right; 0 where both are zero.
fn relative(got: &[f32], right: &[f32]) -> f64 {
    if got.len() != right.len() {
        return f64::INFINITY;
    }
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&a, &b) in got.iter().zip(right) {
        difference += (f64::from(a) - f64::from(b)).powi(2);
        norm += f64::from(b).powi(2);
    }
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// A golden's values as f32, whatever float they are stored in.
fn floats(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    Ok(doubles(file, name)?.into_iter().map(|value| value as f32).collect())
}

fn doubles(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f64>> {
    use safetensors::Dtype;
    let tensor = file.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => Ok(bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four")))).collect()),
        Dtype::F64 => Ok(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight"))).collect()),
        Dtype::I64 => Ok(bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight")) as f64).collect()),
        other => Err(format!("{name} is {other:?}; goldens hold floats and i64").into()),
    }
}

fn ids(file: &SafeTensors<'_>, name: &str) -> Result<Vec<u32>> {
    Ok(doubles(file, name)?.into_iter().map(|value| value as u32).collect())
}
